"""Prompts: encodes a question and a template as the token ids of a chat prompt, and decodes completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from p2o_core.config import PromptStyle
from p2o_core.encoding import Messages, PromptEncoder
from p2o_core.schemas import BadInput, read_object
from p2o_core.templates import chat_messages


@dataclass(frozen=True)
class Style:
    """The text around a question: a system message (none when blank) and the user's message."""

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


TODAY = date(2024, 7, 26)
"""What chat templates that write the date (Llama 3's, Granite's …) take for it: with the clock's, prompts and with
them all bytes would change overnight. Llama 3's own, where it finds no clock."""


STOP_FILES = ("generation_config.json", "config.json")
"""Where a model's folder names end-of-sequence tokens, beside its tokenizer."""


class Chat:
    """A tokenizer with its chat template. Engines and the update share one encoding, token by token, and one set of
    end-of-sequence tokens.

    ``stop_ids``: every token that ends a completion, the tokenizer's own first. Models name theirs in three places
    (tokenizer, ``generation_config.json``, ``config.json``), often several (Llama 3: end of text, of turn and of
    message), and mean all of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((*own, *sorted(stop_ids))))
        self._encoded: dict[tuple[str, str, str], tuple[int, ...]] = {}

    @classmethod
    def load(cls, folder: Path) -> Chat:
        """The tokenizer of a Hugging Face folder, with the end-of-sequence tokens of all its files. Raises BadInput."""
        tokenizer = AutoTokenizer.from_pretrained(str(folder), padding_side="left", trust_remote_code=False)
        return cls(tokenizer, [id_ for name in STOP_FILES for id_ in saved_stop_ids(folder / name)])

    @property
    def pad_id(self) -> int:
        """The id that pads rows. Every mask excludes it, so an end-of-sequence token may serve."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.eos_id

    @property
    def eos_id(self) -> int:
        """The first of ``stop_ids``; texts that the microworld writes end with it."""
        return self.stop_ids[0]

    def ended(self, token_ids: Sequence[int]) -> bool:
        """Return whether a completion ended by itself, i.e. was not cut off."""
        return bool(token_ids) and token_ids[-1] in self.stop_ids

    def encode_prompt(self, question: str, template: str = "", style: PromptStyle = "plain") -> tuple[int, ...]:
        """Encode the chat prompt with thinking off: the template's demonstrations as turns, then the user message
        T(x, z), where x is the question in its style. No text in it becomes a special token.

        Raises:
            BadInput: the chat template fails, or does not write demonstrations as turns.
        """
        key = (question, template, style)
        if key not in self._encoded:
            self._encoded[key] = self._encoder.encode(self._messages(question, template, style))
        return self._encoded[key]

    def prompt_text(self, question: str, template: str, style: PromptStyle) -> str:
        """Return the chat prompt as a text.

        Raises:
            BadInput: the chat template fails.
        """
        return self._rendered(self._messages(question, template, style))

    def _messages(self, question: str, template: str, style: PromptStyle) -> Messages:
        shape = STYLES[style]
        turns = chat_messages(template, question, lambda asked: shape.user.replace(QUESTION, asked))
        if len(turns) > 1 and not self._takes_turns:
            raise BadInput(
                f"{self.tokenizer.name_or_path}: the chat_template does not write a chat of several turns with the "
                "assistant's as its own, which demonstrations need. Mend: correct chat_template.jinja, or choose "
                "another evolve.reflector."
            )
        return [*([{"role": "system", "content": shape.system}] if shape.system else []), *turns]

    @cached_property
    def _encoder(self) -> PromptEncoder:
        return PromptEncoder(self.tokenizer, self._rendered)

    @cached_property
    def _takes_turns(self) -> bool:
        """Whether the chat template tells the assistant's turns from the user's, and leaves none out."""
        user = [{"role": "user", "content": text} for text in ("first", "second", "third")]
        try:
            as_turns = self._rendered([user[0], user[1] | {"role": "assistant"}, user[2]])
        except BadInput:
            return False
        if not all(message["content"] in as_turns for message in user):
            return False
        try:
            return as_turns != self._rendered(user)
        except BadInput:  # it insists on turns that alternate
            return True

    def _rendered(self, messages: Messages) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages),
                    add_generation_prompt=True,
                    tokenize=False,
                    enable_thinking=False,  # ignored by chat templates that do not know it
                    strftime_now=TODAY.strftime,
                )
            )
        except Exception as error:  # a template fails in any way that an expression can
            system = messages[0]["role"] == "system"
            raise BadInput(
                f"{self.tokenizer.name_or_path}: the chat_template fails on a chat "
                f"{'with' if system else 'without'} a system message "
                f"({type(error).__name__}: {str(error)[:200]}). Mend: correct chat_template.jinja, or choose a style "
                "that it takes (rollout.prompt, evaluate.prompt): only qwen25-math has a system message."
            ) from error

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return a completion's text without special tokens and without its last stop token, which need not be
        special."""
        written = token_ids[:-1] if self.ended(token_ids) else token_ids
        return str(self.tokenizer.decode(list(written), skip_special_tokens=True))


def saved_stop_ids(path: Path) -> list[int]:
    """``eos_token_id`` of a model's JSON file: none, one or several; a file that is not there has none.

    Raises:
        BadInput: the file is no JSON object, or the field holds something else than token ids.
    """
    if not path.exists():
        return []
    ids = read_object(path).get("eos_token_id")
    ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    if not all(type(id_) is int and id_ >= 0 for id_ in ids):
        raise BadInput(
            f"{path}: field 'eos_token_id' is {str(ids)[:80]}. Mend: write the end-of-sequence tokens' ids there, one "
            "whole number or a list of them."
        )
    return ids
