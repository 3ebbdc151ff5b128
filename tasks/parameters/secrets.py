"""Secrets: from the environment or a Prefect Secret block, never from params.yaml, and never written anywhere."""

from __future__ import annotations

import os


def secret(variable: str, block: str = "") -> str:
    """The environment variable's value, else the Prefect Secret block's, else blank (endpoints without a key).

    Raises:
        ValueError: Prefect has no such block.
    """
    value = os.environ.get(variable, "") if variable else ""
    if value or not block:
        return value
    from prefect.blocks.system import Secret

    loaded = Secret.load(block)
    return str(loaded.get())  # type: ignore[union-attr]  # load is synchronous outside an event loop
