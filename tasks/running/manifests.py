"""Manifests: what a stage wrote, from what, with which seed. Every input is checked against its producer's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from p2o_core.digests import digest
from p2o_core.schemas import BadInput, read_json, read_record

SCHEMA_VERSION = 2
MANIFEST_SUFFIX = ".manifest.json"
SOURCES = "sources"


@dataclass(frozen=True)
class Manifest:
    """``inputs`` and ``outputs`` map workspace-relative paths to digests; ``params`` is the digest of the parameters
    the stage depends on; ``counts`` are rows, tokens and the like.

    No times and no machine names: the same inputs give the same manifest.
    """

    stage: str
    iteration: int
    seed: int
    params: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    counts: Mapping[str, int]
    schema_version: int = SCHEMA_VERSION


class OtherSchema(BadInput):
    """A manifest of another version of this software."""


def manifest_path(folder: Path, stage: str) -> Path:
    return folder / f"{stage}{MANIFEST_SUFFIX}"


def read_manifest(path: Path) -> Manifest:
    """Raises BadInput: it is missing, damaged or (OtherSchema) of another version."""
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise OtherSchema(
            f"{path}: field 'schema_version' is {version!r}, this version reads {SCHEMA_VERSION}. Mend: delete "
            f"{path.parent} and `p2o run`, which makes it anew; or `dvc repro --no-run-cache`, since DVC's run cache "
            "brings the old one back."
        )
    return read_record(path, Manifest)


def made_with(path: Path, params: str) -> Manifest | None:
    """The manifest of a stage that ran with the parameters of this digest; None where there is none such that this
    version reads."""
    if not path.exists():
        return None
    try:
        manifest = read_manifest(path)
    except OtherSchema:
        return None
    return manifest if manifest.params == params else None


def check_input(workspace: Path, path: Path) -> str:
    """The digest of an input, checked against the manifest beside it that lists it as an output.

    Raises:
        BadInput: input or manifest is missing, the manifest is of another schema, or the digests differ.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such input. Mend: run the stage that writes it first; `p2o run` runs all in order.")
    if path.name.endswith(MANIFEST_SUFFIX) or path.name == SOURCES:
        return digest(path)  # nobody's output: a manifest vouches for the others, sources are the user's
    name = path.relative_to(workspace).as_posix()
    for manifest in sorted(path.parent.glob(f"*{MANIFEST_SUFFIX}")):
        made = read_manifest(manifest)
        if name in made.outputs:
            expected, actual = made.outputs[name], digest(path)
            if actual != expected:
                raise BadInput(
                    f"{path}: its digest is {actual}, {manifest.name} says {expected}. Mend: it was changed after "
                    f"stage {made.stage!r} wrote it; delete it and run that stage again."
                )
            return actual
    raise BadInput(
        f"{path}: no manifest in {path.parent} lists it. Mend: run the stage that writes it; do not copy files in."
    )
