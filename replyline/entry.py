"""Where the command begins: a signal that comes while it still loads ends the processes that run on and on as asked, with 0."""

import os
import signal
import sys
from types import FrameType

from replyline.environment import drop_the_rest

_RUNS_ON = frozenset({"api", "worker", "start", "standins", "evolution"})


def main() -> None:
    """Run the command line."""
    if _RUNS_ON.intersection(sys.argv[1:2]):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing_begun)
    if sys.argv[1:2] == ["evolution"]:  # it talks to strangers, and has neither our stores nor our keys to do with
        drop_the_rest()
    # Imported now: loading takes a second, in which an orchestrator may change its mind.
    from replyline import cli  # noqa: PLC0415

    cli.main()


def _nothing_begun(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)  # from within an import an exception could be swallowed, and there is nothing to clean up
