"""Detection in a long video and the extraction of its features, as a share of decoding and model at the same time.

    python benchmarks/predict_videos.py                                     # ViT-S, two minutes of video, one thread
    python benchmarks/predict_videos.py --model base --minutes 60 --device cuda --precision bf16
    python benchmarks/predict_videos.py --tiny --output_dir outputs/x       # seconds: a test of the machinery

Writes predict_videos_MODEL.json into --output_dir. One clip of 16 frames per second of a 25 fps H.264 video. Four ways
take turns in every round: the video decoded to its end, what clips take of it converted to RGB, and nothing else; the
model on clips that are in memory already; `ActionDetector.detect`; and the feature extraction of
run_action_detection.py with a thread that reads. The share is the longer one of the first two, which is what perfect
overlap would leave, divided by the way's own time. Where decoding and model share one core the bound is their sum; both
are reported, and so is the share of the CPU time, which other processes disturb less. What a machine with a core for
each thread would need is read off the CPU time of the busiest thread: the share by it is the longer one of decoding and
model, in CPU time, divided by that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from measuring import header
from predict import MODELS, measured

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_reading_m33d import iterate_wanted
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.tasks.detection.feature_dataset import phase_table
from m33d_hf.training.tasks.detection.feature_extraction import FeatureExtractor, encode
from m33d_hf.training.tasks.detection.features import FeatureStore

HERE = Path(__file__).resolve().parent
FPS, FRAMES = 25, 16
PHASES = ["first", "second"]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small", help="ViT-B, ViT-S or a test's")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the video (default 2)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4, help="clips per forward pass")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the model on CPU (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"))
    parser.add_argument("--tiny", action="store_true", help="a tiny model, a few seconds of video, one round")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if args.tiny:
        args.model, args.minutes, args.size, args.rounds = "tiny", 0.1, (48, 64), 1
    return args


def write_recording(folder: Path, seconds: int, size: tuple[int, int]) -> Path:
    """An annotated video of a moving scene, H.264 with a key frame every ten seconds."""
    folder.mkdir()
    height, width = size
    rng = np.random.default_rng(0)
    scene = torch.from_numpy(rng.integers(0, 256, (1, 3, height // 16, width // 8), np.uint8)).float()
    scene = torch.nn.functional.interpolate(scene, size=(height, 2 * width), mode="bicubic").clamp(0, 255)[0]
    pixels = scene.permute(1, 2, 0).to(torch.uint8).numpy()
    path = folder / "operation.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * FPS):
            left = int((1 + np.sin(number / 50)) * width / 2)
            noise = rng.integers(0, 12, (height // 4, width // 4, 1), np.uint8).repeat(4, 0).repeat(4, 1)
            frame = np.clip(pixels[:, left : left + width].astype(np.int16) + noise, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    half = seconds * FPS // 2
    rows = ["Frame\tPhase", *(f"{n}\t{PHASES[n >= half]}" for n in range(seconds * FPS))]
    (folder / "operation-phase.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def build_detector(args: argparse.Namespace) -> ActionDetector:
    """Random weights of a second stage that sees one clip per second."""
    torch.manual_seed(0)
    kind = MODELS[args.model]
    config = M33DConfig(
        **kind, num_frames=FRAMES, tubelet_size=2, temporal_hidden_size=64, temporal_frame_stride=1,
        temporal_clip_stride=FPS, id2label=dict(enumerate(PHASES)), label2id={n: i for i, n in enumerate(PHASES)},
    )  # fmt: skip
    model = M33DForVideoActionDetection(config)
    return ActionDetector(
        model, TransformOptions(), device=args.device, batch_size=args.batch, precision=args.precision
    )


@contextmanager
def thread_seconds() -> Iterator[list[float]]:
    """CPU seconds of the calling thread and of those that begin and end in the block, in the order of their ends."""
    found: list[float] = []
    run = threading.Thread.run

    def timed(thread: threading.Thread) -> None:
        begun = time.thread_time()
        try:
            run(thread)
        finally:
            found.append(time.thread_time() - begun)

    threading.Thread.run = timed  # type: ignore[method-assign]
    begun = time.thread_time()
    try:
        yield found
    finally:
        found.append(time.thread_time() - begun)
        threading.Thread.run = run  # type: ignore[method-assign]


def contenders(args: argparse.Namespace, folder: Path, detector: ActionDetector) -> dict[str, Callable[[], None]]:
    """The four ways through the whole video."""
    video = folder / "operation.mp4"
    source: Any = build_source(
        "phases", root=str(folder), split=None, clip_span=detector.rule.span, clip_stride=detector.rule.clip_stride
    )
    clips, side = len(source.clips(0)), detector.model.config.image_height_width
    batch = torch.randint(0, 256, (args.batch, FRAMES, 3, *side), dtype=torch.uint8)
    runs = iter(range(10**6))

    def decoding() -> None:
        # What is known of the file was found by the source; detection and extraction have it as well.
        for _ in iterate_wanted(video, detector.rule.takes, info=cached_info(video)):
            pass

    def model() -> None:
        for start in range(0, clips, args.batch):
            encode(detector.model, batch[: clips - start], detector.device, args.precision)

    def detect() -> None:
        detector.detect(video)

    def extract() -> None:
        config = detector.model.config
        transform = build_transform(TransformOptions(), False, side, config.patch_height_width)
        store = FeatureStore(folder.parent / f"features{next(runs)}")
        table = phase_table(source.action_names or [], config.label2id)
        extractor = FeatureExtractor(
            detector.model, store, detector.rule, transform, table, detector.model.task_inputs, args.batch,
            detector.device, args.precision,
        )  # fmt: skip
        extractor.run(source, [0])

    return {"decoding": decoding, "model": model, "detect": detect, "extract": extract}


def noting_threads(call: Callable[[], None], found: list[float]) -> Callable[[], None]:
    """The call, which appends the CPU seconds of its busiest thread."""

    def run() -> None:
        with thread_seconds() as seconds:
            call()
        found.append(max(seconds))

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(args.threads)
    seconds = max(round(60 * args.minutes), 2)
    with tempfile.TemporaryDirectory() as name:
        path = write_recording(Path(name) / "videos", seconds, tuple(args.size))
        size = path.stat().st_size
        busiest: dict[str, list[float]] = {}
        calls = contenders(args, path.parent, build_detector(args))
        times = measured(
            {way: noting_threads(call, busiest.setdefault(way, [])) for way, call in calls.items()}, args.rounds
        )
    found: dict[str, Any] = header("predict_videos", torch.device(args.device))
    found |= {"model": args.model, "video_seconds": seconds, "fps": FPS, "frame_size": list(args.size)}
    found |= {"bytes_per_second_of_video": round(size / seconds), "clip_frames": FRAMES, "clips_per_second": 1}
    found |= {"batch": args.batch, "precision": args.precision, "rounds": args.rounds}
    for way, pairs in times.items():
        found[f"{way}_seconds"] = statistics.median(wall for wall, _ in pairs)
    for way in ("detect", "extract"):
        rounds = list(zip(times["decoding"], times["model"], times[way], strict=True))
        overlapped = [max(read[0], work[0]) / own[0] for read, work, own in rounds]
        found[f"{way}_share"] = statistics.median(overlapped)
        found[f"{way}_shares_by_round"] = sorted(overlapped)
        found[f"{way}_share_of_the_sum"] = statistics.median((r[0] + w[0]) / own[0] for r, w, own in rounds)
        found[f"{way}_share_of_cpu_time"] = statistics.median((r[1] + w[1]) / own[1] for r, w, own in rounds)
        pairs = zip(times["decoding"], times["model"], busiest[way][1:], strict=True)
        found[f"{way}_share_of_its_busiest_thread"] = statistics.median(max(r[1], w[1]) / own for r, w, own in pairs)
        found[f"{way}_hours_of_video_per_hour"] = seconds / found[f"{way}_seconds"]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (args.output_dir / f"predict_videos_{args.model}.json").write_text(text, encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if "share" in key or "seconds" in key}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
