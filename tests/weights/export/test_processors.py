"""Stock processors beside stock models, against ours on the same pictures."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import VideoMAEImageProcessor, VideoMAEVideoProcessor, ViTImageProcessor

from helpers.exports import saved
from helpers.tiny import CLIP
from m33d_hf import M33DForPreTraining
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessorPil
from m33d_hf.modeling.placement_fields_m33d import placement_fields
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.weights.export.processors import write_processors
from m33d_hf.weights.export.source import load_source


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def prepared(folder: Path, mode: str, clip: bool = False, **overrides: Any) -> tuple[Any, dict[str, Any]]:
    """Our processor, saved beside a model, and the report of the stock one."""
    size = overrides.pop("image_size", 32)
    own = saved(M33DForPreTraining, folder / "own", **(CLIP if clip else {}), image_size=size)
    kind = M33DVideoProcessor if clip else M33DImageProcessorPil
    processor = kind.from_model_config(own.config, **placement_fields(size, mode), **overrides)
    processor.save_pretrained(folder / "own")
    (folder / "out").mkdir()
    return processor, write_processors(load_source(str(folder / "own")), folder / "out")


@pytest.mark.parametrize("shape", [(32, 32), (47, 91), (91, 47)])
def test_an_image_resized_to_both_sides_is_the_same(tmp_path: Path, shape: tuple[int, int]) -> None:
    own, report = prepared(tmp_path, "resize", image_mean=[0.3, 0.4, 0.5], resample=3)
    stock = ViTImageProcessor.from_pretrained(tmp_path / "out")
    given = picture(*shape)
    both = [each(given, return_tensors="pt")["pixel_values"] for each in (own, stock)]
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=1e-5)
    assert report["written"] == ["ViTImageProcessor"] and max(d["largest"] for d in report["differences"]) < 1e-5


def test_clips_are_prepared_alike_by_both_stock_processors(tmp_path: Path) -> None:
    own, report = prepared(tmp_path, "center", clip=True, frame_stride=4)
    frames = [picture(64, 96)] * 4
    expected = own([frames], return_tensors="pt")["pixel_values"]
    for kind in (VideoMAEImageProcessor, VideoMAEVideoProcessor):
        stock = kind.from_pretrained(tmp_path / "out")
        found = stock([frames], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert any("frame_stride 4" in note for note in report["notes"])
    assert any("half a pixel" in note for note in report["notes"])


def test_a_crop_that_lies_aside_is_measured(tmp_path: Path) -> None:
    own, report = prepared(tmp_path, "center")
    assert own.size["shortest_edge"] == 32
    by_picture = {tuple(each["picture"]): each for each in report["differences"]}
    assert by_picture[32, 32]["largest"] < 1e-5
    # 42 x 69 is brought to 32 x 53 by ours (52.57 rounded) and to 32 x 52 by transformers.
    assert by_picture[42, 69]["share"] > 0.5


SHAPES = [(64, 96), (91, 47), (56, 56)]
LEGAL: list[dict[str, Any]] = [
    {"size": {"shortest_edge": 56}, "crop_size": 48, "do_center_crop": True},
    {"size": {"height": 50, "width": 60}, "crop_size": {"height": 48, "width": 40}, "do_center_crop": True},
    {"do_resize": False, "crop_size": 32, "do_center_crop": True},
    {"do_resize": False, "do_center_crop": False},
]


@pytest.mark.parametrize("options", [*LEGAL, {"size": {"shortest_edge": 40}, "do_center_crop": False}])
@pytest.mark.parametrize("clip", [False, True])
def test_crops_and_sizes_of_ones_own_are_prepared_alike(tmp_path: Path, clip: bool, options: dict[str, Any]) -> None:
    saved(M33DForPreTraining, tmp_path / "own", **(CLIP if clip else {}))
    own = (M33DVideoProcessor if clip else M33DImageProcessorPil)(**options)
    own.save_pretrained(tmp_path / "own")
    (tmp_path / "out").mkdir()
    report = write_processors(load_source(str(tmp_path / "own")), tmp_path / "out")
    assert report["written"], report["notes"]
    kinds = (VideoMAEImageProcessor, VideoMAEVideoProcessor) if clip else (ViTImageProcessor,)
    for shape in SHAPES:
        given: Any = [[picture(*shape)] * 4] if clip else picture(*shape)
        expected = own(given, return_tensors="pt")["pixel_values"]
        for kind in kinds:
            found = kind.from_pretrained(tmp_path / "out")(given, return_tensors="pt")["pixel_values"]
            level = 0.02  # Pillow and torch may round a resized pixel to neighbouring grey levels
            near = clip or "crop_size" in options or "do_resize" in options
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if near else level)


@pytest.mark.parametrize(("mode", "size", "words"), [("pad", 32, "padded"), ("center", [32, 48], "only for squares")])
def test_what_stock_processors_cannot_say_is_not_written(tmp_path: Path, mode: str, size: Any, words: str) -> None:
    _, report = prepared(tmp_path, mode, image_size=size)
    assert report["written"] == [] and words in report["notes"][0]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_a_processor_gets_that_of_its_configuration(tmp_path: Path) -> None:
    saved(M33DForPreTraining, tmp_path / "own")
    (tmp_path / "out").mkdir()
    report = write_processors(load_source(str(tmp_path / "own")), tmp_path / "out")
    assert report["notes"] == ["the folder has no processor; it was built from the model's configuration"]
    stock = ViTImageProcessor.from_pretrained(tmp_path / "out")
    assert (stock.size["height"], stock.size["width"]) == (32, 32)


def test_a_repository_s_own_processor_is_the_one_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(M33DForPreTraining, tmp_path / "own")
    M33DImageProcessorPil(size={"height": 40, "width": 32}, do_center_crop=False).save_pretrained(tmp_path / "own")

    def snapshot(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        (tmp_path / "cache").mkdir()
        for file in (tmp_path / "own").iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name, revision: tmp_path / "own" / name)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    (tmp_path / "out").mkdir()
    report = write_processors(load_source("somebody/model"), tmp_path / "out")
    assert report["notes"] == []
    assert ViTImageProcessor.from_pretrained(tmp_path / "out").size["height"] == 40
