"""The sources on real recordings; each test is skipped by name where its frames are not there."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.shared_data import shared
from m33d_hf.data.measuring.first_look import first_look
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.sources import build_source
from m33d_hf.errors import DepthUnitError, LabelError


def stored(path: Path) -> np.ndarray:
    return np.array(Image.open(path)).astype(np.float64)


def test_7_scenes_zeros_and_65535_are_invalid():
    root = shared("research_only/7scenes_seq")
    source = build_source("folder", root=root)
    assert len(source) == 250 and source.depth_spec.unit == "millimetre"
    saturated = 0
    for index in range(0, 60, 3):
        depth = source[index].read([0]).depth[0, 0].numpy()
        raw = stored(root / f"frame-{index:06d}.depth.png")
        saturated += int((raw == 65535).sum())
        assert (np.isnan(depth) == ((raw == 0) | (raw == 65535))).all()
        np.testing.assert_allclose(depth[~np.isnan(depth)], raw[~np.isnan(depth)] / 1000, rtol=1e-6)
        assert np.nanmax(depth) < 10
    assert saturated > 0
    clip = build_source("folder", root=root, unit="clips", every=4)[0]
    assert clip.length == 63 and clip.read(range(0, 16, 4)).rgb.shape == (4, 3, 480, 640)


def test_open3d_pairs_by_their_association_file():
    root = shared("rgbd_pairs/open3d_rgbd_icl_noisy")
    source = build_source("folder", root=root)
    assert len(source) == 5 and "rgbd.match" in " ".join(source.notes)
    sample = source[3].read([0])
    raw = stored(root / "depth/00003.png")
    assert sample.depth.isnan().float().mean().item() == pytest.approx((raw == 0).mean(), abs=1e-6)
    assert source.detection.median == pytest.approx(1.86, abs=0.02)


@pytest.mark.parametrize(
    ("relative", "items", "unit", "median"),
    [
        ("rgbd_pairs/open3d_other_formats", 1, "tum", 2.41),
        ("rgbd_pairs/slambook_ch7_tum", 2, "tum", 1.53),
        ("rgbd_pairs/esanet_kinect2", 1, "tenth_millimetre", 2.45),
    ],
)
def test_scales_are_recognised(relative: str, items: int, unit: str, median: float):
    source = build_source("folder", root=shared(relative))
    assert len(source) == items and source.depth_spec.unit == unit
    assert source.detection.median == pytest.approx(median, abs=0.02)
    assert f"{source.detection.median:.3g} m" in source.detection.message


def test_kinect2_saturation_is_invalid():
    root = shared("rgbd_pairs/esanet_kinect2")
    source = build_source("folder", root=root)
    raw = stored(root / "sample_depth.png")
    depth = source[0].read([0]).depth[0, 0].numpy()
    assert (np.isnan(depth) == ((raw == 0) | (raw == 65535))).all()
    assert source.detection.saturated_fraction == pytest.approx((raw == 65535).mean(), abs=2e-3)


def test_icl_nuim_sequence_as_a_clip():
    source = build_source("folder", root=shared("rgbd_sequences/icl_nuim_livingroom1"), unit="clips")
    assert len(source) == 1 and source[0].length == 130
    sample = source[0].read([0, 64, 129])
    assert sample.rgb.shape == (3, 3, 480, 640) and sample.depth.shape == (3, 1, 480, 640)
    splits = [build_source("folder", root=source.root, unit="clips", split=s) for s in ("train", "val", "test")]
    lengths = [split[0].length for split in splits]
    assert sum(lengths) == 130 and min(lengths) == 13


def test_replica_labels_with_void():
    root = shared("research_only/replica_office0")
    source = build_source("folder", root=root, class_names="classes.tsv")
    assert len(source) == 54 and len(source.class_names) == 22 and "void" not in source.class_names
    labels = source[10].read([0]).segmentation[0].numpy()
    raw = stored(root / "label/100.png")
    assert ((labels == 255) == (raw == 0)).all()
    assert labels[labels != 255].max() < 22
    plain = build_source("folder", root=root, num_classes=101, label_ignore=[0])[10].read([0]).segmentation[0].numpy()
    np.testing.assert_array_equal(plain[plain != 255], raw[raw != 0])
    report = first_look(Subject("train", source, len(source), 1, 16), frames=6)
    assert report.with_labels == 6 and 0.1 < report.label_pixels[255] / sum(report.label_pixels.values()) < 0.5


def test_replica_labels_without_the_void_option_are_refused():
    with pytest.raises(LabelError, match=r"label/0\.png.*label_ignore"):
        build_source("folder", root=shared("research_only/replica_office0"), num_classes=22)


def test_nyuv2_frame_with_labels_from_zero():
    root = shared("research_only/nyuv2_labelled_drsleep")
    with pytest.raises(DepthUnitError, match=r"2\.96 m as tum: .*3\.71 m as quarter_millimetre: "):
        build_source("folder", root=root)  # its holes are filled in: nothing of the camera's steps is left
    sample = build_source("folder", root=root, num_classes=40, depth_unit="tum")[0].read([0])
    assert sample.segmentation.max() == 255 and sample.segmentation[sample.segmentation != 255].max() < 40
    assert sample.depth.isnan().float().mean().item() == pytest.approx(0.37, abs=0.01)


def test_tum_layout_with_most_files_missing():
    root = shared("research_only/tum_format_tum2klg")
    source = build_source("tum", root=root)
    assert len(source) == 1 and source[0].length == 17
    assert all("missing" in entry.reason for entry in source.unpaired) and len(source.unpaired) > 1900
    by_stamp = build_source("tum", root=root, association="none")
    assert by_stamp[0].length == 17
    lonely = {entry.path for entry in by_stamp.unpaired if "partner" in entry.reason}
    assert lonely == {"depth/1628069034.390328.png", "rgb/1628069034.423709.png"}
    sample = by_stamp[0].read([0, 16])
    assert sample.rgb.shape == (2, 3, 480, 640)
    assert math.isfinite(sample.depth[torch.isfinite(sample.depth)].median().item())


def test_rgb_only_folder():
    root = shared("rgb_only/slambook_ch12_tum")
    source = build_source("folder", root=root, depth="none")
    assert len(source) == 6 and source.depth_spec is None
    assert source[0].read([0]).depth is None
