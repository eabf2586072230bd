"""Scenes that know nothing of units, stored in each: the right unit is found, or the run stops and shows it."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import depth_scenes as scenes
from helpers.frames_on_disk import save
from m33d_hf.data.depth.figures import measure
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.unit_guess import detect_depth_spec
from m33d_hf.errors import ConfigError, DepthUnitError
from m33d_hf.modeling.depth_spec_m33d import UNITS_PER_METRE

SEEDS = range(3)


def told(tmp_path: Path, arrays: list[np.ndarray], **options: object) -> tuple[str, str]:
    """(unit, message), or ("stop", message) where the run stops and asks."""
    suffix = "npy" if arrays[0].dtype.kind == "f" else "png"
    files = [save(tmp_path / f"{number}.{suffix}", array) for number, array in enumerate(arrays)]
    try:
        found = detect_depth_spec(files, DepthOptions(**options))  # type: ignore[arg-type]
    except DepthUnitError as error:
        assert "is ambiguous" in str(error), error
        return "stop", str(error)
    return str(found.spec.unit), found.message


def stored_scenes(
    make: Callable[..., np.ndarray], unit: str, dtype: type = np.uint16, *more: object
) -> list[np.ndarray]:
    maps = [make(np.random.default_rng(seed), *more) for seed in SEEDS]
    return [scenes.stored(each, UNITS_PER_METRE[unit], dtype) for each in maps]


def bell(median: float, spread: float = 0.3) -> np.ndarray:
    """A map of log-normal depth, 15 % of it holes."""
    rng = np.random.default_rng(0)
    metres = median * np.exp(spread * rng.standard_normal((60, 80)))
    return np.where(rng.random(metres.shape) < 0.15, np.nan, metres)


def like(scene: np.ndarray, median: float) -> np.ndarray:
    return scene * (median / np.nanmedian(scene))


# unit, dtype, whether stored in whole millimetres, medians in metres
ACCEPTED = [
    ("millimetre", np.uint16, True, (0.8, 1.0, 1.5, 2.2, 3.0, 4.0)),
    ("millimetre", np.uint16, True, (0.03, 0.05, 0.075)),
    ("tum", np.uint16, True, (0.7, 1.0, 2.0, 4.0, 8.0)),
    ("quarter_millimetre", np.uint16, True, (0.5, 1.0, 2.0, 3.0)),
    ("metre", np.float32, False, (1.3, 2.2, 3.0, 4.5)),
    ("millimetre", np.float32, False, (0.8, 1.5, 2.2, 4.0)),
]
ASKED = [
    ("tum", np.uint16, False, (1.0, 1.3, 2.0, 3.0, 6.0, 7.0, 8.0)),
    ("quarter_millimetre", np.uint16, False, (1.3, 2.0, 2.4, 3.0, 4.0, 6.0)),
    ("tenth_millimetre", np.uint16, False, (0.8, 1.0, 1.5, 2.0, 3.0, 4.5)),
    ("millimetre", np.uint16, True, (5.0, 6.0, 8.0, 0.15, 0.3, 0.5)),
    ("centimetre", np.uint16, False, (1.0, 2.0, 3.0, 6.0)),
    ("centimetre", np.float32, False, (1.0, 2.0, 3.0, 6.0, 0.08, 0.15, 0.4)),
    ("millimetre", np.float32, False, (0.04, 0.06, 0.1, 0.2, 0.5)),
    ("metre", np.float32, False, (7.0, 8.0)),
]


def cases(table: list[tuple[str, type, bool, tuple[float, ...]]]) -> list[tuple[str, type, bool, float]]:
    return [(unit, dtype, whole, median) for unit, dtype, whole, medians in table for median in medians]


def bell_stored(unit: str, dtype: type, whole: bool, median: float) -> np.ndarray:
    metres = bell(median)
    return scenes.stored(np.rint(metres * 1000) / 1000 if whole else metres, UNITS_PER_METRE[unit], dtype)


@pytest.mark.parametrize(("unit", "dtype", "whole", "median"), cases(ACCEPTED))
def test_no_flag_is_needed_in_the_home_range(tmp_path: Path, unit: str, dtype: type, whole: bool, median: float):
    found, message = told(tmp_path, [bell_stored(unit, dtype, whole, median)])
    assert found == unit, message


@pytest.mark.parametrize(("unit", "dtype", "whole", "median"), cases(ASKED))
def test_no_other_unit_is_chosen_in_silence(tmp_path: Path, unit: str, dtype: type, whole: bool, median: float):
    stored = bell_stored(unit, dtype, whole, median)
    found, message = told(tmp_path, [stored])
    valid = stored[(stored > 0) & (stored != 65535)]
    shown = f"{np.median(valid) / UNITS_PER_METRE[unit]:.3g} m as {unit}: --data.options.depth_unit {unit}"
    assert found == "stop" and shown in message, message


@pytest.mark.parametrize("median", [8.0, 13.0, 20.0])
def test_streets_of_a_scanner_need_no_flag(tmp_path: Path, median: float):
    metres = like(scenes.lidar(np.random.default_rng(0)), median)
    assert told(tmp_path / "integers", [scenes.stored(metres, 256)])[0] == "kitti"
    assert told(tmp_path / "floats", [scenes.stored(metres, 1, np.float32)])[0] == "metre"


@pytest.mark.parametrize(
    ("unit", "median"), [("kitti", 5.0), ("kitti", 13.0), ("centimetre", 13.0), ("millimetre", 10.0)]
)
def test_dense_wide_streets_are_no_rooms(tmp_path: Path, unit: str, median: float):
    metres = like(scenes.street(np.random.default_rng(0)), median)
    found, message = told(tmp_path, [scenes.stored(metres, UNITS_PER_METRE[unit])])
    assert found == unit or (found == "stop" and f"depth_unit {unit}" in message), message


@pytest.mark.parametrize("reach", [1.2, 2.0, 3.0, 4.5])
def test_millimetres_of_rooms_need_no_flag(tmp_path: Path, reach: float):
    assert told(tmp_path, stored_scenes(scenes.room, "millimetre", np.uint16, reach))[0] == "millimetre"


@pytest.mark.parametrize("median", [0.8, 1.3, 2.18, 3.0, 3.6, 4.0])
@pytest.mark.parametrize(("share", "far"), [(0.02, 20.0), (1 / 6, 16.0), (0.0, 0.0), (0.1, 9.0)])
def test_a_far_tail_does_not_decide_against_millimetres(tmp_path: Path, median: float, share: float, far: float):
    rng = np.random.default_rng(0)
    metres = median * np.exp(0.25 * rng.standard_normal((60, 80)))
    metres[rng.random((60, 80)) < share] = far
    unit, message = told(tmp_path, [scenes.stored(metres, 1000)])
    assert unit == "millimetre", message


@pytest.mark.parametrize("end", [8.0, 16.0, 30.0])
def test_millimetres_of_corridors(tmp_path: Path, end: float):
    assert told(tmp_path, stored_scenes(scenes.corridor, "millimetre", np.uint16, end))[0] == "millimetre"


@pytest.mark.parametrize("reach", [1.5, 3.0, 5.0])
def test_a_kinect_betrays_its_unit_by_its_steps(tmp_path: Path, reach: float):
    for unit in ("millimetre", "tum"):
        maps = [scenes.kinect(rng, scenes.room(rng, reach, (240, 320))) for rng in map(np.random.default_rng, SEEDS)]
        stored = [scenes.stored(each, UNITS_PER_METRE[unit]) for each in maps]
        found, message = told(tmp_path / unit, stored)
        assert found in (unit, "stop") and unit in message
        if reach > 2:
            assert found == unit
            steps = measure(stored[0]).steps
            assert steps is not None and 0.00287 / steps == pytest.approx(UNITS_PER_METRE[unit], rel=0.1)


@pytest.mark.parametrize("median", [1.3, 1.5, 1.8, 2.0, 2.3])
def test_quarter_millimetres_are_offered(tmp_path: Path, median: float):
    rng = np.random.default_rng(1)
    stored = scenes.stored(median * np.exp(0.3 * rng.standard_normal((60, 80))), 4000)
    unit, message = told(tmp_path, [stored])
    assert unit == "stop" and "depth_unit quarter_millimetre" in message
    assert f"{np.median(stored) / 4000:.3g} m as quarter_millimetre" in message


def test_quarter_millimetres_of_a_known_picture_or_of_whole_millimetres(tmp_path: Path):
    rng = np.random.default_rng(2)
    whole = scenes.stored(scenes.room(rng, 2.5), 1000) * 4
    assert told(tmp_path / "whole", [whole])[0] == "quarter_millimetre"
    native = scenes.stored(scenes.room(rng, 2.5, (768, 1024)), 4000)
    assert told(tmp_path / "native", [native])[0] in ("quarter_millimetre", "stop")


@pytest.mark.parametrize("make", [scenes.street, scenes.lidar])
def test_kitti_is_known_by_its_wide_pictures(tmp_path: Path, make: Callable[..., np.ndarray]):
    unit, message = told(tmp_path, stored_scenes(make, "kitti"))
    assert unit in ("kitti", "stop") and "kitti" in message


def test_a_median_of_32_m_is_offered_as_kitti(tmp_path: Path):
    metres = np.random.default_rng(0).uniform(5, 59, (60, 80))
    unit, message = told(tmp_path, [scenes.stored(metres, 256)])
    assert unit == "stop" and "31" in message and "--data.options.depth_unit kitti" in message


@pytest.mark.parametrize("make", [scenes.room, scenes.corridor])
def test_rotated_bits_are_known_though_some_wrap(tmp_path: Path, make: Callable[..., np.ndarray]):
    metres = [make(np.random.default_rng(seed)) for seed in SEEDS]
    for each in metres:
        each[:4] = 9.0  # 3 % beyond 8.192 m: their upper bits come in at the bottom
    stored = [scenes.rotated(scenes.stored(each, 1000)) for each in metres]
    valid = np.concatenate([each[each > 0] for each in stored])
    assert 0.8 < (valid % 8 == 0).mean() < 1.0
    assert told(tmp_path, stored)[0] == "sunrgbd"
    found = detect_depth_spec([tmp_path / "0.png"]).spec
    expected = scenes.stored(metres[0], 1000).astype(np.float32) / np.float32(1000)
    np.testing.assert_array_equal(np.nan_to_num(found.decode(stored[0])), expected)


def test_millimetres_in_steps_of_8_are_no_rotated_bits(tmp_path: Path):
    stored = scenes.stored(scenes.room(np.random.default_rng(0)), 125) * 8
    assert told(tmp_path, [stored])[0] == "millimetre"


@pytest.mark.parametrize("reach", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("unit", ["metre", "centimetre", "millimetre"])
def test_floats_of_rooms(tmp_path: Path, unit: str, reach: float):
    found, message = told(tmp_path, stored_scenes(scenes.room, unit, np.float32, reach))
    assert found == unit or (found == "stop" and f"depth_unit {unit}" in message)
    assert found == unit or unit == "centimetre"


def test_floats_of_an_endoscope_are_no_metres(tmp_path: Path):
    millimetres = np.random.default_rng(0).uniform(40, 110, (60, 80)).astype(np.float32)
    unit, message = told(tmp_path / "a", [millimetres])
    assert unit == "stop" and "depth_unit millimetre" in message
    assert told(tmp_path / "b", [millimetres / 1000])[0] == "metre"
    assert told(tmp_path / "c", [millimetres.astype(np.uint16)])[0] == "millimetre"
    found = told(tmp_path / "d", stored_scenes(scenes.endoscope, "millimetre", np.float32))
    assert found[0] == "stop" and "depth_unit millimetre" in found[1]


@pytest.mark.parametrize(("sky", "share"), [(10_000.0, None), (655.35, None), (10_000.0, 0.7)])
def test_a_float_sky_is_bounded_and_said(tmp_path: Path, sky: float, share: float | None):
    metres = scenes.street(np.random.default_rng(0), sky=sky).astype(np.float32)
    if share is not None:
        metres[np.random.default_rng(1).random(metres.shape) < share] = sky
    file = save(tmp_path / "0.npy", metres)
    found = detect_depth_spec([file])
    assert found.spec.unit == "metre" and "--data.options.max_depth" in found.message
    decoded = found.spec.decode(metres)
    np.testing.assert_array_equal(np.isnan(decoded), metres == np.float32(sky))
    stated = detect_depth_spec([file], DepthOptions(unit="metre", max_depth=50.0))
    assert stated.spec.max_depth == 50.0
    assert detect_depth_spec([file], DepthOptions(unit="metre")).spec.max_depth == found.spec.max_depth


def test_ordinary_scenes_get_no_bound(tmp_path: Path):
    street = scenes.street(np.random.default_rng(3))
    for number, array in enumerate([*stored_scenes(scenes.room, "metre", np.float32), street]):
        found = detect_depth_spec([save(tmp_path / f"{number}.npy", array.astype(np.float32))])
        assert found.spec.max_depth is None and "max_depth" not in found.message


@pytest.mark.parametrize(
    ("scale", "offer"),
    [(0.00025, "4000"), (0.001, "depth_unit=millimetre"), (1 / 5000, "5000"), (1 / 256, "depth_scale=256")],
)
def test_a_scale_in_metres_per_unit_is_answered_with_its_reciprocal(tmp_path: Path, scale: float, offer: str):
    with pytest.raises(DepthUnitError, match=offer):
        detect_depth_spec([tmp_path / "never read.png"], DepthOptions(scale=scale))
    assert DepthOptions(scale=scale, kind="inverse").scale == scale


def test_raw_kinect_disparity_is_named_in_either_order_of_bytes(tmp_path: Path):
    rng = np.random.default_rng(0)
    raw = np.rint(1092.5 - 351.3 / scenes.room(rng, 3.0)).astype(np.float64)
    raw = np.where(np.isnan(raw), 2047, raw).astype(np.uint16)
    # A second source for the relation: the steps of 1/z that a Kinect makes.
    np.testing.assert_allclose(1 / 351.3, 0.00287, rtol=0.02)
    for name, array in {"right": raw, "exchanged": raw.byteswap()}.items():
        for options in (None, DepthOptions(unit="millimetre")):
            with pytest.raises(DepthUnitError, match=r"raw Kinect disparity.*351\.3") as caught:
                detect_depth_spec([save(tmp_path / f"{name}.pgm", array)], options)
            assert ("bytes swapped" in str(caught.value)) == (name == "exchanged")


def test_exchanged_bytes_of_distances_are_named(tmp_path: Path):
    stored = scenes.stored(scenes.room(np.random.default_rng(0)), 1000).byteswap()
    with pytest.raises(DepthUnitError, match="two bytes of each depth value are swapped"):
        detect_depth_spec([save(tmp_path / "0.pgm", stored)])


@pytest.mark.parametrize("unit", ["tum", "l515", "kitti", "mm", "sunrgbd"])
def test_stated_units_are_taken(tmp_path: Path, unit: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    file = save(tmp_path / "0.png", scenes.stored(scenes.room(np.random.default_rng(0)), 4000))
    assert detect_depth_spec([file], DepthOptions(unit=unit)).message.startswith("depth read as metric depth in")


@pytest.mark.parametrize(
    "options",
    [
        {"unit": 5},
        {"scale": "4000"},
        {"scale": True},
        {"scale": float("nan")},
        {"scale": 10**400},
        {"scale": -1.0},
        {"kind": ["metric"]},
        {"invalid_values": 5},
        {"invalid_values": "0"},
        {"invalid_values": [0, "x"]},
        {"min_depth": "near"},
        {"unit": {"a": 7}},
        {"scale": {"a": 0}},
    ],
)
def test_options_of_a_wrong_type_are_named(options: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        DepthOptions(**options)  # type: ignore[arg-type]
