"""Templates: an instruction, demonstrations as chat turns, or both; as one text, and how they join a question.

A template is one string wherever it is kept, searched or reported. A string without marker lines is an instruction.
Demonstrations follow it, each a pair of turns behind marker lines of their own:

    Write the number only.
    === user ===
    Write twelve in digits.
    === assistant ===
    12
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

USER, ASSISTANT = "=== user ===", "=== assistant ==="
"""Marker lines: the line and nothing else."""
_MARKED = re.compile(rf"\\*(?:{USER}|{ASSISTANT})")
_ESCAPED = re.compile(rf"\\+(?:{USER}|{ASSISTANT})")

CONTROL = re.compile(r"<\|[^|>]*\|>|</?s>|\[/?INST\]|</?think>")
"""What special tokens of well-known models look like."""


@dataclass(frozen=True)
class Turn:
    """A demonstration: a question as the user asks it, and the assistant's answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Parts:
    """What a template consists of. ``str(parts)`` is its text, ``parse_template(text)`` the way back, for any texts:
    a line that is a marker, or backslashes and a marker, is written with one more backslash in front.

    >>> str(Parts("Digits only.", (Turn("Write two in digits.", "2"),))).splitlines()
    ['Digits only.', '=== user ===', 'Write two in digits.', '=== assistant ===', '2']
    """

    instruction: str = ""
    turns: tuple[Turn, ...] = ()

    def __str__(self) -> str:
        written = [_escaped(self.instruction)] if self.instruction or not self.turns else []
        for turn in self.turns:
            written += [USER, _escaped(turn.question), ASSISTANT, _escaped(turn.answer)]
        return "\n".join(written)


def parse_template(template: str) -> Parts:
    """Return the parts of any text. Where marker lines are no sequence of whole pairs (user, assistant, user, …), the
    text is an instruction as it stands; :func:`malformed` finds it.

    >>> parse_template("=== user ===\\nWrite two in digits.\\n=== assistant ===\\n2").turns
    (Turn(question='Write two in digits.', answer='2'),)
    >>> parse_template("Work step by step.").instruction
    'Work step by step.'
    """
    if "===" not in template:
        return Parts(template)
    lines = template.split("\n")
    marks = [index for index, line in enumerate(lines) if line in (USER, ASSISTANT)]
    if not _in_pairs([lines[index] for index in marks]):
        return Parts(template)
    ends = [*marks, len(lines)]
    instruction, *texts = [
        _plain(lines[start:end]) for start, end in zip([0, *(mark + 1 for mark in marks)], ends, strict=True)
    ]
    if None in texts:  # two markers in a row: even a blank turn has a line of its own
        return Parts(template)
    return Parts(instruction or "", tuple(map(Turn, texts[::2], texts[1::2])))  # type: ignore[arg-type]


def malformed(template: str) -> bool:
    """Return whether a text has marker lines that are no whole pairs, or a blank turn: surely meant as demonstrations,
    and read as an instruction."""
    parts = parse_template(template)
    if not parts.turns:
        return any(line in (USER, ASSISTANT) for line in template.split("\n"))
    return not all(turn.question.strip() and turn.answer.strip() for turn in parts.turns)


def has_turns(template: str) -> bool:
    """Return whether a text has demonstrations, or marker lines that were meant as such."""
    return bool(parse_template(template).turns) or malformed(template)


def join_templates(templates: Sequence[str]) -> str:
    """Return one template of several: their instructions, a line each, then all their demonstrations.

    >>> join_templates(["=== user ===\\n1 + 1 = ?\\n=== assistant ===\\n2", "Write digits."]).splitlines()[:2]
    ['Write digits.', '=== user ===']
    """
    parts = [parse_template(template) for template in templates]
    instructions = [part.instruction for part in parts if part.instruction or not part.turns]
    return str(Parts("\n".join(instructions), tuple(turn for part in parts for turn in part.turns)))


def chat_messages(template: str, question: str, styled: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return the turns of a prompt, the question's last. The instruction and the style stand around a demonstration's
    question as they do around the question itself.

    Args:
        styled: puts a question into the text around it.
    """
    parts = parse_template(template)
    messages = []
    for turn in parts.turns:
        messages.append({"role": "user", "content": apply_template(parts.instruction, styled(turn.question))})
        messages.append({"role": "assistant", "content": turn.answer})
    return [*messages, {"role": "user", "content": apply_template(parts.instruction, styled(question))}]


def apply_template(template: str, question: str) -> str:
    """T(x, z) for an instruction z: it stands in front of the question; the question unchanged when it is blank.

    Source: the official P²O code, ``z.strip() + "\\n\\n" + x``, put into the last user message.

    >>> apply_template(" Work step by step. ", "1 + 1 = ?")
    'Work step by step.\\n\\n1 + 1 = ?'
    >>> apply_template("  ", "1 + 1 = ?")
    '1 + 1 = ?'
    """
    stripped = template.strip()
    return f"{stripped}\n\n{question}" if stripped else question


def _in_pairs(marks: Sequence[str]) -> bool:
    return list(marks) == [USER, ASSISTANT] * (len(marks) // 2)


def _escaped(text: str) -> str:
    return "\n".join(f"\\{line}" if _MARKED.fullmatch(line) else line for line in text.split("\n"))


def _plain(lines: Sequence[str]) -> str | None:
    """The text that these lines write; None of no line."""
    return "\n".join(line[1:] if _ESCAPED.fullmatch(line) else line for line in lines) if lines else None
