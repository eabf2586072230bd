"""What augmentation takes of a fine-tuning step on its device: RandAugment, erasing and mixing of clips, and colour.

    python benchmarks/augmentation_step.py --device cuda --precision bf16   # ViT-B, 16 clips of 16 frames: a minute
    python benchmarks/augmentation_step.py --tiny                           # seconds: a test of the machinery

First every operation of RandAugment, and every change of colour, on the device is compared with the same on the CPU;
where they differ by more than rounding and the edge of moved pictures explain, nothing is timed. Then, in turns: a step
of the training loop on finished clips, finishing a batch with mirroring and normalisation alone, with the recipe's
erasing and mixing, with RandAugment before them, and, which no share of the recipe counts, with the colours of other
recipes instead of all these. Writes augmentation_step.json into --output_dir.
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

from m33d_hf.data.augmentation.color import Jitter, draw_jitter
from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.augmentation.rand_augmentation import OPERATIONS, Operation, draw_operations
from m33d_hf.data.augmentation.rgb_changes import ColorDraw, RgbChanges
from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.data.loader.collation import ClipClassificationCollator, deferring
from m33d_hf.data.randomness import Draw, Uniforms, seeded
from m33d_hf.data.sample import RGBDSample
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.tasks.base import to_device

HERE = Path(__file__).resolve().parent
CLASSES = 101
OPS, MAGNITUDE, ERASING = 4, 7, 0.25  # of the recipe ucf101_finetune
# Mean difference in levels. Equalize and the like may be stretched by a level that differs before them.
FAR = 1.5
# Colours take the same steps everywhere: only rounding differs, of few pixels and by one level.
FAR_IN_COLOUR = 0.1
COLOURS = {
    "brightness": ColorDraw(Jitter((1.3, 1.0, 1.0, 0.0), (0,)), False, None),
    "contrast": ColorDraw(Jitter((1.0, 0.7, 1.0, 0.0), (1,)), False, None),
    "saturation": ColorDraw(Jitter((1.0, 1.0, 1.4, 0.0), (2,)), False, None),
    "hue": ColorDraw(Jitter((1.0, 1.0, 1.0, -0.08), (3,)), False, None),
    "greyscale": ColorDraw(None, True, None),
    "blur": ColorDraw(None, False, (23, 1.2)),
    "all colours": ColorDraw(Jitter((0.8, 1.2, 0.7, 0.06), (3, 1, 0, 2)), True, (5, 0.9)),
}


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


def drawn_colours(number: int) -> ColorDraw:
    """Of one clip: jitter and, for every other, blur of one of two kernels; a fifth is grey."""
    draws = Uniforms(Draw(0).generator(str(number), "color"))
    blur = (23 if number % 4 else 5, draws.uniform(0.1, 2.0)) if number % 2 else None
    return ColorDraw(draw_jitter(0.4, 0.4, 0.4, 0.1, draws), number % 5 == 0, blur)


def samples(config: M33DConfig, count: int, changed: str) -> list[RGBDSample]:
    """Clips as they leave a data set that defers: changes drawn and not carried out."""
    side, found = config.image_height_width[0], []
    for number in range(count):
        with seeded("benchmark", number):
            operations = draw_operations(OPS, MAGNITUDE, side, side)
        sample = RGBDSample(str(number), clip(number, config.num_frames, side), label=number % CLASSES)
        sample.meta["draw"], sample.mirrored = Draw(0), number % 2 == 1
        sample.changes = {
            "not": None,
            "by RandAugment": RgbChanges((side, side), operations),
            "in colour": RgbChanges((side, side), (), drawn_colours(number)),
        }[changed]
        found.append(sample)
    return found


def parity(device: torch.device, side: int) -> dict[str, float]:
    """Mean difference in levels of each operation, of whole draws and of colours, between the device and this CPU.

    Raises:
        ParityError: one is larger than FAR.
    """
    strengths = {"Rotate": 7.0, "Posterize": 7.0, "Solarize": 0.77}
    moved = {"TranslateX", "TranslateY", "Identity"}  # carried out by the crop, or not at all
    changes = {
        name: (RgbChanges((side, side), (Operation(name, strengths.get(name, 0.21)),)), FAR)
        for name in OPERATIONS
        if name not in moved
    }
    for number in range(8):
        with seeded("parity", number):
            operations = draw_operations(OPS, MAGNITUDE, side, side)
        changes[f"draw {number}"] = RgbChanges((side, side), operations), 3 * FAR
    changes |= {name: (RgbChanges((side, side), (), draw), FAR_IN_COLOUR) for name, draw in COLOURS.items()}
    found, far = {}, {}
    for number, (name, (change, limit)) in enumerate(changes.items()):
        frames = clip(number, 2, side)
        apart = (change.apply(frames.to(device)).cpu().float() - change.apply(frames).float()).abs()
        found[name] = float(apart.mean())
        if found[name] > limit:
            far[name] = found[name]
    if far:
        raise ParityError(f"augmentation on {device} differs from the CPU's, in levels on average: {far}")
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Parity, then times in turns and the shares of a whole step."""
    device = torch.device(args.device)
    config = M33DConfig(**sizes(args.size, "clip"), modalities=[rgb_modality()], num_labels=CLASSES)
    differences = parity(device, config.image_height_width[0])
    mixing, erasing = MixingOptions(mixup=0.8, cutmix=1.0, label_smoothing=0.1), TransformOptions(erasing=ERASING)

    def finishing(changed: str, mixed: bool) -> Callable[[], Any]:
        options = (mixing, erasing) if mixed else (None, None)
        collator = deferring(ClipClassificationCollator(config, *options, train=True))
        batch = collator(samples(config, args.batch, changed))
        batch = {name: each.to(device) if torch.is_tensor(each) else each for name, each in batch.items()}
        return lambda: to_device(batch, device)

    calls = {
        "normalising": finishing("not", False),
        "mixing": finishing("not", True),
        "all": finishing("by RandAugment", True),
        "colour": finishing("in colour", False),
    }
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
        "share_of_colour": max(times["colour"] - times["normalising"], 0.0) / (times["step"] + times["colour"]),
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
    print(f"with erasing and mixing {result['share_of_augmentation']:.1%};", end=" ")
    print(f"colours would take {result['share_of_colour']:.1%}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
