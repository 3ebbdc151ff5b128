"""Pre-train the tiny policy on the corpus. One thread is faster than two for a model this small."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from microworld.corpus import Text
from p2o_core.checkpoints import LastStep
from p2o_core.optimizer import load_state_tensors, state_tensors

IGNORED = -100
"""Label of tokens that do not count in the loss (torch's cross-entropy convention)."""
CHECKPOINT_EVERY = 10
"""Steps, about a second."""
ROUNDS = 3
"""A base that falls short is trained on at most so often, a quarter of its steps at a time. Processors round
differently, and the bases they make of the same steps differ by more than a competence check forgives."""
WEIGHTS, OPTIMIZERS = "weights.safetensors", "optimizers.safetensors"


@dataclass(frozen=True)
class PretrainSettings:
    """With the corpus, everything that decides the base policy's bytes."""

    seed: int
    hidden_size: int
    layers: int
    heads: int
    steps: int
    texts_per_step: int
    adamw_lr: float
    muon_lr: float
    feed_forward: int = 4
    """Its width over the hidden size."""

    @property
    def further_steps(self) -> int:
        """Steps of a round behind the first."""
        return -(-self.steps // 4)

    @property
    def ends(self) -> list[int]:
        """The last step of each round."""
        return [self.steps + count * self.further_steps for count in range(ROUNDS + 1)]

    def rate(self, step: int) -> float:
        """Step ``step``'s share of the peak learning rates: warm-up, full, linear decay to 0; each further round decays
        from 0.3, which loses little of what is there."""
        if step < self.steps:
            return min(1.0, (step + 1) / max(1, self.steps // 20)) * min(1.0, (self.steps - step) / (0.6 * self.steps))
        return 0.3 * (1 - (step - self.steps) % self.further_steps / self.further_steps)


Draw = Callable[[random.Random], Text]
"""Draws one text of a corpus."""


def build_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of a few hundred thousand parameters with tied embeddings."""
    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.feed_forward * settings.hidden_size,
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


def batches(
    settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast, draw: Draw
) -> Iterator[tuple[Tensor, Tensor]]:
    """``(input_ids, labels)`` of shape [texts_per_step, T], right padded; texts of like length share a batch. One
    a step, for all rounds."""
    rng = random.Random(settings.seed)
    for count in blocks(settings):
        rows = [encode(tokenizer, draw(rng)) for _ in range(count * settings.texts_per_step)]
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


def blocks(settings: PretrainSettings, size: int = 8) -> Iterator[int]:
    """Steps whose texts are drawn together; a block ends where a round does."""
    for steps in (settings.steps, *[settings.further_steps] * ROUNDS):
        yield from [size] * (steps // size)
        if steps % size:
            yield steps % size


class Pretraining:
    """Model and optimisers: Muon for the matrices, AdamW for embeddings and norms."""

    def __init__(self, settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> None:
        self.settings = settings
        self.model = build_model(settings, tokenizer)
        self.matrices = {n: p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n}
        self.others = {n: p for n, p in self.model.named_parameters() if n not in self.matrices}
        self.muon = torch.optim.Muon(
            self.matrices.values(), lr=settings.muon_lr, weight_decay=0.0, adjust_lr_fn="original"
        )
        self.adamw = torch.optim.AdamW(self.others.values(), lr=settings.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, step: int, input_ids: Tensor, labels: Tensor) -> float:
        """Step ``step`` (from 0) on a batch of shape [texts_per_step, T]; returns the mean loss a token."""
        self.model.train()
        scale = self.settings.rate(step)
        logits = self.model(input_ids=input_ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        for optimizer, peak in ((self.muon, self.settings.muon_lr), (self.adamw, self.settings.adamw_lr)):
            optimizer.param_groups[0]["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def save(self, folder: Path) -> None:
        """Weights and both optimisers' state."""
        state = state_tensors(self.muon, self.matrices) | state_tensors(self.adamw, self.others)
        save_file({name: p.detach() for name, p in {**self.matrices, **self.others}.items()}, folder / WEIGHTS)
        save_file(state, folder / OPTIMIZERS)

    def load(self, folder: Path) -> None:
        """Continue from :meth:`save`."""
        weights, state = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZERS)
        for optimizer, parameters in ((self.muon, self.matrices), (self.adamw, self.others)):
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(weights[name])
            own = {key: value for key, value in state.items() if key.split("/", 1)[1] in parameters}
            load_state_tensors(optimizer, parameters, own)


def pretrain(
    settings: PretrainSettings,
    tokenizer: PreTrainedTokenizerFast,
    draw: Draw,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    *,
    checkpoints: Path | None = None,
) -> Iterator[tuple[int, LlamaForCausalLM]]:
    """Yield ``(steps, model)`` after all steps on texts that ``draw`` draws, and after each further round asked for.

    With a folder for ``checkpoints``, one that was killed goes on from its last one, to the same bits. Where a further
    round had begun, that round's end is the first to be yielded."""
    training = Pretraining(settings, tokenizer)
    last = LastStep(checkpoints) if checkpoints is not None else None
    done, folder = (last and last.get()) or (0, None)
    if folder is not None:
        training.load(folder)
    for step, (input_ids, labels) in enumerate(batches(settings, tokenizer, draw)):
        if step >= done:
            loss = training.step(step, input_ids, labels)
            on_step(step + 1, loss)
            if last is not None and ((step + 1) % CHECKPOINT_EVERY == 0 or step + 1 in settings.ends):
                last.put(step + 1, training.save)
        if step + 1 >= done and step + 1 in settings.ends:
            yield step + 1, training.model.eval()
