"""What is published of every task, used without the package: the code of its card, and its handler, say the same."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import m33d_hf
from helpers.depth_models import save_ours
from helpers.prediction import NAMES, save_clips, save_phases, save_pretraining, save_segmentation
from helpers.tiny import CLIP
from m33d_hf.demo import examples
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.publishing import publish

USE = Path(__file__).parents[1] / "helpers" / "use_published.py"
PICTURE, VIDEO = examples.pictures()[0], examples.clips()[0]
HEIGHT, WIDTH = 192, 256


def _phases(folder: Path) -> Path:
    save_phases(folder)
    config = m33d_hf.M33DForVideoActionDetection.from_pretrained(folder).config
    m33d_hf.M33DVideoProcessor.from_model_config(config).save_pretrained(folder)
    return folder


def _clip_encoder(folder: Path) -> Path:
    return save_pretraining(folder, **CLIP)


SAVE = {
    "depth": save_ours, "segmentation": save_segmentation, "clips": save_clips, "phases": _phases,
    "pictures": save_pretraining, "videos": _clip_encoder,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of a model, which lies beside what is published of it."""
    return {name: save(tmp_path_factory.mktemp(name) / "model") for name, save in SAVE.items()}


@pytest.fixture(scope="module")
def found(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one fresh process makes of all of them."""
    inputs = tmp_path_factory.mktemp("inputs")
    shutil.copy(PICTURE, inputs / "picture.png")
    shutil.copy(VIDEO, inputs / "clip.mp4")
    places = []
    for name, folder in folders.items():
        options = PublishOptions(f"org/{name}", licence="other", allow_unevaluated=True)
        publish(folder, options, keep=folder.parent / "published", dry_run=True)
        places.append([f"org/{name}", str(folder.parent / "published")])
    words = [sys.executable, "-I", str(USE), str(inputs), json.dumps(places)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def _outputs(name: str, folder: Path) -> tuple[Any, Any]:
    """(processor, output) of the package's own classes for the same file."""
    kind = {
        "depth": m33d_hf.M33DForDepthEstimation, "segmentation": m33d_hf.M33DForSemanticSegmentation,
        "clips": m33d_hf.M33DForVideoClassification, "pictures": m33d_hf.M33DModel, "videos": m33d_hf.M33DModel,
    }[name]  # fmt: skip
    model = kind.from_pretrained(folder).eval()
    if name in ("clips", "videos"):
        processor = m33d_hf.M33DVideoProcessor.from_pretrained(folder)
        inputs = processor(str(VIDEO), do_sample_frames=True, return_tensors="pt")
    else:
        processor = m33d_hf.M33DImageProcessor.from_pretrained(folder)
        inputs = processor(Image.open(PICTURE), return_tensors="pt")
    with torch.no_grad():
        return processor, model(**inputs)


def _near(here: Any, there: torch.Tensor) -> bool:
    return torch.allclose(torch.tensor(here), there, atol=1e-5)


def test_depth(found: dict[str, Any], folders: dict[str, Path]) -> None:
    used = found["org/depth"]
    processor, output = _outputs("depth", folders["depth"])
    metres = processor.post_process_depth_estimation(output, [(HEIGHT, WIDTH)])[0]["predicted_depth"]
    assert _near(used["card"]["metres"], metres) and _near(used["handler"]["answer"]["predicted_depth"], metres)
    assert used["card"]["printed"].startswith(f"({HEIGHT}, {WIDTH})")
    texts = {name: (folders[name].parent / "published/README.md").read_text(encoding="utf-8") for name in folders}
    assert "- The way out: a Space" in texts["depth"] and "econd way out" not in texts["depth"]
    assert "- First way out: a Space" in texts["clips"] and "- Second way out" in texts["clips"]


def test_segmentation(found: dict[str, Any], folders: dict[str, Path]) -> None:
    used = found["org/segmentation"]
    processor, output = _outputs("segmentation", folders["segmentation"])
    labels = processor.post_process_semantic_segmentation(output, [(HEIGHT, WIDTH)])[0].numpy()
    number = {name: each for each, name in NAMES.items()}
    answer = np.full(labels.shape, -1)
    for part in used["handler"]["answer"]:
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(part["mask"]))))
        answer[mask > 0] = number[part["label"]]
    assert np.array_equal(answer, labels)
    printed = {line.split(" ", 1)[0] for line in used["card"]["printed"].splitlines()}
    assert printed == {NAMES[each] for each in np.unique(labels)} and f"({WIDTH}, {HEIGHT})" in used["card"]["printed"]


def test_clips(found: dict[str, Any], folders: dict[str, Path]) -> None:
    used = found["org/clips"]
    _, output = _outputs("clips", folders["clips"])
    shares = output.logits[0].softmax(-1).tolist()
    answer = {each["label"]: each["score"] for each in used["handler"]["answer"]}
    assert answer == {NAMES[each]: pytest.approx(share, abs=1e-5) for each, share in enumerate(shares)}
    printed = dict(line.split() for line in used["card"]["printed"].splitlines())
    assert {name: float(share) for name, share in printed.items()} == pytest.approx(answer, abs=1e-6)


@pytest.mark.parametrize("name", ["pictures", "videos"])
def test_features(name: str, found: dict[str, Any], folders: dict[str, Path]) -> None:
    used = found[f"org/{name}"]
    _, output = _outputs(name, folders[name])
    tokens = output.last_hidden_state[0]
    assert tokens.std() > 0.1 and _near(used["handler"]["answer"], tokens)
    assert _near(used["card"]["tokens"] if name == "pictures" else used["card"]["tokens"][0], tokens)


def test_whole_videos_have_no_handler_and_the_card_says_so(found: dict[str, Any], folders: dict[str, Path]) -> None:
    used = found["org/phases"]
    assert used["handler"] is None and "handler.py" not in used["files"] and "requirements.txt" not in used["files"]
    assert used["card"]["class"] == "M33DForVideoActionDetection" and used["card"]["printed"] == f"{NAMES}\n"
    text = (folders["phases"].parent / "published" / "README.md").read_text(encoding="utf-8")
    assert "no handler for Inference Endpoints" in text and "run `handler.py`" not in text


@pytest.mark.parametrize("name", [name for name in SAVE if name != "phases"])
def test_handlers_refuse_what_they_cannot_read_and_name_no_folder(name: str, found: dict[str, Any]) -> None:
    used = found[f"org/{name}"]
    nothing, text, content = used["handler"]["refused"]
    assert 'a request needs "inputs"' in nothing and "neither an address nor base64" in text
    assert "that can be read" in content and "/" not in content
    assert "handler.py" in used["files"] and "requirements.txt" in used["files"]
