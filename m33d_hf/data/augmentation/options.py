"""The recipe's sections `transforms` and `mixing`: options of augmentation, with ranges and defaults."""
# ruff: noqa: RUF009 - `option` builds a field, so that every default carries its sentence.

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from m33d_hf.data.options import check_section, option
from m33d_hf.errors import ConfigError


@dataclass
class TransformOptions:
    """Augmentation of the training samples and geometry of the evaluation samples; colour touches RGB only.

    Raises:
        ConfigError: a value that is none of the choices or outside its range, with the field's name.
    """

    train_crop: Literal["random_resized", "multiscale", "random", "scale_jitter", "resize", "center"] = option(
        "random_resized",
        "random_resized: torchvision's; multiscale: VideoMAE's MultiScaleCrop; random: short side to size, then a"
        " random crop; scale_jitter: large scale jitter of `scale`, then pad and crop; resize: straight to size;"
        " center: short side to size, centre crop.",
    )
    eval_crop: Literal["center", "resize", "pad"] = option(
        "center",
        "center: short side to size, centre crop; resize: straight to size; pad: long side to size, then pad.",
    )
    scale: list[float] = option(
        [0.2, 1.0],
        "Area range (random_resized) or side range (scale_jitter).",
        above=0,
        high=100,
        length=2,
        ordered=True,
    )
    ratio: list[float] = option(
        [0.75, 4.0 / 3.0], "Aspect ratio range of random_resized.", above=0, high=100, length=2, ordered=True
    )
    multiscale_scales: list[float] = option(
        [1.0, 0.875, 0.75, 0.66], "Scales of the short side for multiscale.", above=0, high=1
    )
    flip: float = option(0.5, "Probability of a horizontal flip of RGB, depth and labels together.", low=0, high=1)
    color_jitter: float = option(0.0, "Probability of colour jitter (RGB only).", low=0, high=1)
    brightness: float = option(0.4, "Colour jitter: brightness strength.", low=0, high=100)
    contrast: float = option(0.4, "Colour jitter: contrast strength.", low=0, high=100)
    saturation: float = option(0.2, "Colour jitter: saturation strength.", low=0, high=100)
    hue: float = option(0.1, "Colour jitter: hue strength.", low=0, high=0.5)
    grayscale: float = option(0.0, "Probability of converting RGB to greyscale.", low=0, high=1)
    blur: float = option(0.0, "Probability of Gaussian blur (RGB only).", low=0, high=1)
    blur_kernel: int = option(5, "Side of the blur kernel in pixels.", low=1, high=255, odd=True)
    blur_sigma: list[float] = option(
        [0.1, 2.0], "Range of the blur's standard deviation in pixels.", above=0, high=1000, length=2, ordered=True
    )
    randaugment_ops: int = option(0, "Operations of RandAugment per clip; 0 = off (RGB-only samples).", low=0, high=100)
    randaugment_magnitude: int = option(7, "Magnitude of RandAugment.", low=0, high=30)
    erasing: float = option(0.0, "Probability of random erasing, one box for all frames of a clip.", low=0, high=1)
    erasing_area: list[float] = option(
        [0.02, 1.0 / 3.0], "Area range of the erased box.", above=0, high=1, length=2, ordered=True
    )
    erasing_aspect: list[float] = option(
        [0.3, 3.33], "Aspect ratio range of the erased box.", above=0, high=100, length=2, ordered=True
    )
    resize_mode: Literal["bilinear", "bicubic"] = option(
        "bilinear", "Interpolation of RGB (depth and labels: nearest)."
    )

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check every value, and the area of a crop against the picture it is cut from.

        Raises:
            ConfigError: see the class.
        """
        check_section(self, "transforms")
        if self.train_crop == "random_resized" and self.scale[1] > 1:
            raise ConfigError(
                f"transforms.scale is {self.scale!r}; for random_resized it is a share of the image area and must be "
                "at most 1"
            )


@dataclass
class MixingOptions:
    """Mixup, CutMix and label smoothing of classification batches; by default nothing is mixed.

    Raises:
        ConfigError: a value outside its range, with the field's name.
    """

    mixup: float = option(0.0, "Alpha of mixup's Beta distribution; 0 = off.", low=0, high=1000)
    cutmix: float = option(0.0, "Alpha of CutMix's Beta distribution; 0 = off.", low=0, high=1000)
    probability: float = option(1.0, "Probability that a batch is mixed.", low=0, high=1)
    switch_probability: float = option(0.5, "Probability of CutMix instead of mixup if both are on.", low=0, high=1)
    label_smoothing: float = option(0.0, "Share of the target spread evenly over all classes.", low=0, high=1)

    def __post_init__(self) -> None:
        check_section(self, "mixing")

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed at all."""
        return (self.mixup > 0 or self.cutmix > 0) and self.probability > 0
