"""A head from outside the package: surface normals of rooms from RGB, learnt from the normals of their depth.

One file holds what in the package would be three: model, collator and task. See tests/training/tasks/test_new_head.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers.utils import ModelOutput

from m33d_hf.data.loader.collation import Batch, Collator
from m33d_hf.data.loader.finishing import Step
from m33d_hf.data.sample import RGBDSample
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DDenseModel
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.dense import DenseTask, MeanLoss


def normals_of(depth: Tensor) -> Tensor:
    """(3, H, W) unit normals of a depth map (H, W); NaN beside holes and at the last row and column."""
    down, right = (depth.diff(dim=dim, append=depth.new_full((), torch.nan).expand(shape))
                   for dim, shape in ((0, (1, depth.shape[1])), (1, (depth.shape[0], 1))))  # fmt: skip
    return nn.functional.normalize(torch.stack([-right, -down, torch.full_like(depth, 0.1)]), dim=0)


@dataclass
class NormalsOutput(ModelOutput):
    loss: Tensor | None = None
    normals: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None


class ForNormals(M33DDenseModel):
    """A linear layer from the last block's tokens to the normals of their pixels; the loss is 1 - cosine."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        self.side = config.patch_height_width[0]
        self.toy_head = nn.Linear(config.hidden_size, 3 * self.side**2)
        self.post_init()

    @property
    def loss_weights(self) -> dict[str, float]:
        return {"cosine": 1.0}

    def loss_counts(self, labels: Tensor, **batch: Any) -> dict[str, Tensor]:
        return {"cosine": labels[:, 0].isfinite().sum().float()}

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> NormalsOutput:
        (states,), (height, width) = self._encode(pixel_values, [self.config.num_hidden_layers - 1])
        pixels = self.toy_head(states[:, -height * width :]).unflatten(1, (height, width)).movedim(-1, 1)
        normals = nn.functional.normalize(nn.functional.pixel_shuffle(pixels, self.side).float(), dim=1)
        if labels is None:
            return NormalsOutput(normals=normals)
        valid = labels[:, 0].isfinite()
        total = torch.where(valid, 1 - (normals * labels.nan_to_num()).sum(1), 0.0).sum()
        count = valid.sum().float()
        return NormalsOutput(total / count.clamp_min(1), normals, {"cosine": total}, {"cosine": count})


class NormalsCollator(Collator):
    """``pixel_values`` and ``labels`` (B, 3, H, W) float32."""

    takes_incomplete = True  # RGB alone is changed and mirrored later, by the step that `_rgb` returns

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        pixels, normalization = self._rgb(samples)
        labels = torch.stack([normals_of(sample.depth[0, 0]) for sample in samples if sample.depth is not None])
        return {"pixel_values": pixels, "labels": labels}, [normalization]


class NormalsTask(DenseTask):
    metric = "angle"
    greater_is_better = False
    model_class = ForNormals
    collator_class = NormalsCollator
    label_map = "depth"

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        labels = torch.empty(rows, 3, *config.image_height_width, device="meta")
        return {**super().example_batch(config, rows), "labels": labels}

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        return ["angle", "loss"]

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Mean angle to the truth in degrees, and the loss."""
        angle, loss = MeanLoss(accelerator.device), MeanLoss(accelerator.device)
        for output, labels in self.predictions(model, loader, accelerator):
            valid = labels[:, 0].isfinite()
            cosine = (output.normals * labels).sum(1)[valid].clamp(-1, 1)
            angle.add(cosine.acos().rad2deg().sum(), valid.sum())
            loss.add(output.loss_sums["cosine"], output.loss_counts["cosine"])
        return {"angle": angle.compute(accelerator), "loss": loss.compute(accelerator)}
