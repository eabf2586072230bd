"""Sizes of pictures as people write them, on the command line and in recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.parsing import parse_arguments

WAYS = ("240x320", "240,320", "240 x 320", "[240, 320]")


@pytest.mark.parametrize("written", WAYS)
def test_height_and_width_as_a_flag(written: str) -> None:
    args = parse_arguments(["--recipe", "nyuv2_depth", "--model.image_size", written], "depth_estimation")
    assert args.model["image_size"] == [240, 320]


@pytest.mark.parametrize("written", WAYS)
def test_height_and_width_in_a_recipe(written: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: nyuv2_depth\nmodel:\n  image_size: {written}\n")
    args = parse_arguments(["--recipe", str(tmp_path / "mine.yaml")], "depth_estimation")
    assert args.model["image_size"] == [240, 320]


def test_one_number_is_a_square_and_two_words_are_a_pair() -> None:
    words = ["--recipe", "nyuv2_depth", "--model.image_size"]
    assert parse_arguments([*words, "240"], "depth_estimation").model["image_size"] == 240
    assert parse_arguments([*words, "240", "320"], "depth_estimation").model["image_size"] == [240, 320]


@pytest.mark.parametrize("wrong", ["240x", "x320", "240x320x3", "0x320", "big"])
def test_other_words_are_no_size(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.image_size"):
        parse_arguments(["--recipe", "nyuv2_depth", "--model.image_size", wrong], "depth_estimation")
