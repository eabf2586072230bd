"""Pictures reach converted weights with the mean and deviation that these were trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTImageProcessor, ViTModel, pipeline

from helpers.foreign import original_mae, tiny_videomae, tiny_vitmae
from helpers.plain_vit import random_vit
from m33d_hf import M33DForPreTraining, M33DImageProcessorPil, M33DModel, M33DVideoProcessor
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import IMAGENET_MEAN, IMAGENET_STD
from m33d_hf.scripts.convert_checkpoint import main
from m33d_hf.weights import config_for, from_state_dict, load_foreign
from m33d_hf.weights.normalisation import normalisation
from m33d_hf.weights.own import initialise

SIZES: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40},
    **{"image_size": 32, "patch_size": 8},
}
HALF = [0.5, 0.5, 0.5]


def _convert(source: Path, *more: str) -> Path:
    output = source.parent / "out"
    assert main(["--input", str(source), "--output", str(output), *more]) == 0
    return output


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT with its processor, which normalises by 0.5, as Google's do."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("google") / "in"
    ViTModel(ViTConfig(**SIZES), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=HALF, image_std=HALF).save_pretrained(folder)
    return folder


def test_a_picture_gives_the_features_of_the_source(google: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through both projects' own processors and models, from the same picture."""
    output = _convert(google)
    assert "pictures of mean [0.5, 0.5, 0.5]" in capsys.readouterr().out
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    theirs = ViTModel.from_pretrained(google, add_pooling_layer=False).eval()
    pixels = ViTImageProcessor.from_pretrained(google)(picture, return_tensors="pt")["pixel_values"]
    ours = M33DModel.from_pretrained(output).eval()
    own = M33DImageProcessorPil.from_pretrained(output)(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state[:, 1:]
        torch.testing.assert_close(ours.extract_features(own)["rgb"], expected, rtol=1e-5, atol=1e-5)
    features = torch.tensor(pipeline("image-feature-extraction", model=str(output))(picture))[:, 1:]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_a_run_with_another_normalisation_is_told(google: Path) -> None:
    checkpoint = load_foreign(google)
    fields = config_for(checkpoint)
    fields["modalities"] = [{**entry, "channel_mean": IMAGENET_MEAN} for entry in fields["modalities"]]
    report = initialise(M33DForPreTraining(M33DForPreTraining.config_class(**fields)), str(google))
    assert any("0.5" in line and "in this model" in line for line in report.facts)


def test_clips_get_a_video_processor(tmp_path: Path) -> None:
    tiny_videomae().save_pretrained(tmp_path / "in")
    output = _convert(tmp_path / "in")
    model, processor = M33DForPreTraining.from_pretrained(output), M33DVideoProcessor.from_pretrained(output)
    assert processor.num_frames == model.config.num_frames
    assert processor.size["height"] == model.config.image_size


def test_the_file_of_a_video_processor_counts(tmp_path: Path) -> None:
    tiny_videomae().save_pretrained(tmp_path)
    (tmp_path / "video_preprocessor_config.json").write_text('{"image_mean": [0.3, 0.4, 0.5], "image_std": 0.25}')
    found = normalisation(load_foreign(tmp_path))
    assert found.value == ((0.3, 0.4, 0.5), (0.25,) * 3) and found.source == "video_preprocessor_config.json"
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": 0.5, "image_std": 0.5}')
    assert normalisation(load_foreign(tmp_path)).value == ((0.5,) * 3, (0.5,) * 3)


def test_where_it_is_known_from() -> None:
    mae = from_state_dict(original_mae(tiny_vitmae()))
    assert normalisation(mae).assumed and normalisation(mae).value == (IMAGENET_MEAN, IMAGENET_STD)
    timm = from_state_dict(random_vit(), config={"pretrained_cfg": {"mean": HALF, "std": [0.25] * 3}})
    assert normalisation(timm).value == ((0.5,) * 3, (0.25,) * 3) and not normalisation(timm).assumed
    timm.preprocessor = {"image_mean": 0.4, "image_std": 0.2}
    assert normalisation(timm).value == ((0.4,) * 3, (0.2,) * 3)
    timm.preprocessor["do_normalize"] = False
    assert normalisation(timm).value == ((0.0,) * 3, (1.0,) * 3)
    timm.format = "mae_st"
    timm.preprocessor, timm.config = {}, {}
    assert normalisation(timm).value == ((0.45,) * 3, (0.225,) * 3)


@pytest.mark.parametrize("std", [0, [0.5, 0.5], ["a", 1, 1], [0.5, 0.5, float("nan")]])
def test_senseless_files_are_refused(google: Path, tmp_path: Path, std: Any) -> None:
    checkpoint = load_foreign(google)
    checkpoint.preprocessor = json.loads(json.dumps({"image_mean": 0.5, "image_std": std}))
    with pytest.raises(ConversionError, match=r"image_std in preprocessor_config\.json.*above 0.*Mend or remove"):
        config_for(checkpoint)
