"""Pictures of a pre-training, from its own folder and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from helpers.rooms_runs import words
from helpers.scripts import run_script
from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.inference.dense_pictures import save_dense_pictures
from m33d_hf.inference.reconstruction_pictures import run_arguments, save_pictures
from m33d_hf.scripts._main import main
from m33d_hf.training.run.reporting import CONFIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    assert main("pretraining", words("rooms/pretrain_clips", folder, method="m33d")) == 0
    return folder


def test_a_clip_model_gets_two_pictures_per_clip(clips: Path, tmp_path: Path) -> None:
    given, log = ("--model", clips, "--output", tmp_path, "--samples", "2"), tmp_path.with_suffix(".log")
    code, output = run_script(ROOT / "scripts/visualize.py", *given, log=log)
    assert code == 0, output
    names = {f"clip_{number}_{what}.png" for number in (0, 1) for what in ("reconstruction", "visible")}
    assert {path.name for path in tmp_path.iterdir()} == names
    # The bar of the loading weights may not have ended its line yet.
    assert all(f"{tmp_path / name}\n" in output for name in names) and output.count(".png") == len(names)
    # Six rows of eight frames against three rows of four tubelets.
    strip, mask = (Image.open(tmp_path / f"clip_0_{what}.png") for what in ("reconstruction", "visible"))
    assert strip.height > 1.5 * mask.height and strip.width > 1.5 * mask.width


def test_an_image_model_gets_one_picture(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main("pretraining", words("rooms/pretrain", folder, method="mask3d")) == 0
    paths = save_pictures(folder, tmp_path / "pictures", run_arguments(folder), 3)
    assert [path.name for path in paths] == ["reconstructions.png"] and paths[0].stat().st_size > 10_000


def test_what_cannot_be_pictured_is_named(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        run_arguments(tmp_path)
    recorded = (clips / CONFIG).read_text(encoding="utf-8")
    (tmp_path / CONFIG).write_text(recorded, encoding="utf-8")
    with pytest.raises(CheckpointError, match="has not finished"):
        save_pictures(tmp_path, tmp_path, run_arguments(tmp_path), 1)
    other = recorded.replace('"task": "pretraining"', '"task": "video_classification"')
    (tmp_path / CONFIG).write_text(other, encoding="utf-8")
    with pytest.raises(CheckpointError, match="changed by hand"):
        run_arguments(tmp_path)
    stated = json.loads(other)
    del stated["seal"]
    write_sealed_json(tmp_path / CONFIG, stated)
    with pytest.raises(ConfigError, match="only pre-training runs"):
        run_arguments(tmp_path)


@pytest.mark.parametrize(
    ("task", "recipe", "names"),
    [
        ("semantic_segmentation", "rooms/semseg", {"predictions.png", "iou_by_class.png"}),
        ("depth_estimation", "rooms/depth", {"predictions.png", "depth_errors.png"}),
    ],
)
def test_dense_runs_stand_side_by_side(tmp_path: Path, task: str, recipe: str, names: set[str]) -> None:
    changes = {"data__cache_dir": str(tmp_path / "cache"), "data__max_train_samples": "null"}
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        assert main(task, words(recipe, folder, seed=str(seed), **changes)) == 0
    paths = save_dense_pictures(folders, tmp_path / "pictures", 2)
    assert {path.name for path in paths} == names
    two, alone = paths[0], save_dense_pictures(folders[:1], tmp_path / "alone", 2)[0]
    assert Image.open(two).width > 1.2 * Image.open(alone).width  # a column more
    with pytest.raises(ConfigError, match="two of the folders are the same"):
        save_dense_pictures([folders[0], folders[0]], tmp_path / "pictures", 2)


def test_runs_that_cannot_be_compared_are_refused(clips: Path, tmp_path: Path) -> None:
    changes = {"data__cache_dir": str(tmp_path / "cache"), "data__max_train_samples": "null"}
    assert main("depth_estimation", words("rooms/depth", tmp_path / "a", **changes)) == 0
    assert main("depth_estimation", words("rooms/depth", tmp_path / "b", model__image_size="32", **changes)) == 0
    with pytest.raises(ConfigError, match=r"cannot stand beside.*image_size is \(32, 32\) here and \(48, 48\) there"):
        save_dense_pictures([tmp_path / "a", tmp_path / "b"], tmp_path / "pictures", 2)
    with pytest.raises(ConfigError, match="holds a pretraining run"):
        save_dense_pictures([tmp_path / "a", clips], tmp_path / "pictures", 2)
