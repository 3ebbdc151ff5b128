"""The comparison flow: arms × seeds side by side, one process each, then the report."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from prefect import State, Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.comparison.arms import Arm, arm_experiment, arm_layout, arms_of, is_done
from flows.comparison.entries import FILE as COMPARISON_FILE
from flows.comparison.entries import Comparison, load_comparison
from flows.comparison.page import write_report
from flows.comparison.workspace import open_comparison, stage_of
from flows.display import console, stage_progress
from flows.lifecycle.processes import Processes
from flows.lifecycle.stopping import until_stopped
from flows.parameters import ComparisonName, Count
from flows.progress import RunProgress
from flows.publishing import log_arm, show_delivery
from flows.tracking.parents import check_project
from flows.versioning.versions import Versions
from p2o_core.schemas import BadInput
from tasks.running.layout import home
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock
from tasks.running.stage import TrainingStopped

ENDINGS: dict[int, type[Exception]] = {2: BadInput, 3: TrainingStopped}
"""Exit statuses of ``p2o arm`` that are no defects, as ``flows.console`` gives them."""
_recording = threading.Lock()
"""DVC and MLflow are told of one finished arm at a time."""


def _name() -> str:
    asked = flow_run.parameters
    seeds = f"{asked['seeds']} seeds" if asked["seeds"] else "its seeds"
    return f"{asked['recipe']}{'-quick' * asked['quick']} · all arms · {seeds}"


@flow(name="compare", flow_run_name=_name)
def compare(
    workspace: str = ".",
    recipe: ComparisonName = "microworld",
    quick: bool = False,
    seeds: Count = None,
    iterations: Count = None,
    jobs: Annotated[int, Field(ge=1)] = max(1, os.cpu_count() or 1),
    wait: bool = False,
) -> State | None:
    """Run every arm and seed of a comparison that is not done, side by side, and write the report.

    Args:
        workspace: The clone, or a folder in it.
        recipe: Entry of recipes/comparisons.yaml.
        quick: Its quick variant: fewer arms, seeds and tokens.
        seeds: Seeds an arm. None: the entry's.
        iterations: Stop at so many iterations, not at equal tokens. None: at equal tokens.
        jobs: Arms side by side; one core each.
        wait: For another run of this comparison to end, instead of being refused.
    """

    def work() -> None:
        root = open_comparison(Path(workspace), recipe, quick=quick, seeds=seeds, iterations=iterations, wait=wait)
        # DVC wants to work there, and a folder changed for it while others run is changed for Prefect's threads too
        with file_lock(root / WORKSPACE_LOCK, command(), wait=wait), chdir(root):
            _compare(root, jobs)

    return until_stopped(work)


def _compare(root: Path, jobs: int) -> None:
    comparison = load_comparison(root / COMPARISON_FILE)
    check_project(comparison.project, root)
    versions = Versions(root)
    arms = arms_of(comparison)
    bases = {arm.base_name: replace(arm, arm="base", seed=0) for arm in arms}
    page = RunProgress(root.name, len(bases) + len(arms))
    console.print(f"Problems and base policies: {', '.join(bases)}")
    # processes end first, and the runner's threads, which wait for them, then find nothing more to do
    threads: ThreadPoolTaskRunner = ThreadPoolTaskRunner(max_workers=jobs)
    with threads as runner, Processes() as processes:

        def submit(work: Task, **parameters: Any) -> PrefectFuture:
            return runner.submit(work, parameters={"root": root, "versions": versions, **parameters})

        _finish([submit(made_base, arm=base, processes=processes) for base in bases.values()], "bases", page)
        done = [_is_done(comparison, arm, root) for arm in arms]
        console.print(f"{len(arms)} runs, {sum(done)} of them done before. Workspace {root}")
        # those done before too: a kill may have come before DVC and MLflow heard of them
        places = (f"{index}/{len(arms)}" for index in itertools.count(1))
        entries = zip(arms, done, places, strict=False)
        shared = {"comparison": comparison, "processes": processes}
        runs = [submit(finished_arm, arm=arm, done=over, place=place, **shared) for arm, over, place in entries]
        _finish(runs, "runs", page)
    console.print(f"Report: {write_report(root)}")
    page.end()
    versions.commit("report")
    create_markdown_artifact((root / "report" / "report.md").read_text(), key=root.name, description="The comparison")


def _finish(futures: list[PrefectFuture], title: str, page: RunProgress) -> None:
    """Wait for all, showing how many are done; what failed raises only when the others have finished."""
    page.begin(title)
    with stage_progress(title) as show:
        for done, _ in enumerate(as_completed(futures), start=1):
            show(done, len(futures))
            page.done += 1
            page.show(f"{title}: {done} of {len(futures)}", 0.0)
    for future in futures:
        future.result()


@task(task_run_name="base-{arm.base_name}", cache_policy=NO_CACHE, persist_result=False)
def made_base(root: Path, arm: Arm, versions: Versions, processes: Processes) -> None:
    """Problems and base policy, in a process of its own."""
    run_process(root, arm, processes)
    with _recording:
        versions.commit(f"base@{arm.base_name}")


@task(task_run_name="{arm.name}", cache_policy=NO_CACHE, persist_result=False)
def finished_arm(
    root: Path, arm: Arm, done: bool, place: str, comparison: Comparison, versions: Versions, processes: Processes
) -> None:
    """One arm and seed in a process of its own; DVC and MLflow hear of it when it is done."""
    started = time.monotonic()
    with _recording:  # an arm whose files are not those that DVC recorded goes through its stages' digests again
        recorded = done and versions.is_up_to_date(stage_of(arm))
    last = "" if recorded else run_process(root, arm, processes)
    with _recording:
        if not recorded:
            versions.commit(stage_of(arm))
        delivery = log_arm(root, comparison, arm)
    if not delivery.ok:
        get_run_logger().warning("%s: %s", arm.name, delivery)
    show_delivery(delivery, root)
    if not recorded:
        console.print(f"{place} {arm.name}: {last} in {time.monotonic() - started:.0f} s")


def run_process(root: Path, arm: Arm, processes: Processes) -> str:
    """``p2o arm`` in a process; its output goes to logs/. Returns its last line.

    Raises:
        BadInput, TrainingStopped: it ended with status 2 or 3; the message is the last of its log.
        RuntimeError: it failed; the message has the end of its log.
    """
    log = root / "logs" / f"{arm.name}.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "flows.console", "arm", arm.arm, "--seed", str(arm.seed), "--workspace", str(root)]
    command += arm.options
    status = processes.run(command, log)
    lines = log.read_text().splitlines() or [""]
    if status in ENDINGS:
        raise ENDINGS[status](f"{arm.name}: {lines[-1]} ({log})")
    if status != 0:
        end = "\n".join(lines[-15:])
        raise RuntimeError(f"{arm.name} ended with status {status}. Mend what it says and start again; {log}:\n{end}")
    return lines[-1]


def _is_done(comparison: Comparison, arm: Arm, root: Path) -> bool:
    return is_done(comparison, arm_experiment(comparison, arm, home(root)), arm_layout(root, arm))
