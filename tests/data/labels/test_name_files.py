"""Files that name classes, in the forms in which people have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.labels.class_table import ClassTable, read_class_table
from m33d_hf.data.labels.labels import build_label_rules
from m33d_hf.data.labels.name_files import read_name_file
from m33d_hf.errors import ConfigError, M33DError

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
        ("a.txt", "# nothing\n", r"a\.txt is empty"),
        ("a.txt", "[wall]\n", r"a\.txt looks like JSON"),
        ("a.txt", "0 void\n", r"a\.txt does not name any class"),
    ],
)
def test_what_contradicts_itself(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(M33DError, match=message):
        build_label_rules(tmp_path, class_names=name)


def test_a_file_under_the_data_comes_before_one_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a run means the same wherever it is started; docs/own_data.md says it."""
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder, word in ((root, "wall"), (elsewhere, "lawn")):
        folder.mkdir()
        (folder / "names.txt").write_text(f"{word}\nfloor\n")
        (folder / "map.json").write_text('{"7": 0}' if folder == root else '{"9": 0}')
        (folder / "palette.csv").write_text(f"name,r,g,b\n{word},1,2,3\nfloor,4,5,6\n")
    monkeypatch.chdir(elsewhere)
    for given in ("names.txt", str(root / "names.txt")):
        rules = build_label_rules(root, class_names=given)
        assert rules is not None and rules.names == ["wall", "floor"]
        assert read_class_table(given, root).names == ("wall", "floor")
    mapped, coloured = build_label_rules(root, label_map="map.json"), build_label_rules(root, palette="palette.csv")
    assert mapped is not None and mapped.mapping == {7: 0}
    assert coloured is not None and coloured.names == ["wall", "floor"]
    (root / "names.txt").unlink()
    assert read_class_table("names.txt", root).names == ("lawn", "floor")
    rules = build_label_rules(root, class_names="names.txt")
    assert rules is not None and rules.names == ["lawn", "floor"]
    with pytest.raises(ConfigError, match=r"found neither in .*data nor in the current folder"):
        build_label_rules(root, class_names="none.txt")
