"""What the plans of all experiments share: a YAML of rows under a budget, and how a row's runs are told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.experiments.compute import ONE_THREAD, Compute
from m33d_hf.training.recipe.parsing import parse_arguments

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ONE_THREAD", "Compute", "ExperimentPlan", "run_folder", "training_length"]


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment's rows under one budget.

    Attributes:
        content: the experiment's YAML.
        budget_name: key of `budgets`.
        folder: outputs; runs, rows and pictures are below it.
        cache_dir: where rooms are rendered; None = the user's cache.
    """

    content: Mapping[str, Any]
    budget_name: str
    folder: Path
    cache_dir: str | None = None

    @classmethod
    def load(cls, path: Path, budget: str, folder: Path, cache_dir: str | None) -> Self:
        """Read the YAML.

        Raises:
            ConfigError: no such budget.
        """
        plan = cls(yaml.safe_load(path.read_text(encoding="utf-8")), budget, folder, cache_dir)
        plan.budget  # noqa: B018 - raises where the name is wrong, before anything starts
        return plan

    @property
    def budget(self) -> Mapping[str, Any]:
        """Sizes of the data and steps.

        Raises:
            ConfigError: no budget of that name.
        """
        budgets = self.content["budgets"]
        if self.budget_name not in budgets:
            hint = nearest_name_hint(self.budget_name, budgets)
            raise ConfigError(f"there is no budget {self.budget_name!r}; known: {', '.join(budgets)}.{hint}")
        return dict(budgets[self.budget_name])

    @property
    def seeds(self) -> list[int]:
        """Each changes weights, order, masks and the labelled subset."""
        return list(self.content["seeds"])

    @property
    def compute(self) -> Compute:
        """Where the rows run.

        Raises:
            ConfigError: unknown keys or values in the budget's `compute`.
        """
        return Compute.of_budget(self.budget)

    @property
    def methods(self) -> list[str]:
        """In the order of the tables."""
        return list(self.content["methods"])

    @property
    def cache_words(self) -> list[str]:
        """Command-line words that name `cache_dir`."""
        return ["--data.cache_dir", self.cache_dir] if self.cache_dir else []


def run_folder(folder: Path, name: str, *runs: tuple[Sequence[str], str]) -> str:
    """Where the runs of a row go: other settings, by command line or by a changed recipe, go to another folder.

    The folder is one of the row's parameters, so that a changed recipe is run again instead of taken for finished.

    Args:
        folder: outputs of the experiment.
        name: of the row.
        runs: (command line, task) of each.
    """
    settings = [parse_arguments(list(argv), task).to_dict() for argv, task in runs]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return str(folder / "runs" / f"{name}-{digest}")


def training_length(steps: int) -> list[str]:
    """Steps with the recipes' warm-up of 5 %."""
    return ["--train.max_steps", str(steps), "--optim.warmup_steps", str(max(1, round(0.05 * steps)))]
