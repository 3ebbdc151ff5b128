"""Policies that vLLM can serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from microworld.pretrain import PretrainSettings, build_model
from microworld.tokenizer import build_tokenizer
from p2o_core.config import LoraPolicy
from p2o_core.policy import Policy
from p2o_core.prompts import Chat

LORA = LoraPolicy(rank=4)


@pytest.fixture(scope="session")
def served_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose heads are 32 wide, the least that vLLM's CPU attention takes."""
    folder = tmp_path_factory.mktemp("served") / "base"
    tokenizer = build_tokenizer()
    settings = PretrainSettings(
        seed=3,
        hidden_size=64,
        layers=2,
        heads=2,
        steps=1,
        texts_per_step=1,
        adamw_lr=1e-3,
        muon_lr=1e-3,
        lengths=(1,),
        fitting_share=0.5,
        bare_share=0.2,
    )
    Policy(build_model(settings, tokenizer), Chat(tokenizer)).save(folder)
    return folder


def moved_adapter(base: Path, folder: Path, *, seed: int, scale: float = 0.2) -> Policy:
    """An adapter away from its start (B is zero there and changes nothing), saved to ``folder``."""
    policy = Policy.create(base, LORA, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    policy.save(folder)
    return policy
