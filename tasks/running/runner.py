"""Run one stage: check what it reads, run its function, put its outputs in place, write its manifest."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2o_core.digests import digest
from p2o_core.schemas import BadInput, put_in_place, read_json, write_json, write_record
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.datasets import check_layout, check_unchanged
from tasks.running.imports import importing
from tasks.running.journal import Journal
from tasks.running.layout import Layout
from tasks.running.manifests import SCHEMA_VERSION, Manifest, check_input, made_with, manifest_path
from tasks.running.rejected import typed_stops
from tasks.running.runtime import Runtime
from tasks.running.stage import Stage, StageIO
from tasks.running.storage import remove_empty, storage_errors

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StageRun:
    """What a stage took; ``recalled`` counts the units that a killed predecessor had finished."""

    seconds: float
    recalled: int

    def __str__(self) -> str:
        before = f" ({self.recalled} finished units were there from before)" if self.recalled else ""
        return f"{self.seconds:.1f} s{before}"


def run_stage(
    stage: Stage,
    experiment: Experiment,
    layout: Layout,
    iteration: int,
    runtime: Runtime,
    progress: Progress = lambda done, total: None,
) -> StageRun:
    """Run a stage for an iteration.

    Outputs are written beside their places and renamed, the manifest last: a stage that dies leaves either
    its old outputs or outputs without a manifest, which nothing accepts as input; and its finished units, from which
    it goes on (:mod:`tasks.running.journal`).

    Raises:
        BadInput: the iteration is out of order, an input is missing or not what its manifest says, the experiment's
            data changed, or the disk is full or closed.
        TrainingStopped: the numbers are not fit to go on.
    """
    started = time.monotonic()
    if not 0 <= iteration <= experiment.iterations:
        raise BadInput(
            f"{layout.params}: field 'iterations' is {experiment.iterations}, iteration {iteration} was "
            "asked for. Mend: raise the field, or ask for an earlier one."
        )
    check_layout(layout)
    if stage.name == "prepare":
        check_unchanged(experiment, layout)
    with storage_errors(stage.output_folder(layout, iteration)):
        recalled = _run(stage, experiment, layout, iteration, runtime, progress)
        seconds = time.monotonic() - started
        if stage.in_chain:
            _note_timing(layout.timings, f"{stage.name}@{iteration}", seconds)
    return StageRun(seconds, recalled)


def _run(
    stage: Stage, experiment: Experiment, layout: Layout, iteration: int, runtime: Runtime, progress: Progress
) -> int:
    """Check inputs, run, publish. Returns how many units were there from before."""
    paths = stage.input_paths(layout, iteration, experiment.iterations)
    input_digests = {layout.relative(path): check_input(layout.workspace, path) for path in paths.values()}
    folder = stage.output_folder(layout, iteration)
    scratch = folder / f".{stage.name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    params = experiment.digest_of(stage.params)
    asked = {"schema_version": SCHEMA_VERSION, "params": params, "inputs": input_digests}
    journal = Journal(stage.units_folder(layout, iteration), asked)
    io = StageIO(
        experiment=experiment,
        layout=layout,
        iteration=iteration,
        stage=stage.name,
        inputs=paths,
        outputs={key: scratch / name for key, name in stage.outputs.items()},
        runtime=runtime,
        journal=journal,
        progress=progress,
    )
    _settle_torch(stage, experiment.threads)
    nan = layout.rejected(iteration).with_name(f"{stage.name}.parquet")
    try:
        with typed_stops(nan, f"iteration {iteration}, {stage.name}"):
            stage.run(io)
        if stage.name == "prepare":  # dvc repro has deleted what check_unchanged would have compared before
            check_unchanged(experiment, layout, {path.name: path for path in io.outputs.values()})
        _publish(stage, io, params, input_digests, folder)
    except BadInput:
        journal.drop_if_unused()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        remove_empty(folder)
    journal.close()
    return journal.recalled


def write_parameters(experiment: Experiment, layout: Layout) -> None:
    """Put all parameters that decide bytes, defaults included, into the file that DVC's stages depend on; an equal one
    is left alone."""
    content = experiment.deciding()
    with storage_errors(layout.parameters.parent):
        if not layout.parameters.exists() or read_json(layout.parameters) != content:
            write_json(layout.parameters, content)


def check_parameters(stage: Stage, experiment: Experiment, layout: Layout) -> None:
    """Refuse to record a stage under other parameters than it ran with.

    Raises:
        BadInput: params.yaml was edited since the run began, in a field that the stage depends on.
    """
    before, now = experiment.digest_of(stage.params), load_experiment(layout.params).digest_of(stage.params)
    if before != now:
        raise BadInput(
            f"{layout.params}: parameters of {stage.name} were edited while a run was going on (digest {before[:12]} "
            f"then, {now[:12]} now). Mend: start again; what the edit touches is made again, the rest stays."
        )


def is_fresh(stage: Stage, experiment: Experiment, layout: Layout, iteration: int) -> bool:
    """The stage's manifest says it ran with these parameters, on the inputs and to the outputs that lie there now.

    The same answer ``dvc status`` gives, from the manifests alone: in a long experiment DVC's cost a stage grows
    with the length of dvc.lock.
    """
    path = manifest_path(stage.output_folder(layout, iteration), stage.name)
    manifest = made_with(path, experiment.digest_of(stage.params))
    if manifest is None:
        return False
    reads = stage.input_paths(layout, iteration, experiment.iterations).values()
    if {layout.relative(path) for path in reads} != set(manifest.inputs):
        return False
    files = {**manifest.inputs, **manifest.outputs}
    return all(
        (layout.workspace / name).exists() and digest(layout.workspace / name) == sha for name, sha in files.items()
    )


def _publish(stage: Stage, io: StageIO, params: str, input_digests: dict[str, str], folder: Path) -> None:
    manifest = manifest_path(folder, stage.name)
    manifest.unlink(missing_ok=True)
    outputs = {}
    for key, name in stage.outputs.items():
        target = folder / name
        put_in_place(io.outputs[key], target)
        outputs[io.layout.relative(target)] = digest(target)
    made = Manifest(stage.name, io.iteration, io.experiment.seed, params, input_digests, outputs, io.counts)
    write_record(manifest, made)


def _settle_torch(stage: Stage, threads: int) -> None:
    """Reproducible arithmetic for the stages that compute; the others do not pay for importing torch."""
    if "threads" not in stage.params:
        return
    if "torch" not in sys.modules:
        with importing():
            import p2o_core.policy  # noqa: F401 - transformers and peft, which what samples or trains will want
    from p2o_core.policy import settle_arithmetic

    settle_arithmetic(threads)


def read_timings(layout: Layout) -> dict[int, dict[str, float]]:
    """Iteration to stage to the seconds that it took last. Raises BadInput."""
    by_iteration: dict[int, dict[str, float]] = {}
    for key, seconds in (read_json(layout.timings) if layout.timings.exists() else {}).items():
        stage, iteration = key.split("@")
        by_iteration.setdefault(int(iteration), {})[stage] = seconds
    return by_iteration


def _note_timing(path: Path, key: str, seconds: float) -> None:
    timings = read_json(path) if path.exists() else {}
    write_json(path, timings | {key: round(seconds, 2)})
