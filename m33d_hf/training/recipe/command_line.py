"""Words of the command line: which key they belong to, and how the key's field reads them.

Text is taken literally: a folder called "exp #1", a pattern "*_left.png" and a file "@list" need only the shell's
quotes. Fields that hold no text are read as YAML, and so are lists and mappings, which stand between [ and ] or { and
}. The only word that a text field does not take literally is `null`, if the field may be empty; write ./null for a
folder called null.
"""

from __future__ import annotations

import types
import typing
from typing import Any

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.fields_m33d import fit, item_type, options_of, shown, takes_several, takes_text
from m33d_hf.training.recipe.yaml_text import parse_yaml

# Words without a section that other trainers use, too.
SHORT = {"compile": "train.compile", "grad_checkpointing": "train.grad_checkpointing"}

# A folder may be called "[x": here text is a list only if it also ends in a bracket, and never a mapping.
_FOLDERS = ("data.root", "data.eval_root")

_PLAIN = (bool, int, float)


class Word(str):
    """An untyped word of the command line; its type depends on the field that takes it."""


def read_overrides(argv: list[str]) -> dict[str, Any]:
    """Nested overrides from `--a.b value`, `--a.b=value`, `--a.b v1 v2` (a list) and `--flag` alone (true).

    Raises:
        ConfigError: a word without a key, or a key given twice.
    """
    flat: dict[str, Any] = {}
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        key, equals, value = word[2:].partition("=")
        if not word.startswith("--") or not all(key.split(".")):
            raise ConfigError(
                f"Cannot interpret {word!r} on the command line: write arguments as --key value or --key=value."
            )
        key = key.replace("-", "_")
        key = SHORT.get(key, key)
        if key in flat:
            raise ConfigError(f"--{key} is given twice.")
        values = [value] if equals else []
        while not equals and position < len(argv) and not argv[position].startswith("--"):
            values.append(argv[position])
            position += 1
        flat[key] = True if not values else Word(values[0]) if len(values) == 1 else [Word(v) for v in values]
    return _nested(flat)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--{key}: {parent} is already given as a value.")
        if isinstance(node.get(leaf), dict):
            raise ConfigError(f"--{key}: values of keys inside {key} are given too; give either {key} or its keys.")
        node[leaf] = value
    return tree


def typed(value: Any, hint: Any, key: str) -> Any:
    """`value` with every word of the command line in it read as the type `hint` asks; other values as they are.

    A single value for a field that holds a list means a list of one, in a recipe as on the command line.

    Raises:
        ConfigError: a word that is not YAML where YAML is read, or empty text.
    """
    if isinstance(value, Word):
        return _typed_word(value, hint, key)
    if isinstance(value, list):
        if takes_several(hint) and (whole := _cut_yaml(value)) is not None:
            return typed(whole, hint, key)
        return [typed(entry, item_type(hint), key) for entry in value]
    if isinstance(value, dict):
        return {name: typed(entry, _entry_type(hint), f"{key}.{name}") for name, entry in value.items()}
    return _list_of_one(value, hint)


def _list_of_one(value: Any, hint: Any) -> Any:
    """`[value]` where the field holds a list and neither the value itself nor text, else the value."""
    fits_alone = not takes_several(hint) or takes_text(hint) or fit(value, hint)[0]
    return [value] if not fits_alone and fit([value], hint)[0] else value


def _cut_yaml(words: list[Any]) -> Word | None:
    """The one list or mapping that the shell has cut into words, such as {0: 0, 255: 1} without quotes; None: no."""
    if not words or not all(isinstance(word, Word) for word in words):
        return None
    pair = (words[0][:1], words[-1][-1:])
    return Word(" ".join(words)) if pair in (("[", "]"), ("{", "}")) else None


def _is_yaml(text: str) -> bool:
    """Whether a word for a field of text, lists and mappings is one of the latter; `[a]*.txt` goes on behind them."""
    closing = {"[": "]", "{": "}"}.get(text[0])
    return closing is not None and (closing not in text or text.rstrip()[-1] in "]}")


def _entry_type(hint: Any) -> Any:
    """Type of the values where a field may hold a mapping; Any where nothing is said of them."""
    for option in options_of(hint):
        inner = typing.get_args(option)
        if len(inner) == 2 and fit({}, option)[0]:
            return inner[1]
    return Any


def _typed_word(word: Word, hint: Any, key: str) -> Any:
    options, text = options_of(hint), str(word)
    if takes_text(hint):
        if text == "null" and types.NoneType in options:
            return None
        if not text:
            empty = ", or null for none" if types.NoneType in options else ""
            raise ConfigError(f"--{key} is empty; give some text{empty}.")
        named = key in _FOLDERS and not (text[0] == "[" and text.rstrip()[-1] == "]")
        if takes_several(hint) and not named and _is_yaml(text):
            return _parsed(text, key)
        return _number_beside_text(text, options)
    if hint is not Any and not takes_several(hint):
        return _plain_or_text(text)
    several = takes_several(hint) and not any(option in _PLAIN for option in options)
    if several and takes_text(item_type(hint)) and (not text or not _is_yaml(text)):
        return [text] if text != "null" or types.NoneType not in options else None
    parsed = _parsed(text, key)
    alone = several and not isinstance(parsed, list | dict | None) and fit([], hint)[0]
    return [parsed] if alone else parsed  # a single word can only mean a list of one


def _plain_or_text(text: str) -> Any:
    """A number, truth value or null where the word is one, else the text, which the check of the type then names."""
    try:
        return parse_yaml(text, "the command line")
    except ConfigError:
        return text


def _number_beside_text(text: str, options: tuple[Any, ...]) -> Any:
    """A number or a truth value where a field takes these beside text and the word is one, else the text."""
    others = [option for option in options if option in _PLAIN]
    value = _plain_or_text(text) if others else text
    return value if any(fit(value, option)[0] for option in others) else text


def _parsed(text: str, key: str) -> Any:
    try:
        return parse_yaml(text, f"--{key}")
    except ConfigError as error:
        raise ConfigError(
            f"{error}\n--{key} reads {shown(text)} as YAML: put text with special characters in quotes, and the whole "
            f'value in the shell\'s quotes: --{key} \'["*_left.png", "exp #1"]\' or --{key} \'{{name: "@list"}}\'.'
        ) from error
