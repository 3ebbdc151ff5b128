"""The report of a run, and of a comparison on two bases, from what real runs left on disk."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import yaml
from markupsafe import escape

from flows.comparison.arms import DONE, Arm, arm_layout
from flows.comparison.entries import FILE, load_comparison
from flows.comparison.page import write_report
from flows.reporting.funnel import fates
from flows.reporting.genealogy import archive, genealogies
from flows.reporting.page import write_run_report
from flows.reporting.rendering import LONGEST
from p2o_core.schemas import BadInput, read_problems, read_rows, write_rows
from p2o_core.types import Completion, Judged
from tasks.parameters.experiment import load_experiment
from tests.platform.workspace import Workspace

HOSTILE = "<script>document.title = 'injected'</script>" + "x" * 5000
WEIGHTS = shutil.ignore_patterns("policy", "optimizer")


def copied(workspace: Workspace, folder: Path) -> Path:
    """What a report reads, without the weights."""
    shutil.copytree(workspace.run, folder / "data" / "runs" / "tiny", ignore=WEIGHTS)
    (folder / "data" / "base").symlink_to(workspace.root / "data" / "base")
    shutil.copyfile(workspace.root / "params.yaml", folder / "params.yaml")
    return folder


def iterations(workspace: Workspace) -> list[Path]:
    return [workspace.run / "1", workspace.run / "2"]


def test_a_run_s_page_shows_rescues_as_they_were(trained: Workspace, tmp_path: Path) -> None:
    page = write_run_report(copied(trained, tmp_path))
    assert page == tmp_path / "data" / "reports" / "tiny" / "report.html"
    text = page.read_text()
    rescued = [fate for fate in fates(iterations(trained)) if fate.rescued]
    assert len(re.findall(r": rescued in iteration", text)) == min(8, len(rescued)) > 0
    problems = {problem.id: problem for problem in read_problems(trained.root / "data/base/train.parquet")}
    first = re.findall(r"<summary>(\S+): rescued in iteration (\d)", text)[0]
    problem, iteration = problems[first[0]], trained.run / first[1]
    assert f"<blockquote>{escape(problem.question)}</blockquote>" in text
    answers = read_rows(iteration / "templated.parquet", Completion)
    verdicts = read_rows(iteration / "templated_verdicts.parquet", Judged)
    right = {
        (completion.template, completion.text.strip())
        for completion, verdict in zip(answers, verdicts, strict=True)
        if completion.problem_id == problem.id and verdict.reward > 0
    }
    shown = [unescape(quote) for quote in re.findall(r'<blockquote(?: class="\w+")?>(.*?)</blockquote>', text, re.S)]
    assert (shown[2], shown[3]) in right, "the template, and a right answer under it"
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<dc:\w+ [^>]*>|<!--.*?-->', "", text), "nothing from elsewhere"


def test_an_online_run_s_page_shows_parents_and_children(online: Workspace, tmp_path: Path) -> None:
    experiment = load_experiment(online.root / "params.yaml")
    known = archive(iterations(online))
    assert known is not None
    (tree,) = genealogies(iterations(online), experiment.evolve)
    assert (tree.candidates, tree.kept, tree.hidden) == (len(known.templates), len(known.kept), 0)
    assert tree.evaluations == len(read_rows(online.run / "1" / "templated.parquet", Completion))
    children = {t.text for t in known.templates if t.parents}
    assert children == {child.text for root in tree.roots for child in root.children} != set()
    assert set(tree.coverage.columns) == {"sum", "product"}
    text = unescape(write_run_report(copied(online, tmp_path)).read_text())
    assert f"archive after iteration 2: {tree.candidates} templates, {tree.kept} kept" in text
    tried = max(known.templates, key=lambda template: template.trials)
    assert f"1 · {tried.trials} rollouts</span> {tried.text}".replace("\n", " / ") in text


def test_model_output_in_the_page_is_escaped_and_cut(trained: Workspace, tmp_path: Path) -> None:
    root = copied(trained, tmp_path)
    for path in (root / "data" / "runs" / "tiny").glob("[12]/*rollouts.parquet"):
        write_rows(path, [replace(row, text=HOSTILE) for row in read_rows(path, Completion)], Completion)
    for path in (root / "data" / "runs" / "tiny").glob("[12]/templated.parquet"):
        rows = [replace(row, text=HOSTILE, template=HOSTILE) for row in read_rows(path, Completion)]
        write_rows(path, rows, Completion)
    text = write_run_report(root).read_text()
    assert "<script" not in text
    assert escape(HOSTILE[:40]) in text
    assert max(map(len, re.findall(r"x+", text))) <= LONGEST


def test_without_an_iteration_there_is_nothing_to_report(trained: Workspace, tmp_path: Path) -> None:
    root = copied(trained, tmp_path)
    shutil.rmtree(root / "data" / "runs" / "tiny" / "1")
    with pytest.raises(BadInput, match=r"tiny: no finished iteration. Mend: `p2o run` first"):
        write_run_report(root)
    assert not (root / "data" / "reports").exists()


@pytest.fixture
def two_bases(trained: Workspace, online: Workspace, tmp_path: Path) -> Path:
    """A comparison of two arms, two seeds and two bases whose runs are copies of two real ones."""
    shutil.copytree(trained.root / "recipes", tmp_path / "recipes")
    for name in ("params.yaml", "mlproject"):
        shutil.copyfile(trained.root / name, tmp_path / name)
    root = tmp_path / "experiments" / "compare-two"
    root.mkdir(parents=True)
    entry = {
        "recipe": "params.yaml",
        "arms": ["p2o-online", "p2o"],
        "own_arms": {"p2o": {}},
        "seeds": 2,
        "bases": 2,
        "budget_tokens": 1_000_000,
        "budgets": [1, 20_000],
        "max_iterations": 2,
        "claims": ["V9", "V9-cost"],
    }
    (root / FILE).write_text(yaml.safe_dump(entry))
    sources = {"p2o": trained, "p2o-online": online}
    for arm in (Arm(name, seed, base=base) for name in sources for seed in (0, 1) for base in (0, 1)):
        layout = arm_layout(root, arm)
        shutil.copytree(sources[arm.arm].run, layout.run, ignore=WEIGHTS)
        (layout.run / DONE).touch()
        if not layout.base.exists():
            layout.base.symlink_to(trained.root / "data" / "base")
    return root


def test_a_comparison_on_two_bases_knows_searches_online(two_bases: Path, online: Workspace) -> None:
    page = write_report(two_bases)
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    for text in (html, markdown):
        assert "8 finished runs; 2 seeds an arm on each of 2 bases" in text
    known = archive(iterations(online))
    assert known is not None
    row = cells(markdown, "iterations that wrote templates", "p2o-online")
    assert float(row["templates written"]) == len(known.templates)
    assert float(row["kept"]) + float(row["retired"]) == len(known.templates)
    assert float(row["generations"]) >= 2
    assert row["share of all tokens"] == "0.0 %", "sentences of a pool are put together without a model"
    assert "p2o-online" not in [line.split(" | ")[0].strip("| ") for line in table(markdown, "metric calls")]
    assert float(cells(markdown, "Δ at first", "p2o")["Δ at first"]) != 0
    at = cells(markdown, "hard, bare, at", "p2o")
    assert list(at)[1:] == ["1 tokens", "20,000 tokens", "1,000,000 tokens", "runs"]
    assert at["runs"] == "4"
    assert at["1 tokens"] == cells(markdown, "hard, bare, at", "p2o-online")["1 tokens"], "nobody has trained"
    assert "each base counting alike" in html
    claims = json.loads((two_bases / "report" / "claims.json").read_text())
    assert (claims["V9"]["seeds"], claims["V9"]["bases"]) == (4, 2)
    assert load_comparison(two_bases / FILE).bases == 2


def table(markdown: str, heading: str) -> list[str]:
    """The lines of the table with this column: its heading first."""
    lines = markdown.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("|") and f"{heading} |" in line)
    return [line for line in lines[start : lines.index("", start)] if not line.startswith("|---")]


def cells(markdown: str, heading: str, arm: str) -> Mapping[str, str]:
    """The arm's row of the table with this column."""
    head, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table(markdown, heading))
    return next(dict(zip(head, row, strict=True)) for row in rows if row[0] == arm)
