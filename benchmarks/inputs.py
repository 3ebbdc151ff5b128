"""What both sides of a row are given: random policies of a shape, groups of random tokens, and real bases.

Bases that take long to make are kept under experiments/benchmarks.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from benchmarks.row import REPOSITORY
from microworld.corpus import draw_text
from microworld.pretrain import PretrainSettings, pretrain
from microworld.tokenizer import build_tokenizer
from p2o_core.config import FullPolicy, LoraPolicy, PolicyConfig
from p2o_core.groups import Group, TrainingSample
from p2o_core.policy import Policy
from p2o_core.prompts import Chat

KEPT = REPOSITORY / "experiments" / "benchmarks"
FIRST_WORD = 10
"""Random tokens begin here, behind the special ones."""
MICRO = PretrainSettings(
    seed=0, steps=280, hidden_size=96, layers=3, heads=4, texts_per_step=48, adamw_lr=4e-3, muon_lr=0.02
)
"""examples/one_iteration.py's base policy: half a minute to make."""


@dataclass(frozen=True)
class Shape:
    """Of a policy with tied embeddings."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    key_value_heads: int | None = None
    head_size: int | None = None
    architecture: Literal["llama", "qwen3"] = "llama"

    @property
    def body(self) -> int:
        """Parameters of the layers' matrices."""
        size = self.head_size or self.hidden // self.heads
        queries, values = self.heads * size, (self.key_value_heads or self.heads) * size
        return self.layers * (2 * self.hidden * (queries + values) + 3 * self.hidden * self.feed_forward)

    def update_flop(self, samples: Group, *, trains_all: bool, shares_prompts: bool = True) -> float:
        """Least operations of a forward and backward pass over samples: each prompt of a group once, the output layer
        on completion tokens only, attention over what is visible, nothing twice. A frozen weight needs no gradient."""
        prompts: Mapping[Any, int] = {
            (s.prompt_ids if shares_prompts else index): len(s.prompt_ids) for index, s in enumerate(samples)
        }
        written = sum(len(s.completion_ids) for s in samples)
        passes = 6 if trains_all else 4
        matrices = passes * (self.body * (sum(prompts.values()) + written) + self.vocabulary * self.hidden * written)
        seen = sum(p * p / 2 for p in prompts.values())
        seen += sum(len(s.completion_ids) * (len(s.prompt_ids) + len(s.completion_ids) / 2) for s in samples)
        attention = 3 * 4 * seen * self.layers * self.heads * (self.head_size or self.hidden // self.heads)
        return matrices + attention


def random_policy(shape: Shape, folder: Path, *, lora: bool, dtype: str = "float32", device: str = "cpu") -> Policy:
    """Random weights with the micro-world's tokenizer; with ``lora`` its adapter is moved off its start, where B is
    zero and half of the gradient with it."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    kind, model_of = (
        (Qwen3Config, Qwen3ForCausalLM) if shape.architecture == "qwen3" else (LlamaConfig, LlamaForCausalLM)
    )
    model = model_of(
        kind(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads or shape.heads,
            head_dim=shape.head_size or shape.hidden // shape.heads,
            max_position_embeddings=32_768,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    Policy(model.to(getattr(torch, dtype)), Chat(tokenizer)).save(folder)
    del model
    config: PolicyConfig = LoraPolicy(dtype=dtype, device=device) if lora else FullPolicy(dtype=dtype, device=device)
    policy = Policy.create(folder, config, seed=0)
    if lora:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in policy.trainable_parameters().values():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return policy


def random_groups(
    *, groups: int, samples: int, shortest: int, longest: int, prompt: int, vocabulary: int, signal: float, seed: int
) -> list[Group]:
    """Groups of random tokens. Completion lengths are log-uniform from ``shortest`` to ``longest`` tokens, the longest
    is there; prompts have ``prompt`` tokens on average, give or take a half. The share ``signal`` of the groups has
    rewards that differ. Old log-probs lie near those of a random policy, -log V, within the clip."""
    rng = random.Random(seed)
    total = groups * samples
    lengths = [round(shortest * (longest / shortest) ** ((i + 0.5) / total)) for i in range(total)]
    lengths[-1] = longest
    rng.shuffle(lengths)
    made: list[Group] = []
    for group in range(groups):
        size = rng.randint(prompt // 2, 3 * prompt // 2)
        asked = tuple(rng.randrange(FIRST_WORD, vocabulary) for _ in range(size))
        varied = group < round(signal * groups)
        members = []
        for sample in range(samples):
            length = lengths[group * samples + sample]
            written = tuple(rng.randrange(FIRST_WORD, vocabulary) for _ in range(length))
            level = -float(torch.log(torch.tensor(float(vocabulary))))
            logps = tuple(level + rng.gauss(0, 0.02) for _ in range(length))
            reward = float(varied and sample % 4 == 0)
            members.append(TrainingSample(f"p{group}", asked, written, logps, reward, templated=False, sample=sample))
        made.append(members)
    return made


def micro_base() -> Path:
    """A folder with the micro-world's base policy."""
    folder = KEPT / "micro"
    if not (folder / "config.json").exists():
        tokenizer = build_tokenizer()
        draw = partial(draw_text, lengths=(1, 2, 3, 4), fitting_share=0.4, bare_share=0.2)
        _, model = next(pretrain(MICRO, tokenizer, draw))
        _keep(Policy(model, Chat(tokenizer)), folder)
    return folder


def smollm2_base() -> Path | None:
    """A folder with SmolLM2-135M-Instruct, None where `make smollm2` has not been run."""
    from p2o_core.schemas import BadInput
    from tasks.problems.base_policy import GgufPolicy

    folder = KEPT / "smollm2"
    if not (folder / "config.json").exists():
        try:
            _keep(GgufPolicy().load(REPOSITORY, ["plain"]), folder)
        except BadInput:
            return None
    return folder


def _keep(policy: Policy, folder: Path) -> None:
    scratch = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    policy.save(scratch)
    scratch.rename(folder)
