"""A third modality from a folder: an option of the source and an entry of the recipe, no code."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import rgb_array, save, write_frames
from helpers.rooms_runs import words
from m33d_hf import M33DForPreTraining
from m33d_hf.data.augmentation.transforms import TransformOptions, build_transform
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.scripts._main import main

NORMALS = {"normals": "normals/*.png"}


def write_normals(root: Path, count: int, size: tuple[int, int] = (24, 32), file: str = "normals/{i}.png") -> Path:
    """RGB-D frames whose normals hold the very pixels of their pictures."""
    write_frames(root, count, size=size)
    for i in range(count):
        save(root / file.format(i=i), rgb_array(i, size))
    return root


def test_a_frame_carries_its_files_by_modality(tmp_path: Path) -> None:
    source = FolderSource(write_normals(tmp_path, 3), modalities=NORMALS)
    sample = source[1].read([0])
    values = sample.meta["modalities"]["normals"]
    assert sample.rgb is not None and values.shape == (1, 3, 24, 32) and values.dtype == torch.float32
    assert torch.equal((values * 255).round().to(torch.uint8), sample.rgb)
    assert "3 normals" in " ".join(source.notes)
    assert source.digest() != FolderSource(tmp_path).digest()
    assert source[1].read_maps([0], {"rgb", "depth"}).meta.get("modalities") is None


def test_side_by_side_and_wide_floats_with_holes(tmp_path: Path) -> None:
    write_frames(tmp_path, 2, rgb="{i}.color.png", depth="{i}.depth.png")
    for i in range(2):
        values = np.full((24, 32), 300.0, np.float32)
        values[:4] = np.nan
        save(tmp_path / f"{i}.heat.npy", values)
    source = FolderSource(tmp_path, modalities={"thermal": "*.heat.npy"})
    heat = source[0].read([0]).meta["modalities"]["thermal"]
    assert len(source) == 2 and heat.shape == (1, 1, 24, 32)
    assert heat[0, 0, :4].isnan().all() and (heat[0, 0, 4:] == 300).all()


@pytest.mark.parametrize("name", ["{i}.png", "{i}.tif", "{i}.npy"])
def test_masks_of_few_bits_fill_0_to_1(tmp_path: Path, name: str) -> None:
    """A mask is the same with one bit and with eight; Pillow and NumPy write it."""
    write_frames(tmp_path, 1)
    mask = np.zeros((24, 32), bool)
    mask[5:9, 3:20] = True
    for folder, values in (("one", mask), ("eight", mask.astype(np.uint8) * 255)):
        path = tmp_path / folder / name.format(i=0)
        path.parent.mkdir()
        np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)
    source = FolderSource(tmp_path, modalities={"one": "one", "eight": "eight"})
    read = source[0].read([0]).meta["modalities"]
    assert torch.equal(read["one"], torch.from_numpy(mask)[None, None].float())
    assert torch.equal(read["one"], read["eight"])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_bits_is_divided_by_its_maximum(tmp_path: Path, bits: int) -> None:
    write_frames(tmp_path, 1)
    largest = 2**bits - 1
    values = np.random.default_rng(0).integers(0, largest + 1, (24, 32))
    (tmp_path / "heat").mkdir()
    (tmp_path / "heat" / "0.png").write_bytes(grey_png(values, bits))
    read = FolderSource(tmp_path, modalities={"heat": "heat"})[0].read([0]).meta["modalities"]["heat"]
    np.testing.assert_allclose(read[0, 0].numpy(), values / largest, rtol=1e-6)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG by the words of its specification."""
    height, width = values.shape
    digits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(digits.reshape(height, width * bits).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_crops_and_flips_are_those_of_the_picture(tmp_path: Path) -> None:
    write_frames(tmp_path, 1, size=(32, 32))
    ramp = np.stack(np.meshgrid(8 * np.arange(32), 8 * np.arange(32)), axis=-1)[..., [0, 1, 1]].astype(np.uint8)
    for folder in ("color", "normals"):
        save(tmp_path / folder / "0.png", ramp)
    source = FolderSource(tmp_path, modalities=NORMALS, depth_unit="millimetre")
    options = TransformOptions(train_crop="random_resized", scale=(0.3, 0.6), flip=0.5, color_jitter=0.0)
    dataset = SampleDataset(source, build_transform(options, True, (16, 16), (8, 8)), train=True)
    seen = set()
    for epoch in range(8):
        sample = dataset[epoch, 0]
        assert isinstance(sample, RGBDSample) and sample.rgb is not None
        values = 255 * sample.meta["modalities"]["normals"]
        assert (values - sample.rgb.float()).abs().max() <= 12  # picture between pixels, map at the nearest
        seen.add(bool(values[0, 0, 0, 0] > values[0, 0, 0, -1]))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"depth": "d/*.png"}, "has its own option"),
        ({"my normals": "n/*.png"}, "not a valid name of a modality"),
        ({"normals": "auto"}, "give a folder or a pattern"),
    ],
)
def test_what_cannot_be_a_modality(modalities: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        FolderSource(write_normals(tmp_path, 2), modalities=modalities)


def test_files_that_are_not_there_and_frames_without_them(tmp_path: Path) -> None:
    write_normals(tmp_path, 3)
    with pytest.raises(DataError, match="matches no"):
        FolderSource(tmp_path, modalities={"normals": "normal/*.png"})
    (tmp_path / "normals/1.png").unlink()
    source = FolderSource(tmp_path, modalities=NORMALS)
    assert [item.key for item in map(source.__getitem__, range(len(source)))] == ["0", "2"]
    assert {entry.path for entry in source.unpaired} == {"color/1.png", "depth/1.png"}


def test_pretraining_on_three_modalities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_normals(tmp_path / "data", 8, (48, 48))
    options = [
        *("--method", "rgbd_mae", "--data.source", "folder", "--data.root", str(tmp_path / "data")),
        *("--data.options.modalities", "{normals: normals/*.png}", "--data.options.depth_unit", "millimetre"),
        *("--data.options.split_fractions", "{train: 0.5, validation: 0.5}"),
        *("--modalities.normals.channels", "3", "--modalities.normals.input_name", "normal_values"),
        *("--modalities.normals.mask_name", "normal_mask", "--modalities.normals.mask_ratio", "0.75"),
        *("--modalities.normals.channel_mean", "[0.5, 0.5, 0.5]"),
        *("--modalities.normals.channel_std", "[0.5, 0.5, 0.5]"),
    ]
    run = [*words("rooms/pretrain", tmp_path / "run", data__options=None), *options]
    assert main("pretraining", [*run, "--dry_run"]) == 0
    assert "normal_values" in capsys.readouterr().out
    assert main("pretraining", run) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert any("normals" in key for row in rows for key in row)
    model = M33DForPreTraining.from_pretrained(tmp_path / "run")
    assert [spec.name for spec in model.config.specs] == ["rgb", "depth", "normals"]
