"""Colour-coded label maps, and grey ones that a picture program stored with alpha or in few bits."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.frames_on_disk import label_array, save, write_frames
from m33d_hf.data.files.files import read_map
from m33d_hf.data.labels.labels import LabelRules, build_label_rules
from m33d_hf.data.labels.palettes import read_palette
from m33d_hf.data.sources import build_source
from m33d_hf.errors import ConfigError, CorruptFileError, LabelError

COLOURS = np.array([[128, 64, 128], [70, 70, 70], [0, 0, 142], [0, 0, 0]], np.uint8)
NAMES = ["road", "building", "car", "void"]
LINES = ["128 64 128", "70 70 70", "0 0 142", "0 0 0"]
FORMS = {
    "rgb_first.txt": "# colours of a street\n" + "\n".join(f"{c} {n}" for c, n in zip(LINES, NAMES)),
    "name_first.txt": "\n".join(f"{n}\t{c}" for c, n in zip(LINES, NAMES)),
    "hex.txt": "#804080 road\n#464646 building\n#00008E car\n#000000 void\n",
    "dict.csv": "name,r,g,b\n" + "\n".join(f"{n},{c.replace(' ', ',')}" for c, n in zip(LINES, NAMES)),
    "plain.csv": "\n".join(f"{n},{c.replace(' ', ',')}" for c, n in zip(LINES, NAMES)),
    "ids.csv": 'name,id,trainId,color\ncar,26,2,"(0, 0, 142)"\nroad,7,0,"(128, 64, 128)"\n'
    'building,11,1,"(70, 70, 70)"\nsky,23,255,"(0, 0, 0)"\n',
    "names.json": json.dumps({n: c.tolist() for n, c in zip(NAMES, COLOURS)}),
    "colours.json": json.dumps({"#804080": "road", "#464646": "building", "#00008e": "car", "#000000": "void"}),
    "rows.json": json.dumps([{"name": n, "color": c.tolist()} for n, c in zip(NAMES, COLOURS)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_palette_says_the_same(form: str, tmp_path: Path) -> None:
    (tmp_path / form).write_text(FORMS[form])
    palette = read_palette(tmp_path / form)
    assert palette.names == NAMES[:3] and palette.num_classes == 3
    assert palette.to_dict() == {"#804080": 0, "#464646": 1, "#00008e": 2, "#000000": 255}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 128 64 128", "is not a colour"),
        ("road 300 0 0", "is not a colour"),
        ("road 1 2 3\nroad 4 5 6", "'road' twice"),
        ("road 1 2 3\ncar 1 2 3", r"\(1, 2, 3\) twice"),
        ("road 1 2 3\n4 5 6", "no name"),
        ("void 1 2 3", "0 classes"),
        ("", "no colours"),
    ],
)
def test_what_is_no_palette_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "palette.txt").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_palette(tmp_path / "palette.txt")
    (tmp_path / "palette.json").write_text("{")
    with pytest.raises(CorruptFileError, match="JSON"):
        read_palette(tmp_path / "palette.json")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_coded_masks_are_read_by_their_palette(mode: str, tmp_path: Path) -> None:
    write_frames(tmp_path, 3, labels="label/{i}.png")
    for number in range(3):
        picture = Image.fromarray(COLOURS[label_array(number)])
        picture = picture.convert(mode) if mode != "P" else picture.quantize(4, dither=Image.Dither.NONE)
        picture.save(tmp_path / "label" / f"{number}.png")
    (tmp_path / "class_dict.csv").write_text(FORMS["dict.csv"])
    source = build_source("folder", root=tmp_path, palette="class_dict.csv", depth_unit="millimetre")
    assert source.class_names == NAMES[:3]
    for number in range(3):
        ids = label_array(number)
        np.testing.assert_array_equal(source[number].read([0]).segmentation[0], np.where(ids == 3, 255, ids))
    plain = build_source("folder", root=tmp_path, num_classes=4, depth_unit="millimetre", labels="none")
    assert source.digest() != plain.digest()


def test_unknown_colours_are_named_with_count_and_file(tmp_path: Path) -> None:
    picture = COLOURS[np.zeros((4, 5), int)]
    picture[0, :3] = (9, 8, 7)
    path = save(tmp_path / "a.png", picture)
    rules = build_label_rules(tmp_path, palette={n: c.tolist() for n, c in zip(NAMES, COLOURS)})
    with pytest.raises(LabelError, match=r"a\.png: 3 of 20 pixels .*\(9, 8, 7\) in 3 pixels"):
        rules.read(path)
    given = {n: c.tolist() for n, c in zip(NAMES, COLOURS)}
    ignoring = build_label_rules(tmp_path, palette=given, label_unmapped="ignore")
    assert ignoring.read(path)[0].tolist() == [255, 255, 255, 0, 0]


def test_a_palette_goes_with_no_other_numbering(tmp_path: Path) -> None:
    given = {"road": [1, 2, 3], "car": [4, 5, 6]}
    for options in ({"label_offset": 1}, {"label_map": {0: 0}}, {"label_ignore": [3]}, {"class_names": ["a", "b"]}):
        with pytest.raises(ConfigError, match="palette"):
            build_label_rules(tmp_path, palette=given, **options)
    with pytest.raises(ConfigError, match="num_classes is 3"):
        build_label_rules(tmp_path, palette=given, num_classes=3)
    named = build_label_rules(tmp_path, palette=["#010203", [4, 5, 6]], class_names=["a", "b"])
    assert named.names == ["a", "b"]


def test_alpha_is_told_apart_from_colour(tmp_path: Path) -> None:
    ids = label_array(0)
    opaque = np.full_like(ids, 255)
    rules = LabelRules(4)
    for name, picture in {
        "la": Image.fromarray(np.dstack([ids, opaque]), "LA"),
        "rgba": Image.fromarray(np.dstack([ids, ids, ids, opaque]), "RGBA"),
        "rgb": Image.fromarray(np.dstack([ids, ids, ids]), "RGB"),
    }.items():
        picture.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(rules.read(tmp_path / f"{name}.png"), ids)
    opaque[0, :5] = 0
    Image.fromarray(np.dstack([ids, opaque]), "LA").save(tmp_path / "holes.png")
    with pytest.raises(LabelError, match=r"grey with an alpha channel.*5 of"):
        rules.read(tmp_path / "holes.png")
    Image.fromarray(COLOURS[ids]).save(tmp_path / "colours.png")
    with pytest.raises(LabelError, match=r"labels are colours, not numbers.*palette"):
        rules.read(tmp_path / "colours.png")


def _png(row: bytes, width: int, bits: int, kind: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_few_bits_of_grey_come_back_as_stored_and_lost_bits_are_refused(tmp_path: Path) -> None:
    """Pillow spreads 2 and 4 bits over 0 to 255, and cuts 16 bits with alpha to 8: classes 1, 2 and 3 all became 0."""
    stored = ((1, b"\x40", [0, 1, 0, 0]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15]))
    for bits, row, expected in stored:
        (tmp_path / "few.png").write_bytes(_png(row, 4, bits, 0))
        assert read_map(tmp_path / "few.png").tolist() == [expected]
    for kind, values in ((4, [1, 65535, 2, 65535]), (2, [1, 1, 1, 2, 2, 2])):
        (tmp_path / "lost.png").write_bytes(_png(struct.pack(f">{len(values)}H", *values), 2, 16, kind))
        with pytest.raises(CorruptFileError, match="only 8 bits"):
            LabelRules(3).read(tmp_path / "lost.png")


PERMUTED = {
    "classid.json": '[{"name":"b", "color":"#040506", "classid":1}, {"name":"a", "color":[1, 2, 3], "classid":0}]',
    "numbers.json": '{"1": [4, 5, 6], "0": [1, 2, 3]}',
    "colours.json": '{"(4, 5, 6)": 1, "#010203": 0}',
    "before.txt": "1 b 4 5 6\n0 a 1 2 3\n",
}


@pytest.mark.parametrize("name", PERMUTED)
def test_numbers_of_a_palette_are_numbers_not_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PERMUTED[name])
    palette = read_palette(tmp_path / name)
    assert palette.to_dict() == {"#010203": 0, "#040506": 1}
    assert palette.names == (["a", "b"] if '"a"' in PERMUTED[name] or " a " in PERMUTED[name] else None)


@pytest.mark.parametrize("line", ["1 2 3 255 road", "1 road 1 2 3 0", '1 255 0 0 1 1 1 "tissue"'])
def test_a_fourth_number_is_not_part_of_a_name(tmp_path: Path, line: str) -> None:
    """Transparency, as FreeSurfer and ITK-SNAP write it: (2, 3, 0) is not the colour of "1 road 1"."""
    (tmp_path / "palette.txt").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match="is not a colour with a name"):
        read_palette(tmp_path / "palette.txt")


def test_the_label_map_of_an_annotation_tool(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar 2:1,2,3::\n")
    palette = read_palette(tmp_path / "labelmap.txt")
    assert palette.names == ["background", "car 2"] and palette.to_dict() == {"#000000": 0, "#010203": 1}
