"""reproduction.yaml to jobs: every pre-training, what is measured from it, and the command lines they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.experiments.base_plan import ExperimentPlan, run_folder, training_length
from m33d_hf.experiments.jobs import Job
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.parsing import parse_arguments

FOLDER = Path(__file__).parent
PLANS = ("reproduction", "exploration", "longer")
ROWS = "m33d_hf.experiments.reproduction.rows"
CLIP_TASK = "video_classification"


class ReproductionPlan(ExperimentPlan):
    """Pre-trainings x measurements x seeds under one budget.

    A pre-training is an entry of `pretraining`; "scratch" entries have no recipe. Ids of jobs are
    ``pretrain-<entry>-s<seed>`` and ``<measurement>-<entry>-s<seed>``, with "grid-<number>-" before those of the grid.
    """

    @property
    def name(self) -> str:
        """Of the plan."""
        return str(self.content["name"])

    @property
    def command(self) -> str:
        """What a user types to get this."""
        plan = "" if self.name == PLANS[0] else f" --plan {self.name}"
        return f"python scripts/reproduce.py --budget {self.budget_name}{plan}"

    def settings(self) -> dict[str, Any]:
        """Sizes of data and runs, and of the models, for the report."""
        found: dict[str, Any] = {}
        for part in ("images", "clips"):
            names = [name for name, entry in self.entries.items() if entry["part"] == part and "recipe" in entry]
            if names:
                args = parse_arguments([*self._settings(names[0], 0), "--train.max_steps", "1"], "pretraining")
                keys = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_frames")
                sizes = {key: args.model[key] for key in keys if key in args.model}
                steps = self.budget["pretraining_steps"][part]
                found[part] = {**sizes, "batch_size": args.train.batch_size, "pretraining_steps": steps}
        return {**found, **self._sizes()}

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
        chosen = self.budget.get("only")
        everything = self.content["pretraining"]
        if chosen is None:
            return dict(everything)
        needed = [name for wanted in chosen for name in self._chain_names(wanted)]
        return {name: entry for name, entry in everything.items() if name in needed}

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

    def jobs(self) -> list[Job]:
        """Rendering first, then seed by seed, so that a run cut short leaves whole seeds."""
        jobs = {"render": self._render(), "floors": self._floors()}
        for number, entry in enumerate(self.grid_entries):
            for start in entry["from"]:
                self._add_chain(jobs, start, int(self.content["grid"]["seed"]))
                job = self._grid_job(number, entry, start)
                jobs[job.id] = job
        for seed in self.seeds:
            for name in self.entries:
                self._add_chain(jobs, name, seed)
                for item in self.measurements(name):
                    job = self._measurement(f"{item}-{name}-s{seed}", item, name, seed, self.split)
                    jobs[job.id] = job
        return list(jobs.values())

    # -- data ----------------------------------------------------------------------------------------------------

    def _render(self) -> Job:
        seeds = {int(entry.get("set", {}).get("data.options.seed", 0)) for entry in self.entries.values()}
        parameters = {**self._sizes(), **self._rendering(), "seeds": sorted(seeds | {0})}
        return Job("render", f"{ROWS}:render", parameters, (), self._costs["render"], "rendering rooms")

    def _floors(self) -> Job:
        parameters = {**self._sizes(), **self._rendering(), "split": self.split}
        return Job("floors", f"{ROWS}:floors", parameters, ("render",), 8.0, "trivial floors")

    def _sizes(self) -> dict[str, Any]:
        parts = {name: dict(self.budget[name]) for name in ("frames", "clips", "videos") if self._uses(name)}
        return {**parts, "cache_dir": self.cache_dir}

    def _rendering(self) -> dict[str, Any]:
        """Size and device of the frames; the cache of a GPU is another than that of a CPU."""
        size = self._model("images").get("model.image_size")
        return {"options": {**({} if size is None else {"image_size": size}), **self.compute.source_options()}}

    def _uses(self, data: str) -> bool:
        part = "images" if data == "frames" else "clips"
        return any(entry["part"] == part for entry in self.entries.values())

    def _data(self, data: str, eval_split: str) -> list[str]:
        """Command-line words for frames, clips or videos."""
        counts, option = self.budget[data], f"num_{data}"
        return [
            *(f"--data.options.{option}", str(counts["train"]), *self.compute.loader_words),
            *("--data.eval_split", eval_split, f"--data.eval_options.{option}", str(counts[eval_split])),
            *(*self.compute.source_words, *self.cache_words),
        ]

    # -- pre-training --------------------------------------------------------------------------------------------

    def _chain_names(self, name: str) -> list[str]:
        entry = self.content["pretraining"][name]
        before = self._chain_names(entry["after"]) if "after" in entry else []
        return [*before, name]

    def chain(self, name: str) -> list[str]:
        """The pre-trainings that weights of `name` went through, the first one first; empty for scratch."""
        return [link for link in self._chain_names(name) if "recipe" in self.content["pretraining"][link]]

    def _add_chain(self, jobs: dict[str, Job], name: str, seed: int) -> None:
        for link in self.chain(name):
            job = self._pretraining(link, seed)
            jobs.setdefault(job.id, job)

    def steps(self, name: str) -> int:
        """Optimizer steps of a pre-training."""
        entry = self.content["pretraining"][name]
        if "equal_flops_to" in entry:
            other = entry["equal_flops_to"]
            return max(1, round(self.steps(other) * self._step_flops(other) / self._step_flops(name)))
        return max(1, round(entry.get("share", 1.0) * self.budget["pretraining_steps"][entry["part"]]))

    def _settings(self, name: str, seed: int) -> list[str]:
        """Command-line words of a pre-training without its length, data and start."""
        entry = self.content["pretraining"][name]
        masks = self.content["masks"][entry["part"]] if entry.get("masked", True) else {}
        shared = {**self.content["common"][entry["part"]], **masks}
        words = ["--recipe", entry["recipe"], "--method", entry["method"], "--seed", str(seed)]
        return [*words, *_overrides({**shared, **self._model(entry["part"]), **entry.get("set", {})})]

    def _model(self, part: str) -> Mapping[str, Any]:
        """What a budget changes of model and batch."""
        found: Mapping[str, Any] = self.budget.get("model", {}).get(part, {})
        return found

    def _step_flops(self, name: str) -> float:
        return _flops_per_step([*self._settings(name, 0), "--train.max_steps", "1"], "pretraining")

    @cached_property
    def _known(self) -> dict[tuple[str, int], Job]:
        return {}

    def _pretraining(self, name: str, seed: int) -> Job:
        """The job of one entry; asked for by everything that starts from it."""
        if (name, seed) not in self._known:
            self._known[name, seed] = self._new_pretraining(name, seed)
        return self._known[name, seed]

    def _new_pretraining(self, name: str, seed: int) -> Job:
        entry, steps, job_id = self.content["pretraining"][name], self.steps(name), f"pretrain-{name}-s{seed}"
        data = self._data("frames" if entry["part"] == "images" else "clips", "validation")
        argv = [*self._settings(name, seed), *training_length(steps), *self.compute.words, *data]
        argv += ["--logging.every_steps", str(max(1, steps // 40))]
        needs, start = self._start(entry.get("after"), seed)
        argv += start
        parameters = {"argv": argv, "output_dir": self._folder(job_id, (argv, "pretraining")), "steps": steps}
        cost = self._seconds(f"pretrain-{name}", argv, "pretraining", steps)
        return Job(job_id, f"{ROWS}:pretrain", parameters, needs, cost, f"pre-training {name}, seed {seed}")

    def _start(self, name: str | None, seed: int) -> tuple[tuple[str, ...], list[str]]:
        """Jobs that must be done before starting from entry `name`, and the words that start from it."""
        if name is None or not self.chain(name):
            return ("render",), []
        before = self._pretraining(name, seed)
        return ("render", before.id), ["--init_from", str(before.parameters["output_dir"])]

    def _folder(self, name: str, *runs: tuple[Sequence[str], str]) -> str:
        return run_folder(self.folder, name, *runs)

    # -- measurements --------------------------------------------------------------------------------------------

    def _grid_job(self, number: int, entry: Mapping[str, Any], start: str) -> Job:
        item, seed = entry["measurement"], int(self.content["grid"]["seed"])
        return self._measurement(f"grid-{number}-{start}", item, start, seed, "validation", entry.get("set", {}))

    def _measurement(
        self, job_id: str, item: str, name: str, seed: int, split: str, changes: Mapping[str, Any] | None = None
    ) -> Job:
        """One fine-tuning or probe of the pre-training `name`, measured on `split`."""
        how = self.content["measurements"][item]
        needs, start = self._start(name, seed)
        part = self.content["pretraining"][name]["part"]
        own = _overrides({**self._model(f"{part}_finetuning"), **(changes or {})})
        words = ["--recipe", how["recipe"], "--seed", str(seed), *self.compute.words, *own, *start]
        build = getattr(self, f"_{how['kind']}")
        parameters, cost = build(job_id, how, words, seed, split)
        label = job_id.replace("-", " ").replace("_", " ")
        return Job(job_id, f"{ROWS}:{how['kind']}", parameters, needs, cost + self._costs["evaluation"], label)

    def _dense(
        self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str
    ) -> tuple[dict[str, Any], float]:
        steps, labels = self.budget[how["steps"]], str(how["labels"])
        argv = [*words, *training_length(steps), "--data.max_train_samples", labels, "--data.subset_seed", str(seed)]
        argv += ["--evaluation.at_end", "false", "--logging.every_steps", str(max(1, steps // 10))]
        argv += self._data("frames", split)
        folder = self._folder(job_id, (argv, how["task"]))
        parameters = {"task": how["task"], "argv": argv, "test_argv": argv, "output_dir": folder, "steps": steps}
        return parameters, self._seconds(how["task"], argv, how["task"], steps)

    def _actions(
        self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str
    ) -> tuple[dict[str, Any], float]:
        steps = self.budget[how["steps"]]
        argv = [*words, *training_length(steps), "--evaluation.at_end", "false", *self._data("clips", split)]
        folder = self._folder(job_id, (argv, CLIP_TASK))
        parameters = {"argv": argv, "test_argv": _without_start(argv), "output_dir": folder, "steps": steps}
        return parameters, self._seconds("actions", argv, CLIP_TASK, steps)

    def _probe(
        self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str
    ) -> tuple[dict[str, Any], float]:
        argv = [*words, *self._data("clips", split)]
        return {"argv": argv, "output_dir": self._folder(job_id, (argv, CLIP_TASK))}, self._costs["probe"]

    def _phases(
        self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str
    ) -> tuple[dict[str, Any], float]:
        steps = self.budget[how["steps"]]
        first = [*words, *training_length(steps), "--evaluation.at_end", "false", *self._data("videos", split)]
        second = ["--recipe", how["temporal"], *_without_start(words)[2:], *self._data("videos", split)]
        folder = self._folder(job_id, (first, CLIP_TASK), (second, "action_detection"))
        parameters = {"clip_argv": first, "temporal_argv": second, "output_dir": folder, "steps": steps}
        return parameters, self._seconds("phases", first, CLIP_TASK, steps) + self._costs["phases"]

    # -- estimate ------------------------------------------------------------------------------------------------

    @property
    def _costs(self) -> dict[str, float]:
        """Seconds in one process; a budget for another device has its own."""
        return {**self.content["costs"], **self.budget.get("costs", {})}

    @cached_property
    def _step_costs(self) -> dict[str, float]:
        return {}

    def _seconds(self, what: str, argv: Sequence[str], task: str, steps: int) -> float:
        """Expected seconds in one process: fixed parts per step and sample, and operations at the measured rate.

        `what` names runs whose steps cost the same, whatever their seed.
        """
        if what not in self._step_costs:
            costs, args = self._costs, parse_arguments(list(argv), task)
            samples = args.train.batch_size * args.train.accumulation
            fixed = costs["per_step"] + samples * costs["per_sample"]
            self._step_costs[what] = fixed + _flops_per_step(argv, task) / costs["flops_per_second"]
        return steps * self._step_costs[what]


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def _without_start(argv: Sequence[str]) -> list[str]:
    """The words without ``--init_from X``."""
    words = list(argv)
    if "--init_from" in words:
        place = words.index("--init_from")
        del words[place : place + 2]
    return words


def _flops_per_step(argv: Sequence[str], task: str) -> float:
    args = parse_arguments(_without_start(argv), task)
    batch = args.train.batch_size * args.train.accumulation
    config = M33DConfig(**args.model)
    return batch * flops_per_sample(config, task, batch_size=batch)


def load_plan(name: str, budget: str, folder: Path, cache_dir: str | None = None) -> ReproductionPlan:
    """Read a plan of this folder; one that `extends` another takes over its sections.

    Raises:
        ConfigError: no such plan or budget.
    """
    if name not in PLANS:
        raise ConfigError(f"there is no plan {name!r}; known: {', '.join(PLANS)}.{nearest_name_hint(name, PLANS)}")
    content: dict[str, Any] = {}
    for layer in _layers(name):
        content |= layer
    plan = ReproductionPlan(content, budget, folder, cache_dir)
    plan.budget  # noqa: B018 - raises where the name is wrong, before anything starts
    return plan


def _layers(name: str) -> Iterator[dict[str, Any]]:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    base = content.pop("extends", None)
    if base is not None:
        yield from _layers(base)
    yield content
