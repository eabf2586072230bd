"""Weights from `init_from` into a fresh model, with an account of every weight on both sides.

Own checkpoints (a folder, its model.safetensors, or a hub id whose config.json says model_type m33d) are matched here;
everything else is a foreign checkpoint and goes to `m33d_hf.weights`. Nothing is written unless every weight of the
checkpoint is used or ignored for a reason, and every weight of the model is filled or new for a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from m33d_hf.errors import CheckpointError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.preprocessing_m33d import size_pair
from m33d_hf.training.processes.markers import FINAL, MARKER, damage
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.weights import ConversionOptions, convert_state_dict, load_foreign, trained_positions
from m33d_hf.weights.files import expand_index, read_safetensors
from m33d_hf.weights.formats.classes import class_obstacle
from m33d_hf.weights.init_options import InitOptions

Tensors = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

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
)
# What a global token starts from (docs/method.md#global-token): in MAE its position is 0, nothing is added.
_MAE_CLASS_TOKEN = "embeddings.rgb.cls_token"
_DECODER_FIELDS = ("decoder_num_attention_heads", "decoder_fusion")
_PART = re.compile(r"(embeddings|encoders)\.(\w+)\.(.+)")
_DECODER_CORE = re.compile(r"decoder\.(?:targets\.(?P<target>\w+)\.)?(?:embed|mask_token|layers|layernorm)\b")
_HEADS = {
    "contrastive_head": "the contrastive head",
    "matching_head": "the matching head",
    "segmentation_head": "the segmentation head",
    "depth_head": "the depth head",
    "fc_norm": "the norm of pooled features",
    "classifier": "the classifier",
    "gru": "the recurrent net",
    "temporal_classifier": "the temporal classifier",
}
# Heads whose rows are classes: of equal shape they are still worthless for other classes.
_CLASS_HEADS = ("classifier", "temporal_classifier")


@dataclass
class LoadReport:
    """What became of every weight.

    Attributes:
        origin: what was asked for.
        format: "m33d", or the foreign format.
        loaded: weight of the model -> where it came from.
        new: weight of the model -> why it keeps its fresh initialisation.
        ignored: weight of the checkpoint -> why it was not used.
        notes: remarks for the user.
    """

    origin: str
    format: str
    loaded: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines: counts, then new and ignored weights grouped by part and reason."""
        lines = [
            f"{self.origin} ({self.format}): {len(self.loaded)} weights loaded, {len(self.new)} new, "
            f"{len(self.ignored)} ignored"
        ]
        for title, entries in (("new", self.new), ("ignored", self.ignored)):
            groups: dict[tuple[str, str], int] = {}
            for key, reason in entries.items():
                part = ".".join(key.split(".")[:3]) if key.startswith("m33d.") else key.split(".")[0]
                groups[part, reason] = groups.get((part, reason), 0) + 1
            lines += [f"  {title}: {part}.* ({number}): {reason}" for (part, reason), number in groups.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def initialise(model: nn.Module, init_from: str | Path, init: InitOptions | None = None) -> LoadReport:
    """Fill `model` in place from a checkpoint.

    Args:
        model: any M33D model with memory (not on the meta device).
        init_from: own folder (also checkpoints/step_... and checkpoints/best), own or foreign weight file, hub id.
        init: what to take and how to fill what the checkpoint lacks.

    Raises:
        CheckpointError: nothing readable, another architecture (both shapes are named), or a weight nobody can explain.
        ConversionError: the same for foreign formats.
    """
    init = init or InitOptions()
    own = find_own(str(init_from))
    if own is None:
        options = ConversionOptions(
            init_decoder=init.init_decoder,
            depth_encoder_init=init.depth_encoder_init,
            depth_patch_init=init.depth_patch_init,
        )
        found = convert_state_dict(load_foreign(init_from, stated_by(init)), model, options)
        notes = [*found.facts, *found.notes]
        return LoadReport(str(init_from), found.format, found.filled, found.new, found.ignored, notes)
    return _Matching(model, own, str(init_from), init).apply()


def stated_by(init: InitOptions) -> dict[str, Any]:
    """What the arguments say about a foreign checkpoint and no tensor tells."""
    heads = {name: getattr(init, name) for name in ("num_attention_heads", "decoder_num_attention_heads")}
    return {name: value for name, value in heads.items() if value is not None}


@dataclass(frozen=True)
class OwnCheckpoint:
    """An own checkpoint: its weight files and its configuration (empty when only a weight file is there)."""

    files: tuple[Path, ...]
    config: dict[str, Any]


def find_own(init_from: str) -> OwnCheckpoint | None:
    """The own checkpoint behind `init_from`; None when it is foreign.

    Raises:
        CheckpointError: a folder or hub id of ours without weights.
    """
    path = Path(init_from).expanduser()
    if path.exists():
        _refuse_damage(path if path.is_dir() else path.parent)
    if path.is_file():
        config = _read_config(path.parent)
        if config.get("model_type") == "m33d" and path.suffix == ".safetensors":
            return OwnCheckpoint((path,), config)
        return None
    folder = path if path.is_dir() else _fetch(init_from)
    if folder is None:
        return None
    config = _read_config(folder)
    if config.get("model_type") != "m33d":
        return None
    if (folder / WEIGHTS).is_file():
        return OwnCheckpoint((folder / WEIGHTS,), config)
    if (folder / INDEX).is_file():
        return OwnCheckpoint(tuple(expand_index(folder / INDEX)), config)
    raise CheckpointError(
        f"{init_from} has a config.json of this package but no {WEIGHTS}; a run that has not finished keeps its "
        "weights in checkpoints/step_NNNNNNNN: name that folder."
    )


def _refuse_damage(folder: Path) -> None:
    """Compare weights and configuration with the marker of the run that wrote them, where there is one.

    Raises:
        CheckpointError: they are not what was written.
    """
    if not (folder / MARKER).is_file():
        return
    wrong = damage(folder, only=[path.name for path in folder.iterdir() if FINAL.fullmatch(path.name)])
    if wrong is not None:
        raise CheckpointError(
            f"{folder} is damaged: {wrong}. Take another checkpoint of the run, or put an unchanged copy back; if the "
            f"change was made on purpose, remove {folder / MARKER}."
        )


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not readable as JSON: {error}.") from error
    return config if isinstance(config, dict) else {}


def _fetch(name: str) -> Path | None:
    """Local folder of a hub id of ours; None for anything that is no such id (the converters say what it is)."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) or Path(name).suffix in (
        ".pth",
        ".pt",
        ".bin",
        ".safetensors",
    ):
        return None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        config = Path(hf_hub_download(repo, "config.json", revision=revision or None))
        if _read_config(config.parent).get("model_type") != "m33d":
            return None
        patterns = ["config.json", "model*.safetensors*"]
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None  # load_foreign asks again and says precisely what is wrong


def starting_config(args: RunArguments, **overrides: Any) -> M33DConfig:
    """The configuration of a run's model; positions and a global token stay those of the checkpoint it starts from.

    With `position_embedding_resize: interpolate`, a model that starts from a checkpoint of another input size (our
    own, or MAE's) keeps the checkpoint's position grid and interpolates it, unless the arguments give `position_grid`.

    Raises:
        ConfigError: values that cannot work.
        CheckpointError: `init_from` cannot be read.
    """
    origin = None if args.init_from is None else _origin_config(args.init_from)
    given = {*args.model, *overrides}
    if origin is not None and origin.get("global_token") and not {"use_cls_token", "global_token"} & given:
        overrides = {**overrides, "global_token": True, "use_cls_token": False}
    config = M33DConfig(**{**args.model, **overrides})
    if origin is None or "position_grid" in given or config.position_embedding_resize != "interpolate":
        return config
    grid = _trained_grid(origin, str(config.position_embedding_type))
    return config if grid is None else M33DConfig(**{**args.model, **overrides, "position_grid": grid})


def _origin_config(init_from: str) -> dict[str, Any]:
    """The configuration of a checkpoint: its own, or what the weights of a foreign one tell."""
    own = find_own(init_from)
    if own is not None:
        return own.config
    return trained_positions(load_foreign(init_from))


def _trained_grid(origin: dict[str, Any], kind: str) -> list[int] | None:
    """The (t, h, w) grid on which a checkpoint's positions of that kind were trained, None where there is none."""
    grid = origin.get("position_grid")
    return list(grid) if grid is not None and origin.get("position_embedding_type") == kind else None


class _Matching:
    """One own checkpoint against one model."""

    def __init__(self, model: nn.Module, own: OwnCheckpoint, origin: str, init: InitOptions) -> None:
        config = model.config
        if not isinstance(config, M33DConfig):
            raise CheckpointError(f"{type(model).__name__} is not an M33D model.")
        self.config, self.init, self.origin, self.own = config, init, origin, own
        self.target = {_canonical(name): tensor for name, tensor in model.state_dict().items()}
        self.source = {_canonical(name): tensor for name, tensor in _read(own.files).items()}
        self.report = LoadReport(origin, "m33d")
        self.plan: Tensors = {}
        self.used: set[str] = set()

    def apply(self) -> LoadReport:
        """Plan, check that nothing is unexplained, copy."""
        self._check_architecture()
        decoder_obstacle = self._decoder_obstacle()
        for name, tensor in self.target.items():
            self._plan_one(name, tensor, decoder_obstacle)
        for name in self.source:
            if name not in self.used:
                self.report.ignored[_full(name)] = self._why_unused(name, decoder_obstacle)
        with torch.no_grad():
            for name, value in self.plan.items():
                self.target[name].copy_(value)
        return self.report

    def _check_architecture(self) -> None:
        other = self._differences(_ARCHITECTURE_FIELDS)
        if not other:
            return
        differences = ", ".join(f"{n} is {v!r} there and {getattr(self.config, n)!r} here" for n, v in other.items())
        words = " ".join(f"--model.{name} {value}" for name, value in other.items())
        raise CheckpointError(
            f"{self.origin} is of another architecture: {differences}. Give {words}, or start from another checkpoint."
        )

    def _decoder_obstacle(self) -> str | None:
        """Why the decoder is not taken; None when it is."""
        for side, owner in ((self.target, "model"), (self.source, "checkpoint")):
            if not any(name.startswith("decoder.") for name in side):
                return f"the {owner} has no decoder"
        if not self.init.init_decoder:
            return "init.init_decoder is false"
        for name in _DECODER_FIELDS:
            theirs, ours = self.own.config.get(name), getattr(self.config, name)
            if theirs is not None and theirs != ours:
                return f"another decoder: {name} is {theirs!r} in the checkpoint and {ours!r} here"
        theirs, ours = self.own.config.get("decoder_kind", "shared"), self.config.decoder_kind
        if theirs != ours:
            return f"another decoder: decoder_kind is {theirs!r} in the checkpoint and {ours!r} here"
        core = [_decoder_core(side, other) for side, other in ((self.source, self.target), (self.target, self.source))]
        if core[0] != core[1]:
            return "another decoder: the numbers of layers differ"
        for name in sorted(core[0]):
            if self.source[name].shape != self.target[name].shape:
                return f"another decoder: {name} is {_shapes(self.source[name], self.target[name])}"
        return None

    def _plan_one(self, name: str, tensor: torch.Tensor, decoder_obstacle: str | None) -> None:
        """Decide for one weight of the model."""
        part = name.split(".")[0]
        if part == "decoder" and decoder_obstacle is not None:
            self.report.new[_full(name)] = decoder_obstacle
        elif name in self.source:
            self._take(name, name, tensor)
        elif part == "decoder":
            self.report.new[_full(name)] = "the checkpoint's decoder does not know this modality"
        elif part in _HEADS:
            self.report.new[_full(name)] = f"{_HEADS[part]} is not in the checkpoint"
        else:
            self._fill_missing(name, tensor)

    def _take(self, name: str, source: str, tensor: torch.Tensor) -> None:
        value = self.source[source]
        part = name.split(".")[0]
        obstacle = self._other_classes(part) if part in _CLASS_HEADS else None
        if value.shape == tensor.shape and obstacle is None:
            self._fill(name, source, value, _full(source))
            return
        if part in _HEADS or part == "decoder":
            reason = obstacle or f"another shape: {_shapes(value, tensor)}"
            self.report.new[_full(name)] = reason
            self.report.ignored[_full(source)] = reason
            self.used.add(source)
            return
        raise CheckpointError(
            f"{self.origin} is of another architecture: {_full(source)} is {_shapes(value, tensor)}. "
            f"{self._architectures()}"
        )

    def _other_classes(self, head: str) -> str | None:
        """Why a classifier cannot be taken, weight and bias together: its rows mean other classes, or it is wider."""
        theirs, ours = self.source.get(f"{head}.weight"), self.target[f"{head}.weight"]
        if theirs is None:
            return f"{_HEADS[head]} is not in the checkpoint"
        obstacle = class_obstacle(theirs.shape[0], self.own.config.get("id2label"), ours.shape[0], self.config.id2label)
        if obstacle is None and theirs.shape != ours.shape:
            return f"another shape: {_shapes(theirs, ours)}"
        return obstacle

    def _fill(self, name: str, source: str, value: torch.Tensor, how: str) -> None:
        self.plan[name] = value
        self.used.add(source)
        self.report.loaded[_full(name)] = how

    def _fill_missing(self, name: str, tensor: torch.Tensor) -> None:
        """A weight of embeddings or encoders that the checkpoint lacks under this name."""
        match = _PART.fullmatch(name)
        stand_in = self._stand_in(match) if match else _MAE_CLASS_TOKEN
        if match and match[1] == "encoders" and match[3].startswith("layernorm.") and stand_in not in self.source:
            self.report.new[_full(name)] = "the checkpoint has no final norm; it starts as the identity"
        elif match and match[2] not in ("rgb", "shared") and self.init.depth_encoder_init == "random":
            self.report.new[_full(name)] = "init.depth_encoder_init is random"
        elif match and match[1] == "embeddings" and match[3] == "projection.weight" and stand_in in self.source:
            self._fill_patch(name, str(stand_in), tensor)
        elif stand_in in self.source and self.source[str(stand_in)].shape == tensor.shape:
            self._fill(name, str(stand_in), self.source[str(stand_in)], f"copied from {_full(str(stand_in))}")
        elif match and match[3] == "cls_token" and "global_token" in self.source:
            self._fill(name, "global_token", self.source["global_token"], f"copied from {_full('global_token')}")
        elif name == "global_token" or (match and match[3] == "cls_token"):
            self.report.new[_full(name)] = "the checkpoint has no class token"
        else:
            raise CheckpointError(
                f"{self.origin} is of another architecture: it has no {_full(name)}, which is {tuple(tensor.shape)} in "
                f"this model. {self._architectures()}"
            )

    def _stand_in(self, match: re.Match[str]) -> str | None:
        """The weight of the checkpoint's RGB (or shared) part that can take this place."""
        for owner in ("rgb", "shared"):
            name = f"{match[1]}.{owner}.{match[3]}"
            if owner != match[2] and name in self.source:
                return name
        return None

    def _fill_patch(self, name: str, source: str, tensor: torch.Tensor) -> None:
        """A patch kernel of a modality that the checkpoint lacks, from the RGB kernel (docs/method.md#depth-kernel)."""
        if self.init.depth_patch_init == "random":
            self.report.new[_full(name)] = "init.depth_patch_init is random"
            return
        total = self.source[source].sum(dim=1, keepdim=True)
        if self.init.depth_patch_init == "mean":
            total = total / self.source[source].shape[1]
        kernel = (total / tensor.shape[1]).expand(-1, tensor.shape[1], *total.shape[2:])
        if kernel.shape != tensor.shape:
            raise CheckpointError(
                f"{self.origin} is of another architecture: the patch kernel is "
                f"{_shapes(self.source[source], tensor)}. {self._architectures()}"
            )
        self._fill(name, source, kernel, f"{self.init.depth_patch_init} over the channels of {_full(source)}")

    def _why_unused(self, name: str, decoder_obstacle: str | None) -> str:
        """The reason why a weight of the checkpoint has no place in the model."""
        part = name.split(".")[0]
        if part == "decoder":
            return decoder_obstacle or "this model does not reconstruct or embed this modality"
        if part in _HEADS:
            there = any(key.split(".")[0] == part for key in self.target)
            return f"{_HEADS[part]} of this model has no such weight" if there else f"this model lacks {_HEADS[part]}"
        match = _PART.fullmatch(name)
        if match and not any(key.startswith(f"{match[1]}.{match[2]}.") for key in self.target):
            return f"this model has no {match[1]} of {match[2]!r}"
        if match and match[1] == "encoders" and match[3].startswith("layernorm."):
            return "this model's head reads raw blocks, before any final norm"
        if name == "global_token" or (match and match[3] == "cls_token"):
            return "this model has no class token" if match else "this model has no global token"
        raise CheckpointError(
            f"{self.origin} is of another architecture: its {_full(name)}, {tuple(self.source[name].shape)}, has no "
            f"place in this model. {self._architectures()}"
        )

    def _differences(self, names: Iterable[str]) -> dict[str, Any]:
        """The checkpoint's values of the fields that it states and this model has otherwise."""
        found: dict[str, Any] = {}
        for name in names:
            theirs, ours = self.own.config.get(name), getattr(self.config, name)
            same = size_pair(theirs) == size_pair(ours) if name == "patch_size" and theirs else theirs == ours
            if theirs is not None and not same:
                found[name] = theirs
        return found

    def _architectures(self) -> str:
        """What else may explain weights that do not fit, the sizes having been compared before."""
        if self._differences(["encoder_sharing"]):
            theirs, ours = self.own.config["encoder_sharing"], self.config.encoder_sharing
            return f"Different: encoder_sharing {theirs!r} there, {ours!r} here."
        return "The configurations agree, so the file may be damaged."


def _decoder_core(side: Tensors, other: Tensors) -> set[str]:
    """The weights that make a decoder what it is; of decoders per target, those of the targets on both sides."""
    there = {name.split(".")[2] for name in other if name.startswith("decoder.targets.")}
    matches = ((name, _DECODER_CORE.match(name)) for name in side)
    return {name for name, match in matches if match and (match["target"] is None or match["target"] in there)}


def _read(files: tuple[Path, ...]) -> Tensors:
    tensors: Tensors = {}
    for file in files:
        tensors.update(read_safetensors(file))
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(f"{files[0]}: {len(broken)} tensors hold NaN or infinity, the first is {broken[0]!r}.")
    return tensors


def _canonical(name: str) -> str:
    """Names without the base model's prefix, so that M33DModel and the models around it agree."""
    return name.removeprefix("m33d.")


def _full(name: str) -> str:
    return f"m33d.{name}" if name.startswith(("embeddings.", "encoders.", "global_token")) else name


def _shapes(theirs: torch.Tensor, ours: torch.Tensor) -> str:
    return f"{tuple(theirs.shape)} in the checkpoint and {tuple(ours.shape)} in this model"
