"""sources/shards: bit for bit what was prepared, shards of others, what is missing or damaged, and requests."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import depth_array, label_array, rgb_array, write_frames
from helpers.preparations import assert_same_items, assert_same_sample, file_bytes, prepared
from helpers.range_server import serving_ranges
from helpers.ranks import free_port
from m33d_hf.data.files import remote
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.prepared.tar_index import split_name
from m33d_hf.data.prepared.tar_reading import _of_others
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource
from m33d_hf.data.sources.shards.source import ShardsSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, DepthUnitError, UnreachableError
from m33d_hf.inference.preparation import preparing
from m33d_hf.inference.sharding import Place


def folder(root: Path) -> FolderSource:
    return FolderSource(root, num_classes=4, depth_unit="mm")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames"), 9, labels="label/{i}.png")


@pytest.fixture(scope="module")
def made(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "train"
    prepared(folder(frames), output, format="shards")
    return output


def copy_of(made: Path, to: Path) -> Path:
    """The same files under another root."""
    for path in sorted(made.rglob("*")):
        if path.is_file():
            (to / path.relative_to(made)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(made)).write_bytes(path.read_bytes())
    return to


def test_a_folder_comes_back_bit_for_bit(frames: Path, made: Path) -> None:
    source, again = folder(frames), ShardsSource(made)
    assert_same_items(source, again)
    assert again.keys() == [source[i].key for i in range(9)] and again.groups() == ["frames"] * 9
    stored = again.rows.read([2], ["depth", "depth_scale"])[0]  # the integers themselves
    assert stored["depth_scale"] == 1000.0
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored["depth"]))), depth_array(2))
    assert torch.equal(pickle.loads(pickle.dumps(again))[4].read([0]).rgb, source[4].read([0]).rgb)


@pytest.mark.parametrize("depth", ["sensor", "clean"])
def test_float_depth_and_clips_come_back_bit_for_bit(tmp_path: Path, depth: str) -> None:
    options = {"image_size": 20, "cache_dir": tmp_path / "cache", "depth": depth}
    source = build_source("rooms", unit="clips", num_clips=5, clip_length=4, **options)
    prepared(source, tmp_path / "out", format="shards")
    again = ShardsSource(tmp_path / "out", unit="clips")
    assert_same_items(source, again, clips=True)
    assert again.labels() == source.labels() and again.groups() == source.groups()
    assert again[0].fps == source[0].fps
    assert_same_sample(source[2].read([3, 0, 3]), again[2].read([3, 0, 3]))
    prepared(again, tmp_path / "third")  # and from shards to Parquet
    assert_same_items(source, HubSource(tmp_path / "third", unit="clips"), clips=True)


def test_the_same_bytes_by_workers_and_ranks(frames: Path, made: Path, tmp_path: Path) -> None:
    alone = file_bytes(made)
    assert sum(name.endswith(".tar") for name in alone) == sum(name.endswith(".index") for name in alone) == 2
    prepared(folder(frames), tmp_path / "workers", format="shards", workers=2)
    for rank in range(2):
        prepared(folder(frames), tmp_path / "ranks", Place(rank, 2, rank), format="shards")
    assert file_bytes(tmp_path / "workers") == file_bytes(tmp_path / "ranks") == alone


def test_an_interrupted_part_is_written_anew(frames: Path, made: Path, tmp_path: Path) -> None:
    output = copy_of(made, tmp_path / "out")
    part = sorted(output.glob("part-*"))[1]
    (part / "COMPLETE").unlink()
    (part / "file-000.tar").write_bytes(b"cut")
    (part / "file-004.tar").write_bytes(b"of an earlier kill")
    (part / "file-000.index").unlink()
    summary = prepared(folder(frames), output, format="shards")
    assert (summary.written, summary.kept) == (1, 1) and file_bytes(output) == file_bytes(made)
    with pytest.raises(ConfigError, match="format: shards there, parquet now"):
        prepared(folder(frames), output)
    with pytest.raises(ConfigError, match=r"--format.*'tar'"):
        prepared(folder(frames), tmp_path / "other", format="tar")


def test_what_is_missing_or_cut_short_is_said_before_anything_is_read(
    frames: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_mean_bytes", lambda *_: 2000.0)  # so that parts need several files
    copy = tmp_path / "copy"
    prepared(folder(frames), copy, format="shards", shard_mb=0.01)
    tar = next(path for path in sorted(copy.rglob("file-001.tar")))
    kept = tar.read_bytes()
    tar.write_bytes(kept[: len(kept) - 700])
    with pytest.raises(CorruptFileError, match=rf"{tar.name}: has {len(kept) - 700} bytes, but {len(kept)} were"):
        ShardsSource(copy)
    tar.unlink()
    with pytest.raises(DataError, match=f"{tar.parent.name} lacks {tar.name}"):
        ShardsSource(copy)
    tar.write_bytes(kept)
    index = tar.with_suffix(".index")
    known = index.read_bytes()
    index.unlink()
    with pytest.raises(DataError, match=r"file-001\.index is missing; without it file-001\.tar cannot be read"):
        ShardsSource(copy)
    index.write_bytes(known[: len(known) // 2])
    with pytest.raises(CorruptFileError, match=r"file-001\.index: cannot be read as the index"):
        ShardsSource(copy)
    with pytest.raises(DataError, match=r"holds no \.tar files"):
        ShardsSource(frames)
    with pytest.raises(ConfigError, match="neither a folder nor an address"):
        ShardsSource(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="says itself"):
        ShardsSource(made, depth_unit="cm")


def test_a_damaged_frame_is_found_and_listed(made: Path, tmp_path: Path) -> None:
    copy = copy_of(made, tmp_path / "copy")
    tar = sorted(copy.rglob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[data.find(b"IDAT") + 60] ^= 0x10  # inside the pixels of the first picture
    tar.write_bytes(data)
    source = ShardsSource(copy)
    with pytest.raises(CorruptFileError, match="frame 0 is not what was written"):
        source[0].read([0])
    sample = SampleDataset(source, train=True)[(0, 0)]
    assert not isinstance(sample, list) and sample.meta["skipped"][0].path == str(tar)
    tar.unlink()  # while it is in use
    other = ShardsSource(made)
    assert other[0].read([0]).rgb is not None


def other_shard(path: Path, count: int = 5) -> Path:
    """A shard as other people write it: `tarfile`, GNU format, keys with folders, further files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for i in range(count):
            contents = {"JPG": _encoded(rgb_array(i), "PNG"), "depth.png": _encoded(depth_array(i), "PNG")}
            contents |= {"seg.png": _encoded(label_array(i), "PNG"), "cls": str(i % 2).encode(), "json": b"{}"}
            for end, data in contents.items():
                info = tarfile.TarInfo(f"scene.v1/{i:04d}.{end}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def _encoded(values: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format=kind)
    return stream.getvalue()


def test_shards_of_others(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "cache"))
    tar = other_shard(tmp_path / "data" / "train-000.tar")
    with pytest.raises(DepthUnitError, match=r"depth\.png"):
        ShardsSource(tar.parent)
    source = ShardsSource(tar.parent, split="train", depth_unit="mm", num_classes=4, action_names=["a", "b"])
    known = folder(frames)
    for row in range(5):
        one, other = source[row].read([0]), known[row].read([0])
        other.label = row % 2
        assert_same_sample(one, other)
        assert source[row].key == f"scene.v1/{row:04d}"
    assert source.labels() == [0, 1, 0, 1, 0] and source.keys() == [f"scene.v1/{row:04d}" for row in range(5)]
    (kept,) = (tmp_path / "cache" / "shards").iterdir()
    kept.write_bytes(b"damaged")
    assert ShardsSource(tar.parent, depth="none").keys() == source.keys()
    data = tar.read_bytes()
    for length in (len(data) // 2 // 512 * 512 + 512, len(data) // 2 // 512 * 512 + 100):
        tar.write_bytes(data[:length])
        with pytest.raises(CorruptFileError, match=r"train-000\.tar"):
            ShardsSource(tar.parent, depth="none")
    with pytest.raises(DataError, match="no split 'test'"):
        ShardsSource(tar.parent, split="test", depth="none")


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), (" -12\n", -12), ("²", "²"), ("--5", "--5"), ("9" * 5000, "9" * 5000), ("cut", "cut")]
)
def test_a_class_that_is_no_number_is_text(text: str, value: object) -> None:
    assert _of_others("cls", {"cls": text.encode()}) == value


def test_shards_with_text_or_pictures_for_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "cache"))
    for end, content in (("cls", b"cat"), ("label", _encoded(label_array(0), "PNG"))):
        (tmp_path / end).mkdir()
        with tarfile.open(tmp_path / end / "0.tar", "w") as archive:
            for name, data in {"0.png": _encoded(rgb_array(0), "PNG"), f"0.{end}": content}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        source = ShardsSource(tmp_path / end)
        assert source[0].read([0]).label is None and source.labels() is None
        with pytest.raises(ConfigError, match=r"holds ('cat'|a picture or other bytes),.*--data\.options\.label none"):
            ShardsSource(tmp_path / end, label=end)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [88, 94, 100, 130])
def test_members_of_long_names_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int, length: int
) -> None:
    """Names over 100 bytes stand in further headers; of 88 and 94 bytes, only some of a frame's are that long."""
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "cache"))
    keys = [f"folder/{'é' if form == tarfile.PAX_FORMAT else 'e'}{i}".ljust(length, "x") for i in range(3)]
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "0.tar", "w", format=form) as archive:
        for i, key in enumerate(keys):
            contents = {"jpg": _encoded(rgb_array(i), "PNG"), "depth.png": _encoded(depth_array(i), "PNG")}
            contents["seg.png"] = _encoded(label_array(i), "PNG")
            for end, data in contents.items():
                info = tarfile.TarInfo(f"{key}.{end}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    source = ShardsSource(tmp_path / "data", depth_unit="mm", num_classes=4)
    assert source.keys() == keys == [source[row].key for row in range(3)]
    for row in range(3):
        sample = source[row].read([0])
        assert sample.rgb is not None and sample.depth is not None and sample.segmentation is not None
        np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), rgb_array(row))
        np.testing.assert_array_equal(sample.segmentation[0].numpy(), label_array(row))
        stored = source.rows.read([row], ["depth.png"])[0]["depth.png"]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), depth_array(row))


@pytest.mark.parametrize("name", ["a.b", "x/y.z/k.rgb.PNG", "./0001.jpg", "deep/er.v2/00.json", "a..b"])
def test_names_are_cut_at_the_first_dot_of_the_last_word(name: str) -> None:
    key, end = split_name(name)
    assert f"{key}.{end}".lower() == name.lower() and "." not in key.rpartition("/")[2]


@pytest.mark.extras
def test_the_library_reads_and_writes_the_same(frames: Path, made: Path, tmp_path: Path) -> None:
    """`webdataset` opens what was prepared, and what it writes is read here."""
    import webdataset
    from webdataset.tariterators import base_plus_ext

    for name in ("x/y.z/k.rgb.PNG", "./0001.jpg", "deep/er.v2/00.json"):
        key, end = base_plus_ext(name)
        assert split_name(name) == (key, end.lower())
    urls = [str(path) for path in sorted(made.rglob("*.tar"))]
    loaded = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    known = folder(frames)
    assert [each["json"]["key"] for each in loaded] == [known[i].key for i in range(9)]
    for i, each in enumerate(loaded):
        assert each["json"]["depth_scale"] == 1000.0
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(_raw(urls, i)["rgb.png"]))), rgb_array(i))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(_raw(urls, i)["depth.png"]))), depth_array(i))
    with webdataset.TarWriter(str(tmp_path / "theirs.tar")) as writer:
        for i in range(9):
            maps = {"rgb.png": _encoded(rgb_array(i), "PNG"), "depth.png": _encoded(depth_array(i), "PNG")}
            writer.write({"__key__": f"{i:03d}", **maps, "cls": i % 3})
    theirs = ShardsSource(tmp_path, depth_unit="mm", action_names=["a", "b", "c"])
    assert theirs.labels() == [0, 1, 2] * 3
    for i in range(9):
        np.testing.assert_array_equal(theirs[i].read([0]).rgb[0].permute(1, 2, 0).numpy(), rgb_array(i))


def _raw(urls: list[str], number: int) -> dict[str, bytes]:
    import webdataset

    return list(webdataset.WebDataset(urls, shardshuffle=False))[number]


@pytest.mark.extras
def test_datasets_opens_the_shards(made: Path, tmp_path: Path) -> None:
    import datasets

    files = [str(path) for path in sorted(made.rglob("*.tar"))]
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 9
    np.testing.assert_array_equal(np.asarray(loaded[4]["depth.png"]), depth_array(4))


def test_a_frame_is_one_request_and_a_clip_is_one(
    frames: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "DELAYS", (0.0, 0.0))
    source = build_source("rooms", unit="clips", num_clips=3, clip_length=4, image_size=20, cache_dir=tmp_path / "c")
    prepared(source, tmp_path / "clips", format="shards", shard_mb=1)
    with serving_ranges(made) as traffic:
        again = ShardsSource(traffic.url)
        indices = [name for name, _, _ in traffic.ranges]
        assert len(indices) == 2 and all(name.endswith(".index") for name in indices)
        traffic.ranges.clear()
        assert again.digest() == ShardsSource(made).digest()  # a copy, wherever it lies
        assert_same_items(folder(frames), again)
        assert len(traffic.ranges) == 9 and traffic.bytes < sum(path.stat().st_size for path in made.rglob("*.tar"))
        traffic.failing = 2
        assert again.rows.read([0], ["rgb"])[0]["rgb"] is not None  # asked again
        fresh = ShardsSource(traffic.url)
        traffic.failing = 3
        with pytest.raises(UnreachableError, match=r"cannot be read after 3 tries.*resumes at its last checkpoint"):
            SampleDataset(fresh, train=True)[(0, 0)]  # it stops: no other sample takes the place
        traffic.failing = 0
        with pytest.raises(DataError, match="does not exist, or holds no files"):
            ShardsSource(f"{traffic.url}/nothing")
    with serving_ranges(tmp_path / "clips") as traffic:
        clips = ShardsSource(traffic.url, unit="clips")
        traffic.ranges.clear()
        assert_same_sample(source[1].read([0, 1, 2, 3]), clips[1].read([0, 1, 2, 3]))
        assert len(traffic.ranges) == 1


def test_what_is_missing_elsewhere_is_said(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "DELAYS", ())
    copy = copy_of(made, tmp_path / "copy")
    tar, last = sorted(copy.rglob("*.tar"))
    with serving_ranges(copy) as traffic:
        content = tar.read_bytes()
        tar.write_bytes(content[:-512])
        with pytest.raises(CorruptFileError, match="was cut short; copy it again"):
            ShardsSource(traffic.url)
        tar.write_bytes(content)
        last.with_suffix(".index").unlink()
        with pytest.raises(DataError, match=r"file-000\.index does not exist\. A shard that is read over a network"):
            ShardsSource(traffic.url)
        last.unlink()
        with pytest.raises(DataError, match="lacks 1 of 2 parts: part-00001-of-00002"):
            ShardsSource(traffic.url)
    with pytest.raises(UnreachableError, match="Is there a network"):
        ShardsSource(f"http://127.0.0.1:{free_port()}/shards")
    with pytest.raises(ConfigError, match="Write it as fsspec does"):
        ShardsSource("nowhere://bucket/folder")


def test_json_and_index_say_the_same(made: Path) -> None:
    source = ShardsSource(made)
    for tar in sorted(made.rglob("*.tar")):
        with tarfile.open(tar) as archive:  # the whole archive by the standard library, to its end
            names = archive.getnames()
            values = [json.load(archive.extractfile(name)) for name in names if name.endswith(".json")]  # type: ignore[arg-type]
        assert len({name.partition(".")[0] for name in names}) == len(values)
        for value in values:
            row = source.keys().index(value["key"])  # type: ignore[union-attr]
            assert source.rows.read([row], list(value)) == [value]
    assert source.rows.whole("frame") == [0] * 9 and source.rows.whole("depth_scale") == [1000.0] * 9
