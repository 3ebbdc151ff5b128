"""A local Ray cluster of two actors gives one process's bytes, also when an actor is killed in the middle.

One cluster for the whole file: it takes some ten seconds to start, and as long for its actors.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from flows.preflight.doctor import Health, examine
from p2o_core.cluster.connection import resources
from p2o_core.cluster.engine import RayEngine
from p2o_core.cluster.verifier import RayVerifier
from p2o_core.digests import digest, read_digest
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutRequest, Sampling, shards
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.policy import Policy, settle_arithmetic
from p2o_core.schemas import BadInput
from p2o_core.verify import Verifier
from tasks.parameters.experiment import Experiment, check_experiment
from tasks.registry import STAGES, plan
from tasks.running.layout import Layout
from tasks.running.plan import run_plan
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime
from tests.loopback import free_port, served

ROWS = 12
SAMPLING = Sampling(1.0, 12)
QUESTIONS = [f"sum {n} a+{n % 7} b+2 ?" for n in range(30)]
SMALL = f"""
experiment: tiny
iterations: 1
prepare:
  type: files
  policy: {{type: random}}
  train: {{generator: {{type: arithmetic, digits: [1, 2], count: 16, shard: 0}}}}
  heldout: {{generator: {{type: arithmetic, digits: [1, 2], count: 8, shard: 1}}}}
  phrases: [Work step by step., Check the result.]
policy: {{type: lora, rank: 4}}
engine: {{type: embedded, rows_per_batch: {ROWS}}}
rollout: {{problems: 16, samples: 6, temperature: 1.0, max_new_tokens: 6}}
verify: {{workers: 1}}
evolve: {{reflector: {{type: phrases}}, dev_size: 4, max_metric_calls: 36, first: 1}}
distill: {{groups_per_minibatch: 4, learning_rate: 1.0e-3}}
evaluate: {{samples: 4, max_new_tokens: 6}}
"""
SPREAD = SMALL.replace("type: embedded,", "type: ray, engine: {").replace(f"batch: {ROWS}", f"batch: {ROWS}}}")


def experiment(text: str) -> Experiment:
    return check_experiment(text, name="params.yaml")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    settle_arithmetic(1)
    with Runtime() as runtime:
        yield runtime
        (folder,) = {runtime._cluster._folder}
        before = psutil.Process().children(recursive=True)
        assert any(str(folder) in " ".join(process.cmdline()) for process in before)
    _, alive = psutil.wait_procs(before, timeout=10)
    assert [process.name() for process in alive if "ray" in process.name()] == [], "no process of Ray's is left behind"
    assert not folder.exists()


@pytest.fixture
def spread(runtime: Runtime, base_folder: Path) -> RayEngine:
    """Two actors, pointed at the base; a full policy is what they load."""
    text = SPREAD.replace("{type: lora, rank: 4}", "{type: full}")
    engine = runtime.engine(base_folder, base_folder, experiment(text))
    assert isinstance(engine, RayEngine)
    return engine


def one_process(folder: Path, base: Path) -> EmbeddedEngine:
    policy = experiment(SMALL.replace("{type: lora, rank: 4}", "{type: full}")).policy
    return EmbeddedEngine(Policy.load(folder, base, policy), rows_per_batch=ROWS)


def requests() -> list[RolloutRequest]:
    return [RolloutRequest(f"p{n}", question, "", tuple(range(5)), 11) for n, question in enumerate(QUESTIONS)]


def actors(name: str) -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.name().startswith(f"ray::{name}")]


def killing(name: str, after: int) -> Callable[[int], None]:
    """For ``on_rows``: kill -9 one actor of that class once so many parts are done."""
    done = 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += 1
        if done == after:
            os.kill(actors(name)[0].pid, signal.SIGKILL)

    return on_rows


def moved(folder: Path, target: Path, *, scale: float = 0.1, nan: bool = False) -> Path:
    """The policy in ``folder`` with other weights."""
    policy = Policy.load(folder, folder, experiment(SMALL.replace("{type: lora, rank: 4}", "{type: full}")).policy)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
            if nan:
                parameter.fill_(float("nan"))
    policy.save(target)
    return target


def test_completions_and_scores_are_one_process_s(spread: RayEngine, base_folder: Path) -> None:
    one = one_process(base_folder, base_folder)
    alone = one.generate(requests(), SAMPLING)
    assert spread.generate(requests(), SAMPLING) == alone
    assert sum(spread.crew.stats.answered.values()) == 15, "parts of at most 12 rows"
    scored = [LogprobRequest(c.problem_id, QUESTIONS[0], "Be brief.", c.token_ids) for c in alone[:40]]
    assert spread.completion_logps(scored) == one.completion_logps(scored)
    assert (spread.generate([], SAMPLING), spread.completion_logps([])) == ([], [])
    assert spread.swaps.count == 1, "the base was sent once"


def test_an_actor_killed_half_way_changes_nothing(spread: RayEngine, base_folder: Path) -> None:
    """Nothing lost, nothing doubled; the dead actor comes back and takes part again."""
    alone = one_process(base_folder, base_folder).generate(requests(), SAMPLING)
    rows: list[int] = []
    kill = killing("EngineWorker", 3)
    spread.on_rows = lambda count: (rows.append(count), kill(count))
    assert spread.generate(requests(), SAMPLING) == alone
    assert spread.crew.stats.lost >= 1
    assert (sum(rows), sum(spread.crew.stats.answered.values())) == (len(alone), 15)
    spread.on_rows = None
    deadline = time.monotonic() + 60
    while len(spread.crew.stats.answered) < 2:
        assert time.monotonic() < deadline, "the actor was not restarted"
        assert spread.generate(requests(), SAMPLING) == alone


def test_a_swap_sends_a_policy_once_and_is_checked(
    runtime: Runtime, spread: RayEngine, base_folder: Path, tmp_path: Path
) -> None:
    other = moved(base_folder, tmp_path / "other")
    before = spread.swaps
    spread.use(other)
    assert spread.generate(requests(), SAMPLING) == one_process(other, base_folder).generate(requests(), SAMPLING)
    size = sum(path.stat().st_size for path in other.iterdir())
    assert (spread.swaps.count, spread.swaps.size) == (before.count + 1, before.size + size)
    spread.use(base_folder)
    assert spread.generate(requests(), SAMPLING) == one_process(base_folder, base_folder).generate(requests(), SAMPLING)
    assert spread.swaps.count == before.count + 1, "the actors still have it"
    (unpacked,) = Path(runtime._cluster.scratch).glob(f"*/{digest(base_folder)}")
    (unpacked / "README.md").write_text("not what was sent")
    with pytest.raises(EngineUnavailable, match=r"an actor samples from policy .* was sent. Mend"):
        spread.generate(requests(), SAMPLING)
    (unpacked / "README.md").unlink()


def test_a_policy_of_nan_is_one_process_s_error(spread: RayEngine, base_folder: Path, tmp_path: Path) -> None:
    broken = moved(base_folder, tmp_path / "broken", nan=True)
    spread.use(broken)
    with pytest.raises(PolicyNotFinite) as alone:
        one_process(broken, base_folder).generate(requests(), SAMPLING)
    with pytest.raises(PolicyNotFinite) as raised:
        spread.generate(requests(), SAMPLING)
    plain = [dataclasses.replace(c, logps=()) for c in raised.value.completions]
    assert plain == [dataclasses.replace(c, logps=()) for c in alone.value.completions]
    spread.use(base_folder)
    assert len(spread.generate(requests()[:2], SAMPLING)) == 10, "the actors go on"


def test_verdicts_are_one_verifier_s(runtime: Runtime, verifier: Verifier) -> None:
    """A hanging answer, one killed actor and many honest answers."""
    spread = runtime.verifier(experiment(SPREAD))
    assert isinstance(spread, RayVerifier)
    pairs = [(f"so \\boxed{{{n}}}", ("52", "53") if n % 2 else "52") for n in range(300)]
    pairs += [("\\boxed{9^{9^{9^{9}}}}", "52"), ("nothing", "52"), *pairs[:3]]
    alone = verifier.verify(pairs)
    assert spread.verify(pairs) == alone
    os.kill(actors("VerifierWorker")[0].pid, signal.SIGKILL)
    assert spread.verify(pairs) == alone
    assert spread.verify([]) == []


def test_an_iteration_is_the_same_to_the_byte(runtime: Runtime, tmp_path: Path) -> None:
    """All stages with an adapter, one actor killed in the middle of the rollouts."""
    files: dict[str, dict[str, str]] = {}
    for name, text in (("alone", SMALL), ("spread", SPREAD)):
        layout = Layout(tmp_path / name, "tiny")
        layout.sources.mkdir(parents=True)
        layout.params.write_text(text)
        own = experiment(text)
        if name == "alone":
            with Runtime() as process:
                assert len(list(run_plan(plan(1), own, layout, process))) > 6
        else:
            for stage, iteration in plan(1):
                kill = killing("EngineWorker", 4)
                steps: list[int] = []
                progress = (lambda done, total: kill(done)) if stage is STAGES["rollout"] else lambda done, total: None
                run_stage(stage, own, layout, iteration, runtime, progress)
            assert steps == []
        content = (path for path in (layout.workspace / "data").rglob("*") if path.is_file())
        files[name] = {
            layout.relative(path): read_digest(path)
            for path in content
            if not path.name.endswith("manifest.json") and "timings" not in path.name
        }
    assert files["alone"] == files["spread"]
    assert any(name.endswith("1/verdicts.parquet") for name in files["spread"])
    swaps = runtime._ray[1].swaps
    assert swaps.count == 3, "the base, and an adapter before and after the update"
    assert 0 < swaps.last < swaps.size / 4


def test_another_process_can_use_the_cluster_with_its_token_only(runtime: Runtime, spread: RayEngine) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")
    assert resources(address)["CPU"] == 2 + 2
    config = SPREAD.replace("type: ray,", f"type: ray, address: '{address}', actors: 3,")
    checks = {
        check.what: check for check in examine(experiment(config), Layout(Path("/nowhere"), "x"), Path("/nowhere"))
    }
    assert checks["package ray"].health is Health.OK
    assert checks[f"cluster {address}"].health is Health.UNSURE
    assert "4 CPUs, 5 asked for" in checks[f"cluster {address}"].found


def test_an_address_where_no_cluster_is() -> None:
    address = f"127.0.0.1:{free_port()}"
    config = experiment(SPREAD.replace("type: ray,", f"type: ray, address: '{address}',"))
    with pytest.raises(BadInput, match=r"engine.address .*: no Ray cluster answers there .*Mend: `ray start --head"):
        Runtime().verifier(config)
    checks = {check.what: check for check in examine(config, Layout(Path("/nowhere"), "x"), Path("/nowhere"))}
    assert checks[f"cluster {address}"].health is Health.REFUSED
    assert "ray start" in checks[f"cluster {address}"].mend
