"""Which annotations belong to which videos where their folders have other names."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.videos import write_video
from m33d_hf.data.sources.phases.files import FoundAnnotations, find_annotations
from m33d_hf.data.sources.phases.source import PhasesSource

LEVELS = '{"phases": [{"label_name": "cut", "start": 0, "end": 80}]}'


def _write(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Frame\tPhase\n0\tcut\n1\tcut\n2\tsew\n", encoding="utf-8")


def _pairs(root: Path, keys: list[str]) -> tuple[dict[str, str], FoundAnnotations]:
    found = find_annotations(root, keys)
    return {key: each.path.relative_to(root).as_posix() for key, each in found.by_key.items()}, found


def test_a_folder_for_each_case(tmp_path: Path) -> None:
    """P01/rgb/P01.mp4 and P01/labels/P01.txt: nothing else bears the name."""
    for case in ("P01", "P02"):
        write_video(tmp_path / f"{case}/rgb/{case}.mp4", 3)
        _write(tmp_path, f"{case}/labels/{case}.txt")
    source = PhasesSource(tmp_path, label_fps=25, on_unpaired="error")
    assert {video.key: video.phases.tolist() for video in source.videos} == {
        "P01/rgb/P01": [0, 0, 1],
        "P02/rgb/P02": [0, 0, 1],
    }


@pytest.mark.parametrize("file", ["labels/bern/BBP01.txt", "labels/Bern/bbp01.mp4.json", "labels/bern/label_BBP01.csv"])
def test_trees_of_videos_and_annotations_with_other_names(tmp_path: Path, file: str) -> None:
    _write(tmp_path, file)
    if file.endswith(".json"):
        (tmp_path / file).write_text(LEVELS)
    elif file.endswith(".csv"):
        (tmp_path / file).write_text("start_frame,end_frame,phase\n0,3,cut\n")
    assert _pairs(tmp_path, ["BernBypass70/BBP01", "StrasBypass70/SBP01"])[0] == {"BernBypass70/BBP01": file}


@pytest.mark.parametrize(
    ("files", "keys", "why"),
    [
        (["siteB/case2.txt"], ["siteA/case2", "siteB/case1"], "siteA/case2 lies in another"),
        (["x/case2.txt"], ["siteA/case2", "siteB/case2"], "siteA/case2 and siteB/case2 lie in others"),
        (["x/v1.txt", "y/V1.json"], ["z/v1"], "z/v1 lies in another, and x/v1 and y/V1 are called alike"),
        (["siteC/case2.txt", "siteA/case1.txt"], ["siteA/case1", "siteA/case2"], "siteA/case2 lies in another"),
        (["x/v1.txt", "z/v1-phase.txt"], ["z/v1"], "z/v1 lies in another, and has an annotation of its own"),
    ],
)
@pytest.mark.parametrize("place", ["annotations", ""])
def test_what_may_be_of_another_video_is_given_to_nobody(
    tmp_path: Path, files: list[str], keys: list[str], why: str, place: str
) -> None:
    """Also beside the videos, where texts are no annotations as a rule: these bear the name of one."""
    _write(tmp_path / place, *files)
    if any(file.endswith(".json") for file in files):
        (tmp_path / place / files[-1]).write_text(LEVELS)
    _, found = _pairs(tmp_path / place, keys) if not place else _pairs(tmp_path, keys)
    own = {Path(each.path).stem.removesuffix("-phase").casefold() for each in found.by_key.values()}
    assert own <= {"case1", "v1"} and len(found.by_key) <= 1
    reasons = {entry.reason.partition(". ")[0] for entry in found.unpaired}
    assert reasons == {f"no video of that name in its folder; {why}"}
    assert len(found.unpaired) + len(found.by_key) == len(files)


def test_texts_that_bear_no_video_s_name_are_not_listed(tmp_path: Path) -> None:
    _write(tmp_path, "P01/notes.txt", "P01/readme.json")
    assert _pairs(tmp_path, ["P01/rgb/P01"])[1] == FoundAnnotations()


def test_a_table_names_videos_by_other_folders(tmp_path: Path) -> None:
    path = tmp_path / "labels/all.csv"
    path.parent.mkdir()
    head = "video,start_frame,end_frame,phase\n"
    path.write_text(f"{head}clips/v1.mp4,0,5,cut\nclips/v2.mp4,0,5,cut\nclips/v3.mp4,0,5,cut\nold/v3.mp4,0,5,cut\n")
    found = find_annotations(tmp_path, ["rgb/v1", "rgb/v2", "rgb/v3"])
    assert {key: each.video for key, each in found.by_key.items()} == {
        "rgb/v1": "clips/v1.mp4",
        "rgb/v2": "clips/v2.mp4",
    }
    assert [entry.path for entry in found.unpaired] == ["all.csv, video 'clips/v3.mp4'", "all.csv, video 'old/v3.mp4'"]
    assert all("clips/v3 and old/v3 are called alike" in entry.reason for entry in found.unpaired)
    (tmp_path / "labels/rgb").mkdir()
    (tmp_path / "labels/rgb/v1.csv").write_text("start_frame,end_frame,phase\n0,3,sew\n")
    found = find_annotations(tmp_path, ["rgb/v1", "rgb/v2"])
    assert [found.by_key[key].path.name for key in ("rgb/v1", "rgb/v2")] == ["v1.csv", "all.csv"]
    assert "has an annotation of its own" in found.unpaired[0].reason
