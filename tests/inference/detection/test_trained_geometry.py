"""Frames are cut as in training, by whatever travels with the model: its run's file, or its processor's."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.hub_server import Blob, Repo, client_environment, running
from helpers.prediction import save_phases
from m33d_hf.data.augmentation.transforms import EvaluationTransform
from m33d_hf.errors import CheckpointError
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.publishing import publish
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.tasks.building import save_processor

_CODE = """
import sys
from m33d_hf.inference.timeline import ActionDetector
for name in sys.argv[1:]:
    options = ActionDetector.from_pretrained(name).transform.options
    print(options.eval_crop, options.resize_mode)
"""


def _arguments(crop: str, mode: str) -> RunArguments:
    words = ["--recipe", "rooms/phases_temporal", "--output_dir", "unused"]
    words += ["--transforms.eval_crop", crop, "--transforms.resize_mode", mode]
    return parse_arguments(words, "action_detection")


def _run(folder: Path, crop: str = "resize", mode: str = "bicubic") -> Path:
    """What a run leaves: model, processor and arguments."""
    save_phases(folder)
    args = _arguments(crop, mode)
    save_processor(M33DConfig.from_pretrained(folder), args, folder, clip_sampling="stride")
    said = {"args": args.to_dict(), "data": {}, "device": "cpu", "versions": {}, "commit": None}
    (folder / "train_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def _geometry(folder: Path) -> tuple[str, str]:
    transform = ActionDetector.from_pretrained(folder).transform
    assert isinstance(transform, EvaluationTransform)
    options = transform.options
    return options.eval_crop, options.resize_mode


@pytest.mark.parametrize("crop", ["center", "resize", "pad"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_processor_says_it_where_the_run_is_gone(
    crop: str, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _run(tmp_path / "model", crop, mode)
    (folder / "train_config.json").unlink()
    with caplog.at_level(logging.WARNING, "m33d_hf"):
        assert _geometry(folder) == (crop, mode) and not caplog.records


def test_a_processor_without_a_stated_crop_takes_the_centre(tmp_path: Path) -> None:
    folder = save_phases(tmp_path / "model")
    M33DVideoProcessor.from_model_config(M33DConfig.from_pretrained(folder)).save_pretrained(folder)
    assert _geometry(folder) == ("center", "bilinear")


def test_where_nothing_says_it_a_warning_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_phases(tmp_path / "model")
    with caplog.at_level(logging.WARNING, "m33d_hf"):
        assert _geometry(folder) == ("center", "bilinear")
    assert "does not say how the frames of its training were cut" in caplog.text and "eval_crop resize" in caplog.text
    _run(folder)
    (folder / "train_config.json").unlink()
    said = json.loads((folder / "video_preprocessor_config.json").read_text(encoding="utf-8"))
    said |= {"do_center_crop": True, "size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 24}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "m33d_hf"):
        assert _geometry(folder) == ("center", "bilinear") and caplog.records
    (folder / "video_preprocessor_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ActionDetector.from_pretrained(folder)


def test_a_model_of_the_hub_sees_frames_as_in_training(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    options = PublishOptions("org/phases", allow_unevaluated=True, licence="apache-2.0")
    publish(_run(tmp_path / "run"), options, keep=folder, dry_run=True)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    with running() as hub:
        for repo, lost in (("org/phases", ""), ("org/without", "train_config.json")):
            hub.repos[repo] = Repo()
            files = {name: Blob((folder / name).read_bytes(), False) for name in names if name != lost}
            hub.repos[repo].commit(files, "model")
        environment = client_environment(hub, str(tmp_path / "home"), token=None)
        words = [sys.executable, "-c", _CODE, *hub.repos]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == ["resize bicubic"] * 2, done.stderr
    assert "does not say how" not in done.stderr
