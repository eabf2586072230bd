"""Which video an annotation file, or a name in a table, is called after."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from m33d_hf.data.names import composed, folded
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.errors import DataError

_WHAT_IT_IS = re.compile(r"[-_. ]+(phases?|timestamps?|segments?|annotations?|labels?)$", re.IGNORECASE)
_KIND_BEFORE = re.compile(r"^(phases?|annotations?|labels?)[-_. ]+", re.IGNORECASE)
_OTHER_FOLDERS = (
    "If they belong together, give the folder of the videos with --data.options.videos, and that of the annotations "
    "with --data.options.annotations"
)


@dataclass(frozen=True)
class Match:
    """The video that a name belongs to.

    Attributes:
        key: of the video; None where there is none.
        reason: why there is none.
        called: whether a video bears the name nevertheless, in another folder.
    """

    key: str | None
    reason: str = "no video of that name"
    called: bool = False


def match_files(files: Sequence[str], keys: Sequence[str]) -> list[Match]:
    """The videos of annotation files: called after their names, with or without words for what the files hold."""
    return _match([list(_names_in(file)) for file in files], keys, ())


def match_names(names: Sequence[str], keys: Sequence[str], annotated: Collection[str] = ()) -> list[Match]:
    """The videos that a table names.

    Args:
        names: as written there.
        keys: of all videos.
        annotated: those of them that have an annotation.
    """
    return _match([[_plain(name)] for name in names], keys, annotated)


def _match(entries: Sequence[Sequence[str]], keys: Sequence[str], annotated: Collection[str]) -> list[Match]:
    """By paths, and where these do not agree by bare names, if nothing else can be meant.

    Args:
        entries: of each file or row what it may be called after, the whole name in front.
        keys: of all videos.
        annotated: those that something else annotates.

    Raises:
        DataError: two videos bear one name.
    """
    paths = _Paths(keys)
    by_path = [next((key for name in names if (key := paths.key_at(name)) is not None), None) for names in entries]
    owners = {key: names[0] for key, names in zip(by_path, entries, strict=True) if key is not None}
    owners = {**dict.fromkeys(annotated, ""), **owners}
    bare = _BareNames(keys, [names[0] for names in entries], owners)
    return [bare.match(names) if key is None else Match(key, "") for key, names in zip(by_path, entries, strict=True)]


class _Paths:
    """The keys of videos, by which names are called, spelled out once for all names.

    Args:
        keys: of the videos.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = frozenset(keys)
        # Upper and lower case count only where keys differ in nothing else, and how accents are stored never counts.
        self._spelled = [(form, {key: form(key) for key in keys}) for form in (composed, folded)]

    def key_at(self, name: str) -> str | None:
        """Key of the video called `name`: the whole key, or the end of it or of the name.

        `case2` and `videos/siteA/case2` are the video `siteA/case2`, `siteB/case2` is not.

        Raises:
            DataError: two videos bear the name.
        """
        if name in self._keys:
            return name
        for form, forms in self._spelled:
            wanted = form(name)
            same = [key for key, known in forms.items() if known == wanted]
            same = same or [key for key, known in forms.items() if _is_end(known, wanted) or _is_end(wanted, known)]
            if len(same) > 1:
                raise DataError(
                    f"{name!r} matches several videos: {', '.join(same)}; put the folder in front of the name"
                )
            if same:
                return same[0]
        return None


class _BareNames:
    """Pairs by the last part of a name, where its folders are other ones than the video's.

    Sites call their cases alike, so folders decide where there is a choice: where several videos or annotations bear
    the name, where the annotation lies in a folder of other videos, or the video in one that holds other annotations.

    Args:
        keys: of the videos.
        names: of the annotations.
        owners: key -> annotation, of the videos whose path an annotation bears.
    """

    def __init__(self, keys: Sequence[str], names: Sequence[str], owners: dict[str, str]) -> None:
        self.owners = owners
        self.called: dict[str, list[str]] = {}
        for key in keys:
            self.called.setdefault(_last(key), []).append(key)
        self.alike: dict[str, dict[str, str]] = {}
        for name in names:
            self.alike.setdefault(_last(name), {}).setdefault(folded(PurePosixPath(name).parent.as_posix()), name)
        self.of_videos = {folder for key in keys for folder in _folders(key)}
        self.of_both = {folder for key, name in owners.items() for folder in _folders(key) & _folders(name)}

    def match(self, names: Sequence[str]) -> Match:
        """The video that one annotation belongs to; `names` are what it may be called after."""
        called = next((found for name in names if (found := self.called.get(_last(name)))), None)
        if called is None:
            return Match(None)
        key, name = called[0], names[0]
        if len(called) > 1:
            return _refused(f"{key} and {called[1]} lie in others")
        if key in self.owners:
            return _refused(f"{key} lies in another, and has an annotation of its own")
        if len(alike := self.alike[_last(name)]) > 1:
            return _refused(f"{key} lies in another, and {' and '.join(alike.values())} are called alike")
        own, theirs = _folders(name), _folders(key)
        astray = (own - theirs) & self.of_videos or (own.isdisjoint(theirs) and theirs & self.of_both)
        return _refused(f"{key} lies in another") if astray else Match(key, "")


def _refused(why: str) -> Match:
    return Match(None, f"no video of that name in its folder; {why}. {_OTHER_FOLDERS}", called=True)


def _names_in(file: str) -> Iterator[str]:
    """What a file may be called after: its name without suffix, then without words for what it holds."""
    stem = PurePosixPath(file).with_suffix("").as_posix()
    while True:
        yield _plain(stem)
        path = PurePosixPath(stem)
        bare = _KIND_BEFORE.sub("", path.name)
        if bare and bare != path.name:
            yield _plain(path.with_name(bare).as_posix())
        shorter = _WHAT_IT_IS.sub("", stem)
        if shorter in (stem, ""):
            return
        stem = shorter


def _plain(name: str) -> str:
    plain = name.replace("\\", "/").strip("/")
    return PurePosixPath(plain).with_suffix("").as_posix() if plain.lower().endswith(tuple(VIDEO_SUFFIXES)) else plain


def _is_end(end: str, path: str) -> bool:
    return path.endswith(f"/{end}")


def _last(name: str) -> str:
    return folded(PurePosixPath(name).name)


def _folders(name: str) -> set[str]:
    return {folded(part) for part in PurePosixPath(name).parent.parts}
