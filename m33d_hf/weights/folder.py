"""From a foreign checkpoint to a folder of ours: what `scripts/convert_checkpoint.py` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.staged_folder import replacing
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessorPil
from m33d_hf.modeling.modeling_m33d import M33DPreTrainedModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.weights.apply import config_for, convert_state_dict, head_fields
from m33d_hf.weights.facts import statements
from m33d_hf.weights.files import load_foreign
from m33d_hf.weights.init_options import ConversionOptions
from m33d_hf.weights.known.names import CONVERTED_TASKS
from m33d_hf.weights.report import ConversionReport

MODELS: dict[str, type[M33DPreTrainedModel]] = {
    "pretraining": M33DForPreTraining,
    **{head.task: head.load_class() for head in HEADS if head.task in CONVERTED_TASKS},
}
"""Models that a checkpoint can be written as."""


def convert_checkpoint(
    source: str,
    output: Path,
    options: ConversionOptions,
    stated: Mapping[str, Any],
    overrides: Mapping[str, Any],
    overwrite: bool = False,
    task: str = "pretraining",
) -> ConversionReport:
    """Write a model with the weights of a foreign checkpoint to a folder, with the processor of its configuration.

    Args:
        source: file, folder or Hub repository id.
        output: folder to write.
        options: how parts are filled that the checkpoint does not have.
        stated: what cannot be read from the weights, keys of `facts.STATEABLE`; None says nothing.
        overrides: fields of M33DConfig that win over what the checkpoint tells.
        overwrite: replace a checkpoint that is already in `output`.
        task: key of `MODELS`.

    Returns:
        What became of every weight.

    Raises:
        ConfigError: the folder holds a checkpoint already, or cannot be written (what it held stays), or a field or
            statement that cannot be.
        CheckpointError: the checkpoint cannot be read or converted.
    """
    if (output / "config.json").exists() and not overwrite:
        raise ConfigError(f"{output} already holds a checkpoint; pass --overwrite to replace it.")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; set --output to a folder.")
    checkpoint = load_foreign(source, statements(stated))
    if task not in MODELS:
        raise ConfigError(f"task {task!r} is none of {', '.join(MODELS)}.{nearest_name_hint(task, MODELS)}")
    pretraining = task == "pretraining"
    fields = config_for(checkpoint, options.init_decoder and pretraining, dict(overrides))
    fields |= {} if pretraining else head_fields(checkpoint)
    model = MODELS[task](M33DConfig(**(fields | dict(overrides))))
    report = convert_state_dict(checkpoint, model, options)
    clip = model.config.is_clip_model
    processor = (M33DVideoProcessor if clip else M33DImageProcessorPil).from_model_config(model.config)
    report.notes.append(
        f"processor: size, mean, deviation of the configuration, {'centre cut out' if clip else 'resized whole'};"
        " how the source resized and cropped is not taken over"
    )
    with replacing(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return report
