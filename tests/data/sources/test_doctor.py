import json
from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import depth_array, label_array, save, write_frames
from m33d_hf.data.sources import Source
from m33d_hf.data.sources.doctor import check_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.videos.files import VideoFile


def test_report_counts_sizes_depth_and_labels(tmp_path: Path):
    write_frames(tmp_path, 4, labels="label/{i}.png")
    report = check_source(FolderSource(tmp_path, num_classes=4))
    assert (report.items, report.frames, report.checked) == (4, 4, 4)
    assert (report.with_rgb, report.with_depth, report.with_labels) == (4, 4, 4)
    assert report.sizes == {(24, 32): 4}
    stored = np.stack([depth_array(i) for i in range(4)])
    assert report.depth_median == pytest.approx(np.median(stored[stored > 0]) / 1000, rel=1e-3)
    assert report.depth_invalid == pytest.approx(1 / 24)
    pixels = np.bincount(np.stack([label_array(i) for i in range(4)]).ravel())
    assert [report.label_pixels[i] for i in range(4)] == pixels.tolist()
    assert not report.warnings and not report.unreadable
    json.dumps(report.to_dict())
    assert "24x32 (4)" in report.summary() and "millimetre" in report.summary()


def test_unreadable_and_unpaired_files_are_listed_and_written(tmp_path: Path):
    write_frames(tmp_path, 5)
    (tmp_path / "depth/4.png").unlink()
    broken = tmp_path / "color/1.png"
    broken.write_bytes(broken.read_bytes()[:90])
    report = check_source(FolderSource(tmp_path))
    assert report.checked == 4 and report.bad_fraction == 0.25
    assert report.unreadable[0].path == str(broken) and "truncated" in report.unreadable[0].reason
    told = report.summary()
    assert "left out: 1" in told and f"{report.unpaired[0].path}: {report.unpaired[0].reason}" in told
    assert [Path(file.path).name for file in (*report.unreadable, *report.unpaired)] == ["1.png", "4.png"]


def test_limit_spreads_over_the_source_and_small_frames_are_warned_about(tmp_path: Path):
    write_frames(tmp_path, 10)
    save(tmp_path / "depth/5.png", np.zeros((24, 32), np.uint16))
    report = check_source(FolderSource(tmp_path, unit="clips"), limit=2, min_size=32)
    assert report.checked == 2 and report.frames == 10
    assert report.blank_depth == ["frames[5]"]
    assert any("smaller than 32" in warning for warning in report.warnings)
    assert any("no valid depth" in warning for warning in report.warnings)


def test_of_many_videos_only_some_are_opened_and_bad_ones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    videos = [VideoFile(f"v{row}", Path(f"v{row}"), root=tmp_path) for row in range(9)]
    for row, video in enumerate(videos):
        for frame in range(3):
            save(video.file / f"{frame}.png", np.full((24, 32, 3), 10 * row, np.uint8))
    (tmp_path / "v3" / "1.png").unlink()
    (tmp_path / "v3" / "0.png").unlink()
    (tmp_path / "v3" / "2.png").write_bytes(b"")
    opened: list[str] = []
    length = VideoFile.length.fget
    monkeypatch.setattr(VideoFile, "length", property(lambda self: opened.append(self.key) or length(self)))

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

    report = check_source(Videos(videos), limit=3)
    assert opened == ["v0", "v3", "v6"] and report.items == 9 and report.frames is None
    assert "9 items, ? frames" in report.summary()
    assert len(report.unreadable) == 1 and str(tmp_path / "v3") in report.unreadable[0].path
    assert report.with_rgb == report.checked - 1 > 0
    assert check_source(Videos(videos)).frames in (24, 25)  # the bad one counts for none, or for the file it has


def test_videos_shorter_than_a_clip_are_counted(tmp_path: Path):
    write_frames(tmp_path / "a", 4)
    write_frames(tmp_path / "b", 9)
    source = FolderSource(tmp_path, unit="clips")
    (note,) = set(check_source(source, clip_frames=6).notes) - set(check_source(source).notes)
    assert note.startswith("1 of 2 opened videos are shorter (from 4 frames) than the 6 source frames")
    assert check_source(source, clip_frames=4).notes == check_source(source).notes
