"""Features of the clips of long videos, extracted once: one file per video, and one file with their provenance.

A folder holds `features.json` (what the features were made from and with) and one Parquet or safetensors file per
video. Files are written atomically, so a killed extraction continues where it stopped, and any number of processes may
write different videos to one folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.augmentation.views import frame_indices
from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.atomic_writing import write_atomically
from m33d_hf.data.files.sealed_json import read_sealed_json, sealed, unsealed, write_sealed_json
from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.errors import ConfigError, CorruptFileError, MissingDependencyError, decoding, nearest_name_hint

PROVENANCE = "features.json"
VERSION = 2  # 2: the files of every video, and how they are read, are part of what features are known by
FORMATS = ("parquet", "safetensors")
# Told for people; a model that was moved still has the same weights.
UNCOMPARED = ("model",)
# What a digest stands for, which says nothing by itself.
_MEANING = {"source": " (files were added, are gone or have another size, or options of the source differ)"}
_NUMBERS = ("starts", "stops", "labels", "valid")


@dataclass(frozen=True)
class ClipRule:
    """How a video is cut into clips: one every `clip_stride` source frames, with frames `frame_stride` apart.

    Attributes:
        num_frames: frames of a clip, >= 1.
        frame_stride: source frames from one of them to the next, >= 1.
        clip_stride: source frames from one clip's start to the next one's, >= 1; the span where clips do not overlap.
    """

    num_frames: int
    frame_stride: int
    clip_stride: int

    def __post_init__(self) -> None:
        if min(self.num_frames, self.frame_stride, self.clip_stride) < 1:
            raise ConfigError(f"{self}: every number must be at least 1 (--data.frame_stride, --features.clip_stride)")

    @property
    def span(self) -> int:
        """Source frames that a clip covers."""
        return self.num_frames * self.frame_stride

    def frames(self, length: int) -> list[int]:
        """The frames taken from a stretch of `length` <= span frames, counted from its start; the last one is
        repeated."""
        return frame_indices(length, self.num_frames, self.frame_stride)

    def takes(self, number: int) -> bool:
        """Whether some clip of a video that is cut takes its frame `number`."""
        first = max(0, -(-(number - self.span + 1) // self.clip_stride))
        starts = range(first * self.clip_stride, number + 1, self.clip_stride)
        return any((number - start) % self.frame_stride == 0 for start in starts)

    def to_dict(self) -> dict[str, int]:
        """For features.json."""
        return {"num_frames": self.num_frames, "frame_stride": self.frame_stride, "clip_stride": self.clip_stride}


@dataclass
class VideoFeatures:
    """All S clips of one video, in the order of time.

    Attributes:
        key: of the video.
        length: its frames.
        fps: its frames per second, None where unknown.
        features: (S, D) float32; zeros where `valid` is False.
        clip_logits: (S, L) float32 of the first stage's classifier; zeros where `valid` is False.
        starts, stops: (S,) int64, frames [start, stop) of each clip.
        labels: (S,) int64 phase ids in the order of the model's classes, 255 where nothing is annotated.
        valid: (S,) bool, False for clips that could not be read.
        problems: why, for each clip that is not valid.
        cameras: (S,) int64, by how many cameras of a case with several a clip was seen; None with one.
        holes: frames that were read with depth, and those of them that lack it.
        files: what was known of the video's files (`freshness.FileStamp`); None of one without files.
    """

    key: str
    length: int
    fps: float | None
    features: Tensor
    clip_logits: Tensor
    starts: Tensor
    stops: Tensor
    labels: Tensor
    valid: Tensor
    problems: list[SkippedFile] = field(default_factory=list)
    cameras: Tensor | None = None
    holes: HoleCount = field(default_factory=HoleCount)
    files: tuple[str, str] | None = None

    def notes(self) -> dict[str, Any]:
        """Everything that is not a tensor, for a file's metadata."""
        return {
            "version": VERSION,
            "key": self.key,
            "length": self.length,
            "fps": self.fps,
            "problems": [list(problem) for problem in self.problems],
            **({"holes": dataclasses.asdict(self.holes)} if self.holes.holes else {}),
            **({"files": list(self.files)} if self.files is not None else {}),
        }


@dataclass(frozen=True)
class VideoSummary:
    """Summary of a file without its features: clips, readable clips, and why the others could not be read; `holes` and
    `files` as `VideoFeatures` has them."""

    key: str
    labels: Tensor
    valid: Tensor
    problems: list[SkippedFile]
    holes: HoleCount = field(default_factory=HoleCount)
    files: tuple[str, str] | None = None


class FeatureStore:
    """The features of the videos of one source.

    Args:
        folder: where they lie.
        format: "parquet" or "safetensors".

    Raises:
        ConfigError: an unknown format.
        MissingDependencyError: Parquet without pyarrow.
    """

    def __init__(self, folder: str | Path, format: str = "parquet") -> None:
        if format not in FORMATS:
            hint = nearest_name_hint(format, FORMATS)
            raise ConfigError(f"features.format is {format!r}; it must be one of {', '.join(FORMATS)}.{hint}")
        if format == "parquet":
            _parquet()
        self.folder = Path(folder)
        self.format = format

    def open_for(self, provenance: Mapping[str, Any], write: bool = True) -> None:
        """Check that existing features, if any, have this `provenance`.

        Args:
            provenance: plain values; all but "model" are compared.
            write: write `features.json` if there is none; in one process only.

        Raises:
            ConfigError: the folder holds features of another origin; names what differs.
            CorruptFileError: `features.json` cannot be read.
        """
        file = self.folder / PROVENANCE
        wanted = json.loads(json.dumps({"version": VERSION, "format": self.format, **provenance}))
        if file.is_file():
            self._compare(self.provenance(), wanted)
        elif write:
            write_sealed_json(file, wanted)

    def holds(self, provenance: Mapping[str, Any]) -> bool:
        """Whether there are features of this `provenance`, as `open_for` compares it; of damaged ones nobody knows."""
        if not (self.folder / PROVENANCE).is_file():
            return False
        try:
            self.open_for(provenance, write=False)
        except (ConfigError, CorruptFileError):
            return False
        return True

    def provenance(self) -> dict[str, Any]:
        """The content of `features.json`.

        Raises:
            CorruptFileError: it is missing or damaged.
        """
        file = self.folder / PROVENANCE
        try:
            return read_sealed_json(file)
        except CorruptFileError as error:
            raise CorruptFileError(file, f"{error.reason}; delete the folder {self.folder} to extract again") from error

    def _compare(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        names = [name for name in {**wanted, **found} if name not in UNCOMPARED]
        different = [name for name in names if found.get(name) != wanted.get(name)]
        if different:
            lines = "".join(
                f"\n  {n}{_MEANING.get(n, '')}: {there} there, {here} in this run"
                for n, (there, here) in ((n, _only_differing(found.get(n), wanted.get(n))) for n in different)
            )
            raise ConfigError(
                f"{self.folder} holds features of another origin; these differ: {', '.join(different)}.{lines}\nChoose "
                "another --features.dir, or delete the folder to extract them again."
            )

    def path_of(self, key: str) -> Path:
        """The path of a video's file, whether it exists or not: readable, and unique for every key."""
        readable = re.sub(r"[^\w.-]+", "_", key)[-80:]
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
        return self.folder / f"{readable}-{digest}.{self.format}"

    def is_whole(self, key: str) -> bool:
        """Whether the video's file exists and its header and footer are readable."""
        path = self.path_of(key)
        if not path.is_file():
            return False
        try:
            self.summary(key)
        except CorruptFileError:
            return False
        return True

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The videos that have no complete file yet."""
        return [key for key in keys if not self.is_whole(key)]

    def write(self, video: VideoFeatures) -> Path:
        """Write one video's file atomically."""
        writer = _write_parquet if self.format == "parquet" else _write_safetensors
        return write_atomically(self.path_of(video.key), lambda path: writer(path, video))

    def read(self, key: str) -> VideoFeatures:
        """Read one video's file.

        Raises:
            CorruptFileError: it is missing or damaged.
        """
        tensors, notes = self._load(key, None)
        problems = [SkippedFile(*row) for row in notes["problems"]]
        return VideoFeatures(
            key, int(notes["length"]), notes["fps"], **tensors, problems=problems, holes=_holes(notes),
            files=_files(notes),
        )  # fmt: skip

    def summary(self, key: str) -> VideoSummary:
        """Read what a file says about its clips, without their features.

        Raises:
            CorruptFileError: it is missing or damaged.
        """
        tensors, notes = self._load(key, ("labels", "valid"))
        problems = [SkippedFile(*row) for row in notes["problems"]]
        return VideoSummary(key, tensors["labels"], tensors["valid"], problems, _holes(notes), _files(notes))

    def _load(self, key: str, names: Sequence[str] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        path = self.path_of(key)
        reader = _read_parquet if self.format == "parquet" else _read_safetensors
        with decoding(path, "cannot be read", "; delete it to extract the video again"):
            tensors, notes = reader(path, names)
            _compare_digests(tensors, notes)
        if notes.get("key") != key:
            raise CorruptFileError(path, f"it holds the features of {notes.get('key')!r}, not of {key!r}")
        return tensors, notes


def _only_differing(there: Any, here: Any) -> tuple[Any, Any]:
    """Two values that differ, without the entries that both have alike."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return there, here
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return {n: there[n] for n in names if n in there}, {n: here[n] for n in names if n in here}


def _holes(notes: Mapping[str, Any]) -> HoleCount:
    """What a file says of frames without depth; nothing where none lacks it."""
    told = notes.get("holes")
    return HoleCount() if told is None else HoleCount(told["frames"], told["holes"], tuple(told["first"]))


def _files(notes: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a file of features says of the files that it was made of."""
    told = notes.get("files")
    return None if told is None else (str(told[0]), str(told[1]))


def _sealed_notes(video: VideoFeatures) -> str:
    """The notes with a digest of every tensor: neither format protects all that it holds."""
    names = ("features", "clip_logits", *_NUMBERS)
    return sealed({**video.notes(), "digests": {name: _digest(getattr(video, name)) for name in names}})


def _compare_digests(tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Raise ValueError where a tensor is not what was written; files of earlier versions do not tell."""
    for name, tensor in tensors.items():
        if "digests" in notes and notes["digests"][name] != _digest(tensor):
            raise ValueError(f"{name} is not what was written")


def _digest(tensor: Tensor) -> str:
    values = tensor.contiguous().numpy()
    told = hashlib.blake2b(f"{values.shape} {values.dtype}".encode(), digest_size=16)
    told.update(values.tobytes())
    return told.hexdigest()


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files require pyarrow: pip install pyarrow, or use --features.format safetensors."
        ) from error
    return pyarrow.parquet


def _write_safetensors(path: Path, video: VideoFeatures) -> None:
    from safetensors.torch import save_file

    names = ("features", "clip_logits", *_NUMBERS)
    tensors = {name: getattr(video, name).contiguous() for name in names}
    save_file(tensors, path, metadata={"notes": _sealed_notes(video)})


def _read_safetensors(path: Path, names: Sequence[str] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        wanted = names or ("features", "clip_logits", *_NUMBERS)
        return {name: file.get_tensor(name) for name in wanted}, unsealed((file.metadata() or {})["notes"])


def _write_parquet(path: Path, video: VideoFeatures) -> None:
    """One row per clip; features and logits are lists of fixed length."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "start": pa.array(video.starts.numpy()),
        "stop": pa.array(video.stops.numpy()),
        "label": pa.array(video.labels.numpy().astype(np.uint8)),
        "valid": pa.array(video.valid.numpy()),
    }
    for name, rows in (("features", video.features), ("clip_logits", video.clip_logits)):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(rows.contiguous().numpy().ravel()), rows.shape[1])
    table = pa.table(columns).replace_schema_metadata({"notes": _sealed_notes(video)})
    _parquet().write_table(table, path, use_dictionary=False, compression="zstd", write_page_checksum=True)


def _read_parquet(path: Path, names: Sequence[str] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    columns = {"starts": "start", "stops": "stop", "labels": "label"}
    wanted = list(names or ("features", "clip_logits", *_NUMBERS))
    asked = [columns.get(name, name) for name in wanted]
    table = _parquet().read_table(path, columns=asked, page_checksum_verification=True)
    tensors: dict[str, Tensor] = {}
    for name in wanted:
        column = table[columns.get(name, name)].combine_chunks()
        if name in ("features", "clip_logits"):
            flat = column.flatten().to_numpy(zero_copy_only=False)
            tensors[name] = torch.from_numpy(flat.reshape(len(column), column.type.list_size).copy())
        else:
            values = column.to_numpy(zero_copy_only=False)
            tensors[name] = torch.from_numpy(values.astype(bool if name == "valid" else np.int64))
    return tensors, unsealed(table.schema.metadata[b"notes"].decode())
