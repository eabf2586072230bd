"""What a run's loaders hand on, for every kind of run: DataLoader locks it in memory before it goes to a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from helpers.page_locking import assert_lockable
from helpers.pretraining_cases import methods_with_rooms
from helpers.rooms_runs import words
from m33d_hf.data.loader.collation import deferring
from m33d_hf.data.loader.loading import build_loader
from m33d_hf.data.loader.sampling import StepSampler
from m33d_hf.training.processes.launch import Ranks
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loaders import build_eval_feed
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

# Without a first stage there is no teacher to distil.
PRETRAININGS = [
    (recipe, {"method": method, "model__distillation_weight": "0"}, PretrainingTask)
    for recipe, method in methods_with_rooms()
]
EVERYTHING_DRAWN = {
    "data__options": "{num_clips: 10}",
    "transforms__erasing": "1.0",
    "mixing__mixup": "0.8",
    "mixing__cutmix": "1.0",
}
FINETUNINGS = [
    ("rooms/semseg", {"data__max_train_samples": "8"}, SemanticSegmentationTask),
    ("rooms/depth", {"data__max_train_samples": "8"}, DepthEstimationTask),
    ("rooms/actions", EVERYTHING_DRAWN, VideoClassificationTask),
]


@pytest.mark.parametrize(("recipe", "changes", "task_class"), [*PRETRAININGS, *FINETUNINGS])
def test_batches_can_be_locked_in_memory(
    recipe: str, changes: dict[str, str], task_class: type[Task], tmp_path: Path
) -> None:
    task = task_class()
    args = parse_arguments(words(recipe, tmp_path, **changes), task.name)
    model = build_model(args, task)
    train_set, eval_set = task.build_datasets(args, model)
    collator = deferring(task.build_collator(args, model, train=True))
    for batch in build_loader(train_set, collator, StepSampler(len(train_set), 4, total_steps=1), pin_memory=False):
        assert_lockable(batch)
    assert eval_set is not None
    for batch in build_eval_feed(args, task, model, eval_set, Ranks(Accelerator(cpu=True))):
        assert_lockable(batch)
