"""The models that the page offers: found in folders, loaded when they are first used, a few kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.inference.loading import task_of_model
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.building import build_prediction_task
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.modeling.configuration_m33d import M33DConfig

_Task = TypeVar("_Task", bound=PredictionTask)
KEPT = 3  # models in memory
_DEEPEST = 4  # folders below the one that is searched
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen.

    Attributes:
        name: folder or Hub id, as it is shown.
        task: see `loading.AUTO_CLASSES`.
    """

    name: str
    task: str


@dataclass(frozen=True)
class Takes:
    """What a pre-trained model sees.

    Attributes:
        clips: videos, rather than pictures.
        depth: of pictures, or of every frame of a video, besides RGB.
        ratio: share of patches that its training hid.
        both: RGB and depth have masks of their own, which may be made the same.
    """

    clips: bool
    depth: bool
    ratio: float
    both: bool = False


def find_models(folders: Sequence[Path]) -> list[str]:
    """Folders with a model (config.json and weights) below the given ones, which need not exist; sorted.

    Of a run only its best model is offered, not the states in its `checkpoints/`.
    """
    found: list[str] = []
    for folder in folders:
        found += [str(path) for path in sorted(_below(folder, _DEEPEST))]
    return list(dict.fromkeys(found))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        yield folder
    if depth:
        for inside in folder.iterdir():
            if inside.is_dir() and not inside.name.startswith(".") and inside.name != _CHECKPOINTS:
                yield from _below(inside, depth - 1)


@dataclass
class Models:
    """What is offered, and what is loaded of it.

    One computation at a time: two at once are no faster, and need twice the memory.

    Attributes:
        offers: in the order in which they are shown.
        device, precision, trust_remote_code: see `PredictionOptions`.
    """

    offers: list[Offer]
    device: str = "auto"
    precision: str = "no"
    trust_remote_code: bool = False
    _loaded: OrderedDict[str, PredictionTask] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, names: Sequence[str], found: Sequence[str] = (), **options: object) -> Models:
        """Models that were named, each of which must be usable, and others that were found, where they are.

        Raises:
            CheckpointError: one that was named has no readable configuration, or one of another task.
        """
        trusted = bool(options.get("trust_remote_code", False))
        offers = [Offer(name, task_of_model(name, trusted)) for name in names]
        for name in found:
            try:
                offers.append(Offer(name, task_of_model(name, trusted)))
            except CheckpointError as error:
                print(f"{name} is left out: {error}", flush=True)
        return cls(offers, **options)  # type: ignore[arg-type]

    def names(self, *tasks: str) -> list[str]:
        """Names of the models of some tasks."""
        return [offer.name for offer in self.offers if offer.task in tasks]

    def task_of(self, name: str) -> str:
        """The task of a model that is offered.

        Raises:
            ConfigError: it is not: visitors cannot make the server load what they like.
        """
        for offer in self.offers:
            if offer.name == name:
                return offer.task
        raise ConfigError(f"{name!r} is not among the models of this page.")

    @contextmanager
    def using(self, name: str, kind: type[_Task]) -> Iterator[_Task]:
        """The model, loaded; nobody else computes meanwhile.

        Raises:
            ConfigError: it is not offered, or of another kind. CheckpointError: it cannot be loaded.
        """
        self.task_of(name)
        with self._lock:
            task = self._get(name)
            if not isinstance(task, kind):
                raise ConfigError(f"{name!r} is a model for {task.task}; choose another one in this tab.")
            yield task

    def _get(self, name: str) -> PredictionTask:
        if name not in self._loaded:
            while len(self._loaded) >= KEPT:
                self._loaded.popitem(last=False)
            self._loaded[name] = build_prediction_task(self._options(name))
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _options(self, name: str) -> PredictionOptions:
        common = {"device": self.device, "precision": self.precision, "trust_remote_code": self.trust_remote_code}
        # Depth, where there is any, comes with each picture; models that need it must not be refused at once.
        seen = self.takes(name) if self.task_of(name) == "reconstruction" else None
        depth = Path() if seen is not None and seen.depth and not seen.clips else None
        return PredictionOptions(name, (), Path(), depth=depth, **common)  # type: ignore[arg-type]

    def takes(self, name: str) -> Takes:
        """What a pre-trained model sees, by its configuration alone.

        Raises:
            ConfigError: it is not offered. CheckpointError: its configuration is gone.
        """
        self.task_of(name)
        try:
            config = M33DConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the configuration of {name!r} cannot be read any more.") from error
        clips = config.num_frames > 1
        both = any(spec.name == "depth" for spec in config.input_specs) and config.token_budget is None
        return Takes(clips, any(spec.name == "depth" for spec in config.specs), trained_ratio(config), both)


def trained_ratio(config: M33DConfig) -> float:
    """The hidden share that a model was trained with: the largest; with a token budget, over all modalities."""
    if config.token_budget is not None:
        return 1 - config.budget_for(config.grid) / (len(config.input_specs) * config.num_tokens)
    return float(max(spec.mask_ratio for spec in config.input_specs))
