"""A row is finished only for the data and the checkpoint that it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.few_labels.jobs import jobs_of_study
from m33d_hf.experiments.few_labels.origins import Origins, origins_of
from m33d_hf.experiments.few_labels.running import run_study
from m33d_hf.experiments.few_labels.study import Amount, Start, Study
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.places import Begun, jobs_in_place

SIZES = {"image_size": "16", "patch_size": "4", "hidden_size": "16", "intermediate_size": "32",
         "num_hidden_layers": "1", "num_attention_heads": "2"}  # fmt: skip
TINY = [word for key, value in SIZES.items() for word in (f"--model.{key}", value)]


def _study(root: Path, checkpoint: Path) -> Study:
    words = ("--recipe", "own/semseg", "--data.root", str(root), "--data.options.num_classes", "3",
             "--data.options.depth", "none")  # fmt: skip
    starts = (Start("scratch"), Start("given", checkpoints=(str(checkpoint),)), Start("hub", checkpoints=("org/name",)))
    return Study(
        task="semantic_segmentation", words=(*words, *TINY, "--train.max_steps", "2"), pretraining_words=(),
        starts=starts, amounts=(Amount(number=2),), seeds=(0, 1),
    )  # fmt: skip


def _frames(root: Path, count: int, deep: bool = False) -> Path:
    for kind in ("color", "label", *(["depth"] if deep else [])):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (9 * number, 90, 0)).save(root / "color" / f"{number:03}.png")
        Image.new("L", (16, 16), number % 3).save(root / "label" / f"{number:03}.png")
        if deep:
            Image.new("I;16", (16, 16), 1500 + number).save(root / "depth" / f"{number:03}.png")
    return root


def _folders(study: Study, folder: Path) -> dict[str, str]:
    jobs = jobs_of_study(study, folder, Compute(), origins_of(study, folder))
    return {job.id: job.fingerprint() for job in jobs}


def test_a_row_of_other_weights_or_data_is_another_row(tmp_path: Path) -> None:
    root, checkpoint = _frames(tmp_path / "data", 20), tmp_path / "pre"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"one")
    study = _study(root, checkpoint)
    before = _folders(study, tmp_path / "out")
    assert _folders(study, tmp_path / "out") == before, "the same twice"
    (checkpoint / "model.safetensors").write_bytes(b"two")
    trained_again = _folders(study, tmp_path / "out")
    changed = {name for name in before if before[name] != trained_again[name]}
    assert changed == {"labels-2-samples-given-s0"}, "one checkpoint, one seed"
    _frames(root, 24)
    more = _folders(study, tmp_path / "out")
    assert all(more[name] != trained_again[name] for name in before), "all have other data"
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    """The first check tells why; rows of settings alone are as they always were."""
    study = _study(tmp_path / "nothing", tmp_path / "nowhere")
    assert origins_of(study, tmp_path) == Origins()
    assert Origins().beside("x") == () and Origins("d", {"x": "y"}).beside("x") == ("d", "y")
    jobs = [jobs_of_study(study, tmp_path, Compute(), origins) for origins in (None, Origins())]
    assert jobs[0] == jobs[1]


def _pretrained(root: Path, held_out: Path) -> Study:
    """Pre-training on the frames of the fine-tunings."""
    shared = ("--data.root", str(root), "--data.eval_root", str(held_out), "--data.options.num_classes", "3", *TINY,
              "--train.max_steps", "2")  # fmt: skip
    return Study(
        task="semantic_segmentation", words=("--recipe", "own/semseg", *shared),
        pretraining_words=("--recipe", "own/pretrain", *shared),
        starts=(Start("scratch"), Start("rgbd", method="rgbd_mae")),
        amounts=(Amount(number=2),), seeds=(0,),
    )  # fmt: skip


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_pretrainings_are_judged_by_what_they_read(tmp_path: Path) -> None:
    """Not by evaluation data, nor by a corrected mask; and fine-tunings by all of it."""
    root, held_out = (_frames(tmp_path / name, 6, deep=True) for name in ("data", "held"))
    out = tmp_path / "out"
    study = _pretrained(root, held_out)
    first = _folders(study, out)
    rows = {"labels-2-samples-scratch-s0", "labels-2-samples-rgbd-s0"}
    assert first.keys() - rows == {"pretrain-rgbd-s0"}
    _frames(held_out, 7, deep=True)
    other_judges = _folders(study, out)
    assert _changed(first, other_judges) == rows
    mask = Image.new("L", (16, 16), 1)
    mask.putpixel((3, 3), 2)
    mask.save(root / "label" / "001.png")
    corrected = _folders(study, out)
    assert _changed(other_judges, corrected) == rows
    _frames(root, 7, deep=True)
    assert _changed(corrected, _folders(study, out)) == first.keys(), "all have another frame"


def test_a_pretraining_of_other_data_than_its_fine_tunings_is_run_again_with_them(tmp_path: Path) -> None:
    root, own = (_frames(tmp_path / name, 6, deep=True) for name in ("data", "own"))
    out = tmp_path / "out"
    study = _pretrained(root, root)
    words = tuple(str(own) if word == str(root) else word for word in study.pretraining_words)
    study = replace(study, pretraining_words=words)
    before = _folders(study, out)
    _frames(own, 7, deep=True)
    more = {"pretrain-rgbd-s0", "labels-2-samples-rgbd-s0"}
    assert _changed(before, _folders(study, out)) == more


def test_a_moved_study_keeps_its_rows(tmp_path: Path) -> None:
    """Of fine-tunings that start from a pre-training in its folder, too; the folder of a plan is refused."""
    study = _pretrained(_frames(tmp_path / "data", 20, deep=True), tmp_path / "data")
    old, new = tmp_path / "old", tmp_path / "new"

    def make(place: Path, _: str | None, names: Mapping[str, str]) -> list[Job]:
        return jobs_of_study(study, place, Compute(), origins_of(study, place), names)

    before = make(old, None, {})
    here = Begun("few-labels", "full", str(new), None)
    jobs = jobs_in_place(make, here, replace(here, folder=str(old)))
    assert [job.fingerprint() for job in jobs] == [job.fingerprint() for job in before]
    told = [json.dumps([job.parameters for job in found]) for found in (before, jobs)]
    assert f"{old}/runs/pretrain-" in told[0] and told[1] == told[0].replace(str(old), str(new))
    new.mkdir()
    (new / "results.json").write_text('{"name": "core", "budget": "full"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="holds results of plan 'core'"):
        run_study(study, new)
