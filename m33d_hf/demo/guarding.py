"""What goes wrong reaches the visitor as a sentence, and whoever runs the page as a traceback; never the other way."""

from __future__ import annotations

import functools
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from m33d_hf.errors import M33DError

LEAST_SECONDS = 10.0
HEADING = "This did not work"
NO_RESULT = "No result"
READ_PER_SECOND = 10.0  # characters; half of what silent reading takes in, as the eye is elsewhere at first
# gradio writes "Error" over every message and into every empty result, whatever title it was given. These names are its
# own: where it changes them, its word comes back.
STYLE = f"""
.toast-title.error, [data-testid=status-tracker] .error {{ font-size: 0 }}
.toast-title.error .toast-count {{ font-size: 1rem }}
.toast-title.error::before {{ content: "{HEADING} "; font-size: 1rem }}
[data-testid=status-tracker] .error::before {{ content: "{NO_RESULT}"; font-size: 1rem }}
"""
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

        try:
            return function(*given, **named)
        except gradio.Error:
            raise
        except M33DError as error:
            raise _told(for_visitors(str(error))) from None
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            words = f"This failed ({type(error).__name__}). The details are in the log of the page's server."
            raise _told(words) from None

    return call  # type: ignore[return-value]


def _told(words: str) -> Exception:
    """A message on the page for as long as it takes to read it: it lies over what the page draws."""
    import gradio

    seconds = max(LEAST_SECONDS, len(words) / READ_PER_SECOND)
    told: Exception = gradio.Error(words, duration=seconds, title=HEADING, print_exception=False)
    return told
