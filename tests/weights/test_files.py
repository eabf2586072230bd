"""Reading foreign files: wrappers, folders, shards, Hub ids; and what unreadable or hostile input gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers.foreign import original_mae, original_videomae, tiny_videomae, tiny_vitmae
from m33d_hf.errors import CheckpointError, ConversionError
from m33d_hf.weights import from_state_dict, load_foreign


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return original_mae(tiny_vitmae())


class _Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, ("echo pickles must not run code",))


def test_suffixes(weights: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("a.pth", "b.pt", "c.bin"):
        torch.save(weights, tmp_path / name)
    save_file(weights, tmp_path / "d.safetensors")
    for name in ("a.pth", "b.pt", "c.bin", "d.safetensors"):
        checkpoint = load_foreign(tmp_path / name)
        assert checkpoint.format == "mae"
        assert set(checkpoint.tensors) == set(weights)
        assert torch.equal(checkpoint.tensors["cls_token"], weights["cls_token"])


def test_a_pickle_with_foreign_objects_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": weights, "args": _Hostile()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="neither a tensor nor a number"):
        load_foreign(tmp_path / "evil.pth")


def test_a_truncated_file_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("cut.pth", "cut.safetensors"):
        whole = tmp_path / f"whole{Path(name).suffix}"
        if name.endswith("pth"):
            torch.save(weights, whole)
        else:
            save_file(weights, whole)
        (tmp_path / name).write_bytes(whole.read_bytes()[:5000])
        with pytest.raises(CheckpointError, match=r"not a readable|cannot be read as a torch file"):
            load_foreign(tmp_path / name)


def test_a_folder_with_one_odd_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": weights}, tmp_path / "checkpoint-799.pth")
    assert load_foreign(tmp_path).format == "mae"
    torch.save({"model": weights}, tmp_path / "checkpoint-780.pth")
    with pytest.raises(CheckpointError, match=r"checkpoint-780\.pth, checkpoint-799\.pth"):
        load_foreign(tmp_path)


def _write_shards(weights: dict[str, Tensor], folder: Path) -> None:
    names = sorted(weights)
    parts = {"model-00001.safetensors": names[::2], "model-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards(weights: dict[str, Tensor], tmp_path: Path) -> None:
    _write_shards(weights, tmp_path)
    assert set(load_foreign(tmp_path).tensors) == set(weights)
    (tmp_path / "model-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002\.safetensors.*missing"):
        load_foreign(tmp_path)


def test_an_index_may_not_point_elsewhere(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside the folder"):
        load_foreign(tmp_path)


def test_hub_repository(weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    _write_shards(weights, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    asked: list[tuple[str, str, str | None]] = []

    def fake_download(repo: str, name: str, revision: str | None = None) -> str:
        asked.append((repo, name, revision))
        if not (tmp_path / name).is_file():
            raise LocalEntryNotFoundError(f"{name} is not there")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake_download)
    checkpoint = load_foreign("somebody/mae-tiny@v1")
    assert checkpoint.config == {"num_attention_heads": 4}
    assert set(checkpoint.tensors) == set(weights)
    assert {repo for repo, _, _ in asked} == {"somebody/mae-tiny"} and asked[0][2] == "v1"
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"none of model\.safetensors"):
        load_foreign("somebody/mae-tiny")


@pytest.mark.parametrize("name", ["no/such/file.pth", "weights/mae.pth", "nothing", "a b/c"])
def test_no_such_file(name: str) -> None:
    with pytest.raises(CheckpointError, match="not an existing file or folder"):
        load_foreign(name)


def test_unknown_layouts_name_keys_and_formats() -> None:
    with pytest.raises(ConversionError, match=r"conv1\.weight \(4, 3, 7, 7\).*MAE \(original\).*VideoMAE"):
        from_state_dict({"conv1.weight": torch.zeros(4, 3, 7, 7), "fc.bias": torch.zeros(10)})
    with pytest.raises(ConversionError, match="MultiMAE checkpoint without an RGB adapter"):
        from_state_dict({"input_adapters.depth.proj.weight": torch.zeros(8, 1, 4, 4)})
    with pytest.raises(ConversionError, match="from_pretrained"):
        from_state_dict({"m33d.embeddings.rgb.projection.bias": torch.zeros(8)})
    with pytest.raises(ConversionError, match="not a state dict"):
        from_state_dict({"hello": "world"})
    with pytest.raises(ConversionError, match="not a state dict"):
        from_state_dict({})


def test_each_format_is_recognised(weights: dict[str, Tensor]) -> None:
    videomae = tiny_videomae()
    formats = {
        "mae": weights,
        "videomae": original_videomae(videomae),
        "transformers_mae": tiny_vitmae().vit.state_dict(),
        "transformers_videomae": videomae.videomae.state_dict(),
    }
    for expected, tensors in formats.items():
        assert from_state_dict(tensors).format == expected


def test_unknown_entries_beside_the_weights_are_listed(weights: dict[str, Tensor]) -> None:
    checkpoint = from_state_dict({"model": weights, "model_ema": dict(weights), "mystery": 3})
    assert "moving average" in checkpoint.ignored["model_ema"]
    assert checkpoint.ignored["mystery"] == "int beside 'model', not its weights"


def test_a_config_of_something_else_is_not_believed(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "mae.pth")
    for model_type, believed in (("bert", False), ("vit_mae", True)):
        config = {"model_type": model_type, "num_attention_heads": 2}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert load_foreign(tmp_path / "mae.pth").config == (config if believed else {})
