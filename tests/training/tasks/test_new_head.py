"""A new task head through the whole of a run: parsed, tried, trained, judged, saved, loaded again.

The head lies outside the package (helpers/normals_head.py) and needs nothing but `register_task`. A head that becomes
part of the package touches these files:

1. modeling/normals_m33d.py: head and model, its `loss_weights`, `loss_counts` and `forward`
2. modeling/task_heads_m33d.py: its entry in `HEADS`, the import that takes the model's file along with saved models,
   and its own configuration fields with their ranges
3. m33d_hf/__init__.py: the model's public name
4. m33d_hf/training/tasks/surface_normals.py: the task, with maps, collator, metric and example batch
5. m33d_hf/training/recipe/task_names.py: its name and its place, one line
6. m33d_hf/recipes/rooms/normals.yaml
7. scripts/run_surface_normals.py: `main("surface_normals")`
8. tests/training/tasks/test_surface_normals.py
9. docs/api/models.md: the model in the reference, and a sentence on the recipe

The last test here proves that nothing else has to be told of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.normals_head import ForNormals, NormalsTask, normals_of
from helpers.rooms_runs import words
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.task_names import TASKS, register_task
from m33d_hf.training.tasks.base import Task, build_task
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask

NAME = "outside_normals"  # not one that a head of the package may take
PLACE = "helpers.normals_head:NormalsTask"


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[str]:
    register_task(NAME, PLACE)
    file = tmp_path / "normals.yaml"
    file.write_text(f"extends: bases/rooms_finetune\ntask: {NAME}\n")
    yield str(file)
    del TASKS[NAME]


def test_a_new_head_goes_through_a_run(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"train__max_steps": "30", "optim__learning_rate": "0.01", "optim__scale_lr": "false"}
    argv = words(recipe, tmp_path / "out", **given)
    assert main(NAME, [*argv, "--dry_run", "true"]) == 0
    told = capsys.readouterr().out
    assert "toy_head: " in told and "labels (" in told and "largest batch that fits" in told
    assert main(NAME, argv) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    (angle,) = {row["eval/angle"] for row in rows if "eval/angle" in row}
    assert losses[-1] < 0.8 * losses[0] and 0 < angle < 90

    model = ForNormals.from_pretrained(tmp_path / "out").eval()
    assert M33DImageProcessor.from_pretrained(tmp_path / "out").size["height"] == model.config.image_height_width[0]
    again = words(recipe, tmp_path / "again", init_from=str(tmp_path / "out"), **given)
    assert main(NAME, [*again, "--eval_only", "true"]) == 0
    found = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert found["task"] == NAME and found["metrics"]["angle"] == pytest.approx(angle)


def test_other_scripts_name_the_one_of_the_recipe(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main("depth_estimation", words(recipe, tmp_path / "out")) == 2
    assert f"is for {NAME}, not for depth_estimation: use scripts/run_{NAME}.py" in capsys.readouterr().err


def test_a_name_is_that_of_the_registry(recipe: str) -> None:
    class Finer(DepthEstimationTask):
        pass

    class Own(Task):
        pass

    assert isinstance(build_task(NAME), NormalsTask) and NormalsTask.name == NormalsTask().name == NAME
    assert (Finer.name, Own().name) == ("depth_estimation", "Own")
    for name in TASKS:
        assert build_task(name).name == name
    RunArguments(task=NAME, eval_only=True).validate()
    with pytest.raises(ConfigError, match="outside_normal"):
        RunArguments(task="outside_normal", eval_only=True).validate()


@pytest.mark.parametrize(("name", "place"), [("depth_estimation", PLACE), ("other", "helpers.normals_head")])
def test_names_and_places_that_cannot_be_registered(name: str, place: str) -> None:
    with pytest.raises(ConfigError, match=name):
        register_task(name, place)
    assert name not in TASKS or TASKS[name] != place


def test_normals_of_a_plane() -> None:
    depth = torch.arange(4.0)[None].expand(3, 4) * 0.1
    found = normals_of(depth)[:, :-1, :-1]
    assert torch.allclose(found, torch.tensor([-(0.5**0.5), 0.0, 0.5**0.5])[:, None, None].expand(3, 2, 3))


def test_all_that_a_part_of_the_package_must_know_is_an_entry_of_the_table(tmp_path: Path) -> None:
    """In an interpreter of its own: the table is read when its readers are imported."""
    script = Path(__file__).resolve().parents[2] / "helpers" / "head_in_the_table.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {
        "auto_map": "normals_head.ForNormals",
        "converted": True,
        "exported": True,
        "dense": True,
        "adopted": ["segmentation_head_width"],
        "flops": True,
        "backbone_unexpected": [],
        "typo_unexpected": ["toy_hed.weight"],
        "depth_starts_from_it": "this model lacks the toy head",
        "it_starts_from_depth": "the toy head is not in the checkpoint",
    }
