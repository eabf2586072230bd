"""The arguments of a training run: one typed tree, filled from recipes, methods and the command line.

Every field carries a sentence with its unit and range; `scripts/run_*.py --help` prints them. How the values come
together (extends, methods, precedence) is in `recipes.py`; the paper's tables are in `m33d_hf/recipes/*.yaml`.
"""
# ruff: noqa: RUF009 - `_f` builds a field, so that every default carries its sentence.

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from m33d_hf.errors import ConfigError

TASKS = (
    "pretraining",
    "video_classification",
    "action_detection",
    "semantic_segmentation",
    "depth_estimation",
)


def _f(default: Any, help: str) -> Any:
    """A dataclass field with its documentation; mutable defaults are copied per instance."""
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass
class InitArguments:
    """How weights given by `init_from` enter the model (REFERENCE.md §4)."""

    init_decoder: bool = _f(True, "Also load the decoder where shapes match (only when pre-training; §6 row 30).")
    depth_encoder_init: Literal["copy", "random"] = _f(
        "copy", "A depth encoder that the checkpoint lacks: copy the RGB encoder, or leave it random."
    )
    depth_patch_init: Literal["sum", "mean", "random"] = _f(
        "sum",
        "A depth patch embedding that the checkpoint lacks: RGB kernels summed or averaged over colour, or random.",
    )
    num_attention_heads: int | None = _f(
        None,
        "Heads of a foreign checkpoint's encoder, which no tensor tells; None = those of its files, or as released.",
    )
    decoder_num_attention_heads: int | None = _f(None, "Heads of a foreign checkpoint's decoder; None as above.")


@dataclass
class DataArguments:
    """Where samples come from and how they are read."""

    source: str = _f("rooms", "Name of the reader: rooms, procedures, folder, tum, ucf101, phases.")
    root: str | None = _f(None, "Folder of the training data; rooms needs none.")
    eval_root: str | None = _f(None, "Folder of evaluation data; it and `root` are then read whole, no splits.")
    train_split: str = _f("train", "Split used for training.")
    eval_split: str | None = _f("validation", "Split used while training to evaluate; None = no evaluation.")
    options: dict[str, Any] = _f({}, "Further options of the source, passed to it by name (train and evaluation).")
    eval_options: dict[str, Any] = _f({}, "Options of the source that differ for evaluation (laid over `options`).")
    frame_stride: int = _f(1, "Source frames from one frame of a clip to the next, >= 1 (Table 9 'sampling rate').")
    clip_sampling: Literal["stride", "span"] = _f(
        "stride",
        "stride: num_frames frames, frame_stride apart, from a random start; span: VideoMAE's fine-tuning, num_frames"
        " frames spread evenly over a random span of num_frames * frame_stride (REFERENCE.md §2.9).",
    )
    num_views: int = _f(1, "Augmented views of each training clip in a batch (repeated augmentation), >= 1.")
    label_fraction: float | None = _f(
        None, "Share of the labelled training videos to use, (0, 1], drawn per class by `subset_seed`; None = all."
    )
    allow_missing_classes: bool = _f(False, "Train although a class has no training sample (else an error names it).")
    max_train_samples: int | None = _f(None, "Use only that many training samples, drawn by `subset_seed`; None = all.")
    max_eval_samples: int | None = _f(None, "Evaluate on that many samples, evenly spread; None = all.")
    subset_seed: int = _f(0, "Seed of the draw of `max_train_samples` (low-label protocol).")
    num_workers: int = _f(2, "Loader processes per training process, >= 0.")
    prefetch_factor: int = _f(2, "Batches that each loader process keeps ready, >= 1.")
    cache_dir: str | None = _f(None, "Where rendered `rooms` are cached; None = the user's cache folder.")
    max_bad_fraction: float = _f(0.01, "Share of unreadable samples, 0 to 1, past which the run stops.")


@dataclass
class TransformArguments:
    """Augmentation of the training samples and geometry of the evaluation samples; colour touches RGB only."""

    train_crop: Literal["random_resized", "multiscale", "random", "scale_jitter", "resize", "center"] = _f(
        "random_resized",
        "random_resized: torchvision's; multiscale: VideoMAE's MultiScaleCrop; random: short side to size, then a"
        " random crop; scale_jitter: large scale jitter of `scale`, then pad and crop; resize: straight to size;"
        " center: short side to size, centre crop.",
    )
    eval_crop: Literal["center", "resize", "pad"] = _f(
        "center",
        "center: short side to size, centre crop; resize: straight to size; pad: long side to size, then pad.",
    )
    scale: list[float] = _f([0.2, 1.0], "Area range (random_resized) or side range (scale_jitter), two numbers.")
    ratio: list[float] = _f([0.75, 4.0 / 3.0], "Aspect ratio range of random_resized, two numbers > 0.")
    multiscale_scales: list[float] = _f([1.0, 0.875, 0.75, 0.66], "Scales of the short side for multiscale, in (0, 1].")
    flip: float = _f(0.5, "Probability of a horizontal flip of RGB, depth and labels together, 0 to 1.")
    color_jitter: float = _f(0.0, "Probability of colour jitter, 0 to 1 (RGB only).")
    brightness: float = _f(0.4, "Colour jitter: brightness strength, >= 0.")
    contrast: float = _f(0.4, "Colour jitter: contrast strength, >= 0.")
    saturation: float = _f(0.2, "Colour jitter: saturation strength, >= 0.")
    hue: float = _f(0.1, "Colour jitter: hue strength, 0 to 0.5.")
    grayscale: float = _f(0.0, "Probability of turning RGB grey, 0 to 1.")
    blur: float = _f(0.0, "Probability of Gaussian blur, 0 to 1 (RGB only).")
    blur_kernel: int = _f(5, "Side of the blur kernel in pixels, odd.")
    blur_sigma: list[float] = _f([0.1, 2.0], "Range of the blur's standard deviation in pixels, two numbers > 0.")
    randaugment_ops: int = _f(0, "Operations of RandAugment per clip, >= 0; 0 = off (RGB-only samples).")
    randaugment_magnitude: int = _f(7, "Magnitude of RandAugment, 0 to 30.")
    erasing: float = _f(0.0, "Probability of random erasing, one box for all frames of a clip, 0 to 1.")
    erasing_area: list[float] = _f([0.02, 1.0 / 3.0], "Area range of the erased box, two numbers in (0, 1].")
    erasing_aspect: list[float] = _f([0.3, 3.33], "Aspect ratio range of the erased box, two numbers > 0.")
    resize_mode: Literal["bilinear", "bicubic"] = _f("bilinear", "Interpolation of RGB (depth and labels: nearest).")


@dataclass
class MixingArguments:
    """Mixup, CutMix and label smoothing of classification batches (REFERENCE.md §2.9)."""

    mixup: float = _f(0.0, "Alpha of mixup's Beta distribution, >= 0; 0 = off.")
    cutmix: float = _f(0.0, "Alpha of CutMix's Beta distribution, >= 0; 0 = off.")
    probability: float = _f(1.0, "Probability that a batch is mixed, 0 to 1.")
    switch_probability: float = _f(0.5, "Probability of CutMix where both are on, 0 to 1.")
    label_smoothing: float = _f(0.0, "Share of the target spread evenly over all classes, 0 to 1.")


@dataclass
class FeatureArguments:
    """Clip features of whole videos, extracted once for the temporal model (action detection)."""

    dir: str | None = _f(None, "Folder of extracted features; None = features/ in the output folder.")
    format: Literal["parquet", "safetensors"] = _f("parquet", "File format of one video's features.")
    batch_size: int = _f(8, "Clips per forward pass while extracting, >= 1.")
    clip_stride: int | None = _f(None, "Source frames from one clip to the next; None = the span of a clip.")


@dataclass
class OptimArguments:
    """AdamW and its schedule."""

    learning_rate: float = _f(1e-4, "Base learning rate, > 0; with scale_lr per 256 samples.")
    scale_lr: bool = _f(True, "Multiply learning_rate, warmup_lr and min_lr by effective batch / 256 (§6 row 24).")
    betas: list[float] = _f([0.9, 0.95], "AdamW betas, two numbers in [0, 1).")
    eps: float = _f(1e-8, "AdamW epsilon, > 0.")
    weight_decay: float = _f(0.05, "AdamW weight decay, >= 0; none on norms, biases, tokens and other 1-D weights.")
    layer_decay: float | None = _f(None, "Layer-wise learning-rate decay in (0, 1]; None = off.")
    schedule: Literal["cosine", "constant"] = _f("cosine", "Shape after the warm-up.")
    warmup_epochs: float = _f(0.0, "Linear warm-up in epochs, >= 0; used where warmup_steps is None.")
    warmup_steps: int | None = _f(None, "Linear warm-up in optimizer steps, >= 0; wins over warmup_epochs.")
    warmup_lr: float = _f(0.0, "Learning rate at the start of the warm-up, >= 0.")
    min_lr: float = _f(0.0, "Learning rate at the end, >= 0.")
    clip_grad_norm: float | None = _f(None, "Largest gradient norm, > 0; None = no clipping.")


@dataclass
class TrainArguments:
    """Length, batch and arithmetic."""

    epochs: float | None = _f(None, "Passes over the training data, > 0; exactly one of epochs and max_steps.")
    max_steps: int | None = _f(None, "Optimizer steps, > 0; exactly one of epochs and max_steps.")
    batch_size: int = _f(32, "Samples per process and micro-batch, >= 1.")
    accumulation: int = _f(1, "Micro-batches per optimizer step, >= 1.")
    precision: Literal["no", "bf16", "fp16"] = _f("no", "Autocast arithmetic; 'no' is float32.")
    ema_decay: float | None = _f(None, "Decay of an exponential moving average of the weights, (0, 1); None = off.")
    compile: bool = _f(
        False, "torch.compile the training step; evaluations run eagerly. Short: --compile. See docs/scaling.md."
    )
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = _f(
        "default", "Mode of torch.compile; reduce-overhead and max-autotune replay CUDA graphs (GPU, accumulation 1)."
    )
    compile_backend: str = _f("inductor", "Backend of torch.compile: inductor; aot_eager and eager to look for faults.")
    grad_checkpointing: bool = _f(
        False, "Recompute every block in the backward pass: less memory, more time. Short: --grad_checkpointing."
    )
    sharding: Literal["auto", "none", "fsdp2", "deepspeed_zero1", "deepspeed_zero2"] = _f(
        "auto",
        "fsdp2: cut weights and optimizer state over the processes; deepspeed_zero1 or 2: optimizer state (and "
        "gradients), by DeepSpeed; auto: as the accelerate configuration says.",
    )
    attn_implementation: str | None = _f(None, "Attention kernel: eager, sdpa, ...; None = transformers' choice.")


@dataclass
class EvaluationArguments:
    """When and how to evaluate while training."""

    every_steps: int | None = _f(None, "Evaluate every that many optimizer steps; wins over every_epochs.")
    every_epochs: float | None = _f(None, "Evaluate every that many epochs; both None = only at the end.")
    at_end: bool = _f(True, "Evaluate after the last step.")
    batch_size: int | None = _f(None, "Samples per process; None = train.batch_size.")
    num_segments: int = _f(1, "Clips taken from each video, evenly spread (classification; the paper's test: 5), >= 1.")
    num_crops: int = _f(1, "Crops of each clip along the longer side (classification; the paper's test: 3), >= 1.")
    metric: str | None = _f(None, "Metric that chooses checkpoints/best, e.g. eval/miou; None = the task's.")
    greater_is_better: bool | None = _f(None, "Direction of `metric`; None = the task's.")


@dataclass
class CheckpointArguments:
    """What is kept on disk while training."""

    every_steps: int | None = _f(None, "Save a resumable checkpoint every that many steps; wins over every_epochs.")
    every_epochs: float | None = _f(None, "Save every that many epochs; both None = only on a signal and at the end.")
    keep_last: int = _f(2, "Resumable checkpoints to keep, >= 1.")
    save_best: bool = _f(True, "Keep checkpoints/best by evaluation.metric.")
    save_final: bool = _f(True, "Also leave a resumable checkpoint after the last step.")


@dataclass
class LoggingArguments:
    """What is told while training."""

    every_steps: int = _f(10, "Log (and look at the non-finite flag) every that many optimizer steps, >= 1.")
    trackers: list[str] = _f(["tensorboard"], "Accelerate trackers; [] = only metrics.jsonl.")
    progress: bool = _f(True, "Print progress with the expected time of arrival.")


@dataclass
class RunArguments:
    """Everything that decides a run; `to_dict` of it is stored in train_config.json."""

    task: str = _f("pretraining", f"What the run trains: {', '.join(TASKS)}.")
    recipe: str | None = _f(None, "Recipe name (m33d_hf/recipes) or path of a YAML file.")
    method: str | None = _f(None, "Method name (m33d_hf/recipes/methods) or path of a YAML file; pre-training only.")
    stage: int | None = _f(
        None, "1 (contrastive) or 2 (masked modelling) of an image method in two stages; None = one stage."
    )
    output_dir: str = _f("outputs/run", "Folder that receives checkpoints, metrics and the final model.")
    seed: int = _f(0, "Seed of everything random, >= 0.")
    init_from: str | None = _f(
        None, "Weights to start from: own folder or hub id, MAE or VideoMAE file, folder or hub id."
    )
    resume: str | None = _f("auto", "auto: newest complete checkpoint of output_dir; a path; none: start anew.")
    replay: str | None = _f(None, "Folder of a non-finite capture to reproduce instead of training.")
    eval_only: bool = _f(False, "Evaluate the weights of init_from (a trained model of this task) and stop.")
    dry_run: bool = _f(False, "Print the resolved run and check the first samples, then stop.")
    num_processes: int | None = _f(None, "World size that must be found; None = whatever the launcher started.")
    cpu: bool = _f(False, "Train on CPU even where an accelerator is present.")
    cpu_threads: int | None = _f(None, "Threads per process on CPU; None = torch's choice (launchers set one).")
    init: InitArguments = dataclasses.field(default_factory=InitArguments)
    model: dict[str, Any] = _f({}, "M33DConfig fields by name; `modalities` ends up here as a list.")
    data: DataArguments = dataclasses.field(default_factory=DataArguments)
    transforms: TransformArguments = dataclasses.field(default_factory=TransformArguments)
    mixing: MixingArguments = dataclasses.field(default_factory=MixingArguments)
    features: FeatureArguments = dataclasses.field(default_factory=FeatureArguments)
    optim: OptimArguments = dataclasses.field(default_factory=OptimArguments)
    train: TrainArguments = dataclasses.field(default_factory=TrainArguments)
    evaluation: EvaluationArguments = dataclasses.field(default_factory=EvaluationArguments)
    checkpoint: CheckpointArguments = dataclasses.field(default_factory=CheckpointArguments)
    logging: LoggingArguments = dataclasses.field(default_factory=LoggingArguments)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, ready for JSON; every dataclass becomes a dict."""
        return dataclasses.asdict(self)

    def validate(self) -> None:
        """Check what only the values together can tell.

        Raises:
            ConfigError: a value out of range, or values that contradict each other.
        """
        _check_choice("task", self.task, TASKS)
        trains = not self.eval_only or self.train.epochs is not None or self.train.max_steps is not None
        if trains and (self.train.epochs is None) == (self.train.max_steps is None):
            raise ConfigError(
                f"Exactly one of train.epochs ({self.train.epochs}) and train.max_steps ({self.train.max_steps}) must"
                " be given; set the other to null."
            )
        if self.stage not in (None, 1, 2):
            raise ConfigError(f"stage must be 1, 2 or null, not {self.stage}.")
        if not self.train.compile and (self.train.compile_mode, self.train.compile_backend) != ("default", "inductor"):
            raise ConfigError(
                f"train.compile_mode {self.train.compile_mode} and train.compile_backend {self.train.compile_backend} "
                "do nothing without --train.compile true; give it, or leave them out."
            )
        for key, value, low, high in _ranges(self):
            if value is not None and not low <= value <= high:
                least = "above 0" if 0 < low < 1 else f"at least {low:g}"
                most = "" if high == inf else f" and at most {high:g}"
                raise ConfigError(f"{key} is {value:g}; it must be {least}{most}.")


def _check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not in `known`, with the nearest one."""
    from m33d_hf.errors import nearest_name_hint

    if value not in known:
        raise ConfigError(f"{key}={value!r} is none of {', '.join(known)}.{nearest_name_hint(value, known)}")


def _ranges(args: RunArguments) -> list[tuple[str, float | None, float, float]]:
    """(key, value, lowest, highest) of the numbers whose range a type cannot tell."""
    big, tiny = inf, 1e-300  # tiny: above 0
    return [
        ("seed", args.seed, 0, big),
        ("num_processes", args.num_processes, 1, big),
        ("cpu_threads", args.cpu_threads, 1, big),
        ("data.frame_stride", args.data.frame_stride, 1, big),
        ("data.num_workers", args.data.num_workers, 0, big),
        ("data.max_bad_fraction", args.data.max_bad_fraction, 0, 1),
        ("data.max_train_samples", args.data.max_train_samples, 1, big),
        ("data.num_views", args.data.num_views, 1, big),
        ("data.label_fraction", args.data.label_fraction, tiny, 1),
        ("features.batch_size", args.features.batch_size, 1, big),
        ("features.clip_stride", args.features.clip_stride, 1, big),
        ("mixing.mixup", args.mixing.mixup, 0, big),
        ("mixing.cutmix", args.mixing.cutmix, 0, big),
        ("mixing.probability", args.mixing.probability, 0, 1),
        ("mixing.switch_probability", args.mixing.switch_probability, 0, 1),
        ("mixing.label_smoothing", args.mixing.label_smoothing, 0, 1),
        ("optim.learning_rate", args.optim.learning_rate, tiny, big),
        ("optim.weight_decay", args.optim.weight_decay, 0, big),
        ("optim.layer_decay", args.optim.layer_decay, tiny, 1),
        ("optim.clip_grad_norm", args.optim.clip_grad_norm, tiny, big),
        ("train.epochs", args.train.epochs, tiny, big),
        ("train.max_steps", args.train.max_steps, 1, big),
        ("train.batch_size", args.train.batch_size, 1, big),
        ("train.accumulation", args.train.accumulation, 1, big),
        ("train.ema_decay", args.train.ema_decay, 0, 1),
        ("evaluation.every_steps", args.evaluation.every_steps, 1, big),
        ("evaluation.num_segments", args.evaluation.num_segments, 1, big),
        ("evaluation.num_crops", args.evaluation.num_crops, 1, big),
        ("checkpoint.every_steps", args.checkpoint.every_steps, 1, big),
        ("checkpoint.keep_last", args.checkpoint.keep_last, 1, big),
        ("logging.every_steps", args.logging.every_steps, 1, big),
        ("transforms.flip", args.transforms.flip, 0, 1),
        ("transforms.color_jitter", args.transforms.color_jitter, 0, 1),
        ("transforms.blur", args.transforms.blur, 0, 1),
    ]


def same_setting(first: Any, second: Any) -> bool:
    """Whether two values of one field mean the same: a tuple equals the list, and a square size its side."""
    return _comparable(first) == _comparable(second)


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        entries = [_comparable(entry) for entry in value]
        return entries[0] if len(entries) == 2 and entries[0] == entries[1] else entries
    return value
