"""The page in a browser: upload, click, slide, see the pictures change; a wrong file is answered with a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.pages import browser, save_all, served
from m33d_hf.demo import examples

pytestmark = pytest.mark.demo
_PATIENCE = 20_000  # milliseconds


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """A function that opens the page anew, at one of its tabs; whatever leaves this machine fails the test."""
    outputs = save_all(tmp_path_factory.mktemp("outputs"))
    with served(outputs) as server, browser() as opened:

        def at(name: str) -> Any:
            page = opened.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(_PATIENCE)
            page.on("request", lambda request: outside.append(request.url) if is_outside(request.url) else None)
            page.goto(server.url)
            page.get_by_role("tab", name=name).click()
            return page

        def is_outside(url: str) -> bool:
            return not url.startswith((server.url, "data:", "blob:"))

        outside: list[str] = []
        yield at
    assert not outside


def drop(page: Any, path: Path | str, number: int = 0) -> None:
    """Give a file to an upload of the visible tab."""
    page.locator("[role=tabpanel]:visible input[type=file]").nth(number).set_input_files(str(path))


def source(page: Any, name: str, other_than: str = "") -> str:
    """Where a drawing comes from, once it is there and another than before."""
    page.wait_for_function(
        "([name, old]) => { const found = document.querySelector('#' + name + ' img');"
        " return found && found.src && found.src !== old }",
        arg=[name, other_than],
    )
    found = page.locator(f"#{name} img").get_attribute("src")
    return str(found)


def heading(page: Any, selector: str) -> str:
    """What is drawn in place of gradio's own word."""
    found = "([at]) => { const seen = document.querySelector(at); const own = getComputedStyle(seen).fontSize;"
    found += " return [own, getComputedStyle(seen, '::before').content] }"
    size, content = page.evaluate(found, [selector])
    assert size == "0px", f"gradio's own word is drawn too, at {size}"
    return str(content).strip('" ')


def slide(page: Any, name: str, keys: int) -> None:
    """Move a slider by keys to the left, and let go of it."""
    slider = page.locator(f"#{name} input[type=range]")
    slider.focus()
    for _ in range(keys):
        slider.press("ArrowLeft")
    slider.dispatch_event("pointerup")


def test_depth_is_drawn_and_read_out(tab: Any, tmp_path: Path) -> None:
    page = tab("Depth")
    drop(page, examples.pictures()[0])
    first = source(page, "depth_picture")
    page.locator("#depth_picture img").click(position={"x": 60, "y": 200})
    page.get_by_text(re.compile(r"Column \d+, row \d+: \d+\.\d\d m from the camera plane")).wait_for()
    page.locator("[role=tabpanel]:visible canvas").wait_for()
    assert page.get_by_text("Points as PLY").is_enabled()
    page.locator("[role=tabpanel]:visible button.gallery-item").nth(1).click()
    source(page, "depth_picture", first)
    page.screenshot(path=str(tmp_path / "depth.png"))
    page.close()


def test_a_wrong_file_is_answered_with_a_sentence(tab: Any, tmp_path: Path) -> None:
    page = tab("Depth")
    drop(page, examples.pictures()[0])
    source(page, "depth_picture")
    notes = tmp_path / "notes.png"
    notes.write_text("not a picture")
    page.get_by_role("button", name="Remove Image").first.click()
    drop(page, notes)
    page.get_by_text("notes.png cannot be used as a picture").first.wait_for()
    page.wait_for_timeout(1500)  # a second answer would come now
    assert page.get_by_text("notes.png cannot be used as a picture").count() == 1, "told twice"
    assert heading(page, ".toast-title") == "This did not work"
    assert heading(page, "[data-testid=status-tracker] .error") == "No result"
    text = page.inner_text("body")
    assert "Traceback" not in text and "site-packages" not in text
    page.wait_for_function("() => !document.querySelector('#depth_picture img')")  # nor the depth of the other picture
    page.screenshot(path=str(tmp_path / "wrong.png"))
    page.get_by_text("notes.png cannot be used as a picture").wait_for(state="detached")  # it would lie over results
    page.close()


def test_classes_fade(tab: Any) -> None:
    page = tab("Segmentation")
    drop(page, examples.pictures()[1])
    first = source(page, "classes_picture")
    slide(page, "opacity", 5)
    source(page, "classes_picture", first)
    page.close()


def test_a_clip_has_its_bars_and_a_long_video_its_timeline(tab: Any) -> None:
    page = tab("Video")
    drop(page, examples.clips()[0])
    page.locator("#bars").get_by_text("%").first.wait_for()
    assert {"floor", "wall", "lamp"} <= set(page.locator("#bars").inner_text().split())
    page.locator("[role=tabpanel]:visible input[aria-label=Model]").first.click()
    page.get_by_role("option", name=re.compile("phases")).click()
    source(page, "timeline")
    page.close()


def test_more_is_hidden_when_one_slides(tab: Any) -> None:
    page = tab("Reconstruction")
    drop(page, examples.pictures()[2])
    first = source(page, "reconstruction_picture")
    page.get_by_text("rgb: brightness and contrast are not predicted").wait_for()
    slide(page, "ratio", 8)
    second = source(page, "reconstruction_picture", first)
    page.get_by_text("room1", exact=True).click()
    source(page, "reconstruction_picture", second)
    page.wait_for_function("() => !document.body.innerText.includes('No depth was given')")
    page.close()


def test_clips_have_masks_of_their_own_and_depth(tab: Any, tmp_path: Path) -> None:
    page = tab("Reconstruction")
    page.locator("[role=tabpanel]:visible input[aria-label=Model]").first.click()
    page.get_by_role("option", name=re.compile("pretrain-clips")).click()
    page.locator("[role=tabpanel]:visible input[accept*=video]").wait_for(state="attached")
    drop(page, examples.clips()[0])
    shown = source(page, "reconstruction_picture")
    page.get_by_text("No depth was given").wait_for()
    for strategy in ("tube", "frame", "motion", "random, the same in RGB and depth"):
        page.get_by_label("Which patches are hidden").click()
        page.get_by_role("option", name=strategy, exact=True).click()
        shown = source(page, "reconstruction_picture", shown)
    np.save(tmp_path / "depth.npy", np.linspace(1, 3, 16 * 96 * 128, dtype=np.float32).reshape(16, 96, 128))
    page.locator("[role=tabpanel]:visible input[type=file]").last.set_input_files(str(tmp_path / "depth.npy"))
    source(page, "reconstruction_picture", shown)
    page.wait_for_function("() => !document.body.innerText.includes('No depth was given')")
    page.wait_for_function("() => document.querySelector('#reconstruction_picture img').naturalWidth > 400")
    page.screenshot(path=str(tmp_path / "clips.png"), full_page=True)
    page.close()
