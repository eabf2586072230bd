"""Detection whose first stage sees depth: features of both inputs, their provenance, and videos without depth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.frames_on_disk import write_frames
from helpers.phases_in_memory import DeepSource, MemorySource, arguments, deep_stage, first_stage
from m33d_hf.data.sources import SOURCES
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.detection.clip_dataset import ClipDataset, ClipRow
from m33d_hf.training.tasks.detection.feature_extraction import weights_digest
from m33d_hf.training.tasks.detection.features import ClipRule, FeatureStore
from m33d_hf.training.tasks.detection.first_stage import load_first_stage
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

RGBD = {"task_inputs": ["rgb", "depth"], "task_fusion": "concatenation"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", ("helpers.phases_in_memory", "MemorySource"))
    monkeypatch.setitem(SOURCES, "deep", ("helpers.phases_in_memory", "DeepSource"))


def test_features_are_those_of_the_first_stage_with_depth(tmp_path: Path) -> None:
    stage = deep_stage(tmp_path / "stage", **RGBD)
    args = arguments(tmp_path / "run", stage)
    args.data.source = "deep"
    result = train(args, ActionDetectionTask())
    assert result.step == 3
    model = M33DForVideoClassification.from_pretrained(stage).eval()
    config, spec = model.config, model.config.spec("rgb")
    source = DeepSource("train")
    for video in source.videos:
        found = FeatureStore(tmp_path / "run" / "features" / "train", "parquet").read(video.key)
        for number, start in enumerate(found.starts.tolist()):
            read = video.handle.read([start, min(start + 2, found.stops[number].item() - 1)])
            if found.stops[number] - start < 3:
                read = video.handle.read([start, start])
            assert read.rgb is not None and read.depth is not None
            values, mask = standardize_depth(read.depth[None])
            pixels = normalize_rgb(read.rgb[None], spec.channel_mean, spec.channel_std)
            with torch.no_grad():
                wanted = model(pixel_values=pixels, depth_values=values, depth_mask=mask).features[0]
                alone = model(pixel_values=pixels).features[0]
            torch.testing.assert_close(found.features[number], wanted, atol=1e-5, rtol=1e-5)
            assert not torch.allclose(found.features[number], alone, atol=1e-3)
    detector = M33DForVideoActionDetection.from_pretrained(tmp_path / "run")
    kept = model.task_fusion.state_dict()
    assert all(torch.equal(kept[name], each) for name, each in detector.task_fusion.state_dict().items()), "frozen"
    assert config.task_input_names == detector.config.task_input_names == ("rgb", "depth")


def test_the_inputs_are_part_of_what_features_are_known_by(tmp_path: Path) -> None:
    digests = set()
    for number, fields in enumerate(({}, {"task_inputs": ["rgb"]}, RGBD, {"task_inputs": ["rgb", "depth"]})):
        model, _ = load_first_stage(arguments(tmp_path, first_stage(tmp_path / str(number), **fields)))
        digests.add(weights_digest(model))
    assert len(digests) == 3, "RGB alone is RGB alone, however it is said"


def test_videos_without_depth_are_refused(tmp_path: Path) -> None:
    args = arguments(tmp_path / "run", first_stage(tmp_path / "stage", **RGBD))
    with pytest.raises(ConfigError, match=r"task_inputs has depth, but the training data \(source 'memory'\) has none"):
        train(args, ActionDetectionTask())
    assert MemorySource().depth_spec is None


def test_depth_alone_and_a_detector_that_streams_pictures(tmp_path: Path) -> None:
    args = arguments(tmp_path / "run", first_stage(tmp_path / "stage", task_inputs=["depth"]))
    args.data.source = "deep"
    train(args, ActionDetectionTask())
    detector = ActionDetector.from_pretrained(tmp_path / "run")
    for use in (lambda: detector.detect(tmp_path / "video.mp4"), lambda: detector.follow(tmp_path / "video.mp4")):
        with pytest.raises(ConfigError, match=r"sees depth alone, .* use detect_source, or detect_actions\.py --depth"):
            use()


@pytest.mark.parametrize("inputs", [("rgb", "depth"), ("depth",)], ids="+".join)
def test_clips_read_together_are_those_read_alone(tmp_path: Path, inputs: tuple[str, ...]) -> None:
    """Clips of two frames: whole, one missing, both missing, both torn, one torn and one missing, one torn."""
    write_frames(tmp_path / "a", 12)
    for frame in (2, 4, 5, 9):
        (tmp_path / f"a/depth/{frame}.png").unlink()
    for frame in (6, 7, 8, 11):
        (tmp_path / f"a/depth/{frame}.png").write_bytes(b"torn")
    source = PhasesSource(tmp_path, unit="videos", clip_span=2, fps=10, depth_scale=1000)
    dataset = ClipDataset(source, ClipRule(2, 1, 2), lambda sample: sample, inputs)
    rows = [ClipRow(0, number, span) for number, span in enumerate(source.clips(0))]
    together, alone = dataset.__getitems__(rows), [dataset[row] for row in rows]
    missing = inputs == ("depth",)
    unreadable = [number for number, sample in enumerate(together) if "skipped" in sample.meta]
    assert unreadable == ([2, 3, 4] if missing else [3, 4])
    for one, other in zip(together, alone, strict=True):
        assert one.meta == other.meta and (one.depth is None) == (other.depth is None)
        assert one.depth is None or other.depth is None or torch.equal(one.depth.nan_to_num(), other.depth.nan_to_num())
    counts = [len(sample.meta.get("holes", ())) for sample in together]
    assert counts == ([0, 1, 0, 0, 0, 1] if missing else [0, 1, 2, 0, 0, 1])
