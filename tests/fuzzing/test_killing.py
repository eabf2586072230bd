"""What the harness of kills takes for an error: tracebacks through our code, and nothing that torchrun says itself."""

from __future__ import annotations

import pytest

from helpers.killing import foreign_errors

OURS = '  File "/home/me/m33d_hf/training/run/loop.py", line 7, in train\n    step()\n'
TORCHRUN = '  File "/lib/torch/distributed/run.py", line 7, in main\n    run(args)\n'
HEAD = "Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("step 1\nstopped by SIGTERM, saved step_00000003\n", []),
        (f"{HEAD}{OURS}KeyError: 'keep'\n", ["KeyError: 'keep'"]),
        (f"{HEAD}{TORCHRUN}torch.distributed.elastic.SignalException: got signal 15\n", []),
        (f"{HEAD}{OURS}KeyboardInterrupt\n", []),  # before anybody listens Python answers
        (f"{HEAD}{TORCHRUN}{OURS}ValueError: late\n", ["ValueError: late"]),  # ours below theirs
        (
            f"{HEAD}{OURS}OSError: first\n\nDuring handling of it:\n\n{HEAD}{OURS}RuntimeError: second\nmore\n",
            ["OSError: first", "RuntimeError: second"],
        ),
        (f'{HEAD}  File "tests/helpers/run_tiny.py", line 3, in main\n    run()\nTypeError: x\n', ["TypeError: x"]),
        ("TypeError: m33d_hf is named, but nothing was raised\n", []),
    ],
)
def test_errors_of_ours_are_told_from_others(output: str, expected: list[str]) -> None:
    assert foreign_errors(output) == expected
