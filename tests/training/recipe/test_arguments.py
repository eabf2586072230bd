"""Command line to RunArguments: types, short forms, and what a mistake gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.arguments import RunArguments, same_setting
from m33d_hf.training.recipe.command_line import read_overrides
from m33d_hf.training.recipe.help import help_text
from m33d_hf.training.recipe.parsing import parse_arguments, resolve

STEPS = ["--train.max_steps", "5"]


def parse(*words: str) -> RunArguments:
    return parse_arguments([*STEPS, *words], "pretraining")


def test_values_take_the_type_of_their_field() -> None:
    args = parse(
        "--optim.learning_rate", "1e-4", "--optim.betas", "0.9", "0.99", "--train.precision", "no", "--data.root", "7",
        "--logging.trackers", "wandb", "--optim.warmup_steps=3", "--train.epochs", "null", "--optim.min_lr", "0",
    )  # fmt: skip
    assert args.optim.learning_rate == 1e-4
    assert args.optim.betas == [0.9, 0.99]
    assert args.train.precision == "no"
    assert args.data.root == "7"
    assert args.logging.trackers == ["wandb"]
    assert args.optim.warmup_steps == 3
    assert args.train.epochs is None
    assert isinstance(args.optim.min_lr, float)


def test_short_forms_and_flags() -> None:
    args = parse(
        "--init-from", "weights.pth", "--output_dir", "out", "--seed", "3", "--resume", "none", "--dry_run", "--cpu",
        "--cpu_threads", "1", "--num_processes", "2", "--replay", "capture",
    )  # fmt: skip
    assert (args.init_from, args.output_dir, args.seed, args.resume) == ("weights.pth", "out", 3, "none")
    assert args.dry_run is True and args.cpu is True
    assert (args.cpu_threads, args.num_processes, args.replay) == (1, 2, "capture")


def test_lists_and_free_mappings() -> None:
    args = parse("--model.image_size", "[48, 64]", "--data.options.scale", "0.001", "--data.options.names", "[a, b]")
    assert args.model["image_size"] == [48, 64]
    assert args.data.options == {"scale": 0.001, "names": ["a", "b"]}


def test_one_modality_is_patched_by_name() -> None:
    modalities = parse("--modalities.rgb.mask_ratio", ".5").model["modalities"]
    assert [m["name"] for m in modalities] == ["rgb", "depth"]
    assert modalities[0]["mask_ratio"] == 0.5
    assert modalities[1]["mask_ratio"] == 0.8


def test_a_third_modality_needs_only_arguments() -> None:
    modalities = parse(
        "--modalities.thermal.channels", "1", "--modalities.thermal.input_name", "thermal_values",
    ).model["modalities"]  # fmt: skip
    assert [m["name"] for m in modalities] == ["rgb", "depth", "thermal"]


def test_to_dict_is_json_and_complete() -> None:
    tree = parse().to_dict()
    assert json.loads(json.dumps(tree))["optim"]["betas"] == [0.9, 0.95]
    assert set(tree) == {f for f in RunArguments.__dataclass_fields__}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--optim.learning_rat", "1"], ["optim.learning_rat", "learning_rate"]),
        (["--learning_rate", "1"], ["learning_rate", "optim.learning_rate"]),
        (["--optimm.betas", "1"], ["optimm", "optim"]),
        (["--model.hidden_sise", "8"], ["model.hidden_sise", "hidden_size"]),
        (["--modalities.rgb.mask_ration", ".5"], ["mask_ration", "mask_ratio"]),
        (["--modalities.dept.mask_ratio", ".5"], ["modalities.dept", "'depth'"]),
        (["--recipe", "scannet_stage3"], ["scannet_stage3", "scannet_stage"]),
        (["--method", "m33d_pluss", "--stage", "1"], ["m33d_pluss", "'m33d_plus'"]),
        (["--train.batch_size", "many"], ["train.batch_size", "an integer", "many"]),
        (["--train.batch_size", "1.5"], ["train.batch_size", "an integer"]),
        (["--train.compile", "yes"], ["train.compile", "true or false"]),
        (["--train.precision", "bf17"], ["train.precision", "bf16"]),
        (["--model.hidden_size", "wide"], ["model.hidden_size", "an integer"]),
        (["--modalities.rgb.mask_ratio", "high"], ["modalities.rgb.mask_ratio", "a number"]),
        (["--optim.betas", "[a, b]"], ["optim.betas", "a number"]),
        (["--optim", "3"], ["optim", "mapping"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--stage", "3"], ["stage", "3"]),
        (["--data.max_bad_fraction", "2"], ["data.max_bad_fraction", "2"]),
        (["--train.epochs", "3"], ["train.epochs", "train.max_steps"]),
        (["word"], ["word"]),
        (["--seed", "1", "--seed", "2"], ["--seed", "twice"]),
        (["--data", "x", "--data.root", "y"], ["data"]),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*words)
    for part in parts:
        assert part in str(caught.value)


def test_length_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs.*train\.max_steps"):
        parse_arguments([], "pretraining")


def test_methods_belong_to_pretraining() -> None:
    with pytest.raises(ConfigError, match="methods apply to pre-training only"):
        parse_arguments(["--recipe", "rooms/depth", "--method", "mae"], "depth_estimation")


def test_a_recipe_of_another_task_names_its_script() -> None:
    with pytest.raises(ConfigError, match=r"scripts/run_depth_estimation\.py"):
        parse_arguments(["--recipe", "rooms/depth"], "pretraining")


def test_origins_tell_who_set_what() -> None:
    origins = resolve(["--recipe", "scannet_stage1", "--optim.weight_decay", "0"], "pretraining").origins
    assert origins["optim.weight_decay"] == "command line"
    assert origins["train.epochs"] == "recipe scannet_stage1"
    assert origins["model.contrastive_weight"] == "method m33d (stage_1)"


def test_overrides_do_not_leak_between_runs() -> None:
    parse("--data.options.a", "1")
    assert parse().data.options == {}


def test_every_field_is_documented() -> None:
    text = help_text("pretraining")
    blank = [
        a for a, b in zip(text.splitlines(), text.splitlines()[1:], strict=False) if a[:4] == "  --" and not b.strip()
    ]
    assert "--optim.learning_rate" in text and "rooms/pretrain" in text
    assert blank == []


def test_read_overrides_nests() -> None:
    assert read_overrides(["--a.b.c", "1", "--a.d", "--e=x=y"]) == {
        "a": {"b": {"c": "1"}, "d": True},
        "e": "x=y",
    }


def test_a_stronger_layer_may_say_a_thing_in_the_other_unit():
    words = ["--recipe", "scannet_stage1", "--train.max_steps", "3", "--optim.warmup_steps", "1"]
    args = parse_arguments(words, "pretraining")
    assert (args.train.max_steps, args.train.epochs) == (3, None)
    assert (args.optim.warmup_steps, args.optim.warmup_epochs) == (1, 0.0)
    with pytest.raises(ConfigError, match="Exactly one"):
        parse_arguments([*words, "--train.epochs", "2"], "pretraining")


def test_settings_are_equal_whatever_their_spelling() -> None:
    assert same_setting((224, 224), 224) and same_setting([0.9, 0.95], (0.9, 0.95)) and same_setting("a", "a")
    assert same_setting([[8, 8]], [8]) and same_setting(None, None)
    assert not same_setting([224, 192], 224) and not same_setting([3, 3, 3], 3) and not same_setting(None, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [(5.0, r"is 5; it must be above 0 and at most 1\."), (0.0, r"is 0; it must be above 0 and at most 1\.")],
)
def test_a_number_out_of_its_range_is_told_the_range_in_words(value: float, message: str) -> None:
    args = RunArguments()
    args.data.label_fraction, args.train.max_steps = value, 1
    with pytest.raises(ConfigError, match=f"data.label_fraction {message}"):
        args.validate()


def test_options_of_a_recipe_belong_to_its_source() -> None:
    recipe = ["--recipe", "scannet_stage1", "--data.root", "frames"]
    assert resolve(recipe, "pretraining").args.data.options == {"every": 25}
    stated = ["--data.source", "scannet", "--data.options.labels", "none"]
    assert resolve([*recipe, *stated], "pretraining").args.data.options == {"every": 25, "labels": "none"}
    other = resolve([*recipe, "--data.source", "folder", "--data.options.fps", "30"], "pretraining")
    assert other.args.data.options == {"fps": 30.0}


def test_options_without_a_source_wait_for_one(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("data:\n  options:\n    every: 7\n")
    stated = ["--data.source", "tum", "--data.root", "x", "--train.epochs", "1"]
    args = resolve(["--recipe", str(file), *stated], "pretraining").args
    assert args.data.options == {"every": 7}
