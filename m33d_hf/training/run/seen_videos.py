"""Records the videos a model was trained on, as digests without names, to find them again in evaluation data.

`seen_videos.json` beside a model holds, for every training that led to it, a random salt and digests of the videos'
keys and of their file names with sizes: a video that was moved to another folder is recognised. Names cannot be read
from the file, only guessed and tested. A few stills represent a whole folder, and a few windows a whole sequence; they
are drawn by name, so they are the same in every data set that contains them.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import Source, source_options
from m33d_hf.data.sources.hub.table_source import TableSource
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.data.sources.rooms.source import RoomsSource
from m33d_hf.data.sources.videos.frames import video_of
from m33d_hf.errors import CheckpointError, DataError
from m33d_hf.training.processes.beside import SEEN, find_beside, read_beside, write_beside
from m33d_hf.training.recipe.arguments import RunArguments

_DIGITS = 24  # of a digest: 96 bits, so that two names never meet by chance
_STANDING = 32  # stills of a folder that stand for all of it
# Frames of a table whose pictures are looked at, at least one of each sequence; likewise where each is a request.
_MOST_READ, _MOST_REQUESTED = 1024, 128


class Group(NamedTuple):
    """A video, or the stills of one folder; they are recognised together.

    Attributes:
        names: the names of the video, or of each still that represents the others.
        items: videos or stills.
    """

    names: list[tuple[str, ...]]
    items: int

    def known(self, is_known: Callable[[str], bool]) -> int:
        """How many of the items are known: of stills, the share of those that stand for all, at least one if any."""
        found = sum(any(map(is_known, names)) for names in self.names)
        return -(-found * self.items // len(self.names))


_KNOWN: WeakKeyDictionary[SampleDataset, list[Group]] = WeakKeyDictionary()


def seen_again(init_from: str | None, dataset: SampleDataset) -> list[str]:
    """Warnings about evaluation videos that the model of `init_from` was trained on; they give only the number of
    videos.

    Raises:
        CheckpointError: `seen_videos.json` beside the model is damaged.
    """
    trainings = read_seen(init_from)
    groups = video_groups(dataset) if trainings else []
    lines = []
    for training in trainings:
        is_known = _recogniser(training["salt"], set(training["digests"]))
        again = sum(group.known(is_known) for group in groups)
        if again:
            lines.append(
                f"WARNING: {again} of {_items(groups)} evaluation videos were used for training, judging by their "
                f"names ({training['task']} of {init_from}): results on them say little about new videos"
            )
    return lines


def shared_videos(args: RunArguments, train_set: SampleDataset, eval_set: SampleDataset | None) -> list[str]:
    """A warning about videos that a run both trains on and evaluates on, if its arguments ask for that.

    Raises:
        DataError: two different splits of one root share videos, which must be a mistake.
    """
    if eval_set is None:
        return []
    trained = {name for group in video_groups(train_set) for names in group.names for name in names}
    groups = video_groups(eval_set)
    again = sum(group.known(trained.__contains__) for group in groups)
    if not again:
        return []
    told = f"{again} of {_items(groups)} evaluation videos are also training videos of this run"
    # By their keys: it is the very same file.
    data, certain = args.data, any(names[0] in trained for group in groups for names in group.names)
    certain = certain and train_set.source.root is not None  # keys alone may be numbers that start again
    knows_split = "split" in source_options(data.source)
    split = knows_split and data.eval_root is None and data.eval_split != data.train_split
    if certain and split and "all" not in (data.train_split, data.eval_split) and data.train_split is not None:
        cure = "Correct the lists (--data.options.split_list, with a file per split)."
        if "split_list" not in source_options(data.source):
            cure = "Keep each video in one of them."
        raise DataError(
            f"{told}, because the splits {data.train_split!r} and {data.eval_split!r} share them. An evaluation on "
            f"training videos proves nothing. {cure}"
        )
    if not knows_split and data.mixture is None and data.eval_root is None and not data.eval_options:
        cure = f"give data.eval_options, give {data.source} an option split, or set data.eval_split to null"
        return [
            f"WARNING: {told}, because the source {data.source} has no option split and so reads the same data for"
            f" both: results on them say little about new videos ({cure})"
        ]
    how = "" if certain and data.eval_root is None else ", judging by their names"
    return [f"WARNING: {told}{how}: results on them say little about new videos"]


def write_seen(folder: str | Path, task: str, dataset: SampleDataset, init_from: str | None) -> None:
    """Write digests of the training videos to the output folder, after those of the model that the run starts from.

    Raises:
        CheckpointError: the folder cannot be written to, or the file beside `init_from` is damaged.
    """
    salt = secrets.token_hex(16)
    groups, before = video_groups(dataset), read_seen(init_from)
    if not groups and not before:
        return
    digests = sorted({_digest(salt, name) for group in groups for names in group.names for name in names})
    own = {"task": task, "salt": salt, "videos": _items(groups), "digests": digests}
    write_beside(folder, SEEN, {"version": 1, "trained": [*before, own]})


def read_seen(init_from: str | None) -> list[dict[str, Any]]:
    """The training runs that led to a model, each with "task", "salt", "videos" and "digests"; empty if nothing is
    known.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = find_beside(init_from, SEEN)
    if file is None:
        return []
    try:
        trainings = read_beside(file)["trained"]
        if not all(_is_training(each) for each in trainings):
            raise ValueError("an entry is not a list of digests")
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}), so it is unknown which videos the model was trained on. Delete it to "
            "continue without this check."
        ) from error
    return list(trainings)


def _is_training(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not all(isinstance(entry.get(name), str) for name in ("task", "salt")):
        return False
    digests = entry.get("digests")
    return isinstance(digests, list) and all(isinstance(digest, str) for digest in digests)


def _recogniser(salt: str, digests: set[str]) -> Callable[[str], bool]:
    return lambda name: _digest(salt, name) in digests


def _items(groups: Sequence[Group]) -> int:
    return sum(group.items for group in groups)


def video_groups(dataset: SampleDataset) -> list[Group]:
    """The names by which the videos of a data set that are in use may be recognised.

    A key is used as it is. A file is identified by its name and size, wherever it lies. Single frames, which are
    usually named by numbers, are identified by both together, and a few represent the whole folder, or the whole
    sequence of a table. A source without a root has its keys alone. Generated videos (rooms) have no names. Of a
    mixture, each member is looked into.
    """
    if dataset not in _KNOWN:  # files are looked at, and a run asks several times
        _KNOWN[dataset] = _groups_of(dataset.source, dataset.indices)
    return _KNOWN[dataset]


def _groups_of(source: Source, rows: Sequence[int]) -> list[Group]:
    if isinstance(source, MixtureSource):
        items = source.items_of(rows)
        return [group for name, member in source.members.items() for group in _groups_of(member, items[name])]
    if isinstance(source, TableSource):
        return _groups_of_table(source, rows)
    if isinstance(source, RoomsSource):
        return []
    if source.root is None:  # a reader from outside the package: its keys are all that is known
        return [Group([(f"key {_plain(key)}",)], 1) for key in _keys(source, rows)]
    groups, stills = [], dict[str, list[tuple[int, str, Any]]]()
    for key, item in _videos(source, rows).items():
        if (folder := _folder_of_still(item)) is None:
            groups.append(Group([_names(item, key)], 1))
        else:
            stills.setdefault(folder, []).append((_rank(key), key, item))
    for ranked in stills.values():
        standing = nsmallest(_STANDING, ranked, key=lambda entry: entry[:2])
        groups.append(Group([_still(item, key, source) for _, key, item in standing], len(ranked)))
    return groups


def _keys(source: Source, rows: Sequence[int]) -> dict[str, None]:
    """The keys of the items in use, or of the videos behind them, each once."""
    known = source.groups() or source.keys()
    return dict.fromkeys(source[row].key if known is None else known[row] for row in rows)


def _groups_of_table(source: TableSource, rows: Sequence[int]) -> list[Group]:
    """Clips by their sequences; frames by the names and stored bytes of a few of each sequence. Only the columns of
    names are read, and the pictures of those few."""
    keys = source.keys()
    if keys is None:  # numbers of rows say nothing about what is in them
        return []
    used = dict.fromkeys(int(row) for row in rows)
    if source.unit == "clips":
        return [Group([(f"key {_plain(keys[row])}",)], 1) for row in used]
    names = source.groups()
    by_sequence: dict[str, list[tuple[int, str, int]]] = {}
    for row in used:
        sequence = str(PurePosixPath(keys[row]).parent) if names is None else names[row]
        by_sequence.setdefault(sequence, []).append((_rank(keys[row]), keys[row], row))
    most = _MOST_REQUESTED if source.is_remote else _MOST_READ
    each = max(1, min(_STANDING, most // max(1, len(by_sequence))))
    groups = []
    for ranked in by_sequence.values():
        standing = nsmallest(each, ranked)
        groups.append(Group([(f"frame {_plain(key)} {source.stored_bytes(row)}",) for _, key, row in standing],
                            len(ranked)))  # fmt: skip
    return groups


def _rank(key: str) -> int:
    """By which a few stills are drawn: by name, so that they are the same in every data set that contains them."""
    return zlib.crc32(_bytes(_plain(key)))


def _videos(source: Source, rows: Sequence[int]) -> dict[str, Any]:
    """Key -> handle of the videos (or frames) in use."""
    videos = source.videos
    if videos is None:
        items = (source[row] for row in rows)
        return {item.key: getattr(item, "handle", item) for item in items}  # under the name of its folder, if several
    keys = source.groups() or [video.group for video in videos]
    used = {keys[row] for row in rows}
    return {video.key: video.handle for video in videos if video.group in used}


def _first_file(item: Any) -> str | None:
    """The first file of a still or window, relative to its root; None of anything else."""
    frames = getattr(item, "frames", None)
    if isinstance(frames, Sequence) and frames and hasattr(frames[0], "rgb"):
        return str(frames[0].rgb or frames[0].depth)
    return None


def _folder_of_still(item: Any) -> str | None:
    """The folder (or the video) that a still or window was taken from; None of anything else."""
    first = _first_file(item)
    if first is None:
        return None
    return video_of(first) if video_of(first) != first else str(PurePosixPath(first).parent)


def _still(item: Any, key: str, source: Any) -> tuple[str, ...]:
    root = Path(getattr(getattr(item, "reader", source), "root", ""))
    return (f"frame {_plain(key)} {_size(root / str(_first_file(item)))}",)


def _names(item: Any, key: str) -> tuple[str, ...]:
    names = [f"key {_plain(key)}"]
    file = getattr(item, "file", None)
    size = _size(file) if isinstance(file, Path) else -1
    if isinstance(file, Path) and size >= 0:
        names.append(f"file {_plain(file.stem)} {size}")
    return tuple(names)


def _size(path: Path) -> int:
    """Bytes of a file, -1 of anything else."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return -1
    return found.st_size if S_ISREG(found.st_mode) else -1


def _plain(name: str) -> str:
    """One spelling of a name, whatever system wrote it."""
    return unicodedata.normalize("NFC", name).casefold()


def _digest(salt: str, name: str) -> str:
    return hashlib.sha256(_bytes(f"{salt} {name}")).hexdigest()[:_DIGITS]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
