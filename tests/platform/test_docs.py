"""The documents are product: every command in them runs, and every parameter is in the reference."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.comparison.catalogue import CLAIMS
from flows.comparison.entries import Comparison
from flows.comparison.statistics import MIN_SEEDS
from p2o_core.schemas import read_json
from tasks.parameters.table import markdown_table
from tests.platform.servers import Server
from tests.platform.workspace import REPOSITORY, Workspace

PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!http)([^)#]+)\)")
SERVICES = ("p2o up", "p2o status", "p2o down")
OURS = re.compile(r"`((?:docs|flows|microworld|p2o_core|recipes|stress|tasks|tests)/[^`\s<]*)`")


def commands() -> list[str]:
    """Every command line in a ``sh`` block, once each, without its comment."""
    lines = [
        line.split(" #")[0].strip()
        for page in PAGES
        for block in BLOCK.findall(page.read_text())
        for line in block.splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


@pytest.fixture(scope="module")
def reader(trained: Workspace, prefect: Server, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What a reader has after ``make run``: the trained clone, its dvc.lock committed."""
    root = tmp_path_factory.mktemp("reader") / "clone"
    shutil.copytree(trained.root, root, symlinks=True)
    base = root / "experiments" / "compare-microworld-quick" / "data" / "base"
    shutil.copytree(root / "data" / "base", base)  # the comparison finds its base made: 40 s saved
    (root / ".venv").symlink_to(REPOSITORY / ".venv")
    workspace = Workspace(root, {"PREFECT_API_URL": f"{prefect.url}/api"})
    workspace.sh("git add -A && git -c user.email=t@t -c user.name=t commit -qm run")
    return workspace


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith(("make", ". ", *SERVICES))])
def test_command(command: str, reader: Workspace) -> None:
    reader.sh(command)


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make")])
def test_make_target(command: str) -> None:
    """CI runs ``make test``; the other targets run for real there or in ``make acceptance``. Here: they exist."""
    words = [*command.split(), "--dry-run", "--always-make"]
    dry = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    assert ".venv/bin/" in dry.stdout


def test_the_services_are_documented() -> None:
    """tests/platform/test_services.py runs them, on free ports."""
    assert set(SERVICES) <= set(commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for path in OURS.findall(page.read_text()):
        assert (REPOSITORY / path).exists(), f"{page.name} names {path}"


def test_the_reference_has_every_parameter() -> None:
    text = (REPOSITORY / "docs/reference.md").read_text()
    assert markdown_table() in text, "mend: paste the output of `p2o params`"
    assert markdown_table(Comparison) in text, "mend: paste the output of `p2o params --comparison`"


def test_the_reference_has_every_metric(trained: Workspace) -> None:
    text = (REPOSITORY / "docs/reference.md").read_text()
    header = (trained.root / "data/reports/tiny/curves.csv").read_text().splitlines()[0].split(",")
    for name in header:
        generic = re.sub(r"^(accuracy|update|maj_at_k|tokens_(?:mean|p95|truncated))/.*|^(pass_at)_\d+/.*", _kind, name)
        assert generic in text, name


def _kind(match: re.Match[str]) -> str:
    return match[1] or match[2]


def test_the_reference_has_every_artefact(trained: Workspace) -> None:
    text = (REPOSITORY / "docs/reference.md").read_text()
    for manifest in (trained.root / "data").rglob("*.manifest.json"):
        for path in read_json(manifest)["outputs"]:
            assert f"`{Path(path).name}" in text, path


def test_the_results_are_there_for_machines() -> None:
    """One entry a claim; docs/results.md says the same numbers."""
    results = read_json(REPOSITORY / "docs/results.json")
    text = (REPOSITORY / "docs/results.md").read_text().replace("−", "-")
    by_name = {claim.name: claim for claim in CLAIMS}
    assert (
        {"S9", "V1", "V2", "V3", "V4", "V5", "V6-grpo", "V6-dapo", "V6-collapse", "V7", "V8", "V9", "V10", "V11"}
        <= results.keys()
        <= by_name.keys()
    )
    for name, entry in results.items():
        assert {"value", "ci_low", "ci_high", "goal", "reached", "seeds"} <= entry.keys()
        assert entry["seeds"] >= MIN_SEEDS
        in_points = by_name[name].in_points
        bounds = [f"{100 * entry[key]:.1f}" if in_points else f"{entry[key]:.2f}" for key in ("ci_low", "ci_high")]
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert f"[{', '.join(bounds)}]" in row
        assert ("not reached" in row) is not entry["reached"]


def test_the_reference_has_every_claim() -> None:
    text = (REPOSITORY / "docs/reference.md").read_text()
    for claim in CLAIMS:
        arms = ", ".join(f"`{arm}`" for arm in claim.arms)
        assert f"| `{claim.name}` | {claim.statement}; arms {arms} |" in text
