"""RealSense's SDK (librealsense, the package pyrealsense2) as a reader of files: loading it, playing without loss."""

from __future__ import annotations

import importlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from m33d_hf.data.libusb import with_libusb
from m33d_hf.errors import CorruptFileError, MissingDependencyError

Taken = TypeVar("Taken")
_WAITING = 16  # frames between the SDK's threads and ours
_PAUSE = 0.001  # seconds between two looks at a full queue
_QUIET = 0.5  # seconds after the end, for frames that the SDK's threads still hold
_SILENT = 30.0  # seconds without a frame and without an end: the SDK hangs


def load_sdk() -> Any:
    """The module pyrealsense2.

    On Linux it needs the system library libusb-1.0, also for files. Where the system has none, that of the package
    libusb-package is loaded first, which the extra `cameras` installs.

    Raises:
        MissingDependencyError: it is not installed, or lacks libusb or another library of the system.
    """
    try:
        return with_libusb(lambda: importlib.import_module("pyrealsense2"), "RealSense's SDK", "cameras")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "RealSense's recordings are read by its SDK: pip install 'm33d-hf[cameras]' (pyrealsense2, for Linux and "
            "Windows)."
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


def play(
    rs: Any, path: Path, playback: Any, chosen: list[tuple[Any, Any]], count: int, take: Callable[[Any], Taken]
) -> Iterator[Taken]:
    """What `take` makes of every frame of the chosen streams, those of one stream in their order.

    The SDK's pipeline leaves out what does not fit together, and a sensor that is started after another misses frames:
    all are started while the playback is paused. Once it has been resumed, a full queue holds the SDK's threads back;
    before, it must not, since `resume` waits for them.

    Args:
        rs: the SDK.
        path: of the file, for messages.
        playback: of `open_playback`, for this call alone.
        chosen: (sensor, profile) of `profiles_of`.
        count: frames of these streams in the file; with fewer, the SDK's threads are waited for after its end.
        take: called in the SDK's threads.

    Raises:
        CorruptFileError: the SDK stops with an error, or says nothing for half a minute.
    """
    frames: queue.SimpleQueue[Taken | Exception] = queue.SimpleQueue()
    resumed, ended, left = threading.Event(), threading.Event(), threading.Event()

    def receive(frame: Any) -> None:
        try:
            taken: Taken | Exception = take(frame)
        except Exception as error:  # which must not reach the SDK's thread
            taken = error
        while resumed.is_set() and not left.is_set() and frames.qsize() >= _WAITING:
            time.sleep(_PAUSE)
        frames.put(taken)

    def changed(status: Any) -> None:
        if status == rs.playback_status.stopped:
            ended.set()

    sensors = list({id(sensor): sensor for sensor, _ in chosen}.values())
    try:
        playback.set_status_changed_callback(changed)
        for sensor in sensors:
            sensor.open([profile for owner, profile in chosen if owner is sensor])
        playback.pause()
        for sensor in sensors:
            sensor.start(receive)
        playback.resume()
        resumed.set()
        for number in range(count):
            taken = _next(path, frames, ended)
            if taken is None:
                break
            if isinstance(taken, Exception):
                raise taken
            if number == count - 1:
                ended.wait(_SILENT)  # a playback that is stopped before its end may take ten seconds
            yield taken
    except RuntimeError as error:  # of the SDK
        raise CorruptFileError(path, f"cannot be played by RealSense's SDK ({error})") from error
    finally:
        left.set()
        for sensor in sensors:
            for end in (sensor.stop, sensor.close):
                try:
                    end()
                except RuntimeError:  # it was not started
                    continue


def _next(path: Path, frames: queue.SimpleQueue[Any], ended: threading.Event) -> Any:
    """The next entry; None after the last one."""
    deadline = time.monotonic() + _SILENT
    while time.monotonic() < deadline:
        over = ended.is_set()
        try:
            return frames.get(timeout=_QUIET)
        except queue.Empty:
            if over:
                return None
    raise CorruptFileError(path, f"RealSense's SDK hands out no frame for {_SILENT:g} s and does not end")
