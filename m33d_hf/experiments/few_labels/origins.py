"""What finished rows were made from besides their command lines: the data, and the checkpoints they start from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from m33d_hf.errors import M33DError
from m33d_hf.experiments.few_labels.opening import opened
from m33d_hf.experiments.few_labels.study import CLIPS, PHASES, Study
from m33d_hf.experiments.plan import without
from m33d_hf.training.tasks.pretraining import PretrainingTask

_WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "config.json")
_CHUNK = 1 << 22
_ALLOWED = "--data.allow_missing_classes"


@dataclass(frozen=True)
class Origins:
    """Digests; a row of another one is run again instead of taken for finished.

    Attributes:
        data: of what fine-tunings learn, before labels are drawn, and are judged by; empty where it cannot be read,
            which the first check tells.
        checkpoints: of each place that is a file or folder here; a repository has none.
        pretrainings: by method, of what a pre-training here learns from and starts from. Labels are no part of it:
            nobody pre-trains for hours because a mask was corrected.
    """

    data: str = ""
    checkpoints: dict[str, str] = field(default_factory=dict)
    pretrainings: dict[str, str] = field(default_factory=dict)

    def beside(self, start: str | None) -> tuple[str, ...]:
        """What decides about a fine-tuning that starts from `start`, besides its settings, which name the folder of a
        pre-training here."""
        found = (self.data, self.checkpoints.get(start, "") if start else "")
        return found if any(found) else ()

    def before(self, method: str) -> tuple[str, ...]:
        """What decides about a pre-training with `method`, besides its settings."""
        return (self.pretrainings[method],) if self.pretrainings.get(method) else ()


def origins_of(study: Study, folder: Path) -> Origins:
    """Read them.

    Args:
        study: what is run.
        folder: outputs; nothing is written.
    """
    places = {place for start in study.starts for place in start.checkpoints}
    methods = sorted({start.method for start in study.starts if start.method})
    return Origins(
        _data(study, folder),
        {place: digest for place in sorted(places) if (digest := _weights(place))},
        {method: _pretraining(study, method, folder) for method in methods},
    )


def _data(study: Study, folder: Path) -> str:
    name = CLIPS if study.task == PHASES else study.task
    try:
        words = [*without(study.words, _ALLOWED), _ALLOWED, "true"]
        _, task, _, train_set, eval_set = opened(name, words, str(folder / "runs" / "data"))
        return f"{task.data_digest(train_set)} {'' if eval_set is None else eval_set.source.digest()}"
    except M33DError:
        return ""


def _pretraining(study: Study, method: str, folder: Path) -> str:
    try:
        words = [*study.pretraining_words, "--method", method]
        args, task, _, train_set, _ = opened(PretrainingTask.name, words, str(folder / "runs" / "data"))
        return f"{task.data_digest(train_set)} {'' if args.init_from is None else _weights(args.init_from)}"
    except M33DError:
        return ""


def _weights(place: str) -> str:
    path = Path(place).expanduser()
    files = [path] if path.is_file() else sorted({file for suffix in _WEIGHTS for file in path.glob(suffix)})
    state = hashlib.blake2b(digest_size=16)
    for file in files:
        state.update(f"\n{file.name}\n".encode("utf-8", "surrogatepass"))
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                state.update(chunk)
    return state.hexdigest() if files else ""
