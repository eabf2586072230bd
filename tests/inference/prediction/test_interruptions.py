"""^C while predict.py writes, at any of its files, then the same command: the files of a call that nobody stopped."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.depth_models import save_ours
from helpers.prediction import save_clips, save_phases, save_pictures, save_segmentation
from helpers.videos import write_video
from m33d_hf.data.files import atomic_writing
from m33d_hf.modeling.video_reading_m33d import iterate_video
from m33d_hf.scripts import predict

CASES: dict[str, tuple[Callable[[Path], Path], str, list[str]]] = {
    "depth of pictures": (save_ours, "pictures", ["--save", "depth", "arrays", "pictures", "points"]),
    "depth of a video": (save_ours, "videos", ["--save", "depth", "arrays", "videos", "pictures"]),
    "classes of pictures": (save_segmentation, "pictures", []),
    "classes of a video": (save_segmentation, "videos", ["--save", "all"]),
    "clips": (save_clips, "videos", []),
    "phases of a long video": (save_phases, "videos", []),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_pictures(folder / "pictures", 7)
    for name, frames in (("walk", 9), ("run", 14)):
        write_video(folder / "videos" / f"{name}.mp4", frames)
    return folder


def _content(root: Path) -> dict[str, bytes | list[bytes]]:
    """File -> what is in it; of a video its pictures, as the container also holds the time of writing."""
    found: dict[str, bytes | list[bytes]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        video = path.suffix == ".mp4"
        found[path.relative_to(root).as_posix()] = (
            [np.ascontiguousarray(pixels).tobytes() for _, pixels in iterate_video(path)]
            if video
            else path.read_bytes()
        )
    return found


def _alike(one: bytes | list[bytes], other: bytes | list[bytes]) -> bool:
    """Equal to the byte; pictures of two encoded videos to two levels of a few values, which their encoder decides."""
    if isinstance(one, bytes) or isinstance(other, bytes):
        return one == other
    apart = [np.abs(np.frombuffer(a, np.uint8).astype(int) - np.frombuffer(b, np.uint8))
             for a, b in zip(one, other, strict=True)]  # fmt: skip
    return all(int(each.max()) <= 4 and float(each.mean()) < 0.05 for each in apart)


def _interrupted_at(number: int, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> bool:
    """Call the script, with ^C while it writes file `number`; whether it came to that."""
    lock, written, real = threading.Lock(), [0], atomic_writing.flush_to_disk

    def flush(path: Path) -> None:
        with lock:
            written[0] += 1
            if written[0] == number:
                signal.raise_signal(signal.SIGINT)
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_writing, "flush_to_disk", flush)
        code = predict.main(words)
    assert code in (0, 130)
    return code == 130


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == "classes of a video" else case for case in CASES]
)
def test_outputs_are_those_of_an_uninterrupted_call(
    case: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, kind, more = CASES[case]
    words = ["--model", str(save(tmp_path / "model")), "--input", str(inputs / kind), "--batch_size", "3",
             "--workers", "2", *more, "--output"]  # fmt: skip
    assert predict.main([*words, str(tmp_path / "whole")]) == 0
    expected, stops = _content(tmp_path / "whole"), 0
    for first in (2, 3, 5, 9):  # ever later, then again a few files after it went on
        out = tmp_path / f"stopped{first}"
        shutil.rmtree(out, ignore_errors=True)
        for number in (first, 4, 3):
            if not _interrupted_at(number, monkeypatch, [*words, str(out)]):
                break
            stops += 1
        assert predict.main([*words, str(out)]) == 0
        found = _content(out)
        assert list(found) == list(expected)
        assert not [name for name in expected if not _alike(found[name], expected[name])]
    assert stops >= 3
    assert "interrupted; run the same command to continue" in capsys.readouterr().err
