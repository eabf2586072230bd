"""YAML for recipes and flags: plain values only, unique keys, bounded sizes; everything else is a ConfigError.

Text that arrives here was written by people or by other programs: whatever is wrong with it must be said with the
file and the line, before anything walks the values. Aliases are read, as long as what they stand for stays small.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ConfigError

# A recipe is a page of text; the longest honest ones spell out a map of labels.
MOST_BYTES = 256 * 1024
MOST_VALUES = 100_000  # with what aliases stand for written out
DEEPEST = 32
MOST_OPEN = 100  # brackets, those in text included, which the parser would follow for seconds
LARGEST_INT = 2**63  # what JSON readers, trackers and tensors hold


class _Loader(yaml.SafeLoader):
    """YAML with the 1.2 booleans and numbers (`no` and `010` stay words, `1e-4` is none), duplicate keys refused."""


_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, expr) for tag, expr in pairs if not tag.endswith((":bool", ":int", ":float", ":timestamp", ":merge"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
# Not 010 for eight, nor 1:30 for ninety, as in YAML 1.1: who writes them means something else.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+0123456789."),
)
# Dates, sets, bytes and ordered mappings have no place in JSON, which carries every value of a run.
_Loader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}, line {node.start_mark.line + 1}"


def _mapping(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_place(node)}: {node.tag} must be followed by a mapping.")
    result: dict[Any, Any] = {}
    spelt: set[str] = set()
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{_place(key_node)}: a key must be one word or number, not a list or a mapping.")
        key = loader.construct_object(key_node)
        # As text, because train_config.json keeps keys as text: 1 and "1" would become one.
        if str(key) in spelt:
            raise ConfigError(f"{_place(key_node)}: the key {key!r} is given twice.")
        spelt.add(str(key))
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    value = loader.construct_yaml_int(node)
    if abs(value) > LARGEST_INT:
        raise ConfigError(f"{_place(node)}: {node.value[:20]}... is too large for an integer (64 bits).")
    return value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def parse_yaml(text: str, where: str) -> Any:
    """Parse `text`; `where` names it in errors.

    Returns:
        None, numbers, text, and lists and mappings of them.

    Raises:
        ConfigError: not YAML, a key given twice, a value of another kind, or far too many values.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{where} has {len(text)} characters; a recipe may have at most {MOST_BYTES}.")
    if _open_brackets(text) > MOST_OPEN:
        raise ConfigError(f"{where} is nested too deeply; at most {DEEPEST} levels are allowed.")
    loader = None
    try:
        loader = _Loader(text)
        loader.name = where
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, where)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply; at most {DEEPEST} levels are allowed.") from error
    except (ValueError, LookupError, OverflowError) as error:  # `!!int abc`, `!!bool x`, a number of 5000 digits
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} holds a value that does not fit its type: {error}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _open_brackets(text: str) -> int:
    """The most brackets that are open at one place of a text."""
    deepest = level = 0
    for bracket in re.finditer(r"[\[\]{}]", text):
        level = max(level + (1 if bracket[0] in "[{" else -1), 0)
        deepest = max(deepest, level)
    return deepest


def _check_size(root: yaml.Node, where: str) -> None:
    """Refuse what would be endless or huge once aliases are expanded; every node is visited once.

    Raises:
        ConfigError: an alias to a node that contains it, too many values, or too many levels.
    """
    known: dict[int, tuple[int, int]] = {}  # node -> (values, levels)
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1, 0
        if id(node) in known:
            return known[id(node)]
        if id(node) in open_nodes:
            raise ConfigError(f"{_place(node)}: an alias refers to a node that contains it.")
        open_nodes.add(id(node))
        pairs = isinstance(node, yaml.MappingNode)
        inner = [part for pair in node.value for part in pair] if pairs else node.value
        sizes = [measure(part) for part in inner]
        values = 1 + sum(size for size, _ in sizes)
        levels = 1 + max((depth for _, depth in sizes), default=0)
        if values > MOST_VALUES or levels > DEEPEST:
            raise ConfigError(f"{where} holds more than {MOST_VALUES} values (aliases expanded) or {DEEPEST} levels.")
        open_nodes.discard(id(node))
        known[id(node)] = values, levels
        return known[id(node)]

    measure(root)


def read_recipe_text(path: Path) -> str:
    """Text of a recipe or method file.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is far too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"{path} is longer than {MOST_BYTES} bytes, too long for a recipe.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not valid UTF-8; save the recipe as UTF-8."
        ) from error
