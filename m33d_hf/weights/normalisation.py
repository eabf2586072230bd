"""With which mean and deviation a checkpoint's pictures were normalised: files beside the weights tell, no tensor does.

MAE, VideoMAE, MultiMAE, DINO and DINOv2 took ImageNet's; MAE-ST 0.45 and 0.225; of timm's and Google's ViT some took
ImageNet's and some 0.5, so that a bare file of them is ambiguous and the report says what was assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig, rgb_modality
from m33d_hf.weights.facts import Fact
from m33d_hf.weights.files import ForeignCheckpoint

_RELEASED = {"mae_st": ((0.45,) * 3, (0.225,) * 3), "mae_st_finetuned": ((0.45,) * 3, (0.225,) * 3)}


def normalisation(checkpoint: ForeignCheckpoint) -> Fact:
    """(mean, deviation) of three numbers each, of pixels in 0 to 1, and where they are from.

    A saved processor is believed before the entry that timm writes into config.json, and that before the released
    models of the format.

    Raises:
        ConversionError: a file names something else than a number, or three, or a deviation of 0 or less.
    """
    timm = checkpoint.config.get("pretrained_cfg")
    for entries, names, source in (
        (checkpoint.preprocessor, ("image_mean", "image_std"), checkpoint.preprocessor_file),
        (timm if isinstance(timm, Mapping) else {}, ("mean", "std"), "config.json"),
    ):
        if all(entries.get(name) is not None for name in names):
            if entries.get("do_normalize") is False:
                return Fact(((0.0,) * 3, (1.0,) * 3), source)
            return Fact(tuple(_three(entries[name], name, checkpoint.origin, source) for name in names), source)
    released = _RELEASED.get(checkpoint.format, (IMAGENET_MEAN, IMAGENET_STD))
    # timm's names and transformers' ViT are those of models with either.
    mixed = checkpoint.format in ("timm_vit", "transformers_vit")
    return Fact(released, "MAE, DINO and DeiT, not of augreg (0.5)" if mixed else "all released models", assumed=True)


def normalised_modalities(checkpoint: ForeignCheckpoint, modalities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with the checkpoint's mean and deviation in those of RGB pictures, targets included."""
    mean, std = normalisation(checkpoint).value
    return [
        {**entry, "channel_mean": mean, "channel_std": std} if entry.get("channel_mean") is not None else entry
        for entry in modalities
    ]


def line_on_normalisation(checkpoint: ForeignCheckpoint, config: M33DConfig) -> str | None:
    """What a report says about it; None for a model that does not normalise."""
    spec, fact = config.spec("rgb"), normalisation(checkpoint)
    if spec.channel_mean is None or spec.channel_std is None:
        return None
    theirs, own = _words(*fact.value), _words(spec.channel_mean, spec.channel_std)
    if theirs != own:
        return f"pictures: {theirs} there ({fact.source}), {own} in this model (channel_mean, channel_std of rgb)"
    if fact.assumed:
        return (
            f"assumed: pictures of {own}, those of {fact.source}; it cannot be read from the weights, but from a "
            f"{checkpoint.preprocessor_file} beside them (image_mean, image_std)"
        )
    return f"pictures of {own}: {fact.source}; it cannot be read from the weights"


def line_on_own_normalisation(theirs: Mapping[str, Any], config: M33DConfig) -> str | None:
    """What a report says where a checkpoint of ours was trained with other numbers; None where it was not.

    Args:
        theirs: config.json of the checkpoint, in which fields as by default may be missing; empty where it has none.
        config: of the model.
    """
    entries = [entry for entry in theirs.get("modalities") or [rgb_modality()] if entry.get("name") == "rgb"]
    own = next((spec for spec in config.specs if spec.name == "rgb"), None)
    if not theirs or not entries or own is None:
        return None
    words = [
        _words(mean, std) if mean is not None and std is not None else "no mean and deviation"
        for mean, std in (
            (entries[0].get("channel_mean"), entries[0].get("channel_std")),
            (own.channel_mean, own.channel_std),
        )
    ]
    if words[0] == words[1]:
        return None
    return f"pictures: {words[0]} there (config.json), {words[1]} in this model (channel_mean, channel_std of rgb)"


def _words(mean: Any, std: Any) -> str:
    return (
        f"mean {[round(float(value), 6) for value in mean]} and deviation {[round(float(value), 6) for value in std]}"
    )


def _three(value: Any, name: str, origin: str, source: str) -> tuple[float, ...]:
    numbers = list(value) if isinstance(value, list | tuple) else [value] * 3
    real = all(isinstance(each, int | float) and not isinstance(each, bool) and isfinite(each) for each in numbers)
    if len(numbers) != 3 or not real or (name.endswith("std") and min(numbers) <= 0):
        raise ConversionError(
            f"{origin}: {name} in {source} is {value!r}; it is one number, or three of red, green and blue"
            f"{', above 0' if name.endswith('std') else ''}. Mend or remove the file."
        )
    return tuple(float(each) for each in numbers)
