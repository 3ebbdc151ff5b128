"""The text of a file as its writer meant it: unpacked, and decoded only when the encoding is sure."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from charset_normalizer import from_bytes

from p2o_core.schemas import BadInput

COHERENCE = 0.3
"""Least likeness to a known language (charset-normalizer's coherence) at which a guess is sure. Short texts in one-byte
encodings are guessed as Chinese with a coherence of 0."""

_GZIP = b"\x1f\x8b"
_PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "packed with xz",
    b"BZh": "packed with bzip2",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    _GZIP: "packed with gzip twice",
    b"PAR1": "a parquet file",
    b"\x80\x04": "a pickle, which is never read",
    b"\x80\x05": "a pickle, which is never read",
}
LFS = b"version https://git-lfs"


def read_bytes(path: Path) -> bytes:
    """The content, unpacked if it is gzip's whatever its name says. Raises BadInput."""
    try:
        path.exists()
    except OSError as error:
        raise BadInput(f"{str(path)[:80]}: is no path ({error.strerror}). Mend: correct it.") from error
    if path.is_symlink() and not path.exists():
        raise BadInput(f"{path}: is a link to {path.readlink()}, which is not there. Mend: copy the file itself.")
    if not path.exists():
        raise BadInput(f"{path}: no such file. Mend: correct its path.")
    if path.is_dir():
        raise BadInput(f"{path}: is a folder. Mend: name a file in it; several files are several sources.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}). Mend: allow it, or copy the file.") from error
    if data.startswith(_GZIP) or path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: not a whole gzip file ({error}). Mend: pack or fetch it again.") from error
    if not data.strip():
        raise BadInput(f"{path}: is empty. Mend: write at least one row.")
    return data


def read_text(path: Path, encoding: str = "") -> str:
    """A file's text without byte order mark. Raises BadInput; see :func:`decode`."""
    return decode(read_bytes(path), path, encoding)


def decode(data: bytes, path: Path, encoding: str = "") -> str:
    """UTF-8; UTF-16 and UTF-32, which byte order marks and zero bytes give away; another encoding if ``encoding`` says
    so or if charset-normalizer is sure. ``path`` is for messages.

    Raises:
        BadInput: the encoding is not sure, or is not the one that was named, or the text holds zero bytes.
    """
    if packed := next((kind for sign, kind in _PACKED.items() if data.startswith(sign)), ""):
        raise BadInput(f"{path}: this is {packed}, no text. Mend: unpack it, or give the file its own ending.")
    if data.startswith(LFS):
        raise BadInput(f"{path}: a pointer of Git LFS, not the file. Mend: `git lfs pull` in that folder.")
    unicode = json.detect_encoding(data)  # RFC 4627: by byte order mark and the places of zeros
    try:
        text = data.decode(encoding or unicode)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if encoding or unicode not in ("utf-8", "utf-8-sig"):
            raise BadInput(
                f"{path}: line {line}: no {encoding or unicode} text ({error.reason} at byte {error.start}). "
                "Mend: write it as UTF-8, or name the encoding it has with `encoding:`."
            ) from error
        text = _guessed(data, path, error)
    except (
        LookupError,
        ValueError,
    ) as error:  # no such name, or one of a codec that decodes no files (undefined, idna)
        raise BadInput(f"{path}: no encoding {encoding!r}. Mend: a name Python knows, as cp1252.") from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadInput(f"{path}: line {line}: a zero byte, so this is no text. Mend: write it again as UTF-8.")
    return text


def _guessed(data: bytes, path: Path, first: UnicodeDecodeError) -> str:
    """The only reading that charset-normalizer finds nothing strange in. One-byte encodings differ in a few letters:
    where two readings are as good, a guess would write wrong letters without a word. So it would where UTF-8 has a
    damaged byte, or where two encodings are in one file: what UTF-8 says rightly would become two letters.

    ``first`` is what UTF-8's decoder said of the first byte that is none.
    """
    line = first.object.count(b"\n", 0, first.start) + 1
    broken = [sign for sign in data.decode(errors="surrogateescape") if not sign.isascii()]
    whole = sum(not "\udc80" <= sign <= "\udcff" for sign in broken)
    if whole >= len(broken) - whole:
        raise BadInput(
            f"{path}: line {line}: UTF-8 with a damaged byte ({first.object[first.start]:#04x} at byte {first.start}"
            f"); {whole} characters beside it are whole. Mend: write that line again as UTF-8; or name another "
            "encoding with `encoding:` beside its path in params.yaml."
        )
    guesses = list(from_bytes(data))
    if guesses:
        best = min(guess.chaos for guess in guesses)
        readings = {str(guess): guess for guess in guesses if guess.chaos == best}
        text, guess = next(iter(readings.items()))
        one_byte = len(text) == len(data)
        if len(readings) == 1 and guess.coherence >= COHERENCE and not (one_byte and whole):
            return text
    names = ", ".join(guess.encoding for guess in guesses[:3]) or "unknown"
    raise BadInput(
        f"{path}: line {line}: no UTF-8, and which encoding it is, is not sure (perhaps {names}). "
        "Mend: write the file as UTF-8; or say `encoding: cp1252`, or whichever it is, beside its path in params.yaml."
    )
