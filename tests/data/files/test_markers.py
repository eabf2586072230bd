"""The marker of a whole folder: every bit of every file counts, the marker's own included."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from helpers.fuzzing import bit_flips
from m33d_hf.data.files import markers
from m33d_hf.data.files.markers import MARKER, damage, file_digest, has_digests, is_complete, mark_complete

FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json", MARKER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    save_file({"weight": torch.rand(40, 30)}, path / "model.safetensors")
    save_file({"weight": torch.rand(40, 30)}, path / "ema.safetensors")
    torch.save({"state": {0: {"exp_avg": torch.rand(40, 30)}}}, path / "optimizer.pt")
    (path / "state.json").write_text(json.dumps({"step": 3, "windows": [[0.25, 1.5]]}, indent=2))
    mark_complete(path)
    return path


def test_what_was_marked_is_whole(folder):
    assert damage(folder) is None and is_complete(folder) and has_digests(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_hundred_of_a_hundred_flipped_bits_are_noticed(folder, name):
    original = (folder / name).read_bytes()
    try:
        for what, damaged in bit_flips(original, 7, 100):
            (folder / name).write_bytes(damaged)
            found = damage(folder)
            assert found is not None, f"{name}: {what}"
            assert name in found
    finally:
        (folder / name).write_bytes(original)
    assert damage(folder) is None


def test_a_zeroed_half_is_noticed_and_others_are_not_looked_at(folder):
    original = (folder / "model.safetensors").read_bytes()
    half = len(original) // 2
    (folder / "model.safetensors").write_bytes(original[:half] + bytes(len(original) - half))
    try:
        assert is_complete(folder), "the size alone does not tell"
        assert "model.safetensors" in damage(folder)
        assert damage(folder, only=("ema.safetensors",)) is None
    finally:
        (folder / "model.safetensors").write_bytes(original)


def test_markers_of_earlier_versions_list_sizes(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    (tmp_path / MARKER).write_text('{\n  "model.safetensors": 100\n}\n')
    assert damage(tmp_path) is None and not has_digests(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 99)
    assert "99 bytes" in damage(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "{" * 5000, '{"files": "x"}', '{"files": {"../x": {"size": 1}}}', '{"a": "b"}', "\x00"]
)
def test_what_is_no_marker_is_said(tmp_path, content):
    (tmp_path / MARKER).write_text(content)
    assert MARKER in damage(tmp_path) and not is_complete(tmp_path)


def test_digests_do_not_depend_on_who_reads_which_piece(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5000))
    whole = file_digest(path)
    assert whole == file_digest(path)
    monkeypatch.setattr(markers, "_PIECE", 1024)
    pieces = file_digest(path)
    monkeypatch.setattr(markers, "_THREADS", 1)
    assert pieces == file_digest(path) != whole
