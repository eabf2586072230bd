"""Everything loads, and computes what it computed here, in processes that cannot import this package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import m33d_hf
from helpers.hub import serving
from helpers.tiny import CLIP, tiny_config
from helpers.videos import write_video
from m33d_hf.modeling.auto_m33d import AUTO_MAP

SCRIPT = Path(__file__).parent / "helpers" / "without_the_package.py"
HEADS = {
    "num_hidden_layers": 4,
    "segmentation_head_width": 16,
    "segmentation_head_depth": 1,
    "depth_head_width": 16,
    "temporal_hidden_size": 8,
    "id2label": {0: "wall", 1: "floor", 2: "box"},
    "label2id": {"wall": 0, "floor": 1, "box": 2},
}
MODELS = {
    "model": m33d_hf.M33DModel,
    "pretraining": m33d_hf.M33DForPreTraining,
    "segmentation": m33d_hf.M33DForSemanticSegmentation,
    "rgbd": m33d_hf.M33DForSemanticSegmentation,
    "depth": m33d_hf.M33DForDepthEstimation,
    "actions": m33d_hf.M33DForVideoClassification,
    **dict.fromkeys(("detection", "detection_tcn", "detection_transformer"), m33d_hf.M33DForVideoActionDetection),
}
REMOTE = "transformers_modules"


def _inputs(repo: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = {"actions": (2, 4, 3), "detection": (1, 2, 4, 3)}.get(repo.split("_")[0], (2, 3))
    inputs = {"pixel_values": torch.randn(*shape, 32, 32, generator=generator)}
    if repo in ("model", "pretraining"):
        inputs["depth_values"] = torch.randn(2, 1, 32, 32, generator=generator)
        inputs["depth_mask"] = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    return inputs


def _output(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(0)  # of the masks
    with torch.no_grad():
        output = model.eval()(**inputs)
    names = ("loss", "predicted_depth", "logits", "last_hidden_state")
    return next(output[name] for name in names if output.get(name) is not None)


def _write_repos(folder: Path) -> dict[str, dict[str, Path]]:
    """A folder for each model, with what it computes here in inputs.pt."""
    kept: dict[str, Any] = {}
    repos = {}
    for repo, cls in MODELS.items():
        torch.manual_seed(0)
        kind, _, temporal = repo.partition("_")
        clip = kind in ("actions", "detection")
        seen = {"task_inputs": ["rgb", "depth"]} if repo == "rgbd" else {}
        config = tiny_config(**HEADS, **seen, **(CLIP if clip else {}), temporal_model=temporal or "gru")
        model = cls(config)
        model.save_pretrained(folder / repo)
        kept |= {repo: _inputs(repo), f"{repo}_output": _output(model, _inputs(repo))}
        processing = m33d_hf.M33DVideoProcessor if clip else m33d_hf.M33DImageProcessor
        processor = processing.from_model_config(config)
        processor.save_pretrained(folder / repo)
        if repo == "depth":
            values = processor(Image.open(folder / "picture.png"), return_tensors="pt")
            kept["picture_values"] = values["pixel_values"]
            backbone = m33d_hf.M33DBackbone.from_pretrained(folder / repo, out_indices=[1, 4]).eval()
            kept["depth_maps"] = [each.detach() for each in backbone(**_inputs(repo)).feature_maps]
        if repo == "actions":
            values = processor(str(folder / "clip.mp4"), do_sample_frames=True, return_tensors="pt")
            kept["clip_values"] = values["pixel_values"]
        repos[f"org/{repo}"] = {"main": folder / repo}
    old = m33d_hf.M33DForDepthEstimation(tiny_config(**HEADS))
    old.save_pretrained(folder / "depth_v1")
    kept["depth_output_v1"] = _output(old, kept["depth"])
    repos["org/depth"]["v1"] = folder / "depth_v1"
    shutil.copytree(folder / "depth", folder / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    repos["org/empty"] = {"main": folder / "empty"}
    torch.save(kept, folder / "inputs.pt")
    return repos


def _run(folder: Path, source: str, address: str, **more: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    words = [sys.executable, "-I", str(SCRIPT), str(folder), source, address]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes read."""
    folder = tmp_path_factory.mktemp("repos")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    write_video(folder / "clip.mp4", 12)
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> Iterator[dict[str, Any]]:
    """What a process saw that loads from a hub."""
    with serving(_write_repos(folder), folder) as (address, asked):
        yield {**_run(folder, "hub", address, HF_ENDPOINT=address), "asked": asked}


def test_every_auto_class_gives_the_model_of_the_package(seen: dict[str, Any]) -> None:
    for name, (home, difference) in seen["heads"].items():
        assert home == f"{REMOTE}.{AUTO_MAP[name].split('.')[1]}" and difference == 0, name
    assert len(seen["heads"]) == 5
    home, difference = seen["detection"]
    # torch's GRU rounds by where its input lies in memory, within one process too.
    assert home == f"{REMOTE}.M33DForVideoActionDetection" and difference < 1e-6
    assert max(seen["temporal_models"]) < 1e-6
    assert seen["backbone"] == [f"{REMOTE}.M33DBackbone", 2, 0]


def test_any_head_loads_from_any_repo(seen: dict[str, Any]) -> None:
    names = ["M33DModel", "M33DForPreTraining", "M33DForSemanticSegmentation", "M33DForDepthEstimation"]
    wanted = [f"{REMOTE}.{name}" for name in names]
    assert seen["any_head_from_any_repo"] == {"depth": wanted, "pretraining": wanted}


def test_processors_give_the_tensors_of_the_package(seen: dict[str, Any]) -> None:
    assert seen["processors"] == {
        "None": [f"{REMOTE}.M33DImageProcessor", True],
        "pil": [f"{REMOTE}.M33DImageProcessorPil", True],
        "video": [f"{REMOTE}.M33DVideoProcessor", True],
    }


def _check_pipelines(found: dict[str, Any], pictures: int, clips: int) -> None:
    assert found["depth"] == [[40, 52]] * pictures
    assert len(found["segmentation"]) == pictures
    for parts in found["segmentation"]:
        assert parts and all(label in ("wall", "floor", "box") and size == [52, 40] for label, *size in parts)
    assert found["features"] == [[1 + 16, 32]] * pictures
    assert found["actions"] == [["box", "floor", "wall"]] * clips


def test_pipelines_take_pictures_paths_addresses_and_videos(seen: dict[str, Any]) -> None:
    _check_pipelines(seen["pipelines"], pictures=3, clips=2)
    about = [line for line in seen["pipelines, said"] if "double-check" not in line]  # of new code files
    (line,) = about  # transformers' own: this pipeline goes by a list of names that no registration reaches
    assert line.startswith("The model 'M33DForSemanticSegmentation' is not supported for image-segmentation.")


def test_the_pipeline_of_rgbd_travels_with_the_weights(seen: dict[str, Any]) -> None:
    home, *depths = seen["rgbd_pipeline"]
    assert home == f"{REMOTE}.RGBDImageSegmentationPipeline"
    assert depths[0] and all(size == [52, 40] for each in depths for _, *size in each)


def test_a_revision_is_what_it_was(seen: dict[str, Any]) -> None:
    assert seen["revision"] == 0


def test_types_and_devices(seen: dict[str, Any]) -> None:
    half, cpu, chosen = seen["precision_and_place"]
    assert half == "torch.bfloat16 cpu torch.bfloat16 True"
    assert cpu == "torch.float32 cpu torch.float32 True"
    assert chosen.startswith("torch.float32 ") and chosen.endswith(" torch.float32 True")


def test_what_was_loaded_is_saved_whole(seen: dict[str, Any], folder: Path) -> None:
    assert seen["saved_again"] == [0, f"{REMOTE}.M33DForPreTraining", f"{REMOTE}.M33DImageProcessorPil"]
    for name in ("config.json", "preprocessor_config.json"):
        assert json.loads((folder / "again" / name).read_text())["auto_map"] == AUTO_MAP
    assert {path.name for path in (folder / "again").glob("*.py")} == {
        path.name for path in (folder / "depth").glob("*.py")
    }


def test_refusals_say_what_is_wrong(seen: dict[str, Any]) -> None:
    said = seen["refusals"]
    assert "trust_remote_code=True" in said["no trust"]
    assert "v9 is not a valid git identifier" in said["no such revision"]
    assert "org/none is not a local folder and is not a valid model identifier" in said["no such repo"]
    assert "Repo id must use alphanumeric chars" in said["illegal characters"]
    assert "org/empty does not appear to have a file named pytorch_model.bin or model.safetensors" in said["no weights"]


def test_nothing_but_the_hub_was_asked(seen: dict[str, Any]) -> None:
    """Whatever is fetched is weights, configurations or flat code files."""
    files = {path.split("/resolve/")[1].split("/", 1)[1] for path in seen["asked"] if "/resolve/" in path}
    code = {name for name in files if name.endswith(".py")}
    assert all("/" not in name and name.endswith("_m33d.py") for name in code) and len(code) > 30


@pytest.mark.slow
def test_offline_from_the_cache_and_without_torchvision(seen: dict[str, Any], folder: Path) -> None:
    """The hub is up, and is not asked."""
    before = len(seen["asked"])
    offline = _run(folder, "cache", "", HF_HUB_OFFLINE="1")
    for name, (home, difference) in offline["heads"].items():
        assert home.startswith(REMOTE) and difference == 0, name
    assert offline["processors"] == {**seen["processors"], "None": seen["processors"]["pil"]}
    _check_pipelines(offline["pipelines"], pictures=2, clips=1)
    assert len(seen["asked"]) == before
