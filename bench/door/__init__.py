"""The door's hot routes: what one message costs the API process, of this tree and, beside it, of another."""
