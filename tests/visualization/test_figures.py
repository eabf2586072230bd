"""Figures: the arithmetic behind the pictures, and that drawing gives files with the expected content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.losses_m33d import normalize_patches
from m33d_hf.modeling.masking_m33d import complement
from m33d_hf.modeling.patches_m33d import patchify
from m33d_hf.visualization.canvas import data_uri, new_figure, save_figure
from m33d_hf.visualization.curves import Curve, curves_figure, smooth
from m33d_hf.visualization.dense import (
    color_labels,
    depth_error_figure,
    depth_figure,
    iou_figure,
    label_colors,
    segmentation_figure,
)
from m33d_hf.visualization.reconstruction import (
    reconstruction_figure,
    reconstruction_views,
    rgb_image,
    undo_target_normalisation,
)

PNG = b"\x89PNG\r\n\x1a\n"


def _config(**rgb: object) -> M33DConfig:
    modalities = [
        {"name": "rgb", "channels": 3, "input_name": "pixel_values", "mask_ratio": 0.5,
         "channel_mean": (0.5, 0.4, 0.3), "channel_std": (0.2, 0.2, 0.3), **rgb},
        {"name": "depth", "channels": 1, "input_name": "depth_values",
         "mask_name": "depth_mask", "mask_ratio": 0.5},
    ]  # fmt: skip
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return M33DConfig(image_size=16, patch_size=8, modalities=modalities, **sizes)


@pytest.mark.parametrize("norm", ["none", "pooled", "per_channel"])
def test_undoing_inverts_the_target_normalisation(norm: str) -> None:
    truth = torch.randn(2, 3, 4 * 4 * 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spec = _config(target_norm=norm, target_eps=1e-2).spec("rgb")
    normalised = normalize_patches(truth, norm, 3, spec.target_eps)
    torch.testing.assert_close(undo_target_normalisation(normalised, truth, spec), truth)


@pytest.mark.parametrize(("norm", "space"), [("none", "input"), ("pooled", "input"), ("per_channel", "unit")])
def test_a_perfect_prediction_gives_the_input_back(norm: str, space: str) -> None:
    config = _config(target_norm=norm, target_space=space)
    spec = config.spec("rgb")
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([[0, 3], [1, 2]])
    target = pixels
    if space == "unit":
        assert spec.channel_mean is not None and spec.channel_std is not None
        target = pixels * torch.tensor(spec.channel_std)[:, None, None] + torch.tensor(spec.channel_mean)[:, None, None]
    patches = patchify(target[:, None], 1, (8, 8))
    drop = complement(keep, 4)
    masked = patches.gather(1, drop[..., None].expand(-1, -1, patches.shape[-1]))
    views = reconstruction_views(pixels, keep, normalize_patches(masked, norm, 3), spec, config)
    for i, view in enumerate(views):
        np.testing.assert_allclose(view.reconstruction[0], pixels[i].numpy(), atol=1e-5)
        assert view.statistics_from_truth == (norm != "none")
        assert np.isnan(view.visible).mean() == 0.5
    assert np.isfinite(views[0].visible[0, :, :8, :8]).all(), "token 0 of the first sample is visible"
    assert np.isnan(views[0].visible[0, :, :8, 8:]).all(), "token 1 is not"


def test_reconstruction_figure(tmp_path: Path) -> None:
    config = _config(target_norm="pooled")
    pixels, depth = torch.randn(3, 3, 16, 16), torch.randn(3, 1, 16, 16)
    keep = torch.tensor([[0, 3]] * 3)
    valid = torch.rand(3, 1, 16, 16) > 0.2
    rgb = reconstruction_views(pixels, keep, torch.randn(3, 2, 192), config.spec("rgb"), config)
    holes = reconstruction_views(depth, keep, torch.randn(3, 2, 64), config.spec("depth"), config, valid)
    assert not holes[0].valid.all()
    samples = [{"rgb": r, "depth": d} for r, d in zip(rgb, holes, strict=True)]
    figure = reconstruction_figure(samples, config, "a title")
    assert len(figure.axes) == 3 * 6
    titles = [axis.get_title() for axis in figure.axes]
    assert sum("truth" in title for title in titles) == 1, "the caption says where statistics come from"
    path = save_figure(figure, tmp_path / "new" / "r.png")
    assert path.read_bytes().startswith(PNG)
    assert data_uri(path).startswith("data:image/png;base64,iVBOR")


def test_a_figure_that_is_broken_off_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(image: Image.Image, path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(PNG)
        raise KeyboardInterrupt

    figure = new_figure(2, 2)[0]
    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


def test_rgb_image_undoes_the_input_normalisation_and_greys_masked_pixels() -> None:
    pixels = np.zeros((3, 2, 2))
    pixels[:, 0, 0] = np.nan
    image = rgb_image(pixels, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    np.testing.assert_allclose(image[1, 1], (0.5, 0.4, 0.3))
    np.testing.assert_allclose(image[0, 0], 0.85)


def test_label_colors_differ_and_ignore_is_grey() -> None:
    colors = label_colors(20)
    distance = np.abs(colors[:, None] - colors[None]).sum(-1)[~np.eye(20, dtype=bool)]
    assert distance.min() > 0.1
    assert ((colors >= 0) & (colors <= 1)).all()
    colored = color_labels(np.array([[0, 255], [19, 20]]), 20)
    np.testing.assert_allclose(colored[0, 1], 0.85)
    np.testing.assert_allclose(colored[1, 1], 0.85)
    np.testing.assert_allclose(colored[1, 0], colors[19])


def test_dense_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((12, 10, 3)) for _ in range(2)]
    labels = [rng.integers(0, 3, (12, 10)) for _ in range(2)]
    figure = segmentation_figure(images, labels, {"mae": labels, "m33d": labels}, ["wall", "floor", "box"], "seg")
    assert [axis.get_title() for axis in figure.axes[:4]] == ["RGB", "label", "mae", "m33d"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["wall", "floor", "box"]
    save_figure(figure, tmp_path / "s.png")
    depths = [1 + rng.random((12, 10)) for _ in range(2)]
    depths[0][:3] = np.nan
    figure = depth_figure(images, depths, {"scratch": [np.full((12, 10), 9.0)] * 2}, "depth")
    assert len(figure.axes) == 2 * 3 + 2, "a colour bar per row"
    vmin, vmax = figure.axes[2].images[0].get_clim()
    assert (vmin, vmax) == (np.nanmin(depths[0]), np.nanmax(depths[0])), "the truth sets the scale"
    save_figure(figure, tmp_path / "d.png")
    figure = depth_figure(images[:1], [np.full((12, 10), np.nan)], {}, "nothing valid")
    save_figure(figure, tmp_path / "n.png")


def test_errors_are_metres_and_share_a_scale(tmp_path: Path) -> None:
    depth = np.full((12, 10), 2.0)
    depth[:3] = np.nan
    near, far = np.full((12, 10), 1.5), np.full((12, 10), 5.0)
    figure = depth_error_figure([depth], {"a": [near], "b": [far]}, "errors")
    assert [axis.get_title() for axis in figure.axes][:3] == ["true depth", "error of a", "error of b"]
    truth, first, second = (axis.images[0] for axis in figure.axes[:3])
    assert float(first.get_array().max()) == 0.5 and float(second.get_array().min()) == 3.0
    assert first.get_array().mask[:3].all() and first.get_clim() == second.get_clim() == (0.0, 3.0)
    assert truth.get_array().mask[:3].all() and float(truth.get_array().max()) == 2.0
    assert [axis.get_ylabel() for axis in figure.axes[3:]] == ["m", "|error|, m"]
    save_figure(figure, tmp_path / "e.png")
    save_figure(depth_error_figure([np.full((4, 4), np.nan)], {"a": [np.ones((4, 4))]}, "no truth"), tmp_path / "n.png")


def test_iou_bars_leave_out_classes_that_did_not_occur(tmp_path: Path) -> None:
    figure = iou_figure({"mae": {"wall": 0.5}, "m33d": {"wall": 0.75, "box": 0.25}}, ["wall", "floor", "box"], "IoU")
    bars = figure.axes[0].containers
    assert [[bar.get_width() for bar in group] for group in bars] == [[50.0], [75.0, 25.0]]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["wall", "floor", "box"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mae, mean 50.0", "m33d, mean 50.0"]
    assert round(bars[1][1].get_y() + bars[1][1].get_height() / 2, 3) == 2.2  # the third row, the second of two
    save_figure(figure, tmp_path / "i.png")


def test_curves(tmp_path: Path) -> None:
    panels = {
        "loss": [Curve([1, 2], [3.0, 2.0], "mae"), Curve([1, 2], [3.0, 1.0], "m33d", variant=1)],
        "empty": [],
    }
    figure = curves_figure(panels, levels={"loss": ("floor", 2.5)}, y_labels={"loss": "mse"})
    lines = figure.axes[0].lines
    assert lines[0].get_color() != lines[1].get_color() and lines[1].get_linestyle() == "--"
    assert figure.axes[0].get_ylabel() == "mse"
    assert "nothing logged" in figure.axes[1].texts[0].get_text()
    save_figure(figure, tmp_path / "c.png")
    assert smooth([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("count", [3, 20, 102])
def test_the_legend_of_classes_lies_within_a_narrow_picture_and_names_what_occurs(count: int) -> None:
    names = [f"shower curtain {number}" for number in range(count)]
    maps = [np.full((6, 8), number) for number in (0, 2)]
    figure = segmentation_figure([np.zeros((6, 8, 3))] * 2, maps, {"run": maps}, names, "title")
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 and legend.y0 >= 0
    assert legend.y1 <= min(axis.get_window_extent().y0 for axis in figure.axes)
    assert len(figure.legends[0].get_texts()) == (2 if count > 20 else count)
