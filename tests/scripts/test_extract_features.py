"""scripts/extract_features.py with a recipe that leaves sizes open: they are decided as for the run that follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.scripts import extract_features
from m33d_hf.scripts._main import main

ENCODER = {"image_size": 16, "patch_size": 8, "num_frames": 8, "tubelet_size": 2, "hidden_size": 16,
           "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}  # fmt: skip


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """own/phases on three videos of two clips each, after a first stage that is narrower than any default."""
    (tmp_path / "data" / "phase_annotations").mkdir(parents=True)
    for name in ("a", "b", "c"):
        folder = tmp_path / "data" / "videos" / name
        folder.mkdir(parents=True)
        for frame in range(64):
            Image.new("RGB", (16, 16), (200 if frame < 32 else 20, frame, 9)).save(folder / f"{frame:03}.png")
        lines = "".join(f"{frame}\t{'cut' if frame < 32 else 'sew'}\n" for frame in range(64))
        (tmp_path / "data" / "phase_annotations" / f"{name}-phase.txt").write_text(f"Frame\tPhase\n{lines}")
    (tmp_path / "data" / "train.txt").write_text("a\nb\n")
    (tmp_path / "data" / "validation.txt").write_text("c\n")
    labels = {0: "cut", 1: "sew"}
    M33DForVideoClassification(M33DConfig(**ENCODER, id2label=labels)).save_pretrained(tmp_path / "stage")
    given = ["--recipe", "own/phases", "--data.root", str(tmp_path / "data"), "--init_from", str(tmp_path / "stage")]
    given += ["--output_dir", str(tmp_path / "phases"), "--cpu", "--data.num_workers", "0", "--logging.trackers", "[]"]
    return given


def test_an_own_recipe_is_settled_as_for_its_run_which_extracts_nothing_again(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract_features.main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    folders = [Path(line.removeprefix("features are in ")) for line in said.splitlines() if line.startswith("features")]
    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    assert {path.name[0] for path in before} >= {"a", "b", "c"}, before
    assert main("action_detection", [*words, "--train.epochs", "1", "--logging.pictures", "false"]) == 0
    assert {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()} == before
