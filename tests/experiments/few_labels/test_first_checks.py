"""What would leave a column without a verdict is met before the first run; what is finished is not looked at."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from helpers.frames_on_disk import write_frames
from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.few_labels import running
from m33d_hf.experiments.few_labels.first_checks import check_runs
from m33d_hf.experiments.few_labels.jobs import jobs_of_study
from m33d_hf.experiments.few_labels.study import Amount, Start, Study
from m33d_hf.experiments.jobs import row_path
from m33d_hf.scripts.few_labels import main

TINY = [
    *("--model.image_size", "16", "--model.patch_size", "8", "--model.num_frames", "2", "--model.hidden_size", "16"),
    *("--model.num_hidden_layers", "1", "--model.num_attention_heads", "2", "--model.intermediate_size", "32"),
    *("--data.options.clip_span", "4", "--data.options.fps", "5", "--data.frame_stride", "2"),
    *("--data.num_workers", "0"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases, of which the first alone has the phase `cut`."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "phase_annotations").mkdir()
    for number in range(5):
        place = folder / "videos" / f"case{number}"
        place.mkdir(parents=True)
        lines = "Frame\tPhase\n"
        for frame in range(16):
            phase = "cut" if number in (0, 4) and frame >= 8 else "rest"
            Image.new("RGB", (16, 16), (90, frame, number)).save(place / f"{frame:03}.png")
            lines += f"{frame}\t{phase}\n"
        (folder / "phase_annotations" / f"case{number}-phase.txt").write_text(lines, encoding="utf-8")
    (folder / "train.txt").write_text("case0\ncase1\ncase2\ncase3\n", encoding="utf-8")
    (folder / "validation.txt").write_text("case4\n", encoding="utf-8")
    return folder


def _study(root: Path, *words: str, starts: tuple[Start, ...] = (Start("scratch"), Start("again"))) -> Study:
    data = ("--data.root", str(root), *TINY, *words, "--train.max_steps", "2")
    return Study(
        task="video_classification", words=("--recipe", "own/phases_clips", *data),
        pretraining_words=("--recipe", "own/pretrain_clips", "--data.source", "phases", *data),
        starts=starts, amounts=(Amount(share=0.25), Amount(share=1.0)), seeds=(0, 1, 2, 3),
    )  # fmt: skip


def test_a_draw_without_a_class_is_named_with_its_seed(root: Path, tmp_path: Path) -> None:
    study = _study(root)
    jobs = jobs_of_study(study, tmp_path, Compute())
    with pytest.raises(ConfigError, match="Nothing was trained") as told:
        check_runs(jobs, tmp_path)
    said = str(told.value)
    assert "labels-1-" not in said and "again" not in said, "all cases have both, and starts share their draws"
    assert "1 of 2" in said and "cut" in said and "--data.allow_missing_classes true" in said
    named = [seed for seed in study.seeds if f"labels-0.25-scratch-s{seed}" in said]
    assert 0 < len(named) < 4, "only the first of four cases has `cut`: some draws have it, by their seed"
    allowed = _study(root, "--data.allow_missing_classes", "true")
    check_runs(jobs_of_study(allowed, tmp_path, Compute()), tmp_path)


def test_what_is_finished_is_not_looked_at_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = _study(root)
    jobs = jobs_of_study(study, tmp_path, Compute())
    for job in jobs:
        if "labels-0.25" in job.id:
            row = {"status": "done", "fingerprint": job.fingerprint(), "wall_seconds": 1.0}
            write_sealed_json(row_path(tmp_path / "rows", job.id), row)
    check_runs(jobs, tmp_path)
    assert "data and models of 4 runs" in capsys.readouterr().out, "all labels, four seeds"


def test_a_pretraining_is_looked_at_once_and_what_starts_from_it_without_its_weights(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = _study(root, "--data.allow_missing_classes", "true", starts=(Start("mae", "videomae"), Start("scratch")))
    check_runs(jobs_of_study(study, tmp_path, Compute()), tmp_path)
    assert "data and models of 9 runs" in capsys.readouterr().out, "eight draws and one pre-training"
    words = [word.replace(str(root), f"{root}/nothing") for word in study.pretraining_words]
    wrong = replace(study, pretraining_words=tuple(words))
    with pytest.raises(ConfigError, match=r"pretrain-mae-s0: .*cases\d/nothing"):
        check_runs(jobs_of_study(wrong, tmp_path, Compute()), tmp_path)


def test_that_starts_differ_in_more_than_weights_is_said_before_anything_is_trained(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe decides the width of scratch; that of the pre-training is stated, and its fine-tuning has it."""

    def stop(*_given: object, **_named: object) -> None:
        raise ConfigError("the training would begin here")

    monkeypatch.setattr(running, "run_jobs", stop)
    small = _study(root, "--data.allow_missing_classes", "true", starts=(Start("scratch"), Start("mae", "videomae")))
    small = replace(small, seeds=(0,), amounts=(Amount(share=1.0),))
    shared = ("--data.allow_missing_classes", "true", "--data.root", str(root), "--model.image_size", "16")
    shared += ("--model.patch_size", "8", "--data.options.fps", "5", "--data.num_workers", "0")
    words = ("--recipe", "own/phases_clips", *shared, "--train.max_steps", "2", "--model.num_frames", "2")
    words += ("--data.options.clip_span", "4", "--data.frame_stride", "2")
    with pytest.raises(ConfigError, match="would begin here"):
        running.run_study(replace(small, words=words), tmp_path / "unlike", 1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "more than their weights" in line]
    assert re.search(r"scratch: hidden_size (?!16,)\d+, .*; mae: hidden_size 16, num_hidden_layers 1", line)
    with pytest.raises(ConfigError, match="would begin here"):
        running.run_study(small, tmp_path / "alike", 1)
    assert "more than their weights" not in capsys.readouterr().out
    other = tuple("32" if before == "--model.hidden_size" else word
                  for before, word in zip(("", *small.pretraining_words), small.pretraining_words))  # fmt: skip
    with pytest.raises(ConfigError, match=r"pretrain-mae-s0: .*the output of pretrain-mae-s0.*hidden_size"):
        running.run_study(replace(small, pretraining_words=other), tmp_path / "contradicting", 1)


def test_the_script_stops_before_any_output(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "own/phases_clips", "--task", "video_classification", *TINY, "--train.max_steps", "2"]
    words += ["--fractions", "0.25", "--seeds", "0", "1", "2", "--start", "a", "--start", "b", "--workers", "1"]
    assert main([*words, "--data.root", str(root), "--output_dir", str(tmp_path / "out")]) == 2
    assert "Nothing was trained, since some rows could not be" in capsys.readouterr().err
    assert not (tmp_path / "out" / "rows").exists()
    assert main([*words, "--data.root", str(root / "nothing"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_without_evaluation_data_or_with_a_metric_that_is_none_nothing_starts(root: Path, tmp_path: Path) -> None:
    allowed = ("--data.allow_missing_classes", "true")
    for words, said in (
        (("--data.eval_split", "null"), "no evaluation data to judge by"),
        (("--evaluation.metric", "mIoU"), "mIoU"),
    ):
        study = replace(_study(root, *allowed, *words), seeds=(0,))
        with pytest.raises(ConfigError, match=said):
            check_runs(jobs_of_study(study, tmp_path, Compute()), tmp_path)


def _partly_labelled(root: Path) -> Study:
    """Six sequences of four frames, of which the last three have labels; a method and scratch."""
    for number in range(6):
        labels = f"s{number}/label/{{i}}.png" if number > 2 else None
        write_frames(root, 4, f"s{number}/rgb/{{i}}.png", f"s{number}/depth/{{i}}.png", labels)
    words = (
        *("--data.root", str(root), "--data.options.num_classes", "50", "--data.options.depth_unit", "mm"),
        *("--model.image_size", "16", "--model.patch_size", "4", "--model.hidden_size", "16"),
        *("--model.num_hidden_layers", "1", "--model.num_attention_heads", "2", "--model.intermediate_size", "32"),
        *("--train.max_steps", "2", "--data.num_workers", "0"),
    )
    return Study(
        task="semantic_segmentation",
        words=("--recipe", "own/semseg", "--data.allow_missing_classes", "true", *words),
        pretraining_words=("--recipe", "own/pretrain", *words),
        starts=(Start("hidden", "m33d_hidden"), Start("scratch")), amounts=(Amount(number=2),), seeds=(0,),
    )  # fmt: skip


def test_pretrainings_are_offered_the_frames_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = _partly_labelled(tmp_path / "data")
    check_runs(jobs_of_study(study, tmp_path, Compute()), tmp_path)
    said = capsys.readouterr().out
    assert "learn from 8 frames with labels" in said and "--pretrain data.options.require_labels=false" in said
    held = ("--data.options.validation", "s5")
    words = (*study.pretraining_words, "--data.options.require_labels", "false")
    every = replace(study, words=(*study.words, *held), pretraining_words=(*words, *held))
    check_runs(jobs_of_study(every, tmp_path, Compute()), tmp_path)
    assert "learn from" not in capsys.readouterr().out


def test_a_pretraining_that_sees_what_is_judged_by_is_refused(tmp_path: Path) -> None:
    """Three labelled sequences of six: their split is another one than that of all."""
    study = _partly_labelled(tmp_path / "data")
    words = (*study.pretraining_words, "--data.options.require_labels", "false", "--data.options.validation", "s3")
    judged = replace(study, words=(*study.words, "--data.options.validation", "s5"), pretraining_words=words)
    with pytest.raises(ConfigError, match=r"pretrain-hidden-s0: .*4 of the 4 pictures .*s5/.*data.options.validation"):
        check_runs(jobs_of_study(judged, tmp_path, Compute()), tmp_path)


@pytest.mark.parametrize("below", ["", "/videos"])
def test_a_pretraining_that_sees_a_video_that_is_judged_by_is_refused(root: Path, tmp_path: Path, below: str) -> None:
    """Also where its root is another folder above the same video."""
    allowed = ("--data.allow_missing_classes", "true")
    study = _study(root, *allowed, starts=(Start("mae", "videomae"), Start("scratch")))
    words = [word.replace(str(root), f"{root}{below}") for word in study.pretraining_words]
    seen = replace(study, pretraining_words=(*words, "--data.train_split", "all", "--data.eval_split", "null"))
    with pytest.raises(ConfigError, match=r"pretrain-mae-s0: .*1 of the 1 video .*case4.*data.options.split_list"):
        check_runs(jobs_of_study(seen, tmp_path, Compute()), tmp_path)


def test_frames_that_nobody_asked_for_stop_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = _partly_labelled(tmp_path / "data")
    for number in range(4):
        Image.new("I;16", (24, 24), 1500).save(tmp_path / "data" / "s0" / "depth" / f"{number}.png")
    check_runs(jobs_of_study(study, tmp_path, Compute()), tmp_path)
    assert "learn from" not in capsys.readouterr().out


def test_folders_of_equal_names_are_not_each_other(tmp_path: Path) -> None:
    days = [tmp_path / f"day{day}" / "kitchen" for day in range(4)]
    for day in days:
        write_frames(day, 4, "rgb/{i}.png", "depth/{i}.png", "label/{i}.png")
    study = _partly_labelled(tmp_path / "data")
    roots = {"--data.root": f"[{days[0]}, {days[1]}]", "--data.eval_root": f"[{days[2]}, {days[3]}]"}

    def placed(words: tuple[str, ...]) -> tuple[str, ...]:
        at = words.index("--data.root")
        return (*words[:at], *words[at + 2 :], *(word for pair in roots.items() for word in pair))

    study = replace(study, words=placed(study.words), pretraining_words=placed(study.pretraining_words))
    check_runs(jobs_of_study(study, tmp_path, Compute()), tmp_path)
    roots["--data.root"] = f"[{days[0]}, {days[3]}]"
    seen = replace(study, pretraining_words=placed(_partly_labelled(tmp_path / "data").pretraining_words))
    with pytest.raises(ConfigError, match=r"learns from \d+ of the 8 pictures .*day3/kitchen"):
        check_runs(jobs_of_study(seen, tmp_path, Compute()), tmp_path)
