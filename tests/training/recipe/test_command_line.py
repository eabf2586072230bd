"""Words of the command line: text is what was written, YAML is read where something else is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.rooms_runs import words
from m33d_hf.errors import ConfigError
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.help import help_text
from m33d_hf.training.recipe.parsing import parse_arguments

ODD_TEXT = [
    "exp #1",
    "@x",
    "%x",
    "!x",
    "`x",
    "*x",
    "&x",
    "a: b",
    "- x",
    "'x",
    '"x',
    "{x",
    "[x",
    "1e-4",
    "true",
    "~",
    "-1",
]


def parse(*given: str, task: str = "semantic_segmentation") -> RunArguments:
    return parse_arguments(["--train.max_steps", "1", "--data.source", "folder", *given], task)


@pytest.mark.parametrize("text", ODD_TEXT)
def test_text_is_taken_as_it_is(text: str) -> None:
    args = parse(f"--output_dir={text}", f"--data.root={text}", f"--data.options.rgb={text}", f"--init_from={text}")
    assert (args.output_dir, args.data.root, args.init_from) == (text, text, text)
    assert args.data.options["rgb"] == text


def test_the_word_null_empties_and_a_path_of_that_name_does_not() -> None:
    assert parse("--data.root", "null").data.root is None
    assert parse("--data.options.depth", "null").data.options == {"depth": None}
    assert parse("--data.options.depth", "none").data.options == {"depth": "none"}  # a word of the source
    assert parse("--data.root", "./null").data.root == "./null"
    assert parse("--output_dir", "null").output_dir == "null"  # it cannot be empty
    assert parse("--resume", "none").resume == "none"
    assert "null clears" in " ".join(help_text("pretraining").split())


@pytest.mark.parametrize("word", ["none", "None"])
def test_other_words_for_null_are_told_the_word(word: str) -> None:
    for key in ("data.eval_split", "init_from", "data.root"):
        with pytest.raises(ConfigError, match=rf"{key} \(command line\) is '{word}'; write null to leave it empty"):
            parse(f"--{key}", word)


@pytest.mark.parametrize("key", ["output_dir", "data.root", "data.options.rgb"])
def test_empty_text_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"--{key} is empty"):
        parse(f"--{key}=")


def test_text_that_the_shell_has_cut_is_told_to_be_quoted() -> None:
    with pytest.raises(ConfigError, match='Put text with spaces in quotes: --output_dir "exp #1"'):
        parse("--output_dir", "exp", "#1")


def test_lists_of_text_take_words_and_yaml() -> None:
    assert parse("--data.options.class_names", "a #1", "*b").data.options["class_names"] == ["a #1", "*b"]
    assert parse("--data.options.class_names", '["a #1", b]').data.options["class_names"] == ["a #1", "b"]
    assert parse("--data.options.class_names", "names.txt").data.options["class_names"] == "names.txt"
    assert parse("--logging.trackers", "@mine").logging.trackers == ["@mine"]
    assert parse("--logging.trackers", "[]").logging.trackers == []


@pytest.mark.parametrize("text", ["[0-9]*.txt", "{a,b}.txt"])
def test_what_goes_on_behind_its_bracket_is_text(text: str) -> None:
    assert parse("--data.options.split_list", text).data.options["split_list"] == text
    assert parse("--data.options.class_names", text).data.options["class_names"] == text


def test_a_list_or_mapping_that_the_shell_has_cut_is_put_together() -> None:
    assert parse("--data.options.class_names", "[a,", "b]").data.options["class_names"] == ["a", "b"]
    assert parse("--optim.betas", "[0.9,", "0.95]").optim.betas == [0.9, 0.95]
    assert parse("--data.options.label_map", "{0:", "0,", "255:", "1}").data.options["label_map"] == {0: 0, 255: 1}


def test_an_empty_list_of_a_recipe_where_a_mapping_belongs_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {options: []}")
    with pytest.raises(ConfigError, match=r"data\.options must be a mapping, not \[\]"):
        parse("--recipe", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("key", ["optim.learning_rate", "output_dir", "logging.trackers"])
def test_a_flag_that_lacks_its_value_is_told_so(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"--{key} has no value; to pass .*, write --{key}=VALUE"):
        parse(f"--{key}", "--dry_run")


@pytest.mark.parametrize("word", ["--", "--=x", "--.x", "--optim.", "--optim..eps"])
def test_words_that_name_no_key_are_told_so(word: str) -> None:
    with pytest.raises(ConfigError, match="Cannot interpret"):
        parse(word, "1")


def test_help_says_null_and_true_as_flags_and_recipes_do() -> None:
    text = help_text("pretraining")
    assert "--optim.layer_decay (default null)" in text and "--optim.scale_lr (default true)" in text
    assert "None" not in text and "REFERENCE" not in text and "\u00a7" not in text


@pytest.mark.parametrize("text", ["[a #1, b", "{a: [}", '["a]'])
def test_broken_yaml_names_the_flag_and_teaches_quoting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)--data.options.class_names is not valid YAML.*in quotes, and the"):
        parse("--data.options.class_names", text)


@pytest.mark.parametrize("text", ["%x", "@", "x", "!!int abc", "1" * 5000, "[1", "nan", "010", "1:30"])
def test_what_is_no_number_is_told_so(text: str) -> None:
    for key in ("seed", "optim.learning_rate", "data.options.every"):
        with pytest.raises(ConfigError, match=rf"{key}.* must be a"):
            parse(f"--{key}", text)


def test_a_value_inside_a_key_that_has_one_is_refused() -> None:
    for pair in (
        ["--data.options", "{every: 2}", "--data.options.every", "3"],
        ["--data.options.every", "3", "--data.options", "{}"],
    ):
        with pytest.raises(ConfigError, match=r"--data\.options"):
            parse(*pair)


def test_two_runs_whose_names_differ_behind_a_hash_are_two_folders(tmp_path: Path) -> None:
    for number in (1, 2):
        given = words("rooms/depth", tmp_path / f"exp #{number}", train__max_steps="1", data__max_train_samples="null")
        assert main("depth_estimation", given) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp #1", "exp #2"]
    assert all((path / "model.safetensors").is_file() for path in tmp_path.iterdir())
