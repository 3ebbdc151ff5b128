"""Workspaces: a folder with params.yaml, dvc.yaml and data/. The repository's root is the default one.

Overrides (another arm, another seed) never rewrite the params.yaml they start from: they make a workspace of
their own under experiments/, with its own DVC repository and the shared cache, so that DVC's run cache hands it
what was computed before (the base policy first of all).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.versioning.pipeline import write_pipeline, yaml_text
from p2o_core.schemas import BadInput, write_text
from tasks.parameters.arms import apply_settings, arm_settings
from tasks.parameters.experiment import PARAMS_FILE, Experiment, check_experiment, load_experiment
from tasks.parameters.reading import read_yaml
from tasks.running.layout import Layout, home
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock

NOT_RECIPES = ("arms", "comparisons", "machines", "models")
"""Files of recipes/ that are no experiment."""


def open_workspace(
    start: Path,
    *,
    recipe: str | None = None,
    arm: str | None = None,
    seed: int | None = None,
    iterations: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    wait: bool = False,
) -> Path:
    """The workspace for these settings: ``start`` itself when nothing differs from its params.yaml, otherwise
    ``experiments/<name>`` under the repository, created or found again. A blank recipe or arm is none.

    Raises:
        BadInput: an unknown arm or parameter, more iterations than the root's params.yaml says, or a run in a
            workspace under experiments/ that would be changed under it (with ``wait`` its end is waited for).
    """
    start = start.resolve()
    workspace, content = _asked_for(start, recipe, arm, seed, iterations, overrides)
    if workspace != start:
        return _derive(workspace, start, content, wait)
    last = load_experiment(start / PARAMS_FILE).iterations
    if iterations is not None and iterations > last:
        raise BadInput(
            f"{start / PARAMS_FILE}: field 'iterations' is {last}, {iterations} were asked for. "
            f"Mend: write iterations: {iterations}"
        )
    return start


def preview(
    start: Path,
    *,
    recipe: str | None = None,
    arm: str | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Experiment, Layout]:
    """The experiment that :func:`open_workspace` would open and where it would lie; writes nothing. Raises BadInput."""
    start = start.resolve()
    workspace, content = _asked_for(start, recipe, arm, seed, None, overrides)
    experiment = check_experiment(
        yaml_text(content), name=f"{recipe or start / PARAMS_FILE} with the overrides asked for"
    )
    return experiment, Layout(workspace, experiment.experiment)


def _asked_for(
    start: Path,
    recipe: str | None,
    arm: str | None,
    seed: int | None,
    iterations: int | None,
    overrides: Mapping[str, Any] | None,
) -> tuple[Path, dict[str, Any]]:
    """The workspace that settings belong to, ``start`` when nothing differs, and its params.yaml's content."""
    source = recipe_file(recipe, start) if recipe else start / PARAMS_FILE  # a form's blank is none
    base = load_experiment(source)
    content = read_yaml(source.read_text(encoding="utf-8-sig"), source)
    changes: dict[str, Any] = {}
    if arm and arm != base.arm:
        changes |= {"arm": arm, **arm_settings(arm, home(start))}
    if seed is not None and seed != base.seed:
        changes["seed"] = seed
    changes |= overrides or {}
    if not changes and not recipe:
        return start, content
    apply_settings(content, changes)
    content["iterations"] = iterations or changes.get("iterations", base.iterations)
    content["experiment"] = _name(base.experiment, changes, overrides or {})
    return home(start) / "experiments" / content["experiment"], content


def recipe_names(start: Path) -> list[str]:
    """The experiments in recipes/."""
    paths = sorted((home(start) / "recipes").glob("*.yaml"))
    return [path.stem for path in paths if path.stem not in NOT_RECIPES]


def recipe_file(recipe: str, start: Path) -> Path:
    """``recipes/<name>.yaml`` for a name, or the file itself. Raises BadInput."""
    named = home(start) / "recipes" / f"{recipe}.yaml"
    if named.exists():
        return named
    if Path(recipe).exists():
        return Path(recipe)
    known = recipe_names(start)
    mend = (
        f"one of {', '.join(known)}, or a path" if known else "a path, or a clone of the repository, which has recipes/"
    )
    raise BadInput(f"--recipe {recipe}: neither a file nor a recipe. Mend: {mend}.")


def _name(base: str, changes: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    """``microworld-grpo-s1``; settings beyond arm and seed add a digest of them."""
    name = base
    if "arm" in changes:
        name += f"-{changes['arm']}"
    if "seed" in changes:
        name += f"-s{changes['seed']}"
    if overrides:
        name += "-" + hashlib.sha256(json.dumps(dict(overrides), sort_keys=True).encode()).hexdigest()[:6]
    return name.lower()


def _derive(workspace: Path, start: Path, content: dict[str, Any], wait: bool) -> Path:
    # refuses wrong overrides before anything is written
    check_experiment(yaml_text(content), name=f"{start / PARAMS_FILE} with the overrides asked for")
    with file_lock(workspace / WORKSPACE_LOCK, command(), wait=wait):
        _fill(workspace, start, content)
    return workspace


def _fill(workspace: Path, start: Path, content: dict[str, Any]) -> None:
    root, params = home(start), workspace / PARAMS_FILE
    workspace.mkdir(parents=True, exist_ok=True)
    write_text(params, yaml_text(content))
    write_pipeline(workspace, check_experiment(yaml_text(content), name=params).iterations)
    shutil.copytree(start / "data" / "sources", workspace / "data" / "sources", dirs_exist_ok=True)
    share_cache(workspace, root)


def share_cache(workspace: Path, root: Path) -> None:
    """A workspace under experiments/ gets a DVC repository of its own, which keeps its files in the root's cache, run
    cache included."""
    if (workspace / ".dvc").exists():
        return
    from dvc.repo import Repo  # here: every command that may open a workspace comes by this module

    Repo.init(str(workspace), no_scm=True).close()
    with (workspace / ".dvc" / "config").open("a") as config:
        config.write(f"    analytics = false\n[cache]\n    dir = {root / '.dvc' / 'cache'}\n")
