"""`evaluation.inputs`: one model judged with several input sets on the same samples, one row of results for each."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.task_inputs import Inputs, inputs_in_words, judged_inputs


@dataclass(frozen=True)
class Rounds:
    """What is judged of one model.

    Attributes:
        reader: the task that reads every map that some round needs.
        main: number of the round whose metrics are those of the evaluation: that of all inputs, else the first.
        sets: inputs of each round; empty unless `evaluation.inputs` is given.
        metrics: names of those in the table.
    """

    reader: Task
    main: int = 0
    sets: Sequence[Inputs] = ()
    metrics: Sequence[str] = ()

    def datasets(self, args: RunArguments, model: nn.Module) -> list[SampleDataset]:
        """The evaluation data of each round, the same samples in all.

        Raises:
            ConfigError: there is none.
        """
        if self.sets:
            found = self.reader.build_round_datasets(args, model, self.sets)
        else:
            only = self.reader.build_eval_dataset(args, model)
            found = None if only is None else [only]
        if found is None:
            raise ConfigError("There is no evaluation data: pass --data.eval_split (or --data.eval_root).")
        return found

    def judges(self) -> list[Task]:
        """The task of each round, once the reader has read what it learns from the data.

        Only the main one writes predictions: they would overwrite each other.
        """
        if not self.sets:
            return [self.reader]
        tasks = [self.reader if n == self.main else self.reader.without_files() for n in range(len(self.sets))]
        return [_given(task, names) for task, names in zip(tasks, self.sets, strict=True)]

    def results(self, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """For eval_results.json: inputs and metrics of each round."""
        if not self.sets:
            return {}
        found = [
            {"inputs": list(names), "metrics": {k: v if math.isfinite(v) else None for k, v in row.items()}}
            for names, row in zip(self.sets, rows, strict=True)
        ]
        return {"by_inputs": found}

    def named(self, rows: Sequence[Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
        """Words for the inputs of each round -> its metrics; empty unless `evaluation.inputs` is given."""
        return {inputs_in_words(names): row for names, row in zip(self.sets, rows)}

    def lines(self, rows: Sequence[Mapping[str, float]]) -> list[str]:
        """A table of the rounds, for the end of a run."""
        if not self.sets:
            return []
        words = list(self.named(rows))
        names = [name for name in self.metrics if all(name in row for row in rows)] or ["loss"]
        lines = {"inputs": names} | {
            word: [f"{row[name]:.4f}".ljust(len(name)) for name in names] for word, row in zip(words, rows, strict=True)
        }
        wide = max(map(len, lines))
        said = ["  ".join([word.ljust(wide), *cells]).rstrip() for word, cells in lines.items()]
        return [*said, f"The lines above are of {words[self.main]}."]


def evaluation_rounds(args: RunArguments, task: Task, model: nn.Module) -> Rounds:
    """The rounds of an evaluation: one, unless `evaluation.inputs` asks for more.

    Raises:
        ConfigError: input sets that the model does not have.
    """
    sets = judged_inputs(args, task, model)
    if not sets:
        return Rounds(task)
    everything = config_of(model).task_input_names
    reader = _given(task, tuple(n for n in everything if any(n in names for names in sets)))
    return Rounds(reader, sets.index(everything) if everything in sets else 0, sets, _in_the_table(task))


def _in_the_table(task: Task) -> Sequence[str]:
    return task.compared or ([] if task.metric is None else [task.metric])


def _given(task: Task, inputs: Inputs) -> Task:
    twin = copy.copy(task)
    twin.inputs = inputs
    return twin


def settle_inputs(args: RunArguments, trained: Mapping[str, Any]) -> None:
    """Read `model.task_inputs` of an evaluation as `evaluation.inputs`: the model stays the one that was trained.

    Args:
        args: changed in place.
        trained: configuration fields of the trained model.

    Raises:
        CheckpointError: inputs that the trained model does not have.
    """
    asked, own = args.model.get("task_inputs"), trained.get("task_inputs") or ["rgb"]
    if asked is None or not isinstance(asked, list) or sorted(map(str, asked)) == sorted(own):
        return
    lacking = [name for name in asked if name not in own]
    if lacking:
        raise CheckpointError(
            f"model.task_inputs is {asked}, but {args.init_from} was trained with {own} and has no {lacking[0]} "
            f"encoder; leave model.task_inputs out, or fine-tune with --model.task_inputs '[rgb, depth]'."
        )
    args.model = {**args.model, "task_inputs": own}
    if args.evaluation.inputs is None:
        args.evaluation.inputs = [list(asked)]
