"""Few labels of two stages, clips and then whole videos: the same cases in both, never a part of one, two figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.phases_in_memory import arguments, first_stage
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.few_labels.jobs import jobs_of_study
from m33d_hf.experiments.few_labels.opening import opened
from m33d_hf.experiments.few_labels.study import Amount, Start, Study
from m33d_hf.experiments.few_labels.tables import pretrained_words, results_of
from m33d_hf.experiments.jobs import check_jobs
from m33d_hf.experiments.report.answers import declared
from m33d_hf.experiments.report.results import cell
from m33d_hf.scripts.few_labels import main, read, study_of
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.settling.settle import settle
from m33d_hf.training.tasks.base import build_task
from m33d_hf.training.tasks.detection.data import training_share
from m33d_hf.training.tasks.detection.first_stage import load_first_stage
from m33d_hf.training.tasks.pretraining import PretrainingTask

SIDE = 16
PHASES = {"r": "rest", "c": "cut", "s": "sew"}
SIZES = {"image_size": "16", "patch_size": "8", "num_frames": "2", "hidden_size": "16", "num_hidden_layers": "1",
         "num_attention_heads": "2", "intermediate_size": "32"}  # fmt: skip
TINY = [word for key, value in SIZES.items() for word in (f"--model.{key}", value)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of frames for training, every second one by two cameras, and two for validation."""
    folder = tmp_path_factory.mktemp("cases")
    texts = ["rrrrccccssss", "ccccrrrrssss", "ssssccccrrrr", "rrrrssss", "ccccssssrrrr", "ssssrrrrcccc"]
    for number, text in enumerate([*texts, "rrrrccccssss", "ssssrrrrcccc"]):
        name = f"{'train' if number < 6 else 'held'}{number}"
        for camera in range(1 + number % 2):
            place = folder / "videos" / f"{name}_cam{camera}"
            place.mkdir(parents=True)
            for frame, letter in enumerate(text):
                shade = 60 + 60 * list(PHASES).index(letter)
                Image.new("RGB", (SIDE, SIDE), (shade, frame, 9)).save(place / f"{frame:03}.png")
        lines = "".join(f"{frame}\t{PHASES[letter]}\n" for frame, letter in enumerate(text))
        (folder / "phase_annotations").mkdir(exist_ok=True)
        (folder / "phase_annotations" / f"{name}-phase.txt").write_text(f"Frame\tPhase\n{lines}", encoding="utf-8")
    (folder / "train.txt").write_text("".join(f"train{number}\n" for number in range(6)), encoding="utf-8")
    (folder / "validation.txt").write_text("held6\nheld7\n", encoding="utf-8")
    return folder


def study(**changes: Any) -> Study:
    usual: dict[str, Any] = {
        "task": "action_detection",
        "words": ("--recipe", "own/phases_clips", "--data.root", "DATA", "--train.max_steps", "40"),
        "temporal_words": ("--recipe", "own/phases", "--data.root", "DATA", "--train.max_steps", "20"),
        "pretraining_words": ("--recipe", "own/pretrain_clips", "--data.root", "DATA", "--train.max_steps", "60"),
        "starts": (Start("scratch"), Start("mae", method="videomae"), Start("given", checkpoints=("a", "b"))),
        "amounts": (Amount(share=0.2), Amount(share=1.0)), "seeds": (0, 1), "draws": 2,
    }  # fmt: skip
    return Study(**{**usual, **changes})


def stages(parameters: Any) -> tuple[RunArguments, RunArguments]:
    clips = resolve([*parameters["clip_argv"], "--output_dir", "x"], "video_classification").args
    return clips, resolve([*parameters["temporal_argv"], "--output_dir", "x"], "action_detection").args


def test_a_pretraining_reads_the_videos_of_the_two_stages(root: Path) -> None:
    """Also cases by several cameras; own/pretrain_clips alone reads folders of frames, which know no such option."""
    words = ["--recipe", "own/phases_clips", "--data.root", str(root), "--data.options.cameras", "_cam*"]
    words += ["--temporal_recipe", "own/phases", "--start", "scratch", "--start", "mae=method:videomae"]
    found = study_of(*read([*words, "--pretrain_steps", "2", "--fractions", "1"]))
    given = [*found.pretraining_words, "--method", "videomae", "--data.options.clip_span", "4"]
    args = settle(resolve([*given, *TINY, "--output_dir", "x"], "pretraining")).args
    task = PretrainingTask()
    dataset, _ = task.build_datasets(args, build_model(args, task))
    assert args.data.source == "phases" and len(dataset) > 6
    other = study_of(*read([*words, "--pretrain_recipe", "own/pretrain_clips", "--fractions", "1"]))
    assert "--data.source" not in other.pretraining_words


def test_a_pretraining_learns_from_the_cases_without_annotations_too(root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(root, tmp_path / "cases"))
    for number in (1, 2, 5):
        (folder / f"phase_annotations/train{number}-phase.txt").unlink()
    words = ["--recipe", "own/phases_clips", "--data.root", str(folder), "--data.options.cameras", "_cam*"]
    words += ["--data.options.clip_span", "4", "--data.options.fps", "5", *TINY, "--train.max_steps", "2"]
    words += ["--temporal_recipe", "own/phases", "--temporal_steps", "2", "--pretrain_steps", "2"]
    found = study_of(*read([*words, "--start", "scratch", "--start", "mae=method:videomae", "--fractions", "1"]))

    def cases(name: str, argv: Sequence[str]) -> set[str]:
        train_set = opened(name, argv, str(tmp_path / "out")).train_set
        groups = train_set.source.groups() or []
        return {groups[row] for row in train_set.indices}

    every = {f"train{number}" for number in range(6)}
    assert cases("pretraining", [*found.pretraining_words, "--method", "videomae"]) == every
    assert cases("video_classification", found.words) == every - {"train1", "train2", "train5"}


def test_the_table_says_how_much_pretrainings_learnt_from() -> None:
    chosen = study(amounts=(Amount(share=0.2),), draws=1, starts=(Start("scratch"), Start("mae", method="videomae")))
    rows: dict[str, Any] = {
        f"pretrain-mae-s{seed}": {"data": {"samples": 40, "videos": 6, "videos_in_source": 6}} for seed in (0, 1)
    }
    assert pretrained_words(chosen, rows) == ["Pre-trained on: 40 samples (6 of 6 videos)."]
    assert pretrained_words(chosen, {}) == [], "rows of earlier versions"


def test_both_stages_have_the_same_labels_and_every_start_the_same_settings(tmp_path: Path) -> None:
    study().check()
    jobs = {job.id: job for job in jobs_of_study(study(), tmp_path, Compute())}
    check_jobs(list(jobs.values()))
    assert len(jobs) == 2 + 3 * 2 * 2 * 2
    clips, videos = stages(jobs["labels-0.2-mae-s1-f1"].parameters)
    assert jobs["labels-0.2-mae-s1-f1"].needs == ("pretrain-mae-s1",)
    assert clips.init_from == jobs["pretrain-mae-s1"].parameters["output_dir"] and videos.init_from is None
    for args in (clips, videos):
        assert (args.data.label_fraction, args.data.subset_seed, args.seed, args.data.root) == (0.2, 1001, 1001, "DATA")
    assert (clips.train.max_steps, clips.optim.warmup_steps, clips.evaluation.at_end) == (40, 2, False)
    assert (videos.train.max_steps, videos.optim.warmup_steps, videos.evaluation.at_end) == (20, 1, True)
    scratch, temporal = stages(jobs["labels-0.2-scratch-s1-f1"].parameters)
    assert temporal.to_dict() == videos.to_dict()
    a, b = clips.to_dict(), scratch.to_dict()
    assert {key for key in a if a[key] != b[key]} == {"init_from"}


@pytest.mark.parametrize(
    ("recipe", "temporal"), [("own/phases_clips", "own/phases"), ("orar_finetune", "orar_temporal")]
)
def test_the_recipes_of_two_stages_give_rows(recipe: str, temporal: str, tmp_path: Path) -> None:
    data = ("--data.root", "DATA", "--train.max_steps", "100")
    of_both = {"words": ("--recipe", recipe, *data), "temporal_words": ("--recipe", temporal, *data)}
    found = study(**of_both, starts=(Start("scratch"), Start("given", checkpoints=("a", "b"))))
    found.check()
    for job in jobs_of_study(found, tmp_path, Compute(device="cuda", precision="bf16")):
        for args in stages(job.parameters):
            assert (args.train.max_steps, args.train.epochs, args.optim.warmup_steps) == (100, None, 5)
            assert args.data.root == "DATA" and not args.cpu


def test_shares_are_of_whole_cases_the_same_in_both_stages(root: Path, tmp_path: Path) -> None:
    stage = first_stage(tmp_path / "stage", sorted(PHASES.values()))
    drawn = set()
    for seed in range(4):
        clips, videos = RunArguments(task="video_classification", output_dir=str(tmp_path)), arguments(tmp_path, stage)
        clips.model = {key: int(value) for key, value in SIZES.items()}
        for args in (clips, videos):
            args.data.source, args.data.root, args.data.frame_stride = "phases", str(root), 2
            args.data.options = {"clip_span": 4, "fps": 5.0, "cameras": "_cam*"}
            args.data.label_fraction, args.data.subset_seed, args.data.allow_missing_classes = 0.5, seed, True
        task = build_task("video_classification")
        train_set = task.build_datasets(clips, task.build_model(clips))[0]
        groups = train_set.source.groups()
        assert groups is not None
        first = {groups[row] for row in train_set.indices}
        share = training_share(videos, load_first_stage(videos)[0], ("rgb",))
        assert first == {share.source.videos[row].group for row in share.rows} and len(first) == 3
        whole = {row for row, group in enumerate(groups) if group in first}
        assert set(train_set.indices) == whole, "no case is cut, and all of its cameras come along"
        drawn.add(frozenset(first))
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"temporal_words": ()},
            r"two stages: give --recipe of the clips .*--temporal_recipe .*--task video_classific",
        ),
        (
            {"temporal_words": ("--recipe", "own/phases")},
            r"the second stage \(--temporal_steps\) needs --train.max_ste",
        ),
        (
            {"amounts": (Amount(number=50),)},
            r"--labels counts samples, which are clips in one stage .*--fractions 0\.2",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_before_it_is_run(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(**changes).check()


def test_the_first_figure_decides_and_both_have_a_question(tmp_path: Path) -> None:
    chosen = study(
        amounts=(Amount(share=0.2),), draws=1, starts=(Start("scratch"), Start("given", checkpoints=("a", "b")))
    )
    rows: dict[str, dict[str, Any]] = {}
    for job in jobs_of_study(chosen, tmp_path, Compute()):
        gain = 0.1 * ("given" in job.id) + 0.001 * job.id.endswith("s1")
        rows[job.id] = {"status": "done", "metrics": {"map": 0.3 + gain, "video_accuracy": 0.6 + gain / 2}, "steps": 1,
                        "seconds": 1.0, "cpu_seconds": 1.0, "wall_seconds": 2.0}  # fmt: skip
    results = results_of(chosen, rows)
    assert [column["title"] for column in results["columns"]] == [
        "mAP %, 20 % of the labels", "accuracy per video %, 20 % of the labels",
    ]  # fmt: skip
    assert cell(results, "given", "labels-0.2").values == pytest.approx((40.0, 40.1))
    assert cell(results, "given", "labels-0.2-video_accuracy").values == pytest.approx((65.0, 65.05))
    assert [(question["id"], question.get("primary", False)) for question in results["questions"]] == [
        ("labels", True), ("video_accuracy", False),
    ]  # fmt: skip
    assert {found.pair.column for found in declared(results)} == {"labels-0.2", "labels-0.2-video_accuracy"}


def test_a_second_stage_that_does_not_fit_the_first_is_met_before_anything_is_trained(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two frames, 1 apart, span 2 of the 4 that clips are cut by: the first stage takes that, the second does not."""
    words = [
        *("--recipe", "own/phases_clips", "--data.root", str(root), *TINY, "--data.num_workers", "0"),
        *("--data.options.clip_span", "4", "--data.options.fps", "5", "--data.options.cameras", "_cam*"),
        *("--train.max_steps", "2", "--temporal_recipe", "own/phases", "--temporal_steps", "2"),
        *("--data.allow_missing_classes", "true", "--fractions", "0.5", "1", "--seeds", "0", "1", "--workers", "1"),
        *("--start", "scratch", "--start", "again", "--output_dir", str(tmp_path / "out")),
    ]
    assert main([*words, "--data.frame_stride", "1"]) == 2
    said = capsys.readouterr().err
    assert (
        "Nothing was trained" in said
        and "labels-0.5-scratch-s0, labels-1-scratch-s0: data.options.clip_span is 4" in said
    )
    assert "span 2 frames (num_frames 2 x data.frame_stride 1)" in said
    assert said.count("clip_span is 4") == 1 and not (tmp_path / "out" / "rows").exists()
    fitting = [*words, "--data.frame_stride", "2"]
    assert main([*fitting, "--temporal", "evaluation.metric=mIoU"]) == 2
    assert "mIoU" in capsys.readouterr().err
    assert main([*fitting, "--temporal", "model.hidden_size=64"]) == 2
    said = capsys.readouterr().err
    assert "the output of the first stage differs from the model that the run describes: hidden_size is 16" in said


@pytest.mark.slow
def test_two_stages_from_end_to_end(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too few videos to say anything, but all of the way is walked: frames on disk to a page with both figures."""
    options = ["--data.options.clip_span", "4", "--data.options.fps", "5", "--data.options.cameras", "_cam*"]
    words = [
        *("--recipe", "own/phases_clips", "--data.root", str(root), *options, "--data.frame_stride", "2", *TINY),
        *("--data.num_workers", "0", "--data.allow_missing_classes", "true", "--train.batch_size", "4"),
        *("--train.max_steps", "2", "--temporal_recipe", "own/phases", "--temporal_steps", "2"),
        *("--temporal", "model.temporal_hidden_size=8", "--fractions", "0.5", "--seeds", "0", "1", "--workers", "1"),
        *("--start", "scratch", "--start", "again", "--output_dir", str(tmp_path / "out")),
    ]
    assert main(words) == 0, capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    columns = ("labels-0.5", "labels-0.5-video_accuracy")
    found = {(row["variant"], row["column"], row["seed"]): row["value"] for row in results["rows"]}
    assert found.keys() == {(name, each, seed) for name in ("scratch", "again") for each in columns for seed in (0, 1)}
    assert all(0 <= value <= 1 for value in found.values())
    for seed in (0, 1):
        for column in columns:
            assert found["scratch", column, seed] == found["again", column, seed], "the same command twice"
        (run,) = (tmp_path / "out" / "runs").glob(f"labels-0.5-scratch-s{seed}-*")
        told = [json.loads((run / stage / "train_config.json").read_text()) for stage in ("clips", "temporal")]
        assert {each["args"]["data"]["subset_seed"] for each in told} == {seed}
        scores = json.loads((run / "temporal" / "evaluation" / "scores.json").read_text(encoding="utf-8"))["metrics"]
        assert [scores[name] for name in ("map", "video_accuracy")] == [
            found["scratch", each, seed] for each in columns
        ]
        assert not (run / "temporal" / "features").exists()
    said = (tmp_path / "out" / "answers.md").read_text(encoding="utf-8")
    assert "mAP %, 50 % of the labels" in said and "accuracy per video %, 50 % of the labels" in said
