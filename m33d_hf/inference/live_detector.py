"""Feeds that are still running: frames that are pushed one by one, streams and growing files.

The temporal state of a causal model is carried from clip to clip, and its prediction for a clip never changes
afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from m33d_hf.errors import ConfigError
from m33d_hf.inference.detection.cameras import given_cameras
from m33d_hf.inference.detection.clip_encoder import ClipEncoder
from m33d_hf.inference.live.arrivals import Arrivals, GivenFrames, GrowingFrames, StreamFrames, grows, is_address
from m33d_hf.inference.live.case import WAIT, LiveCase
from m33d_hf.inference.live.case_state import load_case, save_case
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.live.feed import LiveFeed
from m33d_hf.inference.live.following import Ended, Following, check_patience, follow
from m33d_hf.inference.live.following_case import follow_case
from m33d_hf.inference.live.state import load_feed, save_feed
from m33d_hf.inference.loading import model_digest
from m33d_hf.modeling.sequences_m33d import State

Feed = str | Path | Iterable[tuple["np.ndarray | None", float]]
"""An address, a file, or frames with their times."""


class LiveDetector(ClipEncoder):
    """A detector's live half: it has one feed, by one camera (`live`) or by several cameras of a case (`case`)."""

    _live: LiveFeed | None = None
    _case: LiveCase | None = None

    @property
    def live(self) -> LiveFeed:
        """The feed of one camera that `push` and `follow` go on with; a new one where there is none yet.

        Raises:
            ConfigError: the model reads both directions of time, or several cameras.
        """
        self._check_causal()
        if (cameras := self.model.config.temporal_cameras) is not None:
            raise ConfigError(
                f"this model reads the cameras {', '.join(cameras)} side by side, and this feed does not say by which "
                "it is: name them, with begin and push(frame, time, camera=...), or follow({"
                f"{cameras[0]!r}: ...}}), --follow {cameras[0]}=ADDRESS of detect_actions.py"
            )
        if self._live is None:
            self._live = LiveFeed(self)
        return self._live

    @property
    def case(self) -> LiveCase:
        """The case by several cameras that `push` and `follow` go on with.

        Raises:
            ConfigError: none was begun.
        """
        if self._case is None:
            raise ConfigError("no case by several cameras was begun; say which there are: begin(['left', 'right'])")
        return self._case

    @property
    def followed(self) -> LiveFeed | LiveCase:
        """The case that was begun, or else the feed of one camera."""
        return self.live if self._case is None else self._case

    def begin(self, cameras: Sequence[str], offsets: Mapping[str, float] | None = None, wait: float = WAIT) -> LiveCase:
        """Begin a case by several cameras, whose frames `push` takes; it replaces what was followed before.

        Args:
            cameras: their names; the first one leads, unless it has not begun when it is no longer waited for.
            offsets: camera -> seconds from the beginning of the case's clock to its first frame, 0 where not given, as
                for `detect`; None where the times of all cameras are of one clock.
            wait: a camera whose frames lie so many seconds behind those of others is not waited for any more.

        Raises:
            ConfigError: the model reads both directions of time; other cameras than it knows, two of one name, an
                offset of none of them, or a time to wait that is none.
        """
        check_patience(wait, "wait")
        return self._begun(cameras, offsets, wait)

    def _begun(
        self,
        cameras: Sequence[str],
        offsets: Mapping[str, float] | None,
        wait: float,
        by_arrival: bool = False,
    ) -> LiveCase:
        self._check_causal()
        names = isinstance(cameras, Sequence) and all(isinstance(name, str) for name in cameras)
        if isinstance(cameras, str) or not names or len(set(cameras)) < len(cameras):
            raise ConfigError(f"the cameras are {cameras!r}; pass a list of names, each once.")
        joined = self.model.config.temporal_cameras
        given_cameras({name: name for name in cameras}, joined, offsets)
        self.reset()
        self._case = LiveCase(self, cameras, joined, offsets, wait, by_arrival)
        return self._case

    def _check_causal(self) -> None:
        self.check_rgb()
        if not self.model.config.temporal_causal:
            raise ConfigError(
                "this model reads the whole video before it predicts; to follow a video, train the second stage again "
                "so that it looks back only: run_action_detection.py with --model.temporal_causal true"
            )

    @overload
    def push(self, frame: np.ndarray | None, time: float) -> ClipPrediction | None: ...

    @overload
    def push(self, frame: np.ndarray | None, time: float, camera: str) -> list[ClipPrediction]: ...

    def push(
        self, frame: np.ndarray | None, time: float, camera: str | None = None
    ) -> ClipPrediction | list[ClipPrediction] | None:
        """Take the next frame of a feed; the prediction for the clip that it ends, or None.

        The results equal those of `detect` on the same frames. See `LiveFeed.push` for what is refused; `live.finish()`
        (of a case `case.finish()`) gives the clips that the end cuts short, `reset()` begins another feed.

        Args:
            frame: (H, W, 3) uint8 RGB; None for one that could not be read.
            time: in seconds of any clock that does not run backwards.
            camera: which one of the case that was begun; then the predictions are a list, mostly of none or one: a
                clip is told when every camera has shown it that is not too far behind.
        """
        if camera is not None:
            return self.case.push(camera, frame, time)
        if self._case is not None:
            raise ConfigError(
                f"the case was begun with the cameras {', '.join(self._case.cameras)}: pass push(frame, time, "
                "camera=...), or call reset() to follow one camera"
            )
        return self.live.push(frame, time)

    @cached_property
    def _digest(self) -> str:
        """Of the model, whose weights do not change here."""
        return model_digest(self.model)

    def reset(self) -> None:
        """The next `push` begins a new feed."""
        self._live = self._case = None

    def save_live(self, path: str | Path) -> Path:
        """Write the state of the feed, or of the case, so that it can be taken up again, by another process too."""
        if self._case is not None:
            return save_case(self._case, path, self._digest)
        return save_feed(self.live, path, self._digest)

    def load_live(self, path: str | Path) -> LiveFeed:
        """Take up the feed that `save_live` wrote.

        Raises:
            CorruptFileError: no such file, or a damaged one.
            CheckpointError: another model left it.
        """
        self.reset()
        feed = self.live
        load_feed(feed, path, self._digest, self.device)
        return feed

    def load_case(self, path: str | Path) -> LiveCase:
        """Take up the case by several cameras that `save_live` wrote.

        Raises:
            CorruptFileError: no such file, or a damaged one.
            CheckpointError: another model left it.
        """
        self._check_causal()
        self.reset()
        self._case = load_case(self, path, self._digest, self.device)
        return self._case

    def follow(
        self,
        source: Feed | Mapping[str, Feed],
        *,
        growing: bool = False,
        timeout: float = 10.0,
        resume: bool = False,
        stream_options: Mapping[str, str] | None = None,
        stream_format: str | None = None,
        offsets: Mapping[str, float] | None = None,
        wait: float = WAIT,
    ) -> Following:
        """Predictions clip by clip, each as soon as its last frame has arrived; memory does not grow.

        The results equal those of `detect` on the same frames. How the source ended is in the `ended` of what is
        returned. A recording that is complete is read as `detect` reads it, `batch_size` clips at a time.

        Args:
            source: (frame, time) by frame, as for `push`; an address that PyAV opens (rtsp://, http://, tcp://, ...); a
                file or a folder of frames. Of several cameras of a case camera -> such a source, of which files must be
                growing: the first one leads, unless it has not begun in time, and those that end are done without.
            growing: the file is still being written: at its end, more is waited for; not of pipes, devices and formats
                of files that only tell where the pictures are (hls, concat, sdp).
            timeout: seconds without a frame after which a feed counts as stalled; of several cameras, without one of
                any of them.
            resume: go on with the feed, or the case, so far (`live`, `case`, `load_live`, `load_case`), by one or by
                several cameras, as it was begun; otherwise a new one begins.
            stream_options: of FFmpeg, for addresses and growing files, such as {"rtsp_transport": "tcp"}.
            stream_format: name of FFmpeg's format where the content does not tell it, such as "v4l2" for a camera.
            offsets: camera -> seconds from the beginning of the case's clock to its first frame, 0 where not given.
                None: growing files begin together, the times of iterators are of one clock, and cameras at addresses
                lie where their first frames arrive.
            wait: seconds without a frame after which the others of several cameras go on without one.

        Raises:
            ConfigError: the model reads both directions of time, a timeout that is none, a recording to resume, or one
                source to go on with a case of several; other cameras than the model or the case knows, offsets of
                others, or other ones than the case goes on with, or, without offsets, files beside other sources.
            UnreachableError, CorruptFileError: nothing ever came (when the first clip is asked for).
        """
        check_patience(timeout)
        if isinstance(source, Mapping):
            more = (growing, timeout, stream_options, stream_format)
            sources = {name: _arrivals(each, *more) for name, each in source.items()}
            return self._follow_case(sources, timeout, resume, offsets, wait)
        if offsets is not None:
            raise ConfigError("offsets are those of several cameras: pass camera -> source, or leave them out")
        if resume and self._case is not None:
            raise ConfigError(
                f"the case was begun with the cameras {', '.join(self._case.cameras)}: to go on with it, follow "
                "camera -> source for all of them; to follow one camera, leave resume out"
            )
        feed = self.live
        if isinstance(source, (str, Path)) and _is_recording(source, growing, stream_format):
            if resume:
                raise ConfigError(f"{source} is read as a complete recording; to go on with a feed, pass growing=True")
            return Following(self._recorded(Path(source)))
        if not resume:
            self.reset()
            feed = self.live
        arrivals = _arrivals(source, growing, timeout, stream_options, stream_format)
        return Following(lambda stop: follow(feed, arrivals, timeout, stop), feed)

    def _follow_case(
        self,
        sources: Mapping[str, Arrivals],
        timeout: float,
        resume: bool,
        offsets: Mapping[str, float] | None,
        wait: float,
    ) -> Following:
        check_patience(wait, "wait")
        files = [name for name, source in sources.items() if isinstance(source, GrowingFrames)]
        if offsets is None and files and len(files) < len(sources):
            raise ConfigError(
                f"of the cameras {', '.join(sources)} the files ({', '.join(files)}) begin earlier than the others: "
                "state when each begins with offsets, --offsets of detect_actions.py"
            )
        if resume:
            case = self.case
            if list(case.cameras) != list(sources):
                raise ConfigError(f"the case is by the cameras {', '.join(case.cameras)}; follow these, in this order")
            _check_offsets(case, offsets)
            case.await_all(wait)
        else:
            by_arrival = any(isinstance(source, StreamFrames) for source in sources.values())
            case = self._begun(list(sources), {} if files and offsets is None else offsets, wait, by_arrival)
        return Following(lambda stop: follow_case(case, sources, timeout, stop), case)

    def _recorded(self, path: Path) -> Callable[[threading.Event], Generator[ClipPrediction, None, Ended]]:
        """The clips of a complete recording."""

        def clips(stop: threading.Event) -> Generator[ClipPrediction, None, Ended]:
            state: State | None = None
            watched = self.watched(path)
            for clip, features, logit in self.stream(watched):
                probabilities, state = self.step(features, state)
                yield self.prediction(clip, probabilities, logit, watched.times)
                if stop.is_set():
                    break
            times = watched.times
            seconds = 0.0 if times is None else float(times.at(watched.length))
            kind, reason = ("stopped", "stopped by the caller") if stop.is_set() else ("finished", "the recording ends")
            return Ended(kind, reason, watched.length, seconds)

        return clips


def _check_offsets(case: LiveCase, offsets: Mapping[str, float] | None) -> None:
    """Refuse offsets that are not those with which a case goes on.

    Raises:
        ConfigError: they are others, or of other cameras.
    """
    if offsets is None:
        return
    videos = given_cameras({name: name for name in case.cameras}, case.joined, offsets)
    begun = None if case.offsets is None else {name: float(case.offsets.get(name, 0.0)) for name in case.cameras}
    if begun != {video.name: video.offset for video in videos}:
        told = "none" if begun is None else ", ".join(f"{name}={offset:g}" for name, offset in begun.items())
        raise ConfigError(f"the case was begun with other offsets ({told}): give the same, or none, to go on with it")


def _is_recording(source: str | Path, growing: bool, stream_format: str | None) -> bool:
    """Whether a source is a file that is complete, or a folder of frames."""
    return not growing and not is_address(source) and stream_format is None


def _is_device(path: Path) -> bool:
    """Whether a path is no file: a camera, or a pipe, which end where their sender does."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _arrivals(
    source: Feed, growing: bool, timeout: float, options: Mapping[str, str] | None, container: str | None
) -> Arrivals:
    """The frames of a source that is still running."""
    if not isinstance(source, (str, Path)):
        return GivenFrames(source)
    if _is_recording(source, growing, container):
        raise ConfigError(
            f"{source} is a complete recording; find the phases of several cameras with detect (detect_actions.py "
            "--video --cameras), or pass growing=True"
        )
    if growing and not is_address(source) and not _is_device(Path(source)) and grows(container):
        return GrowingFrames(Path(source), timeout, options, container)
    return StreamFrames(str(source), timeout, options, container)
