"""Which video an annotation belongs to, and which files below a root are videos of the `phases` source."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from helpers.frames_on_disk import write_frames
from helpers.videos import write_video
from m33d_hf.data.sources.phases.files import FoundAnnotations, find_annotations
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import DataError, MissingSplitError


def _annotate(root: Path, *files: str) -> None:
    for file in files:
        path = root / "annotations" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Frame\tPhase\n0\tcut\n", encoding="utf-8")


def _by_key(root: Path, found: FoundAnnotations) -> dict[str, str]:
    return {
        key: each.path.relative_to(root / "annotations").as_posix() + (f" {each.video}" if each.video else "")
        for key, each in found.by_key.items()
    }


def test_an_annotation_of_another_site_is_given_to_nobody(tmp_path: Path) -> None:
    _annotate(tmp_path, "siteA/case1.txt", "siteB/case1.txt", "siteB/case2.txt", "siteB/label_case3.txt")
    keys = ["siteA/case1", "siteA/case2", "siteA/case3", "siteB/case1"]
    found = find_annotations(tmp_path, keys)
    assert _by_key(tmp_path, found) == {"siteA/case1": "siteA/case1.txt", "siteB/case1": "siteB/case1.txt"}
    reasons = [(entry.path, entry.reason.partition(". ")[0]) for entry in found.unpaired]
    assert reasons == [
        ("case2.txt", "no video of that name in its folder; siteA/case2 lies in another"),
        ("label_case3.txt", "no video of that name in its folder; siteA/case3 lies in another"),
    ]
    assert all("--data.options.videos" in entry.reason for entry in found.unpaired)


def test_a_table_names_the_videos_of_its_site(tmp_path: Path) -> None:
    path = tmp_path / "annotations/all.csv"
    path.parent.mkdir()
    rows = "siteB/case2.mp4,0,5,cut\nVIDEOS/sitea/case1.mp4,0,5,cut\ncase4,0,5,cut\n"
    path.write_text("video,start_frame,end_frame,phase\n" + rows)
    found = find_annotations(tmp_path, ["siteA/case1", "siteA/case2", "siteB/case1", "siteB/case4"])
    assert _by_key(tmp_path, found) == {
        "siteA/case1": "all.csv VIDEOS/sitea/case1.mp4",
        "siteB/case4": "all.csv case4",
    }
    (left,) = found.unpaired
    assert left.path == "all.csv, video 'siteB/case2.mp4'" and "siteA/case2 lies in another" in left.reason
    path.write_text("video,start_frame,end_frame,phase\ncase1,0,5,cut\n")
    with pytest.raises(DataError, match=r"'case1' matches several videos: siteA/case1, siteB/case1; put the folder"):
        find_annotations(tmp_path, ["siteA/case1", "siteB/case1"])


def test_a_folder_on_one_side_alone_says_nothing(tmp_path: Path) -> None:
    _annotate(tmp_path, "v1-phase.txt", "late/v2.txt")
    found = find_annotations(tmp_path, ["ward/v1", "v2"])
    assert _by_key(tmp_path, found) == {"ward/v1": "v1-phase.txt", "v2": "late/v2.txt"}


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_accents_are_the_same_however_they_are_stored(tmp_path: Path, stored: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFD" if stored == "NFC" else "NFC"
    keys = [unicodedata.normalize(stored, name) for name in ("Opération1", "Zürich/fall2")]
    _annotate(tmp_path, *(unicodedata.normalize(other, name) for name in ("opération1-phase.txt", "Zürich/fall2.txt")))
    assert set(find_annotations(tmp_path, keys).by_key) == set(keys)


def test_videos_in_folders_of_depth_are_no_rgb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever writes depth as video beside the RGB would train on both."""
    for name in ("case0.mp4", "ward/case1.mp4", "depth/case0.mkv", "ward/Depth/case1.mkv"):
        write_video(tmp_path / name, 3)
    source = PhasesSource(tmp_path, unit="videos")
    assert [video.key for video in source.videos] == ["case0", "ward/case1"]
    told = f"2 videos below folders of depth are left out, the first {tmp_path / 'depth/case0.mkv'}: depth is read from"
    assert told in caplog.text and any(note.startswith(told) for note in source.notes)
    named = PhasesSource(tmp_path, unit="videos", videos="depth")
    assert [video.key for video in named.videos] == ["case0"] and "left out" not in " ".join(named.notes)
    for name in ("case0.mp4", "ward/case1.mp4"):
        (tmp_path / name).unlink()
    with pytest.raises(
        DataError, match=r"neither a video .* nor frames\. 2 videos below folders of depth are left out"
    ):
        PhasesSource(tmp_path, unit="videos")


def _keys(root: Path, split: str, **options: Any) -> list[str]:
    return [video.key for video in PhasesSource(root, split, unit="videos", **options).videos]


@pytest.mark.parametrize("kind", ["files", "frames"])
def test_who_needs_depth_splits_as_who_does_not(tmp_path: Path, kind: str) -> None:
    """Pre-training with depth, then fine-tuning on RGB of all: what the one trains on is not held out by the other."""
    names = [f"case{number}" for number in range(10)]
    deep = [name for name in names if name not in ("case2", "case5", "case6")]
    for name in names:
        depth = "depth/{i}.png" if name in deep else None
        if kind == "frames":
            write_frames(tmp_path / name, 3, rgb="color/{i}.png", depth=depth)
            continue
        write_video(tmp_path / f"videos/{name}.mp4", 3)
        if depth is not None:
            (tmp_path / "depth").mkdir(exist_ok=True)
            np.save(tmp_path / f"depth/{name}.npy", np.full((3, 4, 6), 1500, np.uint16))
    stated = {"depth_unit": "mm"}
    parts = {split: _keys(tmp_path, split, depth="none") for split in ("train", "validation", "test")}
    assert sorted(name for part in parts.values() for name in part) == names
    for split in ("train", "all"):
        wanted = [name for name in parts.get(split, names) if name in deep]
        assert _keys(tmp_path, split, require_depth=True, **stated) == wanted
    (tmp_path / "train.txt").write_text("case0\ncase2\n")
    (tmp_path / "validation.txt").write_text("case5\n")
    source = PhasesSource(tmp_path, "train", unit="videos", require_depth=True, **stated)
    assert [video.key for video in source.videos] == ["case0"]
    assert not any("there is no such video" in entry.reason for entry in source.unpaired), "it is there, without depth"
    with pytest.raises(MissingSplitError, match="the split validation has no depth for its 1 case, the first is case5"):
        PhasesSource(tmp_path, "validation", unit="videos", require_depth=True, **stated)


def test_a_case_keeps_the_cameras_that_have_depth(tmp_path: Path) -> None:
    for name in ("a_cam1", "a_cam2", "b_cam1", "b_cam2"):
        write_video(tmp_path / f"videos/{name}.mp4", 3)
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth/a_cam2.npy", np.full((3, 4, 6), 1500, np.uint16))
    (tmp_path / "train.txt").write_text("a_cam2\nb\n")
    _annotate(tmp_path, "a.txt")
    source = PhasesSource(tmp_path, "train", cameras="_cam*", require_depth=True, depth_unit="mm", label_fps=25)
    (video,) = source.videos
    assert (video.key, video.case, video.phases.tolist()) == ("a_cam2", "a", [0, 255, 255])
