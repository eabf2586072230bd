"""Few labels on data of one's own: real frames from end to end, and what the command line must say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.shared_data import shared
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.few_labels.jobs import jobs_of_study
from m33d_hf.experiments.few_labels.study import Amount, Start, Study
from m33d_hf.experiments.few_labels.tables import results_of
from m33d_hf.experiments.jobs import check_jobs
from m33d_hf.experiments.report.answers import declared
from m33d_hf.experiments.report.results import cell
from m33d_hf.scripts.few_labels import main, read, study_of
from m33d_hf.training.recipe.parsing import resolve

TINY = [
    *("--model.image_size", "32", "--model.patch_size", "8", "--model.hidden_size", "32", "--model.num_hidden_layers"),
    *("2", "--model.num_attention_heads", "2", "--model.intermediate_size", "64", "--train.batch_size", "4"),
    *("--data.num_workers", "0"),
]
HEAD = [
    *("--model.segmentation_head_width", "16", "--model.segmentation_head_depth", "1"),
    *("--model.segmentation_head_upscale", "1", "--evaluation.batch_size", "8", "--data.max_eval_samples", "8"),
]


def _study(**changes: Any) -> Study:
    words = ("--recipe", "rooms/semseg", "--train.max_steps", "40")
    usual: dict[str, Any] = {
        "task": "semantic_segmentation", "words": words,
        "pretraining_words": ("--recipe", "rooms/pretrain", "--train.max_steps", "60"),
        "starts": (Start("scratch"), Start("mae", method="mae"), Start("given", checkpoints=("a", "b"))),
        "amounts": (Amount(share=0.2), Amount(number=50)), "seeds": (0, 1, 2), "draws": 2,
    }  # fmt: skip
    return Study(**{**usual, **changes})


def test_every_start_has_every_amount_and_its_own_seeds(tmp_path: Path) -> None:
    study = _study()
    study.check()
    jobs = {job.id: job for job in jobs_of_study(study, tmp_path, Compute())}
    check_jobs(list(jobs.values()))
    assert len(jobs) == 3 + (3 + 3 + 2) * 2 * 2, "pre-trainings of mae, and two checkpoints have two seeds"
    row = jobs["labels-0.2-mae-s1-f1"]
    assert row.needs == ("pretrain-mae-s1",)
    args = resolve([*row.parameters["argv"], "--output_dir", "x"], study.task).args
    assert args.init_from == jobs["pretrain-mae-s1"].parameters["output_dir"]
    assert (args.seed, args.data.subset_seed, args.data.label_fraction) == (1001, 1001, 0.2)
    assert (args.train.max_steps, args.optim.warmup_steps) == (40, 2)
    assert args.data.max_train_samples is None, "rooms/semseg has 200, which would be all that a share is of"
    given = resolve([*jobs["labels-50-samples-given-s1"].parameters["argv"], "--output_dir", "x"], study.task).args
    assert (given.init_from, given.data.max_train_samples, given.seed) == ("b", 50, 1)
    scratch = resolve([*jobs["labels-0.2-scratch-s1-f1"].parameters["argv"], "--output_dir", "y"], study.task).args
    a, b = args.to_dict(), scratch.to_dict()
    assert {key for key in a if a[key] != b[key]} == {"init_from", "output_dir"}
    before = resolve([*jobs["pretrain-mae-s1"].parameters["argv"], "--output_dir", "x"], "pretraining").args
    assert (before.method, before.seed, before.train.max_steps) == ("mae", 1, 60)


def test_fine_tunings_are_averaged_and_every_start_is_compared_with_the_first(tmp_path: Path) -> None:
    study = _study(amounts=(Amount(number=50),))
    rows: dict[str, dict[str, Any]] = {}
    for job in jobs_of_study(study, tmp_path, Compute()):
        gain = 0.1 * ("mae" in job.id) + 0.02 * job.id.endswith("f1") + 0.01 * ("-s1" in job.id)
        gain += 0.002 * job.id.startswith("labels-50-samples-mae-s2")
        metrics = {"miou": 0.3 + gain, "floor/miou": 0.1 + 0.04 * ("mae" in job.id)}
        rows[job.id] = {"status": "done", "metrics": metrics, "steps": 1, "seconds": 1.0, "flops": 1.0,
                        "loss_floors": {}, "cpu_seconds": 1.0, "wall_seconds": 2.0}  # fmt: skip
    results = results_of(study, rows)
    measured = [job for job in rows if job.startswith("labels")]
    (column,) = (one for one in results["columns"] if one["metric"] == "miou")
    share = sum("mae" in job for job in measured) / len(measured)
    assert column["floor"] == pytest.approx(0.1 + 0.04 * share) and 0 < share < 1
    assert cell(results, "mae", "labels-50-samples").values == pytest.approx((41.0, 42.0, 41.2))
    first, second = declared(results)
    assert (first.pair.better, first.pair.than) == ("mae", "scratch") and first.verdict == "better"
    assert (second.pair.better, second.n) == ("given", 2) and second.verdict == "no difference shown"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "pretraining"}, "must be one of semantic_segmentation"),
        ({"temporal_words": ("--recipe", "own/phases")}, "semantic_segmentation has one stage"),
        ({"starts": (Start("scratch"),)}, "two or more"),
        ({"starts": (Start("a"), Start("a"))}, "each with its own name"),
        ({"amounts": ()}, "give one"),
        ({"amounts": (Amount(share=1.5),)}, "at most 1"),
        ({"seeds": (0, 0)}, "once each"),
        ({"starts": (Start("a"), Start("b", checkpoints=("1", "2", "3", "4")))}, "4 checkpoints"),
        ({"starts": (Start("a"), Start("b", checkpoints=("1", "1")))}, "would count as two seeds"),
        (
            {"words": ("--recipe", "rooms/semseg", "--init_from", "x")},
            "weights of every start, also of one from scratch",
        ),
        ({"words": ("--recipe", "rooms/semseg")}, "a fine-tuning needs --train.max_steps"),
        ({"pretraining_words": ("--recipe", "rooms/pretrain")}, "a pre-training needs --train.max_steps"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_it_is_run(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _study(**changes).check()


@pytest.mark.parametrize(
    ("recipe", "task"),
    [("scannet_semseg", "semantic_segmentation"), ("nyuv2_semseg", "semantic_segmentation"),
     ("nyuv2_depth", "depth_estimation"), ("own/semseg", "semantic_segmentation"), ("own/depth", "depth_estimation"),
     ("ucf101_finetune", "video_classification")],
)  # fmt: skip
def test_every_recipe_of_one_stage_gives_its_rows(recipe: str, task: str, tmp_path: Path) -> None:
    words = ("--recipe", recipe, "--data.root", "DATA", "--train.max_steps", "100")
    study = _study(
        task=task, words=words, starts=(Start("scratch"), Start("mae", checkpoints=("a", "b"))), seeds=(0, 1)
    )
    study.check()
    for job in jobs_of_study(study, tmp_path, Compute(device="cuda", precision="bf16")):
        args = resolve([*job.parameters["argv"], "--output_dir", "x"], task).args
        assert args.data.root == "DATA" and not args.cpu and args.evaluation.at_end


def _done(study: Study, folder: Path, encoders: dict[str, int], samples: int = 6) -> dict[str, dict[str, Any]]:
    """Rows of a study, by the width of each start's encoder."""
    return {
        job.id: {
            "status": "done", "metrics": {"miou": 0.3}, "encoder": {"hidden_size": encoders[start], "num_frames": 1},
            "data": {"samples": samples + job.id.endswith("s1"), "samples_in_source": 24, "sequences": [1, 4]},
        }
        for job in jobs_of_study(study, folder, Compute()) for start in encoders if f"-{start}-s" in job.id
    }  # fmt: skip


def test_starts_that_differ_in_more_than_weights_are_told_with_the_verdict(tmp_path: Path) -> None:
    study = _study(starts=(Start("scratch"), Start("given", checkpoints=("a", "b", "c"))), draws=1)
    results = results_of(study, _done(study, tmp_path, {"scratch": 128, "given": 768}))
    told = "(scratch: hidden_size 128; given: hidden_size 768)"
    assert told in results["questions"][0]["because"] and told in results["tables"][0]["note"]
    alike = results_of(study, _done(study, tmp_path, {"scratch": 768, "given": 768}))
    assert "more than their weights" not in str(alike)


def test_a_share_says_how_many_samples_it_was(tmp_path: Path) -> None:
    """Scenes are drawn whole: a tenth of four scenes is one, a quarter."""
    study = _study(starts=(Start("a"), Start("b")), amounts=(Amount(share=0.1),), draws=1)
    note = results_of(study, _done(study, tmp_path, {"a": 1, "b": 1}))["tables"][0]["note"]
    assert note.endswith("Trained on: 10 % of the labels: 6 to 7 of 24 samples (1 of 4 sequences).")
    clips = {name: {**row, "data": {"samples": 8, "videos": 1, "videos_in_source": 5}}
             for name, row in _done(study, tmp_path, {"a": 1, "b": 1}).items()}  # fmt: skip
    note = results_of(study, clips)["tables"][0]["note"]
    assert note.endswith("Trained on: 10 % of the labels: 8 samples (1 of 5 videos).")
    before = {name: {k: v for k, v in row.items() if k != "data"}
              for name, row in _done(study, tmp_path, {"a": 1, "b": 1}).items()}  # fmt: skip
    assert "Trained on" not in results_of(study, before)["tables"][0]["note"], "rows of earlier versions"


def test_a_pretraining_has_the_encoder_of_its_fine_tunings() -> None:
    words = [
        *("--recipe", "own/semseg", "--train.max-steps=5", "--model.hidden-size=32", "--model.image_size", "48", "64"),
        *("--model.drop_path_rate", "0.1", "--labels", "4", "--start", "a", "--start", "b=method:mae"),
        *("--pretrain_steps", "3", "--pretrain", "model.image_size=96"),
    ]
    study = study_of(*read(words))
    study.check()
    assert study.words[2:] == ("--train.max_steps", "5", "--model.hidden_size", "32", "--model.image_size", "48", "64",
                               "--model.drop_path_rate", "0.1")  # fmt: skip
    before = resolve(
        [*study.pretraining_words, "--method", "mae", "--data.root", "x", "--output_dir", "y"], "pretraining"
    )
    assert (before.args.model["hidden_size"], before.args.model["image_size"]) == (32, 96)
    assert "drop_path_rate" not in before.args.model


def test_a_checkpoint_that_is_not_there_is_met_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--recipe",
        "own/semseg",
        "--data.root",
        "x",
        "--train.max_steps",
        "3",
        "--labels",
        "5",
        "--start",
        "scratch",
    ]
    assert main([*words, "--start", f"mae={tmp_path}/nothing", "--output_dir", str(tmp_path / "out")]) == 2
    assert f"--start mae: {tmp_path}/nothing is no file, folder or repository" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    _study(
        starts=(Start("a"), Start("b", checkpoints=("facebook/vit-mae-base@main", str(tmp_path))))
    ).check_checkpoints()


def test_a_wrong_command_line_is_an_error_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "own/semseg", "--data.root", "x", "--start", "scratch", "--start", "mae=method:mae"]
    assert main([*words, "--labels", "5"]) == 2
    assert "a fine-tuning needs --train.max_steps N: with epochs, fewer labels" in capsys.readouterr().err


def _small_office(folder: Path) -> Path:
    """Real frames, their depth and labels, at an eighth of their size: decoding would take most of the time."""
    office = shared("research_only/replica_office0")
    for kind in ("color", "depth", "label"):
        (folder / kind).mkdir(parents=True)
        for path in sorted((office / kind).iterdir()):
            with Image.open(path) as picture:
                small = (picture.width // 8, picture.height // 8)
                how = Image.Resampling.BILINEAR if kind == "color" else Image.Resampling.NEAREST
                picture.resize(small, how).save(folder / kind / f"{path.stem}.png")
    return folder


def test_real_labelled_frames_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """54 frames of one office: too few to say anything of a method, but all of the way is walked."""
    root = _small_office(tmp_path / "office")
    words = [
        *("--recipe", "own/semseg", "--data.root", str(root), "--data.options.num_classes", "101", *TINY, *HEAD),
        *("--train.max_steps", "3", "--labels", "24", "--seeds", "0", "1", "--workers", "1"),
        *("--start", "scratch", "--start", "mae=method:mae", "--pretrain_steps", "3"),
        *("--output_dir", str(tmp_path / "out"), "--data.allow_missing_classes", "true"),
    ]
    assert main(words) == 0, capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {(row["variant"], row["column"], row["seed"]) for row in results["rows"]} == {
        (name, "labels-24-samples", seed) for name in ("scratch", "mae") for seed in (0, 1)
    }
    assert all(row["status"] == "done" and 0 <= row["value"] <= 1 for row in results["rows"])
    assert len(results["pretraining"]) == 2 and all(entry["flops"] > 0 for entry in results["pretraining"])
    tables = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    assert (
        "Trained on: 24 labels: 24 of " in tables and "rooms" not in tables and "more than their weights" not in tables
    )
    said = (tmp_path / "out" / "answers.md").read_text(encoding="utf-8")
    assert "mae over scratch" in said and "mIoU %, 24 labels" in said and "95 % interval" in said
    assert main(["--recipe", "own/semseg", "--output_dir", str(tmp_path / "out"), "--report_only"]) == 0
