"""Hours of recordings of a depth camera per hour of one core, by stage, and whether memory grows with their length.

    python benchmarks/depth_hours.py                                 # 10 and 60 minutes at 5 fps: half an hour, 10 GB
    python benchmarks/depth_hours.py --model small --fps 15          # longer, larger
    python benchmarks/depth_hours.py --tiny --output_dir outputs/x   # a minute: a test of the machinery

Writes depth_hours_MODEL.json into --output_dir. A made-up recording of Azure Kinect (Matroska: JPEG pictures of 1280 x
720, 16-bit depth of 320 x 288, a calibration) of each length goes through every stage in a process of its own:

- extraction: scripts/import_recording.py;
- pretraining_reading: every clip once, depth registered, as the loader of the recipe orar_pretrain gives it;
- pretraining: a few steps of that recipe, for memory alone;
- detection: scripts/detect_actions.py --depth, with random weights of a model of RGB and depth.

Hours are by CPU time of the process, which others on the machine lengthen little. Memory is the largest resident size;
what it grows by between the lengths is given per frame: names and times of frames are held, pictures are not.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from depth_recording import write_recording
from measuring import header, peak_memory
from predict import MODELS

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.scripts import detect_actions, import_recording
from m33d_hf.scripts._main import main as train_main
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.pretraining import PretrainingTask

HERE = Path(__file__).resolve().parent
STAGES = ("extraction", "pretraining_reading", "pretraining", "detection")
PHASES = ["first", "second"]
FRAMES, STRIDE = 16, 4


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny", help="ViT-B, ViT-S or a test's (default)")
    parser.add_argument("--minutes", type=float, nargs=2, default=(10.0, 60.0), help="lengths (default 10 and 60)")
    parser.add_argument("--fps", type=int, default=5, help="frames per second (default 5); the device has 5, 15, 30")
    parser.add_argument("--work_dir", type=Path, help="for recordings and frames; removed at the end")
    parser.add_argument("--tiny", action="store_true", help="seconds of video")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    parser.add_argument("--stage", choices=STAGES, help="of one process; what the others are started with")
    args = parser.parse_args(argv)
    if args.tiny:
        args.model, args.minutes = "tiny", (0.3, 0.45)
    return args


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Of the source `phases`, as the last line of the import says."""
    return {"depth_scale": 1000, "calibration": "calibration.json", "fps": args.fps}


def pretraining_words(args: argparse.Namespace, folder: Path) -> list[str]:
    """The recipe orar_pretrain on the imported recordings, with the model of this run."""
    model = dict(MODELS[args.model])
    if args.model == "tiny":
        model |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
                  "decoder_intermediate_size": 32}  # fmt: skip
    given: dict[str, Any] = {
        "recipe": "orar_pretrain", "data.root": folder / "data", "data.eval_split": "null", "data.num_workers": 0,
        **{f"data.options.{name}": value for name, value in options(args).items()},
        "data.options.split_list": json.dumps({"train": str(folder / "train.txt")}), "data.options.unit": "clips",
        "data.options.clip_span": FRAMES * STRIDE, "data.options.annotations": "none",
        "data.options.require_annotations": "false",
        **{f"model.{name}": value for name, value in model.items()}, "train.batch_size": 2, "train.accumulation": 1,
        "train.max_steps": 4, "logging.trackers": "[]", "logging.pictures": "false", "output_dir": folder / "run",
    }  # fmt: skip
    return ["--cpu", *(str(word) for name, value in given.items() for word in (f"--{name}", value))]


def run_stage(args: argparse.Namespace, folder: Path) -> None:
    """One stage over a folder, in this process; it fails where the stage does.

    Raises:
        RuntimeError: with the stage.
    """
    code = 0
    if args.stage == "extraction":
        words = [str(folder / "recording.mkv"), "--output", str(folder / "data" / "recording")]
        code = import_recording.main(words)
        (folder / "train.txt").write_text("recording\n", encoding="utf-8")
    elif args.stage == "pretraining_reading":
        read_clips(args, folder)
    elif args.stage == "pretraining":
        code = train_main("pretraining", pretraining_words(args, folder))
    else:
        save_detector(args, folder / "model")
        words = ["--model", str(folder / "model"), "--video", str(folder / "data"), "--depth", "--device", "cpu"]
        words += ["--output", str(folder / "found"), "--batch_size", "4", "--options"]
        code = detect_actions.main([*words, *(f"{name}={value}" for name, value in options(args).items())])
    if code:
        raise RuntimeError(f"stage {args.stage} ended with {code}")


def read_clips(args: argparse.Namespace, folder: Path) -> None:
    """Every clip of the training data once, as the loader reads and prepares it."""
    given = parse_arguments(pretraining_words(args, folder), "pretraining")
    task = PretrainingTask()
    clips, _ = task.build_datasets(given, build_model(given, task))
    for index in range(len(clips)):
        clips[0, index]


def save_detector(args: argparse.Namespace, folder: Path) -> None:
    """Random weights of a second stage that sees RGB and depth."""
    torch.manual_seed(0)
    model = M33DForVideoActionDetection(
        M33DConfig(
            **MODELS[args.model], num_frames=FRAMES, tubelet_size=2, temporal_hidden_size=64, task_fusion="sum",
            task_inputs=["rgb", "depth"], temporal_frame_stride=STRIDE, id2label=dict(enumerate(PHASES)),
            label2id={name: number for number, name in enumerate(PHASES)},
        )
    )  # fmt: skip
    model.save_pretrained(folder)


def measured(args: argparse.Namespace, stage: str, folder: Path, seconds: float) -> dict[str, float]:
    """What a stage takes in a process of its own.

    Raises:
        RuntimeError: with what the process said.
    """
    words = [sys.executable, str(Path(__file__).resolve()), "--stage", stage, "--work_dir", str(folder)]
    words += ["--model", args.model, "--fps", str(args.fps)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{stage}: {done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if stage != "pretraining":  # a few steps, whatever the length
        found["video_hours_per_core_hour"] = seconds / found["cpu_seconds"]
        found["frames_per_cpu_second"] = seconds * args.fps / found["cpu_seconds"]
    return found


def cpu_seconds() -> float:
    """CPU time so far of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    if args.stage is not None:
        begun = cpu_seconds()
        run_stage(args, args.work_dir)
        taken = cpu_seconds() - begun
        print(json.dumps({"cpu_seconds": taken, "peak_bytes": peak_memory(torch.device("cpu"))}))
        return 0
    found: dict[str, Any] = {**header("depth_hours", torch.device("cpu")), "model": args.model, "fps": args.fps}
    lengths: list[dict[str, Any]] = []
    for minutes in args.minutes:
        folder = Path(tempfile.mkdtemp(prefix="depth_hours_", dir=args.work_dir))
        try:
            frames = round(60 * minutes * args.fps)
            write_recording(folder / "recording.mkv", frames, args.fps)
            size = (folder / "recording.mkv").stat().st_size
            row: dict[str, Any] = {"minutes": minutes, "frames": frames, "recording_bytes": size}
            for stage in STAGES:
                row[stage] = measured(args, stage, folder, frames / args.fps)
                print(f"{minutes:g} min, {stage}: {row[stage]}", file=sys.stderr, flush=True)
            lengths.append(row)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    more = lengths[1]["frames"] - lengths[0]["frames"]
    growth = {name: (lengths[1][name]["peak_bytes"] - lengths[0][name]["peak_bytes"]) / more for name in STAGES}
    found |= {"lengths": lengths, "peak_bytes_grow_by_per_frame": growth}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / f"depth_hours_{args.model}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
