import io

import numpy as np
from PIL import Image

from helpers.planted_frames import boxes
from m33d_hf.data.measuring.duplicates import Pair, beside_cuts, near_duplicates, perceptual_hash
from m33d_hf.data.measuring.findings import judge_duplicates


def hash_of(rgb: np.ndarray) -> str:
    digest = perceptual_hash(rgb.transpose(2, 0, 1))
    assert digest is not None and len(digest) == 64
    return digest


def encoded(rgb: np.ndarray, quality: int, side: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(rgb).resize((side, side * 3 // 4)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def test_a_copy_is_found_after_resizing_and_encoding_and_others_are_not():
    first = [(f"a{seed}", hash_of(boxes(seed)[0])) for seed in range(300)]
    copy = encoded(boxes(7)[0], 60, 100)
    second = [(f"b{seed}", hash_of(boxes(seed)[0])) for seed in range(300, 500)] + [("copy", hash_of(copy))]
    pairs = list(near_duplicates(first, second))
    assert [(pair.first, pair.second) for pair in pairs] == [("a7", "copy")]


def test_the_distance_counts_bits():
    first, second = bytes(32), bytes([0b1011] + [0] * 30 + [1])
    (pair,) = near_duplicates([("a", first.hex())], [("b", second.hex())])
    assert pair.distance == 4
    far = bytes([255, 7] + [0] * 30)
    assert not list(near_duplicates([("a", first.hex())], [("b", far.hex())]))
    assert not list(near_duplicates([], [("b", far.hex())]))


def recording(views: str) -> list[tuple[str, str]]:
    """Frames `a/0` .. of a recording, a letter for each view."""
    return [(f"a/{number}", bytes([ord(view)] * 32).hex()) for number, view in enumerate(views)]


def test_a_camera_that_stands_still_at_a_cut_is_told_from_one_that_comes_back():
    frames = recording("wwabbbbbbcw")  # cut within the b; w is seen again at the end
    one = dict.fromkeys((key for key, _ in frames), "a")
    still = {f"a/{number}": "a" for number in (3, 4, 5, 6, 7, 8)}
    assert beside_cuts(frames[:6], frames[6:], one) == beside_cuts(frames[6:], frames[:6], one) == still
    assert beside_cuts(frames[:6], frames[6:], {}) == {}
    assert beside_cuts(frames[::2], frames[1::2], one) == {}, "mixed frame by frame is no cut"
    two = {key: str(number > 5) for number, (key, _) in enumerate(frames)}
    assert beside_cuts(frames[:6], frames[6:], two) == {}, "nothing is cut between recordings"


def test_what_stands_still_at_a_cut_is_noted_unless_it_is_most_of_the_evaluation():
    pairs = [Pair("a/8", "a/9", 0), Pair("a/7", "a/9", 2)]
    beside = dict.fromkeys(("a/7", "a/8", "a/9"), "a")
    (note,) = judge_duplicates(pairs, (9, 3), beside)
    assert not note.is_problem and "beside a cut through one recording" in note.text
    for others in ({}, {**beside, "a/9": "b"}):
        (problem,) = judge_duplicates(pairs, (9, 3), others)
        assert problem.is_problem and "correct the split" in problem.text
    assert judge_duplicates(pairs, (9, 1), beside)[0].is_problem
    assert judge_duplicates([*pairs, Pair("a/0", "a/11", 0)], (9, 3), beside)[0].is_problem


def test_pictures_without_contrast_have_no_hash():
    wall = np.random.default_rng(0).normal(120, 2, (96, 128, 3)).astype(np.uint8)
    assert perceptual_hash(wall.transpose(2, 0, 1)) is None
