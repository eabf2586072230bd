"""A loss term is one class: a new one is counted, weighed, logged, trained and evaluated without another line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from helpers.rooms_runs import words
from helpers.tiny import SMALL, VARIANTS, random_batch
from m33d_hf.modeling import terms_m33d
from m33d_hf.modeling.batch_m33d import PreTrainingBatch
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.terms_m33d import LossTerm, PreTrainingPass, Sums, active_terms, final_features
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.pretraining import PretrainingTask


class SpreadTerm(LossTerm):
    """Pulls the mean features of RGB to zero. A real one takes its weight from a field of the configuration."""

    name, weight = "spread", 0.5

    @classmethod
    def of(cls, config: M33DConfig) -> Sequence[LossTerm]:
        return [cls()]

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        return torch.full((), float(batch.batch_size), device=batch.device)

    def total(self, seen: PreTrainingPass) -> Sums:
        tokens = final_features(seen.model.m33d, seen.states)["rgb"]
        return tokens.float().mean(dim=1).square().sum(), self.count(seen.batch)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms_m33d, "KINDS", (*terms_m33d.KINDS, SpreadTerm))


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_beforehand_are_those_of_the_forward_pass(variant: str) -> None:
    model = M33DForPreTraining(M33DConfig(**{**SMALL, **VARIANTS[variant]})).eval()
    batch = random_batch(model.config)
    output = model(**batch)
    counts = model.loss_counts(**{**batch, "keep": output.keep})
    assert list(counts) == list(output.loss_counts) == [term.name for term in active_terms(model.config)]
    assert {name: float(n) for name, n in counts.items()} == {n: float(c) for n, c in output.loss_counts.items()}


@pytest.mark.usefixtures("spread")
def test_a_new_term_is_weighed_and_counted() -> None:
    torch.manual_seed(0)
    model = M33DForPreTraining(M33DConfig(**SMALL)).eval()
    batch = random_batch(model.config)
    output = model(**batch, output_features=True)
    by_hand = output.features["rgb"].mean(dim=1).square().sum() / output.features["rgb"].shape[0]
    torch.testing.assert_close(output.losses["spread"], by_hand)
    others = sum(part for name, part in output.weighted_losses.items() if name != "spread")
    torch.testing.assert_close(output.loss, others + 0.5 * by_hand)
    assert "spread" in model.loss_weights and "spread" in model.loss_counts(**{**batch, "keep": output.keep})


@pytest.mark.usefixtures("spread")
def test_a_new_term_is_trained_logged_and_evaluated(tmp_path: Path) -> None:
    args = parse_arguments(words("rooms/pretrain", tmp_path, method="mae"), "pretraining")
    metrics = train(args, PretrainingTask()).metrics
    assert math.isfinite(metrics["eval/loss/spread"]) and metrics["eval/loss/spread"] > 0
    log = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"train/loss/spread"' in log or '"loss/spread"' in log


def test_a_term_says_what_it_lacks() -> None:
    with pytest.raises(TypeError, match="LossTerm does not implement `of`"):
        LossTerm.of(M33DConfig(**SMALL))
