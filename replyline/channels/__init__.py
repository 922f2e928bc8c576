"""The places where people write to a business: what a channel must be able to do, and the table of those that exist.

To add a channel: one file here that offers a `Channel`, one line in `CHANNELS`, and, if it sends outside, its queue in
`replyline/queues.py` and its processor in `replyline/processors/`. Its test file runs the contract suite in `tests/channels/`.
"""
