"""data/depth/writing.py: one scale for a video, exact whatever the order; whole files only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m33d_hf.data.depth.maps import DepthMaps, find_depth_maps
from m33d_hf.data.depth.writing import DepthVideoWriter, Quantizer, depth_is_written, written_spec
from m33d_hf.errors import ConfigError, DataError


def growing(kind: str, frames: int = 9) -> np.ndarray:
    """(T, 6, 8) predictions whose range grows eightfold over time, so that early scales do not last."""
    values = np.random.default_rng(0).uniform(0.01, 1.0, (frames, 6, 8))
    values *= np.geomspace(1, 8, frames)[:, None, None]
    return (values - (2.0 if kind == "relative" else 0.0)).astype(np.float32)


def write(root: Path, values: np.ndarray, kind: str, sizes: list[int], format: str = "png") -> DepthMaps:
    writer = DepthVideoWriter(root, "v", kind, format)
    start = 0
    for size in sizes:
        writer.append(values[start : start + size])
        start += size
    writer.finish()
    maps = find_depth_maps(root, "v", written_spec(kind))
    assert maps is not None and maps.length == len(values)
    return maps


@pytest.mark.parametrize("format", ["png", "parquet"])
@pytest.mark.parametrize("kind", ["inverse", "relative"])
def test_one_scale_whatever_the_batches(tmp_path: Path, kind: str, format: str) -> None:
    values = growing(kind)
    values[8, 0] = values[0, 0]  # equal predictions in the first and in the last frame
    one_by_one = write(tmp_path / "a", values, kind, [1] * 9, format)
    at_once = write(tmp_path / "b", values, kind, [9], format)
    for frame in range(9):
        assert np.array_equal(one_by_one.store.stored([frame])[0], at_once.store.stored([frame])[0])
    quantization = one_by_one.store.quantization
    assert quantization is not None and quantization == at_once.store.quantization
    assert np.array_equal(one_by_one.store.stored([0])[0][0], one_by_one.store.stored([8])[0][0])
    decoded = one_by_one.read(range(9))[:, 0].numpy()
    # Half a step, or for the smallest disparities, which must stay above 0, one and a half.
    assert np.abs(decoded - values).max() <= 1.5 / quantization.scale
    assert decoded.max() - decoded.min() > 0.9 * (values.max() - values.min())
    if kind == "inverse":
        ratio = decoded[8].mean() / decoded[0].mean()
        assert ratio == pytest.approx(values[8].mean() / values[0].mean(), rel=1e-4)


def test_the_range_is_used(tmp_path: Path) -> None:
    values = growing("inverse")
    stored = np.stack(write(tmp_path, values, "inverse", [4, 5]).store.stored(range(9)))
    assert 32767 <= stored.max() <= 65535
    narrow = (100 + growing("inverse") / 100).astype(np.float32)  # far from 0: the centre takes it away
    maps = write(tmp_path / "narrow", narrow, "relative", [9])
    torch.testing.assert_close(maps.read(range(9))[:, 0], torch.from_numpy(narrow), rtol=0, atol=1e-5)


def test_rescaling_equals_quantising_again() -> None:
    rng = np.random.default_rng(1)
    for kind in ("inverse", "relative"):
        values = rng.normal(size=(50, 50)).astype(np.float32)
        values = np.abs(values) if kind == "inverse" else values
        before = Quantizer(kind)
        stored, scale = before.quantize(values), before.quantization.scale
        before.quantize(values * 37)
        after = Quantizer(kind, scale=before.scale, center=before.center)
        assert np.array_equal(before.rescaled(stored, scale), after.quantize(values))
        assert before.scale is not None and before.scale < scale


def test_invalid_values_and_counts(tmp_path: Path) -> None:
    metres = np.array([[[np.nan, np.inf, -1.0, 0.0], [0.0001, 1.2344, 65.534, 80.0]]], np.float32)
    maps = write(tmp_path / "m", metres, "metric", [1])
    assert maps.store.stored([0])[0].tolist() == [[0, 0, 0, 0], [1, 1234, 65534, 65535]]
    read = maps.read([0])[0, 0]
    assert torch.isnan(read[0]).all() and torch.isnan(read[1, 3])
    assert read[1, :3].tolist() == pytest.approx([0.001, 1.234, 65.534])
    record = json.loads((tmp_path / "m" / "v" / "scale.json").read_text())
    assert record["counts"] == {"pixels": 8, "not_finite": 2, "not_positive": 2, "too_far": 1}
    assert (record["num_frames"], record["height"], record["width"]) == (1, 2, 4)
    signed = np.array([[[np.nan, -np.inf, -1.0, 0.0], [0.5, 1.0, 2.0, 3.0]]], np.float32)
    relative = write(tmp_path / "r", signed, "relative", [1]).read([0])[0, 0]
    assert torch.isnan(relative[0, :2]).all()
    torch.testing.assert_close(relative[1], torch.tensor([0.5, 1.0, 2.0, 3.0]), rtol=0, atol=1e-4)
    assert float(relative[0, 2]) == pytest.approx(-1, abs=1e-4)


def test_frames_without_a_valid_pixel(tmp_path: Path) -> None:
    for kind in ("inverse", "relative", "metric"):
        values = growing(kind) + (3 if kind == "metric" else 0)
        values[:3] = np.nan
        maps = write(tmp_path / kind, values, kind, [1] * 9)
        assert torch.isnan(maps.read([0, 1, 2])).all()
        assert torch.isfinite(maps.read([3, 8])).all()
    nothing = write(tmp_path / "nothing", np.full((2, 3, 4), np.nan, np.float32), "relative", [2])
    assert torch.isnan(nothing.read([0, 1])).all()
    constant = write(tmp_path / "constant", np.full((2, 3, 4), 7.25, np.float32), "relative", [2])
    assert torch.equal(constant.read([0, 1]), torch.full((2, 1, 3, 4), 7.25))


@pytest.mark.parametrize("format", ["png", "parquet"])
def test_an_interrupted_video_continues_and_is_no_video_until_then(tmp_path: Path, format: str) -> None:
    values = growing("inverse")
    whole = write(tmp_path / "whole", values, "inverse", [3, 3, 3], format)
    writer = DepthVideoWriter(tmp_path / "cut", "v", "inverse", format)
    writer.append(values[:3])
    # Killed in the middle of the next batch: a frame that nobody recorded, half written.
    (writer.partial / "000003.png").write_bytes(b"\x89PNG half")
    assert not depth_is_written(tmp_path / "cut", "v", format)
    assert find_depth_maps(tmp_path / "cut", "v", written_spec("inverse")) is None
    again = DepthVideoWriter(tmp_path / "cut", "v", "inverse", format)
    assert again.next_frame == 3
    again.append(values[3:])
    again.finish()
    assert depth_is_written(tmp_path / "cut", "v", format)
    cut = find_depth_maps(tmp_path / "cut", "v", written_spec("inverse"))
    assert cut is not None and torch.equal(cut.read(range(9)), whole.read(range(9)))
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [
        path.name for path in (tmp_path / "whole").iterdir()
    ]
    left = sorted(path.name for path in (tmp_path / "cut").rglob("*") if path.is_file())
    assert left == sorted(path.name for path in (tmp_path / "whole").rglob("*") if path.is_file())


def test_a_damaged_record_starts_afresh_and_foreign_folders_stay(tmp_path: Path) -> None:
    writer = DepthVideoWriter(tmp_path, "v", "inverse")
    writer.append(growing("inverse")[:2])
    (writer.partial / "state.json").write_text("{")
    assert DepthVideoWriter(tmp_path, "v", "inverse").next_frame == 0
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "frames" / "1.png")
    with pytest.raises(ConfigError, match="was not written by depth extraction"):
        DepthVideoWriter(tmp_path, "frames", "inverse")
    with pytest.raises(ConfigError, match="one of png, parquet"):
        DepthVideoWriter(tmp_path, "w", "inverse", "tiff")
    writer = DepthVideoWriter(tmp_path, "w", "metric")
    with pytest.raises(DataError, match="no frames"):
        writer.finish()
    writer.append(np.ones((1, 4, 4), np.float32))
    with pytest.raises(DataError, match=r"size \(4, 5\), but earlier frames have \(4, 4\)"):
        writer.append(np.ones((1, 4, 5), np.float32))
