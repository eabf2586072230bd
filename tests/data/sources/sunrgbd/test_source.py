"""The sunrgbd source: rotated bits, the toolbox's labels and split, a real frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.frames_on_disk import save
from helpers.shared_data import shared
from helpers.sunrgbd_folders import FRAMES, SIZE, labels_of, millimetres_of, rotated, write_sunrgbd
from m33d_hf.data.labels.nyu40 import NYU40
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.sunrgbd.source import SunRgbdSource
from m33d_hf.errors import CorruptFileError, DataError, MissingSplitError


def test_frames_depth_and_labels(tmp_path: Path):
    source = SunRgbdSource(write_sunrgbd(tmp_path), labels="auto")
    assert [source[row].key for row in range(4)] == [f"SUNRGBD/{frame}" for frame in FRAMES]
    for number in range(4):
        sample = source[number].read([0])
        depth = sample.depth[0, 0].numpy()
        assert np.isnan(depth[0]).all() and np.abs(depth[1:] - millimetres_of(number)[1:] / 1000).max() < 1e-5
        stored = labels_of(number).astype(int)
        assert (sample.segmentation[0].numpy() == np.where(stored == 0, 255, stored - 1)).all()
    assert (source.class_names[0], source.class_names[36], len(source.class_names)) == ("wall", "bag", 37)


def test_depth_as_measured(tmp_path: Path):
    source = build_source("sunrgbd", root=str(write_sunrgbd(tmp_path)), depth="depth")
    assert source[1].read([0]).depth[0, 0, 5, 5].item() == pytest.approx((millimetres_of(1)[5, 5] + 1) / 1000)


def test_the_toolbox_split(tmp_path: Path):
    root = write_sunrgbd(tmp_path)
    for split, expected in (("train", FRAMES[:2]), ("test", FRAMES[2:])):
        source = SunRgbdSource(root, split=split)
        assert [source[row].key for row in range(len(source))] == [f"SUNRGBD/{frame}" for frame in expected]
    inside = SunRgbdSource(root / "SUNRGBD", split="test", labels="auto")  # the toolbox lies beside this root
    assert [inside[row].key for row in range(2)] == list(FRAMES[2:])
    assert (inside[0].read([0]).segmentation[0, 0, ::8].numpy() == [255, 0, 36, 3]).all()


def test_a_real_frame():
    root = shared("research_only/sunrgbd_toy")
    source = SunRgbdSource(root / "images")
    sample = source[0].read([0])
    stored = np.asarray(Image.open(next((root / "images").rglob("depth_bfx/*.png")))).astype(np.uint32)
    metres = ((stored >> 3) | (stored << 13) & 0xFFFF) / 1000  # as the toolbox's own function
    assert np.nanmax(np.abs(sample.depth[0, 0].numpy() - metres)) < 1e-4
    assert 0.5 < np.nanmedian(metres) < 5


def test_names_of_classes_are_those_of_the_list():
    lines = shared("lists/sunrgbd/sun37_class_names.txt").read_text().splitlines()
    names = {int(number): name for number, name in (line.split("\t") for line in lines)}
    same = {"fridge": "refrigerator", "tv": "television"}
    assert [same.get(names[number], names[number]) for number in range(1, 38)] == [NYU40[n] for n in range(1, 38)]


def test_what_is_left_out_is_listed(tmp_path: Path):
    root = write_sunrgbd(tmp_path)
    (root / f"SUNRGBD/{FRAMES[0]}/depth_bfx/0000000.png").unlink()
    save(root / "SUNRGBD/kv1/own/image/1.jpg", np.zeros((*SIZE, 3), np.uint8))
    for name in ("depth", "depth_bfx"):
        save(root / f"SUNRGBD/kv1/own/{name}/1.png", rotated(millimetres_of(1)))
    source = SunRgbdSource(root, labels="auto")
    assert len(source) == 3
    assert {(entry.path, entry.reason) for entry in source.unpaired} == {
        (f"SUNRGBD/{FRAMES[0]}", "not exactly one map in depth_bfx"),
        ("SUNRGBD/kv1/own", "no label map in the toolbox"),
    }


def test_what_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no frame of SUN RGB-D"):
        SunRgbdSource(tmp_path)
    root = write_sunrgbd(tmp_path)
    with pytest.raises(MissingSplitError, match="no validation split"):
        SunRgbdSource(root, split="val")
    with pytest.raises(DataError, match=r"allsplit\.mat of SUN RGB-D's toolbox"):
        SunRgbdSource(root / "SUNRGBD/kv1", split="train")
    segmentation = root / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"
    segmentation.write_bytes(segmentation.read_bytes()[:2000])
    with pytest.raises(CorruptFileError, match="download complete"):
        SunRgbdSource(root, labels="auto")
