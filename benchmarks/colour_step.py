"""What torchvision's colour operations would take of a pre-training on rooms, instead of the package's own.

    python benchmarks/colour_step.py                           # a minute, one thread of a CPU
    python benchmarks/colour_step.py --rounds 2 --output_dir outputs/x   # seconds: a test of the machinery

The same draws of ColorJitter for the same batch of 48 pictures of 48 pixels (recipe rooms/pretrain, half of them are
changed), carried out by m33d_hf/data/augmentation/color.py, which takes the pictures of a batch together, and by
torchvision.transforms.v2.functional, picture by picture; the pixels are compared first. In turns with a step of `mae`.
The share is what a run would lose: the difference of both by step and own colours together. Writes colour_step.json
into --output_dir.
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
from step_contenders import OurStep
from torchvision.transforms.v2 import functional

from m33d_hf.data.augmentation.color import draw_jitter
from m33d_hf.data.augmentation.rgb_changes import ColorDraw, RgbChanges, change_rows
from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.data.loader.loading import build_loader
from m33d_hf.data.randomness import Draw, Uniforms
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.loaders import step_sampler
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import build_task

HERE = Path(__file__).resolve().parent
STEPS: tuple[Callable[[torch.Tensor, float], torch.Tensor], ...] = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)
# Levels in the mean: torchvision rounds after every operation, ours after the last one.
FAR = 1.0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output_dir", type=Path, default=HERE)
    return parser.parse_args(argv)


def run_step(folder: Path) -> tuple[OurStep, Any]:
    """A step of rooms/pretrain with its own batch, and the options of its transforms."""
    argv = ["--recipe", "rooms/pretrain", "--method", "mae", "--output_dir", str(folder), "--logging.trackers", "[]"]
    args = resolve([*argv, "--data.options", "{num_frames: 96}", "--data.eval_split", "null"], "pretraining").args
    task = build_task("pretraining")
    model = build_model(args, task)
    dataset = task.build_datasets(args, model)[0]
    sampler = step_sampler(args, task, dataset, 0, 1, 0, 10**6)
    batch = next(iter(build_loader(dataset, task.build_collator(args, model, train=True), sampler, num_workers=0)))
    batch.pop("meta", None)
    return OurStep(model.train(), batch, "no", compiled=False), args


def drawn_changes(options: Any, count: int) -> list[RgbChanges | None]:
    """Of every picture of a batch; None for those that keep their colours."""
    strengths = (options.brightness, options.contrast, options.saturation, options.hue)
    found: list[RgbChanges | None] = []
    for number in range(count):
        draws = Uniforms(Draw(0).generator(str(number), "color"))
        jitter = draw_jitter(*strengths, draws) if draws.chance(options.color_jitter) else None
        found.append(None if jitter is None else RgbChanges((48, 48), color=ColorDraw(jitter, False, None)))
    return found


def by_torchvision(pixels: torch.Tensor, changes: Sequence[RgbChanges | None]) -> torch.Tensor:
    """The same, picture by picture."""
    changed = pixels.clone()
    for row, change in enumerate(changes):
        if change is not None and change.color is not None and change.color.jitter is not None:
            factors, order = change.color.jitter
            for step in order:
                changed[row] = STEPS[step](changed[row], factors[step])
    return changed


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Parity, then times in turns and the share of a run.

    Raises:
        ParityError: the two give other pixels.
    """
    step, run = run_step(args.output_dir)
    count = run.train.batch_size
    small = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 255
    pixels = torch.nn.functional.interpolate(small, (48, 48), mode="bilinear").to(torch.uint8)
    changes = drawn_changes(run.transforms, count)
    apart = float((change_rows(pixels, changes).float() - by_torchvision(pixels, changes).float()).abs().mean())
    if apart > FAR:
        raise ParityError(f"the colours differ by {apart:.2f} levels on average")
    calls: dict[str, Callable[[], Any]] = {
        "step": step,
        "ours": lambda: change_rows(pixels, changes),
        "torchvision": lambda: by_torchvision(pixels, changes),
    }
    seconds = interleaved(calls, args.rounds, 2, torch.device("cpu"))
    times = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "batch": count,
        "changed": sum(change is not None for change in changes),
        "parity_levels": apart,
        "times": {name: summary(each) for name, each in seconds.items()},
        "share_lost": (times["torchvision"] - times["ours"]) / (times["step"] + times["ours"]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save; 1 where the pixels differ."""
    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    try:
        result = {**header("colour_step", torch.device("cpu")), **measure(args)}
    except ParityError as error:
        print(error, file=sys.stderr)
        return 1
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "colour_step.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, each in result["times"].items():
        print(f"{name:12} {each['median_ms']:8.2f} ms")
    print(f"with torchvision's colours a run on rooms would lose {result['share_lost']:.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
