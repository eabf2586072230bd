"""prepared/places: the same rows as by the footer, one at a time, and nothing else is trusted than checksums."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from helpers.frames_on_disk import write_frames
from helpers.preparations import prepared
from m33d_hf.data.prepared import parquet as opening
from m33d_hf.data.prepared import reading
from m33d_hf.data.prepared.layout import COLUMNS
from m33d_hf.data.prepared.reading import ParquetRows, parquet_files
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import CorruptFileError

READ = ("key", "rgb", "depth", "segmentation", "depth_scale", "label", "fps")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven frames in several files, the fourth of which is larger than a page of Parquet (1 MiB)."""
    folder = tmp_path_factory.mktemp("frames")
    write_frames(folder, 11, labels="label/{i}.png")
    write_frames(folder, 1, labels="label/{i}.png", size=(700, 800), start=3)
    output = tmp_path_factory.mktemp("made")
    prepared(FolderSource(folder, num_classes=4, depth_unit="mm"), output, shard_mb=0.05)
    return output


def without_places(made: Path, target: Path) -> ParquetRows:
    shutil.copytree(made, target, ignore=shutil.ignore_patterns("*.places"))
    return ParquetRows(parquet_files(target))


def test_rows_are_those_of_the_footer(made: Path, tmp_path: Path) -> None:
    files = parquet_files(made)
    ours, footers = ParquetRows(files), without_places(made, tmp_path / "copy")
    assert ours._places is not None and footers._places is None and len(files) > 2
    for row in (5, 10, 0, 3, 3, 9):
        assert ours.read([row], READ) == footers.read([row], READ)
    assert ours.read([7, 2, 7], ["depth", "key"]) == footers.read([7, 2, 7], ["depth", "key"])
    assert ours.read([4], COLUMNS) == footers.read([4], COLUMNS)  # "sequence" and "frame" are in the footer only
    for name in (*READ[:1], *READ[4:], "sequence"):
        assert ours.whole(name) == footers.whole(name)
    with pytest.raises(IndexError):
        ours.read([11], READ)


def test_pictures_are_the_bytes_of_the_file(made: Path) -> None:
    """By the library's own reading of the whole file."""
    start = 0
    rows = ParquetRows(parquet_files(made))
    for file in parquet_files(made):
        for row in parquet.read_table(file).to_pylist():
            (found,) = rows.read([start], READ)
            assert found["rgb"] == row["rgb"]["bytes"] and found["depth"] == row["depth"]["bytes"]
            assert found["key"] == row["key"] and found["depth_scale"] == row["depth_scale"]
            start += 1
    assert start == len(rows) == 11


def test_no_footer_is_read_once_the_data_is_open(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ParquetRows(parquet_files(made))

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(reading, "open_parquet", refuse)
    monkeypatch.setattr(opening, "open_parquet", refuse)
    assert all(rows.read([row], READ)[0]["rgb"] for row in range(len(rows)))


def test_any_damaged_byte_of_a_picture_is_found(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    rows = ParquetRows(parquet_files(tmp_path / "copy"))
    assert rows._places is not None
    draws = np.random.default_rng(1)
    for row in (0, 3, 10):
        for name in ("rgb", "depth", "segmentation"):
            at, count, _ = rows._places.maps[name].item(row)
            file, _ = rows.where(row)
            whole = file.read_bytes()
            for place in (at, at + count - 1, at + int(draws.integers(count))):
                file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
                with pytest.raises(CorruptFileError, match=f"{file.name}.*checksum of the {name}"):
                    rows.read([row], [name])
            file.write_bytes(whole[: at + count // 2])
            with pytest.raises(CorruptFileError, match=f"checksum of the {name}"):
                rows.read([row], [name])
            file.write_bytes(whole)
            assert rows.read([row], [name])[0][name] == whole[at : at + count]


def test_places_of_other_bytes_are_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    file = parquet_files(tmp_path / "copy")[0]
    places = file.with_suffix(".places")
    whole = places.read_bytes()
    files = parquet_files(tmp_path / "copy")
    wanted, found = [ParquetRows(files).read([row], READ) for row in range(11)], 0
    for at in range(5, len(whole), 31):  # in its footer there are bytes that mean nothing
        places.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert [ParquetRows(files).read([row], READ) for row in range(11)] == wanted
        except CorruptFileError:
            found += 1
    assert found > len(whole) / 31 / 2
    places.write_bytes(whole[:-40])
    with pytest.raises(CorruptFileError, match=places.name):
        ParquetRows(parquet_files(tmp_path / "copy"))
    shutil.copy(parquet_files(made)[1].with_suffix(".places"), places)
    with pytest.raises(CorruptFileError, match=f"{places.name} was made"):
        ParquetRows(parquet_files(tmp_path / "copy"))


def _in_a_child(rows: ParquetRows, results: object) -> None:
    results.put([rows.read([row], ["rgb"])[0]["rgb"] for row in range(len(rows))])  # type: ignore[attr-defined]


def test_children_read_with_files_of_their_own(made: Path) -> None:
    """An open file that a fork shares would be read from wherever the other process has left it."""
    rows = ParquetRows(parquet_files(made))
    wanted = [rows.read([row], ["rgb"])[0]["rgb"] for row in range(len(rows))]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_in_a_child, args=(rows, results)) for _ in range(2)]
    for child in children:
        child.start()
    found = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert found == [wanted, wanted]
    copy = pickle.loads(pickle.dumps(rows))  # as a spawned process gets it
    assert [copy.read([row], ["rgb"])[0]["rgb"] for row in range(len(rows))] == wanted
