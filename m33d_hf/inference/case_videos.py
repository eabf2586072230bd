"""Which of the videos of a command line show one case, and by which camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.phases.cameras import FOLDER, find_cases
from m33d_hf.data.sources.videos.recorded_times import recording_of
from m33d_hf.errors import ConfigError
from m33d_hf.inference.detection.cameras import CameraVideo, given_cameras
from m33d_hf.inference.detection.deep_clips import SourceVideo
from m33d_hf.inference.detection_files import place_below, videos_below


def find_case_videos(paths: Sequence[str | Path], cameras: str) -> tuple[dict[str, list[CameraVideo]], list[Unpaired]]:
    """Name for the output -> the videos of a case, the leading one first, as in training.

    Args:
        paths: video files, folders of frames, or folders of either.
        cameras: "folder", a suffix with * for the camera, or a CSV table; see `find_cases`.

    Returns:
        the cases, and videos that belong to none, with the reason.

    Raises:
        ConfigError: a path without a video, an option that fits none, or two cases of one name.
        DataError: a malformed table, or two cameras of one name.
    """
    files = _keys([Path(path) for path in paths], by_folder=cameras == FOLDER)
    root = Path(paths[0])
    cases, unused = find_cases(
        root if root.is_dir() else root.parent, cameras, {key: path.as_posix() for key, path in files.items()}
    )
    found: dict[str, list[CameraVideo]] = {}
    for case, listed in cases.items():
        name = case.replace("/", "_")
        if name in found:
            raise ConfigError(f"two cases would both be written as {name!r}; give one of them another name.")
        found[name] = [CameraVideo(camera.name, files[camera.key], camera.offset) for camera in listed]
    return found, unused


def check_cameras_known(
    videos: Mapping[str, Path | SourceVideo | Sequence[CameraVideo]], names: Sequence[str] | None
) -> None:
    """Refuse, before hours go into others, videos by cameras that the model does not know.

    Args:
        videos: name -> video, or those of the cameras of a case.
        names: of the cameras that the model reads side by side; None for the mean over any.

    Raises:
        ConfigError: see `given_cameras`.
    """
    for name, given in videos.items():
        try:
            if isinstance(given, SourceVideo):
                given.check_cameras(names)
            elif isinstance(given, Path):
                given_cameras(given, names)
            else:
                given_cameras({each.name: each.path for each in given}, names)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error


def _keys(given: Sequence[Path], by_folder: bool) -> dict[str, Path]:
    """Key -> video: its place below the folder that was given, without suffix; where folders are cases, with one."""
    found: dict[str, Path] = {}
    for folder in given:
        for path in videos_below(folder):
            place = place_below(folder, path)
            bare = place if path.is_dir() else place.with_suffix("")
            if by_folder and len(bare.parts) == 1:
                bare = (recording_of(path) or path).resolve().parent.name / bare
            key = bare.as_posix()
            if key in found:
                raise ConfigError(
                    f"{found[key]} and {path} are both called {key}; give one of them another name, so that cameras "
                    "and cases can be told apart."
                )
            found[key] = path
    return found
