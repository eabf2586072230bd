"""Seeded damage for files and values, and the one judgement of what a reader may do with it.

A reader given damaged input may answer, or refuse with an error of ours; anything else (a foreign exception, a hang)
fails the test that asked. Every mutation is a function of a seed and its number, so that a failure repeats.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from m33d_hf.errors import M33DError

SECONDS_PER_CALL = 20


def slices(quick: int, long: int) -> list[Any]:
    """Parameters `(seed, count)`: one slice for every test run, and a longer one with another seed marked slow.

    A campaign has longer ones with other seeds: M33D_FUZZ_FACTOR multiplies `long`, M33D_FUZZ_SEED replaces its seed.
    """
    factor, seed = float(os.environ.get("M33D_FUZZ_FACTOR", "1")), int(os.environ.get("M33D_FUZZ_SEED", "1"))
    more = pytest.param(seed, max(1, round(factor * long)), id="long", marks=pytest.mark.slow)
    return [pytest.param(0, quick, id="slice"), more]


def mutations(original: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged copies of `original`, each with a name that tells seed, number and kind of damage."""
    kinds = (_flip, _flip, _overwrite, _cut, _blank, _repeat, _insert, _drop)
    for number in range(count):
        rng = random.Random(f"{seed}:{number}:{len(original)}")
        kind = rng.choice(kinds)
        yield f"seed {seed}, mutation {number}, {kind.__name__.strip('_')}", kind(rng, original)


def bit_flips(original: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` copies of `original` with one bit flipped, positions drawn evenly over the whole file."""
    rng = random.Random(f"bits:{seed}:{len(original)}")
    for _ in range(count):
        position, bit = rng.randrange(len(original)), rng.randrange(8)
        damaged = bytearray(original)
        damaged[position] ^= 1 << bit
        yield f"bit {bit} of byte {position} of {len(original)}", bytes(damaged)


def _flip(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data or b"\0")
    # Headers are where readers decide; half of the flips fall there.
    reach = len(damaged) if rng.random() < 0.5 else min(len(damaged), 512)
    damaged[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data or b"\0")
    for _ in range(rng.randint(1, 16)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _blank(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    length = rng.randrange(len(data) - start + 1)
    return data[:start] + rng.choice((b"\0", b"\xff", b" ")) * length + data[start + length :]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = rng.randrange(start, len(data) + 1)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 32)) + data[at:]


def _drop(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randint(1, 64) :]


@contextmanager
def time_limit(name: str, seconds: int = SECONDS_PER_CALL) -> Iterator[None]:
    """Fail the test when the block takes longer: a hang is a fault as a crash is."""

    def stop(signum: int, frame: object) -> None:
        pytest.fail(f"{name}: still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Outcomes(Counter):
    """How many inputs were accepted and how many refused by an error of ours."""

    def judge(self, name: str, call: Callable[[], Any]) -> Any:
        """Run `call`; return what it returns, or the `M33DError` that it raised. Anything else fails the test."""
        with time_limit(name):
            try:
                result = call()
            except M33DError as error:
                assert str(error).strip(), f"{name}: {type(error).__name__} without a message"
                self["refused"] += 1
                return error
            except pytest.fail.Exception:
                raise
            except BaseException as error:  # the whole point: whatever else comes out is a fault
                pytest.fail(f"{name}: foreign {type(error).__name__}: {error}")
        self["accepted"] += 1
        return result
