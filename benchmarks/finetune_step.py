"""Our fine-tuning step of clips against transformers' VideoMAE under its Trainer: same weights, same clips.

    python benchmarks/finetune_step.py --device cuda                 # ViT-B, 16 clips of 16 frames, float32 and bf16
    python benchmarks/finetune_step.py --size small --batch 1        # a CPU: minutes
    python benchmarks/finetune_step.py --tiny --output_dir outputs/x # seconds: a test of the machinery

Writes finetune_step.json into --output_dir. Loss and every gradient are compared in float32 first; where they differ
nothing is timed and the exit code is 1. Ours is `StepEngine.update`, what the training loop calls. The peer is
`Trainer.train` itself with the defaults of `TrainingArguments` (fused AdamW, gradients clipped to norm 1, its filter of
losses that are not finite), timed from `on_step_begin` to `on_step_end`: reading and collating batches, logging and
saving are not counted, and its batch is on the device already, as ours is. Each of its steps is followed by one of ours
in the same process. Ours clips to the same norm; neither has layer-wise decay, augmentation or drop path.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a GPU machine runs this from the source tree, without installing anything

import torch  # noqa: E402
from inference_models import build_pair, inputs  # noqa: E402
from measuring import ParityError, Stopwatch, header, summary  # noqa: E402
from step_contenders import OurStep, check_parity, eager_loss  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from m33d_hf.data.loader.allocator import keep_freed_memory  # noqa: E402

HERE = Path(__file__).resolve().parent
SIZES = ("base", "small", "tiny")
MAX_GRAD_NORM = 1.0  # of TrainingArguments
Row = dict[str, Any]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", nargs="+", default=["no", "bf16"], choices=["no", "bf16"])
    parser.add_argument("--batch", type=int, default=16, help="clips per step")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3, help="rounds before")
    parser.add_argument("--size", default="base", choices=SIZES, help="ViT-B, ViT-S, for tests")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, 2 clips, 2 rounds")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: torch sees no GPU here.")
    if min(args.batch, args.rounds) < 1 or args.warmup < 0:
        parser.error("--batch and --rounds: at least one; --warmup: none or more.")
    if args.tiny:
        args.size, args.batch, args.rounds, args.warmup = "tiny", 2, 2, 1
    return args


class Turns(TrainerCallback):
    """Times each step of a Trainer, and after it one of ours."""

    def __init__(self, ours: OurStep, watch: Stopwatch, warmup: int) -> None:
        self.ours, self.watch, self.warmup = ours, watch, warmup

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Its step begins."""
        if state.global_step >= self.warmup:
            self.watch.start("peer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Its step has ended."""
        if state.global_step <= self.warmup:  # the number of the next step
            self.ours()
            return
        self.watch.stop("peer")
        self.watch.start("ours")
        self.ours()
        self.watch.stop("ours")


class Clips(Dataset):  # type: ignore[type-arg]
    """As many samples as a training needs; the collator gives the batch that is on the device."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> int:
        return number


def trainer_of(
    peer: nn.Module, batch: dict[str, Any], args: argparse.Namespace, precision: str, folder: str
) -> Trainer:
    """A Trainer with its defaults, but for what a run without files and screen requires."""
    arguments = TrainingArguments(
        output_dir=folder, max_steps=args.warmup + args.rounds, per_device_train_batch_size=args.batch,
        bf16=precision == "bf16", use_cpu=torch.device(args.device).type == "cpu", save_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    if arguments.max_grad_norm != MAX_GRAD_NORM:
        raise RuntimeError(f"TrainingArguments clips to {arguments.max_grad_norm} by default, not to {MAX_GRAD_NORM}")
    samples = Clips(args.batch * (args.warmup + args.rounds))
    return Trainer(peer, arguments, data_collator=lambda _: batch, train_dataset=samples)


def build(args: argparse.Namespace) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Ours and the peer with the same weights, and a batch, all on the device."""
    device = torch.device(args.device)
    ours, peer = build_pair("clips", args.size)
    peer.fc_norm.eps = ours.fc_norm.eps  # transformers takes torch's 1e-5 there, whatever the configuration says
    batch = inputs("clips", args.size, args.batch, device)
    batch["labels"] = torch.arange(args.batch, device=device) % ours.config.num_labels
    return ours.to(device), peer.to(device), batch


def parity(ours: nn.Module, peer: nn.Module, batch: dict[str, Any]) -> dict[str, float | int]:
    """Equal loss and gradients on the first two clips.

    Raises:
        ParityError: they differ.
    """
    few = {name: values[:2] for name, values in batch.items()}
    return check_parity(ours, peer, few, few)


def measure(args: argparse.Namespace, precision: str) -> Row:
    """Parity, then both sides' steps in turn.

    Raises:
        ParityError: the two sides do not compute the same.
    """
    device = torch.device(args.device)
    ours, peer, batch = build(args)
    row: Row = {"precision": precision, "batch": args.batch, "parity": parity(ours, peer, batch)}
    expected = eager_loss(ours, batch)
    step = OurStep(ours, copy.copy(batch), precision, False, MAX_GRAD_NORM)
    row["timed_loss"] = step.check_loss(expected)
    watch = Stopwatch(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(peer, batch, args, precision, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Turns(step, watch, args.warmup))
        trainer.train()
        row["trainer"] = {"optim": trainer.args.optim.value, "mixed_precision": trainer.accelerator.mixed_precision}
    seconds = watch.seconds()
    row["steps"] = {name: summary(each) for name, each in seconds.items()}
    ratios = [theirs / own for theirs, own in zip(seconds["peer"], seconds["ours"], strict=True)]
    return row | {"peer_over_ours": statistics.median(ratios), "peer_over_ours_by_round": sorted(ratios)}


def described(row: Row) -> str:
    """A row as a line of text."""
    steps = {name: f"{each['median_ms']:.1f} ms" for name, each in row["steps"].items()}
    return (
        f"fine-tuning, precision {row['precision']}, {row['batch']} clips: ours {steps['ours']}, Trainer "
        f"{steps['peer']}, Trainer / ours {row['peer_over_ours']:.3f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save; 1 where parity failed."""
    args = parse(sys.argv[1:] if argv is None else argv)
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()  # as training does; both sides gain
    else:
        torch.backends.cudnn.allow_tf32 = False  # cuDNN's default would round the inputs of the peer's convolution
    content: Row = {**header("finetune_step", device), "size": args.size, "rows": []}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for precision in args.precision:
        try:
            row = measure(args, precision)
        except ParityError as error:
            print(error, file=sys.stderr)
            return 1
        content["rows"].append(row)
        (args.output_dir / "finetune_step.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(described(row), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
