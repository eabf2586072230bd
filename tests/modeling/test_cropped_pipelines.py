"""transformers' pipelines with a processor whose centre crop leaves a part of the picture without a prediction."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from helpers.tiny import tiny_config
from m33d_hf import M33DConfig, M33DForDepthEstimation, M33DForSemanticSegmentation, M33DImageProcessor
from m33d_hf.modeling.placement_fields_m33d import placement_fields

HEADS = {"segmentation_head_width": 32, "segmentation_head_depth": 1, "depth_head_width": 16}


def served(task: str, model_class: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    config = tiny_config(num_labels=3, **HEADS)
    model_class(config).save_pretrained(folder)
    crop = placement_fields(config.image_height_width, "center")
    M33DImageProcessor.from_model_config(config, **crop).save_pretrained(folder)
    return pipeline(task, model=str(folder))


@pytest.fixture
def wide() -> Image.Image:
    """Twice as wide as high: a quarter at the left and at the right is cut off."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8))


def test_the_picture_of_depth_shows_something(tmp_path: Path, wide: Image.Image) -> None:
    found = served("depth-estimation", M33DForDepthEstimation, tmp_path)(wide)
    depth = found["predicted_depth"]
    assert depth.shape == (32, 64) and depth.isfinite().all()
    assert depth[:, :16].eq(0).all() and depth[:, 48:].eq(0).all() and depth[:, 16:48].gt(0).all()
    assert np.asarray(found["depth"])[:, 16:48].max() == 255


def test_pixels_without_a_prediction_have_a_mask_of_their_own(tmp_path: Path, wide: Image.Image) -> None:
    found = {
        each["label"]: np.asarray(each["mask"]) > 0
        for each in served("image-segmentation", M33DForSemanticSegmentation, tmp_path)(wide)
    }
    outside = found.pop("no prediction")
    assert outside[:, :16].all() and outside[:, 48:].all() and not outside[:, 16:48].any()
    assert np.logical_or.reduce(list(found.values()))[:, 16:48].all()
    names = json.loads((tmp_path / "config.json").read_text())["id2label"]
    assert names == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


def _renamed(config: Any) -> None:
    config.id2label, config.label2id = {0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2}


CHANGES: dict[str, Any] = {
    "names given later": lambda model: _renamed(model.config),
    "fewer classes and back": lambda model: [setattr(model.config, "num_labels", number) for number in (2, 3)],
    "another configuration": lambda model: setattr(model, "config", M33DConfig.from_dict(model.config.to_dict())),
    "a copy": lambda model: setattr(model, "config", copy.deepcopy(model.config)),
    "a pickle": lambda model: setattr(model, "config", pickle.loads(pickle.dumps(model.config))),
    "another ignored value": lambda model: setattr(model.config, "semantic_loss_ignore_index", -100),
}


@pytest.mark.parametrize("change", CHANGES)
def test_pixels_without_a_prediction_whatever_becomes_of_the_configuration(
    tmp_path: Path, wide: Image.Image, change: str
) -> None:
    segment = served("image-segmentation", M33DForSemanticSegmentation, tmp_path)
    CHANGES[change](segment.model)
    assert "no prediction" in [each["label"] for each in segment(wide)]


def test_other_unknown_classes_stay_unknown() -> None:
    config = M33DForSemanticSegmentation(tiny_config(num_labels=3, **HEADS)).config
    assert config.num_labels == 3 and list(config.id2label) == [0, 1, 2]
    with pytest.raises(KeyError):
        config.id2label[254]
    assert type(config.to_dict()["id2label"]) is dict and config.to_dict()["id2label"] == config.id2label
    many = tiny_config(num_labels=300)
    assert many.id2label[255] == "LABEL_255"
