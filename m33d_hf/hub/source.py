"""What is published: a run's output folder, one of its checkpoints, or any saved model, with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.files.markers import file_digest
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CheckpointError, HubError
from m33d_hf.hub.kinds import KINDS, Kind
from m33d_hf.inference.loading import task_of_model
from m33d_hf.training.processes.checkpoint_files import STATE, read_state
from m33d_hf.training.run.evaluation_run import RESULTS
from m33d_hf.training.run.reporting import CONFIG, METRICS, read_rows
from m33d_hf.weights.own import find_own


@dataclass(frozen=True)
class Evaluation:
    """One eval_results.json of these very weights.

    Attributes:
        path: of the file; never published.
        results: its content.
    """

    path: Path
    results: Mapping[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Finite metrics, without the loss."""
        return _finite(self.results["metrics"])

    @property
    def rounds(self) -> list[tuple[tuple[str, ...], dict[str, float]]]:
        """(inputs, metrics as above) of each set of `evaluation.inputs`, in its order; empty without."""
        return [(tuple(row["inputs"]), _finite(row["metrics"])) for row in self.results.get("by_inputs") or ()]


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) and name != "loss"}


@dataclass(frozen=True)
class Source:
    """A model with its history.

    Attributes:
        weights: folder that is loaded.
        run: folder of the run that made it; the same where there is none.
        task: key of `KINDS`.
        trained: content of train_config.json; None without one.
        rows: of metrics.jsonl.
        evaluations: of these weights.
        chosen: metrics of the evaluation during training that made this the best checkpoint; not for model-index.
        notes: what was found and not used.
    """

    weights: Path
    run: Path
    task: str
    digests: dict[str, str]
    trained: Mapping[str, Any] | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Evaluation] = ()
    chosen: Mapping[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        """Names of its kind on the Hub."""
        return KINDS[self.task]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of the run; empty without a train_config.json."""
        return {} if self.trained is None else self.trained["args"]


def open_source(folder: str | Path, evaluations: Sequence[str | Path] = ()) -> Source:
    """Find what belongs to a folder.

    Args:
        folder: output folder of a run, checkpoints/best or checkpoints/step_.. in one, or a saved model.
        evaluations: eval_results.json files, or their folders; none looks in the run's folder and the folders in it.

    Raises:
        HubError: no folder, or an evaluation of other weights.
        CheckpointError: no complete model of ours in it.
        CorruptFileError: a file of the run that is damaged.
    """
    weights = Path(folder).expanduser()
    if not weights.is_dir():
        raise HubError(f"{weights} is no folder; pass the output folder of a run, or a checkpoint in it.")
    own = find_own(str(weights))
    if own is None:
        raise CheckpointError(
            f"{weights} holds no model of this package. Of foreign weights, write one with "
            "scripts/convert_checkpoint.py first."
        )
    above = weights.resolve().parent.parent
    inside = weights.resolve().parent.name == "checkpoints" and (above / CONFIG).is_file()
    run = above if inside and not (weights / CONFIG).is_file() else weights
    trained = read_sealed_json(run / CONFIG) if (run / CONFIG).is_file() else None
    if trained is not None and not isinstance(trained.get("args"), dict):
        raise HubError(f"{run / CONFIG} holds no arguments of a run; restore the file that the run wrote.")
    digests = {path.name: file_digest(path) for path in own.files}
    found, notes = _evaluations(weights, run, digests, evaluations)
    task = task_of_model(str(weights))
    state = read_state(weights) if inside and (weights / STATE).is_file() else {}
    chosen = {name.removeprefix("eval/"): value for name, value in (state.get("metrics") or {}).items()}
    return Source(weights, run, task, digests, trained, read_rows(run / METRICS), found, chosen, notes)


def _evaluations(
    weights: Path, run: Path, digests: Mapping[str, str], given: Sequence[str | Path]
) -> tuple[list[Evaluation], list[str]]:
    files = [path / RESULTS if path.is_dir() else path for path in (Path(each).expanduser() for each in given)]
    if not files:
        files = sorted({*run.glob(RESULTS), *run.glob(f"*/{RESULTS}"), *weights.glob(RESULTS)})
    found, notes = [], []
    for path in files:
        results = read_sealed_json(path)
        if not isinstance(results.get("metrics"), dict):
            raise HubError(f"{path} holds no metrics; pass what --eval_only has written.")
        if _of_these_weights(results, weights, digests):
            found.append(Evaluation(path, results))
        elif given:
            raise HubError(f"{path} was measured with other weights than those of {weights}; evaluate these again.")
        else:
            notes.append(f"{path} was measured with other weights and is left out")
    return found, notes


def _of_these_weights(results: Mapping[str, Any], weights: Path, digests: Mapping[str, str]) -> bool:
    """By the digests that an evaluation keeps; those of earlier versions tell the path only."""
    if results.get("weights") is not None:
        return dict(results["weights"]) == dict(digests)
    stated = results.get("init_from")
    return isinstance(stated, str) and Path(stated).expanduser().resolve() == weights.resolve()
