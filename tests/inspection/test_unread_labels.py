"""Label maps that lie beside frames and that no option describes: the check counts their classes, and tells how to
read them."""

from pathlib import Path

import numpy as np
import pytest
from inspection.test_next_step import commands, opened

from helpers.doctor import check, notes_of
from helpers.frames_on_disk import save, write_frames
from m33d_hf.data.labels.palettes import read_palette


@pytest.fixture(autouse=True)
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m33d_hf.inspection.doctor.write_sheet", lambda splits, path: None)


@pytest.mark.parametrize("folder", ["labels", "label", "masks", "mask", "semantic", "annotations"])
def test_labels_of_every_known_folder_are_counted_and_proposed(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], folder: str
):
    root = write_frames(tmp_path / "data", 20, labels=folder + "/{i}.png")
    code, _, report = check(root)
    assert code == 0 and set(report["splits"]["train"]["label_pixels"]) == {f"{i} class {i}" for i in range(4)}
    assert "20 label maps" in notes_of(report) and "0 to 3, read as 4 classes" in notes_of(report)
    _, depth, pixels = commands(capsys.readouterr().out)
    assert pixels[1:4] == ["scripts/run_semantic_segmentation.py", "--recipe", "own/semseg"]
    assert pixels[-3:] == ["--data.options.num_classes", "4", "--dry_run"] and opened(pixels, repository) == 16
    assert depth[1] == "scripts/run_depth_estimation.py" and "--data.options.num_classes" not in depth


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]):
    root = write_frames(tmp_path / "data", 20)
    for i in range(20):
        save(root / f"masks/{i}.png", np.uint8(255 * (np.arange(24 * 32).reshape(24, 32) % 3 == 0)))
    _, _, report = check(root)
    assert set(report["splits"]["train"]["label_pixels"]) == {"0 class 0", "1 class 1"}
    *_, pixels = commands(capsys.readouterr().out)
    assert pixels[-3:-1] == ["--data.options.label_map", '{"0": 0, "255": 1}'] and opened(pixels, repository) == 16


def test_colours_get_a_palette_beside_the_report(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]):
    root, colours = write_frames(tmp_path / "data", 20), [(0, 0, 0), (0, 90, 0), (200, 0, 10)]
    for i in range(20):
        save(root / f"seg/{i}.png", np.array(colours, np.uint8)[np.arange(24 * 32).reshape(24, 32) % 3])
    _, _, report = check(root)
    assert set(report["splits"]["train"]["label_pixels"]) == {"0 class 0", "1 class 1", "2 class 2"}
    palette = tmp_path / "check/palette.csv"
    assert read_palette(palette).num_classes == 3
    *_, pixels = commands(capsys.readouterr().out)
    assert pixels[-3:-1] == ["--data.options.palette", str(palette)] and opened(pixels, repository) == 16


def test_labels_of_several_folders_share_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write_frames(tmp_path / "a", 10, labels="labels/{i}.png")
    write_frames(tmp_path / "b", 10)
    for i in range(10):
        save(tmp_path / f"b/labels/{i}.png", np.full((24, 32), 6, np.uint8))
    check(one, str(tmp_path / "b"))
    *_, pixels = commands(capsys.readouterr().out)
    assert pixels[-3:] == ["--data.options.num_classes", "7", "--dry_run"]


def test_pictures_with_labels_and_no_depth_are_for_segmentation_alone(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_frames(tmp_path / "data", 20, depth=None, labels="labels/{i}.png")
    code, _, report = check(root)
    assert code == 0 and report["splits"]["train"]["with_depth"] == 0
    (pixels,) = commands(capsys.readouterr().out)
    assert pixels[3] == "own/semseg" and "--data.options.depth" in pixels and opened(pixels, repository) == 16


def test_frames_without_labels_stay_in_the_check(tmp_path: Path):
    root = write_frames(tmp_path / "data", 20, labels="labels/{i}.png")
    for i in range(5):
        (root / f"labels/{i}.png").unlink()
    _, _, report = check(root)
    assert report["splits"]["train"]["samples"] == 16 and report["splits"]["train"]["with_labels"] == 11


def test_what_an_option_describes_or_shuts_out_is_left_alone(tmp_path: Path):
    root = write_frames(tmp_path / "data", 20, labels="labels/{i}.png")
    for words in (("--data.options.num_classes", "9"), ("--data.options.labels", "none")):
        _, _, report = check(root, *words)
        assert "no option describes" not in notes_of(report)
