"""Options of the sources: types come from their constructors, and wrong ones are refused before anything is read."""

from __future__ import annotations

import collections.abc as abc
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest
import yaml

from helpers.frames_on_disk import write_frames
from m33d_hf.data import sources
from m33d_hf.data.sources import SOURCES, build_source, source_option_types
from m33d_hf.data.sources.options import RANGES, check_options, option_types
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.fields_m33d import Range, described, fit, item_type, takes_text
from m33d_hf.modeling.modalities_m33d import modality_types
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import model_hints, parse_arguments
from m33d_hf.training.recipe.recipes import merge

WRONG: list[Any] = ["x", b"x", 1.5, True, 3, [], [object()], {"a": object()}, object(), math.nan, math.inf]
CASES = [(source, option) for source in SOURCES for option in source_option_types(source)]


class Declaring:
    """A source that declares options of all the kinds that annotations have."""

    def __init__(
        self,
        root: str | Path,
        mode: Literal["a", "b"] = "a",
        names: str | Sequence[str] | None = None,
        table: Mapping[int, str] | None = None,
        crop: tuple[int, int] | None = None,
        share: Annotated[float, Range(above=0, high=1)] = 1.0,
        limit: int | float | None = None,
        rates: dict[str, float] | None = None,
        anything: Any = None,
        undeclared=None,
    ) -> None:
        self.given = root


@pytest.mark.parametrize(("source", "option"), CASES)
def test_every_option_refuses_what_its_annotation_excludes(source: str, option: str) -> None:
    hint = source_option_types(source)[option]
    assert hint is not Any, "options are annotated"
    wrong = [value for value in WRONG if not fit(value, hint)[0]]
    given = {"root": "/nowhere", "dataset": "arkitscenes"}
    required = {name: value for name, value in given.items() if name in source_option_types(source)}
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"source '{source}': {option}( \(.*\))? must be ") as caught:
            build_source(source, **{**required, option: value})
        assert described(hint) in str(caught.value)
    if option in RANGES:
        low, above = RANGES[option].low, RANGES[option].above
        for number in [low - 1] if low is not None else [above]:
            with pytest.raises(ConfigError, match=option):
                build_source(source, **{**required, option: number})


# Numbers whose check is another: values of pixels, for `DepthSpec` and `LabelRules`; keys of names; a share or names.
WITHOUT_RANGE = {"invalid_values", "label_ignore", "label_map", "phase_names", "validation", "ignore_classes"}


def test_every_option_that_holds_numbers_has_a_range_or_a_reason() -> None:
    numeric = {option for source, option in CASES if {"int", "float"} & set(re.findall(
        r"\w+", str(source_option_types(source)[option])))}  # fmt: skip
    assert numeric - RANGES.keys() == WITHOUT_RANGE
    for option, allowed in RANGES.items():
        assert (allowed.low, allowed.above) != (None, None) and (allowed.high, allowed.below) != (None, None), option


@pytest.mark.parametrize("by", ["flag", "recipe", "python"])
@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("depth_scale", "{a: 1000, b: 5000}", {"a": 1000.0, "b": 5000.0}),
        ("depth_scale", "{a: 1000, b: 0}", "has 0 for 'b'; each must be at least"),
        ("depth_unit", "{a: millimetre, b: tum}", {"a": "millimetre", "b": "tum"}),
        ("split_fractions", "{train: 1.5}", "has 1.5 for 'train'; each must be at least 0 and at most 1"),
        ("windows", "0", "is 0; it must be at least 1"),
        ("label_offset", "1099511627776", "it must be at least -2147483647 and at most 2147483647"),
        ("invalid_values", "[0, 65535]", [0.0, 65535.0]),
        ("label_map", "{0: 0, 255: 1}", {0: 0, 255: 1}),
    ],
)
def test_flag_recipe_and_python_take_and_refuse_alike(
    tmp_path: Path, by: str, option: str, text: str, expected: Any
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"train: {{max_steps: 1}}\ndata: {{source: folder, options: {{{option}: {text}}}}}\n")
    words = {
        "flag": ["--train.max_steps", "1", "--data.source", "folder", f"--data.options.{option}", text],
        "recipe": ["--recipe", str(recipe)],
    }

    def read() -> Any:
        if by == "python":
            return check_options("folder", sources.source_class("folder"), {option: yaml.safe_load(text)})[option]
        return parse_arguments(words[by], "semantic_segmentation").data.options[option]

    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=re.escape(expected)):
            read()
    else:
        assert read() == expected


ALONE = {int: ("7", 7), float: ("0.5", 0.5), str: ("seven", "seven")}


def lists_alone() -> list[tuple[str, str, Any]]:
    """Dotted key, word and value of every field and option that holds a list and no such value by itself."""
    found = [(f"data.options.{option}", source_option_types(source)[option]) for source, option in CASES]
    found += [(f"{section}.{name}", hint) for section, hints in argument_hints() for name, hint in hints.items()]
    found += [(f"model.{name}", hint) for name, hint in model_hints().items()]
    found += [(f"modalities.rgb.{name}", hint) for name, hint in modality_types().items()]
    found = [(key, hint) for key, hint in found if item_type(hint) in ALONE and not takes_text(hint)]
    cases = {key: ALONE[item_type(hint)] for key, hint in found if not fit(ALONE[item_type(hint)][1], hint)[0]}
    return [(key, word, value) for key, (word, value) in cases.items()]


def argument_hints() -> list[tuple[str, dict[str, Any]]]:
    """Name and hints of every section of RunArguments."""
    sections = {name: hint for name, hint in get_type_hints(RunArguments).items() if is_dataclass(hint)}
    return [(name, get_type_hints(hint)) for name, hint in sections.items()]


@pytest.mark.parametrize(("key", "word", "value"), lists_alone())
def test_one_value_for_a_list_means_the_same_as_flag_and_in_a_recipe(
    tmp_path: Path, key: str, word: str, value: Any
) -> None:
    recipe = tmp_path / "mine.yaml"
    source = next((s for s, option in CASES if key == f"data.options.{option}"), "rooms")
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    tree = merge({"train": {"max_steps": 1}, "data": {"source": source}}, tree)
    recipe.write_text(yaml.safe_dump(tree))

    def outcome(argv: list[str]) -> str:
        try:
            return repr(parse_arguments(argv, "semantic_segmentation"))
        except ConfigError as error:
            return re.sub(r"the command line|command line|recipe \S*mine\.yaml", "origin", str(error))

    flag = outcome(["--train.max_steps", "1", "--data.source", source, f"--{key}", word])
    assert flag == outcome(["--recipe", str(recipe)]).replace(f"recipe={str(recipe)!r}", "recipe=None")
    assert f"not {value!r}" not in flag  # refused by its range at most


def test_the_lists_tried_alone_are_there() -> None:
    there = {key for key, _, _ in lists_alone()}
    assert {"data.options.invalid_values", "optim.betas", "modalities.rgb.channel_mean"} <= there


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "b"}, "b"), ({"names": ["x", "y"]}, ["x", "y"]), ({"names": "file"}, "file"), ({"names": None}, None),
        ({"table": {"0": "a", "255": "b"}}, {0: "a", 255: "b"}), ({"crop": [3, 4]}, [3, 4]), ({"share": 1}, 1.0),
        ({"limit": 3}, 3), ({"rates": {"a": 1}}, {"a": 1.0}), ({"anything": object}, object), ({"undeclared": 7}, 7),
        ({"root": Path("x")}, Path("x")),
    ],
)  # fmt: skip
def test_annotations_of_all_kinds_are_understood(options: dict[str, Any], expected: Any) -> None:
    assert check_options("declaring", Declaring, options) == {next(iter(options)): expected}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "c"}, "mode must be one of a, b, not 'c'"),
        ({"names": [3]}, "names must be text or a list whose entries are each text or null"),
        ({"table": {"x": "a"}}, "table must be a mapping of an integer to text or null"),
        ({"crop": [3]}, "crop must be a list whose entries are each an integer or null"),
        ({"share": 0}, r"share is 0; it must be above 0 and at most 1"),
        ({"share": "half"}, "share must be a number, not 'half'"),
        ({"limit": True}, "limit must be an integer or a number or null"),
        ({"rates": {"a": "b"}}, "rates must be a mapping of text to a number or null"),
        ({"mood": 3}, "has no option 'mood'.*Did you mean 'mode'"),
    ],
)
def test_what_annotations_exclude_is_told_with_what_they_admit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options("declaring", Declaring, options)


def test_values_that_can_be_read_once_are_handed_on_unread(tmp_path: Path) -> None:
    write_frames(tmp_path, 1)
    given = (value for value in (0, 65535))
    assert check_options("folder", sources.source_class("folder"), {"invalid_values": given})["invalid_values"] is given
    assert isinstance(given, abc.Iterator) and len(build_source("folder", root=tmp_path, invalid_values=given)) == 1


def test_options_of_flags_and_recipes_are_refused_with_key_and_origin(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "train: {max_steps: 1}\ndata: {source: folder, options: {every: often}, eval_options: {fps: 0}}\n"
    )
    with pytest.raises(ConfigError, match=rf"data\.options\.every \(recipe {recipe}\) must be an integer, not 'often'"):
        parse_arguments(["--recipe", str(recipe)], "semantic_segmentation")
    with pytest.raises(ConfigError, match=rf"data\.eval_options\.fps \(recipe {recipe}\) is 0; it must be above 0"):
        parse_arguments(["--recipe", str(recipe), "--data.options.every", "2"], "semantic_segmentation")
    with pytest.raises(ConfigError, match=r"data\.options\.every \(command line\) is 0"):
        parse_arguments(["--recipe", str(recipe), "--data.options.every", "0"], "semantic_segmentation")


def test_the_types_are_those_of_the_constructor() -> None:
    assert option_types(Declaring)["mode"] == Literal["a", "b"]
    assert list(option_types(Declaring)) == [
        "root", "mode", "names", "table", "crop", "share", "limit", "rates", "anything", "undeclared",
    ]  # fmt: skip
