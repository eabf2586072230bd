"""The arguments of a training run: one typed tree, filled from recipes, methods and the command line.

Every field has a help sentence with its unit, and every number a range; `scripts/run_*.py --help` prints both. How the
values are combined (extends, methods, precedence) is in `recipes.py`; the paper's tables are in
`m33d_hf/recipes/*.yaml`.
"""
# ruff: noqa: RUF009 - `_f` builds a field, so that every default carries its sentence.

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.options import option as _f
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.fields_m33d import Range, name_problem
from m33d_hf.training.recipe.task_names import PRETRAINING, TASKS
from m33d_hf.weights.init_options import InitOptions

# In the output folder: the resolved arguments of a run, and what else it writes down when it begins.
STORED = "train_config.json"

# Numbers beyond these are slips of the pen: they would exhaust a machine or run for ever.
MOST_STEPS = 10**9
MOST_SAMPLES = 10**12
LARGEST_BATCH = 65_536
LARGEST_SEED = 2**63 - 1
LARGEST_RATE = 1e38  # of what float32 holds


@dataclass
class DataArguments:
    """Where samples come from and how they are read."""

    source: str = _f("rooms", "Name of the reader: rooms, procedures, folder, tum, ucf101, phases, or MODULE:CLASS.")
    root: str | list[str] | None = _f(
        None, "Folder of the training data, or several, [A, B], each split by itself; not needed for rooms."
    )
    eval_root: str | list[str] | None = _f(
        None, "Folder of evaluation data, or several; if set, it and `root` are read without splits."
    )
    train_split: str = _f("train", "Split used for training.")
    eval_split: str | None = _f("validation", "Split used for evaluation during training; null = no evaluation.")
    options: dict[str, Any] = _f({}, "Further options of the source, passed by name (for training and evaluation).")
    eval_options: dict[str, Any] = _f({}, "Options of the source for evaluation only; they override `options`.")
    mixture: str | list[Any] | None = _f(
        None,
        "Training data of several sources instead of `source`: a list of {source, root, options, weight}, or a YAML or"
        " JSON file with one; evaluation data stays that of `source`.",
    )
    frame_stride: int = _f(
        1, "Distance between two frames of a clip, in source frames (Table 9 'sampling rate').", low=1, high=100_000
    )
    clip_sampling: Literal["stride", "span"] = _f(
        "stride",
        "stride: num_frames frames, frame_stride apart, from a random start; span: VideoMAE's fine-tuning, num_frames"
        " frames spread evenly over a random span of num_frames * frame_stride.",
    )
    num_views: int = _f(1, "Augmented views of each training clip in a batch (repeated augmentation).", low=1, high=64)
    label_fraction: float | None = _f(
        None,
        "Share of the labelled training data to use, drawn by `subset_seed`: whole videos per class where the source"
        " knows its labels in advance, else whole scenes or sequences by their number of images; null = all.",
        above=0,
        high=1,
    )
    allow_missing_classes: bool = _f(
        False, "Allow classes without a training sample, and label maps of only one class (else an error)."
    )
    max_train_samples: int | None = _f(
        None, "Use only this many training samples, drawn by `subset_seed`; null = all.", low=1, high=MOST_SAMPLES
    )
    max_eval_samples: int | None = _f(
        None, "Evaluate on only this many samples, evenly spread; null = all.", low=1, high=MOST_SAMPLES
    )
    subset_seed: int = _f(0, "Seed of the draws of `label_fraction` and `max_train_samples`.", low=0, high=LARGEST_SEED)
    num_workers: int = _f(2, "Data loader workers per training process.", low=0, high=1024)
    prefetch_factor: int = _f(2, "Batches that each worker prepares in advance.", low=1, high=1024)
    keep_decoded_gb: float = _f(
        0.0,
        "Gigabytes of decoded training samples that the workers of a training process keep in memory together, so that"
        " these are decoded once per worker instead of in every epoch; changes no number; 0 = none.",
        low=0,
        high=10_000,
    )
    cache_dir: str | None = _f(None, "Where rendered `rooms` are cached; null = the user's cache folder.")
    max_bad_fraction: float = _f(0.01, "Share of unreadable samples above which the run stops.", low=0, high=1)
    skip_list: str | None = _f(
        None, "A skipped_files.csv (scripts/check_data.py writes one) whose samples are left out; null = none."
    )


@dataclass
class FeatureArguments:
    """Clip features of whole videos, extracted once for the temporal model (action detection)."""

    dir: str | None = _f(None, "Folder of extracted features; null = features/ in the output folder.")
    format: Literal["parquet", "safetensors"] = _f("parquet", "File format of the features; one file per video.")
    batch_size: int = _f(8, "Clips per forward pass during extraction.", low=1, high=LARGEST_BATCH)
    clip_stride: int | None = _f(
        None, "Source frames from one clip's start to the next; null = the span of a clip.", low=1, high=1_000_000
    )


@dataclass
class OptimArguments:
    """AdamW and its schedule."""

    learning_rate: float = _f(1e-4, "Base learning rate; with scale_lr, per 256 samples.", above=0, high=LARGEST_RATE)
    scale_lr: bool = _f(True, "Multiply learning_rate, warmup_lr and min_lr by effective batch / 256.")
    betas: list[float] = _f([0.9, 0.95], "AdamW betas.", low=0, below=1, length=2)
    eps: float = _f(1e-8, "AdamW epsilon.", above=0, high=1)
    weight_decay: float = _f(
        0.05, "AdamW weight decay; not for norms, biases, tokens and other 1-D weights.", low=0, high=LARGEST_RATE
    )
    layer_decay: float | None = _f(None, "Layer-wise learning-rate decay; null = off.", above=0, high=1)
    schedule: Literal["cosine", "constant"] = _f("cosine", "Learning-rate schedule after the warm-up.")
    warmup_epochs: float = _f(0.0, "Linear warm-up in epochs; used if warmup_steps is null.", low=0, high=1_000_000)
    warmup_steps: int | None = _f(
        None, "Linear warm-up in optimizer steps; overrides warmup_epochs.", low=0, high=MOST_STEPS
    )
    warmup_lr: float = _f(0.0, "Learning rate at the start of the warm-up.", low=0, high=LARGEST_RATE)
    min_lr: float = _f(0.0, "Final learning rate of the schedule.", low=0, high=LARGEST_RATE)
    clip_grad_norm: float | None = _f(None, "Maximum gradient norm; null = no clipping.", above=0, high=1e12)


@dataclass
class TrainArguments:
    """Length of the training, batch size and precision."""

    epochs: float | None = _f(
        None, "Passes over the training data; give exactly one of epochs and max_steps.", above=0, high=1_000_000
    )
    max_steps: int | None = _f(
        None, "Optimizer steps; give exactly one of epochs and max_steps.", low=1, high=MOST_STEPS
    )
    batch_size: int = _f(32, "Samples per micro-batch and process.", low=1, high=LARGEST_BATCH)
    accumulation: int = _f(1, "Micro-batches per optimizer step.", low=1, high=LARGEST_BATCH)
    precision: Literal["no", "bf16", "fp16"] = _f("no", "Autocast precision; no = float32.")
    ema_decay: float | None = _f(
        None, "Decay of an exponential moving average of the weights; null = off.", above=0, below=1
    )
    compile: bool = _f(
        False, "torch.compile the training step; evaluations run eagerly. Short: --compile. See docs/scaling.md."
    )
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = _f(
        "default", "Mode of torch.compile; reduce-overhead and max-autotune replay CUDA graphs (GPU, accumulation 1)."
    )
    compile_backend: str = _f("inductor", "Backend of torch.compile: inductor; aot_eager and eager are for debugging.")
    grad_checkpointing: bool = _f(
        False, "Recompute every block in the backward pass: less memory, more time. Short: --grad_checkpointing."
    )
    sharding: Literal["auto", "none", "fsdp2", "deepspeed_zero1", "deepspeed_zero2"] = _f(
        "auto",
        "fsdp2: shard weights and optimizer state over the processes; deepspeed_zero1 or 2: shard the optimizer state "
        "(and gradients) with DeepSpeed; auto: follow the accelerate configuration.",
    )
    attn_implementation: str | None = _f(None, "Attention kernel: eager, sdpa, ...; null = transformers' choice.")
    class_weights: str = _f(
        "none",
        "Weight of each class in the loss of clips: none; balanced (in inverse proportion to its training clips); or a "
        "file of lines 'name<TAB>weight'. Scaled to a mean of 1 over the training clips.",
    )
    sampling: Literal["shuffled", "balanced"] = _f(
        "shuffled",
        "Order of the training samples: shuffled: each once per epoch; balanced: drawn with replacement, so that all "
        "classes of clips are seen alike (of whole videos, those with rare phases more often).",
    )


COMPARED = 32  # samples that an evaluation of pre-training compares with each other, unless it is told


def evaluation_batch(task: str, stated: int | None, training: int) -> int:
    """Samples per process and forward pass of an evaluation; for a `Task`, ask its `evaluation_batch`.

    Args:
        task: its name.
        stated: `evaluation.batch_size`.
        training: `train.batch_size`.
    """
    return stated or (COMPARED if task == PRETRAINING else training)


@dataclass
class EvaluationArguments:
    """When and how to evaluate during training."""

    every_steps: int | None = _f(
        None, "Evaluate every N optimizer steps; overrides every_epochs.", low=1, high=MOST_STEPS
    )
    every_epochs: float | None = _f(
        None, "Evaluate every N epochs; both null = only at the end.", above=0, high=1_000_000
    )
    at_end: bool = _f(True, "Evaluate after the last step.")
    batch_size: int | None = _f(
        None,
        f"Samples per batch and process; null = train.batch_size, or {COMPARED} in pre-training, whose retrieval "
        "metrics compare the samples of a batch.",
        low=1,
        high=LARGEST_BATCH,
    )
    num_segments: int = _f(
        1, "Clips per video, evenly spread (classification; 5 in the paper's test).", low=1, high=1000
    )
    num_crops: int = _f(
        1, "Crops per clip along the longer side (classification; 3 in the paper's test).", low=1, high=1000
    )
    inputs: list[list[str]] | None = _f(
        None,
        "With --eval_only, what the model is given, one row of results for each set: [[rgb], [rgb, depth]]; null = all"
        " of model.task_inputs.",
    )
    depth_protocol: Literal["multimae", "exact_multimae", "eigen"] | None = _f(
        None, "Protocol of depth estimation; null = the output of transforms.eval_crop, by pixels and by images."
    )
    floor: bool = _f(
        False,
        "Also judge what a model that looks at nothing reaches: per position the mean depth (depth estimation) or the"
        " commonest class (segmentation) of some training frames, the commonest class or phase of the training clips"
        " (classification, detection), as floor/...",
    )
    diagnostics: bool = _f(
        True,
        "Pre-training: also how well RGB tokens find their own token of the other modality, and the losses with a"
        " modality hidden from the decoder, which tell whether it copies; half of the time of an evaluation.",
    )
    metric: str | None = _f(None, "Metric that chooses checkpoints/best, e.g. eval/miou; null = the task's default.")
    greater_is_better: bool | None = _f(None, "Whether a larger `metric` is better; null = unless a loss or error.")


@dataclass
class CheckpointArguments:
    """Which checkpoints are saved and kept."""

    every_steps: int | None = _f(
        None, "Save a resumable checkpoint every N optimizer steps; overrides every_epochs.", low=1, high=MOST_STEPS
    )
    every_epochs: float | None = _f(
        None, "Save every N epochs; both null = only after a signal and at the end.", above=0, high=1_000_000
    )
    keep_last: int = _f(2, "Number of resumable checkpoints to keep.", low=1, high=1_000_000)
    save_best: bool = _f(True, "Keep the best weights, by evaluation.metric, in checkpoints/best.")
    save_final: bool = _f(True, "Also save a resumable checkpoint after the last step.")


@dataclass
class LoggingArguments:
    """What is logged during training."""

    every_steps: int = _f(10, "Log (and check for non-finite values) every N optimizer steps.", low=1, high=MOST_STEPS)
    trackers: list[str] = _f(["tensorboard"], "Experiment trackers of Accelerate; [] = only metrics.jsonl.")
    progress: bool = _f(True, "Print progress and the remaining time.")
    pictures: bool = _f(
        True, "Draw the first batch and predictions at every evaluation (pictures/), and write report.html."
    )


@dataclass
class HubArguments:
    """Publishing each best checkpoint on the Hub while the run goes on (docs/publishing.md)."""

    push: bool = _f(False, "Publish checkpoints/best whenever an evaluation has replaced it.")
    repo: str | None = _f(None, "ORG/NAME on the Hub; created where it is missing.")
    license: str | None = _f(None, "Licence of the weights for the card; null = what they inherit.")
    private: bool = _f(False, "Create the repository as private.")


@dataclass
class RunArguments:
    """All arguments of a run; its `to_dict` is stored in train_config.json."""

    task: str = _f(PRETRAINING, f"Task to train: {', '.join(TASKS)}.")
    recipe: str | None = _f(None, "Recipe name (m33d_hf/recipes) or path of a YAML file.")
    method: str | None = _f(None, "Method name (m33d_hf/recipes/methods) or path of a YAML file; pre-training only.")
    stage: int | None = _f(
        None,
        "Stage of a two-stage image method: 1 (contrastive) or 2 (masked modelling); null = one stage.",
        low=1,
        high=2,
    )
    output_dir: str = _f("outputs/run", "Output folder for checkpoints, metrics and the final model.")
    seed: int = _f(0, "Seed of all random numbers.", low=0, high=LARGEST_SEED)
    init_from: str | None = _f(
        None, "Weights to start from: a folder, file or Hub id of this package, MAE, VideoMAE or MultiMAE."
    )
    resume: str | None = _f("auto", "auto: newest complete checkpoint of output_dir; none: start anew; or a path.")
    replay: str | None = _f(None, "Folder of a captured non-finite step; reproduce that step instead of training.")
    eval_only: bool = _f(False, "Evaluate the weights of init_from (a trained model of this task) and stop.")
    dry_run: bool = _f(False, "Print the resolved configuration, check the first samples, and stop.")
    num_processes: int | None = _f(
        None, "Expected number of processes; null = whatever the launcher started.", low=1, high=65_536
    )
    cpu: bool = _f(False, "Train on the CPU even if an accelerator is present.")
    cpu_threads: int | None = _f(
        None, "CPU threads per process; null = torch's default (launchers set one thread).", low=1, high=1024
    )
    init: InitOptions = dataclasses.field(default_factory=InitOptions)
    model: dict[str, Any] = _f({}, "M33DConfig fields by name; `modalities` ends up here as a list.")
    data: DataArguments = dataclasses.field(default_factory=DataArguments)
    transforms: TransformOptions = dataclasses.field(default_factory=TransformOptions)
    mixing: MixingOptions = dataclasses.field(default_factory=MixingOptions)
    features: FeatureArguments = dataclasses.field(default_factory=FeatureArguments)
    optim: OptimArguments = dataclasses.field(default_factory=OptimArguments)
    train: TrainArguments = dataclasses.field(default_factory=TrainArguments)
    evaluation: EvaluationArguments = dataclasses.field(default_factory=EvaluationArguments)
    checkpoint: CheckpointArguments = dataclasses.field(default_factory=CheckpointArguments)
    logging: LoggingArguments = dataclasses.field(default_factory=LoggingArguments)
    hub: HubArguments = dataclasses.field(default_factory=HubArguments)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, ready for JSON; every dataclass becomes a dict."""
        return dataclasses.asdict(self)

    def validate(self, origins: Mapping[str, str] | None = None) -> None:
        """Check every number against the range of its field, and all values for contradictions.

        Args:
            origins: dotted key -> the layer that set it, for messages.

        Raises:
            ConfigError: a value out of range, text that cannot name a file, or values that contradict each other.
        """
        _check_choice("task", self.task, tuple(TASKS))
        for key, field, value in fields_of(self):
            check_field(key, field, value, origins or {})
        trains = not self.eval_only or self.train.epochs is not None or self.train.max_steps is not None
        if trains and (self.train.epochs is None) == (self.train.max_steps is None):
            raise ConfigError(
                f"Exactly one of train.epochs ({self.train.epochs}) and train.max_steps ({self.train.max_steps}) must"
                " be given; set the other to null."
            )
        if self.hub.push and (self.hub.repo is None or not self.checkpoint.save_best):
            raise ConfigError(
                "hub.push publishes checkpoints/best: it needs --hub.repo ORG/NAME and --checkpoint.save_best true."
            )
        if self.evaluation.inputs is not None and not self.eval_only:
            raise ConfigError(
                "evaluation.inputs judges a trained model with several input sets: it needs --eval_only true."
            )
        if not self.train.compile and (self.train.compile_mode, self.train.compile_backend) != ("default", "inductor"):
            raise ConfigError(
                f"train.compile_mode {self.train.compile_mode} and train.compile_backend {self.train.compile_backend} "
                "have no effect without --train.compile true; add it, or leave them out."
            )


def fields_of(arguments: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """(dotted key, field, value) of every argument of a tree of dataclasses."""
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field, value


def put_value(args: RunArguments, key: str, value: Any) -> None:
    """Set the entry of a dotted key, such as `train.max_steps` or `model.hidden_size`."""
    section, _, name = key.partition(".")
    if section == "model":
        args.model[name] = value
    else:
        setattr(getattr(args, section), name, value)


def check_field(key: str, field: dataclasses.Field[Any], value: Any, origins: Mapping[str, str]) -> None:
    """Check one value against the range of its field, and text for characters that no file name can have.

    Raises:
        ConfigError: as `RunArguments.validate`.
    """
    allowed: Range | None = field.metadata.get("range")
    problem = None if allowed is None or value is None else allowed.problem(value)
    problem = name_problem(value) if isinstance(value, str) else problem
    if value in ("none", "None") and "| None" in str(field.type) and key != "resume":
        problem = f"is {value!r}; write null to leave it empty"
    if problem is not None:
        raise ConfigError(f"{key}{said_by(key, origins)} {problem}.")


def origin_of(key: str, origins: Mapping[str, str]) -> str:
    """The layer that set `key` or a key inside it; empty for a default."""
    return next((layer for name, layer in origins.items() if name == key or name.startswith(f"{key}.")), "")


def said_by(key: str, origins: Mapping[str, str]) -> str:
    """`origin_of` in brackets for a message, such as " (recipe NAME)"; empty for a default."""
    origin = origin_of(key, origins)
    return f" ({origin})" if origin else ""


def _check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not in `known`, with the nearest one."""
    if value not in known:
        raise ConfigError(f"{key}={value!r} is not one of {', '.join(known)}.{nearest_name_hint(str(value), known)}")


def same_setting(first: Any, second: Any) -> bool:
    """Whether two values of one field mean the same: a tuple equals the list, and a square size its side."""
    return _comparable(first) == _comparable(second)


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):  # JSON has text for keys
        return {str(key): _comparable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = [_comparable(entry) for entry in value]
        return entries[0] if len(entries) == 2 and entries[0] == entries[1] else entries
    return value
