"""Whether prompts and answers fit into the positions that a model knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2o_core.config import PromptStyle
from p2o_core.schemas import BadInput

if TYPE_CHECKING:  # every command that reads the stages comes by here: torch waits for a model
    from torch import nn

    from p2o_core.prompts import Chat

LONGEST = 32
"""Questions with the most characters, among which the one with the most tokens is looked for."""
Asked = Mapping[str, tuple[PromptStyle, int]]
"""Section of params.yaml to its prompt style and ``max_new_tokens``."""


def check_positions(chat: Chat, model: Any, folder: Path, asked: Asked, questions: Iterable[str]) -> str:
    """A warning, blank for none, where answers may be longer than the positions a model was trained on; ``model`` may
    be one without values. Templates come on top.

    Raises:
        BadInput: its positions are learned, one vector each (GPT-2, OPT): beyond the last one sampling fails.
    """
    questions = sorted(questions, key=len)[-LONGEST:]
    learned, known = _learned(model), getattr(model.config, "max_position_embeddings", None)
    for section, (style, new_tokens) in asked.items():
        longest = max(len(chat.encode_prompt(question, "", style)) for question in questions)
        found = f"the longest prompt has {longest} tokens, and {section}.max_new_tokens is {new_tokens}"
        if learned and longest + new_tokens > learned:
            room = f"{section}.max_new_tokens: {learned - longest} at most (templates take more)"
            mend = room if longest < learned else "shorter problems"
            raise BadInput(
                f"{folder}: the model has {learned} learned positions; {found}. Mend: {mend}, or a model with more."
            )
        if known and longest + new_tokens > known:
            return f"the model was trained on {known} positions; {found}: answers beyond them are of little use"
    return ""


def _learned(model: nn.Module) -> int | None:
    """The number of learned positions, None where they are computed (rotary) or none."""
    from torch import nn

    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and ("pos" in name.rpartition(".")[2] or name.endswith("wpe"))
    ]
    return min((table.num_embeddings - getattr(table, "offset", 0) for table in tables), default=None)
