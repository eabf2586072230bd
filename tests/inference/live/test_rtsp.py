"""A camera that speaks RTSP, within the connection and by UDP; FFmpeg packs on one side and unpacks on the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.feeds import detector, same
from helpers.rtsp import camera
from helpers.videos import numbered_frame, write_video


def _film(path: Path) -> Path:
    return write_video(path, 60, codec="mpeg2video", frames=[numbered_frame(number) for number in range(60)])


@pytest.mark.parametrize(
    ("sends", "options"),
    [({}, {}), ({}, {"rtsp_transport": "tcp"}), ({"udp": True, "pause": 0.01}, {})],
    ids=["falls back to tcp", "tcp", "udp"],
)
def test_an_rtsp_camera_gives_what_its_recording_gives(
    sends: dict[str, Any], options: dict[str, str], tmp_path: Path
) -> None:
    film, live = _film(tmp_path / "film.ts"), detector(temporal_clip_stride=3)
    with camera(film, **sends) as address:
        stream = live.follow(address, timeout=10, stream_options=options)
        found = list(stream)
    same(found, live.detect(film).clips)
    assert stream.ended is not None and (stream.ended.frames, stream.ended.seconds) == (60, pytest.approx(2.4))


def test_a_camera_that_goes_away_has_not_finished(tmp_path: Path) -> None:
    """FFmpeg tells the same where all was sent; who records an operation must not take one for the other."""
    film, live = _film(tmp_path / "film.ts"), detector()
    with camera(film, share=0.5) as address:
        stream = live.follow(address, timeout=10)
        found = [clip for clip in stream if not clip.cut]
    assert stream.ended is not None and stream.ended.kind == "closed"
    assert "nothing tells whether all was sent" in stream.ended.reason and 20 < stream.ended.frames < 40
    same(found, live.detect(film).clips[: len(found)])
