"""Files that name classes, in the forms in which people have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.labels.class_table import ClassTable, read_class_table
from m33d_hf.data.labels.labels import build_label_rules
from m33d_hf.data.labels.name_files import read_name_file
from m33d_hf.errors import M33DError

FORMS = {
    "spaces.txt": "0 void\n7 wall\n255 floor mat\n",
    "colons.txt": "0: void\n7: wall\n255: floor mat\n",
    "dots.txt": "# our classes\n0. void\n7. wall\n255. floor mat\n",
    "behind.csv": "name,id\nvoid,0\nwall,7\nfloor mat,255\n",
    "semicolons.csv": "id;name\n0;void\n7;wall\n255;floor mat\n",
    "columns.csv": 'share,id,name\n0.1,0,void\n0.5,7,wall\n0.4,255,"floor mat"\n',
    "more.tsv": "label\tname\tcolour\n0\tvoid\tred\n7\twall\tblue\n255\tfloor mat\tgreen\n",
    "numbers.json": '{"0": "void", "7": "wall", "255": "floor mat"}',
    "names.json": '{"void": 0, "wall": 7, "floor mat": 255}',
}


@pytest.mark.parametrize("name", FORMS)
def test_one_reader_for_label_maps_and_phases(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FORMS[name])
    rules = build_label_rules(tmp_path, class_names=name)
    assert rules.names == ["wall", "floor mat"] and rules.num_classes == 2
    np.testing.assert_array_equal(rules.apply(np.array([[7, 255, 0]], np.uint8), "f"), [[0, 1, 255]])
    assert read_class_table(name, tmp_path) == ClassTable(("wall", "floor mat"), {7: 0, 255: 1})


BARE = [("a.txt", "# two\nwall\nfloor, oak\n"), ("a.json", '["wall", "floor, oak"]')]


@pytest.mark.parametrize(("name", "text"), BARE)
def test_bare_names_count_themselves(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_name_file(tmp_path / name).names == ("wall", "floor, oak")
    assert build_label_rules(tmp_path, class_names=name).mapping is None
    assert read_class_table(name, tmp_path).numbers == {0: 0, 1: 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "0 wall\n0 floor\n", "the number 0 already has a name"),
        ("a.txt", "0 wall\n1 wall\n", "'wall' already has a number"),
        ("a.txt", "0 wall\nfloor\n", "line 2: 'floor' has no number"),
        ("a.csv", "id,share,name\n0,0.5,wall\n0,0.5,floor\n", "line 3: the number 0"),
        ("a.json", '[["wall"]]', "holds no names"),
        ("a.json", "{", "not valid JSON"),
        ("a.txt", "0 void\n", "does not name any class"),
    ],
)
def test_what_contradicts_itself(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(M33DError, match=message):
        build_label_rules(tmp_path, class_names=name)
