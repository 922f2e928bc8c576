"""Lua scripts: BullMQ's own, unchanged, as the pinned `bullmq` package ships them, for they are the protocol; and ours."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from replyline.broker.wire import Word, bulk, pack


@dataclass(frozen=True, slots=True)
class Script:
    """One script: called by its digest, sent in full once a server."""

    name: str
    keys: int
    """How many keys it takes; 0 where the call says."""
    text: bytes
    digest: str

    def call(self, *words: Word) -> bytes:
        """The command that runs it; `words` are its keys, then its arguments."""
        return pack("EVALSHA", self.digest, self.keys, *words)

    def call_on(self, keys: Sequence[Word], *arguments: Word) -> bytes:
        """The command that runs a script which takes any number of keys."""
        return pack("EVALSHA", self.digest, len(keys), *keys, *arguments)

    def head(self, words: int) -> bytes:
        """The beginning of a command whose `words` keys and arguments the caller appends, each as `wire.bulk`."""
        return b"*%d\r\n%b%b%b" % (
            3 + words,
            bulk(b"EVALSHA"),
            bulk(self.digest.encode()),
            bulk(str(self.keys).encode()),
        )


def _script(file: str) -> Script:
    name, _, keys = file.partition("-")
    return _of_text(name, int(keys), (files("bullmq") / "commands" / f"{file}.lua").read_bytes())


def _function(name: str, script: Script) -> bytes:
    """A script as a local function of the same arguments: its text is unchanged, and finds in KEYS and ARGV what it is given."""
    return b"local function %b(KEYS, ARGV)\n%b\nend\n" % (name.encode(), script.text)


def _composed(name: str, *, keys: int, **functions: Script) -> Script:
    """A script of ours that calls others by the names given."""
    parts = [_function(called, script) for called, script in functions.items()]
    own = (files("replyline.broker") / f"{name}.lua").read_bytes()
    return _of_text(name, keys, b"".join((*parts, own)))


def _own_script(name: str, *, keys: int) -> Script:
    return _of_text(name, keys, (files("replyline.broker") / f"{name}.lua").read_bytes())


def _of_text(name: str, keys: int, text: bytes) -> Script:
    return Script(name, keys, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


ADD_STANDARD = _script("addStandardJob-9")
ADD_PRIORITIZED = _script("addPrioritizedJob-9")
ADD_DELAYED = _script("addDelayedJob-6")
MOVE_TO_ACTIVE = _script("moveToActive-11")
MOVE_TO_FINISHED = _script("moveToFinished-14")
MOVE_TO_DELAYED = _script("moveToDelayed-11")
MOVE_BACK = _script("moveJobFromActiveToWait-9")
MOVE_STALLED = _script("moveStalledJobsToWait-9")
EXTEND_LOCKS = _script("extendLocks-1")
GET_COUNTS = _script("getCounts-1")
GET_STATE = _script("getStateV2-8")
PAUSE = _script("pause-7")
DRAIN = _script("drain-5")
PROMOTE = _script("promote-9")
REMOVE = _script("removeJob-2")
CLEAN = _script("cleanJobsInSet-3")
ADD_LOG = _script("addLog-2")
UPDATE_JOB_SCHEDULER = _script("updateJobScheduler-12")
PACE_SLOT = _own_script("paceSlot", keys=7)
PACE_BLOCK = _own_script("paceBlock", keys=2)
LIVE_BEGIN = _own_script("liveBegin", keys=2)
LIVE_APPEND = _own_script("liveAppend", keys=2)
LIVE_END = _own_script("liveEnd", keys=2)
LIVE_SO_FAR = _own_script("liveSoFar", keys=2)
LIVE_ENTER = _own_script("liveEnter", keys=1)
LIVE_LEAVE = _own_script("liveLeave", keys=2)
LIVE_WATCHED = _own_script("liveWatched", keys=2)
THROTTLE = _own_script("throttle", keys=0)
REMOVE_REMAINS = _own_script("removeRemains", keys=9)
ADD_AND_TAKE = _composed("addAndTake", keys=13, add=ADD_PRIORITIZED, take=MOVE_TO_ACTIVE)

SCRIPTS = (
    ADD_STANDARD,
    ADD_PRIORITIZED,
    ADD_DELAYED,
    MOVE_TO_ACTIVE,
    MOVE_TO_FINISHED,
    MOVE_TO_DELAYED,
    MOVE_BACK,
    MOVE_STALLED,
    EXTEND_LOCKS,
    GET_COUNTS,
    GET_STATE,
    PAUSE,
    DRAIN,
    PROMOTE,
    REMOVE,
    CLEAN,
    ADD_LOG,
    UPDATE_JOB_SCHEDULER,
    PACE_SLOT,
    PACE_BLOCK,
    LIVE_BEGIN,
    LIVE_APPEND,
    LIVE_END,
    LIVE_SO_FAR,
    LIVE_ENTER,
    LIVE_LEAVE,
    LIVE_WATCHED,
    THROTTLE,
    REMOVE_REMAINS,
    ADD_AND_TAKE,
)

_DIGESTS = {script.digest.encode(): script for script in SCRIPTS}
_HEAD = b"$7\r\nEVALSHA\r\n$40\r\n"


def in_full(command: bytes) -> bytes:
    """The same call of a script with its text in place of its digest: what the server does not know it can run all the same.

    Raises:
        ValueError: it is no call of a script of ours.
    """
    count, head, rest = command.partition(_HEAD)
    script = _DIGESTS.get(rest[:40])
    if not head or script is None:
        raise ValueError("not a call of a script of ours")
    return b"".join((count, bulk(b"EVAL"), bulk(script.text), rest[42:]))
