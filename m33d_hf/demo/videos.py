"""The tab of videos: the likeliest classes of a clip, or the phases of a long recording over time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.demo import examples
from m33d_hf.demo.models import Models
from m33d_hf.demo.uploads import check_video
from m33d_hf.demo.widgets import anew, drawing_output, model_choice, without_models
from m33d_hf.demo.widgets import examples as shown_examples
from m33d_hf.inference.detection_files import seconds_text, write_detection
from m33d_hf.inference.prediction.clips import ClipTask
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.phases import PhaseTask
from m33d_hf.inference.timeline import Detection
from m33d_hf.modeling.picture_files_m33d import read_picture

_COLUMNS = ["phase", "from", "to", "mean probability"]
_TASKS = ("clips", "phases")


def classes_of(task: ClipTask, path: str) -> dict[str, float]:
    """Name -> probability of the five likeliest classes."""
    (found,) = task.compute([task.prepare(Item(Path(path).stem, Path(path), True))])
    named = [(task.names[number], share) for number, share in zip(found.numbers, found.shares, strict=True)]
    if len({name for name, _ in named}) < len(named):  # two classes of one name are two bars
        named = [(f"{name} ({number})", share) for (name, share), number in zip(named, found.numbers, strict=True)]
    return dict(named)


def phases_of(task: PhaseTask, path: str) -> tuple[np.ndarray, list[list[str]]]:
    """(picture of the timeline, (h, w, 3) uint8; a row per segment: phase, from, to, mean probability)."""
    detection = task.prepare(Item(Path(path).stem, Path(path), True))
    with tempfile.TemporaryDirectory() as folder:
        written = write_detection(Path(folder), Path(path).stem, detection)
        picture, _ = read_picture(written[-1])
    return picture, [list(row) for row in _rows(detection)]


def _rows(detection: Detection) -> list[tuple[str, str, str, str]]:
    times, rate = detection.times, detection.fps

    def at(frame: int) -> str:
        if times is None:
            return f"frame {frame}" if rate is None else seconds_text(frame / rate)
        return seconds_text(float(times.at(frame)))

    return [(phase, at(start), at(stop), f"{mean:.0%}") for start, stop, phase, mean in detection.segments()]


def build(models: Models) -> None:
    """Lay the tab out; call it inside one."""
    import gradio

    if without_models(models, "video", "python scripts/run_video_classification.py", *_TASKS):
        return
    first = models.names(*_TASKS)[0]
    long = models.task_of(first) == "phases"
    with gradio.Row():
        with gradio.Column():
            model = model_choice(models, *_TASKS)
            video = gradio.Video(label="Video", sources=["upload"], height=320)
            shown_examples([*examples.clips(), *examples.procedures()], [video])
        with gradio.Column():
            bars = gradio.Label(label="Likeliest classes", num_top_classes=5, visible=not long, elem_id="bars")
            line = drawing_output("Phases", "timeline", visible=long)
            table = gradio.Dataframe(headers=_COLUMNS, interactive=False, visible=long, label="Segments")

    def predict(name: str, path: str | None) -> tuple[Any, ...]:
        detects = models.task_of(name) == "phases"
        shares, picture, rows = None, None, None
        if path is not None:
            check_video(path)
            if detects:
                with models.using(name, PhaseTask) as detector:
                    picture, rows = phases_of(detector, path)
            else:
                with models.using(name, ClipTask) as classifier:
                    shares = classes_of(classifier, path)
        return (
            gradio.Label(value=shares, visible=not detects),
            gradio.Image(value=picture, visible=detects),
            gradio.Dataframe(value=rows, headers=_COLUMNS, visible=detects),
        )

    for number, source in enumerate((video, model)):
        anew(source.change, predict, [model, video], [bars, line, table], f"video{number or ''}")
