"""Which samples are shown, and that looking at them disturbs nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.rooms_runs import words
from m33d_hf.errors import DataError
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.showing.looks import affine
from m33d_hf.training.showing.samples import choose, first_rows, spread_rows, undisturbed
from m33d_hf.training.tasks.base import build_task


def test_generators_stand_as_they_stood() -> None:
    def state() -> list[Any]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    untouched = state()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    with pytest.raises(ValueError), undisturbed(torch.device("cpu")):
        state()
        raise ValueError
    assert state() == untouched


def test_samples_are_spread_and_unreadable_ones_left_out(tmp_path: Path) -> None:
    argv = words("rooms/actions", tmp_path, data__options="{num_clips: 20}", evaluation__num_crops="2")
    args, task = parse_arguments(argv, "video_classification"), build_task("video_classification")
    model = task.build_model(args)
    train_set, eval_set = task.build_datasets(args, model)
    assert eval_set is not None
    assert [index for _, index in spread_rows(eval_set)] == [0, 6, 13, 19]
    rows = first_rows(args, task, train_set, processes=1, count=2)
    assert len(rows) == 2 and all(epoch == 0 for epoch, _ in rows)
    chosen = choose(args, task, model, eval_set, spread_rows(eval_set), train=False)
    assert [len(views) for views in chosen.views] == [2] * 4 and chosen.rows_of(2) == slice(4, 6)
    assert len(chosen.batch["pixel_values"]) == 8
    broken = eval_set.with_transform(eval_set.transform)
    broken._try_read = lambda epoch, index, skipped: (  # type: ignore[method-assign]
        skipped.append(_skipped()) if index != 6 else eval_set._try_read(epoch, index, skipped)
    )
    assert len(choose(args, task, model, broken, spread_rows(broken), train=False).views) == 1
    with pytest.raises(DataError, match="none of the 1 chosen samples"):
        choose(args, task, model, broken, [(0, 0)], train=False)


def _skipped() -> Any:
    from m33d_hf.data.files.skips import SkippedFile

    return SkippedFile("a.png", "torn", "a")


def test_metres_are_found_from_standardised_depth_where_they_are_related() -> None:
    metres = np.random.default_rng(0).uniform(1, 5, (4, 4))
    metres[0, 0] = np.nan
    found = affine((metres - 2.5) / 0.7, metres)
    assert found == pytest.approx((0.7, 2.5))
    assert affine(np.log(metres), metres) is None and affine(np.full((4, 4), 2.0), metres) is None
