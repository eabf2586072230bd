"""transformers.Trainer trains, evaluates and predicts with every task model, and with pre-training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from helpers.tiny import CLIP, tiny_config
from m33d_hf.modeling.modeling_m33d import M33DPreTrainedModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

ROWS, LABELS = 6, 3
HEADS = {"segmentation_head_width": 8, "segmentation_head_depth": 1, "depth_head_width": 16, "temporal_hidden_size": 8}
# Class -> fields of the configuration, shape of one sample's input and labels, and of its predictions.
CASES: dict[str, tuple[type[Any], dict[str, Any], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "segmentation": (M33DForSemanticSegmentation, {}, (3, 32, 32), (32, 32), (LABELS, 32, 32)),
    "depth": (M33DForDepthEstimation, {}, (3, 32, 32), (32, 32), (32, 32)),
    "classification": (M33DForVideoClassification, CLIP, (4, 3, 32, 32), (), (LABELS,)),
    "detection": (M33DForVideoActionDetection, CLIP, (5, 4, 3, 32, 32), (5,), (5, LABELS)),
}


def _model(case: str) -> M33DPreTrainedModel:
    torch.manual_seed(0)
    cls, fields = CASES[case][:2]
    return cls(tiny_config(**HEADS, **fields, num_labels=LABELS))


def _samples(case: str) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    pixels, labels = CASES[case][2:4]
    return [
        {
            "pixel_values": torch.randn(pixels, generator=generator),
            "labels": torch.rand(labels, generator=generator) * 3 + 0.1
            if case == "depth"
            else torch.randint(0, LABELS, labels, generator=generator),
        }
        for _ in range(ROWS)
    ]


def _arguments(folder: Path, **overrides: Any) -> TrainingArguments:
    fields = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }
    return TrainingArguments(**{**fields, **overrides})


@pytest.mark.parametrize("case", CASES)
def test_a_task_model_trains_evaluates_and_predicts(case: str, tmp_path: Path) -> None:
    model, samples = _model(case), _samples(case)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = Trainer(model, _arguments(tmp_path), train_dataset=samples, eval_dataset=samples)
    assert trainer.train().global_step == 2
    assert any(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    found = trainer.predict(samples)
    assert isinstance(found.predictions, np.ndarray)
    assert found.predictions.shape == (ROWS, *CASES[case][4]) and np.isfinite(found.predictions).all()
    assert np.array_equal(found.label_ids, np.stack([sample["labels"] for sample in samples]))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(found.metrics["test_loss"])
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    with torch.no_grad():
        output = model.eval()(**batch)
    main = output.predicted_depth if case == "depth" else output.logits
    np.testing.assert_allclose(found.predictions, main.numpy(), atol=1e-5, rtol=1e-4)


def test_an_accumulated_batch_trains_like_a_whole_one(tmp_path: Path) -> None:
    weights = []
    for rows, steps in ((4, 1), (2, 2)):
        model = _model("classification")
        overrides = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps, "max_steps": 1}
        # Plain steps and no clipping: both would hide a gradient that is twice as large.
        more = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
        trainer = Trainer(model, _arguments(tmp_path, **overrides, **more), train_dataset=_samples("classification"))
        trainer.train()
        weights.append(model.classifier.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-4)


def test_pretraining_trains_and_evaluates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = M33DForPreTraining(tiny_config(contrastive_weight=0.1, matching_weight=0.1))
    samples = [{"pixel_values": torch.randn(3, 32, 32), "depth_values": torch.randn(1, 32, 32)} for _ in range(ROWS)]
    # As for every masked auto-encoder of transformers: the pixels are the labels.
    arguments = _arguments(tmp_path, label_names=["pixel_values"])
    trainer = Trainer(model, arguments, train_dataset=samples, eval_dataset=samples)
    assert trainer.train().global_step == 2
    assert np.isfinite(trainer.evaluate()["eval_loss"])
