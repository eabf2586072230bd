"""What the cost curves measure: one training step of a small two-encoder model, and what it should take."""

from __future__ import annotations

import gc
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from measuring import memory_status

from m33d_hf.acceleration import place
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.encoder_m33d import M33DPositions
from m33d_hf.modeling.masking_m33d import draw_keep, visible_count
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

DECODERS: dict[str, dict[str, str]] = {
    "joint": {"decoder_fusion": "joint", "decoder_attention": "full"},
    "fused": {"decoder_fusion": "fused", "decoder_attention": "full"},
    "cross": {"decoder_fusion": "joint", "decoder_attention": "cross"},
}
SMALL: dict[str, Any] = {
    "patch_size": 8,
    "image_size": 112,
    "hidden_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "decoder_hidden_size": 192,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 768,
}
TINY: dict[str, Any] = {
    "patch_size": 8,
    "image_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
THERMAL: dict[str, Any] = {
    "name": "thermal",
    "input_name": "thermal_values",
    "channels": 1,
    "role": "both",
    "weight": 1.0,
    "loss": "mse",
}
BYTES = 4  # float32
CATEGORIES: dict[str, tuple[str, ...]] = {  # operators by the start of their names
    "matmul": ("addmm", "mm", "bmm", "matmul", "linear", "_linear_pointwise"),
    "attention": ("_scaled_dot_product", "scaled_dot_product", "_flash", "_softmax", "softmax"),
    "norm": ("native_layer_norm", "layer_norm"),
    "gelu": ("gelu",),
    "optimizer": ("_fused_adamw",),
    "copies": ("copy_", "cat", "index", "gather", "scatter", "clone", "fill_", "zero_", "contiguous", "_to_copy", "to"),
}


@dataclass(frozen=True)
class Point:
    """One measured configuration: `x` on the axis of `curve`, drawn as the line of `decoder`."""

    curve: str
    decoder: str
    x: float
    mask_ratio: float = 0.75
    frames: int = 1
    batch: int = 2
    modalities: int = 2
    patch: int = 8
    tiny: bool = False

    @property
    def line(self) -> str:
        """Points that are fitted together."""
        return f"{self.curve}/{self.decoder}"


def points(tiny: bool = False) -> list[Point]:
    """All points of all curves; `tiny` for a test of the machinery."""
    found: list[Point] = []
    ratios = (0.95, 0.8, 0.5, 0.25, 0.01)  # at .01 two tokens are left to predict: a target needs one
    for decoder in DECODERS:
        for ratio in ratios[1:3] if tiny else ratios:
            point = Point("tokens", decoder, 0.0, mask_ratio=ratio, tiny=tiny)
            config = configuration(point)
            visible = sum(visible_count(spec, config.grid) for spec in config.input_specs)
            found.append(Point("tokens", decoder, float(visible), mask_ratio=ratio, tiny=tiny))
        for frames in (2, 4) if tiny else (2, 4, 8, 16, 32):
            found.append(Point("frames", decoder, frames, frames=frames, batch=1, patch=8 if tiny else 16, tiny=tiny))
    for decoder in ("joint", "fused"):
        for number in (2, 3) if tiny else (1, 2, 3):
            found.append(Point("modalities", decoder, number, modalities=number, tiny=tiny))
        for batch in (1, 2) if tiny else (1, 2, 4, 8, 16, 32):
            found.append(Point("batch", decoder, batch, batch=batch, patch=8 if tiny else 16, tiny=tiny))
    return found


def configuration(point: Point) -> M33DConfig:
    """The model of a point: one encoder per modality, all of them masked and reconstructed; no pair losses."""
    masking = "tube" if point.frames > 1 else "random"
    common = {"mask_ratio": point.mask_ratio, "masking": masking}
    entries = [rgb_modality(**common), depth_modality(**common, weight=1.0), {**THERMAL, **common}]
    sizes = {**(TINY if point.tiny else SMALL), "patch_size": point.patch}
    return M33DConfig(
        **sizes,
        **DECODERS[point.decoder],
        num_frames=point.frames,
        tubelet_size=1 if point.frames == 1 else 2,
        modalities=entries[: point.modalities],
        attn_implementation="sdpa",
    )


def flops(point: Point) -> float:
    """Matrix products of one step, forward and backward, counted by `m33d_hf.evaluation.flops`."""
    return point.batch * flops_per_sample(configuration(point), batch_size=point.batch)


def parameters(point: Point) -> int:
    """Number of weights."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in M33DForPreTraining(configuration(point)).parameters())


def saved_activations(point: Point) -> float:
    """Bytes that a forward pass keeps for the backward pass, from the shapes alone.

    Per token of a block with width D and inner width I: its input and that of the second norm, both norms' outputs,
    the fused q, k, v (3), the attention's output twice (once as heads, once joined, where the layout must change) and
    two inner widths, 9 D + 2 I in all. With fused kernels no N x N map is kept. A predicted value is kept as
    prediction error (and the patch view of its target is not); patches that are projected are kept once.
    """
    config = configuration(point)
    visible = {spec.name: visible_count(spec, config.grid) for spec in config.input_specs}
    masked = {spec.name: config.num_tokens - visible[spec.name] for spec in config.target_specs}
    cls = int(bool(config.use_cls_token))
    encoder = 9 * config.hidden_size + 2 * config.intermediate_size
    values = sum(tokens + cls for tokens in visible.values()) * config.num_hidden_layers * encoder
    values += sum((tokens + cls) * 2 * config.hidden_size for tokens in visible.values())  # final norm, projection
    width = config.decoder_hidden_size
    decoder = 9 * width + 2 * config.decoder_intermediate_size
    queries, context = sum(masked.values()), sum(tokens + cls for tokens in visible.values())
    depth = config.decoder_num_hidden_layers
    if config.decoder_fusion == "fused":
        values += depth * (config.num_tokens + cls) * decoder
    elif config.decoder_attention == "cross":
        values += depth * (queries * (decoder - 2 * width) + context * 3 * width)
    else:
        whole = context + queries
        values += (depth - 1) * whole * decoder + queries * (decoder - 4 * width) + whole * 4 * width
    values += 2 * queries * width
    values += sum(tokens * config.patch_dim(config.spec(name)) for name, tokens in visible.items())
    values += sum(tokens * config.patch_dim(config.spec(name)) for name, tokens in masked.items())
    return float(BYTES * point.batch * values)


def expected_peak(point: Point) -> float:
    """Bytes at the peak of a step after the first: weights and both Adam moments (12 bytes a weight), and the larger
    of the activations at the end of the forward pass and the gradients at the end of the backward pass."""
    weights = BYTES * parameters(point)
    return 3 * weights + max(saved_activations(point), weights)


class Workload:
    """A model with optimizer and batch on a device, and its training step.

    Weights are copied from one random vector, as initialisation would take longer than the step.
    """

    _pool = torch.empty(0)

    def __init__(self, point: Point, device: str = "cpu") -> None:
        self.config = configuration(point)
        self.device = device
        with torch.device("meta"):
            self.model = M33DForPreTraining(self.config)
        self.model.to_empty(device=device)
        self._fill()
        place(self.model, device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.batch = self._batch(point)

    def _fill(self) -> None:
        largest = max(weight.numel() for weight in self.model.parameters())
        if Workload._pool.numel() < largest:
            Workload._pool = torch.randn(largest, generator=torch.Generator().manual_seed(0)) * 0.02
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                values = Workload._pool[: weight.numel()].view(weight.shape)
                weight.copy_(values + 1.0 if "norm" in name and name.endswith("weight") else values)
        for module in self.model.modules():
            if isinstance(module, M33DPositions):
                module.table = module.build().to(self.device)

    def _batch(self, point: Point) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(1)
        frames = () if point.frames == 1 else (point.frames,)
        sides = self.config.image_height_width
        batch: dict[str, Any] = {
            spec.input_name: torch.randn(point.batch, *frames, spec.channels, *sides, generator=generator)
            for spec in self.config.specs
        }
        batch = {name: values.to(self.device) for name, values in batch.items()}
        batch["keep"] = draw_keep(self.config, point.batch, generator=generator, device=self.device)
        return batch

    def step(self) -> None:
        """Forward, backward, update."""
        loss = self.model(**self.batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def timed_step(workload: Workload) -> dict[str, float]:
    """Seconds of one step (process CPU time, or device events on CUDA), system seconds and page faults on the CPU."""
    if workload.device != "cpu":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        workload.step()
        end.record()
        torch.cuda.synchronize()
        return {"seconds": start.elapsed_time(end) / 1e3, "system": 0.0, "faults": 0.0}
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    workload.step()
    seconds, after = time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF)
    faults = float(after.ru_minflt - before.ru_minflt)
    return {"seconds": seconds, "system": after.ru_stime - before.ru_stime, "faults": faults}


def category(operator: str) -> str:
    """Which of `CATEGORIES` an operator of the profiler belongs to; the rest is "elementwise"."""
    name = operator.removeprefix("aten::").removeprefix("mkldnn::")
    for label, starts in CATEGORIES.items():
        if any(name.startswith(start) for start in starts):
            return label
    return "elementwise" if operator.startswith("aten::") else "other"


def shares(workload: Workload) -> dict[str, float]:
    """Share of a step's time by kind of operation, from the profiler's own times."""
    on_gpu = workload.device != "cpu"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        workload.step()
        if on_gpu:
            torch.cuda.synchronize()
    total: dict[str, float] = dict.fromkeys([*CATEGORIES, "elementwise", "other"], 0.0)
    for event in profiler.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        total[category(event.key)] += float(spent)
    everything = sum(total.values()) or 1.0
    return {label: spent / everything for label, spent in total.items()}


def saved_bytes(workload: Workload) -> float:
    """Bytes that autograd really keeps after a forward pass, weights and inputs left out, each storage counted once."""
    known = {weight.untyped_storage().data_ptr() for weight in workload.model.parameters()}
    known |= {buffer.untyped_storage().data_ptr() for buffer in workload.model.buffers()}
    known |= {v.untyped_storage().data_ptr() for v in workload.batch.values() if isinstance(v, torch.Tensor)}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = workload.model(**workload.batch)
    held = float(sum(kept.values()))
    del output
    return held


def visit(point: Point, device: str, first: bool) -> dict[str, Any]:
    """One visit to a point: memory, one warm-up step, two timed steps; on the first also what takes the time.

    On the CPU it is to be run in a fresh process: "peak" is the growth of resident memory over these steps beyond what
    was there before the model, without the batch.
    """
    on_cpu = device == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
        Workload(Point("warm", "joint", 0, tiny=True)).step()  # libraries set up what they need once
    else:
        gc.collect()
        torch.cuda.empty_cache()
    before = memory_status("VmRSS") if on_cpu else 0
    workload = Workload(point, device)
    batch = sum(v.nbytes for v in workload.batch.values() if isinstance(v, torch.Tensor))
    workload.step()
    if not on_cpu:
        torch.cuda.reset_peak_memory_stats()
    steps = [timed_step(workload) for _ in range(2)]
    result: dict[str, Any] = {key: [step[key] for step in steps] for key in steps[0]}
    if on_cpu:
        result["peak"] = float(memory_status("VmHWM") - before - batch - Workload._pool.nbytes)
    else:
        result["peak"] = float(torch.cuda.max_memory_allocated() - batch)
    if first:
        result |= {"saved": saved_bytes(workload), "shares": shares(workload)}
    return result


def shuffled(items: list[Point], repetitions: int, seed: int) -> Iterator[tuple[int, Point]]:
    """Every point once per repetition, in another order each time, so that drift does not become a curve."""
    order = random.Random(seed)
    for repetition in range(repetitions):
        row = list(items)
        order.shuffle(row)
        yield from ((repetition, point) for point in row)


def described(point: Point) -> dict[str, Any]:
    """A point for the results file."""
    return {key: value for key, value in asdict(point).items() if key != "tiny"}
