"""The scannet source: three layouts read alike, ids, sizes, lists, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import save
from helpers.scannet_folders import SIZE, stripes, write_exported, write_frames_25k, write_recorded, write_table
from helpers.sens_files import depth_ramp, smooth_picture
from helpers.shared_data import shared
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.scannet.source import ScanNetSource
from m33d_hf.errors import ConfigError, DataError, DepthUnitError, LabelError

# Of the stripes of helpers.scannet_folders: wall, chair, floor, otherprop, void, books, otherfurniture, chair.
BENCHMARK = [0, 4, 1, 255, 255, 255, 19, 4]
FORTY = [0, 4, 1, 39, 255, 22, 38, 4]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_table(tmp_path / "scannetv2-labels.combined.tsv")
    return tmp_path / "scans"


def classes(source: ScanNetSource, row: int = 0) -> list[int]:
    labels = source[row].read([0]).segmentation
    assert labels.shape[-2:] == SIZE
    assert (labels == labels[:, :1]).all()
    width = SIZE[1] // 8
    return labels[0, 0, width // 2 :: width].tolist()


@pytest.mark.parametrize("write", [write_exported, write_recorded])
def test_recordings_and_exports_are_read_alike(scans: Path, write):
    source = ScanNetSource(write(scans), labels="auto", require_labels=False)
    assert [item.key for item in (source[i] for i in range(4))] == [f"scene0000_00/{i}" for i in range(4)]
    sample = source[2].read([0])
    assert sample.rgb.shape == (1, 3, *SIZE) and sample.depth.shape == (1, 1, *SIZE)
    expected = depth_ramp(2, SIZE).astype(np.float32) / 1000
    assert torch.isnan(sample.depth[0, 0, 0, 0])
    assert np.abs(sample.depth[0, 0].numpy() - expected).ravel()[1:].max() < 1e-6
    half = Image.fromarray(smooth_picture(2, (48, 64))).resize((32, 24), Image.BILINEAR)
    apart = np.abs(sample.rgb[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(half).astype(int))
    assert apart.max() <= 4
    assert classes(source, 2) == BENCHMARK
    assert source.class_names[4] == "chair" and len(source.class_names) == 20


def test_frames_25k_hold_nyu40_ids(scans: Path):
    source = ScanNetSource(write_frames_25k(scans), labels="auto", every=100)
    assert len(source) == 3 and classes(source) == BENCHMARK
    assert any("nyu40" in note for note in source.notes)


@pytest.mark.parametrize(("write", "ids"), [(write_exported, "raw"), (write_frames_25k, "nyu40")])
def test_forty_classes(scans: Path, write, ids: str):
    source = ScanNetSource(write(scans), labels="auto", num_classes=40, label_ids=ids)
    assert classes(source) == FORTY and source.class_names[39] == "otherprop"


def test_number_of_classes(scans: Path):
    with pytest.raises(ConfigError, match="num_classes is 13"):
        ScanNetSource(write_exported(scans), labels="auto", num_classes=13)


def test_the_whole_table_of_the_data_set(scans: Path):
    table = shared("lists/scannet/scannetv2-labels.combined.tsv")
    lines = shared("lists/scannet/scannet20_nyu40ids.txt").read_text().splitlines()
    benchmark = [int(line.split()[0]) for line in lines]
    with table.open(newline="") as file:
        by_id = {int(row["id"]): int(row["nyu40id"]) for row in csv.DictReader(file, delimiter="\t")}
    assert (by_id[107], by_id[188], by_id[385]) == (38, 38, 3)  # of contradicting rows the last
    ids = [107, 188, 385, *by_id][: 32 * 16]
    save(scans / "scene0000_00/color/0.png", smooth_picture(0, (4, len(ids))))
    save(scans / "scene0000_00/depth/0.png", depth_ramp(0, (4, len(ids))))
    save(scans / "scene0000_00/label/0.png", stripes(ids, (4, len(ids)), np.uint16))
    found = ScanNetSource(scans, labels="label", label_table=str(table))[0].read([0]).segmentation[0, 0].tolist()
    assert found == [benchmark.index(by_id[raw]) if by_id[raw] in benchmark else 255 for raw in ids]


def test_filtered_labels_come_first(scans: Path):
    write_exported(scans, labels="label")
    for number in range(4):
        save(scans / f"scene0000_00/label-filt/{number}.png", np.full((48, 64), 3, np.uint16))
    assert set(classes(ScanNetSource(scans, labels="auto", label_ids="raw"))) == {1}
    assert classes(ScanNetSource(scans, labels="label")) == BENCHMARK


def test_every_counts_by_the_numbers_of_frames(scans: Path):
    write_exported(scans, numbers=range(0, 100, 20))
    source = ScanNetSource(scans, every=40)
    assert [source[i].key for i in range(len(source))] == ["scene0000_00/0", "scene0000_00/40", "scene0000_00/80"]
    write_recorded(scans, "scene0001_00", count=5)
    recorded = ScanNetSource(scans / "scene0001_00", every=2)
    assert [recorded[i].key for i in range(3)] == ["scene0001_00/0", "scene0001_00/2", "scene0001_00/4"]
    assert any("3 of 5 frames whose number is a multiple of 2" in note for note in recorded.notes)


def test_clips_are_scans(scans: Path):
    write_recorded(scans, count=6)
    source = ScanNetSource(scans, unit="clips", every=2, clip_length=3)
    assert len(source) == 1 and source[0].length == 3 and source[0].fps == 15
    assert source[0].read([2, 0]).depth[0, 0, 3, 3].item() == pytest.approx(depth_ramp(4, SIZE)[3, 3] / 1000)


def test_frames_without_labels_are_listed(scans: Path):
    source = ScanNetSource(write_recorded(scans), labels="auto")
    assert [source[i].key for i in range(len(source))] == ["scene0000_00/0", "scene0000_00/2"]
    assert [(entry.path, entry.reason) for entry in source.unpaired] == [
        (f"scene0000_00/scene0000_00.sens#color-{i}", "no label map") for i in (1, 3)
    ]


def test_depth_shift_of_the_recording(scans: Path):
    write_recorded(scans, "scene0000_00", shift=1000.0)
    write_recorded(scans, "scene0001_00", shift=4000.0)
    source = ScanNetSource(scans)
    for row in (1, 5):
        assert source[row].read([0]).depth[0, 0, -1, -1].item() == pytest.approx(2.1, abs=1e-3)
    with pytest.raises(DepthUnitError):
        ScanNetSource(scans, depth_unit="metre")


def test_unknown_ids_are_counted_and_bounded(scans: Path):
    write_exported(scans)
    for number in range(4):
        save(scans / f"scene0000_00/label-filt/{number}.png", stripes((1, 2, 3, 7777), (48, 64), np.uint16))
    with pytest.raises(LabelError, match=r"25\.0% .*\(7777 \(3072 pixels\)\)"):
        ScanNetSource(scans, labels="auto")
    source = ScanNetSource(scans, labels="auto", max_unknown=0.3)
    assert source[0].read([0]).segmentation[0, 0, -1] == 255
    assert any("25.00% have unknown ids: 7777" in note for note in source.notes)


def test_values_that_speak_against_the_layout(scans: Path):
    write_exported(scans, numbers=range(20))
    for number in range(20):
        save(scans / f"scene0000_00/label-filt/{number}.png", stripes((1, 2, 39, 40), (48, 64), np.uint16))
    with pytest.raises(LabelError, match=r"none above 40.*label_ids=nyu40"):
        ScanNetSource(scans, labels="auto")
    assert ScanNetSource(scans, labels="auto", label_ids="nyu40")[0].read([0]).segmentation[0, 0, -1] == 255
    write_frames_25k(scans / "other")
    save(scans / "other/scene0000_00/label/000100.png", stripes((1, 1163), (24, 32), np.uint16))
    with pytest.raises(LabelError, match=r"up to 1163.*label_ids=raw"):
        ScanNetSource(scans / "other", labels="auto")


def test_raw_ids_need_their_table(tmp_path: Path):
    write_exported(tmp_path / "scans")
    with pytest.raises(DataError, match=r"scannetv2-labels\.combined\.tsv.*label_table"):
        ScanNetSource(tmp_path / "scans", labels="auto")
    bad = tmp_path / "bad.tsv"
    for text, match in (("id\tname\n", "no column nyu40id"), ("id\tnyu40id\nx\t3\n", "line 2: 'x' and '3'")):
        bad.write_text(text)
        with pytest.raises(DataError, match=match):
            ScanNetSource(tmp_path / "scans", labels="auto", label_table=str(bad))


def write_three(scans: Path) -> Path:
    for name in ("scene0000_00", "scene0000_01", "scene0001_00"):
        write_exported(scans, name, labels=None)
    return scans


def test_official_lists(scans: Path):
    write_three(scans)
    (scans.parent / "scannetv2_train.txt").write_text("scene0000_00\nscene0000_01\nscene0099_00\n")
    (scans.parent / "scannetv2_val.txt").write_text("scene0001_00\n")
    train, validation = ScanNetSource(scans, split="train"), ScanNetSource(scans, split="val")
    assert {train[i].key.split("/")[0] for i in range(len(train))} == {"scene0000_00", "scene0000_01"}
    assert len(validation) == 4 and len(ScanNetSource(scans, split="all")) == 12
    assert any("matches nothing that is used, the first: scene0099_00" in note for note in train.notes)
    (scans.parent / "scannetv2_val.txt").write_text("scene0001_00\nscene0000_01\n")
    with pytest.raises(DataError, match="proves nothing"):
        ScanNetSource(scans, split="val")


def test_a_low_label_list(scans: Path):
    write_three(scans)
    (scans.parent / "one.txt").write_text("scene0000_01\n")
    source = ScanNetSource(scans, split="train", split_list={"train": str(scans.parent / "one.txt")})
    assert len(source) == 4 and source[0].key == "scene0000_01/0"


def test_no_split_is_made_up(scans: Path):
    with pytest.raises(DataError, match=r"scannetv2_train\.txt, is not in .*split_list"):
        ScanNetSource(write_three(scans), split="train")
    assert len(ScanNetSource(scans, split="train", split_fractions={"train": 0.5, "test": 0.5})) in (4, 6, 8)


def test_a_broken_recording_is_listed_and_the_rest_is_read(scans: Path):
    write_recorded(scans, "scene0000_00")
    write_recorded(scans, "scene0001_00")
    file = scans / "scene0001_00/scene0001_00.sens"
    file.write_bytes(file.read_bytes()[:-200])
    (scans / "scene0002_00").mkdir()
    (scans / "scene0002_00/scene0002_00.sens").write_bytes(b"\x04\0\0\0" + b"\xff" * 8)
    source = ScanNetSource(scans)
    assert len(source) == 7
    reasons = {entry.path: entry.reason for entry in source.unpaired}
    assert "the first 3 are used" in reasons["scene0001_00/scene0001_00.sens"]
    assert "sensor name of 18,446,744,073,709,551,615 bytes" in reasons["scene0002_00/scene0002_00.sens"]


def test_nothing_to_read(tmp_path: Path):
    with pytest.raises(DataError, match="not a folder"):
        ScanNetSource(tmp_path / "none")
    with pytest.raises(DataError, match="no scene of ScanNet"):
        ScanNetSource(tmp_path)
    (tmp_path / "scene0000_00").mkdir()
    with pytest.raises(DataError, match="no folder color and no depth"):
        ScanNetSource(tmp_path)
    with pytest.raises(ConfigError, match=r"layout.*Did you mean"):
        ScanNetSource(tmp_path, layout="sense")


def test_a_scene_that_is_there_twice(tmp_path: Path):
    for folder in ("a", "b"):
        write_exported(tmp_path / folder, labels=None)
    with pytest.raises(DataError, match="exists twice"):
        ScanNetSource(tmp_path)


def test_a_run_loads_it_and_skips_damage(scans: Path):
    write_recorded(scans)
    file = scans / "scene0000_00/scene0000_00.sens"
    data = bytearray(file.read_bytes())
    at = data.rfind(b"\xff\xd9")  # the end of the last picture
    data[at : at + 2] = b"\0\0"
    file.write_bytes(data)
    source = build_source("scannet", root=str(scans))
    data_set = SampleDataset(source, train=False)
    found = [data_set[0, row] for row in range(4)]
    assert [sample.meta.get("dropped", False) for sample in found] == [False, False, False, True]
    assert found[3].meta["skipped"][0].path.endswith("scene0000_00.sens#color-3")
    digest = source.digest()
    write_recorded(scans, count=5)
    assert build_source("scannet", root=str(scans)).digest() != digest
