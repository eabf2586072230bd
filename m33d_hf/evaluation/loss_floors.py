"""What a prediction that looks at nothing reaches in the losses of a pre-training, where a formula tells it."""

from __future__ import annotations

from m33d_hf.modeling.configuration_m33d import M33DConfig


def loss_floors(config: M33DConfig) -> dict[str, float]:
    """Trivial floors of the reconstruction losses.

    A target whose patches are normalised by their own statistics has mean 0 in every patch, so the best constant is 0,
    and its squared error is the biased variance over the unbiased one, (n - 1) / n for n values that are normalised
    together (patches that are nearly flat count less, because of the epsilon in the denominator).

    Returns:
        "loss/<modality>" -> floor, for targets with a squared error and normalised patches; others depend on the data
        and are left out.
    """
    floors = {}
    for spec in config.specs:
        if spec.is_target and spec.loss == "mse" and spec.target_norm != "none":
            together = config.patch_dim(spec) // (spec.channels if spec.target_norm == "per_channel" else 1)
            floors[f"loss/{spec.name}"] = (together - 1) / together
    return floors
