"""The source `rooms`: what it hands out, and that an item is a function of its seed and number alone."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from helpers.devices import NEEDS_CUDA
from m33d_hf.data.sample import VideoHandle
from m33d_hf.data.source import Source
from m33d_hf.data.sources.rooms import RoomsSource, generate
from m33d_hf.data.sources.rooms.constants import CLASS_NAMES, MOTION_NAMES
from m33d_hf.data.sources.rooms.generate import CHUNK, RoomsSpec, render_chunk, render_chunks
from m33d_hf.errors import ConfigError


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("rooms")


def rgb_of(source: RoomsSource) -> np.ndarray:
    return np.stack([source[index].read(range(source[index].length)).rgb.numpy() for index in range(len(source))])


def test_a_frame_is_a_sample_of_one_image(cache):
    source = RoomsSource("train", num_frames=5, image_size=[24, 40], seed=1, cache_dir=cache)
    assert isinstance(source, Source) and isinstance(source[0], VideoHandle)
    assert source.name == "rooms" and source.class_names == list(CLASS_NAMES) and source.action_names is None
    assert len(source) == 5 and source[4].length == 1 and source[4].fps is None
    assert source[3].key == "rooms/train/1/frames/3"
    sample = source[3].read([0])
    assert sample.key == source[3].key and sample.meta["split"] == "train" and sample.label is None
    assert sample.rgb.shape == (1, 3, 24, 40) and sample.rgb.dtype == torch.uint8
    assert sample.depth.shape == (1, 1, 24, 40) and sample.depth.dtype == torch.float32
    assert sample.segmentation.shape == (1, 24, 40) and sample.segmentation.dtype == torch.uint8
    assert int(sample.segmentation.max()) < len(CLASS_NAMES)
    assert (sample.height, sample.width, sample.num_frames) == (24, 40, 1)


def test_depth_is_in_metres_with_nan_for_holes(cache):
    options = {"num_frames": 16, "image_size": 32, "seed": 2, "cache_dir": cache}
    measured, clean = RoomsSource("test", **options), RoomsSource("test", depth="clean", **options)
    assert measured.folder == clean.folder, "both depths come from one rendering"
    assert measured.digest() != clean.digest()
    assert measured.depth_spec.unit == "metre" and measured.depth_spec.kind == "metric"
    holes = 0
    for index in range(16):
        a, b = measured[index].read([0]).depth, clean[index].read([0]).depth
        assert torch.isfinite(b).all() and float(b.min()) > 0.1 and float(b.max()) < 9
        valid = torch.isfinite(a)
        holes += int((~valid).sum())
        assert (a[valid] - b[valid]).abs().mean() < 0.05
    assert 0.02 < holes / (16 * 32 * 32) < 0.25


def test_what_is_read_may_be_written_to(cache):
    source = RoomsSource("train", num_frames=5, image_size=[24, 40], seed=1, cache_dir=cache)
    before = source[0].read([0])
    changed = source[0].read([0])
    for value in (changed.rgb, changed.depth, changed.segmentation):
        value.zero_()
    again = source[0].read([0])
    assert torch.equal(before.rgb, again.rgb) and torch.equal(before.segmentation, again.segmentation)
    assert torch.equal(before.depth.nan_to_num(), again.depth.nan_to_num())


def test_frames_do_not_depend_on_how_many_are_asked_for(cache):
    size = {"image_size": 16, "seed": 3, "cache_dir": cache}
    long = rgb_of(RoomsSource("train", num_frames=CHUNK["frames"] + 9, **size))
    for count in (1, 7, CHUNK["frames"], CHUNK["frames"] + 1):
        assert np.array_equal(rgb_of(RoomsSource("train", num_frames=count, **size)), long[:count])


def test_clips_do_not_depend_on_how_many_are_asked_for(cache):
    size = {"unit": "clips", "image_size": 16, "clip_length": 4, "seed": 3, "cache_dir": cache}
    long = rgb_of(RoomsSource("train", num_clips=CHUNK["clips"] + 3, **size))
    for count in (1, CHUNK["clips"]):
        assert np.array_equal(rgb_of(RoomsSource("train", num_clips=count, **size)), long[:count])


def test_a_chunk_can_be_rendered_alone_and_the_global_generator_is_untouched():
    spec = RoomsSpec("validation", 5, "frames", 2 * CHUNK["frames"] + 1, 1, 16, 20)
    state = torch.get_rng_state()
    parts = list(render_chunks(spec))
    alone = render_chunk(spec, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(part.action) for part in parts] == [CHUNK["frames"], CHUNK["frames"], 1]
    for name, value in vars(alone).items():
        assert np.array_equal(value, getattr(parts[1], name)), name


def test_splits_and_seeds_are_different_worlds(cache):
    options = {"num_frames": 8, "image_size": 16, "cache_dir": cache}
    worlds = [rgb_of(RoomsSource(split, seed=0, **options)) for split in ("train", "validation", "test")]
    worlds.append(rgb_of(RoomsSource("train", seed=1, **options)))
    frames = np.concatenate(worlds)
    assert len(np.unique(frames.reshape(len(frames), -1), axis=0)) == len(frames)
    digests = {RoomsSource(split, seed=0, **options).digest() for split in ("train", "validation", "test")}
    assert len(digests) == 3


def test_a_clip_yields_any_of_its_frames(cache):
    source = RoomsSource("test", unit="clips", num_clips=10, image_size=24, clip_length=5, cache_dir=cache)
    assert source.action_names == list(MOTION_NAMES) and source.class_names == list(CLASS_NAMES)
    handle = source[6]
    assert handle.length == 5 and handle.fps == 8.0
    whole, some = handle.read(range(5)), handle.read([4, 0, 4])
    assert whole.rgb.shape == (5, 3, 24, 24) and some.depth.shape == (3, 1, 24, 24)
    assert torch.equal(some.rgb, whole.rgb[[4, 0, 4]])
    assert torch.equal(some.segmentation, whole.segmentation[[4, 0, 4]])
    assert whole.label == some.label and 0 <= whole.label < 10
    assert sorted(source[index].read([0]).label for index in range(10)) == list(range(10))


def test_pickled_handles_are_small_and_read_the_same(cache):
    source = RoomsSource("train", num_frames=CHUNK["frames"] + 9, image_size=16, seed=3, cache_dir=cache)
    expected = source[5].read([0]).rgb
    text = pickle.dumps(source[5])
    assert len(text) < 5000
    assert torch.equal(pickle.loads(text).read([0]).rgb, expected)


def test_indices_outside_are_refused(cache):
    source = RoomsSource("train", num_frames=5, image_size=[24, 40], seed=1, cache_dir=cache)
    for index in (5, -1):
        with pytest.raises(IndexError, match="5 frames"):
            source[index]
    for indices in ([1], [-1], []):
        with pytest.raises(IndexError, match="rooms/train/1/frames/0"):
            source[0].read(indices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"unit": "clip"}, "Did you mean 'clips'"),
        ({"depth": "senser"}, "Did you mean 'sensor'"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_frames": 2.5}, "integer"),
        ({"num_clips": 4}, "set unit to 'clips'"),
        ({"unit": "clips", "num_frames": 4}, "set unit to 'frames'"),
        ({"unit": "clips", "clip_length": 1}, "clip_length is 1"),
        ({"image_size": 8}, "at least 16"),
        ({"image_size": [32, 32, 3]}, r"\[height, width\]"),
        ({"image_size": "48"}, r"\[height, width\]"),
        ({"image_size": 48.0}, "image_size"),
        ({"seed": "zero"}, "seed"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_bad_options_say_what_to_write_instead(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        RoomsSource(**options, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_cuda_without_a_device_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device='cpu'"):
        RoomsSource(device="cuda:0", cache_dir=tmp_path)


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Renders what is asked of "cuda" on the CPU, as many chunks at once as a GPU would."""
    real, seen = generate.render_drawn, []

    def render_drawn(scenes, noise, height, width, device):
        seen.append((device, scenes.batch))
        return real(scenes, noise, height, width, "cpu")

    monkeypatch.setattr(generate, "render_drawn", render_drawn)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return seen


def _joined(spec: RoomsSpec) -> dict[str, np.ndarray]:
    parts = [vars(part) for part in render_chunks(spec)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_chunks_rendered_together_are_those_rendered_alone(pretended_gpu, monkeypatch):
    for unit, count in (("frames", 100), ("clips", 25)):
        length = 1 if unit == "frames" else 4
        alone = RoomsSpec("train", 0, unit, count, length, 16, 20)
        together = dataclasses.replace(alone, device="cuda")
        size = CHUNK[unit] * length
        second = 2 * size if unit == "frames" else size  # 100 frames are four chunks, 25 clips three
        monkeypatch.setattr(generate, "PIXELS_AT_ONCE", {"cuda": 2 * size * 16 * 20})
        pretended_gpu.clear()
        found, expected = _joined(together), _joined(alone)
        assert all(np.array_equal(found[name], expected[name]) for name in expected), unit
        assert [batch for device, batch in pretended_gpu if device == "cuda"] == [2 * size, second]


def test_rooms_of_a_gpu_are_read_without_one_and_never_for_those_of_a_cpu(pretended_gpu, tmp_path, monkeypatch):
    rendered = RoomsSource(num_frames=8, image_size=16, device="cuda", cache_dir=tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pretended_gpu.clear()
    read = RoomsSource(num_frames=8, image_size=16, device="cuda", cache_dir=tmp_path)
    assert read.digest() == rendered.digest() and not pretended_gpu
    assert RoomsSource(num_frames=8, image_size=16, cache_dir=tmp_path).folder != read.folder
    assert [device for device, _ in pretended_gpu] == ["cpu"]


@NEEDS_CUDA
def test_cuda_renders_the_same_rooms_up_to_rounding():
    on_cpu = render_chunk(RoomsSpec("train", 0, "frames", 32, 1, 48, 48), 0)
    on_gpu = render_chunk(RoomsSpec("train", 0, "frames", 32, 1, 48, 48, "cuda"), 0)
    assert (on_cpu.segmentation == on_gpu.segmentation).mean() > 0.999
    assert (abs(on_cpu.clean - on_gpu.clean) < 1e-3).mean() > 0.999
    assert (abs(on_cpu.rgb.astype(int) - on_gpu.rgb.astype(int)) <= 2).mean() > 0.999
