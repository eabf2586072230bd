"""Scripts whose output nobody reads on end without a word, and imports do not wait for the collector."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from m33d_hf.training.processes.program import READER_GONE, importing, program

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted((ROOT / "scripts").glob("[a-z]*.py"))


def _into_a_closed_pipe(*words: str) -> tuple[int, str]:
    """(exit code, what it said on the other stream) of a process whose output has lost its reader."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_ends_quietly_where_its_help_is_cut_off(script: Path) -> None:
    assert _into_a_closed_pipe(str(script), "--help") == (READER_GONE, "")


def test_so_does_one_that_catches_errors_of_the_system() -> None:
    code = (
        "import sys; from m33d_hf.training.processes.program import program\n"
        "def main():\n"
        "    try:\n        print('a' * 100_000, flush=True)\n"
        "    except OSError as error:\n        print(error, file=sys.stderr)\n"
        "    return 0\n"
        "sys.exit(program(main))"
    )
    assert _into_a_closed_pipe("-c", code) == (READER_GONE, "")


def test_another_closed_pipe_remains_an_error() -> None:
    code = (
        "import os, sys; from m33d_hf.training.processes.program import program\n"
        "def main():\n"
        "    read, write = os.pipe(); os.close(read); os.write(write, b'x')\n"
        "sys.exit(program(main))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr


def test_a_crash_below_python_says_where() -> None:
    code = (
        "import os, sys; from m33d_hf.training.processes.program import program\n"
        "def decoding():\n    os.abort()\n"
        "sys.exit(program(decoding))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT and "in decoding" in done.stderr


def test_what_is_printed_arrives_as_before() -> None:
    code = (
        "import sys; from m33d_hf.training.processes.program import program\n"
        "def main():\n    print('ä', file=sys.stderr); print('out'); sys.exit(3)\n"
        "sys.exit(program(main))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (3, b"out\n", "ä\n")


def test_a_stream_that_is_no_file_stays(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    assert program(lambda: print("said") or 5) == 5  # type: ignore[func-returns-value]
    assert capsys.readouterr().out == "said\n" and sys.stdout is before


def test_the_collector_rests_while_importing_and_works_after() -> None:
    with pytest.raises(ValueError), importing():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
