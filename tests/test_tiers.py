"""make test, make test-extras and make test-slow: together every test, and what each promises."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import LONGEST, refuse_skip

TIERS = {
    "test": ("not slow and not extras and not demo", "[test]"),
    "test-demo": ("demo", "[demo,browser]"),
    "test-extras": ("extras", "[test,deepspeed,extras,docs]"),
    "test-slow": ("slow and not extras", "[test]"),
}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_sets_itself_up_and_runs_its_tests(tier: str, repository: Path, tmp_path: Path) -> None:
    command = ["make", "-n", tier, f"VENV={tmp_path / 'new'}"]
    # A make above this one (`make test`) hands its flags and variables down; only its own are looked at here.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    done = subprocess.run(command, cwd=repository, env=alone, capture_output=True, text=True, check=True)
    marks, extra = TIERS[tier]
    *installing, last = done.stdout.splitlines()
    assert "-m venv" in installing[0] and f'-m pip install -e ".{extra}"' in done.stdout
    assert re.search(r'-m "?([a-z ]+?)"?( --no-skips)? *$', last).group(1) == marks  # type: ignore[union-attr]
    assert ("--no-skips" in last) is (tier in ("test-extras", "test-demo"))
    assert "apt" not in done.stdout, "no target installs packages of the system"


def test_continuous_integration_runs_what_needs_no_patience(repository: Path) -> None:
    lines = (repository / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make lint", "make test", "make test-extras"]


def test_marks_are_those_of_the_tiers(repository: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(repository / "setup.cfg")
    marks = settings["tool:pytest"]["markers"].strip().splitlines()
    assert [mark.split(":")[0] for mark in marks] == ["slow", "extras", "demo"]


def test_the_longest_files_are_there(repository: Path) -> None:
    assert all((repository / "tests" / name).is_file() for name in LONGEST)


def test_a_skip_is_a_failure_where_nothing_may_be_skipped() -> None:
    where = ("tests/test_x.py", 1, "Skipped: no such package")
    skipped = pytest.TestReport("x", ("x", 1, "x"), {}, "skipped", where, "call")
    refuse_skip(skipped)
    assert skipped.failed and "no such package" in str(skipped.longrepr)
    passed = pytest.TestReport("x", ("x", 1, "x"), {}, "passed", None, "call")
    refuse_skip(passed)
    assert passed.passed
