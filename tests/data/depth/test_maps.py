"""data/depth/maps.py and depth_stores.py: depth made by other tools is found by number, or refused with the reason."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m33d_hf.data.depth.maps import find_depth_maps, read_sidecar_spec
from m33d_hf.data.depth.stores import ArrayStore
from m33d_hf.data.depth.writing import DepthVideoWriter, write_depth_image, written_spec
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec


def disparities(frames: int, height: int = 4, width: int = 6) -> np.ndarray:
    """Positive float32 (T, h, w), every value another one."""
    return (np.arange(1, frames * height * width + 1, dtype=np.float32) / 100).reshape(frames, height, width)


def state(root: Path, **spec: object) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "depth_spec.json").write_text(json.dumps(spec))


def test_monodepth2_frames_beside_pictures(tmp_path: Path) -> None:
    """(1, 1, h, w) arrays called *_disp.npy, numbered from 1, among the pictures and the coloured copies."""
    state(tmp_path, kind="inverse")
    values, folder = disparities(12), tmp_path / "Archery" / "v_Archery_g01_c01"
    folder.mkdir(parents=True)
    for i, frame in enumerate(values, start=1):
        np.save(folder / f"frame{i}_disp.npy", frame[None, None])
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / f"frame{i}.png")
        (folder / f"frame{i}_disp.jpeg").write_bytes(b"a picture of it")
    maps = find_depth_maps(tmp_path, "Archery/v_Archery_g01_c01")
    assert maps is not None and maps.length == 12 and maps.spec.kind == "inverse"
    read = pickle.loads(pickle.dumps(maps)).read([9, 0, 9])
    assert read.shape == (3, 1, 4, 6) and read.dtype == torch.float32
    assert torch.equal(read[:, 0], torch.from_numpy(values[[9, 0, 9]]))  # frame 9 is file 10, not file 9 or "frame 2"
    assert torch.equal(maps.of_video(12, "a.avi").read([9, 0, 9]), read)
    for frames in (11, 17):
        words = rf"a\.avi has {frames} frames, but its depth Archery/v_Archery_g01_c01 has 12"
        with pytest.raises(DataError, match=words):
            maps.of_video(frames, "a.avi")
    assert find_depth_maps(tmp_path, "Archery/v_Archery_g01_c02") is None


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_one_array_per_video(tmp_path: Path, suffix: str) -> None:
    state(tmp_path, kind="inverse")
    values = disparities(5)
    values[2, 0, 0], values[2, 0, 1] = 0, np.nan
    if suffix == ".npy":
        np.save(tmp_path / "v.npy", values[:, None])
    else:
        np.savez_compressed(tmp_path / "v.npz", disp=values)
    maps = find_depth_maps(tmp_path, "v")
    assert maps is not None and maps.length == 5
    read = maps.read([2, 4])
    assert torch.isnan(read[0, 0, 0, :2]).all() and torch.isfinite(read[1]).all()
    assert torch.equal(read[1, 0], torch.from_numpy(values[4]))
    with pytest.raises(DataError, match="no depth for frame 5; it holds 5"):
        maps.read([5])
    (tmp_path / f"v{suffix}").write_bytes((tmp_path / f"v{suffix}").read_bytes()[:100])
    with pytest.raises(CorruptFileError, match="cannot be read as an array"):
        maps.read([0])


def test_sparse_and_shifted_numbers(tmp_path: Path) -> None:
    state(tmp_path, kind="inverse")
    stored = (disparities(4) * 1000).astype(np.uint16)
    for name, numbers in {"sparse": (0, 1, 3, 4), "late": (5, 6, 7, 8), "one": (1, 2, 3, 4)}.items():
        (tmp_path / name).mkdir()
        for number, frame in zip(numbers, stored):
            Image.fromarray(frame).save(tmp_path / name / f"{number:06d}.png")
    sparse, late, one = (find_depth_maps(tmp_path, name) for name in ("sparse", "late", "one"))
    assert sparse is not None and late is not None and one is not None
    assert sparse.length == 5 and torch.equal(
        sparse.read([3]), torch.from_numpy(stored[2].astype(np.float32))[None, None]
    )
    with pytest.raises(DataError, match=r"no depth for frame 2 \(number 2; frame 0 has number 0\)"):
        sparse.read([2])
    with pytest.raises(DataError, match=r"lowest frame number is 5 \(000005\.png\).*first_frame"):
        assert late.length
    assert one.length == 4 and one.read([0])[0, 0, 0, 0] == stored[0, 0, 0]
    state(tmp_path, kind="inverse", first_frame=5)
    late = find_depth_maps(tmp_path, "late")
    assert late is not None and late.length == 4 and late.read([3])[0, 0, 0, 0] == stored[3, 0, 0]
    with pytest.raises(DataError, match="comes before first_frame = 5"):
        assert find_depth_maps(tmp_path, "one").length  # type: ignore[union-attr]


def test_bad_folders_are_named(tmp_path: Path) -> None:
    state(tmp_path, kind="inverse")
    for name in ("both", "twice", "unnumbered", "empty", "sizes"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "both" / "0.npy", disparities(1)[0])
    Image.fromarray(np.ones((4, 6), np.uint16)).save(tmp_path / "both" / "1.png")
    np.save(tmp_path / "twice" / "a_01.npy", disparities(1)[0])
    np.save(tmp_path / "twice" / "b_1.npy", disparities(1)[0])
    np.save(tmp_path / "unnumbered" / "depth.npy", disparities(1)[0])
    np.save(tmp_path / "sizes" / "0.npy", disparities(1)[0])
    np.save(tmp_path / "sizes" / "1.npy", disparities(1, 5)[0])
    for name, words in {
        "both": "as both .npy and .png",
        "twice": "a_01.npy and b_1.npy have the same frame number 1",
        "unnumbered": "no frame number",
        "empty": "no depth frames",
        "sizes": "differ in size",
    }.items():
        with pytest.raises(DataError, match=words):
            find_depth_maps(tmp_path, name).read([0, 1])  # type: ignore[union-attr]
    np.save(tmp_path / "both.npy", disparities(1))
    with pytest.raises(DataError, match="more than once"):
        find_depth_maps(tmp_path, "both")


def test_the_meaning_must_be_stated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist.*depth_spec\.json.*--data\.options\.depth_kind inverse"):
        read_sidecar_spec(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no depth_spec\.json"):
        find_depth_maps(tmp_path, "v")
    assert read_sidecar_spec(tmp_path, kind="inverse").invalid_values == (0,)
    assert read_sidecar_spec(tmp_path, scale=5000).unit == "tum"
    np.save(tmp_path / "v.npy", disparities(2))
    maps = find_depth_maps(tmp_path, "v", spec=read_sidecar_spec(tmp_path, kind="inverse"))
    assert maps is not None and maps.length == 2


def test_metric_depth_needs_its_unit(tmp_path: Path) -> None:
    """Millimetres are never assumed, neither for the options nor for the file."""
    with pytest.raises(ConfigError, match=r"depth_kind metric does not say.*depth_unit \(such as millimetre\)"):
        read_sidecar_spec(tmp_path, kind="metric")
    with pytest.raises(ConfigError, match=r"depth_kind metric does not say"):
        read_sidecar_spec(tmp_path, kind="metric", max_depth=8.0)
    assert read_sidecar_spec(tmp_path, kind="metric", unit="m").scale == 1.0
    for written in ({"kind": "metric"}, {"first_frame": 1}, {"unit": None, "scale": None}):
        state(tmp_path, **written)
        with pytest.raises(ConfigError, match=r'depth_spec\.json: metric depth needs .*"unit": "millimetre"'):
            read_sidecar_spec(tmp_path)
    for spec in (DepthSpec(), DepthSpec(kind="inverse"), DepthSpec(unit="tum"), DepthSpec(scale=123.0)):
        state(tmp_path, **spec.to_dict())  # as extraction, prediction and imports have always written it
        assert read_sidecar_spec(tmp_path) == spec
        assert read_sidecar_spec(tmp_path, kind=spec.kind) == spec


def test_options_state_what_the_file_leaves_open(tmp_path: Path) -> None:
    """Messages advise a file of one key, which must not make what the options say count for nothing."""
    for written in ({"first_frame": 1}, {"provenance": {"upright": True}}, {"min_depth": 0.1}, {"kind": "metric"}):
        state(tmp_path, **written)
        for unit, scale in (("mm", 1000.0), ("cm", 100.0), ("sunrgbd", 8000.0)):
            spec = read_sidecar_spec(tmp_path, unit=unit)
            assert (spec.kind, spec.scale, spec.invalid_values) == ("metric", scale, (0, 65535))
        spec = read_sidecar_spec(tmp_path, scale=1000)
        assert (spec.unit, spec.min_depth) == ("millimetre", written.get("min_depth"))
        with pytest.raises(ConfigError, match=r"^depth unit 'millimetre' means 1000 per metre, but scale is 5000"):
            read_sidecar_spec(tmp_path, unit="mm", scale=5000)
        with pytest.raises(ConfigError, match=r'depth_spec\.json: metric depth needs .*"unit": "millimetre"'):
            read_sidecar_spec(tmp_path, kind="metric", max_depth=8.0)
    state(tmp_path, first_frame=1)
    assert read_sidecar_spec(tmp_path, kind="inverse") == DepthSpec(kind="inverse", invalid_values=(0,))
    state(tmp_path, kind="inverse", first_frame=1)
    assert read_sidecar_spec(tmp_path, unit="mm") == DepthSpec(kind="inverse", invalid_values=(0,))
    for written in ({"kind": "metric"}, {"unit": "mm"}, {"scale": 1000}):
        state(tmp_path, **written)
        with pytest.raises(ConfigError, match=r"depth_spec\.json says kind = 'metric', but the options say 'inverse'"):
            read_sidecar_spec(tmp_path, kind="inverse", unit=None if "kind" not in written else "mm")


def test_file_and_options_must_agree(tmp_path: Path) -> None:
    state(tmp_path, kind="metric", unit="millimetre")
    assert read_sidecar_spec(tmp_path, kind="metric", scale=1000, max_depth=8.0).max_depth == 8.0
    with pytest.raises(ConfigError, match=r"says kind = 'metric', but the options say 'inverse'"):
        read_sidecar_spec(tmp_path, kind="inverse")
    with pytest.raises(ConfigError, match="unit = 'millimetre'"):
        read_sidecar_spec(tmp_path, unit="tum")
    state(tmp_path, kind="inverted")
    with pytest.raises(ConfigError, match=r"depth_spec\.json.*Did you mean 'inverse'"):
        read_sidecar_spec(tmp_path)
    state(tmp_path, kynd="inverse")
    with pytest.raises(ConfigError, match="Did you mean 'kind'"):
        read_sidecar_spec(tmp_path)
    (tmp_path / "depth_spec.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_sidecar_spec(tmp_path)


@pytest.mark.parametrize("format", ["png", "parquet"])
def test_our_own_files_are_found(tmp_path: Path, format: str) -> None:
    state(tmp_path, **written_spec("inverse").to_dict())
    values = disparities(70)  # more than two row groups
    writer = DepthVideoWriter(tmp_path, "class/video", "inverse", format)
    writer.append(values)
    writer.finish()
    maps = find_depth_maps(tmp_path, "class/video")
    assert maps is not None and maps.length == 70
    read = pickle.loads(pickle.dumps(maps)).read([69, 0, 40])
    torch.testing.assert_close(read[:, 0], torch.from_numpy(values[[69, 0, 40]]), rtol=0, atol=16.81 / 32767)


def test_images_and_damaged_files(tmp_path: Path) -> None:
    state(tmp_path, **written_spec("relative").to_dict())
    depth = disparities(1)[0] - 0.1
    write_depth_image(tmp_path, "a/photo.1", "relative", depth)
    maps = find_depth_maps(tmp_path, "a/photo.1")
    assert maps is not None and maps.length == 1
    torch.testing.assert_close(maps.read([0])[0, 0], torch.from_numpy(depth), rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="no depth for frame 1"):
        maps.read([1])
    writer = DepthVideoWriter(tmp_path, "v", "relative", "parquet")
    writer.append(disparities(3))
    writer.finish()
    file = tmp_path / "v.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match="cannot be read as Parquet"):
        find_depth_maps(tmp_path, "v").read([0])  # type: ignore[union-attr]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4"])
def test_arrays_of_any_layout_are_read_as_numpy_reads_them(tmp_path: Path, dtype: str, order: str):
    stored = np.random.default_rng(0).integers(1, 9000, (5, 4, 6)).astype(dtype)
    np.save(tmp_path / "v.npy", np.asarray(stored, order=order))
    store = ArrayStore(tmp_path / "v.npy")
    for frames in ([0, 1, 2], [3, 3, 0], [4]):
        assert np.array_equal(store.stored(frames), stored[frames])
    (tmp_path / "v.npy").write_bytes((tmp_path / "v.npy").read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match="cannot be read as an array"):
        store.stored([0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"scale": 0}', r"depth scale is 0; it must be at least 1e-06"),
        (b'{"scale": -1000}', r"depth scale is -1000"),
        (b'{"scale": NaN}', r"depth scale must be a number or null, not nan"),
        (b'{"scale": "1000"}', r"depth scale must be a number or null, not '1000'"),
        (b'{"scale": null, "unit": 7}', r"depth unit must be text or null, not 7"),
        (b'{"kind": ["metric"]}', r"depth kind is \['metric'\]"),
        (b'{"scale": 0.001}', r"metres per stored unit.*depth_scale=1000"),
        (b'{"invalid_values": 0}', r"depth invalid_values must be a list whose entries are each a number, not 0"),
        (b'{"max_depth": "far"}', r"depth max_depth must be a number or null, not 'far'"),
        (b'{"depht": 1}', r"DepthSpec key is 'depht'"),
        (b'{"scale": 1000, "scale": 5000}', r"'scale' occurs twice"),
        (b'{"kind": "metric", "first_frame": -1}', r"first_frame.* is -1; it must be at least 0"),
        (b'{"kind": "metric", "first_frame": true}', r"first_frame.* must be an integer, not True"),
        (b"[1, 2]", r"it holds list"),
        (b"\xff\xfe{}", r"not UTF-8"),
        (b"[" * 100_000, r"nested too deeply"),
        (b'{"scale": ' + b"9" * 5000 + b"}", r"cannot be read as JSON"),
        (b"", r"cannot be read as JSON"),
    ],
)
def test_a_wrong_spec_file_names_itself_and_the_key(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "depth_spec.json").write_bytes(text)
    with pytest.raises(ConfigError, match=rf"depth_spec\.json.*{words}"):
        read_sidecar_spec(tmp_path)


def test_a_spec_file_may_begin_with_the_mark_of_utf8(tmp_path: Path) -> None:
    (tmp_path / "depth_spec.json").write_bytes(b'\xef\xbb\xbf{"unit": "l515"}')
    assert read_sidecar_spec(tmp_path).scale == 4000


def test_a_spec_file_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "depth_spec.json")
    with pytest.raises(ConfigError, match=r"depth_spec\.json.*not a regular file"):
        read_sidecar_spec(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 0}, r"scale is 0; it must be at least 1e-37"),
        ({"scale": -2.0}, "scale is -2"),
        ({"scale": float("nan")}, "scale must be a number, not nan"),
        ({"scale": "3"}, "scale must be a number, not '3'"),
        ({"scale": None}, "scale must be a number, not None"),
        ({"offset": float("inf")}, "offset must be a number, not inf"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_frames": True}, "num_frames must be an integer, not True"),
        ({"num_frames": 2.5}, r"num_frames must be an integer, not 2\.5"),
        ({"ofset": 1.0}, r"key of the depth scale is 'ofset'"),
    ],
)
def test_a_wrong_scale_file_is_a_bad_file_not_invalid_depth(tmp_path: Path, change: dict, words: str) -> None:
    state(tmp_path, **written_spec("inverse").to_dict())
    writer = DepthVideoWriter(tmp_path, "v", "inverse", "png")
    writer.append(disparities(3))
    writer.finish()
    path = tmp_path / "v" / "scale.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    maps = find_depth_maps(tmp_path, "v")
    assert maps is not None
    for use in (lambda: maps.length, lambda: maps.read([0])):
        with pytest.raises(CorruptFileError, match=rf"scale\.json.*{words}"):
            use()
    path.write_text('{"scale": 2.0, "num_frames": 3}')
    with pytest.raises(CorruptFileError, match="has no offset"):
        maps.read([0])


def test_metric_depth_of_another_unit_than_stated_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.full((2, 4, 6), 2000, np.uint16))
    for unit, metres in {"metre": "2e.03|2,000|2,00", "custom": "0.002"}.items():
        state(tmp_path, kind="metric", unit=unit, **({"scale": 1e6} if unit == "custom" else {}))
        with pytest.raises(DataError, match=rf"v: .*({metres}).* m as {unit}.*depth_spec\.json"):
            find_depth_maps(tmp_path, "v").read([0])  # type: ignore[union-attr]
    state(tmp_path, kind="metric", unit="millimetre")
    assert find_depth_maps(tmp_path, "v").read([0])[0, 0, 0, 0] == 2.0  # type: ignore[union-attr]
