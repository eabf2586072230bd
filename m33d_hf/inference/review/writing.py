"""The further files that a user asks for, of one video after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.detection_files import Written
from m33d_hf.inference.review.exports import EXPORTS, check_cues, write_exports
from m33d_hf.inference.review.page import write_review
from m33d_hf.inference.review.truth import Truth, Video
from m33d_hf.inference.review.truth_options import FLAG, TruthOptions
from m33d_hf.inference.timeline import Detection

PAGE = "html"


class Exports:
    """Writes timelines in further forms.

    Args:
        folder: for the files.
        formats: some of "srt", "vtt", "json" and "html".
        truth: folder or file of annotations for the pages; None without.
        videos: name -> video.
        fps: frames per second where stated.
        options: of `truth`, what its files do not say of themselves.

    Raises:
        ConfigError: a truth without pages to show it on, or without an annotation of any video; options without one.
        DataError: annotations that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[str],
        truth: str | None,
        videos: Mapping[str, Video],
        fps: float | None = None,
        options: TruthOptions | None = None,
    ) -> None:
        if truth is not None and PAGE not in formats:
            raise ConfigError("--truth is shown on the pages of --export html; ask for them, or leave --truth out.")
        if truth is None and options not in (None, TruthOptions()):
            raise ConfigError(f"{FLAG} are of the annotations of --truth; pass both, or neither.")
        self.folder, self.formats = folder, list(dict.fromkeys(formats))
        self.videos, self.fps = videos, fps
        self.truth = Truth(truth, videos, fps, options) if truth is not None and videos else None

    def check(self, names: Sequence[str]) -> None:
        """Refuse, before hours go into detection, what is known to fail behind it; of some videos, say so on stderr.

        Args:
            names: of the model's phases.

        Raises:
            LabelError, DataError: no annotation of the truth fits its video and the phases that the model knows, or
                there is a phase that no subtitle can hold.
            ConfigError: times are needed, and no video has any.
        """
        videos = self.videos
        if self.truth is not None:
            for name, error in self.truth.check(names).items():
                print(f"{name}: {_without_truth(error)}", file=sys.stderr, flush=True)
        texts = [kind for kind in EXPORTS if kind in self.formats]
        check_cues(names, texts)
        if texts and self.fps is None:
            untimed = [name for name, video in videos.items() if isinstance(video, Path) and _untimed(video)]
            told = f"--export {' '.join(texts)} needs times, but nothing says how long a frame lasts of"
            if untimed and len(untimed) == len(videos):
                raise ConfigError(f"{told} {', '.join(untimed[:3])}; pass --fps.")
            for name in untimed:
                print(f"{told} {name}: it will not be exported (--fps)", file=sys.stderr, flush=True)

    def write(self, name: str, detection: Detection) -> Written:
        """Write the files of one video; an annotation that does not fit it is left out, and costs no file.

        Raises:
            ConfigError: the times of its frames are unknown, which all but the page need.
        """
        written: list[Path] = []
        lacking = ""
        if PAGE in self.formats:
            known = None
            try:
                known = None if self.truth is None else self.truth.phases(name, detection)
            except (ConfigError, DataError) as error:
                lacking = _without_truth(error)
            written.append(write_review(self.folder, name, detection, known))
        texts = [kind for kind in EXPORTS if kind in self.formats]
        return Written([*written, *write_exports(self.folder, name, detection, texts)], lacking)


def _without_truth(error: Exception) -> str:
    return f"its page is without its annotation: {error}"


def _untimed(video: Path) -> bool:
    """Whether nothing says when the frames of a folder were taken; of files that is known once they are read."""
    try:
        return video.is_dir() and cached_info(video).times is None
    except DataError:  # it will be left out, with the reason
        return False
