"""Shared pieces: a random tiny policy on the micro-world's tokenizer, and a verifier."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from flows.lifecycle.environment import prepare_environment

prepare_environment(Path(__file__).parent)

from microworld.pretrain import PretrainSettings, build_model  # noqa: E402
from microworld.tokenizer import build_tokenizer  # noqa: E402
from p2o_core.cluster.connection import LOCAL  # noqa: E402
from p2o_core.config import FullPolicy, LoraPolicy  # noqa: E402
from p2o_core.policy import Policy  # noqa: E402
from p2o_core.prompts import Chat  # noqa: E402
from p2o_core.verify import Verifier  # noqa: E402

BIN = Path(sys.executable).parent

# TRL imports Ray, which reads its settings then and never again
os.environ.update(LOCAL)

# a busy machine is no failure: an example may take longer than Hypothesis's 200 ms
settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")


TINY = PretrainSettings(
    seed=1,
    hidden_size=32,
    layers=2,
    heads=2,
    steps=1,
    texts_per_step=1,
    adamw_lr=1e-3,
    muon_lr=1e-3,
)
"""What makes a random Llama of two layers."""


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, saved as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = build_tokenizer()
    Policy(build_model(TINY, tokenizer), Chat(tokenizer)).save(folder)
    return folder


@pytest.fixture(params=["full", "lora"])
def policy(request: pytest.FixtureRequest, base_folder: Path) -> Policy:
    """Full weights, and a LoRA adapter moved off its start (B is zero there and would hide the adapter)."""
    if request.param == "full":
        return Policy.create(base_folder, FullPolicy(), seed=0)
    policy = Policy.create(base_folder, LoraPolicy(rank=4), seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def full_policy(base_folder: Path) -> Policy:
    return Policy.create(base_folder, FullPolicy(), seed=0)


@pytest.fixture(scope="session")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=3.0) as pool:
        yield pool
