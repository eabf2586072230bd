"""Tables of tiles: scales, overlays, strips, and what the figure holds."""

from __future__ import annotations

import numpy as np
import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.visualization.tiles import Tile, TileRow, label_overlay, overlay, strip, tiles_figure, value_limits

RNG = np.random.default_rng(0)


def test_limits_are_percentiles_of_what_is_finite() -> None:
    map_ = np.full((10, 11), np.nan)
    map_[0, 0], map_.flat[1:102] = np.inf, np.arange(101)
    low, high = value_limits(map_)
    assert (low, high) == pytest.approx((1, 99))
    assert value_limits(np.full((2, 2), np.nan)) == (0, 1)
    low, high = value_limits(np.full((2, 2), 3.0))
    assert low == 3 and high > 3  # a flat map still has a scale


def test_an_overlay_keeps_the_picture_where_there_is_no_value() -> None:
    from matplotlib import colormaps

    image = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    depth = np.full((4, 5), 2.0)
    depth[0] = np.nan
    mixed, grey = overlay(image, depth, (1.0, 3.0), share=0.5), image.mean(-1) / 255
    assert np.allclose(mixed[0], grey[0][:, None])
    assert np.allclose(mixed[1:], 0.5 * np.array(colormaps["viridis"](0.5)[:3]) + 0.5 * grey[1:, :, None])
    known = np.isfinite(depth)
    assert np.allclose(label_overlay(image, np.zeros((4, 5, 3)), known, share=1.0)[1:], 0)
    assert np.allclose(label_overlay(image / 255, np.zeros((4, 5, 3)), known)[0], grey[0][:, None])


def test_a_strip_holds_its_frames_in_order() -> None:
    frames = [RNG.integers(0, 256, (3, 4, 3), dtype=np.uint8) for _ in range(3)]
    long = strip(frames, gap=1)
    assert long.shape == (3, 14, 3) and np.allclose(long[:, 5:9], frames[1] / 255) and (long[:, 4] == 1).all()
    maps = strip([np.zeros((2, 2)), np.ones((2, 2))])
    assert np.isnan(maps[:, 2:4]).all() and (maps[:, 4:] == 1).all()


def test_the_figure_names_rows_columns_units_and_classes() -> None:
    depth = RNG.uniform(1, 4, (6, 6))
    rows = [
        TileRow("scene/1", {"RGB": Tile(np.zeros((6, 6, 3))), "depth": Tile(depth, (1.0, 4.0), "m")}, "RMSE 1 m"),
        TileRow("s" * 300, {"RGB": Tile(np.zeros((6, 6, 3)))}),
    ]
    figure = tiles_figure(rows, "First batch", {"wall": (1.0, 0.0, 0.0)}, "Grey: no depth.")
    axes = figure.axes
    titles = [axis.get_title(loc="left") for axis in axes]
    assert "scene/1\nRMSE 1 m" in titles and any(title.startswith("...sss") for title in titles)
    assert {axis.get_xlabel() for axis in axes} >= {"RGB", "depth"}
    assert "m" in [axis.get_ylabel() for axis in axes]  # of the colour bar
    (image,) = [shown for axis in axes for shown in axis.get_images() if shown.get_array().ndim == 2]
    assert np.array_equal(image.get_array(), depth) and image.get_clim() == (1, 4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["wall"]
    assert figure.get_suptitle() == "First batch\nGrey: no depth."
    with pytest.raises(ConfigError, match="nothing to draw"):
        tiles_figure([TileRow("empty")], "none")


def test_tiles_and_bars_lie_beside_each_other_in_their_sizes() -> None:
    """Nothing overlaps, tiles are as wide as asked, and room for a colour bar is left only where there is one."""
    depth = RNG.uniform(1, 4, (6, 8))
    tiles = {"RGB": Tile(np.zeros((6, 8, 3))), "depth": Tile(depth, (1.0, 4.0), "m"), "over": Tile(np.zeros((6, 8, 3)))}
    figure = tiles_figure([TileRow("a", tiles), TileRow("b", tiles, "a note")], "Title", width=1.5)
    wide, high = figure.get_size_inches()
    boxes = [axis.get_position() for axis in figure.axes]
    inside = all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    apart = [not (a.overlaps(b)) for number, a in enumerate(boxes) for b in boxes[:number]]
    assert inside and all(apart)
    shown = [axis.get_position() for axis in figure.axes if axis.get_images()]
    assert len(shown) == 6 and {round(box.width * wide, 6) for box in shown} == {1.5}
    assert {round(box.height * high, 6) for box in shown} == {1.5 * 6 / 8}
    rgb, over, last = shown[0], shown[1], shown[2]
    assert (over.x0 - rgb.x1) * wide < 0.1 < 0.5 < (last.x0 - over.x1) * wide
