"""FSDP2: weights, gradients and optimizer state sharded over the processes, for models too large for one device.

Accelerate's launcher and configuration files say *that* a run is sharded; the wrapping is done here. Accelerate's own
puts the patch projection into a unit of its own, whose weight our embedding reads without calling the unit; and it
leaves CPU processes alone, so that nothing of it could be tested where there is no GPU.

Every block (`M33DLayer`, of encoders and decoder) is a unit; what is left (embeddings, mask tokens, norms, heads) is
gathered once per step with the root. Files on disk are those of a run that is not sharded: gathered, whole tensors, so
that a run continues on another number of processes or without sharding.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.layers_m33d import M33DLayer
from m33d_hf.modeling.temporal_model_m33d import M33DTemporalModel
from m33d_hf.training.processes import deepspeed_config
from m33d_hf.training.recipe.arguments import RunArguments

# Set by `accelerate launch` from the fsdp_config of its file.
LAUNCHED = "ACCELERATE_USE_FSDP"
_YES = ("1", "true", "yes", "on", "y", "t")


def says_yes(name: str, default: str = "false") -> bool:
    """Whether an environment variable of the launcher is true."""
    return os.environ.get(name, default).lower() in _YES


def settle_sharding(args: RunArguments) -> None:
    """Turn ``train.sharding = auto`` into what the launcher asks for: "fsdp2", "deepspeed_zero1", ... or "none".

    Raises:
        ConfigError: the launcher asks for an unsupported kind of sharding, or for settings that would be ignored.
    """
    for name, what in (("MEGATRON_LM", "Megatron-LM"), ("PARALLELISM_CONFIG", "a parallelism_config")):
        if says_yes(f"ACCELERATE_USE_{name}"):
            raise ConfigError(f"The launcher asks for {what}; only DDP, FSDP2 and ZeRO stages 1 and 2 are supported.")
    if args.train.sharding == "auto":
        if says_yes(deepspeed_config.LAUNCHED):
            args.train.sharding = deepspeed_config.launched_sharding()
        else:
            args.train.sharding = "fsdp2" if says_yes(LAUNCHED) else "none"
    if args.train.sharding == "fsdp2" and says_yes(LAUNCHED):
        _check_launcher()
    if args.train.sharding.startswith(deepspeed_config.PREFIX):
        deepspeed_config.buckets_asked_for(args)


def _check_launcher() -> None:
    """Refuse the settings of an fsdp_config that would not be followed."""
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(
            f"The accelerate configuration asks for FSDP version {version}; only version 2 is supported: write "
            "`fsdp_version: 2` into its fsdp_config, or use the fsdp2.yaml of this package."
        )
    wanted = {
        "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params: true is not supported; use more processes",
        "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing: pass --train.grad_checkpointing true instead",
    }
    for name, message in wanted.items():
        if says_yes(name):
            raise ConfigError(f"accelerate configuration: {message} (and set it to false there).")
    units = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP") or M33DLayer.__name__
    if units != M33DLayer.__name__:
        raise ConfigError(
            f"accelerate configuration: fsdp_transformer_layer_cls_to_wrap: {units}, but the units are always the "
            f"blocks of encoders and decoder: write {M33DLayer.__name__} there."
        )


@contextmanager
def launcher_hidden() -> Iterator[None]:
    """Inside the block, keep Accelerate and transformers from wrapping or emptying the model themselves.

    transformers, seeing the variable, loads weights on the first process only and leaves the others without.
    """
    names = (LAUNCHED, deepspeed_config.LAUNCHED)
    former = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(former)


def blocks_of(model: nn.Module) -> list[M33DLayer]:
    """The transformer blocks of encoders and decoder: units of sharding, of checkpointing and of regional compiling."""
    return [module for module in model.modules() if isinstance(module, M33DLayer)]


def reads_whole_videos(model: nn.Module) -> bool:
    """Whether a model, or a head of somebody's own, reads sequences of any length."""
    return any(isinstance(module, nn.RNNBase | M33DTemporalModel) for module in model.modules())


def check_shardable(model: nn.Module, args: RunArguments, processes: int) -> None:
    """Refuse what cannot be sharded.

    Raises:
        ConfigError: a single process, fp16, or a model of whole videos.
    """
    asked = f"train.sharding={args.train.sharding}"
    if processes == 1:
        raise ConfigError(
            f"{asked} shards the model over processes, but there is only one: start several (torchrun --nproc_per_node "
            "N or accelerate launch --num_processes N), or pass --train.sharding none."
        )
    if args.train.precision == "fp16":
        raise ConfigError(f"{asked} with train.precision=fp16 is not supported; use bf16 or no.")
    if reads_whole_videos(model):
        raise ConfigError(
            f"The temporal model of {args.task} is not sharded: it is far too small to need it, and torch's GRU keeps "
            "its own list of weights. Pass --train.sharding none, or launch without FSDP or DeepSpeed."
        )


class Shards:
    """A model sharded over all processes, in place, and the code to gather it again.

    Args:
        model: on the device of this process, with the same weights on every process.
        precision: "no" or "bf16"; blocks are then gathered in bfloat16, gradients reduced in float32.
        reshard: free the gathered weights of a block after its forward pass (ZeRO-3) instead of keeping them for the
            backward pass (ZeRO-2).
    """

    def __init__(self, model: nn.Module, precision: str, reshard: bool = True) -> None:
        self.model = model
        self._skeleton = _without_weights(model)
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        # Inputs stay as they are: autocast chooses the arithmetic, and targets must not be rounded.
        exact = MixedPrecisionPolicy(cast_forward_inputs=False)
        half = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
        # Blocks add what their parts return out of place, so its being a view does no harm.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        for block in blocks_of(model):
            if precision == "bf16":
                # One unit of the matrices, which autocast would round anyway; norms stay in float32, as it has them.
                fully_shard([block.attention, block.mlp], mesh=mesh, reshard_after_forward=reshard, mp_policy=half)
            fully_shard(block, mesh=mesh, reshard_after_forward=reshard, mp_policy=exact)
        fully_shard(model, mesh=mesh, mp_policy=exact)

    def gather(self, keep: bool, device: torch.device) -> nn.Module | None:
        """A whole, ordinary copy of the model on `device`; collective. None on processes that do not `keep` it."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # a forward pass without a backward pass leaves weights gathered
        found = {}
        for name, parameter in self.model.named_parameters():
            tensor = full(parameter.detach())
            if keep:
                found[name] = tensor.to(device)
        if not keep:
            return None
        whole = copy.deepcopy(self._skeleton)
        buffers = {name: value for name, value in whole.state_dict().items() if name not in found}
        whole.load_state_dict({**found, **buffers}, strict=True, assign=True)
        return whole.to(device).train(self.model.training)


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy of the model whose parameters are empty; buffers are copied."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, sharing its memory; the tensor itself where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor; collective where it is sharded."""
    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.full_tensor()
    # Uneven parts are gathered into a longer buffer; files must not hold its padding.
    padded = whole.untyped_storage().nbytes() > whole.numel() * whole.element_size()
    return whole.clone() if padded else whole


def cut_like(whole: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """`whole`, which every process has, sharded like `pattern`; no communication."""
    if not isinstance(pattern, DTensor):
        return whole
    moved = whole.to(pattern.device)
    return distribute_tensor(moved, pattern.device_mesh, pattern.placements, src_data_rank=None)


def map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`value` with every tensor in its dicts and lists changed, in order."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(entry, change) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(entry, change) for entry in value)
    return value


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state_dict with whole tensors; collective where it is sharded."""
    return map_tensors(optimizer.state_dict(), full)


def load_whole_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore `whole_state`, sharded like the optimizer's parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    cut = {
        number: {
            name: cut_like(value, parameters[number])
            if isinstance(value, torch.Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in entries.items()
        }
        for number, entries in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": cut})
