import json
from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.labels.labels import LabelRules, build_label_rules
from m33d_hf.errors import ConfigError, CorruptFileError, LabelError

STORED = np.array([[0, 1, 2], [3, 255, 40]], np.uint16)


def test_offset_ignore_and_255():
    rules = LabelRules(40, offset=1, ignore=[0])
    np.testing.assert_array_equal(rules.apply(STORED, "f"), [[255, 0, 1], [2, 255, 39]])
    assert rules.apply(STORED, "f").dtype == np.uint8


def test_mapping_refuses_or_ignores_what_it_does_not_hold():
    rules = LabelRules(2, mapping={1: 0, 40: 1}, ignore=[0, 2], unmapped="ignore")
    np.testing.assert_array_equal(rules.apply(STORED, "f"), [[255, 0, 255], [255, 255, 1]])
    with pytest.raises(LabelError, match=r"f: label values \[3\].*3: 1"):
        LabelRules(2, mapping={1: 0, 40: 1}, ignore=[0, 2]).apply(STORED, "f")


def test_float_labels_are_refused():
    with pytest.raises(LabelError, match="float32"):
        LabelRules(3).apply(np.zeros((2, 2), np.float32), "f")


def test_class_table_skips_void_and_closes_gaps(tmp_path: Path):
    (tmp_path / "classes.tsv").write_text("label\tname\tshare\n0\tvoid\t0.3\n10\tbin\t0.1\n40\tdoor\t0.2\n")
    rules = build_label_rules(tmp_path, class_names="classes.tsv")
    assert rules.names == ["bin", "door"] and rules.num_classes == 2
    np.testing.assert_array_equal(rules.apply(np.array([[0, 10, 40]]), "f"), [[255, 0, 1]])


def test_names_one_a_line(tmp_path: Path):
    (tmp_path / "names.txt").write_text("wall\nfloor mat\n")
    rules = build_label_rules(tmp_path, class_names="names.txt")
    assert rules.names == ["wall", "floor mat"] and rules.mapping is None


@pytest.mark.parametrize("suffix", ["json", "txt", "list"])
def test_label_map_files(tmp_path: Path, suffix: str):
    path = tmp_path / f"map.{suffix}"
    path.write_text({"json": json.dumps({"5": 0, "7": 1}), "txt": "5 0\n7 1\n", "list": "5\n7\n"}[suffix])
    rules = build_label_rules(tmp_path, label_map=path.name)
    assert rules.num_classes == 2
    np.testing.assert_array_equal(rules.apply(np.array([[7, 5]]), "f"), [[1, 0]])


@pytest.mark.parametrize(("name", "content"), [("map.json", b'{"5": 0,'), ("map.txt", b"5 0\n7 \xff\n")])
def test_label_map_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptFileError, match=name):
        build_label_rules(tmp_path, label_map=name)


def test_contradictions_are_config_errors(tmp_path: Path):
    assert build_label_rules(tmp_path) is None
    with pytest.raises(ConfigError, match="2 names"):
        build_label_rules(tmp_path, num_classes=3, class_names=["a", "b"])
    with pytest.raises(ConfigError, match="not both"):
        build_label_rules(tmp_path, label_map={1: 0}, label_offset=1)
    with pytest.raises(ConfigError, match="255"):
        build_label_rules(tmp_path, num_classes=300)
    with pytest.raises(ConfigError, match="outside"):
        build_label_rules(tmp_path, num_classes=2, label_map={1: 5})
    with pytest.raises(ConfigError, match="neither"):
        build_label_rules(tmp_path, class_names="nowhere.txt")


@pytest.mark.parametrize(
    "rules",
    [
        LabelRules(40),
        LabelRules(255),
        LabelRules(254, offset=1, ignore=[0]),
        LabelRules(3, mapping={7: 0, 9: 2, 200: 255}, unmapped="ignore"),
        LabelRules(3, mapping={7: 0, 254: 2}),
    ],
)
def test_the_table_gives_what_the_search_gives(rules: LabelRules):
    every = np.arange(256, dtype=np.uint8)
    for stored in (every, *every[:, None]):
        try:
            wanted = rules._searched(stored, "x")
        except LabelError:
            with pytest.raises(LabelError):
                rules.apply(stored, "x")
        else:
            found = rules.apply(stored, "x")
            assert found.dtype == np.uint8 and found.tolist() == wanted.tolist() and found.flags.writeable
