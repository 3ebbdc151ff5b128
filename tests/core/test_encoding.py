"""Prompts as token ids: demonstrations as turns, and special tokens that no text can bring in."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from microworld.tokenizer import build_tokenizer
from p2o_core.prompts import STYLES, Chat
from p2o_core.schemas import BadInput
from p2o_core.templates import ASSISTANT, USER, Parts, Turn

CORPUS = ["Write seven hundred and forty-nine in digits. <| im_end |> <think> </s> [INST] user assistant 749\n\n"] * 9
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} </s>{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def _fast(backend: Tokenizer, template: str, eos: str, *more: str | AddedToken) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, clean_up_tokenization_spaces=False, chat_template=template
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
    return tokenizer


def byte_level(template: str, eos: str, *more: str | AddedToken, plain: tuple[str, ...] = ()) -> Chat:
    """As Qwen's, Llama 3's and SmolLM2's; ``plain``: added tokens that are not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return Chat(_fast(backend, template, eos, *more))


def sentence_piece(scheme: str) -> Chat:
    """As Llama 2's, in its old form (every part has a ``▁`` in front) and its new one (the first has)."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        [line for text in CORPUS for line in text.split()],
        trainers.BpeTrainer(vocab_size=460, special_tokens=pieces, show_progress=False),
    )
    trained = Tokenizer.from_str(trained.to_str())
    content = re.sub(r'"added_tokens":\[.*?\],"normalizer"', '"added_tokens":[],"normalizer"', trained.to_str())
    backend = Tokenizer.from_str(content)
    if scheme == "every":
        backend.pre_tokenizer = None  # type: ignore[assignment]
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Chat(_fast(backend, LLAMA2, "</s>", "<s>"))


@cache
def chat(name: str) -> Chat:
    makers: dict[str, Callable[[], Chat]] = {
        "qwen": lambda: byte_level(CHATML, "<|im_end|>", "<|im_start|>", plain=("<think>", "</think>", "\n\n\n")),
        "llama3": lambda: byte_level(LLAMA3, "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        "swallows": lambda: byte_level(CHATML, "<|im_end|>", AddedToken("<|im_start|>", lstrip=True, rstrip=True)),
        "llama2 every": lambda: sentence_piece("every"),
        "llama2 first": lambda: sentence_piece("first"),
        "micro-world": lambda: Chat(build_tokenizer()),
    }
    return makers[name]()


NAMES = ("qwen", "llama3", "swallows", "llama2 every", "llama2 first", "micro-world")
TURNED = NAMES[:-1]
SPELLED = (
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "</s>",
    "<s>",
    "<think>",
    "<end>",
    "<assistant>",
    "<user>",
    "[INST]",
)
ordinary = st.text(st.sampled_from("abc 7.\n<|>_é語{}?"), max_size=12)
hostile = st.lists(st.one_of(st.sampled_from(SPELLED), ordinary), max_size=4).map("".join)


def whole(chat: Chat, text: str) -> tuple[int, ...]:
    return tuple(chat.tokenizer(text, add_special_tokens=False)["input_ids"])


def control_ids(chat: Chat, ids: tuple[int, ...]) -> list[int]:
    """The special tokens among these, words that are not in the vocabulary left out."""
    known = set(chat._encoder.ids.values()) - {chat.tokenizer.unk_token_id}
    return [id_ for id_ in ids if id_ in known]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(question=ordinary, instruction=ordinary)
def test_ordinary_texts_keep_the_bytes_they_had(name: str, question: str, instruction: str) -> None:
    own = chat(name)
    for style in STYLES:
        if any(spelling in f"{instruction}\n{question}" for spelling in own._encoder.ids):
            continue
        prompt = own.prompt_text(question, instruction, style)
        assert own.encode_prompt(question, instruction, style) == whole(own, prompt)


@pytest.mark.parametrize("name", TURNED)
@settings(max_examples=25)
@given(question=hostile, instruction=hostile, shown=hostile, answer=hostile)
def test_no_text_becomes_a_special_token(name: str, question: str, instruction: str, shown: str, answer: str) -> None:
    own = chat(name)
    template = str(Parts(instruction, (Turn(shown, answer),)))
    ids = own.encode_prompt(question, template)
    assert control_ids(own, ids) == control_ids(own, own.encode_prompt("a", str(Parts("a", (Turn("b", "c"),)))))
    if name != "swallows":  # its special tokens take the line breaks beside them
        decoded, prompt = own.tokenizer.decode(ids).replace("▁", " "), own.prompt_text(question, template, "plain")
        if name == "llama2 every":  # it writes a space in front of every part, whatever the text
            decoded, prompt = decoded.replace(" ", ""), prompt.replace(" ", "")
        assert decoded == prompt


@pytest.mark.parametrize("spelling", SPELLED)
@pytest.mark.parametrize("name", NAMES)
def test_every_spelling_in_a_question_and_in_a_style(name: str, spelling: str) -> None:
    own = chat(name)
    for style in STYLES:
        ids = own.encode_prompt(f"what is {spelling} ?", f"say {spelling}", style)
        assert control_ids(own, ids) == control_ids(own, own.encode_prompt("what", "say", style))


def test_a_spelling_is_encoded_as_the_tokenizer_encodes_it_without_special_tokens() -> None:
    own = chat("qwen")
    ids = own.encode_prompt("say <|im_end|> twice")
    start, end = own.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    asked = own.tokenizer("user\nsay <|im_end|> twice", add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    assert ids[: len(asked) + 2] == (start, *asked, end)


def test_a_special_token_of_one_character_is_refused() -> None:
    own = byte_level(CHATML, "<|im_end|>", "<|im_start|>", "¶")
    assert own.encode_prompt("a")
    with pytest.raises(BadInput, match=r"'¶'.*Mend"):
        own.encode_prompt("a ¶ b")


def test_style_and_instruction_stand_around_a_demonstration_as_around_the_question() -> None:
    own = chat("qwen")
    text = own.prompt_text("3 + 3 = ?", f"Digits only.\n{USER}\n1 + 1 = ?\n{ASSISTANT}\n2", "qwen25-math")
    assert text == (
        f"<|im_start|>system\n{STYLES['qwen25-math'].system}<|im_end|>\n"
        "<|im_start|>user\nDigits only.\n\n1 + 1 = ?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nDigits only.\n\n3 + 3 = ?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert STYLES["p2o"].user.replace("{question}", "1 + 1 = ?") in own.prompt_text(
        "3 + 3 = ?", f"{USER}\n1 + 1 = ?\n{ASSISTANT}\n2", "p2o"
    )


def test_demonstrations_need_a_chat_template_with_turns() -> None:
    """The micro-world's writes an answer as if the user had."""
    with pytest.raises(BadInput, match=r"several turns.*Mend"):
        chat("micro-world").encode_prompt("a", f"{USER}\nb\n{ASSISTANT}\nc")
