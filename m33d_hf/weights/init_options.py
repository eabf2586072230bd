"""The recipe's section `init`: what a model takes from a checkpoint, and how it fills what the checkpoint lacks."""

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
        "copy", "A depth encoder that the checkpoint lacks: copy the RGB encoder, or leave it random."
    )
    depth_patch_init: Literal["sum", "mean", "random"] = option(
        "sum",
        "A depth patch embedding that the checkpoint lacks: RGB kernels summed or averaged over colour, or random.",
    )
    inflate: Literal["none", "average", "center"] = option(
        "none",
        "An image kernel in a clip model: refused, spread evenly over the tubelet, or put on its middle frame. (A clip "
        "kernel in an image model is summed over the tubelet; there is no choice.)",
    )
    num_attention_heads: int | None = option(
        None,
        "Heads of a foreign checkpoint's encoder, which no tensor tells; null = those of its files, or as released.",
        low=1,
        high=MOST_HEADS,
    )
    decoder_num_attention_heads: int | None = option(
        None, "Heads of a foreign checkpoint's decoder; null as above.", low=1, high=MOST_HEADS
    )

    def __post_init__(self) -> None:
        check_section(self, "init")

    def stated(self) -> dict[str, int]:
        """What is said about a foreign checkpoint and no tensor tells."""
        heads = {name: getattr(self, name) for name in ("num_attention_heads", "decoder_num_attention_heads")}
        return {name: value for name, value in heads.items() if value is not None}


# The name under which the conversion of files takes the same options.
ConversionOptions = InitOptions
