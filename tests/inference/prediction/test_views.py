"""inference/prediction/views.py: where tiles lie, and that fusing them is a weighted mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.prediction import picture
from m33d_hf.errors import ConfigError
from m33d_hf.inference.prediction.views import Fusion, View, ViewOptions, look, starts, weights
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor


@pytest.mark.parametrize("length", [32, 33, 47, 64, 100, 641])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_tiles_cover_everything_and_overlap_enough(length: int, overlap: float) -> None:
    tile = 32
    found = starts(length, tile, overlap)
    assert found[0] == 0 and found[-1] == length - tile and found == sorted(set(found))
    steps = np.diff(found)
    assert (tile - steps >= int(overlap * tile) - 1).all() and (steps <= tile).all()
    fewer = len(found) - 1
    assert fewer <= 1 or (length - tile) / (fewer - 1 or 1) > tile * (1 - overlap) - 1, "no tile too many"


def test_pictures_that_fit_are_seen_once() -> None:
    processor = M33DImageProcessor(size={"height": 32, "width": 32})
    small = look(picture(height=30, width=30), processor, ViewOptions(tiles=True))
    assert small.is_plain and small.views[0].size == (30, 30)
    wide = look(picture(height=30, width=60), processor, ViewOptions(tiles=True, flip=True))
    assert {view.size for view in wide.views} == {(30, 32)} and len(wide.views) == 2 * len(starts(60, 32, 0.25))
    mirrored = look(picture(), processor, ViewOptions(flip=True))
    plain, other = (view.inputs["pixel_values"] for view in mirrored.views)
    assert torch.equal(plain, processor(picture(), return_tensors="pt")["pixel_values"])
    assert torch.equal(other, processor(picture()[:, ::-1].copy(), return_tensors="pt")["pixel_values"])


def test_fusing_is_the_weighted_mean_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    size, tile = (20, 26), (12, 12)
    views = [
        View({}, (y, x), tile, mirrored)
        for y in starts(20, 12, 0.25) for x in starts(26, 12, 0.25) for mirrored in (False, True)
    ]  # fmt: skip
    fusion, total, weight = Fusion(size), np.zeros((2, *size)), np.zeros(size)
    for view in views:
        values = torch.randn(2, *tile, generator=generator)
        known = torch.rand(tile, generator=generator) > 0.3
        fusion.add(view, values, known)
        seen, shown = values.double().numpy(), known.numpy()
        if view.mirrored:
            seen, shown = seen[..., ::-1], shown[..., ::-1]
        for i in range(12):
            for j in range(12):
                rows, columns = (
                    min([1.0, *([(at + 0.5) / 3] * (corner > 0)), *([(11.5 - at) / 3] * (corner + 12 < whole))])
                    for at, corner, whole in ((i, view.corner[0], 20), (j, view.corner[1], 26))
                )
                share = rows * columns * shown[i, j]
                total[:, view.corner[0] + i, view.corner[1] + j] += share * seen[:, i, j]
                weight[view.corner[0] + i, view.corner[1] + j] += share
    mean, known = fusion.mean()
    assert np.array_equal(known.numpy(), weight > 0) and not known.all()
    expected = total / np.where(weight > 0, weight, 1)
    assert np.abs(mean.numpy() - expected).max() < 1e-5


def test_views_of_a_model_that_knows_positions_say_what_they_show() -> None:
    """What a view says of itself is what it shows: of a picture whose pixels hold their own place."""
    height, width, side = 40, 64, 32
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 4, columns * 4, 0 * rows], axis=-1).astype(np.uint8)
    plain = {"do_resize": False, "do_rescale": False, "do_normalize": False, "do_center_crop": False}
    processor = M33DImageProcessor(size={"height": side, "width": side})
    whole = look(pixels, processor, ViewOptions(flip=True), positional=True)
    assert "depth_prior_view" not in whole.views[0].inputs, "the whole picture needs no word"
    assert whole.views[1].inputs["depth_prior_view"].tolist() == [[0.0, 1.0, 1.0, 0.0]]
    assert not any("depth_prior_view" in view.inputs for view in look(pixels, processor, ViewOptions(flip=True)).views)
    tiled = M33DImageProcessor(size={"height": side, "width": side}, **{**plain, "do_resize": True})
    for view in look(pixels, tiled, ViewOptions(flip=True, tiles=True), positional=True).views:
        top, left, bottom, right = view.inputs["depth_prior_view"][0].tolist()
        shown = view.inputs["pixel_values"][0].float() / 4
        steps = (np.arange(side) + 0.5) / side
        places = [first + (last - first) * steps for first, last in ((top, bottom), (left, right))]
        np.testing.assert_allclose(shown[0, :, 0], places[0] * height - 0.5, atol=1e-4)
        np.testing.assert_allclose(shown[1, 0, :], places[1] * width - 0.5, atol=1e-4)


def test_tiles_of_cropped_pictures_have_no_place_in_a_map_of_positions() -> None:
    square = {"height": 32, "width": 32}
    cropping = M33DImageProcessor(size={"shortest_edge": 32}, do_center_crop=True, crop_size=square)
    look(picture(height=40, width=60), cropping, ViewOptions(tiles=True))
    with pytest.raises(ConfigError, match="--tiles cannot be used with this model"):
        look(picture(height=40, width=60), cropping, ViewOptions(tiles=True), positional=True)
    look(picture(height=40, width=60), cropping, ViewOptions(flip=True), positional=True)


def test_weights_are_one_where_nothing_else_sees() -> None:
    assert torch.equal(weights(0, 8, 8), torch.ones(8))
    inside = weights(4, 8, 16)
    assert inside[0] < inside[1] <= inside[2] == 1 and torch.equal(inside, inside.flip(0)) and (inside > 0).all()


def test_an_overlap_of_everything_is_refused() -> None:
    for overlap in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="tile_overlap"):
            ViewOptions(overlap=overlap)
