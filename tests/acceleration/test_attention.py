import pytest
import torch

from helpers.tiny import tiny_config
from m33d_hf.acceleration import attention as kernels
from m33d_hf.acceleration.attention import attends_in_blocks, blocks, blockwise_attention
from m33d_hf.modeling.layers_m33d import M33DAttention


def attended(attend, query, key, value):
    """Output (B, N, heads, d) and the gradients of all three, in float64."""
    given = [each.detach().clone().requires_grad_() for each in (query, key, value)]
    output = attend(*given)
    found = torch.autograd.grad((output * torch.cos(output.detach())).sum(), given)
    return [value.detach().double() for value in (output, *found)]


def written_out(query, key, value):
    weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, dim=-1)
    return (weights @ value).transpose(1, 2)


def in_blocks(query, key, value):
    return blockwise_attention(query, key, value, query.shape[-1] ** -0.5)


def drawn(samples, heads, queries, keys, dtype):
    torch.manual_seed(0)
    lengths = (queries, keys, keys)
    # Strided as the heads of a fused projection are.
    return [torch.randn(samples, n, heads, 16).to(dtype).transpose(1, 2) for n in lengths]


@pytest.mark.parametrize("most", [1 << 20, 500, 100, 1])
@pytest.mark.parametrize("shape", [(3, 2, 9, 9), (2, 3, 17, 40), (1, 1, 1, 1), (5, 4, 8, 3)])
def test_blocks_change_nothing_but_the_order(monkeypatch, most, shape):
    """In float64 there is no rounding to hide behind, whatever the blocks are."""
    monkeypatch.setattr(kernels, "SCORES_AT_ONCE", most)
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 4)
    given = drawn(*shape, torch.float64)
    # Sums over blocks are float32.
    for found, expected in zip(attended(in_blocks, *given), attended(written_out, *given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (21, 10, 20), (12, 1568, 1568), (36, 49, 49), (2, 4000, 9000)])
def test_blocks_cover_everything_once_and_fit(shape):
    heads, rows, columns = shape
    seen = torch.zeros(heads, rows, dtype=torch.int64)
    for head, row in blocks(*shape):
        seen[head, row] += 1
        assert seen[head, row].numel() * columns <= kernels.SCORES_AT_ONCE
    assert (seen == 1).all()


def test_bfloat16_is_as_exact_as_attention_written_out():
    given = drawn(2, 3, 60, 90, torch.bfloat16)
    exact = attended(written_out, *(each.double() for each in given))
    found, plain = attended(in_blocks, *given), attended(written_out, *given)
    for ours, usual, expected in zip(found, plain, exact, strict=True):
        assert (ours - expected).norm() <= 1.3 * (usual - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.parametrize(("dtype", "dropout", "chosen"), [
    (torch.bfloat16, 0.0, True), (torch.float32, 0.0, False), (torch.bfloat16, 0.1, False)
])  # fmt: skip
def test_where_it_is_taken(monkeypatch, dtype, dropout, chosen):
    monkeypatch.setattr(kernels, "prefers_blocks", lambda: True)
    assert attends_in_blocks(torch.zeros(1, 1, 2, 4, dtype=dtype), dropout) is chosen
    assert not attends_in_blocks(torch.zeros(1, 1, 2, 4, dtype=dtype, device="meta"), dropout)
    assert not attends_in_blocks(torch.zeros(0, 1, 2, 4, dtype=dtype), dropout), "nothing to attend from"
    monkeypatch.setattr(kernels, "prefers_blocks", lambda: False)
    assert not attends_in_blocks(torch.zeros(1, 1, 2, 4, dtype=dtype), dropout)


def test_layers_take_it_under_autocast_and_agree_with_the_fused_kernel(monkeypatch):
    config = tiny_config()
    config._attn_implementation = kernels.NAME
    torch.manual_seed(0)
    attention = M33DAttention(config, 32, 4).eval()
    tokens = torch.randn(2, 9, 32)
    outputs = {}
    for wanted in (True, False):
        monkeypatch.setattr(kernels, "prefers_blocks", lambda wanted=wanted: wanted)
        with torch.autocast("cpu", torch.bfloat16):
            outputs[wanted] = attention(tokens)[0].float()
    assert not torch.equal(outputs[True], outputs[False])
    torch.testing.assert_close(outputs[True], outputs[False], rtol=0.05, atol=0.01)
