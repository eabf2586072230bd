"""What an Accelerate configuration or a DeepSpeed JSON file asks of DeepSpeed: followed, or refused by name.

The run decides batch, accumulation, clipping, precision, optimizer and schedule, so these should be "auto"; a number
that equals the run's value is accepted.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.arguments import RunArguments

# Of the values of `train.sharding` that mean DeepSpeed; the stage follows.
PREFIX = "deepspeed_zero"
# Set by `accelerate launch` from the deepspeed_config of its file.
LAUNCHED = "ACCELERATE_USE_DEEPSPEED"
_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
_UNSET = ("", "auto", "none", "null")
# Sizes of messages: they decide how fast, not what.
_BUCKETS = ("reduce_bucket_size", "allgather_bucket_size")
_INSTEAD = {
    "optimizer": "the optimizer is always AdamW with the recipe's settings (--optim.*): leave the section out",
    "scheduler": "the recipe sets the learning rate (--optim.schedule, --optim.warmup_epochs): leave the section out",
    "fp16": "use --train.precision bf16 or no (loss scaling is not supported) and leave the section out",
    "bf16": "weights stay float32 under autocast: leave the section out and pass --train.precision bf16",
    "activation_checkpointing": "leave the section out and pass --train.grad_checkpointing true",
}


def launched_sharding() -> Literal["deepspeed_zero1", "deepspeed_zero2"]:
    """The `train.sharding` that the launcher's file asks for: "deepspeed_zero1" or "deepspeed_zero2".

    Raises:
        ConfigError: another stage, or a file that cannot be read.
    """
    stage: Any = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    path = os.environ.get(_FILE, "").strip()
    if path.lower() not in _UNSET:
        stage = _section(_read(path), "zero_optimization").get("stage", 0)
    if str(stage) in ("1", "2"):
        return "deepspeed_zero1" if str(stage) == "1" else "deepspeed_zero2"
    instead = {"0": "ddp.yaml", "3": "fsdp2.yaml (which also shards the weights)"}
    raise ConfigError(
        f"The launcher asks for DeepSpeed with zero_stage {stage}; only stages 1 and 2 are supported. Start with the "
        f"accelerate configuration {instead.get(str(stage), 'deepspeed_zero2.yaml')} of this package."
    )


def buckets_asked_for(args: RunArguments) -> dict[str, int]:
    """Check everything the launcher says about DeepSpeed; returns what is left to follow: sizes of messages in numbers.

    Raises:
        ConfigError: a setting that would be ignored; it is named.
    """
    _check_environment(args)
    path = os.environ.get(_FILE, "").strip()
    if path.lower() in _UNSET:
        return {}
    settings = _read(path)
    for key, value in settings.items():
        _check_setting(key, value, args, path)
    zero = _section(settings, "zero_optimization")
    for key, value in zero.items():
        kept = value is None or (isinstance(value, dict) and value.get("device", "none") == "none")
        offloads = key.startswith("offload_") and not kept
        if key not in ("stage", *_BUCKETS) and value != "auto" and (offloads or not key.startswith("offload_")):
            why = "offloading is not supported; use more processes" if offloads else "it is not supported: leave it out"
            raise ConfigError(f"{path}: zero_optimization.{key}: {why}.")
    asked = {key: zero[key] for key in _BUCKETS if zero.get(key, "auto") != "auto"}
    for key, value in asked.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < math.inf:
            raise ConfigError(
                f'{path}: zero_optimization.{key}: {value} is not a positive number: write "auto" instead.'
            )
    return {key: int(value) for key, value in asked.items()}


def _check_environment(args: RunArguments) -> None:
    """The deepspeed_config of an accelerate configuration."""
    for what in ("optimizer", "param"):
        device = os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what.upper()}_DEVICE", "none").lower()
        if device not in _UNSET:
            raise ConfigError(
                f"accelerate configuration: offload_{what}_device: {device} is not supported, because states stay on "
                "the device; write none there and use more processes."
            )
    if os.environ.get("ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES", "").lower() not in _UNSET:
        raise ConfigError(
            "accelerate configuration: deepspeed_moe_layer_cls_names is not supported: no model of this package has "
            "experts."
        )
    clipping = os.environ.get("ACCELERATE_GRADIENT_CLIPPING", "auto").lower()
    if clipping not in _UNSET and _number(clipping) != (args.optim.clip_grad_norm or 0.0):
        raise ConfigError(
            f"accelerate configuration: gradient_clipping: {clipping}, but the run has optim.clip_grad_norm "
            f"{args.optim.clip_grad_norm}. The run's value is used: remove the setting there and pass "
            "--optim.clip_grad_norm."
        )


def _check_setting(key: str, value: Any, args: RunArguments, path: str) -> None:
    """One entry of a DeepSpeed JSON file."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    decided = {
        "train_micro_batch_size_per_gpu": ("train.batch_size", args.train.batch_size),
        "gradient_accumulation_steps": ("train.accumulation", args.train.accumulation),
        "train_batch_size": ("effective batch", args.train.batch_size * args.train.accumulation * processes),
        "gradient_clipping": ("optim.clip_grad_norm", args.optim.clip_grad_norm or 0.0),
    }
    if value == "auto" or key in ("zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"):
        return
    if key in decided:
        name, ours = decided[key]
        if value != ours:
            raise ConfigError(f'{path}: {key}: {value}, but the run has {name} {ours}: write "auto" there.')
    elif key not in ("fp16", "bf16", "amp") or _section({key: value}, key).get("enabled", True) not in (False, "auto"):
        raise ConfigError(f"{path}: {key}: {_INSTEAD.get(key, 'it is not supported: leave it out')}.")


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"deepspeed_config_file {path} cannot be read as a JSON file: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"deepspeed_config_file {path} holds no settings; expected a JSON object.")
    return found


def _section(settings: dict[str, Any], key: str) -> dict[str, Any]:
    found = settings.get(key, {})
    return found if isinstance(found, dict) else {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
