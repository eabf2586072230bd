"""Every bound that the arguments state is enforced before anything is computed, and stated as it is enforced."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.fields_m33d import Range, options_of
from m33d_hf.training.recipe.arguments import RunArguments, fields_of
from m33d_hf.training.recipe.help import help_text
from m33d_hf.training.recipe.parsing import parse_arguments, resolve

# Numbers that any value fits, with the reason; there is none so far.
WITHOUT_RANGE: dict[str, str] = {}


def hints(cls: type = RunArguments, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, type) of every argument."""
    for name, hint in typing.get_type_hints(cls).items():
        if is_dataclass(hint):
            yield from hints(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def is_numeric(hint: Any) -> bool:
    """Whether a field holds a number or a list of them."""
    return any(option in (int, float, list[int], list[float]) for option in options_of(hint))


NUMERIC = [key for key, hint in hints() if is_numeric(hint)]
RANGES = {key: field.metadata["range"] for key, field, _ in fields_of(RunArguments()) if "range" in field.metadata}


def told(key: str, value: Any) -> list[str]:
    """The command line that gives a key this value, with the length that every run must state."""
    length = [] if key in ("train.epochs", "train.max_steps") else ["--train.max_steps", "1"]
    return [*length, f"--{key}={value}"]


def beside(key: str, bound: float, outwards: float) -> float:
    """The next value of the field's type beyond a bound."""
    whole = int in options_of(dict(hints())[key])
    return int(bound + outwards) if whole else math.nextafter(bound, math.inf * outwards)


def values(key: str) -> Iterator[tuple[Any, bool]]:
    """(value, whether it must be accepted, even numbers apart): every bound, and the next value on either side."""
    allowed: Range = RANGES[key]
    sides = ((allowed.low, -1, True), (allowed.above, -1, False), (allowed.high, 1, True), (allowed.below, 1, False))
    for bound, outwards, closed in sides:
        if bound is None:
            continue
        yield bound, closed
        yield beside(key, bound, outwards), False
        yield beside(key, bound, -outwards), True
    yield math.nan, False
    yield math.inf, False


def test_every_number_has_a_range_or_a_reason() -> None:
    assert {key for key in NUMERIC if key not in RANGES} == set(WITHOUT_RANGE)
    assert RANGES.keys() <= set(NUMERIC)
    for key, allowed in RANGES.items():
        assert (allowed.low, allowed.above) != (None, None) and (allowed.high, allowed.below) != (None, None), key


@pytest.mark.parametrize("key", NUMERIC)
def test_each_bound_is_refused_beyond_and_taken_where_it_is_closed(key: str) -> None:
    length = RANGES[key].length or 1
    many = list in [typing.get_origin(option) for option in options_of(dict(hints())[key])]
    for value, fits in values(key):
        given = repr([value] * length if many else value).replace("inf", ".inf").replace("nan", ".nan")
        if RANGES[key].odd and isinstance(value, int) and value % 2 == 0:
            fits = False
        if fits:
            # A factor of the side, for this crop alone; of the area it is at most 1.
            words = ["--transforms.train_crop", "scale_jitter"] if key == "transforms.scale" else []
            parse_arguments([*told(key, given), *words], "pretraining")
            continue
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")) as caught:
            parse_arguments(told(key, given), "pretraining")
        assert "command line" in str(caught.value)


@pytest.mark.parametrize("key", NUMERIC)
def test_help_says_the_range_that_is_checked(key: str) -> None:
    lines = help_text("pretraining").splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith(f"  --{key} ("))
    words = RANGES[key].words()
    assert lines[place + 1].endswith(f"{words[0].upper()}{words[1:]}.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.min_lr", "-1"], r"optim\.min_lr \(command line\) is -1; it must be at least 0"),
        (["--optim.warmup_epochs", "-1"], r"optim\.warmup_epochs .* is -1; it must be at least 0"),
        (["--optim.eps", "-1"], r"optim\.eps .* is -1; it must be above 0"),
        (["--data.prefetch_factor", "0"], r"data\.prefetch_factor .* is 0; it must be at least 1"),
        (["--optim.betas", "2", "3"], r"optim\.betas .* is \[2\.0, 3\.0\]; it must be two numbers, each at least 0"),
        (["--optim.betas", ".9"], r"optim\.betas .* two numbers"),
        (["--transforms.scale", "1", "0.2"], r"transforms\.scale .* two ascending numbers, each above 0"),
        (["--transforms.blur_kernel", "4"], r"transforms\.blur_kernel .* is 4; it must be odd"),
        (["--transforms.multiscale_scales", "[]"], r"transforms\.multiscale_scales .* is \[\]"),
        (["--train.batch_size", "1099511627776"], r"train\.batch_size .* at most 65536"),
        (["--model.num_hidden_layers", "1099511627776"], r"model\.num_hidden_layers .* at most 1024"),
        (["--modalities.rgb.mask_ratio", "1.5"], r"modalities\.rgb\.mask_ratio \(the command line\) is 1\.5"),
        (["--model.num_labels", "0"], r"model\.num_labels .* is 0; it must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_told_with_key_bound_and_origin(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(["--train.max_steps", "1", *words], "pretraining")
