"""The state of a case by several cameras as one file, so that another process takes it up; its size does not grow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m33d_hf.errors import CorruptFileError
from m33d_hf.inference.live.camera import Kept, LiveCamera
from m33d_hf.inference.live.case import LiveCase, OpenClip, Row
from m33d_hf.inference.live.feed import LiveModel
from m33d_hf.inference.live.state import (
    intake_notes,
    made_by,
    named_tensors,
    read_state,
    restore_intake,
    temporal_state,
    write_state,
)

_KEY = "case"


def save_case(case: LiveCase, path: str | Path, model: str) -> Path:
    """Write the state of a case, atomically.

    Args:
        case: between two frames.
        path: the file.
        model: digest of the model.
    """
    tensors = named_tensors(case.state)
    notes = {
        **made_by(case.model, model),
        "joined": case.joined,
        "offsets": case.offsets,
        "wait": case.wait,
        "by_arrival": case.by_arrival,
        "zero": _moved(case, 1),
        "lead": case.lead,
        "next_start": case.next_start,
        "cameras": {name: _camera_notes(camera, tensors) for name, camera in case.cameras.items()},
        "open": [_clip_notes(clip, tensors) for clip in case.open],
    }
    return write_state(path, _KEY, tensors, notes)


def load_case(live: LiveModel, path: str | Path, model: str, device: torch.device) -> LiveCase:
    """The case whose state was saved; every camera is waited for again.

    Raises:
        CorruptFileError: the file is missing, damaged, or no state of a case.
        CheckpointError: it was left by another model, or by one that cuts clips differently.
    """
    tensors, notes = read_state(path, _KEY, made_by(live, model))
    try:
        case = LiveCase(
            live, list(notes["cameras"]), notes["joined"], notes["offsets"], notes["wait"], notes["by_arrival"]
        )
        case.state, case.lead, case.next_start = temporal_state(tensors, device), notes["lead"], notes["next_start"]
        case.zero = notes["zero"]
        case.zero = _moved(case, -1)
        for name, camera in case.cameras.items():
            _restore(camera, notes["cameras"][name], tensors)
        case.open.extend(_clip(told, tensors) for told in notes["open"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(path, f"is not the state of a case ({error!r})") from error
    return case


def _moved(case: LiveCase, way: int) -> float | None:
    """`zero` by the clock on the wall, where arrivals are told by one that only this process knows; or back."""
    away = time.time() - time.monotonic() if case.by_arrival else 0.0
    return None if case.zero is None else case.zero + way * away


def _camera_notes(camera: LiveCamera, tensors: dict[str, Tensor]) -> dict[str, Any]:
    kept = [(frame.begin, _put(tensors, frame.picture)) for frame in camera.kept]
    own = {name: getattr(camera, name) for name in ("place", "gone_on", "lost", "first", "breaks", "ahead")}
    return {**intake_notes(camera), **own, "pauses": list(camera.pauses), "kept": kept}


def _restore(camera: LiveCamera, notes: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    restore_intake(camera, notes)
    camera.place, camera.gone_on, camera.lost = notes["place"], notes["gone_on"], notes["lost"]
    camera.first, camera.breaks = notes["first"], [(number, end) for number, end in notes["breaks"]]
    camera.ahead, camera.came = notes["ahead"], time.monotonic()
    camera.pauses.extend((ended, begins) for ended, begins in notes["pauses"])
    camera.kept.extend(Kept(begin, None if key is None else tensors[key]) for begin, key in notes["kept"])


def _clip_notes(clip: OpenClip, tensors: dict[str, Tensor]) -> dict[str, Any]:
    seen = {name: None if row is None else [_put(tensors, part) for part in row] for name, row in clip.seen.items()}
    return {"start": clip.start, "stop": clip.stop, "begin": clip.begin, "end": clip.end, "seen": seen}


def _clip(notes: dict[str, Any], tensors: dict[str, Tensor]) -> OpenClip:
    seen: dict[str, Row | None] = {
        name: None if keys is None else (tensors[keys[0]], tensors[keys[1]]) for name, keys in notes["seen"].items()
    }
    return OpenClip(notes["start"], notes["stop"], notes["begin"], notes["end"], time.monotonic(), seen)


def _put(tensors: dict[str, Tensor], tensor: Tensor | None) -> str | None:
    """Name a tensor, with its own memory."""
    if tensor is None:
        return None
    key = str(len(tensors))
    tensors[key] = tensor.detach().clone().contiguous()
    return key
