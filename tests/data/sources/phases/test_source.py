"""The `phases` source on small videos and frame folders in the layouts that people have."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.frames_on_disk import write_frames
from helpers.shared_data import shared
from m33d_hf.data.depth.maps import DepthMaps
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import holes_of, read_sample
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.phases.alignment import CHOLEC80_PHASES
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, DataError, LabelError

PHASES = ("cut", "sew", "wash")


def write_video(path: Path, count: int, fps: int = 25, size: tuple[int, int] = (32, 64)) -> Path:
    """Frames of one grey each, 12 levels apart: a frame's mean says its number."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"qscale": "1"}
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 12 * (number % 20), np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_phases(path: Path, names: Sequence[str], step: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("Frame\tPhase\n" + "".join(f"{i * step}\t{name}\n" for i, name in enumerate(names)))
    return path


@pytest.fixture(scope="module")
def cholec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 20 and 12 frames in the layout of Cholec80."""
    root = tmp_path_factory.mktemp("cholec")
    write_video(root / "videos/video01.mp4", 20)
    write_video(root / "videos/video02.mp4", 12)
    write_phases(root / "phase_annotations/video01-phase.txt", ["cut"] * 8 + ["sew"] * 12)
    write_phases(root / "phase_annotations/video02-phase.txt", ["wash"] * 6 + ["cut"] * 6)
    return root


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Three folders of 6 RGB frames, annotated per frame."""
    for number in (1, 2, 3):
        write_frames(tmp_path / f"videos/v{number}", 6, rgb="{i}.png", depth=None)
        write_phases(tmp_path / f"annotations/v{number}.txt", [PHASES[number - 1]] * 3 + ["wash"] * 3)
    return tmp_path


def _source(root: Path, **options: Any) -> PhasesSource:
    source = build_source("phases", root=root, **options)
    assert isinstance(source, PhasesSource)
    return source


def test_cholec80_layout(cholec: Path) -> None:
    source = _source(cholec, clip_span=8)
    assert source.action_names == ["cut", "sew", "wash"]
    assert [video.key for video in source.videos] == ["video01", "video02"]
    assert source.videos[1].phases.tolist() == [2] * 6 + [0] * 6
    assert source.labels() == [0, 1, 1, 2, 0]
    assert source.groups() == ["video01"] * 3 + ["video02"] * 2
    assert source.unpaired == [] and any("alphabetical" in note for note in source.notes)
    sample = source[1].read([0, 7])
    assert sample.key == "video01@8-16" and sample.label == 1 and sample.depth is None
    assert sample.rgb is not None and sample.rgb.dtype == torch.uint8
    assert sample.rgb.float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([96, 180], abs=5)
    assert source[0].fps == pytest.approx(25.0)


def test_whole_videos_need_no_annotation(cholec: Path, tmp_path: Path) -> None:
    source = _source(cholec, unit="videos", require_annotations=True)
    assert len(source) == 2 and source[0].length == 20 and source.labels() is None
    assert source.action_names == ["cut", "sew", "wash"]
    shutil.copytree(cholec / "videos", tmp_path / "videos")
    bare = _source(tmp_path, unit="videos")
    assert bare.action_names is None and len(bare) == 2
    clips = _source(tmp_path, require_annotations=False, clip_span=10)
    assert clips.labels() is None and len(clips) == 4 and clips[0].read([0]).label is None
    with pytest.raises(DataError, match=r"none of the 2 videos \(first: video01\) is annotated"):
        _source(tmp_path)
    write_phases(tmp_path / "phase_annotations/video01-phase.txt", ["cut"] * 200)  # no matter when labels are not used
    assert len(_source(tmp_path, unit="videos").videos) == 2
    with pytest.raises(DataError, match="longer than the video"):
        _source(tmp_path, unit="videos", require_annotations=True)


def test_the_unlabelled_digest_follows_all_but_annotations(frames: Path) -> None:
    clips = {"clip_span": 2, "require_annotations": False}
    first, dropping = _source(frames, **clips), _source(frames, **clips, drop_unlabelled=True)
    assert first.unlabelled_digest() == dropping.unlabelled_digest() != first.digest(), "no clip is without a phase"
    write_phases(frames / "annotations/v1.txt", ["sew"] * 4)
    corrected = _source(frames, **clips)
    assert corrected.unlabelled_digest() == first.unlabelled_digest() and corrected.digest() != first.digest()
    assert _source(frames, **clips, drop_unlabelled=True).unlabelled_digest() != first.unlabelled_digest()
    for file in (frames / "annotations").iterdir():
        file.unlink()
    bare = _source(frames, **clips)
    assert bare.unlabelled_digest() == bare.digest() == first.unlabelled_digest()
    write_frames(frames / "videos/v1", 7, rgb="{i}.png", depth=None)
    assert _source(frames, **clips).unlabelled_digest() != bare.digest()


def test_surgical_order_and_stated_names(cholec: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "videos/v1", 7, rgb="{i}.png", depth=None)
    write_phases(tmp_path / "phase_annotations/v1-phase.txt", sorted(CHOLEC80_PHASES))
    assert _source(tmp_path).action_names == list(CHOLEC80_PHASES)
    stated = _source(cholec, phase_names=["wash", "cut", "sew"])
    assert stated.action_names == ["wash", "cut", "sew"]
    assert stated.videos[1].phases.tolist() == [0] * 6 + [1] * 6
    assert stated.digest() != _source(cholec).digest()
    assert stated.unlabelled_digest() == _source(cholec).unlabelled_digest()
    (tmp_path / "names.txt").write_text("sew\ncut\nwash\n")
    assert _source(cholec, phase_names=str(tmp_path / "names.txt")).action_names == ["sew", "cut", "wash"]


def test_a_phase_never_seen(cholec: Path) -> None:
    with pytest.raises(LabelError, match=r"phase.txt, line 2: phase 'wash' is not one of the 2 phases cut, sew"):
        _source(cholec, phase_names=["cut", "sew"])
    source = _source(cholec, phase_names=["cut", "sew"], unknown_phase="ignore")
    assert source.videos[1].phases.tolist() == [255] * 6 + [0] * 6
    # Of another split too: names never depend on the split.
    with pytest.raises(DataError, match="two phases are called 'cut' and 'cut'"):
        _source(cholec, phase_names=["cut", "cut", "sew", "wash"])


def test_numeric_phases_need_names(frames: Path) -> None:
    for number in (1, 2, 3):
        write_phases(frames / f"annotations/v{number}.txt", ["0"] * 3 + ["1"] * 3)
    with pytest.raises(LabelError, match="numbers are not standardised"):
        _source(frames)
    assert _source(frames, phase_names=["cut", "sew"]).videos[0].phases.tolist() == [0, 0, 0, 1, 1, 1]


def test_annotation_longer_than_the_video(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path, dirs_exist_ok=True)
    write_phases(tmp_path / "phase_annotations/video02-phase.txt", ["wash"] * 30)
    with pytest.raises(DataError) as caught:
        _source(tmp_path)
    for part in ("video02-phase.txt", "30 frames of video", "video02 has 12 frames at 25 fps", "longer than the video"):
        assert part in str(caught.value)
    source = _source(tmp_path, length_tolerance=18)
    assert source.videos[1].phases.tolist() == [2] * 12


def test_annotation_at_another_rate(cholec: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "videos/video01.mp4", 100)
    write_phases(tmp_path / "phase_annotations/video01-phase.txt", ["cut", "sew", "sew", "wash"])
    with pytest.raises(DataError, match=r"video01 has 100 frames at 25 fps.*label_fps=1\."):
        _source(tmp_path)
    phases = _source(tmp_path, label_fps=1).videos[0].phases
    assert phases.tolist() == [0] * 25 + [1] * 50 + [2] * 25
    write_phases(tmp_path / "phase_annotations/video01-phase.txt", ["cut", "sew", "sew", "wash"], step=25)
    assert np.array_equal(_source(tmp_path).videos[0].phases, phases)


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/one.mp4", 1)
    write_phases(tmp_path / "phase_annotations/one-phase.txt", ["cut"])
    source = _source(tmp_path, clip_span=64)
    assert len(source) == 1 and source.labels() == [0] and source[0].length == 1
    sample = source[0].read([0, 0, 0])
    assert sample.rgb is not None and sample.rgb.shape == (3, 3, 32, 64)


def test_frame_folders(frames: Path) -> None:
    source = _source(frames, clip_span=3)
    assert [video.key for video in source.videos] == ["v1", "v2", "v3"]
    assert source.labels() == [0, 2, 1, 2, 2, 2]
    sample = source[3].read([1])
    assert sample.meta["frames"] == ["v2/4"] and sample.key == "v2@3-6" and sample.label == 2
    assert source[0].fps is None and _source(frames, fps=5)[0].fps == 5


def test_rgbd_frame_folders(tmp_path: Path) -> None:
    write_frames(tmp_path / "labels", 1, rgb="{i}.png", depth=None)  # a folder of that name without annotations
    for number in (1, 2):
        write_frames(tmp_path / f"v{number}", 4, rgb="color/{i}.png", depth="depth/{i}.png")
        write_phases(tmp_path / f"v{number}-phase.txt", ["cut", "cut", "sew", "sew"])
    source = _source(tmp_path, clip_span=2)
    assert [video.key for video in source.videos] == ["v1", "v2"] and source.depth_spec is not None
    sample = source[1].read([0, 1])
    assert sample.depth is not None and sample.depth.shape == (2, 1, 24, 32)
    assert torch.isnan(sample.depth[:, :, 0]).all() and 1.0 <= sample.depth[0, 0, 5, 5] <= 3.0
    without = _source(tmp_path, clip_span=2, depth="none")
    assert without.depth_spec is None and without[0].read([0]).depth is None


def _sidecars(root: Path, count: int, size: tuple[int, int] = (16, 32)) -> Path:
    folder = root / "depth/video01"
    write_frames(root, count, rgb="unused/{i}.png", depth="depth/video01/{i}.png", size=size)
    shutil.rmtree(root / "unused")
    (root / "depth/depth_spec.json").write_text(json.dumps({"kind": "metric", "scale": 1000.0, "invalid_values": [0]}))
    return folder


def test_sidecars_of_another_view_are_refused(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path, dirs_exist_ok=True)
    _sidecars(tmp_path, 20, (32, 32))
    for options in ({}, {"align": "depth_to_rgb"}):
        source = _source(tmp_path, clip_span=4, **options)
        with pytest.raises(DataError, match="video01 is 32x32, but its pictures are 32x64"):
            source[1].read([0])


def test_depth_sidecars_of_video_files(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path, dirs_exist_ok=True)
    _sidecars(tmp_path, 20)
    source = _source(tmp_path, clip_span=4)
    assert source.depth_spec is not None and source.depth_spec.kind == "metric"
    sample = source[1].read([0, 3])
    assert sample.depth is not None and sample.depth.shape == (2, 1, 32, 64)
    valid = sample.depth[torch.isfinite(sample.depth)]
    assert 0.9 < float(valid.min()) < float(valid.max()) < 3.1
    coarse = read_sample(source[1], [0, 3], ["rgb", "depth"], align=False)
    assert coarse.depth is not None and coarse.depth.shape == (2, 1, 16, 32) and coarse.key == sample.key
    assert coarse.label == sample.label and torch.equal(coarse.align().depth.nan_to_num(), sample.depth.nan_to_num())
    with pytest.MonkeyPatch.context() as patch:  # training on RGB alone opens no depth
        patch.setattr(DepthMaps, "read_clip", None)
        assert SampleDataset(source, num_frames=2, maps=["rgb"])[0, 1].depth is None
    assert [entry.reason for entry in source.unpaired] == ["no depth for it in depth"]
    (tmp_path / "depth/video01/3.png").unlink()
    lacking = _source(tmp_path, clip_span=4)
    again = lacking[1].read([0, 3])
    assert again.depth is not None and torch.equal(again.depth.nan_to_num(), sample.depth.nan_to_num()), "of 4 and 7"
    holed = lacking[0].read([2, 3, 3])
    assert [hole.place for hole in holes_of(holed)] == [1, 2] and bool(holed.depth[1:].isnan().all())  # type: ignore[index]
    assert any(note.startswith("the depth of 1 of 20 frames is missing") for note in lacking.notes)
    (tmp_path / "depth/video01/3.png").write_bytes((tmp_path / "depth/video01/4.png").read_bytes())
    only = _source(tmp_path, clip_span=4, require_depth=True)
    assert [video.key for video in only.videos] == ["video01"]
    plain = _source(tmp_path, clip_span=4, depth="none")
    assert plain.depth_spec is None and plain.digest() != source.digest()
    (tmp_path / "depth/depth_spec.json").unlink()
    silent = _source(tmp_path)
    assert silent.depth_spec is None  # nobody says what it means, and nobody asked for it
    told = f"{tmp_path / 'depth'} is not read, since it has no depth_spec.json: say what its values mean with"
    assert any(note.startswith(told) for note in silent.notes)
    assert not any("is not read" in note for note in _source(tmp_path, depth="none").notes)
    with pytest.raises(DataError, match=r"require_depth is set, but .*is not read, since it has no depth_spec\.json"):
        _source(tmp_path, require_depth=True)
    with pytest.raises(ConfigError, match=r"depth_spec\.json"):
        _source(tmp_path, depth="depth")
    assert _source(tmp_path, depth="depth", depth_scale=1000.0).depth_spec is not None
    with pytest.raises(DataError, match="depth='nowhere' is not a folder"):
        _source(tmp_path, depth="nowhere")


def test_digest_covers_files_and_depth(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path / "a")
    shutil.copytree(cholec, tmp_path / "b")
    first = _source(tmp_path / "a").digest()
    assert first == _source(tmp_path / "b").digest() == _source(cholec).digest()  # the place does not count
    write_video(tmp_path / "b/videos/video02.mp4", 12, size=(64, 128))
    assert _source(tmp_path / "b").digest() != first
    _sidecars(tmp_path / "a", 20)
    with_depth = _source(tmp_path / "a").digest()
    assert with_depth != first
    (tmp_path / "a/depth/video01/3.png").unlink()
    assert _source(tmp_path / "a").digest() != with_depth
    write_phases(tmp_path / "b/phase_annotations/video02-phase.txt", ["cut"] * 12)
    assert _source(tmp_path / "b").digest() != first


def test_time_stamps_and_the_order_of_formats(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path, dirs_exist_ok=True)
    stamps = tmp_path / "phase_annotations/video01-timestamp.txt"
    stamps.write_text("Time\tPhase\r\n00:00:00.00\tsew\r\n\r\n00:00:00.40\tcut\r\n")
    source = _source(tmp_path)
    assert source.videos[0].phases.tolist() == [0] * 8 + [1] * 12
    assert [entry.path for entry in source.unpaired] == ["video01-timestamp.txt"]
    with pytest.raises(DataError, match=r"video02-phase.txt, line 2: '0' is not a timestamp"):
        _source(tmp_path, annotation_format="timestamps")
    (tmp_path / "phase_annotations/video02-timestamp.txt").write_text("Time\tPhase\n00:00:00.20\tsew\n")
    chosen = _source(tmp_path, annotation_format="timestamps")
    assert chosen.action_names == ["cut", "sew"]
    assert chosen.videos[0].phases.tolist() == [1] * 10 + [0] * 10
    assert chosen.videos[1].phases.tolist() == [255] * 5 + [1] * 7


def test_segments_per_video_and_for_all(frames: Path) -> None:
    shutil.rmtree(frames / "annotations")
    (frames / "annotations").mkdir()
    for number in (1, 2, 3):
        (frames / f"annotations/v{number}.csv").write_text("start_frame,end_frame,phase\n0,2,cut\n3,5,sew\n")
    assert _source(frames).videos[0].phases.tolist() == [0, 0, 0, 1, 1, 1]  # ends name the last frame
    source = _source(frames, segment_end="exclusive")
    assert source.videos[2].phases.tolist() == [0, 0, 255, 1, 1, 255]
    shutil.rmtree(frames / "annotations")
    rows = ["v1,0,6,cut", "videos/v2.mp4,1,3,sew", "v9,0,4,knot"]
    (frames / "all.csv").write_text("\n".join(["video,start,end,label", *rows]))
    with pytest.raises(ConfigError, match="are frames, seconds or milliseconds"):
        _source(frames, annotations="all.csv")
    whole = _source(frames, annotations="all.csv", segment_unit="frames")
    assert whole.action_names == ["cut", "knot", "sew"]
    assert [video.key for video in whole.videos] == ["v1", "v2"]
    assert whole.videos[1].phases.tolist() == [255, 2, 2, 255, 255, 255]
    assert [entry.path for entry in whole.unpaired] == ["all.csv, video 'v9'", "v3"]
    seconds = _source(frames, annotations="all.csv", segment_unit="seconds", fps=1)
    assert np.array_equal(seconds.videos[1].phases, whole.videos[1].phases)
    kept = _source(frames, annotations="all.csv", segment_unit="frames", require_annotations=False)
    assert kept.videos[2].phases.tolist() == [255] * 6
    assert len(_source(frames, segment_unit="frames").videos) == 2  # the table is found by itself


def test_what_has_no_partner_is_listed_or_refused(frames: Path) -> None:
    (frames / "annotations/v3.txt").unlink()
    write_phases(frames / "annotations/v8-phase.txt", ["knot"] * 6)
    (frames / "annotations/README.txt").write_text("made by hand\n")
    source = _source(frames)
    assert [video.key for video in source.videos] == ["v1", "v2"]
    listed = {entry.path: entry.reason for entry in source.unpaired}
    assert listed["v8-phase.txt"] == "no video of that name" and listed["v3"] == "it has no annotation"
    assert "not an annotation" in listed["README.txt"]
    assert source.action_names == ["cut", "knot", "sew", "wash"]
    with pytest.raises(DataError, match=r"3 files are not used; the first: "):
        _source(frames, on_unpaired="error")


def test_a_video_that_cannot_be_read_is_listed(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path, dirs_exist_ok=True)
    (tmp_path / "videos/video02.mp4").write_bytes(b"no video at all" * 50)
    source = _source(tmp_path)
    assert [video.key for video in source.videos] == ["video01"]
    assert source.unpaired[0].path.endswith("video02.mp4")
    (tmp_path / "videos/video01.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="none of 2 videos can be read"):
        _source(tmp_path)


def test_splits_take_whole_videos(frames: Path) -> None:
    names = {}
    for split in ("train", "validation", "test"):
        source = _source(frames, split=split, split_fractions={"train": 0.34, "validation": 0.33, "test": 0.33})
        names[split] = [video.key for video in source.videos]
        assert source.videos[0].handle.length == 6
        assert source.action_names == ["cut", "sew", "wash"]  # of all splits
    assert sorted(name for part in names.values() for name in part) == ["v1", "v2", "v3"]
    (frames / "train.txt").write_text("v1\nv3\nv7\n")
    (frames / "test.txt").write_text("v2\n")
    source = _source(frames, split="train")
    assert [video.key for video in source.videos] == ["v1", "v3"]
    assert [(entry.path, entry.reason) for entry in source.unpaired] == [
        ("v7", "listed for the split train, but there is no such video")
    ]
    (frames / "train.txt").write_text("v7\n")
    with pytest.raises(DataError, match=r"nothing in it \(1 entry,"):
        _source(frames, split="train")


def test_two_videos_or_annotations_of_one_name(cholec: Path, tmp_path: Path) -> None:
    shutil.copytree(cholec, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "phase_annotations/video01-phase.txt", tmp_path / "phase_annotations/video01.txt")
    with pytest.raises(DataError, match="'video01' has 2 annotations of the format frames"):
        _source(tmp_path)
    (tmp_path / "phase_annotations/video01.txt").unlink()
    (tmp_path / "videos/more").mkdir()
    shutil.copy(tmp_path / "videos/video01.mp4", tmp_path / "videos/more/video01.mp4")
    (tmp_path / "all.csv").write_text("video,start_frame,end_frame,phase\nx/more/video01,0,5,cut\n")
    with pytest.raises(DataError, match=r"'x/more/video01' matches several videos: more/video01, video01"):
        _source(tmp_path, annotations="all.csv")
    shutil.copy(tmp_path / "videos/video02.mp4", tmp_path / "videos/video02.avi")
    with pytest.raises(DataError, match="would both be the video 'video02'"):
        _source(tmp_path)


def test_a_real_clip(tmp_path: Path) -> None:
    clip = shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi")
    (tmp_path / "clip.avi").symlink_to(clip)
    (tmp_path / "clip-timestamp.txt").write_text("Time\tPhase\n00:00:00.00\tjuggle\n00:00:02.00\trest\n")
    source = _source(tmp_path, clip_span=16)
    video = source.videos[0]
    change = round(2.0 * (video.handle.fps or 0))
    assert 0 < change < video.handle.length
    assert video.phases.tolist() == [0] * change + [1] * (video.handle.length - change)
    sample = source[len(source) - 1].read([0])
    assert sample.label == 1 and sample.rgb is not None and sample.rgb.shape == (1, 3, 240, 320)


def test_sources_travel_to_workers(cholec: Path) -> None:
    source = _source(cholec, clip_span=8)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.digest() == source.digest() and copy[1].read([0]).label == 1


def test_options_that_cannot_be(cholec: Path, frames: Path) -> None:
    for options, message in (
        ({"unknown_phase": "skip"}, "unknown_phase is 'skip'"),
        ({"on_unpaired": "raise"}, "on_unpaired is 'raise'"),
        ({"fps": 0}, "fps is 0"),
        ({"label_fps": -1.0}, "label_fps is -1"),
        ({"length_tolerance": -1}, "length_tolerance is -1"),
        ({"annotation_format": "frame"}, "Did you mean 'frames'"),
        ({"rgb": "none"}, "selects frames, but"),
        ({"align": "rgb_to_depth"}, "align='rgb_to_depth' is for folders of frames, but"),
        ({"align": "depht_to_rgb"}, "align='depht_to_rgb' is for folders of frames, but"),
        ({"orientation": "upright"}, "orientation='upright' is for folders of frames, but"),
        ({"phasenames": ["a"]}, "no option 'phasenames'"),
    ):
        with pytest.raises(ConfigError, match=message):
            _source(cholec, **options)
    for options, message in (
        ({"videos": "films"}, "videos='films' is not a folder"),
        ({"annotations": "nowhere"}, "annotations='nowhere' is neither"),
        ({"require_depth": True}, "extract_depth"),
    ):
        with pytest.raises(DataError, match=message):
            _source(cholec, **options)
    with pytest.raises(DataError, match="is not a folder"):
        _source(frames / "none")
    shutil.rmtree(frames / "videos")
    (frames / "videos").mkdir()
    with pytest.raises(DataError, match=r"holds neither a video .* nor frames"):
        _source(frames)
