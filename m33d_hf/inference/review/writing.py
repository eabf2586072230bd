"""The further files that a user asks for, of one video after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m33d_hf.errors import ConfigError
from m33d_hf.inference.review.exports import EXPORTS, write_exports
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
