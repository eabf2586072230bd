import math

import pytest
import torch

from helpers.tiny_task import TinyModel
from m33d_hf.errors import ConfigError
from m33d_hf.training.processes.optimization import (
    build_optimizer,
    layer_id,
    learning_rate_schedule,
    parameter_groups,
    set_learning_rate,
    takes_weight_decay,
)
from m33d_hf.training.recipe.arguments import OptimArguments


def schedule(total=100, batch=256, epoch=10, **changes):
    return learning_rate_schedule(
        OptimArguments(**changes), effective_batch=batch, steps_per_epoch=epoch, total_steps=total
    )


def test_cosine_with_linear_warmup_hits_its_corners():
    rate = schedule(learning_rate=1.0, warmup_steps=10, warmup_lr=0.1, min_lr=0.2, scale_lr=False)
    assert rate(0) == pytest.approx(0.1)
    assert rate(5) == pytest.approx(0.55)
    assert rate(10) == pytest.approx(1.0)
    assert rate(55) == pytest.approx(0.6)  # half way down
    assert rate(100) == pytest.approx(0.2)
    assert rate(30) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 20 / 90)) / 2)


def test_constant_schedule_stays_at_the_peak():
    rate = schedule(learning_rate=0.3, schedule="constant", scale_lr=False)
    assert [rate(step) for step in (0, 50, 99)] == [0.3, 0.3, 0.3]


def test_rates_scale_with_the_effective_batch():
    rate = schedule(batch=1024, learning_rate=1e-4, warmup_lr=1e-6, min_lr=1e-5, warmup_epochs=1.5)
    assert (rate.peak, rate.warmup_start, rate.floor) == pytest.approx((4e-4, 4e-6, 4e-5))
    assert rate.warmup_steps == 15


def test_warmup_steps_win_over_warmup_epochs():
    assert schedule(warmup_steps=3, warmup_epochs=5).warmup_steps == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m33d.embeddings.rgb.projection.weight", 0),
        ("m33d.embeddings.depth.cls_token", 0),
        ("m33d.positions.spatial", 0),
        ("m33d.encoders.shared.register_tokens", 0),
        ("m33d.encoders.rgb.layers.0.attention.qkv.weight", 1),
        ("m33d.encoders.shared.layers.11.mlp.fc2.bias", 12),
        ("m33d.encoders.rgb.layernorm.weight", 13),
        ("decoder.layers.0.mlp.fc1.weight", 13),
        ("head.weight", 13),
    ],
)
def test_layer_ids(name, expected):
    assert layer_id(name, depth=12) == expected


def test_norms_biases_scalars_and_tokens_take_no_decay():
    assert takes_weight_decay(torch.zeros(4, 3)) and takes_weight_decay(torch.zeros(1, 4))
    assert takes_weight_decay(torch.zeros(8, 3, 2, 4, 4))
    for shape in [(), (4,), (1, 1, 4)]:
        assert not takes_weight_decay(torch.zeros(shape))
    for name in ["m33d.positions.spatial", "m33d.positions.temporal", "positions.spatial"]:
        assert not takes_weight_decay(torch.zeros(16, 4), name)
    assert not takes_weight_decay(torch.zeros(1, 4, 8), "m33d.encoders.rgb.register_tokens")


def test_groups_cover_every_trainable_parameter_once_with_its_scale():
    model = TinyModel(depth=2)
    model.head.bias.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    by_id = {id(p): group for group in groups for p in group["params"]}
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(by_id) == sum(len(group["params"]) for group in groups) == len(trainable)
    layer = model.encoders["rgb"]["layers"]
    assert by_id[id(model.embeddings["rgb"].weight)]["lr_scale"] == 0.5**3
    assert by_id[id(layer[0].fc.weight)]["lr_scale"] == 0.5**2
    assert by_id[id(layer[1].fc.bias)]["lr_scale"] == 0.5
    assert by_id[id(model.head.weight)]["lr_scale"] == 1.0
    assert by_id[id(model.head.weight)]["weight_decay"] == 0.05
    assert by_id[id(model.cls_token)]["weight_decay"] == 0.0
    assert by_id[id(layer[0].norm.weight)]["weight_decay"] == 0.0


def test_without_layer_decay_there_are_two_groups_of_scale_one():
    groups = parameter_groups(TinyModel(), weight_decay=0.1)
    assert [(g["lr_scale"], g["weight_decay"]) for g in groups] in ([(1.0, 0.1), (1.0, 0.0)], [(1.0, 0.0), (1.0, 0.1)])


def test_learning_rate_reaches_every_group_scaled():
    optimizer = build_optimizer(TinyModel(), OptimArguments(layer_decay=0.5))
    set_learning_rate(optimizer, 0.8)
    assert all(group["lr"] == pytest.approx(0.8 * group["lr_scale"]) for group in optimizer.param_groups)
    assert optimizer.defaults["fused"]


def test_a_frozen_model_is_refused():
    model = TinyModel().requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameters"):
        build_optimizer(model, OptimArguments())


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 1000.0}, {"warmup_steps": 5000}])
def test_a_recipes_warmup_yields_to_a_shorter_run(warmup):
    rate = schedule(**warmup)
    assert rate.warmup_asked > rate.total_steps
    assert rate.warmup_steps == rate.total_steps // 10
