"""The loop over a plan: what is done is not made again, whoever says so."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from flows.tracking.iterations import mark_of
from p2o_core.schemas import write_json
from tasks import registry
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.running.manifests import SCHEMA_VERSION, manifest_path
from tasks.running.plan import Ledger, Outcome, run_plan
from tasks.running.runtime import Runtime
from tasks.running.stage import Artifact, Stage, StageIO
from tests.platform.workspace import REPOSITORY


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment(REPOSITORY / "tests" / "platform" / "params.yaml")


def numbers(io: StageIO) -> None:
    write_json(io.outputs["numbers"], [1, 2, 3])


def total(io: StageIO) -> None:
    write_json(io.outputs["total"], len(io.inputs["numbers"].read_text()))


NUMBERS = Stage("numbers", numbers, {}, {"numbers": "numbers.json"}, ("seed",))
TOTAL = Stage("total", total, {"numbers": Artifact("numbers.json", "current")}, {"total": "total.json"}, ("seed",))
PLAN = [(stage, iteration) for iteration in (1, 2) for stage in (NUMBERS, TOTAL)]


def outcomes(experiment: Experiment, folder: Path, ledger: Ledger | None = None) -> list[Outcome]:
    with Runtime() as runtime:
        steps = list(run_plan(PLAN, experiment, Layout(folder, "tiny"), runtime, ledger=ledger))
    assert [(step.stage, step.iteration) for step in steps] == PLAN
    assert all((step.took is not None) == (step.outcome is Outcome.MADE) for step in steps)
    return [step.outcome for step in steps]


def test_manifests_say_what_is_done(experiment: Experiment, tmp_path: Path) -> None:
    assert outcomes(experiment, tmp_path) == [Outcome.MADE] * 4
    assert outcomes(experiment, tmp_path) == [Outcome.FINISHED] * 4
    (tmp_path / "data/runs/tiny/1/total.json").write_text("9\n")
    assert outcomes(experiment, tmp_path) == [Outcome.FINISHED, Outcome.MADE, Outcome.FINISHED, Outcome.FINISHED]
    (tmp_path / "data/runs/tiny/2/numbers.json").unlink()
    assert outcomes(experiment, tmp_path)[2:] == [Outcome.MADE, Outcome.FINISHED], "made to the same bytes"
    other = experiment.model_copy(update={"seed": 1})
    assert outcomes(other, tmp_path) == [Outcome.MADE] * 4
    manifest = tmp_path / "data/runs/tiny/1/numbers.manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 1'))
    assert outcomes(other, tmp_path)[0] is Outcome.MADE, "another version's manifest vouches for nothing"


@pytest.mark.parametrize("after", [(), (TOTAL,), (NUMBERS, TOTAL)])
def test_an_iteration_ends_with_its_last_stage(monkeypatch: pytest.MonkeyPatch, after: tuple[Stage, ...]) -> None:
    """Also where stages come after evaluate; the baseline has its evaluation alone."""
    monkeypatch.setattr(registry, "ITERATION", (*registry.ITERATION, *after))
    last = ([registry.STAGES["evaluate"], *after])[-1].name
    ends = [(s.name, i) for s, i in registry.plan(2) if registry.ends_iteration(s, i)]
    assert ends == [("evaluate", 0), (last, 1), (last, 2)]


def test_what_ends_after_evaluate_is_logged_when_it_is_there(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's mark of an iteration: blank until its last stage is done, and another one when either is made anew."""
    layout, folder = Layout(tmp_path, "tiny"), tmp_path / "data/runs/tiny/1"
    evaluated, summed = (manifest_path(folder, name) for name in ("evaluate", "total"))
    write_json(evaluated, 1)
    alone = mark_of(layout, 1)
    assert alone == hashlib.sha256(evaluated.read_bytes()).hexdigest()
    monkeypatch.setattr(registry, "ITERATION", (*registry.ITERATION, TOTAL))
    assert mark_of(layout, 1) == ""
    write_json(summed, 1)
    both = mark_of(layout, 1)
    write_json(evaluated, 2)
    assert len({"", alone, both, mark_of(layout, 1)}) == 4


class Kept(Ledger):
    """Keeps a copy of every output on record, as DVC's cache does."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "data/runs/tiny"
        self.cache = folder / "cache"
        self.recorded: list[str] = []

    def knows(self, stage: Stage, iteration: int) -> bool:
        kept = [self.cache / str(iteration) / name for name in stage.outputs.values()]
        return all(
            path.exists()
            and (there := self.run / str(iteration) / path.name).exists()
            and path.read_bytes() == there.read_bytes()
            for path in kept
        )

    def restore(self, stage: Stage, iteration: int) -> bool:
        kept = self.cache / str(iteration)
        if not (kept / f"{stage.name}.manifest.json").exists():
            return False
        for name in (*stage.outputs.values(), f"{stage.name}.manifest.json"):
            shutil.copyfile(kept / name, self.run / str(iteration) / name)
        return True

    def record(self, stage: Stage, iteration: int) -> None:
        self.recorded.append(f"{stage.name}@{iteration}")
        (self.cache / str(iteration)).mkdir(parents=True, exist_ok=True)
        for name in (*stage.outputs.values(), f"{stage.name}.manifest.json"):
            shutil.copyfile(self.run / str(iteration) / name, self.cache / str(iteration) / name)


def test_a_ledger_is_asked_first_and_told_of_what_was_made(experiment: Experiment, tmp_path: Path) -> None:
    ledger, every = Kept(tmp_path), ["numbers@1", "total@1", "numbers@2", "total@2"]
    assert outcomes(experiment, tmp_path, ledger) == [Outcome.MADE] * 4
    assert ledger.recorded == every
    assert outcomes(experiment, tmp_path, ledger) == [Outcome.KNOWN] * 4
    assert ledger.recorded == every, "nothing is recorded twice"
    (tmp_path / "data/runs/tiny/2/total.json").unlink()
    assert outcomes(experiment, tmp_path, ledger)[3] is Outcome.RESTORED
    shutil.rmtree(ledger.cache)
    assert outcomes(experiment, tmp_path, ledger) == [Outcome.FINISHED] * 4
    assert ledger.recorded == every * 2, "killed between end and record"
    (tmp_path / "data/runs/tiny/1/numbers.json").write_text("[9]\n")
    (ledger.cache / "1" / "numbers.json").write_text("[8]\n")
    assert outcomes(experiment, tmp_path, ledger)[0] is Outcome.MADE, "what was restored is not what its manifest says"


def test_a_caller_that_stops_asking_ends_the_plan(experiment: Experiment, tmp_path: Path) -> None:
    """As an arm does when its budget is spent."""
    with Runtime() as runtime:
        for step in run_plan(PLAN, experiment, Layout(tmp_path, "tiny"), runtime):
            if step.stage is TOTAL:
                break
    assert (tmp_path / "data/runs/tiny/1/total.manifest.json").exists()
    assert not (tmp_path / "data/runs/tiny/2").exists()


def test_a_stage_beside_the_chain_writes_to_its_own_folder(experiment: Experiment, tmp_path: Path) -> None:
    outcomes(experiment, tmp_path)
    timings = (tmp_path / "data/timings/tiny.json").read_bytes()
    folder = tmp_path / "data/evaluations/tiny/1/asked"
    beside = Stage("beside", total, {"numbers": Artifact("numbers.json", "current")}, {"total": "t.json"}, (), folder)
    with Runtime() as runtime:
        for expected in (Outcome.MADE, Outcome.FINISHED):
            (step,) = run_plan([(beside, 1)], experiment, Layout(tmp_path, "tiny"), runtime)
            assert step.outcome is expected
    assert sorted(path.name for path in folder.iterdir()) == ["beside.manifest.json", "t.json"]
    assert (tmp_path / "data/timings/tiny.json").read_bytes() == timings, "an iteration's seconds are its own stages'"
