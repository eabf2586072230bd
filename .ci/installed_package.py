"""Of an installed wheel: it is the one in this environment, papers and names are there, every script says its help.

Usage: python installed_package.py ENVIRONMENT
"""

from __future__ import annotations

import contextlib
import io
import pkgutil
import runpy
import sys
from importlib import metadata
from pathlib import Path

import m33d_hf
from m33d_hf import scripts


def _fail(words: str) -> None:
    sys.exit(f"installed_package.py: {words}")


def check_files(environment: Path) -> None:
    """Licence, citation and version."""
    place = Path(m33d_hf.__file__).resolve()
    if environment.resolve() not in place.parents:
        _fail(f"m33d_hf comes from {place}, not from {environment}")
    files = [str(path) for path in metadata.files("m33d-hf") or []]
    for name in ("LICENSE", "WEIGHTS.md", "CITATION.cff", "py.typed"):
        if not any(path.endswith(name) for path in files):
            _fail(f"{name} is not installed")
    if metadata.version("m33d-hf") != m33d_hf.__version__:
        _fail("version of the package and of its metadata differ")
    missing = [name for name in m33d_hf.__all__ if getattr(m33d_hf, name, None) is None]
    if missing:
        _fail(f"public names are missing: {missing}")


def check_help(name: str) -> None:
    """`python -m NAME --help` ends well and says something."""
    sys.argv, said = [name, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_module(name, run_name="__main__")
    except SystemExit as end:
        if end.code:
            _fail(f"{name} --help ended with {end.code}")
    if len(said.getvalue()) < 100:
        _fail(f"{name} --help says nothing")
    print(name)


if __name__ == "__main__":
    check_files(Path(sys.argv[1]))
    names = [
        f"m33d_hf.scripts.{found.name}" for found in pkgutil.iter_modules(scripts.__path__) if found.name[0] != "_"
    ]
    if len(names) < 15:
        _fail(f"only {len(names)} scripts are installed")
    for each in [*sorted(names), "m33d_hf.demo"]:
        check_help(each)
