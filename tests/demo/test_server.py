"""The served page, by a client: who may reach it, what it refuses and how, what stays of uploads, and many at once."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.pages import save_all, served
from helpers.prediction import picture, save_pictures
from m33d_hf.demo import examples
from m33d_hf.demo.depth import see_depth
from m33d_hf.inference.prediction.depth import DepthTask

pytestmark = pytest.mark.demo


@pytest.fixture(scope="module", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The client makes a folder for every file that it fetches, in the temporary folder, and leaves it there."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("client"))
    yield
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_all(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def server(outputs: Path) -> Iterator[Any]:
    with served(outputs, max_upload_mb=1.0) as running:
        yield running


def client(server: Any) -> Any:
    from gradio_client import Client

    folder = Path(tempfile.gettempdir()) / "downloads"
    return Client(server.url, download_files=folder, verbose=False, analytics_enabled=False)


def sent(path: Path | str) -> Any:
    from gradio_client import handle_file

    return handle_file(str(path))


def test_every_tab_answers(server: Any, outputs: Path, tmp_path: Path) -> None:
    visitor = client(server)
    room = examples.pictures()[0]
    drawn, words = visitor.predict(str(outputs / "depth"), sent(room), api_name="/depth")
    with server.models.using(str(outputs / "depth"), DepthTask) as task:
        _, expected = see_depth(task, np.array(Image.open(room)))
    assert np.array_equal(np.asarray(Image.open(drawn)), expected) and "Click" in words
    classes, _ = visitor.predict(str(outputs / "semseg"), sent(room), 0.5, api_name="/segmentation")
    assert Image.open(classes).height == 384, "192, enlarged so that the legend can be read"
    bars, *_ = visitor.predict(str(outputs / "actions"), sent(examples.clips()[0]), api_name="/video")
    assert {entry["label"] for entry in bars["value"]["confidences"]} == {"floor", "wall", "lamp"}
    row, label = visitor.predict(
        str(outputs / "pretrain"), sent(room), [sent(examples.depth_of(room))], "millimetre", None, 0.5,
        "random", 0, api_name="/reconstruction",
    )  # fmt: skip
    assert Image.open(row).width > 700 and "brightness and contrast are not predicted" in label


def test_it_listens_on_this_machine_alone(server: Any) -> None:
    (listening,) = server.page.server.servers
    assert {entry.getsockname()[0] for entry in listening.sockets} == {"127.0.0.1"}


@pytest.mark.parametrize("tab", ["/depth", "/video"])
def test_a_wrong_file_gets_a_sentence(tab: str, server: Any, outputs: Path, tmp_path: Path) -> None:
    from gradio_client.exceptions import AppError

    notes = tmp_path / ("notes.png" if tab == "/depth" else "notes.mp4")
    notes.write_text("not what its name says")
    model = outputs / ("depth" if tab == "/depth" else "actions")
    with pytest.raises(AppError) as refused:
        client(server).predict(str(model), sent(notes), api_name=tab)
    words = str(refused.value)
    assert words.startswith(notes.name) and "Drop one of" in words
    assert "Traceback" not in words and "/" not in words.replace(" / ", "")


def test_a_model_that_is_not_offered_is_not_loaded(server: Any, tmp_path: Path) -> None:
    from gradio_client.exceptions import AppError

    save_pictures(tmp_path, 1)
    with pytest.raises(AppError, match="not in the list of choices"):
        client(server).predict(str(tmp_path / "secret"), sent(tmp_path / "p0.png"), api_name="/depth")


def test_uploads_are_bounded(server: Any, outputs: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**20
    with pytest.raises(Exception, match=r"(?i)size|413|large"):
        client(server).predict(str(outputs / "depth"), sent(tmp_path / "large.png"), api_name="/depth")
    assert not list(server.folder.rglob("large.png"))


def test_ten_at_once_leave_it_answering(server: Any, outputs: Path, tmp_path: Path) -> None:
    import httpx

    paths = save_pictures(tmp_path, 10, height=120, width=160)
    waits: list[float] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            began = time.monotonic()
            assert httpx.get(server.url, timeout=30).status_code == 200
            waits.append(time.monotonic() - began)
            time.sleep(0.05)

    visitors = [client(server) for _ in paths]
    with ThreadPoolExecutor(11) as pool:
        knocking = pool.submit(knock)
        jobs = [
            pool.submit(visitor.predict, str(outputs / "depth"), sent(path), api_name="/depth")
            for visitor, path in zip(visitors, paths, strict=True)
        ]
        results = [job.result(timeout=120) for job in jobs]
        done.set()
        knocking.result()
    assert waits and max(waits) < 10
    with server.models.using(str(outputs / "depth"), DepthTask) as task:
        for number, (drawn, _) in enumerate(results):
            _, expected = see_depth(task, picture(number, 120, 160))
            assert np.array_equal(np.asarray(Image.open(drawn)), expected), "each has their own"


def test_uploads_and_results_do_not_stay_but_examples_do(outputs: Path, tmp_path: Path) -> None:
    (path,) = save_pictures(tmp_path, 1)
    with served(outputs, keep_seconds=2) as server:
        visitor = client(server)
        visitor.predict(str(outputs / "depth"), sent(path), api_name="/depth")
        assert [file for file in server.folder.rglob("*") if file.is_file() and file not in server.examples]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            left = [file for file in server.folder.rglob("*") if file.is_file() and file not in server.examples]
            if not left:
                break
            time.sleep(0.5)
        assert not left
        assert any(file.name == "room0_rgb.png" for file in server.folder.rglob("*"))
        room = next(file for file in server.folder.rglob("room0_rgb.png"))
        assert room.stat().st_size == examples.pictures()[0].stat().st_size
        folder = server.folder
    assert not folder.exists(), "nothing stays of a page that has ended"
