"""Parts that several tabs have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

    def as_it_is(payload: Any) -> str | None:
        return None if payload is None else str(payload.path)

    picture = gradio.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=320)
    picture.preprocess = as_it_is  # a subclass would make gradio write a .pyi file beside this one
    return picture


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


def computing(
    event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str
) -> Any:
    """Attach what needs a model: one at a time for the whole page, the others queue and see their place."""
    return _attach(event, guarded(function), inputs, outputs, name)


def _attach(event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> Any:
    # Gradio drops what comes while an answer is under way, so that a picture would show other settings than are set.
    return event(
        function,
        list(inputs),
        list(outputs),
        concurrency_id=COMPUTING,
        concurrency_limit=1,
        api_name=name,
        show_progress="full",
        trigger_mode="always_last",
    )


def anew(event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> Any:
    """As `computing`, with the outputs emptied first: after an error, the result of another upload must not stay.

    One event does both. In two, one after the other, the second would read the inputs anew: whoever removes a file and
    drops another one at once would be answered twice about that.
    """
    empty = (None,) * len(outputs) if len(outputs) > 1 else None

    def emptied_first(*given: Any) -> Iterator[Any]:
        yield empty
        yield guarded(function)(*given)

    return _attach(event, emptied_first, inputs, outputs, name)


def quick(event: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> Any:
    """Attach what needs no model: answered at once, past the queue."""
    settings = {"queue": False, "api_name": name, "show_progress": "hidden"}
    return event(guarded(function), list(inputs), list(outputs), **settings)


def drawing_output(label: str, name: str, **settings: Any) -> Any:
    """A picture that the page draws. Nothing lies over it: legends and bars reach into its corners."""
    import gradio

    shown = {"interactive": False, "format": "png", "show_label": False, "buttons": [], **settings}
    return gradio.Image(label=label, elem_id=name, **shown)


def examples(rows: Sequence[Path] | Sequence[list[Any]], inputs: Sequence[Any]) -> None:
    """Rendered files to click on; where several belong together, the first one names them."""
    import gradio

    several = [row if isinstance(row, list) else [str(row)] for row in rows]
    if several:
        names = [Path(row[0]).stem.removesuffix("_rgb") for row in several] if len(inputs) > 1 else None
        label = "Rendered rooms, from the test split"
        gradio.Examples(several, inputs=list(inputs), label=label, example_labels=names)
