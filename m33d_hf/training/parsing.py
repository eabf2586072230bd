"""From `argv` to `RunArguments`: command-line overrides, typed values, one error per mistake."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.training import recipes
from m33d_hf.training.arguments import RunArguments

# Two ways to say one thing, of which a layer that says either takes the place of both.
ALTERNATIVES = (
    ("train", "epochs", "max_steps"),
    ("optim", "warmup_epochs", "warmup_steps"),
    ("evaluation", "every_epochs", "every_steps"),
    ("checkpoint", "every_epochs", "every_steps"),
)


# Words without a section that other trainers use, too.
SHORT = {"compile": "train.compile", "grad_checkpointing": "train.grad_checkpointing"}
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


class _Text(str):
    """A word of the command line, not yet typed: what it becomes depends on the field that takes it."""


@dataclass(frozen=True)
class Resolved:
    """Parsed arguments, and for every dotted key that something set, the name of the strongest layer that set it."""

    args: RunArguments
    origins: dict[str, str]


def parse_arguments(argv: list[str], task: str) -> RunArguments:
    """Recipe (--recipe), method (--method) and `--dotted.key value` overrides, laid over the defaults.

    Raises:
        ConfigError: unknown recipe, method or key (with the nearest name), a value of the wrong type or out of range.
    """
    return resolve(argv, task).args


def read_overrides(argv: list[str]) -> dict[str, Any]:
    """Nested overrides from `--a.b value`, `--a.b=value`, `--a.b v1 v2` (a list) and `--flag` alone (true).

    Raises:
        ConfigError: a word that belongs to no key, or a key given twice.
    """
    flat: dict[str, Any] = {}
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if not word.startswith("--") or len(word) == 2:
            raise ConfigError(f"Cannot place {word!r} on the command line: arguments read --key value or --key=value.")
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        key = SHORT.get(key, key)
        if key in flat:
            raise ConfigError(f"--{key} is given twice.")
        values = [value] if equals else []
        while not equals and position < len(argv) and not argv[position].startswith("--"):
            values.append(argv[position])
            position += 1
        flat[key] = True if not values else _Text(values[0]) if len(values) == 1 else [_Text(v) for v in values]
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--{key}: {parent} is already given as a value.")
        node[leaf] = value
    return tree


def resolve(argv: list[str], task: str) -> Resolved:
    """Read recipe, method and overrides; see `m33d_hf.training.recipes` for the precedence.

    Raises:
        ConfigError: unknown recipe, method or key (with the nearest name), wrong type, contradiction.
    """
    overrides = read_overrides(argv)
    layers: list[tuple[str, dict[str, Any]]] = []
    recipe = overrides.get("recipe")
    if recipe is not None:
        layers = recipes.recipe_chain(_word("recipe", recipe))
    for label, tree in layers:
        check_keys(tree, label)
    check_keys(overrides, "the command line")
    layers.append(("command line", overrides))
    layers = _with_method(layers)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for label, tree in layers:
        merged = recipes.merge(_without_alternatives(merged, tree), tree)
        origins.update({key: label for key, _ in recipes.leaves(tree)})
    merged.setdefault("task", task)
    if merged["task"] != task and "task" in overrides:
        raise ConfigError(f"--task {merged['task']}: this script is for {task}; every task has a script of its own.")
    if merged["task"] != task:
        raise ConfigError(
            f"The recipe {recipe} is for {merged['task']}, not for {task}: use"
            f" scripts/run_{_door(str(merged['task']))}.py."
        )
    if merged.get("method") is not None and task != "pretraining":
        raise ConfigError(
            f"method={merged['method']!r}: methods describe pre-training; {task} starts from --init_from."
        )
    has_modalities = merged.pop("modalities", None) is not None
    args = build(RunArguments, merged, "")
    if has_modalities:
        args.model["modalities"] = _typed_modalities(layers, args.model.get("modalities"))
    asked = args.data.max_train_samples
    if asked is not None and origins["data.max_train_samples"] != "command line":
        args.data.max_train_samples = recipes.RecipeNumber(asked)
    args.validate()
    return Resolved(args, origins)


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


def _door(task: str) -> str:
    return {"pretraining": "pretrain"}.get(task, task)


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"--{key} needs one name, got {value!r}.")
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


def _typed_modalities(layers: list[tuple[str, dict[str, Any]]], given: Any) -> list[dict[str, Any]]:
    from m33d_hf.modeling.configuration_m33d import M33DConfig

    default = given if isinstance(given, list) else M33DConfig().modalities or []
    return [_plain(entry) for entry in recipes.resolve_modalities(layers, [dict(entry) for entry in default])]


def check_keys(tree: dict[str, Any], where: str) -> None:
    """Refuse keys that no field has.

    Raises:
        ConfigError: unknown key, with the nearest known one.
    """
    _check_fields(tree, RunArguments, "", where)
    model = tree.get("model")
    if isinstance(model, dict) and model:
        tree["model"] = _check_free("model", model, model_hints(), where)
    modalities = tree.get("modalities")
    if isinstance(modalities, dict):
        from m33d_hf.modeling.configuration_m33d import ModalitySpec

        hints = _hints(ModalitySpec)
        for name, values in modalities.items():
            if isinstance(values, dict):
                modalities[name] = _check_free(f"modalities.{name}", values, hints, where)


def model_hints() -> dict[str, Any]:
    """Field name -> type of everything that `--model.FIELD` may set."""
    import sys

    from m33d_hf.modeling.configuration_m33d import M33DConfig

    # Its own annotations only: those of the library's base class need names that exist for type checkers alone.
    scope = vars(sys.modules[M33DConfig.__module__])
    own = inspect.get_annotations(M33DConfig).items()
    hints = {name: eval(hint, scope) if isinstance(hint, str) else hint for name, hint in own}
    return hints | {"num_labels": int, "id2label": dict, "label2id": dict}


def _check_free(prefix: str, tree: dict[str, Any], hints: dict[str, Any], where: str) -> dict[str, Any]:
    """The mapping with its values typed; for `model` and for one entry of `modalities`."""
    for key in tree:
        if key not in hints:
            raise ConfigError(f"Unknown key {prefix}.{key} in {where}.{_hint(str(key), hints, f'{prefix}.')}")
    return {key: coerce(value, hints[key], f"{prefix}.{key}") for key, value in tree.items()}


def _check_fields(tree: dict[str, Any], cls: type, prefix: str, where: str) -> None:
    hints = _hints(cls)
    known = [*hints, "modalities"] if not prefix else list(hints)
    for key, value in tree.items():
        if key not in known:
            near = known if prefix else known + _dotted_keys()
            raise ConfigError(f"Unknown key {prefix}{key} in {where}.{_hint(str(key), near, prefix)}")
        if dataclasses.is_dataclass(hints.get(key)):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix}{key} in {where} must be a mapping, not {value!r}.")
            _check_fields(value, hints[key], f"{prefix}{key}.", where)


def _dotted_keys() -> list[str]:
    """Every "section.field", those of the model and of modalities (called NAME) included."""
    from m33d_hf.modeling.configuration_m33d import ModalitySpec

    keys = [f"{section}.{name}" for section, hint in _hints(RunArguments).items()
            if dataclasses.is_dataclass(hint) for name in _hints(typing.cast(type, hint))]  # fmt: skip
    keys += [f"model.{name}" for name in model_hints()]
    return keys + [f"modalities.NAME.{name}" for name in _hints(ModalitySpec)]


def _hint(word: str, near: Iterable[str], prefix: str) -> str:
    """What may have been meant: a field of this name wherever it lives, else the nearest of `near`, after `prefix`."""
    from m33d_hf.data.sources import SOURCES, source_options

    word = ELSEWHERE.get(word, word)
    plain = [name for name, hint in _hints(RunArguments).items() if not dataclasses.is_dataclass(hint)]
    named = [name for name in (*plain, *_dotted_keys()) if name.rpartition(".")[2] == word]
    if not named and any(word in source_options(source) for source in SOURCES):
        named = [f"data.options.{word}"]
    return f" Did you mean {' or '.join(map(repr, named))}?" if named else nearest_name_hint(word, near, prefix)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def build(cls: type, tree: dict[str, Any], prefix: str) -> Any:
    """An instance of the dataclass `cls` from a nested mapping, every value typed."""
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            values[key] = build(typing.cast(type, hint), value, f"{prefix}{key}.")
        else:
            values[key] = coerce(value, hint, f"{prefix}{key}")
    return cls(**values)


def coerce(value: Any, hint: Any, key: str) -> Any:
    """`value` as the type `hint` (int, float, bool, str, Literal, list[...], dict, unions with None).

    Raises:
        ConfigError: the value has another type; names the key and the expected type.
    """
    value = _typed_text(value, hint, key)
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        matched, result = _match(value, option, key)
        if matched:
            return result
    raise ConfigError(f"{key} must be {_describe(hint)}, not {value!r} ({type(value).__name__}).")


def _typed_text(value: Any, hint: Any, key: str) -> Any:
    """A word of the command line, read as YAML unless the field wants text."""
    if not isinstance(value, _Text):
        return value
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    parsed = recipes.parse_yaml(str(value), f"--{key}")
    if parsed is None and types.NoneType in options:
        return None
    wants_text = str in options or any(typing.get_origin(o) is typing.Literal for o in options)
    if wants_text and not isinstance(parsed, str):
        return str(value)
    if _only_lists(options) and not isinstance(parsed, list):
        return [parsed]
    return parsed


def _only_lists(options: tuple[Any, ...]) -> bool:
    """Whether a single word can only mean a list of one (`--logging.trackers wandb`)."""
    return all(typing.get_origin(o) in (list, tuple) or o is types.NoneType for o in options)


def _match(value: Any, hint: Any, key: str) -> tuple[bool, Any]:
    """Whether `value` fits one plain type, and the fitted value."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True, _plain(value)
    if hint in (None, types.NoneType):
        return value is None, None
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool), float(value) if _number(
            value
        ) else value
    if hint is str:
        return isinstance(value, str), str(value)
    if origin is typing.Literal:
        return value in typing.get_args(hint), value
    if origin in (list, tuple) and isinstance(value, list):
        item = typing.get_args(hint)[0]
        return True, [coerce(v, item, key) for v in value]
    if (origin or hint) is dict and isinstance(value, dict):
        return True, _plain(value)
    return False, value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """Words of the command line inside free-form mappings, read as YAML."""
    if isinstance(value, _Text):
        return recipes.parse_yaml(str(value), "the command line")
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _describe(hint: Any) -> str:
    """The type in words of a user: 'one of a, b', 'a number or null'."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if hint in (None, types.NoneType):
        return "null"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(v) for v in typing.get_args(hint))
    if typing.get_origin(hint) in (list, tuple):
        return f"a list, each {_describe(typing.get_args(hint)[0])}"
    return names.get(typing.get_origin(hint) or hint, str(hint))


def help_text(task: str) -> str:
    """What `--help` prints: every key with its default and its sentence."""
    lines = [f"Task {task}. Give --recipe NAME and any of the keys below as --key value.", ""]
    lines += [
        f"Recipes: {', '.join(recipes.recipe_names())}",
        f"Methods: {', '.join(recipes.method_names())}",
        "",
    ]

    def visit(cls: type, prefix: str) -> None:
        hints = _hints(cls)
        for item in dataclasses.fields(cls):
            if dataclasses.is_dataclass(hints[item.name]):
                visit(typing.cast(type, hints[item.name]), f"{prefix}{item.name}.")
                continue
            missing = item.default is dataclasses.MISSING
            factory = typing.cast(Any, item.default_factory)
            default = factory() if missing else item.default
            lines.append(f"  --{prefix}{item.name} (default {default})\n      {item.metadata.get('help', '')}")

    visit(RunArguments, "")
    lines.append("  --model.FIELD and --modalities.NAME.FIELD: see M33DConfig and ModalitySpec.")
    return "\n".join(lines)
