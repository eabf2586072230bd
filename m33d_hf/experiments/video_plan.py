"""video.yaml to jobs: which rows there are, what each needs, and the command lines they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.plan import run_folder

FILE = Path(__file__).with_name("video.yaml")
ROWS = "m33d_hf.experiments.video_rows"


@dataclass(frozen=True)
class VideoPlan:
    """The rows of the video experiment under one budget.

    Attributes:
        content: video.yaml.
        budget_name: key of `budgets`.
        folder: outputs; runs, rows and pictures are below it.
        cache_dir: where rooms are rendered; None = the user's cache.
    """

    content: Mapping[str, Any]
    budget_name: str
    folder: Path
    cache_dir: str | None = None

    @property
    def budget(self) -> Mapping[str, Any]:
        """Clips, videos and steps.

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
    def methods(self) -> list[str]:
        """In the order of the tables."""
        return list(self.content["methods"])

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
        """Every row is one CPU process with one thread and keeps its last weights, whatever the machine has."""
        words = ["--recipe", recipe, "--seed", str(seed), "--data.num_workers", "0", "--cpu", "true"]
        words += ["--cpu_threads", "1", "--logging.progress", "false", "--logging.trackers", "[]"]
        words += ["--checkpoint.save_best", "false", "--checkpoint.save_final", "false"]
        return words + (["--data.cache_dir", self.cache_dir] if self.cache_dir else [])

    def _pretraining(self, method: str, seed: int) -> Job | None:
        recipe = self.content["methods"][method]
        if recipe is None:
            return None
        name, steps = f"pretrain-{method}-s{seed}", self.budget["pretraining_steps"]
        argv = [*self._common(recipe, seed), "--method", method, *_length(steps), *self._clips("test")]
        parameters: dict[str, Any] = {
            "argv": argv,
            "output_dir": run_folder(self.folder, name, (argv, "pretraining")),
            "steps": steps,
        }
        cost = steps * self.content["costs"]["pretrain"] + self.content["costs"]["evaluation"]
        return Job(name, "m33d_hf.experiments.rows:pretrain", parameters, ("render",), cost, f"{method} seed {seed}")

    def _actions(self, method: str, seed: int, share: float, start: Job | None) -> Job:
        name, steps = f"actions-{share:g}-{method}-s{seed}", self.budget["action_steps"]
        argv = [*self._common(self.content["actions"]["recipe"], seed), *_length(steps), *_labels(share, seed)]
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
        first = [*self._common(self.content["phases"]["finetune"], seed), *_length(steps), *labels, *_start(start)]
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


def _length(steps: int) -> list[str]:
    """Steps with the recipes' warm-up of 5 %."""
    return ["--train.max_steps", str(steps), "--optim.warmup_steps", str(max(1, round(0.05 * steps)))]


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
    plan = VideoPlan(yaml.safe_load(path.read_text(encoding="utf-8")), budget, folder, cache_dir)
    plan.budget  # noqa: B018 - raises where the name is wrong, before anything starts
    return plan
