"""What was measured of a split, scene by scene: sums that are merged, kept as JSON, and do not grow with the frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.data.measuring.depth_tally import DepthTally
from m33d_hf.data.measuring.misalignment import EdgeTally

MOST_SCENES = 5000
OTHERS = "(further scenes)"
EXAMPLES = 5


@dataclass
class SceneTally:
    """One scene or sequence.

    Attributes:
        samples, frames: samples of it, and frames of these that were read.
        depth: statistics of its depth.
        edges: agreement of its edges of RGB and depth.
    """

    samples: int = 0
    frames: int = 0
    depth: DepthTally = field(default_factory=DepthTally)
    edges: EdgeTally = field(default_factory=EdgeTally)

    def merge(self, other: SceneTally) -> None:
        """Add another tally to this one."""
        self.samples += other.samples
        self.frames += other.frames
        self.depth.merge(other.depth)
        self.edges.merge(other.edges)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "depth": self.depth.to_dict(), "edges": self.edges.to_dict()}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> SceneTally:
        """The inverse of `to_dict`."""
        depth, edges = DepthTally.from_dict(found["depth"]), EdgeTally.from_dict(found["edges"])
        return cls(**{**found, "depth": depth, "edges": edges})


@dataclass
class SplitTally:
    """All that was measured of a split. Lists hold only what is wrong, and a bounded number of hashes.

    Attributes:
        samples, frames: samples looked at, and frames read.
        with_rgb, with_depth, with_labels: frames.
        sizes: "HxW" -> frames.
        scenes: by name; beyond `MOST_SCENES` they share one entry.
        label_pixels: class id -> pixels (255 = ignored); action_samples: clip label -> samples.
        lengths: frames of a sample (1 of a still) -> samples.
        unusable: files that cannot be read, and samples whose depth is all holes.
        blank: number of the latter.
        incomplete: videos that are used up to where they end.
        missing_depth, damaged_depth: frames of clips whose depth is not there, or cannot be decoded.
        holes, damaged_holes: entries of these; of missing ones the first in its place.
        stopping: kind of error that would stop a run -> times.
        stopping_examples: kind of error -> the first message.
        hashes: (key, perceptual hash).
    """

    samples: int = 0
    frames: int = 0
    with_rgb: int = 0
    with_depth: int = 0
    with_labels: int = 0
    blank: int = 0
    missing_depth: int = 0
    damaged_depth: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    label_pixels: Counter[int] = field(default_factory=Counter)
    action_samples: Counter[int] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    stopping: Counter[str] = field(default_factory=Counter)
    stopping_examples: dict[str, str] = field(default_factory=dict)
    scenes: dict[str, SceneTally] = field(default_factory=dict)
    unusable: list[SkippedFile] = field(default_factory=list)
    incomplete: list[SkippedFile] = field(default_factory=list)
    holes: list[SkippedFile] = field(default_factory=list)
    damaged_holes: list[SkippedFile] = field(default_factory=list)
    hashes: list[tuple[str, str]] = field(default_factory=list)

    def scene(self, name: str) -> SceneTally:
        """The tally of a scene, made where it is new."""
        if name not in self.scenes and len(self.scenes) >= MOST_SCENES:
            name = OTHERS
        return self.scenes.setdefault(name, SceneTally())

    def merge(self, other: SplitTally) -> None:
        """Add the tally of other samples, which come after those of this one."""
        for name, value in vars(other).items():
            own = getattr(self, name)
            if isinstance(value, int):
                setattr(self, name, own + value)
            elif isinstance(value, Counter):
                own.update(value)
            elif isinstance(value, list):
                own += value
        for kind, message in other.stopping_examples.items():
            self.stopping_examples.setdefault(kind, message)
        for name, scene in other.scenes.items():
            self.scene(name).merge(scene)

    @property
    def common_size(self) -> tuple[int, int]:
        """Height and width of most frames; 1, 1 without any."""
        height, width = self.sizes.most_common(1)[0][0].split("x") if self.sizes else ("1", "1")
        return int(height), int(width)

    @property
    def depth(self) -> DepthTally:
        """Depth of all scenes together."""
        total = DepthTally()
        for scene in self.scenes.values():
            total.merge(scene.depth)
        return total

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = dict(vars(self))
        found["scenes"] = {name: scene.to_dict() for name, scene in self.scenes.items()}
        return found

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> SplitTally:
        """The inverse of `to_dict`, from JSON too, whose keys are text."""
        tally = cls()
        for name in (name for name, value in found.items() if isinstance(value, int)):
            setattr(tally, name, found[name])
        for name in ("sizes", "stopping"):
            setattr(tally, name, Counter(found[name]))
        for name in ("label_pixels", "action_samples", "lengths"):
            setattr(tally, name, Counter({int(key): count for key, count in found[name].items()}))
        tally.stopping_examples = dict(found["stopping_examples"])
        tally.scenes = {name: SceneTally.from_dict(scene) for name, scene in found["scenes"].items()}
        for name in ("unusable", "incomplete", "holes", "damaged_holes"):
            setattr(tally, name, [SkippedFile(*entry) for entry in found.get(name, ())])
        tally.hashes = [(key, digest) for key, digest in found["hashes"]]
        return tally
