"""Experiments that are complete on disk without having been trained: real records, rows and manifests, and numbers that
are known by hand. For tests of what is told about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from p2o_core.digests import digest
from p2o_core.evaluation import Lengths, Measurement
from p2o_core.mining import MiningReport, Signal
from p2o_core.schemas import write_record, write_rows
from p2o_core.types import (
    Completion,
    Evidence,
    HardSample,
    Judged,
    Problem,
    SearchCost,
    Template,
    TemplateSearch,
    VerdictStatus,
)
from p2o_core.update_report import RATIO_EDGES, IterationUpdate, Masked
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.running.manifests import Manifest, manifest_path
from tests.platform.workspace import REPOSITORY

BOXED = "Write the result as \\boxed{{x}}, {{ name }} included, and {% nothing %} else."
TEMPLATES = [
    BOXED,
    "Do not stop early.\n\n=== user ===\n1 + 1?\n=== assistant ===\n2",
    "Gehe Schritt für Schritt → 答.",
]
UPDATE = IterationUpdate(
    status="updated",
    groups=4,
    groups_with_signal=2,
    rollouts_trained=8,
    planned_steps=1,
    steps=1,
    metrics={"loss": 0.1},
    template_ratios=[0] * (len(RATIO_EDGES) - 1),
    optimizer_steps=1,
    templated_solve_rate=0.5,
    templated_tokens=40,
    reused=0,
    entropy=0.5,
    skills=None,
    masked=[Masked("train-3", 8, 0.25)],
)
MINING = MiningReport(0.5, 0.5, 0.0, 0.5, hard=4, near_hard=0, remembered=0, by_difficulty={"hard": Signal(0, 1, 0, 1)})


def problems(split: str, number: int) -> list[Problem]:
    tiers = ("easy", "hard")
    return [Problem(f"{split}-{i}", f"{i} + {i}?", str(2 * i), tiers[i % 2], split) for i in range(number)]


def written_experiment(root: Path, *, solved: list[float], name: str = "tiny") -> tuple[Experiment, Layout]:
    """An experiment of ``len(solved) - 1`` iterations in the folder ``root``, which gets its params.yaml.
    ``solved[i]`` is the share of the sixteen held-out problems that are right after iteration i, the first ones."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "mlproject").touch()
    text = (REPOSITORY / "tests" / "platform" / "params.yaml").read_text()
    iterations = len(solved) - 1
    text = text.replace("experiment: tiny", f"experiment: {name}").replace("iterations: 2", f"iterations: {iterations}")
    (root / "params.yaml").write_text(text)
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, name)
    _write_base(layout)
    for iteration, share in enumerate(solved):
        _write_iteration(layout, iteration, share)
    return experiment, layout


def _write_base(layout: Layout) -> None:
    layout.base.mkdir(parents=True, exist_ok=True)
    _write_policy(layout.base / "policy", "base")
    for split, number in (("train", 8), ("heldout", 16)):
        write_rows(layout.base / f"{split}.parquet", problems(split, number), Problem)
    _vouch(layout, layout.base, "prepare", 0, ["policy", "train.parquet", "heldout.parquet"])


def _write_policy(folder: Path, content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(content)


def _write_iteration(layout: Layout, iteration: int, share: float) -> None:
    folder = layout.iteration(iteration)
    _write_policy(folder / "policy", f"{layout.experiment} {iteration}")
    heldout = problems("heldout", 16)
    right = {problem.id: index < share * len(heldout) for index, problem in enumerate(heldout)}
    _write_answers(folder, ("predictions", "judgements"), heldout, "", right, samples=range(2))
    metrics = Measurement(
        iteration=iteration,
        accuracy={tier: sum(right[p.id] for p in heldout if p.difficulty == tier) / 8 for tier in ("easy", "hard")},
        pass_at={},
        maj_at={},
        lengths={"hard": Lengths(5.0, 5.0, 0.0)},
        mean_tokens=5.0,
        truncated=0.0,
    )
    write_record(folder / "metrics.json", metrics)
    if iteration:
        _write_training(layout, iteration)
    else:
        write_record(folder / "templates.json", TemplateSearch())
        _vouch(layout, folder, "init", 0, ["policy", "templates.json"])
    _vouch(layout, folder, "evaluate", iteration, ["predictions.parquet", "judgements.parquet", "metrics.json"])


def _write_training(layout: Layout, iteration: int) -> None:
    folder, train = layout.iteration(iteration), problems("train", 8)
    _write_answers(folder, ("rollouts", "verdicts"), train, "", {p.id: False for p in train}, samples=range(4))
    hard = [HardSample(p.id, 0.0, False, iteration) for p in train if p.difficulty == "hard"]
    write_rows(folder / "hard.parquet", hard, HardSample)
    tried = [p for p in train if p.difficulty == "hard"]
    template = TEMPLATES[iteration % 2]
    names = ("templated", "templated_verdicts")
    _write_answers(folder, names, tried, template, {p.id: p.id != "train-1" for p in tried}, samples=range(8, 10))
    write_record(folder / "mining.json", MINING)
    write_record(folder / "templates.json", search(iteration))
    write_record(folder / "update.json", UPDATE)
    _vouch(layout, folder, "rollout", iteration, ["rollouts.parquet"], counts={"tokens": 100, "prompt_tokens": 50})
    before = layout.iteration(iteration - 1) / "policy"
    _vouch(layout, folder, "evolve", iteration, ["templates.json"], inputs=[before])
    _vouch(layout, folder, "distill", iteration, ["policy", "templated.parquet", "update.json"])


def search(iteration: int) -> TemplateSearch:
    """The first iteration keeps two templates, each later one both and a child; the last found is the best."""
    texts = ["", *TEMPLATES[: min(iteration, 2) + 1]]
    templates = [
        Template(i, text, (i - 1,) if i else (), (0.25 * i, 0.25 * i), kept=i > 0) for i, text in enumerate(texts)
    ]
    online = replace(templates[1], scores=(), evidence={"sum": Evidence(1.0 * iteration, 4.0 * iteration)})
    return TemplateSearch(
        "searched", iteration, ["train-1", "train-3"], [templates[0], online, *templates[2:]], SearchCost(tokens=7)
    )


def _write_answers(
    folder: Path, names: tuple[str, str], asked: list[Problem], template: str, right: dict[str, bool], samples: range
) -> None:
    answers, verdicts = [], []
    for problem in asked:
        for sample in samples:
            solved = right[problem.id]
            answer = problem.answer if solved else "999"
            text = f"{problem.question} \\boxed{{{answer}}}"
            answers.append(Completion(problem.id, sample, template, text, (1, 2, 3), (-0.1, -0.2, -0.3), False, 7))
            status = VerdictStatus.CORRECT if solved else VerdictStatus.WRONG
            verdicts.append(Judged(problem.id, sample, status, float(solved), answer))
    write_rows(folder / f"{names[0]}.parquet", answers, Completion)
    write_rows(folder / f"{names[1]}.parquet", verdicts, Judged)


def _vouch(
    layout: Layout,
    folder: Path,
    stage: str,
    iteration: int,
    outputs: list[str],
    *,
    inputs: list[Path] | None = None,
    counts: dict[str, int] | None = None,
) -> None:
    made = {layout.relative(folder / name): digest(folder / name) for name in outputs}
    read = {layout.relative(path): digest(path) for path in inputs or []}
    write_record(manifest_path(folder, stage), Manifest(stage, iteration, 0, "0" * 64, read, made, counts or {}))
