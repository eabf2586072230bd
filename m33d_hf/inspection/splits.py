"""The splits of a run as the doctor reads them: the run's own sources and rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from m33d_hf.data.measuring.samples import Looks, spread
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.errors import DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_run_source, run_rows
from m33d_hf.training.tasks.classes import clip_arguments

# Samples whose edges are compared (some 0.1 s each, ten times the reading), per scene, as the sum of a scene is judged
# and three are enough for it, and per split. The last: samples per split whose hashes are kept.
EDGES_PER_SCENE, MOST_EDGES, MOST_HASHES = 16, 2000, 5000
_MOST_CHUNKS, _LEAST_CHUNK = 2000, 16


@dataclass(frozen=True)
class Split(Subject):
    """What is looked at of one split.

    Attributes:
        rows: the samples to look at, ascending.
        frames: of each clip or video, see `Looks`.
        compared: those of `rows` whose edges of RGB and depth are compared.
    """

    rows: list[int]
    frames: int
    compared: frozenset[int]

    @property
    def chunk_size(self) -> int:
        """Samples that are measured in one go, and kept as one partial result."""
        return max(_LEAST_CHUNK, -(-len(self.rows) // _MOST_CHUNKS))

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return -(-len(self.rows) // self.chunk_size)

    def places(self, number: int) -> range:
        """Where in `rows` the samples of a chunk are."""
        return range(number * self.chunk_size, min((number + 1) * self.chunk_size, len(self.rows)))

    def chunk(self, number: int) -> list[tuple[int, Looks]]:
        """The samples of a chunk, and how closely each is looked at."""
        places = self.places(number)
        hashes = -(-len(self.rows) // MOST_HASHES)
        return [
            (row, Looks(self.frames, row in self.compared, place % hashes == 0))
            for place, row in zip(places, self.rows[places.start : places.stop], strict=True)
        ]

    def fingerprint(self) -> str:
        """Equal for equal data, looked at equally: partial results of another are of no use."""
        told = [self.name, self.source.name, self.source.digest(), self.rows, self.frames, str(self.source.depth_spec)]
        told.append(sorted(self.compared))
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
    compared = frozenset(_compared(source.groups(), kept))
    return Split(name, source, len(rows), span, min(config.patch_height_width), kept, frames, compared)


def _compared(groups: list[str] | None, rows: list[int]) -> list[int]:
    """Rows spread over every scene; without scenes, over all of them."""
    scenes: dict[str, list[int]] = {}
    for row in rows:
        scenes.setdefault("" if groups is None else groups[row], []).append(row)
    chosen = [scene[place] for scene in scenes.values() for place in spread(len(scene), EDGES_PER_SCENE)]
    return [chosen[place] for place in spread(len(chosen), MOST_EDGES)]
