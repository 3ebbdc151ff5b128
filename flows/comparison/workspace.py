"""The workspace of a comparison: which runs it has, their parameters, and a dvc.yaml with one stage for each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from flows.comparison.arms import Arm, arm_experiment, arm_layout, arms_of
from flows.comparison.catalogue import check_claims
from flows.comparison.entries import FILE, Comparison, check_comparison
from flows.versioning.pipeline import PIPELINE_FILE, yaml_text
from flows.versioning.workspace import share_cache
from p2o_core.schemas import BadInput, write_text
from tasks.running.layout import home as home_of
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock

ENTRIES = Path("recipes") / "comparisons.yaml"


def open_comparison(
    start: Path,
    name: str,
    *,
    quick: bool = False,
    seeds: int | None = None,
    iterations: int | None = None,
    wait: bool = False,
) -> Path:
    """``experiments/compare-<name>`` (or ``-quick``), created or found again. With ``iterations`` all arms do as many,
    whatever they cost; otherwise they stop at equal tokens.

    Raises:
        BadInput: no such entry, an unknown arm or parameter; before anything is written. Or another process is at
            work there (with ``wait`` its end is waited for).
    """
    home = home_of(start)
    if not (home / ENTRIES).exists():
        raise BadInput(f"{home / ENTRIES}: no such file. Mend: run in a clone, or name one with --workspace.")
    entries = yaml.safe_load((home / ENTRIES).read_text()) or {}
    if name not in entries:
        raise BadInput(f"{home / ENTRIES}: no comparison {name!r}. Mend: one of {', '.join(entries)}, or add it there.")
    if not isinstance(entries[name], dict):
        raise BadInput(f"{home / ENTRIES}: {name!r} is no mapping of fields. Mend: docs/reference.md lists them.")
    content = dict(entries[name])
    variant = content.pop("quick", {})
    content |= variant if quick else {}
    content |= {"seeds": seeds} if seeds is not None else {}
    content |= {"budget_tokens": None, "max_iterations": iterations} if iterations is not None else {}
    source = f"{home / ENTRIES}: {name}"
    comparison = check_comparison(content, source)
    check_claims(comparison, source)
    params = {arm: arm_experiment(comparison, arm, home).model_dump(mode="json") for arm in arms_of(comparison)}

    suffix = "-quick" * quick + "-iterations" * (iterations is not None)
    workspace = home / "experiments" / f"compare-{name}{suffix}"
    with file_lock(workspace / WORKSPACE_LOCK, command(), wait=wait):
        _fill(workspace, home, comparison, params)
    return workspace


def _fill(workspace: Path, home: Path, comparison: Comparison, params: dict[Arm, dict[str, Any]]) -> None:
    (workspace / "arms").mkdir(parents=True, exist_ok=True)
    write_text(workspace / FILE, yaml_text(comparison.model_dump(mode="json")))
    shutil.rmtree(workspace / "arms")
    (workspace / "arms").mkdir()
    for arm, experiment in params.items():
        write_text(workspace / "arms" / f"{arm.name}.yaml", yaml_text(experiment))
    write_text(workspace / PIPELINE_FILE, yaml_text(_pipeline(comparison, workspace)))
    for sources in {arm_layout(workspace, arm).sources for arm in params}:
        shutil.copytree(home / "data" / "sources", sources, dirs_exist_ok=True)
    share_cache(workspace, home)


def stage_of(arm: Arm) -> str:
    """The arm's stage in the comparison's dvc.yaml."""
    return f"arm@{arm.name}"


def _pipeline(comparison: Comparison, workspace: Path) -> dict[str, Any]:
    first = {arm.base_name: arm for arm in reversed(arms_of(comparison))}

    def place(arm: Arm, *parts: str) -> str:
        return arm_layout(workspace, arm).workspace.relative_to(workspace).joinpath("data", *parts).as_posix()

    runs = {
        arm.name: {
            "cmd": " ".join(["p2o arm", arm.arm, "--seed", str(arm.seed), *arm.options]),
            "base": place(arm, "base"),
            "out": place(arm, "runs", arm.name),
        }
        for arm in arms_of(comparison)
    }
    bases = {
        name: {"cmd": " ".join(["p2o arm base", *arm.options]), "out": place(arm, "base"), "params": arm.name}
        for name, arm in first.items()
    }
    return {
        "stages": {
            "base": {
                "foreach": bases,
                "do": {
                    "cmd": "${item.cmd}",
                    "params": [{"arms/${item.params}.yaml": ["prepare", "threads"]}],
                    "outs": [{"${item.out}": {"persist": True}}],
                },
            },
            "arm": {
                "foreach": runs,
                "do": {
                    "cmd": "${item.cmd}",
                    "deps": ["arms/${key}.yaml", FILE, "${item.base}"],
                    # persist: a killed arm goes on from its last finished stage
                    "outs": [{"${item.out}": {"persist": True}}],
                },
            },
            "report": {
                "cmd": "p2o report",
                "deps": [FILE, *(run["out"] for run in runs.values())],
                "outs": ["report/report.html", "report/report.md"],
                "metrics": ["report/claims.json"],
            },
        }
    }
