"""The tab of depth: coloured, read out in metres where one clicks, and as a cloud of points."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.demo import examples
from m33d_hf.demo.models import Models
from m33d_hf.demo.point_views import write_glb
from m33d_hf.demo.uploads import read_upload
from m33d_hf.demo.widgets import anew, drawing_output, model_choice, picture_input, quick, without_models
from m33d_hf.demo.widgets import examples as shown_examples
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.files.point_clouds import Lens, points_of, write_ply
from m33d_hf.visualization.predictions import value_scale, with_bar

CLICK = "Click on the depth picture to read a distance."
_POINTS = 200_000  # in the view; the file has all


@dataclass(frozen=True)
class SeenDepth:
    """A picture and its depth, both (H, W, ..).

    Attributes:
        pixels: uint8 RGB.
        depth: float32; 0 where unknown.
        unit: "m", or the kind of depth where it has none.
        enlargement: of the drawn picture.
    """

    pixels: np.ndarray
    depth: np.ndarray
    unit: str
    enlargement: int

    @property
    def is_metric(self) -> bool:
        """Whether values are metres."""
        return self.unit == "m"


def see_depth(task: DepthTask, pixels: np.ndarray) -> tuple[SeenDepth, np.ndarray]:
    """(depth, its drawing with the bar of values) of a picture, (H, W, 3) uint8."""
    (depth,) = task.compute([task.look(pixels)])
    scale = value_scale([depth], task.unit)
    drawn = with_bar(scale.color(depth), scale)
    return SeenDepth(pixels, depth, task.unit, drawn.shape[0] // depth.shape[0]), drawn


def reading(seen: SeenDepth | None, x: int, y: int) -> str:
    """What is at a pixel of the drawing, in words."""
    if seen is None:
        return CLICK
    column, row = x // seen.enlargement, y // seen.enlargement
    height, width = seen.depth.shape
    if not (0 <= row < height and 0 <= column < width):
        return "That is the bar of values. " + CLICK
    value = float(seen.depth[row, column])
    place = f"Column {column}, row {row}"
    if not np.isfinite(value) or value == 0:
        return f"{place}: the model gives no depth here."
    if seen.is_metric:
        return f"{place}: **{value:.2f} m** from the camera plane."
    return f"{place}: **{value:.3g}** ({seen.unit} depth, which has no unit: compare it within this picture only)."


def cloud(seen: SeenDepth | None, field_of_view: float, folder: Path) -> tuple[str | None, str | None]:
    """(GLB for the view, PLY to download) of a metric depth; neither for others."""
    if seen is None or not seen.is_metric:
        return None, None
    camera = Lens(field_of_view=field_of_view).camera_of(*seen.depth.shape)
    points = points_of(seen.depth, seen.pixels, camera)
    if not len(points):
        return None, None
    every = -(-len(points) // _POINTS)
    where = Path(tempfile.mkdtemp(dir=folder))
    return str(write_glb(where / "points.glb", points[::every])), str(write_ply(where / "points.ply", points))


def build(models: Models, folder: Path) -> None:
    """Lay the tab out; call it inside one.

    Args:
        models: what can be chosen.
        folder: of the server, for files of points.
    """
    import gradio

    if without_models(models, "depth", "python scripts/run_depth_estimation.py", "depth"):
        return
    state = gradio.State(None, time_to_live=3600)
    with gradio.Row():
        with gradio.Column():
            model = model_choice(models, "depth")
            picture = picture_input("Picture")
            shown_examples(examples.pictures(), [picture])
            view = gradio.Slider(20, 120, 60, step=1, label="Field of view of the camera (degrees, longer side)")
        with gradio.Column():
            drawn = drawing_output("Depth", "depth_picture")
            words = gradio.Markdown(CLICK, elem_id="depth_reading")
            points = gradio.Model3D(label="Point cloud (turn it with the mouse)", clear_color=(1.0, 1.0, 1.0, 1.0))
            file = gradio.DownloadButton("Points as PLY, in metres", interactive=False)

    def predict(name: str, path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, None, CLICK
        pixels, note = read_upload(path)
        with models.using(name, DepthTask) as task:
            seen, image = see_depth(task, pixels)
        return seen, image, f"{CLICK} {note}".strip()

    def read(seen: SeenDepth | None, event: Any) -> str:
        return reading(seen, int(event.index[0]), int(event.index[1]))

    def turn(seen: SeenDepth | None, degrees: float) -> tuple[Any, ...]:
        glb, ply = cloud(seen, degrees, folder)
        return glb, gradio.DownloadButton(value=ply, interactive=ply is not None)

    read.__annotations__ = {"event": gradio.SelectData}
    for number, source in enumerate((picture, model)):
        done = anew(source.change, predict, [model, picture], [state, drawn, words], f"depth{number or ''}")
        quick(done.then, turn, [state, view], [points, file], f"points{number or ''}")
    quick(view.release, turn, [state, view], [points, file], "points_again")
    quick(drawn.select, read, [state], [words], "depth_at")
