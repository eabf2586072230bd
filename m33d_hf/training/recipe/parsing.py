"""From `argv` to `RunArguments`: command-line overrides, typed values, a clear error for every mistake."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from m33d_hf.data.options import types_of
from m33d_hf.data.sources import source_option_types
from m33d_hf.data.sources.options import check_option
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.fields_m33d import Range, described, fit, shown, takes_text
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments, check_field, origin_of, said_by
from m33d_hf.training.recipe.auto_values import STAND_INS, take_open, without
from m33d_hf.training.recipe.command_line import Word, read_overrides, typed
from m33d_hf.training.recipe.picture_sizes import SIZES, read_size
from m33d_hf.training.recipe.task_names import PRETRAINING

# Two ways to say one thing, of which a layer that says either takes the place of both.
ALTERNATIVES = (
    ("train", "epochs", "max_steps"),
    ("optim", "warmup_epochs", "warmup_steps"),
    ("evaluation", "every_epochs", "every_steps"),
    ("checkpoint", "every_epochs", "every_steps"),
)


# What the arguments of transformers' trainer and of many scripts are called here; for hints alone.
ELSEWHERE = {
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "gradient_checkpointing": "grad_checkpointing",
    "mixed_precision": "precision",
    "dataloader_num_workers": "num_workers",
    "report_to": "trackers",
}


@dataclass(frozen=True)
class Resolved:
    """Parsed arguments, and for every dotted key that was set, the name of the strongest layer that set it.

    Attributes:
        args: with a stand-in or the default for what is open.
        origins: dotted key -> layer.
        open_keys: keys that are `auto`; `m33d_hf.training.settling` decides them.
        for_clips: whether the method was read for clips or for images; None without a method.
    """

    args: RunArguments
    origins: dict[str, str]
    open_keys: frozenset[str] = frozenset()
    for_clips: bool | None = None


def parse_arguments(argv: list[str], task: str) -> RunArguments:
    """Recipe (--recipe), method (--method) and `--dotted.key value` overrides, laid over the defaults.

    Raises:
        ConfigError: unknown recipe, method or key (with the nearest name), a value of the wrong type or out of range;
            values that are left open, which only the data can decide (`m33d_hf.training.settling.settle`).
    """
    resolved = resolve(argv, task)
    if resolved.open_keys:
        raise ConfigError(
            f"{', '.join(sorted(resolved.open_keys))} are auto, which the data and the machine decide. In a program, "
            "call m33d_hf.training.settling.settle.run_arguments instead of parse_arguments."
        )
    return resolved.args


def resolve(argv: list[str], task: str) -> Resolved:
    """Read recipe, method and overrides; see `m33d_hf.training.recipe.recipes` for the precedence.

    Raises:
        ConfigError: unknown recipe, method or key (with the nearest name), wrong type, contradiction.
    """
    overrides = read_overrides(argv)
    layers: list[tuple[str, dict[str, Any]]] = []
    recipe = overrides.get("recipe")
    if recipe is not None:
        layers = recipes.recipe_chain(_word("recipe", recipe))
    left_open = {label: take_open(tree) for label, tree in [*layers, ("command line", overrides)]}
    for label, tree in layers:
        check_keys(tree, label)
    check_keys(overrides, "the command line")
    layers.append(("command line", overrides))
    layers = _with_method(layers)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    open_keys: set[str] = set()
    for label, tree in layers:
        merged = recipes.merge(_without_alternatives(_without_other_source(merged, tree), tree), tree)
        origins.update({key: label for key, _ in recipes.leaves(tree)})
        opened = left_open.get(label, set())
        open_keys = (open_keys - _said_by(tree)) | opened
        merged = without(merged, opened | _in_other_words(opened))
        origins |= dict.fromkeys(opened, label)
    for key, value in STAND_INS.items():
        section, _, name = key.partition(".")
        if key in open_keys:
            merged[section] = {**merged.get(section, {}), name: value}
    merged.setdefault("task", task)
    if merged["task"] != task and "task" in overrides:
        raise ConfigError(f"--task {merged['task']}: this script is for {task}; every task has its own script.")
    if merged["task"] != task:
        raise ConfigError(
            f"The recipe {recipe} is for {merged['task']}, not for {task}: use"
            f" scripts/run_{_door(str(merged['task']))}.py."
        )
    if merged.get("method") is not None and task != PRETRAINING:
        raise ConfigError(
            f"method={merged['method']!r}: methods apply to pre-training only; {task} starts from --init_from, so "
            "leave --method out."
        )
    has_modalities = merged.pop("modalities", None) is not None
    _type_source_options(merged, origins)
    args = build(RunArguments, merged, "", origins)
    if has_modalities:
        args.model["modalities"] = _modalities(layers, args.model.get("modalities"))
    asked = args.data.max_train_samples
    if asked is not None and origins["data.max_train_samples"] != "command line":
        args.data.max_train_samples = recipes.RecipeNumber(asked)
    args.validate(origins)
    sections = [label for label, _ in layers if label.startswith("method ")]
    return Resolved(args, origins, frozenset(open_keys), sections[-1].endswith("(clips)") if sections else None)


def _said_by(tree: dict[str, Any]) -> set[str]:
    """Keys that a layer gives a value, with what it thereby replaces: `train.epochs` says `train.max_steps` too."""
    said = {key: value for key, value in recipes.leaves(tree)}
    return {*said, *_in_other_words({key for key, value in said.items() if value is not None})}


def _in_other_words(keys: set[str]) -> set[str]:
    """The other ways to say what these keys say."""
    ways = [{f"{section}.{name}" for name in names} for section, *names in ALTERNATIVES]
    return {key for way in ways if way & keys for key in way} - keys


def _without_alternatives(merged: dict[str, Any], stronger: dict[str, Any]) -> dict[str, Any]:
    """Drop what a stronger layer says in another unit: `--train.max_steps` replaces a recipe's `train.epochs`."""
    merged = dict(merged)
    for section, *names in ALTERNATIVES:
        said = stronger.get(section)
        if not isinstance(said, dict) or not isinstance(merged.get(section), dict):
            continue
        chosen = [name for name in names if said.get(name) is not None]
        if len(chosen) == 1:
            merged[section] = {k: v for k, v in merged[section].items() if k not in names}
    return merged


def _without_other_source(merged: dict[str, Any], stronger: dict[str, Any]) -> dict[str, Any]:
    """Drop the options of a recipe's source where a stronger layer names another: `--data.source folder` reads frames
    of one's own by a recipe for ScanNet, whose choice of every 25th frame is no business of theirs.
    """
    data, over = merged.get("data"), stronger.get("data")
    if not isinstance(data, dict) or not isinstance(over, dict) or data.get("source") is None:
        return merged
    if over.get("source", data["source"]) == data["source"]:
        return merged
    kept = {name: value for name, value in data.items() if name not in ("options", "eval_options")}
    return {**merged, "data": kept}


def _door(task: str) -> str:
    return "pretrain" if task == PRETRAINING else task


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"--{key} takes one name, but got {value!r}.")
    return str(value)


def _with_method(layers: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Insert the method between recipes and command line; stage and num_frames are read from both."""
    merged: dict[str, Any] = {}
    for _, tree in layers:
        merged = recipes.merge(merged, tree)
    method = merged.get("method")
    if method is None or method == "null":
        return layers
    stage = coerce(merged.get("stage"), int | None, "stage")
    num_frames = coerce((merged.get("model") or {}).get("num_frames", 1), int, "model.num_frames")
    label, tree = recipes.method_layer(_word("method", method), stage, num_frames)
    check_keys(tree, label)
    return [*layers[:-1], (label, tree), layers[-1]]


def _modalities(layers: list[tuple[str, dict[str, Any]]], given: Any) -> list[dict[str, Any]]:
    from m33d_hf.modeling.configuration_m33d import M33DConfig

    default = given if isinstance(given, list) else M33DConfig().modalities or []
    return recipes.resolve_modalities(layers, [dict(entry) for entry in default])


def _type_source_options(merged: dict[str, Any], origins: Mapping[str, str]) -> None:
    """Give `data.options` and `data.eval_options` the types that the source's constructor asks for.

    Unknown names are left to the source, whose error lists the known ones.
    """
    data = merged.get("data") or {}
    given = {section: data.get(section) for section in ("options", "eval_options")}
    if not any(isinstance(values, dict) and values for values in given.values()):
        return
    source = coerce(
        data.get("source", RunArguments().data.source), str, "data.source", origin_of("data.source", origins)
    )
    types = source_option_types(source)
    for section, values in given.items():
        if isinstance(values, dict):
            data[section] = {
                name: _source_option(f"data.{section}.{name}", name, value, types.get(name, Any), origins)
                for name, value in values.items()
            }


def _source_option(key: str, name: str, value: Any, hint: Any, origins: Mapping[str, str]) -> Any:
    said = said_by(key, origins)
    plain = typed(value, hint, key)
    return plain if hint is Any else check_option(f"{key}{said}", str(name), plain, hint)


def check_keys(tree: dict[str, Any], where: str) -> None:
    """Refuse unknown keys.

    Raises:
        ConfigError: unknown key, with the nearest known one.
    """
    _check_fields(tree, RunArguments, "", where)
    model = tree.get("model")
    if model is not None and not isinstance(model, dict):
        raise ConfigError(f"model in {where} must be a mapping of M33DConfig fields, not {shown(model)}.")
    if model:
        tree["model"] = check_model_fields(model, where)
    modalities = tree.get("modalities")
    if isinstance(modalities, dict):
        from m33d_hf.modeling.modalities_m33d import MODALITY_RANGES, modality_types

        for name, values in modalities.items():
            if isinstance(values, dict):
                prefix = f"modalities.{name}."
                modalities[name] = _check_free(prefix, values, modality_types(), MODALITY_RANGES, where)


def check_model_fields(fields: dict[str, Any], where: str, prefix: str = "model.") -> dict[str, Any]:
    """Fields of M33DConfig by name, typed and in range; words of the command line are read as their field asks.

    Raises:
        ConfigError: an unknown field, a wrong type, or a number out of range; names `where` it was set.
    """
    from m33d_hf.modeling.configuration_checks_m33d import CONFIG_RANGES, LABELS

    fields = {name: read_size(value) if name in SIZES else value for name, value in fields.items()}
    return _check_free(prefix, fields, model_hints(), {**CONFIG_RANGES, "num_labels": LABELS}, where)


def model_hints() -> dict[str, Any]:
    """Field name -> type of everything that `--model.FIELD` may set."""
    from m33d_hf.modeling.configuration_m33d import field_types

    return field_types() | {"num_labels": int, "id2label": dict[int, str], "label2id": dict[str, int]}


def _check_free(
    prefix: str, tree: dict[str, Any], hints: dict[str, Any], ranges: Mapping[str, Range], where: str
) -> dict[str, Any]:
    """The mapping with its values typed and in range; for `model` and for one entry of `modalities`."""
    checked = {}
    for key, value in tree.items():
        if key not in hints:
            raise ConfigError(f"Unknown key {prefix}{key} in {where}.{_hint(str(key), hints, prefix)}")
        checked[key] = coerce(value, hints[key], f"{prefix}{key}", where)
        problem = None if checked[key] is None or key not in ranges else ranges[key].problem(checked[key])
        if problem is not None:
            raise ConfigError(f"{prefix}{key} ({where}) {problem}.")
    return checked


def _check_fields(tree: dict[str, Any], cls: type, prefix: str, where: str) -> None:
    hints = types_of(cls)
    known = [*hints, "modalities"] if not prefix else list(hints)
    for key, value in tree.items():
        if key not in known:
            near = known if prefix else known + _dotted_keys()
            raise ConfigError(f"Unknown key {prefix}{key} in {where}.{_hint(str(key), near, prefix)}")
        if dataclasses.is_dataclass(hints.get(key)):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix}{key} in {where} must be a mapping, not {shown(value)}.")
            _check_fields(value, hints[key], f"{prefix}{key}.", where)


def _dotted_keys() -> list[str]:
    """Every "section.field", those of the model and of modalities (called NAME) included."""
    from m33d_hf.modeling.configuration_m33d import ModalitySpec

    keys = [f"{section}.{name}" for section, hint in types_of(RunArguments).items()
            if dataclasses.is_dataclass(hint) for name in types_of(typing.cast(type, hint))]  # fmt: skip
    keys += [f"model.{name}" for name in model_hints()]
    return keys + [f"modalities.NAME.{name}" for name in types_of(ModalitySpec)]


def _hint(word: str, near: Iterable[str], prefix: str) -> str:
    """What may have been meant: a field of this name wherever it lives, else the nearest of `near`, after `prefix`."""
    from m33d_hf.data.sources import SOURCES, source_options

    word = ELSEWHERE.get(word, word)
    plain = [name for name, hint in types_of(RunArguments).items() if not dataclasses.is_dataclass(hint)]
    named = [name for name in (*plain, *_dotted_keys()) if name.rpartition(".")[2] == word]
    if not named and any(word in source_options(source) for source in SOURCES):
        named = [f"data.options.{word}"]
    return f" Did you mean {' or '.join(map(repr, named))}?" if named else nearest_name_hint(word, near, prefix)


def build(cls: type, tree: dict[str, Any], prefix: str, origins: Mapping[str, str] | None = None) -> Any:
    """Build the dataclass `cls` from a nested mapping; every value is typed and checked against its range.

    Raises:
        ConfigError: a value of the wrong type or out of range, or an unknown key.
    """
    hints, fields = types_of(cls), {field.name: field for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in hints:  # a file that another version wrote
            raise ConfigError(f"Unknown key {prefix}{key}.{nearest_name_hint(str(key), hints, prefix)}")
        hint, name = hints[key], f"{prefix}{key}"
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ConfigError(f"{name} must be a mapping, not {shown(value)}.")
            values[key] = build(typing.cast(type, hint), value, f"{name}.", origins)
        else:
            values[key] = coerce(value, hint, name, origin_of(name, origins or {}))
            check_field(name, fields[key], values[key], origins or {})  # here it is known who said it
    return cls(**values)


def coerce(value: Any, hint: Any, key: str, origin: str = "") -> Any:
    """`value` as the type `hint`; words of the command line are read as `command_line` says.

    Args:
        value: as given by YAML or the command line.
        hint: a type annotation, see `fit`.
        key: dotted name for messages.
        origin: the layer that set it, for messages.

    Raises:
        ConfigError: the value has the wrong type; names the key, the expected type and the origin.
    """
    fits, result = fit(typed(value, hint, key), hint)
    if not fits:
        said = f" ({origin})" if origin else ""
        advice = _advice(value, hint, key, origin)
        raise ConfigError(f"{key} must be {described(hint)}, not {_told(value)}{said}.{advice}")
    return result


def _told(value: Any) -> str:
    return shown([str(word) for word in value] if isinstance(value, list) else value)


def _advice(value: Any, hint: Any, key: str, origin: str) -> str:
    """For a flag alone where it needs a value, and for several words where one text was expected (the shell's cut)."""
    if value is True and origin.endswith("command line"):
        return f" --{key} has no value; to pass a value that begins with --, write --{key}=VALUE."
    cut = isinstance(value, list) and all(isinstance(word, Word) for word in value) and takes_text(hint)
    return f' Put text with spaces in quotes: --{key} "{" ".join(value)}".' if cut else ""
