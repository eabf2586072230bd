"""The last lines of a check: commands for every kind of data, that read the very data that was checked."""

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.doctor import MODEL, check
from helpers.frames_on_disk import write_frames
from helpers.sunrgbd_folders import write_sunrgbd
from helpers.videos import write_video
from m33d_hf.data.sources import SOURCES
from m33d_hf.inspection import proposed_recipes
from m33d_hf.inspection.proposed_recipes import OWN, PUBLISHED, checked_as, recipe_for
from m33d_hf.inspection.request import add_options, read_request, script_of
from m33d_hf.inspection.splits import open_split
from m33d_hf.scripts._main import main as run
from m33d_hf.scripts.check_data import main
from m33d_hf.training.recipe.parsing import resolve


@pytest.fixture(autouse=True)
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m33d_hf.inspection.doctor.write_sheet", lambda splits, path: None)


def commands(told: str) -> list[list[str]]:
    return [shlex.split(line) for line in told.rpartition("What to type next")[2].splitlines() if "scripts/" in line]


def opened(command: list[str], repository: Path) -> int:
    """Number of training samples that the run of a printed command reads."""
    python, script, *words = command
    assert python == "python" and (repository / script).is_file() and words[-1] == "--dry_run"
    task = Path(script).stem.removeprefix("run_")
    split = open_split(resolve(words[:-1], "pretraining" if task == "pretrain" else task).args, True, None, 8)
    assert split is not None
    return split.total


def write_phases(root: Path) -> Path:
    for number in range(5):
        write_video(root / f"videos/v{number}.mp4", 130)
        lines = "".join(f"{frame}\t{'A' if frame < 64 else 'B'}\n" for frame in range(130))
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/v{number}.txt").write_text(f"Frame\tPhase\n{lines}")
    return root


def write_ucf101(root: Path) -> Path:
    for group in (1, 2):
        for name in ("Sew", "Knit"):
            write_video(root / f"{name}/v_{name}_g0{group}_c01.mp4", 70)
    (root / "classInd.txt").write_text("1 Sew\n2 Knit\n")
    for number, split in ((1, "train"), (2, "test")):
        names = [f"{name}/v_{name}_g0{number}_c01.mp4 {label}\n" for label, name in ((1, "Sew"), (2, "Knit"))]
        (root / f"{split}list01.txt").write_text("".join(names))
    return root


def write_labelled(root: Path) -> Path:
    return write_frames(root, 20, labels="label/{i}.png")


def write_stills(root: Path) -> Path:
    return write_frames(root, 20)


def write_sequences(root: Path) -> Path:
    for number in range(5):
        write_frames(root / f"s{number:02d}", 64)
    return root


LABELS = ("--data.options.labels", "label", "--data.options.num_classes", "4")


@pytest.mark.parametrize(
    ("write", "words", "model", "purposes"),
    [
        (write_stills, (), MODEL, ["pre-train on frames", "learn depth from RGB"]),
        (write_labelled, LABELS, MODEL, ["pre-train on frames", "learn depth from RGB", "learn the labels of pixels"]),
        (write_sequences, ("--data.options.unit", "clips"), (), ["pre-train on clips"]),
        (write_phases, ("--data.source", "phases"), (), ["pre-train on clips", "learn the phases of long videos"]),
        (write_ucf101, ("--data.source", "ucf101"), (), ["pre-train on clips", "learn the labels of clips"]),
        (write_sunrgbd, ("--data.source", "sunrgbd"), MODEL, ["pre-train on frames", "learn depth from RGB"]),
    ],
)
def test_every_kind_of_data_gets_commands_that_read_it(
    tmp_path: Path,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Path], object],
    words: tuple[str, ...],
    model: tuple[str, ...],
    purposes: list[str],
):
    root = tmp_path / "data"
    root.mkdir()
    write(root)
    check(root, *words, model=model)
    told = capsys.readouterr().out
    source = words[1] if words[:1] == ("--data.source",) else "folder"
    assert [line[3:-1] for line in told.splitlines() if line.startswith("to ") and line.endswith(":")] == purposes
    found = commands(told)
    assert [command[3] for command in found] == [recipe_for(source, purpose) for purpose in purposes]
    for command in found:
        assert str(root) in command and opened(command, repository) > 0


def write_pictures(root: Path) -> Path:
    return write_frames(root, 20, depth=None)


def write_walks(root: Path) -> Path:
    for number in range(5):
        write_frames(root / f"s{number:02d}", 64, depth=None)
    return root


RGB_ALONE = ("--data.options.depth", "none")


@pytest.mark.parametrize(
    ("write", "words", "method"),
    [(write_pictures, RGB_ALONE, "mae"), (write_walks, (*RGB_ALONE, "--data.options.unit", "clips"), "videomae")],
)
def test_what_is_proposed_for_rgb_alone_runs(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Path], Path],
    words: tuple[str, ...],
    method: str,
):
    """The recipes' own method predicts depth, and stops at the first sample without it."""
    check(write(tmp_path / "data"), *words, model=())
    (command,) = commands(capsys.readouterr().out)
    assert command[-3:] == ["--method", method, "--dry_run"]
    words_of_size = "--model.image_size 32 --model.patch_size 8 --model.hidden_size 24 --model.num_hidden_layers 1"
    small = [*words_of_size.split(), "--model.num_attention_heads", "2", "--cpu", "true", "--train.epochs", "1"]
    small += ["--output_dir", str(tmp_path / "out")]
    assert run("pretraining", [*command[2:], *small]) == 0
    told = capsys.readouterr().out
    assert "the sample has no depth" not in told and method in told
    without = [word for word in command[2:] if word not in ("--method", method)]
    assert run("pretraining", [*without, *small]) == 2 and "the sample has no depth" in "".join(capsys.readouterr())
    # A recipe or a method that was named is asked for the same.
    root = str(tmp_path / "data")
    main([root, "--recipe", command[3], *words, "--output", str(tmp_path / "again")])
    assert commands(capsys.readouterr().out)[0][-3:-1] == ["--method", method]
    main([root, "--recipe", command[3], *words, "--method", method, "--output", str(tmp_path / "named")])
    assert commands(capsys.readouterr().out)[0].count("--method") == 1


def test_a_recipe_that_was_named_is_kept_with_its_script_and_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = write_phases(tmp_path / "data")
    code, problems, report = check(root, "--recipe", "orar_temporal", model=())
    assert report["splits"]["train"]["samples"] > 4 and set(report["splits"]["train"]["clip_labels"]) == {"0 A", "1 B"}
    (command,) = commands(capsys.readouterr().out)
    assert command[1:] == [
        "scripts/run_action_detection.py", "--recipe", "orar_temporal", "--data.root", str(root), "--dry_run",
    ]  # fmt: skip
    cut = root / "videos/v3.mp4"
    cut.write_bytes(cut.read_bytes()[:900])
    code, problems, _ = check(root, "--recipe", "orar_temporal", model=())
    assert code == 1 and f"1 file is damaged, the first: {cut}: cannot be opened as a video" in problems


def test_the_table_names_recipes_and_sources_that_exist(monkeypatch: pytest.MonkeyPatch):
    assert set(PUBLISHED) <= set(SOURCES)
    for source in SOURCES:
        assert checked_as(source) in {*OWN.values(), *PUBLISHED.get(source, {}).values()}
        for purpose, recipe in {**OWN, **PUBLISHED.get(source, {})}.items():
            assert recipe_for(source, purpose) == recipe and script_of(recipe).startswith("scripts/run_")
    monkeypatch.setitem(proposed_recipes.OWN, proposed_recipes.FRAMES, "own/nothing")
    with pytest.raises(ValueError, match="no recipe own/nothing"):
        checked_as("folder")


def test_a_folder_of_videos_gets_checks_of_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = write_ucf101(tmp_path / "my clips")
    looks = ["--output", str(tmp_path / "out"), "--workers", "0", "--max_samples", "5", "--frames", "2"]
    code = main([str(root), *looks, "--data.frame_stride", "2"])
    told = capsys.readouterr().out
    assert code == 1 and "These are videos. What to type next:\n" in told
    assert "were checked as frames, of which there are none" in told and "color/7.jpg" not in told
    clips, phases = commands(told)
    assert clips[2:4] == ["--recipe", "own/video_classification"] and phases[2:4] == ["--recipe", "own/phases_clips"]
    for words in (clips, phases):
        found = dict(zip(words[2::2], words[3::2], strict=True))
        wanted = {"--data.root": str(root), "--data.frame_stride": "2"}
        wanted |= dict(zip(looks[::2], looks[1::2], strict=True))
        assert {name: found[name] for name in wanted} == wanted and len(found) == len(wanted) + 1
    assert main(clips[2:]) in (0, 1)
    checked = capsys.readouterr().out
    assert "== train: source ucf101, 2 samples" in checked and "own/video_classification" in checked


def test_every_option_of_the_doctor_that_was_stated_is_among_its_words():
    """Also one that is added later: they are taken from the parser, and nowhere listed a second time."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    own = {"--workers": "7", "--max_samples": "3", "--frames": "0", "--output": "elsewhere"}
    assert own.keys() == {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    request = read_request(["--recipe", "rooms/pretrain", *(word for pair in own.items() for word in pair)], parser)
    assert dict(zip(request.looks[::2], request.looks[1::2], strict=True)) == own
    assert read_request(["--recipe", "rooms/pretrain", "--workers", "2"], parser).looks == []


def test_units_that_are_as_plausible_get_a_command_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "data"
    for number in range(6):
        for kind, pixels in (("rgb", np.zeros((32, 48, 3), np.uint8)), ("depth", np.full((32, 48), 1500, np.uint16))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{number:03d}.png")
    looks = ["--output", str(tmp_path / "out"), "--workers", "0"]
    assert main([str(root), *looks]) == 1
    told = capsys.readouterr().out
    assert "by the median distance that is right:\n" in told and "\n1.5 m:\n  python" in told
    found = {command[-1]: command for command in commands(told)}
    assert {"millimetre", "quarter_millimetre"} <= found.keys() and all(
        command[2:-2] == [str(root), *looks] for command in found.values()
    )
    assert main(found["millimetre"][2:]) in (0, 1)
    checked = capsys.readouterr().out
    assert "median 1.5 m" in checked and "--data.options.depth_unit millimetre" in checked.split("next")[-1]


def test_options_that_the_files_tell_are_part_of_the_next_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "data"
    for number in range(6):
        for folder, suffix, pixels in (
            ("camera_left", "png", np.full((24, 32, 3), 90 + number, np.uint8)),
            ("range_maps", "tiff", np.full((24, 32), 2000 + number, np.uint16)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number}.{suffix}")
    assert main([str(root), "--output", str(tmp_path / "out")]) == 1
    (again,) = commands(capsys.readouterr().out)
    assert again[-4:] == ["--data.options.rgb", "*.png", "--data.options.depth", "*.tiff"]
    main(again[2:])
    assert "6 frames by name" in capsys.readouterr().out
