"""Folders with planted faults: what the doctor says, its exit code, its list, and that it can be interrupted."""

import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.doctor import check, notes_of
from helpers.frames_on_disk import save
from helpers.planted_frames import boxes, write_planted, write_scene
from helpers.preparations import prepared
from helpers.sunrgbd_folders import rotated
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.inspection import running
from m33d_hf.inspection.splits import Split
from m33d_hf.scripts.check_data import main


@pytest.fixture(autouse=True)
def what_takes_long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and comparing the edges of every frame; the tests that look at these do them in full."""
    name = request.node.name
    monkeypatch.setattr("m33d_hf.inspection.sheet.SAMPLES", 3)
    if "sound_folder" not in name:
        monkeypatch.setattr("m33d_hf.inspection.doctor.write_sheet", lambda splits, path: None)
    if not {"sound", "shifted"} & set(name.split("_")):
        monkeypatch.setattr("m33d_hf.inspection.splits.MOST_EDGES", 1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("sound") / "frames")


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "frames"))


def test_a_sound_folder_is_fine_and_its_figures_are_right(root: Path, capsys: pytest.CaptureFixture[str]):
    code, problems, report = check(root)
    assert (code, problems) == (0, "")
    train = report["splits"]["train"]
    assert train["samples"] == 16 and train["sizes"] == {"96x128": 16} and len(train["scenes"]) == 4
    for number, scene in enumerate(train["scenes"].values()):
        stored = [np.asarray(Image.open(path)) for path in (root / f"train/scene{number}/depth").iterdir()]
        assert scene["depth"]["median"] == pytest.approx(np.median(stored) / 1000, rel=0.03)
    told = capsys.readouterr().out
    assert "millimetre" in told and "scripts/run_pretrain.py --recipe own/pretrain" in told.split("next")[-1]
    assert "--dry_run" in told and "--data.skip_list" not in told
    assert (root.parent / "check/contact_sheet.png").stat().st_size > 10_000
    assert not (root.parent / "check/partial").exists()


def test_a_truncated_picture_is_found_listed_and_left_out_by_the_list(root: Path):
    broken = root / "train/scene2/color/001.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    code, problems, _ = check(root)
    assert code == 1 and str(broken) in problems
    skipped = root.parent / "check/skipped_files.csv"
    assert [(entry.path, entry.key) for entry in read_skipped(skipped)] == [(str(broken), "train/scene2/001")]
    code, problems, report = check(root, "--data.skip_list", str(skipped))
    assert (code, problems) == (0, "") and report["splits"]["train"]["samples"] == 15
    assert len(read_skipped(skipped)) == 1, "what the given list names is not forgotten"


def test_shifted_depth_is_suspected_in_the_scene_that_has_it(root: Path):
    shutil.rmtree(root / "train/scene1")
    write_scene(root / "train/scene1", 1, shift=6)
    code, problems, report = check(root)
    assert code == 1 and "train: scene train/scene1: depth seems to lie 6 pixels to the right of" in problems
    found = {name: scene["suspected_misplacement"] for name, scene in report["splits"]["train"]["scenes"].items()}
    assert {name for name, shift in found.items() if shift} == {"train/scene1"}


def test_depth_that_is_all_holes(root: Path):
    save(root / "train/scene0/depth/002.png", np.zeros((96, 128), np.uint16))
    code, problems, _ = check(root)
    assert code == 1 and "1 of 16 samples has no valid depth" in problems and "cannot be read" not in problems
    (entry,) = read_skipped(root.parent / "check/skipped_files.csv")
    assert entry.path == str(root / "train/scene0/depth/002.png")


def test_rotated_depth_read_as_millimetres(root: Path):
    for path in root.rglob("depth/*.png"):
        save(path, rotated(np.asarray(Image.open(path))))
    code, problems, _ = check(root, "--data.options.depth_unit", "millimetre")
    assert code == 1 and "depth_unit sunrgbd" in problems
    assert check(root, "--data.options.depth_unit", "sunrgbd")[:2] == (0, "")


def test_one_picture_in_both_splits_twice(root: Path):
    for name, scene in (("007.jpg", "scene100"), ("008.jpg", "scene101")):
        picture = root / "validation" / scene / "color" / name
        Image.open(root / "train/scene3/color/001.jpg").save(picture, quality=70)
        shutil.copy(root / "train/scene3/depth/001.png", picture.parents[1] / "depth" / f"{picture.stem}.png")
    code, problems, _ = check(root)
    assert code == 1 and "2 of 10 evaluation samples look like training samples" in problems
    listed = (root.parent / "check/duplicates.csv").read_text()
    assert "train/scene3/001,validation/scene100/007" in listed and "validation/scene101/008" in listed


def test_a_camera_that_stands_still_at_the_cut_of_one_recording_is_noted(root: Path):
    """80 of 100 frames train, the next 10 evaluate: the split is our own, and the picture stays for six frames."""
    still = range(78, 84)
    for number in range(100):
        rgb, depth = boxes(400 if number in still else number)
        save(root.parent / "walk" / "color" / f"{number:03d}.png", rgb)
        save(root.parent / "walk" / "depth" / f"{number:03d}.png", depth)
    code, problems, report = check(root.parent / "walk")
    assert (code, problems) == (0, "")
    assert "4 of 10 evaluation samples look like training samples" in notes_of(report)
    shutil.copy(root.parent / "walk/color/003.png", root.parent / "walk/color/088.png")  # and comes back
    assert "look like training samples" in check(root.parent / "walk")[1]


def test_one_scene_in_another_unit(root: Path):
    shutil.rmtree(root / "train/scene3")
    write_scene(root / "train/scene3", 3, scale=5.0)
    code, problems, _ = check(root)
    assert code == 1 and "unit" in problems and "scene3" in problems


def test_labels_outside_the_classes(root: Path):
    for path in root.rglob("depth/*.png"):
        labels = np.full((96, 128), 1 + (path.stem == "001"), np.uint8)
        save(path.parents[1] / "label" / path.name, labels)
    words = ["--data.options.labels", "label", "--data.options.num_classes"]
    code, problems, _ = check(root, *words, "2")
    assert code == 1 and "label" in problems and "2" in problems
    code, problems, report = check(root, *words, "4", "--data.options.class_names", "[wall, floor, chair, table]")
    assert (code, problems) == (0, "")
    pixels = report["splits"]["train"]["label_pixels"]
    assert pixels == {"1 floor": 12 * 96 * 128, "2 chair": 4 * 96 * 128}
    assert any("classes never occur: wall, table" in each["text"] for each in report["findings"])


def test_sequences_too_short_for_a_clip(root: Path):
    write_scene(root / "train/short", 50, frames=2)
    clips = ["--stage", "null", "--model.num_frames", "4", "--model.tubelet_size", "2", "--data.options.unit", "clips"]
    clips += ["--method", "m33d_hidden"]
    code, problems, _ = check(root, *clips)
    assert code == 1 and "1 of 5 sequences is left out because it is too short, the first: train/short" in problems
    code, problems, _ = check(root, *clips, "--data.options.min_frames", "1")
    assert code == 1 and "shorter (from 2 frames) than the 4 source frames of a clip" in problems


def test_mistakes_of_the_command_line_exit_with_2(root: Path, capsys: pytest.CaptureFixture[str]):
    for words in (
        [],
        [str(root / "nowhere")],
        [str(root), "--data.root", str(root)],
        [str(root), "--data.optoins.every", "2"],
        [str(root), "--workers", "-1"],
        [str(root), "--data.skip_list", str(root / "none.csv")],
        ["--recipe", "no_such_recipe"],
    ):
        assert main([*words, "--output", str(root.parent / "check")]) == 2, words
    assert "no_such_recipe" in capsys.readouterr().err


def test_two_workers_and_a_limit_change_nothing_and_less(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("m33d_hf.inspection.splits._LEAST_CHUNK", 3)
    one, two = tmp_path / "one", tmp_path / "two"
    check(root, output=one)
    check(root, "--workers", "2", output=two)
    for name in ("report.json", "skipped_files.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    _, _, report = check(root, "--max_samples", "5", output=one)
    assert report["splits"]["train"]["looked_at"] == 5 and report["splits"]["train"]["samples"] == 16


def test_a_check_that_was_killed_continues_to_the_same_report(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = root / "train/scene0/color/000.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    monkeypatch.setattr("m33d_hf.inspection.splits._LEAST_CHUNK", 3)
    measured, chunks, most = running.measure_chunk, list[int](), [99]

    def counted(split: Split, number: int) -> str:
        chunks.append(number)
        if len(chunks) > most[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return measured(split, number)

    monkeypatch.setattr(running, "measure_chunk", counted)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    check(root, output=whole)
    assert len(chunks) == 9
    chunks.clear()
    most[0] = 4
    process = multiprocessing.get_context("fork").Process(target=check, args=(root,), kwargs={"output": parts})
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list((parts / running.PARTIAL / "train").glob("0*.json"))) == 4
    most[0] = 99
    capsys.readouterr()
    assert check(root, output=parts)[0] == 1
    assert "4 of 6 parts are there" in capsys.readouterr().out
    assert len(chunks) == 5, "what was measured is not measured again"
    for name in ("report.json", "skipped_files.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_partial_results_of_other_files_are_not_taken(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("m33d_hf.inspection.doctor.forget_partial", lambda output: None)
    check(root)
    save(root / "train/scene0/color/009.jpg", boxes(9)[0])
    save(root / "train/scene0/depth/009.png", boxes(9)[1])
    assert check(root)[2]["splits"]["train"]["looked_at"] == 17


@pytest.mark.parametrize("form", ["{a} {b}", "--data.root {a} {b}"])
def test_several_folders_are_checked_as_one(sound: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]):
    other = Path(shutil.copytree(sound / "train", tmp_path / "other"))
    words = form.format(a=sound, b=other).split()
    main([*words, "--data.eval_split", "null", "--output", str(tmp_path / "out"), "--workers", "0"])
    told = capsys.readouterr().out
    # 16 frames of four scenes in the first folder; the other is read by itself, and split by itself.
    parts = re.findall(r"^note: 2 folders: frames \((\d+) items\), other \((\d+) items\)$", told, re.MULTILINE)
    assert parts == [("16", str(len(list(other.glob("*/color/*.jpg"))) - 4))]
    assert re.search(r"^note: other: split train: .*3 of 4 sequences", told, re.MULTILINE)
    assert f"--data.root {sound} {other}" in told.split("next")[-1]


@pytest.mark.parametrize(("form", "source"), [("parquet", "hub"), ("shards", "shards")])
def test_prepared_training_data_alone_are_no_problem(
    sound: Path, tmp_path: Path, form: str, source: str, capsys: pytest.CaptureFixture[str]
):
    frames = FolderSource(sound / "train", depth_unit="mm")
    prepared(frames, tmp_path / "prepared/train", format=form)
    words = ["--data.source", source, "--data.root", str(tmp_path / "prepared"), "--output", str(tmp_path / "out")]
    assert main([*words, "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert "the training split alone is checked" in told and "--data.eval_split null" in told.split("next")[-1]
    prepared(frames, tmp_path / "prepared/test", format=form)
    main([*words, "--workers", "0"])
    assert "--data.eval_split test" in capsys.readouterr().out.split("next")[-1]


def test_a_scene_far_from_the_others_that_may_be_a_close_up_is_noted(root: Path):
    write_scene(root / "train/near", 7, scale=0.1)  # centimetres of a room, or millimetres of a table top
    code, problems, report = check(root, "--data.options.depth_unit", "millimetre")
    assert (code, problems) == (0, "")
    assert "scene train/near: its median is 0." in notes_of(report) and "depth_unit" in notes_of(report)
