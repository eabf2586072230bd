"""A wheel built from the checkout holds everything the package needs, and works where the checkout is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from helpers.rooms_runs import words

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "outputs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "tests", "results"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools >= 77")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "src", symlinks=True, ignore=NOT_COPIED)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    command += ["--wheel-dir", str(folder / "out"), str(folder / "src")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "out").glob("m33d_hf-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    command += ["--target", str(target), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


PACKED = {".py", ".yaml", ".md", ".typed", ".png", ".mp4"}


def _source_files() -> set[str]:
    """What must be in the wheel: every Python and YAML file, card templates and rendered examples, as m33d_hf/..."""
    wanted = set()
    for folder in (ROOT / "m33d_hf", ROOT / "modeling", ROOT / "scripts", ROOT / "model_cards"):
        for path in folder.rglob("*"):
            linked = any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(ROOT))
            if linked or "__pycache__" in path.parts or path.suffix not in PACKED:
                continue
            name = path.relative_to(ROOT).as_posix()
            wanted.add(name if name.startswith("m33d_hf/") else f"m33d_hf/{name}")
    return wanted


def test_wheel_holds_every_file(wheel: Path) -> None:
    missing = _source_files() - _names(wheel)
    assert not missing, f"not in the wheel; setup.cfg lists packages and package data: {sorted(missing)}"


def test_wheel_has_one_top_level_package(wheel: Path) -> None:
    top = {name.split("/")[0] for name in _names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"m33d_hf"}


@pytest.fixture(scope="module")
def sdist(wheel: Path) -> Path:
    """Built from the same copy."""
    code = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(wheel.parent)]
    done = subprocess.run(command, cwd=wheel.parents[1] / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = wheel.parent.glob("m33d_hf-*.tar.gz")
    return built


def test_sdist_holds_what_the_wheel_is_made_of_and_the_papers(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    placed = {name if name.startswith("m33d_hf/") else f"m33d_hf/{name}" for name in names}
    assert _source_files() - placed == set()
    papers = {"LICENSE", "WEIGHTS.md", "CITATION.cff", "CHANGELOG.md", "README.md", "docs/first_picture.md"}
    assert papers - names == set()


def test_wheel_carries_licence_and_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for paper in ("LICENSE", "WEIGHTS.md", "CITATION.cff"):
            (place,) = (name for name in names if name.endswith(f"/licenses/{paper}"))
            assert archive.read(place) == (ROOT / paper).read_bytes()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    assert "Apache-2.0" in text
    assert "Requires-Dist: transformers" in text


def _run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_installed_wheel_is_what_gets_imported(installed: Path, tmp_path: Path) -> None:
    code = "import m33d_hf.modeling.configuration_m33d as c; print(c.__file__)"
    done = _run(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(installed))


def test_recipe_dry_run_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    if not (ROOT / "scripts" / "run_pretrain.py").exists():
        pytest.skip("scripts/run_pretrain.py is not there")
    recipe = words("rooms/pretrain_stage1", tmp_path / "out", method="m33d")  # a few rooms are enough
    done = _run(installed, tmp_path, "-m", "m33d_hf.scripts.run_pretrain", *recipe, "--dry_run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "learning rate" in done.stdout.lower().replace("_", " ")


def test_every_script_says_its_help_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (ROOT / "scripts").glob("[a-z]*.py"))
    code = """
import contextlib, io, runpy, sys
for name in sys.argv[1:]:
    sys.argv, out = [name, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_module(f"m33d_hf.scripts.{name}", run_name="__main__")
    except SystemExit as end:
        assert not end.code, (name, end.code)
    assert len(out.getvalue()) > 100, name
    print(name)
"""
    done = _run(installed, tmp_path, "-c", code, *names)
    assert done.returncode == 0 and done.stdout.split() == names, done.stdout + done.stderr
    assert len(names) >= 15
