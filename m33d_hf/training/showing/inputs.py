"""The first batch: what the model is given, as it was augmented and masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.showing.looks import (
    class_legend,
    class_names,
    depth_of,
    depth_unit,
    label_tile,
    masked_depth,
    masked_rgb,
    rgb_of,
    visible_tokens,
)
from m33d_hf.training.showing.samples import Chosen
from m33d_hf.training.tasks.building import config_of
from m33d_hf.visualization.clips import spread_frames
from m33d_hf.visualization.tiles import Tile, TileRow, overlay, strip, tiles_figure, value_limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 6  # of a clip
STRIP_INCHES = 7.6


def inputs_figure(chosen: Chosen, model: nn.Module, dataset: SampleDataset, title: str) -> Figure:
    """RGB, depth with its unit, both over each other, labels with their names, and what the masks leave visible.

    Args:
        chosen: samples of the first batch.
        model: whose classes and masks are drawn.
        dataset: where the samples are from.
        title: heading.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    config = config_of(model)
    if config.num_frames > 1:
        return _clips_figure(chosen, config, dataset, title)
    unit, names = depth_unit(dataset), class_names(config)
    rows = []
    for number, sample in enumerate(chosen.samples):
        tiles = _map_tiles(sample, unit, len(names))
        tiles |= _mask_tiles(chosen, number, config, unit)
        rows.append(TileRow(sample.key, tiles, _label_words(chosen, number, names)))
    maps = [sample.segmentation[0].numpy() for sample in chosen.samples if sample.segmentation is not None]
    return tiles_figure(rows, title, class_legend(maps, names) if maps else None, _caption(chosen))


def _map_tiles(sample: RGBDSample, unit: str, classes: int) -> dict[str, Tile]:
    tiles: dict[str, Tile] = {}
    image, depth = rgb_of(sample), depth_of(sample)
    if image is not None:
        tiles["RGB"] = Tile(image)
    if depth is not None:
        limits = value_limits(depth)
        tiles["depth"] = Tile(depth, limits, unit)
        if image is not None:
            tiles["depth over RGB"] = Tile(overlay(image, depth, limits))
    if sample.segmentation is not None:
        tiles["labels over RGB"] = label_tile(image, sample.segmentation[0].numpy(), classes)
    return tiles


def _mask_tiles(chosen: Chosen, number: int, config: M33DConfig, unit: str) -> dict[str, Tile]:
    """Visible tokens of RGB and depth, where the batch masks any."""
    keep, row, sample = chosen.batch.get("keep"), chosen.rows_of(number).start, chosen.samples[number]
    if keep is None:
        return {}
    tiles: dict[str, Tile] = {}
    for spec in config.input_specs:
        visible = visible_tokens(keep, spec, config, row)[0]
        said = f"{spec.name}: {int(visible.sum())} of {visible.size} tokens visible"
        image, depth = rgb_of(sample), depth_of(sample)
        if spec.name == "rgb" and image is not None:
            tiles[said] = Tile(masked_rgb(image, visible, config.patch_height_width))
        elif spec.name == "depth" and depth is not None:
            shown = masked_depth(depth, visible, config.patch_height_width)
            tiles[said] = Tile(shown, value_limits(depth), unit)
    if len({name.split(":")[1] for name in tiles}) > 1 or config.token_budget is not None:
        # With a budget the numbers differ from sample to sample, and a column has one name.
        return {f"{name.split(':')[0]}: visible tokens": tile for name, tile in tiles.items()}
    return tiles


def _clips_figure(chosen: Chosen, config: M33DConfig, dataset: SampleDataset, title: str) -> Figure:
    """A strip of frames per clip; depth and the visible tokens below it."""
    unit, names, keep = depth_unit(dataset), class_names(config), chosen.batch.get("keep")
    columns = spread_frames(config.num_frames, FRAMES)
    name = frames_name(columns)
    rows: list[TileRow] = []
    for number, sample in enumerate(chosen.samples):
        images = [image for f in columns if (image := rgb_of(sample, f)) is not None]
        tiles = {name: Tile(strip(images))} if images else {}
        rows.append(TileRow(sample.key, tiles, _label_words(chosen, number, names)))
        depths = [depth for f in columns if (depth := depth_of(sample, f)) is not None]
        if depths:  # one scale for the clip: a flickering depth must show
            rows.append(TileRow("depth", {name: Tile(strip(depths), value_limits(*depths), unit)}))
        if keep is not None and images:
            visible = visible_tokens(keep, config.spec("rgb"), config, chosen.rows_of(number).start)
            patch, tubelet = config.patch_height_width, config.tubelet_size
            dimmed = [masked_rgb(i, visible[f // tubelet], patch) for f, i in zip(columns, images, strict=True)]
            said = f"rgb: {int(visible.sum())} of {visible.size} tokens visible"
            rows.append(TileRow(said, {name: Tile(strip(dimmed))}))
    return tiles_figure(rows, title, None, _caption(chosen), width=STRIP_INCHES)


def frames_name(frames: Sequence[int]) -> str:
    """What a strip of frames shows."""
    return f"frames {', '.join(map(str, frames))}" if len(frames) > 1 else "RGB"


def _label_words(chosen: Chosen, number: int, names: list[str]) -> str:
    """The class of a sample; where the batch mixes samples or smooths labels, the shares that it trains with."""
    sample = chosen.samples[number]
    targets = chosen.batch.get("labels")
    if targets is None or sample.label is None:
        return ""
    if not 0 <= sample.label < len(names):
        return "not annotated"
    said = f"label: {names[sample.label]}"
    if targets is not None and targets.dim() == 2:
        target = targets[chosen.rows_of(number).start].numpy()
        if 1e-6 < target.max() < 1 - 1e-6:
            said += f" (the label alone; mixing and smoothing give it {100 * float(target[sample.label]):.0f} % of the "
            said += "target here)"
    return said


def _caption(chosen: Chosen) -> str:
    words = "As augmented for training."
    holes = any(sample.depth is not None and bool(np.isnan(sample.depth.numpy()).any()) for sample in chosen.samples)
    if holes:
        words += " Grey: no valid depth."
    if "keep" in chosen.batch:
        words += " Dark or grey patches are masked: the encoder does not see them."
    return words
