r"""The answer in a response without a box: what stands behind "the answer is", or the last expression, all of it.

math-verify finds the last number or formula, and of ``3 + 4i``, ``x > 5`` or ``(1, 2)`` without dollar signs a part
only. A part that happens to be the gold answer would be paid, so what adjoins it is taken along here.
"""

from __future__ import annotations

import re

LONGEST_RUN = 4096
"""Characters of an expression at most."""

LONGEST_SENTENCE = 400
"""Characters of a last sentence that are looked at for a condition."""

_SPAN = re.compile(r"\$\$[^$]+\$\$|\$[^$\n]+\$|\\\([^\n]{1,500}?\\\)|\\\[[^\n]{1,500}?\\\]")
_PHRASE = re.compile(
    r"(?i)\b(?:answer|option|choice)(?:\*\*|__)?(?: is| would be| =|:)+(?:\*\*|__)?:?[ \n]*(?P<said>[^\n]{1,80})"
)
_WORDS = re.compile(
    r"(?:\*\*|__|\$|\\\()? *(?P<words>\(?[A-J]\)?(?=[ .:)*$,\n]|\Z)(?![ ]*[-+*/=^<>]|[ ][a-z0-9])"
    r"|(?!not\b|no [a-z])[A-Za-z]+(?: [A-Za-z]+){0,2}(?=[.!*$]|\Z)) *\.?(?:\*\*|__|\$|\\\))? *\.?\Z"
)
_FUNCTION = (
    r"(?:sqrt|cbrt|pi|sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan|inf|infinity|minus|negative|or|and|to"
    r"|theta|alpha|beta|out of|base|in)"
)
_PIECE = (
    r"(?:\\[a-zA-Z]+|\d[\d,']*\d|\d|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z]|\.m\.)|(?<=[\d)])[a-zA-Z](?![a-zA-Z]|\.m\.)"
    rf"|(?<![a-zA-Z]){_FUNCTION}(?![a-zA-Z])|(?<=\d){_FUNCTION}(?![a-zA-Z])|\.(?=\d|\(\d)|(?<=\d)\.{{2,}}|[^\W\d_a-zA-Z]"
    r"|[-+*/=<>≤≥≠±×÷·−–√∛∜∞°…^_!|(){}\[\],;:%$€£¥₹½⅓⅔¼¾⅛²³¹⁰⁴-⁹⁻⁺ⁿ₀-₉∪∩∈⋅̅̄&]|[^\S\n])"
)
_RUN = re.compile(rf"{_PIECE}+")
_ARTICLE = re.compile(r"\A(?:(?:an?|A|I|and|or|to|in|out of)\s+)+(?=\S)")
_TRAILING = re.compile(r"(?:[\s,;:({\[=&|*]|\s(?:an?|I|and|or|to|in|out of|base))+\Z")
_NO_ANSWER = re.compile(
    r"(?i)(?:\b(?:not|never|cannot be|can't be|isn't|n't|n’t)|\b(?:step|case|part|example|figure|problem|question"
    r"|method|page|chapter|section|lemma|theorem))\s*(?:be |equal |equal to )?\$?\\?\(?\Z"
)
_UNIT_AFTER = re.compile(
    r" ?(?:(?:[^\W\d_]{1,15} ){0,2}(?:below|under) (?:zero|0)(?!\d)|\\?%|°[CFNSEW]?|(?:square |cubic |sq\.? |per )?"
    r"(?:[ap]\.m\.|[^\W\d_]{1,15})(?:/[^\W\d_]{1,6})?(?:\^?[23²³])?(?![\w])"
    r"(?: (?:per|squared|cubed|north|south|east|west|Celsius|Fahrenheit|million|dollars|euros)\b(?: [a-z]+)?"
    r"| (?:and )?\d+(?:\.\d+)? [a-z]+)?)"
)
_NO_UNIT = re.compile(
    r" ?(?:which|as|so|since|because|for|is|are|was|if|when|where|by|then|with|from|at|on|but|the|and|or|to|we|he|she"
    r"|it|I|they|you|in (?:total|all))\b"
)
_GLUED_WORD = re.compile(r"[a-zA-Z]{1,20}\Z")
_SENTENCE = r"(?:[^.\n]|\.(?=\d))*"
_CONDITION = re.compile(
    rf"(?:\A|(?<=[.!?:\n]))(?P<said>{_SENTENCE}\d{_SENTENCE}?),? +(?:when|at|if|where|for|since|because|with) +"
    rf"(?:\$|\\\()?(?:[a-zA-Z](?:_\w)? *(?:[=<>≤≥]|\\(?:leq?|geq?|in)\b)|divided by ){_SENTENCE}\.?\s*\Z"
)
"""A last sentence that says when its answer holds: ``It is 12 at x = 5.``"""
_LARGER_UNIT = re.compile(
    r"\d+ (?:weeks?|days?|hours?|hrs?|minutes?|mins?|years?|months?|feet|ft|pounds?|lbs?|degrees?),? (?:and )?\Z"
)
_SIGN_BEFORE = re.compile(r"(?:\\?\$|[€£¥₹])\Z")


def answer_in_prose(response: str) -> str | None:
    """The last answer that a response without a box gives; None where it gives none.

    >>> answer_in_prose("So the answer is 3 + 4i."), answer_in_prose("Answer: C"), answer_in_prose("It is not 5.")
    ('3 + 4i', 'C', None)
    """
    response = _without_condition(response)
    said = [match["said"].strip() for match in _PHRASE.finditer(response)]
    if said and (match := _WORDS.match(said[-1])) is not None:
        return match["words"]
    found = _last_found(response)
    start = response.rfind(found) if found else -1
    if found and start < 0:
        return found
    if not found:
        phrases = list(_PHRASE.finditer(response))
        return whole_expression(response, phrases[-1].start("said"), phrases[-1].end("said")) if phrases else None
    end = start + len(found)
    if any(span.start() < start and end < span.end() for span in _SPAN.finditer(response)):
        if _NO_ANSWER.search(response[max(0, start - 30) : start]):
            return None
        sign = _SIGN_BEFORE.search(response[max(0, start - 2) : start])
        return (sign[0] if sign and sign[0] != "$" else "") + response[start:end]
    return whole_expression(response, start, end)


def _without_condition(response: str) -> str:
    match = _CONDITION.search(response, max(0, len(response) - LONGEST_SENTENCE))
    return response if match is None else response[: match.end("said")]


def _last_found(response: str) -> str:
    """math-verify's last expression as it stood, blank when there is none."""
    from math_verify import parse

    parsed = parse(response, parsing_timeout=None)
    return str(parsed[-1]) if parsed else ""


def whole_expression(response: str, start: int, end: int) -> str | None:
    """The expression that holds ``start`` to ``end``, and the unit behind it."""
    line = response.rfind("\n", 0, start) + 1
    run = next((match for match in _RUN.finditer(response, line) if match.end() > start), None)
    if run is None or len(run[0]) > LONGEST_RUN:
        return response[start:end]
    left, text = run.start(), run[0]
    bullet = re.match(r"\s*[-*] +", text) if left == line else None
    if bullet is not None:
        text, left = text[bullet.end() :], left + bullet.end()
    text = re.sub(r"(?<=\d) \([^()]*\)?\Z", "", text)
    before = len(text) - len(text.lstrip(" \t,;:*"))
    text = _TRAILING.sub("", text[before:])
    left += before
    word = _GLUED_WORD.search(response, max(line, left - 20), left) if text[:1].isdigit() else None
    if word is not None:  # CO2
        text, left = word[0] + text, word.start()
    unit = _UNIT_AFTER.match(response[left + len(text) :])
    article = _ARTICLE.match(text)
    if article is not None:
        text, left = text[article.end() :], left + article.end()
    if _NO_ANSWER.search(response[max(0, left - 30) : left]):
        return None
    after = unit[0].rstrip() if unit is not None and not _NO_UNIT.match(unit[0]) else ""
    larger = _LARGER_UNIT.search(response, max(line, left - 30), left)
    if larger is not None and after:  # 3 hours and 20 minutes
        text = larger[0] + text
    if "=" in text and not re.search(r"!=|[,;<>≤≥≠]| or | and ", text):
        text = text[text.rindex("=") + 1 :]
    return (text + after).strip() or None
