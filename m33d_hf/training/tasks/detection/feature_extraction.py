"""The extraction of clip features: every clip of every video through the first stage's encoder, once.

The videos are divided among the ranks. A video's file is written when its last clip is encoded, so a killed extraction
continues with the videos that have no file. Batches never mix videos: the features of a video do not depend on which
rank extracts it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from m33d_hf.data.clock import clock
from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.skips import SkipLedger, SkippedFile, hole_entry
from m33d_hf.data.loader.loading import Transform
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.loader.task_inputs import stacked_depth
from m33d_hf.data.loader.workers import stop_workers
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.progress import SECONDS_BETWEEN_LINES, Progress, Say
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource
from m33d_hf.errors import DataError
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.processes.guards import exit_code, handled
from m33d_hf.training.tasks.detection.cameras import camera_clips
from m33d_hf.training.tasks.detection.clip_dataset import ClipDataset, ClipRow
from m33d_hf.training.tasks.detection.features import ClipRule, FeatureStore, VideoFeatures
from m33d_hf.training.tasks.detection.freshness import is_fresh, stamp_of

# A rank that has finished waits for the others this long; the default of half an hour is less than one long video.
PATIENCE = timedelta(days=7)
STAGE_ONE = ("m33d.", "task_fusion.", "fc_norm.", "classifier.")
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
    "use_cls_token",
    "num_register_tokens",
    "global_token",
    "encoder_sharing",
    "encoder_modalities",
    "encoder_norm",
    "encoder_final_norm",
    "joint_encoding",
    "head_norm",
)
_DEPTH_FIELDS = ("task_inputs", "task_fusion", "depth_standardization", "depth_standardization_scope")


def weights_digest(model: M33DForVideoActionDetection) -> str:
    """Digest of everything that decides a clip's features and logits: first-stage weights and configuration."""
    config = model.config.to_dict()
    # The digest of a model of RGB alone is what it was before there were others.
    names = (*_COMPUTING_FIELDS, *(_DEPTH_FIELDS if "depth" in model.task_inputs else ()))
    state = hashlib.sha256(json.dumps({name: config.get(name) for name in names}).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(STAGE_ONE):
            plain = tensor.detach().cpu().contiguous()
            state.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def dealt_batches(videos: Sequence[Sequence[ClipRow]], size: int, workers: int) -> list[list[ClipRow]]:
    """Batches of at most `size` clips, video after video, in which each worker goes forward through its own stretch.

    The loader deals batches out to its workers in turn. In the order of time each of them would decode what lies
    between its batches, the frames of all others, as well.

    Args:
        videos: the clips of each, in the order of time.
        size: clips of a batch.
        workers: of the loader; 0 and 1 give the order of time.
    """
    dealt: list[list[ClipRow]] = []
    for rows in videos:
        batches = [list(rows[start : start + size]) for start in range(0, len(rows), size)]
        share, longer = divmod(len(batches), max(workers, 1))
        starts = [worker * share + min(worker, longer) for worker in range(max(workers, 1) + 1)]
        for turn in range(share + (longer > 0)):
            dealt += [batches[a + turn] for a, b in pairwise(starts) if a + turn < b]
    return dealt


@dataclass
class FeatureExtractor:
    """Fills a store with the features of a source's videos.

    Attributes:
        model: with the first stage's weights; put on `device`.
        store: where the features go.
        rule: how videos are cut.
        transform: evaluation transform.
        table: (256,) uint8, from the source's phase ids to the model's classes.
        inputs: what the model is given of each clip, some or all of its `task_inputs`.
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
    inputs: tuple[str, ...]
    batch_size: int = 8
    device: torch.device | str = "cpu"
    precision: str = "no"
    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    prefetch_factor: int = 2
    max_bad_fraction: float = 0.01
    say: Say | None = None

    def run(self, source: PhaseSource, videos: Sequence[int]) -> int:
        """Extract the missing videos of this rank's share and wait for the others. Returns the number of videos
        extracted.

        Raises:
            DataError: too many unreadable clips, features that are not finite, or another process that failed.
            SystemExit: SIGTERM or SIGINT; finished videos are kept.
        """
        group = _waiting_group()
        share = videos[self.rank :: self.world_size]
        todo = [number for number in share if not is_fresh(self.store, source, number, write=True)]
        self._tell_changed([key for number in todo if self.store.is_whole(key := source.videos[number].key)])
        if todo:
            with handled(_leave):
                self._extract(source, todo)
        _wait(group)
        return len(todo)

    def _tell_changed(self, keys: Sequence[str]) -> None:
        if keys and self.say is not None:
            what = f"{plural(len(keys), 'video')} {agree(len(keys), 'has', 'have')} other files than when"
            self.say(f"{what} features were extracted, and {agree(len(keys), 'is', 'are')} read again: {keys[0]}")

    def _extract(self, source: PhaseSource, todo: Sequence[int]) -> None:
        spans = {number: camera_clips(source, number) for number in todo}
        rows = [[ClipRow(number, clip, span) for clip, span in enumerate(spans[number])] for number in todo]
        total = sum(len(part) for part in rows)
        batches = dealt_batches(rows, self.batch_size, self.num_workers)
        ledger = SkipLedger(None, self.max_bad_fraction, total)
        progress = Progress(total, SECONDS_BETWEEN_LINES, self.say or _say_nothing, "clips", "features")
        dataset = ClipDataset(source, self.rule, self.transform, self.inputs)
        loader = self._loader(dataset, batches)
        current: _Growing | None = None
        seen = done = 0
        holes = HoleCount()
        try:
            with self._ahead(loader) as read:
                for samples, inputs in read:
                    number = samples[0].meta["row"].video
                    if current is None:
                        current = _Growing(source, number, spans[number], self.model.config, self.table)
                    current.add(samples, self._encode(inputs))
                    skipped = [sample.meta["skipped"] for sample in samples if not _is_read(sample)]
                    ledger.record({"indices": range(seen, seen + len(samples)), "skipped": skipped})
                    ledger.check()
                    seen += len(samples)
                    progress.done = seen
                    progress.report(f"video {done + 1} of {len(todo)} ({current.key})")
                    if current.complete:
                        self.store.write(current.finish(self.precision))
                        holes.merge(current.video.holes)
                        current = None
                        done += 1
        finally:
            stop_workers(loader)
            dataset.close()
        if self.say is not None:
            unread = f", {plural(ledger.bad, 'clip')} unreadable" if ledger.bad else ""
            lacking = f"; {words}" if (words := holes.words()) else ""
            self.say(f"features of {plural(done, 'video')} extracted in {clock(progress.elapsed)}{unread}{lacking}")

    def _ahead(self, loader: DataLoader[Any]) -> AbstractContextManager[Iterable[tuple[list[RGBDSample], Inputs]]]:
        """Batches, and what the model takes of each.

        Without workers a thread reads and stacks the next one while the model has this one.
        """
        batches = ((samples, stacked_inputs(samples, self.inputs)) for samples in loader)
        return nullcontext(batches) if loader.num_workers else read_ahead(batches, 1)

    def _loader(self, dataset: ClipDataset, batches: list[list[ClipRow]]) -> DataLoader[Any]:
        from m33d_hf.data.loader.loading import build_loader

        return build_loader(
            dataset,  # type: ignore[arg-type]  # samples, not views
            _as_they_are,  # type: ignore[arg-type]  # batches are lists of samples
            batches,  # type: ignore[arg-type]  # rows of whole batches, as a sampler yields them
            num_workers=min(self.num_workers, len(batches)),
            prefetch_factor=self.prefetch_factor,
        )

    def _encode(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(features (R, D), logits (R, L)) of the R samples that could be read, float32 on the CPU."""
        if inputs is NOTHING:
            return torch.zeros(0), torch.zeros(0)
        return encode(self.model, inputs.frames, self.device, self.precision, inputs.depth)


class Inputs(NamedTuple):
    """What the model takes of a batch: of every clip that could be read, as in `encode`."""

    frames: Tensor | None
    depth: Tensor | None


NOTHING = Inputs(None, None)


def stacked_inputs(samples: Sequence[RGBDSample], names: Collection[str]) -> Inputs:
    """RGB and depth, those of them that are in `names`, of the samples that could be read; NOTHING where none could."""
    good = [sample for sample in samples if _is_read(sample)]
    if not good:
        return NOTHING
    seen = [sample.rgb for sample in good if sample.rgb is not None]
    frames = torch.stack(seen) if "rgb" in names else None
    return Inputs(frames, stacked_depth(good) if "depth" in names else None)


def _is_read(sample: RGBDSample) -> bool:
    return "skipped" not in sample.meta


def encode(
    model: M33DForVideoActionDetection,
    frames: Tensor | None,
    device: torch.device | str,
    precision: str = "no",
    depth: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Features and clip-wise logits of clips.

    Args:
        model: in eval mode, on `device`.
        frames: (B, T, 3, H, W) uint8 RGB at the model's size; None for a model of depth alone.
        device: where to compute.
        precision: precision of the encoder: "no" (that of the weights, normally float32), "bf16" or "fp16"; the
            classifier always computes in that of the weights.
        depth: (B, T, 1, H, W) of the same clips, NaN in holes, for a model whose `task_inputs` have it; None: none.

    Returns:
        (B, D) and (B, L) float32 on the CPU.
    """
    config, place = model.config, torch.device(device)
    clips: list[Tensor | None] = [None]
    if frames is not None:
        spec = config.spec("rgb")
        clips = [normalize_rgb(frames.to(place), spec.channel_mean, spec.channel_std).to(model.dtype)]
    if depth is not None:
        mode, scope = config.depth_standardization, config.depth_standardization_scope
        values, mask = standardize_depth(depth.to(place), mode, scope)
        clips += [values.to(model.dtype), mask]
    if config.num_frames == 1:
        clips = [None if each is None else each[:, 0] for each in clips]
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.inference_mode():
        with torch.autocast(place.type, dtype=kind, enabled=kind is not None):
            features = model.encode_clips(*clips)
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
        self.problems: dict[int, SkippedFile] = {}
        self.holes: dict[int, HoleCount] = {}
        files = stamp_of(source.files(number))  # before they are read: what changes meanwhile is read again
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
            files=files,
        )

    def add(self, samples: Sequence[RGBDSample], encoded: tuple[Tensor, Tensor]) -> None:
        """Add the clips of a batch."""
        read = [sample.meta["row"].clip for sample in samples if _is_read(sample)]
        if read:
            place = torch.tensor(read)
            self.video.features[place], self.video.clip_logits[place] = encoded
            self.video.valid[place] = True
        self.problems |= {s.meta["row"].clip: s.meta["skipped"] for s in samples if not _is_read(s)}
        for sample in samples:
            self.holes[sample.meta["row"].clip] = found = HoleCount()
            found.add_sample(sample)
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
        # Batches need not come in order, see `dealt_batches`.
        self.video.problems = [self.problems[clip] for clip in sorted(self.problems)]
        for clip in sorted(self.holes):
            self.video.holes.merge(self.holes[clip])
        return self.video


def _as_they_are(samples: list[RGBDSample]) -> list[RGBDSample]:
    return samples


def _say_nothing(line: str) -> None:
    """For a run without progress."""


def _leave(number: int, _frame: object) -> None:
    """End the process at once, with the loop's exit code: only unfinished videos are lost."""
    raise SystemExit(exit_code(number))


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
    """(unreadable clips, all clips, why) of the given videos; of frames without depth the first of each video too,
    which is no reason that a clip cannot be read."""
    problems: list[SkippedFile] = []
    total = bad = 0
    for key in keys:
        summary = store.summary(key)
        total += len(summary.valid)
        bad += len(summary.problems)
        problems += summary.problems
        if summary.holes.first is not None:
            problems.append(hole_entry(*summary.holes.first, key))
    return bad, total, problems
