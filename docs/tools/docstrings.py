"""A Griffe extension: our docstrings as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|data|meth|mod|attr|exc):`~?([^`]+)`")
DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
MAP = re.compile(r"(?:^``.*\n?)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Roles such as ``:func:`` become links; doctests and a package's map of its modules keep their lines."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        text = ROLE.sub(r"[`\1`][\1]", obj.docstring.value)
        text = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
        if isinstance(obj, griffe.Module) and obj.is_init_module:
            text = MAP.sub(lambda found: f"```text\n{_one_a_line(found[0])}\n```\n", text)
        obj.docstring.value = text


def _one_a_line(modules: str) -> str:
    """Two entries beside each other would be wider than a page."""
    return re.sub(r"  +(?=``)", "\n", modules).replace("``", "").rstrip()
