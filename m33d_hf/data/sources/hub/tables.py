"""Opens what a data set of frames is stored in: Parquet files directly, everything else through `datasets`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.prepared.reading import ParquetRows, parquet_files
from m33d_hf.data.sources.hub.columns import Rows
from m33d_hf.errors import ConfigError, DataError, MissingDependencyError

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Names of splits by which folders and repositories call them.
_ALIASES = {"validation": ("validation", "val", "valid", "dev"), "val": ("validation", "val", "valid", "dev")}


def open_table(root: str | Path, split: str | None, revision: str | None) -> Rows:
    """The rows of a folder (Parquet files, or pictures as `datasets` reads them) or of a repository on the Hub.

    Args:
        root: folder or repository. A folder with a folder per split, as the Hub has them, is read by its split.
        split: None or "all" for everything.
        revision: of a repository.

    Raises:
        DataError: nothing there, no such split, or a repository that cannot be loaded, without a network above all.
        ConfigError: neither a folder nor the name of a repository.
    """
    folder = Path(root).expanduser()
    if folder.is_dir():
        chosen, split = _folder_of_split(folder, split)
        files = parquet_files(chosen)
        if not files:
            return _DatasetRows(_load(str(chosen), split, None, folder=True), str(chosen))
        if split is not None and (files := [f for f in files if _names_split(f, chosen, split)]) == []:
            raise DataError(
                f"{chosen} has no split {split!r}: no folder and no file of that name. Read everything with split "
                "'all' (for training, --data.train_split all; without evaluation, --data.eval_split null)."
            )
        return ParquetRows(files)
    if not _REPOSITORY.fullmatch(str(root)) or str(root).startswith("."):
        raise ConfigError(f"{root} is neither a folder nor the name of a data set on the Hub, such as user/name.")
    return _DatasetRows(_load(str(root), _wanted(split), revision, folder=False), str(root))


def _wanted(split: str | None) -> str | None:
    return None if split in (None, "all") else split


def _folder_of_split(folder: Path, split: str | None) -> tuple[Path, str | None]:
    """The folder of a split and None, else the folder itself and the split, which its files may still name."""
    split = _wanted(split)
    for name in () if split is None else _ALIASES.get(split, (split,)):
        if (folder / name).is_dir():
            return folder / name, None
    return folder, split


def _names_split(file: Path, folder: Path, split: str) -> bool:
    """Whether a file's path says that it belongs to a split, as `train-00000-of-00002.parquet` does."""
    words = re.split(r"[^a-z]+", file.relative_to(folder).as_posix().lower())
    return any(name in words for name in _ALIASES.get(split, (split,)))


def _load(root: str, split: str | None, revision: str | None, folder: bool) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{root} needs the package datasets: pip install datasets") from error
    try:
        loaded = datasets.load_dataset(root, revision=revision)
    except Exception as error:  # of the network, the Hub or a file: datasets says nowhere completely what it raises
        where = "the folder" if folder else "the Hub (and the cache of what was loaded before)"
        raise DataError(
            f"{root} cannot be loaded from {where}: {type(error).__name__}: {str(error).strip()}. "
            + ("" if folder else "Is there a network, is the name right, and are you logged in where it is private? ")
            + "A data set that was downloaded is read by its folder: --data.root FOLDER."
        ) from error
    if split is None:
        return datasets.concatenate_datasets(list(loaded.values()))
    for name in _ALIASES.get(split, (split,)):
        if name in loaded:
            return loaded[name]
    raise DataError(f"{root} has no split {split!r}; it has {', '.join(loaded)}, or pass all.")


class _DatasetRows:
    """A map-style data set of `datasets`."""

    def __init__(self, dataset: Any, name: str) -> None:
        import datasets

        self.name = name
        # Decoded by us, who read 16 bits exactly and check what is damaged.
        for column, feature in dataset.features.items():
            if isinstance(feature, datasets.Image):
                dataset = dataset.cast_column(column, datasets.Image(decode=False))
        self.dataset = dataset
        self.fingerprint = str(dataset._fingerprint)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.dataset.column_names)

    @property
    def schema(self) -> Any:
        """Arrow's."""
        return self.dataset.features.arrow_schema

    def where(self, row: int) -> tuple[Path, int]:
        """The name of the data set, and the row."""
        return Path(self.name), row

    def read(self, rows: Sequence[int], columns: Collection[str]) -> list[dict[str, Any]]:
        """Values of some rows, in order; a picture as its bytes."""
        if not columns:
            return [{} for _ in rows]
        chosen = self.dataset.select_columns(list(columns))
        return [{name: _bytes_of(value) for name, value in chosen[int(row)].items()} for row in rows]

    def whole(self, column: str) -> list[Any]:
        """A column of small values."""
        return list(self.dataset[column])


def _bytes_of(value: Any) -> Any:
    """The bytes of a picture that is not decoded, from its file where they are not in the table."""
    if isinstance(value, dict) and "bytes" in value:
        return Path(value["path"]).read_bytes() if value["bytes"] is None else value["bytes"]
    return value
