"""Runs commands one after the other in one process: the libraries are loaded once, and no test's process is touched.

Reads JSON lists of arguments, a line each, and answers each with a line of JSON: the exit code and what was printed.
"""

import contextlib
import io
import json
import sys
from typing import TextIO


def _run(arguments: list[str]) -> dict[str, object]:
    from replyline.cli import main  # noqa: PLC0415  so that the first answer carries what the import may say

    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.StringIO()  # nobody answers a question
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def _serve(calls: TextIO, answers: TextIO) -> None:
    for line in calls:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
