"""Recordings with their RGB in a video and their depth in files: `rgb.mp4` beside `depth/000000.png`."""

from __future__ import annotations

import logging
import posixpath
import re
from collections import defaultdict

from m33d_hf.data.depth.holes import first_number, frames_without_partner
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sources.frames.layouts import Columns, Listing, find_columns
from m33d_hf.data.sources.frames.pairing import modality_of
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES, cached_info
from m33d_hf.data.sources.videos.frames import video_frame
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.modeling.video_times_m33d import frames_lost_at_the_end

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"\d+")


def with_video_frames(listing: Listing, chosen: dict[str, str]) -> tuple[Columns, list[str]]:
    """As `find_columns`; if that finds depth but no RGB, adds the frames of videos that lie beside the depth.

    A recording is left out whose video cannot be opened, or was cut short and its depth does not tell with which frame
    it begins; otherwise a video that was cut short is used up to where it ends.

    Returns:
        (columns, sentences about what was found).

    Raises:
        DataError: as `find_columns`; several videos beside one folder of depth, or numbers that are not its frames'.
    """
    columns = find_columns(listing, chosen)
    notes: list[str] = []
    if aside := len(listing.confidences()):
        notes.append(f"{aside} files hold confidence and are ignored")
    if chosen.get("rgb") != "auto" or columns["rgb"] or not columns.get("depth"):
        return columns, notes
    videos: dict[str, list[str]] = defaultdict(list)
    for file in listing.files:
        if file.lower().endswith(VIDEO_SUFFIXES) and modality_of(_stem(file)) == "rgb":
            videos[posixpath.dirname(file)].append(file)
    depth: dict[str, dict[int, str]] = defaultdict(dict)
    for key, _ in columns["depth"]:
        folder, stem = posixpath.split(key)
        if folder in videos and (digits := _NUMBER.findall(stem)):
            depth[folder][int(digits[-1])] = key
    for folder, numbers in depth.items():
        if len(videos[folder]) > 1:
            raise DataError(
                f"{listing.root / folder} holds several videos: {', '.join(videos[folder])}; keep only one."
            )
        video = videos[folder][0]
        try:
            info = cached_info(listing.root / video)
            lost = frames_lost_at_the_end(info.lacks, info.num_frames)
            first = first_number(numbers, listing.root / video, info.num_frames, lost)
        except CorruptFileError as error:
            notes.append(f"{error}; its recording is left out")
            logger.warning("%s", notes[-1])
            continue
        count = info.num_frames
        _require_same_clock(f"{listing.root / video}", count, {each - first for each in numbers}, lost)
        # Named as the depth is, so that they pair; a frame without depth gets the name that it would have.
        width = len(posixpath.basename(next(iter(numbers.values()))))
        for frame in range(count):
            name = numbers.get(frame + first, posixpath.join(folder, f"{frame + first:0{width}d}"))
            columns["rgb"].append((name, video_frame(video, frame)))
        notes.append(
            f"{video}: its {plural(count, 'frame')} {agree(count, 'is', 'are')} paired with the depth "
            f"files beside it, by number from {first}"
        )
    return columns, notes


def _require_same_clock(video: str, count: int, numbers: set[int], lost: float) -> None:
    """Refuse depth whose numbers, from 0, are not a video's frames, with those `lost` where it was cut short."""
    allowed = frames_without_partner(count)
    if not -allowed <= max(numbers) + 1 - count <= allowed + lost:
        raise DataError(
            f"{video} has {plural(count, 'frame')}, but the depth beside it has "
            f"{plural(len(numbers), 'file')} with numbers up to {max(numbers)}, so frames and files cannot be "
            "matched. Save the video's frames as pictures with the "
            "names of their depth files, or list the pairs with the option 'association'."
        )


def _stem(file: str) -> str:
    return posixpath.splitext(posixpath.basename(file))[0]
