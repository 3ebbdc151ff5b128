"""What divides by the number of accelerators and what does not, in the paper's recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.preflight.scaling import Spread, spread
from flows.preflight.shapes import Shape, shape_of
from flows.preflight.speed import Roofline, machine_named
from flows.preflight.work import Assumptions, Work, count
from flows.versioning.workspace import preview
from p2o_core.schemas import BadInput
from tests.platform.workspace import REPOSITORY

ASSUMED = Assumptions(6000.0)
GPUS = (1, 8, 64, 1000)


def paper(arm: str = "p2o") -> tuple[Roofline, list[Work]]:
    experiment, layout = preview(Path(REPOSITORY), recipe="qwen3-4b-deepmath", arm=arm)
    shape = shape_of(experiment, layout)
    assert shape is not None
    return Roofline(experiment, shape, machine_named("h100", layout.workspace), ASSUMED), count(
        experiment, 700, ASSUMED
    )


def stages(on: Spread) -> dict[str, float]:
    return {stage.stage: stage.seconds for stage in on.stages}


def test_one_accelerator_takes_what_the_plan_says() -> None:
    roofline, work = paper()
    alone, planned = spread(roofline, work, 1), roofline.speed()
    assert alone.seconds == pytest.approx(sum(planned.seconds(stage) for stage in work), rel=0.01)
    assert alone.swaps_s == 0.0
    assert alone.efficiency(alone) == 1.0


def test_more_are_faster_until_something_does_not_divide() -> None:
    roofline, work = paper()
    spreads = [spread(roofline, work, number) for number in GPUS]
    alone = spreads[0]
    times, shares = [on.seconds for on in spreads], [on.efficiency(alone) for on in spreads]
    assert times == sorted(times, reverse=True)
    assert shares == sorted(shares, reverse=True)
    assert shares[1] > 0.9
    assert shares[3] < 0.1
    assert [bool(on.bound) for on in spreads] == [False, False, True, True]
    # 12,288 steps of a single row, 390 times: the weights are read for each of them, whatever the number of GPUs
    longest = 390 * roofline.experiment.rollout.max_new_tokens * roofline.step_s(1)
    assert stages(spreads[3])["rollout"] == pytest.approx(longest)
    assert spreads[3].bound.endswith("the longest completion")


def test_shorter_completions_move_the_floor() -> None:
    roofline, work = paper()
    short = roofline.experiment.rollout.model_copy(update={"max_new_tokens": 1024})
    experiment, assumed = roofline.experiment.model_copy(update={"rollout": short}), Assumptions(500.0)
    quick = Roofline(experiment, roofline.shape, roofline.machine, assumed)
    floor = stages(spread(quick, count(experiment, 700, assumed), 1000))["rollout"]
    assert floor == pytest.approx(stages(spread(roofline, work, 1000))["rollout"] / 12, rel=0.2)


def test_an_update_has_so_many_micro_batches_a_step() -> None:
    """128 problems an iteration are two steps of 64 groups of 6: 384 rows of 6,150 tokens, 145 of 16,384."""
    roofline, work = paper()
    update = stages(spread(roofline, work, 1))["update"]
    assert stages(spread(roofline, work, 1000))["update"] == pytest.approx(update / 145)


def test_a_published_run() -> None:
    """GRPO of Llama-3.1-8B on 16 H100 with NeMo RL 0.4: 2,048 completions of 1,060 tokens an iteration, 512 an
    optimiser step, at most 4,096 tokens long, 97.7 s
    (https://github.com/NVIDIA-NeMo/RL/blob/r0.4.0/docs/about/performance-summary.md). The data sheet leaves out start
    and end of the stages, and says 75 s."""
    roofline, _ = paper("grpo")
    ours = roofline.experiment
    experiment = ours.model_copy(
        update={
            "iterations": 1,
            "rollout": ours.rollout.model_copy(update={"problems": 256, "samples": 8, "max_new_tokens": 4096}),
            "distill": ours.distill.model_copy(update={"groups_per_minibatch": 64, "tokens_per_microbatch": 4096}),
            "policy": ours.policy.model_copy(update={"checkpointing": False}),
        }
    )
    assumed = Assumptions(860.0, 200.0, signal_share=1.0)
    shape = Shape(parameters=8_030_261_248, layers=32, hidden=4096, kv_width=1024, vocabulary=128_256)
    work = [stage for stage in count(experiment, 1, assumed) if stage.stage in ("rollout", "distill")]
    on = spread(Roofline(experiment, shape, roofline.machine, assumed), work, 16)
    assert 0.7 < on.seconds / 97.7 < 1.1


def test_an_adapter_is_little_to_send() -> None:
    (full, work), (lora, adapter_work) = paper(), paper("p2o-lora")
    assert spread(lora, adapter_work, 64).moved < spread(full, work, 64).moved / 50
    assert spread(full, work, 64).swaps_s > spread(full, work, 8).swaps_s, "the network is slower than the node"


def test_a_policy_that_does_not_fit_is_refused() -> None:
    roofline, work = paper()
    small = roofline.machine.model_copy(update={"memory_gib": 8.0})
    with pytest.raises(BadInput, match="does not fit into 8 GiB"):
        spread(replace(roofline, machine=small), work, 8)
