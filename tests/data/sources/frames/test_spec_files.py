"""A depth_spec.json beside frames says what their depth means, sequence by sequence; options must not contradict it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.frames_on_disk import depth_array, rgb_array, save
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError

SIZE = (24, 32)
D405 = {"kind": "metric", "unit": "tenth_millimetre", "scale": 10000.0, "invalid_values": [0, 65535]}
MILLIMETRES = {"kind": "metric", "unit": "millimetre", "scale": 1000.0, "invalid_values": [0, 65535]}


def write(root: Path, spec: dict[str, Any] | None, count: int = 2) -> Path:
    for i in range(count):
        save(root / f"color/{i:06d}.png", rgb_array(i, SIZE))
        save(root / f"depth/{i:06d}.png", depth_array(i, SIZE))
    if spec is not None:
        (root / "depth_spec.json").write_text(json.dumps(spec))
    return root


def metres(i: int, scale: float) -> np.ndarray:
    stored = depth_array(i, SIZE).astype(np.float32)
    return np.where(stored > 0, stored / np.float32(scale), np.float32(np.nan)).astype(np.float32)


def test_stored_values_mean_what_the_file_says(tmp_path: Path):
    """As it is written in the folder, in one above it, and in that of the depth, which is nearer."""
    guessed = FolderSource(write(tmp_path / "plain", None))
    found = FolderSource(write(tmp_path / "FRAMES" / "kitchen", D405))
    assert guessed.depth_spec.unit == "millimetre" and found.depth_spec.to_dict()["scale"] == 10000
    assert np.array_equal(found[1].read([0]).depth[0, 0].numpy(), metres(1, 10000), equal_nan=True)
    assert any("as given by depth_spec.json" in note for note in found.notes)
    assert found.digest() != guessed.digest()
    assert FolderSource(tmp_path / "FRAMES").depth_spec == found.depth_spec
    (tmp_path / "FRAMES/kitchen/depth/depth_spec.json").write_text(json.dumps(MILLIMETRES))
    assert FolderSource(tmp_path / "FRAMES").depth_spec.unit == "millimetre"
    (tmp_path / "depth_spec.json").write_text(json.dumps(D405))  # above the root: of other data
    (tmp_path / "FRAMES/kitchen/depth_spec.json").unlink()
    (tmp_path / "FRAMES/kitchen/depth/depth_spec.json").unlink()
    assert FolderSource(tmp_path / "FRAMES").depth_spec.unit == "millimetre"


@pytest.mark.parametrize("kind", ["inverse", "relative"])
def test_depth_without_a_unit_is_told_by_the_file_alone(tmp_path: Path, kind: str):
    provenance = {"made_by": "extract_depth", "kind": kind}
    found = FolderSource(write(tmp_path, {"kind": kind, "invalid_values": [0], "provenance": provenance}))
    assert (found.depth_spec.kind, found.depth_spec.invalid_values) == (kind, (0,))
    expected = np.where(depth_array(0, SIZE) > 0, depth_array(0, SIZE), np.nan).astype(np.float32)
    assert np.array_equal(found[0].read([0]).depth[0, 0].numpy(), expected, equal_nan=True)


def test_each_recording_is_read_by_its_own(tmp_path: Path):
    write(tmp_path / "kinect", MILLIMETRES, 3)
    write(tmp_path / "d405", D405)
    write(tmp_path / "other", None, 3)  # guessed
    source = FolderSource(tmp_path, unit="clips")
    read = {each.key: each.read([1]).depth[0, 0].numpy() for each in source}
    for name, scale in (("kinect", 1000), ("d405", 10000), ("other", 1000)):
        assert np.array_equal(read[name], metres(1, scale), equal_nan=True), name
    before = source.digest(), PhasesSource(tmp_path, unit="videos", fps=10, depth="auto").digest()
    (tmp_path / "d405/depth_spec.json").write_text(json.dumps({"scale": 9000}))
    after = FolderSource(tmp_path, unit="clips"), PhasesSource(tmp_path, unit="videos", fps=10, depth="auto")
    assert before[0] != after[0].digest() and before[1] != after[1].digest()


def test_stated_options_hold_where_they_agree_and_add_what_is_open(tmp_path: Path):
    write(tmp_path / "l515", {"unit": "custom", "scale": 4000.0, "kind": "metric", "min_depth": 0.2})
    stated = FolderSource(tmp_path, depth_unit="l515")
    assert (stated.depth_spec.unit, stated.depth_spec.min_depth) == ("quarter_millimetre", None)
    assert FolderSource(tmp_path, depth_scale={"l515": 4000}).depth_spec.scale == 4000
    assert FolderSource(tmp_path, depth_kind="metric").depth_spec.scale == 4000
    bounded = FolderSource(tmp_path, max_depth=3.0, invalid_values=[0]).depth_spec
    assert (bounded.scale, bounded.min_depth, bounded.max_depth) == (4000, 0.2, 3.0)
    assert bounded.invalid_values == (0,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth_scale": 1000}, r"d405.depth_spec\.json says .*'d405' is tenth_millimetre.* say .*depth_scale 1000"),
        ({"depth_unit": "mm"}, "is tenth_millimetre, .*depth_unit mm"),
        ({"depth_unit": {"d405": "mm"}}, "'d405' is tenth_millimetre, stored / 10000.*depth_unit mm"),
        ({"depth_kind": "inverse"}, "is metric, .*depth_kind inverse"),
    ],
)
def test_options_that_contradict_a_file_are_refused_with_both(tmp_path: Path, options: dict[str, Any], words: str):
    write(tmp_path / "kinect", MILLIMETRES)
    write(tmp_path / "d405", D405)
    with pytest.raises(ConfigError, match=words):
        FolderSource(tmp_path, **options)


def test_a_unit_of_depth_that_has_none_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is inverse, .*depth_scale 1000"):
        FolderSource(write(tmp_path, {"kind": "inverse"}), depth_scale=1000)


def test_a_damaged_file_is_refused_and_one_that_says_nothing_leaves_the_guess(tmp_path: Path):
    source = FolderSource(write(tmp_path, {"first_frame": 0}))
    assert source.depth_spec.unit == "millimetre" and any("guessed" in note for note in source.notes)
    (tmp_path / "depth_spec.json").write_text('{"units": "mm"}')
    with pytest.raises(ConfigError, match=r"depth_spec\.json.*units"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("written", [("a", "b"), ("a",), ("b",)])
def test_a_file_that_changes_nothing_of_what_is_read_changes_no_digest(tmp_path: Path, written: tuple[str, ...]):
    """Runs that began before the file was read are resumed, as importing a recording writes integers."""
    write(tmp_path / "a", None)
    write(tmp_path / "b", None, 3)

    def digests(**how: Any) -> list[str]:
        phases = PhasesSource(tmp_path, unit="videos", fps=10, **how)
        return [FolderSource(tmp_path, unit="clips", **how).digest(), phases.digest()]

    guessed, stated = digests(), digests(depth_unit="mm")
    for name in written:
        (tmp_path / name / "depth_spec.json").write_text(json.dumps({**MILLIMETRES, "scale": 1000}))
    assert digests() == guessed == stated
    for name in ("a", "b"):
        (tmp_path / name / "depth_spec.json").write_text(json.dumps({**MILLIMETRES, "min_depth": 1, "max_depth": 3}))
    bounded = FolderSource(tmp_path).digest()
    for name in ("a", "b"):
        (tmp_path / name / "depth_spec.json").unlink()
    assert bounded == FolderSource(tmp_path, depth_unit="mm", min_depth=1.0, max_depth=3.0).digest()


@pytest.mark.parametrize("videos", ["auto", "videos", "absolute"])
def test_phases_read_what_lies_beside_the_folder_of_videos(tmp_path: Path, videos: str):
    """As the source `folder` does of the same root; a file above that is of other data."""
    write(tmp_path / "DATA/videos/case1", None)
    write(tmp_path / "DATA/videos/case2", MILLIMETRES)
    chosen = str(tmp_path / "DATA/videos") if videos == "absolute" else videos
    (tmp_path / "depth_spec.json").write_text(json.dumps(D405))

    def read() -> dict[str, np.ndarray]:
        source = PhasesSource(tmp_path / "DATA", unit="videos", fps=10, depth="auto", videos=chosen)
        return {each.key: each.handle.read([1]).depth[0, 0].numpy() for each in source.videos}

    assert np.array_equal(read()["case1"], metres(1, 1000), equal_nan=True)  # guessed
    (tmp_path / "DATA/depth_spec.json").write_text(json.dumps(D405))
    found = read()
    assert np.array_equal(found["case1"], metres(1, 10000), equal_nan=True)
    assert np.array_equal(found["case2"], metres(1, 1000), equal_nan=True)
    for each in FolderSource(tmp_path / "DATA", unit="clips"):
        read_as_folder = each.read([1]).depth[0, 0].numpy()
        assert np.array_equal(read_as_folder, found[each.key.removeprefix("videos/")], equal_nan=True)
