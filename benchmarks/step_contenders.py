"""The two sides of the step benchmark, and the proof that they compute the same before they are timed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from measuring import ParityError
from step_cases import Batch
from torch import Tensor, nn

from m33d_hf.acceleration import place
from m33d_hf.training.processes.launch import Ranks, prepare_ddp
from m33d_hf.training.processes.optimization import build_optimizer
from m33d_hf.training.processes.updating import Updater
from m33d_hf.training.recipe.arguments import OptimArguments
from m33d_hf.training.run.stepping import StepEngine, seed_step
from m33d_hf.training.tasks.base import Task
from m33d_hf.weights import convert_state_dict, from_state_dict

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
# Of the timed step's loss in its precision, compiled or not, against float32: rounding to bfloat16 takes a tenth of
# this; a compiled model draws other pairs to match.
TIMED_LOSS_TOLERANCE = 0.02
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.95)


class _NothingMore(Task):
    """A task that adds nothing to the step."""

    name = "benchmark"


class OurStep:
    """`StepEngine.update` as the training loop calls it: counts, forward, loss, backward, gradient norm, fused AdamW.

    Args:
        model: ours, on the device.
        batch: forward arguments.
        precision: "no" or "bf16", through Accelerate as in the loop.
        compiled: compile the model in place.
        clip_grad_norm: largest gradient norm; None for no clipping.
        accelerator: makes one; None for one in this precision.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        precision: str,
        compiled: bool,
        clip_grad_norm: float | None = None,
        accelerator: Callable[[], Accelerator] | None = None,
    ) -> None:
        device = next(model.parameters()).device
        # Accelerate's singletons refuse a second precision in one process.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        made = accelerator() if accelerator else Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
        optim = OptimArguments(learning_rate=LEARNING_RATE, betas=list(BETAS), weight_decay=WEIGHT_DECAY)
        if compiled:
            model.compile(dynamic=False)
        place(model, device)  # with the kernels of a run
        prepared, optimizer = prepare_ddp(made, model, build_optimizer(model, optim))
        updater = Updater(made, prepared, optimizer, clip_grad_norm)
        self.engine = StepEngine(updater, _NothingMore(), Ranks(made), seed=0)
        self.batch = batch
        self.number = 0

    def __call__(self) -> None:
        """Take one step; waits for nothing."""
        self.engine.update(self.number, [self.batch], LEARNING_RATE)
        self.number += 1

    def check_loss(self, expected: float) -> dict[str, float]:
        """Take a step and compare its loss: compiled and in bfloat16 it must be that of the eager float32 model.

        Args:
            expected: that one's loss, with the weights before the step.

        Returns:
            "loss", "float32_loss" and "loss_error", relative.

        Raises:
            ParityError: they differ by more than TIMED_LOSS_TOLERANCE.
        """
        self()
        found = sum(self.engine.loss_weights[name] * mean for name, mean in self.engine.read_window().items())
        error = abs(found - expected) / abs(expected)
        if not error <= TIMED_LOSS_TOLERANCE:
            raise ParityError(
                f"the loss of the timed step is {found:.5f}, but {expected:.5f} in float32 and not compiled: "
                f"{error:.1e} of it, more than {TIMED_LOSS_TOLERANCE:.0e}; nothing is timed."
            )
        return {"loss": found, "float32_loss": expected, "loss_error": error}


class PeerStep:
    """A step as transformers' Trainer takes it, without its clipping and logging: they would only slow it down.

    Args:
        model: transformers', on the device.
        batch: forward arguments.
        precision: "no" or "bf16" (autocast, as Trainer's bf16).
        compiled: compile the model in place.
        optimizer: "fused" (`adamw_torch_fused`, Trainer's default since transformers 5) or "default" (AdamW as torch
            makes it: `adamw_torch`).
    """

    def __init__(self, model: nn.Module, batch: Batch, precision: str, compiled: bool, optimizer: str) -> None:
        self.model = model.train()
        self.batch = batch
        self.device = next(model.parameters()).device
        self.autocast = precision == "bf16"
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=LEARNING_RATE,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=True if optimizer == "fused" else None,
        )
        if compiled:
            model.compile(dynamic=False)

    def __call__(self) -> None:
        """Take one step; waits for nothing."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> Tensor:
        """The loss of the batch."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            return self.model(**self.batch).loss


def eager_loss(model: nn.Module, batch: Batch) -> float:
    """Loss of a training pass in the weights' precision, with the draws of a step's first pass; not compiled."""
    seed_step(0, 0, 0)
    with torch.no_grad():
        return float(model.train()(**batch).loss)


def transplant(peer: nn.Module, ours: nn.Module) -> None:
    """The peer's weights into our model, through the converter: every one of them accounted for."""
    convert_state_dict(from_state_dict(peer.state_dict(), "the peer of the benchmark"), ours)


def check_parity(ours: nn.Module, peer: nn.Module, our_batch: Batch, peer_batch: Batch) -> dict[str, float | int]:
    """Compare loss and every gradient, in float32.

    The peer's gradients go through the same converter as weights do, so that each of ours has its counterpart.

    Returns:
        "loss", "peer_loss", "loss_error" (relative), "gradient_error" (largest over the weights, see
        `gradient_errors`) and "weights", their number.

    Raises:
        ParityError: a difference above LOSS_TOLERANCE or GRADIENT_TOLERANCE.
    """
    losses = [ours.train()(**our_batch).loss, peer.train()(**peer_batch).loss]
    for loss in losses:
        loss.backward()
    found, expected = (float(loss.detach()) for loss in losses)
    error = abs(found - expected) / abs(expected)
    if not error <= LOSS_TOLERANCE:
        raise ParityError(
            f"the losses differ by {error:.1e} of their value ({found:.7f} against {expected:.7f}), more "
            f"than {LOSS_TOLERANCE:.0e}: other weights, input or mask; nothing is timed."
        )
    errors = gradient_errors(ours, peer)
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= GRADIENT_TOLERANCE:
        raise ParityError(
            f"the gradients of {worst} differ by {errors[worst]:.1e}, more than {GRADIENT_TOLERANCE:.0e}: the two "
            "models do not compute the same; nothing is timed."
        )
    for model in (ours, peer):
        model.zero_grad(set_to_none=True)
    return {
        "loss": found,
        "peer_loss": expected,
        "loss_error": error,
        "gradient_error": errors[worst],
        "weights": len(errors),
    }


@torch.no_grad()
def gradient_errors(ours: nn.Module, peer: nn.Module) -> dict[str, float]:
    """Weight -> norm of the difference of the gradients over the peer's, plus 1e-3 of the whole gradient's norm.

    The second part of the denominator is for gradients that are 0 but for rounding: that of a key's bias, which cancels
    in the softmax and which VideoMAE does not have.
    """
    gradients = {name: value.clone() for name, value in peer.state_dict().items()}
    for name, parameter in peer.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            gradients[name] = parameter.grad
    expected = copy.deepcopy(ours)
    report = convert_state_dict(from_state_dict(gradients, "the peer's gradients"), expected)
    # VideoMAE's projection into the decoder has no bias; ours is 0 at the start, so the functions agree.
    counterparts = {target for targets in report.used.values() for target in targets}
    values = dict(expected.named_parameters())
    whole = total_norm([values[name] for name, p in ours.named_parameters() if p.requires_grad])
    errors = {}
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:
            raise ParityError(f"{name} of our model has no gradient")
        if name not in counterparts:
            continue
        difference = (parameter.grad - values[name]).norm()
        errors[name] = float(difference / (values[name].norm() + 1e-3 * whole))
    return errors


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all of them."""
    return torch.stack([tensor.norm() for tensor in tensors]).norm()
