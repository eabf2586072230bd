"""Where the rows of an experiment run: one-thread processes on a CPU, or processes that share one GPU.

A budget says so in a section `compute`; without one it is the CPU, and command lines are what they always were.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError, nearest_name_hint

_QUIET = (
    *("--logging.progress", "false", "--logging.trackers", "[]", "--logging.pictures", "false"),
    *("--checkpoint.save_best", "false", "--checkpoint.save_final", "false"),
)
# Every row is one CPU process with one thread and keeps its last weights, whatever the machine has.
ONE_THREAD = ("--cpu", "true", "--cpu_threads", "1", *_QUIET)


@dataclass(frozen=True)
class Compute:
    """Where and how rows are computed.

    Attributes:
        device: "cpu" or "cuda".
        precision: "no" or "bf16", of training, evaluation and frozen features.
        workers: processes at a time; None = one per available core, at most 8. On a GPU they share it.
        loader_workers: loader processes of each of them; 0 reads in the process itself.
        render: where rooms are rendered, "cpu" or "cuda"; None = `device`.
    """

    device: str = "cpu"
    precision: str = "no"
    workers: int | None = None
    loader_workers: int = 0
    render: str | None = None

    @classmethod
    def of_budget(cls, budget: Mapping[str, Any]) -> Compute:
        """The section `compute` of a budget.

        Raises:
            ConfigError: unknown keys or values.
        """
        section = dict(budget.get("compute") or {})
        known = [field.name for field in dataclasses.fields(cls)]
        for key in section:
            if key not in known:
                hint = nearest_name_hint(key, known)
                raise ConfigError(f"a budget's compute section has no key {key!r}; it has {', '.join(known)}.{hint}")
        found = cls(**section)
        choices = {"device": ("cpu", "cuda"), "render": ("cpu", "cuda", None), "precision": ("no", "bf16")}
        for key, allowed in choices.items():
            if getattr(found, key) not in allowed:
                raise ConfigError(f"a budget's compute.{key} is {getattr(found, key)!r}; it must be one of {allowed}.")
        if (found.workers is not None and found.workers < 1) or found.loader_workers < 0:
            raise ConfigError("a budget's compute.workers must be at least 1 and its loader_workers at least 0.")
        return found

    def require(self) -> None:
        """Refuse to start without the device.

        Raises:
            ConfigError: no GPU.
        """
        import torch

        if "cuda" in (self.device, self.render_device) and not torch.cuda.is_available():
            raise ConfigError("this budget runs on a GPU, but torch finds none; choose another --budget.")

    @property
    def render_device(self) -> str:
        """Where rooms are rendered."""
        return self.render or self.device

    @property
    def words(self) -> tuple[str, ...]:
        """Command-line words of every run: device, precision, silence."""
        if self == Compute(workers=self.workers, loader_workers=self.loader_workers, render=self.render):
            return ONE_THREAD
        return ("--cpu", str(self.device == "cpu").lower(), "--cpu_threads", "1", "--train.precision", self.precision,
                *_QUIET)  # fmt: skip

    @property
    def loader_words(self) -> tuple[str, ...]:
        """Command-line words of the loader."""
        return ("--data.num_workers", str(self.loader_workers))

    @property
    def source_words(self) -> tuple[str, ...]:
        """Command-line words of a rendered source: a cache of a GPU is another than that of a CPU."""
        return () if self.render_device == "cpu" else ("--data.options.device", self.render_device)

    def source_options(self) -> dict[str, Any]:
        """The same as keyword arguments of a rendered source."""
        return {} if self.render_device == "cpu" else {"device": self.render_device}

    def describe(self, processes: int) -> str:
        """For the line that says what runs."""
        noun = "process" if processes == 1 else "processes"
        if self.device == "cpu":
            return f"{processes} {noun} with one thread each"
        loaders = f", each with {self.loader_workers} loader processes" if self.loader_workers else ""
        precision = "float32" if self.precision == "no" else self.precision
        return f"{processes} {noun} that share one GPU ({precision}){loaders}"


def available_cores() -> int:
    """Cores this process may use."""
    from m33d_hf.training.costs.machine import usable_cores  # with torch

    return usable_cores()


def environment(compute: Compute | None = None) -> dict[str, str]:
    """Machine and versions, for the report; the GPU where `compute` runs on one."""
    import torch

    from m33d_hf.training.run.reporting import provenance

    known, cores = provenance(), available_cores()
    processor = f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"  # other instructions round otherwise
    versions = {name: version or "-" for name, version in known["versions"].items()}
    return {
        **versions,
        "commit": str(known["commit"]),
        "machine": f"{platform.system()} {platform.machine()}, {processor}, {cores} cores{_gpu(compute)}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _gpu(compute: Compute | None) -> str:
    if compute is None or compute.device != "cuda":
        return ""
    import torch

    return f", {torch.cuda.get_device_name()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"
