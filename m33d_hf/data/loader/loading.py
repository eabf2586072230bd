"""From a source to batches: which frames, and what happens to unreadable files."""

from __future__ import annotations

import atexit
import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from m33d_hf.data.augmentation.batch_rows import BatchRows
from m33d_hf.data.augmentation.transforms import EvaluationTransform, TrainTransform
from m33d_hf.data.augmentation.views import check_sampling, frame_indices, segment_indices, take_frames
from m33d_hf.data.files.skips import SkippedFile, incomplete_file, unreadable
from m33d_hf.data.loader.kept_samples import KeptSamples
from m33d_hf.data.loader.sampling import EvaluationSampler, Row, StepSampler, check_sizes
from m33d_hf.data.loader.workers import WorkerLoader, end_children, start_worker, worker_context
from m33d_hf.data.plural import plural
from m33d_hf.data.randomness import Draw, seed_of
from m33d_hf.data.sample import RGBDSample, VideoHandle, read_sample, why_no_depth
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, DepthUnitError, LabelError

Transform = Callable[[RGBDSample], RGBDSample]
Views = list[RGBDSample]
Result = TypeVar("Result")

# One unreadable file leads to another only in a broken data set; this many in a row stop the run.
MAX_ATTEMPTS = 10


class SampleDataset(Dataset[RGBDSample | Views]):
    """Reads and transforms the samples of a source, each with its own random draw; indexed by (epoch, index).

    A file that cannot be read is never fatal by itself. In training another sample takes its place, drawn from (seed,
    epoch, key, attempt); in evaluation the sample is dropped (a stand-in would be counted twice): it comes back without
    maps and with ``meta["dropped"] = True``, which the collators leave out of the batch. Either way ``meta["skipped"]``
    lists the files, and ``meta["incomplete"]`` lists a video that ends early and is used up to that point. Errors that
    concern the whole data set (a wrong depth unit, labels out of range, anything a transform raises) are not swallowed.

    Several views of one video come back as a list, which the collators flatten; the video is read once for all of
    them. In training they are `num_views` augmentations of the same frames (repeated augmentation),
    the first one equal to what a run with one view sees. In evaluation they are `num_segments` clips times
    `num_crops` crops, with ``meta["segment"]`` and ``meta["crop"]`` and the video's key; 1 x 1 is the centre clip and
    crop. Files skipped on the way are listed in the first view.

    Args:
        source: anything with ``__len__`` and ``__getitem__(i) -> VideoHandle`` (m33d_hf.data.sources).
        transform: sample in, sample out; reads its randomness from ``sample.meta["draw"]``; None for no transform.
        num_frames: frames of a sample; 1 for images.
        frame_stride: distance between two of them, in source frames.
        train: random clip starts and replacement; otherwise the centre clip and dropping.
        seed: seed of the run.
        indices: use only these rows of the source, in this order (label subsets).
        max_attempts: unreadable files in a row before giving up.
        clip_sampling: "stride" or "span", see `m33d_hf.data.augmentation.views.frame_indices`.
        num_views: augmented views of a training sample.
        num_segments: clips of an evaluation video; None, with `num_crops` None, gives samples instead of lists.
        num_crops: crops of each clip along the longer side; more than one requires an EvaluationTransform.
        maps: names of the maps that the model needs ("rgb", "depth", "segmentation", other modalities); the others are
            neither decoded, where the source can tell them apart, nor transformed. None keeps all.
        required: those of them without which a clip is of no use, so that it is replaced or dropped as one that cannot
            be read: "depth" of a model that sees nothing else or has to predict it. A picture without depth, and data
            that has none at all, is refused by the collator.
        keep_bytes: pixels of decoded samples that each process which reads keeps in memory; what it returns is the
            same.

    Raises:
        ConfigError: a number below 1, an unknown clip sampling, or views that do not go with `train`.
        DataError: the source is empty.
    """

    _kept: KeptSamples | None = None

    def __init__(
        self,
        source: Any,
        transform: Transform | None = None,
        *,
        num_frames: int = 1,
        frame_stride: int = 1,
        train: bool = False,
        seed: int = 0,
        indices: Sequence[int] | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        clip_sampling: str = "stride",
        num_views: int = 1,
        num_segments: int | None = None,
        num_crops: int | None = None,
        maps: Collection[str] | None = None,
        required: Collection[str] = (),
        keep_bytes: int = 0,
    ) -> None:
        check_sizes(
            num_frames=num_frames,
            frame_stride=frame_stride,
            num_views=num_views,
            num_segments=num_segments or 1,
            num_crops=num_crops or 1,
        )
        check_sampling(clip_sampling)
        self.multi_view = num_segments is not None or num_crops is not None
        if train and self.multi_view:
            raise ConfigError("num_segments and num_crops apply to evaluation only; for training, use num_views")
        if not train and num_views > 1:
            raise ConfigError(
                f"num_views is {num_views}, but num_views applies to training only; for evaluation, use "
                "num_segments and num_crops"
            )
        if (num_crops or 1) > 1 and not isinstance(transform, EvaluationTransform):
            raise ConfigError(
                f"num_crops is {num_crops}; more than one crop requires an EvaluationTransform (build_transform)"
            )
        self.source = source
        self.transform = transform
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.train = train
        self.seed = seed
        # All of a billion rows as a range takes no memory.
        self.indices: Sequence[int] = range(len(source)) if indices is None else [int(index) for index in indices]
        self.max_attempts = max_attempts
        self.clip_sampling = clip_sampling
        self.maps = None if maps is None else frozenset(maps)
        # Of a source that has depth; one without is the collator's to refuse, once and with advice.
        self._needs_depth = "depth" in required and getattr(source, "depth_spec", None) is not None
        self._kept = KeptSamples(keep_bytes) if keep_bytes else None
        self._align = not getattr(transform, "aligns", False)
        self.deferred = False
        self.num_views = num_views
        self.num_segments = num_segments or 1
        self.num_crops = num_crops or 1
        if not self.indices:
            raise DataError(f"source {getattr(source, 'name', source)!r} holds no samples to read")
        outside = [index for index in indices or () if not 0 <= index < len(source)]
        if outside:
            raise DataError(f"indices {outside[:5]} are outside the source's {plural(len(source), 'sample')}")

    def __len__(self) -> int:
        return len(self.indices)

    def bytes_once_read(self) -> int:
        """Bytes of decoded samples that one process keeps once it has read all, by those that it has read so far."""
        return 0 if self._kept is None else self._kept.once_full(len(self))

    def with_transform(self, transform: Transform) -> SampleDataset:
        """The same samples by another transform."""
        twin = copy.copy(self)
        twin.transform = transform
        twin._align = not getattr(transform, "aligns", False)
        return twin

    def reading_once(self) -> SampleDataset:
        """The same samples, of which none is kept: who reads each once takes no room from who reads them again."""
        twin = copy.copy(self)
        twin._kept = None
        return twin

    def deferring(self) -> SampleDataset:
        """The data set for a collator that defers (`collation.deferring`): less work here, more on the device.

        Pictures that are cropped and resized are written into the batch's memory, and neither changed nor mirrored yet.
        """
        twin = copy.copy(self)
        twin.deferred = isinstance(self.transform, TrainTransform) and self.transform.in_parts
        return twin

    def __getitem__(self, row: Row) -> RGBDSample | Views:
        """Return the sample `index` as it looks in `epoch`, or its views.

        Raises:
            DataError: `max_attempts` files in a row could not be read.
        """
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[Row]) -> list[RGBDSample | Views]:
        """The samples of `rows`, each equal to what it is alone; DataLoader calls this for a batch. Small images share
        their colour steps, where these are not left to the device.

        Raises:
            DataError: as for a single row.
        """
        if len(rows) > 1 and (prefetch := getattr(self.source, "prefetch", None)) is not None:
            prefetch([self.indices[index] for _, index in rows])
        transform = self.transform
        if self.multi_view or not (isinstance(transform, TrainTransform) and transform.in_parts):
            return [self._read(row, self._views) for row in rows]
        begin, finish = transform.begin, transform.finish
        if self.deferred:
            places = BatchRows(len(rows) * self.num_views)
            begin, finish = partial(begin, rows=places), partial(finish, whole=False)
        begun = [self._read(row, lambda clips: [begin(view) for view in self._repeated(clips)]) for row in rows]
        finished = iter(finish([view for item in begun if isinstance(item, list) for view in item]))
        found: list[RGBDSample | Views] = []
        for item in begun:
            views = [next(finished) for _ in item] if isinstance(item, list) else [item]
            found.append(views if self.num_views > 1 and isinstance(item, list) else views[0])
        return found

    def _read(self, row: Row, use: Callable[[Views], Result]) -> Result | RGBDSample:
        """What `use` makes of the clips of a row, or a dropped sample."""
        epoch, index = row
        skipped: list[SkippedFile] = []
        candidate = index
        for attempt in range(self.max_attempts):
            clips = self._try_read(epoch, candidate, skipped)
            if clips is not None:
                for number, sample in enumerate(clips):
                    files = skipped if number == 0 else []
                    sample.meta.update(draw=Draw(self.seed, epoch), skipped=files, index=index)
                return use(clips)
            if not self.train:
                return RGBDSample(skipped[-1].key, meta={"dropped": True, "skipped": skipped, "index": index})
            candidate = self._replacement(epoch, skipped[0].key, attempt, candidate)
        raise DataError(
            f"{plural(len(skipped), 'file')} in a row could not be read, the last one {skipped[-1].path}: "
            f"{skipped[-1].reason.rstrip('.')}. Check the data set's root and format."
        )

    def _try_read(self, epoch: int, index: int, skipped: list[SkippedFile]) -> Views | None:
        """Read the clips of one sample (one in training), or note why it cannot be read and return None."""
        row = self.indices[index]
        key = f"sample {row}"
        try:
            handle: VideoHandle = self.source[row]
            key = handle.key
            length = handle.length  # asked once: a file is looked at for it
            if length < 1:
                raise DataError(f"{key}: the video has no frames")
            found = incomplete_file(handle)
            lacking = {} if found is None else {"incomplete": [found]}
            if not self.multi_view:
                frames = self._choose_frames(epoch, handle.key, length)
                sample = self._decoded(handle, row, frames)
                self._check_depth(sample, length)
                sample.meta.update(lacking)
                return [sample]
            segments = segment_indices(
                length, self.num_frames, self.frame_stride, self.num_segments, self.clip_sampling
            )
            # Segments of a short video overlap: each frame is decoded once.
            frames = sorted({frame for segment in segments for frame in segment})
            place = {frame: number for number, frame in enumerate(frames)}
            whole = self._decoded(handle, row, frames)
            self._check_depth(whole, length)
            whole.meta.update(lacking)
            whole.key = key  # views of a video share its name; sources add the frames that were read
            return [take_frames(whole, [place[frame] for frame in segment]) for segment in segments]
        except (DepthUnitError, LabelError):
            raise  # these say that the data set was described wrongly; skipping would hide it file by file
        except (DataError, OSError) as error:
            skipped.append(unreadable(error, key))
            return None

    def _decoded(self, handle: VideoHandle, row: int, frames: Sequence[int]) -> RGBDSample:
        """The frames of a row as they are stored, from memory where they are kept."""
        if self._kept is None:
            return read_sample(handle, frames, self.maps, self._align)
        asked = (row, tuple(frames), self.maps, self._align)
        sample = self._kept.get(asked)
        if sample is None:
            sample = read_sample(handle, frames, self.maps, self._align)
            self._kept.put(asked, sample)
        return sample

    def _check_depth(self, sample: RGBDSample, length: int) -> None:
        """Refuse a clip, of a recording of so many frames, that has none of the depth that is needed."""
        if self._needs_depth and length > 1 and sample.depth is None:
            path, reason = why_no_depth(sample)
            raise CorruptFileError(path, f"no frame of the clip {sample.key} has depth: {reason}")

    def _choose_frames(self, epoch: int, key: str, length: int) -> list[int]:
        generator = None
        if self.train and length > self.num_frames * self.frame_stride:
            generator = Draw(self.seed, epoch).generator(key, "frames")
        return frame_indices(length, self.num_frames, self.frame_stride, generator, self.clip_sampling)

    def _views(self, clips: Views) -> RGBDSample | Views:
        """Transform the clips of one video into what the loader hands on."""
        if self.multi_view:
            return [view for number, clip in enumerate(clips) for view in self._crops(clip, number)]
        views = [self._transformed(view) for view in self._repeated(clips)]
        return views[0] if self.num_views == 1 else views

    def _repeated(self, clips: Views) -> Iterator[RGBDSample]:
        """The untransformed views of one training sample."""
        (sample,) = clips
        if self.num_views == 1:
            yield sample
            return
        for number in range(self.num_views):
            meta = dict(sample.meta, draw=sample.meta["draw"]._replace(view=number))
            if number > 0:
                meta["skipped"] = []
            yield dataclasses.replace(sample, meta=meta)

    def _crops(self, clip: RGBDSample, segment: int) -> Views:
        if self.num_crops == 1:
            crops = [self._transformed(clip)]
        else:
            crops = cast(EvaluationTransform, self.transform).crops(clip, self.num_crops)
        for number, view in enumerate(crops):
            files = view.meta["skipped"] if number == 0 else []
            view.meta = dict(view.meta, segment=segment, crop=number, skipped=files)
        return crops

    def _transformed(self, sample: RGBDSample) -> RGBDSample:
        return sample if self.transform is None else self.transform(sample)

    def _replacement(self, epoch: int, key: str, attempt: int, failed: int) -> int:
        """Draw a stand-in for the sample `key`, never the one that has just failed."""
        if len(self) == 1:
            return failed
        drawn = seed_of(self.seed, epoch, key, "replacement", attempt) % (len(self) - 1)
        return drawn + (drawn >= failed)


def build_loader(
    dataset: SampleDataset,
    collator: Callable[[list[Any]], dict[str, Any]],
    sampler: StepSampler | EvaluationSampler,
    *,
    num_workers: int = 0,
    pin_memory: bool | None = None,
    prefetch_factor: int = 2,
    multiprocessing_context: str | None = None,
) -> DataLoader[dict[str, Any]]:
    """Build the loader of one rank. Results do not depend on `num_workers`.

    Args:
        dataset: data set that is indexed by the sampler's rows.
        collator: list of samples to a batch (m33d_hf.data.loader.collation); a `deferring` one where the batches go
            through `to_device`.
        sampler: yields the rows of whole batches.
        num_workers: reading processes; 0 reads in the caller.
        pin_memory: None pins if CUDA is available.
        prefetch_factor: batches that each worker prepares in advance.
        multiprocessing_context: "fork", "forkserver" or "spawn"; None takes fork where the system has it. Workers never
            touch an accelerator, so forking after CUDA has started is safe. A forked worker that does not start is
            replaced (m33d_hf.data.loader.worker_forking).

    Raises:
        ConfigError: an unknown multiprocessing_context.
        WorkerStartError: (when iterated) no worker starts.
    """
    if getattr(collator, "deferred", False):
        dataset = dataset.deferring()
    options: dict[str, Any] = {}
    if num_workers > 0:
        # Registered again and again it still runs once, and before multiprocessing's own exit.
        atexit.unregister(end_children)
        atexit.register(end_children)
        options.update(
            persistent_workers=True,
            prefetch_factor=prefetch_factor,
            multiprocessing_context=worker_context(multiprocessing_context),
            worker_init_fn=start_worker,
        )
    return WorkerLoader(
        dataset,  # type: ignore[arg-type]  # the collator turns its samples into batches
        batch_sampler=sampler,  # type: ignore[arg-type]  # rows are (epoch, index), not int
        collate_fn=collator,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        # The loader draws a base seed per iterator; without its own generator that would advance the global
        # one.
        generator=torch.Generator(),
        **options,
    )
