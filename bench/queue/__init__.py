"""The queue engine beside BullMQ for Node and the stock Python package, on one Valkey, in turns."""
