"""Label maps that lie beside the frames of the `folder` source, and that no option describes: found, and described."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.labels.proposing import LabelProposal, palette_text, propose_labels
from m33d_hf.data.measuring.findings import Finding
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.folder import find_frames
from m33d_hf.data.sources.frames.layouts import list_files
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inspection.request import Request, task_of
from m33d_hf.training.recipe.arguments import RunArguments

PALETTE = "palette.csv"
_DESCRIBING = ("num_classes", "class_names", "label_map", "palette")
_PIXELS = "semantic_segmentation"
_LEAST = 1000  # label maps that are looked at, however few samples are


@dataclass(frozen=True)
class UnreadLabels:
    """What is to be done about them.

    Attributes:
        args: of the run, with the options that describe the labels; frames without labels stay.
        options: that a run needs to read the labels.
        finding: that says so.
    """

    args: RunArguments
    options: dict[str, Any]
    finding: Finding


def find_unread_labels(request: Request) -> UnreadLabels | None:
    """Look for label maps beside the frames, where a run could learn from them but is not told how to read them.

    Colours are written as a palette to the folder of the report.
    """
    data = request.args.data
    wanted = not request.recipe_given or task_of(request.recipe) == _PIXELS
    if not wanted or data.source != "folder" or data.mixture is not None or data.root is None:
        return None
    if set(data.options) & set(_DESCRIBING) or data.options.get("labels", "auto") in (None, "none"):
        return None
    roots = [Path(root).expanduser() for root in ([data.root] if isinstance(data.root, str) else data.root)]
    frames = [(root, frame) for root in roots for frame in _labelled_frames(root, data.options)]
    files = [root / str(frame.labels) for root, frame in frames]
    looked = files
    if request.max_samples is not None:
        looked = evenly_spaced(files, max(_LEAST, request.max_samples))
    proposal = propose_labels(looked)
    if proposal is None:
        return None
    options = dict(proposal.options)
    if proposal.colours:
        palette = request.output / PALETTE
        write_text_atomically(palette, palette_text(proposal.colours))
        options["palette"] = str(palette)
    if options and "depth" not in data.options and not any(frame.depth for _, frame in frames):
        options["depth"] = "none"
    args = copy.deepcopy(request.args)
    if options:
        args.data.options |= {"require_labels": False, **data.options, **options}
    return UnreadLabels(args, options, Finding("train and evaluation", _told(files, looked, options, proposal), False))


def _told(files: list[Path], looked: list[Path], options: Mapping[str, Any], proposal: LabelProposal) -> str:
    some = "" if len(looked) == len(files) else f" ({len(looked)} of them looked at)"
    where = f" ({options['palette']})" if proposal.colours else ""
    return (
        f"{plural(len(files), 'label map')}{some}, the first {files[0]}, which no option describes: they hold "
        f"{proposal.said}{where}."
    )


def _labelled_frames(root: Path, options: Mapping[str, Any]) -> list[Frame]:
    """Frames of a folder with labels; none where frames cannot be found, which the reader complains about."""
    chosen = {name: options.get(name, "auto") for name in ("rgb", "depth", "labels")}
    chosen = {name: how for name, how in chosen.items() if how not in (None, "none")}
    try:
        found, _, _ = find_frames(list_files(root), chosen, {"labels"}, options.get("association", "auto") or "none")
    except (DataError, ConfigError):
        return []
    return [frame for sequence in found.values() for frame in sequence if frame.rgb or frame.depth]
