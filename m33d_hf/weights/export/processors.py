"""Stock processors with the preprocessing of our saved one, where possible, and their differences from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from m33d_hf.errors import M33DError
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessorPil
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.weights.export.source import Source

IMAGE_FILE, VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
# Shapes of test pictures relative to the model's image size: equal, wide, tall and odd.
_SHAPES = ((1.0, 1.0), (1.5, 2.0), (2.0, 1.25), (1.3, 2.17))


def write_processors(source: Source, folder: Path) -> dict[str, Any]:
    """Write the stock processors for a stock model, unless they have no field for what ours does.

    Returns:
        For the report: which were written, notes on what differs, and the largest difference of normalised pixels
        from ours, and the share of pixels that differ, by the size of a random picture.
    """
    clip = source.config.is_clip_model
    own, notes = _own(source, clip)
    fields, obstacle = _fields(own)
    if obstacle:
        return {"written": [], "notes": [*notes, obstacle]}
    from transformers import VideoMAEImageProcessor, VideoMAEVideoProcessor, ViTImageProcessor

    written: list[Any]
    if not clip:
        ViTImageProcessor(**fields).save_pretrained(folder)
        written = [ViTImageProcessor.from_pretrained(folder)]
    else:
        VideoMAEImageProcessor(**fields).save_pretrained(folder)
        VideoMAEVideoProcessor(**fields).save_pretrained(folder)
        written = [VideoMAEImageProcessor.from_pretrained(folder), VideoMAEVideoProcessor.from_pretrained(folder)]
        notes.append(
            f"stock processors use all frames passed to them; ours samples {own.num_frames} frames of a video, "
            f"frame_stride {own.frame_stride}, clip_sampling {own.clip_sampling!r}"
        )
    if fields["do_center_crop"] and fields["do_resize"] and fields["size"].get("shortest_edge"):
        notes.append(
            "ours rounds the longer side to the nearest pixel before the centre crop, but transformers rounds down: "
            "where these differ the crop may be shifted by half a pixel"
        )
    measured = [each for processor in written for each in _measure(source, own, processor)]
    other = next((each for each in measured if "sizes" in each), None)
    if other is not None:
        for name in (IMAGE_FILE, VIDEO_FILE):
            (folder / name).unlink(missing_ok=True)
        ours, stock = other["sizes"]
        obstacle = (
            f"a picture of {other['picture']} becomes {ours} with ours and {stock} with {other['processor']}, whose "
            "fields cannot say the same: prepare pictures with ours"
        )
        return {"written": [], "notes": [*notes, obstacle]}
    return {"written": [type(each).__name__ for each in written], "notes": notes, "differences": measured}


def _own(source: Source, clip: bool) -> tuple[Any, list[str]]:
    kind = M33DVideoProcessor if clip else M33DImageProcessorPil
    if (source.folder / (VIDEO_FILE if clip else IMAGE_FILE)).is_file():
        return kind.from_pretrained(source.folder), []
    note = "the folder has no processor; it was built from the model's configuration"
    return kind.from_model_config(source.config), [note]


def _fields(own: Any) -> tuple[dict[str, Any], str | None]:
    """Fields of a stock processor, or why there are none."""
    shared = {name: getattr(own, name) for name in ("do_resize", "do_rescale", "do_normalize", "rescale_factor")}
    shared |= {"resample": int(own.resample), "image_mean": own.image_mean, "image_std": own.image_std}
    size = {name: value for name, value in dict(own.size).items() if value}
    if getattr(own, "do_pad", False):
        return {}, "pictures are padded with mid-grey, which stock processors do not support: prepare them with ours"
    crop = _crop(own, size)
    if not own.do_center_crop or crop is None:
        return _whole(own, shared, size)
    if not own.do_resize or not _covers(size, crop):  # cut out of what stock processors resize alike, or of the picture
        return shared | {"size": size, "do_center_crop": True, "crop_size": crop}, None
    if crop["height"] != crop["width"]:
        return {}, (
            f"pictures are scaled to cover {size} and cropped to it, which stock processors support only for "
            "squares: prepare them with ours"
        )
    return shared | {"size": {"shortest_edge": crop["height"]}, "do_center_crop": True, "crop_size": crop}, None


def _whole(own: Any, shared: dict[str, Any], size: dict[str, int]) -> tuple[dict[str, Any], str | None]:
    """Fields where nothing is cut off."""
    if isinstance(own, M33DVideoProcessor) and own.do_resize and set(size) == {"shortest_edge"}:
        size = dict.fromkeys(("height", "width"), size["shortest_edge"])  # ours means a square
    return shared | {"size": size, "do_center_crop": False}, None


def _crop(own: Any, size: dict[str, int]) -> dict[str, int] | None:
    """Height and width that are cut out of the middle; None where nothing says so."""
    if own.crop_size is not None:
        stated = {name: value for name, value in dict(own.crop_size).items() if value}
        if {"height", "width"} <= set(stated):
            return {name: int(stated[name]) for name in ("height", "width")}
    if not own.do_resize:
        return None
    if {"height", "width"} <= set(size):
        return {name: int(size[name]) for name in ("height", "width")}
    return dict.fromkeys(("height", "width"), int(size["shortest_edge"])) if set(size) == {"shortest_edge"} else None


def _covers(size: dict[str, int], crop: dict[str, int]) -> bool:
    """Whether the crop is the size, which ours scales pictures to cover, without distortion."""
    side = size.get("shortest_edge")
    return crop == ({"height": side, "width": side} if set(size) == {"shortest_edge"} else size)


def _measure(source: Source, own: Any, stock: Any) -> list[dict[str, Any]]:
    height, width = source.config.image_height_width
    generator, found = np.random.default_rng(0), []
    for rows, columns in _SHAPES:
        shape = (max(1, round(height * rows)), max(1, round(width * columns)), 3)
        picture = generator.integers(0, 256, shape, dtype=np.uint8)
        frames = [picture] * (source.config.num_frames if source.config.is_clip_model else 1)
        given: Any = [frames] if source.config.is_clip_model else frames
        about: dict[str, Any] = {"processor": type(stock).__name__, "picture": list(shape[:2])}
        try:
            ours = _pixels(own, given)
        except M33DError:  # a crop that sticks out of this picture: ours refuses it, there is nothing to compare
            continue
        theirs = _pixels(stock, given)
        if ours.shape != theirs.shape:
            found.append(about | {"sizes": [list(each.shape[-2:]) for each in (ours, theirs)]})
            continue
        off = (ours - theirs).abs()
        found.append(about | {"largest": float(off.max()), "share": float((off > 1e-5).double().mean())})
    return found


def _pixels(processor: Any, given: Any) -> torch.Tensor:
    pixels: torch.Tensor = processor(given, return_tensors="pt")["pixel_values"]
    return pixels.reshape(-1, *pixels.shape[-3:])
