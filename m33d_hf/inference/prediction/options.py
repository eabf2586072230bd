"""Options of a prediction; the fields are the command-line flags of scripts/predict.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from m33d_hf.data.sources.frames.orientation import ORIENTATIONS
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.inference.prediction.views import ViewOptions

# Options that only some tasks read.
PARTICULAR = (
    "flip", "tiles", "tile_overlap", "intrinsics", "calibration", "field_of_view", "kind", "top_k", "clips", "fps",
)  # fmt: skip
PRECISIONS = ("no", "bf16", "fp16")
DEPTH_ALIGNMENTS = ("refuse", "depth_to_rgb")


@dataclass(frozen=True)
class PredictionOptions:
    """What is predicted, and how.

    Attributes:
        model: output folder of a run, checkpoint folder of one, or Hub id.
        input: files, globs and folders.
        output: folder of the predictions.
        save: kinds of output; empty for those that suit the task and the input.
        flip, tiles, tile_overlap: see `ViewOptions`.
        intrinsics: fx, fy, cx, cy of the pictures, in pixels, for point clouds.
        calibration: file with the intrinsics of the colour camera instead; with `depth`, the one by which maps of
            pictures are registered (a name, looked for beside the maps, or a path), or `none`: maps as they are stored.
        field_of_view: degrees across the longer side of pictures, assumed without either.
        kind: of depth: metric, inverse, relative, or auto = as the model's configuration says.
        depth: folder of measured depth, files named as the pictures, for reconstructions and for segmentation by a
            model that sees it.
        depth_unit: of these files, where the model's processor does not know it.
        depth_orientation: "refuse", "as_rgb" or "upright": how maps lie whose picture EXIF says to turn.
        depth_align: "refuse" or "depth_to_rgb": whether a map of another size is resized to its picture.
        top_k: classes that are listed of a clip.
        clips: clips of a video, evenly spread, whose probabilities are averaged.
        fps: constant rate of long videos, if that of the file is missing or wrong.
        batch_size: pictures (tiles, clips) that go through the model together.
        workers: threads that read, and threads that write; None for one per core, 8 at most.
        device: of torch, or `auto`.
        precision: "no" (float32), "bf16" or "fp16".
        limit: only the first so many inputs.
        report_seconds: time between two lines of progress.
        trust_remote_code: run the code that the model's repository brings along.
    """

    model: str
    input: Sequence[str]
    output: Path
    save: Sequence[str] = ()
    flip: bool = False
    tiles: bool = False
    tile_overlap: float = 0.25
    intrinsics: Sequence[float] | None = None
    calibration: Path | None = None
    field_of_view: float = 60.0
    kind: str = "auto"
    depth: Path | None = None
    depth_unit: str | None = None
    depth_align: str = "refuse"
    depth_orientation: str = "refuse"
    top_k: int = 5
    clips: int = 1
    fps: float | None = None
    batch_size: int = 8
    workers: int | None = None
    device: str = "auto"
    precision: str = "no"
    limit: int | None = None
    report_seconds: float = 10.0
    trust_remote_code: bool = False

    def check(self) -> None:
        """Raise a ConfigError for an invalid value."""
        for name in ("batch_size", "workers", "limit", "top_k", "clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value} must be at least 1.")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision!r} must be one of {', '.join(PRECISIONS)}.")
        if self.depth_align not in DEPTH_ALIGNMENTS:
            raise ConfigError(f"--depth_align {self.depth_align!r} must be one of {', '.join(DEPTH_ALIGNMENTS)}.")
        if self.depth_orientation not in ORIENTATIONS:
            raise ConfigError(
                f"--depth_orientation {self.depth_orientation!r} must be one of {', '.join(ORIENTATIONS)}."
            )
        if not 1 <= self.field_of_view <= 170:
            raise ConfigError(f"--field_of_view {self.field_of_view:g} must be between 1 and 170 degrees.")
        if self.fps is not None and not 0 < self.fps <= 1e6:
            raise ConfigError(f"--fps {self.fps:g} must be above 0 and at most 1e+06, in frames per second.")
        if self.intrinsics is not None and self.calibration is not None:
            raise ConfigError("--intrinsics and --calibration exclude each other: pass only one of them.")
        _ = self.views

    def refuse_unread(self, what: str, read: Collection[str]) -> None:
        """Refuse options that are stated, and not read.

        Args:
            what: is predicted, for the message.
            read: those of `PARTICULAR` that are read.

        Raises:
            ConfigError: such an option has another value than its default.
        """
        usual = {each.name: each.default for each in fields(self)}
        for name in PARTICULAR:
            if name not in read and getattr(self, name) != usual[name]:
                raise ConfigError(f"--{name} has no effect on the {what} that {self.model} predicts; leave it out.")

    @property
    def views(self) -> ViewOptions:
        """How pictures are looked at."""
        return ViewOptions(self.flip, self.tiles, self.tile_overlap)

    @property
    def threads(self) -> int:
        """`workers`, settled."""
        if self.workers is not None:
            return self.workers
        from m33d_hf.training.costs.machine import usable_cores  # with torch

        return min(8, usable_cores())

    def kinds(self, known: Mapping[str, str], usual: Sequence[str]) -> tuple[str, ...]:
        """Kinds of output that are asked for, or else the usual ones, in the order of `known`.

        Raises:
            ConfigError: one that the task does not have.
        """
        asked = list(known) if list(self.save) == ["all"] else self.save or usual
        for word in asked:
            if word not in known:
                listed = "; ".join(f"{name}: {what}" for name, what in known.items())
                hint = nearest_name_hint(word, list(known))
                raise ConfigError(f"--save {word!r} is not made by this model. Known are all, {listed}.{hint}")
        return tuple(name for name in known if name in asked)
