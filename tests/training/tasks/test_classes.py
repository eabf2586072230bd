"""Names of the classes of a run: each its own, and no more than labels can tell apart."""

from __future__ import annotations

import pytest

from m33d_hf.errors import DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.classes import check_class_names, training_classes


def test_classes_beyond_255_are_refused() -> None:
    """The class of number 255 would pass for clips without a label."""
    names = [f"class {number}" for number in range(256)]
    check_class_names(names[:255], "ucf101")
    with pytest.raises(DataError, match="source 'ucf101': 256 classes, but at most 255"):
        check_class_names(names, "ucf101")


def test_too_many_given_classes_are_refused() -> None:
    args = RunArguments(task="video_classification")
    args.model = {"id2label": {number: f"class {number}" for number in range(400)}}
    with pytest.raises(DataError, match=r"model\.id2label: 400 classes, but at most 255"):
        training_classes(args, M33DConfig())


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="classes 0 and 2 are both called 'run'"):
        check_class_names(["run", "walk", " run"], "ucf101")
