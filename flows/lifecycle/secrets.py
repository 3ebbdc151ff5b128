"""Secrets of Prefect's: the resolver that the flows hand to the stages, which know no Prefect."""

from __future__ import annotations

import httpx

from p2o_core.schemas import BadInput
from tasks.running.runtime import environment_secret


def prefect_secret(variable: str, block: str = "") -> str:
    """The environment variable's value, else the Prefect Secret block's, else blank (endpoints without a key).

    Raises:
        BadInput: Prefect has no such block, or cannot be asked.
    """
    value = environment_secret(variable, "")
    if value or not block:
        return value
    from prefect.blocks.system import Secret

    try:
        loaded = Secret.load(block)
    except (ValueError, RuntimeError, httpx.HTTPError) as error:
        raise BadInput(
            f"Prefect's Secret block {block!r} cannot be read ({type(error).__name__}). Mend: make it in Prefect's "
            f"page under Blocks, or set {variable or 'the environment variable instead'}."
        ) from error
    return str(loaded.get())  # type: ignore[union-attr]  # load is synchronous outside an event loop
