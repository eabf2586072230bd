"""The `tum` source: sequences in the TUM RGB-D benchmark's layout (rgb.txt, depth.txt, timestamps)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.names import composed
from m33d_hf.data.plural import plural
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.frames.layouts import ASSOCIATION_NAMES, Listing, list_files, rows_of_association
from m33d_hf.data.sources.frames.pairing import is_number, match_timestamps, read_table
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.splits import Sequences, SplitChoice
from m33d_hf.errors import ConfigError, DataError

TUM_SCALE = 5000.0
ROOT_SEQUENCE = "frames"


class TumSource(FrameSource):
    """Sequences with `rgb.txt` and `depth.txt` (a timestamp and a file name per line), at the root or below it.

    Args:
        root: one sequence, or a folder of them.
        split: `train`, `validation`, `test`, or None / `all`; see `splits.select_split`.
        unit: `clips` (each sequence an item) or `frames`.
        association: `auto` uses `associations.txt` (either column order) if present and timestamps otherwise; `none`
            always matches timestamps; or a file name.
        max_difference: maximum difference between the timestamps of a pair, in seconds.
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the `folder` source, but the
            default unit is the benchmark's, 1/5000 m.
        align, orientation, every, min_frames, clip_length, windows, clip_stride, split_list, split_fractions,
            validation, seed: as in the `folder` source.
        fps: frames per second; None = from the median step of the timestamps.

    Files that the lists name but that are missing, and frames without a partner, are left out and listed in `unpaired`.

    Raises:
        ConfigError: options that contradict each other.
        DataError: no sequence, a malformed list, or no pair left; DepthUnitError for an implausible scale.
    """

    name = "tum"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "clips",
        association: str = "auto",
        max_difference: float = 0.02,
        depth_unit: str | Mapping[str, str] | None = None,
        depth_scale: float | Mapping[str, float] | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        align: str = "refuse",
        orientation: str = "refuse",
        every: int = 1,
        min_frames: int | None = None,
        clip_length: int | None = None,
        windows: int | None = None,
        split_list: str | Mapping[str, str] | None = None,
        split_fractions: Mapping[str, float] | None = None,
        fps: float | None = None,
        clip_stride: int | None = None,
        validation: str | float | Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        root = Path(root).expanduser()
        if max_difference < 0:
            raise ConfigError(f"max_difference is {max_difference}; it must be at least 0 seconds")
        if depth_unit is None and depth_scale is None and depth_kind in (None, "metric"):
            depth_scale = TUM_SCALE
        listing = list_files(root)
        sequences, unpaired, notes = _find_sequences(listing, association, max_difference)
        self._stamps = _stamps_of(listing, sequences) if fps is None else {}
        super().__init__(
            root,
            sequences,
            unit=unit,
            split=SplitChoice(split, split_list, split_fractions, validation, seed),
            every=every,
            min_frames=min_frames,
            depth_options=DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth),
            label_rules=None,
            align=align,
            fps=fps,
            unpaired=unpaired,
            notes=notes,
            orientation=orientation,
            clip_length=clip_length,
            windows=windows,
            clip_stride=clip_stride,
        )

    def _rate(self, sequences: Sequences) -> float | None:
        """Frames per second from the time stamps in `rgb.txt`, None without them."""
        steps: list[float] = []
        for frames in sequences.values():
            known = [self._stamps.get(frame.rgb or "") for frame in frames]
            stamps = [stamp for stamp in known if stamp is not None]
            if len(stamps) == len(frames):
                steps += [after - before for before, after in pairwise(stamps) if after > before]
        return 1.0 / sorted(steps)[len(steps) // 2] if steps else None


def _stamps_of(listing: Listing, sequences: Sequences) -> dict[str, float]:
    """Picture -> its time stamp in seconds: as `rgb.txt` says, else a name with decimals."""
    stamps: dict[str, float] = {}
    present = listing.by_composed_name()
    for key, frames in sequences.items():
        for frame in frames:
            stem = PurePosixPath(frame.rgb or "").stem
            if frame.rgb is not None and "." in stem and is_number(stem):
                stamps[frame.rgb] = float(stem)
        folder = PurePosixPath() if key == ROOT_SEQUENCE and composed("rgb.txt") in present else PurePosixPath(key)
        try:
            entries = read_stamps(listing.root / folder / "rgb.txt")
        except DataError:
            continue  # pairs of an association file do not need the list; pairs by stamps have read it before
        for stamp, file in entries:
            name = (folder / file).as_posix()
            stamps[present.get(composed(name), name)] = stamp
    return stamps


def _find_sequences(
    listing: Listing, association: str, max_difference: float
) -> tuple[Sequences, list[Unpaired], list[str]]:
    present = listing.by_composed_name()
    folders = [
        PurePosixPath(file).parent
        for file in listing.files
        if PurePosixPath(file).name == "rgb.txt"
        and composed((PurePosixPath(file).parent / "depth.txt").as_posix()) in present
    ]
    if not folders:
        raise DataError(
            f"no folder under {listing.root} has rgb.txt and depth.txt, the lists of the TUM layout. For frames "
            f"without such lists, use the source 'folder'. Found:\n{listing.summary()}"
        )
    sequences: Sequences = {}
    unpaired: list[Unpaired] = []
    notes: list[str] = []
    for folder in folders:
        rows, missing, how = _pair_sequence(listing, folder, association, max_difference, present)
        key = folder.as_posix() if folder.parts else ROOT_SEQUENCE
        if rows:
            sequences[key] = [Frame(name, row["rgb"], row["depth"]) for name, row in rows.items()]
        unpaired += missing
        notes.append(f"{key}: {plural(len(rows), 'pair')} from {how}, {plural(len(missing), 'listed file')} left out")
    if not sequences:
        reasons = sorted({entry.reason for entry in unpaired})
        raise DataError(f"{listing.root}: the lists yield no pairs. {'; '.join(notes)}. {'; '.join(reasons[:3])}")
    return sequences, unpaired, notes


def _pair_sequence(
    listing: Listing, folder: PurePosixPath, association: str, max_difference: float, present: dict[str, str]
) -> tuple[dict[str, dict[str, str]], list[Unpaired], str]:
    """Pairs of one sequence by frame name, what was left out, and how the pairs were found."""
    names = ASSOCIATION_NAMES if association == "auto" else () if association == "none" else (association,)
    for name in names:
        file = (folder / name).as_posix()
        if composed(file) in present:
            rows, missing = rows_of_association(listing, present[composed(file)], ("rgb", "depth"))
            return rows, missing, name
    if association not in ("auto", "none"):
        raise DataError(f"{listing.root / folder}: found no association file {association!r}")
    unpaired: list[Unpaired] = []
    stamps: dict[str, list[tuple[float, str]]] = {}
    for modality in ("rgb", "depth"):
        entries = read_stamps(listing.root / folder / f"{modality}.txt")
        named = [(stamp, (folder / file).as_posix()) for stamp, file in entries]
        stamps[modality] = [(stamp, present[composed(f)]) for stamp, f in named if composed(f) in present]
        absent = [file for _, file in named if composed(file) not in present]
        unpaired += [Unpaired(file, f"named in {modality}.txt but missing") for file in absent]
    rgb, depth = stamps["rgb"], stamps["depth"]
    pairs = match_timestamps([stamp for stamp, _ in rgb], [stamp for stamp, _ in depth], max_difference)
    pairs.sort(key=lambda pair: rgb[pair[0]][0])
    paired = {rgb[i][1] for i, _ in pairs} | {depth[j][1] for _, j in pairs}
    lonely = [file for _, file in rgb + depth if file not in paired]
    unpaired += [Unpaired(file, f"no partner within {max_difference:g} s") for file in lonely]
    rows = {PurePosixPath(rgb[i][1]).stem: {"rgb": rgb[i][1], "depth": depth[j][1]} for i, j in pairs}
    rows = {(folder / stem).as_posix(): row for stem, row in rows.items()}
    return rows, unpaired, f"timestamps within {max_difference:g} s"


def read_stamps(path: Path) -> list[tuple[float, str]]:
    """Read lines of a timestamp and a file name, without `#` comments.

    Raises:
        CorruptFileError: missing or not text.
        DataError: a malformed line, which is quoted.
    """
    entries = []
    for line in read_table(path):
        if len(line) != 2 or not is_number(line[0]):
            raise DataError(f"{path}: expected 'time_stamp file_name', found {' '.join(line)!r}")
        entries.append((float(line[0]), line[1]))
    return entries
