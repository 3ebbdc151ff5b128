"""The training flow: every stage of every iteration, skipping what DVC says is up to date."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from logging import Logger, LoggerAdapter
from pathlib import Path

from prefect import State, flow, get_run_logger
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE

from flows.assets import asset_key, digests, upstream
from flows.display import console, stage_progress
from flows.health import findings
from flows.lifecycle.events import LOST_SKILLS, NO_SIGNAL, stops_are_told, tell
from flows.lifecycle.secrets import prefect_secret
from flows.lifecycle.stopping import until_stopped
from flows.parameters import ArmName, Count, RecipeName, Seed, Settings, run_name
from flows.progress import RunProgress
from flows.publishing import Publishers
from flows.story import iteration_sentence, learnt_nothing, rescue, stage_sentence
from flows.tracking.parents import check_project
from flows.tracking.tracker import Tracker
from flows.versioning.pipeline import PARAMETERS, node, write_pipeline
from flows.versioning.versions import Versions
from flows.versioning.workspace import open_workspace
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.registry import STAGES, ends_iteration, plan
from tasks.running.datasets import check_layout, check_unchanged
from tasks.running.layout import Layout
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock
from tasks.running.plan import Ledger, Outcome, Step, run_plan
from tasks.running.runner import StageRun, check_parameters, run_stage, write_parameters
from tasks.running.runtime import Runtime
from tasks.running.stage import Stage, TrainingStopped
from tasks.summary import Row, experiment_rows

WORDS = {
    Outcome.KNOWN: "up to date",
    Outcome.FINISHED: "finished before, recorded now",
    Outcome.RESTORED: "restored from DVC's run cache",
}


@materialize("p2o://stage", by="p2o", task_run_name="{name}-{iteration}", cache_policy=NO_CACHE, persist_result=False)
def stage_task(
    name: str, iteration: int, experiment: Experiment, layout: Layout, runtime: Runtime, page: RunProgress
) -> StageRun:
    """One stage in this process, with the warm policy."""
    what = f"iteration {iteration} · {name}"
    page.begin(what)
    with stage_progress(what) as bar:

        def show(done: int, total: int) -> None:
            bar(done, total)
            page.show(f"{what}, {done:,} of {total:,}", done / max(1, total))

        took = run_stage(STAGES[name], experiment, layout, iteration, runtime, show)
    key = asset_key(name, iteration, experiment.experiment)
    add_asset_metadata(key, {"outputs": digests(STAGES[name], iteration, layout), "seconds": round(took.seconds, 2)})
    return took


class Recorded(Ledger):
    """DVC's record of a workspace. Nothing is looked up or recorded under other parameters than the run began with.

    ``knows`` and ``record`` raise BadInput: params.yaml was edited meanwhile, in a field that the stage depends on.
    """

    def __init__(self, versions: Versions, experiment: Experiment, layout: Layout, *, run_cache: bool) -> None:
        self.versions = versions
        self.experiment = experiment
        self.layout = layout
        self.run_cache = run_cache

    def knows(self, stage: Stage, iteration: int) -> bool:
        check_parameters(stage, self.experiment, self.layout)
        return self.versions.is_up_to_date(node(stage, iteration))

    def restore(self, stage: Stage, iteration: int) -> bool:
        return self.run_cache and self.versions.restore(node(stage, iteration))

    def record(self, stage: Stage, iteration: int) -> None:
        check_parameters(stage, self.experiment, self.layout)  # DVC records those that are in the file now
        self.versions.commit(node(stage, iteration))


@flow(name="train", flow_run_name=run_name(), log_prints=False)
def train(
    workspace: str = ".",
    recipe: RecipeName = "",
    arm: ArmName = "",
    seed: Seed = None,
    iterations: Count = None,
    settings: Settings = None,
    run_cache: bool = True,
    wait: bool = False,
) -> State | None:
    """Train, or go on where an earlier run of the same choices stopped.

    Without any choice the workspace's own params.yaml is trained. Another recipe, arm, seed or setting makes, or finds
    again, a workspace of its own: experiments/<name>, as `p2o run` does.

    Args:
        workspace: Folder with params.yaml; a dot is the clone that the worker was started in.
        recipe: What to train: a file of recipes/. Blank: the workspace's params.yaml.
        arm: Set of parameters on top of it (recipes/arms.yaml): p2o, or grpo for training without templates.
        seed: Seed of all training randomness. None: the recipe's.
        iterations: Stop after this many. None: all.
        settings: Further parameters by dotted name, such as {"rollout.samples": 4}; docs/reference.md has them all.
        run_cache: Let DVC restore what was computed before from the same inputs.
        wait: For another run in this workspace to end, instead of being refused.
    """

    def work() -> None:
        root = open_workspace(
            Path(workspace),
            recipe=recipe,
            arm=arm,
            seed=seed,
            iterations=iterations,
            overrides=settings,
            wait=wait,
        )
        with file_lock(root / WORKSPACE_LOCK, command(), wait=wait):
            train_workspace(root, iterations, run_cache)

    return until_stopped(work)


def train_workspace(root: Path, iterations: int | None, run_cache: bool) -> None:
    """The work of a training flow in an opened workspace. Raises BadInput, TrainingStopped."""
    experiment = load_experiment(root / "params.yaml")
    last = experiment.iterations if iterations is None else iterations
    if not 1 <= last <= experiment.iterations:
        raise BadInput(
            f"{root / 'params.yaml'}: field 'iterations' is {experiment.iterations}, {last} was asked for. "
            "Mend: ask for fewer, or raise the field."
        )
    layout, log = Layout(root, experiment.experiment), get_run_logger()
    check_layout(layout)
    check_unchanged(experiment, layout)
    check_project(experiment.tracking.project, root)
    write_parameters(experiment, layout)
    write_pipeline(root, experiment.iterations)
    versions = Versions(root)
    versions.keep_current(PARAMETERS)
    push = experiment.tracking.push
    if push:
        versions.check_remote()
    publishers = Publishers(Tracker(experiment, layout), versions, layout, push=push, warn=log.warning)
    steps = [step for step in plan(experiment.iterations) if step[1] <= last]
    if last < experiment.iterations:
        steps = [step for step in steps if step[0].name != "summary"]  # it waits for the whole experiment
    log.info(
        "%s: arm %s, seed %d, iterations 1 to %d, in %s",
        experiment.experiment,
        experiment.arm,
        experiment.seed,
        last,
        root,
    )
    page, news = RunProgress(experiment.experiment, len(steps)), False
    rows: list[Row] = []

    def run(stage: Stage, experiment: Experiment, layout: Layout, iteration: int, runtime: Runtime) -> StageRun:
        name = experiment.experiment
        as_asset = stage_task.with_options(
            assets=[asset_key(stage.name, iteration, name)], asset_deps=[*upstream(stage, iteration, name)]
        )
        return as_asset(stage.name, iteration, experiment, layout, runtime, page)

    with stops_are_told(experiment.experiment), Runtime(prefect_secret) as runtime:
        ledger = Recorded(versions, experiment, layout, run_cache=run_cache)
        for page.done, step in enumerate(run_plan(steps, experiment, layout, runtime, ledger=ledger, run=run), start=1):
            name, iteration = node(step.stage, step.iteration), step.iteration
            console.print(f"{name}: {step.took}" if step.took else f"[dim]{name}: {WORDS[step.outcome]}[/]")
            publishers.stage_done(name)
            if step.outcome is not Outcome.KNOWN:
                news = True
                _tell(step, name, layout, log)
            if ends_iteration(step.stage, iteration):
                rows = experiment_rows(layout.run, iteration, rows)
                publishers.iteration_done(rows, news=news)
                watch(experiment, layout, rows, log, news=news)
                news = False
    if last == experiment.iterations:
        for left in (layout.all_units, *layout.run.glob("*/.*.tmp")):  # of stages killed between end and tidying up
            shutil.rmtree(left, ignore_errors=True)
    publishers.end()
    page.end()
    log.info("done: %s", iteration_sentence(rows, None))


def _tell(step: Step, name: str, layout: Layout, log: Logger | LoggerAdapter) -> None:
    """What a stage did, in the run's log; an iteration without a signal is told to Prefect's automations too."""
    said = stage_sentence(step.stage.name, layout, step.iteration)
    log.info("%s, %s%s", name, step.took or WORDS[step.outcome], f": {said}" if said else "")
    if step.stage.name == "distill" and learnt_nothing(layout, step.iteration):
        message = f"iteration {step.iteration}: no group carried a signal, the policy did not change"
        log.warning("%s", message)
        tell(NO_SIGNAL, layout.experiment, message, iteration=step.iteration)


def watch(
    experiment: Experiment, layout: Layout, rows: Sequence[Row], log: Logger | LoggerAdapter, *, news: bool = True
) -> None:
    """Say how the iteration of the last of ``rows`` went, where that is ``news``, and what is wrong with the run after
    it. Raises TrainingStopped where the configuration says so."""
    iteration = rows[-1]["iteration"]
    if news:
        log.info("%s", iteration_sentence(rows, rescue(layout, iteration) if iteration else None))
    found = findings(rows, experiment.health)
    for finding in found:
        console.print(f"[bold yellow]{finding}[/]")
        log.warning("%s", finding)
    lost = [finding for finding in found if finding.kind == "lost_skills"]
    if lost and news:
        tell(LOST_SKILLS, layout.experiment, str(lost[0]), iteration=iteration)
    if lost and experiment.health.on_lost_skills != "warn" and iteration < experiment.iterations:
        raise TrainingStopped(f"{layout.params}: {lost[0]}")
