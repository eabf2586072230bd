"""Several cameras of a case in the second stage: features by camera, their mean by clip, missing ones done without."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.phases_in_memory import MODEL, arguments, first_stage
from helpers.videos import numbered_frame, write_video
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection.cameras import describe_cameras
from m33d_hf.training.tasks.detection.feature_dataset import FeatureDataset
from m33d_hf.training.tasks.detection.features import FeatureStore
from m33d_hf.training.tasks.detection.task import ActionDetectionTask
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

PHASES = {"r": "rest", "c": "cut", "s": "sew"}


def _case(root: Path, name: str, phases: str, cameras: dict[str, int]) -> None:
    """A case with an annotation, and a video of so many frames by each camera; every camera sees something else."""
    for place, (camera, frames) in enumerate(cameras.items()):
        pictures = [numbered_frame(7 * place + number, (32, 48)) for number in range(frames)]
        write_video(root / f"videos/{name}_{camera}.mp4", frames, size=(32, 48), frames=pictures)
    folder = root / "phase_annotations"
    folder.mkdir(exist_ok=True)
    lines = [f"{number}\t{PHASES[letter]}\n" for number, letter in enumerate(phases)]
    (folder / f"{name}.txt").write_text("Frame\tPhase\n" + "".join(lines))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases for training, one by two cameras and one by one, and one for validation whose second camera ends."""
    folder = tmp_path_factory.mktemp("cases")
    _case(folder, "a", "r" * 8 + "c" * 8 + "s" * 4, {"cam1": 20, "cam2": 20})
    _case(folder, "b", "s" * 8 + "r" * 8, {"cam1": 16})
    _case(folder, "v", "c" * 8 + "r" * 8, {"cam1": 16, "cam2": 9})
    (folder / "train.txt").write_text("a\nb\n")
    (folder / "validation.txt").write_text("v\n")
    return folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return first_stage(tmp_path_factory.mktemp("stage") / "one")


def _arguments(folder: Path, stage: str, root: Path, **options: Any) -> RunArguments:
    args = arguments(folder, stage, phase_names=list(PHASES.values()), **options)
    args.data.source, args.data.root = "phases", str(root)
    return args


def _datasets(args: RunArguments) -> tuple[FeatureDataset, FeatureDataset]:
    task = ActionDetectionTask()
    model = build_model(args, task)
    found: Any = task.build_datasets(args, model)
    return found


def test_the_features_of_a_case_are_the_mean_of_its_cameras(tmp_path: Path, stage: str, root: Path) -> None:
    training, validation = _datasets(_arguments(tmp_path, stage, root, cameras="_cam*"))
    samples: list[Any] = training.__getitems__([(0, 0), (0, 1)])  # type: ignore[list-item]
    assert [sample.key for sample in samples] == ["a", "b"]
    store = FeatureStore(tmp_path / "features" / "train")
    one, two = (store.read(key).features for key in ("a_cam1", "a_cam2"))
    assert not torch.allclose(one, two)
    torch.testing.assert_close(samples[0].video.features, (one + two) / 2)
    assert samples[0].video.cameras.tolist() == [2] * 5
    assert torch.equal(samples[1].video.features, store.read("b_cam1").features) and samples[1].video.cameras is None
    (case,) = validation.__getitems__([(0, 0)])  # type: ignore[list-item]
    held = FeatureStore(tmp_path / "features" / "validation")
    one, two = (held.read(key).features for key in ("v_cam1", "v_cam2"))
    # Clips of 4 frames: the second camera shows two of them, and a quarter of the third, which is too little.
    assert (len(one), len(two), case.video.cameras.tolist()) == (4, 2, [2, 2, 1, 1])  # type: ignore[union-attr]
    torch.testing.assert_close(case.video.features[:2], (one[:2] + two) / 2)  # type: ignore[union-attr]
    assert torch.equal(case.video.features[2:], one[2:])  # type: ignore[union-attr]
    assert len(validation) == 1 and validation.lacking == 2
    (sentence,) = describe_cameras(validation.phases, validation.indices, validation.lacking)
    assert sentence.startswith("1 case by 2 cameras: the mean of their features, clip by clip; 2 clips are not seen")
    assert not describe_cameras(training.phases, [training.indices[1]], 0)


def test_a_run_over_cases_scores_each_case_once(tmp_path: Path, stage: str, root: Path) -> None:
    result = train(_arguments(tmp_path, stage, root, cameras="_cam*"), ActionDetectionTask())
    with (tmp_path / "evaluation" / "videos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["clips"], row["annotated_frames"]) for row in rows] == [("v", "4", "16")]
    assert np.isfinite(result.metrics["eval/map"])


def test_shares_of_labels_draw_whole_cases(tmp_path: Path, stage: str, root: Path) -> None:
    args = _arguments(tmp_path, stage, root, cameras="_cam*")
    args.data.label_fraction, args.data.allow_missing_classes = 0.5, True
    training, _ = _datasets(args)
    (sample,) = training.__getitems__([(0, 0)])  # type: ignore[list-item]
    cameras = sample.video.cameras  # type: ignore[union-attr]
    assert len(training) == 1 and (cameras is None or cameras.tolist() == [2] * 5)


def _side_by_side(folder: Path, stage: str, root: Path, names: list[str], **options: Any) -> RunArguments:
    args = _arguments(folder, stage, root, **{"cameras": "_cam*", **options})
    args.model["temporal_cameras"] = names
    return args


def test_the_features_of_cameras_stand_side_by_side(tmp_path: Path, stage: str, root: Path) -> None:
    training, validation = _datasets(_side_by_side(tmp_path, stage, root, ["2", "1"]))
    store, held = (FeatureStore(tmp_path / "features" / split) for split in ("train", "validation"))
    both, alone = (sample.video for sample in training.__getitems__([(0, 0), (0, 1)]))  # type: ignore[union-attr,list-item]
    one, two = (store.read(key) for key in ("a_cam1", "a_cam2"))
    flag = torch.ones(5, 1)
    assert torch.equal(both.features, torch.cat([two.features, flag, one.features, flag], 1))  # type: ignore[union-attr]
    torch.testing.assert_close(both.clip_logits, (one.clip_logits + two.clip_logits) / 2)  # type: ignore[union-attr]
    # A case without the second camera: zeros in its place, and no flag.
    single = store.read("b_cam1").features
    lacking = torch.zeros(4, single.shape[1] + 1)
    assert torch.equal(alone.features, torch.cat([lacking, single, torch.ones(4, 1)], 1))  # type: ignore[union-attr]
    assert alone.cameras.tolist() == [1] * 4 and training.lacking == 4  # type: ignore[union-attr]
    # One that ends: the first camera's part is what it is where both are there.
    (case,) = (sample.video for sample in validation.__getitems__([(0, 0)]))  # type: ignore[union-attr,list-item]
    first, second = (held.read(key).features for key in ("v_cam1", "v_cam2"))
    parts = case.features.unflatten(1, (2, -1))  # type: ignore[union-attr]
    assert torch.equal(parts[:, 1, :-1], first) and parts[:, 1, -1].all()
    assert torch.equal(parts[:2, 0, :-1], second) and parts[:, 0, -1].tolist() == [1, 1, 0, 0]
    assert not parts[2:, 0].any() and validation.lacking == 2
    (sentence,) = describe_cameras(validation.phases, validation.indices, validation.lacking, validation.cameras)
    assert "side by side, clip by clip, in the order 2, 1; 2 clips are not seen by each" in sentence


def test_a_model_of_cameras_is_trained_saved_and_evaluated_again(tmp_path: Path, stage: str, root: Path) -> None:
    args = _side_by_side(tmp_path / "run", stage, root, ["1", "2"])
    trained = train(args, ActionDetectionTask())
    model = M33DForVideoActionDetection.from_pretrained(tmp_path / "run")
    assert model.config.temporal_cameras == ["1", "2"]
    again = _arguments(tmp_path / "again", str(tmp_path / "run"), root, cameras="_cam*")
    again.eval_only, again.model = True, {}
    found = train(again, ActionDetectionTask())
    assert found.metrics["eval/map"] == trained.metrics["eval/map"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["1", "3"], {}, "a_cam2 is by camera '2' of case a, but the model reads the cameras 1, 3"),
        (["1", "2", "3"], {}, "names 1, 2, 3, but no training case has a camera '3'; those there are: 1, 2"),
        (["1", "2"], {"cameras": None}, "the model reads the cameras 1, 2 side by side .* pass --data.options.cameras"),
    ],
)
def test_other_cameras_are_refused(
    names: list[str], options: dict[str, Any], message: str, tmp_path: Path, stage: str, root: Path
) -> None:
    if "cameras" in options:
        root = _uncased(tmp_path / "data", root)
    with pytest.raises((ConfigError, DataError), match=message):
        _datasets(_side_by_side(tmp_path / "run", stage, root, names, **options))


def test_a_trained_model_keeps_its_cameras(tmp_path: Path, stage: str, root: Path) -> None:
    train(_side_by_side(tmp_path / "run", stage, root, ["1", "2"]), ActionDetectionTask())
    args = _side_by_side(tmp_path / "other", str(tmp_path / "run"), root, ["2", "1"])
    with pytest.raises(ConfigError, match=r"reads \['1', '2'\], but the run has temporal_cameras \['2', '1'\]: start"):
        build_model(args, ActionDetectionTask())


def _uncased(folder: Path, root: Path) -> Path:
    """The videos of the first camera, each a case of its own."""
    shutil.copytree(root, folder)
    for path in (folder / "videos").iterdir():
        if path.stem.endswith("cam1"):
            path.rename(path.with_stem(path.stem.removesuffix("_cam1")))
        else:
            path.unlink()
    return folder


def test_clips_are_judged_by_the_mean_over_cameras(tmp_path: Path, stage: str, root: Path) -> None:
    """The first stage's evaluation: a row per moment, whose shares are those of the cameras one by one, averaged."""
    single = tmp_path / "single"  # the second camera of v as a case of its own
    shutil.copytree(root, single)
    (single / "apart.csv").write_text("case,camera,video\na,1,a_cam1\nb,1,b_cam1\nv,1,v_cam1\nw,2,v_cam2\na,2,a_cam2\n")
    (single / "validation.txt").write_text("v\nw\n")
    lines = (root / "phase_annotations/v.txt").read_text().splitlines(keepends=True)
    (single / "phase_annotations/w.txt").write_text("".join(lines[:10]))
    found: list[dict[str, tuple[str, float, int]]] = []
    for data, cameras in ((single, "apart.csv"), (root, "_cam*")):
        args = _arguments(tmp_path / data.name, stage, data, cameras=cameras, clip_span=4)
        args.task, args.model, args.eval_only = "video_classification", dict(MODEL), True
        args.evaluation.num_segments = args.evaluation.num_crops = 1
        train(args, VideoClassificationTask())
        with (tmp_path / data.name / "predictions.csv").open(newline="") as file:
            rows = csv.DictReader(file)
            found.append(
                {row["key"]: (row["label"], float(row["label_probability"]), int(row["views"])) for row in rows}
            )
    apart, joined = found
    clips = {clip.partition("@")[2] for clip in apart}
    assert len(apart) == 7 and len(joined) == 4 and set(joined) == {f"v_cam1@{frames}" for frames in clips - {"8-9"}}
    for key, (label, share, views) in joined.items():
        frames = {"8-12": "8-9"}.get(key.partition("@")[2], key.partition("@")[2])
        both = [apart[key], *([apart[f"v_cam2@{frames}"]] if f"v_cam2@{frames}" in apart else [])]
        assert views == len(both) and {row[0] for row in both} == {label}
        assert share == pytest.approx(np.mean([row[1] for row in both]), abs=2e-6)
    assert sorted(row[2] for row in joined.values()) == [1, 2, 2, 2]
