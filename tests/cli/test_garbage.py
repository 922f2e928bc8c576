"""Garbage collection of the processes that run on and on."""

import subprocess
import sys

_SETTLED = """
import gc
from replyline.cli import garbage
garbage.settle()
print(gc.get_freeze_count() > 10_000, gc.get_threshold()[0] > 700, gc.isenabled())
"""


def test_what_start_up_made_is_left_out_of_collections_which_go_on_less_often() -> None:
    done = subprocess.run([sys.executable, "-c", _SETTLED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr
