"""sources/hub: bit for bit what was prepared; other people's columns; damage, missing parts, no network."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import depth_array, label_array, rgb_array, save, write_frames
from helpers.preparations import assert_same_items, assert_same_sample, prepared
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.prepared.encoding import decode_stored_depth, encode_depth
from m33d_hf.data.prepared.places import Places
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, DepthUnitError, LabelError
from m33d_hf.inference.preparation import preparing
from m33d_hf.modeling.depth_m33d import DepthSpec


def png(values: np.ndarray) -> dict[str, object]:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames"), 9, labels="label/{i}.png")


@pytest.fixture(scope="module")
def made(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "train"
    prepared(FolderSource(frames, num_classes=4, depth_unit="mm"), output)
    return output


def test_a_folder_comes_back_bit_for_bit(frames: Path, made: Path) -> None:
    source, again = FolderSource(frames, num_classes=4, depth_unit="mm"), HubSource(made)
    assert_same_items(source, again)
    assert "prepared from the source folder" in again.notes[0]
    stored = again.rows.read([2], ["depth", "depth_scale"])[0]  # the integers themselves
    assert stored["depth_scale"] == 1000.0
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored["depth"]))), depth_array(2))


@pytest.mark.parametrize("depth", ["sensor", "clean"])
def test_float_depth_and_clips_come_back_bit_for_bit(tmp_path: Path, depth: str) -> None:
    options = {"image_size": 20, "cache_dir": tmp_path / "cache", "depth": depth}
    source = build_source("rooms", unit="clips", num_clips=5, clip_length=4, **options)
    prepared(source, tmp_path / "out")
    again = HubSource(tmp_path / "out", unit="clips")
    assert_same_items(source, again, clips=True)
    assert again.labels() == source.labels() and again.groups() == source.groups()
    assert again[0].fps == source[0].fps
    chosen = [3, 0, 3]
    assert_same_sample(source[2].read(chosen), again[2].read(chosen))
    assert len(HubSource(tmp_path / "out")) == 20  # as frames


@pytest.mark.parametrize(
    "options, values",
    [
        ({"depth_scale": 5000.0}, np.uint16([0, 1, 5000, 65534, 65535, 777])),
        ({"depth_unit": "sunrgbd"}, np.uint16([0, 8, 8000, 24001, 40003, 65535])),
        ({"depth_kind": "inverse"}, np.uint16([0, 1, 2, 65534, 65535, 900])),
        ({"depth_kind": "relative"}, np.uint16([0, 1, 2, 65534, 65535, 900])),
        ({"depth_kind": "relative", "invalid_values": [7]}, np.uint16([0, 7, 2, 65534, 65535, 900])),
        ({"depth_scale": 3.7}, np.uint16([0, 1, 2, 3, 65535, 900])),
        ({"depth_unit": "mm", "max_depth": 2.0}, np.uint16([0, 1000, 2000, 2001, 65535, 900])),
    ],
)
def test_integers_of_every_meaning(tmp_path: Path, options: dict[str, object], values: np.ndarray) -> None:
    for number in range(2):
        save(tmp_path / "in" / "color" / f"{number}.png", rgb_array(number, (16, 18)))
        save(tmp_path / "in" / "depth" / f"{number}.png", np.resize(values, (16, 18)))
    source = FolderSource(tmp_path / "in", **options)  # type: ignore[arg-type]
    prepared(source, tmp_path / "out")
    assert_same_items(source, HubSource(tmp_path / "out"))


def test_every_16_bit_integer_survives() -> None:
    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for scale in (1000.0, 5000.0, 256.0, 1.0, 7.3):
        depth = DepthSpec(scale=scale).decode(stored)
        data, found = encode_depth(depth, "metric", (scale,))
        assert found == scale
        expected = np.where(stored == 65535, 0, stored)  # which was no measurement
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), expected)
        again = decode_stored_depth(Path("x"), data, "metric", found)[0].numpy()
        np.testing.assert_array_equal(again, depth)


def test_floats_are_not_rounded() -> None:
    depth = np.random.default_rng(0).gamma(2.0, 1.5, (31, 17)).astype(np.float32)
    depth[3] = np.nan
    data, scale = encode_depth(depth, "metric", (1000.0,))
    assert scale is None
    np.testing.assert_array_equal(decode_stored_depth(Path("x"), data, "metric", None)[0].numpy(), depth)
    with pytest.raises(CorruptFileError, match="without a scale"):
        decode_stored_depth(Path("x"), encode_depth(np.ones((4, 4), np.float32), "metric", (1.0,))[0], "metric", None)


def test_only_the_columns_that_are_needed_are_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = HubSource(made)
    asked: list[str] = []
    value = Places.value
    monkeypatch.setattr(Places, "value", lambda self, row, name: (asked.append(name), value(self, row, name))[1])
    sample = source[1].read_maps([0], {"rgb"})
    assert sample.rgb is not None and sample.depth is None and set(asked) == {"key", "rgb"}
    depth = source[1].read_maps([0], {"depth"})
    assert depth.rgb is None and depth.depth is not None


def test_splits_are_folders_beside_each_other(made: Path) -> None:
    assert len(HubSource(made.parent, split="train")) == len(HubSource(made)) == 9
    assert len(HubSource(made.parent, split="all")) == 9
    with pytest.raises(DataError, match="no split 'validation'"):
        HubSource(made.parent, split="validation")


def test_a_damaged_row_group_is_found_and_listed(frames: Path, made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    prepared(FolderSource(frames, num_classes=4, depth_unit="mm"), copy)
    file = sorted(copy.rglob("*.parquet"))[0]
    data = bytearray(file.read_bytes())
    place = data.find(b"IDAT") + 60  # inside the pixels of the first picture
    data[place] ^= 0x10
    file.write_bytes(data)
    source = HubSource(copy)
    with pytest.raises(CorruptFileError, match=file.name):
        source[0].read([0])
    train = SampleDataset(source, train=True)
    sample = train[(0, 0)]
    assert not isinstance(sample, list) and sample.meta["skipped"][0].path == str(file)
    held_out = SampleDataset(source)[(0, 0)]
    assert not isinstance(held_out, list) and held_out.meta["dropped"]


def test_missing_and_foreign_files_are_named(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_mean_bytes", lambda *_: 2000.0)  # so that parts need several files
    copy = tmp_path / "copy"
    source = FolderSource(frames, num_classes=4, depth_unit="mm")
    prepared(source, copy, shard_mb=0.01)
    files = sorted(copy.rglob("*.parquet"))
    part = next(file.parent for file in files if file.name == "file-001.parquet")
    last = sorted(part.glob("*.parquet"))[-1]
    kept = last.read_bytes()
    last.unlink()
    with pytest.raises(DataError, match=f"{part.name} lacks {last.name}"):
        HubSource(copy)
    last.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(CorruptFileError, match=last.name):
        HubSource(copy)
    last.write_bytes(kept)
    prepared(source, tmp_path / "other", size="12")
    (copy / "z.parquet").write_bytes(next((tmp_path / "other").rglob("*.parquet")).read_bytes())
    with pytest.raises(DataError, match="different data sets"):
        HubSource(copy)


def other_table(path: Path, count: int = 5) -> Path:
    """Parquet as other people write it: `datasets`' own writer, its column names, ids and classes."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "depth_map": datasets.Image(),
            "annotation": datasets.Image(),
            "label": datasets.ClassLabel(names=["kitchen", "office"]),
            "scene": datasets.Value("string"),
        }
    )
    rows = {
        "image": [png(rgb_array(i)) for i in range(count)],
        "depth_map": [png(depth_array(i)) for i in range(count)],
        "annotation": [png(label_array(i)) for i in range(count)],
        "label": [i % 2 for i in range(count)],
        "scene": [f"s{i // 3}" for i in range(count)],
    }
    path.mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path / "train-00000-of-00001.parquet")
    return path


def test_tables_of_others(frames: Path, tmp_path: Path) -> None:
    root = other_table(tmp_path / "data")
    with pytest.raises(DepthUnitError, match="depth_map"):
        HubSource(root)
    with pytest.raises(DepthUnitError, match=r"depth_kind metric does not say.*'depth_map'.*depth_unit"):
        HubSource(root, depth_kind="metric")  # not millimetres without a word
    assert HubSource(root, depth_kind="metric", depth_unit="m").depth_spec == DepthSpec(unit="metre")
    source = HubSource(root, split="train", depth_unit="mm", num_classes=4)
    known = FolderSource(frames, num_classes=4, depth_unit="mm")
    by_key = {known[i].key: known[i] for i in range(len(known))}
    for row in range(5):
        one, other = source[row].read([0]), by_key[str(row)].read([0])
        assert source[row].key == f"row {row}" and one.label == row % 2
        other.label = one.label
        assert_same_sample(one, other)
    assert source.action_names == ["kitchen", "office"] and source.labels() == [0, 1, 0, 1, 0]
    clips = HubSource(root, unit="clips", depth_unit="mm")
    assert [clips[i].length for i in range(len(clips))] == [3, 2] and clips.class_names is None
    with pytest.raises(LabelError):
        HubSource(root, depth_unit="mm", num_classes=2)[0].read([0])
    with pytest.raises(ConfigError, match="Did you mean 'image'"):
        HubSource(root, rgb="imag", depth="none")
    with pytest.raises(ConfigError, match="neither a folder"):
        HubSource("not/a/repo")


def labelled(path: Path, labels: list[object], feature: object = None) -> Path:
    """Parquet of pictures, and a column `label` of anything."""
    import datasets

    path.mkdir(parents=True)
    rows = {"image": [png(rgb_array(i)) for i in range(len(labels))], "label": labels}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    (made if feature is None else made.cast_column("label", feature)).to_parquet(path / "0.parquet")
    return path


def test_a_label_column_without_class_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    texts = labelled(tmp_path / "texts", [None, "cat", "dog"])
    pictures = labelled(tmp_path / "pictures", [png(label_array(i)) for i in range(3)], datasets.Image())
    shares = labelled(tmp_path / "shares", [0.25, 1.0])
    for root, held in ((texts, "'cat'"), (pictures, "pictures or lists"), (shares, r"0\.25")):
        source = HubSource(root)  # pre-training on RGB needs no label
        sample = source[1].read([0])
        assert sample.label is None and source.labels() is None and source.action_names is None
        np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), rgb_array(1))  # type: ignore[index]
        assert any("'label' is not read" in note for note in source.notes)
        for asked in ({"label": "label"}, {"action_names": ["cat", "dog"]}):
            with pytest.raises(ConfigError, match=rf"'label' \(label\) holds {held}.*--data\.options\.label none"):
                HubSource(root, **asked)  # type: ignore[arg-type]
    assert HubSource(pictures, labels="label", num_classes=4, label="none")[0].read([0]).segmentation is not None
    mixed = HubSource(labelled(tmp_path / "mixed", ["0", "1", "cat"]), action_names=["a", "b"])
    assert mixed[1].read([0]).label == 1
    for read in (lambda: mixed[2].read([0]), mixed.labels):
        with pytest.raises(LabelError, match=r"0\.parquet, row 2: the column 'label' holds 'cat'.*label none"):
            read()
    whole = HubSource(labelled(tmp_path / "whole", [1.0, float("nan"), None]), action_names=["a", "b"])
    with monkeypatch.context() as patch:
        patch.setattr(whole, "where", None)  # there are millions of rows, and finding one takes long
        assert whole.labels() == [1, 255, 255]
    assert [whole[i].read([0]).label for i in range(3)] == [1, None, None]


def test_folders_of_pictures_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for i in range(3):
        save(tmp_path / "pics" / f"{i}.png", rgb_array(i))
    source = HubSource(tmp_path / "pics", depth="none")
    assert len(source) == 3
    assert torch.equal(source[1].read([0]).rgb[0], torch.from_numpy(rgb_array(1)).permute(2, 0, 1))
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(again[2].read([0]).rgb, source[2].read([0]).rgb)


def test_options_that_prepared_data_answers_itself(made: Path) -> None:
    for options in ({"depth_unit": "cm"}, {"num_classes": 7}, {"max_depth": 3.0}):
        with pytest.raises(ConfigError, match="says itself"):
            HubSource(made, **options)  # type: ignore[arg-type]


def test_datasets_opens_what_was_prepared(made: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(made), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 9
    np.testing.assert_array_equal(np.asarray(loaded[4]["rgb"]), rgb_array(4))
    np.testing.assert_array_equal(np.asarray(loaded[4]["depth"]), depth_array(4))
    assert loaded[4]["depth_scale"] == 1000.0
