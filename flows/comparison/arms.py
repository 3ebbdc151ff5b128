"""A comparison: arms × seeds of one recipe, each in a folder of one shared workspace.

``run_arm`` is the loop of one arm and seed; ``flows/compare.py`` runs many of them side by side. The stages are the
same as everywhere; what is up to date is read from their manifests, since a pipeline of thousands of DVC stages
would spend its time on dvc.lock. The comparison's own dvc.yaml has one stage an arm and seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import yaml

from flows.comparison.entries import FILE, Comparison, load_comparison
from flows.lifecycle.secrets import prefect_secret
from p2o_core.schemas import BadInput, read_record, write_record
from tasks.parameters.arms import apply_settings, arm_settings
from tasks.parameters.experiment import Experiment, check_experiment
from tasks.registry import STAGES, ends_iteration, plan
from tasks.running.layout import Layout, home
from tasks.running.lock import command, file_lock
from tasks.running.manifests import MANIFEST_SUFFIX
from tasks.running.plan import Outcome, run_plan
from tasks.running.runtime import Runtime
from tasks.summary import iteration_row

DONE = "arm.json"
SEEDS_A_BASE = 1000
"""Between the experiment seeds of one base and the next."""


@dataclass(frozen=True)
class Arm:
    """One run of a comparison: an arm, a seed, the world it is in ("" for the recipe's own), and which of the world's
    bases it starts from.

    >>> Arm("p2o", 3).name, Arm("grpo", 0, "gap-2").name, Arm("grpo", 0, "gap-2", base=1).name
    ('p2o-s3', 'grpo-s0-gap-2', 'grpo-s0_b1-gap-2')
    """

    arm: str
    seed: int
    world: str = ""
    base: int = 0

    @property
    def name(self) -> str:
        """Underscores stand in no world's name, so no two runs share one."""
        return f"{self.arm}-s{self.seed}" + f"_b{self.base}" * bool(self.base) + f"-{self.world}" * bool(self.world)

    @property
    def base_name(self) -> str:
        """Of the base that it shares with others."""
        return (self.world or "own") + f"_b{self.base}" * bool(self.base)

    @property
    def options(self) -> list[str]:
        """Of the command line, beside arm and seed."""
        return ["--world", self.world] * bool(self.world) + ["--base", str(self.base)] * bool(self.base)


@dataclass(frozen=True)
class ArmResult:
    """A run that came to its end: arm.json. ``settings`` and ``manifests`` are the digests by which it is found done:
    of all that decides its artefacts, and of the manifests of all its stages."""

    arm: str
    seed: int
    iterations: int
    tokens: int
    settings: str
    manifests: str


def arms_of(comparison: Comparison) -> list[Arm]:
    """Every run, those of the main comparison first. Seed by seed and base by base, so that what is finished early
    can be compared."""

    def runs(world: str, arms: Sequence[str], seeds: int, bases: int) -> list[Arm]:
        first = comparison.first_seed
        return [
            Arm(arm, seed, world, base) for seed in range(first, first + seeds) for base in range(bases) for arm in arms
        ]

    swept = (
        runs(world.name, comparison.sweep_arms, comparison.sweep_seeds, comparison.sweep_bases)
        for world in comparison.worlds
    )
    return [*runs("", comparison.arms, comparison.seeds, comparison.bases), *chain.from_iterable(swept)]


def arm_experiment(comparison: Comparison, arm: Arm, home: Path) -> Experiment:
    """The recipe with the comparison's, the world's and the arm's settings. The seeds of another base are others:
    runs with the same draws would be no two observations. Raises BadInput."""
    content = yaml.safe_load((home / comparison.recipe).read_text())
    content["iterations"] = comparison.max_iterations
    apply_settings(content, comparison.settings)
    apply_settings(content, next((w.settings for w in comparison.worlds if w.name == arm.world), {}))
    apply_settings(content, arm_settings(arm.arm, home, comparison.own_arms))
    if arm.base:
        content["prepare"] = content.get("prepare") or {}
        content["prepare"]["seed"] = content["prepare"].get("seed", 0) + arm.base
    seed = arm.seed + SEEDS_A_BASE * arm.base
    content |= {"experiment": arm.name, "arm": arm.arm, "seed": seed, "tracking": {"project": comparison.project}}
    return check_experiment(yaml.safe_dump(content, sort_keys=False), name=f"{comparison.recipe} for {arm.name}")


def arm_layout(workspace: Path, arm: Arm) -> Layout:
    """Each base is a workspace within the workspace; the first one of the recipe's own world is the workspace's."""
    workspace = workspace / "bases" / str(arm.base) if arm.base else workspace
    return Layout(workspace / "worlds" / arm.world if arm.world else workspace, arm.name)


def done_digest(comparison: Comparison, experiment: Experiment) -> str:
    """Of everything that decides an arm's artefacts."""
    limits = {"budget": comparison.budget_tokens, "iterations": comparison.max_iterations}
    return hashlib.sha256((experiment.digest() + json.dumps(limits)).encode()).hexdigest()


def is_done(comparison: Comparison, experiment: Experiment, layout: Layout) -> bool:
    """The arm ran to its end with these settings, and its manifests are those it wrote; whether the files are, DVC
    says."""
    marker = layout.run / DONE
    if not marker.exists():
        return False
    done = read_record(marker, ArmResult)
    return done.settings == done_digest(comparison, experiment) and done.manifests == _manifests(layout)


def run_arm(
    comparison: Comparison,
    experiment: Experiment,
    layout: Layout,
    on_iteration: Callable[[int, int], None] = lambda iteration, tokens: None,
) -> ArmResult:
    """Iterate until the next iteration would start beyond the budget. Resumes where an earlier process stopped.

    Returns what it writes to ``arm.json``.
    """
    with (
        file_lock(layout.run.parent / f".{layout.run.name}.lock", command(), wait=True),
        Runtime(prefect_secret) as runtime,
    ):
        done, spent = 0, 0
        steps = [step for step in plan(experiment.iterations) if step[0].name != "summary"]
        for step in run_plan(steps, experiment, layout, runtime):
            if not ends_iteration(step.stage, step.iteration):
                continue
            done, spent = step.iteration, spent + iteration_row(layout.iteration(step.iteration)).get("tokens/total", 0)
            on_iteration(done, spent)
            if comparison.budget_tokens is not None and spent >= comparison.budget_tokens:
                break
        result = ArmResult(
            arm=experiment.arm,
            seed=experiment.seed,
            iterations=done,
            tokens=spent,
            settings=done_digest(comparison, experiment),
            manifests=_manifests(layout),
        )
        write_record(layout.run / DONE, result)
    return result


def run_named(workspace: Path, arm: Arm) -> Iterator[str]:
    """Run one arm of the workspace's comparison, or make a base; yields a line for each step done."""
    comparison = load_comparison(workspace / FILE)
    known = [a for a in arms_of(comparison) if a.base_name == arm.base_name]
    if arm.arm == "base" and known:
        experiment = arm_experiment(comparison, known[0], home(workspace))
        made = prepare_world(experiment, arm_layout(workspace, arm))
        yield "base policy made" if made else "base policy up to date"
        return
    if arm not in known:
        names = ", ".join(a.name for a in known or arms_of(comparison))
        raise BadInput(f"{workspace / FILE}: no run {arm.name!r}. Mend: one of {names}.")
    result = run_arm(comparison, arm_experiment(comparison, arm, home(workspace)), arm_layout(workspace, arm))
    yield f"{result.iterations} iterations, {result.tokens:,d} tokens"


def prepare_world(experiment: Experiment, layout: Layout) -> bool:
    """Problems and base policy, once for all arms that share them. Returns whether there was anything to do."""
    with file_lock(layout.base.parent / ".base.lock", command(), wait=True):
        with Runtime(prefect_secret) as runtime:
            (step,) = run_plan([(STAGES["prepare"], 0)], experiment, layout, runtime)
        return step.outcome is Outcome.MADE


def _manifests(layout: Layout) -> str:
    """One digest over all manifests of the run; they hold the digests of everything else."""
    whole = hashlib.sha256()
    for path in sorted(layout.run.rglob(f"*{MANIFEST_SUFFIX}")):
        whole.update(f"{layout.relative(path)}\0{path.read_text()}".encode())
    return whole.hexdigest()
