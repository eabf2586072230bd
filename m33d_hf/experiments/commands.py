"""A plan to jobs: every pre-training, what is measured from it, and the command lines they stand for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.experiments.collected import kept
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.plan import Plan, flops_per_step, overrides, row_id, without
from m33d_hf.training.recipe.parsing import parse_arguments, resolve

RENDERING, ROWS = "m33d_hf.experiments.rendering", "m33d_hf.experiments.rows"
CLIP_TASK = "video_classification"
WARMUP = 0.05  # of the steps, as in the recipes
DRAW = 1000  # between the seeds of two fine-tunings of one encoder
Measured = tuple[dict[str, Any], float]


def jobs_of(plan: Plan) -> list[Job]:
    """Rendering first, then seed by seed, so that a run cut short leaves whole seeds.

    With `pretraining_first` all pre-trainings come before all measurements.
    """
    return _Commands(plan, RunFolders(plan.folder)).jobs()


def jobs_at(plan: Plan, folder: Path, cache_dir: str | None, folders: Mapping[str, str]) -> list[Job]:
    """As `jobs_of` in another place.

    Args:
        plan: what is run.
        folder: outputs there.
        cache_dir: where rooms are rendered there; None = the user's cache.
        folders: job id -> name of its run folder, where it is known; others are named by their settings.
    """
    there = dataclasses.replace(plan, folder=folder, cache_dir=cache_dir)
    return _Commands(there, RunFolders(folder, folders)).jobs()


class _Commands:
    """Ids of jobs are ``pretrain-<entry>-s<seed>`` (or as the entry's `job` says) and
    ``<measurement>-<entry>-s<seed>``, with ``grid-<number>-<entry>`` for those of the grid."""

    def __init__(self, plan: Plan, folders: RunFolders) -> None:
        self.plan, self.compute, self._folders = plan, plan.compute, folders
        self._kinds = {"dense": self._dense, "actions": self._actions, "probe": self._probe, "phases": self._phases}
        self._pretrainings: dict[tuple[str, int], Job] = {}
        self._step_seconds: dict[str, float] = {}

    def jobs(self) -> list[Job]:
        jobs = [self._render(), self._floors()]
        for number, entry in enumerate(self.plan.grid_entries):
            item, seed, changes = entry["measurement"], int(self.plan.content["grid"]["seed"]), entry.get("set", {})
            for name in entry["from"]:
                jobs += [self._pretraining(link, seed) for link in self.plan.chain(name)]
                jobs.append(self._measurement(f"grid-{number}-{name}", item, name, seed, "validation", changes))
        for seed in self.plan.seeds:
            for name in self.plan.entries:
                jobs += [self._pretraining(link, seed) for link in self.plan.chain(name)]
                jobs += [
                    self._measurement(row_id(item, name, seed, draw), item, name, seed, self.plan.split, draw=draw)
                    for item in self.plan.measurements(name)
                    for draw in self.plan.draws(item)
                ]
        found = list({job.id: job for job in jobs}.values())
        if self.plan.content.get("pretraining_first"):
            last = [f"{ROWS}:{kind}" for kind in self._kinds]
            found.sort(key=lambda job: job.function in last)
        return found

    # -- data ----------------------------------------------------------------------------------------------------

    def _render(self) -> Job:
        own = self.plan.rooms_seed
        seeds = {int(entry.get("set", {}).get("data.options.seed", own)) for entry in self.plan.entries.values()}
        parameters = {**self._rooms(), "seeds": [own, *sorted(seeds - {own})]}
        return Job("render", f"{RENDERING}:render", parameters, (), self.plan.costs["render"], "rendering rooms")

    def _floors(self) -> Job:
        parameters = {**self._rooms(), "split": self.plan.split}
        return Job("floors", f"{RENDERING}:floors", parameters, ("render",), 8.0, "trivial floors")

    def _rooms(self) -> dict[str, Any]:
        """What is rendered; the cache of a GPU is another than that of a CPU."""
        size = self.plan.model("images").get("model.image_size")
        options = {**({} if size is None else {"image_size": size}), **self.compute.source_options()}
        options |= {"seed": self.plan.rooms_seed} if self.plan.rooms_seed else {}
        return {**self.plan.sizes(), "cache_dir": self.plan.cache_dir, "options": options}

    def _data(self, data: str, eval_split: str, own_rooms: bool = True) -> list[str]:
        """Command-line words for frames, clips or videos, of the plan's own rooms unless an entry says which."""
        counts, option, cache = self.plan.budget[data], f"num_{data}", self.plan.cache_dir
        seed = self.plan.rooms_seed if own_rooms else 0
        return [
            *(("--data.options.seed", str(seed)) if seed else ()),
            *(f"--data.options.{option}", str(counts["train"]), *self.compute.loader_words),
            *("--data.eval_split", eval_split, f"--data.eval_options.{option}", str(counts[eval_split])),
            *(*self.compute.source_words, *(["--data.cache_dir", cache] if cache else [])),
        ]

    # -- pre-training --------------------------------------------------------------------------------------------

    def _pretraining(self, name: str, seed: int) -> Job:
        """The job of one entry; asked for by everything that starts from it."""
        if (name, seed) not in self._pretrainings:
            self._pretrainings[name, seed] = self._new_pretraining(name, seed)
        return self._pretrainings[name, seed]

    def _new_pretraining(self, name: str, seed: int) -> Job:
        entry, steps = self.plan.content["pretraining"][name], self.plan.steps(name)
        job_id = self.plan.pretraining_id(name, seed)
        split = self.plan.content.get("pretraining_split", "validation")
        own_rooms = "data.options.seed" not in entry.get("set", {})
        data = self._data("frames" if entry["part"] == "images" else "clips", split, own_rooms)
        argv = [*self.plan.recipe_words(name, seed), *training_length(steps), *self.compute.words, *data]
        argv += ["--logging.every_steps", str(max(1, steps // 40))]
        needs, start = self._start(entry.get("after"), seed)
        argv += start
        parameters = {
            "argv": argv,
            "output_dir": self._folders.of(job_id, (argv, "pretraining")),
            "steps": steps,
        }
        parameters |= self._picture(
            job_id, seed, int(name in self.plan.trained and self.plan.content.get("pictures", 0))
        )
        cost = self._seconds(f"pretrain-{name}", argv, "pretraining", steps)
        if entry["part"] == "clips":
            cost *= self.plan.costs.get("clip_pretraining", 1.0)
        says = entry.get("says", self.plan.content.get("says", "pre-training {name}, seed {seed}"))
        return Job(job_id, f"{ROWS}:pretrain", parameters, needs, cost, says.format(name=name, seed=seed))

    def _start(self, name: str | None, seed: int) -> tuple[tuple[str, ...], list[str]]:
        """Jobs that must be done before starting from entry `name`, and the words that start from it."""
        if name is None or not self.plan.chain(name):
            return ("render",), []
        before = self._pretraining(self.plan.chain(name)[-1], seed)
        return ("render", before.id), ["--init_from", str(before.parameters["output_dir"])]

    def _picture(self, job_id: str, seed: int, count: int) -> dict[str, Any]:
        """Parameters of a row of the first seed that leaves pictures of the first `count` test frames."""
        if not count or seed != self.plan.seeds[0]:
            return {}
        return {"picture": f"pictures/{job_id}.npz", "folder": str(self.plan.folder), "pictures": count}

    # -- measurements --------------------------------------------------------------------------------------------

    def _measurement(
        self,
        job_id: str,
        item: str,
        name: str,
        seed: int,
        split: str,
        changes: Mapping[str, Any] | None = None,
        draw: int = 0,
    ) -> Job:
        """One fine-tuning or probe of the pre-training `name`, measured on `split`.

        Args:
            draw: number of the fine-tuning; others than the first have a seed of their own, which changes the head's
                weights, the order of data and the labelled subset, and from scratch all weights.
        """
        entry = self.plan.content["pretraining"][name]
        how = {**self.plan.content["measurements"][item], "temporal_set": entry.get("temporal", {})}
        needs, start = self._start(name, seed)
        part = entry["part"]
        changed = {**how.get("set", {}), **entry.get("finetuning", {}), **(changes or {})}
        own = overrides({**self.plan.model(f"{part}_finetuning"), **changed})
        drawn = seed + DRAW * draw
        words = ["--recipe", how["recipe"], "--seed", str(drawn)]
        words += [*self.compute.words, *own, *_labels(how, drawn), *start]
        parameters, cost = self._kinds[how["kind"]](job_id, how, words, drawn, split)
        label = job_id.replace("-", " ").replace("_", " ")
        cost += self.plan.costs["evaluation"]
        return Job(job_id, f"{ROWS}:{how['kind']}", parameters, needs, cost, label)

    def _dense(self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str) -> Measured:
        steps, looks = self.plan.budget[how["steps"]], self.plan.budget.get("evaluations")
        argv = [*words, *training_length(steps, float(how.get("warmup", WARMUP)))]
        argv += ["--logging.every_steps", str(max(1, steps // 10))]
        argv += ["--evaluation.every_steps", str(max(1, steps // looks))] if looks else ["--evaluation.at_end", "false"]
        test_argv = [*without(argv, "--init_from"), *self._data("frames", split)]
        argv += self._data("frames", "validation" if looks else split)
        folder = self._folders.of(job_id, (argv, how["task"]))
        parameters = {"task": how["task"], "argv": argv, "test_argv": test_argv, "output_dir": folder, "steps": steps}
        parameters |= self._picture(job_id, seed, int(how.get("picture", 0))) | kept(how, "inputs")
        return parameters, self._seconds(how["task"], argv, how["task"], steps)

    def _actions(self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str) -> Measured:
        steps = self.plan.budget[how["steps"]]
        argv = [*words, *training_length(steps), "--evaluation.at_end", "false", *self._data("clips", split)]
        folder = self._folders.of(job_id, (argv, CLIP_TASK))
        parameters = {"argv": argv, "test_argv": without(argv, "--init_from"), "output_dir": folder, "steps": steps}
        parameters |= kept(how, "inputs")
        return parameters, self._seconds("actions", argv, CLIP_TASK, steps)

    def _probe(self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str) -> Measured:
        argv = [*words, *self._data("clips", split)]
        return {"argv": argv, "output_dir": self._folders.of(job_id, (argv, CLIP_TASK))}, self.plan.costs["probe"]

    def _phases(self, job_id: str, how: Mapping[str, Any], words: list[str], seed: int, split: str) -> Measured:
        steps = self.plan.budget[how["steps"]]
        first = [*words, *training_length(steps), "--evaluation.at_end", "false", *self._data("videos", split)]
        second = ["--recipe", how["temporal"], *without(words, "--init_from")[2:], *overrides(how["temporal_set"])]
        if "temporal_steps" in how:  # else the recipe's epochs, which are fewer steps with fewer videos
            length = self.plan.budget[how["temporal_steps"]]
            second += ["--train.max_steps", str(length), "--evaluation.every_steps", str(length)]
        second += self._data("videos", split)
        folder = self._folders.of(job_id, (first, CLIP_TASK), (second, "action_detection"))
        parameters = {"clip_argv": first, "temporal_argv": second, "output_dir": folder, "steps": steps}
        parameters |= kept(how, "inputs")
        return parameters, self._seconds("phases", first, CLIP_TASK, steps) + self.plan.costs["phases"]

    def _seconds(self, what: str, argv: Sequence[str], task: str, steps: int) -> float:
        """Expected seconds in one process: fixed parts per step and sample, and operations at the measured rate.

        `what` names runs whose steps cost the same, whatever their seed.
        """
        if what not in self._step_seconds:
            costs, args = self.plan.costs, parse_arguments(list(argv), task)
            samples = args.train.batch_size * args.train.accumulation
            fixed = costs["per_step"] + samples * costs["per_sample"]
            self._step_seconds[what] = fixed + flops_per_step(argv, task) / costs["flops_per_second"]
        return steps * self._step_seconds[what]


def _labels(how: Mapping[str, Any], seed: int) -> list[str]:
    """Which labels a measurement takes: a number of frames, or a share of clips or videos."""
    draw = ["--data.subset_seed", str(seed)]
    if "labels" in how:
        return ["--data.max_train_samples", str(how["labels"]), *draw]
    return [] if how.get("fraction", 1) == 1 else ["--data.label_fraction", str(how["fraction"]), *draw]


def run_folder(folder: Path, name: str, *runs: tuple[Sequence[str], str], beside: Sequence[str] = ()) -> str:
    """Where the runs of a row go: other settings, by command line or by a changed recipe, go to another folder.

    The folder is one of the row's parameters, so that a changed recipe is run again instead of taken for finished.

    Args:
        folder: outputs of the experiment.
        name: of the row.
        runs: (command line, task) of each.
        beside: what else they are made from, such as digests of data.
    """
    settings: list[Any] = [resolve(list(argv), task).args.to_dict() for argv, task in runs]
    settings += beside
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return str(folder / "runs" / f"{name}-{digest}")


@dataclass(frozen=True)
class RunFolders:
    """Where the runs of rows go.

    Attributes:
        outputs: of the experiment.
        known: row -> name of its folder; those of rows that were begun elsewhere, which keep it.
    """

    outputs: Path
    known: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str, *runs: tuple[Sequence[str], str], beside: Sequence[str] = ()) -> str:
        """As `run_folder`, unless it is known."""
        known = self.known.get(name)
        return (
            run_folder(self.outputs, name, *runs, beside=beside)
            if known is None
            else str(self.outputs / "runs" / known)
        )


def training_length(steps: int, warmup: float = WARMUP) -> list[str]:
    """Steps, of which the share `warmup` raises the learning rate."""
    return ["--train.max_steps", str(steps), "--optim.warmup_steps", str(max(1, round(warmup * steps)))]
