"""The reflective world's words."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from microworld.reflective.chains import FAMILIES, LABELS, MODULUS
from microworld.reflective.flaws import MARKS
from microworld.reflective.language import MANNERS, OBJECTS, VERBS
from microworld.tokenizer import word_tokenizer
from p2o_core.search.adapter import FORMAT_HINT, feedback
from p2o_core.search.reflection import NO_TEMPLATE, TERSE, TERSE_EXAMPLE
from p2o_core.search.replies import FENCE
from p2o_core.types import VerdictStatus


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Numbers, steps, labels, the sentences' words and those of a review are one token each."""
    asked = TERSE.replace("{template}", NO_TEMPLATE).replace("{examples}", TERSE_EXAMPLE)
    checked = [feedback(status, "0") for status in VerdictStatus]
    steps = [step for family in FAMILIES.values() for step in family]
    words = ["?", "\\boxed{", "}", FENCE, *FAMILIES, *MARKS.values(), *LABELS, *steps]
    words += [f"{label}{step}" for label in LABELS for step in steps]
    words += [f"{number}{end}" for number in range(MODULUS) for end in ("", ".")]
    words += [word for text in (asked, *checked, FORMAT_HINT) for word in text.split() if "{" not in word[:1]]
    return word_tokenizer([*words, *VERBS, *OBJECTS, *MANNERS])
