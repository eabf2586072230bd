import io

import numpy as np
from PIL import Image

from helpers.planted_frames import boxes
from m33d_hf.data.measuring.duplicates import near_duplicates, perceptual_hash


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


def test_pictures_without_contrast_have_no_hash():
    wall = np.random.default_rng(0).normal(120, 2, (96, 128, 3)).astype(np.uint8)
    assert perceptual_hash(wall.transpose(2, 0, 1)) is None
