"""data/labels/proposing: options for label maps that nobody described, tried by reading the maps with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import save
from m33d_hf.data.labels.labels import build_label_rules
from m33d_hf.data.labels.proposing import palette_text, propose_labels


def write_values(folder: Path, *maps: Sequence[int]) -> list[Path]:
    kind = np.uint8 if max(max(each) for each in maps) < 256 else np.uint16
    return [save(folder / f"{i}.png", np.array([values], dtype=kind)) for i, values in enumerate(maps)]


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (([0, 1, 2], [2, 3]), {0: 0, 1: 1, 2: 2, 3: 3}),
        (([0, 1, 255], [2]), {0: 0, 1: 1, 2: 2, 255: 255}),
        (([1, 2], [3, 255]), {1: 0, 2: 1, 3: 2, 255: 255}),
        (([0, 255], [0]), {0: 0, 255: 1}),
        (([0, 1, 3],), {0: 0, 1: 1, 3: 3}),  # class 2 does not occur
        (([0, 40, 80, 255],), {0: 0, 40: 1, 80: 2, 255: 255}),  # few, and far apart
        (([7, 1000, 40],), {7: 0, 40: 1, 1000: 2}),
    ],
)
def test_the_options_read_every_value_as_it_is_meant(tmp_path: Path, maps: Sequence[int], expected: dict[int, int]):
    files = write_values(tmp_path, *maps)
    found = propose_labels(files)
    assert found is not None
    rules = build_label_rules(tmp_path, **found.options)
    assert rules is not None
    read = {}
    for file, stored in zip(files, maps, strict=True):
        read |= dict(zip(stored, rules.read(file)[0].tolist(), strict=True))
    assert read == expected


def test_a_gap_in_the_numbers_is_told_as_values(tmp_path: Path):
    found = propose_labels(write_values(tmp_path, [0, 1, 2, 5, 255]))
    assert found is not None and "the stored values 0 to 2, 5, 255, read as 6 classes and 255 as no class" in found.said


def test_what_cannot_be_classes_gets_no_options(tmp_path: Path):
    numbers = propose_labels(write_values(tmp_path / "objects", [value for value in range(300) if value != 255]))
    assert numbers is not None and not numbers.options and "299 different values" in numbers.said
    nothing = propose_labels(write_values(tmp_path / "void", [255, 255]))
    assert nothing is not None and not nothing.options and "nothing to learn" in nothing.said
    mixed = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    colours = propose_labels([save(tmp_path / "photo.png", mixed)])
    assert colours is not None and not colours.colours and "more than there can be classes" in colours.said


def test_colours_become_a_palette_that_reads_them(tmp_path: Path):
    red, green, black = (200, 0, 0), (0, 200, 0), (0, 0, 0)
    grey = save(tmp_path / "0.png", np.zeros((2, 2, 3), np.uint8))
    coloured = save(tmp_path / "1.png", np.array([[red, green, black], [black, black, red]], np.uint8))
    found = propose_labels([grey, coloured])
    assert found is not None and found.colours == [black, green, red] and not found.options
    (tmp_path / "palette.csv").write_text(palette_text(found.colours))
    rules = build_label_rules(tmp_path, palette="palette.csv")
    assert rules is not None and rules.names == ["class 0", "class 1", "class 2"]
    assert rules.read(coloured).tolist() == [[2, 1, 0], [0, 0, 2]] and not rules.read(grey).any()


def test_files_that_cannot_be_read_are_left_to_the_reader(tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert propose_labels([broken]) is None
    found = propose_labels([broken, *write_values(tmp_path, [0, 1])])
    assert found is not None and found.options == {"num_classes": 2}
