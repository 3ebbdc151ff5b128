"""Prompts and answers that are longer than what a model knows of positions."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from p2o_core.schemas import BadInput
from tasks.problems.base_policy import byte_chat
from tasks.problems.position_check import check_positions

CHAT = byte_chat()
QUESTIONS = ["What is 12 + 30?", "What is 1 + 1?"]
PROMPT = len(CHAT.encode_prompt(QUESTIONS[0]))
SMALL = {"vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
GPT2 = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=100, n_embd=8, n_layer=1, n_head=1))
OPT = OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=8, max_position_embeddings=100, word_embed_proj_dim=8))
LLAMA = LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=8, max_position_embeddings=100))


@pytest.mark.parametrize("model", [GPT2, OPT], ids=["gpt2", "opt"])
def test_learned_positions_are_a_bound(model: object) -> None:
    assert check_positions(CHAT, model, Path("m"), {"rollout": ("plain", 100 - PROMPT)}, QUESTIONS) == ""
    room = rf"100 learned positions; .*Mend: evaluate.max_new_tokens: {100 - PROMPT} at most"
    with pytest.raises(BadInput, match=room):
        check_positions(CHAT, model, Path("m"), {"evaluate": ("plain", 101 - PROMPT)}, QUESTIONS)
    with pytest.raises(BadInput, match="Mend: shorter problems"):
        check_positions(CHAT, model, Path("m"), {"rollout": ("plain", 1)}, ["x" * 100])


def test_computed_positions_are_a_warning() -> None:
    assert check_positions(CHAT, LLAMA, Path("m"), {"rollout": ("plain", 100 - PROMPT)}, QUESTIONS) == ""
    said = check_positions(CHAT, LLAMA, Path("m"), {"rollout": ("plain", 101 - PROMPT)}, QUESTIONS)
    assert "trained on 100 positions" in said


def test_a_template_that_writes_the_date_writes_the_same_one_every_day() -> None:
    """Llama 3's lines."""
    chat = byte_chat()
    chat.tokenizer.chat_template = (
        "{% if not date_string is defined %}{% if strftime_now is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}"
        "{% endif %}{% endif %}Today Date: {{ date_string }} {{ messages[0].content }}"
    )
    assert chat.prompt_text("x", "", "plain") == "Today Date: 26 Jul 2024 x"
