"""Which weight of another project's checkpoint goes where in our models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.matching import PART, Matching, depth_kernel, fit_time


@dataclass(kw_only=True)
class ForeignNames(Matching):
    """The neutral names of `formats.layout` against those of a model; None where a part is taken.

    Args:
        config: of the model.
        decoder_obstacle: why the decoder is not taken.
        classifier_obstacle: why the classifier is not taken.
        heads: the same by the prefix of a dense head's weights, longer prefixes first.
    """

    config: M33DConfig
    decoder_obstacle: str | None
    classifier_obstacle: str | None
    heads: Mapping[str, str | None]

    def place(self, target: str, own: Tensor) -> None:
        """The encoder's weights go into every encoder, the patch kernel into every embedding."""
        match = PART.fullmatch(target)
        if match and match["part"] == "embeddings" and match["leaf"].startswith("projection."):
            self._place_patch(target, own, match["owner"], match["leaf"].removeprefix("projection."))
        elif match or target.removeprefix("m33d.") == "global_token":
            self._place_part(target, match)
        elif target.removeprefix("m33d.").startswith("positions."):
            self.take_or_leave(target, "the checkpoint's positions are fixed", name=target.removeprefix("m33d."))
        elif target.startswith("decoder."):
            self._place_decoder(target)
        elif (head := self._head_of(target)) is not None:
            obstacle = self.heads[head]
            self.take_or_leave(target, "the checkpoint's head lacks it") if obstacle is None else self.leave(
                target, obstacle
            )
        elif target.startswith("fc_norm."):
            self.take_or_leave(target, "the checkpoint has no norm of pooled features; ours starts as the identity")
        elif target.startswith("classifier.") and self.classifier_obstacle is None:
            self.take_or_leave(target, "the checkpoint's classifier has no bias")
        elif not target.startswith(("m33d.", "embeddings.", "encoders.")):
            told = self.classifier_obstacle if target.startswith("classifier.") else None
            self.leave(target, told or "this head has no counterpart in the checkpoint")

    def _head_of(self, name: str) -> str | None:
        """The dense head that a weight belongs to."""
        return next((head for head in self.heads if name.startswith(f"{head}.")), None)

    def _place_part(self, target: str, match: re.Match[str] | None) -> None:
        leaf = match["leaf"] if match else "cls_token"
        source = self.weights.get(f"encoder.{leaf}" if match and match["part"] == "encoders" else leaf)
        if leaf == "cls_token" and source is None:
            self.leave(target, "the checkpoint has no class token")
        elif match and match["owner"] in self._random():
            self.leave(target, "depth_encoder_init is 'random'")
        elif source is not None:  # MAE's class token with its position, or MultiMAE's: docs/method.md#global-token
            self.take(target, source)
        elif leaf.startswith("layernorm.") and not has_final_norm(self.weights):
            self.leave(target, "the checkpoint has no final norm; ours starts at weight 1, bias 0")

    def _random(self) -> set[str]:
        """Encoders (and the modalities they serve) that keep their own initialisation."""
        if self.options.depth_encoder_init == "copy":
            return set()
        return {self.config.encoder_name(spec) for spec in self.config.specs} - {"rgb", "shared"}

    def _place_patch(self, target: str, own: Tensor, modality: str, leaf: str) -> None:
        exact, source = self.weights.get(f"patch_{modality}.{leaf}"), self.weights.get(f"patch.{leaf}")
        if exact is not None:
            self.take(target, exact)
        elif modality != "rgb" and self.options.depth_patch_init == "random":
            self.leave(target, "depth_patch_init is 'random'")
        elif source is not None and leaf == "bias":
            self.take(target, source)
        elif source is not None:
            self.take(target, source, *self._fit_kernel(source.tensor, own, modality))

    def _fit_kernel(self, kernel: Tensor, own: Tensor, modality: str) -> tuple[Tensor, str]:
        """Bring an RGB kernel (D, 3, [t,] p, p) to a modality's channels and to the model's tubelet or picture."""
        how = []
        if modality != "rgb":
            kernel = depth_kernel(kernel, own.shape[1], self.options.depth_patch_init)
            how.append(f"{self.options.depth_patch_init} over the RGB kernels")
        kernel, time = fit_time(kernel, own, self.options.inflate)
        return kernel, ", ".join([*how, *([time] if time else [])]) or "copied"

    def _place_decoder(self, target: str) -> None:
        """Of one shared decoder RGB's head, of decoders per target those that both have."""
        source = self.weights.get(target.replace("decoder.heads.rgb.", "decoder.head."))
        if self.decoder_obstacle is not None:
            self.leave(target, self.decoder_obstacle)
        elif target.startswith("decoder.modality_embeddings."):
            self.leave(target, "MAE and VideoMAE have one modality and no embedding for it")
        elif target.startswith("decoder.heads.") and not target.startswith("decoder.heads.rgb."):
            self.leave(target, "MAE and VideoMAE predict RGB only")
        elif source is not None:
            self.take(target, source)
        elif target.startswith("decoder.targets."):
            own = ".".join(target.split(".")[:3]) + "."
            if not any(name.startswith(own) for name in self.weights):
                self.leave(target, "the checkpoint does not predict this modality")
            elif ".task_embeddings." in target:
                self.leave(target, "the checkpoint does not encode this modality")

    def why_unused(self, name: str) -> str | None:
        """What a weight of the checkpoint is for that this model does not have."""
        targets, head = self.targets, self._head_of(name)
        if head is not None:
            return self.heads[head]
        if name.startswith("classifier."):
            return self.classifier_obstacle
        if name.startswith("decoder.") and self.decoder_obstacle is not None:
            return self.decoder_obstacle
        reasons = {
            "fc_norm.": ("fc_norm.weight" in targets, FINE_TUNE_REASON),
            "decoder.targets.": (False, "the model does not predict this modality, or does not encode it"),
            "decoder.head.": ("decoder.heads.rgb.weight" in targets, "the model does not reconstruct RGB"),
            "cls_token": (
                any(target.endswith(("cls_token", "global_token")) for target in targets),
                "the model has no class token (use_cls_token, global_token)",
            ),
            "patch_": (
                any(f"embeddings.{name[6:].split('.')[0]}." in target for target in targets),
                "the model does not have this modality as an input",
            ),
            "encoder.layernorm.": (
                ends_in_norm(targets),
                "the model's head reads the output of the blocks, before any final norm",
            ),
        }
        return next((why for start, (there, why) in reasons.items() if name.startswith(start) and not there), None)


def ends_in_norm(targets: Iterable[str]) -> bool:
    """Whether a model's encoders end in a norm."""
    return any(".layernorm." in name for name in targets if "encoders." in name)


def has_final_norm(weights: Iterable[str]) -> bool:
    """Whether a translated checkpoint's encoder does."""
    return any(name.startswith("encoder.layernorm.") for name in weights)
