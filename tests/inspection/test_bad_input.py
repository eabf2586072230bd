"""What people feed by mistake, through the doctor: the message that helps, and the exit code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers import depth_scenes
from helpers.doctor import check, notes_of
from helpers.frames_on_disk import depth_array, rgb_array, save, write_frames
from helpers.nyuv2_files import write_mat, write_tables
from helpers.preparations import prepared
from helpers.recordings import encoded
from helpers.scannet_folders import write_exported, write_recorded, write_table
from helpers.sunrgbd_folders import write_sunrgbd
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.scripts.check_data import main


@pytest.fixture(autouse=True)
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m33d_hf.inspection.doctor.write_sheet", lambda splits, path: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "frames", 20)


def rewrite(root: Path, change: Callable[[np.ndarray], np.ndarray], suffix: str = ".png") -> None:
    for path in (root / "depth").iterdir():
        stored = np.asarray(Image.open(path))
        path.unlink()
        save(path.with_suffix(suffix), change(stored))


def raw_disparity(stored: np.ndarray) -> np.ndarray:
    """What a Kinect sends for such millimetres, with NYUv2's calibration and its byte order."""
    with np.errstate(divide="ignore"):
        raw = np.rint(1092.5 - 351.3 * 1000 / stored)
    return np.where(stored == 0, 2047, raw).astype(np.uint16).byteswap()


def rgba(stored: np.ndarray) -> np.ndarray:
    grey = (stored // 16).astype(np.uint8)
    return np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1)


@pytest.mark.parametrize(
    ("change", "suffix", "words", "told"),
    [
        (raw_disparity, ".pgm", (), "raw Kinect disparity: 11-bit values"),
        (raw_disparity, ".pgm", ("--data.options.depth_unit", "millimetre"), "raw Kinect disparity: 11-bit values"),
        (lambda stored: (stored // 16).astype(np.uint8), ".png", (), "the depth files are 8-bit"),
        (lambda stored: (stored // 16).astype(np.uint8), ".png", ("--data.options.depth_unit", "millimetre"),
         "files of 8 bits show depth rather than measure it"),
        (lambda stored: np.where(stored == 0, 65535, stored).astype(np.uint16), ".png",
         ("--data.options.invalid_values", "[0]"), "of the depth values are stored as 65535"),
        (rgba, ".png", (), "expected one value per pixel, found an array of shape (24, 32, 4)"),
        (depth_scenes.rotated, ".png", ("--data.options.depth_unit", "millimetre"), "depth_unit sunrgbd"),
    ],
)  # fmt: skip
def test_depth_that_is_not_what_it_is_taken_for(
    root: Path, change: Callable[[np.ndarray], np.ndarray], suffix: str, words: tuple[str, ...], told: str
):
    rewrite(root, change, suffix)
    code, problems, _ = check(root, *words)
    assert code == 1 and told in problems


@pytest.mark.parametrize("options", [(), ("--data.options.depth_unit", "millimetre")])
def test_close_depth_of_16_bits_is_no_problem(root: Path, options: tuple[str, ...]):
    """An endoscope measures 3 to 12 cm; that the values fit into 8 bits does not make them a picture."""
    rng = np.random.default_rng(0)
    rewrite(root, lambda stored: rng.integers(30, 120, stored.shape).astype(np.uint16))
    code, problems, report = check(root, *options)
    assert (code, problems) == (0, "") and "no stored depth value exceeds 119" in notes_of(report)
    rewrite(root, lambda stored: stored.astype(np.uint8))
    code, problems, report = check(root, "--data.options.depth_unit", "millimetre")
    assert code == 1 and "files of 8 bits show depth" in problems and "no stored depth" not in notes_of(report)


def test_depth_of_8_bits_is_a_problem_where_a_source_does_not_know_what_its_files_store(tmp_path: Path):
    """A table by others; one that was prepared here holds 16 bits."""
    rng = np.random.default_rng(0)
    (tmp_path / "table").mkdir()
    (tmp_path / "near").mkdir()
    shades = [rng.integers(30, 120, (24, 32)).astype(np.uint8) for _ in range(6)]
    rows = {"image": [encoded(rgb_array(i)) for i in range(6)], "depth": [encoded(each, "PNG") for each in shades]}
    pq.write_table(pa.table(rows), tmp_path / "table/train.parquet")
    hub = ("--data.source", "hub", "--data.eval_split", "null")
    code, problems, _ = check(tmp_path / "table", *hub, "--data.options.depth_unit", "millimetre")
    assert code == 1 and "no stored depth value exceeds 119: files of 8 bits show depth" in problems
    near = write_frames(tmp_path / "near", 6)
    rewrite(near, lambda stored: rng.integers(30, 120, stored.shape).astype(np.uint16))
    prepared(FolderSource(near, depth_unit="mm"), tmp_path / "prepared/train")
    code, problems, report = check(tmp_path / "prepared", *hub)
    assert (code, problems) == (0, "") and "no stored depth value exceeds 119" in notes_of(report)


def test_65535_is_invalid_unless_told_otherwise_and_rotated_bits_are_recognised(root: Path):
    rewrite(root, lambda stored: np.where(stored == 0, 65535, stored).astype(np.uint16))
    code, problems, report = check(root)
    assert (code, problems) == (0, "") and report["splits"]["train"]["depth"]["invalid_share"] == pytest.approx(1 / 24)
    rewrite(root, lambda stored: depth_scenes.rotated(np.where(stored == 65535, 0, stored).astype(np.uint16)))
    code, problems, report = check(root)
    assert (code, problems) == (0, "") and report["splits"]["train"]["depth"]["high"] < 3.1


def test_a_single_file_of_another_kind_is_named(root: Path):
    wrong = save(root / "depth/3.png", rgba(depth_array(3)))
    code, problems, _ = check(root)
    assert code == 1 and "1 file or frame cannot be read" in problems and str(wrong) in problems
    (root / "depth/5.png").unlink()
    notes = notes_of(check(root)[2])
    assert "train and evaluation: 1 file is not used by the source, the first: color/5.png" in notes, "said once"
    assert "(24, 32, 4)" in (root.parent / "check/skipped_files.csv").read_text()


def test_a_single_map_of_another_unit_is_named_though_the_unit_was_stated(root: Path):
    save(root / "depth/3.png", depth_array(3, scale=5000.0))
    code, problems, _ = check(root, "--data.options.depth_unit", "millimetre")
    assert code == 1 and "depth/3.png: depth: its median is " in problems and "m as tum" in problems


def test_labels_outside_the_mapping(root: Path, tmp_path: Path):
    for number in range(20):
        save(root / f"label/{number}.png", np.full((24, 32), 7 if number == 4 else 1, np.uint8))
    code, problems, _ = check(root, "--data.options.labels", "label", "--data.options.num_classes", "4")
    assert code == 1 and "label values [7] are outside the 4 classes" in problems and "label/4.png" in problems
    scans = tmp_path / "scans"
    write_exported(scans)
    write_table(scans / "scannetv2-labels.combined.tsv")
    for path in scans.rglob("label*/*.png"):
        save(path, np.full_like(np.asarray(Image.open(path)), 4321))
    split = ("--data.train_split", "all", "--data.eval_split", "null", "--data.options.every", "1")
    code, problems, _ = check(scans, "--data.source", "scannet", "--data.options.labels", "auto", *split)
    assert code == 1 and "4321" in problems


def test_a_recording_cut_short_gives_its_whole_frames_and_is_named(tmp_path: Path):
    root = tmp_path / "scans"
    write_recorded(root, count=8)
    recording = next(root.rglob("*.sens"))
    content = recording.read_bytes()
    words = ("--data.source", "scannet", "--data.train_split", "all", "--data.eval_split", "null")
    recording.write_bytes(content[: len(content) * 2 // 3])
    code, problems, report = check(root, *words, "--data.options.every", "1")
    assert code == 1 and "1 file is damaged, the first: scene0000_00/scene0000_00.sens" in problems
    assert "the first 5 are used" in problems and report["splits"]["train"]["samples"] == 5
    recording.write_bytes(content[:100])
    code, problems, _ = check(root, *words)
    assert code == 1 and "ends in the middle of its header (100 bytes)" in problems


def test_half_a_download_of_nyuv2(tmp_path: Path):
    whole = write_mat(tmp_path / "whole.mat")
    root = tmp_path / "nyuv2"
    root.mkdir()
    write_tables(root)
    with whole.open("rb") as stream:
        (root / "nyu_depth_v2_labeled.mat").write_bytes(stream.read(whole.stat().st_size // 2))
    code, problems, _ = check(root, "--recipe", "nyuv2_depth", model=())
    assert code == 1 and problems.startswith("train and evaluation: cannot be opened"), "said once, not twice"
    assert "truncated file" in problems and "is the download complete (2.8 GB)?" in problems


def test_a_source_without_a_validation_split_is_checked_by_its_training_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_sunrgbd(tmp_path)
    words = ("--data.source", "sunrgbd")
    code, problems, report = check(tmp_path, *words, output=tmp_path / "check")
    assert (code, problems) == (0, "") and list(report["splits"]) == ["train"]
    assert "the training split alone is checked: SUN RGB-D has the splits train and test" in notes_of(report)
    assert "--data.eval_split test --dry_run" in capsys.readouterr().out
    code, problems, _ = check(tmp_path, *words, "--data.eval_split", "validation", output=tmp_path / "check")
    assert code == 1 and "no validation split" in problems, "who asks for it is told that it is not there"
    code, problems, report = check(tmp_path, *words, "--data.eval_split", "test", output=tmp_path / "check")
    assert (code, problems) == (0, "") and list(report["splits"]) == ["train", "evaluation"]


def test_one_frame_and_folders_for_training_only(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write_frames(tmp_path / "one", 1)
    code, problems, report = check(one)
    assert (code, problems) == (0, "") and "split 'validation' is empty: 10% of 1 frames" in notes_of(report)
    assert "--data.eval_split null" in capsys.readouterr().out
    shutil.move(root, tmp_path / "parted/train")
    code, problems, report = check(tmp_path / "parted")
    assert (code, problems) == (0, "") and "none for the split 'validation'" in notes_of(report)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: shutil.rmtree(root / "depth"), "20 frames by name from 20 rgb, 0 depth files"),
        (lambda root: (root / "depth").rename(root / "laser"), "laser: 20 .png"),
        (lambda root: [path.rename(path.with_name(f"x{path.name}")) for path in list((root / "depth").iterdir())],
         "these match none: color/0.png, depth/x0.png."),
        (lambda root: [shutil.rmtree(root / name) for name in ("color", "depth")], "(no files)"),
    ],
)  # fmt: skip
def test_folders_without_a_pair(
    root: Path, spoil: Callable[[Path], object], told: str, capsys: pytest.CaptureFixture[str]
):
    spoil(root)
    code, problems, _ = check(root)
    assert code == 1 and problems.startswith("train and evaluation: cannot be opened: no frame under")
    assert told in problems and "depth=none" in problems
    header, _, command = capsys.readouterr().out.partition("What to type next")[2].partition("\n")
    assert command.startswith(f"  python scripts/check_data.py {root}")
    named = "--data.options.depth laser" in problems  # files that tell which options they need
    assert header == (":" if named else ", once the data can be read:")
    assert command.endswith(" --data.options.rgb color --data.options.depth laser\n") == named


def test_a_path_that_is_not_there_or_no_folder(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(root / "nowhere"), "--output", str(root.parent / "check")]) == 2
    assert f"data.root '{root / 'nowhere'}' does not exist" in capsys.readouterr().err
    code, problems, _ = check(root / "color/0.png", output=root.parent / "check")
    assert code == 1 and "is not a folder" in problems
