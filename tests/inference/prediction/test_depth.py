"""inference/prediction/depth.py: the pipeline's depth, in every kind of file, whatever the pictures are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from helpers.depth_models import save_depth_anything, save_ours, save_zoe
from helpers.prediction import ALONE, options, picture, save_pictures, save_segmentation
from helpers.tiny import tiny_config
from helpers.videos import write_video
from m33d_hf.data.depth.maps import find_depth_maps
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.inference.depth_extraction import DepthExtractionOptions, extract_depth
from m33d_hf.inference.prediction.running import PredictionSummary, predict
from m33d_hf.modeling.video_reading_m33d import read_video


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ours(tmp_path_factory.mktemp("ours"))


def run(*given: Any, **changes: Any) -> tuple[PredictionSummary, str]:
    said: list[str] = []
    summary = predict(options(*given, **changes), ALONE, say=said.append)
    return summary, "\n".join([*said, summary.describe()])


@pytest.mark.parametrize("save", [save_ours, save_zoe, save_depth_anything])
def test_depth_equals_that_of_the_pipeline(save: Any, tmp_path: Path) -> None:
    model = save(tmp_path / "model")
    paths = [*save_pictures(tmp_path / "in", 3), *save_pictures(tmp_path / "in/tall", 2, height=66, width=42)]
    changes = {} if save is not save_depth_anything else {"save": ["depth", "arrays", "pictures"]}
    run(model, tmp_path / "in", tmp_path / "out", **changes)
    estimate = pipeline("depth-estimation", model=str(model), device="cpu")
    for path in paths:
        expected = estimate(str(path))["predicted_depth"].numpy()
        name = path.relative_to(tmp_path / "in").with_suffix(".npy")
        found = np.load(tmp_path / "out/arrays" / name)
        assert found.dtype == np.float32 and found.shape == Image.open(path).size[::-1]
        assert np.abs(found - expected.squeeze()).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_files_of_a_picture(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 2)
    summary, text = run(ours, tmp_path / "in", tmp_path / "out", save=["all"])
    metres = np.load(tmp_path / "out/arrays/p0.npy")
    stored = np.array(Image.open(tmp_path / "out/depth/p0.png"))
    assert stored.dtype == np.uint16 and np.abs(stored / 1000 - metres).max() <= 0.0005 + 1e-6
    maps = find_depth_maps(tmp_path / "out/depth", "p0")
    assert maps is not None and np.abs(maps.read([0])[0, 0].numpy() - metres).max() <= 0.0005 + 1e-6
    assert maps.upright, "as all pictures are read"
    colored = Image.open(tmp_path / "out/pictures/p0.png")
    assert colored.height == 240 and colored.width > 300, "five times 48 x 60, and the bar"
    ply = (tmp_path / "out/points/p0.ply").read_bytes()
    assert ply.startswith(b"ply\nformat binary_little_endian 1.0\n") and b"element vertex 2880\n" in ply
    assert summary.predicted == 2 and summary.exit_code == 0
    assert "ASSUMED field of view of 60 degrees" in text and "PNG of 16 bits, in millimetres" in text
    assert "videos/" not in text, "there are none"


def test_extraction_and_prediction_write_the_same(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 3)
    run(ours, tmp_path / "in", tmp_path / "out")
    extract_depth(DepthExtractionOptions(str(ours), tmp_path / "in", tmp_path / "side", device="cpu"), ALONE, say=str)
    for number in range(3):
        one, other = (tmp_path / f"{folder}/p{number}.png" for folder in ("out/depth", "side"))
        assert one.read_bytes() == other.read_bytes()


def test_the_same_command_continues_and_another_is_refused(ours: Path, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "in", 4)
    run(ours, tmp_path / "in", tmp_path / "out", limit=2)
    kept = (tmp_path / "out/arrays/p0.npy").stat().st_mtime_ns
    (tmp_path / "out/pictures/p1.png").unlink()
    summary, text = run(ours, tmp_path / "in", tmp_path / "out")
    assert (summary.already_there, summary.predicted) == (1, 3) and "1 were there already" in text
    assert (tmp_path / "out/arrays/p0.npy").stat().st_mtime_ns == kept
    assert {path.stem for path in (tmp_path / "out/pictures").iterdir()} == {path.stem for path in paths}
    more, _ = run(ours, tmp_path / "in", tmp_path / "out", save=["points"])
    assert more.predicted == 4, "another kind of file may be added"
    with pytest.raises(ConfigError, match=r"field_of_view: 60\.0 there, 50\.0 now"):
        run(ours, tmp_path / "in", tmp_path / "out", save=["points"], field_of_view=50.0)
    for changes in ({"flip": True}, {"tiles": True}, {"precision": "bf16"}):
        with pytest.raises(ConfigError, match="made in another way"):
            run(ours, tmp_path / "in", tmp_path / "out", **changes)
    with pytest.raises(ConfigError, match="model_digest"):
        run(save_ours(tmp_path / "other", seed=1), tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match="task: depth there, segmentation now"):
        run(save_segmentation(tmp_path / "seg"), tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match="input"):
        run(ours, paths[0].parent.parent, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds p0\.png, but no prediction\.json"):
        run(ours, tmp_path / "out/depth", tmp_path / "in")
    with pytest.raises(ConfigError, match="is the input itself"):
        run(ours, tmp_path / "in", tmp_path / "in")


def test_another_picture_of_the_same_name_is_refused(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 2)
    Image.fromarray(picture(7)).save(tmp_path / "in/p1.jpg")
    run(ours, tmp_path / "in/*.png", tmp_path / "out", save=["depth"])
    with pytest.raises(ConfigError, match=r"p1 is .*in/p1\.png there, .*in/p1\.jpg now"):
        run(ours, tmp_path / "in/*.jpg", tmp_path / "out", save=["depth"])
    again, _ = run(ours, tmp_path / "in/p0.png", tmp_path / "out", save=["depth"])
    assert again.already_there == 1


def test_pictures_that_were_moved_go_on_and_others_are_refused(ours: Path, tmp_path: Path) -> None:
    """Each job has its own copy of the inputs: the former one is gone."""
    save_pictures(tmp_path / "job1", 3)
    run(ours, tmp_path / "job1", tmp_path / "out", save=["depth"], limit=2)
    shutil.copytree(tmp_path / "job1", tmp_path / "job2")
    with pytest.raises(ConfigError, match="made in another way"):
        run(ours, tmp_path / "job2", tmp_path / "out", save=["depth"])
    shutil.rmtree(tmp_path / "job1")
    moved, _ = run(ours, tmp_path / "job2", tmp_path / "out", save=["depth"])
    assert (moved.already_there, moved.predicted) == (2, 1)
    shutil.rmtree(tmp_path / "job2")
    save_pictures(tmp_path / "job3", 3)
    Image.fromarray(picture(9, height=66)).save(tmp_path / "job3/p1.png")
    with pytest.raises(ConfigError, match=r"\(1 name\): p1 is .*job2/p1\.png there, .*job3/p1\.png now"):
        run(ours, tmp_path / "job3", tmp_path / "out", save=["depth"])


def test_odd_and_broken_pictures(ours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    whole = Image.fromarray(picture())
    whole.save(folder / "rgb.png")
    whole.convert("RGBA").save(folder / "rgba.png")
    whole.convert("L").save(folder / "grey.png")
    whole.convert("CMYK").save(folder / "cmyk.jpg")
    exif = whole.getexif()
    exif[274] = 6
    whole.save(folder / "turned.png", exif=exif)
    data = (folder / "rgb.png").read_bytes()
    Image.fromarray(np.full((20, 20), 2000, np.uint16)).save(folder / "deep.png")
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "words.png").write_text("words", encoding="utf-8")
    (folder / "notes.txt").write_text("words", encoding="utf-8")
    summary, text = run(ours, folder, tmp_path / "out")
    assert summary.exit_code == 1 and summary.predicted == 5
    listed = {Path(file.path).name: file.reason for file in read_skipped(tmp_path / "out/skipped_files.csv")}
    assert listed.keys() == {"deep.png", "cut.png", "empty.png", "words.png"}
    assert "is it a depth map" in listed["deep.png"] and "0 bytes" in listed["empty.png"]
    assert "left aside: 1 .txt" in text and "turned (EXIF): 1; what is written of them is upright" in text
    maps = {name: np.load(tmp_path / f"out/arrays/{name}.npy") for name in ("rgb", "rgba", "turned")}
    assert np.array_equal(maps["rgb"], maps["rgba"]) and maps["turned"].shape == (60, 48)
    upright = Image.fromarray(np.rot90(picture(), -1).copy())
    upright.save(tmp_path / "upright.png")
    run(ours, tmp_path / "upright.png", tmp_path / "out2")
    assert np.array_equal(maps["turned"], np.load(tmp_path / "out2/arrays/upright.npy"))
    for name in ("rgb", "rgba", "grey", "turned"):
        (folder / f"{name}.png").unlink()
    (folder / "cmyk.jpg").unlink()
    nothing, _ = run(ours, folder, tmp_path / "out3")
    assert nothing.exit_code == 2


def test_flipping_averages_and_tiles_blend(ours: Path, tmp_path: Path) -> None:
    pixels = picture(height=40, width=80)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    estimate = pipeline("depth-estimation", model=str(ours), device="cpu")

    def depth(part: np.ndarray) -> np.ndarray:
        return np.asarray(estimate(Image.fromarray(np.ascontiguousarray(part)))["predicted_depth"], np.float64)

    run(ours, tmp_path / "p.png", tmp_path / "flip", flip=True)
    expected = (depth(pixels) + depth(pixels[:, ::-1])[:, ::-1]) / 2
    assert np.abs(np.load(tmp_path / "flip/arrays/p.npy") - expected).max() < 1e-5
    run(ours, tmp_path / "p.png", tmp_path / "tiles", tiles=True, tile_overlap=0.25)
    found = np.load(tmp_path / "tiles/arrays/p.npy")
    assert found.shape == (40, 80) and np.abs(found - depth(pixels)).max() > 1e-3
    # The model's input is 32 x 32: corners are seen by one tile alone, and by its own pixels.
    assert np.abs(found[:8, :8] - depth(pixels[:32, :32])[:8, :8]).max() < 1e-5
    assert np.abs(found[-8:, -8:] - depth(pixels[-32:, -32:])[-8:, -8:]).max() < 1e-5


def test_a_video_becomes_depth_and_a_video_beside_it(ours: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in/walk.mp4", 7)
    save_pictures(tmp_path / "in", 1)
    summary, text = run(ours, tmp_path / "in", tmp_path / "out", batch_size=3)
    assert summary.frames == 7 and "7 frames of videos" in text
    estimate = pipeline("depth-estimation", model=str(ours), device="cpu")
    maps = find_depth_maps(tmp_path / "out/depth", "walk")
    assert maps is not None and maps.length == 7
    frames = read_video(video, range(7))
    for number in (0, 4, 6):
        expected = estimate(Image.fromarray(frames[number]))["predicted_depth"].numpy()
        assert np.abs(maps.read([number])[0, 0].numpy() - expected).max() < 0.0005 + 1e-5
    shown = read_video(tmp_path / "out/videos/walk.mp4", range(7))
    assert len(shown) == 7 and shown.shape[1] == 256 and shown.shape[2] > 2 * 384
    left = shown[3, :256, :384].reshape(64, 4, 96, 4, 3).mean((1, 3))
    assert np.abs(left - frames[3]).mean() < 6, "the left half is the video itself"
    again, _ = run(ours, tmp_path / "in", tmp_path / "out")
    assert again.already_there == 2 and again.predicted == 0


def test_an_interrupted_video_continues(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m33d_hf.inference.prediction import depth as module

    write_video(tmp_path / "walk.mp4", 8)
    given = (ours, tmp_path / "walk.mp4")
    run(*given, tmp_path / "whole", save=["depth", "arrays", "videos"])
    predicted: list[int] = []
    whole = module.DepthTask.compute

    def broken_off(task: Any, prepared: Any) -> Any:
        predicted.append(len(prepared))
        if sum(predicted) > 6:
            raise KeyboardInterrupt
        return whole(task, prepared)

    monkeypatch.setattr(module.DepthTask, "compute", broken_off)
    with pytest.raises(KeyboardInterrupt):
        run(*given, tmp_path / "out", save=["depth", "arrays", "videos"])
    monkeypatch.undo()
    summary, text = run(*given, tmp_path / "out", save=["depth", "arrays", "videos"])
    assert "walk: continuing at frame" in text and summary.frames < 8
    for path in sorted((tmp_path / "whole").rglob("*")):
        other = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        if path.is_file() and path.suffix in (".png", ".npy"):
            assert path.read_bytes() == other.read_bytes(), path
    assert not list((tmp_path / "out").rglob(".*"))


def test_arrays_may_be_added_to_the_depth_of_a_video(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added to a whole call without them, or to one that was interrupted: every frame gets its array."""
    from m33d_hf.inference.prediction import depth as module

    video = write_video(tmp_path / "walk.mp4", 8)
    both = ["depth", "arrays"]
    run(ours, video, tmp_path / "whole", save=both)
    run(ours, video, tmp_path / "added", save=["depth"])
    compute, calls = module.DepthTask.compute, 0

    def broken_off(task: Any, prepared: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return compute(task, prepared)

    monkeypatch.setattr(module.DepthTask, "compute", broken_off)
    with pytest.raises(KeyboardInterrupt):
        run(ours, video, tmp_path / "continued", save=["depth"])
    monkeypatch.undo()
    for name in ("added", "continued"):
        depth = {path.name: path.stat().st_mtime_ns for path in (tmp_path / name / "depth/walk").glob("*.png")}
        summary, _ = run(ours, video, tmp_path / name, save=both)
        assert summary.predicted == 1 and summary.frames == 8
        again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / name / "depth/walk").glob("*.png")}
        assert depth.items() <= again.items(), "depth that is there is kept"
        for path in (path for path in (tmp_path / "whole").rglob("*.*") if path.suffix in (".npy", ".png")):
            assert path.read_bytes() == (tmp_path / name / path.relative_to(tmp_path / "whole")).read_bytes()
        assert run(ours, video, tmp_path / name, save=both)[0].already_there == 1
    (tmp_path / "added/arrays/walk/000002.npy").unlink()  # as a continued call of an earlier version left it
    assert run(ours, video, tmp_path / "added", save=both)[0].frames == 6


def test_a_broken_video_does_not_stop_the_others(ours: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "in/good.mp4", 3)
    (tmp_path / "in/bad.mp4").write_bytes(b"no video")
    summary, _ = run(ours, tmp_path / "in", tmp_path / "out")
    assert summary.predicted == 1 and [Path(file.path).name for file in summary.skipped] == ["bad.mp4"]
    assert not (tmp_path / "out/depth/bad").exists()


def test_ranks_share_the_inputs(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 5)
    chosen = options(ours, tmp_path / "in", tmp_path / "out")
    counts = [predict(chosen, ALONE._replace(rank=rank, world_size=2), say=str).predicted for rank in (0, 1)]
    assert counts == [3, 2] and len(list((tmp_path / "out/depth").glob("*.png"))) == 5


def test_models_that_cannot_be_used(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 1)
    given = (tmp_path / "in", tmp_path / "out")
    bare = shutil.copytree(ours, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"Add the model's preprocessor_config\.json"):
        run(bare, *given)
    with pytest.raises(CheckpointError, match=r"no readable config\.json"):
        run(tmp_path / "in", *given)
    with pytest.raises(CheckpointError, match="predictions are made by models for"):
        from helpers.tiny import tiny_config
        from m33d_hf import M33DModel

        M33DModel(tiny_config()).save_pretrained(tmp_path / "encoder")
        run(tmp_path / "encoder", *given)
    # A checkpoint of a run may lack the processor, which then is the run's.
    inside = tmp_path / "run/checkpoints/step_1"
    shutil.copytree(bare, inside)
    shutil.copy(ours / "preprocessor_config.json", tmp_path / "run")
    run(inside, *given)
    assert np.isfinite(np.load(tmp_path / "out/arrays/p0.npy")).all()


def test_options_are_checked(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 1)
    for changes, message in (
        ({"batch_size": 0}, "batch_size 0"),
        ({"save": ["depht"]}, "Did you mean 'depth'"),
        ({"save": ["videos"]}, "makes nothing of pictures"),
        ({"precision": "half"}, "precision 'half'"),
        ({"field_of_view": 200.0}, "between 1 and 170"),
        ({"intrinsics": [0, 1, 2, 3], "save": ["points"]}, "must be above 0"),
        ({"intrinsics": [9, 9, 9, 9], "calibration": Path("x.json")}, "exclude each other"),
        ({"device": "nonsense"}, "device 'nonsense'"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(ours, tmp_path / "in", tmp_path / "out", **changes)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        run(ours, tmp_path / "in", tmp_path / "file")


def test_half_precision_is_near(ours: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 1)
    run(ours, tmp_path / "in", tmp_path / "full")
    run(ours, tmp_path / "in", tmp_path / "half", precision="bf16")
    full, half = (torch.from_numpy(np.load(tmp_path / f"{name}/arrays/p0.npy")) for name in ("full", "half"))
    assert 0 < (full - half).abs().mean() < 0.2


def test_mirrors_and_tiles_keep_the_mean_depth_in_its_place(tmp_path: Path) -> None:
    """A model whose whole prediction is a map of positions: however it is looked at, that map comes out."""
    from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
    from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation

    config = tiny_config(depth_head_width=16, depth_prior_weight=1.0, image_size=[32, 32])
    model = M33DForDepthEstimation(config)
    assert model.depth_prior is not None
    slope = torch.linspace(1, 3, 32)[:, None] + torch.linspace(0, 2, 32)[None]
    model.depth_prior.fill(slope)
    model.save_pretrained(tmp_path / "model")
    M33DImageProcessor.from_model_config(config, size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    save_pictures(tmp_path / "in", 1, height=64, width=96)
    for name, changes in {"plain": {}, "flip": {"flip": True}, "tiles": {"tiles": True, "flip": True}}.items():
        run(tmp_path / "model", tmp_path / "in", tmp_path / name, **changes)
        found = np.load(tmp_path / name / "arrays/p0.npy")
        expected = torch.nn.functional.interpolate(slope[None, None], (64, 96), mode="bilinear")[0, 0].numpy()
        assert np.abs(found - expected).max() < (0.05 if name == "tiles" else 1e-4), name
        assert (np.diff(found, axis=1)[:, 4:-4] > 0).all() and (np.diff(found, axis=0)[4:-4] > 0).all(), name
