"""The frozen teacher of a distillation: the weights that the training starts from (`distillation_weight`).

Not in the paper: the authors' follow-up distils global embeddings of the stage-1 model into stage 2
(docs/method.md#follow-up). The teacher is rebuilt from `init_from` whenever a run is built, also when it is continued,
so that checkpoints hold only the student; its digest is compared when a run resumes.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch

from m33d_hf.acceleration import place
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.weights import ConversionReport
from m33d_hf.weights.own import find_own

Batch = dict[str, Any]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A frozen copy of a model's encoders, and how it computes features.

    Args:
        model: with the weights of the teacher.
        use_positions: whether these weights were trained with position embeddings.
        precision: as `train.precision`.
    """

    def __init__(self, model: M33DForPreTraining, use_positions: bool = True, precision: str = "no") -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.model.decoder = self.model.contrastive_head = self.model.matching_head = None  # only encoders are asked
        self.device: torch.device | None = None  # of the batches; none has come yet
        self.use_positions = use_positions
        self.precision = precision
        self.shows_all = model.config.distillation_tokens == "all"

    def features(self, batch: Batch) -> dict[str, torch.Tensor]:
        """name -> (B, D) global embeddings of a batch, without its noise; the teacher moves to the batch's device."""
        device = batch["keep"][next(iter(batch["keep"]))].device
        if device != self.device:
            place(self.model, device)
            self.device = device
        pixels = {name: value for name, value in batch.items() if name != "keep"}
        with torch.autocast(device.type, _DTYPES.get(self.precision), enabled=self.precision in _DTYPES):
            return self.model.embed_globally(None if self.shows_all else batch["keep"], self.use_positions, **pixels)

    def digest(self) -> str:
        """16 hexadecimal digits of the teacher's weights."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]


def build_teacher(args: RunArguments, model: M33DForPreTraining, report: ConversionReport | None) -> Teacher | None:
    """The teacher that a run's configuration asks for; None if it asks for none or does not train.

    Args:
        args: the run.
        model: fresh from `init_from`.
        report: what `init_from` filled.

    Raises:
        ConfigError: no teacher: no `init_from`, or one that lacks part of the encoders.
    """
    if model.config.distillation_weight <= 0 or args.eval_only:
        return None
    if report is None:
        raise ConfigError(
            f"model.distillation_weight is {model.config.distillation_weight:g}, but there is no teacher: set "
            "--init_from to the output of stage 1, or pass --model.distillation_weight 0."
        )
    parts = ("m33d.embeddings.", "m33d.encoders.", "m33d.positions.")
    fresh = [name for name in report.new if name.startswith(parts) and "final norm" not in report.new[name]]
    if fresh:
        raise ConfigError(
            f"The teacher would be partly random: {report.origin} does not fill {fresh[0]} ({report.new[fresh[0]]}). "
            "Set --init_from to a checkpoint with all modalities, or pass --model.distillation_weight 0."
        )
    return Teacher(model, not _position_free(report.origin), args.train.precision)


def _position_free(init_from: str) -> bool:
    """Whether a checkpoint's encoders never saw position embeddings: contrastive alone, and position-free."""
    own = find_own(init_from)
    if own is None or not own.config:
        return False
    config = M33DConfig.from_dict(own.config)
    alone = not config.target_specs and config.matching_weight == 0 and config.contrastive_weight > 0
    return alone and config.contrastive_position_free
