"""The cache of rendered rooms: found again, verified, atomic, safe among processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from helpers.fuzzing import bit_flips
from helpers.ranks import ForkedRanks
from helpers.rooms import render_rooms
from m33d_hf.data.sources.rooms import RoomsSource, cache
from m33d_hf.data.sources.rooms.generate import RoomsSpec
from m33d_hf.errors import CorruptFileError, DataError

SPEC = RoomsSpec("train", 7, "frames", 6, 1, 16, 16)


def flip_a_byte(path: Path, keep_stamp: bool = False) -> None:
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keep_stamp:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def count_renderings(monkeypatch) -> list[RoomsSpec]:
    calls: list[RoomsSpec] = []
    original = cache.render_chunks
    monkeypatch.setattr(cache, "render_chunks", lambda spec: calls.append(spec) or original(spec))
    return calls


def test_rendered_once_then_found(tmp_path, monkeypatch):
    calls = count_renderings(monkeypatch)
    hashed: list[Path] = []
    folder = cache.prepare(SPEC, tmp_path)
    original = cache._sha256
    monkeypatch.setattr(cache, "_sha256", lambda path: hashed.append(path) or original(path))
    assert cache.prepare(SPEC, tmp_path) == folder
    assert len(calls) == 1
    assert not hashed, "an untouched cache must be verified without reading it"
    assert {path.name for path in folder.iterdir()} == {
        "rgb.npy",
        "sensor.npy",
        "clean.npy",
        "segmentation.npy",
        "action.npy",
        "rooms.json",
    }
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_other_parameters_are_another_folder(tmp_path):
    changes = [{"seed": 8}, {"count": 7}, {"width": 20}, {"split": "test"}, {"device": "cuda"}]
    names = {cache.folder_name(RoomsSpec(**{**vars(SPEC), **change})) for change in changes}
    assert len(names | {cache.folder_name(SPEC)}) == len(changes) + 1


def test_a_new_renderer_does_not_find_the_old_cache(monkeypatch):
    before = cache.folder_name(SPEC)
    monkeypatch.setattr("m33d_hf.data.sources.rooms.generate.RENDERER_VERSION", 999)
    assert cache.folder_name(SPEC) != before


def test_the_digest_is_of_the_content(tmp_path):
    a = cache.verify(cache.prepare(SPEC, tmp_path / "a"), SPEC, full=True)
    b = cache.verify(cache.prepare(SPEC, tmp_path / "b"), SPEC, full=True)
    assert a == b and len(a) == 64


@pytest.mark.parametrize("name", ["rgb", "sensor", "clean", "segmentation", "action"])
def test_a_changed_file_is_found(tmp_path, name):
    folder = cache.prepare(SPEC, tmp_path)
    flip_a_byte(folder / f"{name}.npy")
    with pytest.raises(CorruptFileError, match=rf"{name}\.npy"):
        cache.verify(folder, SPEC)


def test_a_change_behind_an_unchanged_stamp_is_found_by_a_full_check(tmp_path):
    folder = cache.prepare(SPEC, tmp_path)
    flip_a_byte(folder / "rgb.npy", keep_stamp=True)
    with pytest.raises(CorruptFileError, match=r"rgb\.npy"):
        cache.verify(folder, SPEC, full=True)


def test_a_copied_cache_with_new_stamps_is_still_good(tmp_path):
    folder = cache.prepare(SPEC, tmp_path)
    for path in folder.glob("*.npy"):
        os.utime(path, (1, 1))
    assert cache.verify(folder, SPEC) == cache.read_index(folder)["digest"]


def test_a_damaged_cache_is_rendered_again_with_a_warning(tmp_path, caplog):
    folder = cache.prepare(SPEC, tmp_path)
    digest = cache.verify(folder, SPEC)
    flip_a_byte(folder / "rgb.npy")
    with caplog.at_level("WARNING"):
        assert cache.prepare(SPEC, tmp_path) == folder
    assert "rgb.npy" in caplog.text
    assert cache.verify(folder, SPEC, full=True) == digest
    assert not list(tmp_path.glob(".*tmp-*"))


def test_an_edited_index_is_found(tmp_path):
    folder = cache.prepare(SPEC, tmp_path)
    path = folder / cache.INDEX_NAME
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "digest": "0" * 64}))
    with pytest.raises(CorruptFileError, match="its seal does not match"):
        cache.verify(folder, SPEC)
    del index["seal"]  # as earlier versions wrote it
    path.write_text(json.dumps({**index, "digest": "0" * 64}))
    with pytest.raises(CorruptFileError, match="digest"):
        cache.verify(folder, SPEC)
    path.write_text(json.dumps({**index, "parameters": {**index["parameters"], "seed": 99}}))
    with pytest.raises(CorruptFileError, match="other parameters"):
        cache.verify(folder, SPEC)
    path.write_text("{")
    with pytest.raises(CorruptFileError, match="index"):
        cache.verify(folder, SPEC)


def test_a_vanished_array_is_a_corrupt_file(tmp_path):
    source = RoomsSource("train", num_frames=6, image_size=16, seed=7, cache_dir=tmp_path)
    (source.folder / "rgb.npy").unlink()
    with pytest.raises(CorruptFileError, match=r"rgb\.npy"):
        source[0].read([0])


def test_an_interrupted_rendering_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def interrupted(spec):
        yield next(iter(original(spec)))
        raise KeyboardInterrupt

    original = cache.render_chunks
    monkeypatch.setattr(cache, "render_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.prepare(SPEC, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    monkeypatch.setattr(cache, "render_chunks", original)
    leftover = tmp_path / f".{cache.folder_name(SPEC)}.tmp-killed"
    leftover.mkdir()
    assert cache.prepare(SPEC, tmp_path).is_dir()
    assert not leftover.exists(), "what a killed process left is removed"


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="M33D_CACHE"):
        cache.prepare(SPEC, blocked / "below")


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "here"))
    source = RoomsSource("train", num_frames=2, image_size=16)
    assert source.folder.parent == tmp_path / "here" / "rooms"
    monkeypatch.delenv("M33D_CACHE")
    assert cache.default_cache_dir() == Path.home() / ".cache" / "m33d_hf" / "rooms"


def test_losing_the_race_without_locks_is_no_error(tmp_path, monkeypatch):
    """Another process finishes between our check and our rename, on a file system without locks."""
    write = cache._write_index

    def other_was_faster(folder, spec):
        write(folder, spec)
        monkeypatch.setattr(cache, "_write_index", write)
        cache._render_into(tmp_path / cache.folder_name(spec), spec)

    monkeypatch.setattr(cache, "_write_index", other_was_faster)
    folder = cache.prepare(SPEC, tmp_path)
    cache.verify(folder, SPEC, full=True)
    assert not list(tmp_path.glob(".*tmp-*"))


def test_several_processes_may_render_the_same_set_at_once(tmp_path):
    ranks = ForkedRanks(render_rooms, str(tmp_path / "cache"), log=tmp_path / "answers.txt", processes=2)
    assert ranks.wait() == [0, 0], ranks.output()
    answers = [line for line in ranks.output().splitlines() if line.startswith("rooms: ")]
    assert len(answers) == 2 and len(set(answers)) == 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_progress_names_rate_and_remaining_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "_PROGRESS_EVERY", 0.0)
    cache.prepare(RoomsSpec("train", 7, "frames", 40, 1, 16, 16), tmp_path)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("rendering rooms, train: 32/40 frames, ") and lines[0].endswith("0:00:00 left")
    assert "40/40" in lines[-1]


def test_arrays_have_the_announced_shapes(tmp_path):
    spec = RoomsSpec("test", 0, "clips", 3, 4, 16, 24)
    arrays = cache.open_arrays(cache.prepare(spec, tmp_path))
    assert {name: (str(array.dtype), array.shape) for name, array in arrays.items()} == spec.arrays()
    assert arrays["rgb"].shape == (3, 4, 3, 16, 24) and arrays["sensor"].dtype == np.uint16
    assert not arrays["rgb"].flags.writeable


def test_a_flipped_bit_behind_an_unchanged_stamp_is_found_by_the_next_process(tmp_path, monkeypatch, caplog):
    """A disk that loses a bit tells no time of it; every file of a rendered folder, its index included."""
    folder = cache.prepare(SPEC, tmp_path)
    digest = cache.verify(folder, SPEC, full=True)
    for path in sorted(folder.iterdir()):
        status, content = path.stat(), path.read_bytes()
        for what, damaged in bit_flips(content, 3, 10):
            path.write_bytes(damaged)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            monkeypatch.setattr(cache, "_hashed", {})  # a new process
            assert cache.verify(cache.prepare(SPEC, tmp_path), SPEC, full=True) == digest, what
            assert path.read_bytes() == content or path.name == cache.INDEX_NAME, f"{path.name}: {what}"
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_every_flipped_bit_of_the_index_is_noticed(tmp_path):
    folder = cache.prepare(SPEC, tmp_path)
    path = folder / cache.INDEX_NAME
    whole = path.read_bytes()
    for what, flipped in bit_flips(whole, 3, 100):
        path.write_bytes(flipped)
        with pytest.raises(CorruptFileError):
            pytest.fail(f"{what}: {cache.read_index(folder)}")
    # An earlier version wrote it without a seal, and a cache of hours is not rendered again for that.
    path.write_text(json.dumps({key: value for key, value in json.loads(whole).items() if key != "seal"}, indent=2))
    assert cache.verify(folder, SPEC, full=True)
