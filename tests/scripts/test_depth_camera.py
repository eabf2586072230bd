"""A recording of a depth camera on its way to phases: the commands of docs/cameras.md, with a tiny model."""

from __future__ import annotations

import csv
import importlib.util
import json
import shlex
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from helpers.kinect_files import COLOR, write_kinect
from m33d_hf.data.recordings.realsense_files import is_realsense
from m33d_hf.scripts import detect_actions, import_recording
from m33d_hf.scripts._main import main

ROOT = Path(__file__).resolve().parents[2]
BAG = ROOT / "tests/data/recordings/realsense_2_57.bag"
PHASES, FRAMES = ("prepare", "close"), 12
TINY: dict[str, Any] = {
    "model.image_size": 16, "model.patch_size": 8, "model.num_frames": 2, "model.tubelet_size": 2,
    "model.hidden_size": 16, "model.num_hidden_layers": 1, "model.num_attention_heads": 2,
    "model.intermediate_size": 32, "data.frame_stride": 1, "data.options.clip_span": 2, "data.num_workers": 0,
    "train.max_steps": 1, "train.batch_size": 2, "train.accumulation": 1, "logging.trackers": "[]",
    "logging.pictures": "false", "cpu": "true",
}  # fmt: skip
DECODER: dict[str, Any] = {
    "model.decoder_hidden_size": 16, "model.decoder_num_hidden_layers": 1, "model.decoder_num_attention_heads": 2,
    "model.decoder_intermediate_size": 32,
}  # fmt: skip
MORE = {"run_pretrain": TINY | DECODER, "run_video_classification": TINY}
MORE["run_action_detection"] = {name: value for name, value in TINY.items() if not name.startswith("model.")}


TASKS = {
    "run_pretrain": "pretraining", "run_video_classification": "video_classification",
    "run_action_detection": "action_detection",
}  # fmt: skip
SCRIPTS = {"import_recording": import_recording.main, "detect_actions": detect_actions.main}


def documented() -> list[list[str]]:
    """The commands of the page, each as words from its script on."""
    page = (ROOT / "docs/cameras.md").read_text(encoding="utf-8")
    block = page.split("## From a recording to its phases")[1].split("```bash\n")[1].split("```")[0]
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    return [words[next(i for i, word in enumerate(words) if word.endswith(".py")) :] for words in lines if words]


def follow(words: list[str], depth_scale: int, *more: str) -> int:
    """Run a documented command in this process; its exit code."""
    script = Path(words[0]).stem
    given = [str(word) for name, value in MORE.get(script, {}).items() for word in (f"--{name}", value)]
    scaled = ["depth_scale=" + str(depth_scale) if word == "depth_scale=1000" else word for word in words[1:]]
    scaled = [str(depth_scale) if word == "1000" else word for word in scaled]
    if script in TASKS:
        return main(TASKS[script], [*scaled, *given, *more])
    return SCRIPTS[script]([*scaled, *given, *more])


def annotate(folder: Path, frames: int) -> None:
    lines = [f"{number}\t{PHASES[2 * number // frames]}\n" for number in range(frames)]
    (folder.parent / f"{folder.name}.txt").write_text("Frame\tPhase\n" + "".join(lines))


def walk(recordings: dict[str, Path], depth_scale: int) -> tuple[dict[str, int], int]:
    """Every command in turn, in the working folder; recording -> its frames, and bytes that detection held at most."""
    first, *trainings, detection = documented()
    frames = {}
    for name, recording in recordings.items():
        words = [word.replace("or1_monday.mkv", str(recording)).replace("or1_monday", name) for word in first]
        assert follow(words, depth_scale) == 0
        frames[name] = len(list(Path("OR", name, "color").iterdir()))
        annotate(Path("OR", name), frames[name])
    for split, name in zip(("train", "validation"), recordings, strict=True):
        Path("OR", f"{split}.txt").write_text(f"{name}\n")
    # Depth that went missing on the way breaks nothing.
    for name in recordings:
        Path("OR", name, "depth", "000001.png").unlink()
    for words in trainings:
        assert follow(words, depth_scale) == 0, words
    tracemalloc.start()
    try:
        assert follow(detection, depth_scale, "--device", "cpu") == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return frames, peak


def check(frames: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    said = capsys.readouterr()
    assert "frames.csv" not in said.err, "which is no annotation, and not to be told of"
    for name, count in frames.items():
        with Path("timelines", f"{name}_clips.csv").open(newline="") as file:
            clips = list(csv.DictReader(file))
        assert len(clips) == (count + 1) // 2 and all(clip["readable"] == "1" for clip in clips)
        assert f"{name}: the depth of 1 of " in said.err
    known = json.loads(Path("S2/features/train/features.json").read_text())["reading"]
    assert known["depth"]["kind"] == "metric" and known["calibration"] is not None


def test_from_azure_kinect_to_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"or1_monday": tmp_path / "or1_monday.mkv", "or1_tuesday": tmp_path / "or1_tuesday.mkv"}
    for path in names.values():
        write_kinect(path, FRAMES, infrared=False)
    frames, peak = walk(names, 1000)
    assert frames == dict.fromkeys(names, FRAMES)
    check(frames, capsys)
    known = json.loads(Path("S2/features/train/features.json").read_text())["reading"]
    assert known["times"] == 30.0, "of frames.csv, whose milliseconds are rounded"
    decoded = FRAMES * COLOR[0] * COLOR[1] * (3 + 4)  # pictures, and depth registered into them
    assert peak < 0.6 * decoded, f"{peak} bytes: a clip or two is held, never a recording"


@pytest.mark.extras
def test_from_realsense_to_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `.bag` of the older SDK and a `.db3` of the newer one."""
    pytest.importorskip("rosbags", reason="rosbags is in the extra 'extras'")
    if importlib.util.find_spec("pyrealsense2") is None:
        pytest.skip("pyrealsense2 is in the extra 'extras'")
    from helpers.realsense_files import write_realsense

    monkeypatch.chdir(tmp_path)
    names = {"or1_monday": BAG, "or1_tuesday": write_realsense(tmp_path / "or1_tuesday.db3", FRAMES)}
    assert all(is_realsense(path) for path in names.values())
    frames, _ = walk(names, 4000)
    assert frames == {"or1_monday": 3, "or1_tuesday": FRAMES}
    check(frames, capsys)
