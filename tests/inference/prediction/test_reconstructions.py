"""inference/prediction/reconstructions.py: what the model makes of masked pictures, drawn as it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.prediction import ALONE, options, save_pictures, save_pretraining
from helpers.tiny import CLIP, MULTIMAE, VARIANTS, both
from helpers.videos import write_video
from m33d_hf.errors import ConfigError
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.running import PredictionSummary, predict
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining


def run(*given: Any, **changes: Any) -> tuple[PredictionSummary, str]:
    said: list[str] = []
    summary = predict(options(*given, **changes), ALONE, say=said.append)
    return summary, "\n".join([*said, summary.describe()])


def save_depth(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(500, 4000, (48, 60)).astype(np.uint16)).save(folder / f"p{number}.png")
    return folder


@pytest.mark.parametrize("variant", ["stage2_literal", "mask3d", "mae", "multimae", "rgb_to_depth"])
def test_pictures_of_every_kind_of_pretraining(variant: str, tmp_path: Path) -> None:
    model = save_pretraining(tmp_path / "model", **VARIANTS[variant])
    save_pictures(tmp_path / "in", 3)
    depth = {} if variant == "mae" else {"depth": save_depth(tmp_path / "depth", 3), "depth_unit": "millimetre"}
    summary, text = run(model, tmp_path / "in", tmp_path / "out", batch_size=2, **depth)
    assert summary.predicted == 3 and "reconstructions of" in text
    found = [np.array(Image.open(tmp_path / f"out/pictures/p{number}.png")) for number in range(3)]
    panels = {"stage2_literal": 6, "mask3d": 4, "mae": 3, "multimae": 9, "rgb_to_depth": 4}[variant]
    assert found[0].shape[0] > 256 and found[0].shape[1] == panels * 256 + (panels - 1) * 4
    assert not np.array_equal(found[0], found[1])
    again, _ = run(model, tmp_path / "in", tmp_path / "out", **depth)
    assert again.already_there == 3


def test_views_are_what_the_model_computes_and_the_same_in_every_batch(tmp_path: Path) -> None:
    model = save_pretraining(tmp_path / "model", modalities=both({"weight": 1.0, "target_norm": "none"}))
    save_pictures(tmp_path / "in", 3)
    task = ReconstructionTask(
        options(model, tmp_path / "in", tmp_path / "out", depth=save_depth(tmp_path / "d", 3), depth_unit="millimetre")
    )
    prepared = [task.prepare(Item(f"p{n}", tmp_path / f"in/p{n}.png", False)) for n in range(3)]
    together, alone = task.compute(prepared), task.compute(prepared[1:2])
    for name in ("rgb", "depth"):
        assert np.allclose(together[1][name].reconstruction, alone[0][name].reconstruction, atol=1e-5, equal_nan=True)
    network = M33DForPreTraining.from_pretrained(model).eval()
    with torch.no_grad():
        output = network(**prepared[1].inputs, keep=prepared[1].keep, output_reconstruction=True)
    # The first masked patch of the picture, row by row, channels fastest: what the decoder says, where it belongs.
    visible = set(prepared[1].keep["rgb"][0].tolist())
    first = next(number for number in range(16) if number not in visible)
    y, x = divmod(first, 4)
    patch = together[1]["rgb"].reconstruction[0][:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
    expected = output.reconstructions["rgb"][0, 0].reshape(8, 8, 3).permute(2, 0, 1)
    assert np.allclose(patch, expected.numpy(), atol=1e-5)
    kept = together[1]["rgb"]
    assert np.array_equal(kept.reconstruction[np.isfinite(kept.visible)], kept.target[np.isfinite(kept.visible)])


def test_without_depth_it_is_made_of_rgb_alone(tmp_path: Path) -> None:
    model = save_pretraining(tmp_path / "model")
    save_pictures(tmp_path / "in", 1)
    _, text = run(model, tmp_path / "in", tmp_path / "out")
    assert "no --depth: depth is what the model makes of the visible RGB patches alone" in text
    task = ReconstructionTask(options(model, tmp_path / "in", tmp_path / "out"))
    prepared = task.prepare(Item("p0", tmp_path / "in/p0.png", False))
    (views,) = task.compute([prepared])
    prepared.inputs["depth_values"].fill_(3.0)
    (other,) = task.compute([prepared])
    known = np.isfinite(views["depth"].reconstruction)
    assert 0 < known.mean() < 1 and np.array_equal(known, np.isfinite(other["depth"].reconstruction))


def test_what_does_not_go_together(tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 2)
    given = (tmp_path / "in", tmp_path / "out")
    depth = save_depth(tmp_path / "depth", 1)
    mae = save_pretraining(tmp_path / "mae", **VARIANTS["mae"])
    with pytest.raises(ConfigError, match="pre-trained without depth"):
        run(mae, *given, depth=depth)
    with pytest.raises(ConfigError, match="depth cannot be left out"):
        run(save_pretraining(tmp_path / "multimae", **MULTIMAE), *given)
    summary, _ = run(save_pretraining(tmp_path / "model"), *given, depth=depth, depth_unit="millimetre")
    assert summary.predicted == 1 and "holds nothing named p1" in summary.skipped[0].reason


def test_clips_and_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "in/v.mp4", 6)
    clips = save_pretraining(tmp_path / "clips", **CLIP)
    summary, _ = run(clips, tmp_path / "in", tmp_path / "out")
    assert summary.predicted == 1 and (tmp_path / "out/pictures/v.png").stat().st_size > 10_000
    frames, _ = run(save_pretraining(tmp_path / "mae", **VARIANTS["mae"]), tmp_path / "in", tmp_path / "out2")
    assert frames.frames == 6 and (tmp_path / "out2/videos/v.mp4").is_file()
    assert [path.name for path in (tmp_path / "out2").iterdir() if path.is_dir()] == ["videos"]


def test_videos_are_skipped_where_depth_is_given(tmp_path: Path) -> None:
    depth = save_depth(tmp_path / "depth", 1)
    save_pictures(tmp_path / "in", 1)
    write_video(tmp_path / "in/v.mp4", 3)
    changes = {"depth": depth, "depth_unit": "millimetre"}
    summary, _ = run(save_pretraining(tmp_path / "model"), tmp_path / "in", tmp_path / "out", **changes)
    assert summary.predicted == 1 and "depth is read beside pictures alone" in summary.skipped[0].reason
    assert not (tmp_path / "out/videos").exists()
