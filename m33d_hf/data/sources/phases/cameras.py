"""Several cameras of one case: which videos show it, and from when on.

A case is what is annotated and what splits keep together. The clock of a case is that of its first camera.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from m33d_hf.data.files.data_set_tables import stated_places
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.names import composed
from m33d_hf.data.source import Unpaired
from m33d_hf.errors import ConfigError, DataError

FOLDER = "folder"
_COLUMNS = ("case", "camera", "video")
_OFFSET = "offset"


@dataclass(frozen=True)
class Camera:
    """One video of a case.

    Attributes:
        name: of the camera, unique in its case.
        key: of the video.
        offset: seconds from the beginning of the case's clock to its first frame.
    """

    name: str
    key: str
    offset: float = 0.0


Cases = dict[str, list[Camera]]
"""Case -> its cameras in the order of their names, or of the table."""


def find_cases(root: Path, cameras: str | None, files: Mapping[str, str]) -> tuple[Cases, list[Unpaired]]:
    """Group videos by case.

    Args:
        root: of the data set.
        cameras: None (every video is a case), "folder" (videos of one folder), a suffix with one * for the camera
            ("_cam*": op1_cam1, op1_cam2), or a CSV file with the columns case, camera, video and maybe offset.
        files: key -> file of every video.

    Returns:
        the cases in natural order of the videos, and what is not used, with the reason.

    Raises:
        ConfigError: an option that is none of these, or fits no video.
        DataError: a malformed table, or two cameras of one name.
    """
    if cameras is None:
        return {key: [Camera("", key)] for key in files}, []
    if cameras == FOLDER:
        return _by_folder(files), []
    if "*" in cameras:
        return _by_suffix(cameras, files), []
    path = table_of_cameras(root, cameras)
    if path is None:
        raise ConfigError(
            f"cameras is {cameras!r}: pass folder (the videos of a folder show one case), a suffix with * for the "
            "camera (_cam*), or a CSV file with the columns case, camera, video, offset, under the root or elsewhere"
        )
    return _by_table(path, files)


def table_of_cameras(root: Path, cameras: str | None) -> Path | None:
    """The file that the option `cameras` names; None if it names none."""
    if cameras is None or cameras == FOLDER or "*" in cameras:
        return None
    return next((place for place in stated_places(root, cameras) if place.is_file()), None)


def _by_folder(files: Mapping[str, str]) -> Cases:
    cases: Cases = {}
    for key in files:
        folder, _, name = key.rpartition("/")
        if not folder:
            raise ConfigError(
                f"cameras is folder, but the video {key} lies in none: put the videos of each case into a folder of "
                "its own, or pass a suffix (_cam*) or a CSV file"
            )
        cases.setdefault(folder, []).append(Camera(name, key))
    return _checked(cases)


def _by_suffix(pattern: str, files: Mapping[str, str]) -> Cases:
    if pattern.count("*") != 1 or "/" in pattern or pattern == "*":
        raise ConfigError(f"cameras is {pattern!r}; a suffix has one * for the camera, and something before it: _cam*")
    fits, fits_composed = _suffix(pattern), _suffix(composed(pattern))
    cases: Cases = {}
    fitting = 0
    for key in files:
        found = fits.fullmatch(key) or fits_composed.fullmatch(composed(key))
        fitting += found is not None
        case, name = (key, "") if found is None else (found[1], found[2])
        cases.setdefault(case, []).append(Camera(name, key))
    if not fitting:
        first = next(iter(files), "none")
        raise ConfigError(f"cameras is {pattern!r}, but no video has such a suffix; the first is {first}")
    return _checked(cases)


def _suffix(pattern: str) -> re.Pattern[str]:
    before, after = (re.escape(part) for part in pattern.split("*"))
    return re.compile(rf"(.+?){before}([^/]+?){after}", re.IGNORECASE)


def _by_table(path: Path, files: Mapping[str, str]) -> tuple[Cases, list[Unpaired]]:
    rows = csv.DictReader(read_text(path).splitlines())
    lacking = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if lacking:
        raise DataError(
            f"{path} lacks the column {lacking[0]!r}; it has {', '.join(rows.fieldnames or ()) or 'none'}. The columns "
            "of a table of cameras are case, camera, video and, in seconds, offset"
        )
    whole = {composed(place): found for found, file in files.items() for place in (found, file)}
    bare: dict[str, list[str]] = {}
    for found, file in files.items():
        for last in {composed(PurePosixPath(place).name) for place in (found, file)}:
            bare.setdefault(last, []).append(found)
    cases: Cases = {}
    unused: list[Unpaired] = []
    used: dict[str, int] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        case, name, video = ((row[column] or "").strip() for column in _COLUMNS)
        if not (case and name and video):
            raise DataError(f"{where}: case, camera and video must all be given")
        offset = _offset(row.get(_OFFSET), where)
        named = composed(video.replace("\\", "/").strip("/"))
        alike = [whole[named]] if named in whole else bare.get(named, [])
        if len(alike) > 1:
            raise DataError(
                f"{where}: {video!r} matches several videos: {', '.join(alike)}; put the folder in front of the name"
            )
        key = next(iter(alike), None)
        if key is None:
            unused.append(Unpaired(video, f"camera {name} of case {case} in {path.name}, but there is no such video"))
            cases.setdefault(case, [])
            continue
        if key in used:
            raise DataError(
                f"{where}: the video {key} is also in line {used[key]}; each video is one camera of one case"
            )
        used[key] = rows.line_num
        cases.setdefault(case, []).append(Camera(name, key, offset))
    unused += [Unpaired(files[key], f"{path.name} does not list it") for key in files if key not in used]
    cases = {case: cameras for case, cameras in cases.items() if cameras}
    if not cases:
        raise DataError(f"{path}: none of its videos is there; the first that are: {', '.join(list(files)[:3])}")
    return _checked(cases), unused


def _offset(text: str | None, where: str) -> float:
    try:
        seconds = float((text or "0").strip() or "0")
    except ValueError as error:
        raise DataError(f"{where}: the offset is {text!r}, which is no number of seconds") from error
    if not math.isfinite(seconds):
        raise DataError(f"{where}: the offset is {text!r}, which is no number of seconds")
    return seconds


def _checked(cases: Cases) -> Cases:
    """The same cases.

    Raises:
        DataError: two cameras of a case have one name.
    """
    for case, cameras in cases.items():
        seen: dict[str, str] = {}
        for camera in cameras:
            folded = camera.name.casefold()
            if folded in seen:
                raise DataError(
                    f"case {case!r} has two cameras called {camera.name!r}: {seen[folded]} and {camera.key}. Give "
                    "every camera of a case its own name"
                )
            seen[folded] = camera.key
    return cases
