"""Writes a folder completely or not at all: into a temporary folder that is renamed at the end."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError

REPORT = "export.json"


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
        ConfigError: it cannot be written.
    """
    refuse_existing(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".tmp-{output.name}-", dir=output.parent))
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror or error}. Choose another --output.") from error
    try:
        yield folder
        folder.chmod(0o755)
        if output.is_dir():
            output.rmdir()
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write export.json."""
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of these packages, for the report."""
    return {package: version(package) for package in packages}
