"""Tests of the store's records: what a caller creates, reads, changes and deletes, each within one customer."""
