"""Read what `torch.save` wrote: tensors, plain values, argparse.Namespace, NumPy's scalars; no other object, no code.

The trainers of VideoMAE and MultiMAE store learning rates as NumPy scalars. Those are rebuilt here from their bytes;
neither NumPy's functions nor any other that a file names is called.
"""

from __future__ import annotations

import argparse
import codecs
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from m33d_hf.errors import CheckpointError, first_line
from m33d_hf.weights.archive import check_archive, is_archive

NO_CHECKSUM = "the file has no checksum (torch's old format, or saved without): damaged values cannot be detected"
_SCALAR_CODES = {("f", 2): "e", ("f", 4): "f", ("f", 8): "d", ("b", 1): "?"}
_SCALAR_CODES |= {("i", size): code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))}
_SCALAR_CODES |= {("u", size): code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}
_OTHER_CONTENTS = (
    (
        re.compile(rb"\s*(<!doctype|<html|<head|<\?xml)", re.I),
        "an HTML page: the download saved a web page, not the file",
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the file: download it with `git lfs pull`"),
    (re.compile(rb"\x1f\x8b"), "compressed by gzip: unpack it first"),
    (re.compile(rb"(Rar!|7z\xbc\xaf|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd)"), "a compressed archive: unpack it first"),
    (re.compile(rb"\x89HDF"), "an HDF5 file, not a torch file"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array, not a torch file"),
    (re.compile(rb"(\x89PNG|\xff\xd8\xff|GIF8|%PDF)"), "a picture or a document, not weights"),
    (re.compile(rb"\0{64}"), "a file of zeros, whose content was never written: download or copy it again"),
    (re.compile(rb".{8}\s*\{\s*\"", re.S), "a safetensors file: its name must end in .safetensors"),
)


class _NumpyDtype:
    """Stands in for `numpy.dtype` while a file is read: its letter and size, and the order of its bytes."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _numpy_scalar(dtype: object, data: object) -> int | float | bool:
    """Stands in for NumPy's constructor of scalars."""
    match = re.fullmatch(r"([fiub])(\d)", dtype.code) if isinstance(dtype, _NumpyDtype) else None
    code = _SCALAR_CODES.get((match[1], int(match[2]))) if match else None
    if code is None or not isinstance(dtype, _NumpyDtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("Unsupported global: GLOBAL numpy scalar that is not a number")
    return struct.unpack(dtype.order + code, data)[0]


def _bytes_of(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, by which old pickles write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"Unsupported global: GLOBAL _codecs.encode to {encoding!r}")
    return text.encode("latin1")


_ALLOWED: list[Any] = [
    argparse.Namespace,  # MAE and the others store their command line
    (_NumpyDtype, "numpy.dtype"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    (_bytes_of, "_codecs.encode"),
]


def read_torch_file(file: Path) -> tuple[dict[Any, Any], list[str]]:
    """What a file of torch holds, and remarks on it.

    Raises:
        CheckpointError: no file of torch, objects that are no plain values, no dictionary, or damage.
    """
    refuse_other_contents(file)
    archive = is_archive(file)
    has_checksums = archive and check_archive(file)
    try:
        with torch.serialization.safe_globals(_ALLOWED), file.open("rb") as stream:
            content = torch.load(stream, map_location="cpu", weights_only=True)
            left = file.stat().st_size - stream.tell()
    except pickle.UnpicklingError as error:
        raise _refusal(file, error) from error
    except Exception as error:  # damage leads an unpickler anywhere
        if "weights_only" in str(error):
            raise _unreadable(file) from error
        raise CheckpointError(f"{file}: cannot be read as a torch file ({first_line(error)}).") from error
    if not archive and left:
        raise CheckpointError(
            f"{file}: cannot be read as a torch file because it is damaged: {left} bytes follow its last tensor."
        )
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a value of type {type(content).__name__}, not a dict of tensors.")
    return dict(content), [] if has_checksums else [NO_CHECKSUM]


def refuse_other_contents(file: Path) -> None:
    """Say what a file is that is named like weights and holds something else.

    Raises:
        CheckpointError: it is empty, a web page, a pointer to a file, or compressed.
    """
    with file.open("rb") as stream:
        start = stream.read(512)
    if not start:
        raise CheckpointError(f"{file}: the file is empty (0 bytes); download or copy it again.")
    text = _as_text(start)
    compared = start if text is None else text.encode("utf-8")
    for pattern, words in _OTHER_CONTENTS:
        if pattern.match(compared) and not (file.suffix == ".safetensors" and "safetensors" in words):
            raise CheckpointError(f"{file}: this is {words}.")
    if text is not None:
        words = text.strip()[:60]
        raise CheckpointError(
            f"{file}: this is text, not weights; it begins with {words!r}. Download or copy it again."
        )


def _as_text(start: bytes) -> str | None:
    """The beginning of a file as text, of which the last character may be cut; None where it is no text."""
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return None
    return text if text and re.sub(r"[\n\r\t]", "", text).isprintable() else None


def not_plain(tensor: torch.Tensor) -> str | None:
    """How a tensor holds its numbers, where they are not simply there; None where they are."""
    if tensor.is_meta:
        return "on the meta device, without numbers"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested:
        return "nested"
    return None if tensor.layout == torch.strided else f"stored as {str(tensor.layout).removeprefix('torch.')}"


def _refusal(file: Path, error: pickle.UnpicklingError) -> CheckpointError:
    named = re.search(r"(?:GLOBAL|[Uu]nsupported (?:class|type)) ([\w.]+(?: [^\n.]{0,60})?)", str(error))
    if named is None:
        return _unreadable(file)
    name = named[1].split(" was ")[0].strip()
    return CheckpointError(
        f"{file}: refused, because the pickle would build {name}, which is neither a tensor nor a number: opening it"
        " could run code. If you trust the file, load it where it was written and save its state dict with safetensors."
    )


def _unreadable(file: Path) -> CheckpointError:
    """Without torch's own words, which advise to open the file without protection."""
    with file.open("rb") as stream:
        start = stream.read(8)
    return CheckpointError(
        f"{file}: cannot be read as a torch file: it begins with {start!r}, and is damaged or of another kind. "
        "Download "
        "or copy it again; if it is whole, load it where it was written and save its state dict with safetensors."
    )
