"""Which weight of another project's checkpoint goes where in our models."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.formats.layout import Neutral
from m33d_hf.weights.matching import PartMatching, depth_kernel
from m33d_hf.weights.options import ConversionOptions
from m33d_hf.weights.report import ConversionReport


def has_final_norm(neutral: Neutral) -> bool:
    return any(name.startswith("encoder.layernorm.") for name in neutral.weights)


class ForeignNames(PartMatching):
    """The neutral names of `formats.layout` against those of a model.

    Args:
        targets: see `Matching`.
        neutral: the checkpoint.
        report: see `Matching`.
        options: see `Matching`.
        config: of the model.
        decoder_obstacle: why the decoder is not taken; None when it is.
        classifier_obstacle: likewise.
    """

    def __init__(
        self,
        targets: Mapping[str, Tensor],
        neutral: Neutral,
        report: ConversionReport,
        options: ConversionOptions,
        config: M33DConfig,
        decoder_obstacle: str | None,
        classifier_obstacle: str | None,
    ) -> None:
        super().__init__(targets, neutral.weights, report, options)
        self.decoder_obstacle, self.classifier_obstacle = decoder_obstacle, classifier_obstacle
        self.final_norm = has_final_norm(neutral)
        encoders = {config.encoder_name(spec) for spec in config.specs}
        # Encoders (and the modalities they serve) that keep their own initialisation.
        self.random = set() if options.depth_encoder_init == "copy" else encoders - {"rgb", "shared"}

    def place_part(self, target: str, own: Tensor, match: re.Match[str] | None) -> None:
        """The encoder's weights go into every encoder, the patch kernel into every embedding."""
        leaf = "cls_token" if match is None else match["leaf"]
        if match and match["part"] == "embeddings" and leaf.startswith("projection."):
            self._place_patch(target, own, match["owner"], leaf.removeprefix("projection."))
            return
        encoder = match is not None and match["part"] == "encoders"
        source = self.weights.get(f"encoder.{leaf}" if encoder else leaf)
        random = match is not None and match["owner"] in self.random
        if leaf == "cls_token" and source is None:
            self.leave(target, "the checkpoint has no class token")
        elif random:
            self.leave(target, "depth_encoder_init is 'random'")
        elif source is not None:  # MAE's class token with its position, or MultiMAE's: docs/method.md#global-token
            self.take(target, source)
        elif leaf.startswith("layernorm.") and not self.final_norm:
            self.leave(target, "the checkpoint has no final norm; ours starts at weight 1, bias 0")

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
        """Bring an RGB kernel (D, 3, [t,] p, p) to a modality's channels and, if asked for, to a tubelet."""
        how, inflate = [], self.options.inflate
        if modality != "rgb":
            kernel = depth_kernel(kernel, own.shape[1], self.options.depth_patch_init)
            how.append(f"{self.options.depth_patch_init} over the RGB kernels")
        if own.ndim == 5 and kernel.ndim == 4:
            frames = own.shape[2]
            if inflate == "average":
                kernel = kernel.unsqueeze(2).repeat_interleave(frames, dim=2) / frames
            else:
                spread = kernel.new_zeros(kernel.shape[0], kernel.shape[1], frames, *kernel.shape[2:])
                spread[:, :, frames // 2] = kernel
                kernel = spread
            how.append(f"inflated over {frames} frames ({inflate})")
        return kernel, ", ".join(how) or "copied"

    def place_decoder(self, target: str, own: Tensor) -> None:
        """Of one shared decoder RGB's head, of decoders per target those that both have."""
        source = self.weights.get(target.replace("decoder.heads.rgb.", "decoder.head."))
        if target.startswith("decoder.modality_embeddings."):
            self.leave(target, "MAE and VideoMAE have one modality and no embedding for it")
        elif target.startswith("decoder.heads.") and not target.startswith("decoder.heads.rgb."):
            self.leave(target, "MAE and VideoMAE predict RGB only")
        elif source is not None:
            self.take(target, source)
        elif target.startswith("decoder.targets."):
            if not self._weights_under(".".join(target.split(".")[:3]) + "."):
                self.leave(target, "the checkpoint does not predict this modality")
            elif ".task_embeddings." in target:
                self.leave(target, "the checkpoint does not encode this modality")

    def _weights_under(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.weights)

    def place_head(self, target: str, own: Tensor) -> None:
        """The norm of pooled features and the classifier; other heads are ours alone."""
        if target.startswith("fc_norm."):
            self.take_or_leave(target, "the checkpoint has no norm of pooled features; ours starts as the identity")
        elif not target.startswith("classifier."):
            if not target.startswith(("m33d.", "embeddings.", "encoders.")):
                self.leave(target, "this head has no counterpart in the checkpoint")
        elif self.classifier_obstacle is not None:
            self.leave(target, self.classifier_obstacle)
        else:
            self.take_or_leave(target, "the checkpoint's classifier has no bias")

    def why_unused(self, name: str) -> str | None:
        """What a weight of the checkpoint is for that this model does not have."""
        targets = self.targets
        if name.startswith("classifier."):
            return self.classifier_obstacle
        if name.startswith("fc_norm.") and "fc_norm.weight" not in targets:
            return FINE_TUNE_REASON
        if name.startswith("decoder."):
            return self._why_decoder_unused(name)
        if name == "cls_token" and not any(target.endswith(("cls_token", "global_token")) for target in targets):
            return "the model has no class token (use_cls_token, global_token)"
        if name.startswith("patch_") and not any(f"embeddings.{name[6:].split('.')[0]}." in t for t in targets):
            return "the model does not take this modality"
        if name.startswith("encoder.layernorm.") and not ends_in_norm(targets):
            return "the model's head reads the raw blocks, before any final norm"
        return None

    def _why_decoder_unused(self, name: str) -> str | None:
        if self.decoder_obstacle is not None:
            return self.decoder_obstacle
        if name.startswith("decoder.targets."):
            return "the model does not predict this modality, or does not encode it"
        if name.startswith("decoder.head.") and "decoder.heads.rgb.weight" not in self.targets:
            return "the model does not reconstruct RGB"
        return None


def ends_in_norm(targets: Mapping[str, Tensor]) -> bool:
    """Whether a model's encoders end in a norm."""
    return any(".layernorm." in name for name in targets if "encoders." in name)
