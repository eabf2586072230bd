"""The whole way by hand: a run is published by the script, and loaded by processes that do not have this package."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import m33d_hf
from helpers.hub_runs import depth_run
from helpers.hub_server import TOKEN, Blob, Hub, Repo, client_environment, running
from helpers.rooms_runs import words

pytestmark = pytest.mark.extras  # long: many processes that import transformers
ROOT = Path(__file__).parents[2]
LOAD = ROOT / "tests" / "helpers" / "load_published.py"
REPO = "org/rooms-depth"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a picture beside it and what the model makes of that."""
    folder = tmp_path_factory.mktemp("wire")
    run = depth_run(folder / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    model = m33d_hf.M33DForDepthEstimation.from_pretrained(run).eval()
    inputs = m33d_hf.M33DImageProcessor.from_pretrained(run)(Image.fromarray(pixels), return_tensors="pt")
    with torch.no_grad():
        torch.save(model(**inputs).predicted_depth, folder / "room.pt")
    return run


@pytest.fixture(scope="module")
def hub(run: Path) -> Iterator[Hub]:
    """A hub that the script has published the run on."""
    with running() as hub:
        done = _call(hub, run, str(ROOT / "scripts" / "publish.py"), str(run), REPO)
        assert done.returncode == 0, done.stderr[-2000:]
        assert re.search(rf"files in {hub.address}/{REPO}/commit/[0-9a-f]+, tag m33d-", done.stdout)
        yield hub
    assert not hub.unknown


def _call(hub: Hub, run: Path, *command: str, home: str = "home", token: str | None = TOKEN, **more: str):  # type: ignore[no-untyped-def]
    environment = client_environment(hub, str(run.parent / home), token) | more
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, cwd=run.parent
    )


def _load(hub: Hub, run: Path, **more: str) -> dict[str, object]:
    done = _call(hub, run, "-I", str(LOAD), REPO, str(run.parent), token=None, **more)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_loads_without_the_package_and_again_offline(hub: Hub, run: Path) -> None:
    found = _load(hub, run)
    assert found["difference"] == 0 and found["pipeline"] == [40, 52] and found["readme"] == [[40, 52], [52, 40]]
    assert found["tags"] == list(hub.repos[REPO].tags) and found["by tag"] == "M33DForDepthEstimation"
    assert set(hub.repos[REPO].files()) == set(found["snapshot"])  # type: ignore[call-overload]
    before = len(hub.log)
    offline = _load(hub, run, HF_HUB_OFFLINE="1")
    assert len(hub.log) == before and offline == {k: v for k, v in found.items() if k not in ("tags", "by tag")}


def test_the_command_line_downloads_it(hub: Hub, run: Path) -> None:
    target = run.parent / "downloaded"
    done = _call(hub, run, "-m", "huggingface_hub.cli.hf", "download", REPO, "--local-dir", str(target), home="cli")
    assert done.returncode == 0, done.stderr[-2000:]
    found = m33d_hf.M33DForDepthEstimation.from_pretrained(target).state_dict()
    mine = m33d_hf.M33DForDepthEstimation.from_pretrained(run).state_dict()
    assert all(torch.equal(found[name], mine[name]) for name in mine)


def test_a_download_cut_in_the_middle_goes_on_where_it_was(hub: Hub, run: Path) -> None:
    content = np.random.default_rng(0).bytes(25 * 2**20)  # the client writes pieces of 10 MiB
    hub.blobs[hashlib.sha256(content).hexdigest()] = content
    hub.repos["org/large"] = Repo()
    hub.repos["org/large"].commit({"model.safetensors": Blob(content, True)}, "large")
    hub.ranges.clear()
    hub.cut_downloads = 1
    code = "from huggingface_hub import hf_hub_download; print(hf_hub_download('org/large', 'model.safetensors'))"
    done = _call(hub, run, "-c", code, home="cut")
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.cut_downloads == 0 and hub.ranges == [f"bytes={10 * 2**20}-"]
    assert Path(done.stdout.strip()).read_bytes() == content


def test_what_is_not_there_is_said(hub: Hub, run: Path) -> None:
    code = (
        "import sys; sys.modules['m33d_hf'] = None\n"
        "from transformers import AutoModelForDepthEstimation as A\n"
        "A.from_pretrained('org/none', trust_remote_code=True)"
    )
    done = _call(hub, run, "-c", code)
    assert done.returncode != 0 and "org/none is not a local folder and is not a valid model identifier" in done.stderr
    wrong = _call(hub, run, str(ROOT / "scripts" / "publish.py"), str(run), "org/other", token="hf_wrong")
    assert wrong.returncode == 1 and "does not accept the token" in wrong.stderr and "Traceback" not in wrong.stderr
    assert "org/other" not in hub.repos


def test_a_run_publishes_its_best_checkpoint(hub: Hub, run: Path) -> None:
    more = {"hub__push": "true", "hub__repo": "org/best", "checkpoint__save_best": "true"}
    typed = words("rooms/depth", run.parent / "pushed", **more)
    done = _call(hub, run, str(ROOT / "scripts" / "run_depth_estimation.py"), *typed)
    assert done.returncode == 0 and "published" in done.stderr, done.stderr[-2000:]
    repo = hub.repos["org/best"]
    card = repo.files()["README.md"].content.decode()
    assert len(repo.commits) == 2 and len(repo.tags) == 1
    assert "Not evaluated apart" in card and "model-index" not in card
    assert repo.files()["model.safetensors"].lfs and "tasks_m33d.py" in repo.files()
    typed = words("rooms/depth", run.parent / "refused", **more)
    wrong = _call(hub, run, str(ROOT / "scripts" / "run_depth_estimation.py"), *typed, token="hf_wrong")
    assert wrong.returncode == 2 and "does not accept the token" in wrong.stderr and "step" not in wrong.stdout
    assert not (run.parent / "refused").exists()  # before anything is trained


def test_a_space_with_the_page_comes_with_it(hub: Hub, run: Path) -> None:
    """Of the model's own name, which the hub keeps apart."""
    name = "org/with-a-page"
    words = (str(ROOT / "scripts" / "publish.py"), str(run), name, "--space", name)
    done = _call(hub, run, *words)
    space = hub.repos[f"spaces/{name}"]
    assert done.returncode == 0 and f"Space: {hub.address}/spaces/{name}/commit/" in done.stdout, done.stderr[-2000:]
    assert space.sdk == "gradio" and len(space.commits) == 2  # the hub's own first one, and ours
    assert f"/spaces/{name}" in hub.repos[name].files()["README.md"].content.decode()
    assert "app.py" not in hub.repos[name].files() and "model.safetensors" not in space.files()
    again = _call(hub, run, *words)
    assert again.returncode == 0 and len(space.commits) == 2
    code = (
        "import os, sys; from huggingface_hub import snapshot_download\n"
        "os.chdir(snapshot_download(sys.argv[1], repo_type='space')); print(*sorted(os.listdir()))\n"
        "sys.path.insert(0, ''); import app; print(*app.MODELS)"
    )
    loaded = _call(hub, run, "-c", code, name, token=None, home="visitor")
    assert loaded.stdout.split() == [".gitattributes", "README.md", "app.py", "requirements.txt", name], loaded.stderr


def test_models_and_processors_push_themselves(hub: Hub, run: Path) -> None:
    code = (
        "import sys, m33d_hf\n"
        "m33d_hf.M33DForDepthEstimation.from_pretrained(sys.argv[1]).push_to_hub('org/plain', tags=['x'])\n"
        "m33d_hf.M33DImageProcessorPil.from_pretrained(sys.argv[1]).push_to_hub('org/plain')\n"
    )
    done = _call(hub, run, "-c", code, str(run))
    assert done.returncode == 0, done.stderr[-2000:]
    repo = hub.repos["org/plain"]
    assert [message for *_, message in repo.commits[1:]] == [
        "Upload M33DForDepthEstimation",
        "Upload M33DImageProcessorPil",
    ]
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tasks_m33d.py"} <= set(repo.files())
    assert b"- x\n" in repo.files()["README.md"].content
