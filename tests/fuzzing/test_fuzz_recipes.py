"""Damaged recipes, and values of every kind for every argument, field and option: accepted, or refused by us."""

from __future__ import annotations

import math
import random
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.frames_on_disk import write_frames
from helpers.fuzzing import Outcomes, mutations, slices
from helpers.scannet_folders import write_exported, write_table
from helpers.sunrgbd_folders import write_sunrgbd
from helpers.tiny import SMALL
from m33d_hf.data.sources import SOURCES, build_source, source_class, source_option_types
from m33d_hf.data.sources.options import check_options
from m33d_hf.modeling.configuration_m33d import M33DConfig, field_types, rgb_modality
from m33d_hf.modeling.modalities_m33d import modality_types
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments, fields_of
from m33d_hf.training.recipe.parsing import model_hints, parse_arguments

# As flags and recipes spell them; recipes read them as YAML.
SPELLINGS = [
    "1099511627776", "0", "1", "-1", "2", "0.5", "1e-4", "1e400", "-.inf", ".nan", "9" * 400, "9" * 5000,
    "0x" + "f" * 300, "true", "false", "null", "~", "none", "''", '" "', "x", "exp #1", "@x", "%x", "!x", "`x",
    "*x", "&a [*a]", "'", '"', "[]", "[1]", "[1, 2]", "[1, 2, 3]", "[0.9, 0.95]", "[2, 3]", "[a, b]", "[[1, 2], 3]",
    "{}", "{a: 1}", "{0: 0, 255: 1}", "{1: a, '1': b}", "{[1]: 2}", "[1, {a: [b]}]", "!!int abc", "!!bool x",
    "!!float ''", "!!binary aGk=", "!!set {a}", "!!python/object:os.system x", "2001-01-01", "1:30", "0o7",
    "[" * 40, "[" * 3000, "{a: " * 3000, "- a", "a: b", "|", "\x00", "\ud800", "é", "\u2028", "cosine", "bf16",
    "auto", "rooms", "folder", "rgb", "gelu", "../..", "x" * 5000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 4, 7, 255, 2**31, 2**40, 2**64, 10**400, 0.0, 0.5, 1.0, 1e-300, 1e300,
    math.nan, math.inf, "", "x", "auto", "none", "0", "é\x00", "x" * 5000, b"x", [], [1], [1, 2], [1, 2, 3],
    [0, 1, 2, 3], ["a", "b"], [None], [math.nan, 1], [[1, 2]], (1, 2), {}, {"a": 1}, {0: 0}, {"0": "a"}, {None: 1},
    {1, 2}, object(), int, Path("x"), "train", "clips", "frames", "metric", "millimetre", "error", "skip",
]  # fmt: skip
TASKS = ("pretraining", "semantic_segmentation", "video_classification")


def keys() -> list[str]:
    """Every dotted key that a recipe or a flag may set."""
    plain = [key for key, _, _ in fields_of(RunArguments())]
    plain += [f"model.{name}" for name in model_hints()]
    plain += [f"modalities.rgb.{name}" for name in modality_types()]
    return (
        plain
        + [f"data.options.{name}" for name in source_option_types("folder")]
        + ["data", "model", "modalities", "optim"]
    )


def nested(key: str, text: str) -> str:
    """A recipe that sets one key to a text, as it stands."""
    *parents, leaf = key.split(".")
    lines = [f"{'  ' * level}{parent}:" for level, parent in enumerate(parents)]
    return "\n".join([*lines, f"{'  ' * len(parents)}{leaf}: {text}"])


def everything() -> bytes:
    """A recipe that says every argument there is."""
    tree = RunArguments().to_dict()
    tree["data"] |= {
        "source": "folder",
        "options": {"label_map": {0: 0, 255: 1}, "class_names": ["a", "b #1"], "every": 2},
    }
    tree["model"] = {"hidden_size": 32, "image_size": [48, 48], "id2label": {0: "a"}, "hidden_act": "gelu"}
    tree["modalities"] = {"rgb": {"mask_ratio": 0.5}, "thermal": {"channels": 1, "input_name": "thermal_values"}}
    tree["train"]["max_steps"] = 3
    return yaml.safe_dump(tree, sort_keys=False).encode()


@pytest.mark.parametrize(("seed", "count"), slices(150, 3000))
def test_damaged_recipes(tmp_path: Path, seed: int, count: int) -> None:
    outcomes = Outcomes()
    shipped = [(recipes.RECIPES / f"{name}.yaml").read_bytes() for name in ("rooms/pretrain", "bases/rooms_pretrain")]
    originals = [everything(), *shipped, (recipes.METHODS / "m33d.yaml").read_bytes()]
    for number, original in enumerate(originals):
        option = "--method" if number == 3 else "--recipe"
        for name, data in mutations(original, seed, count // len(originals)):
            path = tmp_path / "damaged.yaml"
            path.write_bytes(data)
            words = [option, str(path)] if option == "--recipe" else ["--train.max_steps", "1", option, str(path)]
            outcomes.judge(f"original {number}, {name}", lambda words=words: parse_arguments(words, "pretraining"))
    assert min(outcomes["accepted"], outcomes["refused"]) > count // 20


def told(seed: int, count: int) -> Iterator[tuple[str, str, str]]:
    """(task, key, spelling): every key once, then at random."""
    rng = random.Random(f"told:{seed}")
    known = keys()
    for number in range(max(count, len(known))):
        key = known[number] if number < len(known) else rng.choice(known)
        yield rng.choice(TASKS), key, rng.choice(SPELLINGS)


@pytest.mark.parametrize(("seed", "count"), slices(250, 4000))
def test_values_of_every_kind_by_flag(seed: int, count: int) -> None:
    outcomes = Outcomes()
    for task, key, text in told(seed, count):
        length = [] if key in ("train.max_steps", "train.epochs") else ["--train.max_steps", "1"]
        source = [] if key in ("data", "data.source") else ["--data.source", "folder"]
        words = [*length, *source, f"--{key}={text}"]
        outcomes.judge(f"{task} {words!r:.200}", lambda words=words, task=task: parse_arguments(words, task))
    assert min(outcomes["accepted"], outcomes["refused"]) > count // 10


@pytest.mark.parametrize(("seed", "count"), slices(250, 4000))
def test_values_of_every_kind_by_recipe(tmp_path: Path, seed: int, count: int) -> None:
    outcomes = Outcomes()
    path = tmp_path / "mine.yaml"
    for task, key, text in told(seed + 10, count):
        path.write_bytes(nested(key, text).encode("utf-8", "surrogatepass"))
        words = ["--recipe", str(path), *([] if key.startswith("train") else ["--train.max_steps", "1"])]
        found = outcomes.judge(
            f"{task} {key}: {text!r:.200}", lambda words=words, task=task: parse_arguments(words, task)
        )
        assert len(str(found)) < 20_000
    assert min(outcomes["accepted"], outcomes["refused"]) > count // 10


@pytest.mark.parametrize(("seed", "count"), slices(600, 6000))
def test_values_of_every_kind_in_a_configuration(seed: int, count: int) -> None:
    rng, outcomes = random.Random(f"configuration:{seed}"), Outcomes()
    own = [
        *field_types(),
        "num_labels",
        "id2label",
        "label2id",
        "dtype",
        "torch_dtype",
        "problem_type",
        "architectures",
    ]
    for number in range(count):
        names = [own[number % len(own)], *rng.sample(own, rng.choice((0, 0, 1)))]
        fields = {name: rng.choice(VALUES) for name in names}
        outcomes.judge(f"{fields!r:.200}", lambda fields=fields: M33DConfig(**{**SMALL, **fields}))
        entry = rgb_modality(**{rng.choice(list(modality_types())): rng.choice(VALUES)})
        outcomes.judge(f"{entry!r:.300}", lambda entry=entry: M33DConfig(**{**SMALL, "modalities": [entry]}))
    assert min(outcomes["accepted"], outcomes["refused"]) > count // 10


@pytest.mark.parametrize(("seed", "count"), slices(250, 4000))
def test_values_of_every_kind_for_the_options_of_sources(tmp_path: Path, seed: int, count: int) -> None:
    rng, outcomes = random.Random(f"options:{seed}"), Outcomes()
    frames = write_frames(tmp_path / "frames", 2)
    roots = {"scannet": write_exported(tmp_path / "scans"), "sunrgbd": write_sunrgbd(tmp_path / "sun")}
    write_table(tmp_path / "scans" / "scannetv2-labels.combined.tsv")
    cases = [(source, option) for source in SOURCES for option in source_option_types(source)]
    for number in range(count):
        source, option = cases[number] if number < len(cases) else rng.choice(cases)
        value = rng.choice(VALUES)
        name = f"{source} {option}={value!r:.100}"
        if source in ("rooms", "procedures"):  # whatever is accepted would be rendered
            outcomes.judge(name, lambda s=source, o=option, v=value: check_options(s, source_class(s), {o: v}))
            continue
        unit = {"depth_unit": "millimetre"} if source == "folder" else {}
        options = {"root": roots.get(source, frames), **unit, option: value}
        outcomes.judge(name, lambda s=source, given=options: len(typing.cast(Any, build_source(s, **given))))
    assert min(outcomes["accepted"], outcomes["refused"]) > count // 20
