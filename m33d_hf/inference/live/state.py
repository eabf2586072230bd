"""The state of a feed as one file, so that another process takes it up: open clips, state of the temporal model, times.

It is as large as the frames of the clips that have not ended, whatever the length of the feed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m33d_hf.data.files.atomic_writing import write_atomically
from m33d_hf.data.files.sealed_json import sealed, unsealed
from m33d_hf.errors import CheckpointError, CorruptFileError, decoding
from m33d_hf.inference.live.clips import Gap
from m33d_hf.inference.live.feed import LiveFeed, LiveModel
from m33d_hf.inference.live.intake import FrameIntake
from m33d_hf.modeling.sequences_m33d import State

_VERSION = 1
_KEY = "feed"
# What takes up a state, by its key.
_TAKEN_BY = {"feed": "load_live", "case": "load_case"}
_TEMPORAL = "temporal"  # one tensor, or several that are numbered


def save_feed(feed: LiveFeed, path: str | Path, model: str) -> Path:
    """Write the state of a feed, atomically.

    Args:
        feed: between two frames.
        path: the file.
        model: digest of the model.
    """
    next_start, begun = feed.assembler.state()
    tensors = named_tensors(feed.state)
    places: dict[int, str] = {}
    clips: dict[str, list[str | None]] = {}
    for start, frames in begun.items():
        clips[str(start)] = []
        for frame in frames:  # clips that overlap share frames
            place = None if frame is None else places.setdefault(id(frame), str(len(places)))
            clips[str(start)].append(place)
            if frame is not None and place is not None:
                tensors[place] = frame.contiguous()
    notes = {
        **made_by(feed.model, model),
        **intake_notes(feed),
        "next_start": next_start,
        "clips": clips,
        "begun": {str(start): seconds for start, seconds in feed.begun.items()},
    }
    return write_state(path, _KEY, tensors, notes)


def load_feed(feed: LiveFeed, path: str | Path, model: str, device: torch.device) -> None:
    """Put a saved state into a new feed.

    Raises:
        CorruptFileError: the file is missing, damaged, or no state of a feed.
        CheckpointError: it was left by another model, or by one that cuts clips differently.
    """
    path = Path(path)
    tensors, notes = read_state(path, _KEY, made_by(feed.model, model))
    try:
        begun = {
            int(start): [None if place is None else tensors[place] for place in frames]
            for start, frames in notes["clips"].items()
        }
        feed.assembler.restore(notes["next_start"], begun)
        feed.state = temporal_state(tensors, device)
        restore_intake(feed, notes)
        feed.begun = {int(start): seconds for start, seconds in notes["begun"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(path, f"is not the state of a feed ({error!r})") from error


def named_tensors(state: State | None) -> dict[str, Tensor]:
    """The parts of a state by names of their own, each with its own memory."""
    if state is None:
        return {}
    if isinstance(state, Tensor):
        return {_TEMPORAL: state.contiguous().cpu()}
    return {f"{_TEMPORAL}.{number}": part.detach().clone().contiguous().cpu() for number, part in enumerate(state)}


def temporal_state(tensors: dict[str, Tensor], device: torch.device) -> State | None:
    """What `named_tensors` named."""
    if _TEMPORAL in tensors:
        return tensors[_TEMPORAL].to(device)
    parts = sum(name.startswith(f"{_TEMPORAL}.") for name in tensors)
    return tuple(tensors[f"{_TEMPORAL}.{number}"].to(device) for number in range(parts)) or None


def made_by(live: LiveModel, digest: str) -> dict[str, Any]:
    """What must be equal where a state is taken up."""
    return {"version": _VERSION, "model": digest, "names": live.names, "rule": live.rule.to_dict()}


def intake_notes(intake: FrameIntake) -> dict[str, Any]:
    """Plain values of the frames of one camera."""
    holes, left_out = intake.pending()
    return {
        "length": intake.length,
        "clock": intake.clock.state(),
        "size": intake.size,
        "arrived": intake.arrived,
        "recording": intake.recording,
        "holes": [astuple(hole) for hole in holes],
        "left_out": left_out,
    }


def restore_intake(intake: FrameIntake, notes: Mapping[str, Any]) -> None:
    """Put back what `intake_notes` gave."""
    intake.clock.restore(notes["clock"])
    intake.length, intake.arrived = notes["length"], notes["arrived"]
    intake.size = None if notes["size"] is None else (notes["size"][0], notes["size"][1])
    intake.recording = None if notes["recording"] is None else (notes["recording"][0], notes["recording"][1])
    intake.expect([Gap(*hole) for hole in notes["holes"]], notes["left_out"])


def write_state(path: str | Path, key: str, tensors: dict[str, Tensor], notes: Mapping[str, Any]) -> Path:
    """Write tensors and plain values, sealed under a key, atomically."""
    from safetensors.torch import save_file

    metadata = {key: sealed(json.loads(json.dumps(notes)))}
    return write_atomically(path, lambda place: save_file(tensors, place, metadata))


def read_state(path: str | Path, key: str, made: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and plain values that `write_state` wrote.

    Raises:
        CorruptFileError: the file is missing, damaged, or no such state.
        CheckpointError: it was made by something else than `made`.
    """
    from safetensors import safe_open

    path = Path(path)
    if not path.is_file():
        raise CorruptFileError(path, f"does not exist; a {key} leaves its state there when it ends")
    with decoding(path, f"is not the state of a {key}"), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        for other, takes in _TAKEN_BY.items():
            if key not in metadata and other in metadata:
                raise CorruptFileError(path, f"is not the state of a {key} but of a {other}: take it up with {takes}")
        notes = unsealed(metadata[key])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    different = [name for name, value in made.items() if notes.get(name) != value]
    if different:
        raise CheckpointError(
            f"{path} is the state of a {key} under another model (different: {', '.join(different)}). Go on with the "
            f"model that it began with, or start a new {key}."
        )
    return tensors, notes
