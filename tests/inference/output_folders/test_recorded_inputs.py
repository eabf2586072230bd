"""inference/output_folders/recorded_inputs.py: one name in an output never means two inputs."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.recorded_inputs import claim_names
from m33d_hf.inference.output_folders.results_of import RECORD_FILE


def test_a_name_keeps_its_file(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "day2").mkdir(parents=True)
    first = {"a": tmp_path / "day1/a.png", "b": tmp_path / "day1/b.png"}
    claim_names(output, first)
    claim_names(output, first)
    claim_names(output, {"c": output / "day2/c.png"})
    rows = [json.loads(line) for line in (output / RECORD_FILE).read_text().splitlines()]
    assert rows == [["a", str(first["a"]), None], ["b", str(first["b"]), None], ["c", "day2/c.png", None]]
    with pytest.raises(ConfigError, match=r"\(1 name\): b is .*day1/b\.png there, .*day1/b\.jpg now"):
        claim_names(output, {"b": tmp_path / "day1/b.jpg"})


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


def test_inputs_that_were_moved_are_the_same(tmp_path: Path) -> None:
    """As where every job gets a folder of its own; the time of a copy is another one."""
    (tmp_path / "out").mkdir()
    for name in ("job1/v/0.png", "job1/v/1.png", "job1/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 9999)

    def claim(job: str, names: str = "av") -> None:
        places = {"a": tmp_path / job / "a.png", "v": tmp_path / job / "v"}
        claim_names(tmp_path / "out", {name: places[name] for name in names})

    claim("job1")
    (tmp_path / "job1").rename(tmp_path / "job2")
    os.utime(tmp_path / "job2/a.png", (0, 0))
    claim("job2")
    shutil.copytree(tmp_path / "job2", tmp_path / "job3")
    with pytest.raises(ConfigError, match=r"\(2 names\): a is .*job2/a\.png there"):  # which is still there
        claim("job3")
    shutil.rmtree(tmp_path / "job2")
    whole, last = (tmp_path / "job3/a.png").read_bytes(), (tmp_path / "job3/v/1.png").read_bytes()
    for wrong in (whole + b"1", whole.replace(b"a", b"b")):  # of another size, and of the same
        (tmp_path / "job3/a.png").write_bytes(wrong)
        with pytest.raises(ConfigError, match=r"\(1 name\): a is .*job2/a\.png there, .*job3/a\.png now"):
            claim("job3")
    (tmp_path / "job3/a.png").write_bytes(whole)
    (tmp_path / "job3/v/1.png").unlink()
    with pytest.raises(ConfigError, match=r"\(1 name\): v is .*job2/v there"):
        claim("job3")
    (tmp_path / "job3/v/1.png").write_bytes(last)
    claim("job3")
    noted = [json.loads(line)[:2] for line in (tmp_path / "out" / RECORD_FILE).read_text().splitlines()[-2:]]
    assert noted == [["a", f"{tmp_path}/job3/a.png"], ["v", f"{tmp_path}/job3/v"]]


@pytest.mark.parametrize("result", ["a.png", "a", "a.parquet", ".partial-a", "areas/a.png", "timelines/a_clips.csv"])
def test_an_input_that_was_replaced_in_place_is_another_one(tmp_path: Path, result: str) -> None:
    """Of the same size, too; one of which nothing was made, as it was broken, may be repaired."""
    output, file = tmp_path / "out", tmp_path / "in/a.png"
    for folder in (output / "areas", output / "timelines", file.parent):
        folder.mkdir(parents=True)
    sources = {"a": file, "a.b": tmp_path / "in/a.b.png", "gone": tmp_path / "in/gone.png"}
    for path in sources.values():
        path.write_bytes(b"1" * 999)
    kinds = ("areas", "timelines") if "/" in result else None  # of a prediction, and of a depth extraction
    claim_names(output, sources, kinds=kinds)
    sources["gone"].unlink()
    (output / "a.b.png").touch()  # of another input
    file.write_bytes(b"2" * 999)
    claim_names(output, sources, kinds=kinds)
    (output / result).mkdir() if result == "a" else (output / result).touch()
    claim_names(output, sources, kinds=kinds)
    file.write_bytes(b"3" * 999)
    claim_names(output, sources, {"a.b": sources["a.b"]}, kinds)  # which is for the rank that has it to find
    wanted = rf"other content of 1 input: .*in/a\.png has changed .* remove .* made of a .*{re.escape(result)},"
    with pytest.raises(ConfigError, match=wanted):
        claim_names(output, sources, kinds=kinds)


PREDICTED = ("depth/b.png", "depth/depth_spec.json", "labels/b.png", "areas.csv", "skipped_files.csv")
EXTRACTED = ("b.png", "day1/depth.png", "depth_spec.json", "skipped_files.csv", ".partial-b/0.png")


@pytest.mark.parametrize("name", ["depth", "labels", "areas", "depth_spec", "skipped_files", "inputs", "day1"])
@pytest.mark.parametrize("files", [PREDICTED, EXTRACTED])
def test_what_is_called_like_an_input_may_be_of_others(tmp_path: Path, files: tuple[str, ...], name: str) -> None:
    """Like a folder of the output, a table of it, or the folder of other inputs: nothing was made of a broken file."""
    output, kinds = tmp_path / "out", ("depth", "labels", "areas") if files is PREDICTED else None
    sources = {
        name: tmp_path / f"in/{name}.png",
        "b": tmp_path / "in/b.png",
        "day1/depth": tmp_path / "in/day1/depth.png",
    }
    for path in (
        *sources.values(),
        *(output / file for file in files),
        *[output / "labels/day1/depth.png"] * bool(kinds),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1" * 999)
    for content in (b"1", b"2", b"3"):
        sources[name].write_bytes(content)
        claim_names(output, sources, kinds=kinds)
    made = output / ("labels" if kinds else ".") / f"{name}.npy"
    made.touch()
    sources[name].write_bytes(b"4")
    with pytest.raises(ConfigError, match=rf"{name}\.png has changed .*{re.escape(str(made))}"):
        claim_names(output, sources, kinds=kinds)


def test_an_input_within_the_output_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for content in (b"1", b"2"):
        (tmp_path / "day/a.png").write_bytes(content)
        claim_names(tmp_path, {"a": tmp_path / "day/a.png"})
    noted = [json.loads(line) for line in (tmp_path / RECORD_FILE).read_text().splitlines()]
    assert [name for name, *_ in noted] == ["a", "a"] and noted[0][2] != noted[1][2], "the new content is noted"


def test_inputs_of_which_an_earlier_version_noted_the_path_alone_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text(json.dumps(["a", str(tmp_path / "gone/a.png")]) + "\n")
    (tmp_path / "a.png").touch()
    with pytest.raises(ConfigError, match=r"a is .*if the files were only moved, remove"):
        claim_names(tmp_path, {"a": tmp_path / "a.png"})
