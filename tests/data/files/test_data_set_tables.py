"""Tables of data sets: where they are looked for, and MATLAB's files."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from m33d_hf.data.files.data_set_tables import file_near, read_matlab, stated_places
from m33d_hf.errors import CorruptFileError


def test_the_first_place_counts(tmp_path: Path):
    root = tmp_path / "root"
    for place in ("..", "meta"):
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / "list.txt").write_text(place)
    places = (".", "..", "meta")
    found = file_near(root, "list.txt", places)
    assert found is not None and found.read_text() == ".."
    stated = file_near(root, "list.txt", places, "meta/list.txt")
    assert stated is not None and stated.read_text() == "meta"
    assert file_near(root, "list.txt", places, "own.txt") is None
    assert file_near(root, "other.txt", places) is None


def test_what_options_name_is_looked_for_under_the_root_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "root"
    for folder in (root, tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "list.txt").write_text(folder.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [place.read_text() for place in stated_places(root, "list.txt")] == ["root", tmp_path.name]
    assert all(place.read_text() == tmp_path.name for place in stated_places(root, "~/list.txt"))
    assert set(stated_places(root, str(root / "list.txt"))) == {root / "list.txt"}


def test_matlab_files(tmp_path: Path):
    scipy.io.savemat(tmp_path / "a.mat", {"numbers": np.arange(3)})
    assert read_matlab(tmp_path / "a.mat")["numbers"].tolist() == [[0, 1, 2]]
    assert read_matlab(tmp_path / "a.mat", squeeze_me=True)["numbers"].tolist() == [0, 1, 2]
    (tmp_path / "b.mat").write_text("<html>")
    with pytest.raises(CorruptFileError, match="cannot be read as a MATLAB file"):
        read_matlab(tmp_path / "b.mat")
