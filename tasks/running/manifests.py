"""Manifests: what a stage wrote, from what, with which seed. Every input is checked against its producer's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from p2o_core.digests import digest
from p2o_core.schemas import BadInput, read_json, write_json

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

    def write(self, path: Path) -> None:
        write_json(path, {"schema_version": SCHEMA_VERSION, **{k: getattr(self, k) for k in self.__annotations__}})


def manifest_path(folder: Path, stage: str) -> Path:
    return folder / f"{stage}{MANIFEST_SUFFIX}"


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
        content = read_json(manifest)
        if content.get("schema_version") != SCHEMA_VERSION:
            raise BadInput(
                f"{manifest}: field 'schema_version' is {content.get('schema_version')!r}, this version reads "
                f"{SCHEMA_VERSION}. Mend: delete {path.parent} and run its stages again."
            )
        if name in content["outputs"]:
            expected, actual = content["outputs"][name], digest(path)
            if actual != expected:
                raise BadInput(
                    f"{path}: its digest is {actual}, {manifest.name} says {expected}. Mend: it was changed after "
                    f"stage {content['stage']!r} wrote it; delete it and run that stage again."
                )
            return actual
    raise BadInput(
        f"{path}: no manifest in {path.parent} lists it. Mend: run the stage that writes it; do not copy files in."
    )
