import pytest
import torch
from torch import nn

from m33d_hf.acceleration import linear as kernels
from m33d_hf.acceleration.linear import CPULinear, cpu_linear

WIDE = (3, 70, 384, 512)  # batch, tokens, inputs, outputs: large enough for oneDNN

needs_onednn = pytest.mark.skipif(
    not kernels.has_fast_products(), reason="this CPU has no AVX-512, so torch's own products are used throughout"
)


@pytest.fixture
def calls(monkeypatch):
    """How many products oneDNN was given."""
    made = []
    product = kernels._product

    def counted(*operands):
        made.append(operands)
        return product(*operands)

    monkeypatch.setattr(kernels, "_product", counted)
    return made


def layer_and_tokens(batch, tokens, inputs, outputs, bias=True, dtype=torch.float32):
    torch.manual_seed(0)
    layer = CPULinear(inputs, outputs, bias=bias).to(dtype)
    return layer, torch.randn(batch, tokens, inputs, dtype=dtype, requires_grad=True)


def gradients(layer, tokens, weight=None):
    output = cpu_linear(tokens, layer.weight if weight is None else weight, layer.bias)
    wanted = [value for value in (tokens, layer.weight, layer.bias) if value is not None]
    return output, torch.autograd.grad((output * torch.sin(output.detach())).sum(), wanted)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_equal_those_in_float64(calls, bias):
    layer, tokens = layer_and_tokens(*WIDE, bias=bias)
    output, found = gradients(layer, tokens)
    assert len(calls) == 3, "forward and both backward products"
    exact = CPULinear(384, 512, bias=bias).double()
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    expected_output, expected = gradients(exact, tokens.detach().double().requires_grad_())
    torch.testing.assert_close(output.double(), expected_output, rtol=0, atol=1e-5)
    for value, reference in zip(found, expected, strict=True):
        assert (value.double() - reference).norm() <= 2e-6 * reference.norm()


@needs_onednn
def test_rows_of_a_fused_projection(calls):
    """A slice of a weight, and tokens that are a strided view."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3 * 384, 512) / 20)
    tokens = torch.randn(300, 2, 512)[:, 1]
    output = cpu_linear(tokens, weight[384:768])
    (found,) = torch.autograd.grad(output.square().sum(), weight)
    (expected,) = torch.autograd.grad(nn.functional.linear(tokens, weight[384:768]).square().sum(), weight)
    assert calls
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert not found[:384].any() and not found[768:].any()


@needs_onednn
def test_only_wanted_gradients_are_computed(calls):
    layer, tokens = layer_and_tokens(*WIDE)
    layer.requires_grad_(False)
    layer(tokens).sum().backward()
    assert len(calls) == 2 and layer.weight.grad is None and tokens.grad is not None


@needs_onednn
def test_a_frozen_layer_keeps_no_tokens():
    layer, tokens = layer_and_tokens(*WIDE)
    kept = {}
    for frozen in (True, False):
        layer.requires_grad_(not frozen)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t) or t, lambda t: t):
            layer(tokens)
        kept[frozen] = [tensor.shape for tensor in saved]
    assert kept[True] == [layer.weight.shape] and set(kept[False]) == {layer.weight.shape, tokens.shape}


@needs_onednn
def test_tracing_sees_the_plain_layer(tmp_path):
    layer, tokens = layer_and_tokens(*WIDE)
    torch.jit.trace(layer, tokens.detach()).save(str(tmp_path / "layer.pt"))
    assert torch.allclose(torch.jit.load(str(tmp_path / "layer.pt"))(tokens), layer(tokens), atol=1e-5)


@needs_onednn
def test_a_gradient_can_be_derived_again():
    layer, tokens = layer_and_tokens(*WIDE)
    (first,) = torch.autograd.grad(layer(tokens).square().sum(), tokens, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), layer.weight)
    plain = nn.functional.linear(tokens, layer.weight, layer.bias).square().sum()
    (first,) = torch.autograd.grad(plain, tokens, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), layer.weight)
    assert (second - expected).norm() <= 1e-5 * expected.norm()


@needs_onednn
def test_function_transforms_go_through():
    layer, tokens = layer_and_tokens(*WIDE)
    found = torch.func.grad(lambda weight: cpu_linear(tokens.detach(), weight, None).square().sum())(layer.weight)
    expected = torch.func.grad(lambda w: nn.functional.linear(tokens.detach(), w).square().sum())(layer.weight)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("sizes", [(48, 36, 96, 288), (1, 3, 384, 512), (48, 36, 64, 2048)])
def test_small_layers_stay_as_they_are(calls, sizes):
    layer, tokens = layer_and_tokens(*sizes)
    assert torch.equal(layer(tokens), nn.functional.linear(tokens, layer.weight, layer.bias)) and not calls


def test_other_kinds_stay_as_they_are(calls, monkeypatch):
    layer, tokens = layer_and_tokens(*WIDE, dtype=torch.float64)
    assert layer(tokens).dtype == torch.float64
    layer, tokens = layer_and_tokens(*WIDE)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        layer(tokens)
    monkeypatch.setattr(kernels, "has_fast_products", lambda: False)
    layer(tokens)
    assert not calls


def test_it_is_a_linear_layer_on_disk_and_to_initialisation():
    assert isinstance(CPULinear(4, 5), nn.Linear)
    assert list(CPULinear(4, 5).state_dict()) == ["weight", "bias"]
