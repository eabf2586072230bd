"""Recordings that were cut short, with annotations of the whole: used as far as they go, and what is lost is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.videos import write_video
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.video_reading_m33d import probe_video
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loaders import list_left_out

COUNT, FPS = 200, 25
NAMES = ["cut"] * 80 + ["sew"] * 60 + ["wash"] * 60


def write_phases(path: Path, names: list[str], step: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("Frame\tPhase\n" + "".join(f"{number * step}\t{name}\n" for number, name in enumerate(names)))


def cut_root(root: Path, kind: str, share: float = 0.6) -> tuple[Path, int]:
    """A data set of one video that ends early, and the number of its frames that decode."""
    whole = write_video(root / f"whole/video01.{kind}", COUNT, rate=FPS)
    data = whole.read_bytes()
    path = root / f"set/videos/video01.{kind}"
    path.parent.mkdir(parents=True)
    path.write_bytes(data[: int(len(data) * share) // 188 * 188 + 7])  # a transport stream says it by part of a packet
    count = probe_video(path).num_frames
    assert COUNT / 4 < count < COUNT - 20
    return root / "set", count


def annotate(root: Path, how: str) -> None:
    folder = root / "phase_annotations"
    folder.mkdir()
    if how == "frames":
        write_phases(folder / "video01-phase.txt", NAMES)
    elif how == "every fifth":
        write_phases(folder / "video01-phase.txt", NAMES[::5], step=5)
    elif how == "seconds":
        rows = "0,3.2,cut\n3.2,5.6,sew\n5.6,8,wash\n"
        (folder / "video01.csv").write_text(f"start_seconds,end_seconds,phase\n{rows}")
    else:
        rows = "0,80,cut\n80,140,sew\n140,200,wash\n"
        (folder / "video01.csv").write_text(f"start_frame,end_frame,phase\n{rows}")


@pytest.mark.parametrize("how", ["frames", "every fifth", "seconds", "segments"])
@pytest.mark.parametrize("kind", ["mkv", "avi", "ts"])
def test_the_readable_part_keeps_its_labels_and_the_lost_ones_are_said(tmp_path: Path, kind: str, how: str):
    root, count = cut_root(tmp_path, kind)
    annotate(root, how)
    source = PhasesSource(root)
    names = [source.action_names[each] for each in source.videos[0].phases]
    assert names == NAMES[:count]
    reason = source.incomplete["video01"]
    assert f"continues after its end ({(COUNT - count) / FPS:.1f} s, {COUNT - count} frames)" in reason
    assert any("1 video is incomplete" in note and "these labels are not used" in note for note in source.notes)
    args = RunArguments(output_dir=str(tmp_path / "run"))
    list_left_out(args, [SimpleNamespace(source=source)])
    (entry,) = read_skipped(tmp_path / "run/skipped_files.csv")
    assert entry.is_used and "these labels are not used" in entry.reason and entry.path.endswith(f"video01.{kind}")


def test_what_goes_beyond_the_announced_end_is_still_refused(tmp_path: Path):
    root, _ = cut_root(tmp_path, "mkv")
    write_phases(root / "phase_annotations/video01-phase.txt", [*NAMES, *["wash"] * 20])
    with pytest.raises(DataError, match=r"longer than the video.*length_tolerance=20"):
        PhasesSource(root)
    assert PhasesSource(root, length_tolerance=20).incomplete["video01"].count("not used") == 1


def test_a_whole_video_with_a_longer_annotation_is_refused(tmp_path: Path):
    write_video(tmp_path / "videos/video01.ts", 120, rate=FPS)
    write_phases(tmp_path / "phase_annotations/video01-phase.txt", NAMES)
    with pytest.raises(DataError, match="longer than the video"):
        PhasesSource(tmp_path)


def test_another_rate_is_not_taken_for_a_cut(tmp_path: Path):
    root, count = cut_root(tmp_path, "ts")
    write_phases(root / "phase_annotations/video01-phase.txt", ["cut"] * (2 * count))
    with pytest.raises(DataError, match=r"label_fps=50"):
        PhasesSource(root)


def test_a_cut_is_no_sign_of_numbers_from_one(tmp_path: Path):
    root, count = cut_root(tmp_path, "mkv")
    lines = "".join(f"{number}\t{NAMES[number]}\n" for number in range(1, count + 1))
    (root / "phase_annotations").mkdir()
    (root / "phase_annotations/video01-phase.txt").write_text(f"Frame\tPhase\n{lines}")
    with pytest.raises(ConfigError, match="label_start"):
        PhasesSource(root)
    found = PhasesSource(root, label_start=0).videos[0].phases
    assert len(found) == count and np.all(found[1:80] == found[1])


def test_a_fragmented_mp4_that_ends_inside_a_fragment(tmp_path: Path):
    whole = write_video(tmp_path / "a.mp4", 90, gop=10, container_options={"movflags": "frag_keyframe+empty_moov"})
    assert not probe_video(whole).incomplete
    data = whole.read_bytes()
    fragments = [place for place in range(len(data)) if data.startswith(b"moof", place)]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: fragments[-1] - 4 - 10])  # the last bytes of the last fragment but one are lost
    assert "ends inside a packet" in probe_video(cut).incomplete
