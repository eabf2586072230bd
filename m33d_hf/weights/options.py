"""How the parts of a model that a checkpoint does not have are filled."""

from __future__ import annotations

from dataclasses import dataclass

from m33d_hf.errors import ConfigError, nearest_name_hint

_CHOICES = {
    "depth_encoder_init": ("copy", "random"),
    "depth_patch_init": ("sum", "mean", "random"),
    "inflate": ("none", "average", "center"),
}


@dataclass(frozen=True)
class ConversionOptions:
    """What to take from a checkpoint, and how to fill what it lacks (docs/method.md, "Starting weights").

    Args:
        init_decoder: take the decoder where its shape fits.
        depth_encoder_init: encoders of other modalities than RGB: "copy" of the checkpoint's, or left
            "random".
        depth_patch_init: patch kernels of other modalities: "sum" of the RGB kernels (equals grey replicated
            three times), their "mean", or left "random".
        inflate: an image kernel of another project in a clip model: refused ("none"), spread evenly over the tubelet
            ("average"), or put on its middle frame ("center").
    """

    init_decoder: bool = True
    depth_encoder_init: str = "copy"
    depth_patch_init: str = "sum"
    inflate: str = "none"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(
                    f"{name} is {value!r}, expected one of {', '.join(allowed)}."
                    f"{nearest_name_hint(str(value), allowed)}"
                )
