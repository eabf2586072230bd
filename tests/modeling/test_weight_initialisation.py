"""Every weight of every model starts from its documented distribution, built fresh or missing from a checkpoint."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from helpers.tiny import CLIP, VARIANTS, both, tiny_config
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel, M33DPreTrainedModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

THERMAL = {"name": "thermal", "channels": 2, "input_name": "thermal_values", "mask_ratio": 0.5, "weight": 1.0}
TASKS = {"num_labels": 3, "num_hidden_layers": 4, "segmentation_head_width": 16, "depth_head_width": 16}
TASK_MODELS = (
    M33DModel,
    M33DForSemanticSegmentation,
    M33DForDepthEstimation,
    M33DForVideoClassification,
    M33DForVideoActionDetection,
)

CASES: dict[str, tuple[type[M33DPreTrainedModel], dict[str, Any]]] = {
    **{name: (M33DForPreTraining, fields) for name, fields in VARIANTS.items()},
    "no_cls_token": (M33DForPreTraining, {"use_cls_token": False}),
    "clip_with_cls_token": (M33DForPreTraining, {**CLIP, "use_cls_token": True}),
    "third_modality": (M33DForPreTraining, {"modalities": [*both(), THERMAL], "use_cls_token": False}),
    "no_qkv_bias": (M33DForPreTraining, {**CLIP, "qkv_bias": False}),
    "denoising": (M33DForPreTraining, {"modalities": both({"denoising_weight": 1.0}, {"denoising_weight": 1.0})}),
    **{cls.__name__: (cls, TASKS) for cls in TASK_MODELS},
    **{f"clips_{cls.__name__}": (cls, {**CLIP, **TASKS}) for cls in (M33DModel, *TASK_MODELS[3:])},
    "causal": (M33DForVideoActionDetection, {**CLIP, **TASKS, "temporal_causal": True}),
    "tcn": (M33DForVideoActionDetection, {**CLIP, **TASKS, "temporal_model": "tcn", "temporal_tcn_layers": 2}),
    "transformer": (M33DForVideoActionDetection, {**CLIP, **TASKS, "temporal_model": "transformer"}),
}

# Taken from the code as it was before patch kernels were drawn in the branch of the kernel itself.
BEFORE = {
    "stage2_literal": "1c965bf13bee9d9a",
    "stage1_literal": "92ab215dd137041b",
    "stage1_position_free": "92ab215dd137041b",
    "plus": "1afbbf2933221098",
    "mae": "0f34d2416ad76bd8",
    "mask3d": "da10062a5f861fa3",
    "rgb_to_depth": "59b32b2c9e0c9910",
    "cross": "1c965bf13bee9d9a",
    "shared_encoder": "1f5d7ad5102d4e08",
    "joint_encoding": "a04452cd76f25b94",
    "batch_negatives": "1c965bf13bee9d9a",
    "M33DModel": "55934dbca7528074",
    "M33DForSemanticSegmentation": "bf345563347d9ea5",
    "M33DForDepthEstimation": "25266d9ff7b3463a",
    "M33DForVideoClassification": "d41b7c9e3d88c9a9",
    "M33DForVideoActionDetection": "e4b0ad63d81f5920",
}

# What a checkpoint may lack: all, the patch kernels, what dictionaries hold, single tensors, norms, linear layers.
LACKING = (
    r".*",
    r".*projection\.(weight|bias)",
    r".*(modality_embeddings|task_embeddings|projections)\..*",
    r".*(mask_token|cls_token|global_token|register_tokens|log_temperature)",
    r".*positions\..*",
    r".*layernorm.*",
    r".*(attention\.qkv|gru|tcn|refinement_stages|classifier|heads)\b.*",
)


class _Poison(TorchFunctionMode):
    """Memory that nobody wrote to is NaN instead of whatever lay there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        fresh = getattr(func, "__name__", "") in ("empty", "empty_like", "new_empty", "empty_strided")
        if fresh and result.is_floating_point() and not result.is_meta:
            with torch.no_grad():
                result.detach().fill_(math.nan)
        return result


@contextmanager
def poisoned_memory() -> Iterator[None]:
    with _Poison():
        assert bool(torch.empty(3).isnan().all())
        yield


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _fans(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight[0].numel()


def _expected(name: str, weight: Tensor, config: M33DConfig) -> tuple[float, float]:
    """(mean, standard deviation) as the documentation has them, written down by the names of the weights."""
    per_target = config.decoder_kind == "per_target"
    if name.endswith("log_temperature"):
        return math.log(config.contrastive_temperature), 0.0
    if re.search(r"norm\w*\.weight$", name):
        return 1.0, 0.0
    if re.search(r"\bgru\b", name):
        return 0.0, config.temporal_hidden_size**-0.5 / math.sqrt(3)
    if re.search(r"\.(input|dilated|pointwise)\.", name) and "transformer" not in name:
        return 0.0, (_fan_in(name, weight, config)) ** -0.5 / math.sqrt(3)
    if re.search(r"((cls|outside|global|register)_tokens?|(modality|task)_embeddings\.\w+|positions(\.\w+)?)$", name):
        return 0.0, 0.02
    if name.endswith("mask_token"):
        return 0.0, 0.0 if per_target else 0.02
    return 0.0, _expected_of_layer(name, weight, config, per_target)


def _fan_in(name: str, weight: Tensor, config: M33DConfig) -> int:
    """Values that an output of a temporal convolution reads, for its weight and its bias."""
    if weight.ndim > 1:
        return _fans(weight)[1]
    width = config.temporal_hidden_size
    inputs = config.hidden_size if name.startswith("tcn.") else int(config.num_labels or 0)
    return {"input": inputs, "dilated": 3 * width, "pointwise": width}[name.split(".")[-2]]


def _expected_of_layer(name: str, weight: Tensor, config: M33DConfig, per_target: bool) -> float:
    if name.endswith("embeddings.rgb.projection.bias") or re.search(r"embeddings\.\w+\.projection\.bias$", name):
        channels = config.spec(name.split(".")[-3]).channels
        height, width = config.patch_height_width
        return (channels * config.tubelet_size * height * width) ** -0.5 / math.sqrt(3)
    if name.startswith(("segmentation_head.", "depth_head.")) and weight.ndim == 4:
        return (_fans(weight)[1] * 3) ** -0.5
    if name.startswith("depth_head.") or (name.startswith("segmentation_head.") and "bias" in name):
        return math.nan  # torch's own ranges of convolutions' biases, which other tests hold
    if name.startswith("segmentation_head."):
        return config.initializer_range
    if name.endswith("bias"):
        return 0.0
    if name == "classifier.weight":
        return config.initializer_range * config.classifier_init_scale * 0.88  # cut at two deviations
    out, into = _fans(weight)
    if name.endswith("attention.qkv.weight") and per_target:
        return math.sqrt(2 / (out // 3 + into))
    return math.sqrt(2 / (out + into))


def _check(name: str, weight: Tensor, config: M33DConfig) -> None:
    assert bool(torch.isfinite(weight).all()), f"{name} holds memory that nobody wrote"
    mean, std = _expected(name, weight, config)
    if math.isnan(std):
        return
    if std == 0.0:
        torch.testing.assert_close(weight, torch.full_like(weight, mean), msg=f"{name} is not {mean}")
    elif weight.numel() >= 32:
        found, noise = float(weight.std()), 5 / math.sqrt(2 * weight.numel())
        assert found == pytest.approx(std, rel=noise), f"{name}: std {found:.4f}, documented {std:.4f}"
        assert abs(float(weight.mean())) < 5 * std / math.sqrt(weight.numel()), name


def _model(case: str) -> M33DPreTrainedModel:
    cls, fields = CASES[case]
    torch.manual_seed(0)
    return cls(tiny_config(**fields))


@pytest.mark.parametrize("case", CASES)
def test_a_fresh_model_has_the_documented_deviations(case: str) -> None:
    with poisoned_memory():
        model = _model(case)
    for name, weight in model.state_dict().items():
        _check(name, weight, model.config)


@pytest.mark.parametrize("case", CASES)
def test_what_a_checkpoint_lacks_is_drawn_and_the_rest_is_left_alone(case: str) -> None:
    model = _model(case)
    whole = {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    for pattern in LACKING:
        given = {name: tensor for name, tensor in whole.items() if not re.fullmatch(pattern, name)}
        torch.manual_seed(1)
        with poisoned_memory():
            loaded = type(model).from_pretrained(None, config=model.config, state_dict=dict(given))
        for name, weight in loaded.state_dict().items():
            if name in given:
                assert torch.equal(weight, given[name]), f"{name} was loaded and then written to"
            else:
                _check(name, weight, model.config)


@pytest.mark.parametrize("case", BEFORE)
def test_image_models_with_a_class_token_start_as_they_always_did(case: str) -> None:
    model = _model(case)
    assert model.config.use_cls_token
    assert _digest(model) == BEFORE[case]


def test_every_patch_kernel_of_the_paper_models_is_xavier() -> None:
    """The figures of the report: .0361 for 768 x 768, where torch's own range of a convolution gives .0209."""
    for fields in ({"num_frames": 16, "tubelet_size": 1}, {"use_cls_token": False}):
        model = M33DModel(M33DConfig(num_hidden_layers=1, **fields))
        assert float(model.embeddings["rgb"].projection.weight.detach().std()) == pytest.approx(0.0361, abs=3e-4)


def test_multimae_draws_query_key_and_value_apart() -> None:
    fields = VARIANTS["multimae"] | {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
    fields |= {"decoder_hidden_size": 256, "decoder_num_attention_heads": 8, "decoder_intermediate_size": 64}
    model = M33DForPreTraining(M33DConfig(**fields))
    qkv = {name: weight for name, weight in model.state_dict().items() if name.endswith("attention.qkv.weight")}
    assert len(qkv) == 1 + 3 * 2  # one encoder block; per decoder the cross-attention and one block
    for name, weight in qkv.items():
        wanted = 0.0361 if name.startswith("m33d.") else 0.0625
        assert float(weight.std()) == pytest.approx(wanted, rel=0.01), name
    plain = M33DForPreTraining(M33DConfig(num_hidden_layers=1, decoder_num_hidden_layers=1))
    fused = plain.m33d.encoders["rgb"].layers[0].attention.qkv.weight
    assert float(fused.detach().std()) == pytest.approx(0.0255, rel=0.01)  # MAE: one matrix of 3 D rows
