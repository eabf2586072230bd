"""What a saved clip classifier says through transformers' pipeline is what the run's own evaluation said."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.videos import write_video
from m33d_hf.data.augmentation.views import frame_indices
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import read_video
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

pytest.importorskip("av")
LENGTHS = (9, 16, 17, 33, 50, 71)
# As the README has it, in an interpreter that has seen nothing of ours.
SNIPPET = """
import json, sys
import m33d_hf
from transformers import pipeline

classify = pipeline("video-classification", model=sys.argv[1])
"""
SERVE = """
served = [[classify(path) for path in sys.argv[3:]]]
classify = pipeline("video-classification", model=sys.argv[2])
print(json.dumps([*served, [classify(path) for path in sys.argv[3:]]]))
"""
SAMPLINGS = ("stride", "span")


def _ucf101(root: Path) -> list[Path]:
    """Noise whose frames all differ, so that other frames give other scores."""
    generator = np.random.default_rng(0)
    lines, files = [], []
    for group, length in enumerate(LENGTHS, 1):
        for label, name in enumerate(("Cut", "Sew"), 1):
            frames = generator.integers(0, 256, (length, 32, 48, 3), dtype=np.uint8)
            path = root / name / f"v_{name}_g{group:02d}_c01.avi"
            files.append(write_video(path, length, size=(32, 48), frames=frames))
            lines.append(f"{name}/{path.name} {label}")
    (root / "classInd.txt").write_text("1 Cut\n2 Sew\n")
    (root / "trainlist01.txt").write_text("\n".join(lines[:2]) + "\n")
    (root / "testlist01.txt").write_text("\n".join(lines[2:]) + "\n")
    return files[2:]


def _arguments(root: Path, out: Path, sampling: str) -> RunArguments:
    args = RunArguments(task="video_classification", output_dir=str(out), cpu=True)
    args.model = {
        "image_size": 16, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.5,
    }  # fmt: skip
    args.data.source, args.data.root, args.data.num_workers = "ucf101", str(root), 0
    args.data.train_split, args.data.eval_split = "train", "test"
    args.data.clip_sampling, args.data.frame_stride = sampling, 4  # type: ignore[assignment]
    args.train.max_steps, args.train.batch_size = 1, 2
    args.logging.trackers, args.logging.progress, args.logging.pictures = [], False, False
    return args


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A folder with a run per sampling, and what one interpreter that knew nothing says: by sampling and video."""
    folder = tmp_path_factory.mktemp("served")
    files = _ucf101(folder / "data")
    for sampling in SAMPLINGS:
        train(_arguments(folder / "data", folder / sampling, sampling), VideoClassificationTask())
    models = [str(folder / sampling) for sampling in SAMPLINGS]
    command = [sys.executable, "-c", SNIPPET + SERVE, *models, *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    answers = json.loads(run.stdout.splitlines()[-1])
    names = [path.stem for path in files]
    return folder, {sampling: dict(zip(names, found)) for sampling, found in zip(SAMPLINGS, answers)}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_pipeline_says_what_the_evaluation_said(
    served: tuple[Path, dict[str, dict[str, Any]]], sampling: str
) -> None:
    folder, answers = served
    out = folder / sampling
    saved = json.loads((out / "video_preprocessor_config.json").read_text())
    assert (saved["clip_sampling"], saved["frame_stride"], saved["num_frames"]) == (sampling, 4, 4)
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(answers[sampling]) == 2 * len(LENGTHS) - 2
    for row in rows:
        best = answers[sampling][Path(row["key"]).name][0]
        assert row["predicted"] == best["label"]
        assert float(row["predicted_probability"]) == pytest.approx(best["score"], abs=2e-4)


@pytest.mark.parametrize("sampling", ["stride", "span"])
@pytest.mark.parametrize("length", [3, 9, 16, 17, 70])
def test_a_processor_takes_the_frames_of_the_evaluation(tmp_path: Path, length: int, sampling: str) -> None:
    path = write_video(tmp_path / "a.mp4", length)
    processor = M33DVideoProcessor(size=32, num_frames=4, frame_stride=4, clip_sampling=sampling)
    again = M33DVideoProcessor.from_dict(processor.to_dict())
    chosen = frame_indices(length, 4, 4, None, sampling)
    found = again(path, return_tensors="pt", return_metadata=True)
    assert found["video_metadata"][0].frames_indices == chosen
    expected = again(read_video(path, chosen), return_tensors="pt")["pixel_values"]
    assert torch.equal(found["pixel_values"], expected)
