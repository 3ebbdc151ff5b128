"""An experiment keeps the problems it began with, and the layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from p2o_core.digests import digest
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment, FilesPrepare
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path, read_manifest


def check_layout(layout: Layout) -> None:
    """Refuse a run that an earlier version of this package made: with other names for the same things, all of it would
    silently be trained again.

    Raises:
        BadInput: the optimiser's state lies inside the policies.
    """
    for old in sorted(layout.run.glob("*/policy/optimizer")):
        raise BadInput(
            f"{old}: an earlier version made this run; its optimiser lies inside the policy. Mend: go on with that "
            f"version, or give params.yaml another `experiment`, or delete {layout.run} to start over."
        )


def check_unchanged(experiment: Experiment, layout: Layout, new: Mapping[str, Path] | None = None) -> None:
    """Refuse to go on when an iteration was trained on other problems than those that lie there now: other files in
    data/sources/, where the experiment reads them, or other problems made from them. ``new``: problem files by their
    name in data/base/, which prepare is about to put there.

    Raises:
        BadInput: with both digests.
    """
    trained = sorted(layout.run.glob("[1-9]*/rollout.manifest.json"), key=lambda path: int(path.parent.name))
    if not trained:
        return
    began_with: dict[str, str] = {}
    for manifest in (manifest_path(layout.iteration(0), "evaluate"), trained[0]):
        began_with |= read_manifest(manifest).inputs if manifest.exists() else {}
    names = {layout.relative(layout.base / name): name for name in ("train.parquet", "heldout.parquet")}
    recorded = {path: began_with[path] for path in names if path in began_with}
    prepared = manifest_path(layout.base, "prepare")
    if prepared.exists() and isinstance(experiment.prepare, FilesPrepare):
        recorded |= read_manifest(prepared).inputs
    for name, before in recorded.items():
        path = layout.workspace / name
        there = (new or {}).get(names.get(name, ""), path)
        if there.exists() and (now := digest(there)) != before:
            raise BadInput(
                f"{path}: its digest is {now}, and experiment {layout.experiment!r} was trained on {before} from "
                f"iteration {trained[0].parent.name} on. Mend: bring it back (`dvc checkout`, git), or give the "
                f"changed data another `experiment` in params.yaml, or delete {layout.run} to start over."
            )
