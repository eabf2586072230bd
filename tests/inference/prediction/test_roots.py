"""Files of distant folders get short names that stay apart."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.prediction.inputs import find_inputs, refuse_output_over_input
from m33d_hf.inference.prediction.roots import name_roots


@pytest.mark.parametrize(
    ("roots", "names"),
    [
        (["/a/b"], ["."]),
        (["/home/me/data/x", "/mnt/disk/y"], ["x", "y"]),
        (["/home/me/x", "/mnt/disk/x"], ["me/x", "disk/x"]),
        (["/p/one/color", "/p/two/color", "/p/two/depth"], ["one/color", "two/color", "two/depth"]),
        (["/p/one/X", "/q/two/x"], ["one/X", "two/x"]),  # one file on disks that do not tell cases apart
        (["/p/x", "/q/r/x", "/s/r/x"], ["p/x", "q/r/x", "s/r/x"]),
        (["/p/x", "/q/x/y", "/q/z"], ["x", "y", "z"]),
        (["/data", "/data/x", "/other/y"], ["data", "y"]),  # the second is part of the first
        (["/p/a", "/p/b"], ["a", "b"]),
    ],
)
def test_names_are_the_last_parts_that_tell_folders_apart(roots: list[str], names: list[str]) -> None:
    found = name_roots([Path(root) for root in roots])
    assert [str(name) for name in found.names.values()] == names


def test_no_two_files_share_a_name_and_all_are_found_again(tmp_path: Path) -> None:
    files = ["a/x/1.png", "b/y/1.png", "b/y/x/1.png", "c/deep/x/1.png", "c/deep/x/1.jpg"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    given = [tmp_path / file for file in files[:2]]
    assert [item.name for item in find_inputs(given).items] == ["x/1", "y/1"]
    found = find_inputs([tmp_path / "a/x", tmp_path / "b/y", tmp_path / "c/deep/x"])
    names = {item.name: item.path for item in found.items}
    assert len(names) == 5 and set(names.values()) == {tmp_path / file for file in files}
    for name, path in names.items():
        assert path.with_suffix("").as_posix().endswith(PurePosixPath(name).with_suffix("").as_posix())


def test_one_output_does_not_take_two_folders_of_one_name_for_the_same() -> None:
    one, other = (name_roots([Path(f"/{first}/x"), Path("/b/y")]).rule() for first in "ac")
    assert one == {"x": "/a/x", "y": "/b/y"} and one != other
    assert name_roots([Path("/p/a"), Path("/p/b")]).rule() == "/p", "names say it all: folders may be added"


def test_the_output_may_be_none_of_the_inputs(tmp_path: Path) -> None:
    for file in ("a/x/1.png", "b/y/1.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    found = find_inputs([tmp_path / "a/x", tmp_path / "b/y"])
    with pytest.raises(ConfigError, match="is the input itself"):
        refuse_output_over_input(tmp_path / "b/y", found)
