"""What a check counts of frames without depth survives its interruption and the merging of its parts."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.frames_on_disk import write_frames
from m33d_hf.data.measuring.samples import Looks, measure
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.sources.frames.folder import FolderSource


def test_missing_and_damaged_depth_is_counted_apart_and_added_up(tmp_path: Path) -> None:
    for clip in ("a", "b"):
        write_frames(tmp_path / clip, 6)
        (tmp_path / clip / "depth/1.png").unlink()
        (tmp_path / clip / "depth/4.png").write_bytes(b"torn")
    source = FolderSource(tmp_path, unit="clips", depth_unit="mm")
    parts = []
    for row in range(2):
        tally = SplitTally()
        measure(source, row, Looks(frames=0, edges=False, hashes=False), tally)
        parts.append(SplitTally.from_dict(json.loads(json.dumps(tally.to_dict()))))
    total = parts[0]
    total.merge(parts[1])
    assert (total.frames, total.with_rgb, total.with_depth) == (12, 12, 8)
    assert (total.missing_depth, total.damaged_depth) == (2, 2) and not total.unusable
    assert [Path(entry.path).name for entry in total.damaged_holes] == ["4.png", "4.png"]
    assert [entry.path for entry in total.holes] == [str(tmp_path / clip / "color") for clip in ("a", "b")]
    assert all(entry.is_used for entry in (*total.holes, *total.damaged_holes))
