"""What a prepared data set looks like: the columns of its files, their metadata, and their names.

The format `parquet` is that of the `datasets` library: `load_dataset(folder)` opens the files, and its viewer shows
them. The format `shards` is that of the `webdataset` library: tar files, in which the files of one frame lie together;
beside each lies an index, a small Parquet file of where every frame begins. What the columns cannot say (what depth
means, names of classes, which of how many parts a file is) stands in the metadata of the Parquet files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m33d_hf.data.files.sealed_json import sealed, unsealed
from m33d_hf.errors import CorruptFileError, MissingDependencyError

if TYPE_CHECKING:
    import pyarrow

META_KEY = b"m33d_prepared"
END_KEY = b"m33d_prepared_end"
VERSION = 1
MAPS = ("rgb", "depth", "segmentation")
COLUMNS = ("key", "sequence", "frame", *MAPS, "depth_scale", "label", "fps")
PARQUET = ".parquet"
FORMATS = ("parquet", "shards")
TAR, INDEX = ".tar", ".index"
# Small values of a frame; they stand in the index, and in the JSON of the frame.
VALUES = ("key", "sequence", "frame", "depth_scale", "label", "fps")
_PART = re.compile(r"part-(\d{5,})-of-(\d{5,})")
_FILE = re.compile(r"file-(\d{3,})\.(?:parquet|places|tar|index)")


@dataclass(frozen=True)
class Manifest:
    """What is the same for every row of a prepared data set.

    Attributes:
        source: name of the source that it was made from.
        digest: of that source.
        parts: number of parts that the items were cut into.
        depth_spec: `DepthSpec.to_dict()` of the source; None without depth. Stored values are read by the kind in it
            and by the row's own `depth_scale`.
        class_names: of the segmentation; None without.
        action_names: of the clip labels; None without.
        class_table: `ClassTable.to_dict()`; None if unknown.
        sizes: "original", or how frames were resized.
        version: of this layout.
    """

    source: str
    digest: str
    parts: int
    depth_spec: Mapping[str, Any] | None = None
    class_names: list[str] | None = None
    action_names: list[str] | None = None
    class_table: Mapping[str, Any] | None = None
    sizes: str = "original"
    version: int = field(default=VERSION)

    def to_json(self) -> str:
        """Sealed text; `from_json` is its inverse."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, text: str, path: Path) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            CorruptFileError: of `path`: anything else, or the layout of a later version.
        """
        try:
            plain = unsealed(text)
            found = cls(**plain)
        except (ValueError, TypeError) as error:
            raise CorruptFileError(path, f"its metadata {error}") from error
        if found.version != VERSION:
            raise CorruptFileError(path, f"has layout {found.version}; this version of m33d-hf reads {VERSION}")
        return found


def schema_of(manifest: Manifest) -> pyarrow.Schema:
    """The Arrow schema of every file, with the metadata of `datasets` and ours.

    Raises:
        MissingDependencyError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("prepared data needs the package datasets: pip install datasets") from error

    number, text, real = (datasets.Value(kind) for kind in ("int64", "string", "float64"))
    label = datasets.ClassLabel(names=manifest.action_names) if manifest.action_names else number
    features = datasets.Features(
        {
            "key": text,
            "sequence": text,
            "frame": number,
            "rgb": datasets.Image(),
            "depth": datasets.Image(),
            "segmentation": datasets.Image(),
            "depth_scale": real,
            "label": label,
            "fps": real,
        }
    )
    schema = features.arrow_schema
    return schema.with_metadata({**(schema.metadata or {}), META_KEY: manifest.to_json().encode()})


def index_schema_of(manifest: Manifest) -> pyarrow.Schema:
    """The Arrow schema of the index of a shard, with our metadata: the small values of each frame, its first byte and
    its number of bytes in the tar file, and their CRC-32.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError("shards need pyarrow, which comes with `pip install datasets`") from error

    kinds = {"key": "string", "sequence": "string", "frame": "int64", "depth_scale": "double", "label": "int64"}
    kinds |= {"fps": "double", "start": "int64", "size": "int64", "crc": "uint32"}
    fields = [pyarrow.field(name, pyarrow.type_for_alias(kind)) for name, kind in kinds.items()]
    return pyarrow.schema(fields, metadata={META_KEY: manifest.to_json().encode()})


def part_name(number: int, parts: int) -> str:
    """Folder of one part: `part-00003-of-00010`."""
    return f"part-{number:05d}-of-{parts:05d}"


def file_name(number: int, suffix: str = ".parquet") -> str:
    """File of a part: `file-000.parquet`."""
    return f"file-{number:03d}{suffix}"


def part_of(folder: Path) -> tuple[int, int] | None:
    """(number, number of parts) by a folder's name; None for other folders."""
    found = _PART.fullmatch(folder.name)
    return None if found is None else (int(found[1]), int(found[2]))


def file_number(file: Path) -> int | None:
    """Number of a file within its part, by its name; None for other files."""
    found = _FILE.fullmatch(file.name)
    return None if found is None else int(found[1])
