"""What transformers expects of every model, checked for all of ours with its own public calls."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from helpers.contract import (
    BATCH,
    CLIPS,
    HEADS,
    LAYERS,
    MODELS,
    SIZE,
    TASKS,
    TOKENS,
    TRAINED,
    WIDTH,
    contract_config,
    contract_inputs,
    contract_model,
    main_output,
    pixels_of,
)
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.modeling_m33d import M33DModel, M33DPreTrainedModel
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection


@pytest.mark.parametrize("cls", MODELS)
def test_the_main_input_is_the_first_argument(cls: type[M33DPreTrainedModel]) -> None:
    names = list(inspect.signature(cls.forward).parameters)
    assert names[1] == cls.main_input_name == "pixel_values"


@pytest.mark.parametrize("cls", MODELS)
def test_saved_models_come_back_bit_for_bit_with_their_buffers(cls: type[M33DPreTrainedModel], tmp_path: Path) -> None:
    model = contract_model(cls)
    model.save_pretrained(tmp_path)
    again, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for kind in ("named_parameters", "named_buffers"):
        expected, found = dict(getattr(model, kind)()), dict(getattr(again, kind)())
        assert expected.keys() == found.keys() and expected
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
    inputs = contract_inputs(model)
    with torch.no_grad():
        assert torch.equal(main_output(again, again.eval()(**inputs)), main_output(model, model(**inputs)))


@pytest.mark.parametrize("cls", MODELS)
def test_attention_implementations_agree(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls)
    inputs = contract_inputs(model)
    outputs = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        torch.manual_seed(0)
        with torch.no_grad():
            outputs[implementation] = main_output(model, model(**inputs))
    torch.testing.assert_close(outputs["eager"], outputs["sdpa"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cls", TASKS)
def test_hidden_states_and_attentions_of_every_layer(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls)
    model.set_attn_implementation("eager")
    output = model(**contract_inputs(model), output_hidden_states=True, output_attentions=True)
    rows = BATCH * CLIPS if cls is M33DForVideoActionDetection else BATCH
    assert [tuple(h.shape) for h in output.hidden_states] == [(rows, TOKENS, WIDTH)] * (LAYERS + 1)
    assert [tuple(a.shape) for a in output.attentions] == [(rows, HEADS, TOKENS, TOKENS)] * LAYERS
    for attention in output.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(rows, HEADS, TOKENS))
    plain = model(**contract_inputs(model))
    assert plain.hidden_states is None and plain.attentions is None


@pytest.mark.parametrize("cls", MODELS)
def test_tuples_hold_what_the_dataclass_holds(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls)
    inputs = contract_inputs(model)
    with torch.no_grad():
        output, plain = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == len(output.to_tuple())
    torch.testing.assert_close(plain[0], output[0])


@pytest.mark.parametrize("cls", TRAINED)
def test_every_parameter_gets_a_gradient(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls).train()
    model(**contract_inputs(model)).loss.backward()
    # The clip classifier of a detector belongs to the first stage: it is loaded, read and never trained.
    frozen = ("classifier.",) if cls is M33DForVideoActionDetection else ()
    trained = {name: p.grad for name, p in model.named_parameters() if not name.startswith(frozen)}
    assert [name for name, grad in trained.items() if grad is None] == []
    # The key third of a fused bias has none by nature: softmax does not see a constant added to all keys.
    assert [name for name, grad in trained.items() if not grad.isfinite().all() or not grad.any()] == []


@pytest.mark.parametrize("cls", TRAINED)
def test_activation_checkpointing_changes_nothing(cls: type[M33DPreTrainedModel]) -> None:
    losses, gradients = [], []
    for checkpointed in (False, True):
        model = contract_model(cls).train()
        if checkpointed:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        loss = model(**contract_inputs(model)).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("cls", [M33DModel, *TASKS])
def test_a_sample_does_not_see_its_batch(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls)
    inputs = contract_inputs(model)
    inputs.pop("labels", None)
    with torch.no_grad():
        whole = main_output(model, model(**inputs))
        for row in range(BATCH):
            single = main_output(model, model(**{name: value[row : row + 1] for name, value in inputs.items()}))
            torch.testing.assert_close(single[0], whole[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_load_and_run(
    cls: type[M33DPreTrainedModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    contract_model(cls).save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path, dtype=dtype).eval()
    assert {p.dtype for p in model.parameters()} == {dtype}
    inputs = contract_inputs(model)
    for name in {"pixel_values", "depth_values"} & set(inputs):
        inputs[name] = inputs[name].to(dtype)
    with torch.no_grad():
        output = main_output(model, model(**inputs))
    assert output.isfinite().all()


@pytest.mark.parametrize("cls", MODELS)
def test_a_misspelt_argument_is_refused(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls)
    inputs = contract_inputs(model)
    with pytest.raises(ConfigError, match="depht_mask"):
        model(**inputs, depht_mask=torch.ones(BATCH, 1, *SIZE, dtype=torch.bool))


@pytest.mark.parametrize("cls", MODELS)
def test_initial_values(cls: type[M33DPreTrainedModel]) -> None:
    torch.manual_seed(0)
    model = cls(contract_config())
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.weight.eq(1).all() and module.bias.eq(0).all(), name
        elif isinstance(module, torch.nn.Linear):
            assert module.weight.std() > 0 and (module.bias is None or module.bias.eq(0).all()), name
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all() and parameter.abs().max() < 2, name


def test_a_head_of_another_size_is_new_when_asked_for(tmp_path: Path) -> None:
    contract_model(M33DForSemanticSegmentation).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        M33DForSemanticSegmentation.from_pretrained(tmp_path, num_labels=9)
    model = M33DForSemanticSegmentation.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert model(torch.randn(1, 3, *SIZE)).logits.shape[1] == 9


@pytest.mark.parametrize("cls", MODELS)
def test_input_embeddings_are_the_patch_projection(cls: type[M33DPreTrainedModel]) -> None:
    model = contract_model(cls)
    assert isinstance(model.get_input_embeddings(), torch.nn.Conv2d)
    assert model.base_model is (model if cls is M33DModel else model.m33d)


def test_other_sizes_interpolate_positions_everywhere() -> None:
    for cls in (M33DModel, *TASKS):
        model = contract_model(cls)
        with torch.no_grad():
            assert main_output(model, model(pixels_of(cls, 1, 24, 40))).isfinite().all()
