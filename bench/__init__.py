"""Comparisons with what else could do the work, run by hand: `make bench`, `make bench-queue`."""
