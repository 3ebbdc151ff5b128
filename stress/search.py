"""What does a template search cost, and what is it worth? Variants of the search on the same policies and hard sets.

``python -m stress.search --workspace experiments/compare-microworld``

Inputs are the first searches of an arm's runs (every seed: its base policy and its first hard set) and its second
ones (for the archive: the trained policy, the hard set left, the first search's template set). Each variant searches
them anew; what it kept is then judged by fresh rollouts: every hard problem under templates drawn as in training,
which no search has seen, so a template that was kept for its luck shows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.comparison.arms import Arm, arm_experiment, arm_layout
from flows.comparison.entries import FILE, load_comparison
from flows.comparison.search_costs import calls_to_cover
from p2o_core.config import EvolveConfig
from p2o_core.cover import assign_templates, solvers
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.schemas import read_json, read_problems, read_record, read_rows
from p2o_core.search.evolve import Evolution, evolve_templates
from p2o_core.seeding import derive_seed
from p2o_core.types import HardSample, Problem, TemplateSearch
from tasks.parameters.experiment import Experiment
from tasks.running.layout import Layout, home
from tasks.running.runtime import Runtime

FRESH = 16
"""Fresh templated rollouts a hard problem, to judge what a search kept."""
FIRST = {
    "k = 1": {"samples_per_score": 1, "racing": False},
    "k = 1, racing": {"samples_per_score": 1, "racing": True},
    "k = 2": {"samples_per_score": 2, "racing": False},
    "k = 2, racing": {"samples_per_score": 2, "racing": True},
    "k = 4": {"samples_per_score": 4, "racing": False},
    "k = 4, racing": {"samples_per_score": 4, "racing": True},
}
SECOND = {"from the empty template": False, "from the archive": True}


@dataclass(frozen=True)
class Case:
    """One search to repeat: the policy it searched with, its hard set, and the template set before it."""

    experiment: Experiment
    layout: Layout
    iteration: int
    hard: list[Problem]
    archive: list[str]


@dataclass(frozen=True)
class Outcome:
    """One search of a variant; ``fresh`` is the solve rate of fresh templated rollouts over the whole hard set."""

    evolution: Evolution
    solved_at: float
    fresh: float

    @property
    def covered(self) -> float:
        """Share of dev instances some candidate solves."""
        scores = zip(*(template.scores for template in self.evolution.templates), strict=True)
        return sum(max(row) >= self.solved_at for row in scores) / len(self.evolution.dev_ids)

    def calls_to(self, share: float) -> int | None:
        search = TemplateSearch("searched", 1, self.evolution.dev_ids, self.evolution.templates, self.evolution.cost)
        return calls_to_cover(search, self.solved_at, share)


def cases(workspace: Path, arm: str, seeds: int, second: bool) -> Iterator[Case]:
    """The first or the second search of every seed's run."""
    comparison = load_comparison(workspace / FILE)
    for seed in range(seeds):
        run = Arm(arm, seed)
        experiment, layout = arm_experiment(comparison, run, home(workspace)), arm_layout(workspace, run)
        iteration = 1 + experiment.evolve.every * second
        if not (layout.iteration(iteration) / "hard.parquet").exists():
            continue  # a run that ended before its second search
        train = {problem.id: problem for problem in read_problems(layout.base / "train.parquet")}
        hard = read_rows(layout.iteration(iteration) / "hard.parquet", HardSample)
        before = read_record(layout.iteration(iteration - 1) / "templates.json", TemplateSearch)
        archive = [template.text for template in before.kept if template.text]
        yield Case(experiment, layout, iteration, [train[sample.problem_id] for sample in hard], archive)


def run(case: Case, config: EvolveConfig, runtime: Runtime, archive: list[str]) -> Outcome:
    """Search once, and judge what it kept."""
    experiment, layout = case.experiment, case.layout
    policy = layout.iteration(case.iteration - 1) / "policy"
    engine = runtime.engine(policy, layout.base / "policy", experiment)
    verifier = runtime.verifier(experiment)
    sampling = Sampling(experiment.rollout.temperature, experiment.rollout.max_new_tokens)
    pool = read_json(layout.base / "phrases.json")
    # another stream than the run's own search
    seed = derive_seed(experiment.seed, case.iteration, "benchmark")
    evolution = evolve_templates(case.hard, engine, verifier, pool, config, sampling, seed=seed, archive=archive)
    problems = {problem.id: problem for problem in case.hard}
    assignments = assign_templates(
        list(problems),
        evolution.kept,
        solvers(evolution.kept, evolution.dev_ids, config.solved_at),
        rollouts=FRESH,
        one_per_group=False,
        rng=random.Random(derive_seed(seed, "assignment")),
    )
    requests = [
        RolloutRequest(
            a.problem_id, problems[a.problem_id].question, a.template, (a.sample,), derive_seed(seed, "fresh")
        )
        for a in assignments
    ]
    completions = engine.generate(requests, sampling)
    verdicts = verifier.verify([(c.text, problems[c.problem_id].gold) for c in completions])
    fresh = sum(verdict.reward for verdict in verdicts) / max(1, len(verdicts))
    return Outcome(evolution, config.solved_at, fresh)


def table(title: str, outcomes: dict[str, list[Outcome]]) -> Table:
    """Medians over seeds; the common cover of a seed is what all its variants reach."""
    shown = Table(title=title, title_justify="left")
    headings = ("variant", "metric calls", "tokens", "cover", "best score", "raced out", "calls to the common cover")
    for heading in (*headings, "tokens to it, about", "fresh solve rate"):
        shown.add_column(heading, justify="left" if heading == "variant" else "right")
    targets = [min(o.covered for o in row) for row in zip(*outcomes.values(), strict=True)]
    for name, found in outcomes.items():
        calls = [outcome.calls_to(target) for outcome, target in zip(found, targets, strict=True)]
        costs = [o.evolution.cost for o in found]
        paid = [cost.tokens * call / cost.metric_calls for cost, call in zip(costs, calls, strict=True) if call]
        shown.add_row(
            name,
            f"{median(cost.metric_calls for cost in costs):.0f}",
            f"{median(cost.tokens for cost in costs):,.0f}",
            f"{median(outcome.covered for outcome in found):.2f}",
            f"{median(max(t.mean_score for t in outcome.evolution.templates) for outcome in found):.2f}",
            f"{median(cost.raced_out for cost in costs):.0f}",
            f"{median(call for call in calls if call is not None):.0f}",
            f"{median(paid):,.0f}",
            f"{median(outcome.fresh for outcome in found):.2f}",
        )
    return shown


def main(
    workspace: Annotated[Path, typer.Option(help="A finished comparison.")],
    arm: Annotated[str, typer.Option(help="Whose searches.")] = "p2o",
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N - 1.")] = 5,
    max_metric_calls: Annotated[int, typer.Option(help="Budget of every search.")] = 300,
) -> None:
    """Two tables: rollouts a score and racing on first searches; the archive on second ones."""
    workspace = workspace.resolve()
    first: dict[str, list[Outcome]] = {name: [] for name in FIRST}
    second: dict[str, list[Outcome]] = {name: [] for name in SECOND}
    console = Console(width=150)
    with Runtime() as runtime:
        for case in cases(workspace, arm, seeds, second=False):
            for name, changes in FIRST.items():
                first[name].append(run(case, _config(case, max_metric_calls, changes), runtime, []))
        for case in cases(workspace, arm, seeds, second=True):
            for name, archived in SECOND.items():
                config = _config(case, max_metric_calls, {})
                second[name].append(run(case, config, runtime, case.archive if archived else []))
    console.print(table(f"First searches, {seeds} seeds, medians", first))
    if second["from the archive"]:
        console.print(table(f"Second searches, {seeds} seeds, medians", second))


def _config(case: Case, max_metric_calls: int, changes: dict[str, Any]) -> EvolveConfig:
    return case.experiment.evolve.model_copy(update={"max_metric_calls": max_metric_calls, **changes})


if __name__ == "__main__":
    typer.run(main)
