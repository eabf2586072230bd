"""Whether a classifier may be loaded: only if its classes are known to be the model's, or if neither names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FINE_TUNE_REASON = "classification head of a fine-tuned model; this model has none"


def class_names(id2label: Any) -> list[str] | None:
    """Names in id order from a config's `id2label` (keys numbers or digits); None where it names nothing.

    transformers fills what nobody gave with LABEL_0, LABEL_1, ...: such names say nothing.
    """
    if not isinstance(id2label, Mapping) or not id2label:
        return None
    try:
        found = {int(number): str(name) for number, name in id2label.items()}
    except (TypeError, ValueError):
        return None
    names = [found.get(number) for number in range(len(found))]
    if any(name is None for name in names) or all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names):
        return None
    return [str(name) for name in names]


def class_obstacle(rows: int, theirs: Any, own_rows: int, ours: Any) -> str | None:
    """Why a classifier cannot be taken over; None when it can.

    Args:
        rows: classes of the checkpoint's classifier.
        theirs: `id2label` beside the checkpoint, None where there is none.
        own_rows: classes of the model.
        ours: `id2label` of the model.
    """
    if rows != own_rows:
        return f"the checkpoint's classifier has {rows} classes, but the model has {own_rows}"
    known, own = class_names(theirs), class_names(ours)
    if known is None or own is None or known == own:
        return None
    if sorted(known) == sorted(own):
        return "the checkpoint has the same classes in another order"
    place = next(i for i, (a, b) in enumerate(zip(known, own, strict=True)) if a != b)
    difference = f"class {place} is {known[place]!r} in the checkpoint and {own[place]!r} in the model"
    return f"the checkpoint has other classes ({difference})"
