"""Prediction on a folder of pictures, as a share of what the model alone computes.

    python benchmarks/predict.py                                   # ViT-B, 16 JPEGs of 640 x 480, minutes on one thread
    python benchmarks/predict.py --device cuda --pictures 512      # a GPU
    python benchmarks/predict.py --tiny --output_dir outputs/x     # seconds: a test of the machinery

Writes predict_MODEL.json into --output_dir. Three ways take turns in every round: the model's forward pass on batches
that are there already; scripts/predict.py's own loop, from JPEG files to one 16-bit PNG of the picture's size each; and
transformers' depth pipeline with the same batch, writing the same PNGs one after the other. Time is the wall clock,
because what is measured is whether threads hide the reading and the writing; the process's CPU time of the first two
says how much there is to hide. On a machine that others use, the shares of single rounds are worth more than times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import header
from PIL import Image

from m33d_hf.data.depth.writing import write_depth_image
from m33d_hf.inference.prediction.building import build_prediction_task
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.prediction.running import predict
from m33d_hf.inference.sharding import Place
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation

HERE = Path(__file__).resolve().parent
SIZE = (480, 640)
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
SMALL = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
MODELS: dict[str, dict[str, Any]] = {"tiny": {**TINY, "image_size": 32, "patch_size": 8}, "small": SMALL, "base": {}}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="base", help="ViT-B, ViT-S or a test's")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="threads that read, and threads that write")
    parser.add_argument("--threads", type=int, default=1, help="of the model on CPU (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"))
    parser.add_argument("--tiny", action="store_true", help="a tiny model, a few pictures, one round")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if args.tiny:
        args.model, args.pictures, args.batch, args.rounds = "tiny", 5, 2, 1
    return args


def write_model(folder: Path, kind: str) -> Path:
    """Random weights of a depth model, with its processor."""
    torch.manual_seed(0)
    config = M33DConfig(**MODELS[kind], depth_mean=2.0, depth_std=1.0)
    M33DForDepthEstimation(config).save_pretrained(folder)
    M33DImageProcessor.from_model_config(config).save_pretrained(folder)
    return folder


def write_pictures(folder: Path, count: int) -> None:
    """JPEGs of a camera's sharpness: coarse structure and some noise, about 90 kB each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), np.uint8))
        pixels = np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC), np.float32) + rng.normal(
            0, 8, (*SIZE, 3)
        )
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def measured(calls: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds of every call, taking turns, after one round unmeasured."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            wall, used = time.perf_counter(), time.process_time()
            call()
            if number:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - used))
    return seconds


def contenders(args: argparse.Namespace, model: Path, pictures: Path, output: Path) -> dict[str, Callable[[], None]]:
    """The three ways over all pictures."""
    from transformers import pipeline

    def options(folder: Path) -> PredictionOptions:
        return PredictionOptions(
            str(model), [str(pictures)], folder, save=["depth"], batch_size=args.batch, workers=args.workers,
            device=args.device, precision=args.precision,
        )  # fmt: skip

    task = build_prediction_task(options(output / "none"))
    network: Any = task.model.model  # type: ignore[attr-defined]
    device = torch.device(args.device)
    batch = torch.randn(args.batch, 3, *network.config.image_height_width, device=device)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(args.precision)
    runs = iter(range(10**6))
    estimate = pipeline("depth-estimation", model=network, image_processor=task.model.processor, device=device)  # type: ignore[attr-defined]

    @torch.inference_mode()
    def alone() -> None:
        left = args.pictures
        while left > 0:
            with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
                network(pixel_values=batch[: min(left, args.batch)])
            left -= args.batch
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def ours() -> None:
        folder = output / f"ours{next(runs)}"
        loaded = build_of(task, options(folder))
        summary = predict(options(folder), Place(0, 1, 0), loaded, say=str)
        if summary.predicted != args.pictures:
            raise RuntimeError(summary.describe())

    def peer() -> None:
        folder = output / f"peer{next(runs)}"
        paths = sorted(map(str, pictures.glob("*.jpg")))
        for start in range(0, len(paths), args.batch):
            names = paths[start : start + args.batch]
            for name, found in zip(names, estimate(names, batch_size=args.batch), strict=True):
                write_depth_image(folder, Path(name).stem, "metric", found["predicted_depth"].cpu().numpy())

    return {"model": alone, "predict": ours, "pipeline": peer}


def build_of(task: Any, options: PredictionOptions) -> Any:
    """The same model for another output folder."""
    return type(task)(options, task.predictor)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures", args.pictures)
        model = write_model(folder / "model", args.model)
        size = statistics.mean(path.stat().st_size for path in (folder / "pictures").iterdir())
        seconds = measured(contenders(args, model, folder / "pictures", folder), args.rounds)
    found: dict[str, Any] = header("predict", torch.device(args.device))
    found |= {"model": args.model, "batch": args.batch, "pictures": args.pictures, "picture": "640 x 480 JPEG"}
    found |= {"bytes_per_picture": round(size), "precision": args.precision, "rounds": args.rounds}
    for way, times in seconds.items():
        found[f"{way}_pictures_per_second"] = args.pictures / statistics.median(wall for wall, _ in times)
    for way in ("predict", "pipeline"):
        shares = [model[0] / own[0] for model, own in zip(seconds["model"], seconds[way], strict=True)]
        found[f"{way}_share_of_the_model"] = statistics.median(shares)
        found[f"{way}_shares_by_round"] = sorted(shares)
    work = [model[1] / own[1] for model, own in zip(seconds["model"], seconds["predict"], strict=True)]
    found["share_of_cpu_time_in_the_model"] = statistics.median(work)
    beside = [own[1] - model[1] for model, own in zip(seconds["model"], seconds["predict"], strict=True)]
    found["cpu_ms_per_picture_beside_the_model"] = 1e3 * statistics.median(beside) / args.pictures
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / f"predict_{args.model}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if "share" in key or "per_" in key}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
