"""From tensors of samples and batches to the tiles of a picture: RGB, metres, class colours, visible tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.modeling.masking_m33d import JOINT, masked_by_budget
from m33d_hf.visualization.canvas import INVALID
from m33d_hf.visualization.clips import dim_masked
from m33d_hf.visualization.dense import color_labels, label_colors
from m33d_hf.visualization.tiles import Colour, Tile, label_overlay

NAME_LETTERS = 60


def rgb_of(sample: RGBDSample, frame: int = 0) -> np.ndarray | None:
    """(H, W, 3) uint8 of a frame; None without RGB."""
    return None if sample.rgb is None else sample.rgb[frame].permute(1, 2, 0).numpy()


def depth_of(sample: RGBDSample, frame: int = 0) -> np.ndarray | None:
    """(H, W) of a frame, NaN where invalid; None without depth."""
    aligned = sample.align()
    return None if aligned.depth is None else aligned.depth[frame, 0].float().numpy()


def depth_unit(dataset: Any) -> str:
    """What the depth values of a data set are counted in."""
    spec = dataset.source.depth_spec
    return {"metric": "m"}.get(getattr(spec, "kind", ""), f"{getattr(spec, 'kind', 'unknown')} depth, no unit")


def label_tile(image: np.ndarray | None, labels_HW: np.ndarray, count: int, over: bool = True) -> Tile:
    """Class colours, over the picture where there is one; what is not annotated stays the picture, or grey."""
    colours = color_labels(labels_HW, count)
    if image is None or not over:
        return Tile(colours)
    return Tile(label_overlay(image, colours, labels_HW < count))


def class_legend(maps: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, Colour]:
    """Name -> colour of the classes that occur in the maps, in id order."""
    present = sorted({int(number) for map_ in maps for number in np.unique(map_)})
    colours = label_colors(len(names))
    found: dict[str, Colour] = {}
    for number in (number for number in present if number < len(names)):
        red, green, blue = (float(part) for part in colours[number])
        found[names[number]] = (red, green, blue)
    return found | ({"not annotated": INVALID} if IGNORE_INDEX in present else {})


def class_names(config: M33DConfig) -> list[str]:
    """Names of the model's classes in id order."""
    names = cast("dict[int, str]", config.id2label or {})
    return [names[number] for number in sorted(names)]


def visible_tokens(keep: Mapping[str, torch.Tensor], spec: ModalitySpec, config: M33DConfig, row: int) -> np.ndarray:
    """(t, h, w) bool: the tokens of a modality that the encoder sees of one sample of a batch."""
    total = int(np.prod(config.grid))
    shown = np.zeros(total, dtype=bool)
    if JOINT in keep:
        names = [source.name for source in config.input_specs]
        if spec.source_name in names:
            masked = masked_by_budget(keep[JOINT][row : row + 1].cpu(), len(names), total)
            shown = ~masked[0, names.index(spec.source_name)].numpy()
    elif spec.name in keep:
        shown[keep[spec.name][row].cpu().numpy()] = True
    return shown.reshape(config.grid)


def masked_rgb(image: np.ndarray, visible_hw: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """The picture with its masked patches dark and grey, (H, W, 3) in [0, 1]."""
    return dim_masked(image / 255.0, visible_hw, patch)


def masked_depth(depth_HW: np.ndarray, visible_hw: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """Depth with NaN in its masked patches."""
    shown = visible_hw.repeat(patch[0], axis=0).repeat(patch[1], axis=1)
    return np.where(shown, depth_HW, np.nan)


def affine(source: np.ndarray, target: np.ndarray) -> tuple[float, float] | None:
    """(scale, shift) with target = scale * source + shift; None where the two are not related like that."""
    known = np.isfinite(source) & np.isfinite(target)
    x, y = source[known].astype(np.float64), target[known].astype(np.float64)
    if x.size < 2 or x.std() < 1e-6:
        return None
    scale, shift = np.polyfit(x, y, 1)
    tolerance = 1e-2 * max(float(y.std()), 1e-6)
    return (float(scale), float(shift)) if float(np.abs(scale * x + shift - y).max()) <= tolerance else None


def shortened(name: str, letters: int = NAME_LETTERS) -> str:
    """The end of a long name, which is what tells two keys apart."""
    return name if len(name) <= letters else f"...{name[3 - letters :]}"
