from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import depth_array, label_array, save, write_frames
from m33d_hf.data.measuring.first_look import describe_look, first_look
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.source import Source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.videos.files import VideoFile


def subject(source: Source, clip_frames: int = 1, least_side: int = 8) -> Subject:
    return Subject("train", source, len(source), clip_frames, least_side)


def told(looked_at: Subject) -> str:
    return "\n".join(describe_look(looked_at, first_look(looked_at)))


def test_counts_sizes_depth_and_labels(tmp_path: Path):
    write_frames(tmp_path, 4, labels="label/{i}.png")
    looked_at = subject(FolderSource(tmp_path, num_classes=4))
    tally = first_look(looked_at)
    assert (tally.samples, tally.frames) == (4, 4)
    assert (tally.with_rgb, tally.with_depth, tally.with_labels) == (4, 4, 4)
    assert tally.sizes == {"24x32": 4}
    stored = np.stack([depth_array(i) for i in range(4)])
    assert tally.depth.quantile(0.5) == pytest.approx(np.median(stored[stored > 0]) / 1000, rel=0.02)
    assert tally.depth.invalid_share == pytest.approx(1 / 24)
    pixels = np.bincount(np.stack([label_array(i) for i in range(4)]).ravel())
    assert [tally.label_pixels[i] for i in range(4)] == pixels.tolist()
    text = told(looked_at)
    assert "24x32 (4)" in text and "millimetre" in text and "PROBLEM" not in text


def test_unreadable_and_unpaired_files_are_told(tmp_path: Path):
    write_frames(tmp_path, 5)
    (tmp_path / "depth/4.png").unlink()
    broken = tmp_path / "color/1.png"
    broken.write_bytes(broken.read_bytes()[:90])
    looked_at = subject(FolderSource(tmp_path))
    (entry,) = first_look(looked_at).unusable
    assert entry.path == str(broken) and "truncated" in entry.reason
    text = told(looked_at)
    assert f"PROBLEM (train): 1 file or frame cannot be read: {broken}" in text
    assert "note (train): 1 file is not used by the source, the first: color/4.png" in text


def test_frames_are_spread_over_the_samples_and_small_ones_are_warned_about(tmp_path: Path):
    write_frames(tmp_path, 10)
    clips = subject(FolderSource(tmp_path, unit="clips"), least_side=32)
    assert first_look(clips, frames=2).frames == 2
    stills = subject(FolderSource(tmp_path))
    assert first_look(stills, frames=3).samples == 3, "no more are opened, whose length is known"
    save(tmp_path / "depth/5.png", np.zeros((24, 32), np.uint16))
    text = told(subject(FolderSource(tmp_path), least_side=32))
    assert "smaller than the model's patch of 32" in text and "1 of 10 samples has no valid depth" in text


def test_of_many_videos_only_some_are_opened_and_bad_ones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    videos = [VideoFile(f"v{row}", Path(f"v{row}"), root=tmp_path) for row in range(9)]
    for row, video in enumerate(videos):
        for frame in range(3):
            save(video.file / f"{frame}.png", np.full((24, 32, 3), 10 * row, np.uint8))
    for path in (tmp_path / "v4").iterdir():
        path.write_bytes(b"")
    opened: set[str] = set()
    length = VideoFile.length.fget
    monkeypatch.setattr(VideoFile, "length", property(lambda self: opened.add(self.key) or length(self)))

    class Videos(Source):
        name = "videos"

        def __init__(self, files: list[VideoFile]) -> None:
            self.files = files

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> VideoFile:
            return self.files[index]

        def digest(self) -> str:
            return ""

    tally = first_look(subject(Videos(videos)), frames=1, files=3)
    assert opened == {"v1", "v4", "v7"} and tally.samples == 3
    tally = first_look(subject(Videos(videos)), frames=3, files=3)
    assert tally.frames == 2 and {Path(entry.path).parent.name for entry in tally.unusable} <= {"v4", tmp_path.name}
    assert first_look(subject(Videos(videos)), frames=18).frames == 16, "two of each but the bad one"


def test_videos_shorter_than_a_clip_are_counted(tmp_path: Path):
    write_frames(tmp_path / "a", 4)
    write_frames(tmp_path / "b", 9)
    source = FolderSource(tmp_path, unit="clips")
    assert "1 of 2 clips or videos is shorter (from 4 frames) than the 6 source frames" in told(subject(source, 6))
    assert "shorter" not in told(subject(source, 4))
