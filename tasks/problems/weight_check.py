"""A model's weights on disk, looked at before anything is paid for: are they all there, and are they numbers?

Only safetensors are read: a pickle (``.bin``, ``.pt``) may run any code. Values are looked at slice by slice in the
mapped file, whose pages the system takes back when it needs them; a processor is faster at it than a disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite, isnan, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from p2o_core.schemas import BadInput, read_object
from tasks.problems.text import LFS

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = ("F16", "BF16", "F32", "F64")
SLICE = 2**24
"""Values read at a time."""
AGAIN = "download the folder again and compare its sizes with the source's"


def check_weights(folder: Path) -> None:
    """All tensors of a Hugging Face folder there, of floating point and finite, and not all of them zero.

    Raises:
        BadInput: naming file, tensor and the mend.
    """
    zero = True
    files = _files(folder)
    places = {tensor: path for path, expected in files.items() for tensor in expected}
    for path, expected in files.items():
        with _opened(path) as stream:
            if twice := sorted(name for name in stream.keys() if places.get(name, path) != path):  # noqa: SIM118
                raise BadInput(
                    f"{path}: tensor {twice[0]!r} is here too, though {INDEX} says {places[twice[0]].name}. "
                    f"Mend: {AGAIN}."
                )
            if missing := sorted(set(expected) - set(stream.keys())):
                raise BadInput(f"{path}: tensor {missing[0]!r}, which {INDEX} says is here, is not. Mend: {AGAIN}.")
            for name in stream.keys():  # noqa: SIM118 - no dictionary
                zero &= _check_tensor(path, name, stream.get_slice(name))
    if zero:
        raise BadInput(f"{folder}: every matrix in {WEIGHTS} is zero: no trained model. Mend: {AGAIN}.")


def _files(folder: Path) -> dict[Path, list[str]]:
    """Files that transformers would read to the tensors that the index expects in them (a single file: nothing)."""
    for path in (folder / WEIGHTS, folder / INDEX):
        if path.is_dir():
            raise BadInput(f"{path}: is a folder, not the weights. Mend: {AGAIN}.")
        if path.is_symlink() and not path.exists():
            raise BadInput(
                f"{path}: is a link to {path.readlink()}, which is not there. Mend: copy the files themselves."
            )
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: []}
    index = folder / INDEX
    if not index.exists():
        raise BadInput(_no_weights(folder))
    content = read_object(index)
    if not isinstance(content.get("metadata"), dict):
        raise BadInput(f"{index}: field 'metadata' is missing. Mend: {AGAIN}, or write \"metadata\": {{}} there.")
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BadInput(f"{index}: field 'weight_map' names no shards. Mend: {AGAIN}.")
    files: dict[Path, list[str]] = {}
    for tensor, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not (folder / shard).is_file():
            raise BadInput(
                f"{index}: field 'weight_map' says that {tensor!r} is in {shard!r}, which is not in the folder. Mend: "
                "download that file too."
            )
        files.setdefault(folder / shard, []).append(tensor)
    return files


def _no_weights(folder: Path) -> str:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder}: the weights are in {pickles[0]}, a pickle, which may run code and is never read; safetensors "
            "are. Mend: the source may have them as well; or convert, on a machine that may run what is in them: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)."
        )
    others = sorted(path.name for path in folder.glob("*.safetensors")) or ["none"]
    return (
        f"{folder}: neither {WEIGHTS} nor {INDEX} is there (safetensors found: {', '.join(others)[:200]}). Mend: "
        "download the whole folder, weights included."
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with path.open("rb") as start:
        if start.read(len(LFS)) == LFS:
            raise BadInput(f"{path}: a pointer of Git LFS, not the weights. Mend: `git lfs pull` in that folder.")
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except SafetensorError as error:
        raise BadInput(f"{path}: no whole safetensors file ({error}). Mend: {AGAIN}.") from error


def _check_tensor(path: Path, name: str, values: Any) -> bool:
    """Refuse what is no finite floating point number; whether it says nothing against weights that are all zero."""
    dtype, shape = values.get_dtype(), values.get_shape()
    if dtype not in FLOATS:
        if name.endswith("weight"):  # masks and position ids are whole numbers in some models
            raise BadInput(
                f"{path}: tensor {name!r} is stored as {dtype}: quantised weights cannot be trained. Mend: take the "
                "model they were made from (float32, bfloat16 or float16)."
            )
        return True
    zero = True
    for part in _slices(values, shape):
        low, high = (float(end) for end in torch.aminmax(part))  # NaN if any value is
        if not (isfinite(low) and isfinite(high)):
            found = "NaN" if isnan(low) or isnan(high) else "infinite values"
            raise BadInput(
                f"{path}: tensor {name!r} holds {found}. Mend: take an earlier checkpoint, or {AGAIN}; weights that "
                "overflowed in float16 have to be converted again, from float32 or to bfloat16."
            )
        zero &= low == high == 0
    return zero or len(shape) < 2


def _slices(values: Any, shape: list[int]) -> Iterator[torch.Tensor]:
    """Rows of a tensor, at most :data:`SLICE` values at a time where a row is not longer than that."""
    if not shape:
        yield values[...]
        return
    rows = max(1, SLICE // max(1, prod(shape[1:])))
    if prod(shape):
        for start in range(0, shape[0], rows):
            yield values[start : start + rows]
