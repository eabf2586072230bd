import json

import pytest

from helpers.fuzzing import bit_flips
from m33d_hf.data.files.sealed_json import SEAL, read_sealed_json, write_sealed_json
from m33d_hf.errors import CorruptFileError

VALUE = {"a": 1.5, "list": [1, None, True], "nested": {"é": "ü", "b": [0.1]}, "text": "blake3:x", "nan": float("nan")}


def test_what_is_written_comes_back(tmp_path):
    path = write_sealed_json(tmp_path / "x.json", {**VALUE, 3: (1, 2), "path": tmp_path})
    found = read_sealed_json(path)
    assert found["3"] == [1, 2] and found["path"] == str(tmp_path) and found["nested"] == VALUE["nested"]
    assert SEAL not in found and list(json.loads(path.read_text()))[-1] == SEAL
    assert json.loads(path.read_text())["a"] == 1.5, "other programs read it as any JSON"


def test_a_hundred_of_a_hundred_flipped_bits_are_noticed(tmp_path):
    path = write_sealed_json(tmp_path / "x.json", VALUE)
    original = path.read_bytes()
    flips = [*bit_flips(original, 1, 100), *bit_flips(original[-60:], 2, 100)]  # the seal itself, too
    for what, damaged in flips:
        path.write_bytes(damaged if len(damaged) == len(original) else original[:-60] + damaged)
        with pytest.raises(CorruptFileError):
            print(what, read_sealed_json(path))


def test_files_without_a_seal_are_read_as_they_are(tmp_path):
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert read_sealed_json(tmp_path / "old.json") == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": 1'])
def test_what_is_no_object_is_said(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"x\.json"):
        read_sealed_json(tmp_path / "x.json")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(CorruptFileError, match="cannot be read"):
        read_sealed_json(tmp_path / "nowhere.json")


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(CorruptFileError, match="the key 'a' occurs twice"):
        read_sealed_json(tmp_path / "x.json")
