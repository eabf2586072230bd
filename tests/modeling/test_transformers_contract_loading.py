"""What transformers expects of loading and of initial weights, checked for all of our classes with its own calls."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.contract import (
    BATCH,
    MODELS,
    SIZE,
    TASKS,
    TRAINED,
    contract_config,
    contract_inputs,
    contract_model,
    main_output,
)
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel, M33DPreTrainedModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection


def _loss_of(model: Any) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return main_output(model, model(**contract_inputs(model)))


@pytest.mark.parametrize("cls", MODELS)
def test_weights_that_are_missing_are_drawn_as_new_ones_are(cls: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing, `from_pretrained` builds on the meta device and fills everything in through `_init_weights`."""
    draw = M33DPreTrainedModel._initialize_weights

    def seeded(self: Any, module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        torch.manual_seed(0)  # each module alike, in whatever order they come
        draw(self, module, *args, **kwargs)

    monkeypatch.setattr(M33DPreTrainedModel, "_initialize_weights", seeded)
    expected, found = cls(contract_config()), cls.from_pretrained(None, config=contract_config(), state_dict={})
    for kind in ("named_parameters", "named_buffers"):
        here, there = dict(getattr(expected, kind)()), dict(getattr(found, kind)())
        assert here.keys() == there.keys()
        assert not any(value.is_meta for value in there.values())
        assert [name for name, value in here.items() if not torch.equal(value, there[name])] == []


@pytest.mark.parametrize("cls", MODELS)
def test_a_model_is_built_on_the_meta_device_and_under_a_device(cls: type[Any], tmp_path: Path) -> None:
    with torch.device("meta"):
        empty = cls(contract_config())
    assert all(parameter.is_meta for parameter in empty.parameters())
    model = contract_model(cls)
    model.save_pretrained(tmp_path)
    with torch.device("cpu"):
        again = cls.from_pretrained(tmp_path).eval()
    assert torch.equal(_loss_of(again), _loss_of(model))


@pytest.mark.parametrize("cls", TRAINED)
def test_an_encoder_alone_leaves_exactly_the_rest_missing(cls: type[Any], tmp_path: Path) -> None:
    whole = contract_model(cls)
    whole.m33d.save_pretrained(tmp_path)
    model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    names = {name for name, _ in model.named_parameters()}
    assert set(info["missing_keys"]) == {name for name in names if not name.startswith("m33d.")}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    state = whole.state_dict()
    for name, value in model.state_dict().items():
        assert not name.startswith("m33d.") or torch.equal(value, state[name]), name


@pytest.mark.parametrize("cls", TASKS)
def test_pretraining_weights_leave_the_head_missing_and_nothing_else_is_told(
    cls: type[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contract_model(M33DForPreTraining).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        _, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    heads = ("segmentation_head.", "depth_head.", "fc_norm.", "classifier.", "gru.", "temporal_classifier.")
    assert info["missing_keys"] and all(name.startswith(heads) for name in info["missing_keys"])
    assert not info["unexpected_keys"] and not info["mismatched_keys"]


@pytest.mark.parametrize("cls", [cls for cls in TASKS if cls is not M33DForDepthEstimation])
def test_another_number_of_classes_gives_new_last_layers_alone(cls: type[Any], tmp_path: Path) -> None:
    old = contract_model(cls)
    old.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        cls.from_pretrained(tmp_path, num_labels=9)
    model, info = cls.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True, output_loading_info=True)
    changed = {name for name, *_ in info["mismatched_keys"]}
    state = old.state_dict()
    assert changed == {name for name, value in model.state_dict().items() if value.shape != state[name].shape}
    assert all(value.isfinite().all() for value in model.state_dict().values())
    kept = {name: value for name, value in model.state_dict().items() if name not in changed}
    assert all(torch.equal(value, state[name]) for name, value in kept.items())
    inputs = {name: value for name, value in contract_inputs(model).items() if name != "labels"}
    with torch.no_grad():
        assert 9 in model.eval()(**inputs).logits.shape


@pytest.mark.parametrize("cls", MODELS)
def test_models_are_copied_pickled_and_stored_by_torch(cls: type[Any], tmp_path: Path) -> None:
    model = contract_model(cls)
    expected = _loss_of(model)
    assert torch.equal(_loss_of(copy.deepcopy(model)), expected)
    assert torch.equal(_loss_of(pickle.loads(pickle.dumps(model))), expected)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    fresh = cls(contract_config()).eval()
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(_loss_of(fresh), expected)


@pytest.mark.parametrize("cls", MODELS)
def test_weights_in_several_files_and_in_one_are_the_same(cls: type[Any], tmp_path: Path) -> None:
    model = contract_model(cls)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert torch.equal(_loss_of(cls.from_pretrained(tmp_path).eval()), _loss_of(model))


@pytest.mark.parametrize("cls", MODELS)
def test_a_configuration_alone_chooses_the_attention(cls: type[Any], tmp_path: Path) -> None:
    contract_model(cls).save_pretrained(tmp_path)
    for name in ("eager", "sdpa"):
        model = cls.from_pretrained(tmp_path, attn_implementation=name)
        found = {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")}
        assert found == {name} and "attn_implementation" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("cls", MODELS)
def test_inputs_that_need_gradients_reach_the_patch_embedding(cls: type[Any]) -> None:
    """What adapters and checkpointing ask for: gradients where the weights are frozen."""
    model = contract_model(cls).train().requires_grad_(False)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    inputs = contract_inputs(model)
    inputs["pixel_values"].requires_grad_()
    main_output(model, model(**inputs)).float().sum().backward()
    assert inputs["pixel_values"].grad.isfinite().all() and inputs["pixel_values"].grad.any()


@pytest.mark.parametrize("cls", MODELS)
def test_the_same_call_twice_gives_the_same(cls: type[Any]) -> None:
    model = contract_model(cls, hidden_dropout_prob=0.5, drop_path_rate=0.5, attention_probs_dropout_prob=0.5)
    with torch.no_grad():
        for first, second in zip(
            model(**contract_inputs(model), return_dict=False), model(**contract_inputs(model), return_dict=False)
        ):
            torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_a_sample_of_pretraining_does_not_see_its_batch() -> None:
    model = contract_model(M33DForPreTraining)
    inputs = contract_inputs(model)
    request = {"output_features": True, "output_reconstruction": True}
    with torch.no_grad():
        whole = model(**inputs, **request)
        for row in range(BATCH):
            part = slice(row, row + 1)
            keep = {name: index[part] for name, index in inputs["keep"].items()}
            pixels = {name: value[part] for name, value in inputs.items() if name != "keep"}
            single = model(**pixels, keep=keep, **request)
            for field in ("features", "reconstructions"):
                for name, value in single[field].items():
                    torch.testing.assert_close(value, whole[field][name][part], atol=1e-5, rtol=1e-4)


def test_detection_from_features_is_detection_from_clips() -> None:
    model = contract_model(M33DForVideoActionDetection)
    inputs = contract_inputs(model)
    with torch.no_grad():
        whole = model(**inputs)
        again = model(features=whole.features, labels=inputs["labels"])
    assert torch.equal(whole.logits, again.logits) and torch.equal(whole.loss, again.loss)


def test_the_configuration_says_its_year() -> None:
    """Without it transformers' own suite takes a model for an old one, and passes its test of missing weights over."""
    source = Path(inspect.getfile(M33DConfig)).read_text(encoding="utf-8")
    found = re.search(r"^# Copyright (\d{4})", source, re.MULTILINE)
    assert found is not None and int(found.group(1)) >= 2023


def test_the_base_model_needs_no_depth() -> None:
    model = contract_model(M33DModel)
    with torch.no_grad():
        assert model(torch.randn(1, 3, *SIZE)).last_hidden_state.isfinite().all()
