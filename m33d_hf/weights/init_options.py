"""The recipe's section `init`: what a model loads from a checkpoint, and how it initialises the other weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from m33d_hf.data.options import check_section, option

MOST_HEADS = 1024


@dataclass
class InitOptions:
    """How weights given by `init_from` enter the model (docs/method.md, "Starting weights").

    Raises:
        ConfigError: a value that is none of the choices or outside its range, with the field's name.
    """

    init_decoder: bool = option(True, "Also load the decoder where shapes match (only when pre-training).")
    depth_encoder_init: Literal["copy", "random"] = option(
        "copy", "If the checkpoint has no depth encoder: copy the RGB encoder, or start from random weights."
    )
    depth_patch_init: Literal["sum", "mean", "random"] = option(
        "sum",
        "If the checkpoint has no depth patch embedding: sum or average the RGB kernels over colour, or start from "
        "random weights.",
    )
    inflate: Literal["none", "average", "center"] = option(
        "none",
        "Image kernel in a clip model: none = refuse, average = spread it evenly over the tubelet, center = use it for "
        "the middle frame. (A clip kernel in an image model is always summed over the tubelet.)",
    )
    num_attention_heads: int | None = option(
        None,
        "Number of attention heads in a foreign checkpoint's encoder, which the weights do not show; null = from its "
        "files, or as in the released model.",
        low=1,
        high=MOST_HEADS,
    )
    decoder_num_attention_heads: int | None = option(
        None,
        "Number of attention heads in a foreign checkpoint's decoder; null = as for the encoder.",
        low=1,
        high=MOST_HEADS,
    )

    def __post_init__(self) -> None:
        check_section(self, "init")

    def stated(self) -> dict[str, int]:
        """The settings of a foreign checkpoint that cannot be read from its weights."""
        heads = {name: getattr(self, name) for name in ("num_attention_heads", "decoder_num_attention_heads")}
        return {name: value for name, value in heads.items() if value is not None}


# The name under which the conversion of files takes the same options.
ConversionOptions = InitOptions
