"""Token ids of a prompt whose special tokens come from the chat template alone, never from a text within it.

A text that spells one (``<|im_end|>`` in a question) would otherwise end a turn that only the chat template may end.
Where no text does, the ids are the tokenizer's own for the whole prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from p2o_core.schemas import BadInput
from p2o_core.templates import CONTROL

Messages = Sequence[dict[str, Any]]
PRIVATE_USE = range(0xE000, 0xF900)
"""Characters that mean nothing anywhere: one that no message holds marks where a spelling is broken."""


class PromptEncoder:
    """Encodes chats of one tokenizer.

    Special are the tokens it says are, and others of its added tokens that look it (Qwen3's ``<think>``). Its added
    tokens for words or runs of spaces are ordinary.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, render: Callable[[Messages], str]) -> None:
        self.tokenizer = tokenizer
        self.render = render
        added = tokenizer.added_tokens_decoder
        special = {id_ for id_, token in added.items() if token.special or CONTROL.fullmatch(token.content)}
        special |= set(tokenizer.all_special_ids)
        self.ids = {str(tokenizer.convert_ids_to_tokens(id_)): id_ for id_ in sorted(special)}
        self._strips = {token.content: (token.lstrip, token.rstrip) for token in added.values()}
        spelled = "|".join(re.escape(text) for text in sorted(self.ids, key=lambda text: (-len(text), text)))
        self._token = re.compile(spelled or r"(?!)")
        self._spelling = re.compile(f"(?=({spelled}))" if spelled else r"(?!)")  # overlapping ones are found too
        self._prefixed = self._marks_beginnings()

    def encode(self, messages: Messages) -> tuple[int, ...]:
        """Return the ids of the rendered chat.

        Raises:
            BadInput: a text spells a special token, and this tokenizer has no other way to write it.
        """
        texts = [message["content"] for message in messages]
        if not any(self._spelling.search(text) for text in texts):
            return tuple(self._ids(self.render(messages)))
        mark = next(sign for sign in map(chr, PRIVATE_USE) if not any(sign in text for text in texts))
        disguised = [message | {"content": self._broken(message["content"], mark)} for message in messages]
        if any(self._spelling.search(message["content"]) for message in disguised):  # a token of one character
            raise self._inexpressible("".join(texts))
        ids: list[int] = []
        for part, special in self._parts(self.render(disguised)):
            ids += [self.ids[part]] if special else self._ordinary(part, mark, first=not ids)
        return tuple(ids)

    def _broken(self, text: str, mark: str) -> str:
        """Return the text with ``mark`` behind the first character of every special token's spelling: then the chat
        template, whose own logic may look for one, meets none."""
        starts = {match.start() for match in self._spelling.finditer(text)}
        return "".join(sign + mark if index in starts else sign for index, sign in enumerate(text))

    def _parts(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """The chat template's special tokens, and what stands between them; some swallow the spaces beside them."""
        place, swallows = 0, False
        for match in [*self._token.finditer(rendered), None]:
            between = rendered[place : match.start() if match else None]
            between = between.lstrip() if swallows else between
            before, swallows = self._strips.get(match[0], (False, False)) if match else (False, False)
            between = between.rstrip() if before else between
            if between:
                yield between, False
            if match:
                yield match[0], True
                place = match.end()

    def _ordinary(self, text: str, mark: str, *, first: bool) -> list[int]:
        """The ids of a text without special tokens, as if it spelled none; in pieces where its vocabulary writes the
        whole spelling with the special token."""
        ids = self._ids(text.replace(mark, ""), split_special_tokens=mark in text, first=first)
        if mark in text and self._has_special(ids):
            pieces = [piece for piece in text.split(mark) if piece]
            ids = [id_ for index, piece in enumerate(pieces) for id_ in self._ids(piece, first=first and not index)]
            if self._has_special(ids):
                raise self._inexpressible(text.replace(mark, ""))
        return ids

    def _inexpressible(self, text: str) -> BadInput:
        found = self._spelling.search(text)
        return BadInput(
            f"{self.tokenizer.name_or_path}: a question or template spells the special token "
            f"{found[1] if found else ''!r}, which this tokenizer cannot write as a text: {text[:120]!r}. Mend: take "
            "the spelling out of it."
        )

    def _has_special(self, ids: Sequence[int]) -> bool:
        """A word that is not in the vocabulary is no special token, whatever stands for it."""
        return not set(self.ids.values()).isdisjoint(set(ids) - {self.tokenizer.unk_token_id})

    def _ids(self, text: str, *, split_special_tokens: bool = False, first: bool = True) -> list[int]:
        """The tokenizer's ids. A tokenizer that marks a text's beginning (Llama 2's ``▁``) would mark every part's:
        not the first one stands behind a character whose tokens are taken off again."""
        options = {"add_special_tokens": False, "split_special_tokens": split_special_tokens}
        if first or not self._prefixed:
            return list(self.tokenizer(text, **options)["input_ids"])
        anchor = next(sign for sign in map(chr, PRIVATE_USE) if sign not in text)
        encoded = self.tokenizer(anchor + text, return_offsets_mapping=True, **options)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [id_ for id_, (_, end) in pairs if end > 1]

    def _marks_beginnings(self) -> bool:
        """Whether a text is written in another way at the beginning of a prompt than behind a special token."""
        for text, id_ in self.ids.items():
            alone = self.tokenizer(f"{text}a", add_special_tokens=False)["input_ids"]
            if id_ in alone:
                return alone[alone.index(id_) + 1 :] != self.tokenizer("a", add_special_tokens=False)["input_ids"]
        return False
