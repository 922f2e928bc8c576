"""The queue engine: BullMQ's Redis layout and scripts under a worker loop of ours; the only place that knows them."""

from replyline.broker.broker import Broker
from replyline.broker.connecting import LoginRefused, WrongDeployment
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
    PublicationsRefused,
    QueueCounts,
    Retry,
    WorkerClient,
)
from replyline.broker.finished import Finished, Watch
from replyline.broker.listening import Listening
from replyline.broker.live import MOST_BYTES, Live, SoFar, Told, Written
from replyline.broker.pacing import Limits, Pacing, Slot
from replyline.broker.throttle import Bucket, Refused, Throttle
from replyline.broker.wire import Reply
from replyline.broker.worker import Worker

__all__ = [
    "MOST_BYTES",
    "ActiveJob",
    "Broker",
    "BrokerUnavailable",
    "Bucket",
    "CommandRefused",
    "Completed",
    "Failed",
    "Finished",
    "Handler",
    "JobState",
    "Limits",
    "Listening",
    "Live",
    "LoginRefused",
    "NotAcknowledged",
    "Outcome",
    "Pacing",
    "Postpone",
    "Publication",
    "PublicationsRefused",
    "QueueCounts",
    "Refused",
    "Reply",
    "Retry",
    "Slot",
    "SoFar",
    "Throttle",
    "Told",
    "Watch",
    "Worker",
    "WorkerClient",
    "Written",
    "WrongDeployment",
]
