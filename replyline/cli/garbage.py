"""Python's garbage collector, for processes that run on and on."""

import gc

_YOUNG = 20_000  # Python's own is 700: a collection every few requests, of what they still use


def settle() -> None:
    """Leave out of every collection from now on what start-up has made: modules, schemas and settings, which stay anyway.

    What is made later is looked at less often than by default: requests and jobs leave hardly any cycles, and most of what a
    collection looks at in between is in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
