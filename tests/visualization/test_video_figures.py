"""Confusion matrices, timelines, motion masks and clip strips: what is where in the picture, in which colour."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from helpers.shared_data import shared
from helpers.tiny import CLIP, both, tiny_config
from helpers.videos import UNEVEN_STAMPS
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.video_times_m33d import times_of
from m33d_hf.visualization.canvas import INVALID, save_figure
from m33d_hf.visualization.clips import (
    DIM,
    MARK,
    clip_reconstruction_figure,
    dim_masked,
    motion_mask_figure,
    outline,
    spread_frames,
    visible_grid,
)
from m33d_hf.visualization.confusion import MOST_TICKS, confusion_figure, row_shares, worst_confusions
from m33d_hf.visualization.reconstruction import reconstruction_views
from m33d_hf.visualization.timeline import UNREADABLE, phase_colors, thinned, time_label, timeline_figure


class Rendered:
    """The PNG of a figure; colours are looked up at data coordinates of an axis."""

    def __init__(self, figure: Figure, path: Path) -> None:
        save_figure(figure, path, dpi=100)
        self.picture = np.asarray(Image.open(path).convert("RGB")) / 255
        figure.set_dpi(100)

    def at(self, axis: Axes, x: float, y: float) -> np.ndarray:
        """(3,) in [0, 1]."""
        column, row = axis.transData.transform((x, y))
        return self.picture[self.picture.shape[0] - 1 - int(row), int(column)]


# Confusion ---------------------------------------------------------------------------------------------------


def test_rows_are_shares_of_the_truth_and_absent_classes_are_no_zeros():
    shares = row_shares(np.array([[3, 1, 0], [0, 0, 0], [5, 0, 5]]))
    np.testing.assert_allclose(shares[0], [0.75, 0.25, 0])
    np.testing.assert_allclose(shares[2], [0.5, 0, 0.5])
    assert np.isnan(shares[1]).all()
    assert worst_confusions(np.array([[3, 1, 0], [0, 0, 0], [5, 0, 5]])) == [(2, 0, 0.5), (0, 1, 0.25)]


def test_a_small_matrix_carries_numbers_and_colours(tmp_path):
    figure = confusion_figure(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 5]]), ["a", "b", "c"], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000
    axis = figure.axes[0]
    assert {text.get_text() for text in axis.texts} == {"75", "25", "100"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert "accuracy 88.9%, mean over classes 87.5%" in axis.get_title() and "1 absent" in axis.get_title()
    drawn = Rendered(figure, tmp_path / "c.png")
    full, part, none, absent = (drawn.at(axis, x, y) for x, y in [(2.3, 2.3), (1.3, 0.3), (0.3, 2.3), (1.3, 1.3)])
    assert full.mean() < part.mean() < none.mean() and none.min() > 0.95
    np.testing.assert_allclose(absent, INVALID, atol=0.01)


def test_hundreds_of_classes_stay_readable(tmp_path):
    names = [f"action {number}" for number in range(250)]
    matrix = 40 * np.eye(250, dtype=int)
    matrix[7, 9], matrix[7, 7] = 30, 10
    figure = confusion_figure(matrix, names)
    axis = figure.axes[0]
    labels = axis.get_yticklabels()
    assert len(labels) <= MOST_TICKS and labels[1].get_text() == "3 action 3" and not axis.texts
    assert "action 7 taken for action 9: 75%" in figure.get_supxlabel()
    whole = confusion_figure(np.eye(101, dtype=int), names[:101])
    assert [label.get_text() for label in whole.axes[0].get_xticklabels()] == names[:101]
    whole.draw_without_rendering()
    boxes = [label.get_window_extent() for label in whole.axes[0].get_yticklabels()]
    assert all(a.y0 >= b.y1 - 1 for a, b in itertools.pairwise(boxes)), "names of 101 classes do not overlap"


def test_a_matrix_without_samples_and_one_of_another_size():
    assert confusion_figure(np.zeros((2, 2)), ["a", "b"]).axes[0].get_title() == "no samples"
    with pytest.raises(ConfigError, match=r"\(2, 3\) for 2 class names"):
        confusion_figure(np.zeros((2, 3)), ["a", "b"])


# Timelines ---------------------------------------------------------------------------------------------------


def test_bands_have_the_phases_colours_at_their_times(tmp_path):
    truth = np.array([0] * 50 + [2] * 25 + [255] * 25)
    rows = {"ground truth": truth, "clip by clip": np.ones(100, dtype=int), "Bi-GRU": np.roll(truth, 10)}
    figure = timeline_figure(rows, ["cut", "clip", "clean"], 2.0, tmp_path / "t.png", title="video01")
    colors = phase_colors(3)
    expected = [(0, 10, colors[0]), (0, 30, colors[2]), (0, 45, INVALID), (1, 30, colors[1]), (2, 2.5, INVALID)]
    drawn = Rendered(figure, tmp_path / "t.png")
    for row, second, color in expected:
        np.testing.assert_allclose(drawn.at(figure.axes[row], second, 0.5), color, atol=0.02)
    assert [axis.get_yticklabels()[0].get_text() for axis in figure.axes] == list(rows)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["cut", "clip", "clean", "not annotated"]
    assert figure.axes[-1].get_xlim() == (0, 50)
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert ticks[:3] == ["0:00", "0:05", "0:10"] and figure.get_suptitle() == "video01"


def test_probabilities_lie_below_on_the_same_axis(tmp_path):
    probabilities = np.zeros((10, 2))
    probabilities[:5, 0], probabilities[5:, 1] = 1, 1
    figure = timeline_figure({"Bi-GRU": np.zeros(1000, dtype=int)}, ["a", "b"], None, None, probabilities)
    axis = figure.axes[1]
    assert axis.get_xlim() == (0, 1000) and axis.get_xlabel() == "frame"
    drawn = Rendered(figure, tmp_path / "p.png")
    assert drawn.at(axis, 250, 0.5).max() < 0.05 and drawn.at(axis, 750, 0.5).min() > 0.95
    assert drawn.at(axis, 750, 1.5).max() < 0.05


def test_hours_of_video_are_drawn_at_once_with_hours_on_the_axis(tmp_path):
    ids = np.repeat(np.arange(5), 90_000)  # five hours at 25 frames per second
    figure = timeline_figure({"prediction": ids}, list("abcde"), 25.0, tmp_path / "h.png")
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[:2] == ["0:00:00", "0:30:00"] and figure.axes[0].get_xlabel() == "time, h:mm:ss"
    assert figure.axes[0].images[0].get_array().shape[1] <= 2400
    assert (time_label(3661, True), time_label(3661, False), time_label(59.6, False)) == ("1:01:01", "61:01", "1:00")


def test_bands_of_an_uneven_rate_lie_at_the_times_of_their_frames(tmp_path):
    times = times_of(UNEVEN_STAMPS, Fraction(1, 40), 10.0)
    ids = np.array([0] * 64 + [1] * 36)  # frame 64 begins at 10.6 s
    probabilities = np.eye(2)[ids]
    figure = timeline_figure({"whole": ids}, ["a", "b"], None, None, probabilities, times=times)
    drawn, colors = Rendered(figure, tmp_path / "u.png"), phase_colors(2)
    assert figure.axes[0].get_xlim() == (0, 25)
    for second, phase in [(4.0, 0), (10.3, 0), (10.9, 1), (24.0, 1)]:
        np.testing.assert_allclose(drawn.at(figure.axes[0], second, 0.5), colors[phase], atol=0.02)
        assert (drawn.at(figure.axes[1], second, 1.5).max() < 0.05) == bool(phase)


def test_unreadable_stretches_are_hatched_and_not_called_unannotated(tmp_path):
    ids = np.array([0] * 20 + [255] * 10 + [1] * 20)
    figure = timeline_figure({"whole": ids}, ["a", "b"], 2.0, tmp_path / "t.png", unreadable=[(10, 15), (25, 40)])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a", "b", UNREADABLE] and figure.axes[0].get_xlim() == (0, 40)
    drawn = Rendered(figure, tmp_path / "t.png")
    for stretch in (np.linspace(10.5, 14.5, 40), np.linspace(26, 39, 40)):
        seen = np.array([drawn.at(figure.axes[0], second, 0.5) for second in stretch])
        assert seen.min() < 0.9 and seen.max() > 0.99, "stripes on white, no flat colour"
    np.testing.assert_allclose(drawn.at(figure.axes[0], 20, 0.5), phase_colors(2)[1], atol=0.02)
    both = timeline_figure({"truth": np.array([255] * 20 + [0] * 20)}, ["a"], 2.0, unreadable=[(0, 5)])
    assert [text.get_text() for text in both.legends[0].get_texts()] == ["a", "not annotated", UNREADABLE]


def test_thinning_keeps_the_commonest():
    np.testing.assert_array_equal(thinned(np.array([1, 1, 2, 3, 3, 3]), 2), [1, 3])
    np.testing.assert_array_equal(thinned(np.array([4, 5]), 2), [4, 5])


def test_colours_of_phases_differ():
    for count in (7, 20):
        colors = phase_colors(count)
        distance = np.abs(colors[:, None] - colors[None]).sum(-1)[~np.eye(count, dtype=bool)]
        assert colors.shape == (count, 3) and distance.min() > 0.1
        assert np.abs(colors - np.asarray(INVALID)).sum(-1).min() > 0.2, "none looks like 'not annotated'"


@pytest.mark.parametrize(
    ("rows", "probabilities", "message"),
    [
        ({"a": np.zeros(3, int), "b": np.zeros(4, int)}, None, "'a' 3, 'b' 4"),
        ({}, None, "none"),
        ({"a": np.array([0, 2])}, None, "row 'a': phase id 2, but there are names for 0 to 1"),
        ({"a": np.zeros(3, int)}, np.zeros((3, 5)), r"\(3, 5\)"),
    ],
)
def test_timelines_that_cannot_be_drawn(rows, probabilities, message):
    with pytest.raises(ConfigError, match=message):
        timeline_figure(rows, ["x", "y"], 1.0, None, probabilities)


# Motion masks ------------------------------------------------------------------------------------------------


def motion_config(**changes):
    modalities = both({"masking": "motion", "mask_ratio": 0.75}, {"masking": "tube", "mask_ratio": 0.75})
    return tiny_config(**CLIP, modalities=modalities, motion_select="topk", **changes)


def moving_square() -> torch.Tensor:
    """(4, 3, 32, 32): a bright square that jumps inside the upper left quarter; the rest stands still."""
    clip = torch.zeros(4, 3, 32, 32)
    for frame in range(4):
        left = 8 * (frame % 2)
        clip[frame, :, :8, left : left + 8] = 2.0
    return clip


def test_dimming_and_outline():
    image = np.random.default_rng(0).random((4, 6, 3))
    visible = np.array([[True, True, False], [False, False, False]])
    dimmed = dim_masked(image, visible, (2, 2))
    np.testing.assert_array_equal(dimmed[:2, :4], image[:2, :4])
    np.testing.assert_allclose(dimmed[3, 5], np.full(3, DIM * image[3, 5].mean()))
    lines = set(outline(visible, (2, 2)))
    # The patches at (0, 0) and (0, 1) share one outline: no line between them at x = 1.5.
    horizontal = {((x, y), (x + 2, y)) for x in (-0.5, 1.5) for y in (-0.5, 1.5)}
    assert lines == horizontal | {((x, -0.5), (x, 1.5)) for x in (-0.5, 3.5)}


def test_visible_tokens_become_a_grid():
    grid = visible_grid(torch.tensor([0, 5, 7]), (2, 2, 2))
    assert grid.shape == (2, 2, 2) and np.argwhere(grid).tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 1]]


def test_the_overlay_frames_what_moves(tmp_path):
    config = motion_config()
    clip = moving_square()
    figure = motion_mask_figure(config, clip, "a clip", torch.Generator().manual_seed(0))
    assert len(figure.axes) == 6, "frame, motion and mask of two tubelets"
    frame, heat, overlay = figure.axes[0], figure.axes[2], figure.axes[4]
    assert frame.get_title() == "frame 0" and figure.axes[1].get_title() == "frame 2"
    scores = np.asarray(heat.images[0].get_array())
    assert scores.shape == (4, 4) and (scores[0, :2] > 0).all() and not scores[1:].any()
    assert overlay.get_ylabel() == "visible\n8 of 32"
    lines = {tuple(map(tuple, segment)) for segment in overlay.collections[0].get_segments()}
    assert ((-0.5, -0.5), (7.5, -0.5)) in lines, "the moving patch is framed"
    shown = np.asarray(overlay.images[0].get_array())
    original = np.asarray(frame.images[0].get_array())
    np.testing.assert_allclose(shown[2:6, 2:6], original[2:6, 2:6])
    drawn = Rendered(figure, tmp_path / "m.png")
    np.testing.assert_allclose(drawn.at(overlay, 4, 4), original[4, 4], atol=0.02)
    near = [np.abs(drawn.at(overlay, x, 4) - to_rgb(MARK)).max() for x in (-0.7, -0.5, -0.3)]
    assert min(near) < 0.3, "the line itself"


def test_given_tokens_are_shown_and_other_maskings_need_them():
    tube = tiny_config(**CLIP, modalities=both({"masking": "tube", "mask_ratio": 0.75}, {"masking": "tube"}))
    with pytest.raises(ConfigError, match="masking is 'tube'"):
        motion_mask_figure(tube, moving_square())
    figure = motion_mask_figure(tube, moving_square(), keep_V=torch.tensor([15, 31]))
    shown = np.asarray(figure.axes[4].images[0].get_array())
    bright = shown.max(axis=-1) > shown.max(axis=-1).min() + 1e-6
    assert bright[24:, 24:].all(), "token 15 of the first slot is the lower right patch"


def test_a_real_clip_is_drawn(tmp_path):
    from m33d_hf.modeling.configuration_m33d import rgb_modality
    from m33d_hf.modeling.picture_input_m33d import rgb_tensor
    from m33d_hf.modeling.preprocessing_m33d import normalize_rgb, place
    from m33d_hf.modeling.video_reading_m33d import read_video

    frames = rgb_tensor(
        read_video(shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi"), range(0, 32, 4))
    )
    frames = place((frames.shape[-2], frames.shape[-1]), 64).place_rgb(frames)
    config = tiny_config(
        image_size=64, num_frames=8, tubelet_size=2, modalities=[rgb_modality(masking="motion", mask_ratio=0.9)]
    )
    spec = config.spec("rgb")
    pixels = normalize_rgb(frames, spec.channel_mean, spec.channel_std)
    figure = motion_mask_figure(config, pixels, "SoccerJuggling", torch.Generator().manual_seed(0))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, frames[0].permute(1, 2, 0).numpy() / 255, atol=1e-3)
    assert save_figure(figure, tmp_path / "real.png").stat().st_size > 10_000


# Reconstruction strips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masking", ["tube", "motion", "frame"])
def test_the_strip_shows_input_visible_and_reconstruction_of_every_frame(masking, tmp_path):
    config = tiny_config(**CLIP, modalities=both({"masking": masking, "mask_ratio": 0.5}, {"masking": "tube"}))
    clip, depth = moving_square()[None], torch.randn(1, 4, 1, 32, 32)
    valid = torch.rand(1, 4, 1, 32, 32) > 0.2
    motion = torch.rand(1, 32)
    keep = draw_keep(config, 1, generator=torch.Generator().manual_seed(0), motion=motion)
    views = {}
    for name, pixels, holes in (("rgb", clip, None), ("depth", depth, valid)):
        spec = config.spec(name)
        masked = config.num_tokens - keep[name].shape[1]
        prediction = torch.zeros(1, masked, 2 * 8 * 8 * spec.channels)
        views[name] = reconstruction_views(pixels, keep[name], prediction, spec, config, holes)[0]
    figure = clip_reconstruction_figure(views, config, "strip")
    assert len(figure.axes) == 6 * 4
    assert [axis.get_title() for axis in figure.axes[:4]] == [f"frame {number}" for number in range(4)]
    rows = [figure.axes[4 * row].get_ylabel() for row in range(6)]
    assert rows == [f"{name}\n{word}" for name in ("rgb", "depth") for word in ("input", "visible", "reconstructed")]
    grid = visible_grid(keep["rgb"][0], config.grid).repeat(8, axis=1).repeat(8, axis=2)
    for frame in range(4):
        shown = np.asarray(figure.axes[4 + frame].images[0].get_array())
        grey = np.isclose(shown, INVALID[0]).all(axis=-1)
        np.testing.assert_array_equal(grey, ~grid[frame // 2])
        source = np.asarray(figure.axes[frame].images[0].get_array())
        np.testing.assert_allclose(shown[~grey], source[~grey])
    limits = {figure.axes[at].images[0].get_clim() for at in range(12, 24)}
    assert len(limits) == 1, "one scale for all depth frames"
    hidden = np.ma.getmaskarray(figure.axes[12].images[0].get_array())
    np.testing.assert_array_equal(hidden, ~valid[0, 0, 0].numpy())
    assert save_figure(figure, tmp_path / "strip.png").stat().st_size > 5000
    few = clip_reconstruction_figure(views, config, frames=[1, 3])
    assert len(few.axes) == 12 and few.axes[1].get_title() == "frame 3"
    with pytest.raises(ConfigError, match="no view of rgb, depth"):
        clip_reconstruction_figure({"thermal": views["rgb"]}, config)


def test_the_note_says_where_contrast_comes_from():
    config = tiny_config(**CLIP, modalities=both({"mask_ratio": 0.5, "target_norm": "pooled"}, {"mask_ratio": 0.5}))
    keep = draw_keep(config, 1, generator=torch.Generator().manual_seed(0))["rgb"]
    masked = torch.zeros(1, config.num_tokens - keep.shape[1], 384)
    views = {"rgb": reconstruction_views(moving_square()[None], keep, masked, config.spec("rgb"), config)[0]}
    figure = clip_reconstruction_figure(views, config)
    assert "come from the truth" in figure.get_supxlabel()
    figure.canvas.draw()
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_frames_are_spread_over_the_clip():
    assert spread_frames(16) == [0, 2, 4, 6, 9, 11, 13, 15] and spread_frames(4) == [0, 1, 2, 3]
    assert spread_frames(16, 3, 2) == [0, 8, 14] and spread_frames(16, 1) == [0]
