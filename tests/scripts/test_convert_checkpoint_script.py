"""scripts/convert_checkpoint.py: a foreign file in, one of our folders and the report out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from helpers.foreign import CLIP_SIZES, original_mae, tiny_videomae, tiny_vitmae
from helpers.multimae_heads_twin import MultiMAEHeadsTwin
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.scripts.convert_checkpoint import main
from m33d_hf.weights.formats.detect import FORMATS


def test_mae_file_to_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tiny_vitmae()
    torch.save({"model": original_mae(theirs)}, tmp_path / "mae.pth")
    heads = ["num_attention_heads=4", "decoder_num_attention_heads=3"]
    arguments = ["--input", str(tmp_path / "mae.pth"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--config_overrides", *heads]) == 0
    text = capsys.readouterr().out
    assert "MAE (original)" in text and "rebuilt, identical" in text and "licence" in text
    model = M33DForPreTraining.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = torch.arange(16.0)[None]
    with torch.no_grad():
        found = model(pixels, keep={"rgb": torch.arange(4)[None]}).loss
        expected = theirs(pixels, noise=noise).loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half folder would pass for a checkpoint, and with --overwrite the old model would be lost as well."""
    tiny_videomae().save_pretrained(tmp_path / "in")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]

    def full(self: object, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(M33DForPreTraining, "save_pretrained", full)
        assert main(arguments) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert main(arguments) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "video_preprocessor_config.json"} <= before.keys()
    with monkeypatch.context() as patched:
        patched.setattr(M33DForPreTraining, "save_pretrained", full)
        assert main([*arguments, "--overwrite"]) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert main([*arguments, "--overwrite"]) == 0


def test_transformers_folder_needs_no_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_videomae().save_pretrained(tmp_path / "in")
    assert main(["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert "0 new" in capsys.readouterr().out
    config = M33DForPreTraining.from_pretrained(tmp_path / "out").config
    assert (config.num_frames, config.tubelet_size, config.num_attention_heads) == (4, 2, 4)


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["--input", str(tmp_path / "nothing.pth"), "--output", str(tmp_path / "out")]
    assert main(missing) == 1
    assert capsys.readouterr().err.startswith("error: ")
    torch.save({"model": original_mae(tiny_vitmae())}, tmp_path / "mae.pth")
    wrong = ["--input", str(tmp_path / "mae.pth"), "--output", str(tmp_path / "out")]
    assert main([*wrong, "--config_overrides", "hiden_size=64"]) == 1
    assert "Did you mean 'hidden_size'" in capsys.readouterr().err
    assert main([*wrong, "--config_overrides", "hidden_size"]) == 1
    assert "KEY=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hidden_act=nosuch", "hidden_act is 'nosuch'"),
        ("num_hidden_layers=1099511627776", "num_hidden_layers (--config_overrides) is 1099511627776"),
        ("image_size=[1, 2, 3]", "image_size (--config_overrides) is [1, 2, 3]"),
        ("image_size=[1", "image_size is not valid YAML"),
        ("qkv_bias=maybe", "qkv_bias must be true or false, not 'maybe'"),
    ],
)
def test_overrides_are_checked_as_the_fields_of_a_run_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    torch.save({"model": original_mae(tiny_vitmae())}, tmp_path / "mae.pth")
    heads = ["--num_attention_heads", "4", "--decoder_num_attention_heads", "3"]
    given = ["--input", str(tmp_path / "mae.pth"), "--output", str(tmp_path / "out"), "--config_overrides", override]
    assert main([*given, *heads]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_attention_heads", "0"], "num_attention_heads, as set for the checkpoint, is 0; it must be"),
        (["--layer_norm_eps", "nan"], "layer_norm_eps, as set for the checkpoint, is nan; it must be above 0"),
        (["--image_size", "1", "2", "3"], "is [1, 2, 3]; it must be two numbers"),
        (["--num_frames", "-1"], "num_frames, as set for the checkpoint, is -1"),
    ],
)
def test_statements_are_in_the_range_of_their_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    torch.save({"model": original_mae(tiny_vitmae())}, tmp_path / "mae.pth")
    assert main(["--input", str(tmp_path / "mae.pth"), "--output", str(tmp_path / "out"), *flags]) == 1
    assert message in capsys.readouterr().err


def test_an_output_that_is_a_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": original_mae(tiny_vitmae())}, tmp_path / "mae.pth")
    heads = ["--num_attention_heads", "4", "--decoder_num_attention_heads", "3", "--image_size", "32"]
    assert main(["--input", str(tmp_path / "mae.pth"), "--output", str(tmp_path / "mae.pth"), *heads]) == 1
    assert "is a file; set --output to a folder" in capsys.readouterr().err
    assert main(["--input", str(tmp_path / "mae.pth"), "--output", str(tmp_path / "out"), *heads]) == 0


def test_help_lists_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for table in FORMATS.values():
        assert f"\n  {table.name}\n" in text


def test_a_fine_tuned_classifier_keeps_its_head_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["cut", "knot", "suture"]
    sizes = {key: value for key, value in CLIP_SIZES.items() if not key.startswith("decoder_")}
    config = VideoMAEConfig(**sizes, layer_norm_eps=1e-6, id2label=dict(enumerate(names)), label2id={})
    theirs = VideoMAEForVideoClassification(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    theirs.fc_norm.eps = 1e-6  # the original's; the report says that transformers has another
    theirs.save_pretrained(tmp_path / "in")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--task", "video_classification"]) == 0
    text = capsys.readouterr().out
    assert "0 new" in text and "epsilon of 1e-5" in text
    model = M33DForVideoClassification.from_pretrained(tmp_path / "out").eval()
    assert dict(model.config.id2label) == dict(enumerate(names))
    clip = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(clip).logits, theirs(clip).logits, rtol=1e-5, atol=1e-5)


def test_fine_tuned_multimae_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = MultiMAEHeadsTwin("semseg").eval()
    torch.save({"model": twin.weights()}, tmp_path / "semseg.pth")
    arguments = ["--input", str(tmp_path / "semseg.pth"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--task", "semantic_segmentation", "--num_attention_heads", "4"]) == 0
    assert "0 new" in capsys.readouterr().out
    model = M33DForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).logits, twin(pixels), rtol=1e-5, atol=2e-5)


def test_another_architecture_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"conv1.weight": torch.zeros(4, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3)}
    torch.save({"state_dict": weights}, tmp_path / "resnet.pth")
    assert main(["--input", str(tmp_path / "resnet.pth"), "--output", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "ResNet" in text and "Needed: a convolutional encoder" in text
    assert not (tmp_path / "out").exists()
