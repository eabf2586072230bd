"""The trivial prediction: its value by another computation, over all frames at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.rooms_runs import words
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.showing.floors import floor_of
from m33d_hf.training.tasks.base import build_task
from m33d_hf.training.tasks.building import config_of


def test_mean_depth_and_commonest_class_of_every_position(tmp_path: Path) -> None:
    for recipe, name in (("rooms/depth", "depth_estimation"), ("rooms/semseg", "semantic_segmentation")):
        args = parse_arguments(words(recipe, tmp_path / name), name)
        task = build_task(name)
        model = task.build_model(args)
        train_set, eval_set = task.build_datasets(args, model)
        assert eval_set is not None
        floor = floor_of(task, args, config_of(model), train_set, eval_set)
        assert floor is not None and floor.samples == len(eval_set) == 12 and "12 training frames" in floor.how
        maps = []
        for dataset in (train_set, eval_set):
            raw = [dataset.source[row].read([0]).align() for row in dataset.indices]
            key = "depth" if name == "depth_estimation" else "segmentation"
            maps.append(np.stack([getattr(sample, key)[0].numpy().reshape(48, 48) for sample in raw]))
        seen, truth = maps
        if name == "depth_estimation":
            mean = np.nanmean(seen, axis=0)
            ratio = np.maximum(mean / truth, truth / mean)
            expected = np.mean((ratio < 1.25)[np.isfinite(truth)])
        else:
            shown = np.stack([(seen == number).sum(0) for number in range(10)]).argmax(0) + np.zeros_like(truth)
            known = truth < 10
            overlaps = [((shown == n) & (truth == n) & known).sum() for n in range(10)]
            unions = [(((shown == n) | (truth == n)) & known).sum() for n in range(10)]
            expected = np.mean([o / u for o, u in zip(overlaps, unions) if u])
        assert floor.value == pytest.approx(expected, abs=1e-6)
    args.evaluation.depth_protocol = "multimae"
    assert floor_of(task, args, config_of(model), train_set, eval_set) is None
