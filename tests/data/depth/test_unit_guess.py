from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m33d_hf.data.depth.unit_guess import DepthOptions, detect_depth_spec
from m33d_hf.errors import DataError, DepthUnitError
from m33d_hf.modeling.depth_m33d import DepthSpec

RNG = np.random.default_rng(0)


def write(folder: Path, array: np.ndarray, name: str = "0.png") -> list[Path]:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return [path]


def room(scale: float, low: float = 0.8, high: float = 4.0) -> np.ndarray:
    """A 40 x 50 map of plausible metres, stored in 1/scale m, a tenth of it holes."""
    metres = low + (high - low) * RNG.random((40, 50)) ** 2
    stored = (metres * scale).astype(np.uint16)
    stored[:4] = 0
    return stored


def test_millimetres_are_recognised_and_the_median_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    stored = room(1000)
    stored[4, :25] = 65535
    found = detect_depth_spec(write(tmp_path, stored))
    assert found.spec.unit == "millimetre"
    valid = stored[(stored > 0) & (stored < 65535)]
    assert found.median == pytest.approx(np.median(valid) / 1000)
    assert found.invalid_fraction == pytest.approx(0.1125, abs=1e-9)
    assert found.saturated_fraction == pytest.approx(0.0125)
    assert f"{found.median:.3g} m" in found.message and "% invalid (1.2% saturated)" in found.message
    (logged,) = caplog.messages
    assert [line.strip() for line in logged.splitlines()] == list(found.lines)
    assert len(found.lines) > 1 and max(map(len, found.lines)) < 180, "lines that can be read"


@pytest.mark.parametrize(("scale", "unit"), [(5000, "tum"), (10000, "tenth_millimetre")])
def test_other_integer_scales(tmp_path: Path, scale: int, unit: str):
    """Such values could be 1/4000 m as well; what their device leaves in them tells them apart."""
    if scale == 5000:
        stored = room(1000, 0.8, 6.0) * 5  # whole millimetres, as a Kinect gives
    else:
        stored = np.resize(room(scale, 2.0, 6.4), (424, 512))  # the picture of a Kinect v2
    assert detect_depth_spec(write(tmp_path, stored)).spec.unit == unit


@pytest.mark.parametrize(("scale", "unit"), [(5000, "tum"), (10000, "tenth_millimetre"), (4000, "quarter_millimetre")])
def test_integer_scales_without_marks_are_asked_for(tmp_path: Path, scale: int, unit: str):
    stored = room(scale, 1.5, 6.0)
    median = np.median(stored[stored > 0]) / scale
    with pytest.raises(DepthUnitError, match=rf"{median:.3g} m as {unit}: --data\.options\.depth_unit {unit}"):
        detect_depth_spec(write(tmp_path, stored))


def test_alternative_is_named_when_two_units_are_plausible(tmp_path: Path):
    found = detect_depth_spec(write(tmp_path, room(1000, 2.5, 5.0)))
    assert found.spec.unit == "millimetre"
    median = found.median * 1000 / 5000  # stored millimetres read as 1/5000 m
    assert found.lines[-1].startswith("less plausible units") and "--data.options.depth_unit" in found.lines[-1]
    assert f"tum {median:.3g} m" in found.lines[-1]


@pytest.mark.parametrize("wrapped", [0.0, 0.028, 0.16, 0.3])
def test_sun_rgbd_rotation_is_recognised_beyond_eight_metres(tmp_path: Path, wrapped: float):
    millimetres = room(1000)
    beyond = (RNG.random(millimetres.shape) < wrapped) & (millimetres > 0)
    millimetres[beyond] = RNG.integers(8300, 12000, int(beyond.sum()))
    found = detect_depth_spec(write(tmp_path, millimetres << 3 | millimetres >> 13))
    assert found.spec.unit == "sunrgbd"
    assert found.median == pytest.approx(np.median(millimetres[millimetres > 0]) / 1000)


def test_raw_kinect_disparity_is_taken_as_the_refusal_advises(tmp_path: Path):
    raw = np.tile(np.linspace(500, 1000, 50).astype(np.uint16), (40, 1))
    raw[:4] = 2047
    files = write(tmp_path, raw)
    with pytest.raises(DepthUnitError, match=r"depth_kind=relative invalid_values='\[0, 2047\]'"):
        detect_depth_spec(files)
    found = detect_depth_spec(files, DepthOptions(kind="relative", invalid_values=(0, 2047)))
    assert found.median == pytest.approx(np.median(raw[4:])) and found.invalid_fraction == pytest.approx(0.1)
    with pytest.raises(DepthUnitError, match="swapped"):
        detect_depth_spec(write(tmp_path, raw.byteswap()), DepthOptions(kind="relative", invalid_values=(0, 2047)))


def test_max_depth_is_named_where_the_last_quantile_is_far_beyond_the_rest(tmp_path: Path):
    stored = room(1000)
    assert "max_depth" not in detect_depth_spec(write(tmp_path, stored)).message
    stored[RNG.random(stored.shape) < 0.02] = 20_000
    found = detect_depth_spec(write(tmp_path, stored))
    assert found.spec.unit == "millimetre" and found.spec.max_depth is None
    assert "--data.options.max_depth" in found.message and "at 20 m and more" in found.message


@pytest.mark.parametrize("holes", [0.1, 0.75])
def test_sparse_millimetres_of_rooms_are_no_street(tmp_path: Path, holes: float):
    stored = (np.exp(RNG.normal(np.log(3.9), 0.45, (40, 50))) * 1000).astype(np.uint16)
    stored[RNG.random(stored.shape) < holes] = 0
    assert detect_depth_spec(write(tmp_path, stored)).spec.unit == "millimetre"


def test_float_millimetres_of_an_endoscope_are_asked_for(tmp_path: Path):
    with pytest.raises(DepthUnitError, match=r"0\.15\d* m as millimetre"):
        detect_depth_spec(write(tmp_path, RNG.uniform(120, 180, (40, 50)).astype(np.float32), "0.npy"))


def test_sun_rgbd_rotation_is_recognised(tmp_path: Path):
    millimetres = room(1000)
    rotated = ((millimetres << 3) | (millimetres >> 13)).astype(np.uint16)
    found = detect_depth_spec(write(tmp_path, rotated))
    assert found.spec.unit == "sunrgbd" and found.spec.scale == 8000
    assert found.median == pytest.approx(np.median(millimetres[millimetres > 0]) / 1000)


def test_float_metres_and_float_millimetres(tmp_path: Path):
    metres = 0.8 + 3 * RNG.random((20, 20)).astype(np.float32)
    metres[0] = np.nan
    assert detect_depth_spec(write(tmp_path, metres, "a.npy")).spec.unit == "metre"
    assert detect_depth_spec(write(tmp_path, metres * 1000, "b.npy")).spec.unit == "millimetre"


def test_median_of_two_thousand_metres_asks_for_millimetres(tmp_path: Path):
    files = write(tmp_path, room(1000, 1.9, 2.1))
    with pytest.raises(DepthUnitError, match=r"median depth is [12],.* m .*depth_unit=millimetre"):
        detect_depth_spec(files, DepthOptions(unit="metre"))


def test_below_a_centimetre_is_refused_with_the_fix(tmp_path: Path):
    metres = np.full((8, 8), 2, np.uint16)  # whole metres in a 16-bit file
    with pytest.raises(DepthUnitError, match="depth_unit"):
        detect_depth_spec(write(tmp_path, metres))
    assert detect_depth_spec(write(tmp_path, metres), DepthOptions(unit="metre")).median == 2.0
    with pytest.raises(DepthUnitError, match=r"0\.002 m.*depth_unit=metre"):
        detect_depth_spec(write(tmp_path, metres), DepthOptions(unit="mm"))


def test_kilometres_are_refused(tmp_path: Path):
    far = np.full((8, 8), 2e6, np.float32)
    with pytest.raises(DepthUnitError, match="2,000"):
        detect_depth_spec(write(tmp_path, far, "a.npy"))


def test_eight_bit_display_depth_is_refused_unless_a_scale_is_stated(tmp_path: Path):
    files = write(tmp_path, RNG.integers(1, 255, (20, 20), dtype=np.uint8))
    with pytest.raises(DepthUnitError, match="8-bit"):
        detect_depth_spec(files)
    assert detect_depth_spec(files, DepthOptions(scale=50)).spec.scale == 50
    relative = detect_depth_spec(files, DepthOptions(kind="inverse"))
    assert relative.spec.kind == "inverse" and "without a unit" in relative.message


def test_colour_coded_depth_is_refused(tmp_path: Path):
    with pytest.raises(DepthUnitError, match="one value per pixel"):
        detect_depth_spec(write(tmp_path, RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)))


def test_a_single_file_that_is_no_map_is_left_to_the_readers_and_several_are_an_error(tmp_path: Path):
    values, colour = room(1000), RNG.integers(0, 255, (20, 20, 3), dtype=np.uint8)
    files = [write(tmp_path, values, f"{number}.png")[0] for number in range(5)]
    write(tmp_path, colour, "2.png")
    assert detect_depth_spec(files).spec.unit == "millimetre"
    write(tmp_path, colour, "4.png")
    with pytest.raises(DepthUnitError, match=r"2 of 5 checked files.*one value per pixel"):
        detect_depth_spec(files)


def test_normalised_floats_are_questioned(tmp_path: Path):
    values = np.linspace(0.01, 1.0, 400, dtype=np.float32).reshape(20, 20)
    with pytest.raises(DepthUnitError, match="disparity"):
        detect_depth_spec(write(tmp_path, values, "a.npy"))


@pytest.mark.parametrize("hint", [None, DepthOptions(unit="mm"), DepthSpec()])
def test_all_invalid_depth_is_a_data_error(tmp_path: Path, hint: DepthOptions | DepthSpec | None):
    stored = np.zeros((8, 8), np.uint16)
    stored[0] = 65535
    with pytest.raises(DataError, match="all depth is invalid"):
        detect_depth_spec(write(tmp_path, stored), hint)


def test_bounds_do_not_hide_a_wrong_unit(tmp_path: Path):
    files = write(tmp_path, room(1000))
    with pytest.raises(DepthUnitError, match="millimetre"):
        detect_depth_spec(files, DepthOptions(unit="metre", max_depth=10))


def test_corrupt_files_are_passed_over_until_none_is_left(tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"")
    good = write(tmp_path, room(1000), "good.png")
    assert detect_depth_spec([tmp_path / "bad.png", *good]).spec.unit == "millimetre"
    with pytest.raises(DataError, match=r"bad\.png"):
        detect_depth_spec([tmp_path / "bad.png"])
    with pytest.raises(DataError, match="no depth files"):
        detect_depth_spec([])


def test_mixed_kinds_of_numbers_are_refused(tmp_path: Path):
    files = write(tmp_path, room(1000), "0.png") + write(tmp_path, np.ones((4, 4), np.float32), "1.npy")
    with pytest.raises(DepthUnitError, match="must have one"):
        detect_depth_spec(files)
