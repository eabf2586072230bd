"""Install hints work in a clone and with a wheel: extras exist, hold what is needed, and pip adds them."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HINT = re.compile(r"m33d-hf\[([\w,{}]+)\]")


def _extras() -> dict[str, str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return dict(setup["options.extras_require"])


def _texts() -> dict[str, str]:
    folders = (ROOT / "m33d_hf", ROOT / "modeling", ROOT / "scripts")
    paths = [path for folder in folders for path in folder.rglob("*.py") if path.resolve() == path]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_hints_name_extras_in_quotes() -> None:
    """Without quotes some shells take the brackets for a pattern."""
    found = {(name, extra) for name, text in _texts().items() for extra in HINT.findall(text)}
    assert len(found) >= 10
    assert {extra for _, extra in found if "{" not in extra} <= set(_extras())
    bare = [name for name, text in _texts().items() if re.search(r"pip install m33d-hf\[", text)]
    assert bare == []


@pytest.mark.parametrize("extra", ["demo", "formats", "cameras", "scenes", "export", "deepspeed"])
def test_pip_adds_an_extra_to_the_installed_package_without_looking_for_it(extra: str) -> None:
    """As after `pip install -e .`, with no index at all: the package itself is never looked for on PyPI."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", f"m33d-hf[{extra}]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0 and f"Requirement already satisfied: m33d-hf[{extra}]" in done.stdout, done.stderr
    assert "does not provide the extra" not in done.stderr


def test_the_page_on_installation_lists_every_extra() -> None:
    text = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (`.*?`) \| (.*?) \|", text)
    listed = {name: brings for names, brings in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(listed) == set(_extras())
    for name in ("demo", "formats", "scenes", "shards", "export", "deepspeed"):
        packages = re.findall(r"(?m)^([\w-]+?)>=", _extras()[name])
        assert all(package in listed[name] or package == "libusb-package" for package in packages), name


def test_only_one_page_speaks_of_a_release_on_pypi() -> None:
    """A first installation by name would find nothing: every block that adds an extra points to the page on it."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name != "installation.md" and "pip install 'm33d-hf" in text:
            assert "installation.md" in text, path.name
        assert not re.search(r"(?m)^pip install m33d-hf", text), path.name
