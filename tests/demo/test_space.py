"""demo/space.py and __main__.py: the files of a Space are read by the Hub's own client, and its app.py serves."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import RepoCard

from helpers.hub_server import client_environment, running
from m33d_hf import __version__
from m33d_hf.demo import __main__ as page
from m33d_hf.demo.space import write_space
from m33d_hf.errors import ConfigError


def test_a_space_is_three_files(tmp_path: Path) -> None:
    written = write_space(tmp_path / "space", "org/m33d-vitb-rooms-depth", title="Rooms: depth")
    assert sorted(path.name for path in written) == ["README.md", "app.py", "requirements.txt"]
    front = RepoCard.load(tmp_path / "space/README.md").data.to_dict()
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["title"] == "Rooms: depth"
    assert front["models"] == ["org/m33d-vitb-rooms-depth"] and int(front["sdk_version"].split(".")[0]) >= 6
    assert (tmp_path / "space/requirements.txt").read_text() == f"m33d-hf[demo]=={__version__}\n"


def test_its_app_serves_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[list[str]] = []
    monkeypatch.setattr(page, "main", lambda argv: served.append(list(argv)) or 0)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    write_space(tmp_path, ["org/depth", "org/classes"], requirement="m33d-hf[demo] @ https://example.org/x.whl")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tmp_path / "app.py"), run_name="__main__")
    assert ended.value.code == 0 and served == [["org/depth", "org/classes"]]
    assert "example.org" in (tmp_path / "requirements.txt").read_text()


@pytest.mark.parametrize("model", [[], "outputs/rooms/depth", "depth", 'a/b"; import os'])
def test_models_of_a_space_are_on_the_hub(model: str | list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"requires at least one model|is no Hub id"):
        write_space(tmp_path, model)


def test_without_gradio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert page.main([]) == 2
    assert "pip install 'm33d-hf[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "70000"], "--port 70000"),
        (["--max_upload_mb", "0"], "--max_upload_mb 0"),
        (["--keep_seconds", "0"], "--keep_seconds 0"),
    ],
)
def test_options_have_bounds(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main(flags) == 2
    assert words in capsys.readouterr().err


def test_a_space_goes_to_a_hub_once_and_comes_back(tmp_path: Path) -> None:
    """By the real client; a model of the same name is another repository there."""
    code = (
        "import os, sys; from huggingface_hub import snapshot_download\n"
        "from m33d_hf.demo.space import publish_space\n"
        "assert publish_space('org/x', 'org/x') == publish_space('org/x', 'org/x')\n"
        "os.chdir(snapshot_download('org/x', repo_type='space')); print(*sorted(os.listdir()))\n"
        "sys.path.insert(0, ''); import app; print(*app.MODELS)"
    )
    with running() as hub:
        environment = client_environment(hub, str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    assert done.stdout.split() == [".gitattributes", "README.md", "app.py", "requirements.txt", "org/x"], done.stderr
    assert list(hub.repos) == ["spaces/org/x"] and not hub.unknown
    assert hub.repos["spaces/org/x"].sdk == "gradio" and len(hub.repos["spaces/org/x"].commits) == 2
