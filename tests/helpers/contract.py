"""One tiny model of every class with its inputs, for the tests of what transformers asks of all models."""

from __future__ import annotations

from typing import Any

import torch

from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.modeling_m33d import M33DModel, M33DPreTrainedModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

LAYERS, HEADS, WIDTH, BATCH, CLIPS, CLASSES = 3, 2, 16, 3, 2, 4
SIZE = (16, 24)
TOKENS = 2 * 3 + 1  # patches of 8 and the class token
TASKS = [
    M33DForSemanticSegmentation,
    M33DForDepthEstimation,
    M33DForVideoClassification,
    M33DForVideoActionDetection,
]
TRAINED = [M33DForPreTraining, *TASKS]
MODELS = [M33DModel, *TRAINED]


def contract_config(**overrides: Any) -> M33DConfig:
    """A configuration that every class takes; its "clips" are single images."""
    fields: dict[str, Any] = {
        "image_size": list(SIZE),
        "patch_size": 8,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 32,
        "modalities": [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5)],
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
        "contrastive_weight": 0.1,
        "matching_weight": 0.1,
        "segmentation_head_width": 8,
        "segmentation_head_depth": 1,
        "segmentation_head_upscale": 2,
        "depth_head_width": 16,
        "temporal_hidden_size": 8,
        "temporal_dropout": 0.0,
        "num_labels": CLASSES,
    }
    return M33DConfig(**{**fields, **overrides})


def contract_model(cls: type[Any], **overrides: Any) -> Any:
    """A model in eval mode with weights of a trained size, so that a mistake is seen in the output."""
    torch.manual_seed(0)
    model = cls(contract_config(**overrides))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def pixels_of(cls: type[Any], rows: int, height: int, width: int, generator: torch.Generator | None = None) -> Any:
    """RGB as a class takes it; detection reads videos of `CLIPS` clips of one frame."""
    shape = (rows, CLIPS, 1, 3) if cls is M33DForVideoActionDetection else (rows, 3)
    return torch.randn(*shape, height, width, generator=generator)


def contract_inputs(model: M33DPreTrainedModel) -> dict[str, Any]:
    """Inputs of `BATCH` samples, with labels where the class takes some."""
    generator = torch.Generator().manual_seed(1)
    given: dict[str, Any] = {"pixel_values": pixels_of(type(model), BATCH, *SIZE, generator)}
    if isinstance(model, M33DForSemanticSegmentation):
        given["labels"] = torch.randint(0, CLASSES, (BATCH, *SIZE), generator=generator)
    elif isinstance(model, M33DForDepthEstimation):
        given["labels"] = torch.rand(BATCH, *SIZE, generator=generator) * 4 + 0.5
    elif isinstance(model, M33DForVideoClassification):
        given["labels"] = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    elif isinstance(model, M33DForVideoActionDetection):
        given["labels"] = torch.randint(0, CLASSES, (BATCH, CLIPS), generator=generator)
    else:
        given["depth_values"] = torch.randn(BATCH, 1, *SIZE, generator=generator)
    if isinstance(model, M33DForPreTraining):
        given["keep"] = draw_keep(model.config, BATCH, generator=generator)
    return given


def main_output(model: M33DPreTrainedModel, output: Any) -> torch.Tensor:
    """The tensor that a class is there for."""
    if isinstance(model, M33DForDepthEstimation):
        return output.standardized_depth
    if isinstance(model, M33DModel):
        return output.last_hidden_state
    return output.loss if isinstance(model, M33DForPreTraining) else output.logits
