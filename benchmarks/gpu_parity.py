"""Proofs before anything is timed on a GPU: it computes what the CPU does, and ours computes what the peers do."""

from __future__ import annotations

import argparse
import copy
from typing import Any

import augmentation_step
import finetune_step
import inference
import pretrain_step
import torch
from inference_models import answer, build_pair, inputs
from measuring import ParityError
from step_cases import CASES, our_batch, our_config
from step_contenders import eager_loss, total_norm

from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

# Of a loss, of the norm of all gradients, of the largest output: float32 sums in another order.
ACROSS_DEVICES = {"loss": 1e-4, "gradient": 1e-3, "output": 1e-3}


def augmentation(args: argparse.Namespace) -> dict[str, Any]:
    """RandAugment and colours on the device against the CPU's.

    Raises:
        ParityError: as everything here, where the two differ.
    """
    return augmentation_step.parity(torch.device(args.device), 32 if args.size == "tiny" else 224)


def pretraining(args: argparse.Namespace) -> dict[str, Any]:
    """Loss and gradients of `videomae` and `mae` against transformers' models, on the device, in float32."""
    device, found = torch.device(args.device), {}
    for name in ("videomae", "mae"):
        words = ["--device", args.device, "--cases", name, "--batch", "2", "--size", args.size, "--peers", "fused"]
        case, config = CASES[name], our_config(CASES[name], args.size)
        ours, peers, given = pretrain_step.build(pretrain_step.parse(words), case, config, 2, device)
        found[name] = pretrain_step.parity(case, ours, peers[0], given, config)
    return found


def fine_tuning(args: argparse.Namespace) -> dict[str, Any]:
    """Loss and gradients of clip classification against VideoMAE, on the device, in float32."""
    words = ["--device", args.device, "--size", args.size, "--batch", "2"]
    return finetune_step.parity(*finetune_step.build(finetune_step.parse(words)))


def methods(args: argparse.Namespace) -> dict[str, Any]:
    """Loss and gradients of the methods without a peer against the CPU's: of ViT-S, so that the CPU is soon done."""
    device, size, found = torch.device(args.device), "tiny" if args.size == "tiny" else "small", {}
    for name in ("m33d_video", "m33d_plus_video", "m33d_image_stage2"):
        config = our_config(CASES[name], size)
        torch.manual_seed(0)
        here = M33DForPreTraining(config)
        there = copy.deepcopy(here).to(device)
        losses, gradients = [], []
        for model, place in ((here, torch.device("cpu")), (there, device)):
            # Of two samples each is the other's mismatched partner, so that nothing is drawn by a device's generator.
            batch = our_batch(config, 2, place)
            model.train()(**batch).loss.backward()
            losses.append(eager_loss(model, batch))
            gradients.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
        apart = total_norm([a - b for a, b in zip(*gradients, strict=True)]) / total_norm(gradients[0])
        found[name] = {"loss": abs(losses[1] - losses[0]) / abs(losses[0]), "gradient": float(apart)}
        _demand(found[name], f"{name} on {device} and on the CPU")
    return found


def forward(args: argparse.Namespace) -> dict[str, Any]:
    """Logits of clips against VideoMAE's, on the device; outputs of ViT-S for depth and classes against the CPU's."""
    device, size, found = torch.device(args.device), "tiny" if args.size == "tiny" else "small", {}
    ours, peer = build_pair("clips", args.size)
    given = inputs("clips", args.size, 2, device)
    found["clips"] = {"logits_against_videomae": inference.check_parity(ours.to(device), peer.to(device), given)}
    for task in ("depth", "segmentation"):
        ours, _ = build_pair(task, size)
        with torch.inference_mode():
            expected = answer(ours(**inputs(task, size, 2, torch.device("cpu"))))
            computed = answer(ours.to(device)(**inputs(task, size, 2, device))).cpu()
        found[task] = {"output": float((computed - expected).abs().max() / expected.abs().max())}
        _demand(found[task], f"the output of {task} on {device} and on the CPU")
    return found


def _demand(errors: dict[str, float], what: str) -> None:
    far = {name: error for name, error in errors.items() if not error <= ACROSS_DEVICES[name]}
    if far:
        raise ParityError(f"{what} differ, as a share: {far}; allowed is {ACROSS_DEVICES}")
