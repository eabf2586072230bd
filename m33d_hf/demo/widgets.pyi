"""Parts that several tabs have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.demo.guarding import guarded
from m33d_hf.demo.models import Models

COMPUTING = "model"  # events that compute share one queue


def picture_input(label: str) -> Any:
    """An image upload that hands the file over as it is.

    Gradio's own opens the file first: what is no picture would be reported in its words, 16 bits and EXIF be lost.
    """
    import gradio
from gradio.events import Dependency

    class Picture(gradio.Image):
        """Shown by the code for images."""

        is_template = True

        def preprocess(self, payload: Any) -> str | None:
            """The path of the upload."""
            return None if payload is None else str(payload.path)

    return Picture(label=label, type="filepath", sources=["upload", "clipboard"], height=320)


def model_choice(models: Models, *tasks: str) -> Any:
    """A list of the models of some tasks, the first one chosen."""
    import gradio

    names = models.names(*tasks)
    return gradio.Dropdown(names, value=names[0], label="Model", interactive=True)


def without_models(models: Models, words: str, recipe: str, *tasks: str) -> bool:
    """Say how to get a model where there is none; returns whether that is so."""
    import gradio

    if models.names(*tasks):
        return False
    gradio.Markdown(
        f"No {words} model is offered here. Train one (`{recipe}`; it is found in `outputs/`), or name a folder or "
        "a Hub id: `python -m m33d_hf.demo MODEL`."
    )
    return True


def computing(event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> Any:
    """Attach what needs a model: one at a time for the whole page, the others queue and see their place."""
    return event(
        guarded(function),
        list(inputs),
        list(outputs),
        concurrency_id=COMPUTING,
        concurrency_limit=1,
        api_name=name,
        show_progress="full",
    )


def quick(event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> Any:
    """Attach what needs no model: answered at once, past the queue."""
    return event(
        guarded(function), list(inputs), list(outputs), queue=False, api_name=name, show_progress="hidden"
    )  # fmt: skip


def examples(paths: Sequence[Path] | Sequence[list[str]], inputs: Sequence[Any]) -> None:
    """Rendered files to click on."""
    import gradio

    rows = [row if isinstance(row, list) else [str(row)] for row in paths]
    if rows:
        gradio.Examples(rows, inputs=list(inputs), label="Rendered rooms (not from any training data)")