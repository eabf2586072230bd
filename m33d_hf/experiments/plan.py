"""What an experiment's YAML says: its pre-trainings, what is measured from each, and the tables that this fills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.evaluation.loss_floors import loss_floors
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.report.conditions import check_conditions
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.parsing import parse_arguments

FOLDER = Path(__file__).parent
PLANS = (
    *("core", "parts", "masks", "initialisation", "labels", "labels_long", "clips", "temporal", "rgbd", "gpu"),
    *("own_method", "own_clips", "mae_masks", "search_hidden", "search_normals"),
    *("confirm_normed", "confirm_rivals", "confirm_rooms", "clips_normed", "rgbd_sets", "rgbd_clips"),
    *("search", "confirm", "confirm_single", "clips_search", "clips_confirm", "clips_labels", "demo", "demo-video"),
    *("reproduction", "longer", "exploration"),
)


@dataclass(frozen=True)
class Plan:
    """Pre-trainings x measurements x seeds under one budget.

    A pre-training is an entry of `pretraining`; "scratch" entries have no recipe.

    Attributes:
        content: the experiment's YAML.
        budget_name: key of `budgets`.
        folder: outputs; runs, rows and pictures are below it.
        cache_dir: where rooms are rendered; None = the user's cache.
        called: by which it is loaded, one of `PLANS`; empty = its own name, which is that of its form of results.json.
    """

    content: Mapping[str, Any]
    budget_name: str
    folder: Path
    cache_dir: str | None = None
    called: str = ""

    @property
    def name(self) -> str:
        """As results.json has it."""
        return str(self.content["name"])

    @property
    def command(self) -> str:
        """What a user types to get this; the full budget of some plans is a target of make."""
        if self.budget_name == "full" and "command" in self.content:
            return str(self.content["command"])
        called = self.called or self.name
        plan = "" if called == PLANS[0] else f" --plan {called}"
        return f"python scripts/reproduce.py --budget {self.budget_name}{plan}"

    def settings(self) -> dict[str, Any]:
        """Sizes of data and runs, and of the models, for the report."""
        found: dict[str, Any] = {}
        for part in ("images", "clips"):
            names = [name for name, entry in self.entries.items() if entry["part"] == part and "recipe" in entry]
            if names:
                args = parse_arguments([*self.recipe_words(names[0], 0), "--train.max_steps", "1"], "pretraining")
                keys = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_frames")
                sizes = {key: args.model[key] for key in keys if key in args.model}
                steps = self.budget["pretraining_steps"][part]
                found[part] = {**sizes, "batch_size": args.train.batch_size, "pretraining_steps": steps}
        return {**found, **self.sizes(), "cache_dir": self.cache_dir}

    @property
    def rooms_seed(self) -> int:
        """Of the rooms that all is trained and judged on; plans without a `rooms_seed` share theirs."""
        return int(self.content.get("rooms_seed", 0))

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
    def compute(self) -> Compute:
        """Where the rows run.

        Raises:
            ConfigError: unknown keys or values in the budget's `compute`.
        """
        return Compute.of_budget(self.budget)

    @property
    def costs(self) -> dict[str, float]:
        """Seconds in one process, for estimates; a budget for another device has its own."""
        return {**self.content["costs"], **self.budget.get("costs", {})}

    @property
    def seeds(self) -> list[int]:
        """Of the tables; each changes weights, order, masks and the labelled subset."""
        return list(self.budget.get("seeds", self.content["seeds"]))

    @property
    def split(self) -> str:
        """Where the tables are measured."""
        return str(self.content.get("split", "test"))

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The pre-trainings of this budget by name, in order."""
        chosen = self.budget.get("only", self.content.get("only"))
        everything = self.content["pretraining"]
        if chosen is None:
            return dict(everything)
        needed = [name for wanted in chosen if wanted in everything for name in self._chain_names(wanted)]
        return {name: entry for name, entry in everything.items() if name in needed}

    @property
    def trained(self) -> list[str]:
        """The entries that were pre-trained and from which something is measured."""
        return [name for name in self.entries if self.chain(name) and self.measurements(name)]

    @property
    def grid_entries(self) -> list[dict[str, Any]]:
        """What is compared on the validation split with a seed of its own."""
        grid = self.content.get("grid")
        return [] if not grid or "grid" in self.budget.get("without", ()) else list(grid["entries"])

    def measurements(self, name: str) -> list[str]:
        """What is measured from a pre-training."""
        wanted = self.entries[name].get("columns")
        found = [] if wanted is None else list(self.content["column_sets"][wanted])
        return [item for item in found if item not in self.budget.get("without", ())]

    def columns(self) -> dict[str, dict[str, Any]]:
        """The columns that this budget fills."""
        measured = {item for name in self.entries for item in self.measurements(name)}
        return {name: column for name, column in self.content["columns"].items() if column["of"] in measured}

    def how(self, column: str) -> Mapping[str, Any]:
        """The measurement that fills a column."""
        found: Mapping[str, Any] = self.content["measurements"][self.content["columns"][column]["of"]]
        return found

    def sizes(self) -> dict[str, dict[str, int]]:
        """Frames, clips and videos by split, those that are used."""
        parts = {entry["part"] for entry in self.entries.values()}
        used = [*(["frames"] if "images" in parts else []), *(["clips"] if "clips" in parts else [])]
        used += ["videos"] if "clips" in parts else []  # for phases alone
        used = [name for name in used if name in self.budget]
        return {name: dict(self.budget[name]) for name in used}

    def _chain_names(self, name: str) -> list[str]:
        entry = self.content["pretraining"][name]
        before = self._chain_names(entry["after"]) if "after" in entry else []
        return [*before, name]

    def chain(self, name: str) -> list[str]:
        """The pre-trainings that weights of `name` went through, the first one first; empty for scratch."""
        return [link for link in self._chain_names(name) if "recipe" in self.content["pretraining"][link]]

    def pretraining_id(self, name: str, seed: int) -> str:
        """Id of the job of a pre-training."""
        pattern = self.content["pretraining"][name].get("job", "pretrain-{name}-s{seed}")
        return str(pattern.format(name=name, seed=seed))

    def steps(self, name: str) -> int:
        """Optimizer steps of a pre-training."""
        entry = self.content["pretraining"][name]
        if "steps" in entry:
            return int(self.budget[entry["steps"]])
        if "equal_flops_to" in entry:
            *before, last = self.chain(name)
            left = self._flops(self.chain(entry["equal_flops_to"])) - self._flops(before)
            return max(1, round(left / self.step_flops(last)))
        return max(1, round(entry.get("share", 1.0) * self.budget["pretraining_steps"][entry["part"]]))

    def _flops(self, names: Sequence[str]) -> float:
        """Operations of pre-trainings one after the other."""
        return sum(self.steps(name) * self.step_flops(name) for name in names)

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """What must have been learnt before anything is concluded, of the entries of this budget.

        Raises:
            ConfigError: one that cannot be judged.
        """
        declared = list(self.content.get("conditions", []))
        check_conditions(declared, list(self.content["pretraining"]))
        return [dict(condition) for condition in declared if condition["variant"] in self.entries]

    def draws(self, item: str) -> list[int]:
        """Numbers of the fine-tunings of one encoder; a budget may limit them."""
        wanted = int(self.content["measurements"][item].get("draws", 1))
        return list(range(min(wanted, int(self.budget.get("draws", wanted)))))

    def loss_floors(self, name: str) -> dict[str, float]:
        """What a prediction that looks at nothing reaches in the losses of a pre-training, where it is known."""
        args = parse_arguments([*self.recipe_words(name, 0), "--train.max_steps", "1"], "pretraining")
        return loss_floors(M33DConfig(**args.model))

    def recipe_words(self, name: str, seed: int) -> list[str]:
        """Command-line words of a pre-training without its length, data and start."""
        entry = self.content["pretraining"][name]
        common, masks = (self.content.get(key, {}).get(entry["part"], {}) for key in ("common", "masks"))
        shared = {**common, **(masks if entry.get("masked", True) else {})}
        words = ["--recipe", entry["recipe"], "--method", entry["method"], "--seed", str(seed)]
        return [*words, *overrides({**shared, **self.model(entry["part"]), **entry.get("set", {})})]

    def model(self, part: str) -> Mapping[str, Any]:
        """What a budget changes of model and batch."""
        found: Mapping[str, Any] = self.budget.get("model", {}).get(part, {})
        return found

    def step_flops(self, name: str) -> float:
        """Operations of a step of a pre-training."""
        return flops_per_step([*self.recipe_words(name, 0), "--train.max_steps", "1"], "pretraining")


def row_id(item: str, name: str, seed: int, draw: int = 0) -> str:
    """Id of the job of a measurement; the first fine-tuning of an encoder has its pre-training's seed."""
    return f"{item}-{name}-s{seed}" + (f"-f{draw}" if draw else "")


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as command-line words."""
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def without(argv: Sequence[str], key: str) -> list[str]:
    """The words of a command line without a key, such as ``--init_from``, and its value."""
    words = list(argv)
    if key in words:
        place = words.index(key)
        del words[place : place + 2]
    return words


def flops_per_step(argv: Sequence[str], task: str) -> float:
    """Operations of a step of a command line."""
    args = parse_arguments(without(argv, "--init_from"), task)
    batch = args.train.batch_size * args.train.accumulation
    return batch * flops_per_sample(M33DConfig(**args.model), task, batch_size=batch)


def load_plan(name: str, budget: str, folder: Path, cache_dir: str | None = None) -> Plan:
    """Read a plan.

    Raises:
        ConfigError: no such plan or budget.
    """
    plan = Plan(load_content(name), budget, folder, cache_dir, name)
    plan.budget, plan.conditions  # noqa: B018 - raise where a name is wrong, before anything starts
    return plan


def load_content(name: str) -> dict[str, Any]:
    """The YAML of a plan; one that `extends` another takes over its sections, and what stands under `add` is put into
    them.

    Raises:
        ConfigError: no such plan.
    """
    if name not in PLANS:
        raise ConfigError(f"there is no plan {name!r}; known: {', '.join(PLANS)}.{nearest_name_hint(name, PLANS)}")
    content: dict[str, Any] = {}
    for layer in _layers(name):
        added = layer.pop("add", {})
        content |= layer
        content |= {section: {**content.get(section, {}), **entries} for section, entries in added.items()}
    return content


def _layers(name: str) -> Iterator[dict[str, Any]]:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    base = content.pop("extends", None)
    if base is not None:
        yield from _layers(base)
    yield content
