"""One detector judged with RGB, depth and both: a row each, on the same clips, never one of depth that is not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from helpers.phases_in_memory import NAMES, DeepSource, MemoryVideo, arguments, deep_stage, judge_in_memory
from helpers.ranks import ForkedRanks
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.data.sources import SOURCES
from m33d_hf.data.sources.phases.base import PhaseSource, PhaseVideo
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection.features import ClipRule
from m33d_hf.training.tasks.detection.input_sets import check_depth_of_videos
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

RGBD = {"task_inputs": ["rgb", "depth"], "task_fusion": "concatenation"}
SETS = [["rgb"], ["rgb", "depth"], ["depth"]]
SPAN = 4  # frames of a clip: two, two apart


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "deep", ("helpers.phases_in_memory", "DeepSource"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    args = arguments(folder / "run", deep_stage(folder / "stage", **RGBD))
    args.data.source, args.train.max_steps = "deep", 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "deep", ("helpers.phases_in_memory", "DeepSource"))
        train(args, ActionDetectionTask())
    return folder / "run"


def judging(folder: Path, trained: Path, sets: list[list[str]] | None = None, **options: Any) -> RunArguments:
    args = arguments(folder, str(trained))
    args.model, args.eval_only, args.data.source, args.data.options = {}, True, "deep", options
    args.evaluation.inputs = sets
    return args


def rows_of(folder: Path) -> dict[tuple[str, ...], dict[str, float]]:
    results = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    return {tuple(row["inputs"]): row["metrics"] for row in results["by_inputs"]}


def by_hand(trained: Path, names: tuple[str, ...], left_out: Sequence[tuple[int, int]] = ()) -> tuple[float, float]:
    """(loss, share of clips that the clip classifier gets right), clip by clip from the frames, without a store."""
    encoder = M33DForVideoActionDetection.from_pretrained(trained).eval()
    classifier = M33DForVideoClassification(encoder.config).eval()
    classifier.load_state_dict(encoder.state_dict(), strict=False)
    spec, source = encoder.config.spec("rgb"), DeepSource("validation")
    losses, right = [], []
    for number, video in enumerate(source.videos):
        features: list[torch.Tensor] = []
        labels: list[int] = []
        for clip, span in enumerate(source.clips(number)):
            labels.append(IGNORE_INDEX if (number, clip) in left_out else span.label)
            if labels[-1] == IGNORE_INDEX:
                features.append(torch.zeros(encoder.config.hidden_size))
                continue
            last = span.stop - span.start
            read = video.handle.read([span.start, span.start + (2 if last > 2 else 0)])
            given: dict[str, torch.Tensor] = {}
            if "rgb" in names:
                assert read.rgb is not None
                given["pixel_values"] = normalize_rgb(read.rgb[None], spec.channel_mean, spec.channel_std)
            if "depth" in names:
                assert read.depth is not None
                given["depth_values"], given["depth_mask"] = standardize_depth(read.depth[None])
            with torch.no_grad():
                found = classifier(**given)
            features.append(found.features[0])
            right.append(int(found.logits[0].argmax()) == span.label)
        with torch.no_grad():
            targets = torch.tensor(labels)
            seen = (targets != IGNORE_INDEX)[None]
            logits = encoder(features=torch.stack(features)[None], attention_mask=seen).logits[0]
        losses.append(F.cross_entropy(logits[seen[0]], targets[seen[0]], reduction="none"))
    return float(torch.cat(losses).mean()), float(np.mean(right))


def test_each_input_set_has_its_row(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = judging(tmp_path, trained, SETS)
    args.logging.pictures = args.evaluation.floor = True
    found = evaluate_run(args, ActionDetectionTask())
    said, rows = capsys.readouterr().out, rows_of(tmp_path)
    assert list(rows) == [tuple(each) for each in SETS] and found == rows["rgb", "depth"]
    for names, row in rows.items():
        loss, accuracy = by_hand(trained, names)
        assert row["loss"] == pytest.approx(loss, rel=1e-4), names
        assert row["clipwise/clip_accuracy"] == pytest.approx(accuracy), names
    assert len({round(row["loss"], 5) for row in rows.values()}) == 3
    assert len({row["floor/frame_accuracy"] for row in rows.values()}) == 1, "what looks at nothing sees no inputs"
    for words, names in (("RGB", ("rgb",)), ("RGB and depth", ("rgb", "depth")), ("depth", ("depth",))):
        assert f"\n{words.ljust(13)}  {rows[names]['map']:.4f}  {rows[names]['clipwise/map']:.4f}\n" in said
    assert "The lines above are of RGB and depth." in said
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    table = report[report.index("By inputs, on the same samples") :]
    assert all(f"{row['loss']:.4g}" in table for row in rows.values())


def test_one_set_alone_is_the_row_of_many_and_shares_its_features(trained: Path, tmp_path: Path) -> None:
    stored = str(tmp_path / "features")
    many = judging(tmp_path / "many", trained, SETS)
    many.features.dir = stored
    evaluate_run(many, ActionDetectionTask())
    assert {path.name for path in Path(stored).iterdir()} == {"validation", "validation-rgb", "validation-depth"}
    before = {path: path.stat().st_mtime_ns for path in Path(stored).glob("*/*")}
    for names in SETS:
        one = judging(tmp_path / names[-1] / names[0], trained, [names])
        one.features.dir = stored
        assert evaluate_run(one, ActionDetectionTask()) == rows_of(tmp_path / "many")[tuple(names)]
    short = judging(tmp_path / "short", trained)
    short.features.dir, short.model = stored, {"task_inputs": ["rgb"]}
    assert evaluate_run(short, ActionDetectionTask()) == rows_of(tmp_path / "many")["rgb",]
    assert {path: path.stat().st_mtime_ns for path in Path(stored).glob("*/*")} == before, "nothing is extracted again"
    kept = json.loads((Path(stored) / "validation-rgb" / "features.json").read_text(encoding="utf-8"))
    assert kept["inputs"] == ["rgb"]


def test_two_ranks_judge_every_set_as_one_does(trained: Path, tmp_path: Path) -> None:
    evaluate_run(judging(tmp_path / "one", trained, SETS), ActionDetectionTask())
    given, log = (str(tmp_path / "two"), str(trained), SETS), tmp_path / "output.txt"
    ranks = ForkedRanks(judge_in_memory, *given, log=log, processes=2)
    assert ranks.wait() == [0, 0], ranks.output()[-3000:]
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert list(one) == list(two) and all(two[names] == pytest.approx(one[names], abs=1e-6) for names in one)
    assert ranks.output().count("The lines above are of RGB and depth.") == 1


def test_features_of_every_set_can_be_extracted_beforehand(trained: Path, tmp_path: Path) -> None:
    args, task = judging(tmp_path, trained, [["rgb"], ["rgb", "depth"]]), ActionDetectionTask()
    found = [folder.name for folder in task.extract(args, build_model(args, task))]
    assert found == ["train", "validation-rgb", "validation"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*/*")}
    evaluate_run(args, ActionDetectionTask())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*/*")} == before


def test_without_inputs_features_and_results_are_those_of_before(trained: Path, tmp_path: Path) -> None:
    found = evaluate_run(judging(tmp_path, trained), ActionDetectionTask())
    assert found["loss"] == pytest.approx(by_hand(trained, ("rgb", "depth"))[0], rel=1e-4)
    assert "by_inputs" not in json.loads((tmp_path / "eval_results.json").read_text(encoding="utf-8"))
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["validation"]
    assert "inputs" not in json.loads((tmp_path / "features/validation/features.json").read_text(encoding="utf-8"))


def test_a_clip_with_damaged_depth_counts_in_no_row(trained: Path, tmp_path: Path) -> None:
    spoiled = {"validation/v0": [SPAN]}  # the first frame of the second clip
    args = judging(tmp_path, trained, [["rgb"], ["rgb", "depth"]], spoiled=spoiled)
    args.data.max_bad_fraction = 0.5
    evaluate_run(args, ActionDetectionTask())
    for names, row in rows_of(tmp_path).items():
        assert row["loss"] == pytest.approx(by_hand(trained, names, [(0, 1)])[0], rel=1e-4), names
    alone = judging(tmp_path / "alone", trained, [["rgb"]], spoiled=spoiled)
    found = evaluate_run(alone, ActionDetectionTask())
    assert found["loss"] == pytest.approx(by_hand(trained, ("rgb",))[0], rel=1e-4), "nobody reads its depth"


def test_a_video_without_depth_is_refused_by_name_before_anything_is_extracted(trained: Path, tmp_path: Path) -> None:
    bare = ["validation/v1"]
    words = r"evaluation.inputs has depth, but 1 evaluation video of 2 has none: validation/v1\. .*'\[\[rgb\]\]'"
    for number, plan in enumerate((False, True)):
        args = judging(tmp_path / str(number), trained, [["rgb"], ["rgb", "depth"]], bare=bare)
        args.dry_run = plan
        with pytest.raises(DataError, match=words):
            (dry_run if plan else evaluate_run)(args, ActionDetectionTask())
        assert not (tmp_path / str(number) / "features").exists()
    assert evaluate_run(judging(tmp_path / "rgb", trained, [["rgb"]], bare=bare), ActionDetectionTask())
    assert evaluate_run(judging(tmp_path / "all", trained, bare=bare), ActionDetectionTask()), "single ones may lack it"


@dataclass(frozen=True)
class SaysSo(MemoryVideo):
    """A video that knows that it has no depth."""

    has_depth: bool = False

    def read(self, indices: Sequence[int]) -> RGBDSample:
        raise AssertionError("nothing is read")


def test_a_video_that_knows_that_it_has_no_depth_is_not_read() -> None:
    videos = [PhaseVideo(SaysSo(key, (0, 1, 2, 0)), np.array([0, 1, 2, 0], np.uint8)) for key in ("a", "b")]
    source = PhaseSource(videos, NAMES, clip_span=SPAN)
    with pytest.raises(DataError, match="2 evaluation videos of 2 have none: a, b"):
        check_depth_of_videos(source, [0, 1], ClipRule(2, 2, SPAN))


def test_folders_of_frames_say_which_video_has_no_depth(tmp_path: Path) -> None:
    for name in ("with", "without"):
        for number in range(8):
            for kind in ("color", "depth") if name == "with" else ("color",):
                folder = tmp_path / "videos" / name / kind
                folder.mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (16, 16)) if kind == "color" else Image.new("I;16", (16, 16), 1500)
                picture.save(folder / f"{number}.png")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        lines = "".join(f"{number}\t{'cut' if number < 4 else 'sew'}\n" for number in range(8))
        (tmp_path / "annotations" / f"{name}.txt").write_text(f"Frame\tPhase\n{lines}", encoding="utf-8")
    source = PhasesSource(tmp_path, clip_span=SPAN, fps=5.0, depth_unit="mm")
    keys = [video.key for video in source.videos]
    assert len(keys) == 2 and source.depth_spec is not None
    with pytest.raises(DataError, match=f"1 evaluation video of 2 has none: {keys[1]}"):
        check_depth_of_videos(source, [0, 1], ClipRule(2, 2, SPAN))
    check_depth_of_videos(source, [0], ClipRule(2, 2, SPAN))


def test_a_dry_run_says_what_would_be_judged(trained: Path, tmp_path: Path) -> None:
    args = judging(tmp_path, trained, SETS)
    args.dry_run = True
    assert "2 samples in use" in dry_run(args, ActionDetectionTask())
    assert not (tmp_path / "features").exists()


def test_a_detector_of_rgb_has_no_other_inputs(tmp_path: Path) -> None:
    args = arguments(tmp_path / "run", deep_stage(tmp_path / "stage"))
    args.data.source = "deep"
    train(args, ActionDetectionTask())
    with pytest.raises(ConfigError, match=r"all of them among those of the model, \['rgb'\]"):
        evaluate_run(judging(tmp_path / "judged", tmp_path / "run", [["depth"]]), ActionDetectionTask())
