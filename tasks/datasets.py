"""An experiment keeps the problems it began with."""

from __future__ import annotations

from p2o_core.digests import digest
from p2o_core.schemas import BadInput, read_json
from tasks.experiment import Experiment, FilesPrepare
from tasks.layout import Layout
from tasks.manifests import manifest_path


def check_unchanged(experiment: Experiment, layout: Layout) -> None:
    """Refuse to go on when an iteration was trained on other problems than those that lie there now: other files in
    data/sources/, where the experiment reads them, or another train split.

    Raises:
        BadInput: with both digests.
    """
    trained = sorted(layout.run.glob("[1-9]*/rollout.manifest.json"), key=lambda path: int(path.parent.name))
    if not trained:
        return
    began_with = read_json(trained[0])["inputs"]
    prepared = manifest_path(layout.base, "prepare")
    recorded = {layout.relative(layout.base / "train.parquet"): began_with}
    if prepared.exists() and isinstance(experiment.prepare, FilesPrepare):
        recorded |= dict.fromkeys(read_json(prepared)["inputs"], read_json(prepared)["inputs"])
    for name, digests in recorded.items():
        path = layout.workspace / name
        if name in digests and path.exists() and (now := digest(path)) != digests[name]:
            raise BadInput(
                f"{path}: its digest is {now}, and experiment {layout.experiment!r} was trained on {digests[name]} "
                f"from iteration {trained[0].parent.name} on. Mend: bring it back (`dvc checkout`, git), or give the "
                f"changed data another `experiment` in params.yaml, or delete {layout.run} to start over."
            )
