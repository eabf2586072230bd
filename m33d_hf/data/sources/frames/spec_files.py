"""What a depth_spec.json beside recorded frames says of their depth, by sequence: as `import_recording` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m33d_hf.data.depth.maps import SPEC_FILE, invalid_values_of, stated_fields
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.sources.frames.layouts import folders_up
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.depth_spec_m33d import ROTATED_UNIT, DepthSpec


def written_options(
    root: Path, files: Mapping[str, Sequence[str]], options: DepthOptions, top: Path | None = None
) -> dict[str, tuple[str, DepthOptions]]:
    """What is written of each sequence's depth: the nearest depth_spec.json, from its depth's folder up to the top.

    Sequences without one, or whose meaning the options state in full, are left out: the options hold there.

    Args:
        root: of the data.
        files: sequence -> its depth files, relative to the root.
        options: what the user states; a range and invalid values stated there go before those of a file.
        top: the root, or a folder above it, up to which files are looked for; None for the root.

    Returns:
        sequence -> (one file that says so, relative to the root where it lies below that; what it says, with what the
        options add). Sequences of which the same is written have the same file here, so that they are judged
        together.

    Raises:
        ConfigError: a file that is no DepthSpec or contradicts the options, or files of one sequence that differ.
    """
    nearest: dict[str, str | None] = {}
    read: dict[str, dict[str, Any] | None] = {}
    found: dict[str, tuple[str, DepthOptions]] = {}
    first: dict[DepthOptions, str] = {}
    for sequence, paths in files.items():
        folders = dict.fromkeys(path.rpartition("/")[0] for path in paths)
        for folder in folders:
            if folder not in nearest:
                nearest[folder] = _nearest(root, folder, top)
        places = list(dict.fromkeys(nearest[folder] for folder in folders))
        for place in places:
            if place is not None and place not in read:
                read[place] = stated_fields((root / place).parent)
        _, stated = options.of_sequence(sequence)
        for place in places:
            if place is not None and (fields := read[place]) is not None:
                _refuse_contradiction(root, sequence, place, fields, stated)
        if not places or _is_settled(stated):
            continue
        contents = [read[place] if place is not None else None for place in places]
        if any(content != contents[0] for content in contents):
            listed = " and ".join(f"none near {sequence}" if place is None else place for place in places)
            raise ConfigError(
                f"{root}: the depth of the sequence {sequence!r} lies in folders of which {SPEC_FILE} says different "
                f"things ({listed}). Correct the files, or state what holds with --data.options.depth_unit, "
                "depth_scale or depth_kind."
            )
        if (place := places[0]) is not None and (fields := contents[0]):
            merged = _merged(fields, stated)
            found[sequence] = (first.setdefault(merged, place), merged)
    return found


def _nearest(root: Path, folder: str, top: Path | None) -> str | None:
    found = (place / SPEC_FILE for place in folders_up(root, folder, top) if (place / SPEC_FILE).is_file())
    path = next(found, None)
    if path is None:
        return None
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _is_settled(stated: DepthOptions) -> bool:
    """Whether options leave nothing open; metric depth alone has no unit yet."""
    return stated.states_meaning and not (stated.kind == "metric" and stated.unit is stated.scale is None)


def _merged(fields: Mapping[str, Any], stated: DepthOptions) -> DepthOptions:
    invalid = fields.get("invalid_values")
    if invalid is None and fields.get("kind") in ("inverse", "relative"):
        invalid = invalid_values_of(fields["kind"])
    # Numbers of JSON may be integers; guesses and the command line give floats, and digests tell 0 from 0.0.
    invalid = invalid if invalid is None else tuple(float(value) for value in invalid)
    bounds = {name: float(value) for name in ("min_depth", "max_depth") if (value := fields.get(name)) is not None}
    written = DepthOptions(**{**fields, **bounds, "invalid_values": invalid})
    added = {
        name: value for name in ("invalid_values", "min_depth", "max_depth")
        if (value := getattr(stated, name)) is not None
    }  # fmt: skip
    return replace(written, kind=written.kind or stated.kind, **added)


def _refuse_contradiction(
    root: Path, sequence: str, place: str, fields: Mapping[str, Any], stated: DepthOptions
) -> None:
    """Refuse options that say something else than the file that lies beside the depth."""
    has_unit = fields.get("unit") is not None or fields.get("scale") is not None
    if not stated.states_meaning or not (has_unit or fields.get("kind") is not None):
        return
    written = DepthSpec(fields.get("kind") or "metric", fields.get("unit"), fields.get("scale"))
    said = DepthSpec(stated.kind or "metric", stated.unit, stated.scale)  # type: ignore[arg-type]  # of one sequence
    both = has_unit and not stated.unit is stated.scale is None
    if written.kind == said.kind and not (both and _decoding(written) != _decoding(said)):
        return
    named = [name for name in ("unit", "scale", "kind") if getattr(stated, name) is not None]
    words = " and ".join(f"--data.options.depth_{name} {getattr(stated, name)}" for name in named)
    by_name = (
        f" give a mapping from sequences to values (--data.options.depth_{named[0]});" if named != ["kind"] else ""
    )
    meant = written.kind if not has_unit or written.kind != said.kind else f"{written.unit}, stored / {written.scale:g}"
    raise ConfigError(
        f"{root / place} says that the depth of the sequence {sequence!r} is {meant}, but the options say {words}. "
        f"Leave the option out: each file then holds for its own sequence;{by_name} or correct the file."
    )


def _decoding(spec: DepthSpec) -> tuple[float | None, bool]:
    # Not the name: a scale of 4000 alone is called `custom`, and is RealSense's unit all the same.
    return spec.scale, spec.unit == ROTATED_UNIT
