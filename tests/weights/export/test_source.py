"""The model to export: a reason where it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.exports import saved
from m33d_hf import M33DForPreTraining
from m33d_hf.errors import CheckpointError
from m33d_hf.weights.export.source import load_source


@pytest.mark.parametrize("damage", ["truncated", "pointer", "other sizes"])
def test_weights_that_cannot_be_read_are_told(tmp_path: Path, damage: str) -> None:
    saved(M33DForPreTraining, tmp_path)
    file = tmp_path / "model.safetensors"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    else:
        saved(M33DForPreTraining, tmp_path / "other", hidden_size=48)
        (tmp_path / "other" / "config.json").replace(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="config.json" if damage == "other sizes" else "model.safetensors"):
        load_source(str(tmp_path))


def test_a_hub_that_does_not_answer_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route to the host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(CheckpointError, match=r"somebody/model: .*from the Hub .no route to the host"):
        load_source("somebody/model")


def test_a_repository_of_somebody_else_is_no_model_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    def without(*_: object, **__: object) -> str:
        raise EntryNotFoundError("404: no config.json")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", without)
    with pytest.raises(CheckpointError, match=r"not a folder .or Hub id. of a model of this package"):
        load_source("somebody/model")
