"""How the frames of a trained model were cut: what its run, or what was published of it, says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.files.json_objects import parse_json_object
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CheckpointError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.run.reporting import CONFIG

logger = logging.getLogger(__name__)

# What `save_processor` writes beside a model, of clips or of single frames.
_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def trained_geometry(name: str | Path, config: M33DConfig) -> TransformOptions:
    """`eval_crop` and `resize_mode` of a model's training.

    By the train_config.json of its run (also of the run that a checkpoint lies in), else by the configuration of its
    processor; both are published with a model. Where neither says it, the defaults, and a warning.

    Args:
        name: a folder or Hub id whose model could be loaded.
        config: of that model.

    Raises:
        CheckpointError: a file is there and cannot be read.
    """
    folder = Path(name)
    # A checkpoint lies in OUTPUT/checkpoints/NAME.
    found = _by_run(_file(name, CONFIG) or _file(folder.parent.parent, CONFIG, here=True))
    for file in _PROCESSORS:
        found = found or _by_processor(_file(name, file), config)
    if found is None:
        logger.warning(
            "%s does not say how the frames of its training were cut (it has no %s and no %s of the run): of every "
            "frame the centre is taken, and what lies beside it is not seen. If it was trained on whole frames "
            "(transforms.eval_crop resize), name the output folder of its run, or put that file beside the weights.",
            name, CONFIG, _PROCESSORS[0],
        )  # fmt: skip
    return found or TransformOptions()


def _file(name: str | Path, file: str, here: bool = False) -> Path | None:
    """A file of a folder, or of a repository of the Hub unless `here`; None where it has none."""
    if here or Path(name).is_dir():
        path = Path(name, file)
        return path if path.is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        str(name),
        file,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _by_run(file: Path | None) -> TransformOptions | None:
    if file is None:
        return None
    try:
        said = read_sealed_json(file)["args"]["transforms"]
        return TransformOptions(eval_crop=said["eval_crop"], resize_mode=said["resize_mode"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; delete the file to go on without it") from error


def _by_processor(file: Path | None, config: M33DConfig) -> TransformOptions | None:
    """The inverse of `placement_fields`; None for a processor that cuts frames in a way that no training does."""
    if file is None:
        return None
    try:
        said = parse_json_object(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; delete the file to go on without it") from error
    crop: Any = _crop(said, config.image_height_width)
    mode: Any = _FILTERS.get(said.get("resample", 2))
    return None if crop is None or mode is None else TransformOptions(eval_crop=crop, resize_mode=mode)


def _crop(said: Mapping[str, Any], size: tuple[int, int]) -> str | None:
    centred, padded = said.get("do_center_crop"), said.get("do_pad", False)
    if centred is None or said.get("do_resize") is False or (centred and padded):
        return None
    cut = said.get("crop_size")
    if centred and cut is not None and cut != {"height": size[0], "width": size[1]}:
        return None
    return "center" if centred else "pad" if padded else "resize"
