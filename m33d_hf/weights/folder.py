"""From a foreign checkpoint to a folder of ours: what `scripts/convert_checkpoint.py` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights.apply import config_for, convert_state_dict
from m33d_hf.weights.facts import statements
from m33d_hf.weights.files import load_foreign
from m33d_hf.weights.options import ConversionOptions
from m33d_hf.weights.report import ConversionReport


def convert_checkpoint(
    source: str,
    output: Path,
    options: ConversionOptions,
    stated: Mapping[str, Any],
    overrides: Mapping[str, Any],
    overwrite: bool = False,
) -> ConversionReport:
    """Write a pre-training model with the weights of a foreign checkpoint to a folder.

    Args:
        source: file, folder or Hub repository id.
        output: folder to write.
        options: how parts are filled that the checkpoint does not have.
        stated: what no tensor tells, keys of `facts.STATEABLE`; None says nothing.
        overrides: fields of M33DConfig that win over what the checkpoint tells.
        overwrite: replace a checkpoint that is already in `output`.

    Returns:
        What became of every weight.

    Raises:
        ConfigError: the folder holds a checkpoint already, or a field or statement that cannot be.
        CheckpointError: the checkpoint cannot be read or converted.
    """
    if (output / "config.json").exists() and not overwrite:
        raise ConfigError(f"{output} already holds a checkpoint; pass --overwrite to replace it.")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; --output names a folder to write.")
    checkpoint = load_foreign(source, statements(stated))
    fields = config_for(checkpoint, options.init_decoder, dict(overrides))
    model = M33DForPreTraining(M33DConfig(**(fields | dict(overrides))))
    report = convert_state_dict(checkpoint, model, options)
    try:
        model.save_pretrained(output)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror or error}. Give another --output.") from error
    return report
