"""HTML and Markdown from templates, and how numbers and texts stand in them.

Templates, questions and answers are model output or other people's data. In HTML everything is escaped and the page's
Content-Security-Policy forbids scripts; long texts are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

LONGEST = 600
"""Characters of a model's text that a report shows."""


def render(package: str, name: str, content: Mapping[str, Any], **filters: Callable[..., str]) -> str:
    """The page that the package's template ``name`` makes of ``content``. It may extend and import what lies in
    ``flows/reporting/templates``."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("flows.reporting")]),
        autoescape=name.endswith(".html.j2"),  # templates are model output: a script in one must stay text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "share": share, "cell": cell, "number": number, "cut": cut} | filters
    return environment.get_template(name).render(content)


def number(value: float | None, digits: int = 1) -> str:
    """Rounded; a dash for what is missing, ∞ for what is infinite."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.{digits}f}" if math.isfinite(value) else "∞"


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def share(value: float) -> str:
    """A share that may be small.

    >>> share(0.0213)
    '2.1 %'
    """
    return f"{number(100 * value)} %"


def cut(text: str, longest: int = LONGEST) -> str:
    """The text's beginning, with what was left out.

    >>> cut("abcdef", 4)
    'abcd… (2 characters more)'
    """
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} characters more)"


def cell(text: str) -> str:
    """Template text for a Markdown table or list: one line, nothing in it is markup.

    >>> cell("Go | on.\\nAnd `on`.")
    '`Go ¦ on. / And ʼonʼ.`'
    """
    flat = cut(text).replace("|", "¦").replace("`", "ʼ").replace("\n", " / ").strip()
    return f"`{flat}`" if flat else "*(empty template)*"
