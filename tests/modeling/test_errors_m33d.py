"""Words of foreign exceptions in our messages: one line, never empty, and what a server said."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status

from m33d_hf.errors import first_line, type_and_text

ROOT = Path(__file__).parents[2]
http: Any = import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])  # httpx, of newer clients httpx2


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (OSError("\n\n  told late\nmore"), "told late"),
        (RuntimeError("Bad request:\n* the second says it"), "Bad request: * the second says it"),
        (MemoryError(), "MemoryError"),
        (AssertionError(" \n"), "AssertionError"),
        (KeyError("name"), "'name'"),
    ],
)
def test_a_line_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_type_and_text_ends_without_a_colon_where_there_is_no_text() -> None:
    assert type_and_text(EOFError()) == "EOFError" and type_and_text(ValueError("a\nb")) == "ValueError: a\nb"


def _refused(status: int, headers: dict[str, str] | None = None, **content: Any) -> HfHubHTTPError:
    """What huggingface_hub raises for an answer."""
    request = http.Request("POST", "https://hub.example/api/models/org/name/commit/main")
    with pytest.raises(HfHubHTTPError) as raised:
        hf_raise_for_status(http.Response(status, headers=headers, request=request, **content))
    return raised.value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (_refused(403), "403 Forbidden"),
        (_refused(403, {"Content-Type": "text/html"}, content=b"<html>proxy</html>"), "403 Forbidden"),
        (_refused(403, json={"error": "use a write token"}), "403 Forbidden: use a write token"),
        (_refused(403, {"X-Error-Message": "no"}), "403 Forbidden: no."),
        (_refused(500, json={"error": "try later"}), "500 Internal Server Error: try later"),
        (_refused(400, json={"error": "not a mapping"}), "Bad request: not a mapping"),
    ],
)
def test_a_refusal_is_told_in_the_server_s_words(error: HfHubHTTPError, line: str) -> None:
    assert first_line(error) == line


# What may come without any text. OSError and the decoders' own errors always have some.
WORDLESS = {"Exception", "BaseException", "ImportError", "AssertionError", "EOFError", "MemoryError", "HfHubHTTPError"}


def _handlers(path: Path) -> list[ast.ExceptHandler]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name and node.type]


def _caught(handler: ast.ExceptHandler) -> set[str]:
    assert handler.type is not None
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind).rpartition(".")[2] for kind in kinds}


def test_exceptions_without_text_are_never_put_into_a_message_as_they_are() -> None:
    """`f"cannot be read ({error})"` says "cannot be read ()" of a MemoryError; `splitlines()[0]` is an IndexError."""
    raw, seen = [], 0
    for folder in ("m33d_hf", "modeling", "scripts", "checkpoints"):
        for path in (ROOT / folder).rglob("*.py"):
            if any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(ROOT)):
                continue
            for handler in _handlers(path):
                seen += 1
                for node in ast.walk(handler):
                    bare = isinstance(node, ast.FormattedValue) and node.conversion != ord("r")
                    bare = bare and ast.unparse(node.value) == handler.name and bool(_caught(handler) & WORDLESS)
                    if bare or ast.unparse(node) == f"str({handler.name}).splitlines()[0]":
                        raw.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert seen > 200 and raw == []
