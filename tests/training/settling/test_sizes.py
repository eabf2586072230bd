"""The sizing rule of `auto`: the same data and class of machine give the same run; what is stated is kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.training.settling.data_facts import DataFacts
from m33d_hf.training.settling.machine import Machine, measure_speed
from m33d_hf.training.settling.settle import duration
from m33d_hf.training.settling.sizes import Work, encoder_sizes, schedule

LAPTOP, SERVER, GPU = Machine("cpu", 2), Machine("cpu", 16), Machine("gpu", 16)
FRAMES = DataFacts(samples=400, height=480, width=640)


def sizes(machine: Machine, data: DataFacts = FRAMES, clip: bool = False, **known: Any) -> dict[str, Any]:
    return {**encoder_sizes(machine, data, known, clip), **known}


@pytest.mark.parametrize("machine", [LAPTOP, SERVER, GPU], ids=str)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (1080, 1920), (500, 500), (200, 2000)])
def test_sizes_make_a_model_whose_pictures_keep_their_shape(
    machine: Machine, clip: bool, shape: tuple[int, int]
) -> None:
    config = M33DConfig(**sizes(machine, DataFacts(300, *shape), clip))
    height, width = config.image_height_width
    aspect = min(max(shape[1] / shape[0], 0.5), 2.0)
    assert width / height == pytest.approx(aspect, rel=0.15) and config.is_clip_model == clip


@pytest.mark.parametrize("width", [64, 128, 192, 384, 768])
def test_heads_of_dense_tasks_stay_in_proportion_to_the_encoder(width: int) -> None:
    found = sizes(LAPTOP, hidden_size=width, num_hidden_layers=6)
    heads = {"depth_head": M33DForDepthEstimation, "segmentation_head": M33DForSemanticSegmentation}
    for head, model_class in heads.items():
        model = model_class(M33DConfig(**found, num_labels=10))
        counts = {True: 0, False: 0}
        for name, parameter in model.named_parameters():
            counts[name.startswith(head)] += parameter.numel()
        assert 0.02 < counts[True] / counts[False] < 0.75, (head, counts)


def test_the_rest_follows_what_is_known() -> None:
    found = sizes(LAPTOP, hidden_size=768, patch_size=14, num_attention_heads=12)
    assert found["intermediate_size"] == 3072 and all(side % 14 == 0 for side in found["image_size"])
    assert found["depth_head_width"] == 192 and found["segmentation_head_width"] == 384
    assert sizes(LAPTOP, patch_size=[8, 16])["image_size"][1] % 16 == 0


@pytest.mark.parametrize("task", ["pretraining", "depth_estimation"])
def test_a_schedule_is_the_same_every_time_and_within_its_budget(task: str) -> None:
    config = M33DConfig(**sizes(LAPTOP))
    found = schedule(task, LAPTOP, FRAMES, config, {})
    assert found == schedule(task, LAPTOP, FRAMES, config, {})
    seconds = Work(task, LAPTOP, FRAMES, config, found["train.batch_size"]).seconds(found["train.max_steps"])
    assert 40 < seconds < 100
    assert found["train.batch_size"] == 16 and found["train.precision"] == "no"


def test_a_slower_machine_takes_fewer_steps_of_the_same_model_in_the_same_time() -> None:
    slow = Machine("cpu", 2, speed=0.5)
    assert sizes(slow) == sizes(LAPTOP) and str(slow) == "2 CPU cores at half of the usual speed"
    config = M33DConfig(**sizes(LAPTOP))
    steps = {
        machine.speed: schedule("pretraining", machine, FRAMES, config, {})["train.max_steps"]
        for machine in (LAPTOP, slow)
    }
    assert steps[0.5] == pytest.approx(steps[1.0] / 2, abs=20)


def test_the_speed_of_this_machine_is_one_of_the_grades_and_threads_stay_as_they_were() -> None:
    before = torch.get_num_threads()
    assert measure_speed(1) in (1.0, 0.7, 0.5, 0.35, 0.25) and torch.get_num_threads() == before


def test_pictures_stay_in_memory_where_they_fit_and_clips_do_not() -> None:
    config = M33DConfig(**sizes(LAPTOP))
    # 400 pictures of 640 x 480 with 8 bytes a pixel are .98 GB; a million do not fit into any machine of ours.
    assert schedule("pretraining", LAPTOP, FRAMES, config, {})["data.keep_decoded_gb"] == 1.0
    huge = schedule("pretraining", LAPTOP, DataFacts(1_000_000, 480, 640), config, {})["data.keep_decoded_gb"]
    assert 0 < huge <= LAPTOP.gigabytes_for_samples
    clips = M33DConfig(**sizes(LAPTOP, clip=True))
    assert schedule("pretraining", LAPTOP, FRAMES, clips, {})["data.keep_decoded_gb"] == 0.0


def test_more_data_and_more_machine_never_mean_fewer_steps() -> None:
    config = M33DConfig(**sizes(LAPTOP))
    steps = [
        schedule("depth_estimation", LAPTOP, DataFacts(samples, 480, 640), config, {})["train.max_steps"]
        for samples in (20, 60, 200, 1000, 5000)
    ]
    assert all(few <= more for few, more in itertools.pairwise(steps)) and steps[0] >= 150


def test_what_is_stated_is_kept_and_the_rest_follows_it() -> None:
    config = M33DConfig(**sizes(LAPTOP))
    found = schedule("depth_estimation", LAPTOP, FRAMES, config, {"train.max_steps": 80, "train.batch_size": 5})
    assert (found["train.max_steps"], found["train.batch_size"]) == (80, 5)
    assert (found["optim.warmup_steps"], found["evaluation.every_steps"]) == (8, 40)


def test_a_batch_is_at_most_half_of_the_data_and_is_shared_by_the_processes() -> None:
    config = M33DConfig(**sizes(LAPTOP))
    few = DataFacts(samples=6, height=480, width=640)
    assert schedule("depth_estimation", LAPTOP, few, config, {})["train.batch_size"] == 3
    both = schedule("depth_estimation", Machine("cpu", 2, processes=2), FRAMES, config, {})
    assert both["train.batch_size"] == 8
    assert schedule("depth_estimation", GPU, FRAMES, config, {})["train.precision"] == "bf16"


def test_durations_in_words() -> None:
    assert [duration(s) for s in (3, 84, 150, 5000, 9000)] == [
        "10 seconds", "80 seconds", "2.5 minutes", "83.5 minutes", "2.5 hours",
    ]  # fmt: skip
