"""Long-video detection: streamed equals whole, causal equals offline, bad stretches are told, memory stays flat."""

from __future__ import annotations

import csv
import gc
import itertools
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.phases_in_memory import MODEL, NAMES, SIDE, first_stage
from helpers.videos import cut_short, write_uneven, write_video
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sources.phases.base import cut_clips
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError
from m33d_hf.inference.case_videos import find_case_videos
from m33d_hf.inference.detection import clip_encoder, watched_video
from m33d_hf.inference.detection.clip_encoder import BATCHES_AHEAD, FRAMES_AHEAD
from m33d_hf.inference.detection_files import check_output, find_videos, time_text, videos_below, write_detection
from m33d_hf.inference.live.clips import ClipAssembler
from m33d_hf.inference.loading import usable_device
from m33d_hf.inference.prediction.inputs import find_inputs
from m33d_hf.inference.timeline import ActionDetector, Stretch
from m33d_hf.modeling import video_reading_m33d
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.scripts import detect_actions
from m33d_hf.training.tasks.detection.features import ClipRule


def _model(**changes: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = M33DConfig(**{**MODEL, **labels, "temporal_hidden_size": 8, "temporal_frame_stride": 2, **changes})
    return M33DForVideoActionDetection(config).eval()


def _frames(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator_of(number // 5, "f"), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("length", [1, 3, 4, 9, 16, 17])
@pytest.mark.parametrize("rule", [ClipRule(2, 2, 4), ClipRule(3, 2, 2), ClipRule(2, 1, 5), ClipRule(1, 1, 1)])
def test_streamed_clips_are_those_of_the_whole_video(rule: ClipRule, length: int) -> None:
    assembler, found = ClipAssembler(rule), []
    for number in range(length):
        frame = torch.full((3, 1, 1), number, dtype=torch.uint8) if rule.takes(number) else None
        found += assembler.push(number, frame)
    found += assembler.finish(length)
    wanted = cut_clips(np.zeros(length, np.uint8), rule.span, rule.clip_stride)
    assert [(clip.start, clip.stop) for clip in found] == [(span.start, span.stop) for span in wanted]
    for clip in found:
        expected = [clip.start + offset for offset in rule.frames(clip.stop - clip.start)]
        assert clip.frames is not None and clip.frames[:, 0, 0, 0].tolist() == expected


@pytest.mark.parametrize("rule", [ClipRule(2, 2, 4), ClipRule(3, 2, 2), ClipRule(2, 1, 5), ClipRule(3, 4, 7)])
def test_frames_that_are_taken_are_those_of_all_clips(rule: ClipRule) -> None:
    clips = cut_clips(np.zeros(90, np.uint8), rule.span, rule.clip_stride)
    taken = {clip.start + offset for clip in clips for offset in rule.frames(rule.span)}
    assert [number for number in range(60) if rule.takes(number)] == sorted(each for each in taken if each < 60)


def test_frames_that_no_clip_takes_change_nothing(tmp_path: Path) -> None:
    path, model = write_video(tmp_path / "a.mp4", 37), _model(temporal_clip_stride=7)
    options = TransformOptions(eval_crop="resize")
    spared = ActionDetector(model, options).detect(path)
    whole = ActionDetector(model, options, frames=lambda path, start: iterate_video(path, start=start)).detect(path)
    assert len(spared.clips) == len(whole.clips) > 4
    for ours, theirs in zip(spared.clips, whole.clips, strict=True):
        assert (ours.start, ours.stop, ours.readable) == (theirs.start, theirs.stop, True)
        assert np.array_equal(ours.probabilities, theirs.probabilities)
        assert np.array_equal(ours.clipwise, theirs.clipwise)


def test_detection_equals_the_model_on_all_clips_at_once(tmp_path: Path) -> None:
    folder, model = _frames(tmp_path / "video", 23), _model(temporal_clip_stride=3)
    detection = ActionDetector(model, TransformOptions(eval_crop="resize"), batch_size=3).detect(folder, fps=5.0)
    from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
    from m33d_hf.modeling.video_reading_m33d import read_video

    rule = ClipRule(2, 2, 3)
    spans = cut_clips(np.zeros(23, np.uint8), rule.span, rule.clip_stride)
    clips = [read_video(folder, [s.start + o for o in rule.frames(s.stop - s.start)]) for s in spans]
    spec = model.config.spec("rgb")
    pixels = normalize_rgb(torch.from_numpy(np.stack(clips)).movedim(-1, 2), spec.channel_mean, spec.channel_std)
    with torch.no_grad():
        output = model(pixel_values=pixels[None])
    assert [(c.start, c.stop) for c in detection.clips] == [(s.start, s.stop) for s in spans]
    found = torch.from_numpy(np.stack([clip.probabilities for clip in detection.clips]))
    torch.testing.assert_close(found, output.logits[0].softmax(-1), atol=1e-5, rtol=1e-5)
    clipwise = torch.from_numpy(np.stack([clip.clipwise for clip in detection.clips]))
    torch.testing.assert_close(clipwise, output.clip_logits[0].softmax(-1), atol=1e-5, rtol=1e-5)
    assert detection.length == 23 and not detection.unreadable
    runs = detection.segments()
    assert runs[0][0] == 0 and runs[-1][1] == 23
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(runs))


@pytest.mark.parametrize(("batch_size", "temporal_model"), [(1, "gru"), (4, "gru"), (1, "tcn"), (1, "transformer")])
def test_following_a_video_says_what_detection_says(tmp_path: Path, batch_size: int, temporal_model: str) -> None:
    folder = _frames(tmp_path / "video", 23)
    (folder / "9.png").write_bytes(b"no picture")  # one damaged frame that a clip needs
    (folder / "9.png").rename(folder / "8.png")
    _write_picture(folder / "9.png")
    detector = ActionDetector(_model(temporal_causal=True, temporal_model=temporal_model), batch_size=batch_size)
    offline, online = detector.detect(folder), list(detector.follow(folder))
    assert [clip.readable for clip in online] == [True, True, False, True, True, True]
    for one, other in zip(offline.clips, online, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert np.array_equal(one.clipwise, other.clipwise) and one.stop == other.stop


def _write_picture(path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(path)


def test_predictions_come_before_the_next_frame_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, told = _fake_reader(monkeypatch, total=12), threading.Semaphore(0)

    def camera(path: Path, start: int) -> Iterator[tuple[int, np.ndarray]]:
        for number, frame in reader(path, start):
            if number in (4, 8):  # of the next clip: not there before the one before has been told
                assert told.acquire(timeout=20)
            yield number, frame

    stream = ActionDetector(_model(temporal_causal=True), batch_size=1, frames=camera).follow("live")
    for stop in (4, 8, 12):
        assert next(stream).stop == stop
        told.release()


def test_memory_is_bounded_where_the_model_is_slower_than_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    reader = _fake_reader(monkeypatch, total=400, given=given)
    stream = ActionDetector(_model(temporal_causal=True), batch_size=1, frames=reader).follow("video")
    assert next(stream).stop == 4
    time.sleep(0.3)
    assert len(given) <= 4 * (1 + BATCHES_AHEAD + 1) + 1 + FRAMES_AHEAD + 1
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "m33d-read-ahead"]


def test_the_thread_that_reads_puts_the_clips_together(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    together = clip_encoder._Batch.of

    def noted(clips: Any) -> Any:
        threads.append(threading.current_thread().name)
        return together(clips)

    monkeypatch.setattr(clip_encoder._Batch, "of", noted)
    reader = _fake_reader(monkeypatch, total=24, given=[])
    assert len(list(ActionDetector(_model(temporal_causal=True), batch_size=2, frames=reader).follow("video"))) == 6
    assert threads == ["m33d-read-ahead"] * 3


def test_how_far_a_video_is_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_encoder, "SECONDS_BETWEEN_LINES", 0.0)
    said: list[str] = []
    ActionDetector(_model(), batch_size=1).detect(_frames(tmp_path / "video", 23), None, said.append, "video 1 of 2, a")
    places = [int(line.split(": ")[1].split(" of 23 frames")[0]) for line in said]
    assert places == [4, 8, 12, 16, 20, 23] and all(line.startswith("video 1 of 2, a: ") for line in said)


def test_only_causal_models_follow(tmp_path: Path) -> None:
    detector = ActionDetector(_model())
    with pytest.raises(ConfigError, match="temporal_causal"):
        next(detector.follow(_frames(tmp_path / "video", 5)))


def _fake_reader(
    monkeypatch: pytest.MonkeyPatch,
    total: int,
    given: list[int] | None = None,
    bad: frozenset[int] = frozenset(),
    live: list[Any] | None = None,
) -> Any:
    monkeypatch.setattr(watched_video, "cached_info", lambda path: VideoInfo(total, 10.0, SIDE, SIDE, "fake"))

    def read(path: Path, start: int) -> Iterator[tuple[int, np.ndarray]]:
        for number in range(start, total):
            if number in bad:
                raise CorruptFileError(path, "damaged")
            frame = np.full((SIDE, SIDE, 3), number % 251, np.uint8)
            if live is not None:
                live.append(weakref.ref(frame))
            if given is not None:
                given.append(number)
            yield number, frame

    return read


def test_unreadable_stretches_are_told_and_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = frozenset(range(10, 17))
    given: list[int] = []
    reader = _fake_reader(monkeypatch, total=60, bad=bad, given=given)
    found = ActionDetector(_model(), frames=reader).detect("film.avi")
    assert found.length == 60
    assert found.unreadable == [Stretch(10, 17, "damaged")]  # probed at 11, 12, 14, 18, then halved back
    lost = [(clip.start, clip.stop) for clip in found.clips if not clip.readable]
    assert lost == [(8, 12), (12, 16), (16, 20)]
    phases = found.frame_phases()
    assert (phases[8:20] == 255).all() and (phases[:8] != 255).all() and (phases[20:] != 255).all()
    assert all(stop <= 8 or start >= 20 for start, stop, *_ in found.segments())


@pytest.mark.parametrize("bad", [[0, 1, 2], [37], [20, 21, 22, 39], [5, 7, 9], list(range(30, 40)), [0, 38]])
def test_every_readable_frame_outside_a_stretch_is_read(monkeypatch: pytest.MonkeyPatch, bad: list[int]) -> None:
    given: list[int] = []
    reader = _fake_reader(monkeypatch, total=40, bad=frozenset(bad), given=given)
    video = watched_video.WatchedVideo(Path("film.avi"), reader)
    frames = dict(video)
    assert list(frames) == list(range(40))
    assert [number for number, frame in frames.items() if frame is None] == bad
    assert [n for stretch in video.unreadable for n in range(stretch.start, stretch.stop)] == bad


def test_a_damaged_video_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_video(tmp_path / "film.avi", 60, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(film.read_bytes())
    places = [found.start() for found in re.finditer(b"00dc", bytes(data)) if found.start() > data.index(b"movi")]
    for number in (20, 21, 40):
        data[places[number] + 8 : places[number + 1]] = bytes(places[number + 1] - places[number] - 8)
    film.write_bytes(data)
    looked: list[Path] = []
    scan = video_reading_m33d.scan_pyav

    def counted(path: Path) -> Any:
        looked.append(path)
        return scan(path)

    monkeypatch.setattr(video_reading_m33d, "scan_pyav", counted)
    detection = ActionDetector(_model()).detect(film)
    assert [(stretch.start, stretch.stop) for stretch in detection.unreadable] == [(20, 22), (40, 41)]
    assert len(looked) == 1


def test_a_video_of_which_nothing_can_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = _fake_reader(monkeypatch, total=12, bad=frozenset(range(12)))
    with pytest.raises(CorruptFileError, match=r"no clip of it can be read \(damaged\)"):
        ActionDetector(_model(), frames=reader).detect("film.avi")


def test_memory_does_not_grow_with_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time are more frames alive than a clip, a batch and what waits hold, however long the video is."""
    live: list[Any] = []
    most = 0
    reader = _fake_reader(monkeypatch, total=1000, live=live)
    detector = ActionDetector(_model(temporal_clip_stride=2), batch_size=2, frames=reader)
    push = ClipAssembler.push

    def counted(self: ClipAssembler, number: int, frame: Any) -> Any:
        nonlocal most
        if number % 100 == 0:
            gc.collect()
            live[:] = [reference for reference in live if reference() is not None]
            kept = sum(tensor is not None for frames in self._open.values() for tensor in frames)
            most = max(most, len(live) + kept)
        return push(self, number, frame)

    monkeypatch.setattr(ClipAssembler, "push", counted)
    assert len(detector.detect("film.avi").clips) == 499
    assert most <= 8 + FRAMES_AHEAD + 1


def test_files_of_a_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = _fake_reader(monkeypatch, total=700)
    detection = ActionDetector(_model(), frames=reader).detect("film.avi")
    written = write_detection(tmp_path, "film", detection)
    assert [path.name for path in written] == ["film_segments.csv", "film_clips.csv", "film_timeline.png"]
    with written[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["start_frame"] == "0" and rows[0]["start_time"] == "00:00.00"
    assert rows[-1]["end_frame"] == "699" and rows[-1]["end_time"] == "01:10.00"
    assert all(int(a["end_frame"]) + 1 == int(b["start_frame"]) for a, b in itertools.pairwise(rows))
    with written[1].open(newline="") as file:
        clips = list(csv.DictReader(file))
    assert len(clips) == 175
    assert all(abs(sum(float(clip[name]) for name in NAMES) - 1) < 1e-5 for clip in clips)
    with Image.open(written[2]) as image:
        assert image.width > 400


def _segment_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_times_are_those_of_the_frames(tmp_path: Path) -> None:
    """A variable rate: frame 64 begins at 10.6 s; its number over the mean rate would say 16 (or 15.42) s."""
    film, model = write_uneven(tmp_path / "film.mp4"), _model(temporal_causal=True)
    detection = ActionDetector(model).detect(film)
    followed = list(ActionDetector(model, batch_size=1).follow(film))
    by_start = {clip.start: clip for clip in detection.clips}
    assert by_start[64].start_time == pytest.approx(10.6) and by_start[48].start_time == pytest.approx(4.8)
    assert [clip.start_time for clip in followed] == [clip.start_time for clip in detection.clips]
    written = write_detection(tmp_path / "out", "film", detection)
    clips = {row["start_frame"]: row for row in _segment_rows(written[1])}
    assert clips["64"]["start_time"] == "00:10.60" and clips["96"]["end_time"] == "00:25.00"
    assert _segment_rows(written[0])[-1]["end_time"] == "00:25.00"
    stated = ActionDetector(model).detect(film, fps=10.0)
    assert stated.fps == 10.0 and stated.clips[16].start_time == pytest.approx(6.4)


def test_a_recording_that_is_cut_short_is_told_in_table_picture_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import m33d_hf.visualization.timeline as pictures

    film = cut_short(write_video(tmp_path / "film.mkv", 200, codec="libx264"))
    drawn: dict[str, Any] = {}

    def noted(*args: Any, **options: Any) -> Any:
        drawn.update(options)

    monkeypatch.setattr(pictures, "timeline_figure", noted)
    detection = ActionDetector(_model()).detect(film)
    written = write_detection(tmp_path / "out", "film", detection)
    last = _segment_rows(written[0])[-1]
    ends = detection.length / 25
    assert (last["phase"], last["readable"], last["start_time"]) == ("", "0", f"00:{ends:05.2f}")
    assert last["end_time"] == "00:08.00" and "announces 8.0 s" in last["note"]
    assert drawn["unreadable"] == [(ends, pytest.approx(8.0))]
    assert "is incomplete: the file announces 8.0 s" in caplog.text


def test_stretches_that_cannot_be_read_have_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = _fake_reader(monkeypatch, total=60, bad=frozenset(range(10, 17)))
    written = write_detection(tmp_path, "film", ActionDetector(_model(), frames=reader).detect("film.avi"))
    rows = _segment_rows(written[0])
    (lost,) = [row for row in rows if row["readable"] == "0"]
    assert (lost["start_frame"], lost["end_frame"], lost["note"], lost["phase"]) == ("8", "19", "damaged", "")
    assert all(int(a["end_frame"]) + 1 == int(b["start_frame"]) for a, b in itertools.pairwise(rows))


def test_time_text_counts_minutes_past_the_hour() -> None:
    assert time_text(0, 25.0) == "00:00.00"
    assert time_text(25 * 4503, 25.0) == "75:03.00"
    assert time_text(16, 25.0) == "00:00.64"
    assert time_text(1499, 25.0) == "00:59.96"
    assert time_text(7, None) == ""


def test_find_videos_takes_files_frames_and_folders_of_both(tmp_path: Path) -> None:
    _frames(tmp_path / "all" / "day1" / "frames", 1)
    for name in ("all/a.mp4", "all/day1/a.mp4", "all/b.avi", "all/b.mp4", "all/notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = find_videos([tmp_path / "all"])
    assert set(found) == {"a", "day1_a", "day1_frames", "b.avi", "b.mp4"}
    assert set(find_videos([tmp_path / "all/day1/frames", tmp_path / "all/a.mp4"])) == {"frames", "a"}
    with pytest.raises(ConfigError, match="would both be written as 'a'"):
        find_videos([tmp_path / "all/a.mp4", tmp_path / "all/day1/a.mp4"])
    with pytest.raises(ConfigError, match="does not exist"):
        find_videos([tmp_path / "nowhere"])


@pytest.mark.parametrize("look", [find_videos, lambda paths: find_case_videos(paths, "folder")])
def test_links_are_followed_and_folders_without_a_video_are_refused(
    tmp_path: Path, look: Callable[[list[Path]], Any]
) -> None:
    _frames(tmp_path / "disk/left", 1)
    (tmp_path / ".data/case").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"neither a video nor a folder of frames \(files: nothing\)"):
        look([tmp_path / ".data"])
    (tmp_path / ".data/case/left").symlink_to(tmp_path / "disk/left")
    (tmp_path / ".data/case/up").symlink_to(tmp_path / ".data")
    look([tmp_path / ".data"])
    assert videos_below(tmp_path / ".data") == [tmp_path / ".data/case/left"]
    assert [item.path for item in find_inputs([tmp_path / ".data"], frames_are_videos=True).items] == [
        tmp_path / ".data/case/left"
    ]


def test_imported_recordings_are_called_what_their_folders_are(tmp_path: Path) -> None:
    for name in ("or1/left", "or1/ceiling"):
        _frames(tmp_path / name / "color", 1)
        _frames(tmp_path / name / "depth", 1)
        (tmp_path / name / "import.json").write_text("{}")
        (tmp_path / name / "frames.csv").write_text("number,seconds\n0,0\n")
    _frames(tmp_path / "or2/color", 1)
    wanted = {"or1_ceiling": "or1/ceiling/color", "or1_left": "or1/left/color", "or2_color": "or2/color"}
    assert find_videos([tmp_path]) == {name: tmp_path / place for name, place in wanted.items()}, "as in training"
    for given in ("or1/left", "or1/left/color"):
        assert find_videos([tmp_path / given]) == {"left": tmp_path / "or1/left/color"}
    for given in (tmp_path, tmp_path / "or1"):
        cases, _ = find_case_videos([given], "folder")
        assert {camera.name: camera.path for camera in cases["or1"]} == {
            name: tmp_path / "or1" / name / "color" for name in ("ceiling", "left")
        }


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--device 'nonsense'"):
        usable_device("nonsense")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto").type in ("cpu", "mps", "xpu")


def test_a_first_stage_alone_detects_nothing(tmp_path: Path) -> None:
    stage = first_stage(tmp_path / "stage1")
    with pytest.raises(CheckpointError, match=r"lacks 10 weights, such as 'gru.*run_action_detection\.py --init_from"):
        ActionDetector.from_pretrained(stage)


def test_the_geometry_is_that_of_the_training(tmp_path: Path) -> None:
    best = tmp_path / "checkpoints" / "best"
    _model().save_pretrained(best)
    assert ActionDetector.from_pretrained(best).transform.options.eval_crop == "center"
    said = {"args": {"transforms": {"eval_crop": "pad", "resize_mode": "bicubic"}}}
    (tmp_path / "train_config.json").write_text(json.dumps(said))
    options = ActionDetector.from_pretrained(best).transform.options
    assert (options.eval_crop, options.resize_mode) == ("pad", "bicubic")
    (tmp_path / "train_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ActionDetector.from_pretrained(best)


def test_the_command_goes_on_past_a_bad_video(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _model().save_pretrained(tmp_path / "model")
    said = {"args": {"transforms": {"eval_crop": "resize", "resize_mode": "bilinear"}}}
    (tmp_path / "model" / "train_config.json").write_text(json.dumps(said))
    _frames(tmp_path / "videos" / "good", 12)
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"this is not a video")
    words = ["--model", str(tmp_path / "model"), "--video", str(tmp_path / "videos"), "--device", "cpu"]
    assert detect_actions.main([*words, "--output", str(tmp_path / "out"), "--fps", "4"]) == 1
    captured = capfd.readouterr()
    assert "bad.mp4: left out" in captured.err and "12 frames, 3 clips" in captured.out
    with next(tmp_path.rglob("skipped_files.csv")).open(newline="", encoding="utf-8") as file:
        (listed,) = csv.DictReader(file)
    assert Path(listed["path"]).name == "bad.mp4" and listed["key"] == "bad" and listed["reason"] in captured.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["good_clips.csv", "good_segments.csv", "good_timeline.png", "skipped_files.csv"]
    assert detect_actions.main([*words, "--output", str(tmp_path / "out"), "--model", str(tmp_path)]) == 2
    assert "holds no trained action detection" in capfd.readouterr().err


def test_the_command_exports_and_says_what_it_could_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _model().save_pretrained(tmp_path / "model")
    _frames(tmp_path / "videos" / "good", 12)
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "good.csv").write_text(f"start_frame,end_frame,phase\n0,5,{NAMES[0]}\n6,11,{NAMES[1]}\n")
    words = ["--model", str(tmp_path / "model"), "--video", str(tmp_path / "videos"), "--device", "cpu"]
    words += ["--output", str(tmp_path / "out"), "--export", "srt", "html"]
    assert detect_actions.main(words) == 2  # nothing says how long a frame lasts: no subtitles of the only video
    assert "--export srt needs times" in (told := capfd.readouterr().err) and "pass --fps" in told
    assert not list((tmp_path / "out").iterdir()), "it is said before anything is detected"
    write_video(tmp_path / "videos" / "timed.mp4", 12)
    assert detect_actions.main(words) == 1
    assert "good: not exported" in (told := capfd.readouterr().err) and "good: it will not be exported" in told
    assert (tmp_path / "out" / "good_review.html").is_file() and not (tmp_path / "out" / "good_segments.srt").exists()
    assert (tmp_path / "out" / "timed_segments.srt").is_file()
    assert detect_actions.main([*words, "--fps", "4", "--truth", str(tmp_path / "truth")]) == 0
    assert (tmp_path / "out" / "good_segments.srt").read_text().startswith("1\n00:00:00,000 --> ")
    assert '"name":"truth"' in (tmp_path / "out" / "good_review.html").read_text(encoding="utf-8")
    halved = f"start_frame,end_frame,phase\n0,2,{NAMES[0]}\n3,5,{NAMES[1]}\n"
    (tmp_path / "truth" / "good.csv").write_text(halved)
    (tmp_path / "out" / "good_review.html").unlink()
    words = [*words, "--fps", "4", "--truth", str(tmp_path / "truth")]
    assert detect_actions.main(words) == 2 and not (tmp_path / "out" / "good_review.html").exists()
    assert "pass --truth_options label_fps=2." in capfd.readouterr().err
    assert detect_actions.main([*words, "--truth_options", "label_fps=2"]) == 0
    assert '"name":"truth"' in (tmp_path / "out" / "good_review.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", ["--video", "--follow"])
def test_an_output_that_cannot_be_used_is_refused_before_the_model_is_loaded(
    given: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "a.mp4", 12)
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        words = ["--model", str(tmp_path / "none"), given, str(video), "--device", "cpu", "--output", str(output)]
        assert detect_actions.main(words) == 2
        assert f"ConfigError: --output {output} cannot be used" in capfd.readouterr().err
    check_output(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_disk_that_fills_up_later_is_told_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "a_segments.csv")

    _model().save_pretrained(tmp_path / "model")
    monkeypatch.setattr("m33d_hf.inference.detection_files.write_detection", full)
    words = ["--model", str(tmp_path / "model"), "--video", str(write_video(tmp_path / "a.mp4", 12)), "--device", "cpu"]
    assert detect_actions.main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "OSError: [Errno 28] No space left on device: 'a_segments.csv'" in capfd.readouterr().err
