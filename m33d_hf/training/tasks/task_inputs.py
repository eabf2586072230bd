"""RGB, depth or both as the inputs of a task: what the data must have, and with which of them a model is judged."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.source import Source
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.building import config_of

Inputs = tuple[str, ...]


def check_depth_is_there(args: RunArguments, inputs: Sequence[str], source: Source | None, word: str) -> None:
    """Refuse data without any depth for a task that sees it; single samples may lack theirs.

    Args:
        args: the run.
        inputs: what the model is given.
        source: of training or evaluation data, or None.
        word: "training" or "evaluation".

    Raises:
        ConfigError: a source without depth, or training that would move RGB away from it.
    """
    if source is None or "depth" not in inputs:
        return
    if source.depth_spec is None:
        options = args.data.options if word == "training" else {**args.data.options, **args.data.eval_options}
        off = "data.options.depth is none, which turns it off: pass --data.options.depth auto. Else name its depth "
        raise ConfigError(
            f"model.task_inputs has depth, but the {word} data (source {args.data.source!r}) has none that is read. "
            f"{off if options.get('depth') == 'none' else 'Name its depth '}"
            "(--data.options.depth FOLDER, where the source has that option), predict it with "
            "scripts/extract_depth.py, or go without: --model.task_inputs '[rgb]'"
            + (", or --evaluation.inputs '[[rgb]]'." if word == "evaluation" else ".")
        )
    if word == "training" and "rgb" in inputs and args.transforms.randaugment_ops > 0:
        raise ConfigError(
            f"transforms.randaugment_ops is {args.transforms.randaugment_ops}, but RandAugment shifts and turns RGB "
            "alone, away from the depth that model.task_inputs has; pass --transforms.randaugment_ops 0 "
            "(--transforms.color_jitter changes RGB without moving it)."
        )


def source_of(dataset: SampleDataset | None) -> Source | None:
    """The source of a data set, None without one."""
    return None if dataset is None else dataset.source


def can_be_fused(names: Sequence[str], config: M33DConfig) -> bool:
    """Whether a model can do without its other inputs: with cross-attention RGB asks the questions."""
    return config.task_fusion != "cross_attention" or "rgb" in names or "rgb" not in config.task_input_names


def judged_inputs(args: RunArguments, task: Task, model: nn.Module) -> list[Inputs]:
    """The input sets of `evaluation.inputs`; none without it.

    Raises:
        ConfigError: a set that the model or its fusion cannot do without, or one given twice.
    """
    asked = args.evaluation.inputs or []
    if not asked:
        return []
    config = config_of(model)
    known = list(config.task_input_names)
    if not task.takes_inputs:
        raise ConfigError(
            f"evaluation.inputs chooses among the inputs of a model, which {task.name} has no choice of; leave it out."
        )
    sets = [tuple(name for name in known if name in chosen) for chosen in asked]
    for chosen, found in zip(asked, sets, strict=True):
        if not found or len(found) != len(chosen) or sets.count(found) > 1:
            raise ConfigError(
                f"evaluation.inputs is {args.evaluation.inputs}; each set must have other inputs, all of them among "
                f"those of the model, {known}."
            )
        if not can_be_fused(found, config):
            raise ConfigError(
                "evaluation.inputs has [depth], but with task_fusion 'cross_attention' RGB asks the questions; take "
                "that set out."
            )
    return sets


def inputs_in_words(inputs: Sequence[str]) -> str:
    """ "RGB", "depth" or "RGB and depth"."""
    return " and ".join({"rgb": "RGB"}.get(name, name) for name in inputs)


def describe_inputs(model: nn.Module, inputs: Sequence[str], hides: bool = True) -> list[str]:
    """A line on the inputs of a model that sees depth; none for RGB alone.

    Args:
        model: of the task.
        inputs: what it is given.
        hides: whether its training hides depth (a second stage trains on features that are there already).
    """
    config = config_of(model)
    if "depth" not in inputs:
        return []
    if "rgb" not in inputs:
        return ["inputs: depth alone"]
    how = "in one sequence of a shared encoder"
    if config.task_tokens_are_fused:
        how = f"fused by {config.task_fusion or 'sum'}"
    if not hides:
        return [f"inputs: RGB and depth, {how}"]
    hidden = f"{config.depth_dropout:.0%} of the training samples" if config.depth_dropout else "no training sample"
    return [f"inputs: RGB and depth, {how}; the depth of {hidden} is hidden (model.depth_dropout)"]
