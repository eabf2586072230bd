"""modeling/depth_prior_m33d.py: predictions as a weighted mean, by pixels in numpy; parts of pictures; saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.tiny import SMALL
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_prior_m33d import M33DDepthPrior
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation

DEPTH: dict[str, Any] = {**SMALL, "depth_head_width": 16, "max_depth": 5.0}


def _model(weight: float, seed: int = 0) -> M33DForDepthEstimation:
    torch.manual_seed(seed)
    return M33DForDepthEstimation(M33DConfig(**DEPTH, depth_prior_weight=weight)).eval()


def _map(height: int = 32, width: int = 32) -> torch.Tensor:
    return 1 + 3 * torch.rand(height, width, generator=torch.Generator().manual_seed(1))


def _filled(weight: float) -> M33DForDepthEstimation:
    model = _model(weight)
    assert model.depth_prior is not None
    model.depth_prior.fill(_map())
    return model


def _bilinear(source: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`source` at (row, column) in pixels, centres at whole numbers, the border repeated; a loop, pixel by pixel."""
    found = np.empty((len(rows), len(columns)))
    for i, y in enumerate(rows.clip(0, source.shape[0] - 1)):
        for j, x in enumerate(columns.clip(0, source.shape[1] - 1)):
            (top, left), (below, right) = (int(y), int(x)), (
                min(int(y) + 1, source.shape[0] - 1), min(int(x) + 1, source.shape[1] - 1)
            )  # fmt: skip
            upper = source[top, left] * (1 - x + left) + source[top, right] * (x - left)
            lower = source[below, left] * (1 - x + left) + source[below, right] * (x - left)
            found[i, j] = upper * (1 - y + top) + lower * (y - top)
    return found


def test_predictions_are_the_weighted_mean_and_the_loss_is_the_models_own() -> None:
    plain, mixed = _model(0.0), _filled(0.3)
    pixels, labels = torch.randn(2, 3, 32, 32), 1 + torch.rand(2, 32, 32)
    with torch.no_grad():
        alone, both = plain(pixels, labels=labels), mixed(pixels, labels=labels)
    expected = 0.7 * alone.predicted_depth.double().numpy() + 0.3 * _map().double().numpy()
    np.testing.assert_allclose(both.predicted_depth.numpy(), expected, rtol=0, atol=2e-6)
    assert torch.equal(both.standardized_depth, alone.standardized_depth) and torch.equal(both.loss, alone.loss)
    mixed.train()
    plain.train()
    assert torch.equal(mixed(pixels).predicted_depth, plain(pixels).predicted_depth), "gradients reach metres undiluted"


def test_without_a_share_nothing_is_new() -> None:
    torch.manual_seed(0)
    default = M33DForDepthEstimation(M33DConfig(**DEPTH))
    assert default.state_dict().keys() == _model(0.0).state_dict().keys()
    assert {*_model(0.5).state_dict()} - {*default.state_dict()} == {"depth_prior.metres"}
    for name, value in _model(0.5).named_parameters():
        assert torch.equal(value, default.get_parameter(name)), f"{name}: the map draws no random number"
    assert default.depth_prior is None and default.config.depth_prior_weight == 0.0


@pytest.mark.parametrize("size", [(32, 32), (48, 40), (16, 24)])
def test_other_sizes_take_the_map_interpolated(size: tuple[int, int]) -> None:
    prior = M33DDepthPrior(0.5, (32, 32), 2.0)
    prior.fill(_map())
    found = prior.depth_at(torch.empty(3, *size))
    rows, columns = ((np.arange(side) + 0.5) * 32 / side - 0.5 for side in size)
    np.testing.assert_allclose(found[0].numpy(), _bilinear(_map().numpy(), rows, columns), rtol=0, atol=1e-5)
    if size == (32, 32):
        assert torch.equal(found[0], _map())


def test_a_part_of_a_picture_takes_its_part_of_the_map() -> None:
    prior = M33DDepthPrior(0.5, (32, 32), 2.0)
    prior.fill(_map())
    views = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 1.0, 1.0, 0.0], [0.1, 0.7, 0.9, 0.3]])
    found = prior.depth_at(torch.empty(3, 16, 16), views).numpy()
    steps = (np.arange(16) + 0.5) / 16
    for part, (top, left, bottom, right) in zip(found, views.double().numpy(), strict=True):
        rows, columns = (32 * (a + steps * (b - a)) - 0.5 for a, b in ((top, bottom), (left, right)))
        np.testing.assert_allclose(part, _bilinear(_map().numpy(), rows, columns), rtol=0, atol=2e-5)
    whole = prior.depth_at(torch.empty(1, 32, 32), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(whole[0], _map(), rtol=0, atol=1e-5)
    mirrored = prior.depth_at(torch.empty(1, 32, 32), torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    torch.testing.assert_close(mirrored[0], _map().flip(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ([[0.0, 0.0, 1.0]], "has shape"),
        ([[0.0, 0.0, 1.0, 1.0]] * 2, "has shape"),
        ([[0.0, 0.0, 1.2, 1.0]], "between 0 and 1"),
        ([[0.5, 0.0, 0.5, 1.0]], "an area"),
        ([[0.0, 0.5, 1.0, 0.5]], "an area"),
        ([[float("nan"), 0.5, 1.0, 0.6]], "between 0 and 1"),
    ],
)
def test_views_that_are_none(view: list[list[float]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        _filled(0.5)(torch.zeros(1, 3, 32, 32), depth_prior_view=torch.tensor(view))


def test_maps_and_shares_that_are_none() -> None:
    prior = M33DDepthPrior(0.5, (32, 32), 2.0)
    with pytest.raises(ConfigError, match=r"has 16 x 32 pixels, but the model takes 32 x 32"):
        prior.fill(_map(16))
    for wrong in (0.0, float("nan")):
        with pytest.raises(DataError, match="finite and above 0"):
            prior.fill(_map().index_fill(0, torch.tensor([3]), wrong))
    for share in (-0.1, 1.5):
        with pytest.raises(ConfigError, match="depth_prior_weight"):
            M33DConfig(**DEPTH, depth_prior_weight=share)


def test_saving_and_loading_keep_the_map(tmp_path: Path) -> None:
    model = _filled(0.4)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["depth_prior.metres"], _map())
    again = M33DForDepthEstimation.from_pretrained(tmp_path).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(pixels).predicted_depth, model(pixels).predicted_depth)


def test_a_checkpoint_without_a_map_starts_from_the_mean(tmp_path: Path, capfd: Any) -> None:
    _model(0.0).save_pretrained(tmp_path)
    model, told = M33DForDepthEstimation.from_pretrained(tmp_path, depth_prior_weight=0.5, output_loading_info=True)
    assert set(told["missing_keys"]) == {"depth_prior.metres"} and model.depth_prior is not None
    assert torch.equal(model.depth_prior.metres, torch.full((32, 32), M33DConfig().depth_mean))


def test_pipelines_predict_what_the_model_does(tmp_path: Path) -> None:
    from transformers import pipeline

    from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor

    model = _filled(0.6)
    processor = M33DImageProcessor(size={"height": 32, "width": 32})
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    found = pipeline("depth-estimation", model=model, image_processor=processor)(picture)["predicted_depth"]
    with torch.no_grad():
        expected = model(**processor(picture, return_tensors="pt")).predicted_depth[0]
    torch.testing.assert_close(torch.as_tensor(found).reshape(32, 32), expected, rtol=0, atol=1e-6)
