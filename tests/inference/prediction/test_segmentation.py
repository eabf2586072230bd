"""inference/prediction/segmentation.py: the pipeline's labels, exactly; areas that count them; ensembles."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from helpers.depth_models import shake
from helpers.prediction import ALONE, NAMES, options, picture, save_pictures, save_segmentation
from helpers.tiny import tiny_config
from helpers.videos import write_video
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError
from m33d_hf.inference.prediction.running import PredictionSummary, predict
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.modeling.video_reading_m33d import read_video


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_segmentation(tmp_path_factory.mktemp("segmentation"))


def run(*given: Any, **changes: Any) -> PredictionSummary:
    return predict(options(*given, **changes), ALONE, say=str)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def pipeline_labels(model: Path, image: Image.Image) -> np.ndarray:
    found = np.full(image.size[::-1], 255, np.uint8)
    numbers = {name: number for number, name in NAMES.items()} | {"no prediction": 255}
    for entry in pipeline("image-segmentation", model=str(model), device="cpu")(image, subtask="semantic"):
        found[np.array(entry["mask"]) > 0] = numbers[entry["label"]]
    return found


@pytest.mark.parametrize("cropped", [False, True])
def test_labels_equal_those_of_the_pipeline(cropped: bool, tmp_path: Path) -> None:
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}} if cropped else {}
    model = save_segmentation(tmp_path / "model", **crop)
    paths = [*save_pictures(tmp_path / "in", 3), *save_pictures(tmp_path / "in/tall", 1, height=66, width=42)]
    run(model, tmp_path / "in", tmp_path / "out")
    seen = set()
    for path in paths:
        expected = pipeline_labels(model, Image.open(path))
        stored = Image.open(tmp_path / "out/labels" / path.relative_to(tmp_path / "in"))
        assert stored.mode == "P" and np.array_equal(np.array(stored), expected)
        seen |= set(np.unique(expected))
    assert len(seen) > 1 and (255 in seen) == cropped


def test_areas_palette_and_names(model: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 2)
    (tmp_path / "in/sub").mkdir()
    Image.fromarray(picture(7)).save(tmp_path / "in/sub/p0.png")
    run(model, tmp_path / "in", tmp_path / "out")
    areas = rows_of(tmp_path / "out/areas.csv")
    assert [row["input"] for row in areas] == sorted((row["input"] for row in areas), key=["p0", "p1", "sub/p0"].index)
    for name in ("p0", "p1", "sub/p0"):
        labels = np.array(Image.open(tmp_path / f"out/labels/{name}.png"))
        rows = [row for row in areas if row["input"] == name]
        assert {int(row["class_id"]): int(row["pixels"]) for row in rows} == {
            int(number): int((labels == number).sum()) for number in np.unique(labels)
        }
        assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=3e-6)
        assert all(row["class"] == NAMES[int(row["class_id"])] for row in rows)
    classes = rows_of(tmp_path / "out/classes.csv")
    colors = np.array(Image.open(tmp_path / "out/labels/p0.png").convert("RGB"))
    for row in classes:
        shown = colors[np.array(Image.open(tmp_path / "out/labels/p0.png")) == int(row["class_id"])]
        assert (shown == [int(row[name]) for name in ("red", "green", "blue")]).all()
    assert [row["class"] for row in classes] == list(NAMES.values())


def test_areas_of_earlier_calls_stay_in_the_table(model: Path, tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        save_pictures(tmp_path / "in" / day, 1)
    run(model, tmp_path / "in", tmp_path / "out")
    whole = (tmp_path / "out/areas.csv").read_bytes()
    run(model, tmp_path / "in", tmp_path / "out", limit=1)
    assert (tmp_path / "out/areas.csv").read_bytes() == whole
    run(model, tmp_path / "in", tmp_path / "first", limit=1)
    assert {row["input"] for row in rows_of(tmp_path / "first/areas.csv")} == {"monday/p0"}
    run(model, tmp_path / "in", tmp_path / "first")
    assert (tmp_path / "first/areas.csv").read_bytes() == whole


def test_pictures_never_replace_the_inputs(model: Path, tmp_path: Path) -> None:
    (path,) = save_pictures(tmp_path / "F/pictures/sub", 1)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"would get predictions in .*F/pictures, where the input .*p0\.png lies"):
        run(model, tmp_path / "F/pictures/sub", tmp_path / "F")
    assert path.read_bytes() == before and not (tmp_path / "F/prediction.json").exists()


def test_flips_average_probabilities(model: Path, tmp_path: Path) -> None:
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "p.png")
    run(model, tmp_path / "p.png", tmp_path / "out", flip=True, save=["labels"])
    network = M33DForSemanticSegmentation.from_pretrained(model).eval()
    processor = M33DImageProcessor.from_pretrained(model)
    shares = []
    for shown in (pixels, pixels[:, ::-1].copy()):
        with torch.no_grad():
            logits = network(**processor(images=[shown], return_tensors="pt")).logits.double()
        large = torch.nn.functional.interpolate(logits, size=pixels.shape[:2], mode="bilinear", align_corners=False)
        shares.append(large[0].softmax(0))
    mean = shares[0] + shares[1].flip(-1)
    sure = mean.topk(2, dim=0).values
    clear = ((sure[0] - sure[1]) > 1e-4).numpy()
    found = np.array(Image.open(tmp_path / "out/labels/p.png"))
    assert clear.mean() > 0.9 and np.array_equal(found[clear], mean.argmax(0).numpy()[clear])
    plain = shares[0].argmax(0).numpy()
    assert (found != plain).any(), "the mirrored picture changes something"


def test_a_video_gets_labels_areas_and_a_video(model: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", 5)
    summary = run(model, video, tmp_path / "out")
    assert summary.frames == 5
    frames = read_video(video, range(5))
    for number in (0, 4):
        expected = pipeline_labels(model, Image.fromarray(frames[number]))
        assert np.array_equal(np.array(Image.open(tmp_path / f"out/labels/walk/{number:06d}.png")), expected)
    rows = rows_of(tmp_path / "out/areas.csv")
    assert {row["frame"] for row in rows} == set("01234") and {row["input"] for row in rows} == {"walk"}
    assert len(read_video(tmp_path / "out/videos/walk.mp4", range(5))) == 5
    assert run(model, video, tmp_path / "out").already_there == 1
    (tmp_path / "out/videos/walk.mp4").unlink()
    before = (tmp_path / "out/labels/walk/000000.png").stat().st_mtime_ns
    again = run(model, video, tmp_path / "out")
    assert again.predicted == 1 and again.frames == 0, "only what is missing is made"
    assert (tmp_path / "out/labels/walk/000000.png").stat().st_mtime_ns == before


def test_pictures_may_be_added_to_the_labels_of_a_video(model: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", 4)
    run(model, video, tmp_path / "out", save=["labels"])
    for missing in (range(4), [3]):
        for number in missing:
            (tmp_path / f"out/pictures/walk/{number:06d}.png").unlink(missing_ok=True)
        added = run(model, video, tmp_path / "out", save=["labels", "pictures"])
        assert (added.predicted, added.already_there, added.frames) == (1, 0, 0)
        assert [path.name for path in sorted((tmp_path / "out/pictures/walk").iterdir())] == [
            f"{number:06d}.png" for number in range(4)
        ]
    assert run(model, video, tmp_path / "out", save=["labels", "pictures"]).already_there == 1
    run(model, video, tmp_path / "both", save=["labels", "pictures"])
    for path in (tmp_path / "both/pictures/walk").iterdir():
        assert path.read_bytes() == (tmp_path / "out/pictures/walk" / path.name).read_bytes()


def save_rgbd(folder: Path, **config: Any) -> Path:
    """A segmentation model that sees depth, in millimetres, if there is any."""
    made = tiny_config(id2label=NAMES, label2id={name: number for number, name in NAMES.items()}, **config)
    network = M33DForSemanticSegmentation(made)
    shake(network, 0)
    network.save_pretrained(folder)
    M33DImageProcessor.from_model_config(made, depth_unit="millimetre").save_pretrained(folder)
    return folder


def test_depth_beside_the_pictures_where_there_is_any(tmp_path: Path) -> None:
    folder = save_rgbd(tmp_path / "model", task_inputs=["rgb", "depth"])
    paths = save_pictures(tmp_path / "in", 3)
    rng = np.random.default_rng(0)
    (tmp_path / "maps").mkdir()
    maps = {}
    for path in paths[:2]:
        maps[path.stem] = rng.integers(0, 4000, (48, 60)).astype(np.uint16)
        Image.fromarray(maps[path.stem]).save(tmp_path / "maps" / path.name)
    summary = run(folder, tmp_path / "in", tmp_path / "out", depth=tmp_path / "maps")
    assert "With measured depth: 2 pictures; 1 without depth there, from RGB alone." in summary.lines
    network = M33DForSemanticSegmentation.from_pretrained(folder).eval()
    processor = M33DImageProcessor.from_pretrained(folder)
    for path in paths:
        given = {"depth": maps[path.stem]} if path.stem in maps else {}
        with torch.no_grad():
            outputs = network(**processor(Image.open(path), **given, return_tensors="pt"))
        (expected,) = processor.post_process_semantic_segmentation(outputs, [(48, 60)])
        assert np.array_equal(np.array(Image.open(tmp_path / "out/labels" / path.name)), expected.numpy())
    flipped = run(folder, tmp_path / "in", tmp_path / "tiles", depth=tmp_path / "maps", flip=True, tiles=True)
    assert flipped.predicted == 3
    with pytest.raises(ConfigError, match="made in another way"):
        run(folder, tmp_path / "in", tmp_path / "out")
    assert not any("looked at RGB alone" in line for line in summary.lines)
    without = run(folder, tmp_path / "in", tmp_path / "rgb")
    assert any(
        "looked at RGB alone; depth beside the inputs is read by --depth FOLDER" in line for line in without.lines
    )


def test_depth_spec_of_the_folder_says_what_maps_mean(tmp_path: Path) -> None:
    """Tenths of millimetres by depth_spec.json, for a model of millimetres: the same classes as from millimetres.

    What the file leaves open --depth_unit says, or else the model's processor.
    """
    folder = save_rgbd(tmp_path / "model", task_inputs=["rgb", "depth"])
    save_pictures(tmp_path / "in", 1)
    maps = np.random.default_rng(0).integers(0, 4000, (48, 60)).astype(np.uint16)
    labels = []
    for name, factor, text, unit in (
        ("mm", 1, None, None),
        ("tenths", 10, '{"kind": "metric", "scale": 10000}', None),
        ("stated", 10, '{"first_frame": 1}', "tenth_millimetre"),
        ("known", 1, '{"first_frame": 1}', None),
    ):
        (tmp_path / name).mkdir()
        Image.fromarray(maps * np.uint16(factor)).save(tmp_path / name / "p0.png")
        if text is not None:
            (tmp_path / name / "depth_spec.json").write_text(text)
        run(folder, tmp_path / "in", tmp_path / f"out_{name}", depth=tmp_path / name, depth_unit=unit)
        labels.append(np.array(Image.open(tmp_path / f"out_{name}/labels/p0.png")))
    assert all(np.array_equal(labels[0], each) for each in labels) and len(np.unique(labels[0])) > 1


def test_depth_that_a_model_does_not_see_or_cannot_do_without(model: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "in", 1)
    with pytest.raises(ConfigError, match="sees RGB alone; leave it out"):
        run(model, tmp_path / "in", tmp_path / "out", depth=tmp_path)
    folder = save_rgbd(tmp_path / "depth", task_inputs=["depth"])
    with pytest.raises(ConfigError, match="sees depth alone: pass --depth FOLDER"):
        run(folder, tmp_path / "in", tmp_path / "out")
    (tmp_path / "maps").mkdir()
    summary = run(folder, tmp_path / "in", tmp_path / "out", depth=tmp_path / "maps")
    assert summary.predicted == 0 and "holds nothing named p0" in summary.skipped[0].reason
    Image.fromarray(np.full((48, 60), 900, np.uint16)).save(tmp_path / "maps/p0.png")
    assert run(folder, tmp_path / "in", tmp_path / "again", depth=tmp_path / "maps").predicted == 1


def test_maps_of_another_size_are_resized_where_asked_for_as_in_training(tmp_path: Path) -> None:
    folder = save_rgbd(tmp_path / "model", task_inputs=["rgb", "depth"])
    (path,) = save_pictures(tmp_path / "in", 1)
    (tmp_path / "maps").mkdir()
    small = np.random.default_rng(0).integers(0, 4000, (16, 20)).astype(np.uint16)
    Image.fromarray(small).save(tmp_path / "maps" / path.name)
    refused = run(folder, tmp_path / "in", tmp_path / "refused", depth=tmp_path / "maps")
    assert "is 16x20, but its picture is 48x60" in refused.skipped[0].reason
    assert "pass --depth_align depth_to_rgb" in refused.skipped[0].reason
    assert "With measured depth: 0 pictures." in refused.lines, "what was skipped was not used"
    aligned = {"depth": tmp_path / "maps", "depth_align": "depth_to_rgb"}
    assert run(folder, tmp_path / "in", tmp_path / "out", **aligned).predicted == 1
    sample = RGBDSample("x", torch.zeros(1, 3, 48, 60), torch.from_numpy(small.astype(np.float32))[None, None],
                        aligned=False)  # fmt: skip
    large = sample.align().depth
    assert large is not None
    (tmp_path / "large").mkdir()
    Image.fromarray(large[0, 0].numpy().astype(np.uint16)).save(tmp_path / "large" / path.name)
    run(folder, tmp_path / "in", tmp_path / "same", depth=tmp_path / "large")
    run(folder, tmp_path / "in", tmp_path / "rgb")
    found, expected, alone = (
        np.array(Image.open(tmp_path / name / "labels" / path.name)) for name in ("out", "same", "rgb")
    )
    assert np.array_equal(found, expected) and not np.array_equal(found, alone)
    Image.fromarray(small[:, :16]).save(tmp_path / "maps" / path.name)
    stretched = run(folder, tmp_path / "in", tmp_path / "stretched", **aligned)
    assert "of another aspect ratio" in stretched.skipped[0].reason
    with pytest.raises(ConfigError, match="must be one of refuse, depth_to_rgb"):
        run(folder, tmp_path / "in", tmp_path / "word", depth=tmp_path / "maps", depth_align="rgb_to_depth")


@pytest.mark.parametrize("inputs", [["rgb", "depth"], ["depth"]])
def test_videos_are_skipped_where_depth_is_given(inputs: list[str], tmp_path: Path) -> None:
    folder = save_rgbd(tmp_path / "model", task_inputs=inputs)
    (path,) = save_pictures(tmp_path / "in", 1)
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.full((48, 60), 900, np.uint16)).save(tmp_path / "maps" / path.name)
    write_video(tmp_path / "in/walk.mp4", 3)
    for _ in range(2):
        summary = run(folder, tmp_path / "in", tmp_path / "out", depth=tmp_path / "maps")
        assert summary.exit_code == 1 and [Path(file.path).name for file in summary.skipped] == ["walk.mp4"]
        assert "depth is read beside pictures alone" in summary.skipped[0].reason
        assert not (tmp_path / "out/labels/walk").exists() and (tmp_path / "out/labels/p0.png").is_file()
    (tmp_path / "out/labels/walk").mkdir()  # as an earlier version left it
    (tmp_path / "out/areas/walk.csv").touch()
    (tmp_path / "out/videos").mkdir()
    (tmp_path / "out/videos/walk.mp4").touch()
    assert run(folder, tmp_path / "in", tmp_path / "out", depth=tmp_path / "maps").already_there == 1


def test_a_picture_called_like_a_folder_of_the_output_may_be_repaired(tmp_path: Path) -> None:
    """Nothing was made of it while it was broken; later another content of it is refused, with a file of it."""
    folder = save_segmentation(tmp_path / "model")
    save_pictures(tmp_path / "in", 2)
    for name in ("pictures", "areas", "classes"):
        (tmp_path / f"in/{name}.png").write_bytes(b"broken")
    assert len(run(folder, tmp_path / "in", tmp_path / "out").skipped) == 3
    for name in ("pictures", "areas", "classes"):
        shutil.copy(tmp_path / "in/p0.png", tmp_path / f"in/{name}.png")
    again = run(folder, tmp_path / "in", tmp_path / "out")
    assert (again.predicted, again.already_there, again.skipped) == (3, 2, [])
    shutil.copy(tmp_path / "in/p1.png", tmp_path / "in/pictures.png")
    with pytest.raises(ConfigError, match=r"in/pictures\.png has changed since.*out/\w+/pictures\.\w+,"):
        run(folder, tmp_path / "in", tmp_path / "out")
