"""What goes wrong reaches the visitor as a sentence, and whoever runs the page as a traceback; never the other way."""

from __future__ import annotations

import functools
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from m33d_hf.errors import M33DError

_Function = TypeVar("_Function", bound=Callable[..., Any])
# Uploads lie in a folder that is named by their digest, below one of the server's own.
_FOLDERS = re.compile(r"\S*/(?=[^/\s]+\.\w{1,5}\b)")


def for_visitors(text: str) -> str:
    """A message without the server's folders and command-line flags."""
    text = _FOLDERS.sub("", text)
    return text.replace("--input ", "").replace("--model ", "the model ")


def guarded(function: _Function) -> _Function:
    """Turn errors into messages on the page.

    Ours say what is wrong with the upload. Of any other the visitor learns only that it happened: its text may name
    folders and versions of the server.
    """

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        import gradio

        settings = {"duration": None, "title": "This did not work", "print_exception": False}
        try:
            return function(*given, **named)
        except gradio.Error:
            raise
        except M33DError as error:
            raise gradio.Error(for_visitors(str(error)), **settings) from None
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            words = f"This failed ({type(error).__name__}). The details are in the log of the page's server."
            raise gradio.Error(words, **settings) from None

    return call  # type: ignore[return-value]
