"""What the tabs show: predict.py's own predictions, drawn; read out, faded, and labelled for what they are."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.depth_models import save_depth_anything, save_ours
from helpers.prediction import (
    ALONE,
    NAMES,
    options,
    picture,
    save_clips,
    save_phases,
    save_pictures,
    save_pretraining,
    save_segmentation,
)
from helpers.tiny import CLIP, MULTIMAE, both, tiny_config
from m33d_hf.demo import examples
from m33d_hf.demo.depth import CLICK, cloud, reading, see_depth
from m33d_hf.demo.models import Models
from m33d_hf.demo.reconstruction import SAME, TRAINED, reconstruct_picture, reconstruct_video, with_masks
from m33d_hf.demo.segmentation import drawing, see_classes
from m33d_hf.demo.videos import classes_of, phases_of
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.prediction.clips import ClipTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.phases import PhaseTask
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.running import predict
from m33d_hf.inference.prediction.segmentation import SegmentationTask
from m33d_hf.visualization.dense import label_colors


def loaded(model: Path, kind: type) -> object:
    models = Models.of([str(model)], device="cpu")
    with models.using(str(model), kind) as task:
        return task


def test_depth_is_that_of_predict_and_reads_where_one_clicks(tmp_path: Path) -> None:
    model = save_ours(tmp_path / "model")
    save_pictures(tmp_path / "in", 1)
    predict(options(model, tmp_path / "in", tmp_path / "out"), ALONE, say=str)
    task = loaded(model, DepthTask)
    seen, drawn = see_depth(task, picture(0))  # type: ignore[arg-type]
    assert np.array_equal(seen.depth, np.load(tmp_path / "out/arrays/p0.npy"))
    assert np.array_equal(drawn, np.asarray(Image.open(tmp_path / "out/pictures/p0.png")))
    assert seen.enlargement == 5
    assert f"Column 12, row 7: **{seen.depth[7, 12]:.2f} m**" in reading(seen, 62, 38)
    assert "bar of values" in reading(seen, drawn.shape[1] - 1, 10) and reading(None, 1, 1) == CLICK
    seen.depth[0, 0] = 0
    assert "no depth here" in reading(seen, 0, 0)


def test_depth_without_unit_has_no_metres_and_no_points(tmp_path: Path) -> None:
    task = loaded(save_depth_anything(tmp_path / "model"), DepthTask)
    seen, _ = see_depth(task, picture(0))  # type: ignore[arg-type]
    words = reading(seen, 10, 10)
    assert "inverse depth, which has no unit" in words and " m**" not in words
    assert cloud(seen, 60, tmp_path) == (None, None)


def test_points_in_the_view_are_those_of_the_file(tmp_path: Path) -> None:
    task = loaded(save_ours(tmp_path / "model"), DepthTask)
    seen, _ = see_depth(task, picture(0))  # type: ignore[arg-type]
    glb, ply = cloud(seen, 60, tmp_path)
    data = Path(str(glb)).read_bytes()
    magic, version, length, size = struct.unpack_from("<4sIII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and len(data) % 4 == 0
    document = json.loads(data[20 : 20 + size])
    count = document["accessors"][0]["count"]
    values = np.frombuffer(data, "<f4", offset=28 + size).reshape(2, count, 3)
    header, body = Path(str(ply)).read_bytes().split(b"end_header\n")
    assert f"element vertex {count}".encode() in header and count == (seen.depth > 0).sum()
    kinds = [(name, "<f4") for name in "xyz"] + [(name, "u1") for name in "rgb"]
    stored = np.frombuffer(body, kinds)
    assert np.array_equal(values[0] * [1, -1, -1], np.stack([stored[name] for name in "xyz"], axis=1))
    assert np.array_equal(document["accessors"][0]["min"], values[0].min(axis=0))
    # The camera looks along -z: what is left and up in the picture is so in the view.
    assert values[0][0, 0] < 0 < values[0][0, 1] and (values[0][:, 2] < 0).all()
    grey = torch.tensor(stored["r"] / 255.0) ** 2.2  # about the sRGB curve
    assert np.abs(values[1][:, 0] - grey.numpy()).max() < 0.01


def test_classes_fade_and_are_named_with_their_areas(tmp_path: Path) -> None:
    task = loaded(save_segmentation(tmp_path / "model"), SegmentationTask)
    seen = see_classes(task, picture(0, 240, 300))  # type: ignore[arg-type]
    assert set(seen.order) == set(np.unique(seen.labels)) and seen.names == list(NAMES.values())
    clear, solid = drawing(seen, 0.0), drawing(seen, 1.0)
    assert np.array_equal(clear[:, :300], seen.pixels)
    colors = np.rint(255 * label_colors(3)[seen.labels]).astype(int)
    assert np.abs(solid[:, :300].astype(int) - colors).max() <= 1
    assert np.array_equal(clear[:, 300:], solid[:, 300:]), "the legend does not fade"


def test_videos_have_classes_or_a_timeline(tmp_path: Path) -> None:
    clip, long = str(examples.clips()[0]), str(examples.procedures()[0])
    task = loaded(save_clips(tmp_path / "clips"), ClipTask)
    shares = classes_of(task, clip)  # type: ignore[arg-type]
    assert set(shares) == set(NAMES.values()) and sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    detector = loaded(save_phases(tmp_path / "phases"), PhaseTask)
    timeline, rows = phases_of(detector, long)  # type: ignore[arg-type]
    assert timeline.ndim == 3 and timeline.std() > 10
    assert rows[0][1] == "00:00.00" and all(row[0] in NAMES.values() for row in rows)
    assert all(one[2] == other[1] for one, other in pairwise(rows))


@pytest.mark.parametrize("config", [{}, MULTIMAE], ids=["paper", "multimae"])
def test_masks_hide_what_the_slider_says(config: dict[str, object], tmp_path: Path) -> None:
    task = loaded(save_pretraining(tmp_path / "model", **config), ReconstructionTask)
    assert isinstance(task, ReconstructionTask)
    depth = np.full((48, 60), 2.0, np.float32)
    before = task.config.to_dict()
    shown = []
    for ratio in (0.25, 0.75):
        masked = task.masked(task.inputs(picture(0), depth), "0", with_masks(task.config, ratio, TRAINED))
        tokens = sum(keep.shape[1] for keep in masked.keep.values())
        shown.append(tokens)
        image, words = reconstruct_picture(task, picture(0), depth, with_masks(task.config, ratio, TRAINED), 0)
        assert image.std() > 10 and "No depth was given" not in words
    assert shown == [24, 8], "of 2 x 16 tokens"
    assert task.config.to_dict() == before


def test_the_label_says_what_is_not_predicted(tmp_path: Path) -> None:
    normalised = loaded(save_pretraining(tmp_path / "norm"), ReconstructionTask)
    assert isinstance(normalised, ReconstructionTask)
    masks = with_masks(normalised.config, 0.5, "random")
    _, words = reconstruct_picture(normalised, picture(0), None, masks, 0)
    assert "rgb: brightness and contrast are not predicted" in words and "depth: shown as predicted" in words
    assert "depth is what the model makes of the visible RGB patches alone" in words
    plain = save_pretraining(tmp_path / "plain", modalities=both({"target_norm": "none"}))
    task = loaded(plain, ReconstructionTask)
    assert isinstance(task, ReconstructionTask)
    _, words = reconstruct_picture(task, picture(0), None, with_masks(task.config, 0.5, "random"), 0)
    assert "not predicted" not in words and "rgb and depth: shown as predicted" in words


def test_reconstructions_refuse_what_does_not_fit(tmp_path: Path) -> None:
    task = loaded(save_pretraining(tmp_path / "joint", **MULTIMAE), ReconstructionTask)
    assert isinstance(task, ReconstructionTask)
    masks = with_masks(task.config, 0.5, TRAINED)
    with pytest.raises(DataError, match="encodes RGB and depth together: add the depth map"):
        reconstruct_picture(task, picture(0), None, masks, 0)
    with pytest.raises(ConfigError, match="motion"):
        with_masks(task.config, 0.5, "motion")
    with pytest.raises(ConfigError, match=r"none of 32 tokens|keeps 0"):
        reconstruct_picture(task, picture(0), np.ones((48, 60), np.float32), with_masks(task.config, 0.999, TRAINED), 0)


@pytest.mark.parametrize("strategy", ["random", "tube", "frame", "motion"])
def test_clips_are_reconstructed_with_every_strategy(strategy: str, tmp_path: Path) -> None:
    task = loaded(save_pretraining(tmp_path / "clips", **CLIP), ReconstructionTask)
    assert isinstance(task, ReconstructionTask)
    masks = with_masks(task.config, 0.5, strategy)
    image, words = reconstruct_video(task, str(examples.clips()[0]), masks, 3)
    other, _ = reconstruct_video(task, str(examples.clips()[0]), masks, 4)
    assert image.shape == other.shape and (image != other).any(), "another draw"
    assert "brightness and contrast" in words


def test_rgb_and_depth_show_the_same_patches_if_one_likes(tmp_path: Path) -> None:
    task = loaded(save_pretraining(tmp_path / "model"), ReconstructionTask)
    assert isinstance(task, ReconstructionTask)
    inputs = task.inputs(picture(0), np.full((48, 60), 2.0, np.float32))
    same = task.masked(inputs, "0", with_masks(task.config, 0.5, SAME)).keep
    other = task.masked(inputs, "0", with_masks(task.config, 0.5, "random")).keep
    assert torch.equal(same["rgb"], same["depth"]) and not torch.equal(other["rgb"], other["depth"])
    assert same["rgb"].shape == other["rgb"].shape


def test_masks_can_be_the_same_where_a_loss_forbids_it_in_training(tmp_path: Path) -> None:
    config = tiny_config(contrastive_weight=0.1, contrastive_negatives="batch", share_mask=False)
    with pytest.raises(ConfigError, match="leaks the image identity"):
        tiny_config(contrastive_weight=0.1, contrastive_negatives="batch", share_mask=True)
    assert with_masks(config, 0.5, SAME).masks_are_shared and not config.masks_are_shared


def test_clips_take_the_depth_of_every_frame(tmp_path: Path) -> None:
    task = loaded(save_pretraining(tmp_path / "clips", **CLIP), ReconstructionTask)
    assert isinstance(task, ReconstructionTask)
    masks = with_masks(task.config, 0.5, SAME)
    clip = str(examples.clips()[0])
    metres = np.linspace(1, 3, 16 * 96 * 128, dtype=np.float32).reshape(16, 96, 128)
    prepared = task.masked(task.inputs(videos=clip, depth=metres), "0", masks)
    assert prepared.measured and prepared.inputs["depth_values"].shape == (1, 4, 1, 32, 32)
    assert (prepared.inputs["depth_values"].flatten(2).mean(-1).diff() > 0).all(), "the frames that RGB has, in order"
    without, words = reconstruct_video(task, clip, masks, 0)
    assert "No depth was given" in words
    image, words = reconstruct_video(task, clip, masks, 0, metres)
    assert "No depth was given" not in words and (image.shape != without.shape or (image != without).any())
