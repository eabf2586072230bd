"""What augmentation takes of a fine-tuning step on its device: RandAugment, erasing and mixing of clips.

    python benchmarks/augmentation_step.py --device cuda --precision bf16   # ViT-B, 16 clips of 16 frames: a minute
    python benchmarks/augmentation_step.py --tiny                           # seconds: a test of the machinery

First every operation of RandAugment on the device is compared with the same on the CPU; where they differ by more than
rounding and the edge of moved pictures explain, nothing is timed. Then, in turns: a step of the training loop on
finished clips, finishing a batch with mirroring and normalisation alone, with the recipe's erasing and mixing, and
with RandAugment before them. Writes augmentation_step.json into --output_dir.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import ParityError, header, interleaved, summary
from step_cases import sizes
from step_contenders import OurStep

from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.augmentation.rand_augmentation import OPERATIONS, Operation, draw_operations
from m33d_hf.data.augmentation.rgb_changes import RgbChanges
from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.data.loader.collation import ClipClassificationCollator, deferring
from m33d_hf.data.randomness import Draw, seeded
from m33d_hf.data.sample import RGBDSample
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.tasks.base import to_device

HERE = Path(__file__).resolve().parent
CLASSES = 101
OPS, MAGNITUDE, ERASING = 4, 7, 0.25  # of the recipe ucf101_finetune
# Mean difference in levels. Equalize and the like may be stretched by a level that differs before them.
FAR = 1.5


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="no", choices=["no", "bf16"], help="of the step: float32 or autocast")
    parser.add_argument("--compiled", action="store_true", help="torch.compile the model")
    parser.add_argument("--batch", type=int, default=16, help="clips per step")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", default="base", choices=["base", "small", "tiny"], help="ViT-B, ViT-S, for tests")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, 4 clips, 2 rounds")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: torch sees no GPU here.")
    if min(args.batch, args.rounds) < 1:
        parser.error("--batch and --rounds: at least one.")
    if args.tiny:
        args.size, args.batch, args.rounds = "tiny", 4, 2
    return args


def clip(number: int, frames: int, side: int) -> torch.Tensor:
    """(T, 3, side, side) uint8 in which neighbours are alike, as in pictures."""
    generator = torch.Generator().manual_seed(number)
    small = torch.rand(frames, 3, 9, 9, generator=generator) * 225
    large = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")
    return (large + 30 * torch.rand(large.shape, generator=generator)).to(torch.uint8)


def samples(config: M33DConfig, count: int, augmented: bool) -> list[RGBDSample]:
    """Clips as they leave a data set that defers: changes drawn and not carried out."""
    side, found = config.image_height_width[0], []
    for number in range(count):
        with seeded("benchmark", number):
            operations = draw_operations(OPS, MAGNITUDE, side, side)
        sample = RGBDSample(str(number), clip(number, config.num_frames, side), label=number % CLASSES)
        sample.meta["draw"], sample.mirrored = Draw(0), number % 2 == 1
        sample.changes = RgbChanges((side, side), operations) if augmented else None
        found.append(sample)
    return found


def parity(device: torch.device, side: int) -> dict[str, float]:
    """Mean difference in levels of each operation, and of whole draws, between the device and this CPU.

    Raises:
        ParityError: one is larger than FAR.
    """
    strengths = {"Rotate": 7.0, "Posterize": 7.0, "Solarize": 0.77}
    moved = {"TranslateX", "TranslateY", "Identity"}  # carried out by the crop, or not at all
    draws = {name: (Operation(name, strengths.get(name, 0.21)),) for name in OPERATIONS if name not in moved}
    for number in range(8):
        with seeded("parity", number):
            draws[f"draw {number}"] = draw_operations(OPS, MAGNITUDE, side, side)
    found = {}
    for number, (name, operations) in enumerate(draws.items()):
        frames, change = clip(number, 2, side), RgbChanges((side, side), operations)
        apart = (change.apply(frames.to(device)).cpu().float() - change.apply(frames).float()).abs()
        found[name] = float(apart.mean())
    far = {name: value for name, value in found.items() if value > FAR * (3 if name.startswith("draw") else 1)}
    if far:
        raise ParityError(f"RandAugment on {device} differs from the CPU's, in levels on average: {far}")
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Parity, then times in turns and the shares of a whole step."""
    device = torch.device(args.device)
    config = M33DConfig(**sizes(args.size, "clip"), modalities=[rgb_modality()], num_labels=CLASSES)
    differences = parity(device, config.image_height_width[0])
    mixing, erasing = MixingOptions(mixup=0.8, cutmix=1.0, label_smoothing=0.1), TransformOptions(erasing=ERASING)

    def finishing(augmented: bool, mixed: bool) -> Callable[[], Any]:
        options = (mixing, erasing) if mixed else (None, None)
        collator = deferring(ClipClassificationCollator(config, *options, train=True))
        batch = collator(samples(config, args.batch, augmented))
        batch = {name: each.to(device) if torch.is_tensor(each) else each for name, each in batch.items()}
        return lambda: to_device(batch, device)

    calls = {"normalising": finishing(False, False), "mixing": finishing(False, True), "all": finishing(True, True)}
    torch.manual_seed(0)
    model = M33DForVideoClassification(config).to(device).train()
    step = OurStep(model, calls["all"](), args.precision, args.compiled)
    seconds = interleaved({"step": step, **calls}, args.rounds, 3 if device.type != "cpu" else 1, device)
    times = {name: statistics.median(each) for name, each in seconds.items()}
    whole = times["step"] + times["all"]
    return {
        "parity_levels": differences,
        "times": {name: summary(each) for name, each in seconds.items()},
        "share_of_rand_augment": max(times["all"] - times["mixing"], 0.0) / whole,
        "share_of_augmentation": max(times["all"] - times["normalising"], 0.0) / whole,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save; 1 where parity failed."""
    args = parse(sys.argv[1:] if argv is None else argv)
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()  # as training does
    facts = {"size": args.size, "batch": args.batch, "precision": args.precision, "compiled": args.compiled}
    try:
        result = {**header("augmentation_step", device), **facts, **measure(args)}
    except ParityError as error:
        print(error, file=sys.stderr)
        return 1
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "augmentation_step.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, each in result["times"].items():
        print(f"{name:12} {each['median_ms']:10.2f} ms")
    print(f"RandAugment takes {result['share_of_rand_augment']:.1%} of step and finishing together,", end=" ")
    print(f"with erasing and mixing {result['share_of_augmentation']:.1%}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
