"""Secrets: from the environment or a Prefect Secret block, never from params.yaml, and never written anywhere."""

from __future__ import annotations

import os

from p2o_core.schemas import BadInput


def secret(variable: str, block: str = "") -> str:
    """The environment variable's value, else the Prefect Secret block's, else blank (endpoints without a key).

    Raises:
        BadInput: Prefect has no such block, or cannot be asked.
    """
    value = os.environ.get(variable, "") if variable else ""
    if value or not block:
        return value
    import httpx
    from prefect.blocks.system import Secret

    try:
        loaded = Secret.load(block)
    except (ValueError, RuntimeError, httpx.HTTPError) as error:
        raise BadInput(
            f"Prefect's Secret block {block!r} cannot be read ({type(error).__name__}). Mend: make it in Prefect's "
            f"page under Blocks, or set {variable or 'the environment variable instead'}."
        ) from error
    return str(loaded.get())  # type: ignore[union-attr]  # load is synchronous outside an event loop
