"""Seconds of a quiet machine: what limits are made for, on machines that others share."""

from __future__ import annotations

import time

from stress.hostile import waited_s

PATIENCE_S = 300.0
"""How long a test waits for what a quiet machine does in seconds: a loaded one takes twenty times as long."""


def quiet_s() -> float:
    """A clock that stands still while some process of this machine waits for a processor, where Linux counts that
    (up to two seconds late); elsewhere the monotonic clock. On a busy machine it forgives, on a quiet one it does not.
    """
    try:
        return time.monotonic() - waited_s()
    except OSError:  # no pressure stall information
        return time.monotonic()
