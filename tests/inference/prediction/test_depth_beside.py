"""inference/prediction/depth_beside.py: maps of a recording, which lie beside its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.depth_models import shake
from helpers.prediction import ALONE, NAMES, options, save_pictures
from helpers.tiny import tiny_config
from m33d_hf.data.depth.calibration import Calibration, Camera, write_calibration
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError
from m33d_hf.inference.prediction.depth_beside import FramePairs, MapCalibrations
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.measured_depth import DepthFolder
from m33d_hf.inference.prediction.running import predict
from m33d_hf.modeling.depth_spec_m33d import DepthSpec
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    made = tiny_config(
        id2label=NAMES, label2id={name: number for number, name in NAMES.items()}, task_inputs=["rgb", "depth"]
    )
    network = M33DForSemanticSegmentation(made)
    shake(network, 0)
    network.save_pretrained(folder)
    M33DImageProcessor.from_model_config(made, depth_unit="millimetre").save_pretrained(folder)
    return folder


def _recording(folder: Path) -> dict[str, np.ndarray]:
    """color/p0.png + depth/p0.png ..., and the maps by name; the last picture has none."""
    rng = np.random.default_rng(0)
    maps = {}
    (folder / "depth").mkdir(parents=True)
    for path in save_pictures(folder / "color", 3)[:2]:
        maps[path.stem] = rng.integers(0, 4000, (48, 60)).astype(np.uint16)
        Image.fromarray(maps[path.stem]).save(folder / "depth" / path.name)
    return maps


@pytest.mark.parametrize(
    ("given", "depth"),
    [("rec", "rec"), ("rec/color", "rec"), ("rec", "rec/depth"), ("rec/color", "rec/depth"), (".", "."), (".", "rec")],
)
def test_every_way_to_name_a_recording_finds_its_maps(given: str, depth: str, model: Path, tmp_path: Path) -> None:
    maps = _recording(tmp_path / "data/rec")
    for name, values in maps.items():
        (tmp_path / "named").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "named" / f"{name}.png")
    data = tmp_path / "data"
    found = predict(options(model, data / given, tmp_path / "out", depth=data / depth), ALONE, say=str)
    assert "With measured depth: 2 pictures; 1 without depth there, from RGB alone." in found.lines
    plain = options(model, data / "rec/color", tmp_path / "plain", depth=tmp_path / "named")
    predict(plain, ALONE, say=str)
    for number in range(3):
        (mine,) = (tmp_path / "out/labels").rglob(f"p{number}.png")
        expected = np.array(Image.open(tmp_path / f"plain/labels/p{number}.png"))
        assert np.array_equal(np.array(Image.open(mine)), expected)


def test_pictures_of_another_tree_and_maps_outside_the_folder_are_no_pairs(tmp_path: Path) -> None:
    _recording(tmp_path / "a")
    _recording(tmp_path / "b")
    pairs = FramePairs(tmp_path / "a/depth", [str(tmp_path / "a"), str(tmp_path / "b")])
    assert pairs.map_of(tmp_path / "a/color/p1.png") == tmp_path / "a/depth/p1.png"
    assert pairs.map_of(tmp_path / "a/color/p2.png") is None
    assert pairs.map_of(tmp_path / "b/color/p1.png") is None, "the maps of b were not given"
    assert FramePairs(tmp_path / "a/color", [str(tmp_path)]).map_of(tmp_path / "a/color/p1.png") is None


def test_every_recording_has_its_own_depth_spec(model: Path, tmp_path: Path) -> None:
    """Quarters of millimetres below a folder that says nothing, for a model of millimetres."""
    maps = _recording(tmp_path / "mm/rec")
    for name, values in _recording(tmp_path / "quarter/rec").items():
        Image.fromarray(values * np.uint16(4)).save(tmp_path / "quarter/rec/depth" / f"{name}.png")
    (tmp_path / "quarter/rec/depth_spec.json").write_text('{"kind": "metric", "scale": 4000}')
    labels = []
    for unit in ("mm", "quarter"):
        predict(options(model, tmp_path / unit, tmp_path / f"out_{unit}", depth=tmp_path / unit), ALONE, say=str)
        found = [np.array(Image.open(file)) for file in sorted((tmp_path / f"out_{unit}/labels").rglob("*.png"))]
        labels.append(np.stack(found))
    assert len(maps) == 2 and np.array_equal(*labels) and len(np.unique(labels[0])) > 1
    (tmp_path / "quarter/rec/depth_spec.json").write_text('{"kind": "inverse"}')
    wrong = predict(
        options(model, tmp_path / "quarter", tmp_path / "wrong", depth=tmp_path / "quarter"), ALONE, say=str
    )
    assert wrong.predicted == 1 and "but the model was trained on metric depth" in wrong.skipped[0].reason


@pytest.mark.parametrize("text", ['{"kind": "metric"}', '{"kind": "metric", "unit": null}', '{"first_frame": 1}'])
def test_the_processor_says_the_unit_that_a_depth_spec_leaves_open(text: str, tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    stored = np.array([[500, 7], [1000, 9000]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "depth/a.png")
    (tmp_path / "depth/depth_spec.json").write_text(text)
    save_pictures(tmp_path / "rgb", 1)

    def read(known: DepthSpec, unit: str | None = None) -> np.ndarray:
        folder = DepthFolder(tmp_path / "depth", unit, SimpleNamespace(depth_spec=known), True, tmp_path)
        given = folder.of_picture(Item("a", tmp_path / "rgb/p0.png", False), (2, 2))
        assert given is not None
        return np.asarray(given["depth"])

    quarters = DepthSpec(unit="quarter_millimetre", invalid_values=(7.0,), max_depth=2.0)
    assert np.array_equal(read(quarters), [[0.125, np.nan], [0.25, np.nan]], equal_nan=True)
    assert np.array_equal(read(quarters, "millimetre"), np.float32([[0.5, 0.007], [1, 9]]), equal_nan=True)
    if "metric" in text:
        with pytest.raises(ConfigError, match="trained on inverse depth"):
            read(DepthSpec("inverse", scale=256.0), "millimetre")
    else:
        assert np.array_equal(read(DepthSpec("inverse", scale=256.0)), stored / np.float32(256))
    (tmp_path / "depth/depth_spec.json").write_text('{"kind": "inverse"}')
    assert np.array_equal(read(DepthSpec("inverse", scale=256.0)), stored / np.float32(256))


def test_a_map_that_may_lie_otherwise_than_its_picture_is_not_guessed(model: Path, tmp_path: Path) -> None:
    """EXIF 3 is upside down: both readings of a map without an orientation have the same size."""
    _recording(tmp_path / "rec")
    upright = Image.open(tmp_path / "rec/color/p0.png").copy()
    exif = Image.Exif()
    exif[0x0112] = 3
    for place in (tmp_path / "turned/color", tmp_path / "turned/depth"):
        place.mkdir(parents=True)
    upright.rotate(180).save(tmp_path / "turned/color/p0.png", exif=exif)
    stored = Image.open(tmp_path / "rec/depth/p0.png")
    Image.fromarray(np.array(stored)[::-1, ::-1].copy()).save(tmp_path / "turned/depth/p0.png")
    where = tmp_path / "turned"
    refused = predict(options(model, where, tmp_path / "refused", depth=where), ALONE, say=str)
    assert "pass --depth_orientation as_rgb" in refused.skipped[0].reason
    predict(
        options(model, tmp_path / "rec/color/p0.png", tmp_path / "plain", depth=tmp_path / "rec/depth"), ALONE, say=str
    )
    expected = np.array(Image.open(tmp_path / "plain/labels/p0.png"))
    for rule, same in (("as_rgb", True), ("upright", False)):
        given = options(model, where, tmp_path / rule, depth=where, depth_orientation=rule)
        assert predict(given, ALONE, say=str).predicted == 1
        (found,) = (tmp_path / rule / "labels").rglob("p0.png")
        assert np.array_equal(np.array(Image.open(found)), expected) == same
    upright = np.array(Image.open(found))
    content = {"kind": "metric", "unit": "millimetre", "provenance": {"upright": True}}
    (where / "depth_spec.json").write_text(json.dumps(content))
    for rule in ("refuse", "as_rgb"):  # what is stated of the maps themselves is no matter of options
        given = options(model, where, tmp_path / f"stated_{rule}", depth=where, depth_orientation=rule)
        assert predict(given, ALONE, say=str).predicted == 1
        (found,) = (tmp_path / f"stated_{rule}" / "labels").rglob("p0.png")
        assert np.array_equal(np.array(Image.open(found)), upright)
    (where / "depth_spec.json").write_text(json.dumps({**content, "provenance": {"model": "x"}}))
    again = predict(options(model, where, tmp_path / "unstated", depth=where), ALONE, say=str)
    assert "pass --depth_orientation as_rgb" in again.skipped[0].reason


def test_a_list_of_pairs_that_cannot_be_read_is_told(model: Path, tmp_path: Path) -> None:
    _recording(tmp_path / "rec")
    (tmp_path / "rec/associations.txt").write_text("nothing.png nowhere.png\n")
    found = predict(options(model, tmp_path / "rec", tmp_path / "out", depth=tmp_path / "rec"), ALONE, say=str)
    (line,) = [line for line in found.lines if line.startswith("With measured depth: 0 pictures; 3 without")]
    assert "Maps were looked for beside the pictures as well: " in line and "nothing.png nowhere.png" in line


MOVED = ((1.0, 0.0, 0.0, 0.05), (0.0, 1.0, 0.0, -0.01), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
TWO_CAMERAS = Calibration(Camera(60, 48, 50.0, 50.0, 30.2, 23.6), Camera(32, 24, 26.0, 26.0, 15.0, 12.1), MOVED)


def _of_two_cameras(folder: Path) -> Path:
    _recording(folder)
    rng = np.random.default_rng(3)
    for path in (folder / "depth").iterdir():
        Image.fromarray(rng.integers(800, 3000, (24, 32)).astype(np.uint16)).save(path)
    write_calibration(folder / "calibration.json", TWO_CAMERAS)
    return folder


def _labels(folder: Path) -> dict[str, np.ndarray]:
    return {file.stem: np.array(Image.open(file)) for file in (folder / "labels").rglob("*.png")}


@pytest.mark.parametrize("calibration", ["calibration.json", "own path"])
@pytest.mark.parametrize("depth", ["data", "data/rec", "data/rec/depth"])
def test_depth_of_another_camera_is_registered_as_in_training(
    depth: str, calibration: str, model: Path, tmp_path: Path
) -> None:
    recording = _of_two_cameras(tmp_path / "data/rec")
    training = FolderSource(tmp_path / "data", calibration="calibration.json", depth_unit="mm", require_depth=True)
    (tmp_path / "registered").mkdir()
    for each in training:
        np.save(tmp_path / "registered" / f"{each.key.rpartition('/')[2]}.npy", each.read([0]).depth[0, 0].numpy())
    if calibration == "own path":
        (recording / "calibration.json").rename(tmp_path / "cameras.json")
        calibration = str(tmp_path / "cameras.json")
    stated = {"depth": tmp_path / depth, "calibration": Path(calibration)}
    folder = DepthFolder(
        tmp_path / depth, "millimetre", SimpleNamespace(depth_spec=None), True, tmp_path, inputs=[str(recording)],
        calibration=Path(calibration),
    )  # fmt: skip
    given = folder.of_picture(Item("p1", recording / "color/p1.png", False), (48, 60))
    assert given is not None and list(given) == ["depth"]
    assert np.array_equal(given["depth"], np.load(tmp_path / "registered/p1.npy"), equal_nan=True)
    found = predict(options(model, recording / "color", tmp_path / "out", **stated), ALONE, say=str)
    assert (found.predicted, found.skipped) == (3, [])
    predict(options(model, recording / "color", tmp_path / "expected", depth=tmp_path / "registered"), ALONE, say=str)
    mine, expected = _labels(tmp_path / "out"), _labels(tmp_path / "expected")
    assert sorted(mine) == ["p0", "p1", "p2"] and all(np.array_equal(mine[name], expected[name]) for name in mine)


def test_a_calibration_that_nothing_is_said_of_is_not_passed_over(model: Path, tmp_path: Path) -> None:
    """Of the folder given, before anything is read; of recordings below it, by frames that are skipped."""
    recording = _of_two_cameras(tmp_path / "data/rec")
    refused = options(model, recording, tmp_path / "a", depth=recording, depth_align="depth_to_rgb")
    with pytest.raises(ConfigError, match=r"rec/calibration\.json says .*--calibration calibration\.json.*none"):
        predict(refused, ALONE, say=str)
    below = predict(options(model, tmp_path / "data", tmp_path / "b", depth=tmp_path / "data"), ALONE, say=str)
    assert below.predicted == 1 and "is of another camera than its pictures" in below.skipped[0].reason
    none = {"depth": recording, "calibration": Path("none"), "depth_align": "depth_to_rgb"}
    as_stored = predict(options(model, recording, tmp_path / "c", **none), ALONE, say=str)
    assert as_stored.predicted == 1 and "another aspect ratio" in as_stored.skipped[0].reason
    one_view = Calibration(TWO_CAMERAS.color, TWO_CAMERAS.color.resized(24, 30))
    write_calibration(recording / "calibration.json", one_view)
    for path in (recording / "depth").iterdir():
        Image.fromarray(np.full((24, 30), 1500, np.uint16)).save(path)
    resized = options(model, recording, tmp_path / "d", depth=recording, depth_align="depth_to_rgb")
    assert predict(resized, ALONE, say=str).predicted == 3


MADE = {
    "extract_depth": {"made_by": "m33d-hf extract_depth", "upright": True},
    "predict": {"model": "m", "upright": True},
    "hand": {"same_view": True},
}


@pytest.mark.parametrize("by", [*MADE, "tool"])
def test_a_calibration_of_other_maps_is_no_matter(by: str, model: Path, tmp_path: Path) -> None:
    """Maps made from the pictures show what these show; those of another folder may be anything."""
    recording = _of_two_cameras(tmp_path / "rec")
    place = recording / ("extracted" if by == "tool" else "depth/extracted")
    place.mkdir()
    for name in ("p0", "p1", "p2"):
        Image.fromarray(np.full((48, 60), 1500, np.uint16)).save(place / f"{name}.png")
    if by != "tool":
        content = {"kind": "metric", "unit": "millimetre", "provenance": MADE[by]}
        (place / "depth_spec.json").write_text(json.dumps(content))
        write_calibration(place / "calibration.json", TWO_CAMERAS)
    found = predict(options(model, recording / "color", tmp_path / "out", depth=place), ALONE, say=str)
    assert found.predicted == 3 and "With measured depth: 3 pictures." in found.lines
    if by != "tool":  # how maps lie says nothing of what took them
        (place / "depth_spec.json").write_text(json.dumps({**content, "provenance": {"upright": True}}))
        with pytest.raises(ConfigError, match="is of another camera"):
            predict(options(model, recording / "color", tmp_path / "again", depth=place), ALONE, say=str)


@pytest.mark.parametrize("name", ["depth", "depth_raw", "depth_registered", "kinect"])
def test_a_calibration_above_is_that_of_a_recordings_own_depth(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    write_calibration(tmp_path / "calibration.json", TWO_CAMERAS)
    calibrations = MapCalibrations(tmp_path / name, None)
    if name in ("depth", "depth_raw"):
        with pytest.raises(ConfigError, match="is of another camera"):
            calibrations.of(tmp_path / name)
    else:
        assert calibrations.of(tmp_path / name) is None and not calibrations.problems


@pytest.mark.parametrize("where", ["depth", "."])
def test_a_foreign_file_of_that_name_is_passed_over_and_told(where: str, model: Path, tmp_path: Path) -> None:
    recording = tmp_path / "rec"
    _recording(recording)
    (recording / where / "calibration.json").write_text('{"fx": 500.0}')
    depth = recording / "depth"
    found = predict(options(model, recording / "color", tmp_path / "out", depth=depth), ALONE, say=str)
    (line,) = [line for line in found.lines if line.startswith("With measured depth: 2 pictures")]
    assert found.predicted == 3 and "calibration.json: " in line and "passed over" in line and "none" in line
    if where == "depth":  # which hides none of ours
        write_calibration(recording / "calibration.json", TWO_CAMERAS)
        with pytest.raises(ConfigError, match=r"rec/calibration\.json says .* of another camera"):
            predict(options(model, recording / "color", tmp_path / "again", depth=depth), ALONE, say=str)
    stated = {"depth": depth, "calibration": recording / where / "calibration.json"}
    if where == ".":
        wrong = predict(options(model, recording / "color", tmp_path / "stated", **stated), ALONE, say=str)
        assert wrong.predicted == 1 and "is 'fx'" in wrong.skipped[0].reason


def test_none_is_as_if_there_were_no_calibration(model: Path, tmp_path: Path) -> None:
    """An output of an earlier version, which knew none, is continued; one that was made otherwise is not."""
    recording = _of_two_cameras(tmp_path / "rec")
    for path in (recording / "depth").iterdir():
        Image.fromarray(np.full((24, 30), 1500, np.uint16)).save(path)
    as_stored = {"depth": recording, "calibration": Path("none"), "depth_align": "depth_to_rgb"}
    plan = tmp_path / "out/prediction.json"
    cameras = recording / "calibration.json"
    cameras.rename(tmp_path / "cameras.json")
    first = options(model, recording, tmp_path / "out", depth=recording, depth_align="depth_to_rgb")
    assert predict(first, ALONE, say=str).predicted == 3
    content = read_sealed_json(plan)
    content["rules"] = {name: rule for name, rule in content["rules"].items() if rule is not None}
    write_sealed_json(plan, content)
    (tmp_path / "cameras.json").rename(cameras)
    again = predict(options(model, recording, tmp_path / "out", **as_stored), ALONE, say=str)
    assert (again.already_there, again.skipped) == (3, [])
    turned = options(model, recording, tmp_path / "turned", **as_stored, depth_orientation="upright")
    assert predict(turned, ALONE, say=str).predicted == 3
    for now in ("as_rgb", "refuse"):
        wrong = options(model, recording, tmp_path / "turned", **as_stored, depth_orientation=now)
        with pytest.raises(ConfigError, match="depth_orientation: upright there"):
            predict(wrong, ALONE, say=str)
    stated = {"depth": recording, "calibration": cameras}
    predict(options(model, recording, tmp_path / "registered", **stated), ALONE, say=str)
    with pytest.raises(ConfigError, match=r"depth_calibration: .*calibration\.json there, none now"):
        without = {"depth": recording, "calibration": Path("none")}
        predict(options(model, recording, tmp_path / "registered", **without), ALONE, say=str)
    alone = predict(options(model, recording, tmp_path / "rgb", calibration=Path("none")), ALONE, say=str)
    assert alone.predicted == 3


def test_calibrations_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    recording = _of_two_cameras(tmp_path / "rec")
    with pytest.raises(ConfigError, match="registers the maps of --depth"):
        predict(options(model, recording, tmp_path / "a", calibration=Path("calibration.json")), ALONE, say=str)
    stated = {"depth": recording, "calibration": Path("calibration.json")}
    with pytest.raises(ConfigError, match=r"--depth_orientation upright turns maps.* --calibration none"):
        predict(options(model, recording, tmp_path / "b", **stated, depth_orientation="upright"), ALONE, say=str)
    nowhere = {"depth": recording, "calibration": Path("other.json")}
    found = predict(options(model, recording, tmp_path / "c", **nowhere), ALONE, say=str)
    assert found.predicted == 1 and "--calibration other.json is neither in" in found.skipped[0].reason
    Image.fromarray(np.full((24, 30), 1500, np.uint16)).save(recording / "depth/p0.png")
    (recording / "depth_spec.json").write_text('{"kind": "metric", "unit": "millimetre"}')
    found = predict(options(model, recording, tmp_path / "d", **stated), ALONE, say=str)
    assert found.predicted == 2 and "but the calibration is of 32 x 24" in found.skipped[0].reason
