"""scripts/export_model.py: a folder of ours in, a folder for others out, and one line for every error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ViTModel

from helpers.exports import CLASSIFIER, saved
from helpers.foreign import tiny_videomae
from m33d_hf import M33DForPreTraining, M33DForVideoClassification
from m33d_hf.scripts.export_model import FORMATS, main
from m33d_hf.weights import export


def test_a_pretrained_encoder_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = saved(M33DForPreTraining, tmp_path / "own")
    words = ["--input", str(tmp_path / "own"), "--output", str(tmp_path / "out"), "--to", "transformers"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for part in ("ViTModel in float64: largest difference", "in float32", "encoders.depth", "ViTImageProcessor"):
        assert part in text
    picture = torch.randn(1, 3, 32, 32)
    theirs = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    with torch.no_grad():
        found, expected = theirs(pixel_values=picture), own.m33d(pixel_values=picture)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-5, atol=2e-5)
    capsys.readouterr()
    assert main(words) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'} is not empty")


def test_formats_are_those_of_the_package() -> None:
    assert export.FORMATS == FORMATS


@pytest.mark.parametrize("form", FORMATS)
def test_bad_folders_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    own = saved(M33DForVideoClassification, tmp_path / "bare", **CLASSIFIER)
    (tmp_path / "bare" / "model.safetensors").unlink()
    own.config.save_pretrained(tmp_path / "bare")
    tiny_videomae().save_pretrained(tmp_path / "foreign")
    (tmp_path / "file").write_text("")
    for name, message in (
        ("bare", "but no model.safetensors"),
        ("foreign", "not a folder (or Hub id) of a model of this package"),
        ("nowhere", "not a folder (or Hub id) of a model of this package"),
    ):
        assert main(["--input", str(tmp_path / name), "--output", str(tmp_path / "out"), "--to", form]) == 1
        (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert message in error
    assert main(["--input", str(tmp_path / "bare"), "--output", str(tmp_path / "file"), "--to", form]) == 1
    assert "is a file; set --output to a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["onnx", "torch_export"])
def test_pretraining_is_no_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    saved(M33DForPreTraining, tmp_path / "own")
    assert main(["--input", str(tmp_path / "own"), "--output", str(tmp_path / "out"), "--to", form]) == 1
    assert "pre-training draws random masks and sorts by them" in capsys.readouterr().err


def test_incomplete_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    saved(M33DForVideoClassification, tmp_path / "own", **CLASSIFIER)
    weights = load_file(tmp_path / "own" / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, tmp_path / "own" / "model.safetensors", metadata={"format": "pt"})
    assert main(["--input", str(tmp_path / "own"), "--output", str(tmp_path / "out"), "--to", "transformers"]) == 1
    assert "1 weight of M33DForVideoClassification is missing, the first is 'classifier.bias'" in (
        capsys.readouterr().err
    )
