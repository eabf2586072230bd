"""Recordings of phone applications, as they lie on the disk."""

import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from helpers.frames_on_disk import depth_array, rgb_array, save, write_frames
from helpers.videos import number_in, write_video
from m33d_hf.data.depth.maps import find_depth_maps
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.tum import TumSource
from m33d_hf.data.sources.roots import held_out, name_roots
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.video_reading_m33d import probe_video

Form = Literal["NFC", "NFD"]


def stray_scan(root: Path, frames: int = 12, depth: int = 12, first: int = 0) -> Path:
    """A Stray Scanner recording: a video, depth and confidence by the video's frame numbers, text files."""
    write_video(root / "rgb.mp4", frames, size=(48, 96))
    for number in range(depth):
        save(root / f"depth/{first + number:06d}.png", depth_array(number, (48, 96)))
        save(root / f"confidence/{first + number:06d}.png", np.full((48, 96), number % 3, np.uint8))
    (root / "odometry.csv").write_text("timestamp, frame, x\n")
    (root / "camera_matrix.csv").write_text("1,0,0\n")
    return root


def test_a_video_beside_a_folder_of_depth_is_its_pictures(tmp_path: Path):
    for name in ("one", "two"):
        stray_scan(tmp_path / name)
    source = FolderSource(tmp_path, unit="clips")
    assert [item.key for item in source.sequences] == ["one", "two"]
    assert any("rgb.mp4: its 12 frames" in note for note in source.notes)
    assert any("24 files hold confidence" in note for note in source.notes)
    sample = source[1].read([7, 2, 11])
    assert [number_in(frame.permute(1, 2, 0).numpy()) for frame in sample.rgb] == [7, 2, 11]
    for place, number in enumerate((7, 2, 11)):
        stored = depth_array(number, (48, 96))
        expected = np.where(stored == 0, np.nan, stored / np.float32(1000)).astype(np.float32)
        np.testing.assert_array_equal(sample.depth[place, 0].numpy(), expected)
    frames = FolderSource(tmp_path)
    assert len(frames) == 24 and frames[5].key == "one/000005"
    assert number_in(frames[5].read([0]).rgb[0].permute(1, 2, 0).numpy()) == 5
    assert source[0].read_maps([3], {"rgb"}).depth is None
    digest = source.digest()
    write_video(tmp_path / "one/rgb.mp4", 12, size=(48, 96), gop=3)
    assert FolderSource(tmp_path, unit="clips").digest() != digest


def test_depth_numbered_from_1_as_ffmpeg_does_belongs_to_the_frame_before(tmp_path: Path):
    source = FolderSource(stray_scan(tmp_path, first=1), depth_unit="mm")
    assert len(source) == 12 and not source.unpaired and source[0].key == "000001"
    assert any("by number from 1" in note for note in source.notes)
    for place in (0, 7, 11):
        sample = source[place].read([0])
        assert number_in(sample.rgb[0].permute(1, 2, 0).numpy()) == place
        expected = depth_array(place, (48, 96)) / np.float32(1000)
        np.testing.assert_array_equal(sample.depth[0, 0].nan_to_num().numpy(), expected.astype(np.float32))
    (tmp_path / "depth/000005.png").unlink()
    (tmp_path / "depth/000012.png").rename(tmp_path / "depth/000000.png")  # now from 0, by which 000011 is the last
    source = FolderSource(tmp_path, depth_unit="mm")
    assert any("by number from 0" in note for note in source.notes)
    assert [entry.path for entry in source.unpaired] == ["rgb.mp4#5"]


def test_a_few_frames_without_depth_are_left_out_and_more_are_refused(tmp_path: Path):
    source = FolderSource(stray_scan(tmp_path / "a", 12, 10))
    assert len(source) == 10 and [entry.path for entry in source.unpaired] == ["rgb.mp4#10", "rgb.mp4#11"]
    with pytest.raises(DataError, match=r"has 12 frames, but the depth beside it has 6 files"):
        FolderSource(stray_scan(tmp_path / "b", 12, 6))


def test_a_recording_whose_video_is_broken_is_left_out_and_one_cut_short_is_used_as_far_as_it_goes(tmp_path: Path):
    for name in ("broken", "cut", "whole"):
        stray_scan(tmp_path / name, 60, 60)
    write_video(tmp_path / "cut/rgb.mp4", 60, size=(48, 96), container_options={"movflags": "faststart"})
    for name in ("broken", "cut"):
        path = tmp_path / name / "rgb.mp4"
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    count = probe_video(tmp_path / "cut/rgb.mp4").num_frames
    assert 10 < count < 50
    source = FolderSource(tmp_path, unit="clips", depth_unit="millimetre")
    assert {each.key: each.length for each in source.sequences} == {"cut": count, "whole": 60}
    assert any("broken/rgb.mp4" in note and "left out" in note for note in source.notes)
    assert sum(each.path.startswith("broken/depth") for each in source.unpaired) == 60
    (tmp_path / "whole/rgb.mp4").unlink()
    (tmp_path / "cut/rgb.mp4").unlink()
    with pytest.raises(DataError, match=r"no frame under .*broken/rgb\.mp4: cannot be opened"):
        FolderSource(tmp_path, depth_unit="millimetre")


def test_depth_of_a_video_that_was_cut_nobody_knows_where_counts_from_0_or_is_left_out(tmp_path: Path):
    """A transport stream does not announce how long it is: depth from 1 may belong to the frame of its number."""
    for name, first in (("from_0", 0), ("from_1", 1), ("whole", 1)):
        stray_scan(tmp_path / name, 60, 60, first)
    for name in ("from_0", "from_1"):
        (tmp_path / name / "rgb.mp4").unlink()
        path = write_video(tmp_path / name / "rgb.ts", 60, size=(48, 96), codec="mpeg2video")
        path.write_bytes(path.read_bytes()[: 188 * (path.stat().st_size // 188 * 3 // 5) + 100])
    info = probe_video(tmp_path / "from_0/rgb.ts")
    assert 10 < info.num_frames < 50 and info.lacks[-1].frames == 0, "cut, and nobody knows by how much"
    source = FolderSource(tmp_path, unit="clips", depth_unit="millimetre")
    assert {each.key: each.length for each in source.sequences} == {"from_0": info.num_frames, "whole": 60}
    assert any("from_1/rgb.ts" in note and "rename" in note and "left out" in note for note in source.notes)
    assert sum(each.path.startswith("from_1/depth") for each in source.unpaired) == 60
    for number in range(60):  # as the message says
        (tmp_path / f"from_1/depth/{number + 1:06d}.png").rename(tmp_path / f"from_1/depth/{number:06d}.png")
    source = FolderSource(tmp_path, unit="clips", depth_unit="millimetre")
    assert {each.key for each in source.sequences} == {"from_0", "from_1", "whole"}


def test_confidence_is_never_a_picture(tmp_path: Path):
    root = stray_scan(tmp_path / "scan")
    (root / "rgb.mp4").unlink()
    with pytest.raises(DataError, match="no frame"):
        FolderSource(root, depth="none")
    write_frames(tmp_path / "flat", 3, "frame_{i:05d}.png", "depth_{i:05d}.png")
    flat = tmp_path / "flat"
    for i in range(3):
        (flat / f"frame_{i:05d}.png").rename(flat / f"rgb_{i:05d}.png")
        save(flat / f"conf_{i:05d}.png", np.full((24, 32), 2, np.uint8))
    source = FolderSource(flat)
    assert len(source) == 3
    np.testing.assert_array_equal(source[1].read([0]).rgb[0].permute(1, 2, 0).numpy(), rgb_array(1))
    # The word inside another name says nothing.
    assert len(FolderSource(write_frames(tmp_path / "confidence_test_3", 2))) == 2


def test_arkitscenes_stamps_a_millisecond_apart(tmp_path: Path):
    scene = tmp_path / "41069021"
    stamps = [305.377, 305.477, 305.577, 305.677, 305.777]
    for number, stamp in enumerate(stamps):
        save(scene / f"lowres_wide/41069021_{stamp:.3f}.png", rgb_array(number))
        late = stamp + (0.001, -0.001, 0.0, 0.004, 0.001)[number]
        save(scene / f"lowres_depth/41069021_{late:.3f}.png", depth_array(number))
        save(scene / f"confidence/41069021_{late:.3f}.png", np.full((24, 32), 2, np.uint8))
    source = FolderSource(tmp_path, unit="clips")
    assert source[0].key == "41069021" and source[0].length == 5
    assert source[0].missing_depth == [3], "no depth within a millisecond: a hole in the clip"
    assert any("3 of them by timestamps" in note for note in source.notes)
    sample = source[0].read([0, 1, 2, 4])
    for place, number in enumerate((0, 1, 2, 4)):
        assert torch.equal(sample.rgb[place].permute(1, 2, 0), torch.from_numpy(rgb_array(number)))
        assert sample.depth[place, 0, 5, 5].item() == pytest.approx(depth_array(number)[5, 5] / 1000)
    assert [entry.path for entry in source.unpaired] == ["41069021/lowres_depth/41069021_305.681.png"]


@pytest.mark.parametrize("named", [False, True])
def test_composed_and_decomposed_names_pair(tmp_path: Path, named: bool):
    composed, apart = (unicodedata.normalize(form, "café_ü{i}") for form in ("NFC", "NFD"))
    assert composed != apart
    write_frames(tmp_path, 2, f"rgb/{composed}.png", f"depth/{apart}.png")
    if named:
        lines = [f"rgb/{apart.format(i=i)}.png depth/{composed.format(i=i)}.png" for i in range(2)]
        (tmp_path / "associations.txt").write_text("\n".join(lines), encoding="utf-8")
    source = FolderSource(tmp_path)
    assert len(source) == 2 and not source.unpaired
    assert source[1].read([0]).depth[0, 0, 5, 5].item() == pytest.approx(depth_array(1)[5, 5] / 1000)


def test_folders_lists_and_patterns_in_another_form(tmp_path: Path):
    apart = unicodedata.normalize("NFD", "Tiefe_ä")
    write_frames(tmp_path / "a", 2, "farbe/{i}.png", f"{apart}/{{i}}.png")
    assert len(FolderSource(tmp_path / "a", rgb="farbe", depth=unicodedata.normalize("NFC", apart))) == 2
    pattern = unicodedata.normalize("NFC", f"{apart}/*.png")
    assert len(FolderSource(tmp_path / "a", rgb="farbe/*.png", depth=pattern)) == 2
    write_frames(tmp_path / "b", 2, "rgb/{i}.png", f"{apart}/{{i}}.png", scale=5000)
    (tmp_path / "b/rgb.txt").write_text("0.0 rgb/0.png\n1.0 rgb/1.png\n")
    (tmp_path / "b/depth.txt").write_text(
        unicodedata.normalize("NFC", f"0.0 {apart}/0.png\n1.0 {apart}/1.png\n"), encoding="utf-8"
    )
    assert TumSource(tmp_path / "b")[0].length == 2


def test_split_lists_and_sidecars_in_another_form(tmp_path: Path):
    apart = unicodedata.normalize("NFD", "Küche")
    composed = unicodedata.normalize("NFC", apart)
    for name in (apart, "other"):
        write_frames(tmp_path / "data" / name, 2)
    (tmp_path / "train.txt").write_text(f"{composed}\n", encoding="utf-8")
    source = FolderSource(tmp_path / "data", split="train", split_list=str(tmp_path / "train.txt"), unit="clips")
    assert [item.key for item in source.sequences] == [apart]
    save(tmp_path / f"depth/{apart}/0.png", depth_array(0))
    (tmp_path / "depth/depth_spec.json").write_text('{"kind": "metric", "unit": "millimetre"}')
    for name in (composed, apart):
        maps = find_depth_maps(tmp_path / "depth", name)
        assert maps is not None and maps.length == 1


@pytest.mark.parametrize(("disk", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_options_name_sequences_in_another_form(tmp_path: Path, disk: Form, typed: Form):
    stored, named = (unicodedata.normalize(form, "Küche") for form in (disk, typed))
    write_frames(tmp_path / "data" / stored / "a", 2)
    write_frames(tmp_path / "data/other", 2, scale=5000)
    root = tmp_path / "data"
    units = {f"{named}*": "mm", "other": "tum"}
    for stated in (named, f"{named}/a", f"{named}*", [f"{named}/a"]):
        held = FolderSource(root, split="validation", validation=stated, unit="clips", depth_unit=units)
        assert [item.key for item in held.sequences] == [f"{stored}/a"]
    every = {item.key: item.read([0]).depth[0, 0, 5, 5].item() for item in FolderSource(root, depth_unit=units)}
    assert every[f"{stored}/a/0"] == pytest.approx(depth_array(0)[5, 5] / 1000)
    assert every["other/0"] == pytest.approx(depth_array(0, scale=5000)[5, 5] / 5000)
    scales = FolderSource(root, depth_scale={f"{named}/a": 1000, "other": 5000})
    assert scales.detection is not None and {scales.detection.of_sequence(f"{stored}/a").spec.scale} == {1000}
    folders = name_roots([root / stored, root / "other"])
    assert held_out(f"{named}/a,other", folders) == {stored: ["a"], "other": None}
    with pytest.raises(ConfigError, match="no sequence is called so"):
        FolderSource(root, split="validation", validation="Kuche", unit="clips", depth_unit=units)


def test_what_lay_there_and_what_can_be_read_is_said(tmp_path: Path):
    for name in ("color/1.heic", "color/2.heic", "depth/1.mat", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path)
    for part in ("color: 2 .heic", "depth: 1 .mat", "rgb is read from .jpg", ".webp", ".exr", ".pfm"):
        assert part in str(caught.value)
