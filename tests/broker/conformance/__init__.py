"""The queue engine beside BullMQ for Node: the same scenarios, the same keys, and each other's jobs."""
