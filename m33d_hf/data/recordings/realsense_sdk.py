"""RealSense's SDK (librealsense, the package pyrealsense2) as a reader of files: loading it, playing without loss."""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m33d_hf.errors import CorruptFileError, MissingDependencyError

_INSTALL = "pip install 'm33d-hf[cameras]'"
_WAITING = 16  # frames between the SDK's threads and ours
_QUIET = 500  # milliseconds after the end, for frames that the SDK's threads still hold
_SILENT = 30.0  # seconds without a frame and without an end: the SDK hangs


def load_sdk() -> Any:
    """The module pyrealsense2.

    On Linux it needs the system library libusb-1.0, also for files. Where the system has none, that of the package
    libusb-package is loaded first, which the extra `cameras` installs.

    Raises:
        MissingDependencyError: it is not installed, or lacks libusb or another library of the system.
    """
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        missing = error
    if isinstance(missing, ModuleNotFoundError) and missing.name == "pyrealsense2":
        raise MissingDependencyError(
            f"RealSense's recordings are read by its SDK: {_INSTALL} (pyrealsense2, for Linux and Windows)."
        ) from missing
    if "libusb" not in str(missing):
        raise MissingDependencyError(f"RealSense's SDK is installed and cannot be loaded: {missing}") from missing
    try:
        ctypes.CDLL(str(importlib.import_module("libusb_package").get_library_path()), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("pyrealsense2")
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"RealSense's SDK is installed, but the system lacks libusb ({missing}): {_INSTALL} brings one "
            "(libusb-package), or install the system's: apt install libusb-1.0-0."
        ) from error


def open_playback(rs: Any, path: Path) -> Any:
    """The file as a device that plays without loss, each frame as soon as the one before is taken.

    Raises:
        CorruptFileError: the SDK cannot read it.
    """
    try:
        playback = rs.context().load_device(str(path))
        playback.set_real_time(False)
    except RuntimeError as error:
        raise CorruptFileError(path, f"cannot be read by RealSense's SDK ({error})") from error
    return playback


def profiles_of(playback: Any) -> list[tuple[Any, Any]]:
    """(sensor, profile) of every stream in the file."""
    return [(sensor, profile) for sensor in playback.query_sensors() for profile in sensor.get_stream_profiles()]


def play(rs: Any, path: Path, playback: Any, chosen: list[tuple[Any, Any]], count: int) -> Iterator[Any]:
    """Every frame of the chosen streams, those of one stream in their order; a frame is the SDK's until the next.

    The SDK's pipeline leaves out what does not fit together, and a sensor that is started after another misses frames:
    all are started while the playback is paused, and the SDK's threads wait where the queue is full. Callbacks in
    Python would be simpler, but `resume` holds Python's lock and waits ten seconds for one that needs it.

    Args:
        rs: the SDK.
        path: of the file, for messages.
        playback: of `open_playback`, for this call alone.
        chosen: (sensor, profile) of `profiles_of`.
        count: frames of these streams in the file; with fewer, the SDK's threads are waited for after its end.

    Raises:
        CorruptFileError: the SDK stops with an error, or says nothing for half a minute.
    """
    frames = rs.frame_queue(_WAITING, keep_frames=True)
    sensors = list({id(sensor): sensor for sensor, _ in chosen}.values())
    try:
        for sensor in sensors:
            sensor.open([profile for owner, profile in chosen if owner is sensor])
        playback.pause()
        for sensor in sensors:
            sensor.start(frames)
        playback.resume()
        for _ in range(count):
            frame = _next(rs, path, playback, frames)
            if frame is None:
                break
            yield frame
    except RuntimeError as error:  # of the SDK
        raise CorruptFileError(path, f"cannot be played by RealSense's SDK ({error})") from error
    finally:
        for sensor in sensors:
            for end in (sensor.stop, sensor.close):
                try:
                    end()
                except RuntimeError:  # it was not started
                    continue


def _next(rs: Any, path: Path, playback: Any, frames: Any) -> Any:
    """The next frame; None after the last one."""
    deadline = time.monotonic() + _SILENT
    while time.monotonic() < deadline:
        over = playback.current_status() == rs.playback_status.stopped
        arrived, frame = frames.try_wait_for_frame(_QUIET)
        if arrived:
            return frame
        if over:
            return None
    raise CorruptFileError(path, f"RealSense's SDK hands out no frame for {_SILENT:g} s and does not end")
