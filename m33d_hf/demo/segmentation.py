"""The tab of segmentation: classes over the picture, as opaque as one likes, with their names and areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from m33d_hf.demo import examples
from m33d_hf.demo.models import Models
from m33d_hf.demo.uploads import read_upload
from m33d_hf.demo.widgets import anew, drawing_output, model_choice, picture_input, quick, without_models
from m33d_hf.demo.widgets import examples as shown_examples
from m33d_hf.inference.prediction.segmentation import SegmentationTask
from m33d_hf.visualization.predictions import overlay, with_legend

OPACITY = 0.55


@dataclass(frozen=True)
class SeenClasses:
    """A picture and its classes.

    Attributes:
        pixels: (H, W, 3) uint8.
        labels: (H, W) class ids.
        names: of all classes.
        order: ids that occur, the largest first.
    """

    pixels: np.ndarray
    labels: np.ndarray
    names: list[str]
    order: list[int]


def see_classes(task: SegmentationTask, pixels: np.ndarray) -> SeenClasses:
    """The classes of a picture, (H, W, 3) uint8."""
    (labels,) = task.compute([task.look(pixels)])
    return SeenClasses(pixels, labels, task.names, task.order(labels))


def drawing(seen: SeenClasses, opacity: float) -> np.ndarray:
    """(h, w, 3) uint8: the picture under its classes, opacity 0 to 1, with a legend that gives their areas."""
    count = len(seen.names)
    shares = np.bincount(seen.labels.reshape(-1), minlength=count) / seen.labels.size
    told = {number: f"{shares[number]:.0%}" if shares[number] >= 0.005 else "<1%" for number in seen.order}
    words = [f"{seen.names[number]}  {told[number]}" for number in seen.order]
    return with_legend(overlay(seen.pixels, seen.labels, count, opacity), words, seen.order, count)


def build(models: Models) -> None:
    """Lay the tab out; call it inside one."""
    import gradio

    if without_models(models, "segmentation", "python scripts/run_semantic_segmentation.py", "segmentation"):
        return
    state = gradio.State(None, time_to_live=3600)
    with gradio.Row():
        with gradio.Column():
            model = model_choice(models, "segmentation")
            picture = picture_input("Picture")
            shown_examples(examples.pictures(), [picture])
            opacity = gradio.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the classes", elem_id="opacity")
        with gradio.Column():
            drawn = drawing_output("Classes", "classes_picture")
            words = gradio.Markdown("")

    def predict(name: str, path: str | None, share: float) -> tuple[Any, ...]:
        if path is None:
            return None, None, ""
        pixels, note = read_upload(path)
        with models.using(name, SegmentationTask) as task:
            seen = see_classes(task, pixels)
        return seen, drawing(seen, share), note

    def fade(seen: SeenClasses | None, share: float) -> np.ndarray | None:
        return None if seen is None else drawing(seen, share)

    for number, source in enumerate((picture, model)):
        name = f"segmentation{number or ''}"
        anew(source.change, predict, [model, picture, opacity], [state, drawn, words], name)
    quick(opacity.release, fade, [state, opacity], [drawn], "opacity")
