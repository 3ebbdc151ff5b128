"""A local Ray cluster of two actors gives one process's bytes, also when an actor is killed in the middle.

One cluster for the whole file: it takes some ten seconds to start, and as long for its actors.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from flows.preflight.doctor import Check, Health, examine
from p2o_core.cluster.connection import resources
from p2o_core.cluster.engine import RayEngine
from p2o_core.cluster.verifier import RayVerifier
from p2o_core.digests import digest, read_digest
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutRequest, Sampling
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.policy import Policy, settle_arithmetic
from p2o_core.schemas import BadInput
from p2o_core.verify import Verifier
from tasks.parameters.experiment import Experiment, check_experiment
from tasks.registry import STAGES, plan
from tasks.running.layout import Layout
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime
from tests.loopback import free_port

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
        folder = runtime._cluster._folder
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
    pairs += [("\\boxed{(x+y)^{10000}}", "52"), ("nothing", "52"), *pairs[:3]]
    alone = verifier.verify(pairs)
    assert spread.verify(pairs) == alone
    os.kill(actors("VerifierWorker")[0].pid, signal.SIGKILL)
    assert spread.verify(pairs) == alone
    assert spread.verify([]) == []


def made(folder: Path, text: str, runtime: Runtime, on_rollouts: Callable[[int, int], None]) -> dict[str, str]:
    """Run a whole experiment; the digests of all files that it made. Manifests have the parameters in them."""
    layout, own = Layout(folder, "tiny"), experiment(text)
    layout.sources.mkdir(parents=True)
    layout.params.write_text(text)
    for stage, iteration in plan(1):
        rollout = (on_rollouts,) if stage is STAGES["rollout"] else ()
        run_stage(stage, own, layout, iteration, runtime, *rollout)
    paths = (path for place in (layout.base, layout.run) for path in place.rglob("*") if path.is_file())
    return {layout.relative(p): read_digest(p) for p in paths if not p.name.endswith("manifest.json")}


def test_an_iteration_is_the_same_to_the_byte(runtime: Runtime, tmp_path: Path) -> None:
    """All stages with an adapter, one actor killed in the middle of the rollouts."""
    with Runtime() as process:
        alone = made(tmp_path / "alone", SMALL, process, lambda done, total: None)
    kill = killing("EngineWorker", 4)
    assert made(tmp_path / "spread", SPREAD, runtime, lambda done, total: kill(done)) == alone
    assert {path.rpartition("/")[2] for path in alone} >= {"rollouts.parquet", "verdicts.parquet", "update.json"}
    swaps = runtime._ray[1].swaps
    assert swaps.count == 3, "the base, and an adapter before and after the update"
    assert 0 < swaps.last < swaps.size / 4


def found(config: Experiment) -> dict[str, Check]:
    """What the doctor says."""
    nowhere = Path("/nowhere")
    return {check.what: check for check in examine(config, Layout(nowhere, "x"), nowhere)}


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
    checks = found(config)
    assert checks[f"cluster {address}"].health is Health.REFUSED
    assert "ray start" in checks[f"cluster {address}"].mend


WITHOUT = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "ray" else find(name, *more)
import p2o_core.cluster.engine, p2o_core.cluster.verifier, flows.preflight.doctor
from tasks.running.runtime import Runtime
from tasks.parameters.experiment import check_experiment
try:
    Runtime().verifier(check_experiment(sys.argv[1], name="params.yaml"))
except ValueError as error:
    print(type(error).__name__, error)
print([name for name in sys.modules if name.partition(".")[0] == "ray"])
"""


def test_without_the_extra_ray_is_not_imported_and_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, SPREAD], capture_output=True, text=True, check=True)
    refusal, imported = done.stdout.splitlines()
    assert refusal.startswith("BadInput engine.type is ray, and the package ray is not installed. Mend: pip install")
    assert imported == "[]"


KILLED = """
import os, signal
from p2o_core.cluster.connection import Cluster
print(Cluster("")._folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_local_cluster_ends_with_a_run_that_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = done.stdout.strip()
    deadline = time.monotonic() + 30
    while left := [p.pid for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or ())]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    shutil.rmtree(folder)


def test_more_actors_make_nothing_anew() -> None:
    """What says only where the work is done is no part of what DVC and manifests look at."""
    more = SPREAD.replace("type: ray,", "type: ray, actors: 8, address: '10.0.0.1:6379', in_flight: 3,")
    other = SPREAD.replace(f"batch: {ROWS}", "batch: 16")
    digests = [experiment(text).digest_of(STAGES["rollout"].params) for text in (SPREAD, more, other)]
    assert digests[0] == digests[1] != digests[2]
    assert experiment(SPREAD).digest() == experiment(more).digest()
    assert "actors" not in experiment(more).deciding()["engine"]
