"""Extraction: what comes out does not depend on who computes it, on kills, or on bad clips beside it."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.phases_in_memory import (
    DEFAULT,
    NAMES,
    MemorySource,
    MemoryVideo,
    arguments,
    first_stage,
    register,
    train_in_memory,
)
from helpers.ranks import ForkedRanks
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification
from m33d_hf.scripts import extract_features
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection import feature_extraction
from m33d_hf.training.tasks.detection.clip_dataset import ClipDataset, ClipRow
from m33d_hf.training.tasks.detection.feature_extraction import encode, weights_digest
from m33d_hf.training.tasks.detection.features import ClipRule, FeatureStore
from m33d_hf.training.tasks.detection.first_stage import load_first_stage
from m33d_hf.training.tasks.detection.task import ActionDetectionTask


@pytest.fixture(autouse=True)
def _memory() -> None:
    register()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return first_stage(tmp_path_factory.mktemp("stage") / "one")


def _extract(folder: Path, stage: str, changes: dict[str, Any] | None = None, **options: Any) -> dict[str, bytes]:
    """Run the extraction in this process; file name -> bytes."""
    args = arguments(folder, stage, **options)
    for key, value in (changes or {}).items():
        section, name = key.split("__")
        setattr(getattr(args, section), name, value)
    task = ActionDetectionTask()
    return _files(task.extract(args, build_model(args, task)))


def _files(folders: list[Path]) -> dict[str, bytes]:
    paths = [path for folder in folders for path in folder.iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def _launch(folder: Path, stage: str, processes: int = 1, **options: Any) -> tuple[int, str]:
    """Train in processes of their own; (exit code, output)."""
    given, log = (str(folder), stage, options), folder.with_suffix(".log")
    ranks = ForkedRanks(train_in_memory, *given, log=log, processes=processes)
    return next((code for code in ranks.wait() if code), 0), ranks.output()


@pytest.mark.parametrize("format", ["parquet", "safetensors"])
def test_features_are_those_of_the_first_stage(tmp_path: Path, stage: str, format: str) -> None:
    _extract(tmp_path, stage, {"features__format": format})
    model = M33DForVideoClassification.from_pretrained(stage).eval()
    spec = model.config.spec("rgb")
    source = MemorySource("train", clip_span=4)
    store = FeatureStore(tmp_path / "features" / "train", format)
    for row, video in enumerate(source.videos):
        found = store.read(video.key)
        spans = source.clips(row)
        assert found.starts.tolist() == [span.start for span in spans]
        assert found.labels.tolist() == [span.label for span in spans]  # unlabelled clips are there too
        assert found.valid.all() and found.length == len(video.phases) and found.fps == 10.0
        frames = [[span.start, min(span.start + 2, span.stop - 1)] for span in spans]
        frames = [[a, b if (b - a) % 2 == 0 else a] for a, b in frames]  # a clip of one frame repeats it
        pixels = torch.stack([video.handle.read(pair).rgb for pair in frames])
        with torch.no_grad():
            output = model(normalize_rgb(pixels, spec.channel_mean, spec.channel_std))
        torch.testing.assert_close(found.features, output.features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.clip_logits, output.logits, atol=1e-5, rtol=1e-5)
    assert found.labels.eq(255).sum() == 1


def test_depth_beside_the_videos_is_neither_read_nor_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def read_maps(video: MemoryVideo, indices: list[int], maps: object) -> RGBDSample:
        asked.append(maps)
        return video.read(indices)

    monkeypatch.setattr(MemoryVideo, "read_maps", read_maps, raising=False)
    source = MemorySource("train", clip_span=4)
    dataset = ClipDataset(source, ClipRule(2, 2, 4), lambda sample: sample)
    rows = [ClipRow(0, number, span) for number, span in enumerate(source.clips(0))]
    together, alone = dataset.__getitems__(rows), [dataset[row] for row in rows]
    assert asked == [("rgb",)] * (1 + len(rows))
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(together, alone, strict=True))


def test_weights_in_half_precision_are_used_as_they_are(tmp_path: Path, stage: str) -> None:
    model, _ = load_first_stage(arguments(tmp_path, stage))
    clips = torch.randint(256, (3, 2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = encode(model.eval(), clips, "cpu")
    found = encode(model.to(torch.bfloat16), clips, "cpu")
    for half, whole in zip(found, wanted, strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, whole, atol=0.1, rtol=0.1)


def test_workers_and_resumption_change_nothing(tmp_path: Path, stage: str) -> None:
    whole = _extract(tmp_path / "a", stage)
    assert len(whole) == 3 + 2 + 2
    assert _extract(tmp_path / "b", stage, {"data__num_workers": 2}) == whole
    folder = tmp_path / "b" / "features" / "train"
    first, second, _ = sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert _extract(tmp_path / "b", stage) == whole
    again = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != times.get(path.name)}
    assert again == {first.name, second.name}


def test_the_thread_that_reads_puts_the_clips_together(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    together = feature_extraction.stacked_inputs

    def noted(*given: Any) -> Any:
        threads.add(threading.current_thread().name)
        return together(*given)

    monkeypatch.setattr(feature_extraction, "stacked_inputs", noted)
    assert _extract(tmp_path / "a", stage) and threads == {"m33d-read-ahead"}


def test_two_processes_extract_what_one_does(tmp_path: Path, stage: str) -> None:
    code, output = _launch(tmp_path / "two", stage, processes=2)
    assert code == 0, output
    folders = [tmp_path / "two" / "features" / name for name in ("train", "validation")]
    assert _files(folders) == _extract(tmp_path / "one", stage)


def test_a_killed_extraction_goes_on_where_it_was(tmp_path: Path, stage: str) -> None:
    code, output = _launch(tmp_path / "cut", stage, killer=20)  # dies in the last video, at frame 20
    assert code == 9, output
    folder = tmp_path / "cut" / "features" / "train"
    done = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    # The thread that reads dies up to two batches ahead of the model, which may still have the second video.
    assert len([name for name in done if name.endswith(".parquet")]) in (1, 2)
    (folder / ".tmp-0123-half.parquet").write_bytes(b"half")
    whole = _extract(tmp_path / "whole", stage)
    resumed = _extract(tmp_path / "cut", stage)
    assert {name: data for name, data in resumed.items() if ".tmp-" not in name} == whole
    assert all((folder / name).stat().st_mtime_ns == time for name, time in done.items())


def test_sigterm_ends_an_extraction_in_order(tmp_path: Path, stage: str) -> None:
    code, output = _launch(tmp_path, stage, killer=20, signal=int(signal.SIGTERM))
    assert code == 143 and "Traceback" not in output, output
    assert len(list((tmp_path / "features" / "train").glob("*.parquet"))) in (1, 2)
    assert not list((tmp_path / "features" / "train").glob(".tmp-*"))


def test_unreadable_clips_are_marked_listed_and_counted(tmp_path: Path, stage: str) -> None:
    clean = _extract(tmp_path / "clean", stage, {"data__max_bad_fraction": 0.5})
    bad = {"train/v1": [9, 10]}  # frames 8 and 10 are taken of the clip 8 to 11
    found = _extract(tmp_path / "bad", stage, {"data__max_bad_fraction": 0.5}, bad=bad)
    store = FeatureStore(tmp_path / "bad" / "features" / "train")
    video, good = store.read("train/v1"), FeatureStore(tmp_path / "clean" / "features" / "train").read("train/v1")
    assert (~video.valid).nonzero().flatten().tolist() == [2]
    assert not video.features[2].any() and not video.clip_logits[2].any()
    torch.testing.assert_close(video.features[video.valid], good.features[video.valid], atol=1e-6, rtol=1e-5)
    listed = read_skipped(tmp_path / "bad" / "skipped_files.csv")
    assert [(file.path, file.key) for file in listed] == [("/videos/train/v1.avi (frames 8 to 11)", "train/v1@8-12")]
    assert listed[0].reason == "frame 10 is damaged" and len(found) == len(clean)


def test_too_many_unreadable_clips_stop_the_run(tmp_path: Path, stage: str) -> None:
    bad = {"train/v1": list(range(27))}
    with pytest.raises(DataError, match=r"more than data\.max_bad_fraction"):
        _extract(tmp_path, stage, {"data__max_bad_fraction": 0.05}, bad=bad)
    _extract(tmp_path, stage, {"data__max_bad_fraction": 0.9}, bad=bad)  # fills the folder
    with pytest.raises(DataError, match=r"more than data\.max_bad_fraction"):  # found there, and still too many
        _extract(tmp_path, stage, {"data__max_bad_fraction": 0.05}, bad=bad)


def test_another_first_stage_or_clip_rule_is_refused(tmp_path: Path, stage: str) -> None:
    _extract(tmp_path / "run", stage)
    shared = {"features__dir": str(tmp_path / "run" / "features")}
    _extract(tmp_path / "elsewhere", stage, shared)  # the same, found there
    assert not (tmp_path / "elsewhere" / "features").exists()
    other = first_stage(tmp_path / "other", hidden_act="relu")
    with pytest.raises(ConfigError, match="these differ: weights"):
        _extract(tmp_path / "elsewhere", other, shared)
    with pytest.raises(ConfigError, match="these differ: source, clip"):
        _extract(tmp_path / "elsewhere", stage, {**shared, "features__clip_stride": 2})
    with pytest.raises(ConfigError, match="these differ: image"):
        _extract(tmp_path / "elsewhere", stage, {**shared, "transforms__eval_crop": "center"})
    videos = {**DEFAULT, "train": ["0" * 12 + "1" * 9 + "2" * 12]}
    with pytest.raises(ConfigError, match=r"these differ: source[\s\S]*source \(files were added, are gone"):
        _extract(tmp_path / "elsewhere", stage, shared, videos=videos)


def test_features_that_are_not_finite_are_refused(tmp_path: Path, stage: str) -> None:
    args = arguments(tmp_path, stage)
    task = ActionDetectionTask()
    model = build_model(args, task)
    with torch.no_grad():
        model.get_parameter("fc_norm.bias")[0] = np.nan
    with pytest.raises(DataError, match=r"not finite with train\.precision=no"):
        task.extract(args, model)
    assert not list((tmp_path / "features" / "train").glob("*.parquet"))


def test_the_digest_sees_every_first_stage_weight_and_nothing_else(stage: str, tmp_path: Path) -> None:
    args = arguments(tmp_path, stage)
    model, _ = load_first_stage(args)
    before = weights_digest(model)
    with torch.no_grad():
        model.get_parameter("gru.weight_ih_l0")[0, 0] += 1
    assert weights_digest(model) == before
    for name in ("m33d.encoders.rgb.layers.0.mlp.fc1.weight", "fc_norm.weight", "classifier.bias"):
        with torch.no_grad():
            model.get_parameter(name).flatten()[-1] += 1e-3
        assert weights_digest(model) != before, name
        before = weights_digest(model)
    assert isinstance(model, M33DForVideoActionDetection)


def test_the_command_extracts_both_splits(tmp_path: Path, stage: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [
        "--init_from", stage, "--output_dir", str(tmp_path / "out"), "--cpu", "true", "--data.source", "memory",
        "--data.frame_stride", "2", "--data.num_workers", "0", "--transforms.eval_crop", "resize",
        "--features.dir", str(tmp_path / "kept"),
    ]  # fmt: skip
    assert extract_features.main(words) == 0
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["train", "validation"]
    assert "features are in" in capfd.readouterr().out
    assert extract_features.main([*words, "--features.format", "safetensors"]) == 2
    assert "these differ: format" in capfd.readouterr().err
    assert list(json.loads((tmp_path / "kept/train/features.json").read_text())["classes"]) == NAMES
