"""Stages as assets of Prefect's: what was materialised, from what, with its digests. An open-source server shows them
as events (`prefect.asset.*`) of the run."""

from __future__ import annotations

from tasks.registry import ITERATION, STAGES
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path, read_manifest
from tasks.running.stage import Artifact, Stage


def asset_key(stage: str, iteration: int, experiment: str) -> str:
    return f"p2o://{experiment}/{iteration}/{stage}"


def upstream(stage: Stage, iteration: int, experiment: str) -> list[str]:
    """The assets that a stage reads. Files of the user's, and what the summary gathers, are none."""
    makers = [_maker(artifact, iteration) for artifact in stage.inputs.values()]
    return sorted({asset_key(*maker, experiment) for maker in makers if maker is not None})


def _maker(artifact: Artifact, iteration: int) -> tuple[str, int] | None:
    """Stage and iteration that wrote a file."""
    at = {"previous": iteration - 1, "current": iteration}.get(artifact.where, 0)
    stages = ITERATION if at else (STAGES["prepare" if artifact.where == "base" else "init"],)
    return next(((stage.name, at) for stage in stages if artifact.name in stage.outputs.values()), None)


def digests(stage: Stage, iteration: int, layout: Layout) -> dict[str, str]:
    """Workspace-relative path to sha256, as the stage's manifest has them; DVC records the same files."""
    return dict(read_manifest(manifest_path(stage.output_folder(layout, iteration), stage.name)).outputs)
