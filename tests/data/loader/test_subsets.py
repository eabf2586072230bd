"""Low-label draws: whole videos, stratified, nested, a function of seed and names."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from m33d_hf.data.loader.subsets import label_subset, missing_classes, scene_subset
from m33d_hf.errors import ConfigError, DataError, LabelError

NAMES = ["cut", "sew", "wash"]
COUNTS = (100, 40, 20)
LABELS = [label for label, count in enumerate(COUNTS) for _ in range(count)]
GROUPS = [f"v{row:03d}" for row in range(len(LABELS))]


def draw(fraction: float | None, seed: int = 0, allow: bool = False) -> list[int]:
    return label_subset(LABELS, GROUPS, NAMES, fraction, seed, allow)


@pytest.mark.parametrize(("fraction", "counts"), [(0.05, (5, 2, 1)), (0.1, (10, 4, 2)), (0.2, (20, 8, 4))])
def test_every_class_gives_its_share(fraction: float, counts: tuple[int, ...]) -> None:
    rows = draw(fraction)
    assert rows == sorted(set(rows))
    found = Counter(LABELS[row] for row in rows)
    assert tuple(found[label] for label in range(3)) == counts


def test_all_labels_are_all_rows() -> None:
    assert draw(1.0) == draw(None) == list(range(160))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_smaller_shares_lie_within_larger_ones(seed: int) -> None:
    shares = [set(draw(share, seed, allow=True)) for share in (0.001, 0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 0.99, 1.0)]
    for small, large in itertools.pairwise(shares):
        assert small <= large
    assert len(shares[0]) == 1  # never empty


def test_the_draw_is_a_function_of_seed_and_names() -> None:
    rows = draw(0.2)
    assert rows == draw(0.2)
    assert rows != draw(0.2, seed=1)
    chosen = {GROUPS[row] for row in rows}
    order = list(reversed(range(160)))
    turned = label_subset([LABELS[i] for i in order], [GROUPS[i] for i in order], NAMES, 0.2, 0)
    assert {GROUPS[order[row]] for row in turned} == chosen
    # Another class beside it changes nothing for the others.
    less = label_subset(LABELS[:140], GROUPS[:140], NAMES[:2], 0.2, 0)
    assert {GROUPS[row] for row in less} == {group for group in chosen if group < "v140"}


def test_clips_of_a_video_go_together() -> None:
    labels = [label for label in LABELS for _ in range(3)]
    groups = [group for group in GROUPS for _ in range(3)]
    rows = label_subset(labels, groups, NAMES, 0.1, 0)
    assert {row // 3 for row in rows} == set(draw(0.1))
    assert len(rows) == 3 * 16


def test_videos_of_several_phases_are_drawn_without_classes() -> None:
    labels = [0, 1, 2, 255] * 40
    groups = [f"op{row // 4:02d}" for row in range(160)]
    rows = label_subset(labels, groups, NAMES, 0.05, 0)
    videos = {groups[row] for row in rows}
    assert len(videos) == 2 and len(rows) == 8  # all rows of a video, unlabelled ones included
    assert set(rows) < set(label_subset(labels, groups, NAMES, 0.1, 0))


def test_videos_without_labels_are_not_drawn() -> None:
    labels = [*LABELS, *[255] * 500]
    groups = [*GROUPS, *[f"u{row}" for row in range(500)]]
    assert label_subset(labels, groups, NAMES, 0.2, 0) == draw(0.2)
    assert len(label_subset(labels, groups, NAMES, 1.0, 0)) == 660


def test_a_class_with_no_sample_at_five_per_cent() -> None:
    labels, groups = [*LABELS, 3, 3], [*GROUPS, "w1", "w2"]
    names = [*NAMES, "knot"]
    with pytest.raises(DataError) as caught:
        label_subset(labels, groups, names, 0.05, 0)
    message = str(caught.value)
    assert "1 of 4 classes have no sample at data.label_fraction 0.05" in message
    assert "'knot' (2 videos)" in message and "--data.allow_missing_classes true" in message
    assert label_subset(labels, groups, names, 0.05, 0, allow_missing=True) == draw(0.05)
    assert 3 in {labels[row] for row in label_subset(labels, groups, names, 0.25, 0)}


def test_a_phase_that_no_drawn_video_has() -> None:
    labels = [0] * 19 + [1]  # one video of twenty shows phase 1, and each also shows phase 2
    groups = [f"op{row:02d}" for row in range(20)] * 2
    with pytest.raises(DataError, match=r"no sample at data\.label_fraction 0\.05 \(1 of 20 videos drawn\)"):
        label_subset([*labels, *[2] * 20], groups, NAMES, 0.05, 0)


def test_a_class_without_any_training_sample() -> None:
    for fraction in (None, 1.0, 0.5):
        with pytest.raises(DataError, match="1 of 4 classes have no training sample at all: knot"):
            label_subset(LABELS, GROUPS, [*NAMES, "knot"], fraction, 0)
    assert missing_classes(LABELS, [*NAMES, "knot"]) == ["knot"]
    assert len(label_subset(LABELS, GROUPS, [*NAMES, "knot"], None, 0, allow_missing=True)) == 160


def test_long_lists_of_classes_are_cut_short() -> None:
    with pytest.raises(DataError, match="c7 and 92 more"):
        label_subset([100], ["v"], [f"c{number}" for number in range(101)], None, 0)


def test_what_cannot_be() -> None:
    for fraction in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="greater than 0 and at most 1"):
            draw(fraction)
    with pytest.raises(ConfigError, match="160 labels for 2 rows"):
        label_subset(LABELS, GROUPS[:2], NAMES, 0.1, 0)
    with pytest.raises(LabelError, match="v000: label 3"):
        label_subset([3], ["v000"], NAMES, 0.1, 0)
    with pytest.raises(DataError, match="none of the 2 training samples has a label"):
        label_subset([255, 255], ["a", "b"], NAMES, 0.1, 0)


# Scenes of 1, 2, 3, ... frames.
SCENES = [f"scene{number:04d}" for number in range(30) for _ in range(number + 1)]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_scenes_are_drawn_whole_and_nested(seed: int) -> None:
    fractions = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    shares = [scene_subset(SCENES, fraction, seed) for fraction in fractions]
    for fraction, rows in zip(fractions, shares, strict=True):
        taken = {SCENES[row] for row in rows}
        assert rows == [row for row, scene in enumerate(SCENES) if scene in taken]
        # No other prefix of the order is nearer, so that half the largest scene bounds the distance.
        assert abs(len(rows) - fraction * len(SCENES)) <= 15 or len(taken) == 1
    for small, large in itertools.pairwise(shares):
        assert set(small) <= set(large)
    assert len({SCENES[row] for row in shares[0]}) == 1 and shares[-1] == list(range(len(SCENES)))


def test_scenes_of_one_image_are_rounded_half_up_and_depend_on_seed_and_name_alone() -> None:
    images = [f"{number:04d}" for number in range(50)]
    assert [len(scene_subset(images, share, 0)) for share in (0.01, 0.05, 0.2, 0.99)] == [1, 3, 10, 50]
    drawn = {images[row] for row in scene_subset(images, 0.2, 0)}
    assert drawn == {images[::-1][row] for row in scene_subset(images[::-1], 0.2, 0)}
    assert drawn != {images[row] for row in scene_subset(images, 0.2, 1)}


def test_shares_of_scenes_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        scene_subset(SCENES, 0.0, 0)
    with pytest.raises(DataError, match="nothing to draw from"):
        scene_subset([], 0.5, 0)
