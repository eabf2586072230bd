"""The further files that a user asks for, of one video after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.review.exports import EXPORTS, check_cues, write_exports
from m33d_hf.inference.review.page import write_review
from m33d_hf.inference.review.truth import Truth
from m33d_hf.inference.timeline import Detection

PAGE = "html"


class Exports:
    """Writes timelines in further forms.

    Args:
        folder: for the files.
        formats: some of "srt", "vtt", "json" and "html".
        truth: folder or file of annotations for the pages; None without.
        videos: names of the videos, for `truth`.

    Raises:
        ConfigError: a truth without pages to show it on, or without an annotation of any video.
        DataError: annotations that cannot be read.
    """

    def __init__(self, folder: Path, formats: Sequence[str], truth: str | None, videos: Sequence[str]) -> None:
        if truth is not None and PAGE not in formats:
            raise ConfigError("--truth is shown on the pages of --export html; ask for them, or leave --truth out.")
        self.folder, self.formats = folder, list(dict.fromkeys(formats))
        self.truth = Truth(truth, videos) if truth is not None and videos else None

    def check(self, names: Sequence[str], videos: Mapping[str, object], fps: float | None) -> None:
        """Refuse, before hours go into detection, what is known to fail behind it; of some videos, say so on stderr.

        Args:
            names: of the model's phases.
            videos: name -> video.
            fps: frames per second where stated.

        Raises:
            LabelError: every annotation of the truth has a phase that the model does not know, or there is a phase that
                no subtitle can hold.
            ConfigError: times are needed, and no video has any.
        """
        if self.truth is not None:
            for name, error in self.truth.check(names).items():
                print(f"{name}: it will not be exported: {error}", file=sys.stderr, flush=True)
        texts = [kind for kind in EXPORTS if kind in self.formats]
        check_cues(names, texts)
        if texts and fps is None:
            untimed = [name for name, video in videos.items() if isinstance(video, Path) and _untimed(video)]
            told = f"--export {' '.join(texts)} needs times, but nothing says how long a frame lasts of"
            if untimed and len(untimed) == len(videos):
                raise ConfigError(f"{told} {', '.join(untimed[:3])}; pass --fps.")
            for name in untimed:
                print(f"{told} {name}: it will not be exported (--fps)", file=sys.stderr, flush=True)

    def write(self, name: str, detection: Detection) -> list[Path]:
        """Write the files of one video and return their paths.

        Raises:
            ConfigError: the times of its frames are unknown, which all but the page need.
            DataError: an annotation that does not fit it.
        """
        written: list[Path] = []
        if PAGE in self.formats:
            known = None if self.truth is None else self.truth.phases(name, detection)
            written.append(write_review(self.folder, name, detection, known))
        texts = [kind for kind in EXPORTS if kind in self.formats]
        return [*written, *write_exports(self.folder, name, detection, texts)]


def _untimed(video: Path) -> bool:
    """Whether nothing says when the frames of a folder were taken; of files that is known once they are read."""
    try:
        return video.is_dir() and cached_info(video).times is None
    except DataError:  # it will be left out, with the reason
        return False
