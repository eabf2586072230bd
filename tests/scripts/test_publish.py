"""scripts/publish.py: a dry run shows the Space that would be made; flags that need another are refused."""

from __future__ import annotations

import re

import pytest
import yaml

from helpers.checkpoints import DEPTH
from m33d_hf.scripts.publish import main

LINE = "m33d-hf[demo] @ https://hub.example/m33d_hf-0.1.0-py3-none-any.whl"
WORDS = [str(DEPTH), "org/rooms", "--dry_run", "--allow_unevaluated", "--license", "apache-2.0"]


def _shown(printed: str) -> dict[str, tuple[int, str]]:
    """Name -> (bytes, text) of the files below the line about the Space."""
    below = re.sub(r"\d+ files; .*\n\Z", "", printed.split("would get in one commit:\n")[1])
    parts = re.split(r"(?m)^ +([\d,]+)  (\S+)\n\n", below)[1:]
    return {parts[i + 1]: (int(parts[i].replace(",", "")), parts[i + 2]) for i in range(0, len(parts), 3)}


def test_a_dry_run_shows_the_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--space", "org/page", "--space_requirement", LINE, "--private"]) == 0
    printed, notes = capsys.readouterr()
    assert "org/page: a private Space with the SDK gradio, created where it is missing" in printed
    files = _shown(printed)
    assert {name: size for name, (size, _) in files.items()} == {
        name: len(text.removesuffix("\n").encode()) for name, (_, text) in files.items()
    }
    assert files["requirements.txt"][1].strip() == LINE
    _, front, _ = files["README.md"][1].split("---\n", 2)
    assert yaml.safe_load(front)["models"] == ["org/rooms"] and yaml.safe_load(front)["app_file"] == "app.py"
    names: dict[str, object] = {"__name__": "app"}
    exec(files["app.py"][1], names)
    assert names["MODELS"] == ["org/rooms"]
    assert "the secret HF_TOKEN" in notes and "PyPI" not in notes and printed.endswith("nothing was sent (--dry_run)\n")


def test_a_space_that_needs_a_release_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--space", "org/page"]) == 0
    printed, notes = capsys.readouterr()
    assert "does not start where there is none; --space_requirement" in notes and "HF_TOKEN" not in notes
    assert _shown(printed)["requirements.txt"][1].startswith("m33d-hf[demo]==")


def test_without_a_space_there_is_none_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WORDS) == 0
    printed, notes = capsys.readouterr()
    assert "would get in one commit" not in printed and "HF_TOKEN" not in notes and "PyPI" not in notes
    assert main([*WORDS, "--space_requirement", LINE]) == 1
    assert "pass --space ORG/NAME too" in capsys.readouterr().err
