"""The feature store: bit-exact files, whole or not at all, and features of another origin refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.fuzzing import bit_flips
from helpers.phases_in_memory import NAMES, MemorySource
from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.training.tasks.detection.feature_dataset import FeatureCollator, FeatureDataset
from m33d_hf.training.tasks.detection.features import FORMATS, ClipRule, FeatureStore, VideoFeatures

RULE = ClipRule(2, 2, 4)
KNOWN = {name: number for number, name in enumerate(NAMES)}
ORIGIN: dict[str, Any] = {"model": "/somewhere", "weights": "abc", "clip": RULE.to_dict(), "classes": NAMES}


def _video(key: str = "a/b c.avi", count: int = 3, seed: int = 0) -> VideoFeatures:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(count, dtype=torch.bool)
    valid[1:2] = False
    starts = torch.arange(count) * 4
    return VideoFeatures(
        key, 4 * count, 29.97, torch.randn(count, 5, generator=generator), torch.randn(count, 3, generator=generator),
        starts, starts + 4, torch.arange(count) % 3, valid, [SkippedFile("b.avi (frames 4 to 7)", "torn, \"so\"", key)],
    )  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_read_is_what_was_written_bit_by_bit(tmp_path: Path, format: str) -> None:
    store, video = FeatureStore(tmp_path, format), _video()
    video.features[0, 0], video.features[0, 1], video.features[2, 3] = -0.0, 1e-42, torch.finfo(torch.float32).max
    video.labels[2] = 255
    path = store.write(video)
    assert path.suffix == f".{format}" and list(tmp_path.iterdir()) == [path]
    found = store.read(video.key)
    for name in ("features", "clip_logits", "starts", "stops", "labels", "valid"):
        there, here = getattr(found, name), getattr(video, name)
        assert there.dtype == here.dtype and there.shape == here.shape
        assert there.numpy().tobytes() == here.contiguous().numpy().tobytes(), name
    assert (found.key, found.length, found.fps, found.problems) == (video.key, 12, 29.97, video.problems)
    summary = store.summary(video.key)
    assert torch.equal(summary.valid, video.valid) and summary.problems == video.problems


def test_keys_that_read_alike_have_files_of_their_own(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert len({store.path_of(key) for key in ("a/b", "a_b", "a:b", "a b")}) == 4
    assert len(store.path_of("x" * 400).name) < 120


@pytest.mark.parametrize("format", FORMATS)
def test_half_a_file_does_not_count(tmp_path: Path, format: str) -> None:
    store, video = FeatureStore(tmp_path, format), _video()
    assert not store.is_whole(video.key)
    path = store.write(video)
    assert store.missing([video.key, "other"]) == ["other"]
    path.write_bytes(path.read_bytes()[:-40])
    assert not store.is_whole(video.key)
    with pytest.raises(CorruptFileError, match="delete it"):
        store.read(video.key)
    path.write_bytes(b"")
    assert store.missing([video.key]) == [video.key]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(tmp_path, "safetensors")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left on device")))
    with pytest.raises(OSError, match="no space"):
        store.write(_video())
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_video_is_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.write(_video("one")).rename(store.path_of("two"))
    with pytest.raises(CorruptFileError, match="features of 'one', not of 'two'"):
        store.read("two")


def test_features_of_another_origin_are_refused_with_what_differs(tmp_path: Path) -> None:
    FeatureStore(tmp_path).open_for(ORIGIN)
    FeatureStore(tmp_path).open_for({**ORIGIN, "model": "/moved/since"})
    changed = {**ORIGIN, "weights": "def", "clip": ClipRule(2, 4, 8).to_dict()}
    with pytest.raises(ConfigError, match="these differ: weights, clip") as caught:
        FeatureStore(tmp_path).open_for(changed)
    assert "abc there, def in this run" in str(caught.value) and "--features.dir" in str(caught.value)
    assert "num_frames" not in str(caught.value) and "'frame_stride': 4" in str(caught.value), (
        "what is alike is not told"
    )
    with pytest.raises(ConfigError, match="these differ: format"):
        FeatureStore(tmp_path, "safetensors").open_for(ORIGIN)
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(CorruptFileError, match="delete the folder"):
        FeatureStore(tmp_path).open_for(ORIGIN)


def test_looking_at_a_store_does_not_make_one(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "new").open_for(ORIGIN, write=False)
    assert not (tmp_path / "new").exists()
    FeatureStore(tmp_path / "new").open_for(ORIGIN)
    assert json.loads((tmp_path / "new" / "features.json").read_text())["weights"] == "abc"


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parquet"):
        FeatureStore(tmp_path, "parquett")


def _dataset(tmp_path: Path, train: bool, texts: list[str], valid: dict[int, list[int]] | None = None) -> Any:
    source = MemorySource("train", {"train": texts}, unit="videos")
    store = FeatureStore(tmp_path)
    for row, video in enumerate(source.videos):
        spans = source.clips(row)
        count = len(spans)
        good = torch.tensor([clip in valid[row] if valid and row in valid else True for clip in range(count)])
        labels = torch.tensor([span.label for span in spans])
        starts, stops = (torch.tensor([getattr(span, name) for span in spans]) for name in ("start", "stop"))
        features = torch.randn(count, 5) * good[:, None]
        logits, length = torch.zeros(count, 3), len(video.phases)
        store.write(VideoFeatures(video.key, length, 10.0, features, logits, starts, stops, labels, good))
    rows = list(range(len(texts)))
    return FeatureDataset(source, store, RULE, KNOWN, rows, feature_size=5, train=train)


def test_batches_are_padded_with_mask_and_ignored_labels(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, False, ["0" * 12, "1" * 4 + "9" * 4 + "2" * 10], {1: [0, 1, 2, 4]})
    batch = FeatureCollator(train=False)([dataset[0, 0], dataset[0, 1]])
    assert batch["features"].shape == (2, 5, 5) and batch["features"].dtype == torch.float32
    assert batch["attention_mask"].tolist() == [[True] * 3 + [False] * 2, [True, True, True, False, True]]
    assert batch["labels"].tolist() == [[0, 0, 0, 255, 255], [1, 255, 2, 255, 2]]  # clip 3 of the second is unreadable
    assert batch["meta"]["keys"] == ["train/v0", "train/v1"] and batch["meta"]["indices"] == [0, 1]
    assert [len(sample.phases) for sample in batch["meta"]["videos"]] == [12, 18]
    assert "videos" not in FeatureCollator(train=True)([dataset[0, 0]])["meta"]


def test_videos_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    texts = ["0" * 8, "9" * 8, "1" * 8, "2" * 8]
    assert _dataset(tmp_path / "a", True, texts, {2: []}).indices == [0, 3]
    assert _dataset(tmp_path / "b", False, texts, {2: []}).indices == [0, 1, 3]
    with pytest.raises(DataError, match="readable labelled clip"):
        _dataset(tmp_path / "c", True, ["9" * 8])


def test_phases_are_told_apart_by_name_not_by_number(tmp_path: Path) -> None:
    source = MemorySource("train", {"train": ["00112299"]}, names=["sew", "rest", "cut"], unit="videos")
    dataset = FeatureDataset(source, None, RULE, KNOWN, [0], feature_size=5, train=False)
    sample = dataset[0, 0]
    assert sample.phases is not None and sample.phases.tolist() == [2, 2, 0, 0, 1, 1, 255, 255]
    assert sample.video is not None and sample.video.labels.tolist() == [2, 1]
    assert sample.video.features.shape == (2, 5)


@pytest.mark.parametrize("format", FORMATS)
def test_no_flipped_bit_gives_other_features(tmp_path: Path, format: str) -> None:
    """Neither format protects all that it holds: safetensors nothing, Parquet its pages."""
    store, video = FeatureStore(tmp_path, format), _video(count=40)
    path = store.write(video)
    original, noticed = path.read_bytes(), 0
    for what, damaged in bit_flips(original, 5, 300):
        path.write_bytes(damaged)
        try:
            found = store.read(video.key)
        except CorruptFileError:
            noticed += 1
            continue
        same = all(torch.equal(getattr(found, name), getattr(video, name)) for name in ("features", "labels", "valid"))
        assert same and found.problems == video.problems and found.fps == video.fps, what
    assert noticed > 200
    path.write_bytes(original)
    assert store.is_whole(video.key)
