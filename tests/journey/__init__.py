"""The whole way of a message, through real queues, stores and HTTP."""
