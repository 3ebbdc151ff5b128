"""Prompts: how a question and a template become the token ids of a chat prompt, and how ids become text again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from p2o_core.config import PromptStyle
from p2o_core.templates import apply_template


@dataclass(frozen=True)
class Style:
    """What stands around a question: a system message (none when blank) and the text of the user's message."""

    system: str
    user: str


QUESTION = "{question}"
STYLES: dict[PromptStyle, Style] = {
    "plain": Style("", QUESTION),
    # the official P²O scripts' base prompt
    "p2o": Style("", f"Let's think step by step and output the final answer within \\boxed{{}}.\nQuestion: {QUESTION}"),
    # Qwen2.5-Math's evaluation, prompt type qwen25-math-cot
    "qwen25-math": Style("Please reason step by step, and put your final answer within \\boxed{}.", QUESTION),
}


class Chat:
    """A tokenizer with its chat template. Engines and the update share one encoding, token by token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._encoded: dict[tuple[str, str, str], tuple[int, ...]] = {}

    @classmethod
    def load(cls, folder: Path) -> Chat:
        """The tokenizer of a Hugging Face folder."""
        return cls(AutoTokenizer.from_pretrained(str(folder), padding_side="left", trust_remote_code=False))

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id

    @property
    def eos_id(self) -> int:
        return self.tokenizer.eos_token_id

    def encode_prompt(self, question: str, template: str = "", style: PromptStyle = "plain") -> tuple[int, ...]:
        """Token ids of the chat prompt, thinking off; T(x, z) is its user message, x the question in its style."""
        key = (question, template, style)
        if key not in self._encoded:
            shape = STYLES[style]
            user = apply_template(template, shape.user.replace(QUESTION, question))
            system = [{"role": "system", "content": shape.system}] if shape.system else []
            text = self.tokenizer.apply_chat_template(
                [*system, {"role": "user", "content": user}],
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=False,  # ignored by chat templates that do not know it
            )
            self._encoded[key] = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._encoded[key]

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))
