"""A folder that is not there is told at once, with those that are, and nothing is asked of the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.errors import CheckpointError
from m33d_hf.inference.loading import task_of_model
from m33d_hf.weights import own
from m33d_hf.weights.known.local_names import refuse_missing_folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, file in (("depth", "config.json"), ("pretrain", "train_config.json"), ("notes", "list.txt")):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.mark.parametrize("absolute", [False, True])
def test_a_mistyped_folder_beside_models(runs: Path, absolute: bool) -> None:
    name = str(runs / "dpeth") if absolute else "outputs/dpeth"
    with pytest.raises(CheckpointError, match=r"dpeth does not exist; .*outputs has depth, pretrain\..*'depth'"):
        refuse_missing_folder(name)


@pytest.mark.parametrize("name", ["outputs/depth", "facebook/vit-mae-base", "vit_base.pth", "elsewhere/run"])
def test_others_are_left_to_those_who_load_them(runs: Path, name: str) -> None:
    refuse_missing_folder(name)


@pytest.mark.parametrize("made", [False, True])
def test_the_folder_of_runs_is_nobody_s_organisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """Also before the first run, when there is no such folder or the doctor's report alone is in it."""
    monkeypatch.chdir(tmp_path)
    if made:
        (tmp_path / "outputs" / "data_check").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"outputs/pretrain does not exist, .* start the run that it names first"):
        refuse_missing_folder("outputs/pretrain")


def test_a_folder_without_models_may_bear_an_organisation_s_name(runs: Path) -> None:
    (runs.parent / "facebook").mkdir()
    refuse_missing_folder("facebook/vit-mae-base")


def test_it_is_asked_before_the_hub(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", asked)
    with pytest.raises(CheckpointError, match="outputs has depth, pretrain"):
        task_of_model("outputs/dpeth")
    with pytest.raises(CheckpointError, match="outputs has depth, pretrain"):
        own.find_own("outputs/dpeth")
