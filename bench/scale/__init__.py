"""Whether a message costs the same whatever waits, whatever is stored, with more workers, and after an hour."""
