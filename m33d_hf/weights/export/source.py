"""The model to export: a saved folder of ours, its model in float32 and its class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import m33d_hf
from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import CheckpointError, ExportError, M33DError, first_line
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.encoder_m33d import M33DEmbeddings, M33DEncoder, as_clip
from m33d_hf.modeling.modeling_m33d import GLOBAL, M33DModel
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.weights.files import read_safetensors
from m33d_hf.weights.own import find_own

CLASSIFIER = "M33DForVideoClassification"
DETECTOR = "M33DForVideoActionDetection"
PRETRAINING = "M33DForPreTraining"
ENCODERS = "M33DModel"
TASK_MODELS = {head.class_name: head for head in HEADS}
CLASSES = (*TASK_MODELS, PRETRAINING, ENCODERS)


@dataclass(frozen=True)
class Source:
    """A model to export.

    Attributes:
        name: the path or Hub id that the user passed.
        folder: location of config, weights and processor.
        kind: name of the class that was saved, one of CLASSES.
        model: that class with its weights, float32, in eval mode.
        given: what a graph of it is given: "rgb", "depth" or both; stock classes see RGB.
    """

    name: str
    folder: Path
    kind: str
    model: Any
    given: tuple[str, ...] = ("rgb",)

    @property
    def config(self) -> M33DConfig:
        """The model's configuration."""
        return cast(M33DConfig, self.model.config)

    @property
    def encoders(self) -> M33DModel:
        """The part with the encoders."""
        return cast(M33DModel, self.model if self.kind == ENCODERS else self.model.m33d)

    @property
    def embedding(self) -> M33DEmbeddings:
        """The patch embedding of RGB."""
        return cast(M33DEmbeddings, self.encoders.embeddings["rgb"])

    @property
    def encoder(self) -> M33DEncoder:
        """The encoder of RGB."""
        return cast(M33DEncoder, self.encoders.encoders[self.config.encoder_name(self.config.spec("rgb"))])

    def encode(self, pixel_values: Tensor) -> Tensor:
        """(B, [1 +] N, D) of RGB alone: class or global token (where there is one) first, then the patches."""
        states = self.encoders.encode({"rgb": as_clip(pixel_values, self.config.spec("rgb"), self.config)})
        return torch.cat([states[GLOBAL], states["rgb"]], dim=1) if GLOBAL in states else states["rgb"]

    def left_out(self, *taken: nn.Module) -> list[str]:
        """Parts of the model, by the first names of their weights, that are neither RGB's encoder nor in `taken`."""
        kept = [self.embedding, self.encoder, self.encoders.positions, *taken]
        known = {id(weight) for module in kept for weight in module.parameters()} | {id(self.encoders.global_token)}
        names = [name for name, weight in self.model.named_parameters() if id(weight) not in known]
        parts = [".".join(name.removeprefix("m33d.").split(".")[:2]) for name in names]
        return list(dict.fromkeys(part.removesuffix(".weight").removesuffix(".bias") for part in parts))


def load_source(name: str) -> Source:
    """Read a folder (or Hub id) that one of our models was saved to.

    Raises:
        CheckpointError: no model of ours, or its weights are missing or incomplete.
        ExportError: its configuration names no class of ours, or an encoder without RGB.
    """
    own = find_own(name, ours_alone=True)
    if own is None or not own.config:
        raise CheckpointError(
            f"{name}: not a folder (or Hub id) of a model of this package; pass the output folder of a run, where "
            "config.json has model_type m33d and model.safetensors holds the weights."
        )
    folder = own.files[0].parent
    config = M33DConfig.from_pretrained(folder)
    named = own.config["architectures"]
    if len(named) != 1 or named[0] not in CLASSES:
        raise ExportError(f"{folder / 'config.json'}: architectures is {named}; expected one of {', '.join(CLASSES)}.")
    if named[0] not in TASK_MODELS and "rgb" not in [spec.name for spec in config.input_specs]:
        raise ExportError(f"{name} has no RGB encoder (modalities); of encoders, only that of RGB can be exported.")
    for file in own.files:
        read_safetensors(file)  # says what is wrong with a damaged one; transformers lets its library's errors out
    own_arguments = {"modalities": ["rgb"]} if named[0] == ENCODERS else {}
    try:
        model, told = getattr(m33d_hf, named[0]).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            **own_arguments,
        )
    except M33DError:
        raise
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{name}: its weights do not fit its config.json ({first_line(error)}).") from error
    if told["missing_keys"]:
        missing = sorted(told["missing_keys"])
        raise CheckpointError(
            f"{name}: {plural(len(missing), 'weight')} of {named[0]} {agree(len(missing), 'is', 'are')} missing, "
            f"the first is {missing[0]!r}."
        )
    given = config.task_input_names if named[0] in TASK_MODELS else ("rgb",)
    return Source(name, folder, named[0], model.eval(), given)
