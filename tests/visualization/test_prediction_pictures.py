"""visualization/predictions.py: colours mean what the bar says; small pictures stay legible."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from helpers.prediction import picture
from m33d_hf.visualization.dense import color_labels
from m33d_hf.visualization.predictions import (
    Scale,
    bar,
    color_table,
    enlarged,
    overlay,
    palette,
    value_scale,
    with_bar,
    with_caption,
    with_legend,
)

GREY = [217, 217, 217]


def test_values_have_the_colours_of_the_map() -> None:
    scale = Scale(1.0, 3.0)
    values = np.array([[1.0, 2.0, 3.0, 9.0, 0.5, 0.0, np.nan]])
    expected = np.rint(255 * colormaps["viridis"]([0, 127, 255, 255, 0], bytes=False)[:, :3])
    found = scale.color(values)[0]
    assert np.abs(found[:5].astype(int) - expected).max() <= 1 and (found[5:] == GREY).all()


def test_the_bar_runs_from_the_highest_to_the_lowest_colour() -> None:
    drawn = bar(Scale(0.5, 2.5), 480)
    table = [tuple(color) for color in color_table().tolist()]
    column = next(x for x in range(drawn.shape[1]) if tuple(drawn[300, x]) in table)
    rows = [table.index(tuple(color)) for color in drawn[:, column + 4].tolist() if tuple(color) in table]
    assert rows[0] == 255 and rows[-1] == 0 and rows == sorted(rows, reverse=True) and len(rows) > 350


def test_scales_ignore_what_is_unknown_and_outliers() -> None:
    values = np.linspace(1, 5, 1000)
    values[:100], values[100:150], values[-1] = 0, np.nan, 1e9
    scale = value_scale([values])
    inside = np.linspace(1, 5, 1000)[150:-1]
    assert scale.low == pytest.approx(np.percentile(inside, 1), rel=0.01) and scale.high < 5
    assert value_scale([np.zeros(5)]) == Scale(0.0, 1.0)
    flat = value_scale([np.full(9, 2.0)])
    assert flat.low == 2.0 and flat.high == pytest.approx(2.02), "noise of a constant is no picture"


def test_small_pictures_are_enlarged_by_a_whole_number() -> None:
    pixels = picture()
    large = enlarged(pixels)
    assert large.shape == (240, 300, 3) and np.array_equal(large[::5, ::5], pixels)
    assert enlarged(picture(height=240, width=300)).shape == (240, 300, 3)
    assert with_bar(pixels, Scale(0.0, 1.0)).shape[0] == 240


def test_overlays_mix_and_leave_what_has_no_class() -> None:
    pixels = picture()
    labels = np.zeros(pixels.shape[:2], np.uint8)
    labels[10:, :], labels[:, 50:] = 2, 255
    mixed = overlay(pixels, labels, 3, 0.5)
    expected = 0.5 * pixels + 0.5 * 255 * color_labels(labels, 3)
    assert np.abs(mixed[:, :50] - expected[:, :50]).max() <= 1 and np.array_equal(mixed[:, 50:], pixels[:, 50:])
    table = np.array(palette(3)).reshape(256, 3)
    assert np.abs(table[:3] - 255 * color_labels(np.arange(3)[None], 3)[0]).max() <= 0.5
    assert table[255].tolist() == [255, 255, 255] and not table[3:255].any()
    assert np.array(palette(300)).shape == (768,)


def test_legends_and_captions_say_what_fits() -> None:
    pixels = picture(height=240, width=320)
    few = with_legend(pixels, ["wall", "floor"], [1, 0], 3)
    assert few.shape[0] == 240 and np.array_equal(few[:, :320], pixels) and few.shape[1] < 420
    many = with_legend(pixels, [f"class {number}" for number in range(60)], list(range(60)), 60)
    assert many.shape[0] == 240
    captioned = with_caption(pixels, [("wave 80%", 0.8), ("jump 20%", 0.2)])
    assert np.array_equal(captioned[:240], pixels)
    share = (captioned[242:258, :, 0] == 0xCF).any(axis=0).mean()
    assert share == pytest.approx(0.8, abs=0.02)
