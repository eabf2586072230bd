from pathlib import Path

import pytest

from helpers.frames_on_disk import write_frames
from m33d_hf.data.files.skips import SkippedFile, append_skipped, incomplete_entry
from m33d_hf.data.loader.skip_list import SkipList
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.run_data import run_rows


def listed(path: Path, *entries: SkippedFile) -> SkipList:
    append_skipped(path, entries)
    return SkipList(path)


def test_samples_are_named_by_key_and_by_file_and_incomplete_ones_stay(tmp_path: Path):
    root = write_frames(tmp_path / "frames", 6)
    source = FolderSource(root)
    used = incomplete_entry(str(root / "color/5.png"), "ends early", "5")
    found = listed(
        tmp_path / "a.csv", SkippedFile("elsewhere", "broken", "1"),
        SkippedFile(str(root / "depth/3.png"), "broken", "another name"), used,
    )  # fmt: skip
    assert [source[row].key for row in found.rows(source, None)] == ["0", "2", "4", "5"]
    assert found.rows(source, [3, 2, 1]) == [2]


def test_a_clip_with_a_listed_frame_is_left_out(tmp_path: Path):
    for scene in "ab":
        write_frames(tmp_path / "frames" / scene, 8)
    source = FolderSource(tmp_path / "frames", unit="clips", clip_length=4)
    found = listed(tmp_path / "a.csv", SkippedFile(str(tmp_path / "frames/a/color/5.png"), "broken", "a/5"))
    assert [source[row].key for row in found.rows(source, None)] == ["a@0", "b@0", "b@4"]


def test_files_without_use_leave_nothing_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A check of frames lists the picture of a frame without depth, which is a hole of a clip."""
    for scene in "ab":
        write_frames(tmp_path / "frames" / scene, 8)
    (tmp_path / "frames/a/depth/3.png").unlink()
    (tmp_path / "frames/b/depth/1.png").rename(tmp_path / "frames/b/depth/9.png")
    frames = FolderSource(tmp_path / "frames", depth_unit="mm")
    unused = [SkippedFile(str(tmp_path / "frames" / entry.path), entry.reason, "") for entry in frames.unpaired]
    assert len(unused) == 3
    found = listed(tmp_path / "a.csv", *unused)
    assert found.rows(frames, None) == list(range(14)) and "without a key" not in caplog.text
    clips = FolderSource(tmp_path / "frames", unit="clips", depth_unit="mm", clip_length=4)
    assert found.rows(clips, None) == [0, 1, 2, 3]
    picture = tmp_path / "frames/a/color/3.png"
    assert f"2 files that it lists without a key are used, the first: {picture}" in caplog.text
    # One of them turns out to be unreadable where it is used: listed once more, and left out.
    found = listed(tmp_path / "a.csv", SkippedFile(str(picture), "truncated", "a@0"))
    assert [clips[row].key for row in found.rows(clips, None)] == ["a@4", "b@0", "b@4"]


def test_a_run_draws_first_and_leaves_out_then(tmp_path: Path):
    root = write_frames(tmp_path / "frames", 10)
    source = FolderSource(root)
    words = ["--train.max_steps", "1", "--data.source", "folder", "--data.max_train_samples", "6"]
    drawn = run_rows(parse_arguments(words, "pretraining"), source, True)
    assert drawn is not None
    listed(tmp_path / "a.csv", SkippedFile("x", "broken", source[drawn[2]].key))
    args = parse_arguments([*words, "--data.skip_list", str(tmp_path / "a.csv")], "pretraining")
    assert run_rows(args, source, True) == [row for row in drawn if row != drawn[2]]
    assert len(run_rows(args, source, False) or []) == 9


def test_what_is_no_list_or_leaves_nothing_is_refused(tmp_path: Path):
    source = FolderSource(write_frames(tmp_path / "frames", 1))
    with pytest.raises(ConfigError, match="is no file"):
        SkipList(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("name,r,g,b\nwall,1,2,3\n")
    with pytest.raises(ConfigError, match="is no list"):
        SkipList(tmp_path / "other.csv")
    (tmp_path / "empty.csv").write_text("path,reason,key\n")
    assert SkipList(tmp_path / "empty.csv").rows(source, None) == [0]
    with pytest.raises(DataError, match="names all 1 samples"):
        listed(tmp_path / "all.csv", SkippedFile("x", "broken", "0")).rows(source, None)
