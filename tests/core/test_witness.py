"""An engine that serves another policy than it was given does not look like a hard set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from p2o_core.config import FullPolicy, LoraPolicy, PolicyConfig
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.groups import Group
from p2o_core.policy import Policy
from p2o_core.sharding.job import UpdateJob
from p2o_core.sharding.perform import perform
from p2o_core.witness import FILE, OtherPolicyServed, Witness, check_served, read_witness
from tests.core.test_sharding import Case
from tests.core.test_update import flat_group


def updated(folder: Path, base: Path, config: PolicyConfig, groups: list[Group] | None = None) -> UpdateJob:
    """The job of an update that is done."""
    case = Case(folder, base, config)
    case.groups = groups or case.groups
    case.alone("after")
    return case.job("after")


def served(policy: Path, job: UpdateJob, witness: Witness) -> tuple[float, ...]:
    return scored(Policy.load(policy, job.base, job.policy_config), witness)


def scored(policy: Policy, witness: Witness) -> tuple[float, ...]:
    (logps,) = EmbeddedEngine(policy, rows_per_batch=8).completion_logps([witness.request])
    return logps


@pytest.mark.parametrize("config", [FullPolicy(), LoraPolicy(rank=4)], ids=["full", "lora"])
def test_an_update_leaves_a_witness_that_tells_its_policy_from_the_one_before(
    base_folder: Path, tmp_path: Path, config: PolicyConfig
) -> None:
    job = updated(tmp_path, base_folder, config)
    witness = read_witness(job.new_policy)
    assert witness is not None
    new, old = served(job.new_policy, job, witness), served(job.policy, job, witness)
    assert (new, old) == (pytest.approx(witness.after, abs=1e-5), pytest.approx(witness.before, abs=1e-5))
    check_served(new, witness, "here")
    with pytest.raises(
        OtherPolicyServed, match=r"here serves the policy from before the last update: .* 0%, ±0%.*Mend"
    ):
        check_served(old, witness, "here")


def test_a_layer_that_was_never_filled_is_another_model(base_folder: Path, tmp_path: Path) -> None:
    job = updated(tmp_path, base_folder, FullPolicy())
    witness = read_witness(job.new_policy)
    assert witness is not None
    sharp = replace(witness, after=(-0.1,) * len(witness.after))  # the random base is near to uniform itself
    policy = Policy.load(job.new_policy, base_folder, FullPolicy())
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.zero_()
    with pytest.raises(OtherPolicyServed, match=r"another model: .* nats a token from the trainer's. .*Mend"):
        check_served(scored(policy, witness), sharp, "here")


def test_without_an_update_the_last_one_s_witness_stays(base_folder: Path, tmp_path: Path) -> None:
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    job = updated(tmp_path, base_folder, FullPolicy(), [flat_group(policy, 0.0)])
    assert read_witness(job.new_policy) is None
    first = updated(tmp_path / "first", base_folder, FullPolicy())
    job = replace(job, policy=first.new_policy, optimizer=first.new_optimizer, new_policy=tmp_path / "second")
    perform(job, Policy.load(job.policy, base_folder, FullPolicy()), [flat_group(policy, 1.0)])
    assert (job.new_policy / FILE).read_bytes() == (first.new_policy / FILE).read_bytes()


def test_an_engine_s_rounding_is_no_other_policy() -> None:
    """Updates of all sizes under the noise of a bfloat16 engine: the new policy passes, and the old one is found out
    where the update is larger than the noise."""
    draws = np.random.default_rng(0)
    for tokens in (1, 8, 20, 128):
        for size in (0.0, 1e-6, 1e-3, 0.03, 1.0):
            for noise in (1e-6, 0.01, 0.05):
                for _ in range(20):
                    before = -draws.exponential(1.0, tokens)
                    after = before + size * draws.standard_normal(tokens)
                    witness = Witness("p", (1,), (2,) * tokens, tuple(before), tuple(after))
                    rounding = noise * draws.standard_normal(tokens)
                    check_served(tuple(after + rounding), witness, "here")
                    if size >= 10 * noise and tokens >= 20:
                        with pytest.raises(OtherPolicyServed):
                            check_served(tuple(before + rounding), witness, "here")
