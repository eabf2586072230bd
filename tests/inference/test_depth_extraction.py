"""inference/depth_extraction.py: models to sidecars, resumable, by rank, with one scale per video."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.depth_models import (
    RedPredictor,
    red_depth,
    save_depth_anything,
    save_dpt,
    save_ours,
    save_zoe,
    write_pictures,
)
from helpers.shared_data import shared
from helpers.videos import write_video
from helpers.watched_reading import watched_reading
from m33d_hf.data.depth.maps import DepthMaps, find_depth_maps, read_sidecar_spec
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError, DataError
from m33d_hf.inference import depth_extraction
from m33d_hf.inference.depth_extraction import DepthExtractionOptions, extract_depth, stored_size
from m33d_hf.inference.depth_items import list_items
from m33d_hf.inference.depth_models import load_depth_predictor
from m33d_hf.inference.folder_lock import shared_folder
from m33d_hf.inference.sharding import Place
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.modeling.video_reading_m33d import iterate_video, read_video

ALONE = Place(0, 1, 0)


def options(root: Path, **changes: Any) -> DepthExtractionOptions:
    values = {
        "model": "red",
        "input": root / "in",
        "output": root / "out",
        "items": "videos",
        "batch_size": 4,
        **changes,
    }
    return DepthExtractionOptions(**values)


def maps_of(root: Path, rel: str) -> DepthMaps:
    maps = find_depth_maps(root, rel)
    assert maps is not None, f"no depth of {rel}"
    return maps


@pytest.mark.parametrize("format", ["png", "parquet"])
def test_a_real_video_keeps_equal_predictions_equal(tmp_path: Path, format: str) -> None:
    """Time consistency: every frame's values come back at one scale, so ratios between frames survive."""
    video = shared("videos/hmdb51/wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi")
    summary = extract_depth(options(tmp_path, input=video, format=format, batch_size=7), ALONE, RedPredictor())
    expected = red_depth(np.stack([frame for _, frame in iterate_video(video)]))
    maps = maps_of(tmp_path / "out", video.stem)
    assert maps.length == len(expected) == summary.frames and maps.spec.kind == "inverse"
    found = maps.read(range(maps.length))[:, 0].numpy()
    assert np.abs(found - expected).max() < 16 / 32767
    stored = np.stack(maps.store.stored(range(maps.length)))
    for value in np.unique(expected)[::16]:
        assert len(np.unique(stored[expected == value])) == 1
    means = found.mean((1, 2)) / found[0].mean()
    assert np.allclose(means, expected.mean((1, 2)) / expected[0].mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("save", "stated", "kind"),
    [
        (save_depth_anything, "auto", "inverse"),
        (lambda folder: save_depth_anything(folder, "metric"), "auto", "metric"),
        (save_dpt, "inverse", "inverse"),
        (save_dpt, "relative", "relative"),
        (save_zoe, "auto", "metric"),
        (save_ours, "auto", "metric"),
    ],
    ids=["depth_anything", "depth_anything_metric", "dpt_inverse", "dpt_relative", "zoe", "ours"],
)
def test_models_of_transformers(tmp_path: Path, save: Callable[[Path], Path], stated: str, kind: str) -> None:
    """What is read back is what the model and its processor give when called by hand."""
    frames = write_pictures(tmp_path / "in" / "clip", 6)
    model = str(save(tmp_path / "model"))
    summary = extract_depth(options(tmp_path, model=model, kind=stated), ALONE)
    assert (summary.written, summary.frames) == (1, 6)
    maps = maps_of(tmp_path / "out", "clip")
    assert maps.spec.kind == kind
    predictor = load_depth_predictor(model, stated)
    inputs = predictor.processor(images=list(frames), return_tensors="pt")
    with torch.no_grad():
        outputs = predictor.model(**inputs)
    sizes = {"target_sizes": [(24, 30)] * 6} | ({"source_sizes": [(24, 30)] * 6} if save is save_zoe else {})
    results = predictor.processor.post_process_depth_estimation(outputs, **sizes)
    expected = torch.stack([result["predicted_depth"] for result in results])[:, None]
    assert expected.std() > 1e-3
    quantization = maps.store.quantization
    assert quantization is not None
    torch.testing.assert_close(maps.read(range(6)), expected, rtol=0, atol=0.51 / quantization.scale + 1e-5)
    assert summary.counts["pixels"] == 6 * 24 * 30


def test_kind_is_never_guessed(tmp_path: Path) -> None:
    model = str(save_dpt(tmp_path / "dpt"))
    with pytest.raises(ConfigError, match=r"'dpt' model does not say.*--kind metric.*--kind inverse.*--kind relative"):
        load_depth_predictor(model)
    relative = str(save_depth_anything(tmp_path / "anything"))
    with pytest.raises(ConfigError, match=r"was given --kind metric.*says inverse"):
        load_depth_predictor(relative, "metric")
    with pytest.raises(ConfigError, match=r"Did you mean 'inverse'"):
        load_depth_predictor(relative, "inversed")
    assert load_depth_predictor(relative, "inverse").kind == "inverse"


def test_models_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded as a depth estimation model"):
        load_depth_predictor(str(tmp_path / "nothing"))
    folder = save_ours(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        load_depth_predictor(str(folder))
    whole = M33DForDepthEstimation.from_pretrained(folder)
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith("depth_head")}
    whole.save_pretrained(folder, state_dict=state)
    with pytest.raises(CheckpointError, match=r"no weights for \d+ parameters.*noise"):
        load_depth_predictor(str(folder))


def test_images_of_different_sizes(tmp_path: Path) -> None:
    pictures = {}
    for name, (height, width) in {"a/one": (20, 30), "a/two": (31, 17), "b": (20, 30)}.items():
        pictures[name] = write_pictures(tmp_path / "scratch" / name, 1, height, width, seed=height)[0]
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[name]).save(path)
    chosen = options(tmp_path, items="auto", output=tmp_path / "in" / "depth")
    summary = extract_depth(chosen, ALONE, RedPredictor())
    assert summary.written == 3
    for name, pixels in pictures.items():
        found = maps_of(tmp_path / "in" / "depth", name).read([0])[0, 0].numpy()
        assert found.shape == pixels.shape[:2] and np.abs(found - red_depth(pixels)).max() < 16 / 32767
    again = extract_depth(chosen, ALONE, RedPredictor())  # the depth below the input is no input
    assert (again.items, again.written, again.already_there) == (3, 0, 3)


def test_ranks_share_the_work(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        write_pictures(tmp_path / "in" / name, 3)
    predictors = [RedPredictor() for _ in range(2)]
    summaries = [extract_depth(options(tmp_path), Place(rank, 2, rank), predictors[rank]) for rank in range(2)]
    assert [summary.written for summary in summaries] == [3, 2]
    assert [predictor.seen for predictor in predictors] == [9, 6]
    assert all(maps_of(tmp_path / "out", name).length == 3 for name in "abcde")
    limited = extract_depth(options(tmp_path, limit=2, output=tmp_path / "few"), ALONE, RedPredictor())
    assert limited.written == limited.items == 2


class Killed(Exception):
    """Stands for a signal."""


class Mortal(RedPredictor):
    """Dies after a number of pictures."""

    def __init__(self, lifetime: int) -> None:
        super().__init__()
        self.lifetime = lifetime

    def predict(self, images: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        if self.seen + len(images) > self.lifetime:
            raise Killed
        return super().predict(images, size)


@pytest.mark.parametrize("format", ["png", "parquet"])
def test_a_killed_run_continues_in_the_middle_of_a_video(tmp_path: Path, format: str) -> None:
    for name in ("first", "second"):
        write_pictures(tmp_path / "in" / name, 10, seed=len(name))
    with pytest.raises(Killed):
        extract_depth(options(tmp_path, format=format), ALONE, Mortal(15))
    assert find_depth_maps(tmp_path / "out", "second") is None
    second, lines = RedPredictor(), list[str]()
    summary = extract_depth(options(tmp_path, format=format), ALONE, second, lines.append)
    assert (summary.already_there, summary.written, summary.frames, second.seen) == (1, 1, 6, 6)
    assert any("second: continuing at frame 4 of 10" in line for line in lines)
    extract_depth(options(tmp_path, format=format, output=tmp_path / "at_once"), ALONE, RedPredictor())
    for name in ("first", "second"):
        whole = maps_of(tmp_path / "at_once", name).read(range(10))
        assert torch.equal(maps_of(tmp_path / "out", name).read(range(10)), whole)
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_video_file_continues_at_the_right_frame(tmp_path: Path) -> None:
    video = shared("videos/hmdb51/wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi")
    with pytest.raises(Killed):
        extract_depth(options(tmp_path, input=video), ALONE, Mortal(22))
    extract_depth(options(tmp_path, input=video), ALONE, RedPredictor())
    extract_depth(options(tmp_path, input=video, output=tmp_path / "at_once"), ALONE, RedPredictor())
    cut, whole = maps_of(tmp_path / "out", video.stem), maps_of(tmp_path / "at_once", video.stem)
    assert cut.length == whole.length > 22
    assert torch.equal(cut.read(range(cut.length)), whole.read(range(whole.length)))


class Waiting(RedPredictor):
    """Predicts once it may."""

    def __init__(self, until: threading.Event) -> None:
        super().__init__()
        self.until = until

    def predict(self, images: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        assert self.until.wait(20), "no frame is read meanwhile"
        return super().predict(images, size)


def test_frames_are_read_while_the_model_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch waits for a frame of the second, which never comes where one thread does both."""
    write_video(tmp_path / "in/a.mp4", 12)
    read = threading.Event()
    watched_reading(depth_extraction, monkeypatch, 5, read.set)
    assert extract_depth(options(tmp_path), ALONE, Waiting(read)).frames == 12
    monkeypatch.undo()
    extract_depth(options(tmp_path, output=tmp_path / "other"), ALONE, RedPredictor())
    assert torch.equal(maps_of(tmp_path / "out", "a").read(range(12)), maps_of(tmp_path / "other", "a").read(range(12)))


@pytest.mark.parametrize("error", [CorruptFileError("a.mp4", "ends in frame 9"), KeyboardInterrupt(), OSError("gone")])
def test_an_error_of_reading_leaves_no_thread_and_what_it_always_left(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    write_video(tmp_path / "in/a.mp4", 12)
    write_video(tmp_path / "in/b.mp4", 2)
    watched_reading(depth_extraction, monkeypatch, 9, fail)
    before, lines = threading.active_count(), list[str]()
    if isinstance(error, DataError):  # of this video nothing is kept, and the next has its turn
        summary = extract_depth(options(tmp_path, max_bad_fraction=0.5), ALONE, RedPredictor(), lines.append)
        assert summary.written == 1 and "a.mp4: ends in frame 9" in "\n".join(lines)
        assert not list((tmp_path / "out").rglob(".*"))
    else:  # two batches are complete
        with pytest.raises(type(error)):
            extract_depth(options(tmp_path), ALONE, RedPredictor(), lines.append)
        monkeypatch.undo()
        extract_depth(options(tmp_path), ALONE, RedPredictor(), lines.append)
        assert any("a: continuing at frame 8 of 12" in line for line in lines)
    assert threading.active_count() == before


def test_depth_that_cannot_be_written_is_written_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full for one batch only: no later one takes its place."""
    write_video(tmp_path / "in/a.mp4", 12)
    append, calls = depth_extraction.DepthVideoWriter.append, list[int]()

    def full(self: Any, depth: np.ndarray) -> None:
        calls.append(self.next_frame)
        if len(calls) == 2:
            raise OSError("No space left on device")
        append(self, depth)

    monkeypatch.setattr(depth_extraction.DepthVideoWriter, "append", full)
    with pytest.raises(OSError, match="No space"):
        extract_depth(options(tmp_path), ALONE, RedPredictor())
    assert calls == [0, 4]
    lines: list[str] = []
    extract_depth(options(tmp_path), ALONE, RedPredictor(), lines.append)
    assert any("a: continuing at frame 4 of 12" in line for line in lines)
    extract_depth(options(tmp_path, output=tmp_path / "other"), ALONE, RedPredictor())
    assert torch.equal(maps_of(tmp_path / "out", "a").read(range(12)), maps_of(tmp_path / "other", "a").read(range(12)))


def test_another_model_or_rule_may_not_add(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "a", 2)
    extract_depth(options(tmp_path), ALONE, RedPredictor())
    written = json.loads((tmp_path / "out" / "depth_spec.json").read_text())
    assert written["kind"] == "inverse" and written["provenance"]["model_digest"] == "red"
    assert read_sidecar_spec(tmp_path / "out").invalid_values == (0,)
    for words, changes, predictor in (
        ("model_digest: red there, blue now", {}, RedPredictor(digest="blue")),
        ("kind: inverse there, relative now", {}, RedPredictor("relative")),
        ("format: png there, parquet now", {"format": "parquet"}, RedPredictor()),
        ("short_side: None there, 8 now", {"short_side": 8}, RedPredictor()),
        ("items: videos there, images now", {"items": "images"}, RedPredictor()),
    ):
        with pytest.raises(ConfigError, match=words):
            extract_depth(options(tmp_path, **changes), ALONE, predictor)
    (tmp_path / "out" / "depth_spec.json").write_text('{"kind": "inverse"}')
    with pytest.raises(ConfigError, match="not written by depth extraction"):
        extract_depth(options(tmp_path), ALONE, RedPredictor())


def test_another_input_of_the_same_name_may_not_add(tmp_path: Path) -> None:
    """Frames of two days, named alike: the second day never gets the first one's depth."""
    for day in ("day1", "day2"):
        write_pictures(tmp_path / day / "walk", 2)
    write_pictures(tmp_path / "day2" / "run", 2)
    extract_depth(options(tmp_path, input=tmp_path / "day1"), ALONE, RedPredictor())
    with pytest.raises(ConfigError, match=r"walk is .*day1/walk there, .*day2/walk now"):
        extract_depth(options(tmp_path, input=tmp_path / "day2"), ALONE, RedPredictor())
    assert extract_depth(options(tmp_path, input=tmp_path / "day2/run"), ALONE, RedPredictor()).written == 1
    (tmp_path / "day1").rename(tmp_path / "moved")
    assert extract_depth(options(tmp_path, input=tmp_path / "moved"), ALONE, RedPredictor()).already_there == 1
    (tmp_path / "moved").rename(tmp_path / "day1")
    (tmp_path / "out/inputs.jsonl").unlink()  # as an earlier version left it
    assert extract_depth(options(tmp_path, input=tmp_path / "day1"), ALONE, RedPredictor()).already_there == 1


def test_an_input_that_was_replaced_in_place_is_refused_until_its_depth_is_removed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "walk", 2)
    extract_depth(options(tmp_path), ALONE, RedPredictor())
    pictures = write_pictures(tmp_path / "in" / "walk", 2, seed=7)
    with pytest.raises(ConfigError, match=r"in/walk has changed since.* remove what was made of walk"):
        extract_depth(options(tmp_path), ALONE, RedPredictor())
    shutil.rmtree(tmp_path / "out" / "walk")
    assert extract_depth(options(tmp_path), ALONE, RedPredictor()).written == 1
    found = maps_of(tmp_path / "out", "walk").read([0])[0, 0].numpy()
    assert np.abs(found - red_depth(pictures[0])).max() < 16 / 32767


def test_half_precision_weights_are_run_in_full(tmp_path: Path) -> None:
    folder = save_ours(tmp_path / "model")
    M33DForDepthEstimation.from_pretrained(folder).half().save_pretrained(folder)
    predictor = load_depth_predictor(str(folder))
    assert {parameter.dtype for parameter in predictor.model.parameters()} == {torch.float32}
    assert np.isfinite(predictor.predict([np.full((5, 7, 3), 90, np.uint8)])).all()


def test_a_source_reads_video_and_depth_together(tmp_path: Path) -> None:
    """By the way that ucf101 and phases take: frame i of the depth belongs to frame i of the video."""
    video = shared("videos/hmdb51/wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi")
    extract_depth(options(tmp_path, input=video, format="parquet"), ALONE, RedPredictor())
    sample = VideoFile("wave", video, depth=maps_of(tmp_path / "out", video.stem)).read([30, 3])
    assert sample.rgb is not None and sample.depth is not None
    expected = torch.from_numpy(red_depth(sample.rgb.permute(0, 2, 3, 1).numpy()))[:, None]
    torch.testing.assert_close(sample.depth, expected, rtol=0, atol=16 / 32767)


def test_weights_are_what_tells_models_apart(tmp_path: Path) -> None:
    one, two, three = (
        load_depth_predictor(str(save_ours(tmp_path / name, seed))).digest
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == two != three


def test_unreadable_inputs_are_listed_and_budgeted(tmp_path: Path) -> None:
    for name in ("a", "c"):
        write_pictures(tmp_path / "in" / name, 3)
    (tmp_path / "in" / "b.avi").write_bytes(b"no video")
    truncated = tmp_path / "in" / "d" / "frame_002.png"
    write_pictures(truncated.parent, 4)
    truncated.write_bytes(truncated.read_bytes()[:60])
    summary = extract_depth(options(tmp_path, max_bad_fraction=0.5), ALONE, RedPredictor())
    assert (summary.written, len(summary.skipped)) == (2, 2)
    listed = read_skipped(tmp_path / "out" / "skipped_files.csv")
    assert [file.key for file in listed] == ["b", "d"] and all(file.reason for file in listed)
    assert find_depth_maps(tmp_path / "out", "d") is None and not list((tmp_path / "out").rglob(".*"))
    assert "skipped" in summary.describe() and "b.avi" in summary.describe()
    with pytest.raises(DataError, match=r"1 unreadable input.*--max_bad_fraction 0 allows.*b\.avi"):
        extract_depth(options(tmp_path, max_bad_fraction=0.0), ALONE, RedPredictor())


def test_depth_that_is_there_already_is_no_input(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("walk", "depth/walk"):
        write_pictures(tmp_path / "in" / folder, 2)
    for items, names in (("videos", ["walk"]), ("images", ["walk/frame_000", "walk/frame_001"])):
        caplog.clear()
        assert [item.rel for item in list_items(tmp_path / "in", items)] == names
        assert "2 maps of depth or labels by name left aside" in caplog.text
    caplog.clear()
    assert [item.rel for item in list_items(tmp_path / "in", "videos", exclude=tmp_path / "in/depth")] == ["walk"]
    assert not caplog.text, "its own output"


def test_what_auto_means(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "walk", 4)
    with pytest.raises(ConfigError, match=r"4 numbered pictures.*--items videos.*--items images"):
        list_items(tmp_path / "in")
    assert [item.rel for item in list_items(tmp_path / "in", metric=True)][:2] == ["walk/frame_000", "walk/frame_001"]
    assert [(item.rel, item.is_video) for item in list_items(tmp_path / "in", "videos")] == [("walk", True)]
    assert [item.rel for item in list_items(tmp_path / "in" / "walk", "videos")] == ["walk"]
    (tmp_path / "in" / "run.avi").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"4 pictures and 1 video file\."):
        list_items(tmp_path / "in")
    (tmp_path / "in" / "walk.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 inputs differ only in their suffix"):
        list_items(tmp_path / "in", "videos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        list_items(tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        list_items(tmp_path / "nowhere")


def test_options_that_cannot_be(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "a", 2)
    for words, changes in (
        ("--format 'tiff'", {"format": "tiff"}),
        ("--batch_size 0", {"batch_size": 0}),
        ("--output is the input", {"output": tmp_path / "in"}),
        ("--max_bad_fraction 2", {"max_bad_fraction": 2.0}),
        ("--items 'frames'", {"items": "frames"}),
    ):
        with pytest.raises(ConfigError, match=words):
            extract_depth(options(tmp_path, **changes), ALONE, RedPredictor())


def test_depth_may_be_stored_small(tmp_path: Path) -> None:
    assert stored_size((480, 640), 240) == (240, 320) and stored_size((100, 60), 240) == (100, 60)
    write_pictures(tmp_path / "in" / "a", 2)
    model = str(save_ours(tmp_path / "model"))
    extract_depth(options(tmp_path, model=model, short_side=12), ALONE)
    assert maps_of(tmp_path / "out", "a").read([0]).shape == (1, 1, 12, 15)


@pytest.mark.parametrize("given", [".", "videos"])
@pytest.mark.parametrize("format", ["png", "parquet"])
def test_depth_of_cholec80_is_found_by_the_source(tmp_path: Path, given: str, format: str) -> None:
    """Whatever of ROOT and ROOT/videos was extracted, and whatever of the depth folders is named."""
    root = tmp_path / "cholec80"
    for name, count in (("video01", 12), ("video02", 9)):
        write_video(root / "videos" / f"{name}.mp4", count)
    extract_depth(options(tmp_path, input=root / given, output=root / "depth", format=format), ALONE, RedPredictor())
    places: list[str] = ["auto", "depth", str(root / "depth")] + (["depth/videos"] if given == "." else [])
    for place in places:
        source = PhasesSource(root, unit="videos", depth=place, require_depth=True)
        assert [video.key for video in source.videos] == ["video01", "video02"] and not source.unpaired
        sample = source.videos[1].handle.read([3])
        expected = red_depth(np.stack([read_video(root / "videos/video02.mp4", [3])[0]]))
        assert sample.depth is not None
        np.testing.assert_allclose(sample.depth[0, 0].numpy(), expected[0], atol=16 / 32767)


def test_missing_depth_names_the_command(tmp_path: Path) -> None:
    root = tmp_path / "cholec80"
    write_video(root / "videos" / "video01.mp4", 5)
    (root / "depth" / "other").mkdir(parents=True)
    (root / "depth" / "depth_spec.json").write_text('{"kind": "inverse"}')
    command = f"extract_depth.py --model MODEL --items videos --input {root} --output {root / 'depth'}"
    with pytest.raises(DataError, match=f"neither videos/video01 nor video01 .*{re.escape(command)}"):
        PhasesSource(root, unit="videos", require_depth=True)
    (root / "depth" / "videos").mkdir()
    for name in ("video01", "videos/video01"):
        np.save(root / "depth" / f"{name}.npy", np.ones((5, 8, 8), np.float32))
    with pytest.raises(DataError, match="under two names: videos/video01 and video01"):
        PhasesSource(root, unit="videos")


def test_two_extractions_do_not_share_a_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "clip", 3)
    chosen = options(tmp_path)

    def meanwhile(line: str) -> None:
        with pytest.raises(ConfigError, match=r"is being written by process \d+ on .*--output|is being written by"):
            extract_depth(chosen, ALONE, RedPredictor(), say=print)
        with pytest.raises(ConfigError, match="is being written by"):
            extract_depth(chosen, Place(1, 2, 1), RedPredictor(), say=print)

    assert extract_depth(chosen, ALONE, RedPredictor(), say=meanwhile).written == 1
    assert extract_depth(chosen, ALONE, RedPredictor()).already_there == 1


def test_the_processes_of_a_launch_share_a_folder(tmp_path: Path) -> None:
    with shared_folder(tmp_path, Place(0, 2, 0)), shared_folder(tmp_path, Place(1, 2, 1)):
        for other in (Place(1, 2, 1), Place(2, 4, 2), ALONE):
            with pytest.raises(ConfigError, match="is being written by"), shared_folder(tmp_path, other):
                pytest.fail("two launches in one folder")
    with shared_folder(tmp_path, ALONE):
        pass


def test_code_of_a_repository_runs_only_when_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask on the terminal; nobody is asked, and the error names the flag."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    entry = {"AutoConfig": "own.OwnConfig", "AutoModelForDepthEstimation": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own_depth", "auto_map": entry}))
    (folder / "own.py").write_text("raise SystemExit('the code ran')")

    def asked(*_: object) -> str:
        pytest.fail("somebody was asked")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(CheckpointError, match="Read the code, then pass --trust_remote_code"):
        extract_depth(options(tmp_path, model=str(folder), input=tmp_path), ALONE)
    with pytest.raises(SystemExit, match="the code ran"):
        load_depth_predictor(str(folder), trust_remote_code=True)
