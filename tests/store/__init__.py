"""Tests of the store: what the moves leave in a real Postgres."""
