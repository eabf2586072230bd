"""What scripts/prepare_data.py can be told; light, so that `--help` needs no torch."""

# ruff: noqa: RUF009 - `_f` builds a field, so that every default carries its sentence.

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.options import option as _f


@dataclass
class PreparedDataArguments:
    """What is prepared; the names are those of the run scripts."""

    source: str = _f("folder", "Name of the reader, or MODULE:CLASS, as for training.")
    root: str | list[str] | None = _f(None, "Folder of the data, or several, [A, B]; not needed for rooms.")
    split: str = _f("all", "Split to prepare, in a folder of its own: train, validation, test, all.")
    options: dict[str, Any] = _f({}, "Options of the source, by name.")


@dataclass
class PreparationOptions:
    """Options of the preparation; the fields are the command-line flags."""

    output: str = _f("", "Output folder; a folder of parts with files of frames.")
    format: str = _f("parquet", "parquet (read by the source hub, and by datasets) or shards (tar; also webdataset).")
    size: str | None = _f(None, "Shorter side, such as 256, or HEIGHTxWIDTH, such as 240x320; null = as they are.")
    rgb_format: str = _f("png", "png (every pixel as the source reads it) or jpeg (a quarter of the bytes).")
    quality: int = _f(95, "Quality of JPEG.", low=1, high=100)
    shard_mb: float = _f(256.0, "Most MiB of pictures in one file.", above=0, high=1e6)
    workers: int = _f(1, "Processes of this rank.", low=1, high=1024)
    max_bad_fraction: float = _f(0.01, "Share of unreadable items above which the preparation stops.", low=0, high=1)
    verify: bool = _f(False, "Compare complete parts with their digests, and write damaged ones anew.")
    report_seconds: float = _f(10.0, "Seconds between progress lines.", above=0, high=1e6)
    data: PreparedDataArguments = field(default_factory=PreparedDataArguments)


def how_to_read(options: PreparationOptions) -> str:
    """The flags with which a run reads the output: by the folder above where it is called as its split."""
    output = Path(options.output).expanduser()
    by_split = options.data.split != "all" and output.name == options.data.split
    words = {
        "data.source": "shards" if options.format == "shards" else "hub",
        "data.root": str(output.parent if by_split else output),
    }
    words |= {} if by_split else {"data.train_split": "all", "data.eval_split": "null"}
    return " ".join(f"--{key} {shlex.quote(value)}" for key, value in words.items())
