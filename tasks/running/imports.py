"""Imports of thousands of modules, without looking for garbage among what they make."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Around large imports. What they make stays: collecting meanwhile finds nothing and costs a fifth to a third of
    their time (torch with transformers: 5.6 s of processor time, without 4.0 s); nor do later collections look
    through it again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.unregister(gc.unfreeze)
        atexit.register(gc.unfreeze)  # or nanobind's libraries say at the end that their types leaked
        if collects:
            gc.enable()
