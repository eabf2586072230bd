"""Values that a recipe or a flag leaves open: the word `auto`, which the data and the machine decide before a run.

`--train.batch_size auto` reads as it does in a recipe. What decides is `m33d_hf.training.settling`.
"""

from __future__ import annotations

from typing import Any

WORD = "auto"
# What may be left open, and what stands for it until it is decided: only what no run may lack needs a stand-in.
STAND_INS: dict[str, Any] = {"train.max_steps": 1}
OPEN_KEYS = frozenset(
    {
        *(f"model.{name}" for name in ("image_size", "patch_size", "num_frames", "tubelet_size")),
        *(f"model.{name}" for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")),
        *(f"model.decoder_{name}" for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")),
        *("model.decoder_intermediate_size", "model.depth_head_width", "model.temporal_hidden_size"),
        *(f"model.segmentation_head_{name}" for name in ("width", "depth", "upscale")),
        *("model.depth_mean", "model.depth_std", "model.max_depth", "model.depth_prior_weight"),
        *("train.max_steps", "train.batch_size", "train.precision"),
        *("optim.warmup_steps", "evaluation.every_steps", "evaluation.batch_size", "checkpoint.every_steps"),
        *("logging.every_steps", "data.num_workers", "data.keep_decoded_gb"),
    }
)


def take_open(tree: dict[str, Any]) -> set[str]:
    """Remove every `auto` of `OPEN_KEYS` from the tree of one layer, and return their dotted keys."""
    found = set()
    for key in OPEN_KEYS:
        section, name = key.split(".")
        values = tree.get(section)
        if isinstance(values, dict) and values.get(name) == WORD:
            del values[name]
            found.add(key)
    return found


def without(tree: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """A copy of a tree without the given dotted keys of two parts."""
    named = {tuple(key.split(".")) for key in keys}
    return {
        section: {name: value for name, value in values.items() if (section, name) not in named}
        if isinstance(values, dict)
        else values
        for section, values in tree.items()
    }
