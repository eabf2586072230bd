"""Video processor: bit-equal to evaluation, any way of giving a clip, saving, auto classes and the pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

import m33d_hf
from helpers.shared_data import shared
from helpers.tiny import CLIP, SMALL
from helpers.videos import numbered_frame, turn, write_video
from helpers.web import served
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import EvaluationTransform
from m33d_hf.data.loader.loading import frame_indices
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.modeling.configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import probe_video, read_video


def clip(frames: int = 4, height: int = 37, width: int = 61) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def evaluated(pixels: np.ndarray, size: tuple[int, int], crop: str = "center") -> torch.Tensor:
    """(1, T, 3, H, W) as the evaluation transform and the collators make it."""
    sample = RGBDSample("a", rgb=torch.from_numpy(pixels).permute(0, 3, 1, 2))
    placed = EvaluationTransform(TransformOptions(eval_crop=crop), size)(sample)
    assert placed.rgb is not None
    return normalize_rgb(placed.rgb, IMAGENET_MEAN, IMAGENET_STD)[None]


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (64, 48)])
@pytest.mark.parametrize("crop", ["center", "resize"])
def test_bit_equal_to_evaluation(crop: str, size: tuple[int, int]) -> None:
    processor = M33DVideoProcessor(size={"height": size[0], "width": size[1]}, do_center_crop=crop == "center")
    pixels = processor(clip(), return_tensors="pt")["pixel_values"]
    assert pixels.dtype == torch.float32 and pixels.shape == (1, 4, 3, *size)
    assert torch.equal(pixels, evaluated(clip(), size, crop))


def test_every_way_of_giving_a_clip() -> None:
    processor = M33DVideoProcessor(size={"height": 16, "width": 16})
    array = clip()
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    expected = evaluated(array, (16, 16))
    pictures = [Image.fromarray(frame) for frame in array]
    for given in (array, tensor, pictures, list(array), list(tensor), [array], [pictures], array[None], tensor[None]):
        assert torch.equal(processor(given, return_tensors="pt")["pixel_values"], expected)
    last = processor(torch.from_numpy(array), input_data_format="channels_last", return_tensors="pt")
    assert torch.equal(last["pixel_values"], expected)
    for given in ([array, array], [pictures, pictures], np.stack([array, array]), [tensor, pictures]):
        assert torch.equal(processor(given, return_tensors="pt")["pixel_values"], expected.repeat(2, 1, 1, 1, 1))
    for image in (pictures[0], array[0], tensor[0], [pictures[0]]):
        assert torch.equal(processor(image, return_tensors="pt")["pixel_values"], expected[:, :1])
    assert torch.equal(processor(array.copy())["pixel_values"][0], expected[0])  # a list without return_tensors


@pytest.mark.parametrize("length", [1, 3, 8, 9, 40])
def test_sampling_is_that_of_evaluation(length: int) -> None:
    frames = np.stack([numbered_frame(number, (32, 48)) for number in range(length)])
    processor = M33DVideoProcessor(size=32, num_frames=4, frame_stride=2, do_sample_frames=True, return_metadata=True)
    batch = processor(frames, return_tensors="pt")
    chosen = frame_indices(length, 4, 2)
    assert batch["video_metadata"][0].frames_indices == chosen
    assert torch.equal(batch["pixel_values"], evaluated(frames[chosen], (32, 32)))


def test_files_are_sampled_by_default(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    processor = M33DVideoProcessor(size=32, num_frames=4, frame_stride=2)
    expected = evaluated(read_video(path, frame_indices(30, 4, 2)), (32, 32))
    for given in (path, str(path), [path]):
        assert torch.equal(processor(given, return_tensors="pt")["pixel_values"], expected)
    whole = processor(path, do_sample_frames=False, return_metadata=True, return_tensors="pt")
    assert whole["pixel_values"].shape == (1, 30, 3, 32, 32)
    facts = whole["video_metadata"][0]
    assert (facts.total_num_frames, facts.fps, facts.duration, facts.height, facts.width) == (30, 25.0, 1.2, 64, 96)
    with pytest.raises(CorruptFileError, match="does not exist"):
        processor(tmp_path / "b.mp4")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Address of a server of the temporary folder."""
    with served(tmp_path) as address:
        yield address


@pytest.mark.parametrize("name", ["long.mp4", "short.mp4", "short.mkv", "turned.mp4"])
def test_an_address_gives_what_the_file_gives(name: str, tmp_path: Path, site: str) -> None:
    """Too few frames, a header that does not count them, and a picture to be turned included."""
    path = write_video(tmp_path / name, 12 if name == "long.mp4" else 3, size=(64, 96))
    if name == "turned.mp4":
        assert probe_video(turn(path)).orientation != 1
    processor = M33DVideoProcessor(size=32, num_frames=4, do_center_crop=False, return_metadata=True)
    here, there = (processor(each, return_tensors="pt") for each in (path, f"{site}/{path.name}?token=1"))
    assert here["pixel_values"].shape == (1, 4, 3, 32, 32)
    assert torch.equal(here["pixel_values"], there["pixel_values"])
    facts = [batch["video_metadata"][0] for batch in (here, there)]
    assert facts[0].timestamps == facts[1].timestamps
    assert [each.total_num_frames for each in facts] == [12 if name == "long.mp4" else 3] * 2


def test_addresses_without_a_video_are_named(tmp_path: Path, site: str) -> None:
    (tmp_path / "page.mp4").write_text("<html>nothing here</html>")
    processor = M33DVideoProcessor(size=32, num_frames=4)
    with pytest.raises(CorruptFileError, match=r"^http://127.*/none\.mp4: cannot be downloaded .*404"):
        processor(f"{site}/none.mp4")
    with pytest.raises(CorruptFileError, match=r"^http://127.*/page\.mp4: "):
        processor(f"{site}/page.mp4")
    with pytest.raises(CorruptFileError, match="cannot be downloaded"):
        processor("http://127.0.0.1:9/a.mp4")


def test_options(tmp_path: Path) -> None:
    processor = M33DVideoProcessor(size={"height": 16, "width": 16})
    plain = processor(clip(), do_normalize=False, return_tensors="pt")["pixel_values"]
    assert plain.min() >= 0 and plain.max() <= 1
    raw = processor(clip(), do_normalize=False, do_rescale=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(raw, raw.round()) and raw.max() > 200
    assert processor(clip(), do_resize=False, return_tensors="pt")["pixel_values"].shape == (1, 4, 3, 37, 61)
    cubic = processor(clip(), resample=3, return_tensors="pt")["pixel_values"]
    assert not torch.equal(cubic, processor(clip(), return_tensors="pt")["pixel_values"])
    square = M33DVideoProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    assert torch.equal(square(clip(), return_tensors="pt")["pixel_values"], evaluated(clip(), (16, 16)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frame": 3}, "Did you mean 'num_frames'"),
        ({"do_sample_frames": True, "fps": 2, "num_frames": 4}, "fps and num_frames exclude each other"),
        ({"do_sample_frames": True, "num_frames": 0}, "at least 1"),
        ({"resample": 0}, "bilinear"),
        ({"crop_size": {"height": 17, "width": 8}}, "crop_size is 17 x 8"),
        ({"crop_size": {"height": 38, "width": 8}, "do_resize": False}, "but the picture is only 37 x 61"),
        ({"size": {"longest_edge": 8}}, "height and width"),
        ({"do_rescale": False}, "requires do_rescale"),
        ({"rescale_factor": 1.0}, "must be 1/255"),
        ({"do_sample_frames": True, "frame_stride": 0}, "at least 1"),
        ({"video_backend": "decrod"}, "Did you mean 'decord'"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = write_video(tmp_path / "a.mp4", 3) if "video_backend" in options else clip()
    with pytest.raises(ConfigError, match=message):
        M33DVideoProcessor(size={"height": 16, "width": 16})(given, **options)


def test_refused_inputs() -> None:
    processor = M33DVideoProcessor(size=16)
    for given, message in (
        (clip().astype(np.float32) / 255, "uint8"),
        ([clip()[0], clip()[1, :20]], "differ in size"),
        (None, "neither a video nor depth"),
        ([], "expected videos"),
        (clip()[:0], "at least one frame"),
    ):
        with pytest.raises(DataError, match=message):
            processor(given)
    with pytest.raises(DataError, match=r"\[3, 4\] frames cannot be stacked"):
        processor([clip(3), clip(4)], return_tensors="pt")
    assert [len(part) for part in processor([clip(3), clip(4)])["pixel_values"]] == [3, 4]


def tiny_config(**changes: Any) -> M33DConfig:
    labels = {number: f"activity {number}" for number in range(7)}
    return M33DConfig(**{**SMALL, **CLIP, "id2label": labels, "temporal_frame_stride": 3, **changes})


def test_from_model_config_and_saving(tmp_path: Path) -> None:
    config = tiny_config(image_size=[32, 48])
    processor = M33DVideoProcessor.from_model_config(config, do_center_crop=False)
    assert dict(processor.size) == {"height": 32, "width": 48}
    assert (processor.num_frames, processor.frame_stride, processor.do_center_crop) == (4, 3, False)
    processor.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    for loaded in (M33DVideoProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is M33DVideoProcessor
        assert loaded.to_dict() == processor.to_dict()
        given = processor(clip(), return_tensors="pt")["pixel_values"]
        assert torch.equal(loaded(clip(), return_tensors="pt")["pixel_values"], given)
    assert M33DVideoProcessor.from_pretrained(tmp_path, frame_stride=5).frame_stride == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random classifier saved with its processor."""
    path = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = tiny_config(classifier_init_scale=1.0)
    m33d_hf.M33DForVideoClassification(config).save_pretrained(path)
    M33DVideoProcessor.from_model_config(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("real", [True, False])
def test_pipeline_classifies_files(real: bool, folder: Path, tmp_path: Path) -> None:
    if real:
        path = shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi")
    else:
        path = write_video(tmp_path / "a.mp4", 30)
    classify = pipeline("video-classification", model=str(folder))
    answers = classify(str(path), top_k=7)
    assert {answer["label"] for answer in answers} == {f"activity {number}" for number in range(7)}
    model = AutoModelForVideoClassification.from_pretrained(folder).eval()
    pixels = M33DVideoProcessor.from_pretrained(folder)(path, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        probabilities = model(pixel_values=pixels).logits.softmax(dim=-1)[0]
    for answer in answers:
        number = int(answer["label"].removeprefix("activity "))
        assert answer["score"] == pytest.approx(probabilities[number].item(), abs=1e-5)
    assert len(classify([str(path), str(path)], top_k=2)) == 2


def test_frames_listed_as_pictures_are_videos_of_one_frame_each(folder: Path) -> None:
    """As docs/processors.md says: a clip is a list in the list."""
    classify = pipeline("video-classification", model=str(folder))
    frames = [Image.fromarray(frame) for frame in clip(6)]
    assert [len(answers) for answers in classify(frames, top_k=2)] == [2] * 6
    (answers,) = classify([frames], top_k=7)
    processor = M33DVideoProcessor.from_pretrained(folder)
    pixels = processor(frames, do_sample_frames=True, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = AutoModelForVideoClassification.from_pretrained(folder).eval()(pixel_values=pixels).logits
    best = processor.post_process_video_classification(SimpleNamespace(logits=logits))[0]
    assert [answer["label"] for answer in answers] == [f"activity {label}" for label in best["labels"].tolist()]
    assert [answer["score"] for answer in answers] == pytest.approx(best["scores"].tolist(), abs=1e-5)
    with pytest.raises(DataError, match="4 frames are requested, but the clip has 3"):
        classify([frames[:3]])


def test_a_single_image_goes_through_a_video_model(folder: Path) -> None:
    model = m33d_hf.M33DForVideoClassification.from_pretrained(folder).eval()
    processor = AutoVideoProcessor.from_pretrained(folder)
    image = Image.fromarray(clip()[0])
    batch = processor(image, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 1, 3, 32, 32)
    with torch.no_grad():
        assert model(**batch).logits.shape == (1, 7)


def run(script: str, *arguments: Path, home: Path) -> str:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=home)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_torchvision_is_not_needed(tmp_path: Path) -> None:
    # transformers' AutoVideoProcessor asks for torchvision itself; our class does not.
    script = """
import sys
sys.modules["torchvision"] = None
import numpy as np
from m33d_hf import M33DVideoProcessor
print(M33DVideoProcessor(size=16)(np.zeros((2, 20, 30, 3), np.uint8), return_tensors="pt")["pixel_values"].ndim)
"""
    assert run(script, home=tmp_path) == "5"
