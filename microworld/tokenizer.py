"""A word-level tokenizer for the micro-world, saved like any other Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from microworld.problems import FAMILIES, LABELS, MODULUS
from microworld.sentences import all_sentences

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<user>", "eos_token": "<end>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}<user> {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} <assistant> {% endif %}"
)


def build_tokenizer(distractors: int = 0) -> PreTrainedTokenizerFast:
    """Numbers, steps, labels and words are one token each; anything else is ``<unk>``."""
    words = ["?", "\\boxed{", "}", *LABELS, *FAMILIES]
    steps = [step for family in FAMILIES.values() for step in family]
    words += steps + [f"{label}{step}" for label in LABELS for step in steps]
    words += [str(number) for number in range(MODULUS)]
    words += sorted({word for sentence in all_sentences(distractors) for word in sentence.text.split()})
    return word_tokenizer(words)


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word, in this order behind the special ones; a word may be given twice."""
    listed = [*SPECIAL.values(), "<assistant>", *words]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(listed))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        additional_special_tokens=["<assistant>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        **SPECIAL,
    )
