"""Phases of cases by several cameras: as in training's evaluation, with missing and damaged ones, and bad input."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.phases_in_memory import MODEL, NAMES, arguments, first_stage
from helpers.videos import cut_short, numbered_frame, write_video
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.sources.phases.base import ClipSpan
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.inference.case_videos import find_case_videos
from m33d_hf.inference.detection.cameras import SpanAssembler, given_cameras
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_reading_m33d import read_video
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.scripts import detect_actions
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.detection.features import ClipRule
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

SIZE = (32, 48)


def _film(path: Path, frames: int, first: int, rate: int = 25) -> Path:
    pictures = [numbered_frame(first + number, SIZE) for number in range(frames)]
    return write_video(path, frames, rate=rate, size=SIZE, frames=pictures)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases by two cameras: of v the second began a quarter of a second later, runs at another rate, and ends early."""
    folder = tmp_path_factory.mktemp("cases")
    _film(folder / "videos/a_cam1.mp4", 20, 0)
    _film(folder / "videos/a_cam2.mp4", 20, 9)
    _film(folder / "videos/v_cam1.mp4", 30, 3)
    _film(folder / "videos/v_cam2.mp4", 9, 40, rate=10)
    (folder / "cameras.csv").write_text(
        "case,camera,video,offset\na,left,a_cam1,\na,right,a_cam2,\nv,left,v_cam1,\nv,right,v_cam2,0.25\n"
    )
    (folder / "phase_annotations").mkdir()
    for name, phases in {"a": [0] * 8 + [1] * 8 + [2] * 4, "v": [1] * 16 + [0] * 14}.items():
        lines = [f"{number}\t{NAMES[phase]}\n" for number, phase in enumerate(phases)]
        (folder / f"phase_annotations/{name}.txt").write_text("Frame\tPhase\n" + "".join(lines))
    (folder / "train.txt").write_text("a\n")
    (folder / "validation.txt").write_text("v\n")
    return folder


@pytest.fixture(scope="module", params=["mean", "side by side"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    args = arguments(folder / "run", first_stage(folder / "one"), phase_names=NAMES, cameras="cameras.csv")
    args.data.source, args.data.root = "phases", str(root)
    args.transforms.eval_crop = "center"
    if request.param == "side by side":
        args.model["temporal_cameras"] = ["right", "left"]
    train(args, ActionDetectionTask())
    return folder / "run"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _case(root: Path, name: str) -> dict[str, Path]:
    return {"left": root / f"videos/{name}_cam1.mp4", "right": root / f"videos/{name}_cam2.mp4"}


def test_the_script_finds_what_the_evaluation_of_the_training_found(trained: Path, root: Path, tmp_path: Path) -> None:
    """Another way through the same frames: there, clips at random places of the file; here, one pass over each."""
    words = ["--model", str(trained), "--video", str(root / "videos"), "--output", str(tmp_path), "--device", "cpu"]
    assert detect_actions.main([*words, "--cameras", str(root / "cameras.csv"), "--batch_size", "3"]) == 0
    (frames,) = (trained / "evaluation/frames").glob("*v*.csv")
    wanted = _rows(frames)
    clips = _rows(tmp_path / "v_clips.csv")
    assert len(wanted) == 30 and len(clips) == 8
    place = {name: next(key for key in wanted[0] if key.endswith(name) and key not in NAMES[:0]) for name in NAMES}
    for clip in clips:
        for frame in range(int(clip["start_frame"]), int(clip["end_frame"]) + 1):
            for name in NAMES:
                assert float(clip[name]) == pytest.approx(float(wanted[frame][place[name]]), abs=2e-6)
    # A clip is 0.16 s; of the second, 0.16 to 0.32 s, the right camera, which shows 0.25 to 1.15 s, has less than half.
    assert [clip["cameras"] for clip in clips] == ["left", "left", *["left;right"] * 5, "left"]
    assert {clip["cameras"] for clip in _rows(tmp_path / "a_clips.csv")} == {"left;right"}


def _model(**changes: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = M33DConfig(**{**MODEL, **labels, "temporal_hidden_size": 8, "temporal_frame_stride": 2, **changes})
    return M33DForVideoActionDetection(config).eval()


def _detector(**changes: Any) -> ActionDetector:
    return ActionDetector(_model(**changes), TransformOptions(eval_crop="resize"))


@pytest.mark.parametrize("changes", [{}, {"temporal_cameras": ["left", "right"]}, {"temporal_causal": True}])
def test_a_camera_that_cannot_be_read_is_done_without(root: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    videos, detector = _case(root, "a"), _detector(**changes)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    alone = detector.detect({"left": videos["left"]})
    for given in ({"left": videos["left"], "right": broken}, {"right": broken, "left": videos["left"]}):
        found = detector.detect(given)
        assert found.cameras == ["left"] and found.path == videos["left"]
        assert [clip.cameras for clip in found.clips] == [("left",)] * 5
        for one, other in zip(found.clips, alone.clips, strict=True):
            assert np.array_equal(one.probabilities, other.probabilities)
            assert np.array_equal(one.clipwise, other.clipwise)
        (note,) = found.notes
        assert note.startswith("camera right is done without: ") and "broken.mp4" in note
    with pytest.raises(CorruptFileError, match=r"broken\.mp4"):
        detector.detect({"left": broken, "right": broken})


def test_a_mean_of_one_camera_is_that_camera(root: Path) -> None:
    video = _case(root, "a")["left"]
    plain, listed = _detector().detect(video), _detector().detect([video])
    assert (plain.cameras, listed.cameras) == ([], ["a_cam1"])
    for one, other in zip(plain.clips, listed.clips, strict=True):
        assert np.array_equal(one.probabilities, other.probabilities)
    both = _detector().detect([video, video.with_name("a_cam2.mp4")])
    assert both.cameras == ["a_cam1", "a_cam2"]
    assert not np.allclose(both.clips[0].probabilities, plain.clips[0].probabilities)


@pytest.mark.parametrize("causal", [False, True])
def test_one_camera_gives_to_the_bit_what_the_model_gives_to_its_clips_by_hand(root: Path, causal: bool) -> None:
    """The right value by a second way: frames picked by their numbers, and the model called on the whole video."""
    video, model = _case(root, "a")["left"], _model(temporal_causal=causal)
    detector = ActionDetector(model, TransformOptions(eval_crop="resize"), batch_size=1)
    frames = torch.stack([detector.prepared(frame) for frame in read_video(video, range(20))])
    clips = torch.stack([frames[[start, start + 2]] for start in range(0, 20, 4)])
    spec = model.config.spec("rgb")
    with torch.inference_mode():
        found = model(pixel_values=normalize_rgb(clips, spec.channel_mean, spec.channel_std)[None])
        clipwise = [model.classifier(feature[None])[0].softmax(-1).numpy() for feature in found.features[0]]
    for given in (video, [video], {"left": video}):
        told = detector.detect(given).clips
        assert np.array_equal(np.stack([clip.probabilities for clip in told]), found.logits[0].softmax(-1).numpy())
        assert np.array_equal(np.stack([clip.clipwise for clip in told]), np.stack(clipwise))


def test_a_list_is_in_the_order_of_the_model(root: Path) -> None:
    detector, videos = _detector(temporal_cameras=["right", "left"]), _case(root, "a")
    listed = detector.detect([videos["right"], videos["left"]])
    named = detector.detect({"left": videos["left"], "right": videos["right"]})
    assert listed.cameras == ["right", "left"] and named.cameras == ["left", "right"]
    for one, other in zip(listed.clips, named.clips, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_camera_that_breaks_off_leaves_the_rest_to_the_others(root: Path, tmp_path: Path) -> None:
    videos, detector = _case(root, "a"), _detector()
    film = write_video(tmp_path / "right.avi", 20, size=SIZE, codec="mjpeg", pix_fmt="yuvj420p")
    short = cut_short(film, 0.75)
    found = detector.detect({"left": videos["left"], "right": short})
    seen = ["right" in clip.cameras for clip in found.clips]
    assert seen[0] and not seen[-1] and seen == sorted(seen, reverse=True)
    alone = detector.detect(videos["left"])
    assert np.allclose(found.clips[-1].clipwise, alone.clips[-1].clipwise)
    assert not np.allclose(found.clips[0].clipwise, alone.clips[0].clipwise)


def test_an_offset_that_leaves_nothing_in_common_is_told(root: Path) -> None:
    videos = _case(root, "a")
    found = _detector().detect(videos, offsets={"right": 60.0})
    assert {clip.cameras for clip in found.clips} == {("left",)}
    assert found.notes == ["camera right shows no clip of the case; see its offset, 60 s"]


NAMED = ["left", "right"]


@pytest.mark.parametrize(
    ("given", "names", "offsets", "message"),
    [
        ("a.mp4", NAMED, {}, r"reads the cameras left, right together, but a\.mp4 does not say which .*'left': path"),
        (["a.mp4"], NAMED, {}, r"1 video given, but the model was trained on 2 cameras \(left, right\)"),
        ({"light": "a.mp4"}, NAMED, {}, r"by camera 'light', but the model was trained on the cameras left, right"),
        ([], None, {}, "no video was given"),
        ({}, NAMED, {}, "no video was given"),
        (["x/a.mp4", "y/a.mp4"], None, {}, "two of the videos have the same name; pass a map"),
        ({"left": "a.mp4"}, None, {"right": 1.0}, "offsets has a camera 'right', but the videos are by 'left'"),
        ({"left": "a.mp4"}, None, {"left": float("nan")}, "the offset of camera 'left' is nan; it must be a number"),
    ],
)
def test_other_cameras_are_refused(given: Any, names: Any, offsets: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given_cameras(given, names, offsets)


def test_frames_without_times_need_a_rate(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name, count in {"left": 12, "right": 8}.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.fromarray(np.full((*SIZE, 3), 10 * number, np.uint8)).save(tmp_path / name / f"{number:03}.png")
    videos = [tmp_path / "left", tmp_path / "right"]
    with pytest.raises(DataError, match=r"nothing tells the times of their 8 and 12 frames: .* \(--fps of detect"):
        _detector().detect(videos)
    found = _detector().detect(videos, fps=10.0)
    assert [len(clip.cameras) for clip in found.clips] == [2, 2, 1]


def test_models_of_cameras_follow_no_feed_without_a_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = _detector(temporal_cameras=["left", "right"], temporal_causal=True)
    for use in (lambda: detector.push(np.zeros((*SIZE, 3), np.uint8), 0.0), lambda: detector.follow(tmp_path)):
        with pytest.raises(ConfigError, match="reads the cameras left, right side by side, and this feed does not say"):
            use()
    words = ["--model", str(trained), "--follow", "tcp://localhost:1", "--output", str(tmp_path), "--cameras", "folder"]
    assert detect_actions.main(words) == 2
    assert "name the cameras of a live one by --follow left=ADDRESS right=ADDRESS" in capsys.readouterr().err


def test_the_script_refuses_before_it_begins(trained: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--model", str(trained), "--output", str(tmp_path), "--device", "cpu"]
    several = M33DForVideoActionDetection.from_pretrained(trained).config.temporal_cameras is not None
    assert detect_actions.main([*words, "--video", str(root / "videos"), "--cameras", "_cam*"]) == (2 if several else 0)
    if several:
        told = capsys.readouterr().err
        assert "a: there is a video by camera '1', but the model was trained on the cameras right, left" in told
        assert detect_actions.main([*words, "--video", str(root / "videos/a_cam1.mp4")]) == 2
        assert "does not say which of them it is by" in capsys.readouterr().err
    assert detect_actions.main([*words, "--video", str(root / "videos"), "--cameras", "folders"]) == 2
    assert "cameras is 'folders': pass folder" in capsys.readouterr().err


def test_cases_of_a_command_line(root: Path, tmp_path: Path) -> None:
    def told(*found: Any) -> dict[str, list[tuple[str, str, float]]]:
        return {n: [(each.name, each.path.name, each.offset) for each in case] for n, case in found[0][0].items()}

    table = told(find_case_videos([root / "videos"], str(root / "cameras.csv")))
    assert table["v"] == [("left", "v_cam1.mp4", 0.0), ("right", "v_cam2.mp4", 0.25)]
    suffix = told(find_case_videos([root / "videos/a_cam2.mp4", root / "videos/a_cam1.mp4"], "_cam*"))
    assert suffix == {"a": [("2", "a_cam2.mp4", 0.0), ("1", "a_cam1.mp4", 0.0)]}
    folder = told(find_case_videos([root / "videos"], "folder"))
    assert list(folder) == ["videos"] and len(folder["videos"]) == 4
    (tmp_path / "cameras.csv").write_text("case,camera,video\na,left,a_cam1\na,gone,a_cam9\n")
    _, unused = find_case_videos([root / "videos"], str(tmp_path / "cameras.csv"))
    assert (unused[0].path, unused[0].reason.split(",")[0]) == ("a_cam9", "camera gone of case a in cameras.csv")
    assert "does not list it" in unused[1].reason


@pytest.mark.parametrize("rule", [ClipRule(2, 2, 4), ClipRule(3, 2, 2), ClipRule(3, 1, 5)])
def test_given_clips_are_those_of_the_whole_video(rule: ClipRule) -> None:
    spans = [ClipSpan(start, min(start + rule.span, 23), 0) for start in (0, 0, 3, 4, 9, 9, 15, 20)]
    assembler, found, held = SpanAssembler(rule, spans), [], 0
    for number in range(23):
        frame = torch.full((3, 1, 1), number, dtype=torch.uint8) if assembler.takes(number) else None
        found += assembler.push(number, frame)
        held = max(held, len(assembler._frames))
    found += assembler.finish(23)
    assert [(clip.start, clip.stop) for clip in found] == [(span.start, span.stop) for span in spans]
    for clip in found:
        expected = [clip.start + offset for offset in rule.frames(clip.stop - clip.start)]
        assert clip.frames is not None and clip.frames[:, 0, 0, 0].tolist() == expected
    assert held <= rule.span
    late = SpanAssembler(rule, spans)
    ended = [*late.push(0, torch.zeros(3, 1, 1, dtype=torch.uint8)), *late.finish(1)]
    assert len(ended) == len(spans) and all(clip.frames is None for clip in ended)
