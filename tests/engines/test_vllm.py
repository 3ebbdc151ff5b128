"""The ``vllm`` engine on the real vLLM: log-probs as the trainer's, policies swapped without a restart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from p2o_core.batch import Batch
from p2o_core.config import FullPolicy, LoraPolicy, PolicyConfig, VllmEngineConfig
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutEngine, RolloutRequest, Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.engines.vllm import VllmEngine
from p2o_core.policy import Policy
from p2o_core.types import Completion
from p2o_core.witness import check_served
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.rejected import typed_stops
from tasks.running.runtime import Runtime
from tasks.running.stage import TrainingStopped
from tests.engines.conftest import LORA, moved_adapter, with_witness
from tests.policies import GENERATION, UP, set_fields, set_value

pytest.importorskip("vllm", reason="the vllm extra is not installed: `make vllm`")

CONFIG = VllmEngineConfig(max_model_len=128, max_sequences=64, cpu_cache_gib=1)
TEMPLATE = "Do not stop early."
SAMPLING = Sampling(0.7, 24)
REQUESTS = [
    RolloutRequest(f"p{n}", f"sum {n} a+5 b+2 ?", template, (0, 1, 2), 7)
    for n in range(4)
    for template in ("", TEMPLATE)
]
PARAMS = Path(__file__).parents[1] / "platform" / "params.yaml"


def experiment(policy: PolicyConfig) -> Experiment:
    return load_experiment(PARAMS).model_copy(update={"policy": policy, "engine": CONFIG})


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """One process, as a flow has it: vLLM starts once for each kind of policy."""
    with Runtime() as runtime:
        yield runtime


def trainer_logps(policy: Policy, completion: Completion, request: RolloutRequest) -> torch.Tensor:
    prompt = policy.chat.encode_prompt(request.question, request.template)
    batch = Batch.collate([prompt], [completion.token_ids], policy.chat.pad_id)
    with torch.no_grad():
        return policy.completion_logps(batch, SAMPLING.temperature)[0]


def check_logps(policy: Policy, completions: list[Completion]) -> None:
    by_row = [request for request in REQUESTS for _ in request.samples]
    for completion, request in zip(completions, by_row, strict=True):
        assert (completion.problem_id, completion.template) == (request.problem_id, request.template)
        ours = trainer_logps(policy, completion, request)
        torch.testing.assert_close(torch.tensor(completion.logps), ours, atol=1e-3, rtol=0)
        assert completion.truncated == (completion.token_ids[-1] != policy.chat.eos_id)


def test_every_end_of_sequence_token_ends(served_base: Path, tmp_path: Path) -> None:
    """Those of generation_config.json too; and a policy of NaN is typed, not a set of hard problems."""
    several, broken = (Path(shutil.copytree(served_base, tmp_path / name)) for name in ("several", "broken"))
    set_fields(GENERATION, eos_token_id=[3, *range(20, 60)])(several)
    set_value(UP, float("nan"))(broken)
    with Runtime() as runtime:
        engine = runtime.engine(several, several, experiment(FullPolicy()))
        completions = engine.generate(REQUESTS, SAMPLING)
        stops = {3, *range(20, 60)}
        assert len({completion.token_ids[-1] for completion in completions} & stops) > 2
        for completion in completions:
            assert not stops & set(completion.token_ids[:-1])
            assert completion.truncated == (completion.token_ids[-1] not in stops)
        engine = runtime.engine(broken, several, experiment(FullPolicy()))
        for temperature in (1.0, 0.0):
            with pytest.raises(PolicyNotFinite, match="p0, p1"):
                engine.generate(REQUESTS, Sampling(temperature, 4))


def texts(engine: RolloutEngine) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in engine.generate(REQUESTS, SAMPLING)]


def test_adapters_are_swapped_between_iterations(runtime: Runtime, served_base: Path, tmp_path: Path) -> None:
    settings = experiment(LORA)
    policies = {n: moved_adapter(served_base, tmp_path / str(n), seed=n) for n in (1, 2)}
    reference = texts(runtime.engine(served_base, served_base, settings))
    started = runtime._vllm
    answers = {}
    for iteration, policy in policies.items():
        completions = runtime.engine(tmp_path / str(iteration), served_base, settings).generate(REQUESTS, SAMPLING)
        assert runtime._vllm is started, "vLLM was started again"
        check_logps(policy, completions)
        answers[iteration] = [completion.token_ids for completion in completions]
    assert answers[1] != answers[2] != reference != answers[1]
    # back again: neither the reference nor a cached prefix has anything of the adapters
    assert texts(runtime.engine(served_base, served_base, settings)) == reference
    assert texts(runtime.engine(tmp_path / "1", served_base, settings)) == answers[1]


def test_an_adapter_that_is_not_applied_is_found_out(
    runtime: Runtime, served_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = with_witness(moved_adapter(served_base, tmp_path / "7", seed=7), tmp_path / "7")
    engine = runtime.engine(tmp_path / "7", served_base, experiment(LORA))
    check_served(engine.completion_logps([witness.request])[0], witness, "vLLM")
    runtime.engine(served_base, served_base, experiment(LORA))
    monkeypatch.setattr(VllmEngine, "use", lambda self, policy: None)
    stopped = pytest.raises(TrainingStopped, match=r"iteration 1: vLLM serves .*Mend")
    with stopped, typed_stops(tmp_path / "rows.parquet", "iteration 1"):
        runtime.engine(tmp_path / "7", served_base, experiment(LORA))


def test_completions_are_scored_as_the_trainer_scores_them(runtime: Runtime, served_base: Path, tmp_path: Path) -> None:
    """At temperature 1 under any prompt, and as the embedded engine does."""
    policy = moved_adapter(served_base, tmp_path / "1", seed=1)
    engine = runtime.engine(tmp_path / "1", served_base, experiment(LORA))
    asked = [
        LogprobRequest(c.problem_id, REQUESTS[2 * int(c.problem_id[1:])].question, template, c.token_ids)
        for c in engine.generate(REQUESTS, SAMPLING)
        for template in ("", TEMPLATE)
    ]
    ours, theirs = EmbeddedEngine(policy, rows_per_batch=64).completion_logps(asked), engine.completion_logps(asked)
    for mine, scored, request in zip(ours, theirs, asked, strict=True):
        assert len(scored) == len(request.token_ids)
        torch.testing.assert_close(torch.tensor(scored), torch.tensor(mine), atol=1e-3, rtol=0)
    assert engine.completion_logps([]) == []
    with pytest.raises(ValueError, match=r"problem p0.*engine\.max_model_len is 128"):
        engine.completion_logps([LogprobRequest("p0", "sum 1 a+5 ?", "", (5,) * 128)])


def test_samples_differ_and_greedy_ones_do_not(runtime: Runtime, served_base: Path) -> None:
    rows = []
    engine = runtime.engine(served_base, served_base, experiment(LORA), rows.append)
    sampled = engine.generate(REQUESTS[:1], SAMPLING)
    assert len({completion.token_ids for completion in sampled}) == len(sampled)
    assert sum(rows) == len(sampled)
    greedy = engine.generate(REQUESTS[:1], Sampling(0.0, 8))
    assert len({completion.token_ids for completion in greedy}) == 1
    assert set(greedy[0].logps) == {0.0}
    assert engine.generate([], SAMPLING) == []


def test_more_prompts_than_fit_into_a_step(runtime: Runtime, served_base: Path) -> None:
    """vLLM on CPU cannot split a prompt of a seeded request between two steps; it must not try."""
    steps = " ".join(f"{label}+5" for label in "abcdefghi")
    many = [RolloutRequest(f"p{n}", f"sum {n} {steps} {steps} {steps} ?", "", (0,), n) for n in range(99)]
    engine = runtime.engine(served_base, served_base, experiment(LORA))
    assert len(engine.generate(many, Sampling(0.7, 2))) == len(many)


def test_a_prompt_that_does_not_fit_is_refused(runtime: Runtime, served_base: Path) -> None:
    engine = runtime.engine(served_base, served_base, experiment(LORA))
    with pytest.raises(ValueError, match=r"problem p0.*engine\.max_model_len is 128"):
        engine.generate(REQUESTS[:1], Sampling(0.7, 128))


def test_full_weights_are_read_in_place(runtime: Runtime, served_base: Path, tmp_path: Path) -> None:
    settings = experiment(FullPolicy())
    policy = Policy.create(served_base, FullPolicy(), seed=0)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    policy.save(tmp_path / "1")
    reference = texts(runtime.engine(served_base, served_base, settings))
    started = runtime._vllm
    completions = runtime.engine(tmp_path / "1", served_base, settings).generate(REQUESTS, SAMPLING)
    assert runtime._vllm is started, "vLLM was started again"
    check_logps(policy, completions)
    assert [completion.token_ids for completion in completions] != reference
    assert texts(runtime.engine(served_base, served_base, settings)) == reference


def test_the_trainer_s_policy_makes_room_and_comes_back(runtime: Runtime, served_base: Path, tmp_path: Path) -> None:
    settings = experiment(LoraPolicy(rank=4))
    moved_adapter(served_base, tmp_path / "1", seed=5)
    before = texts(runtime.engine(tmp_path / "1", served_base, settings))
    trainer = runtime.trainer(tmp_path / "1", served_base, settings.policy)
    assert next(iter(trainer.trainable_parameters().values())).requires_grad
    assert texts(runtime.engine(tmp_path / "1", served_base, settings)) == before
