"""The page that reviews a video, in a real browser: it plays, jumps, lists, corrects and saves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.detections import PHASES, detection
from helpers.videos import write_video
from m33d_hf.data.sources.phases.annotations import read_annotations
from m33d_hf.inference.review.page import review_page, write_review
from m33d_hf.modeling.video_times_m33d import Lack

RUNS = [0, 0, 1, 1, 2, 2, 0, 0]
SURE = [0.9, 0.9, 0.5, 0.9, 0.9, 0.4, 0.9, 0.9]


def _data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def test_the_page_holds_the_timeline_and_points_to_the_video(tmp_path: Path) -> None:
    video = tmp_path / "videos of today" / "op 1#.webm"
    video.parent.mkdir()
    video.write_bytes(b"")
    truth = np.repeat([0, 1, 255, 2], 20).astype(np.uint8)
    path = write_review(tmp_path / "out" / "a", "op_1", detection(video, RUNS, unreadable=(1,), sure=SURE), truth)
    text = path.read_text(encoding="utf-8")
    told = _data(text)
    assert path.name == "op_1_review.html" and told["source"] == "../../videos%20of%20today/op%201%23.webm"
    assert told["names"] == PHASES and "</b>" not in text.partition('id="data">')[2].partition("</script>")[0]
    assert [row["name"] for row in told["rows"]] == ["truth", "whole video", "clip by clip"]
    assert told["rows"][0]["segments"] == [[0, 0.8, 0], [0.8, 1.6, 1], [2.4, 3.2, 2]]
    assert told["rows"][1]["segments"][0] == [0, 0.4, 0, 0.9] and told["unreadable"] == [[0.4, 0.8]]
    assert len(told["probabilities"]) == 80 and told["probabilities"][10:20] == [None] * 10
    assert told["probabilities"][25] == [25, 50, 25] and told["duration"] == 3.2


def test_a_folder_of_frames_without_a_rate_has_a_timeline_in_frames(tmp_path: Path) -> None:
    told = _data(review_page(detection(tmp_path, RUNS, fps=None), "v", None))
    assert told["source"] is None and not told["timed"] and told["duration"] == 80
    assert told["rows"][0]["segments"][1][:3] == [20, 40, 1]


def test_what_is_missing_is_told_and_hatched(tmp_path: Path) -> None:
    lack = Lack(start=3.2, stop=5.0, after=80, frames=45, reason="the recording ends 1.8 s early")
    told = _data(review_page(detection(tmp_path / "v.mp4", RUNS, lacks=(lack,)), "v", "v.mp4"))
    assert told["missing"] == ["the recording ends 1.8 s early."] and told["unreadable"] == [[3.2, 5.0]]
    assert told["duration"] == 5.0


def test_a_long_video_is_thinned_out(tmp_path: Path) -> None:
    told = _data(review_page(detection(tmp_path / "v.mp4", [0, 1] * 5, span=20_000), "v", "v.mp4"))
    assert len(told["probabilities"]) == 7200 and [step[1] for step in told["probabilities"][::720]] == [5, 90] * 5


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    pytest.importorskip("playwright")
    from helpers.pages import browser

    video = write_video(tmp_path / "videos" / "v1.webm", 80, codec="libvpx", size=(64, 96))
    truth = np.repeat([0, 1, 2, 0], [25, 15, 20, 20]).astype(np.uint8)
    write_review(tmp_path / "out", "v1", detection(video, RUNS, sure=SURE), truth)
    with browser() as opened:
        shown = opened.new_page(viewport={"width": 1100, "height": 1200}, accept_downloads=True)
        shown.set_default_timeout(20_000)
        errors: list[str] = []
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.goto((tmp_path / "out" / "v1_review.html").as_uri())
        shown.wait_for_function("document.querySelector('video').readyState >= 1")
        yield shown, tmp_path
        assert not errors
        shown.close()


def _at(page: Any, seconds: float) -> None:
    page.wait_for_function("at => Math.abs(document.querySelector('video').currentTime - at) < 0.03", arg=seconds)


@pytest.mark.demo
def test_clicking_jumps_and_the_least_certain_comes_first(page: tuple[Any, Path]) -> None:
    shown, _ = page
    assert shown.title() == "Phases of v1"
    box = shown.locator("#bands").bounding_box()
    shown.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 10)
    _at(shown, 1.6)
    now = shown.locator("#now").inner_text()
    assert now == "0:00:01.6 | truth: Packaging | whole video: Packaging (90 %) | clip by clip: Preparation"
    rows = shown.locator("#uncertain tr").all_inner_texts()
    assert len(rows) == 3 and "0:00:02.0" in rows[1] and "40 %" in rows[1] and "cut & <b>tie</b>" in rows[2]
    shown.locator("#uncertain button").first.click()
    _at(shown, 2.0)
    shown.locator("#bound").fill("45")
    assert shown.locator("#uncertain tr").count() == 2
    shown.locator("#bound").fill("10")
    assert "none" in shown.locator("#uncertain").inner_text()
    wrong = shown.locator("#wrong tr").all_inner_texts()
    assert len(wrong) == 2 and "0:00:00.8" in wrong[1] and "Preparation" in wrong[1]
    shown.locator("#bound").fill("100")  # all is uncertain: a stretch per phase
    assert shown.locator("#uncertain tr").count() == 5
    cursor = shown.evaluate("document.getElementById('cursor').style.left")
    assert cursor.startswith("calc(62.")


@pytest.mark.demo
def test_a_correction_is_saved_as_an_annotation(page: tuple[Any, Path]) -> None:
    shown, folder = page
    shown.locator("#segments select").nth(2).select_option(label=PHASES[0])
    shown.locator("#bands").click(position={"x": shown.locator("#bands").bounding_box()["width"] * 0.3125, "y": 10})
    _at(shown, 1.0)
    shown.get_by_role("button", name="begins here").nth(1).click()
    assert "2 changes, not saved" in shown.locator("#changed").inner_text()
    for kind in ("srt", "vtt"):
        with shown.expect_download() as waiting:
            shown.get_by_role("button", name=f"Save as {kind.upper()}").click()
        assert waiting.value.suggested_filename == f"v1_segments.{kind}"
        path = folder / f"v1_segments.{kind}"
        waiting.value.save_as(path)
        (found,) = read_annotations(path)
        assert found.names == (PHASES[0], PHASES[1]) and found.stops is not None
        np.testing.assert_allclose(found.starts, [0, 1.0, 1.6], atol=0.03)
        np.testing.assert_allclose(found.stops, [1.0, 1.6, 3.2], atol=0.03)
    shown.locator("#bands").click(position={"x": 5, "y": 10})
    shown.get_by_role("button", name="begins here").nth(2).click()
    assert "must lie inside this segment or the one before it" in shown.locator("#changed").inner_text()


@pytest.mark.demo
def test_a_video_that_moved_is_told_and_the_timeline_still_works(page: tuple[Any, Path]) -> None:
    shown, folder = page
    (folder / "videos" / "v1.webm").unlink()
    shown.reload()
    shown.wait_for_function("!document.getElementById('missing').hidden")
    assert "cannot play ../videos/v1.webm (moved," in shown.locator("#missing").inner_text()
    shown.locator("#bands").click(position={"x": 5, "y": 10})
    assert shown.locator("#now").inner_text().startswith("0:00:00.0")
