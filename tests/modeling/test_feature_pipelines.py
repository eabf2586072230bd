"""transformers' pipelines in batches: every field of an output can be taken apart by rows, and the pooled one means
what its description says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from helpers.tiny import tiny_config
from m33d_hf import M33DForDepthEstimation, M33DForSemanticSegmentation, M33DImageProcessor, M33DModel

HEADS = {"segmentation_head_width": 8, "segmentation_head_depth": 1, "depth_head_width": 16, "num_labels": 3}
TASKS = {"depth-estimation": M33DForDepthEstimation, "image-segmentation": M33DForSemanticSegmentation}


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Three of different sizes: the last batch of two is not full."""
    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((32, 32), (40, 32), (36, 50))
    ]


def _folder(cls: Any, folder: Path, **fields: Any) -> str:
    torch.manual_seed(0)
    config = tiny_config(**{**HEADS, **fields})
    cls(config).save_pretrained(folder)
    M33DImageProcessor.from_model_config(config).save_pretrained(folder)
    return str(folder)


def _tokens(folder: str, pictures: list[Image.Image]) -> torch.Tensor:
    model, processor = M33DModel.from_pretrained(folder).eval(), M33DImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        rows = [processor(picture, return_tensors="pt")["pixel_values"] for picture in pictures]
        return model(torch.cat(rows)).last_hidden_state


GLOBAL = {"joint_encoding": True, "global_token": True, "decoder_fusion": "separate"}


@pytest.mark.parametrize(("fields", "before", "after"), [({}, 1, 0), ({"use_cls_token": False}, 0, 0), (GLOBAL, 0, 1)])
def test_features_in_batches_and_pooled(
    fields: dict[str, Any], before: int, after: int, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    folder = _folder(M33DModel, tmp_path, **fields)
    expected = _tokens(folder, pictures)
    extract = pipeline("image-feature-extraction", model=folder)
    for size in (1, 2):
        found = extract(pictures, batch_size=size, return_tensors=True)
        torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-4)
    assert expected.shape[1] == before + 16 + after
    pooled = extract(pictures, batch_size=2, pool=True, return_tensors=True)
    torch.testing.assert_close(torch.cat(pooled), expected[:, before : before + 16].mean(dim=1), atol=1e-5, rtol=1e-4)


def test_the_pooled_output_is_rgbs() -> None:
    torch.manual_seed(0)
    model = M33DModel(tiny_config()).eval()
    pixels, depth = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        both, alone = model(pixels, depth), model(depth_values=depth)
        torch.testing.assert_close(both.pooler_output, model.extract_features(pixels)["rgb"].mean(dim=1))
        tokens = model.extract_features(depth_values=depth)["depth"]
        torch.testing.assert_close(alone.pooler_output, tokens.mean(dim=1))


def test_features_of_a_task_folder(tmp_path: Path, pictures: list[Image.Image]) -> None:
    folder = _folder(M33DForSemanticSegmentation, tmp_path)
    found = pipeline("image-feature-extraction", model=folder)(pictures, batch_size=2, return_tensors=True)
    torch.testing.assert_close(torch.cat(found), _tokens(folder, pictures), atol=1e-5, rtol=1e-4)
    task = M33DForSemanticSegmentation.from_pretrained(folder).eval()
    assert task.m33d.embeddings.keys() == M33DModel.from_pretrained(folder).embeddings.keys() == {"rgb"}


@pytest.mark.parametrize("task", TASKS)
def test_dense_pipelines_in_batches(task: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    serve = pipeline(task, model=_folder(TASKS[task], tmp_path))
    for one, other in zip(serve(pictures), serve(pictures, batch_size=2), strict=True):
        if task == "depth-estimation":
            torch.testing.assert_close(one["predicted_depth"], other["predicted_depth"], atol=1e-5, rtol=1e-4)
            continue
        assert [part["label"] for part in one] == [part["label"] for part in other]
        assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(one, other, strict=True))
