"""inference/prediction/inputs.py: files, globs and folders; names that never meet."""

from __future__ import annotations

import random
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from helpers.videos import write_video
from m33d_hf.errors import DataError
from m33d_hf.inference.detection_files import videos_below
from m33d_hf.inference.prediction.inputs import counted, find_inputs, unique_names


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".mp4":
            write_video(path, 2)
        elif path.suffix == ".txt":
            path.write_text("notes", encoding="utf-8")
        else:
            Image.new("RGB", (8, 8)).save(path)


def test_folders_are_searched_and_other_files_told(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/x.jpg", "x.jpg", "x.png", "clip.mp4", "notes.txt", ".hidden/x.jpg", "out/x.png")
    found = find_inputs([tmp_path], exclude=tmp_path / "out")
    assert {item.name: item.path.relative_to(tmp_path).as_posix() for item in found.items} == {
        "a/x": "a/x.jpg", "b/x": "b/x.jpg", "x.jpg": "x.jpg", "x.png": "x.png", "clip": "clip.mp4",
    }  # fmt: skip
    assert [item.is_video for item in found.items if item.name == "clip"] == [True]
    assert found.ignored == "1 .txt" and found.roots.common == tmp_path
    assert counted(found.items) == "4 pictures and 1 video" and counted([]) == "nothing"


def test_maps_beside_pictures_are_no_pictures(tmp_path: Path) -> None:
    make(tmp_path, "s1/color/1.png", "s1/depth/1.png", "s1/label/1.png", "s2/frame-2.color.jpg", "s2/frame-2.depth.png",
         "s2/notes.txt")  # fmt: skip
    found = find_inputs([tmp_path])
    assert [item.name for item in found.items] == ["s1/color/1", "s2/frame-2.color"]
    assert found.ignored == "1 .txt, 3 maps of depth or labels by name"
    assert [item.name for item in find_inputs([f"{tmp_path}/s?"]).items] == ["s1/color/1", "s2/frame-2.color"]
    clips = find_inputs([tmp_path], frames_are_videos=True)
    assert [item.name for item in clips.items] == ["s1/color", "s2"], "depth is no video"
    assert [item.name for item in find_inputs([tmp_path / "s1/depth"]).items] == ["1"], "what is asked for is taken"
    assert len(find_inputs([f"{tmp_path}/s1/*/1.png"]).items) == 3


@pytest.mark.parametrize(
    ("files", "videos"),
    [
        (["Cut/a.mp4", "depth/Cut/a/0.png", "depth/Cut/a/1.png"], ["Cut/a"]),  # as extract_depth.py writes it
        (["videos/a.mp4", "depth/a/0.png"], ["videos/a"]),
        (["videos/a.mp4", "depth/videos/a/0.png"], ["videos/a"]),
        (["or1/left.mp4", "or1/depth/left/0.png"], ["or1/left"]),
        (["or1/left/0.jpg", "depth/or1/left/0.png"], ["or1/left"]),
        (["or1/color/0.jpg", "or1/depth/0.png"], ["or1/color"]),
        (["a.mp4", "depth/b/0.png"], ["a", "depth/b"]),  # nothing else is called b
        (["depth/a.mp4", "depth/a/0.jpg"], ["depth/a", "depth/a.mp4"]),
    ],
)
def test_depth_in_every_layout_of_extraction_is_no_input(tmp_path: Path, files: list[str], videos: list[str]) -> None:
    make(tmp_path, *files)
    found = find_inputs([tmp_path], frames_are_videos=True)
    assert [item.name for item in found.items] == videos
    assert sorted(path.relative_to(tmp_path).as_posix() for path in videos_below(tmp_path)) == sorted(
        item.path.relative_to(tmp_path).as_posix() for item in found.items
    ), "detection looks at the same videos"
    assert len(find_inputs([tmp_path]).items) == sum(
        name.endswith(".mp4") or (tmp_path / name).parent in [item.path for item in found.items] for name in files
    ), "nor are the maps pictures"


@pytest.mark.parametrize(
    ("files", "videos"),
    [
        (["a.mp4", "depth/a.mp4"], ["a"]),
        (["or1/left/0.jpg", "or1/Depth/left.mp4"], ["or1/left"]),
        (["rgb/x_rgb.mp4", "depth/x_depth.mp4"], ["rgb/x_rgb"]),
        (["a.mp4", "Depth/A_depth.mp4"], ["a"]),
        (["or1/color/0.jpg", "or1/depth/film.mp4"], ["or1/color"]),
        (["depth/a.mp4", "depth/b.mp4"], ["depth/a", "depth/b"]),  # nothing else can be meant
    ],
)
def test_videos_of_depth_are_no_input(
    tmp_path: Path, files: list[str], videos: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, *files)
    found = find_inputs([tmp_path], frames_are_videos=True)
    assert [item.name for item in found.items] == videos
    left = len(files) - len(videos)
    assert found.ignored == ("1 map of depth or labels by name" if left else "")
    assert len(videos_below(tmp_path)) == len(videos), "detection looks at the same videos"
    assert ("1 map of depth or labels by name left aside, the first" in caplog.text) == bool(left)


@pytest.mark.parametrize("stray", ["cover.jpg", "docs/figure.png", "other.mp4", "or2/rgb/0.jpg"])
def test_what_is_called_otherwise_takes_no_video_away(tmp_path: Path, stray: str) -> None:
    """One stray picture made every video below depth/ disappear."""
    make(tmp_path, stray, "depth/a.mp4", "depth/b.mp4")
    found = find_inputs([tmp_path])
    assert {"depth/a", "depth/b"} < {item.name for item in found.items} and not found.ignored
    assert len(found.items) == 3
    if "/" in stray or stray.endswith(".mp4"):  # else --video names a folder of frames
        assert len(videos_below(tmp_path)) == 3, "detection looks at the same"


def test_depth_beside_videos_is_no_video(tmp_path: Path) -> None:
    names = ["v1.mp4", "depth/v1/0.png", "depth/v1/1.png", "more/v2.mp4", "more/depth/v2/0.png", "depth/v3/0.png"]
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    found = find_inputs([tmp_path], frames_are_videos=True)
    assert [item.name for item in found.items] == ["depth/v3", "more/v2", "v1"], "of v3 nothing else is there"
    assert found.ignored == "3 maps of depth or labels by name"


def test_files_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/x1.jpg", "a/x2.png", "a/deep/x3.jpg", "b/x1.jpg", "[1].jpg")
    names = lambda *given: [item.name for item in find_inputs(given).items]  # noqa: E731
    assert names(tmp_path / "a/x1.jpg") == ["x1"]
    assert names(f"{tmp_path}/a/*.jpg") == ["x1"]
    assert names(f"{tmp_path}/a/**/*.jpg") == ["deep/x3", "x1"]
    assert names(f"{tmp_path}/*/x1.jpg") == ["a/x1", "b/x1"]
    assert names(f"{tmp_path}/[ab]") == ["a/deep/x3", "a/x1", "a/x2", "b/x1"]
    assert names(tmp_path / "a", tmp_path / "b") == ["a/deep/x3", "a/x1", "a/x2", "b/x1"]
    assert names(tmp_path / "a", tmp_path / "a/x1.jpg") == ["deep/x3", "x1", "x2"], "named twice, predicted once"
    assert names(tmp_path / "[1].jpg") == ["[1]"], "a file that is there is no glob"
    make(tmp_path, "a/out/x1.jpg")
    assert [item.name for item in find_inputs([f"{tmp_path}/a/**/x1.jpg"], exclude=tmp_path / "a/out").items] == ["x1"]
    monkeypatch.chdir(tmp_path)
    assert names("a/*.png") == ["x2"] and names("*/x2.png") == ["a/x2"]


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "only/notes.txt", "x.jpg")
    with pytest.raises(DataError, match="does not exist"):
        find_inputs([tmp_path / "nothing"])
    with pytest.raises(DataError, match="no files match"):
        find_inputs([f"{tmp_path}/*.tiff"])
    with pytest.raises(DataError, match=r"no pictures and no videos: 1 \.txt"):
        find_inputs([tmp_path / "only"])
    with pytest.raises(DataError, match="neither a picture nor a video"):
        find_inputs([tmp_path / "only/notes.txt"])


def test_models_of_clips_take_a_folder_of_frames_for_a_video(tmp_path: Path) -> None:
    make(tmp_path, "one/1.png", "one/2.png", "two/1.png", "three.mp4", "two.mp4")
    found = find_inputs([tmp_path], frames_are_videos=True)
    assert [item.name for item in found.items] == ["one", "three", "two", "two.mp4"]
    assert all(item.is_video for item in found.items)
    assert [item.name for item in find_inputs([tmp_path / "one"], frames_are_videos=True).items] == ["one"]
    for given in (tmp_path / "one/1.png", f"{tmp_path}/one/*.png"):
        with pytest.raises(DataError, match="sees clips"):
            find_inputs([given], frames_are_videos=True)


def test_names_meet_neither_each_other_nor_each_others_folders() -> None:
    paths = [PurePosixPath(word) for word in ("x.jpg", "x.png", "x.jpg.png", "A.jpg", "a.png", "v.mp4", "v/1.png")]
    names = unique_names(paths, [False] * len(paths))
    assert names == ["x.jpg", "x.png", "x.jpg.png", "A.jpg", "a.png", "v.mp4", "v/1"]


def test_random_names_never_meet() -> None:
    draw = random.Random(0)
    for _ in range(300):
        words = {"".join(draw.choice("aA.") for _ in range(draw.randint(1, 3))).strip(".") or "a" for _ in range(6)}
        folders = ["", "a/", "a.a/", "A/"]
        paths = sorted({PurePosixPath(draw.choice(folders) + word + draw.choice([".jpg", ".png"])) for word in words})
        names = [name.casefold() for name in unique_names(paths, [False] * len(paths))]
        exact = {str(path).casefold() for path in paths}
        if len(exact) < len(paths):
            continue  # two files that only some disks can hold beside each other
        assert len(set(names)) == len(names), paths
        for name in names:
            assert not any(other.startswith(f"{name}/") for other in names) or name in exact, paths
