"""The first stage of action detection, used by the second: configuration, weights, and clip sampling."""

from __future__ import annotations

import os
from typing import Any, cast

from torch import Tensor

from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.recipe.arguments import RunArguments, same_setting
from m33d_hf.training.tasks.detection.features import ClipRule
from m33d_hf.weights import ConversionReport
from m33d_hf.weights.formats.layout import Weight
from m33d_hf.weights.matching import Matching
from m33d_hf.weights.own import find_own, read_weights

# What a run may set beside what the first stage has settled.
_OWN_FIELDS = ("temporal_", "classifier_", "attention_probs_dropout_prob", "hidden_dropout_prob", "drop_path_rate")
_NEW_WEIGHTS = tuple(f"{part}." for head in HEADS if head.task == "action_detection" for part in head.parts)

NO_FIRST_STAGE = "Detection starts from a first stage"


def known_phases(config: M33DConfig) -> dict[str, int]:
    """Name -> class of a model, in class order."""
    names = cast("dict[int, str]", config.id2label)
    return {names[number]: number for number in sorted(names)}


def clip_rule(args: RunArguments, config: M33DConfig) -> ClipRule:
    """How a run cuts videos into clips; by default as stored in the model, otherwise without overlap.

    Raises:
        ConfigError: a stride below 1.
    """
    stride = args.data.frame_stride
    every = args.features.clip_stride or config.temporal_clip_stride or config.num_frames * stride
    return ClipRule(config.num_frames, stride, every)


def load_first_stage(args: RunArguments) -> tuple[M33DForVideoActionDetection, ConversionReport]:
    """Build the model of a run from the configuration and weights of `init_from`.

    Returns:
        The model, and the report of its weights.

    Raises:
        ConfigError: no `init_from`, or `model` fields that contradict it.
        CheckpointError: it is not a model of the first (or second) stage.
    """
    if args.init_from is None:
        raise ConfigError(
            f"{NO_FIRST_STAGE}: set --init_from to the output folder of run_video_classification.py, "
            "trained on clips of the same phases."
        )
    own = find_own(args.init_from, ours_alone=True)
    if own is None or not own.config:
        raise CheckpointError(
            f"{args.init_from} is not an output folder of this package; the second stage starts from the output folder "
            "of run_video_classification.py (config.json and model.safetensors)."
        )
    weights = read_weights(own.files)
    config, notes = _config(args, own.config, trained=any(name.startswith(_NEW_WEIGHTS) for name in weights))
    model = M33DForVideoActionDetection._from_config(config, attn_implementation=args.train.attn_implementation)
    report = _fill(model, weights, ConversionReport("m33d", args.init_from, notes=notes))
    if int(os.environ.get("RANK", "0")) == 0:
        print(report.summary_by_part(), flush=True)
    return model, report


def _config(args: RunArguments, theirs: dict[str, Any], trained: bool) -> tuple[M33DConfig, list[str]]:
    """The first stage's (or a trained second one's) configuration with the temporal fields of the run, and remarks."""
    theirs = {name: value for name, value in theirs.items() if name != "dtype"}  # it trains in float32, however stored
    base = M33DConfig.from_dict(dict(theirs))
    own = {name: value for name, value in args.model.items() if name.startswith(_OWN_FIELDS)}
    stated = {name: value for name, value in args.model.items() if name not in own and name != "modalities"}
    there = {name: getattr(base, name, None) for name in stated}
    different = [name for name, value in stated.items() if not same_setting(value, there[name])]
    if different:
        listed = ", ".join(f"{name} is {there[name]!r} there, {stated[name]!r} here" for name in different)
        raise ConfigError(
            f"{args.init_from} differs from the model that the run describes: {listed}. The second stage uses the "
            f"encoder unchanged: remove {', '.join(f'model.{name}' for name in different)}, or choose another "
            "--init_from."
        )
    rule, before = clip_rule(args, base), base.temporal_frame_stride
    apart = f"{args.init_from} was trained on frames {before} apart, but the run reads them {rule.frame_stride} apart"
    if trained and before != rule.frame_stride:
        raise ConfigError(f"{apart}: pass --data.frame_stride {before}.")
    chosen = own.get("temporal_model", base.temporal_model)
    if trained and chosen != base.temporal_model:
        raise ConfigError(
            f"{args.init_from} holds a trained temporal_model {base.temporal_model!r}, but the run has {chosen!r}: "
            "start from the first stage (--init_from its output folder), or leave out --model.temporal_model."
        )
    cameras = own.get("temporal_cameras", base.temporal_cameras)
    if trained and cameras != base.temporal_cameras:
        reads = "takes the mean over cameras" if base.temporal_cameras is None else f"reads {base.temporal_cameras}"
        raise ConfigError(
            f"{args.init_from} holds a trained temporal model that {reads}, but the run has temporal_cameras {cameras}"
            ": start from the first stage (--init_from its output folder), or leave out --model.temporal_cameras."
        )
    remembered = {"temporal_frame_stride": rule.frame_stride, "temporal_clip_stride": rule.clip_stride}
    # 1 is also what a first stage says that does not remember.
    notes = [f"{apart} (--data.frame_stride)"] if before not in (1, rule.frame_stride) else []
    return M33DConfig.from_dict({**theirs, **own, **remembered}), notes


class _SameNames(Matching):
    """Every weight under its own name."""

    def place(self, target: str, own: Tensor) -> None:
        """Take the weight of the same name."""
        self.take_or_leave(target, "the first stage has no temporal model")


def _fill(model: M33DForVideoActionDetection, weights: dict[str, Tensor], report: ConversionReport) -> ConversionReport:
    """Copy the weights; only the temporal model and its classifier may be missing, and no weight may be left
    over."""
    own, origin = model.state_dict(), report.origin
    foreign = [name for name in own if name not in weights and not name.startswith(_NEW_WEIGHTS)]
    foreign += [name for name in weights if name not in own]
    if foreign:
        raise CheckpointError(
            f"{origin} is not a model of the first stage: {plural(len(foreign), 'weight')} "
            f"{agree(len(foreign), 'is', 'are')} missing or unknown, the first is "
            f"{foreign[0]!r}. Train one with run_video_classification.py on the clips of the same phases."
        )
    name = next((name for name, tensor in weights.items() if tensor.shape != own[name].shape), None)
    if name is not None:
        raise CheckpointError(
            f"{origin}: {name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} in this model; the "
            "fields model.temporal_* must be those with which the second stage was trained."
        )
    same = {name: Weight(tensor, (name,), "the same weight there") for name, tensor in weights.items()}
    return _SameNames(own, same, report).apply()
