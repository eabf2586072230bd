"""The architecture of the model that a run starts from, so that nobody has to write it twice.

What the weights fix (`FIXED`) replaces the values of the package's own recipes; with any other value the weights could
not be loaded, so that no run that worked before changes. What the same weights allow in several sizes (`FREE`, such as
the size of pictures) is taken only where nothing sets it or it is `auto`. What the user says is left alone: where it
contradicts the checkpoint, loading it fails with the flags that differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from m33d_hf.errors import CheckpointError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.training.recipe.arguments import RunArguments, same_setting
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.settling.layers import explicit
from m33d_hf.weights import architecture_of, load_foreign
from m33d_hf.weights.own import TRAINED_AS, find_own

FIXED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "tubelet_size",
    "hidden_act",
    "layer_norm_eps",
    "qkv_bias",
)
DECODER = (
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)
# Of our own checkpoints alone: how modalities share encoders and the decoder.
_SHARING = ("encoder_sharing", "joint_encoding", "encoder_norm", "decoder_fusion", "decoder_attention", "decoder_kind",
            "decoder_modality_embedding")  # fmt: skip
_CLIPS = ("num_frames", "tubelet_size")
DENSE = tuple(head.task for head in HEADS if head.images_only)
DETECTION = "action_detection"
_HEADS = {head.task: head.fields for head in HEADS}
TAKEN = frozenset(
    {*FIXED, *DECODER, *_SHARING, *_CLIPS, "image_size", "use_cls_token", "modalities"}.union(*_HEADS.values())
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """What is known about the model that a run starts from.

    Attributes:
        fields: fields of `M33DConfig` that its files state.
        trained_as: name of its class, for our own.
        own: whether it is ours.
    """

    fields: Mapping[str, Any]
    trained_as: str = ""
    own: bool = False

    @property
    def is_clip(self) -> bool:
        """Whether its patch kernel spans time."""
        return any(self.fields.get(name) not in (None, 1) for name in _CLIPS)


def read_origin(args: RunArguments) -> Origin:
    """The model behind `init_from`.

    Raises:
        CheckpointError, ConversionError: it cannot be read.
    """
    found = find_own(str(args.init_from))
    if found is None:
        return Origin(architecture_of(load_foreign(str(args.init_from), args.init.stated())))
    trained_as = next(iter(found.config.get("architectures") or []), "")
    whole = M33DConfig.from_dict(dict(found.config))  # files leave out what is as by default
    return Origin({name: getattr(whole, name) for name in M33DConfig.__dataclass_fields__}, trained_as, own=True)


def adopt(args: RunArguments, origin: Origin, origins: Mapping[str, str], open_keys: frozenset[str]) -> dict[str, Any]:
    """The fields of `model` that a run takes from its starting point; those that it has anyway are among them.

    Args:
        args: of the run.
        origin: what it starts from.
        origins: dotted key -> the layer that set it.
        open_keys: keys that are `auto`.

    Raises:
        CheckpointError: the number of heads is unknown, and nobody states it.
    """
    theirs = origin.fields
    clips = _wants_clips(args, origin, open_keys)
    fixed = [name for name in FIXED if name not in _CLIPS or (clips and origin.is_clip)]
    if args.task == DETECTION:  # the first stage is used as it is
        fixed = sorted(set(M33DConfig.__dataclass_fields__) & {*theirs, *fixed} & args.model.keys())
        same = origin.trained_as == TRAINED_AS[DETECTION]
        fixed = [name for name in fixed if same or not name.startswith(("temporal_", "classifier_"))]
    # Published models are larger than most machines train at their size of pictures: there `auto` is for the rule.
    free = ["image_size"] if origin.own or "model.image_size" not in open_keys else []
    if clips == origin.is_clip and args.task not in DENSE:
        free += ["num_frames"] if clips else []
    if origin.own and clips == origin.is_clip:
        free += ["use_cls_token"]
    if args.task == PRETRAINING and clips == origin.is_clip:
        free += [*DECODER, *(_SHARING if origin.own else ())]
    if origin.trained_as == TRAINED_AS.get(args.task, "-"):
        free += _HEADS.get(args.task, ())
    taken: dict[str, Any] = {}
    for name in (*fixed, *free):
        key = f"model.{name}"
        gap = key in open_keys or name not in args.model
        if theirs.get(name) is not None and (gap or (name in fixed and not explicit(key, origins))):
            taken[name] = theirs[name]
    _check_heads(args, origin, taken, origins, open_keys)
    return taken


def _wants_clips(args: RunArguments, origin: Origin, open_keys: frozenset[str]) -> bool:
    """Whether the run trains on clips; where nothing says so, on what the checkpoint was trained on."""
    if args.task in DENSE:
        return False
    frames = args.model.get("num_frames")
    if frames is None or "model.num_frames" in open_keys:
        return origin.is_clip
    return bool(frames > 1)


def _check_heads(
    args: RunArguments,
    origin: Origin,
    taken: Mapping[str, Any],
    origins: Mapping[str, str],
    open_keys: frozenset[str],
) -> None:
    """A width from the checkpoint with the heads of a recipe would be a guess."""
    name = "num_attention_heads"
    if name in origin.fields or (explicit(f"model.{name}", origins) and f"model.{name}" not in open_keys):
        return
    width = taken.get("hidden_size")
    same = same_setting(width, args.model.get("hidden_size", M33DConfig.hidden_size))
    if width is None or (same and f"model.{name}" not in open_keys):
        return
    raise CheckpointError(
        f"{args.init_from} is {width} wide, but its files do not say how many attention heads it has, and no released "
        f"model has this shape: pass --model.{name} N, with the number that it was trained with."
    )


def with_modalities(args: RunArguments, origin: Origin) -> list[dict[str, Any]] | None:
    """The `modalities` of a run that starts from one of our own checkpoints; None where they stay as they are.

    Added are the modalities of the checkpoint that the data provides (`data.options.modalities`) and the run does not
    describe again; without a description of its own, the run normalises pictures as the checkpoint was trained.
    """
    stated = args.model.get("modalities")
    current = [dict(entry) for entry in (stated or M33DConfig().modalities or [])]
    theirs = {entry["name"]: entry for entry in origin.fields.get("modalities") or []} if origin.own else {}
    provided = args.data.options.get("modalities")
    names = {entry["name"] for entry in current}
    added = [entry for name, entry in theirs.items() if name in (provided or {}) and name not in names]
    changed = [*current, *added] if args.task == PRETRAINING else current
    if stated is None and "rgb" in theirs:
        looks = {name: theirs["rgb"][name] for name in ("channel_mean", "channel_std") if name in theirs["rgb"]}
        changed = [{**entry, **looks} if entry["name"] == "rgb" else entry for entry in changed]
    return None if changed == current else changed
