"""Pre-training and classification of clips of which some frames lack depth: as with sensor holes, counted and told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.frames_on_disk import save, write_frames
from helpers.tiny import CLIP, UNMASKED, VARIANTS, both, tiny_config
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.loader.collation import PretrainingCollator
from m33d_hf.data.loader.finishing import Batch
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.scripts import check_data
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

SIZE = (40, 48)
FRAMES = 4
CLIPS = {name: fields for name, fields in VARIANTS.items() if name.startswith("video_")}
CLIPS["matched"] = {**CLIP, "modalities": both(UNMASKED, UNMASKED), "contrastive_weight": 1.0}
CLIPS["rgb_to_depth"] = {**CLIP, **VARIANTS["rgb_to_depth"]}
CLIPS["frame_by_frame"] = {**CLIPS["video_tube"], "depth_standardization_scope": "frame"}


def batch_of(root: Path, config: M33DConfig) -> Batch:
    source = FolderSource(root, unit="clips", depth_unit="mm")
    transform = build_transform(TransformOptions(), True, config.image_height_width, config.patch_height_width)
    data = SampleDataset(source, transform, num_frames=FRAMES, train=True, maps=["rgb", "depth"], required=["depth"])
    return PretrainingCollator(config)([data[0, row] for row in range(len(source))])


def losses(config: M33DConfig, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    """The loss of a model with fixed weights, and its gradients."""
    torch.manual_seed(0)
    model = M33DForPreTraining(config).train()
    torch.manual_seed(1)
    loss = model(**{name: values for name, values in batch.items() if name != "meta"}).loss
    loss.backward()
    return float(loss.detach()), [weight.grad for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("variant", CLIPS)
@pytest.mark.parametrize("seed", range(3))
def test_a_missing_map_is_a_map_of_holes(variant: str, seed: int, tmp_path: Path) -> None:
    """The same loss and gradients, to the last bit, as where the sensor stored a map without a measurement."""
    draw = np.random.default_rng(seed)
    for clip in ("a", "b"):
        for root in ("missing", "holes"):
            write_frames(tmp_path / root / clip, FRAMES, size=SIZE)
        for frame in sorted(draw.choice(FRAMES, size=1 + seed % 2, replace=False)):  # the first and the last as well
            file = tmp_path / "missing" / clip / f"depth/{frame}.png"
            if draw.random() < 0.5:
                file.unlink()
            else:
                file.write_bytes(file.read_bytes()[: draw.integers(0, 80)])
            save(tmp_path / "holes" / clip / f"depth/{frame}.png", np.zeros(SIZE, np.uint16))
    config = tiny_config(**CLIPS[variant])
    missing, holes = (batch_of(tmp_path / root, config) for root in ("missing", "holes"))
    assert missing["meta"]["hole_count"].holes == 2 * (1 + seed % 2) and not holes["meta"]["hole_count"].holes
    assert torch.equal(missing["depth_values"], holes["depth_values"]) and missing["depth_values"].isfinite().all()
    assert torch.equal(missing["depth_mask"], holes["depth_mask"])
    loss, gradients = losses(config, missing)
    other, others = losses(config, holes)
    assert math.isfinite(loss) and loss == other
    assert len(gradients) == len(others) > 0
    assert all(torch.equal(one, two) and one.isfinite().all() for one, two in zip(gradients, others, strict=True))


def arguments(folder: Path, root: Path, **options: Any) -> RunArguments:
    args = RunArguments(task="pretraining", output_dir=str(folder), cpu=True)
    args.model = {
        **CLIP, "image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
    }  # fmt: skip
    args.data.source, args.data.root, args.data.num_workers = "folder", str(root), 0
    args.data.eval_split, args.data.train_split, args.data.frame_stride = None, "all", 1
    args.data.options = {"unit": "clips", "depth_unit": "mm", "validation": None, **options}
    args.train.batch_size, args.train.max_steps = 3, 2
    args.logging.trackers, args.logging.progress, args.logging.pictures = [], False, False
    return args


def test_a_run_goes_on_and_says_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    for clip in ("a", "b", "c"):
        write_frames(root / clip, FRAMES, size=SIZE)
    (root / "a/depth/0.png").unlink()
    (root / "b/depth/2.png").write_bytes(b"torn")
    for frame in range(FRAMES):
        (root / "c" / f"depth/{frame}.png").unlink()
    args = arguments(tmp_path / "run", root, require_depth=False)
    args.data.max_bad_fraction, args.data.eval_split, args.evaluation.every_epochs = 0.5, "all", 1
    result = train(args, PretrainingTask())
    assert result.step == 2 and all(math.isfinite(row["loss"]) for row in result.history if "loss" in row)
    said = capsys.readouterr()
    assert "training: the depth of " in said.out + said.err and " is missing or damaged: " in said.out + said.err
    told = [record.message for record in caplog.records if record.message.startswith("evaluation: ")]
    (line,) = told
    assert line.startswith("evaluation: the depth of 2 of 8 frames read is missing or damaged: they are holes; ")
    listed = {Path(file.path).name: file for file in read_skipped(tmp_path / "run" / "skipped_files.csv")}
    assert listed["color"].is_hole and listed["color"].path == str(root / "a/color")
    assert listed["2.png"].is_hole and listed["2.png"].path == str(root / "b/depth/2.png")
    (left_out,) = [file for file in listed.values() if not file.is_used]
    assert "no frame of the clip c[0,1,2,3] has depth" in left_out.reason


def test_the_check_counts_what_is_missing_and_calls_damage_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    for clip in ("a", "b"):
        write_frames(root / clip, FRAMES, size=SIZE)
    (root / "a/depth/0.png").unlink()
    (root / "a/depth/3.png").unlink()
    words = [str(root), "--recipe", "own/pretrain_clips", "--data.options.depth_unit", "mm", "--model.num_frames", "2"]
    words += ["--data.options.validation", "b", "--workers", "1", "--data.frame_stride", "1"]
    check_data.main([*words, "--output", str(tmp_path / "one")])
    said = capsys.readouterr().out
    assert "note (train): the depth of 2 of 4 frames read is missing: clips have holes there, the first: " in said
    assert "the depth of 2 of 4 frames is missing, and counts as a hole: in 2 sequences" in said
    (root / "b/depth/1.png").write_bytes(b"torn")
    assert check_data.main([*words, "--output", str(tmp_path / "two")]) == 1
    said = capsys.readouterr().out
    assert "PROBLEM (evaluation): the depth of 1 of 4 frames read is damaged: clips have holes there" in said
    listed = read_skipped(tmp_path / "two" / "skipped_files.csv")
    assert [file.is_used for file in listed if "depth" in file.reason] and all(file.is_used for file in listed)


def test_pictures_of_videos_that_are_labelled_by_depth_are_those_that_have_it(tmp_path: Path) -> None:
    """Depth estimation on the frames of clips: another one takes the place of a frame without a label."""
    for clip in ("a", "b"):
        write_frames(tmp_path / clip, FRAMES, size=SIZE)
        (tmp_path / clip / "depth/1.png").unlink()
    task, config = DepthEstimationTask(), tiny_config()
    assert task.required(config) == ("depth",) and SemanticSegmentationTask().required(config) == ()
    source = FolderSource(tmp_path, unit="clips", require_depth=False, depth_unit="mm")
    data = SampleDataset(source, train=True, maps=task.maps(config), required=task.required(config))
    read = [data[epoch, row] for epoch in range(8) for row in range(2)]
    assert all(isinstance(sample, RGBDSample) and sample.depth is not None for sample in read)
    assert any(sample.meta["skipped"] for sample in read if isinstance(sample, RGBDSample))
