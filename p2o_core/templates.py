"""Templates: how a template z joins a question x."""

from __future__ import annotations


def apply_template(template: str, question: str) -> str:
    """T(x, z): the template in front of the question; the question unchanged when the template is blank.

    Source: the official P²O code, ``z.strip() + "\\n\\n" + x``, put into the last user message.

    >>> apply_template(" Work step by step. ", "1 + 1 = ?")
    'Work step by step.\\n\\n1 + 1 = ?'
    >>> apply_template("  ", "1 + 1 = ?")
    '1 + 1 = ?'
    """
    stripped = template.strip()
    return f"{stripped}\n\n{question}" if stripped else question
