"""A run that failed leaves its process group whole: a thread of gloo that outlives it can abort the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.leaving_group import leave_after_a_failure
from helpers.ranks import ForkedRanks


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for threads")
@pytest.mark.parametrize(("which", "uncaught"), [("write", False), ("read", True)], ids=["write told", "read uncaught"])
def test_no_thread_of_gloo_outlives_a_run_that_failed(tmp_path: Path, which: str, uncaught: bool) -> None:
    ranks = ForkedRanks(leave_after_a_failure, which, uncaught, str(tmp_path), log=tmp_path / "output.txt", processes=2)
    assert ranks.wait() == [0, 0], ranks.output()
    for rank in range(2):
        before, after = (tmp_path / f"threads.{rank}.txt").read_text().split("\n")
        assert "gloo_runloop" in before and "gloo_runloop" not in after, after


def test_what_keeps_a_group_in_its_defaults_is_imported_before_there_is_one() -> None:
    # Functions of this module have `group=group.WORLD`: imported beside a group, it would hold that to the very end.
    code = "import sys, m33d_hf.training.processes.launch; print('torch.distributed.nn.functional' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
