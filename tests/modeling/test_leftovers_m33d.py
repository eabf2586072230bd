"""What of a checkpoint is left out in silence: the parts that a model does not have, whole names, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.tiny import CLIP, VARIANTS, tiny_config
from m33d_hf.modeling.modeling_m33d import M33DModel, M33DPreTrainedModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

TASKS = {"num_labels": 3, "num_hidden_layers": 4, "segmentation_head_width": 16, "depth_head_width": 16}
TYPOS = (
    "decodr.mask_token",
    "decoder.layrs.0.mlp.fc1.weight",
    "decoder.layers.0.mlp.fc3.weight",
    "decoder.mask_tokens",
    "decoder.targets.rgb.attention.q.weight",
    "matching_heads.depth.weight",
    "contrastive_head.temperature",
    "m33d.encoders.rgb.layers.0.attention.qvk.weight",
    "m33d.embedding.depth.projection.weight",
)


def _unexpected(cls: type[M33DPreTrainedModel], folder: Path, **fields: Any) -> set[str]:
    _, info = cls.from_pretrained(folder, output_loading_info=True, **fields)
    return set(info["unexpected_keys"])


def _saved(folder: Path, variant: str, **fields: Any) -> Path:
    torch.manual_seed(0)
    M33DForPreTraining(tiny_config(**{**VARIANTS[variant], **fields})).save_pretrained(folder)
    return folder


def _add(folder: Path, *names: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, **{name: torch.zeros(2) for name in names}}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_encoders_of_a_pretraining_folder_load_without_a_word(variant: str, tmp_path: Path) -> None:
    folder = _saved(tmp_path, variant)
    assert _unexpected(M33DModel, folder) == set()


def test_denoising_and_distilled_models_too(tmp_path: Path) -> None:
    modalities = [spec | {"denoising_weight": 1.0} for spec in tiny_config().modalities or []]
    folder = _saved(tmp_path, "stage2_literal", modalities=modalities, distillation_weight=1.0)
    assert any("noise_heads" in name for name in load_file(folder / "model.safetensors"))
    assert _unexpected(M33DModel, folder) == set()


@pytest.mark.parametrize("extra", [{}, CLIP, {"encoder_sharing": "shared"}], ids=["images", "clips", "shared"])
@pytest.mark.parametrize(
    "cls",
    [M33DForSemanticSegmentation, M33DForDepthEstimation, M33DForVideoClassification, M33DForVideoActionDetection],
)
def test_a_folder_of_the_encoders_alone_loads_into_tasks_without_a_word(
    cls: type[M33DPreTrainedModel], extra: dict[str, Any], tmp_path: Path
) -> None:
    """It names its weights without the prefix of the base model."""
    torch.manual_seed(0)
    encoders = M33DModel(tiny_config(**TASKS, **extra))
    encoders.save_pretrained(tmp_path)
    loaded, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert info["unexpected_keys"] == set()
    assert not any(name.startswith("m33d.") for name in info["missing_keys"])
    for name, weight in loaded.m33d.state_dict().items():
        assert torch.equal(weight, encoders.state_dict()[name]), name
    strange = ("embeddings.depth.projektion.weight", "encoders.rgb.layers.0.attention.qvk.weight")
    _add(tmp_path, *strange)
    assert _unexpected(cls, tmp_path) == set(strange)


@pytest.mark.parametrize(
    "cls",
    [
        M33DModel,
        M33DForPreTraining,
        M33DForSemanticSegmentation,
        M33DForDepthEstimation,
        M33DForVideoClassification,
        M33DForVideoActionDetection,
    ],
)
def test_a_mistyped_weight_is_reported(cls: type[M33DPreTrainedModel], tmp_path: Path) -> None:
    folder = _saved(tmp_path, "shared_encoder", **TASKS)
    assert _unexpected(cls, folder) == set()
    _add(folder, *TYPOS)
    assert _unexpected(cls, folder) == set(TYPOS)


def test_a_pretraining_model_reports_decoders_that_it_does_not_have(tmp_path: Path) -> None:
    folder = _saved(tmp_path, "multimae")
    weights = load_file(folder / "model.safetensors")
    gone = {name for name in weights if name.startswith("decoder.targets.norm_rgb.")}
    modalities = [spec for spec in tiny_config(**VARIANTS["multimae"]).modalities or [] if spec["name"] != "norm_rgb"]
    assert gone and _unexpected(M33DForPreTraining, folder, modalities=modalities) == gone
