"""The table of task heads says what the model classes, their weights, transformers and the tasks say themselves."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import transformers

import m33d_hf
from helpers.tiny import tiny_config
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.fields_m33d import fit
from m33d_hf.modeling.leftovers_m33d import TASK_HEADS
from m33d_hf.modeling.task_heads_m33d import HEAD_RANGES, HEADS, HeadFields, TaskHead
from m33d_hf.modeling.temporal_checks_m33d import READ_BY
from m33d_hf.training.recipe.task_names import PRETRAINING, TASKS
from m33d_hf.training.tasks.base import build_task

FIELDS = {
    "num_labels": 3, "num_hidden_layers": 4, "segmentation_head_width": 16, "depth_head_width": 16,
    "depth_prior_weight": 0.5,
}  # fmt: skip
# Fields that give a head other parts: one head has the parts of all of them.
CHOICES = {"action_detection": [{"temporal_model": "tcn"}, {"temporal_model": "transformer"}]}
EVERY = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.task)


def _model(head: TaskHead, **fields: object) -> transformers.PreTrainedModel:
    with torch.device("meta"):
        return head.load_class()(tiny_config(**{**FIELDS, **fields}))  # type: ignore[no-any-return]


def _own(head: TaskHead, **fields: object) -> dict[str, torch.Size]:
    """Its weights beside the encoders."""
    weights = _model(head, **fields).state_dict().items()
    return {name: value.shape for name, value in weights if not name.startswith("m33d.")}


def _everything(head: TaskHead) -> dict[str, torch.Size]:
    """Its weights beside the encoders, of all its choices."""
    return {name: shape for fields in [{}, *CHOICES.get(head.task, [])] for name, shape in _own(head, **fields).items()}


def test_the_table_has_the_tasks_of_the_package() -> None:
    assert {PRETRAINING, *(head.task for head in HEADS)} == set(TASKS)


@EVERY
def test_models_are_those_of_the_package_the_task_and_transformers(head: TaskHead) -> None:
    cls = head.load_class()
    assert cls is getattr(m33d_hf, head.class_name)
    assert cls.__module__ == f"m33d_hf.modeling.{head.module}"
    assert getattr(build_task(head.task), "model_class", cls) is cls
    auto = head.auto_class and getattr(transformers, head.auto_class)
    assert auto is None or type(auto.from_config(tiny_config(**FIELDS))) is cls


def _firsts(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_every_weight_of_a_head_is_named_by_the_table_and_no_other_is() -> None:
    parts: dict[str, str] = {}
    for head in HEADS:
        own, patterns = _everything(head), [re.compile(pattern) for pattern in head.weights]
        mine = {name for name in own if name.split(".")[0] in head.parts}
        assert mine and mine == {name for name in own if any(pattern.search(name) for pattern in patterns)}
        assert all(any(pattern.search(name) for name in own) for pattern in patterns)
        assert _firsts(head.class_parts) <= set(head.parts) == _firsts(mine)
        assert set(head.class_readers) <= set(head.parts) and set(head.class_readers.values()) <= set(head.class_parts)
        assert not parts.keys() & head.parts.keys()
        parts |= head.parts
    for head in HEADS:  # the detector has the first stage's classifier
        assert {name.split(".")[0] for name in _everything(head)} <= parts.keys()
        left = {name for name in _everything(head) if not any(re.search(pattern, name) for pattern in TASK_HEADS)}
        assert not left and not any(re.search(pattern, "m33d.embeddings.rgb.cls_token") for pattern in TASK_HEADS)


@EVERY
def test_rows_of_class_parts_are_the_classes(head: TaskHead) -> None:
    three, five = _own(head), _own(head, num_labels=5)
    changed = {name.split(".")[0] for name in three if three[name] != five[name] and name.split(".")[0] in head.parts}
    assert bool(changed) is head.classes
    assert _firsts(head.class_parts) <= changed and bool(head.class_parts) is head.classes
    assert all(three[f"{part}.weight"][0] == 3 for part in head.class_parts)


@EVERY
def test_the_fields_of_a_head_shape_its_weights(head: TaskHead) -> None:
    other = {"segmentation_head_upscale": 2, "temporal_causal": True, "depth_head_stem_channels": [8, 8, 8, 8],
             "temporal_model": "tcn", "temporal_cameras": ["left", "right"]}  # fmt: skip
    assert set(head.fields) <= set(inspect.get_annotations(HeadFields))
    for name in set(head.fields) - {"depth_head_layers"}:  # which chooses what is read
        value = other.get(name, 24 if name.endswith("width") or name.endswith("size") else 2)
        readers = READ_BY.get(name, ("gru",))
        usual = {"temporal_model": readers[0]} if head.task in CHOICES else {}
        assert _own(head, **{**usual, name: value}) != _own(head, **usual), name


@EVERY
def test_what_graphs_return(head: TaskHead) -> None:
    if head.output is None:
        assert "features" in inspect.signature(head.load_class().forward).parameters
        return
    size = {"batch": 2, "classes": 3, "height": 32, "width": 32}
    with torch.no_grad():
        found = head.load_class()(tiny_config(**FIELDS))(pixel_values=torch.zeros(2, 3, 32, 32))[head.output.name]
    assert found.ndim == len(head.output.axes)
    assert all(length == size.get(axis, length) for length, axis in zip(found.shape, head.output.axes, strict=True))
    assert ("classes" in head.output.axes) == head.classes
    low, high = (getattr(M33DConfig(), name) for name in head.output.limits or ("min_depth", "max_depth"))
    assert low < high


def test_every_numeric_field_has_a_range_that_holds_its_default() -> None:
    hints = inspect.get_annotations(HeadFields, eval_str=True)
    numeric = {name for name, hint in hints.items() if fit(1, hint)[0] or fit([1, 1, 1, 1], hint)[0]}
    assert set(HEAD_RANGES) == numeric
    for field in dataclasses.fields(HeadFields):
        allowed = HEAD_RANGES.get(field.name)
        assert allowed is None or field.default is None or allowed.problem(field.default) is None


def test_the_table_is_read_without_torch(tmp_path: Path) -> None:
    code = "import sys; from m33d_hf.modeling.task_heads_m33d import HEADS; print(len(HEADS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.split() == [str(len(HEADS)), "False"], done.stderr
