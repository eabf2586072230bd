"""Files and sequences of another unit than the rest: named at the start, or when they are decoded."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import depth_scenes as scenes
from helpers.frames_on_disk import rgb_array, save
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.sampling import spread_over
from m33d_hf.data.depth.unit_guess import detect_depth_spec
from m33d_hf.data.files.files import read_map
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.measuring.first_look import first_look
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError, CorruptFileError, DepthUnitError


def write(root: Path, numbers: range, scale: float, folder: str = "depth", reach: float = 2.5) -> list[Path]:
    """Depth of rooms whose medians lie near 2 m, each another one; colour beside it."""
    files = []
    for number in numbers:
        metres = scenes.room(np.random.default_rng(number), reach)
        dtype = np.float32 if scale == 1 else np.uint16
        suffix = "npy" if scale == 1 else "png"
        files.append(save(root / folder / f"{number}.{suffix}", scenes.stored(metres, scale, dtype)))
        save(root / folder.replace("depth", "color") / f"{number}.png", rgb_array(number, scenes.SIZE))
    return files


def test_one_odd_file_does_not_change_forty(tmp_path: Path):
    files = write(tmp_path, range(40), 1000) + write(tmp_path, range(40, 41), 5000)
    found = detect_depth_spec(files)
    assert found.spec.unit == "millimetre" and found.median == pytest.approx(2.0, abs=0.5)
    assert "40.png counts as bad" in found.message and "tum" in found.message


@pytest.mark.parametrize(("scale", "odd"), [(1000, 10000), (5000, 1000), (10000, 1000)])
def test_one_odd_file_of_other_units(tmp_path: Path, scale: float, odd: float):
    files = write(tmp_path, range(12), scale, reach=3.5) + write(tmp_path, range(12, 13), odd, reach=3.5)
    options = None if scale == 1000 else DepthOptions(scale=scale)  # without marks these units are asked for
    assert "12.png counts as bad" in detect_depth_spec(files, options).message


def test_several_odd_files_are_an_error_that_names_them(tmp_path: Path):
    files = write(tmp_path, range(30), 1000) + write(tmp_path, range(30, 36), 5000)
    with pytest.raises(DepthUnitError, match=r"6 of 36 checked depth files(.|\n)*30\.png(.|\n)*31\.png") as caught:
        detect_depth_spec(files)
    assert "millimetre" in str(caught.value) and "depth_unit" in str(caught.value)


def test_scenes_of_one_unit_may_differ(tmp_path: Path):
    files = []
    for number, reach in enumerate([0.7, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]):
        files += write(tmp_path, range(10 * number, 10 * number + 3), 1000, reach=reach)
    assert detect_depth_spec(files).message.count("counts as bad") == 0


def test_sequences_of_another_unit_are_named_and_can_be_stated(tmp_path: Path):
    for name, scale in (("a", 1000), ("b", 1000), ("c", 5000)):
        write(tmp_path, range(6), scale, f"{name}/depth")
    with pytest.raises(DepthUnitError, match=r"1 sequence holds .*'c'.*depth_unit"):
        FolderSource(tmp_path, unit="clips")
    source = FolderSource(tmp_path, unit="clips", depth_unit={"c": "tum", "*": "mm"})
    assert source.depth_spec is not None and source.depth_spec.unit == "millimetre"
    first, last = (source[index].read([0, 3]).depth for index in (0, 2))
    np.testing.assert_allclose(first.numpy(), last.numpy(), atol=6e-4)
    guessed = FolderSource(tmp_path, depth_unit={"c": "tum"})
    assert guessed.depth_spec == source.depth_spec and len(guessed) == 18
    np.testing.assert_array_equal(guessed[12].read([0]).depth.numpy(), last[:1].numpy())
    by_scale = FolderSource(tmp_path, unit="clips", depth_scale={"c": 5000.0, "[ab]": 1000.0})
    assert by_scale.digest() == source.digest()
    plain = FolderSource(tmp_path, unit="clips", depth_unit="tum", rgb="none", depth="c/depth")
    np.testing.assert_array_equal(plain[0].read([0]).depth.numpy(), last[:1].numpy())
    with pytest.raises(ConfigError, match=r"'d'.*no such sequence.*a, b, c"):
        FolderSource(tmp_path, depth_unit={"d": "tum"})
    with pytest.raises(ConfigError, match="both given for"):
        FolderSource(tmp_path, depth_unit={"*": "tum"}, depth_scale={"c": 5000})


def test_a_sequence_whose_name_has_brackets_is_meant_by_its_name(tmp_path: Path):
    for name, scale in (("a", 1000), ("scene[1]", 5000)):
        write(tmp_path, range(6), scale, f"{name}/depth")
    for stated in ({"depth_unit": {"scene[1]": "tum", "*": "mm"}}, {"depth_scale": {"scene[1]": 5000, "*": 1000}}):
        source = FolderSource(tmp_path, unit="clips", **stated)
        first, last = (source[index].read([0, 3]).depth for index in (0, 1))
        np.testing.assert_allclose(first.numpy(), last.numpy(), atol=6e-4)
    with pytest.raises(ConfigError, match=r"'scene\[2\]'.*no such sequence"):
        FolderSource(tmp_path, depth_unit={"scene[2]": "tum"})


def test_a_sequence_of_few_looked_at_files_is_looked_at_closely(tmp_path: Path):
    for number in range(40):
        write(tmp_path, range(2), 5000 if number == 17 else 1000, f"s{number:02d}/depth")
    with pytest.raises(DepthUnitError, match="'s17'"):
        FolderSource(tmp_path)


def test_files_are_spread_over_sequences():
    sequences = {f"s{number}": [Path(f"{number}/{i}") for i in range(50)] for number in range(5)}
    chosen = spread_over(sequences, 64)
    counts = [sum(name == each for each, _ in chosen) for name in sequences]
    assert len(chosen) == 64 and max(counts) - min(counts) <= 1
    assert len(spread_over({str(n): [Path("0")] for n in range(500)}, 64)) == 64


def test_a_later_file_of_another_unit_counts_as_bad(tmp_path: Path):
    count = 80  # more than are looked at
    write(tmp_path, range(1), 1000)
    for number in range(1, count):
        for folder in ("depth", "color"):
            shutil.copy(tmp_path / folder / "0.png", tmp_path / folder / f"{number}.png")
    ordered = [Path(str(number)) for number in range(count)]
    looked = {path for _, path in spread_over({"": ordered}, 64)}
    odd = next(number for number in range(count) if Path(str(number)) not in looked)
    write(tmp_path, range(odd, odd + 1), 5000)
    source = FolderSource(tmp_path)
    assert source.depth_spec is not None and source.depth_spec.unit == "millimetre"
    with pytest.raises(CorruptFileError, match=rf"depth/{odd}\.png.*another unit.*tum"):
        source[odd].read([0])
    sample = SampleDataset(source)[0, odd]
    assert sample.meta["dropped"] and sample.meta["skipped"][0].path.endswith(f"depth/{odd}.png")
    tally = first_look(Subject("train", source, len(source), 1, 8), frames=len(source))
    assert [Path(entry.path).name for entry in tally.unusable] == [f"{odd}.png"]


def test_a_later_sequence_of_another_unit_stops_the_run(tmp_path: Path):
    root = tmp_path / "data"
    for number in range(130):  # every other sequence is looked at
        write(root, range(3 if number == 65 else 1), 5000 if number == 65 else 1000, f"s{number:03d}/depth")
    names = [f"s{number:03d}" for number in range(130)]
    looked = [name for name, _ in spread_over({name: [Path("0")] for name in names}, 64)]
    assert "s065" not in looked
    source = FolderSource(root, unit="clips")
    with pytest.raises(DepthUnitError, match=r"s065.*depth_unit"):
        source[65].read([0])
    source[64].read([0])


def test_the_later_check_looks_at_a_hundredth_of_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It runs for every file that is read, so its work is bounded; how long that takes is no matter of a test."""
    metres = scenes.room(np.random.default_rng(0), size=(480, 640))
    file = save(tmp_path / "0.png", scenes.stored(metres, 1000))
    found = detect_depth_spec([file])
    assert found.check is not None
    stored = read_map(file)
    medians: list[int] = []
    median = np.median
    monkeypatch.setattr(np, "median", lambda values: medians.append(values.size) or median(values))
    found.check.require(file, stored, found.spec.decode(stored))
    assert len(medians) == 1, "what is stored is looked at only where the metres are unlike the rest"
    with pytest.raises(CorruptFileError, match=r"which no depth camera measures|another unit"):
        found.check.require(file, stored // 700, found.spec.decode(stored // 700))
    assert len(medians) == 3 and all(0 < looked <= stored.size / 100 for looked in medians)
