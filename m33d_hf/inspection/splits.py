"""The splits of a run as the doctor reads them: the run's own sources and rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from m33d_hf.data.source import Source
from m33d_hf.errors import DataError
from m33d_hf.inspection.measuring import Looks, spread
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.building import build_run_source, run_rows
from m33d_hf.training.tasks.classes import clip_arguments

# Samples per split whose edges are compared (some 0.1 s each), and whose hashes are kept.
MOST_EDGES, MOST_HASHES = 2000, 5000
_MOST_CHUNKS, _LEAST_CHUNK = 2000, 16


@dataclass(frozen=True)
class Split:
    """What is looked at of one split.

    Attributes:
        name: "train" or "evaluation".
        source: as the run reads it.
        rows: the samples to look at, ascending.
        total: samples of the split.
        frames: of each clip or video, see `Looks`.
        clip_frames: source frames that a clip of the model covers; 1 for images.
        least_side: pixels that a frame must have, the model's patch.
    """

    name: str
    source: Source
    rows: list[int]
    total: int
    frames: int
    clip_frames: int
    least_side: int

    @property
    def chunk_size(self) -> int:
        """Samples that are measured in one go, and kept as one partial result."""
        return max(_LEAST_CHUNK, -(-len(self.rows) // _MOST_CHUNKS))

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return -(-len(self.rows) // self.chunk_size)

    def chunk(self, number: int) -> list[tuple[int, Looks]]:
        """The samples of a chunk, and how closely each is looked at."""
        places = range(number * self.chunk_size, min((number + 1) * self.chunk_size, len(self.rows)))
        edges, hashes = (-(-len(self.rows) // most) for most in (MOST_EDGES, MOST_HASHES))
        return [(self.rows[place], Looks(self.frames, place % edges == 0, place % hashes == 0)) for place in places]

    def fingerprint(self) -> str:
        """Equal for equal data, looked at equally: partial results of another are of no use."""
        told = [self.name, self.source.name, self.source.digest(), self.rows, self.frames, str(self.source.depth_spec)]
        return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()


def open_split(args: RunArguments, train: bool, max_samples: int | None, frames: int) -> Split | None:
    """A split of a run; None where the run evaluates nothing.

    Raises:
        DataError: the run's own errors about data that it cannot use.
        ConfigError: options that contradict each other.
    """
    data = args.data
    if not train and data.eval_split is None and data.eval_root is None:
        return None
    config = M33DConfig(**args.model)
    adapted = clip_arguments(args, config) if args.task == "video_classification" else args
    source = build_run_source(adapted, config, train)
    chosen = run_rows(adapted, source, train)
    rows = list(range(len(source))) if chosen is None else chosen
    kept = rows if max_samples is None else [rows[place] for place in spread(len(rows), max_samples)]
    if not kept:
        raise DataError(f"the source {source.name!r} has no samples")
    span = 1 if config.num_frames == 1 else config.num_frames * data.frame_stride
    name = "train" if train else "evaluation"
    return Split(name, source, kept, len(rows), frames, span, min(config.patch_height_width))
