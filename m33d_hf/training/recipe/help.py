"""What `--help` prints: every key with its meaning, range and default.

Nothing heavy is imported for a plain `--help`. A source that is named (by `--data.source`, or by the recipe) is
imported to list its options, and `--model` or `--modalities` list the fields of the model.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m33d_hf.data.options import argument_sentences, for_people, types_of
from m33d_hf.modeling.fields_m33d import Range, described
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments, fields_of

TEXT_RULES = (
    '  Text is taken literally and needs only the shell\'s quotes: --output_dir "exp #1". The word null clears a value',
    "  that may be empty. Lists and mappings are YAML; put text with special characters inside them in quotes:",
    "  --data.options.class_names '[\"a #1\", b]'. Patterns: --data.options.rgb '*_left.png'.",
)
_MORE = (
    "  Further keys, listed once they are named: --help --data.source NAME (or --recipe NAME) for the options of a",
    "  source, --help --model for the fields of the model and of its modalities.",
)
_SOURCE_KEY = "--data.source"
_MODEL_KEYS = ("--model", "--modalities")


def help_text(task: str, words: Sequence[str] = ()) -> str:
    """The whole text.

    Args:
        task: for which a run is described.
        words: of the command line; what they name is described as well.

    Raises:
        ConfigError: there is no such source or recipe.
    """
    lines = [f"Task {task}. Give --recipe NAME and any of the keys below as --key value.", ""]
    lines += [
        f"Recipes: {', '.join(recipes.recipe_names())}",
        f"Methods: {', '.join(recipes.method_names())}",
        "",
        *described_fields(RunArguments()),
        *_MORE,
        *TEXT_RULES,
        *source_help(words),
    ]
    if any(word.startswith(_MODEL_KEYS) for word in words):
        lines += ["", *model_help()]
    return "\n".join(lines)


def described_fields(arguments: Any) -> list[str]:
    """Two lines for every argument of a tree of dataclasses: key and default; sentence and range."""
    lines = []
    for key, field, default in fields_of(arguments):
        stated = "required" if default == "" else f"default {as_flag(default)}"
        lines.append(_head(key, stated, _choices(field, arguments, key)))
        lines.append(_body(field.metadata.get("help", ""), field.metadata.get("range")))
    return lines


def _choices(field: dataclasses.Field[Any], arguments: Any, key: str) -> str:
    """The words that a field may have, for the brackets behind its key; empty where it takes more than such words."""
    section: Any = arguments
    for name in key.split(".")[:-1]:
        section = getattr(section, name)
    hint = types_of(typing.cast(type, type(section)))[field.name]
    words = [option for option in typing.get_args(hint) or () if typing.get_origin(option) is typing.Literal]
    literal = hint if typing.get_origin(hint) is typing.Literal else next(iter(words), None)
    return "" if literal is None else described(literal)


def _head(key: str, default: str, kind: str) -> str:
    return f"  --{key} ({default}{f'; {kind}' if kind else ''})"


def _body(sentence: str, allowed: Range | None) -> str:
    bounds = "" if allowed is None else _sentence(allowed.words())
    return f"      {' '.join(part for part in (sentence, bounds) if part)}"


def source_help(words: Sequence[str]) -> list[str]:
    """The options of the source that a command line names, by itself or by its recipe; empty if it names none.

    Raises:
        ConfigError: there is no such source or recipe.
    """
    source = _stated(words, _SOURCE_KEY)
    if source is None and (recipe := _stated(words, "--recipe")) is not None:
        for _, tree in recipes.recipe_chain(recipe):
            source = (tree.get("data") or {}).get("source", source)
    if source is None:
        return []
    from m33d_hf.data.sources import describe_options

    return ["", *describe_options(source)]


def _stated(words: Sequence[str], key: str) -> str | None:
    """The value that follows a key; the last one if there are several."""
    stated = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    stated += [value for word, value in itertools.pairwise(words) if word == key and not value.startswith("-")]
    return stated[-1] if stated else None


def model_help() -> list[str]:
    """The fields of the model and of one modality, with type, default, sentence and range."""
    from m33d_hf.modeling.configuration_checks_m33d import CONFIG_RANGES, LABELS
    from m33d_hf.modeling.configuration_m33d import FIELD_CLASSES, M33DConfig, ModalitySpec, field_types
    from m33d_hf.modeling.modalities_m33d import MODALITY_RANGES, modality_types

    lines = ["Fields of the model:"]
    sentences = {name: said for cls in FIELD_CLASSES for name, said in argument_sentences(cls.__doc__).items()}
    defaults = {field.name: field.default for field in dataclasses.fields(M33DConfig)}
    lines += _fields("model.", field_types(), defaults, sentences, CONFIG_RANGES, skipped=("modalities",))
    lines += [
        _head("model.num_labels", "default: from the data", described(int)),
        _body("Number of classes.", LABELS),
        "",
        "Fields of a modality (NAME is rgb, depth, or a name of your own):",
    ]
    defaults = {field.name: field.default for field in dataclasses.fields(ModalitySpec)}
    sentences = argument_sentences(ModalitySpec.__doc__)
    return [*lines, *_fields("modalities.NAME.", modality_types(), defaults, sentences, MODALITY_RANGES, ("name",))]


def _fields(
    prefix: str,
    types: Mapping[str, Any],
    defaults: Mapping[str, Any],
    sentences: Mapping[str, str],
    ranges: Mapping[str, Range],
    skipped: Sequence[str],
) -> Iterator[str]:
    for name, hint in types.items():
        if name in skipped:
            continue
        required = defaults.get(name, dataclasses.MISSING) is dataclasses.MISSING
        default = "required in a new one" if required else f"default {as_flag(defaults[name])}"
        yield _head(f"{prefix}{name}", default, described(hint))
        text = _body(for_people(sentences.get(name, "")), ranges.get(name)).strip()
        yield from textwrap.wrap(text, 118, initial_indent=" " * 6, subsequent_indent=" " * 6)


def as_flag(default: Any) -> str:
    """A default as the command line would say it: null, true."""
    return default if isinstance(default, str) else json.dumps(default)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
