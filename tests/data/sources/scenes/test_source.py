"""The scenes source on ARKitScenes' layout, and on those of Structured3D and Aria Synthetic."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.recordings import millimetres, picture
from helpers.scenes_folders import (
    ARIA_SIZE,
    SIZE,
    VIDEOS,
    save,
    structured3d_tables,
    write_aria,
    write_arkitscenes,
    write_structured3d,
)
from m33d_hf.data.labels.nyu40 import NYU40
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.scenes.source import ScenesSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, MissingDependencyError, MissingSplitError

pytestmark = pytest.mark.extras
pytest.importorskip("scenezoo", reason="scenezoo is in the extra 'extras'")
UP, SIDEWAYS = VIDEOS


def expected_depth(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    stored = millimetres(number, size).astype(np.float64)
    return np.where(stored > 0, stored / 1000, np.nan)


def test_arkitscenes_frames(tmp_path: Path):
    source = build_source("scenes", root=str(write_arkitscenes(tmp_path)), dataset="arkitscenes")
    assert len(source) == 8 and source[0].key == f"{UP}/000000" and source.groups() == [UP] * 4 + [SIDEWAYS] * 4
    for number in range(4):
        sample = source[number].read([0])
        assert np.array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), picture(number, SIZE))
        depth = sample.depth[0, 0].numpy()
        assert depth.dtype == np.float32 and np.allclose(depth, expected_depth(number), atol=1e-6, equal_nan=True)
    turned = source[5].read([0])  # the sky is on the left: a quarter clockwise brings it up
    assert np.array_equal(turned.rgb[0].permute(1, 2, 0).numpy(), np.rot90(picture(1, SIZE), -1))
    assert np.allclose(turned.depth[0, 0].numpy(), np.rot90(expected_depth(1), -1), atol=1e-6, equal_nan=True)
    lying = ScenesSource(tmp_path, "arkitscenes", upright=False)
    assert np.array_equal(lying[5].read([0]).rgb[0].permute(1, 2, 0).numpy(), picture(1, SIZE))
    assert source.depth_spec.unit == "metre" and source.digest() != lying.digest()


def test_arkitscenes_splits_clips_and_what_is_left_out(tmp_path: Path):
    root = write_arkitscenes(tmp_path, 6, without_depth=2)
    for split, video in (("train", UP), ("val", SIDEWAYS)):
        source = ScenesSource(root, "arkitscenes", split=split, unit="clips", every=2)
        assert [handle.key for handle in (source[0],)] == [video] and len(source) == 1
        assert source[0].numbers == (0, 3, 5) and source[0].fps == pytest.approx(5, rel=0.01)
        assert source[0].read([0, 2]).rgb.shape[0] == 2
    with pytest.raises(MissingSplitError, match="no split 'test' with depth; it has train, validation"):
        ScenesSource(root, "arkitscenes", split="test")
    assert ScenesSource(root, "arkitscenes", min_depth=1.5)[0].read([0]).depth.nan_to_num(9).min() >= 1.5


def test_depth_of_another_size_is_resized_or_registered(tmp_path: Path):
    """The highres camera's pictures with depth of half their size; intrinsics say that both see the same."""
    root = write_arkitscenes(tmp_path, 2)
    for video, (fold, _) in VIDEOS.items():
        for path in sorted((root / f"raw/{fold}/{video}/lowres_depth").iterdir()):
            save(path, millimetres(0, (12, 16)))
    for align, size in (("rgb_to_depth", (12, 16)), ("depth_to_rgb", SIZE), ("register", SIZE)):
        sample = ScenesSource(root, "arkitscenes", align=align)[0].read([0])
        assert sample.rgb.shape[-2:] == sample.depth.shape[-2:] == size
    coarse = expected_depth(0, (12, 16))
    registered = sample.depth[0, 0].numpy()
    inside = np.isfinite(registered) & np.isfinite(coarse.repeat(2, 0).repeat(2, 1))
    assert inside.mean() > 0.9
    step = np.nanmax(np.abs(np.diff(coarse, axis=0)))
    assert np.abs(registered - coarse.repeat(2, 0).repeat(2, 1))[inside].max() <= 1.01 * step
    with pytest.raises(DataError, match="differ in size"):
        ScenesSource(root, "arkitscenes", align="refuse")[0].read([0])


def test_maps_that_are_not_needed_are_not_asked_for(tmp_path: Path):
    root = write_arkitscenes(tmp_path, 2)
    source = pickle.loads(pickle.dumps(ScenesSource(root, "arkitscenes", align="refuse")))
    for path in (root / f"raw/Training/{UP}/lowres_depth").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    assert source[0].read_maps([0], {"rgb"}).depth is None
    with pytest.raises(CorruptFileError, match=rf"{UP}/0: cannot be read by scenezoo \(Cannot decode image"):
        source[0].read([0])


def test_structured3d_has_semantic_labels(tmp_path: Path):
    root = write_structured3d(tmp_path)
    more: dict[str, Any] = {"tables": structured3d_tables(root), "offline": True, "labels": "auto"}
    source = ScenesSource(root, "structured3d", split="train", **more)
    keys = [source[row].key for row in range(4)]
    assert keys == [f"scene_00000/{room}/{view:06d}" for room in ("485142", "485143") for view in range(2)]
    sample = source[1].read([0])
    ids = np.arange(SIZE[1]) % 41
    assert (sample.segmentation[0].numpy() == np.where(ids == 0, 255, ids - 1)).all()
    assert source.class_names == list(NYU40.values())
    assert np.allclose(sample.depth[0, 0].numpy(), expected_depth(1), atol=1e-6, equal_nan=True)
    assert any("2999 scenes of the list are not among the files" in note for note in source.notes)
    with pytest.raises(DataError, match="no usable frame of Structured3D"):
        ScenesSource(root, "structured3d", split="val", **more)
    with pytest.raises(DataError, match=r"cannot read its list of scenes.*--data\.options\.tables"):
        ScenesSource(root, "structured3d", offline=True, tables={"errata_file": str(tmp_path / "none.txt")})


def test_arias_rays_become_depth_along_the_axis(tmp_path: Path):
    """A wall 2 m before the camera: the distance along a ray at the angle theta is 2 m / cos(theta)."""
    from scenezoo import get_dataset

    camera = get_dataset("ase", tmp_path).get_calibration()
    f, cx, cy, *bending = camera["projection_parameters"]
    rows, columns = np.mgrid[0:ARIA_SIZE, 0:ARIA_SIZE]
    radius = np.hypot(columns - cx, rows - cy)
    angles = np.linspace(0, 1.3, 4000)  # radial terms alone: the others of this camera move a pixel by less than one
    radii = f * (angles + sum(k * angles ** (2 * i + 3) for i, k in enumerate(bending[:6])))
    theta = np.interp(radius, radii, angles)
    stored = np.rint(2000 / np.cos(theta)).clip(0, 65535).astype(np.uint16)
    instances = (columns // 100 + 300).astype(np.uint16)
    root = write_aria(tmp_path, stored, instances)
    source = ScenesSource(root, "ase", labels="auto")
    sample = source[0].read([0])
    depth, near = sample.depth[0, 0].numpy(), np.rot90(theta < 1.0, -1)
    assert np.abs(depth[near] - 2).max() < 0.02 and np.abs(np.median(depth[near]) - 2) < 1e-3
    assert np.isnan(depth[:20, :20]).all()  # outside the lens
    found = sample.meta["modalities"]["instances"]
    assert np.array_equal(found[0, 0].numpy(), np.rot90(instances, -1)) and sample.segmentation is None
    assert "modalities" not in source[0].read_maps([0], {"rgb", "depth"}).meta


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "arkitscene"}, r"must be one of .*Did you mean 'arkitscenes'"),
        ({"dataset": "structured3d", "stream": "panorama"}, "a panorama is no picture of a pinhole camera"),
        ({"dataset": "scannetpp", "stream": "panocam"}, "a panorama is no picture"),
        ({"dataset": "scannetpp", "stream": "dslr"}, "it has no depth"),
        ({"dataset": "arkitscenes", "stream": "lowreswide"}, "Did you mean 'lowres_wide'"),
        ({"dataset": "arkitscenes", "labels": "auto"}, "no label maps"),
        ({"dataset": "ase", "align": "register"}, "fit already"),
        ({"dataset": "arkitscenes", "tables": {"list": "a.txt"}}, "does not all take"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        build_source("scenes", root=str(tmp_path), **options)


def test_the_data_set_is_asked_for(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"requires the option 'dataset' \(--data\.options\.dataset\)"):
        build_source("scenes", root=str(tmp_path))


def test_an_empty_folder_and_a_scene_that_cannot_be_listed(tmp_path: Path):
    with pytest.raises(DataError, match="is not a folder"):
        ScenesSource(tmp_path / "none", "arkitscenes")
    root = write_arkitscenes(tmp_path)
    (root / f"raw/Training/{UP}/lowres_wide.traj").write_text("1 2 3\n")
    source = ScenesSource(root, "arkitscenes")
    assert len(source) == 4
    assert [(entry.path, "trajectory" in entry.reason) for entry in source.unpaired] == [(UP, True)]


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str, *rest: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'm33d-hf\[scenes\]'"):
        ScenesSource(tmp_path, "arkitscenes")
