"""What the guarantees are for: kills, cuts, wipes and repeats, with hundreds of messages in flight, and a count at the end."""
