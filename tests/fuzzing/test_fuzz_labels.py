"""Damaged label maps, palettes and class names: read as they are, or refused by an error of ours."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.fuzzing import Outcomes, bit_flips, mutations, slices
from m33d_hf.data.labels.census import LabelFiles, take_census
from m33d_hf.data.labels.labels import LabelRules, build_label_rules, read_label_map
from m33d_hf.data.labels.palettes import read_palette
from m33d_hf.errors import M33DError

IDS = np.random.default_rng(0).integers(0, 4, (12, 17)).astype(np.uint8)
COLOURS = np.array([[128, 64, 128], [70, 70, 70], [0, 0, 142], [0, 0, 0]], np.uint8)
PALETTES = {
    "a.txt": "128 64 128 road\n70 70 70 building\n0 0 142 car\n0 0 0 void\n",
    "b.csv": "name,r,g,b\nroad,128,64,128\nbuilding,70,70,70\ncar,0,0,142\nvoid,0,0,0\n",
    "c.json": json.dumps({"road": [128, 64, 128], "building": "#464646", "car": [0, 0, 142], "void": [0, 0, 0]}),
    "d.csv": 'name,id,color\nroad,0,"(128, 64, 128)"\ncar,1,"(0, 0, 142)"\n',
    "e.json": json.dumps(
        [{"name": "road", "color": [1, 2, 3], "id": 0}, {"name": "car", "r": 4, "g": 5, "b": 6, "id": 1}]
    ),
}


def _pictures() -> dict[str, bytes]:
    grey, colour = Image.fromarray(IDS), Image.fromarray(COLOURS[IDS])
    opaque = np.full_like(IDS, 255)
    indexed = grey.convert("P")
    made = {
        "grey.png": grey,
        "alpha.png": Image.fromarray(np.dstack([IDS, opaque]), "LA"),
        "colour.png": colour,
        "colour_alpha.png": colour.convert("RGBA"),
        "indexed.png": indexed,
        "wide.png": Image.fromarray(IDS.astype(np.uint16)),
    }
    found = {}
    for name, picture in made.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        found[name] = buffer.getvalue()
    return found


PICTURES = _pictures()
PALETTE = {"road": [128, 64, 128], "building": [70, 70, 70], "car": [0, 0, 142], "void": "#000000"}
RULES = {
    "numbers": LabelRules(4),
    "mapped": LabelRules(2, mapping={0: 0, 255: 1}, unmapped="ignore"),
    "palette": build_label_rules(Path(), palette=PALETTE),
}


@pytest.mark.parametrize(("seed", "count"), slices(40, 400))
@pytest.mark.parametrize("name", PICTURES)
def test_damaged_label_maps(name: str, seed: int, count: int, tmp_path: Path) -> None:
    outcomes, path = Outcomes(), tmp_path / name
    for damage in (mutations, bit_flips):
        for what, data in damage(PICTURES[name], seed, count):
            path.write_bytes(data)
            for word, rules in RULES.items():
                found = outcomes.judge(f"{name} by {word}: {what}", lambda rules=rules: rules.read(path))
                if isinstance(found, M33DError):
                    continue
                assert found.dtype == np.uint8 and found.ndim == 2
                assert set(np.unique(found)) <= {*range(rules.num_classes), 255}
                if damage is bit_flips:  # a PNG's checksums: what is accepted is what was stored
                    path.write_bytes(PICTURES[name])
                    np.testing.assert_array_equal(found, rules.read(path))
                    path.write_bytes(data)
            outcomes.judge(what, lambda: take_census(LabelFiles([path], RULES["numbers"]), list("abcd")).warnings())
    assert outcomes["refused"] > 0


def _read_all(path: Path) -> Any:
    palette = read_palette(path)
    assert 1 <= palette.num_classes <= 255 and set(palette.to_dict().values()) <= {*range(palette.num_classes), 255}
    return palette


@pytest.mark.parametrize(("seed", "count"), slices(150, 1000))
@pytest.mark.parametrize("name", PALETTES)
def test_damaged_palettes(name: str, seed: int, count: int, tmp_path: Path) -> None:
    outcomes, path = Outcomes(), tmp_path / name
    path.write_text(PALETTES[name])
    assert _read_all(path).names is not None
    for what, data in mutations(PALETTES[name].encode(), seed, count):
        path.write_bytes(data)
        outcomes.judge(f"{name}: {what}", lambda: _read_all(path))
    assert outcomes["refused"] > 0


@pytest.mark.parametrize(("seed", "count"), slices(150, 1000))
def test_damaged_class_names_and_mappings(seed: int, count: int, tmp_path: Path) -> None:
    outcomes = Outcomes()
    names = "value\tname\n0\tvoid\n1\twall\n2\tfloor\n10\tchair\n"
    files = {"names.tsv": names, "names.txt": "wall\nfloor\n", "map.json": '{"0": 0, "255": 1}'}
    files |= {"map.txt": "0 0\n255 1\n", "names.json": '{"0": "void", "1": "wall", "2": "floor"}'}
    for name, text in files.items():
        option = "class_names" if name.startswith("names") else "label_map"
        for what, data in mutations(text.encode(), seed, count):
            (tmp_path / name).write_bytes(data)
            given = {option: name}
            outcomes.judge(f"{name}: {what}", lambda given=given: build_label_rules(tmp_path, **given))
    assert outcomes["refused"] > 0 and outcomes["accepted"] > 0


VALUES: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.choice([None, True, "", "x", "1", -1, 0, 1, 254, 255, 256, 2**70, 1.5, float("nan"), float("inf")]),
    lambda rng: [rng.randint(-3, 300) for _ in range(rng.randint(0, 4))],
    lambda rng: {rng.choice([0, 255, "255", "a", None, 1.5]): rng.choice([0, 1, "1", None, [], 255, -1, 2**70])},
    lambda rng: [[1, 2, 3], {"name": rng.choice(["a", None, 3]), "color": rng.choice(["#123456", [1, 2], "1 2 3"])}],
    lambda rng: {"road": [rng.choice([0, 255, 256, -1, "a", None, 1.5])] * 3},
]


@pytest.mark.parametrize(("seed", "count"), slices(600, 10000))
def test_values_of_label_options(seed: int, count: int, tmp_path: Path) -> None:
    outcomes = Outcomes()
    options = ("num_classes", "class_names", "label_offset", "label_ignore", "label_map", "label_unmapped", "palette")
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        given = {option: rng.choice(VALUES)(rng) for option in rng.sample(options, rng.randint(1, 3))}
        rules = outcomes.judge(f"{given}", lambda given=given: build_label_rules(tmp_path, **given))
        if isinstance(rules, LabelRules) and rules.palette is None:
            outcomes.judge(f"{given} applied", lambda rules=rules: rules.apply(IDS, "ids"))
    outcomes.judge("a map", lambda: read_label_map({"0": 0}, tmp_path))
    assert outcomes["refused"] > 0 and outcomes["accepted"] > 0
