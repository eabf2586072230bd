"""Pipelines of RGB, RGB with depth, and depth alone, against the processor and the model by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from helpers.tiny import CLIP, tiny_config
from helpers.videos import write_video
from helpers.web import served
from m33d_hf import (
    M33DForSemanticSegmentation,
    M33DForVideoClassification,
    M33DImageProcessor,
    M33DModel,
    M33DVideoProcessor,
    RGBDImageSegmentationPipeline,
)
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, DepthUnitError

BOTH = ("rgb", "depth")
RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (40, 52, 3), dtype=np.uint8)
STORED = RANDOM.integers(500, 4000, (40, 52)).astype(np.uint16)  # millimetres
STORED[:7, :9] = 0
METRES = np.where(STORED > 0, STORED / np.float32(1000), np.nan).astype(np.float32)
CLIP_STORED = RANDOM.integers(500, 4000, (12, 64, 96)).astype(np.uint16)


def _saved(folder: Path, cls: Any, processor_cls: Any, inputs: tuple[str, ...], **more: Any) -> Path:
    """A model whose answer depends on everything that it is given."""
    torch.manual_seed(0)
    config = tiny_config(num_labels=3, task_inputs=list(inputs), segmentation_head_width=32, segmentation_head_depth=1,
                         **more)  # fmt: skip
    model = cls(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)
    processor_cls.from_model_config(config).save_pretrained(folder)
    return folder


def _segmenter(folder: Path, inputs: tuple[str, ...] = BOTH) -> Any:
    saved = _saved(folder, M33DForSemanticSegmentation, M33DImageProcessor, inputs)
    return pipeline("rgbd-image-segmentation", model=str(saved))


def _classifier(folder: Path) -> Any:
    return pipeline(
        "rgbd-video-classification",
        model=str(_saved(folder, M33DForVideoClassification, M33DVideoProcessor, BOTH, **CLIP)),
    )


def _as_map(parts: list[dict[str, Any]]) -> np.ndarray:
    """(H, W) class ids of a pipeline's masks."""
    found = np.full(PICTURE.shape[:2], -1)
    for part in parts:
        found[np.asarray(part["mask"]) > 0] = int(part["label"].removeprefix("LABEL_"))
    return found


def _by_hand(segment: Any, picture: np.ndarray, depth: np.ndarray | None, without_rgb: bool = False) -> np.ndarray:
    options = {} if depth is None else {"depth": depth}
    values = segment.image_processor(picture, return_tensors="pt", **options)
    if without_rgb:
        del values["pixel_values"]
    with torch.no_grad():
        logits = segment.model(**values).logits
    return torch.nn.functional.interpolate(logits, PICTURE.shape[:2], mode="bilinear").argmax(1)[0].numpy()


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of both inputs."""
    return _segmenter(tmp_path_factory.mktemp("segmenter"))


@pytest.fixture(scope="module")
def classify(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of both inputs."""
    return _classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, its depth in three formats, a video and its depth."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(PICTURE).save(folder / "picture.png")
    Image.fromarray(STORED).save(folder / "depth.png")
    np.save(folder / "depth.npy", METRES)
    (folder / "depth.pgm").write_bytes(b"P5 52 40 65535\n" + STORED.astype(">u2").tobytes())
    write_video(folder / "clip.mp4", 12)  # 64 x 96
    np.save(folder / "clip.npy", CLIP_STORED)
    return folder


def test_three_input_sets_of_one_model(segment: Any) -> None:
    assert isinstance(segment, RGBDImageSegmentationPipeline)
    wanted = [_by_hand(segment, PICTURE, None), _by_hand(segment, PICTURE, METRES),
              _by_hand(segment, np.zeros_like(PICTURE), METRES, without_rgb=True)]  # fmt: skip
    inputs = [{"image": PICTURE}, {"image": PICTURE, "depth": METRES}, {"depth": METRES}]
    for found, right in zip(segment(inputs), wanted, strict=True):
        assert (_as_map(found) == right).all()
    assert all((one != two).any() for one, two in ((wanted[0], wanted[1]), (wanted[1], wanted[2])))


@pytest.mark.parametrize("name", ["depth.png", "depth.npy", "depth.pgm"])
def test_depth_in_files(segment: Any, files: Path, name: str) -> None:
    found = segment({"image": str(files / "picture.png"), "depth": files / name}, depth_unit="millimetre")
    assert (_as_map(found) == _by_hand(segment, PICTURE, METRES)).all()


def test_pictures_as_they_are_and_in_files(segment: Any, files: Path) -> None:
    right = _by_hand(segment, PICTURE, None)
    for each in (PICTURE, [PICTURE], Image.fromarray(PICTURE), files / "picture.png", str(files / "picture.png")):
        assert (_as_map(segment({"image": each})) == right).all()
    assert (_as_map(segment(str(files / "picture.png"))) == right).all()


def test_turned_pictures_are_segmented_upright(segment: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise makes it upright
    Image.fromarray(np.ascontiguousarray(np.rot90(PICTURE))).save(tmp_path / "turned.png", exif=exif)
    assert (_as_map(segment({"image": tmp_path / "turned.png"})) == _by_hand(segment, PICTURE, None)).all()


def test_batches_mix_pictures_with_and_without_depth(segment: Any) -> None:
    inputs = [{"image": PICTURE}, {"image": PICTURE, "depth": METRES}, {"image": PICTURE, "depth": None}]
    alone, both = _by_hand(segment, PICTURE, None), _by_hand(segment, PICTURE, METRES)
    for given in (inputs, (each for each in inputs), tuple(inputs), iter(inputs)):
        for found, right in zip(segment(given, batch_size=3), (alone, both, alone), strict=True):
            assert (_as_map(found) == right).all()
    with pytest.raises(ConfigError, match="depth alone cannot share a batch"):
        segment([{"image": PICTURE}, {"depth": METRES}], batch_size=2)


def test_depth_alone_in_batches(segment: Any) -> None:
    right = _by_hand(segment, PICTURE, METRES, without_rgb=True)
    assert (_as_map(segment({"depth": METRES}, batch_size=8)) == right).all()
    for found in segment([{"depth": METRES}, {"depth": METRES[None]}, {"depth": [METRES]}], batch_size=2):
        assert (_as_map(found) == right).all()


def test_a_model_of_depth_alone(tmp_path: Path) -> None:
    segment = _segmenter(tmp_path, ("depth",))
    right = _by_hand(segment, PICTURE, METRES, without_rgb=True)
    for found in segment([{"depth": METRES}, {"depth": METRES}], batch_size=2):
        assert (_as_map(found) == right).all()
    with pytest.raises(ConfigError, match=r"depth alone: pass .* without 'image'"):
        segment({"image": PICTURE, "depth": METRES})


def test_a_saved_pipeline_loads_again(segment: Any, classify: Any, tmp_path: Path) -> None:
    for once, task, given in (
        (segment, "rgbd-image-segmentation", {"image": PICTURE, "depth": METRES}),
        (classify, "rgbd-video-classification", {"video": np.stack([PICTURE] * 4), "depth": np.stack([METRES] * 4)}),
    ):
        once.save_pretrained(tmp_path / task)
        again = pipeline(task, model=str(tmp_path / task))
        assert type(again) is type(once) and again(given) == once(given)
        stock = task.removeprefix("rgbd-")
        assert pipeline(stock, model=str(tmp_path / task)).model.task_inputs == BOTH


@pytest.mark.parametrize(
    ("task", "cls", "words"),
    [
        ("rgbd-image-segmentation", M33DForSemanticSegmentation, "sees RGB alone"),
        ("rgbd-video-classification", M33DForSemanticSegmentation, "needs a M33DForVideoClassification"),
        ("rgbd-image-segmentation", M33DForVideoClassification, "needs a M33DForSemanticSegmentation"),
        ("rgbd-image-segmentation", M33DModel, "needs a M33DForSemanticSegmentation"),
    ],
)
def test_models_that_cannot_be_served(task: str, cls: Any, words: str) -> None:
    config = tiny_config(num_labels=3, segmentation_head_width=32, segmentation_head_depth=1)
    made = M33DImageProcessor.from_model_config(config)
    with pytest.raises(ConfigError, match=words):
        pipeline(task, model=cls(config), image_processor=made)


def test_a_processor_is_needed(segment: Any) -> None:
    with pytest.raises(ConfigError, match="needs the model's image_processor"):
        RGBDImageSegmentationPipeline(model=segment.model)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"image": PICTURE, "dept": METRES}, ConfigError, "the key 'dept'.*Did you mean 'depth'"),
        ({}, DataError, "neither 'image' nor 'depth'"),
        ([], DataError, "no input"),
        (None, DataError, "no input"),
        ({"image": PICTURE, "depth": METRES[1:]}, DataError, "39 x 52, but its image is 40 x 52"),
        ({"image": PICTURE, "depth": STORED}, DepthUnitError, "unit is unknown"),
        ({"image": PICTURE, "depth": "nowhere.png"}, CorruptFileError, "nowhere.png: does not exist"),
        ({"image": PICTURE, "depth": "nowhere.npy"}, CorruptFileError, "nowhere.npy: does not exist"),
        ({"image": PICTURE, "depth": "http://127.0.0.1/a.png"}, DataError, "http://127.0.0.1/a.png is an address"),
        ({"image": "nowhere.png"}, CorruptFileError, "does not exist"),
        ({"image": "nowhere"}, DataError, "neither a file nor base64"),
        ({"image": "."}, DataError, "is a folder"),
        ({"image": np.stack([PICTURE, PICTURE])}, DataError, "holds 2 of 'image'"),
        ({"image": [PICTURE, PICTURE]}, DataError, "holds 2 of 'image'"),
        ({"image": 3}, DataError, "must be a PIL image"),
        ({"depth": PICTURE}, DataError, "one channel"),
    ],
)
def test_what_is_refused(segment: Any, given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        segment(given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": METRES}, "depth is no option but part of an input"),
        ({"depth_units": "tum"}, "no option 'depth_units'.*Did you mean 'depth_unit'"),
        ({"depth_unit": "milimetre"}, "milimetre"),
    ],
)
def test_options_are_checked(segment: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        segment(PICTURE, **options)


@pytest.mark.parametrize("layout", ["tensor", "grey", "alpha", "floats"])
def test_pictures_as_the_processor_takes_them(segment: Any, layout: str) -> None:
    channels_first = torch.from_numpy(PICTURE).permute(2, 0, 1)
    forms = {"tensor": (channels_first, PICTURE), "grey": (PICTURE[..., 0], np.stack([PICTURE[..., 0]] * 3, -1)),
             "alpha": (np.concatenate([PICTURE, PICTURE[..., :1]], -1), PICTURE),
             "floats": (PICTURE.astype(np.float32), PICTURE.astype(np.float32))}  # fmt: skip
    given, right = forms[layout]
    assert (_as_map(segment({"image": given, "depth": METRES})) == _by_hand(segment, right, METRES)).all()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a server of the temporary folder."""
    with served(tmp_path) as address:
        yield address


def test_pictures_at_addresses_are_checked_as_files_are(segment: Any, address: str, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    Image.fromarray(STORED).save(tmp_path / "wide.png")
    exif = Image.Exif()
    exif[274] = 3  # upside down
    upside_down = np.ascontiguousarray(np.rot90(PICTURE, 2))
    for name in ("turned.png", "turned.tif"):
        Image.fromarray(upside_down).save(tmp_path / name, exif=exif)
    Image.fromarray(np.ascontiguousarray(np.rot90(STORED, 2))).save(tmp_path / "depth.tif", exif=exif)
    right = _by_hand(segment, PICTURE, METRES)
    assert (_as_map(segment({"image": f"{address}/picture.png", "depth": METRES})) == right).all()
    assert (_as_map(segment(f"{address}/turned.png")) == _by_hand(segment, PICTURE, None)).all()
    both = {"image": tmp_path / "turned.tif", "depth": tmp_path / "depth.tif"}
    assert (_as_map(segment(both, depth_unit="millimetre")) == right).all()
    for where in (address, str(tmp_path)):
        for name in ("turned.png", "turned.tif"):
            with pytest.raises(DataError, match="unknown whether it is already upright"):
                segment({"image": f"{where}/{name}", "depth": METRES})
        with pytest.raises(DataError, match=r"depth map"):
            segment({"image": f"{where}/wide.png"})
    with pytest.raises(CorruptFileError, match="404"):
        segment(f"{address}/nothing.png")
    with pytest.raises(CorruptFileError, match="is no address"):
        segment("http://[::1/a.png")


def test_clips_of_three_input_sets(classify: Any, files: Path) -> None:
    video, metres = str(files / "clip.mp4"), CLIP_STORED / np.float32(1000)
    both = classify.video_processor(video, depth=metres, do_sample_frames=True, return_tensors="pt")
    rgb = {"pixel_values": both["pixel_values"]}
    depth = {name: both[name] for name in ("depth_values", "depth_mask")}
    inputs = [video, {"video": video, "depth": files / "clip.npy"}, {"depth": metres}]
    for given, values in zip(inputs, (rgb, both, depth), strict=True):
        with torch.no_grad():
            right = classify.model(**values).logits.softmax(-1)[0]
        found = {each["label"]: each["score"] for each in classify(given, depth_unit="millimetre")}
        assert [found[f"LABEL_{i}"] for i in range(3)] == pytest.approx(right.tolist(), abs=1e-6)


def test_frames_without_depth_are_holes(classify: Any, files: Path) -> None:
    video, holes = str(files / "clip.mp4"), CLIP_STORED / np.float32(1000)
    holes[6:] = np.nan
    listed = [*CLIP_STORED[:6], *[None] * 6]
    found = classify({"video": video, "depth": listed}, depth_unit="millimetre")
    assert found == classify({"video": video, "depth": holes}) != classify(video)
    assert classify({"video": video, "depth": [None] * 12}) == classify(video)
    channels = [each if each is None else each[None] for each in listed]
    assert classify({"video": video, "depth": channels}, depth_unit="millimetre") == found
    with pytest.raises(DataError, match="neither a video nor depth"):
        classify({"depth": [None] * 12})
    with pytest.raises(DataError, match="holds 2 of 'video'"):
        classify({"video": [video, video]})
    with pytest.raises(ConfigError, match="do not batch videos"):
        classify([video, video], batch_size=2)
    with pytest.raises(ConfigError, match=r"frame_stride is 1\.5"):
        classify(video, frame_sampling_rate=1.5)
    with pytest.raises(CorruptFileError, match=r"predict.py --depth"):
        classify({"video": video, "depth": files})
    with pytest.raises(DataError, match="12 frames but 11 depth maps"):
        classify({"video": video, "depth": holes[1:]})


def test_frames_of_a_call(classify: Any, files: Path) -> None:
    frames = RANDOM.integers(0, 256, (12, 64, 96, 3), dtype=np.uint8)
    values = classify.video_processor(frames, depth=CLIP_STORED, depth_unit="millimetre", do_sample_frames=True,
                                      frame_stride=2, return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        right = classify.model(**values).logits.softmax(-1)[0].max().item()
    given = {"video": frames, "depth": CLIP_STORED}
    found = classify(given, depth_unit="millimetre", frame_sampling_rate=2, top_k=1)
    assert found[0]["score"] == pytest.approx(right, abs=1e-6)
    assert found[0]["score"] != pytest.approx(classify(given, depth_unit="millimetre", top_k=1)[0]["score"], abs=1e-6)
