"""From door to sent: Replyline, and the same six queues in plain BullMQ for Node, on the same stores and stand-ins in one run."""
