"""Pre-train the tiny policy on the corpus. One thread is faster than two for a model this small."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from microworld.corpus import Text, draw_text

IGNORED = -100
"""Label of tokens that do not count in the loss (torch's cross-entropy convention)."""


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that decides the base policy's bytes."""

    seed: int
    hidden_size: int
    layers: int
    heads: int
    steps: int
    texts_per_step: int
    adamw_lr: float
    muon_lr: float
    lengths: tuple[int, ...]
    fitting_share: float
    bare_share: float
    distractors: int = 0


def build_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of a few hundred thousand parameters with tied embeddings."""
    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=4 * settings.hidden_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, text: Text) -> tuple[list[int], list[int]]:
    """Token ids and labels; the loss counts the completion only."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text.prompt}], add_generation_prompt=True, tokenize=False
    )
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    completion_ids = tokenizer(text.completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return prompt_ids + completion_ids, [IGNORED] * len(prompt_ids) + completion_ids


def batches(settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """``(input_ids, labels)`` of shape [texts_per_step, T], right padded; texts of like length share a batch."""
    rng = random.Random(settings.seed)
    block = 8
    for first in range(0, settings.steps, block):
        count = min(block, settings.steps - first)
        rows = [
            encode(
                tokenizer,
                draw_text(
                    rng,
                    lengths=settings.lengths,
                    fitting_share=settings.fitting_share,
                    bare_share=settings.bare_share,
                    distractors=settings.distractors,
                ),
            )
            for _ in range(count * settings.texts_per_step)
        ]
        rows.sort(key=lambda row: len(row[0]))
        order = list(range(count))
        rng.shuffle(order)
        for index in order:
            chunk = rows[index * settings.texts_per_step : (index + 1) * settings.texts_per_step]
            width = max(len(ids) for ids, _ in chunk)
            pad = tokenizer.pad_token_id
            yield (
                torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in chunk]),
                torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in chunk]),
            )


def pretrain(
    settings: PretrainSettings,
    tokenizer: PreTrainedTokenizerFast,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> LlamaForCausalLM:
    """Muon for the matrices, AdamW for embeddings and norms, warm-up then linear decay to zero."""
    model = build_model(settings, tokenizer)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=0.0, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=settings.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [settings.muon_lr, settings.adamw_lr]
    warmup = max(1, settings.steps // 20)
    model.train()
    for step, (input_ids, labels) in enumerate(batches(settings, tokenizer)):
        scale = min(1.0, (step + 1) / warmup) * min(1.0, (settings.steps - step) / (0.6 * settings.steps))
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * scale
        logits = model(input_ids=input_ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        on_step(step + 1, loss.item())
    return model.eval()
