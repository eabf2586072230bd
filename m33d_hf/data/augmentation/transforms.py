"""Joint augmentation of RGB, depth and labels, and the deterministic path of evaluation.

One geometry is drawn per sample and applied to every frame and every map: RGB with antialiasing, depth and labels by
the nearest pixel, so that no valid depth is mixed with a hole. Padding is mid-grey in RGB, NaN in depth, 255 (ignored)
in labels. RandAugment and colour touch RGB only and come last. Draws are functions of the sample's draw and key; each
of the three has its own, so that switching one off leaves the others as they were.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from m33d_hf.data.augmentation.batch_rows import BatchRows
from m33d_hf.data.augmentation.clips import draw_rand_augment
from m33d_hf.data.augmentation.color import draw_jitter
from m33d_hf.data.augmentation.crops import multi_scale_crop, random_crop, random_resized_crop, scale_jitter
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.rand_augmentation import Operation
from m33d_hf.data.augmentation.rand_geometry import follow, surround
from m33d_hf.data.augmentation.rgb_changes import ColorDraw, RgbChanges, change_clips
from m33d_hf.data.augmentation.views import crop_offset
from m33d_hf.data.overriding import restated
from m33d_hf.data.randomness import Draw, Uniforms
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.errors import DataError
from m33d_hf.modeling.preprocessing_m33d import (
    RGB_FILL,
    Placement,
    Size,
    covering_size,
    place,
    size_pair,
)


def build_transform(
    options: TransformOptions, train: bool, size: int | Sequence[int], patch_size: int | Sequence[int] = 1
) -> Callable[[RGBDSample], RGBDSample]:
    """Build the transform of one split.

    Args:
        options: what to do.
        train: augment; otherwise the deterministic evaluation path.
        size: side or [height, width] of the result, in pixels.
        patch_size: side or [height, width] of the model's patch; smaller images are refused, because enlarging them
            would add no detail.

    Raises:
        ConfigError: an invalid size, or options that do not fit it.
    """
    options.check()
    canvas, patch = size_pair(size), size_pair(patch_size)
    return TrainTransform(options, canvas, patch) if train else EvaluationTransform(options, canvas, patch)


@dataclass
class EvaluationTransform:
    """Fits every sample to the canvas without randomness, bit-equal to the processors.

    Attributes:
        aligns: whether it takes samples whose depth is not aligned with RGB yet; False for a subclass that overrides
            `__call__` or `crops` without setting it.

    Raises (when called):
        DataError: maps of different sizes, or an image smaller than a patch.
    """

    aligns: ClassVar[bool] = True

    options: TransformOptions
    size: Size
    patch_size: Size = (1, 1)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        restated(cls, "aligns", "__call__", "crops")

    def __call__(self, sample: RGBDSample) -> RGBDSample:
        image = checked_size(sample, self.patch_size)
        placement = place(image, self.size, self.options.eval_crop)
        rgb = None
        if sample.rgb is not None:
            rgb = placement.place_rgb(sample.rgb, self.options.resize_mode)
        return _with_maps(sample, rgb, placement, flip=False)

    def crops(self, sample: RGBDSample, count: int) -> list[RGBDSample]:
        """Scale until the canvas is covered and cut `count` crops, evenly spread along the side that sticks out.

        `eval_crop` plays no part here (VideoMAE's test); one crop is that of eval_crop "center".

        Raises:
            DataError: as for a call.
        """
        image = checked_size(sample, self.patch_size)
        resized = covering_size(image, self.size)
        wide = Placement((0, 0, *image), resized, (0, 0), resized)
        # Resized once for all crops.
        rgb = None if sample.rgb is None else wide.view(sample.rgb, self.options.resize_mode)
        whole = _with_maps(sample, rgb, wide, flip=False)
        spare = (resized[0] - self.size[0], resized[1] - self.size[1])
        offsets = [(crop_offset(spare[0], i, count), crop_offset(spare[1], i, count)) for i in range(count)]
        windows = [Placement((*offset, *self.size), self.size, (0, 0), self.size) for offset in offsets]
        return [_with_maps(whole, None if rgb is None else window.view(rgb), window, flip=False) for window in windows]


@dataclass
class TrainTransform:
    """Augments a sample as a function of ``sample.meta["draw"]`` and its key, with one draw for the whole clip.

    Attributes:
        aligns: see EvaluationTransform.
        in_parts: samples of a batch are begun one by one and finished together, and changing and mirroring RGB may be
            left to the collator; otherwise each is a call. Both are False for a subclass with a `__call__`, `begin` or
            `finish` of its own that does not state them.

    Raises (when called):
        DataError: maps of different sizes, or an image smaller than a patch.
    """

    aligns: ClassVar[bool] = True
    in_parts: ClassVar[bool] = True

    options: TransformOptions
    size: Size
    patch_size: Size = (1, 1)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for attribute in ("aligns", "in_parts"):
            restated(cls, attribute, "__call__", "begin", "finish")

    def __call__(self, sample: RGBDSample) -> RGBDSample:
        return self.finish([self.begin(sample)])[0]

    def begin(self, sample: RGBDSample, rows: BatchRows | None = None) -> Begun:
        """Do all but what changes RGB alone, which `finish` does for many samples at once; raises as a call does.

        A picture that is only resized takes its place among `rows`, those of the batch to come.
        """
        image = checked_size(sample, self.patch_size)
        draw: Draw = sample.meta["draw"]
        draws = Uniforms(draw.generator(sample.key, "geometry"))
        flip = draws.chance(self.options.flip)
        placement = self._place(image, draws)
        rgb = None
        changes = self._draw_changes(sample, placement)
        if sample.rgb is not None:
            frames, seen = sample.rgb, placement
            if changes is not None and changes.operations:
                frames, seen = surround(frames, follow(placement, changes.operations, image))
            # Changes need planes; otherwise the device may put pixels into planes while it normalises them.
            place = None
            if rows is not None and seen.fills and frames.stride(1) == 1:
                place = rows.take(len(frames), self.size)
            planes = changes is not None and rows is None
            rgb = seen.view(frames, self.options.resize_mode, planes=planes, out=place)
        return Begun(_with_maps(sample, rgb, placement, flip), placement, flip, changes)

    def finish(self, begun: Sequence[Begun], whole: bool = True) -> list[RGBDSample]:
        """The samples from `begin` with their RGB changed; the result does not depend on how many are finished
        together.

        Unless `whole`, changing and mirroring pictures is left to the caller (`RGBDSample.changes`, `mirrored`).
        """
        if whole:
            change_samples(begun)
        for each in begun:
            rgb = each.sample.rgb
            if rgb is not None:
                # Changes leave padding as it is.
                rgb = each.placement.pad(rgb, RGB_FILL)
                each.sample.rgb = rgb.flip(-1) if each.flip and whole else rgb
                each.sample.mirrored = each.flip and not whole
                each.sample.changes = None if whole else each.changes
        return [each.sample for each in begun]

    def _place(self, image: Size, draws: Uniforms) -> Placement:
        options = self.options
        if options.train_crop == "random_resized":
            return random_resized_crop(image, self.size, options.scale, options.ratio, draws)
        if options.train_crop == "multiscale":
            return multi_scale_crop(image, self.size, options.multiscale_scales, draws)
        if options.train_crop == "random":
            return random_crop(image, self.size, draws)
        if options.train_crop == "scale_jitter":
            return scale_jitter(image, self.size, options.scale, draws)
        return place(image, self.size, options.train_crop)

    def _draw_changes(self, sample: RGBDSample, placement: Placement) -> RgbChanges | None:
        options, draw = self.options, sample.meta["draw"]
        (bottom, right), (top, left) = placement.resized, placement.offset
        shown = (min(bottom - top, self.size[0]), min(right - left, self.size[1]))
        operations: tuple[Operation, ...] = ()
        if options.randaugment_ops > 0:
            operations = draw_rand_augment(sample, options.randaugment_ops, options.randaugment_magnitude)
        color = None if sample.rgb is None else self._draw_color(draw, sample.key)
        return RgbChanges(shown, operations, color) if operations or color is not None else None

    def _draw_color(self, draw: Draw, key: str) -> ColorDraw | None:
        options = self.options
        if not (options.color_jitter or options.grayscale or options.blur):
            return None
        draws = Uniforms(draw.generator(key, "color"))
        jitter, whiten, blur = (
            draws.chance(probability) for probability in (options.color_jitter, options.grayscale, options.blur)
        )
        if not (jitter or whiten or blur):
            return None
        strengths = (options.brightness, options.contrast, options.saturation, options.hue)
        return ColorDraw(
            draw_jitter(*strengths, draws) if jitter else None,
            whiten,
            (options.blur_kernel, draws.uniform(*options.blur_sigma)) if blur else None,
        )


@dataclass
class Begun:
    """A sample whose RGB is not changed yet: maps as they will be, RGB neither padded nor flipped."""

    sample: RGBDSample
    placement: Placement
    flip: bool
    changes: RgbChanges | None


def change_samples(begun: Sequence[Begun]) -> None:
    """Carry out the changes of samples, those of one size together."""
    waiting = [
        (each.sample, rgb, changes)
        for each in begun
        if (rgb := each.sample.rgb) is not None and (changes := each.changes) is not None
    ]
    changed = change_clips([rgb for _, rgb, _ in waiting], [changes for _, _, changes in waiting])
    for (sample, _, _), rgb in zip(waiting, changed, strict=True):
        sample.rgb = rgb


def checked_size(sample: RGBDSample, patch_size: Size) -> Size:
    """Return (height, width) of a sample whose maps agree.

    Raises:
        DataError: maps of different sizes or frame counts, or an image smaller than a patch.
    """
    height, width = sample.height, sample.width
    maps = {"rgb": sample.rgb, "depth": sample.depth, "segmentation": sample.segmentation}
    maps.update(sample.meta.get("modalities", {}))
    shapes = {name: (map_.shape[0], map_.shape[-2], map_.shape[-1]) for name, map_ in maps.items() if map_ is not None}
    if not sample.aligned and "depth" in shapes:
        shapes["depth"] = (shapes["depth"][0], height, width)
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {t} frames of {h} x {w}" for name, (t, h, w) in shapes.items())
        raise DataError(
            f"{sample.key}: the maps differ in size or frame count ({listed}); align them when reading, for example "
            "with the option align of the source"
        )
    if height < patch_size[0] or width < patch_size[1]:
        raise DataError(
            f"{sample.key}: the image has {height} x {width} pixels and is smaller than one patch of "
            f"{patch_size[0]} x {patch_size[1]}; remove it or use a smaller patch_size"
        )
    return height, width


def _with_maps(sample: RGBDSample, rgb: torch.Tensor | None, placement: Placement, flip: bool) -> RGBDSample:
    """Return the sample with its RGB replaced and every other map placed (and flipped) alike."""

    def moved(values: torch.Tensor | None, fill: float) -> torch.Tensor | None:
        if values is None:
            return None
        placed = placement.place_map(values, fill, image)
        return placed.flip(-1) if flip else placed

    meta, image = sample.meta, (sample.height, sample.width)
    if "modalities" in meta:
        meta = meta | {"modalities": {name: moved(map_, math.nan) for name, map_ in meta["modalities"].items()}}
    return dataclasses.replace(
        sample,
        rgb=rgb,
        depth=moved(sample.depth, math.nan),
        segmentation=moved(sample.segmentation, IGNORE_INDEX),
        meta=meta,
        aligned=True,
    )
