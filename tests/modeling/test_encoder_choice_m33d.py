"""M33DModel from the folder of a task model: the encoder that is there, whole, and nothing reported as missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import CLIP, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

IMAGE, VIDEO = {"num_labels": 3}, {**CLIP, "num_labels": 3}


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (M33DForSemanticSegmentation, IMAGE),
        (M33DForSemanticSegmentation, {**IMAGE, "head_norm": True}),
        (M33DForDepthEstimation, {**IMAGE, "encoder_sharing": "shared"}),
        (M33DForVideoClassification, VIDEO),
        (M33DForVideoActionDetection, VIDEO),
    ],
)
def test_a_task_folder_gives_its_encoder(cls: type[Any], fields: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(**fields)
    told = config.to_dict()
    torch.manual_seed(0)
    task = cls(config).eval()
    task.save_pretrained(tmp_path / "task")
    model, info = M33DModel.from_pretrained(tmp_path / "task", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    heads = ("segmentation_head.", "depth_head.", "fc_norm.", "classifier.", "gru.", "temporal_classifier.")
    assert info["unexpected_keys"] and all(key.startswith(heads) for key in info["unexpected_keys"])
    frames = fields.get("num_frames", 1)
    pixels = torch.randn(2, frames, 3, 32, 32)
    with torch.no_grad():
        expected = task.extract_features(pixels)["rgb"]
        assert torch.equal(model.eval().extract_features(pixels)["rgb"], expected)
    model.save_pretrained(tmp_path / "encoder")
    again, info = M33DModel.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert torch.equal(again.eval().extract_features(pixels)["rgb"], expected)
    differing = {key for key, value in config.to_dict().items() if value != told[key]}
    assert differing <= {"architectures", "dtype", "torch_dtype"}  # others build from the same object


def test_pretraining_from_a_task_folder_has_all_encoders_again(tmp_path: Path) -> None:
    M33DForSemanticSegmentation(tiny_config(**IMAGE)).save_pretrained(tmp_path)
    model, info = M33DForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert any(key.startswith("m33d.encoders.depth.") for key in info["missing_keys"])
    assert not any(key.startswith("m33d.encoders.rgb.layers.") for key in info["missing_keys"])
    assert model.config.encoder_modalities is None and model.config.encoder_final_norm is None
    model.save_pretrained(tmp_path / "again")
    assert M33DModel.from_pretrained(tmp_path / "again").encoders.keys() == {"rgb", "depth"}


def test_a_whole_model_says_nothing_and_shares_its_configuration() -> None:
    config = tiny_config()
    for cls in (M33DModel, M33DForPreTraining):
        model = cls(config)
        assert model.config is config
    assert config.encoder_modalities is None and config.encoder_final_norm is None


def test_every_part_of_a_task_model_has_one_configuration() -> None:
    task = M33DForDepthEstimation(tiny_config(**IMAGE))
    task.set_attn_implementation("eager")
    assert task.m33d.config is task.config
    assert all(part.config is task.config for part in task.modules() if hasattr(part, "config"))


def test_arguments_win_over_the_configuration() -> None:
    config = tiny_config(encoder_modalities=["rgb"], encoder_final_norm=False)
    assert M33DModel(config).encoders.keys() == {"rgb"}
    assert M33DModel(config, modalities=["depth"]).encoders["depth"].layernorm is not None
    assert M33DModel(config, ["rgb", "depth"]).config.encoder_modalities is None


@pytest.mark.parametrize("wrong", [["rbg"], []])
def test_names_that_are_no_modality(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"rbg|encoder_modalities"):
        M33DConfig(encoder_modalities=wrong)


def test_names_of_encoders_go_beside_the_configuration(tmp_path: Path) -> None:
    """Without one, from_pretrained puts them into the configuration's field of that name."""
    M33DModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"modalities holds 'rgb'.*config=M33DConfig\.from_pretrained"):
        M33DModel.from_pretrained(tmp_path, modalities=["rgb"])
    config = M33DConfig.from_pretrained(tmp_path)
    model = M33DModel.from_pretrained(tmp_path, config=config, modalities=["rgb"])
    assert list(model.embeddings) == ["rgb"]
