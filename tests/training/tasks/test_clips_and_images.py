"""Image models that start from clip checkpoints and the other way round, through the tasks of the scripts on rooms."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.foreign import original_videomae, tiny_videomae
from helpers.rooms_runs import words
from m33d_hf.errors import CheckpointError, M33DError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task

DENSE = {"semantic_segmentation": "rooms/semseg", "depth_estimation": "rooms/depth"}
SMALL: dict[str, Any] = {
    "image_size": 48,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
CLIPS: dict[str, Any] = {**SMALL, "num_frames": 8, "tubelet_size": 2}


def pretrained(folder: Path, **fields: Any) -> Path:
    torch.manual_seed(0)
    model = M33DForPreTraining(M33DConfig(**fields))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "positions." in name:  # zeros at first
                torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return folder


def arguments(task: str, recipe: str, folder: Path, cache: Path, **changes: str) -> RunArguments:
    changes = {"data__cache_dir": str(cache), "data__max_train_samples": "null", **changes}
    return parse_arguments(words(recipe, folder, **changes), task)


def features(model: M33DModel, pixels: torch.Tensor) -> list[torch.Tensor]:
    """RGB tokens before the first block and after every one, what dense heads read."""
    layers = list(range(-1, model.config.num_hidden_layers))
    with torch.no_grad():  # in float64: what is left is the rounding of a summed or halved kernel
        return copy.deepcopy(model).double().eval().forward_intermediates(pixels.double(), layers)[0]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rooms")


@pytest.mark.parametrize("kind", ["sincos_1d", "learned"])
@pytest.mark.parametrize("task", sorted(DENSE))
def test_a_dense_model_from_clips_sees_still_clips(tmp_path: Path, cache: Path, task: str, kind: str) -> None:
    clips = pretrained(tmp_path / "clips", **CLIPS, position_embedding_type=kind)
    model = build_task(task).build_model(arguments(task, DENSE[task], tmp_path / "out", cache, init_from=str(clips)))
    config = model.config
    assert (config.num_frames, config.use_cls_token, config.position_embedding_type) == (1, False, kind)
    pictures = torch.randn(2, 3, 48, 48)
    still = pictures[:, None].expand(-1, 2, -1, -1, -1)
    assert_same(features(model.m33d, pictures), features(M33DModel.from_pretrained(clips), still))


@pytest.mark.parametrize("task", sorted(DENSE))
def test_a_dense_run_from_clips_says_what_it_did(tmp_path: Path, cache: Path, task: str, capfd: Any) -> None:
    clips = pretrained(tmp_path / "clips", **CLIPS)
    result = train(arguments(task, DENSE[task], tmp_path / "out", cache, init_from=str(clips)), build_task(task))
    assert result.step == 2
    report = json.loads((tmp_path / "out" / "initialisation.json").read_text())
    assert report["loaded"]["m33d.embeddings.rgb.projection.weight"] == "summed over the tubelet of 2 frames"
    assert all(name.startswith(("segmentation_head.", "depth_head.")) for name in report["new"])
    line = "patch kernels are summed over the tubelet of 2 frames, so that a picture gives the tokens of its still clip"
    assert line in capfd.readouterr().out and any(line in note for note in report["notes"])
    assert "those of the clip's first time slot" in " ".join(report["notes"])


def test_a_dense_model_starts_from_videomae_weights_of_another_project(tmp_path: Path, cache: Path) -> None:
    """Against transformers' own VideoMAE on the still clip of one tubelet."""
    theirs = tiny_videomae().videomae.eval()
    torch.save({"model": original_videomae(tiny_videomae())}, tmp_path / "videomae.pth")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 72}
    changes = {f"model__{name}": str(value) for name, value in sizes.items()}
    args = arguments("semantic_segmentation", "rooms/semseg", tmp_path / "out", cache, model__image_size="32",
                     init_from=str(tmp_path / "videomae.pth"), **changes)  # fmt: skip
    task = build_task("semantic_segmentation")
    model = task.build_model(args)
    assert task.load_report is not None and "patch kernels are summed" in " ".join(task.load_report.notes)
    pictures = torch.randn(2, 3, 32, 32)
    still = pictures[:, None].expand(-1, 2, -1, -1, -1)
    theirs.embeddings.position_embeddings = theirs.embeddings.position_embeddings[:, :16]  # of the first slot
    with torch.no_grad():
        states = theirs(still, output_hidden_states=True).hidden_states
    found = features(model.m33d, pictures)
    torch.testing.assert_close(found[0].float(), states[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1].float(), states[1], atol=1e-5, rtol=1e-5)


def test_the_summed_kernel_is_the_response_to_a_still_clip(tmp_path: Path) -> None:
    """A second way: the convolutions themselves."""
    clips = M33DModel.from_pretrained(pretrained(tmp_path, **CLIPS)).embeddings["rgb"].projection.double()
    picture = torch.randn(1, 3, 48, 48).double()
    still = picture[:, :, None].expand(-1, -1, 2, -1, -1)
    summed = torch.nn.functional.conv2d(picture, clips.weight.sum(2), clips.bias, stride=8)
    torch.testing.assert_close(summed, clips(still)[:, :, 0], atol=1e-6, rtol=1e-5)


def test_positions_that_are_asked_for_otherwise_are_refused(tmp_path: Path, cache: Path) -> None:
    clips = pretrained(tmp_path / "clips", **CLIPS)
    args = arguments("depth_estimation", "rooms/depth", tmp_path / "out", cache, init_from=str(clips),
                     model__position_embedding_type="sincos_2d")  # fmt: skip
    with pytest.raises(CheckpointError, match="'sincos_1d' in the checkpoint and 'sincos_2d' in this model"):
        build_task("depth_estimation").build_model(args)


@pytest.mark.parametrize("how", ["average", "center"])
def test_clips_start_from_images_when_asked(tmp_path: Path, cache: Path, how: str) -> None:
    images = pretrained(tmp_path / "images", **SMALL, position_embedding_type="learned", use_cls_token=False)
    args = arguments("video_classification", "rooms/actions", tmp_path / "out", cache, init_from=str(images),
                     init__inflate=how, data__options="{num_clips: 6}", data__allow_missing_classes="true")  # fmt: skip
    model = build_task("video_classification").build_model(args)
    # One tubelet that shows the picture twice is the picture.
    pictures = torch.randn(2, 3, 48, 48)
    still = pictures[:, None].expand(-1, 2, -1, -1, -1)
    assert_same(features(model.m33d, still), features(M33DModel.from_pretrained(images), pictures))
    train(args, build_task("video_classification"))
    report = json.loads((tmp_path / "out" / "initialisation.json").read_text())
    assert report["loaded"]["m33d.embeddings.rgb.projection.weight"] == f"inflated over 2 frames ({how})"
    assert report["loaded"]["m33d.positions.temporal"] == "zeros: positions of images know no time"
    assert any("an image checkpoint in a clip model" in note for note in report["notes"])


def test_clips_do_not_start_from_images_unasked(tmp_path: Path, cache: Path) -> None:
    images = pretrained(tmp_path / "images", **SMALL)
    given = {"init_from": str(images), "data__options": "{num_clips: 6}", "data__allow_missing_classes": "true"}
    task = build_task("video_classification")
    with pytest.raises(M33DError, match=r"is an image checkpoint.*--init\.inflate average"):
        task.build_model(arguments("video_classification", "rooms/actions", tmp_path / "out", cache, **given))
    model = task.build_model(
        arguments("video_classification", "rooms/actions", tmp_path / "out", cache, init__inflate="average", **given)
    )
    report = task.load_report
    assert report is not None and "sincos_1d" in report.notes[0]
    assert report.ignored["m33d.embeddings.rgb.cls_token"] == "this model has no class token"
    own = M33DModel.from_pretrained(images).embeddings["rgb"].projection.weight
    kernel = model.m33d.embeddings["rgb"].projection.weight
    torch.testing.assert_close(kernel.sum(2), own)
    torch.testing.assert_close(kernel[:, :, 0], kernel[:, :, 1])
