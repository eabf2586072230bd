"""T6: pre-training compiles into one graph, and its step depends on no value of its data.

A graph break, a shape that depends on data, or a host-device copy would bar `torch.compile(fullgraph=True)` and CUDA
graphs, and each costs a synchronisation in eager mode. What a GPU would do is asked of fake CUDA tensors, and of a GPU
where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from helpers.devices import NEEDS_CUDA
from helpers.host_traffic import HostTraffic, no_waiting
from helpers.pretraining_cases import methods_with_rooms, pretraining_config
from helpers.tiny import VARIANTS, random_batch, tiny_config
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.recipe import recipes

SMALL = ("num_hidden_layers", "decoder_num_hidden_layers")
NAMED = [  # what T6 names, images and clips; the other methods need only be one graph
    ("rooms/pretrain_clips", "m33d"),
]
NAMED_TOO = [
    ("rooms/pretrain", "mae"),
    ("rooms/pretrain_stage1", "m33d"),
    ("rooms/pretrain_stage2", "m33d"),
    ("rooms/pretrain_stage2", "m33d_plus"),
]
TASKS = {
    "semantic_segmentation": (M33DForSemanticSegmentation, {"num_labels": 5}),
    "depth_estimation": (M33DForDepthEstimation, {"num_hidden_layers": 4}),
    "video_classification": (M33DForVideoClassification, {"num_labels": 5, "num_frames": 4, "tubelet_size": 2}),
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small(recipe: str, method: str) -> M33DConfig:
    words = [word for name in SMALL for word in (f"--model.{name}", "1")]
    return pretraining_config(recipe, method, *words)


def whole_batch(config: M33DConfig, samples: int = 3) -> dict[str, Any]:
    """A batch as the collator hands it on: with the visible tokens, and with what is hidden from the decoder."""
    batch: dict[str, Any] = random_batch(config, samples)
    for spec in config.specs:
        if spec.input_name not in batch:
            shape = (*batch["pixel_values"].shape[:-3], spec.channels, *batch["pixel_values"].shape[-2:])
            batch[spec.input_name] = torch.randn(shape)
    generator = torch.Generator().manual_seed(0)
    batch["keep"] = draw_keep(config, samples, generator=generator, motion=torch.rand(samples, config.num_tokens))
    dropped = [spec.name for spec in config.input_specs if spec.drop_probability > 0]
    if dropped:
        batch["hide"] = {name: torch.arange(samples) % 2 == 0 for name in dropped}
    if config.denoised_specs:
        batch["noise"] = {spec.name: torch.randn_like(batch[spec.input_name]) for spec in config.denoised_specs}
    if config.distillation_weight > 0:
        embeddings = {spec.name: torch.randn(samples, config.hidden_size) for spec in config.input_specs}
        batch["teacher_features"] = embeddings
    return batch


def loss_and_gradients(model: nn.Module, batch: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(3)
    loss = model(**batch).loss
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def compare_compiled(config: M33DConfig, backend: str, tolerance: float) -> None:
    torch.manual_seed(0)
    model = M33DForPreTraining(config).train()
    batch = whole_batch(config)
    loss, gradients = loss_and_gradients(model, batch)
    model.compile(fullgraph=True, dynamic=False, backend=backend)
    compiled_loss, compiled_gradients = loss_and_gradients(model, batch)
    assert compiled_loss == pytest.approx(loss, rel=tolerance, abs=tolerance)
    assert len(compiled_gradients) == len(gradients) > 0
    for one, other in zip(gradients, compiled_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e3 * tolerance, atol=max(1e-6, tolerance))


@pytest.mark.parametrize(
    ("recipe", "method"), [*NAMED, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in NAMED_TOO)]
)
def test_compiled_loss_and_gradients_are_the_eager_ones(recipe: str, method: str) -> None:
    compare_compiled(small(recipe, method), "aot_eager", tolerance=1e-7)


def one_recipe_each() -> list[tuple[str, str]]:
    """(recipe, method) of every method on disk that T6 does not name: its last kind, clips where it has them."""
    last = {method: recipe for recipe, method in methods_with_rooms()}
    return [(recipe, method) for method, recipe in last.items() if (recipe, method) not in NAMED]


# What breaks a graph is asked of every method by the fake tensors below, in a fraction of the time.
@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "method"), one_recipe_each())
def test_every_method_is_one_graph(recipe: str, method: str) -> None:
    config = small(recipe, method)
    torch.manual_seed(0)
    model = M33DForPreTraining(config).train()
    batch = whole_batch(config)
    expected = float(model(**batch).loss)
    model.compile(fullgraph=True, dynamic=False, backend="eager")
    assert float(model(**batch).loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "method"), [("rooms/pretrain", "mae"), ("rooms/pretrain_clips", "m33d")])
def test_inductor(recipe: str, method: str) -> None:
    compare_compiled(small(recipe, method), "inductor", tolerance=1e-5)


def test_no_second_graph_for_a_second_batch() -> None:
    config = tiny_config(**VARIANTS["plus"])
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    model = M33DForPreTraining(config).train()
    model.compile(fullgraph=True, dynamic=False, backend=counting)
    for seed in range(3):
        torch.manual_seed(seed)
        model(**whole_batch(config)).loss.backward()
    assert len(graphs) == 1


def configured(name: str) -> M33DConfig:
    """A variant of the tests' helpers, or a method on disk with its last kind."""
    if name in VARIANTS:
        return tiny_config(**VARIANTS[name])
    return small({method: recipe for recipe, method in methods_with_rooms()}[name], name)


def moved(model: nn.Module, device: str) -> None:
    """Give a model fake weights on a fake device; to be called under FakeTensorMode."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(torch.empty(weight.shape, device=device))
        for name, table in module._buffers.items():
            if table is not None:
                module._buffers[name] = torch.empty(table.shape, dtype=table.dtype, device=device)


def on(device: str, batch: dict[str, Any]) -> dict[str, Any]:
    """Fake tensors of the same shapes; to be called under FakeTensorMode."""
    return {
        key: on(device, v) if isinstance(v, dict) else torch.empty(v.shape, dtype=v.dtype, device=device)
        for key, v in batch.items()
    }


@pytest.mark.parametrize("name", [*VARIANTS, *recipes.method_names()])
def test_nothing_moves_between_host_and_device(name: str) -> None:
    config = configured(name)
    model = M33DForPreTraining(config).train()
    real = whole_batch(config)  # masks are drawn on the host, by the collator
    with FakeTensorMode():
        moved(model, "cuda")
        batch = on("cuda", real)
        with HostTraffic() as traffic:
            model.loss_counts(**batch)
            assert model(**batch).loss.device.type == "cuda"
    assert not traffic.found


@pytest.mark.parametrize("name", [*VARIANTS, *recipes.method_names()])
def test_no_operation_depends_on_values(name: str) -> None:
    """Fake tensors have no values: .item(), nonzero or a boolean index would raise. Backward and optimizer included."""
    config = configured(name)
    model = M33DForPreTraining(config).train()
    real = whole_batch(config)
    with FakeTensorMode():
        moved(model, "cpu")
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3), fused=True)
        batch = on("cpu", real)
        model.loss_counts(**batch)
        model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="where CUDA is, constants are made on the device, unseen")
def test_the_proof_notices_a_host_constant() -> None:
    with FakeTensorMode():
        values = torch.empty(3, device="cuda")
        with HostTraffic() as traffic:
            values * torch.tensor([1.0, 2.0, 3.0], device="cuda")
    assert traffic.found


@NEEDS_CUDA
@pytest.mark.parametrize("name", [*VARIANTS, *recipes.method_names()])
def test_the_host_never_waits_for_the_device(name: str) -> None:
    config = configured(name)
    model = M33DForPreTraining(config).train().cuda()
    batch = tree_map(torch.Tensor.cuda, whole_batch(config))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):  # libraries may wait when they begin
        torch.cuda.synchronize()
        with no_waiting():
            model.loss_counts(**batch)
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()


@NEEDS_CUDA
def test_a_wait_for_the_device_is_noticed() -> None:
    values = torch.ones(3, device="cuda")
    with no_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        values.sum().item()


# One dense model suffices beside the clips: depth's, which halves its map and needs the most of the dimensions.
@pytest.mark.parametrize("task", [pytest.param(task, marks=[pytest.mark.slow] * (task == "semantic_segmentation"))
                                  for task in TASKS])  # fmt: skip
def test_task_models_export_for_any_batch_height_and_width(task: str) -> None:
    factory, overrides = TASKS[task]
    torch.manual_seed(0)
    model = factory(tiny_config(**overrides)).eval()
    lead = (3,) if "num_frames" not in overrides else (overrides["num_frames"], 3)
    sides = {number + len(lead): 8 * torch.export.Dim(name, min=3) for number, name in ((1, "rows"), (2, "columns"))}
    dynamic = {"pixel_values": {0: torch.export.Dim("batch"), **sides}}
    name = "predicted_depth" if task == "depth_estimation" else "logits"
    with torch.no_grad():
        given = {"pixel_values": torch.randn(2, *lead, 32, 40)}
        program = torch.export.export(model, (), given, dynamic_shapes=dynamic)
        exported = program.module()
        for batch, height, width in ((1, 32, 32), (3, 24, 48)):
            given = {"pixel_values": torch.randn(batch, *lead, height, width)}
            torch.testing.assert_close(exported(**given)[name], getattr(model(**given), name), rtol=1e-5, atol=1e-6)
