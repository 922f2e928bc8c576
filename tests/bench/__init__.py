"""The benchmark's own logic, where a mistake would make it say what is not so."""
