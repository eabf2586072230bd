"""The extraction of clip features: every clip of every video through the first stage's encoder, once.

The videos are divided among the ranks. A video's file is written when its last clip is encoded, so a killed extraction
continues with the videos that have no file. Batches never mix videos: the features of a video do not depend on which
rank extracts it.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from m33d_hf.data.clock import clock
from m33d_hf.data.files.skips import SkipLedger, SkippedFile
from m33d_hf.data.loader.loading import Transform
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.loader.workers import stop_workers
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource
from m33d_hf.errors import DataError
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.processes.guards import SIGNALS, exit_code
from m33d_hf.training.tasks.detection.clip_dataset import ClipDataset, ClipRow
from m33d_hf.training.tasks.detection.features import ClipRule, FeatureStore, VideoFeatures

# A rank that has finished waits for the others this long; the default of half an hour is less than one long video.
PATIENCE = timedelta(days=7)
SECONDS_BETWEEN_LINES = 5.0
STAGE_ONE = ("m33d.", "fc_norm.", "classifier.")
_COMPUTING_FIELDS = (
    "hidden_act",
    "layer_norm_eps",
    "num_attention_heads",
    "patch_size",
    "tubelet_size",
    "qkv_bias",
    "position_embedding_type",
    "position_embedding_resize",
    "position_grid",
    "modalities",
)


def weights_digest(model: M33DForVideoActionDetection) -> str:
    """Digest of everything that decides a clip's features and logits: first-stage weights and configuration."""
    config = model.config.to_dict()
    state = hashlib.sha256(json.dumps({name: config.get(name) for name in _COMPUTING_FIELDS}).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(STAGE_ONE):
            plain = tensor.detach().cpu().contiguous()
            state.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


@dataclass
class FeatureExtractor:
    """Fills a store with the features of a source's videos.

    Attributes:
        model: with the first stage's weights; put on `device`.
        store: where the features go.
        rule: how videos are cut.
        transform: evaluation transform.
        table: (256,) uint8, from the source's phase ids to the model's classes.
        batch_size: clips per forward pass.
        device, precision: where and how it is computed; "no", "bf16" or "fp16".
        rank, world_size: the share of this process: every world_size-th video.
        num_workers, prefetch_factor: of the loader.
        max_bad_fraction: share of unreadable clips past which it stops.
        say: function that prints lines; None prints nothing.
    """

    model: M33DForVideoActionDetection
    store: FeatureStore
    rule: ClipRule
    transform: Transform
    table: np.ndarray
    batch_size: int = 8
    device: torch.device | str = "cpu"
    precision: str = "no"
    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    prefetch_factor: int = 2
    max_bad_fraction: float = 0.01
    say: Callable[[str], None] | None = None

    def run(self, source: PhaseSource, videos: Sequence[int]) -> int:
        """Extract the missing videos of this rank's share and wait for the others. Returns the number of videos
        extracted.

        Raises:
            DataError: too many unreadable clips, features that are not finite, or another process that failed.
            SystemExit: SIGTERM or SIGINT; finished videos are kept.
        """
        group = _waiting_group()
        share = videos[self.rank :: self.world_size]
        todo = [number for number in share if not self.store.is_whole(source.videos[number].key)]
        if todo:
            with _stoppable():
                self._extract(source, todo)
        _wait(group)
        return len(todo)

    def _extract(self, source: PhaseSource, todo: Sequence[int]) -> None:
        spans = {number: source.clips(number) for number in todo}
        rows = [[ClipRow(number, clip, span) for clip, span in enumerate(spans[number])] for number in todo]
        ledger = SkipLedger(None, self.max_bad_fraction, sum(len(part) for part in rows))
        batches = [part[i : i + self.batch_size] for part in rows for i in range(0, len(part), self.batch_size)]
        progress = _Progress(self.say, len(todo), len(batches))
        loader = self._loader(source, batches)
        current: _Growing | None = None
        seen = 0
        try:
            with self._ahead(loader) as read:
                for samples in read:
                    number = samples[0].meta["row"].video
                    if current is None:
                        current = _Growing(source, number, spans[number], self.model.config, self.table)
                    current.add(samples, self._encode(samples))
                    skipped = [sample.meta["skipped"] for sample in samples if "skipped" in sample.meta]
                    ledger.record({"indices": range(seen, seen + len(samples)), "skipped": skipped})
                    ledger.check()
                    seen += len(samples)
                    progress.batch(current.key)
                    if current.complete:
                        self.store.write(current.finish(self.precision))
                        current = None
                        progress.done += 1
        finally:
            stop_workers(loader)
        progress.finish(ledger.bad)

    def _ahead(self, loader: DataLoader[Any]) -> AbstractContextManager[Iterable[Any]]:
        """Without workers a thread reads the next batch while the model has this one."""
        return nullcontext(loader) if loader.num_workers else read_ahead(loader, 1)

    def _loader(self, source: PhaseSource, batches: list[list[ClipRow]]) -> DataLoader[Any]:
        from m33d_hf.data.loader.loading import build_loader

        return build_loader(
            ClipDataset(source, self.rule, self.transform),  # type: ignore[arg-type]  # samples, not views
            _as_they_are,  # type: ignore[arg-type]  # batches are lists of samples
            batches,  # type: ignore[arg-type]  # rows of whole batches, as a sampler yields them
            num_workers=min(self.num_workers, len(batches)),
            prefetch_factor=self.prefetch_factor,
        )

    def _encode(self, samples: Sequence[RGBDSample]) -> tuple[Tensor, Tensor]:
        """(features (R, D), logits (R, L)) of the R samples that could be read, float32 on the CPU."""
        frames = [sample.rgb for sample in samples if sample.rgb is not None]
        if not frames:
            return torch.zeros(0), torch.zeros(0)
        return encode(self.model, torch.stack(frames), self.device, self.precision)


def encode(
    model: M33DForVideoActionDetection, frames: Tensor, device: torch.device | str, precision: str = "no"
) -> tuple[Tensor, Tensor]:
    """Features and clip-wise logits of clips.

    Args:
        model: in eval mode, on `device`.
        frames: (B, T, 3, H, W) uint8 RGB at the model's size.
        device: where to compute.
        precision: precision of the encoder: "no" (that of the weights, normally float32), "bf16" or "fp16"; the
            classifier always computes in that of the weights.

    Returns:
        (B, D) and (B, L) float32 on the CPU.
    """
    spec = model.config.spec("rgb")
    place = torch.device(device)
    pixels = normalize_rgb(frames.to(place), spec.channel_mean, spec.channel_std)
    pixels = pixels[:, 0] if model.config.num_frames == 1 else pixels
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.inference_mode():
        with torch.autocast(place.type, dtype=kind, enabled=kind is not None):
            features = model.encode_clips(pixels.to(model.dtype))
        logits = model.classifier(features.to(model.dtype))
        return features.float().cpu(), logits.float().cpu()


class _Growing:
    """A video whose clips are being collected."""

    def __init__(self, source: PhaseSource, number: int, spans: list[ClipSpan], config: Any, table: np.ndarray) -> None:
        video = source.videos[number]
        labels = table[np.array([span.label for span in spans])].astype(np.int64)
        count = len(spans)
        self.key = video.key
        self.seen = 0
        self.video = VideoFeatures(
            video.key,
            video.handle.length,
            video.handle.fps,
            torch.zeros(count, config.hidden_size),
            torch.zeros(count, int(config.num_labels or 0)),
            torch.tensor([span.start for span in spans], dtype=torch.int64),
            torch.tensor([span.stop for span in spans], dtype=torch.int64),
            torch.from_numpy(labels),
            torch.zeros(count, dtype=torch.bool),
        )

    def add(self, samples: Sequence[RGBDSample], encoded: tuple[Tensor, Tensor]) -> None:
        """Add the clips of a batch."""
        read = [sample.meta["row"].clip for sample in samples if sample.rgb is not None]
        if read:
            place = torch.tensor(read)
            self.video.features[place], self.video.clip_logits[place] = encoded
            self.video.valid[place] = True
        self.video.problems += [sample.meta["skipped"] for sample in samples if "skipped" in sample.meta]
        self.seen += len(samples)

    @property
    def complete(self) -> bool:
        """Whether every clip has been added."""
        return self.seen == len(self.video.valid)

    def finish(self, precision: str) -> VideoFeatures:
        """The video, checked.

        Raises:
            DataError: NaN or infinity.
        """
        if not bool(self.video.features.isfinite().all() and self.video.clip_logits.isfinite().all()):
            raise DataError(
                f"{self.key}: its features are not finite with train.precision={precision}; use bf16 or no, and check "
                "the weights of init_from"
            )
        return self.video


def _as_they_are(samples: list[RGBDSample]) -> list[RGBDSample]:
    return samples


class _Progress:
    """Progress lines."""

    def __init__(self, say: Callable[[str], None] | None, videos: int, batches: int) -> None:
        self.say, self.videos, self.batches = say, videos, batches
        self.begun = self.last = time.perf_counter()
        self.number = self.done = 0

    def batch(self, key: str) -> None:
        """Count one more batch, of the video `key`."""
        self.number += 1
        now = time.perf_counter()
        if self.say is None or now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        left = (now - self.begun) / self.number * (self.batches - self.number)
        self.say(f"features: video {self.done + 1} of {self.videos} ({key}), about {clock(left)} left")

    def finish(self, bad: int) -> None:
        """Print the last line."""
        if self.say is not None:
            unread = f", {bad} clip(s) unreadable" if bad else ""
            self.say(f"features of {self.done} video(s) extracted in {clock(time.perf_counter() - self.begun)}{unread}")


def tell(line: str) -> None:
    """Print a line where a run prints its progress."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT end the process at once, with the loop's exit code: only unfinished videos are lost."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(exit_code(number))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _waiting_group() -> dist.ProcessGroup | None:
    """A group whose members may be hours apart; None for a single process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return None
    return dist.new_group(backend="gloo", timeout=PATIENCE)  # type: ignore[return-value]


def _wait(group: dist.ProcessGroup | None) -> None:
    if group is None:
        return
    try:
        dist.all_reduce(torch.zeros(1), group=group)
    except RuntimeError as error:
        raise DataError(
            "Another process of this run failed while it extracted features; see its error message."
        ) from error
    dist.destroy_process_group(group)


def bad_clips(store: FeatureStore, keys: Sequence[str]) -> tuple[int, int, list[SkippedFile]]:
    """(unreadable clips, all clips, why) of the given videos."""
    problems: list[SkippedFile] = []
    total = 0
    for key in keys:
        summary = store.summary(key)
        total += len(summary.valid)
        problems += summary.problems
    return len(problems), total, problems
