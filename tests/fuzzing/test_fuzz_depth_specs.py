"""Damaged depth_spec.json and scale.json, and options and fields of any type: accepted, or an error of ours."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.fuzzing import Outcomes, mutations, slices
from m33d_hf.data.depth.maps import find_depth_maps, read_sidecar_spec
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.stores import Quantization
from m33d_hf.data.depth.writing import DepthVideoWriter, written_spec
from m33d_hf.modeling.depth_spec_m33d import DepthSpec

STORED = np.array([[0, 1, 1000, 65535], [255, 8000, 2047, 40000]], np.uint16)
NUMBERS = (0, 1, -1, 1000, 5000.0, 0.00025, 1e-320, 1e39, 1e308, 10**400, 10**5000, 2**63, True)
WORDS = ("metric", "inverse", "relative", "mm", "sunrgbd", "custom", "none", "", "\ud800", "1000", "metre", "x" * 9999)
VALUES = (
    *NUMBERS,
    *WORDS,
    None,
    float("nan"),
    float("inf"),
    [],
    [0, 65535],
    ["0"],
    [[1]],
    {},
    {"a": 1},
    {"*": "mm"},
    b"mm",
    {1, 2},
    object(),
    np.float32(1000),
    np.int64(7),
    np.array([1.0, 2.0]),
    np.zeros((2, 2)),
    10**4 * [3],
    2 + 1j,
)


@pytest.mark.parametrize(("seed", "count"), slices(1500, 30_000))
def test_fields_of_any_type(seed: int, count: int) -> None:
    rng, outcomes = random.Random(seed), Outcomes()
    names = ("kind", "unit", "scale", "invalid_values", "min_depth", "max_depth")
    for number in range(count):
        fields = {name: rng.choice(VALUES) for name in names if rng.random() < 0.3}
        title = f"seed {seed}, number {number}: {list(fields)}"
        spec = outcomes.judge(title, lambda fields=fields: DepthSpec(**fields))
        if isinstance(spec, DepthSpec):
            assert spec.scale is not None and spec.scale > 0
            decoded = outcomes.judge(title, lambda spec=spec: spec.decode(STORED))
            assert decoded.dtype == np.float32 and decoded.shape == STORED.shape
            assert DepthSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).to_dict() == spec.to_dict()
            assert spec.describe()
        outcomes.judge(title, lambda fields=fields: DepthOptions(**fields).of_sequence("a"))
        record = {name: rng.choice(VALUES) for name in ("scale", "offset", "other") if rng.random() < 0.6}
        outcomes.judge(title, lambda record=record: Quantization.from_dict(record))
    assert min(outcomes["accepted"], outcomes["refused"]) > count / 20


def _mutated_json(rng: random.Random, content: dict[str, Any]) -> str:
    """The object with a key changed, lost or renamed."""
    content = dict(content)
    name = rng.choice(list(content))
    plain = [value for value in (*NUMBERS[:10], *WORDS[:9], None, [], [0], {}, {"a": 1}, float("nan"), float("-inf"))]
    kind = rng.randrange(3)
    if kind == 0:
        content[name] = rng.choice(plain)
    elif kind == 1:
        del content[name]
    else:
        content[name[:-1] or "x"] = content.pop(name)
    return json.dumps(content)


@pytest.mark.parametrize(("seed", "count"), slices(400, 8000))
def test_damaged_spec_files(tmp_path: Path, seed: int, count: int) -> None:
    rng, outcomes = random.Random(seed), Outcomes()
    np.save(tmp_path / "v.npy", np.stack([STORED] * 3))
    content = {**DepthSpec(unit="tum", max_depth=50.0).to_dict(), "first_frame": 0, "provenance": {"made_by": "x"}}
    path = tmp_path / "depth_spec.json"
    whole = json.dumps(content).encode()
    for name, data in mutations(whole, seed, count):
        path.write_bytes(_mutated_json(rng, content).encode() if rng.random() < 0.5 else data)
        spec = outcomes.judge(name, lambda: read_sidecar_spec(tmp_path))
        if isinstance(spec, DepthSpec):
            outcomes.judge(name, lambda: find_depth_maps(tmp_path, "v").read([0, 2]))  # type: ignore[union-attr]
        else:
            assert "depth_spec.json" in str(spec)
    assert min(outcomes["accepted"], outcomes["refused"]) > count / 20


@pytest.mark.parametrize(("seed", "count"), slices(400, 8000))
def test_damaged_scale_files(tmp_path: Path, seed: int, count: int) -> None:
    rng, outcomes = random.Random(seed), Outcomes()
    (tmp_path / "depth_spec.json").write_text(json.dumps(written_spec("inverse").to_dict()))
    writer = DepthVideoWriter(tmp_path, "v", "inverse", "png")
    writer.append(np.random.default_rng(0).uniform(0.1, 1.0, (2, 4, 6)).astype(np.float32))
    writer.finish()
    path = tmp_path / "v" / "scale.json"
    whole = path.read_bytes()
    for name, data in mutations(whole, seed, count):
        path.write_bytes(_mutated_json(rng, json.loads(whole)).encode() if rng.random() < 0.5 else data)
        maps = find_depth_maps(tmp_path, "v")
        assert maps is not None
        outcomes.judge(name, lambda maps=maps: maps.length)
        read = outcomes.judge(name, lambda maps=maps: maps.read([0, 1]))
        if isinstance(read, Exception):
            assert "scale.json" in str(read)
        else:
            assert not read.isnan().all()  # not every pixel became invalid in silence
    assert min(outcomes["accepted"], outcomes["refused"]) > count / 20


@pytest.mark.parametrize(("seed", "count"), slices(200, 4000))
def test_scales_inside_pictures(tmp_path: Path, seed: int, count: int) -> None:
    from PIL.PngImagePlugin import PngInfo

    outcomes = Outcomes()
    (tmp_path / "depth_spec.json").write_text(json.dumps(written_spec("relative").to_dict()))
    for name, data in mutations(json.dumps({"scale": 16384.0, "offset": -1.5}).encode(), seed, count):
        text = PngInfo()
        text.add_text("m33d_depth", data.decode("latin-1"))
        Image.fromarray(STORED).save(tmp_path / "v.png", pnginfo=text)
        maps = find_depth_maps(tmp_path, "v")
        assert maps is not None
        outcomes.judge(name, lambda maps=maps: maps.read([0]))
    assert outcomes["accepted"] and outcomes["refused"]
