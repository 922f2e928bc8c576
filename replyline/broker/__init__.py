"""The queue engine: BullMQ's Redis layout and scripts under a worker loop of ours; the only place that knows them."""

from replyline.broker.broker import Broker
from replyline.broker.contract import (
    ActiveJob,
    BrokerUnavailable,
    CommandRefused,
    Completed,
    Failed,
    Handler,
    JobState,
    NotAcknowledged,
    Outcome,
    Postpone,
    Publication,
    QueueCounts,
    Retry,
)
from replyline.broker.pacing import Limits, Pacing, Slot
from replyline.broker.wire import Reply
from replyline.broker.worker import Worker

__all__ = [
    "ActiveJob",
    "Broker",
    "BrokerUnavailable",
    "CommandRefused",
    "Completed",
    "Failed",
    "Handler",
    "JobState",
    "Limits",
    "NotAcknowledged",
    "Outcome",
    "Pacing",
    "Postpone",
    "Publication",
    "QueueCounts",
    "Reply",
    "Retry",
    "Slot",
    "Worker",
]
