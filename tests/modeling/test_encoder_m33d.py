"""Fixed position tables of other grids than the configured one: computed once, and no part of the model."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from m33d_hf.modeling import encoder_m33d
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality
from m33d_hf.modeling.encoder_m33d import M33DPositions
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.patches_m33d import interpolate_table, position_table

TINY: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8, "modalities": [rgb_modality()],
}  # fmt: skip
CLIP = {"num_frames": 4, "tubelet_size": 2}


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    encoder_m33d._kept_table.cache_clear()


class Interpolations(TorchFunctionMode):
    """Counts calls of `interpolate`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.nn.functional.interpolate
        return function(*args, **(kwargs or {}))


def _pixels(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("resize", ["interpolate", "antialias", "rebuild"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(1, 4, 4), (1, 6, 5), (1, 2, 3)])
def test_a_kept_table_is_bit_equal_to_a_new_one(resize: str, dtype: torch.dtype, grid: tuple[int, int, int]) -> None:
    positions = M33DPositions(M33DConfig(**TINY, position_embedding_resize=resize), 16).to(dtype)
    start = position_table("sincos_2d", (1, 4, 4), 16).to(dtype)
    expected = position_table("sincos_2d", grid, 16).to(dtype)
    if resize != "rebuild":
        expected = interpolate_table(start, (1, 4, 4), grid, antialias=resize == "antialias")
    for _ in range(2):
        assert torch.equal(positions(grid), expected) and positions(grid).dtype == dtype


def test_clips_of_another_length_have_a_table_of_their_own() -> None:
    positions = M33DPositions(M33DConfig(**TINY, **CLIP), 16)
    assert positions.kind == "sincos_1d"
    for slots in (1, 3, 1):
        assert torch.equal(positions((slots, 4, 4)), position_table("sincos_1d", (slots, 4, 4), 16))


def test_a_size_is_interpolated_once_for_all_passes_and_models() -> None:
    model, other = M33DModel(M33DConfig(**TINY)).eval(), M33DModel(M33DConfig(**TINY)).eval()
    with torch.no_grad(), Interpolations() as seen:
        model(_pixels(32, 32))
        assert seen.count == 0
        first = model(_pixels(48, 40)).last_hidden_state
        assert seen.count == 1
        assert torch.equal(model(_pixels(48, 40)).last_hidden_state, first)
        other(_pixels(48, 40))
        assert seen.count == 1
        model(_pixels(40, 48))
        assert seen.count == 2


def test_a_table_of_a_prediction_serves_a_training() -> None:
    model = M33DModel(M33DConfig(**TINY))
    with torch.inference_mode():
        model.eval()(_pixels(48, 40))
    model.train()(_pixels(48, 40)).last_hidden_state.sum().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_nothing_of_it_is_in_the_model() -> None:
    model = M33DModel(M33DConfig(**TINY)).eval()
    names, size = list(model.state_dict()), len(pickle.dumps(model))
    with torch.inference_mode():
        expected = model(_pixels(48, 40)).last_hidden_state
    assert list(model.state_dict()) == names and len(pickle.dumps(model)) == size
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.inference_mode():
            assert torch.equal(twin(_pixels(48, 40)).last_hidden_state, expected)


def test_it_follows_the_model_to_another_type_and_device() -> None:
    model = M33DModel(M33DConfig(**TINY)).eval()
    with torch.no_grad():
        single = model(_pixels(48, 40)).last_hidden_state
        double = model.double()(_pixels(48, 40).double()).last_hidden_state
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)
    nowhere = model.to("meta")(_pixels(48, 40).to("meta", torch.float64)).last_hidden_state
    assert nowhere.device.type == "meta" and encoder_m33d._kept_table.cache_info().currsize == 2


def test_a_compiled_model_is_one_graph_and_keeps_nothing() -> None:
    model = M33DModel(M33DConfig(**TINY)).eval()
    with torch.no_grad():
        expected = model(_pixels(48, 40)).last_hidden_state
        encoder_m33d._kept_table.cache_clear()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(_pixels(48, 40)).last_hidden_state, expected, rtol=1e-5, atol=1e-6)
    assert encoder_m33d._kept_table.cache_info().currsize == 0


def test_only_few_are_kept() -> None:
    positions = M33DPositions(M33DConfig(**TINY), 16)
    for side in range(5, 5 + 2 * encoder_m33d._TABLES_KEPT):
        positions((1, side, side))
    assert encoder_m33d._kept_table.cache_info().currsize == encoder_m33d._TABLES_KEPT
