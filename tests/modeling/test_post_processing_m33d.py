"""What models say, back at image size; classes of clips and phases of videos."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.timeline import Detection
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.placement_fields_m33d import placement_fields
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor


def test_predictions_return_to_image_size() -> None:
    processor = M33DImageProcessor(min_depth=1.0, max_depth=3.0)
    logits = torch.zeros(2, 3, 4, 4)
    logits[0, 1], logits[1, 2] = 1.0, 1.0
    outputs = SimpleNamespace(logits=logits, predicted_depth=torch.tensor([0.0, 2.0])[:, None, None].expand(2, 4, 4))
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=[(8, 6), (5, 5)])
    assert [tuple(m.shape) for m in maps] == [(8, 6), (5, 5)]
    assert maps[0].eq(1).all() and maps[1].eq(2).all()
    scored = processor.post_process_semantic_segmentation(outputs, return_segmentation_scores=True)
    assert scored[0]["segmentation_scores"].shape == (3, 4, 4)
    depths = processor.post_process_depth_estimation(outputs, torch.tensor([[8, 6], [5, 5]]))
    assert depths[0]["predicted_depth"].shape == (8, 6) and depths[0]["predicted_depth"].eq(1.0).all()
    assert depths[1]["predicted_depth"].eq(2.0).all()
    with pytest.raises(DataError, match="target_sizes"):
        processor.post_process_depth_estimation(outputs, [(8, 6)])


@pytest.mark.parametrize("mode", ["center", "pad"])
@pytest.mark.parametrize(("image", "size"), [((90, 160), (24, 32)), ((160, 90), (32, 32)), ((21, 50), (32, 40))])
def test_a_crop_is_laid_where_it_was_cut_and_padding_is_cut_away(
    mode: str, image: tuple[int, int], size: tuple[int, int]
) -> None:
    """A plane over the image stays that plane: its value tells the place in pixels of the image."""
    height, width = image
    scale = (max if mode == "center" else min)(size[0] / height, size[1] / width)
    rows, columns = round(height * scale), round(width * scale)
    top, left = ((rows - size[0]) // 2, (columns - size[1]) // 2) if mode == "center" else (0, 0)
    across = (torch.arange(size[1]) + left + 0.5) * width / columns
    down = (torch.arange(size[0]) + top + 0.5) * height / rows
    depth = 1000 * down[:, None] + across
    processor = M33DImageProcessor(**placement_fields(size, mode))
    outputs = SimpleNamespace(predicted_depth=depth[None].float(), logits=torch.stack([depth, -depth])[None].float())
    found = processor.post_process_depth_estimation(outputs, [image])[0]["predicted_depth"].double()
    seen = found.ne(0)
    wanted = 1000 * (torch.arange(height)[:, None] + 0.5) + torch.arange(width) + 0.5
    for axis, (first, shown, whole, side) in enumerate(((top, size[0], rows, height), (left, size[1], columns, width))):
        centres = (torch.arange(side) + 0.5) * whole / side
        inside = (centres >= first) & (centres < first + shown)
        assert torch.equal(seen.any(dim=1 - axis), inside) and (mode == "center" or inside.all())
    inner = torch.zeros_like(seen)
    edge = [2 + int(1 / scale)] * 2
    where = seen.nonzero()
    (low_y, low_x), (high_y, high_x) = where.amin(0).tolist(), where.amax(0).tolist()
    inner[low_y + edge[0] : high_y - edge[0] + 1, low_x + edge[1] : high_x - edge[1] + 1] = True
    assert inner.any()
    torch.testing.assert_close(found[inner], wanted[inner].double(), rtol=1e-5, atol=1e-2)
    masks = processor.post_process_semantic_segmentation(outputs, [image], return_segmentation_scores=True)[0]
    assert torch.equal(masks["segmentation"] == 255, ~seen) and masks["segmentation"][seen].eq(0).all()
    assert torch.equal(masks["segmentation_scores"].isnan().any(0), ~seen)


def test_any_crop_that_fits_can_be_undone() -> None:
    """A plane over the image, seen through a resize to 8 x 12 and a crop of 4 x 6, comes back as that plane."""
    crop = {"height": 4, "width": 6}
    processor = M33DImageProcessor(size={"shortest_edge": 8}, do_center_crop=True, crop_size=crop)
    across = (torch.arange(6) + 3 + 0.5) * 24 / 12
    down = (torch.arange(4) + 2 + 0.5) * 16 / 8
    outputs = SimpleNamespace(predicted_depth=(100 * down[:, None] + across)[None])
    found = processor.post_process_depth_estimation(outputs, [(16, 24)])[0]["predicted_depth"]
    wanted = 100 * (torch.arange(16)[:, None] + 0.5) + torch.arange(24) + 0.5
    assert torch.equal(found.ne(0).nonzero().amin(0), torch.tensor([4, 6]))
    assert torch.equal(found.ne(0).nonzero().amax(0), torch.tensor([11, 17]))
    torch.testing.assert_close(found[5:11, 7:17], wanted[5:11, 7:17])


def test_a_crop_that_cannot_be_undone_is_not_guessed() -> None:
    crop = {"height": 9, "width": 9}
    processor = M33DImageProcessor(size={"shortest_edge": 8}, do_center_crop=True, crop_size=crop)
    outputs = SimpleNamespace(predicted_depth=torch.ones(1, 9, 9))
    with pytest.raises(ConfigError, match="crop_size not larger"):
        processor.post_process_depth_estimation(outputs, [(8, 6)])
    assert processor.post_process_depth_estimation(outputs)[0]["predicted_depth"].shape == (9, 9)


def test_classes_of_clips_come_with_probabilities_the_likeliest_first() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    processor = M33DVideoProcessor()
    for row, found in zip(logits.double(), processor.post_process_video_classification(SimpleNamespace(logits=logits))):
        shares = row.exp() / row.exp().sum()
        assert found["labels"].tolist() == sorted(range(5), key=lambda label: -row[label])
        torch.testing.assert_close(found["scores"].double(), shares[found["labels"]], atol=1e-6, rtol=1e-6)
    best = processor.post_process_video_classification(SimpleNamespace(logits=logits), top_k=2)
    assert [tuple(row["labels"].shape) for row in best] == [(2,)] * 3
    assert processor.post_process_video_classification(SimpleNamespace(logits=logits), 9)[0]["scores"].shape == (5,)
    with pytest.raises(ConfigError, match="at least 1"):
        processor.post_process_video_classification(SimpleNamespace(logits=logits), top_k=0)
    with pytest.raises(DataError, match=r"\(B, L\)"):
        processor.post_process_video_classification(SimpleNamespace(logits=logits[None]))


SPANS = [(0, 16), (8, 24), (16, 32), (24, 40), (36, 52)]


def test_phases_are_those_of_the_packages_own_detection() -> None:
    """Overlapping clips, a frame gap behind the last one, an unreadable clip with frames of its own."""
    generator = torch.Generator().manual_seed(1)
    processor = M33DVideoProcessor()
    for _ in range(20):
        logits = 2 * torch.randn(1, len(SPANS), 4, generator=generator)
        mask = torch.rand(1, len(SPANS), generator=generator) > 0.3
        mask[0, 0] = True
        rows = logits[0].double().softmax(-1).numpy()
        clips = [ClipPrediction(*span, bool(good), row, row) for span, good, row in zip(SPANS, mask[0].tolist(), rows)]
        detection = Detection(Path("a.mp4"), 55, 25.0, ["0", "1", "2", "3"], clips, [])
        (found,) = processor.post_process_action_detection(
            SimpleNamespace(logits=logits), [SPANS], [55], attention_mask=mask, fps=25.0
        )
        expected = [(start, stop, int(name), mean) for start, stop, name, mean in detection.segments()]
        assert [(each["start"], each["end"], each["label"]) for each in found] == [row[:3] for row in expected]
        assert [each["score"] for each in found] == pytest.approx([row[3] for row in expected], abs=1e-6)
        assert all(each["start_time"] == each["start"] / 25 and each["end_time"] == each["end"] / 25 for each in found)


def test_without_spans_phases_count_in_clips_and_padding_says_nothing() -> None:
    logits = torch.full((2, 4, 3), -9.0)
    for video, labels in enumerate(([1, 1, 2, 0], [0, 2, 1, 1])):
        logits[video, range(4), labels] = 9.0
    processor, outputs = M33DVideoProcessor(), SimpleNamespace(logits=logits)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    found = processor.post_process_action_detection(outputs, attention_mask=mask)
    assert [[(e["label"], e["start"], e["end"]) for e in video] for video in found] == [
        [(1, 0, 2), (2, 2, 3), (0, 3, 4)],
        [(0, 0, 1), (2, 1, 2)],
    ]
    short = processor.post_process_action_detection(outputs, [SPANS[:4], SPANS[:2]], fps=[8.0, 4.0])
    assert [video[-1]["end"] for video in short] == [40, 24] and short[1][-1]["end_time"] == 6.0
    assert "start_time" not in found[0][0]


def test_a_video_of_which_nothing_could_be_read_has_no_phases() -> None:
    """Nor do its frames that no clip covers: they have no neighbour to follow."""
    outputs, mask = SimpleNamespace(logits=torch.zeros(1, 2, 3)), torch.zeros(1, 2, dtype=torch.bool)
    for length in (8, 10):
        spans = [[(0, 4), (4, 8)]]
        found = M33DVideoProcessor().post_process_action_detection(outputs, spans, [length], attention_mask=mask)
        assert found == [[]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_spans": [SPANS]}, "1 clip_spans for 2 videos"),
        ({"lengths": [4]}, "1 lengths for 2 videos"),
        ({"fps": [25.0]}, "1 fps for 2 videos"),
        ({"clip_spans": [SPANS, SPANS]}, "clip_spans of video 0"),
        ({"clip_spans": [[(4, 4)], [(0, 4)]]}, "clip_spans of video 0"),
        ({"attention_mask": torch.ones(1, 4)}, "1 mask for 2 videos"),
    ],
)
def test_what_does_not_fit_the_videos_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        M33DVideoProcessor().post_process_action_detection(SimpleNamespace(logits=torch.zeros(2, 4, 3)), **options)
    with pytest.raises(DataError, match=r"\(B, S, L\)"):
        M33DVideoProcessor().post_process_action_detection(SimpleNamespace(logits=torch.zeros(4, 3)))


def test_clips_that_leave_the_video_are_refused() -> None:
    with pytest.raises(ConfigError, match="cover frames 0 to 51 of a video of 40"):
        M33DVideoProcessor().post_process_action_detection(SimpleNamespace(logits=torch.zeros(1, 5, 2)), [SPANS], [40])
