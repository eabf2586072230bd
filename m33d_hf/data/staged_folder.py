"""Writes a folder of a model completely or not at all: into a temporary folder that takes its place at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from m33d_hf.errors import ConfigError, M33DError, first_line

WEIGHT_FILES = "model*.safetensors*"


def refuse_existing(output: Path) -> None:
    """Raise if the output exists.

    Raises:
        ConfigError: a file, or a folder that is not empty.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; set --output to a folder.")
    if output.is_dir() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; remove its content or choose another --output.")


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends without an error, and is removed otherwise.

    Raises:
        ConfigError: it cannot be written, for want of space too.
    """
    refuse_existing(output)
    with _temporary(output, output.parent) as folder:
        yield folder
        _become(folder, output)


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """As `staged`, for a folder that may hold a model: its files stay as they are until all new ones are written.

    Files of other names stay there, except for weights, of which those of the last model alone are left.

    Raises:
        ConfigError: it cannot be written, for want of space too.
    """
    # Inside a folder that is there: what is around it may be another file system, or not ours to write.
    with _temporary(output, output if output.is_dir() else output.parent) as folder:
        yield folder
        if not output.is_dir():
            _become(folder, output)
            return
        written = sorted(folder.iterdir())
        for file in written:
            file.replace(output / file.name)
        for old in set(output.glob(WEIGHT_FILES)) - {output / file.name for file in written}:
            old.unlink()


@contextmanager
def _temporary(output: Path, place: Path) -> Iterator[Path]:
    with _writing(output):
        place.mkdir(parents=True, exist_ok=True)
        around = Path(tempfile.mkdtemp(prefix=f".tmp-{output.name}-", dir=place))
        try:
            folder = around / "new"  # mkdtemp gives one to its user alone; this is as mkdir makes it for others, too
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(around, ignore_errors=True)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """What writers raise where they cannot write, as an error of ours: each library has its own for a full disk."""
    try:
        yield
    except M33DError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        if not isinstance(error, OSError | SafetensorError) and "PytorchStreamWriter" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigError(f"{output} cannot be written: {reason}. Choose another --output, or make room.") from error


def _become(folder: Path, output: Path) -> None:
    if output.is_dir():
        output.rmdir()
    folder.rename(output)
