"""Randomness as a function of names: (seed, epoch, sample key, view, purpose), never of a worker or a rank.

Every draw of the data path starts from a seed hashed out of plain values, so that 1 or 2 processes and 0 or 8
workers see the same crops and masks, and a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

SeedPart = int | float | str | bool | None
_SEED_TYPES = frozenset({int, float, str, bool, type(None)})


def seed_of(*parts: SeedPart) -> int:
    """Hash plain values into a seed in [0, 2**63), the same in every process and on every machine.

    Types count: ``seed_of(1)`` and ``seed_of("1")`` differ, and so do ``seed_of("ab", "c")`` and
    ``seed_of("a", "bc")``.

    Raises:
        TypeError: a part is not an int, float, str, bool or None (its text might change between processes).
    """
    for part in parts:
        if type(part) not in _SEED_TYPES:
            raise TypeError(f"a seed can be made of int, float, str, bool or None, not of {type(part).__name__}")
    # The text of a tuple of these types names every value, its type and its boundaries.
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_of(*parts: SeedPart) -> torch.Generator:
    """Return a fresh CPU generator seeded by `seed_of`; the global generator is not touched."""
    generator = torch.Generator()
    generator.manual_seed(seed_of(*parts))
    return generator


@contextmanager
def seeded(*parts: SeedPart) -> Iterator[None]:
    """Seed torch's default CPU generator for the block and restore its state afterwards.

    For code that takes no generator (torchvision's transform classes). `torch.manual_seed` would also walk
    through every accelerator, a hundred times slower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(*parts))
        yield


class Draw(NamedTuple):
    """The part that all random draws of a sample share; the data set stores it as ``sample.meta["draw"]``.

    Attributes:
        seed: seed of the run.
        epoch: pass over the data; 0 for evaluation, so that an evaluation is repeatable.
        view: number of the augmented view of the same frames; 0 unless a run asks for repeated views.
    """

    seed: int
    epoch: int = 0
    view: int = 0

    def generator(self, key: str, purpose: str) -> torch.Generator:
        """Return the generator of one purpose ("transform", "mask", "hide:depth") for the sample `key`."""
        return generator_of(self.seed, self.epoch, key, self.view, purpose)


class Uniforms:
    """Many small draws from one generator at the price of few: values come from blocks of `torch.rand`."""

    BLOCK = 32

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._block: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw one float in [low, high)."""
        if not self._block:
            self._block = torch.rand(self.BLOCK, generator=self._generator).tolist()
        return low + (high - low) * self._block.pop()

    def integer(self, high: int) -> int:
        """Draw one int in [0, high)."""
        return min(int(self.uniform() * high), high - 1)

    def chance(self, probability: float) -> bool:
        """Be true with the given probability; 0 never is, 1 always."""
        return self.uniform() < probability

    def order(self, count: int) -> list[int]:
        """Draw a permutation of range(count)."""
        left = list(range(count))
        return [left.pop(self.integer(len(left))) for _ in range(count)]
