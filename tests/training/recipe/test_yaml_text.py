"""Recipes that are no recipes: every fault is told with the file, and nothing hangs or grows without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.fuzzing import time_limit
from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.yaml_text import parse_yaml

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"optim: {eps: \xff}", r"line 1: byte 0xff is not valid UTF-8"),
        ("model:\n  hidden_act: gelu\n  # gr\xfc\xdfe\n".encode("latin-1"), "line 3: byte 0xfc is not valid UTF-8"),
        (b"\xff\xfes\x00e\x00", "is not valid UTF-8"),
        (b"seed: !!int abc", "a value that does not fit its type"),
        (b"seed: !!bool abc", "a value that does not fit its type"),
        (b"seed: !!float ''", "a value that does not fit its type"),
        (b"seed: !!map abc", "line 1: .*must be followed by a mapping"),
        (b"seed: !!python/object:os.system x", "is not valid YAML"),
        (b"data: {root: !!binary aGk=}", "is not valid YAML"),
        (b"data: {root: !!timestamp 2001-01-01}", "is not valid YAML"),
        (b"data: {options: !!set {a}}", "is not valid YAML"),
        (b"seed: " + b"9" * 400, "is too large for an integer"),
        (b"seed: " + b"9" * 5000, "does not fit its type|too large"),
        (b"seed: 0x" + b"f" * 5000, "is too large for an integer"),
        (b"optim: {eps: " + b"9" * 400 + b".0}", r"optim\.eps must be a number, not inf"),
        (b"model: x", "model in recipe .* must be a mapping of M33DConfig fields, not 'x'"),
        (b"seed: 010", r"seed must be an integer, not '010'"),
        (b"seed: 1:30", r"seed must be an integer, not '1:30'"),
        (b"optim: x", "optim in recipe .* must be a mapping, not 'x'"),
        (b"data: {options: x}", r"data\.options must be a mapping, not 'x' \(recipe .*mine\.yaml\)"),
        (b"modalities: x", "modalities must map names to fields"),
        (b"modalities: {rgb: x}", "modalities must map names to fields"),
        (b"- a\n- b", "must hold a mapping of arguments, not a list"),
        (b"x", "must hold a mapping of arguments, not a str"),
        (b"data: {options: {a: " + b"[" * 40 + b"]" * 40 + b"}}", "32 levels"),
        (b"data: " + b"[" * 20000, "nested too deeply"),
        (b"data: " + b"{a: " * 20000, "nested too deeply"),
        (BOMB.encode(), "more than 100000 values"),
        (b"data: &a {options: *a}", "line 1: an alias refers to a node that contains it"),
        (b"data: {options: *nowhere}", "undefined alias"),
        (b"seed: 1\nseed: 2", "line 2: the key 'seed' is given twice"),
        (b"data: {options: {1: a, '1': b}}", "the key '1' is given twice"),
        (b"data: {options: {[1, 2]: a}}", "a key must be one word or number"),
        (b"? {a: b}\n: c", "a key must be one word or number"),
        (b"seed: 1\n---\nseed: 2", "is not valid YAML"),
        (b"seed: [1", "is not valid YAML"),
        (b"\x00", "is not valid YAML"),
        (b"1: x", "Unknown key 1 in recipe"),
        (b"null: x", "Unknown key None in recipe"),
        (b"extends: [a]", "'extends' must name one recipe, not"),
        (b"extends: ''", "There is no recipe ''"),
        (b"extends: mine.yaml", "extends itself"),
        (b"extends: ../here/mine", "extends itself"),
        (b"extends: " + b"x" * 5000, "There is no recipe"),
        (b"task: 3", "is for 3"),
        (b"method: 3", "method takes one name"),
        (b"method: mae\nstage: x", r"stage must be an integer or null, not 'x'"),
        (b"# " + b"x" * 300_000, "too long for a recipe"),
        (b"optim: {betas: {a: 1}}", r"optim\.betas must be a list whose .* a number, not .* \(recipe .*mine\.yaml\)"),
        (b"optim: {eps: .nan}", r"optim\.eps must be a number, not nan \(recipe .*mine\.yaml\)"),
        (b"optim: {eps: 2}", r"optim\.eps \(recipe .*mine\.yaml\) is 2; it must be above 0 and at most 1"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_none_is_refused_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "here").mkdir()
    recipe = tmp_path / "here" / "mine.yaml"
    recipe.write_bytes(content)
    with time_limit(str(content[:40])), pytest.raises(ConfigError, match=message) as caught:
        parse_arguments(["--recipe", str(recipe)], "pretraining")
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "..", "/", "recipe/\udcff", "~"])
def test_names_that_no_recipe_can_have(name: str) -> None:
    for flag in ("--recipe", "--method"):
        with pytest.raises(ConfigError, match=f"There is no {flag[2:]}"):
            parse_arguments(["--train.max_steps", "1", flag, name], "pretraining")


@pytest.mark.parametrize("content", ["common: x", "image: [a]", "stage_1: 3", "common: {optim: x}", "name: [x", "3: x"])
def test_a_method_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError):
        parse_arguments(["--train.max_steps", "1", "--method", str(tmp_path / "mine.yaml")], "pretraining")


def test_what_a_recipe_may_have_is_read_as_before() -> None:
    text = (
        "a: &x {b: 1e-4, c: no, d: true, e: .5, f: [*nothing]}".replace("*nothing", "null") + "\ng: *x\nh: 0x10\ni: ~"
    )
    tree = parse_yaml(text, "here")
    assert tree["a"] == {"b": 1e-4, "c": "no", "d": True, "e": 0.5, "f": [None]} == tree["g"]
    assert tree["h"] == 16 and tree["i"] is None and parse_yaml("", "here") is None


def test_a_recipe_of_windows_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbfseed: 7\r\ntrain: {max_steps: 1}\r\n")
    assert parse_arguments(["--recipe", str(tmp_path / "mine.yaml")], "pretraining").seed == 7
