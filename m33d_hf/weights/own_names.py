"""Which weight of one of our own checkpoints goes where in another of our models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from m33d_hf.errors import CheckpointError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.preprocessing_m33d import size_pair
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.weights.formats.classes import class_obstacle
from m33d_hf.weights.formats.layout import Weight
from m33d_hf.weights.matching import PART, Matching, depth_kernel, fit_time, still_positions, time_note
from m33d_hf.weights.normalisation import line_on_own_normalisation

# Fields that no shape tells but that change what the same weights compute.
_ARCHITECTURE_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "tubelet_size",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding_type",
    "num_register_tokens",
)
# What a global token starts from (docs/method.md#global-token): in MAE its position is 0, nothing is added.
_MAE_CLASS_TOKEN = "m33d.embeddings.rgb.cls_token"
_GLOBAL_TOKEN = "m33d.global_token"
_SPATIAL, _TEMPORAL = "m33d.positions.spatial", "m33d.positions.temporal"
_KERNEL = ".projection.weight"
_DECODER_FIELDS = {"decoder_num_attention_heads": None, "decoder_fusion": None, "decoder_kind": "shared"}
_DECODER_CORE = re.compile(r"decoder\.(?:targets\.(?P<target>\w+)\.)?(?:embed|mask_token|layers|layernorm)\b")
_HEADS = {
    "contrastive_head": "the contrastive head",
    "matching_head": "the matching head",
    "task_fusion": "the fusion of RGB and depth",
    **{part: words for head in HEADS for part, words in head.parts.items()},
}
# What weights begin with -> the layer whose rows are the classes.
_CLASS_HEADS = {part: part for head in HEADS for part in head.class_parts}
_CLASS_HEADS |= {part: classes for head in HEADS for part, classes in head.class_readers.items()}


@dataclass(kw_only=True)
class OwnNames(Matching):
    """A checkpoint of ours against a model, `full` names on both sides.

    Args:
        config: of the model.
        theirs: that of the checkpoint, empty where only a weight file is there.

    Raises:
        CheckpointError: the configurations are of other architectures.
    """

    config: M33DConfig
    theirs: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._check_time()
        self._check_architecture()
        self.decoder_obstacle = self._decoder_obstacle()
        pictures = line_on_own_normalisation(self.theirs, self.config)
        self.report.facts += [] if pictures is None else [pictures]

    def _check_time(self) -> None:
        """Clips into images and images into clips: by the patch kernels, which a lone weight file has too."""
        theirs = [weight.tensor for name, weight in self.weights.items() if name.endswith(_KERNEL)]
        ours = [own for name, own in self.targets.items() if name.endswith(_KERNEL)]
        ranks = (theirs[0].ndim, ours[0].ndim) if theirs and ours else (0, 0)
        self.to_images, self.to_clips = ranks == (5, 4), ranks == (4, 5)
        if self.to_clips and self.options.inflate == "none":
            raise CheckpointError(
                f"{self.report.origin} is an image checkpoint (patch kernel {tuple(theirs[0].shape)}), and this is a"
                f" clip model ({tuple(ours[0].shape)}). To have its kernels spread over time, give --init.inflate"
                " average (evenly over the tubelet) or --init.inflate center (on its middle frame)."
            )
        note = time_note(theirs[0], ours[0], str(self.config.position_embedding_type)) if theirs and ours else None
        self.report.notes += [note] if note is not None else []

    def _check_architecture(self) -> None:
        other = self._differences(_ARCHITECTURE_FIELDS)
        if self.to_images or self.to_clips:
            other.pop("tubelet_size", None)
        if self.to_clips and self.config.position_embedding_type == self.config.fixed_positions:
            other.pop("position_embedding_type", None)  # a picture's table knows no time: the clip model has its own
        if not other:
            return
        both = [(name, theirs, getattr(self.config, name)) for name, theirs in other.items()]
        pairs = [f"{name} is {theirs!r} in the checkpoint and {ours!r} in this model" for name, theirs, ours in both]
        differences = ", ".join(pairs)
        words = " ".join(f"--model.{name} {value}" for name, value in other.items())
        raise CheckpointError(
            f"{self.report.origin} has a different architecture: {differences}. Set {words}, or start from another"
            " checkpoint."
        )

    def _decoder_obstacle(self) -> str | None:
        """Why the decoder is not taken; None when it is."""
        for side, owner in ((self.targets, "model"), (self.weights, "checkpoint")):
            if not any(name.startswith("decoder.") for name in side):
                return f"the {owner} has no decoder"
        if not self.options.init_decoder:
            return "init.init_decoder is false"
        if self.to_images or self.to_clips:
            return f"{'a clip' if self.to_images else 'an image'} decoder does not fit this model"
        for name, default in _DECODER_FIELDS.items():
            theirs, ours = self.theirs.get(name, default), getattr(self.config, name)
            if theirs is not None and theirs != ours:
                return f"different decoder: {name} is {theirs!r} in the checkpoint and {ours!r} in this model"
        core = _decoder_core(self.weights, self.targets)
        if core != _decoder_core(self.targets, self.weights):
            return "different decoder: the numbers of layers differ"
        for name in sorted(core):
            if self.weights[name].tensor.shape != self.targets[name].shape:
                return f"different decoder: {name} is {_shapes(self.weights[name].tensor, self.targets[name])}"
        return None

    def place(self, target: str, own: Tensor) -> None:
        """The weight of the same name; in embeddings and encoders else that of RGB, or of the shared encoder."""
        part, weight = target.split(".")[0], self.weights.get(target)
        if part == "decoder" and self.decoder_obstacle is not None:
            self.leave(target, self.decoder_obstacle)
        elif part == "decoder":
            self._take_if_equal(target, own, "the checkpoint's decoder does not have this modality")
        elif part == "depth_prior" and weight is not None and weight.tensor.shape != own.shape:
            self._take_resized(target, weight, own)
        elif part != "m33d":  # a head, of another package too
            classes = next((rows for name, rows in _CLASS_HEADS.items() if target.startswith(f"{name}.")), None)
            obstacle = None if classes is None else self._other_classes(classes)
            self._take_if_equal(target, own, f"{_HEADS.get(part, part)} is not in the checkpoint", obstacle)
        elif weight is None:
            self._fill_missing(target, own)
        elif self.to_images and target == _SPATIAL and _TEMPORAL in self.weights:
            self._take_still(weight)
        elif weight.tensor.shape == own.shape:
            self.take(target, weight)
        elif target.endswith(_KERNEL) and weight.tensor.ndim != own.ndim:
            self.take(target, weight, *self._fit_kernel(weight.tensor, own))
        else:
            raise self._misfit(f"{target} is {_shapes(weight.tensor, own)}")

    def _take_still(self, spatial: Weight) -> None:
        """Learned positions of places with that of the one moment of a still clip."""
        temporal = self.weights[_TEMPORAL]
        both = Weight(spatial.tensor, (*spatial.sources, *temporal.sources))
        value = still_positions(spatial.tensor, temporal.tensor)
        self.take(_SPATIAL, both, value, "positions of places and of moments, interpolated to one")

    def _take_resized(self, target: str, weight: Weight, own: Tensor) -> None:
        """A map of positions for pictures of another size."""
        value = interpolate(weight.tensor[None, None], size=tuple(own.shape), mode="bilinear", align_corners=False)
        self.take(target, weight, value[0, 0], f"resized: {_shapes(weight.tensor, own)}")

    def _fit_kernel(self, kernel: Tensor, own: Tensor) -> tuple[Tensor, str]:
        """A kernel of clips for images, or of images for clips, and what was done; other differences are errors."""
        fitted, how = fit_time(kernel, own, self.options.inflate)
        if fitted.shape != own.shape:
            raise self._misfit(f"the patch kernel is {_shapes(kernel, own)}")
        return fitted, how

    def _take_if_equal(self, target: str, own: Tensor, absent: str, obstacle: str | None = None) -> None:
        weight = self.weights.get(target)
        if weight is not None and obstacle is None and weight.tensor.shape != own.shape:
            obstacle = f"different shape: {_shapes(weight.tensor, own)}"
        if weight is None or obstacle is None:
            self.take_or_leave(target, absent)
        else:
            self.leave(target, obstacle)
            self.report.ignored[target] = obstacle

    def _other_classes(self, head: str) -> str | None:
        """Why a classifier cannot be taken, weight and bias together: its rows mean other classes, or it is wider."""
        weight, ours = self.weights.get(f"{head}.weight"), self.targets[f"{head}.weight"]
        if weight is None:
            return f"{_HEADS[head.split('.')[0]]} is not in the checkpoint"
        theirs = weight.tensor
        obstacle = class_obstacle(theirs.shape[0], self.theirs.get("id2label"), ours.shape[0], self.config.id2label)
        if obstacle is None and theirs.shape != ours.shape:
            return f"different shape: {_shapes(theirs, ours)}"
        return obstacle

    def _fill_missing(self, target: str, own: Tensor) -> None:
        """A weight of embeddings or encoders that the checkpoint lacks under this name."""
        match = PART.fullmatch(target)
        part, owner, leaf = match.group("part", "owner", "leaf") if match else ("", "shared", "")
        name = self._stand_in(part, owner, leaf) if match else _MAE_CLASS_TOKEN
        stand_in = self.weights.get(name)
        if part == "encoders" and leaf.startswith("layernorm.") and stand_in is None:
            self.leave(target, "the checkpoint has no final norm; it starts as the identity")
        elif owner not in ("rgb", "shared") and self.options.depth_encoder_init == "random":
            self.leave(target, "init.depth_encoder_init is random")
        elif part == "embeddings" and leaf == "projection.weight" and stand_in is not None:
            self._fill_patch(target, name, own)
        elif target == _TEMPORAL and self.to_clips:
            self.take(target, Weight(own.new_zeros(own.shape), ()), how="zeros: positions of images know no time")
        elif stand_in is not None and stand_in.tensor.shape == own.shape:
            self.take(target, stand_in, how=f"copied from {name}")
        elif leaf == "cls_token" and _GLOBAL_TOKEN in self.weights:
            self.take(target, self.weights[_GLOBAL_TOKEN], how=f"copied from {_GLOBAL_TOKEN}")
        elif target == _GLOBAL_TOKEN or leaf == "cls_token":
            self.leave(target, "the checkpoint has no class token")
        else:
            raise self._misfit(f"it has no {target}, which is {tuple(own.shape)} in this model")

    def _stand_in(self, part: str, owner: str, leaf: str) -> str:
        """The name of the checkpoint's RGB weight, or shared one, that can take this place."""
        names = [f"m33d.{part}.{other}.{leaf}" for other in ("rgb", "shared") if other != owner]
        return next((name for name in names if name in self.weights), names[0])

    def _fill_patch(self, target: str, name: str, own: Tensor) -> None:
        """A patch kernel of a modality that the checkpoint lacks, from the RGB kernel."""
        how, source = self.options.depth_patch_init, self.weights[name]
        if how == "random":
            self.leave(target, "init.depth_patch_init is random")
            return
        kernel, time = self._fit_kernel(depth_kernel(source.tensor, own.shape[1], how), own)
        told = [f"{how} over the channels of {name}", *([time] if time else [])]
        self.take(target, source, kernel, ", ".join(told))

    def why_unused(self, name: str) -> str:
        """What a weight of the checkpoint is for that this model does not have."""
        part = name.split(".")[0]
        if part == "decoder":
            return self.decoder_obstacle or "this model does not reconstruct or embed this modality"
        if part in _HEADS:
            there = any(key.split(".")[0] == part for key in self.targets)
            return f"{_HEADS[part]} of this model has no such weight" if there else f"this model lacks {_HEADS[part]}"
        match = PART.fullmatch(name)
        if match and not any(key.startswith(f"m33d.{match['part']}.{match['owner']}.") for key in self.targets):
            return f"this model has no {match['part']} of {match['owner']!r}"
        if match and match["part"] == "encoders" and match["leaf"].startswith("layernorm."):
            return "this model's head reads the output of the blocks, before any final norm"
        if name == _GLOBAL_TOKEN or (match and match["leaf"] == "cls_token"):
            return "this model has no class token" if match else "this model has no global token"
        if part not in ("m33d", *_HEADS):
            raise CheckpointError(
                f"{self.report.origin}: {name} is a weight of {part!r}, a part that no model of this package has. If it"
                " is a head of your own, start from the checkpoint that its training started from; a head that becomes"
                " part of the package is an entry of HEADS in modeling/task_heads_m33d.py."
            )
        raise self._misfit(f"its {name}, {tuple(self.weights[name].tensor.shape)}, does not exist in this model")

    def _differences(self, names: Iterable[str]) -> dict[str, Any]:
        """The checkpoint's values of the fields that it states and this model has otherwise."""
        found: dict[str, Any] = {}
        for name in names:
            theirs, ours = self.theirs.get(name), getattr(self.config, name)
            same = size_pair(theirs) == size_pair(ours) if name == "patch_size" and theirs else theirs == ours
            if theirs is not None and not same:
                found[name] = theirs
        return found

    def _misfit(self, what: str) -> CheckpointError:
        """What does not fit, and what else may explain it, the sizes having been compared before."""
        why = "The configurations agree, so the file may be damaged."
        if self._differences(["encoder_sharing"]):
            theirs, ours = self.theirs["encoder_sharing"], self.config.encoder_sharing
            why = f"encoder_sharing is {theirs!r} in the checkpoint and {ours!r} in this model."
        return CheckpointError(f"{self.report.origin} has a different architecture: {what}. {why}")


def full(name: str) -> str:
    """The name of a weight of M33DModel in the models around it; theirs stay."""
    name = name.removeprefix("m33d.")
    return f"m33d.{name}" if name.startswith(("embeddings.", "encoders.", "positions.", "global_token")) else name


def _decoder_core(side: Iterable[str], other: Iterable[str]) -> set[str]:
    """The weights that make a decoder what it is; of decoders per target, those of the targets on both sides."""
    there = {name.split(".")[2] for name in other if name.startswith("decoder.targets.")}
    matches = ((name, _DECODER_CORE.match(name)) for name in side)
    return {name for name, match in matches if match and (match["target"] is None or match["target"] in there)}


def _shapes(theirs: Tensor, ours: Tensor) -> str:
    return f"{tuple(theirs.shape)} in the checkpoint and {tuple(ours.shape)} in this model"
