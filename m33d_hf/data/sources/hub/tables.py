"""Opens what a data set of frames is stored in: Parquet files directly, everything else through `datasets`."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from m33d_hf.data.files.remote import RemotePath, files_below, is_remote
from m33d_hf.data.prepared.reading import ParquetRows, parquet_files
from m33d_hf.data.prepared.remote_reading import RemoteParquetRows
from m33d_hf.data.sources.hub.columns import Rows
from m33d_hf.errors import ConfigError, DataError, MissingDependencyError, MissingSplitError, type_and_text

File = TypeVar("File", Path, RemotePath)
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Names of splits by which folders and repositories call them.
_ALIASES = {"validation": ("validation", "val", "valid", "dev"), "val": ("validation", "val", "valid", "dev")}


def open_table(root: str | Path, split: str | None, revision: str | None, streaming: bool = False) -> Rows:
    """The rows of a folder (Parquet files, or pictures as `datasets` reads them), of a repository on the Hub, or of
    Parquet files at an address.

    Args:
        root: folder, repository or address. A folder with a folder per split, as the Hub has them, is read by its
            split.
        split: None or "all" for everything.
        revision: of a repository.
        streaming: read Parquet files of a repository or an address where they lie.

    Raises:
        DataError: nothing there, no such split, or a repository that cannot be loaded, without a network above all.
        ConfigError: neither a folder nor the name of a repository; or an address that is not to be streamed from.
        UnreachableError: an address that does not answer.
    """
    if is_remote(root):
        if not streaming:
            raise ConfigError(
                f"{root} is an address. Read it where it lies with --data.options.streaming true, or copy it and give "
                "the folder."
            )
        return RemoteParquetRows(remote_split(str(root), split, ".parquet"))
    folder = Path(root).expanduser()
    if folder.is_dir():
        chosen, split = folder_of_split(folder, split)
        files = parquet_files(chosen)
        if not files:
            return _DatasetRows(_load(str(chosen), split, None, folder=True), str(chosen))
        return ParquetRows(of_split(files, chosen, split))
    if not _REPOSITORY.fullmatch(str(root)) or str(root).startswith("."):
        raise ConfigError(f"{root} is neither a folder nor the name of a data set on the Hub, such as user/name.")
    if streaming:
        return RemoteParquetRows(repository_files(str(root), _wanted(split), revision))
    return _DatasetRows(_load(str(root), _wanted(split), revision, folder=False), str(root))


def _wanted(split: str | None) -> str | None:
    return None if split in (None, "all") else split


def folder_of_split(folder: Path, split: str | None) -> tuple[Path, str | None]:
    """The folder of a split and None, else the folder itself and the split, which its files may still name."""
    split = _wanted(split)
    for name in () if split is None else _ALIASES.get(split, (split,)):
        if (folder / name).is_dir():
            return folder / name, None
    return folder, split


def of_split(files: list[File], folder: Any, split: str | None) -> list[File]:
    """The files whose paths below `folder` say that they belong to a split (train-00000-of-00002.parquet, train/..);
    all of them where the folder itself is called so and no file says anything.

    Raises:
        MissingSplitError: none does.
    """
    if split is None:
        return files
    root = str(folder).rstrip("/")
    below = [str(file).removeprefix(root) for file in files]
    chosen = [file for file, path in zip(files, below, strict=True) if _names_split(path, split)]
    whole = root.rpartition("/")[2].lower() in _ALIASES.get(split, (split,))
    if whole and not any(_names_split(path, each) for path in below for each in ("train", "validation", "test")):
        return files  # the folder is that of the split
    if not chosen:
        tested = split != "test" and any(_names_split(path, "test") for path in below)
        raise MissingSplitError(
            f"{folder} has no split {split!r}: no folder and no file of that name. Read everything with split "
            "'all' (for training, --data.train_split all; without evaluation, --data.eval_split null).",
            "test" if tested else None,
        )
    return chosen


def _names_split(path: str, split: str) -> bool:
    words = re.split(r"[^a-z]+", path.lower())
    return any(name in words for name in _ALIASES.get(split, (split,)))


def remote_split(root: str, split: str | None, suffix: str) -> list[RemotePath]:
    """The files of one suffix and one split below an address; in a folder of its name, if there is one.

    Raises:
        DataError: none. ConfigError, MissingDependencyError, UnreachableError: see `files_below`.
    """
    files = files_below(root, suffix)
    if not files:
        raise DataError(f"{root} holds no {suffix} files.")
    split = _wanted(split)
    for name in () if split is None else _ALIASES.get(split, (split,)):
        below = f"{root.rstrip('/')}/{name}/"
        if inside := [file for file in files if file.url.startswith(below)]:
            return inside
    return of_split(files, root, split)


def repository_files(root: str, split: str | None, revision: str | None) -> list[RemotePath]:
    """The Parquet files of a repository, as `datasets` finds them: by its README and the names of its files.

    Raises:
        DataError: it cannot be looked at, has no such split, or holds something else than Parquet.
    """
    datasets = _library(root)
    with _loading(root, folder=False):
        found = datasets.load_dataset_builder(root, revision=revision)
    by_split = found.config.data_files or {}
    files = [str(file) for name in _splits(root, list(by_split), split) for file in by_split[name]]
    if not files or not all(file.endswith(".parquet") for file in files):
        other = next((file for file in files if not file.endswith(".parquet")), "nothing")
        raise DataError(
            f"{root} cannot be streamed from: it does not hold Parquet files, but {other}. The Hub keeps a copy as "
            "Parquet of many data sets: --data.options.revision refs/convert/parquet. Else leave out streaming."
        )
    return [RemotePath(file) for file in files]


def _splits(root: str, names: list[str], split: str | None) -> list[str]:
    """The splits to read, of those that there are; raises MissingSplitError if there is none of that name."""
    if split is None:
        return names
    for name in _ALIASES.get(split, (split,)):
        if name in names:
            return [name]
    raise MissingSplitError(
        f"{root} has no split {split!r}; it has {', '.join(names)}, or pass all.", "test" if "test" in names else None
    )


def _library(root: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{root} needs the package datasets: pip install datasets") from error
    return datasets


@contextmanager
def _loading(root: str, folder: bool) -> Iterator[None]:
    """Whatever `datasets` raises becomes a DataError that says what to look at."""
    try:
        yield
    except Exception as error:  # of the network, the Hub or a file: datasets says nowhere completely what it raises
        where = "the folder" if folder else "the Hub (and the cache of what was loaded before)"
        questions = "Is there a network, is the name right, and are you logged in where it is private? "
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "on", "yes", "true"):
            questions = "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it if there is a network. "
        raise DataError(
            f"{root} cannot be loaded from {where}: {type_and_text(error).rstrip('.')}. "
            + ("" if folder else questions)
            + "A data set that was downloaded is read by its folder: --data.root FOLDER."
        ) from error


def _load(root: str, split: str | None, revision: str | None, folder: bool) -> Any:
    datasets = _library(root)
    with _loading(root, folder):
        loaded = datasets.load_dataset(root, revision=revision)
    names = _splits(root, list(loaded), split)
    return datasets.concatenate_datasets([loaded[name] for name in names]) if split is None else loaded[names[0]]


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
