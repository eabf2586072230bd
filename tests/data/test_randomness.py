import subprocess
import sys

import pytest
import torch

from m33d_hf.data.randomness import Draw, Uniforms, generator_of, seed_of, seeded


def test_seed_is_the_same_in_another_process():
    parts = (3, 0, "scene/000.jpg", "mask", 0.5, None, True)
    code = f"from m33d_hf.data.randomness import seed_of; print(seed_of(*{parts!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == seed_of(*parts)
    assert 0 <= seed_of(*parts) < 2**63


def test_seed_tells_types_and_boundaries_apart():
    seeds = {seed_of(1), seed_of("1"), seed_of(1.0), seed_of(True), seed_of("ab", "c"), seed_of("a", "bc")}
    seeds |= {seed_of(1, 2), seed_of(2, 1), seed_of(), seed_of(None)}
    assert len(seeds) == 10


def test_seed_refuses_values_without_a_stable_text():
    with pytest.raises(TypeError, match="object"):
        seed_of(object())


def test_seeded_repeats_and_restores_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(1, "a"):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(1, "a"):
        assert torch.equal(torch.rand(3), first)
    with seeded(1, "b"):
        assert not torch.equal(torch.rand(3), first)


def test_uniforms_repeat_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = Uniforms(generator_of(1)), Uniforms(generator_of(1))
    assert [first.uniform() for _ in range(70)] == [second.uniform() for _ in range(70)]
    assert torch.equal(torch.get_rng_state(), before)


def test_uniforms_stay_in_range():
    draws = Uniforms(generator_of(2))
    assert {draws.integer(3) for _ in range(60)} == {0, 1, 2}
    assert all(2.0 <= draws.uniform(2.0, 3.0) < 3.0 for _ in range(60))
    assert not any(draws.chance(0.0) for _ in range(60)) and all(draws.chance(1.0) for _ in range(60))
    orders = {tuple(draws.order(3)) for _ in range(90)}
    assert len(orders) == 6 and all(sorted(order) == [0, 1, 2] for order in orders)


def test_draw_depends_on_every_part():
    base = (Draw(0, 1, 0), "key", "mask")
    others = [
        (Draw(1, 1, 0), "key", "mask"),
        (Draw(0, 2, 0), "key", "mask"),
        (Draw(0, 1, 1), "key", "mask"),
        (Draw(0, 1, 0), "yek", "mask"),
        (Draw(0, 1, 0), "key", "hide:depth"),
    ]
    values = [float(torch.rand((), generator=d.generator(k, p))) for d, k, p in [base, *others]]
    assert len(set(values)) == 6
