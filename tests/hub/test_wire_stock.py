"""--as-stock over the wire: published by the script, loaded by a process without package and foreign code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedModel, VideoMAEForVideoClassification, VideoMAEModel, ViTModel

import m33d_hf
from helpers.exports import CLASSIFIER, saved
from helpers.hub_server import Hub, client_environment, running
from helpers.tiny import CLIP
from m33d_hf.demo import examples

pytestmark = pytest.mark.extras  # long: many processes that import transformers
ROOT = Path(__file__).parents[2]
USE = ROOT / "tests" / "helpers" / "use_published.py"
# Repository -> (class of ours, its configuration, stock class)
REPOS: dict[str, tuple[type[PreTrainedModel], dict[str, Any], type[PreTrainedModel]]] = {
    "org/actions": (m33d_hf.M33DForVideoClassification, CLASSIFIER, VideoMAEForVideoClassification),
    "org/clips": (m33d_hf.M33DForPreTraining, CLIP, VideoMAEModel),
    "org/pictures": (m33d_hf.M33DForPreTraining, {}, ViTModel),
}


def _call(hub: Hub, folder: Path, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = client_environment(hub, str(folder / "home"), **({} if token is None else {"token": token}))
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the models, and what they are shown."""
    folder = tmp_path_factory.mktemp("stock")
    shutil.copy(examples.pictures()[0], folder / "picture.png")
    shutil.copy(examples.clips()[0], folder / "clip.mp4")
    for repo, (kind, config, _) in REPOS.items():
        made = saved(kind, folder / "models" / repo, **config).config
        processor = m33d_hf.M33DVideoProcessor if made.num_frames > 1 else m33d_hf.M33DImageProcessor
        processor.from_model_config(made).save_pretrained(folder / "models" / repo)
    return folder


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[Hub]:
    """A hub that all have been published on."""
    with running() as hub:
        for repo in REPOS:
            words = [str(folder / "models" / repo), repo, "--as-stock", "--license", "other", "--allow_unevaluated"]
            _call(hub, folder, str(ROOT / "scripts" / "publish.py"), *words)
        yield hub
    assert not hub.unknown


@pytest.fixture(scope="module")
def found(hub: Hub, folder: Path) -> dict[str, Any]:
    """What a fresh process makes of them."""
    done = _call(hub, folder, "-I", str(USE), str(folder), json.dumps([[repo, repo] for repo in REPOS]))
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def test_no_code_is_published_asked_for_or_loaded(hub: Hub, found: dict[str, Any]) -> None:
    for repo, (_, _, stock) in REPOS.items():
        card = hub.repos[repo].files()["README.md"].content.decode()
        assert "trust_remote_code" not in card and "custom_code" not in card
        assert not [name for name in found[repo]["files"] if name.endswith(".py")]
        assert found[repo]["card"]["class"] == stock.__name__
    assert found["foreign code"] is False


def _frames(folder: Path, numbers: list[int]) -> np.ndarray:
    """(T, H, W, 3) uint8."""
    with av.open(str(folder / "clip.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 16
    return np.stack([frames[number] for number in numbers])


def _ours(kind: Any, folder: Path, repo: str, numbers: list[int] | None) -> Any:
    """Output of the package's own class, for frames of the clip or for the picture."""
    model = kind.from_pretrained(folder / "models" / repo).eval()
    if numbers is None:
        inputs = m33d_hf.M33DImageProcessor.from_pretrained(folder / "models" / repo)(
            Image.open(folder / "picture.png"), return_tensors="pt"
        )
    else:
        processor = m33d_hf.M33DVideoProcessor.from_pretrained(folder / "models" / repo)
        inputs = processor(_frames(folder, numbers), do_sample_frames=False, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs)


def test_the_pipeline_classifies_as_our_model(folder: Path, found: dict[str, Any]) -> None:
    """The stock processor takes every fourth frame of the sixteen: ours is given these."""
    lines = found["org/actions"]["card"]["printed"].splitlines()
    shares = {name: float(share) for name, share in map(str.split, lines)}
    ours = _ours(m33d_hf.M33DForVideoClassification, folder, "org/actions", [0, 4, 8, 12]).logits[0].softmax(-1)
    wanted = {f"LABEL_{number}": float(share) for number, share in enumerate(ours)}
    assert shares == pytest.approx(wanted, abs=0.02) and max(wanted.values()) > 0.3


@pytest.mark.parametrize(("repo", "numbers"), [("org/clips", [0, 5, 10, 15]), ("org/pictures", None)])
def test_features_are_those_of_our_encoder(
    repo: str, numbers: list[int] | None, folder: Path, found: dict[str, Any]
) -> None:
    tokens = torch.tensor(found[repo]["card"]["tokens"])
    ours = _ours(m33d_hf.M33DModel, folder, repo, numbers).last_hidden_state
    tokens = tokens.reshape(ours.shape)
    assert (tokens - ours).norm() < 0.08 * ours.norm() and ours.std() > 0.1  # stock processors round and crop otherwise
