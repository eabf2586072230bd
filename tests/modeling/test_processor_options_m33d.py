"""Options of processors: scalars for every channel, what is refused by name, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoVideoProcessor
from transformers.image_processing_backends import TorchvisionBackend

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.processor_options_m33d import per_channel
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor

CLASSES = [M33DImageProcessor, M33DImageProcessorPil, M33DVideoProcessor]


def _picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def _pixels(processor: Any, **options: Any) -> torch.Tensor:
    return processor(_picture(), return_tensors="pt", **options)["pixel_values"].reshape(3, 12, 16)


@pytest.mark.parametrize("kind", CLASSES)
def test_one_mean_and_deviation_hold_for_every_channel(kind: type) -> None:
    size, plain = {"height": 12, "width": 16}, {"do_center_crop": False}
    expected = _pixels(kind(size=size, image_mean=[0.5, 0.5, 0.5], image_std=[0.25, 0.25, 0.25], **plain))
    for mean, std in ((0.5, 0.25), ([0.5], (0.25,)), (0.5, [0.25, 0.25, 0.25])):
        assert torch.equal(_pixels(kind(size=size, image_mean=mean, image_std=std, **plain)), expected)
        assert torch.equal(_pixels(kind(size=size, **plain), image_mean=mean, image_std=std), expected)
    theirs = TorchvisionBackend(
        size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3, resample=2, do_resize=True, do_rescale=True,
        do_normalize=True,
    )  # fmt: skip
    reference = theirs(_picture(), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(expected, reference, atol=1e-5, rtol=1e-5)
    saved = kind(size=size, image_mean=0.5, image_std=0.25, **plain).to_dict()
    assert saved["image_mean"] == 0.5 and torch.equal(_pixels(kind.from_dict(saved)), expected)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_std": 0.0}, r"image_std is 0.0; .* above 0"),
        ({"image_std": [0.2, 0.0, 0.2]}, "above 0"),
        ({"image_std": [0.0, 1, 1]}, r"image_std is \[0.0, 1(.0)?, 1(.0)?\]; .* above 0"),
        ({"image_std": 0}, r"image_std is 0(.0)?; .* above 0"),
        ({"image_std": [0.2, -0.1, 0.2]}, "above 0"),
        ({"image_mean": float("nan")}, "finite number"),
        ({"image_mean": [0.1, float("inf"), 0.1]}, "finite number"),
        ({"image_mean": []}, "finite number"),
        ({"do_resise": False}, "Did you mean 'do_resize'"),
        ({"depth_map": None}, "has no option 'depth_map'"),
        ({"image_meen": 0.5}, "Did you mean 'image_mean'"),
    ],
)
def test_senseless_options_are_refused_when_stated_and_in_a_call(
    kind: type, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)
    with pytest.raises(ConfigError, match=message):
        kind()(_picture(), **options)
    with pytest.raises(ConfigError, match=message):
        kind.from_dict({**kind().to_dict(), **options})


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_resize": "yes"}, "do_resize"),
        ({"resample": "bilinear"}, "resample"),
        ({"size": "large"}, "size"),
        ({"image_mean": "0.5"}, "image_mean"),
        ({"image_mean": [0.1, 0.2]}, "image_mean has 2 numbers"),
        ({"depth_standardization": "trimed"}, "Did you mean 'trimmed'"),
    ],
)
def test_calls_with_options_of_another_type_are_refused(kind: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind()(_picture(), **options)


def test_numbers_per_channel() -> None:
    assert per_channel(0.5, "mean") == (0.5, 0.5, 0.5) and per_channel([0.1, 0.2, 0.3], "mean") == (0.1, 0.2, 0.3)
    with pytest.raises(ConfigError, match="has 4 numbers"):
        per_channel([1.0, 2.0, 3.0, 4.0], "mean")


@pytest.mark.parametrize("kind", CLASSES)
def test_what_transformers_writes_beside_options_is_no_mistake(kind: type) -> None:
    beside = {"auto_map": {"AutoImageProcessor": "a.B"}, "processor_class": "X", "feature_extractor_type": "Y"}
    assert kind.from_dict({**kind().to_dict(), **beside}).do_resize


@pytest.mark.parametrize("kind", CLASSES)
def test_integers_and_arrays_are_fine_where_floats_are_meant(kind: type) -> None:
    processor = kind(size={"height": 12, "width": 16}, do_center_crop=False)
    expected = _pixels(processor, image_mean=[0.0, 1.0, 0.5], image_std=[1.0, 1.0, 2.0])
    for mean, std in (([0, 1, 0.5], (1, 1.0, 2)), (np.array([0, 1, 0.5]), np.array([1, 1, 2]))):
        assert torch.equal(_pixels(processor, image_mean=mean, image_std=std), expected)
    torch.testing.assert_close(_pixels(processor, image_mean=0, image_std=1), _pixels(processor, do_normalize=False))
    with pytest.raises(ConfigError, match="image_mean"):
        processor(_picture(), image_mean=[True, 0.5, 0.5])


@pytest.mark.parametrize("kind", [M33DImageProcessor, M33DImageProcessorPil])
@pytest.mark.parametrize("options", [{}, {"max_depth": 8.0}])
def test_the_file_of_an_image_processor_is_refused_for_videos(
    kind: type[Any], options: dict[str, Any], tmp_path: Path
) -> None:
    kind(**options).save_pretrained(tmp_path)
    M33DConfig().save_pretrained(tmp_path)
    for load in (AutoVideoProcessor, M33DVideoProcessor):
        with pytest.raises(ConfigError, match=r"file of an image processor .*load it with AutoImageProcessor"):
            load.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [M33DImageProcessor, M33DImageProcessorPil])
def test_the_file_of_a_video_processor_is_refused_for_images(kind: type[Any], tmp_path: Path) -> None:
    M33DVideoProcessor().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"file of a video processor .*load it with AutoVideoProcessor"):
        kind.from_pretrained(tmp_path / "video_preprocessor_config.json")


def test_the_file_of_another_projects_image_processor_still_serves_clips() -> None:
    saved = {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 12}, "image_mean": [0.5] * 3}
    assert M33DVideoProcessor.from_dict(saved).image_mean == (0.5, 0.5, 0.5)
