"""The queue engine, on a real Valkey."""
