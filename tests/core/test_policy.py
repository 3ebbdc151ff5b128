"""Saving and loading: the same policy is the same bytes, wherever its base lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from p2o_core.batch import Batch
from p2o_core.config import FullPolicy, LoraPolicy
from p2o_core.digests import digest
from p2o_core.policy import Policy


@pytest.mark.parametrize("config", [FullPolicy(), LoraPolicy(rank=4)], ids=["full", "lora"])
def test_bytes_do_not_depend_on_the_folder(config: FullPolicy | LoraPolicy, base_folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "base"
    shutil.copytree(base_folder, elsewhere)
    for name, base in (("one", base_folder), ("two", elsewhere)):
        Policy.create(base, config, seed=3).save(tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    again = Policy.load(tmp_path / "one", elsewhere, config)
    again.save(tmp_path / "three")
    assert digest(tmp_path / "three") == digest(tmp_path / "one")
    if isinstance(config, LoraPolicy):  # peft keeps a set: its order is another one in every process
        adapted = json.loads((tmp_path / "one" / "adapter_config.json").read_text())["target_modules"]
        assert adapted == sorted(adapted)


def test_the_adapter_s_random_half_comes_from_the_seed(base_folder: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        Policy.create(base_folder, LoraPolicy(rank=4), seed=seed).save(tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "again") != digest(tmp_path / "other")


def test_loaded_policy_gives_the_same_logps(policy: Policy, base_folder: Path, tmp_path: Path) -> None:
    policy.save(tmp_path / "saved")
    lora = any("lora" in name for name in policy.trainable_parameters())
    loaded = Policy.load(tmp_path / "saved", base_folder, LoraPolicy(rank=4) if lora else FullPolicy())
    batch = Batch.collate([policy.chat.encode_prompt("sum 4 a+2 ?")], [[5, 6, 7]], policy.chat.pad_id)
    assert torch.equal(policy.completion_logps(batch, 0.7), loaded.completion_logps(batch, 0.7))
    assert set(loaded.trainable_parameters()) == set(policy.trainable_parameters())


def test_a_base_policy_s_dropout_stays_out_of_the_update(base_folder: Path) -> None:
    """Checkpointing asks transformers for training mode, in which Llama's attention would drop half of its weights."""
    policy = Policy.create(base_folder, FullPolicy(checkpointing=True), seed=0)
    for module in policy.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    batch = Batch.collate([[5, 6], [7]], [[1, 4], [2, 3]], pad=0)
    logps = policy.completion_logps(batch, 1.0)
    assert logps.requires_grad
    with torch.no_grad():
        assert torch.equal(policy.completion_logps(batch, 1.0), logps.detach())
