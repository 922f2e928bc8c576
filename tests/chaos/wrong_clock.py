"""Starts Replyline as on a machine whose clock is wrong: `python -m tests.chaos.wrong_clock SECONDS_AHEAD worker`.

Python's own sources of the time of day are shifted before anything of ours is loaded; monotonic clocks are not.
"""

import datetime
import sys
import time
from typing import Self

_ahead_s = float(sys.argv.pop(1))
_time, _time_ns = time.time, time.time_ns


class _Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        return super().now(tz) + datetime.timedelta(seconds=_ahead_s)


time.time = lambda: _time() + _ahead_s
time.time_ns = lambda: _time_ns() + round(_ahead_s * 1_000_000_000)
datetime.datetime = _Shifted  # type: ignore[misc]

if __name__ == "__main__":
    from replyline.entry import main

    main()
