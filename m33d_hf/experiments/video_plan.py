"""video.yaml to jobs: which rows there are, what each needs, and the command lines they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m33d_hf.experiments.base_plan import ONE_THREAD, ExperimentPlan, run_folder, training_length
from m33d_hf.experiments.jobs import Job

FILE = Path(__file__).with_name("video.yaml")
ROWS = "m33d_hf.experiments.video_rows"


class VideoPlan(ExperimentPlan):
    """The rows of the video experiment under one budget."""

    def fractions(self, part: str) -> list[float]:
        """Shares of labels of "actions" or "phases"."""
        return list(self.budget.get("overrides", {}).get("fractions", self.content[part]["fractions"]))

    def jobs(self) -> list[Job]:
        """Rendering first, then what others wait for, then the longest rows."""
        jobs = [self._render(), self._floor()]
        before = {(method, seed): self._pretraining(method, seed) for seed in self.seeds for method in self.methods}
        jobs += [job for job in before.values() if job is not None]
        for seed in self.seeds:
            for method in self.methods:
                start = before[method, seed]
                jobs += [self._phases(method, seed, share, start) for share in self.fractions("phases")]
                jobs += [self._actions(method, seed, share, start) for share in self.fractions("actions")]
        return jobs

    def _render(self) -> Job:
        parameters = {"clips": self.budget["clips"], "videos": self.budget["videos"], "cache_dir": self.cache_dir}
        return Job("render", f"{ROWS}:render", parameters, (), self.content["costs"]["render"], "rendering rooms")

    def _floor(self) -> Job:
        parameters = {"videos": self.budget["videos"], "cache_dir": self.cache_dir}
        return Job("floor", f"{ROWS}:floor", parameters, ("render",), 3.0, "what the time alone tells")

    def _clips(self, eval_split: str) -> list[str]:
        clips = self.budget["clips"]
        return [
            *("--data.options.num_clips", str(clips["train"]), "--data.eval_split", eval_split),
            *("--data.eval_options.num_clips", str(clips[eval_split])),
        ]

    def _videos(self, eval_split: str) -> list[str]:
        videos = self.budget["videos"]
        return [
            *("--data.options.num_videos", str(videos["train"]), "--data.eval_split", eval_split),
            *("--data.eval_options.num_videos", str(videos[eval_split])),
        ]

    def _common(self, recipe: str, seed: int) -> list[str]:
        return ["--recipe", recipe, "--seed", str(seed), "--data.num_workers", "0", *ONE_THREAD, *self.cache_words]

    def _pretraining(self, method: str, seed: int) -> Job | None:
        recipe = self.content["methods"][method]
        if recipe is None:
            return None
        name, steps = f"pretrain-{method}-s{seed}", self.budget["pretraining_steps"]
        argv = [*self._common(recipe, seed), "--method", method, *training_length(steps), *self._clips("test")]
        parameters: dict[str, Any] = {
            "argv": argv,
            "output_dir": run_folder(self.folder, name, (argv, "pretraining")),
            "steps": steps,
        }
        cost = steps * self.content["costs"]["pretrain"] + self.content["costs"]["evaluation"]
        return Job(name, "m33d_hf.experiments.rows:pretrain", parameters, ("render",), cost, f"{method} seed {seed}")

    def _actions(self, method: str, seed: int, share: float, start: Job | None) -> Job:
        name, steps = f"actions-{share:g}-{method}-s{seed}", self.budget["action_steps"]
        argv = [*self._common(self.content["actions"]["recipe"], seed), *training_length(steps), *_labels(share, seed)]
        parameters = {
            "argv": [*argv, *_start(start), *self._clips("validation")],
            "test_argv": [*argv, *self._clips("test")],
            "output_dir": run_folder(self.folder, name, ([*argv, *_start(start)], "video_classification")),
            "steps": steps,
        }
        cost = steps * self.content["costs"]["finetune"] + self.content["costs"]["evaluation"]
        return Job(name, f"{ROWS}:actions", parameters, _needs(start), cost, name.replace("-", " "))

    def _phases(self, method: str, seed: int, share: float, start: Job | None) -> Job:
        name, steps = f"phases-{share:g}-{method}-s{seed}", self.budget["phase_steps"]
        labels = _labels(share, seed)
        first = [
            *self._common(self.content["phases"]["finetune"], seed),
            *training_length(steps),
            *labels,
            *_start(start),
        ]
        second = [*self._common(self.content["phases"]["temporal"], seed), *labels]
        parameters = {
            "clip_argv": [*first, *self._videos("validation")],
            "temporal_argv": [*second, *self._videos("test")],
            "output_dir": run_folder(self.folder, name, (first, "video_classification"), (second, "action_detection")),
            "steps": steps,
        }
        costs = self.content["costs"]
        cost = steps * costs["finetune"] + 2 * costs["evaluation"] + costs["temporal"]
        return Job(name, f"{ROWS}:phases", parameters, _needs(start), cost, name.replace("-", " "))


def _labels(share: float, seed: int) -> list[str]:
    return [] if share == 1 else ["--data.label_fraction", str(share), "--data.subset_seed", str(seed)]


def _start(before: Job | None) -> list[str]:
    return [] if before is None else ["--init_from", str(before.parameters["output_dir"])]


def _needs(before: Job | None) -> tuple[str, ...]:
    return ("render",) if before is None else ("render", before.id)


def load_video_plan(budget: str, folder: Path, cache_dir: str | None = None, path: Path = FILE) -> VideoPlan:
    """Read video.yaml.

    Raises:
        ConfigError: no such budget.
    """
    return VideoPlan.load(path, budget, folder, cache_dir)
