"""inference/output_folders/recorded_inputs.py: one name in an output never means two inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.recorded_inputs import RECORD_FILE, claim_names


def test_a_name_keeps_its_file(tmp_path: Path) -> None:
    first = {"a": tmp_path / "day1/a.png", "b": tmp_path / "day1/b.png"}
    claim_names(tmp_path, first)
    claim_names(tmp_path, first)
    claim_names(tmp_path, {"c": tmp_path / "day2/c.png"})
    rows = [json.loads(line) for line in (tmp_path / RECORD_FILE).read_text().splitlines()]
    assert rows == [["a", str(first["a"])], ["b", str(first["b"])], ["c", str(tmp_path / "day2/c.png")]]
    with pytest.raises(ConfigError, match=r"\(1 name\): b is .*day1/b\.png there, .*day1/b\.jpg now"):
        claim_names(tmp_path, {"b": tmp_path / "day1/b.jpg"})


def test_ranks_note_their_share_and_check_all(tmp_path: Path) -> None:
    sources = {name: tmp_path / f"{name}.png" for name in "abc"}
    for share in ("ac", "b"):
        claim_names(tmp_path, sources, {name: sources[name] for name in share})
    assert len((tmp_path / RECORD_FILE).read_text().splitlines()) == 3
    with pytest.raises(ConfigError, match="a is"):
        claim_names(tmp_path, {**sources, "a": tmp_path / "a.jpg"}, {"b": sources["b"]})


def test_half_a_line_is_left_out_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    (tmp_path / "day1/\udcff.png").touch()
    (tmp_path / "today").symlink_to("day1")
    claim_names(tmp_path, {"odd": tmp_path / "day1/\udcff.png", "b": tmp_path / "b.png"})
    whole = (tmp_path / RECORD_FILE).read_text()
    (tmp_path / RECORD_FILE).write_text(whole[:-6])
    claim_names(tmp_path, {"odd": tmp_path / "today/\udcff.png", "b": tmp_path / "other/b.png"})
    with pytest.raises(ConfigError, match=r"b is .*other/b\.png there"):
        claim_names(tmp_path, {"b": tmp_path / "b.png"})
