"""Files of torch: what trainers save, what is no such file, and what a refusal names."""

from __future__ import annotations

import argparse
import bz2
import gzip
import lzma
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.foreign import original_mae, original_videomae, tiny_videomae, tiny_vitmae
from m33d_hf.errors import CheckpointError, ConversionError
from m33d_hf.weights import from_state_dict, load_foreign
from m33d_hf.weights.archive import check_archive
from m33d_hf.weights.pickles import read_torch_file


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return original_mae(tiny_vitmae())


def _optimizer(rate: Any) -> dict[str, Any]:
    return {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": rate, "params": [0]}]}


@pytest.mark.parametrize("legacy", [False, True])
def test_the_file_of_a_trainer_with_numpy_scalars(weights: dict[str, Tensor], legacy: bool, tmp_path: Path) -> None:
    """VideoMAE and MultiMAE take learning rates from arrays, so that the optimizer holds NumPy's numbers."""
    schedule = np.linspace(1e-3, 1e-6, 5)
    content = {
        "model": weights,
        "optimizer": _optimizer(schedule[2]),
        "epoch": 4,
        "scaler": {"scale": np.float32(1024)},
        "args": argparse.Namespace(lr=schedule[0], input_size=32, seeds=[np.int64(3), np.bool_(True)]),
    }
    torch.save(content, tmp_path / "checkpoint-4.pth", _use_new_zipfile_serialization=not legacy)
    read, notes = read_torch_file(tmp_path / "checkpoint-4.pth")
    assert read["optimizer"]["param_groups"][0]["lr"] == schedule[2]
    assert read["scaler"]["scale"] == 1024.0 and read["args"].seeds == [3, True]
    assert any("no checksum" in note for note in notes) == legacy
    checkpoint = load_foreign(tmp_path / "checkpoint-4.pth")
    assert checkpoint.arguments["input_size"] == 32
    assert set(checkpoint.ignored) == {"optimizer", "epoch", "scaler", "args"}


def test_scalars_as_older_numpy_names_them(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """The module of NumPy's constructor was called otherwise before version 2."""
    torch.save({"model": weights, "lr": np.float64(0.125)}, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "new.pth").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pth").write_bytes(old)
    assert read_torch_file(tmp_path / "old.pth")[0]["lr"] == 0.125


@pytest.mark.parametrize("number", [np.float16(1.5), np.float32(-2), np.float64(math.pi), np.int8(-3), np.uint64(7)])
def test_numbers_keep_their_value(number: Any, tmp_path: Path) -> None:
    torch.save({"n": number, "big": number.astype(number.dtype.newbyteorder(">"))}, tmp_path / "n.pth")
    assert read_torch_file(tmp_path / "n.pth")[0] == {"n": number.item(), "big": number.item()}


class _Stranger:
    pass


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (_Stranger(), r"test_pickles\._Stranger"),
        (np.array([1.0, 2.0]), r"numpy\._core\.multiarray\._reconstruct"),
        (np.datetime64("2020-01-01"), "numpy scalar"),
        (print, "print"),
    ],
)
def test_a_refusal_names_the_object(value: Any, name: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": weights, "more": value}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=rf"would build [\w.]*{name}.*neither a tensor nor a number"):
        load_foreign(tmp_path / "odd.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html><body>Not found", "an HTML page"),
        (b"<html lang='en'>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (gzip.compress(b"weights", mtime=0), "gzip"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "an HTML page"),
        ("<!DOCTYPE html><html>".encode("utf-16"), "an HTML page"),
        (bz2.compress(b"weights"), "a compressed archive"),
        (lzma.compress(b"weights"), "a compressed archive"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture or a document"),
        (bytes(4096), "a file of zeros"),
    ],
)
def test_what_is_no_weight_file_says_what_it_is(content: bytes, words: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"model{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_foreign(tmp_path / f"model{suffix}")


def test_safetensors_under_another_name(weights: dict[str, Tensor], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        load_foreign(tmp_path / "model.pth")


def test_a_flipped_weight_is_noticed(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """torch.load itself returns other weights without a word."""
    torch.save(weights, tmp_path / "whole.pth")
    data = bytearray((tmp_path / "whole.pth").read_bytes())
    place = bytes(data).index(weights["norm.bias"].numpy().tobytes())
    data[place + 2] ^= 4
    (tmp_path / "flipped.pth").write_bytes(bytes(data))
    changed = torch.load(tmp_path / "flipped.pth", weights_only=True)
    assert not torch.equal(changed["norm.bias"], weights["norm.bias"])
    with pytest.raises(CheckpointError, match=r"damaged.*checksum of entry 'flipped/data/|damaged.*checksum of entry"):
        load_foreign(tmp_path / "flipped.pth")


def test_archives_that_were_packed_anew_are_read(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """Another zip program writes other headers around the same entries; their checksums are compared all the same."""
    import zipfile

    torch.save(weights, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "again.pth", "w") as again:
        for entry in whole.infolist():
            again.writestr(entry.filename, whole.read(entry))
    check_archive(tmp_path / "again.pth")
    assert torch.equal(load_foreign(tmp_path / "again.pth").tensors["norm.bias"], weights["norm.bias"])


def test_files_that_were_saved_without_checksums_are_read_with_a_note(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "bare.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    checkpoint = load_foreign(tmp_path / "bare.pth")
    assert torch.equal(checkpoint.tensors["norm.bias"], weights["norm.bias"])
    assert any("no checksum" in note for note in checkpoint.notes)


def test_plain_pickles_are_no_files_of_torch(weights: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": 3}))
    with pytest.raises(CheckpointError, match="cannot be read as a torch file"):
        load_foreign(tmp_path / "plain.pth")


def _quantised(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.to_sparse(), "stored as sparse_coo"),
        (_quantised, "quantised"),
        (lambda value: value.to("meta"), "on the meta device"),
        (lambda value: value[:0], "empty"),
        (lambda value: value.to(torch.float8_e4m3fn), "float8_e4m3fn, 8-bit numbers"),
    ],
)
def test_tensors_whose_numbers_are_not_simply_there(
    change: Callable[[Tensor], Tensor], words: str, weights: dict[str, Tensor]
) -> None:
    with pytest.raises(ConversionError, match=rf"'norm\.bias' is {words}"):
        from_state_dict({**weights, "norm.bias": change(weights["norm.bias"])})


@pytest.mark.parametrize("key", [7, None, ("a", 1), b"norm"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_keys_that_are_no_text(key: Any, wrapped: bool, weights: dict[str, Tensor]) -> None:
    content: dict[Any, Any] = {**weights, key: torch.zeros(2)}
    with pytest.raises(ConversionError, match="keys are not text"):
        from_state_dict({"model": content} if wrapped else content)


def test_gaps_between_layers() -> None:
    weights = original_videomae(tiny_videomae())
    weights = {key.replace("encoder.blocks.2.", "encoder.blocks.7."): value for key, value in weights.items()}
    from m33d_hf.weights import config_for

    with pytest.raises(ConversionError, match="3 numbered layers, but layer 2 is missing"):
        config_for(from_state_dict(weights, stated={"num_attention_heads": 4}))


def test_empty_tensors_are_no_damage(tmp_path: Path) -> None:
    """torch writes an entry without content otherwise than the rest."""
    weights = original_mae(tiny_vitmae())
    state = {"empty": torch.zeros(0), "more": torch.zeros(2, 0), "last": torch.ones(2)}
    content = {"model": weights, "optimizer": state}
    torch.save(content, tmp_path / "whole.pth")
    assert set(load_foreign(tmp_path / "whole.pth").tensors) == set(weights)
    whole = (tmp_path / "whole.pth").read_bytes()
    place = whole.index(b"data/", whole.index(b"PK\x05\x06") - 4000)  # a name in the directory at the end
    (tmp_path / "damaged.pth").write_bytes(whole[:place] + b"dada/" + whole[place + 5 :])
    with pytest.raises(CheckpointError, match="damaged"):
        load_foreign(tmp_path / "damaged.pth")


@pytest.mark.parametrize(
    "text",
    [
        b'{"error": "not found"}',
        b"Entry not found\n",
        b"Invalid username or password.",
        "Nicht gefunden: Größe\t0\n".encode(),
        b"x" + ("é" * 300).encode(),
    ],
)
def test_an_answer_in_words_is_no_weight_file(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "words.pth").write_bytes(text)
    with pytest.raises(CheckpointError, match="this is text, not weights; it begins with"):
        load_foreign(tmp_path / "words.pth")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nobody_is_told_to_open_a_file_without_protection(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "odd.pth").write_bytes(pickle.dumps({"model": [1.5]}, protocol))
    with pytest.raises(CheckpointError) as caught:
        load_foreign(tmp_path / "odd.pth")
    assert "weights_only" not in str(caught.value)
