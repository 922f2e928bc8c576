"""Which command a call is about, be it a call or the shell's question how one may go on."""

import os
from collections.abc import Sequence


def called_command(arguments: Sequence[str]) -> str | None:
    """The first word of `arguments`, or of the line that a shell wants completed, after `replyline`; None if there is none.

    The shell scripts of `replyline --install-completion` ask with the line in an environment variable: bash in COMP_WORDS, the
    others in _TYPER_COMPLETE_ARGS.
    """
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS")
    words = line.split()[1:] if "_REPLYLINE_COMPLETE" in os.environ and line is not None else arguments
    return words[0] if words else None
