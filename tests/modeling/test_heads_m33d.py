"""The dense heads: sizes of the original models, functions written out, odd and non-square grids."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from m33d_hf.errors import ConfigError
from m33d_hf.modeling import heads_m33d
from m33d_hf.modeling.heads_m33d import (
    ConvNeXtSegmentationHead,
    DPTDepthHead,
    FusionBlock,
    evenly_spaced_layers,
    scaled_stem_channels,
    tokens_to_map,
)

VIT_BASE_BLOCKS = 12 * 7_087_872  # qkv, proj, MLP and two norms at width 768
PATCH_EMBEDDING = 768 * 3 * 16 * 16 + 768
IDLE_UNIT = 2 * (9 * 256 * 256 + 256)  # of the original; nothing reads it, we leave it out


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_hooks_are_evenly_spaced_and_end_at_the_last_block() -> None:
    assert evenly_spaced_layers(12) == [2, 5, 8, 11]
    assert evenly_spaced_layers(24) == [5, 11, 17, 23]
    assert evenly_spaced_layers(4) == [0, 1, 2, 3]
    assert evenly_spaced_layers(2) == [0, 0, 1, 1]
    assert scaled_stem_channels(768) == [96, 192, 384, 768]


def test_segmentation_model_size_is_the_originals() -> None:
    head = ConvNeXtSegmentationHead(768, num_labels=40, width=384, depth=4, upscale=4)
    trainable = VIT_BASE_BLOCKS + PATCH_EMBEDDING + 768 + _size(head)  # 768: the class token
    assert trainable == 95_192_104  # MultiMAE's own modules: 95.192 M trainable
    assert round((trainable + 40 * 40 * 768) / 1e6, 3) == 96.421  # with the frozen table of a 640-pixel image


def test_depth_model_size_is_the_originals_without_its_idle_unit() -> None:
    head = DPTDepthHead(768, 256, [96, 192, 384, 768])
    total = VIT_BASE_BLOCKS + PATCH_EMBEDDING + 768 + 16 * 16 * 768 + _size(head)
    assert round((total + IDLE_UNIT) / 1e6, 3) == 105.908  # MultiMAE's own modules, counted


def test_sub_positions_are_slow_and_channels_fast() -> None:
    head = ConvNeXtSegmentationHead(4, num_labels=2, width=3, depth=0, upscale=2)
    tokens = torch.randn(1, 6, 4)  # grid 2 x 3
    values = head.projection(tokens)  # (1, 6, 12)
    expected = torch.zeros(1, 3, 4, 6)
    for row in range(2):
        for column in range(3):
            for sub in range(4):
                piece = values[0, row * 3 + column, sub * 3 : sub * 3 + 3]
                expected[0, :, row * 2 + sub // 2, column * 2 + sub % 2] = piece
    logits = head(tokens, (2, 3), (4, 6))
    torch.testing.assert_close(logits, head.classifier(expected))


def test_convnext_block_written_out() -> None:
    head = ConvNeXtSegmentationHead(4, num_labels=2, width=8, depth=1, upscale=2)
    block, x = head.blocks[0], torch.randn(2, 8, 5, 6)
    y = F.conv2d(x, block.depthwise.weight, block.depthwise.bias, padding=3, groups=8).permute(0, 2, 3, 1)
    mean, variance = y.mean(-1, keepdim=True), y.var(-1, unbiased=False, keepdim=True)
    y = (y - mean) / (variance + 1e-6).sqrt() * block.norm.weight + block.norm.bias
    y = y @ block.fc1.weight.T + block.fc1.bias
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5)) @ block.fc2.weight.T + block.fc2.bias
    torch.testing.assert_close(block(x), x + y.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_dpt_at_an_even_grid_equals_doubling_at_every_level() -> None:
    """Where every side is even, resizing to the next map's size is the original's 'times two'."""
    torch.manual_seed(0)
    head = DPTDepthHead(8, 16, [1, 2, 4, 8]).eval()
    tokens = [torch.randn(2, 4 * 6, 8) for _ in range(4)]
    maps = [f(s(tokens_to_map(t, (4, 6)))) for t, s, f in zip(tokens, head.stems, head.laterals)]
    assert [tuple(m.shape[-2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]

    def double(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def unit(u: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x + u.conv2(torch.relu(u.conv1(torch.relu(x))))

    path = head.fusions[3].projection(double(unit(head.fusions[3].unit, maps[3])))
    for level in (2, 1, 0):
        block: FusionBlock = head.fusions[level]
        path = block.projection(double(unit(block.unit, path + unit(block.skip_unit, maps[level]))))
    expected = head.predict(torch.relu(head.refine(double(head.reduce(path)))))[:, 0]
    torch.testing.assert_close(head(tokens, (4, 6), (64, 96)), expected)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (15, 20), (1, 4)])
@pytest.mark.parametrize("patch", [4, 8, 16])
def test_any_grid_and_patch_size_reaches_full_resolution(grid: tuple[int, int], patch: int) -> None:
    size = (grid[0] * patch, grid[1] * patch)
    depth_head = DPTDepthHead(8, 8, scaled_stem_channels(8))
    number = grid[0] * grid[1]
    tokens = [torch.randn(2, number, 8) for _ in range(4)]
    assert depth_head(tokens, grid, size).shape == (2, *size)
    segmentation_head = ConvNeXtSegmentationHead(8, 3, width=4, depth=1, upscale=2)
    assert segmentation_head(tokens[0], grid, size).shape == (2, 3, *size)


def test_every_parameter_of_both_heads_gets_a_gradient() -> None:
    depth_head = DPTDepthHead(8, 8, scaled_stem_channels(8))
    tokens = [torch.randn(2, 15, 8) for _ in range(4)]
    depth_head(tokens, (3, 5), (24, 40)).sum().backward()
    segmentation_head = ConvNeXtSegmentationHead(8, 3, width=4, depth=2, upscale=2)
    segmentation_head(tokens[0], (3, 5), (24, 40)).square().sum().backward()
    for head in (depth_head, segmentation_head):
        assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_a_wrong_number_of_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="depth_head_stem_channels must have 4 values"):
        DPTDepthHead(8, 8, [1, 2])


def test_prediction_mixes_channels_before_enlarging_and_gives_the_same() -> None:
    torch.manual_seed(0)
    head = DPTDepthHead(24, 16, [3, 6, 12, 24]).eval()
    tokens = [torch.randn(2, 15, 24) for _ in range(4)]
    sides: list[tuple[int, ...]] = []
    head.fusions[0].projection.register_forward_hook(lambda _, given, out: sides.append(tuple(out.shape[-2:])))
    learning = head(tokens, (3, 5), (48, 80)).detach()
    exact = head.double()([each.double() for each in tokens], (3, 5), (48, 80)).detach()
    with torch.no_grad():
        predicting = head.float()(tokens, (3, 5), (48, 80))
    assert sides == [(24, 40), (24, 40), (12, 20)], "a quarter of the pixels"
    for found in (learning, predicting):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


def test_large_maps_of_a_batch_are_predicted_a_few_at_a_time_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = ConvNeXtSegmentationHead(16, num_labels=5, width=8, depth=2, upscale=2).eval()
    tokens = torch.randn(5, 12, 16)  # grid 3 x 4: maps of 8 x 6 x 8 values
    values, threads = 8 * 6 * 8, [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    batches: list[int] = []
    head.blocks[0].register_forward_hook(lambda _, given, out: batches.append(len(given[0])))

    def predict(pictures: torch.Tensor) -> torch.Tensor:
        batches.clear()
        with torch.no_grad():
            return head(pictures, (3, 4), (48, 64))

    whole = predict(tokens)
    assert batches == [5], "small maps stay together"
    for threads[0], expected in ((1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (8, [5])):
        monkeypatch.setattr(heads_m33d, "LARGE_MAP", values)
        torch.testing.assert_close(predict(tokens), whole)
        assert batches == expected
        monkeypatch.setattr(heads_m33d, "LARGE_MAP", values - 1)
        torch.testing.assert_close(predict(tokens), whole)
        monkeypatch.setattr(heads_m33d, "LARGE_MAP", values + 1)
        predict(tokens)
        assert batches == [5]
    threads[0] = 1
    monkeypatch.setattr(heads_m33d, "LARGE_MAP", values)
    predict(tokens[:1])
    assert batches == [1]
    assert predict(tokens[:0]).shape == (0, 5, 48, 64)
    batches.clear()
    torch.testing.assert_close(head(tokens, (3, 4), (48, 64)).detach(), whole)
    assert batches == [5], "gradients are kept of the whole batch"


def test_a_projection_of_another_kind_predicts_large_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.inner(values)

    monkeypatch.setattr(heads_m33d, "LARGE_MAP", 1)
    head = ConvNeXtSegmentationHead(16, num_labels=5, width=8, depth=1, upscale=2).eval()
    tokens = torch.randn(3, 12, 16)
    with torch.no_grad():
        before = head(tokens, (3, 4), (48, 64))
        head.projection = Wrapped(head.projection)  # type: ignore[assignment]
        assert torch.equal(head(tokens, (3, 4), (48, 64)), before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_symbolic_graph_takes_another_number_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_m33d, "LARGE_MAP", 1)
    head = ConvNeXtSegmentationHead(16, num_labels=5, width=8, depth=1, upscale=2).eval()
    weights = dict(head.named_parameters())

    def predict(values: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(head, values, (tokens, (3, 4), (48, 64)))

    with torch.no_grad():
        graph = make_fx(predict, tracing_mode="symbolic")(weights, torch.randn(3, 12, 16))
        tokens = torch.randn(5, 12, 16)
        torch.testing.assert_close(graph(weights, tokens), predict(weights, tokens))


def test_a_graph_of_the_segmentation_head_holds_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_m33d, "LARGE_MAP", 1)
    head = ConvNeXtSegmentationHead(16, num_labels=5, width=8, depth=1, upscale=2).eval()
    tokens = torch.randn(3, 12, 16)
    with torch.no_grad():
        graph = torch.export.export(head, (tokens, (3, 4), (48, 64))).graph
    assert sum("conv2d" in str(node.target) for node in graph.nodes) == 2, "one block and the classifier, once"
