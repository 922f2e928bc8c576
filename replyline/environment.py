"""What a program needs of our environment to run on this machine: none of our keys and addresses, and none of the user's."""

import os
import sys

_NAMES = """
PATH HOME USER LANG TERM NO_COLOR TZ TMPDIR VIRTUAL_ENV SSL_CERT_FILE SSL_CERT_DIR LD_LIBRARY_PATH LD_PRELOAD
"""
_NEEDED = frozenset(_NAMES.split())
_NEEDED_PREFIXES = ("LC_", "NODE_", "PYTHON", "GATEWAY_", "REPLYLINE_LOG", "COVERAGE_")


def of_this_machine() -> dict[str, str]:
    """The variables that say how programs run here: for every child that is not one of our own servers."""
    return {name: value for name, value in os.environ.items() if name in _NEEDED or name.startswith(_NEEDED_PREFIXES)}


def drop_the_rest() -> None:
    """Begin this program anew with `of_this_machine` alone, unless it has no more: so /proc shows nothing else of it either."""
    needed = of_this_machine()
    if needed != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], needed)  # noqa: S606  no shell is wanted
