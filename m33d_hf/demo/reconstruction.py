"""The tab of reconstruction: hide as much as one likes, and see what the masked autoencoder makes of the rest."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m33d_hf.demo import examples
from m33d_hf.demo.models import Models
from m33d_hf.demo.uploads import check_video, read_depth_upload, read_upload
from m33d_hf.demo.widgets import computing, model_choice, picture_input, without_models
from m33d_hf.demo.widgets import examples as shown_examples
from m33d_hf.errors import DataError
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask, Sample
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import UNITS_PER_METRE
from m33d_hf.visualization.clips import clip_reconstruction_figure

AS_STORED = "as the model's processor says"
_TRAINED = "as in its training"
_STRATEGIES = ("random", "tube", "frame", "motion")  # the last three of clips alone
_KEPT = "Visible patches are shown as they went in; only the others are predicted."
_RESTORED = (
    "**{names}: brightness and contrast are not predicted.** This model learnt patches normalised to mean 0 and "
    "deviation 1. To show them, mean and deviation of the true patch are put back: only the structure inside the "
    "patches is the model's, and the picture looks better than what the model knows."
)
_AS_IT_IS = "{names}: shown as predicted; nothing is taken from the input where patches were hidden."
_NO_DEPTH = "No depth was given: depth is what the model makes of the visible RGB patches alone."


def with_masks(config: M33DConfig, ratio: float, strategy: str) -> M33DConfig:
    """The configuration with other masks; of models with a token budget, another budget.

    Args:
        config: of the model; stays as it is.
        ratio: hidden share of every input modality, 0 to 1.
        strategy: see `ModalitySpec.masking`, or "as in its training".

    Raises:
        ConfigError: the masks do not fit the model.
    """
    changed = copy.deepcopy(config)
    if changed.token_budget is not None:
        changed.token_budget = 1 - ratio
    entries = []
    for entry in changed.modalities or []:
        if entry.get("role", "both") != "target":
            how = entry.get("masking", "random") if strategy == _TRAINED else strategy
            entry = {**entry, "mask_ratio": ratio, "masking": how}
        entries.append(entry)
    changed.modalities = entries
    changed.check()
    return changed


def trained_ratio(config: M33DConfig) -> float:
    """The hidden share that a model was trained with; with a token budget, over all modalities."""
    if config.token_budget is not None:
        return 1 - config.budget_for(config.grid) / (len(config.input_specs) * config.num_tokens)
    return float(max(spec.mask_ratio for spec in config.input_specs))


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
    return task.drawn(prepared, sample), label(sample, depth is not None)


def reconstruct_video(task: ReconstructionTask, path: str, masks: M33DConfig, seed: int) -> tuple[np.ndarray, str]:
    """As `reconstruct_picture`, of a clip in the middle of a video."""
    prepared = task.masked(task.inputs(videos=path), str(seed), masks)
    (sample,) = task.compute([prepared])
    file = io.BytesIO()
    clip_reconstruction_figure(sample, task.config, Path(path).stem).savefig(file, dpi=130, facecolor="white")
    return np.asarray(Image.open(file).convert("RGB")), label(sample, False)


def build(models: Models) -> None:
    """Lay the tab out; call it inside one."""
    import gradio

    recipe = "python scripts/run_pretrain.py"
    if without_models(models, "pre-trained (masked autoencoder)", recipe, "reconstruction"):
        return
    with gradio.Row():
        with gradio.Column():
            model = model_choice(models, "reconstruction")
            picture = picture_input("Picture, for models of pictures")
            depth = gradio.File(label="Its depth map (PNG of 16 bits, NPY, ..), where the model takes depth")
            unit = gradio.Dropdown([AS_STORED, *UNITS_PER_METRE], value=AS_STORED, label="Unit of the depth map")
            rows = [[str(path), str(examples.depth_of(path)), "millimetre"] for path in examples.pictures()]
            shown_examples(rows, [picture, depth, unit])
            video = gradio.Video(label="Video, for models of clips", sources=["upload"], height=240)
            shown_examples(examples.clips(), [video])
        with gradio.Column():
            ratio = gradio.Slider(0.05, 0.95, 0.75, step=0.05, label="Hidden share of patches", elem_id="ratio")
            strategy = gradio.Dropdown(
                [_TRAINED, *_STRATEGIES], value=_TRAINED, label="Masks (tube, frame and motion: clips only)"
            )
            seed = gradio.Slider(0, 99, 0, step=1, label="Which draw of the mask")
            drawn = gradio.Image(
                label="Input, visible, reconstructed", interactive=False, format="png", elem_id="reconstruction_picture"
            )
            words = gradio.Markdown("", elem_id="reconstruction_label")

    def predict(
        name: str, path: str | None, map_file: str | None, stored: str, film: str | None, share: float, how: str, draw: int
    ) -> tuple[Any, str]:
        with models.using(name, ReconstructionTask) as task:
            masks = with_masks(task.config, share, how)
            if task.reads_clips:
                if film is None:
                    return None, "This model sees clips: drop a video." if path else ""
                check_video(film)
                return reconstruct_video(task, film, masks, int(draw))
            if path is None:
                return None, "This model sees pictures: drop one." if film else ""
            pixels, note = read_upload(path)
            stated = None if stored == AS_STORED else stored
            measured = None if map_file is None else read_depth_upload(map_file, pixels.shape[:2], stated)
            image, text = reconstruct_picture(task, pixels, measured, masks, int(draw))
            return image, f"{text}\n\n{note}".strip()

    inputs = [model, picture, depth, unit, video, ratio, strategy, seed]
    events = (picture.change, depth.change, unit.input, video.change, model.change, ratio.release)
    for number, event in enumerate((*events, strategy.input, seed.release)):
        computing(event, predict, inputs, [drawn, words], f"reconstruction{number or ''}")
