"""data/sources/frames/colour_paths: what it names are the pictures, and predict.py's own search finds no map by it."""

import glob
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import depth_array, rgb_array, save, write_frames
from m33d_hf.data.sources.frames.colour_paths import colour_path
from m33d_hf.inference.prediction.inputs import find_inputs

LAYOUTS: list[tuple[str, str, dict[str, Any]]] = [
    ("color/{i}.png", "depth/{i}.png", {}),
    ("{i}_left.png", "{i}_disp16.png", {"rgb": "*_left.png", "depth": "*_disp16.png"}),
    ("left/{i}.png", "z16/{i}.png", {"rgb": "left", "depth": "z16"}),
    ("s/left/{i}.png", "s/z16/{i}.png", {"rgb": "left/*.png", "depth": "z16/*.png"}),
    ("s{i}/cam_{i}.jpg", "s{i}/range_{i}.png", {"rgb": "cam_*.jpg", "depth": "range_*.png"}),
    ("{i}.jpg", "{i}.png", {"rgb": "*.jpg", "depth": "*.png"}),
    ("cam_color/{i}.png", "cam_z/{i}.png", {"association": "pairs.txt"}),
]


@pytest.mark.parametrize(("rgb", "depth", "options"), LAYOUTS)
def test_predictions_meet_all_pictures_and_no_map(tmp_path: Path, rgb: str, depth: str, options: dict[str, Any]):
    root = write_frames(tmp_path / "my [frames]", 4, rgb=rgb, depth=depth)
    if "association" in options:
        (root / "pairs.txt").write_text("".join(f"cam_color/{i}.png cam_z/{i}.png\n" for i in range(4)))
    named = colour_path(str(root), options)
    assert named is not None
    found = {item.path for item in find_inputs([named]).items}
    assert found == {root / rgb.format(i=i) for i in range(4)}
    assert (named == str(root)) == (options == {}), "the folder itself, where names tell"


def test_a_clip_model_gets_folders_of_frames(tmp_path: Path):
    for name in ("one", "two"):
        write_frames(tmp_path / name, 4, rgb="left/{i}.png", depth="z16/{i}.png")
    named = colour_path(str(tmp_path), {"rgb": "left", "depth": "z16"}, clips=True)
    assert named is not None
    items = find_inputs([named], frames_are_videos=True).items
    assert [item.path for item in items] == [tmp_path / "one/left", tmp_path / "two/left"]
    mixed = write_frames(tmp_path / "mixed", 4, rgb="{i}_l.png", depth="{i}_z.png")
    assert colour_path(str(mixed), {"rgb": "*_l.png", "depth": "*_z.png"}, clips=True) is None


def test_pictures_that_nothing_tells_from_maps_have_no_path(tmp_path: Path):
    """Only the lines of a file say which is which."""
    for number, name in enumerate(("color_0.png", "2.png")):
        save(tmp_path / name, rgb_array(number))
    for number, name in enumerate(("z_1.png", "3.png")):
        save(tmp_path / name, depth_array(number))
    (tmp_path / "pairs.txt").write_text("color_0.png z_1.png\n2.png 3.png\n")
    assert colour_path(str(tmp_path), {"association": "pairs.txt"}) is None


def test_a_folder_that_cannot_be_read_is_named_as_it_is(tmp_path: Path):
    assert colour_path(str(tmp_path / "absent"), {}) == str(tmp_path / "absent")
    assert not glob.glob(str(tmp_path / "*")), "nothing is written"
