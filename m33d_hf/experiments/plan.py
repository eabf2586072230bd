"""demo.yaml to jobs: which rows there are, what each needs, and the command line each stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.experiments.base_plan import ONE_THREAD, ExperimentPlan, run_folder, training_length
from m33d_hf.experiments.jobs import Job

FILE = Path(__file__).with_name("demo.yaml")
ROWS = "m33d_hf.experiments.rows"


class DemoPlan(ExperimentPlan):
    """The demo's rows under one budget; pictures and figures are below its folder too."""

    def jobs(self) -> list[Job]:
        """Rendering first, long chains before short ones."""
        jobs = [self._render()]
        chains = {(method, seed): self._pretraining(method, seed) for seed in self.seeds for method in self.methods}
        # Interleaved by length: what other rows wait for starts first.
        jobs += [job for chain in chains.values() for job in chain]
        jobs += [self._probe(name, seed) for seed in self.seeds for name in self.content["matching_probe"]["methods"]]
        for seed in self.seeds:
            for method in self.methods:
                before = chains[method, seed][-1] if chains[method, seed] else None
                jobs += self._finetuning(method, seed, before)
        return [*jobs, self._floors()]

    def _data(self, eval_split: str) -> list[str]:
        frames = self.budget["frames"]
        words = ["--data.options.num_frames", str(frames["train"]), "--data.num_workers", "0"]
        words += ["--data.eval_split", eval_split, "--data.eval_options.num_frames", str(frames[eval_split])]
        return words + self.cache_words

    def _run_folder(self, name: str, argv: Sequence[str], task: str) -> str:
        return run_folder(self.folder, name, (argv, task))

    def _render(self) -> Job:
        frames = dict(self.budget["frames"])
        parameters = {"frames": frames, "cache_dir": self.cache_dir}
        cost = sum(frames.values()) * self.content["costs"]["render_frame"]
        return Job("render", f"{ROWS}:render", parameters, (), cost, "rendering rooms")

    def _floors(self) -> Job:
        parameters = {"frames": dict(self.budget["frames"]), "cache_dir": self.cache_dir}
        return Job("floors", f"{ROWS}:floors", parameters, ("render",), 5.0, "trivial floors")

    def _pretraining(self, method: str, seed: int) -> list[Job]:
        """The stages of a method, each started from the one before."""
        jobs: list[Job] = []
        for number, stage in enumerate(self.content["methods"][method], start=1):
            steps = round(stage["share"] * self.budget["pretraining_steps"])
            last = number == len(self.content["methods"][method])
            name = f"pretrain-{method}-s{seed}" + ("" if last and number == 1 else f"-stage{number}")
            kind = "mae" if last and number == 1 else f"stage_{number}"
            label = f"{method} seed {seed}" + ("" if last and number == 1 else f" stage {number}")
            jobs.append(self._stage(name, stage, seed, steps, kind, jobs[-1:], last, label))
        return jobs

    def _stage(
        self,
        name: str,
        stage: Mapping[str, Any],
        seed: int,
        steps: int,
        kind: str,
        before: Sequence[Job],
        pictures: bool,
        label: str,
        overrides: Mapping[str, Any] | None = None,
    ) -> Job:
        argv = ["--recipe", stage["recipe"], "--method", stage["method"], "--seed", str(seed)]
        argv += [
            *training_length(steps),
            "--logging.every_steps",
            str(max(1, steps // 40)),
            *ONE_THREAD,
            *self._data("test"),
        ]
        for job in before:
            argv += ["--init_from", job.parameters["output_dir"]]
        for key, value in (overrides or {}).items():
            argv += [f"--{key}", str(value)]
        parameters: dict[str, Any] = {
            "argv": argv,
            "output_dir": self._run_folder(name, argv, "pretraining"),
            "steps": steps,
        }
        if pictures and seed == self.seeds[0]:
            parameters["picture"] = f"pictures/{name}.npz"
            parameters["folder"] = str(self.folder)
            parameters["pictures"] = self.content["pictures"]
        cost = steps * self.content["costs"][kind] + self.content["costs"]["evaluation"]
        needs = ("render", *(job.id for job in before))
        return Job(name, f"{ROWS}:pretrain", parameters, needs, cost, label)

    def _probe(self, method: str, seed: int) -> Job:
        """A few more steps of stage 1 with a matching head."""
        probe, stage = self.content["matching_probe"], self.content["methods"][method][0]
        first = self._pretraining(method, seed)[:1]
        name, label = f"probe-{method}-s{seed}", f"matching probe of {method} seed {seed}"
        steps = self.budget["probe_steps"]
        return self._stage(name, stage, seed, steps, "probe", first, False, label, probe["overrides"])

    def _finetuning(self, method: str, seed: int, before: Job | None) -> list[Job]:
        jobs = []
        for entry in self.content["finetuning"]:
            for labels in entry["labels"]:
                name = f"{entry['task']}-{labels}-{method}-s{seed}"
                jobs.append(self._finetune(name, entry, labels, seed, before, labels == max(entry["labels"])))
        return jobs

    def _finetune(
        self, name: str, entry: Mapping[str, Any], labels: int, seed: int, before: Job | None, pictures: bool
    ) -> Job:
        steps = self.budget[entry["steps"]]
        every = max(1, steps // self.budget["evaluations"])
        argv = ["--recipe", entry["recipe"], "--seed", str(seed), *training_length(steps), *ONE_THREAD]
        argv += ["--data.max_train_samples", str(labels), "--data.subset_seed", str(seed)]
        argv += ["--evaluation.every_steps", str(every), "--logging.every_steps", str(max(1, steps // 10))]
        argv += [] if before is None else ["--init_from", before.parameters["output_dir"]]
        parameters: dict[str, Any] = {
            "task": entry["task"],
            "argv": [*argv, *self._data("validation")],
            "test_argv": [*argv, *self._data("test")],
            "output_dir": self._run_folder(name, argv, entry["task"]),
            "steps": steps,
        }
        if pictures and seed == self.seeds[0]:
            parameters["picture"] = f"pictures/{name}.npz"
            parameters["folder"] = str(self.folder)
            parameters["pictures"] = self.content["pictures"]
        cost = steps * self.content["costs"][entry["task"]] + self.content["costs"]["evaluation"]
        needs = ("render",) if before is None else ("render", before.id)
        return Job(name, f"{ROWS}:finetune", parameters, needs, cost, name.replace("-", " ").replace("_", " "))


def load_plan(budget: str, folder: Path, cache_dir: str | None = None, path: Path = FILE) -> DemoPlan:
    """Read demo.yaml.

    Raises:
        ConfigError: no such budget.
    """
    return DemoPlan.load(path, budget, folder, cache_dir)
