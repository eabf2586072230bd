# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Names of classes, as a configuration keeps them."""

from __future__ import annotations

from typing import Any

NO_CLASS = 255
"""Value of pixels without a class in label maps, and of pixels without a prediction in segmentations."""


class ClassNames(dict[Any, str]):
    """Names by class id; asked for `NO_CLASS`, which is not a class and does not count, it answers "no prediction".

    transformers' segmentation pipeline looks up every id of a label map, and a centre crop leaves pixels without one.
    """

    def __missing__(self, number: Any) -> str:
        if number == NO_CLASS:
            return "no prediction"
        raise KeyError(number)
