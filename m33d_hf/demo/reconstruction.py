"""The tab of reconstruction: hide as much as one likes, and see what the masked autoencoder makes of the rest."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m33d_hf.demo import examples
from m33d_hf.demo.models import Models, Takes
from m33d_hf.demo.uploads import check_video, read_clip_depth, read_depth_upload, read_upload
from m33d_hf.demo.widgets import anew, computing, drawing_output, model_choice, picture_input, quick, without_models
from m33d_hf.demo.widgets import examples as shown_examples
from m33d_hf.errors import DataError
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask, Sample
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import UNITS_PER_METRE
from m33d_hf.visualization.clips import clip_reconstruction_figure
from m33d_hf.visualization.predictions import reconstruction_row

AS_STORED = "as the model's processor says"
TRAINED = "as in its training"
SAME = "random, the same in RGB and depth"
_OF_PICTURES, _OF_CLIPS = ("random",), ("random", "tube", "frame", "motion")
_KEPT = "Visible patches are shown as they went in; only the others are predicted."
_RESTORED = (
    "**{names}: brightness and contrast are not predicted.** This model learnt patches normalised to mean 0 and "
    "deviation 1. To show them, mean and deviation of the true patch are put back: only the structure inside the "
    "patches is the model's, and the picture looks better than what the model knows."
)
_AS_IT_IS = "{names}: shown as predicted; nothing is taken from the input where patches were hidden."
_DEPTH_LABEL = "Depth, if any (of videos: one per frame, or an NPY)"
_NO_DEPTH = "No depth was given: depth is what the model makes of the visible RGB patches alone."


def with_masks(config: M33DConfig, ratio: float, strategy: str) -> M33DConfig:
    """The configuration with other masks; of models with a token budget, another budget.

    Args:
        config: of the model; stays as it is.
        ratio: hidden share of every input modality, 0 to 1.
        strategy: see `ModalitySpec.masking`, "as in its training", or "random, the same in RGB and depth".

    Raises:
        ConfigError: the masks do not fit the model.
    """
    changed = copy.deepcopy(config)
    if changed.token_budget is not None:
        changed.token_budget = 1 - ratio
    if strategy in (SAME, "random") and changed.token_budget is None:
        changed.share_mask = strategy == SAME
        changed.contrastive_weight = 0.0  # nothing is trained; its loss alone forbids masks that are the same
    entries = []
    for entry in changed.modalities or []:
        if entry.get("role", "both") != "target":
            how = entry.get("masking", "random") if strategy == TRAINED else strategy.partition(",")[0]
            entry = {**entry, "mask_ratio": ratio, "masking": how}
        entries.append(entry)
    changed.modalities = entries
    changed.check()
    return changed


def label(sample: Sample, measured: bool) -> str:
    """What in the pictures is the model's and what is not, in words."""
    restored = [name for name, views in sample.items() if views.statistics_from_truth]
    plain = [name for name in sample if name not in restored]
    parts = [_KEPT]
    parts += [_RESTORED.format(names=" and ".join(restored))] if restored else []
    parts += [_AS_IT_IS.format(names=" and ".join(plain))] if plain else []
    parts += [_NO_DEPTH] if not measured and "depth" in sample else []
    return "\n\n".join(parts)


def reconstruct_picture(
    task: ReconstructionTask, pixels: np.ndarray, depth: np.ndarray | None, masks: M33DConfig, seed: int
) -> tuple[np.ndarray, str]:
    """(input, visible and reconstruction of every modality, (h, w, 3) uint8; the label).

    Raises:
        DataError: depth is missing, or of no use.
    """
    if depth is None and task.has_depth and task.config.joint_encoding:
        raise DataError("This model encodes RGB and depth together: add the depth map of the picture.")
    if depth is not None and not task.has_depth:
        raise DataError("This model was pre-trained without depth: remove the depth map.")
    prepared = task.masked(task.inputs(pixels, depth), str(seed), masks)
    (sample,) = task.compute([prepared])
    rows = [reconstruction_row({name: views}, task.config) for name, views in sample.items()]
    if "rgb" not in sample:
        rows = [task.drawn(prepared, sample)]
    return _stacked(rows), label(sample, depth is not None)


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Pictures below each other, white where one is narrower."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )


def reconstruct_video(
    task: ReconstructionTask, path: str, masks: M33DConfig, seed: int, depth: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """As `reconstruct_picture`, of a clip in the middle of a video; `depth` (T, H, W) of all its frames."""
    if depth is not None and not task.has_depth:
        raise DataError("This model was pre-trained without depth: remove the depth maps.")
    prepared = task.masked(task.inputs(videos=path, depth=depth), str(seed), masks)
    (sample,) = task.compute([prepared])
    file = io.BytesIO()
    clip_reconstruction_figure(sample, task.config, Path(path).stem).savefig(file, dpi=130, facecolor="white")
    return np.asarray(Image.open(file).convert("RGB")), label(sample, depth is not None)


def build(models: Models) -> None:
    """Lay the tab out; call it inside one."""
    import gradio

    recipe = "python scripts/run_pretrain.py"
    if without_models(models, "pre-trained (masked autoencoder)", recipe, "reconstruction"):
        return
    first = models.takes(models.names("reconstruction")[0])
    with gradio.Row():
        with gradio.Column(scale=2):
            model = model_choice(models, "reconstruction")
            with gradio.Column(visible=not first.clips) as of_pictures:
                picture = picture_input("Picture")
            with gradio.Column(visible=first.clips) as of_clips:
                video = gradio.Video(label="Video", sources=["upload"], height=320)
                shown_examples(examples.clips(), [video])
            with gradio.Column(visible=first.depth) as of_depth:
                depth = gradio.File(label=_DEPTH_LABEL, file_count="multiple", height=150)
                unit = gradio.Dropdown([AS_STORED, *UNITS_PER_METRE], value=AS_STORED, label="Unit of the depth")
                with gradio.Column(visible=not first.clips) as of_rooms:
                    rows = [[str(path), [str(examples.depth_of(path))], "millimetre"] for path in examples.pictures()]
                    shown_examples(rows, [picture, depth, unit])
        with gradio.Column(scale=3):
            drawn = drawing_output("Input, visible, reconstructed", "reconstruction_picture")
            words = gradio.Markdown("", elem_id="reconstruction_label")
            ratio = gradio.Slider(
                0.05, 0.95, _on_slider(first.ratio), step=0.05, label="Hidden share of patches", elem_id="ratio"
            )
            strategy = gradio.Dropdown(_strategies(first), value=TRAINED, label="Which patches are hidden")
            seed = gradio.Slider(0, 99, 0, step=1, label="Draw of the mask")

    def choose(name: str) -> tuple[Any, ...]:
        seen = models.takes(name)
        shown = [gradio.Column(visible=visible) for visible in (not seen.clips, seen.depth, seen.clips, not seen.clips)]
        return (*shown, _on_slider(seen.ratio), gradio.Dropdown(_strategies(seen), value=TRAINED))

    inputs = [model, picture, depth, unit, video, ratio, strategy, seed]
    settings = [of_pictures, of_depth, of_clips, of_rooms, ratio, strategy]
    chosen = quick(model.change, choose, [model], settings, "reconstruction_model")
    predict = _predictor(models)
    for number, event in enumerate((picture.change, depth.change, video.change, chosen.then)):
        anew(event, predict, inputs, [drawn, words], f"reconstruction{number or ''}")
    for number, event in enumerate((unit.input, ratio.release, strategy.input, seed.release)):
        computing(event, predict, inputs, [drawn, words], f"reconstruction_again{number or ''}")


def _on_slider(ratio: float) -> float:
    return float(np.clip(round(ratio / 0.05) * 0.05, 0.05, 0.95))


def _strategies(seen: Takes) -> list[str]:
    return [TRAINED, *(_OF_CLIPS if seen.clips else _OF_PICTURES), *([SAME] if seen.both else [])]


def _predictor(models: Models) -> Callable[..., tuple[Any, str]]:
    def predict(
        name: str,
        path: str | None,
        maps: list[str] | None,
        stored: str,
        film: str | None,
        share: float,
        how: str,
        draw: float,
    ) -> tuple[Any, str]:
        seen = models.takes(name)
        given = film if seen.clips else path
        if given is None:
            return None, ""
        with models.using(name, ReconstructionTask) as task:
            masks = with_masks(task.config, share, how)
            stated = None if stored == AS_STORED else stored
            used = (maps or []) if seen.depth else []
            if seen.clips:
                info = check_video(given)
                size = (info.height, info.width)
                film_depth = read_clip_depth(used, info.num_frames, size, stated) if used else None
                return reconstruct_video(task, given, masks, int(draw), film_depth)
            pixels, note = read_upload(given)
            if len(used) > 1:
                raise DataError(f"{len(used)} depth maps were given for one picture; drop one.")
            measured = read_depth_upload(used[0], (pixels.shape[0], pixels.shape[1]), stated) if used else None
            image, text = reconstruct_picture(task, pixels, measured, masks, int(draw))
            return image, f"{text}\n\n{note}".strip()

    return predict
