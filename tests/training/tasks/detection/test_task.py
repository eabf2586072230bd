"""The second stage through the real loop: from a first stage's folder to scores, and what is refused on the way."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from helpers.launching import assert_same_weights, without_timing
from helpers.phases_in_memory import DEFAULT, MODEL, NAMES, SIDE, MemoryVideo, arguments, first_stage, register
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.errors import CheckpointError, ConfigError, DataError
from m33d_hf.evaluation.detection_results import VideoResult, detection_metrics, video_rows
from m33d_hf.evaluation.frame_votes import frame_phases, frame_probabilities
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection.evaluation_files import draw_timelines
from m33d_hf.training.tasks.detection.feature_dataset import FeatureCollator
from m33d_hf.training.tasks.detection.task import HEADLINE, ActionDetectionTask


@pytest.fixture(autouse=True)
def _memory() -> None:
    register()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return first_stage(tmp_path_factory.mktemp("stage") / "one")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, stage: str) -> str:
    """Features of the default videos, extracted once for all tests that do not look at the extraction."""
    register()
    folder = tmp_path_factory.mktemp("features")
    args, task = arguments(folder, stage), ActionDetectionTask()
    task.extract(args, build_model(args, task))
    return str(folder / "features")


def _datasets(args: Any) -> tuple[Any, Any, ActionDetectionTask, Any]:
    task = ActionDetectionTask()
    model = build_model(args, task)
    return *task.build_datasets(args, model), task, model


def test_a_run_leaves_a_whole_model_scores_and_timelines(tmp_path: Path, stage: str) -> None:
    result = train(arguments(tmp_path, stage), ActionDetectionTask())
    model = M33DForVideoActionDetection.from_pretrained(tmp_path)
    assert model.config.temporal_frame_stride == 2 and model.config.temporal_clip_stride == 4
    assert list(model.config.id2label.values()) == NAMES and model.config.temporal_hidden_size == 8
    before, after = load_file(Path(stage) / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())  # the first stage is as it was
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"gru", "temporal_classifier"}
    assert json.loads((tmp_path / "initialisation.json").read_text())["new"].keys() == after.keys() - before.keys()
    wanted = {"map", "clip_map", "frame_map", "clip_accuracy", "frame_accuracy", "edit", "f1_10", "f1_25", "f1_50"}
    names = {f"eval/{prefix}{name}" for prefix in ("", "clipwise/") for name in wanted}
    assert names <= result.metrics.keys() and {"eval/ap/cut", "eval/loss"} <= result.metrics.keys()
    known = ActionDetectionTask().metric_names(arguments(tmp_path, stage), model)
    assert result.metrics.keys() <= {f"eval/{name}" for name in known}
    assert all(0 <= result.metrics[name] <= 1 for name in names)
    with (tmp_path / "evaluation" / "videos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == ["validation/v0", "validation/v1"]
    assert [(row["clips"], row["annotated_frames"]) for row in rows] == [("8", "30"), ("4", "13")]
    scores = json.loads((tmp_path / "evaluation" / "scores.json").read_text())
    assert scores["metrics"]["map"] == result.metrics["eval/map"] and scores["absent_classes"] == []
    assert len(list((tmp_path / "evaluation").glob("timeline_*.png"))) == 2
    accuracies = [float(row["frame_accuracy"]) for row in rows]
    assert scores["metrics"]["video_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-4)
    left = {path.relative_to(tmp_path / "evaluation").as_posix() for path in (tmp_path / "evaluation").rglob("*.csv")}
    assert left == {
        *("videos.csv", "phase_metrics.csv", "phases.csv", "video_phases.csv", "calibration.csv", "confusion.csv"),
        *("frames/0000_validation_v0.csv", "frames/0001_validation_v1.csv"),
    }
    assert (tmp_path / "evaluation" / "confusion_matrix.png").stat().st_size > 5000
    told = json.loads((tmp_path / "train_config.json").read_text())["data"]
    assert told["clips"] == 9 + 7 + 8 and told["features"]["clip"]["clip_stride"] == 4


def test_only_the_recurrent_net_learns(tmp_path: Path, stage: str, features: str) -> None:
    args = arguments(tmp_path, stage)
    args.features.dir, args.train.max_steps, args.data.eval_split = features, 30, None
    result = train(args, ActionDetectionTask())
    losses = [row["loss"] for row in result.history]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    trained = M33DForVideoActionDetection.from_pretrained(tmp_path)
    fresh = build_model(args, ActionDetectionTask())
    moved = {n for n, p in fresh.named_parameters() if not torch.equal(p, trained.get_parameter(n))}
    assert moved == {n for n, p in fresh.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in moved} == {"gru", "temporal_classifier"}


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path: Path, stage: str, features: str) -> None:
    args = arguments(tmp_path / "whole", stage)
    args.features.dir, args.train.max_steps, args.checkpoint.every_steps = features, 5, 2
    whole = train(args, ActionDetectionTask())
    args.checkpoint.keep_last, args.output_dir = 9, str(tmp_path / "again")
    train(args, ActionDetectionTask())
    for late in ("step_00000004", "step_00000005"):
        shutil.rmtree(tmp_path / "again" / "checkpoints" / late)
    resumed = train(args, ActionDetectionTask())
    assert resumed.step == 5
    assert_same_weights(tmp_path / "whole", tmp_path / "again")
    assert without_timing(resumed.history) == without_timing(whole.history)


def _stop_in_save(self: ActionDetectionTask, *_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("killed", ["before saving", "while drawing"])
def test_timelines_that_a_killed_run_did_not_draw_are_drawn_by_the_next(
    tmp_path: Path, stage: str, features: str, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = arguments(tmp_path / "out", stage)
    args.features.dir = features
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ActionDetectionTask, "save" if killed == "before saving" else "_draw", _stop_in_save)
        train(args, ActionDetectionTask())
    evaluation = tmp_path / "out" / "evaluation"
    scores = (evaluation / "scores.json").read_text()
    assert not list(evaluation.glob("timeline_*.png"))
    again = train(args, ActionDetectionTask())
    assert len(list(evaluation.glob("timeline_*.png"))) == 2 and (evaluation / "scores.json").read_text() == scores
    assert [row["kind"] for row in again.history].count("eval") == 1
    assert (tmp_path / "out" / "initialisation.json").is_file()
    whole = arguments(tmp_path / "whole", stage)
    whole.features.dir = features
    train(whole, ActionDetectionTask())
    for picture in evaluation.glob("timeline_*.png"):
        assert picture.read_bytes() == (tmp_path / "whole" / "evaluation" / picture.name).read_bytes()


def test_padding_and_batches_change_nothing(tmp_path: Path, stage: str, features: str) -> None:
    outcomes = []
    for name, batch, accumulation in (("padded", 3, 1), ("single", 1, 3)):
        args = arguments(tmp_path / name, stage)
        args.features.dir, args.train.batch_size, args.train.accumulation = features, batch, accumulation
        args.model["temporal_dropout"] = 0.0
        args.evaluation.batch_size = batch
        outcomes.append(train(args, ActionDetectionTask()))
    for name, value in outcomes[0].metrics.items():
        assert outcomes[1].metrics[name] == pytest.approx(value, abs=1e-5), name
    first, second = (load_file(outcome.output_dir / "model.safetensors") for outcome in outcomes)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("causal", [False, True])
def test_order_matters_and_causal_models_never_see_the_future(
    tmp_path: Path, stage: str, features: str, causal: bool
) -> None:
    args = arguments(tmp_path, stage)
    args.features.dir, args.model["temporal_causal"] = features, causal
    dataset, _, _, model = _datasets(args)
    model.eval()
    batch = FeatureCollator(train=True)([dataset[0, 0]])
    inputs = {name: batch[name] for name in ("features", "attention_mask")}
    with torch.no_grad():
        plain = model(**inputs).logits
        clips = plain.shape[1]
        order = torch.randperm(clips, generator=torch.Generator().manual_seed(0))
        shuffled = model(features=inputs["features"][:, order], attention_mask=inputs["attention_mask"]).logits
        changed = inputs["features"].clone()
        changed[:, 5:] += 1.0
        later = model(features=changed, attention_mask=inputs["attention_mask"]).logits
    # Put back in order, the logits of the shuffled clips would be the same if order did not matter.
    assert (shuffled - plain[:, order]).abs().max() > 1e-4
    assert (later[:, 5:] - plain[:, 5:]).abs().min() > 0
    assert torch.equal(later[:, :5], plain[:, :5]) == causal


def test_label_fractions_take_whole_videos(tmp_path: Path, stage: str) -> None:
    videos = {**DEFAULT, "train": [text * 2 for text in DEFAULT["train"]] + ["9" * 12]}
    args = arguments(tmp_path, stage, videos=videos)
    dataset, *_ = _datasets(args)
    assert dataset.indices == [0, 1, 2]  # the last has no label
    args.data.label_fraction = 0.34
    few, *_ = _datasets(args)
    assert len(few) == 1 and set(few.indices) < {0, 1, 2}
    # The unlabelled video never had to be extracted.
    assert len(list((tmp_path / "features" / "train").glob("*.parquet"))) == 3


def test_a_phase_never_seen_in_training_is_named(tmp_path: Path, stage: str) -> None:
    names = [*NAMES, "Suture!"]
    videos = {**DEFAULT, "validation": ["0011", "0033"]}
    with pytest.raises(DataError, match=r"'Suture!' \(in validation/v1\).*phases are 'rest', 'cut', 'sew'"):
        _datasets(arguments(tmp_path, stage, names=names, videos=videos))
    assert not (tmp_path / "features").exists()  # found out before anything is extracted
    _datasets(arguments(tmp_path, stage, names=names))  # a name that no frame has does not matter


def test_a_class_without_a_training_clip_is_named(tmp_path: Path, stage: str) -> None:
    videos = {**DEFAULT, "train": ["0" * 8 + "1" * 8]}
    args = arguments(tmp_path, stage, videos=videos)
    with pytest.raises(DataError, match=r"sew.*data\.allow_missing_classes"):
        _datasets(args)
    args.data.allow_missing_classes = True
    assert len(_datasets(args)[0]) == 1


def test_evaluation_data_without_annotation_is_refused(tmp_path: Path, stage: str) -> None:
    with pytest.raises(DataError, match="None of the 1 evaluation videos"):
        _datasets(arguments(tmp_path, stage, videos={**DEFAULT, "validation": ["9999"]}))


def test_absent_classes_are_listed_and_leave_the_mean(tmp_path: Path, stage: str) -> None:
    args = arguments(tmp_path, stage, videos={**DEFAULT, "validation": ["0" * 8 + "1" * 8]})
    metrics = train(args, ActionDetectionTask()).metrics
    assert metrics["eval/absent_classes"] == 1 and "eval/ap/sew" not in metrics
    mean = (metrics["eval/ap/rest"] + metrics["eval/ap/cut"]) / 2
    assert metrics["eval/map"] == pytest.approx(mean)
    assert json.loads((tmp_path / "evaluation" / "scores.json").read_text())["absent_classes"] == ["sew"]


def test_what_the_second_stage_cannot_start_from(tmp_path: Path, stage: str) -> None:
    args = arguments(tmp_path, stage)
    args.init_from = None
    with pytest.raises(ConfigError, match="run_video_classification"):
        build_model(args, ActionDetectionTask())
    M33DForPreTraining(M33DConfig(**MODEL)).save_pretrained(tmp_path / "pre")
    with pytest.raises(CheckpointError, match="not a model of the first stage"):
        build_model(arguments(tmp_path, str(tmp_path / "pre")), ActionDetectionTask())
    args = arguments(tmp_path, stage)
    args.model.update(hidden_size=32, patch_size=[8, 8], num_frames=2)
    with pytest.raises(ConfigError, match=r"hidden_size is 16 there, 32 here\..*remove model\.hidden_size"):
        build_model(args, ActionDetectionTask())


def test_another_frame_stride_than_the_first_stage_had_is_noted(tmp_path: Path) -> None:
    stage = first_stage(tmp_path / "stage", temporal_frame_stride=4)
    task = ActionDetectionTask()
    build_model(arguments(tmp_path, stage), task)
    assert task.load_report is not None and "frames 4 apart, but the run reads them 2" in task.load_report.notes[0]


def test_a_trained_second_stage_is_taken_whole(tmp_path: Path, stage: str, features: str) -> None:
    args = arguments(tmp_path / "a", stage)
    args.features.dir = features
    train(args, ActionDetectionTask())
    again = arguments(tmp_path / "b", str(tmp_path / "a"))
    trained = load_file(tmp_path / "a" / "model.safetensors")
    model = build_model(again, ActionDetectionTask())
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    again.model["temporal_hidden_size"] = 16
    with pytest.raises(CheckpointError, match="must be those with which the second stage was trained"):
        build_model(again, ActionDetectionTask())


def test_evaluating_the_saved_model_gives_the_scores_of_the_training(tmp_path: Path, stage: str) -> None:
    args = arguments(tmp_path / "run", stage)
    args.features.clip_stride = 3
    trained = train(args, ActionDetectionTask()).metrics
    again = arguments(tmp_path / "judged", str(tmp_path / "run"))
    again.model, again.eval_only = {}, True
    found = evaluate_run(again, ActionDetectionTask())  # the clip stride is remembered
    assert {f"eval/{name}": value for name, value in found.items()} == pytest.approx(trained)
    assert not (tmp_path / "judged" / "features" / "train").exists()
    assert list((tmp_path / "judged" / "evaluation").glob("timeline_*.png"))
    again.data.frame_stride = 1
    with pytest.raises(ConfigError, match=r"frames 2 apart.*--data\.frame_stride 2"):
        evaluate_run(again, ActionDetectionTask())
    untrained = arguments(tmp_path / "judged", stage)
    with pytest.raises(CheckpointError, match="lacks 10 weights"):
        evaluate_run(untrained, ActionDetectionTask())


def test_an_evaluation_beside_a_training_reads_its_features(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    trained = train(arguments(run, stage), ActionDetectionTask()).metrics
    again = arguments(run / "evaluation", str(run))
    again.eval_only = again.dry_run = True
    task = ActionDetectionTask()
    planned: Any = task.build_eval_dataset(again, build_model(again, task))
    assert planned.store is not None and planned.store.folder == run / "features" / "validation"
    assert "2 samples in use" in dry_run(again, ActionDetectionTask())
    again.dry_run = False
    with monkeypatch.context() as patch:
        patch.setattr(MemoryVideo, "frame", None)  # no frame is read
        found = evaluate_run(again, ActionDetectionTask())
    assert {f"eval/{name}": value for name, value in found.items()} == pytest.approx(trained)
    assert not (run / "evaluation" / "features").exists()
    missing = next((run / "features" / "validation").glob("*_v1-*"))
    missing.unlink()
    evaluate_run(again, ActionDetectionTask())
    assert not missing.exists() and (run / "evaluation" / "features" / "validation" / missing.name).is_file()
    shutil.rmtree(run / "evaluation" / "features")
    again.data.eval_options["videos"] = {"validation": ["0" * 12 + "1" * 12 + "2" * 12]}
    evaluate_run(again, ActionDetectionTask())  # other videos, of which there are none beside
    assert (run / "evaluation" / "features" / "validation" / "features.json").is_file()


def test_a_run_ends_with_the_floor_of_its_training_clips(
    tmp_path: Path, stage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The floor is counted from the texts that the videos are made of; an evaluation prints the same."""
    videos = {"train": ["0" * 8 + "1" * 16, "1" * 8 + "2" * 8], "validation": DEFAULT["validation"]}
    args = arguments(tmp_path / "out", stage, videos=videos)
    args.evaluation.floor = args.logging.progress = True
    result = train(args, ActionDetectionTask())
    judged = "".join(videos["validation"])
    assert result.metrics["eval/floor/frame_accuracy"] == pytest.approx(judged.count("1") / len(judged))
    said = capfd.readouterr().err
    assert "commonest phase of the training clips (cut)" in said and "temporal model  " in said
    again = arguments(tmp_path / "judged", str(tmp_path / "out"), videos=videos)
    again.eval_only = again.evaluation.floor = True
    found = evaluate_run(again, ActionDetectionTask())
    assert {name for name in found if name.startswith("floor/")} == {f"floor/{name}" for name in HEADLINE}
    assert found["floor/map"] == pytest.approx(result.metrics["eval/floor/map"]) == pytest.approx(1 / 3)
    assert "commonest phase of the training clips (cut)" in capfd.readouterr().out
    assert not (tmp_path / "judged" / "features" / "train").exists(), "the floor reads no frame"


def test_sources_and_clip_options_that_do_not_fit_are_refused(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ConfigError, match=r"clip_span is 6, but the clips .* span 4.*--data\.options\.clip_span 4"):
        _datasets(arguments(tmp_path, stage, clip_span=6))
    with pytest.raises(ConfigError, match=r"--features\.clip_stride"):
        _datasets(arguments(tmp_path, stage, clip_stride=2))
    _datasets(arguments(tmp_path, stage, clip_span=4, unit="clips", drop_unlabelled=True))  # as the first stage had it
    args = arguments(tmp_path, stage)
    args.data.source, args.data.options = "rooms", {"num_frames": 2, "image_size": 16}
    args.data.cache_dir = str(tmp_path / "cache")
    with pytest.raises(ConfigError, match="annotated frame by frame"):
        _datasets(args)


def test_a_dry_run_tells_what_is_missing_and_writes_nothing(tmp_path: Path, stage: str) -> None:
    args = arguments(tmp_path / "out", stage)
    args.dry_run = True
    told = dry_run(args, ActionDetectionTask())
    assert "24 clips of 2 frames" in told and "not extracted yet" in told and "features (2, 9, 16)" in told
    assert not (tmp_path / "out").exists()


def test_unreadable_clips_have_no_label_and_no_vote(tmp_path: Path, stage: str) -> None:
    bad = {"train/v0": [0], "validation/v1": [10, 12]}
    args = arguments(tmp_path, stage, bad=bad)
    args.data.max_bad_fraction = 0.5
    train_set, eval_set, task, model = _datasets(args)
    batch = FeatureCollator(train=True)([train_set[0, 0]])
    assert not batch["attention_mask"][0, 0] and batch["labels"][0, 0] == 255
    loader = [FeatureCollator(train=False)([eval_set[0, index]]) for index in range(2)]
    model.eval()
    with torch.no_grad():
        task.evaluate(model, loader, Accelerator(cpu=True))
    with (tmp_path / "evaluation" / "videos.csv").open(newline="") as file:
        assert [row["unreadable_clips"] for row in csv.DictReader(file)] == ["0", "2"]


def test_videos_on_disk_with_their_annotation(tmp_path: Path, stage: str) -> None:
    """Source phases, as the first stage had it; one picture is damaged, one video has no annotation."""
    (tmp_path / "data" / "phase_annotations").mkdir(parents=True)
    for video, text in (("v1", "0001112222"), ("v2", "2221110000"), ("v3", "")):
        folder = tmp_path / "data" / "videos" / video
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (SIDE, SIDE), (25 * number, 9, 9)).save(folder / f"{number:03}.png")
        lines = [f"{number}\t{NAMES[int(letter)]}" for number, letter in enumerate(text)]
        if lines:
            file = tmp_path / "data" / "phase_annotations" / f"{video}-phase.txt"
            file.write_text("\n".join(["Frame\tPhase", *lines, ""]))
    (tmp_path / "data" / "videos" / "v2" / "004.png").write_bytes(b"damaged")
    args = arguments(tmp_path / "out", stage, fps=5.0)
    args.data.source, args.data.root = "phases", str(tmp_path / "data")
    args.data.train_split = args.data.eval_split = "all"
    args.data.options["clip_span"], args.data.max_bad_fraction = 4, 0.5
    result = train(args, ActionDetectionTask())
    with (tmp_path / "out" / "evaluation" / "videos.csv").open(newline="") as file:
        rows = {row["video"]: (row["clips"], row["unreadable_clips"]) for row in csv.DictReader(file)}
    assert {Path(key).name: value for key, value in rows.items()} == {"v1": ("3", "0"), "v2": ("3", "1")}
    damaged, left_out = read_skipped(tmp_path / "out" / "skipped_files.csv")
    assert left_out.path.endswith("/v3") and "annotation" in left_out.reason
    assert "004.png (frames 4 to 7)" in damaged.path and result.metrics["eval/absent_classes"] == 0


def _precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """Average precision by its definition: precision and recall at every score, one after the other."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = positives[taken].sum() / positives.sum()
        total += (recall - before) * positives[taken].mean()
        before = recall
    return float(total)


def test_scores_of_both_models_against_plain_counting() -> None:
    """Overlapping clips, an unreadable one, and unannotated frames."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, 20, 2)
    stops = np.minimum(starts + 4, 21)
    valid = np.ones(10, bool)
    valid[4] = False
    phases = np.repeat(np.array([0, 1, 255, 2], np.uint8), [6, 6, 3, 6])
    labels = np.array([np.bincount(phases[a:b], minlength=256).argmax() for a, b in zip(starts, stops)])
    temporal, clipwise = (rng.dirichlet(np.ones(3), 10).astype(np.float32) for _ in range(2))
    result = VideoResult(0, "v", 5.0, temporal, clipwise, labels, valid, starts, stops, phases)
    metrics, absent = detection_metrics([result], NAMES)
    assert absent == []
    for prefix, rows in (("", temporal), ("clipwise/", clipwise)):
        votes = [[clip for clip in range(10) if valid[clip] and starts[clip] <= t < stops[clip]] for t in range(21)]
        ids = np.array([rows[clips].astype(np.float64).mean(0).argmax() for clips in votes])
        known = phases != 255
        assert metrics[f"{prefix}frame_accuracy"] == pytest.approx((ids[known] == phases[known]).mean())
        shares = np.stack([rows[clips].astype(np.float64).mean(0) if clips else np.zeros(3) for clips in votes])
        wanted = [_precision(shares[known, c], phases[known] == c) for c in range(3)]
        assert metrics[f"{prefix}frame_map"] == pytest.approx(np.mean(wanted))
        used = valid & (labels != 255)
        wanted = [_precision(rows[used, c], labels[used] == c) for c in range(3)]
        assert metrics[f"{prefix}clip_map"] == metrics[f"{prefix}map"] == pytest.approx(np.mean(wanted))
        hits = rows[used].argmax(1) == labels[used]
        assert metrics[f"{prefix}clip_accuracy"] == pytest.approx(hits.mean())


def test_pictures_of_an_evaluation_hatch_what_was_not_read_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import m33d_hf.visualization.timeline as pictures

    drawn: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "timeline_figure", lambda *_, **options: drawn.update(options))
    starts, stops = np.array([0, 4, 8, 12]), np.array([4, 8, 12, 16])
    rows = np.full((4, 3), 1 / 3, np.float32)
    valid = np.array([False, True, False, True])
    times = FrameTimes(16, 6.4, np.concatenate([np.arange(8) / 16, 0.5 + np.arange(8) / 4]), 2.5)
    lack = Lack(2.5, 4.0, 6, 16, "the file announces 4.0 s")
    labels, phases = np.zeros(4, np.int64), np.zeros(16, np.uint8)
    result = VideoResult(0, "v", 6.4, rows, rows, labels, valid, starts, stops, phases, times, (lack,))
    assert result.unread() == [(0, 4), (8, 12)]
    for name in ("timeline_3_gone.png", "evaluation_step_00000002_0_v.png"):
        (tmp_path / name).touch()
    draw_timelines(tmp_path, [result], NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation_step_00000002_0_v.png"]  # of another prefix
    assert drawn["unreadable"] == [(0.0, 0.25), (0.5, 1.5), (2.5, 4.0)] and drawn["times"] is times
    (row,) = video_rows([result])
    assert row["missing"] == "the file announces 4.0 s"


def test_frames_that_no_clip_covers_follow_the_nearest() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    starts, stops = np.array([0, 6, 12]), np.array([2, 8, 14])
    found = frame_phases(rows, starts, stops, np.array([True, True, False]), 16)
    assert found.tolist() == [0] * 4 + [1] * 12  # frame 3 is 2 from frame 1 and 3 from frame 6
    assert (frame_phases(rows, starts, stops, np.zeros(3, bool), 16) == 255).all()
    with pytest.raises(ConfigError, match="of a video of 10"):
        frame_probabilities(rows, starts, stops, np.ones(3, bool), 10)
