"""Units that are no plain scale, and what a DepthSpec refuses."""

import numpy as np
import pytest

from m33d_hf.errors import ConfigError, DepthUnitError
from m33d_hf.modeling.depth_spec_m33d import UNITS_PER_METRE, DepthSpec, rotated_back
from m33d_hf.modeling.fields_m33d import Range, check_value
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor


def rotated_by_text(value: int) -> int:
    """The 16 bits as a string, the first three moved to the end."""
    bits = f"{value:016b}"
    return int(bits[3:] + bits[:3], 2)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.dtype(">u2")])
def test_rotated_bits_come_back_exactly_for_every_value(dtype: type):
    millimetres = np.arange(1 << 16)
    stored = np.array([rotated_by_text(int(value)) for value in millimetres]).astype(dtype)
    np.testing.assert_array_equal(rotated_back(stored.astype(stored.dtype.newbyteorder("="))), millimetres)
    decoded = DepthSpec(unit="sunrgbd").decode(stored)
    expected = millimetres.astype(np.float32) / np.float32(1000)
    np.testing.assert_array_equal(np.isnan(decoded), (stored == 0) | (stored == 65535))
    np.testing.assert_allclose(decoded[1:-1], expected[1:-1], rtol=6e-8)


def test_bounds_and_invalid_values_of_rotated_bits():
    stored = np.array([rotated_by_text(value) for value in (500, 2000, 9000, 30000)], np.uint16)
    spec = DepthSpec(unit="sunrgbd", invalid_values=(0, rotated_by_text(2000)), max_depth=10.0)
    np.testing.assert_array_equal(spec.decode(stored), np.array([0.5, np.nan, 9.0, np.nan], np.float32))
    assert DepthSpec.from_dict(spec.to_dict()) == spec
    assert "rotated by 3" in spec.describe()


def test_rotated_bits_need_sixteen_bits():
    for stored in (np.array([1.0]), np.array([70000]), np.array([-1])):
        with pytest.raises(DepthUnitError, match="requires 16-bit integers"):
            DepthSpec(unit="sunrgbd").decode(stored)


def test_the_image_processor_knows_every_unit():
    stored = np.full((32, 32), rotated_by_text(2000), np.uint16)
    stored[:16] = rotated_by_text(9000)
    size = {"height": 32, "width": 32}
    processor = M33DImageProcessor(size=size, depth_standardization="none", depth_unit="sunrgbd")
    picture = np.zeros((32, 32, 3), np.uint8)
    values = processor(picture, depth=stored, return_tensors="pt")["depth_values"]
    assert np.unique(values.numpy()).tolist() == [2.0, 9.0]


def test_known_units_and_what_scales_are_called():
    assert DepthSpec(unit="l515").scale == 4000 and DepthSpec(unit="kitti").scale == 256
    # Digests of data sets hold the name: scales keep those that they had.
    names = [DepthSpec(scale=scale).unit for scale in (1.0, 100.0, 1000.0, 5000.0, 10000.0)]
    assert names == ["metre", "centimetre", "millimetre", "tum", "tenth_millimetre"]
    assert {DepthSpec(scale=scale).unit for scale in (4000.0, 256.0, 8000.0)} == {"custom"}
    assert DepthSpec(unit="custom", scale=8000.0).decode(np.array([8001], np.uint16)) == np.float32(8001 / 8000)
    assert all(DepthSpec(unit=unit).scale == scale for unit, scale in UNITS_PER_METRE.items())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": 0}, r"depth scale is 0; it must be at least 1e-06 and at most 1000000000"),
        ({"scale": -5.0}, "depth scale is -5; it must be at least"),
        ({"scale": float("nan")}, "depth scale must be a number or null, not nan"),
        ({"scale": float("inf")}, "depth scale must be a number or null, not inf"),
        ({"scale": "1000"}, "depth scale must be a number or null, not '1000'"),
        ({"scale": True}, "depth scale must be a number or null, not True"),
        ({"scale": 10**400}, "depth scale must be a number or null, not 1000"),
        ({"scale": 10**5000}, "depth scale must be a number or null, not a number of 16610 bits"),
        ({"scale": [1]}, r"depth scale must be a number or null, not \[1\]"),
        ({"kind": 3}, "depth kind is 3"),
        ({"kind": None}, "depth kind is None"),
        ({"unit": 3}, "depth unit must be text or null, not 3"),
        ({"unit": "parsec"}, "depth unit is 'parsec'"),
        ({"kind": "inverse", "unit": "parsec"}, "depth unit is 'parsec'"),
        ({"invalid_values": 0}, "depth invalid_values must be a list whose entries are each a number, not 0"),
        ({"invalid_values": None}, "depth invalid_values must be a list whose entries are each a number, not None"),
        ({"invalid_values": "0"}, "depth invalid_values must be a list whose entries are each a number, not '0'"),
        (
            {"invalid_values": [0, None]},
            r"invalid_values must be .* not \(0, None\).* entry 1, .* is None",
        ),
        ({"invalid_values": [float("nan")]}, "depth invalid_values must be a list whose entries are each .* not .*nan"),
        ({"invalid_values": list(range(1001))}, "depth invalid_values has 1001 entries; it may have at most 1000"),
        ({"min_depth": "1"}, "depth min_depth must be a number or null, not '1'"),
        ({"max_depth": float("nan")}, "depth max_depth must be a number or null, not nan"),
        ({"max_depth": 0.0}, "no valid pixel would be left"),
        ({"max_depth": -1}, "no valid pixel would be left"),
    ],
)
def test_fields_of_wrong_types_and_ranges_are_named(fields: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        DepthSpec(**fields)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers():
    assert DepthSpec(scale=np.float32(5000), max_depth=np.int64(7)).scale == 5000
    assert DepthSpec(invalid_values=np.array([0, 255], np.uint8)).invalid_values == (0, 255)
    assert DepthSpec(invalid_values=(value for value in (0, 7))).invalid_values == (0, 7)  # type: ignore[arg-type]
    assert check_value("x", np.uint8(3), int, Range(low=3)) == 3
    with pytest.raises(ConfigError, match=r"x must be an integer, not 1\.5"):
        check_value("x", 1.5, int, Range(low=0))
    with pytest.raises(ConfigError, match=r"x must be an integer, not .*True"):
        check_value("x", np.bool_(True), int, Range(low=0))
