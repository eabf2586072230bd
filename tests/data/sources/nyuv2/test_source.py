"""The nyuv2 source: the published file and pictures, targets, validity, ids, the official split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import depth_array, label_array, rgb_array, save
from helpers.nyuv2_files import depth_of, picture_of, raw_of, write_mat, write_tables
from helpers.shared_data import shared
from m33d_hf.data.labels.nyu40 import NYU40
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.nyuv2.source import NYUv2Source
from m33d_hf.data.sources.nyuv2.tables import read_class_map, read_split
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, DepthUnitError, LabelError, MissingSplitError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nyu")
    write_mat(folder / "nyu_depth_v2_labeled.mat", frames=[*range(0, 1449, 23), 1448])
    write_tables(folder)
    return folder


def test_the_published_file(root: Path):
    source = NYUv2Source(root, split="train", labels="auto")
    assert len(source) == 725 and [source[0].key, source[-1].key] == ["0001", "1449"]
    sample = source[724].read([0])
    assert (sample.rgb[0].permute(1, 2, 0).numpy() == picture_of(1448)).all()
    depth = sample.depth[0, 0].numpy()
    assert np.isnan(depth[:, :64]).all() and (depth[:, 64:] == depth_of(1448)[:, 64:]).all()
    labels = sample.segmentation[0]
    assert labels[0, 80::160].tolist() == [255, 2, 0, 39] and (labels[240:] == 21).all()
    assert (source.class_names[21], source.class_names[39], len(source.class_names)) == ("ceiling", "otherprop", 40)
    assert any("725 of 725 frames" in note for note in source.notes)


def test_test_and_training_share_nothing(root: Path):
    train, test = NYUv2Source(root, split="train"), NYUv2Source(root / "nyu_depth_v2_labeled.mat", split="test")
    keys = [{source[row].key for row in range(len(source))} for source in (train, test)]
    assert len(keys[0]) + len(keys[1]) == 1449 and not keys[0] & keys[1]
    assert train.digest() != test.digest()


@pytest.mark.parametrize(
    ("options", "holes", "expected"),
    [
        ({"depth_target": "depths", "valid": "all"}, 0, depth_of(1448)),
        ({"depth_target": "depths"}, 64, depth_of(1448)),
        ({"depth_target": "rawDepths"}, 64, raw_of(1448)),
        ({"depth_target": "rawDepths", "valid": "all"}, 64, raw_of(1448)),
    ],
)
def test_targets_and_validity(root: Path, options: dict, holes: int, expected: np.ndarray):
    source = NYUv2Source(root, **options)
    depth = source[1448].read([0]).depth[0, 0].numpy()
    assert np.isnan(depth[:, :holes]).all() and (depth[:, holes:] == expected[:, holes:]).all()
    target = options["depth_target"]
    assert any(f"depth is {target}, valid where" in note for note in source.notes)


def test_masks(root: Path, tmp_path: Path):
    (tmp_path / "nyu_depth_v2_labeled.mat").symlink_to(root / "nyu_depth_v2_labeled.mat")
    write_tables(tmp_path)
    mask = np.zeros((480, 640), np.uint8)
    mask[100:200, 10:20] = 255
    for number in read_split(tmp_path / "splits.mat")["train"]:
        path = tmp_path / f"mask_valid/{number:04d}.png"
        save(path, mask) if number in (1, 1449) else path.write_bytes((tmp_path / "mask_valid/0001.png").read_bytes())
    source = NYUv2Source(tmp_path, split="train", valid="mask_valid")
    depth = source[724].read([0]).depth[0, 0]
    assert torch.equal(torch.isfinite(depth), torch.from_numpy(mask > 0))
    assert torch.equal(depth[mask > 0], torch.from_numpy(depth_of(1448))[mask > 0])
    (tmp_path / "mask_valid/0001.png").unlink()
    with pytest.raises(DataError, match="no mask for the frame 0001"):
        NYUv2Source(tmp_path, split="train", valid="mask_valid")
    with pytest.raises(DataError, match=r"not a folder; .* folder of masks"):
        NYUv2Source(tmp_path, valid="masks")


def test_the_official_tables():
    split = read_split(shared("lists/nyuv2/splits.mat"))
    for name, file in (("train", "train_795_1based.txt"), ("test", "test_654_1based.txt")):
        assert split[name] == sorted(int(word) for word in shared(f"lists/nyuv2/{file}").read_text().split())
    classes = read_class_map(shared("lists/nyuv2/classMapping40.mat"))
    assert len(classes) == 894 and (classes[21], classes[5], classes[11]) == (1, 5, 2)  # wall, chair, floor
    names = dict(line.split("\t") for line in shared("lists/nyuv2/nyu40_class_names.txt").read_text().splitlines())
    ours = {"0": "void", **{str(number): name for number, name in NYU40.items()}}
    assert {number: name.replace("refridgerator", "refrigerator") for number, name in names.items()} == ours


def test_a_real_frame_in_pictures(tmp_path: Path):
    folder = shared("research_only/nyuv2_labelled_drsleep")
    for name, file in (("rgb", "000464.png"), ("depth", "depth_gt_000464.png"), ("label", "segm_gt_000464.png")):
        target = tmp_path / "test" / name / "000464.png"
        target.parent.mkdir(parents=True)
        target.write_bytes((folder / file).read_bytes())
    source = NYUv2Source(tmp_path, split="test", labels="auto", depth_unit="tum")
    sample = source[0].read([0])
    stored = np.asarray(Image.open(folder / "segm_gt_000464.png"))
    assert (sample.segmentation[0].numpy() == stored).all()
    depth = np.asarray(Image.open(folder / "depth_gt_000464.png")).astype(np.float32)
    found = sample.depth[0, 0].numpy()
    assert np.isnan(found[depth == 0]).all() and np.abs(found - depth / 5000)[depth > 0].max() < 1e-5
    assert any("counted from zero" in note for note in source.notes)


def write_pictures(root: Path, numbers, prefix: str = "", labels=label_array) -> Path:
    for number in numbers:
        save(root / prefix / f"rgb/{number:04d}.png", rgb_array(number))
        save(root / prefix / f"depth/{number:04d}.png", depth_array(number))
        save(root / prefix / f"label/{number:04d}.png", labels(number))
    return root


def test_pictures_by_the_official_numbers(tmp_path: Path):
    write_pictures(tmp_path, range(6))
    write_tables(tmp_path)
    train = NYUv2Source(tmp_path, split="train")  # numbers 1, 3, 5 of the table, files 0000, 0002, 0004
    assert [train[row].key.split("/")[-1] for row in range(len(train))] == ["0000", "0002", "0004"]
    (tmp_path / "rgb/0000.png").unlink()
    (tmp_path / "depth/0000.png").unlink()
    test = NYUv2Source(tmp_path, split="train")  # now the first file is 0001, number 1
    assert [test[row].key.split("/")[-1] for row in range(len(test))] == ["0001", "0003", "0005"]
    stated = NYUv2Source(tmp_path, split="train", first_number=0)
    assert [stated[row].key.split("/")[-1] for row in range(len(stated))] == ["0002", "0004"]


def test_pictures_in_folders_of_splits(tmp_path: Path):
    write_pictures(tmp_path, (1, 2), "train")
    write_pictures(tmp_path, (3,), "test")
    source = NYUv2Source(tmp_path, split="test")
    assert len(source) == 1 and source[0].key.endswith("0003")
    assert source[0].read([0]).depth[0, 0, 5, 5].item() == pytest.approx(depth_array(3)[5, 5] / 1000)


@pytest.mark.parametrize(
    ("values", "ids", "expected"),
    [
        ((0, 1, 40, 22), "nyu40", [255, 0, 39, 21]),
        ((0, 1, 39, 255), "nyu40_zero_based", [0, 1, 39, 255]),
        ((0, 3, 21, 894), "raw", [255, 2, 0, 39]),
    ],
)
def test_label_ids_of_pictures(tmp_path: Path, values, ids: str, expected: list[int]):
    write_tables(tmp_path)
    quarters = np.array(values, np.uint16).repeat(8)[None].repeat(24, 0)
    write_pictures(tmp_path, (1, 2), labels=lambda number: quarters)
    for stated in ("auto", ids):
        source = NYUv2Source(tmp_path, labels="auto", label_ids=stated)
        assert source[0].read([0]).segmentation[0, 0, 4::8].tolist() == expected


def test_label_ids_that_could_be_both(tmp_path: Path):
    write_pictures(tmp_path, (1, 2))  # 0 to 3
    with pytest.raises(LabelError, match="label_ids=nyu40 or label_ids=nyu40_zero_based"):
        NYUv2Source(tmp_path, labels="auto")


def test_what_is_refused(root: Path, tmp_path: Path):
    with pytest.raises(MissingSplitError, match="no validation split"):
        NYUv2Source(root, split="val")
    with pytest.raises(ConfigError, match=r"depth_target is 'rawdepths'.*Did you mean 'rawDepths'"):
        NYUv2Source(root, depth_target="rawdepths")
    with pytest.raises(ConfigError, match="must be auto or none"):
        NYUv2Source(root, labels="label40")
    with pytest.raises(DataError, match=r"splits\.mat is neither"):
        NYUv2Source(write_pictures(tmp_path, (1, 2)), split="train")
    with pytest.raises(DataError, match="neither a folder nor a file"):
        NYUv2Source(tmp_path / "none")
    with pytest.raises(DepthUnitError):
        NYUv2Source(root, depth_scale=50_000.0)
    write_tables(tmp_path)
    save(tmp_path / "rgb/2000.png", rgb_array(0))
    save(tmp_path / "depth/2000.png", depth_array(0))
    with pytest.raises(DataError, match=r"1 frame is in neither split .* number 2000"):
        NYUv2Source(tmp_path, split="train")
    (tmp_path / "splits.mat").write_bytes((tmp_path / "classMapping40.mat").read_bytes())
    with pytest.raises(CorruptFileError, match="trainNdxs"):
        NYUv2Source(tmp_path, split="train")


def test_by_name(root: Path):
    assert len(build_source("nyuv2", root=str(root), split="test")) == 724
