"""Clocks, the matmul ceiling and the facts that belong to every measurement."""

from __future__ import annotations

import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from m33d_hf.acceleration.linear import cpu_linear
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import visible_count
from m33d_hf.training.run.reporting import provenance

Shape = tuple[int, int, int]  # rows, inputs, outputs


class ParityError(RuntimeError):
    """Two sides do not compute the same, so their times say nothing."""


class Stopwatch:
    """Seconds of named calls: of this process on a CPU, by device events on a GPU, where nothing waits until `seconds`.

    The process's own time is not lengthened by other processes on the machine (they do heat caches and clocks, hence
    contenders that take turns).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._began: dict[str, Any] = {}
        self._pairs: dict[str, list[tuple[Any, Any]]] = {}

    def _mark(self) -> Any:
        if self.device.type == "cpu":
            return time.process_time()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, name: str) -> None:
        """Begin a call."""
        self._began[name] = self._mark()

    def stop(self, name: str) -> None:
        """End the call that was begun last under this name."""
        self._pairs.setdefault(name, []).append((self._began.pop(name), self._mark()))

    def seconds(self) -> dict[str, list[float]]:
        """Name -> seconds of every call, in their order; waits for the device."""
        if self.device.type == "cpu":
            return {name: [end - start for start, end in pairs] for name, pairs in self._pairs.items()}
        torch.cuda.synchronize(self.device)
        return {name: [start.elapsed_time(end) / 1e3 for start, end in pairs] for name, pairs in self._pairs.items()}


def interleaved(
    contenders: Mapping[str, Callable[[], None]], rounds: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every call, one contender after the other in each round, see `Stopwatch`."""
    for _ in range(warmup):
        for call in contenders.values():
            call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    watch = Stopwatch(device)
    for _ in range(rounds):
        for name, call in contenders.items():
            watch.start(name)
            call()
            watch.stop(name)
    return watch.seconds()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest in milliseconds, and the spread: (largest - smallest) / median."""
    median = statistics.median(seconds)
    return {
        "median_ms": 1e3 * median,
        "min_ms": 1e3 * min(seconds),
        "max_ms": 1e3 * max(seconds),
        "spread": (max(seconds) - min(seconds)) / median,
        "rounds": len(seconds),
    }


def matmul_shapes(config: M33DConfig, batch: int) -> dict[Shape, int]:
    """The forward linear layers of all blocks: (rows, inputs, outputs) -> how many of them in a step."""
    cls = int(bool(config.use_cls_token))
    visible = {spec.name: visible_count(spec, config.grid) for spec in config.input_specs}
    shapes: dict[Shape, int] = {}

    def add(tokens: int, width: int, inner: int, layers: int) -> None:
        rows = batch * tokens
        for inputs, outputs in ((width, 3 * width), (width, width), (width, inner), (inner, width)):
            shapes[rows, inputs, outputs] = shapes.get((rows, inputs, outputs), 0) + layers

    for tokens in visible.values():
        add(tokens + cls, config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    if config.target_specs:
        tokens = sum(count + cls for count in visible.values())
        tokens += sum(config.num_tokens - visible.get(spec.name, 0) for spec in config.target_specs)
        if config.decoder_fusion == "fused":
            tokens = config.num_tokens + cls
        depth = config.decoder_num_hidden_layers
        add(tokens, config.decoder_hidden_size, config.decoder_intermediate_size, depth)
    return shapes


class MatmulCeiling:
    """Forward and both backward products of the model's own linear layers, on random numbers of their shapes.

    One call runs each distinct shape once; `rate` weighs the times of a shape by how often a step has it. This is what
    the step could reach were it made of these products alone.

    Args:
        config: the model.
        batch: samples.
        device: where.
        precision: "no" for float32, "bf16" for bfloat16 operands.
    """

    def __init__(self, config: M33DConfig, batch: int, device: torch.device, precision: str) -> None:
        self.device = device
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.counts = matmul_shapes(config, batch)
        self.operands = {
            (rows, inputs, outputs): (
                torch.randn(rows, inputs, device=device).to(dtype),
                (torch.randn(outputs, inputs, device=device) * inputs**-0.5).to(dtype),
                torch.randn(rows, outputs, device=device).to(dtype),
            )
            for rows, inputs, outputs in self.counts
        }

    def calls(self) -> dict[Shape, Callable[[], None]]:
        """Shape -> its three products."""

        # By the function that a run puts in, so that the ceiling is that of the library that it chooses.
        def of(x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> Callable[[], None]:
            def run() -> None:
                cpu_linear(x, weight)
                cpu_linear(gradient, weight.t())
                cpu_linear(gradient.t(), x.t())

            return run

        return {shape: of(*operands) for shape, operands in self.operands.items()}

    def rate(self, seconds: Mapping[Shape, Sequence[float]]) -> float:
        """Operations per second, by the median time of each shape."""
        operations = sum(6.0 * rows * inputs * outputs * n for (rows, inputs, outputs), n in self.counts.items())
        return operations / sum(statistics.median(seconds[shape]) * n for shape, n in self.counts.items())


def memory_status(field: str) -> int:
    """Bytes of a field of this process's status, Linux alone: "VmRSS" is resident now, "VmHWM" the most so far."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_memory(device: torch.device) -> int:
    """Bytes: largest resident size of this process so far, or largest amount allocated on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform.startswith("linux"):
        # getrusage would count what the process that started this one held when it was forked.
        return memory_status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, GPU and operating system."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    model = " ".join(f"{word} {fields[word]}" for word in ("cpu family", "model") if word in fields)
    return f"{fields.get('model name', platform.machine())} ({model})"


def header(name: str, device: torch.device) -> dict[str, Any]:
    """What makes a measurement repeatable: command, commit, versions, machine, date."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    for option in ("--output", "--output_dir", "--work_dir"):  # where it was written is nobody's concern
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    return {
        "name": name,
        "command": shlex.join(["python", f"benchmarks/{words[0]}", *words[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(device),
        **provenance(),
    }
