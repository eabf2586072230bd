"""Finds the long videos of a data set and the annotation files that belong to them, by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from m33d_hf.data.depth.maps import (
    DEPTH_FOLDERS,
    SPEC_FILE,
    depth_folder,
    depth_keys,
    find_depth_of,
    how_to_extract,
    read_sidecar_spec,
)
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.files.data_set_tables import stated_places
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sample import VideoHandle
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.folder import HOW_TO_FIX, ROOT_SEQUENCE, FolderSource
from m33d_hf.data.sources.frames.layouts import list_files
from m33d_hf.data.sources.phases.annotations import (
    FORMATS,
    Annotation,
    AnnotationOptions,
    detect_format,
    names_its_videos,
    read_annotations,
)
from m33d_hf.data.sources.phases.naming import Match, match_files, match_names
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES, VideoFile
from m33d_hf.data.sources.videos.recorded_times import is_recorded_table
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.depth_m33d import DepthSpec

logger = logging.getLogger(__name__)

ANNOTATION_FOLDERS = ("phase_annotations", "annotations", "phases", "segments", "labels")
_ANNOTATION_SUFFIXES = (".txt", ".csv", ".tsv", ".json")
_SUBTITLES = (".srt", ".vtt")  # only in folders of annotations: beside videos they are what somebody says
_HOW_TO_NAME = (
    "Give the folder of the videos with --data.options.videos, and that of the annotations with "
    "--data.options.annotations"
)


@dataclass(frozen=True)
class FileList:
    """The files of one video, for digests: looked up when iterated over.

    Attributes:
        folder: what `files` are relative to.
        files: the video, or its frames.
        sidecars: root of its depth sidecars, None without.
        key: of its depth below that.
    """

    folder: Path
    files: tuple[str, ...]
    sidecars: Path | None = None
    key: str = ""

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        """(name that does not depend on where the root lies, path) of every file."""
        for file in self.files:
            yield file, self.folder / file
        if self.sidecars is not None:
            place = self.sidecars / self.key
            beside = place.iterdir() if place.is_dir() else place.parent.glob(f"{place.name}.*")
            for path in sorted(beside):
                yield f"depth {path.relative_to(self.sidecars).as_posix()}", path


@dataclass(frozen=True)
class FoundVideo:
    """A video and the files that it is made of."""

    handle: VideoHandle
    files: FileList


@dataclass
class FoundVideos:
    """All videos under a root, by key in natural order, before any split.

    Attributes:
        videos: by key, `lacking` included.
        depth_spec: meaning of their depth, None without.
        names: key -> what a list may call the video.
        unpaired: files that are not used, with the reason.
        notes: sentences about what was found.
        told: those for the log of every run.
        lacking: keys of videos that are left out for their depth, which is done after splits: they are the same for
            runs that need no depth, so that none is pre-trained on what another is judged by.
    """

    videos: dict[str, FoundVideo]
    depth_spec: DepthSpec | None
    names: dict[str, str]
    unpaired: list[Unpaired] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class VideoOptions:
    """How videos are read; see the options of `PhasesSource` with these names."""

    rgb: str
    depth: str
    depth_options: DepthOptions
    align: str
    require_depth: bool
    fps: float | None
    orientation: str = "refuse"
    calibration: str | None = None


def find_videos(root: Path, videos: str, options: VideoOptions) -> FoundVideos:
    """Video files under the folder of videos, or, where there is none, folders of frames.

    Args:
        root: root of the data set.
        videos: a folder (relative to the root or absolute), or "auto": `videos/` where present, else the root. What
            lies in a folder of depth below it is left out, and told.

    Raises:
        ConfigError: options that contradict the files.
        DataError: nothing to read, or two videos of one name.
    """
    folder = _folder_of(root, videos)
    listing = list_files(folder)
    there = [file for file in listing.files if file.lower().endswith(tuple(VIDEO_SUFFIXES))]
    files = [file for file in there if depth_folder(PurePosixPath(file)) is None]
    aside = "" if len(files) == len(there) else _depth_videos_in_words(folder, sorted(set(there) - set(files)))
    if not files and not listing.images():
        kinds = " ".join(sorted(VIDEO_SUFFIXES))
        raise DataError(
            f"{folder} holds neither a video ({kinds}) nor frames. {aside}{'. ' * bool(aside)}"
            f"Found:\n{listing.summary()}\n{_HOW_TO_NAME}"
        )
    found = _video_files(root, folder, files, options) if files else _frame_folders(root, folder, options)
    found.told += [aside] if aside else []
    return found


def _depth_videos_in_words(folder: Path, files: Sequence[str]) -> str:
    return (
        f"{plural(len(files), 'video')} below folders of depth {agree(len(files), 'is', 'are')} left out, the first "
        f"{folder / files[0]}: depth is read from pictures and arrays, not from videos (docs/depth_units.md). If "
        f"{agree(len(files), 'it is', 'they are')} RGB, name the folder: --data.options.videos"
    )


def _folder_of(root: Path, given: str) -> Path:
    if not root.is_dir():
        raise DataError(f"data root {str(root)!r} is not a folder; set --data.root to an existing folder")
    if given == "auto":
        return root / "videos" if (root / "videos").is_dir() else root
    folder = next((place for place in stated_places(root, given) if place.is_dir()), None)
    if folder is None:
        raise DataError(f"videos={given!r} is not a folder, neither under {root} nor elsewhere")
    return folder


def _video_files(root: Path, folder: Path, files: Sequence[str], options: VideoOptions) -> FoundVideos:
    if options.rgb != "auto":
        raise ConfigError(f"rgb={options.rgb!r} selects frames, but {folder} holds video files. Leave the option out")
    if options.calibration is not None:
        raise ConfigError(
            f"calibration={options.calibration!r} registers the depth of folders of frames, but {folder} holds video "
            "files. Leave the option out, and register their depth when it is written"
        )
    if options.align not in ("refuse", "depth_to_rgb"):  # depth is resized to the picture in any case
        raise ConfigError(
            f"align={options.align!r} is for folders of frames, but {folder} holds video files, whose depth is always "
            "resized to the picture. Leave the option out"
        )
    if options.orientation != "refuse":
        raise ConfigError(
            f"orientation={options.orientation!r} is for folders of frames, but {folder} holds video files. Leave the "
            f'option out; depth that is upright is told by "provenance": {{"upright": true}} in {SPEC_FILE}'
        )
    names: dict[str, str] = {}
    for file in files:
        key = PurePosixPath(file).with_suffix("").as_posix()
        if key in names:
            raise DataError(
                f"{folder}: {names[key]} and {file} would both be the video {key!r}; rename or remove one of them"
            )
        names[key] = file
    sidecars = _sidecar_root(root, folder, options)
    spec = None if sidecars is None else read_sidecar_spec(sidecars, **asdict(options.depth_options))
    found = FoundVideos({}, spec, names)
    for key, file in names.items():
        maps = None if sidecars is None else find_depth_of(sidecars, depth_keys(folder / file, (root, folder)), spec)
        if maps is None and sidecars is not None:
            found.unpaired.append(Unpaired(file, f"no depth for it in {sidecars.name}"))
            found.lacking |= {key} if options.require_depth else set()
        handle = VideoFile(key=key, path=Path(file), depth=maps, root=folder, stated_fps=options.fps)
        depth = (None, "") if maps is None else (sidecars, maps.key)
        found.videos[key] = FoundVideo(handle, FileList(folder, (file,), *depth))
    if sidecars is not None and len(found.unpaired) == len(names):
        first = next(iter(names.values()))
        tried = " nor ".join(depth_keys(folder / first, (root, folder)))
        raise DataError(
            f"{sidecars} holds depth of none of the {len(names)} videos; for the first, {first}, neither {tried} "
            f"exists (as a folder of PNG, or .parquet, .npy, .npz). Extract it: {how_to_extract(root, sidecars)}"
        )
    unread = _unread_depth(root, folder) if sidecars is None and options.depth == "auto" else None
    if options.require_depth and unread is not None:
        raise DataError(f"require_depth is set, but {unread}")
    found.told += [] if unread is None else [unread]
    if options.require_depth and sidecars is None:
        raise DataError(
            f"require_depth is set, but no depth was found for the videos of {folder}. Extract it: "
            f"{how_to_extract(root, root / 'depth')}; if it is in another folder, pass --data.options.depth"
        )
    how = f", depth from {sidecars.name}: {spec.describe()}" if sidecars is not None and spec is not None else ""
    found.notes.append(f"{plural(len(found.videos), 'video file')} in {folder.name}{how}")
    return found


def _sidecar_root(root: Path, folder: Path, options: VideoOptions) -> Path | None:
    if options.depth == "none":
        return None
    if options.depth != "auto":
        found = next((place for place in stated_places(root, options.depth) if place.is_dir()), None)
        if found is None:
            raise DataError(f"depth={options.depth!r} is not a folder, neither under {root} nor elsewhere")
        return found
    usual, stated = _usual_places(root, folder), options.depth_options.states_meaning
    return next((place for place in usual if stated or (place / SPEC_FILE).is_file()), None)


def _usual_places(root: Path, folder: Path) -> list[Path]:
    return [base / name for base in (root, folder) for name in DEPTH_FOLDERS if (base / name).is_dir()]


def _unread_depth(root: Path, folder: Path) -> str | None:
    """A sentence on a folder of depth that nobody says the meaning of; None where there is none."""
    place = next(iter(_usual_places(root, folder)), None)
    if place is None:
        return None
    return (
        f"{place} is not read, since it has no {SPEC_FILE}: say what its values mean with --data.options.depth_unit "
        f"(such as millimetre) or depth_kind, or write {place / SPEC_FILE} (docs/depth_units.md)"
    )


class _Frames(FolderSource):
    """Folders of frames below the folder of videos; what is beside them may lie above that, up to the data's root."""

    def __init__(self, folder: Path, top: Path, **options: Any) -> None:
        self.top = top
        super().__init__(folder, **options)


def _frame_folders(root: Path, folder: Path, options: VideoOptions) -> FoundVideos:
    depth = options.depth_options
    source = _Frames(
        folder,
        top=root,
        unit="clips",
        rgb=options.rgb,
        depth=options.depth,
        labels="none",
        association="auto",
        depth_unit=depth.unit,
        depth_scale=depth.scale,
        depth_kind=depth.kind,
        invalid_values=depth.invalid_values,
        min_depth=depth.min_depth,
        max_depth=depth.max_depth,
        align=options.align,
        orientation=options.orientation,
        require_depth=False,  # no frame goes missing with its depth: annotations count them
        fps=options.fps,
        calibration=options.calibration,
    )
    videos = {}
    without = [sequence.key for sequence in source.sequences if not sequence.has_depth] if options.require_depth else []
    if without and len(without) == len(source.sequences):
        raise DataError(
            f"require_depth is set, but no depth was found beside the frames of {folder}. "
            f"Found:\n{list_files(folder).summary()}\n{HOW_TO_FIX}"
        )
    for sequence in source.sequences:
        frames = [file for frame in sequence.frames for file in (frame.rgb, frame.depth) if file is not None]
        videos[sequence.key] = FoundVideo(sequence, FileList(folder, tuple(frames)))
    names = {key: key for key in videos}
    unpaired = [*source.unpaired, *(Unpaired(key, "it has no depth") for key in without)]
    notes = [f"{plural(len(videos), 'folder')} of frames in {folder.name}", *source.notes]
    return FoundVideos(videos, source.depth_spec, names, unpaired, notes, lacking=set(without))


@dataclass
class FoundAnnotations:
    """The annotations of a data set, by video key.

    Attributes:
        by_key: annotations of existing videos.
        others: annotations whose video is not; their names count as names of the data set.
        unpaired: files and entries without a video.
    """

    by_key: dict[str, Annotation] = field(default_factory=dict)
    others: list[Annotation] = field(default_factory=list)
    unpaired: list[Unpaired] = field(default_factory=list)

    @property
    def all(self) -> list[Annotation]:
        """Every annotation that was read, of all splits."""
        return [*self.by_key.values(), *self.others]


def find_annotations(
    root: Path,
    keys: Sequence[str],
    annotations: str = "auto",
    options: AnnotationOptions | None = None,
    known: Path | None = None,
) -> FoundAnnotations:
    """Read all annotation files and pair them with videos by name.

    `video01-phase.txt`, `video01-timestamp.txt`, `video01.csv`, `video01_Annotation_Phase.csv`, `video01.mp4.json` and
    `label_video01.txt` belong to `video01`, wherever the video lies and in upper or lower case. Where both lie in
    folders, these decide if several videos or annotations bear the name, or if one lies in a folder of others (see
    `naming`). Of several files for one video, one with a line per frame goes before timestamps, and these before
    segments.

    Args:
        root: root of the data set.
        keys: keys of all its videos.
        annotations: a folder or file (relative to the root or absolute), "none", or "auto": `phase_annotations/` and
            the like where present, else files beside the videos that bear their names.
        options: as for `read_annotations`.
        known: a file that may lie among them and is something else, such as the table of cameras.

    Raises:
        DataError: a missing file, two that claim one video, or content that cannot be read (see `read_annotations`).
    """
    if annotations == "none":
        return FoundAnnotations()
    options = options or AnnotationOptions()
    base, files, strict = _annotation_files(root, annotations)
    files = [file for file in files if base / file != known and not is_recorded_table(base / file)]
    found = FoundAnnotations()
    claims: dict[str, list[Path]] = {}
    tables: dict[str, Match] = {}
    for file, match in zip(files, match_files(files, keys), strict=True):
        key = match.key
        if key is None and len(keys) == len(files) == 1 and keys[0] == ROOT_SEQUENCE:
            key = keys[0]
        if key is not None:
            claims.setdefault(key, []).append(base / file)
        elif strict or PurePosixPath(file).suffix.lower() not in (".txt", ".json"):
            tables[file] = match
        elif match.called:
            found.unpaired.append(Unpaired(file, match.reason))
    for key, paths in claims.items():
        path = _choose(key, paths, options.kind, found.unpaired)
        _take(found, read_annotations(path, options), keys, Match(key))
    for file, match in tables.items():
        _read_table_of_videos(found, base / file, match, keys, options, strict and len(files) == 1)
    return found


def _annotation_files(root: Path, annotations: str) -> tuple[Path, list[str], bool]:
    """(folder, files in it, whether they are known to be annotations)."""
    if annotations != "auto":
        place = next((place for place in stated_places(root, annotations) if place.exists()), None)
        if place is None:
            raise DataError(
                f"annotations={annotations!r} is neither a folder nor a file, neither under {root} nor elsewhere"
            )
        if place.is_file():
            return place.parent, [place.name], True
        files = _text_files(place, subtitles=True)
    else:
        folders = (root / name for name in ANNOTATION_FOLDERS if (root / name).is_dir())
        place = next((folder for folder in folders if _text_files(folder, subtitles=True)), None)
        files = _text_files(root) if place is None else _text_files(place, subtitles=True)
    return place or root, files, place is not None


def _text_files(folder: Path, subtitles: bool = False) -> list[str]:
    known = (*_ANNOTATION_SUFFIXES, *(_SUBTITLES if subtitles else ()))
    return [file for file in list_files(folder).files if file.lower().endswith(known)]


def _choose(key: str, paths: Sequence[Path], kind: str, unpaired: list[Unpaired]) -> Path:
    if len(paths) == 1:
        return paths[0]
    kinds = {path: detect_format(path) for path in paths}
    wanted = kind if kind != "auto" else min(kinds.values(), key=FORMATS.index)
    fitting = [path for path, found in kinds.items() if found == wanted]
    if len(fitting) != 1:
        shown = ", ".join(f"{path} ({found})" for path, found in kinds.items())
        raise DataError(
            f"video {key!r} has {plural(len(fitting), 'annotation')} of the format {wanted}: {shown}. Keep one, "
            "give the folder "
            "with --data.options.annotations, or pass --data.options.annotation_format"
        )
    unpaired += [Unpaired(path.name, f"{fitting[0].name} is used") for path in paths if path != fitting[0]]
    return fitting[0]


def _take(found: FoundAnnotations, annotations: Sequence[Annotation], keys: Sequence[str], whole: Match) -> None:
    """Hand out the annotations of one file: to the video that it is called after, `whole`, or to those that a video
    column names."""
    named = [annotation.video for annotation in annotations if annotation.video is not None]
    matches = dict(zip(named, match_names(named, keys, found.by_key), strict=True))
    for annotation in annotations:
        match = whole if annotation.video is None else matches[annotation.video]
        if match.key is None:
            what = annotation.path.name + (f", video {annotation.video!r}" if annotation.video else "")
            found.unpaired.append(Unpaired(what, match.reason))
            found.others.append(annotation)
        elif match.key in found.by_key:
            raise DataError(f"video {match.key!r} is annotated in {found.by_key[match.key].path} and {annotation.path}")
        else:
            found.by_key[match.key] = annotation


def _read_table_of_videos(
    found: FoundAnnotations, path: Path, match: Match, keys: Sequence[str], options: AnnotationOptions, only: bool
) -> None:
    """A file that bears no video's name: one for all videos, an annotation of an absent one, or something else."""
    try:
        # What is a table of segments or of videos at least is meant for us: mistakes in it are raised below.
        meant = only or names_its_videos(path)
        annotations = [] if meant else read_annotations(path, options)
    except DataError as error:
        found.unpaired.append(Unpaired(path.name, f"{match.reason}, and not an annotation ({error})"))
        return
    _take(found, read_annotations(path, options) if meant else annotations, keys, match)
