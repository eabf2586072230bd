"""Probes against formulas written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.evaluation import probes
from m33d_hf.evaluation.probes import LinearOptions, held_out_rows, knn_probe, linear_probe

Split = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def draw(classes: int = 7, train: int = 90, test: int = 40, width: int = 12, noise: float = 1.6) -> Split:
    """Gaussian clouds that overlap; every class is among the training rows."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator)
    labels = torch.arange(train + test) % classes
    features = centres[labels] + noise * torch.randn(train + test, width, generator=generator)
    return features[:train], labels[:train], features[train:], labels[train:]


def by_hand(split: Split, k: int, temperature: float, classes: int) -> dict[str, float]:
    """The vote one test feature at a time."""
    train, labels, test, truth = (np.asarray(part, dtype=np.float64) for part in split)
    hits = {"top1": 0, "top5": 0}
    for feature, label in zip(test, truth):
        cosines = [row @ feature / np.linalg.norm(row) / np.linalg.norm(feature) for row in train]
        votes = [0.0] * classes
        for row in sorted(range(len(train)), key=lambda row: -cosines[row])[:k]:
            votes[int(labels[row])] += float(np.exp(cosines[row] / temperature))
        ranking = sorted(range(classes), key=lambda number: -votes[number])
        hits["top1"] += ranking[0] == int(label)
        hits["top5"] += int(label) in ranking[:5]
    return {name: count / len(test) for name, count in hits.items()}


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5)])
def test_neighbours_vote_as_written_out(k: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    split = draw()
    expected = by_hand(split, k, temperature, 7)
    assert 0 < expected["top1"] < 1
    assert knn_probe(*split, k=k, temperature=temperature, num_classes=7) == expected
    monkeypatch.setattr(probes, "ENTRIES", 200)  # two test features at a time
    assert knn_probe(*split, k=k, temperature=temperature) == expected


def test_ties_go_to_the_earlier_row_and_the_lower_class() -> None:
    train, query = torch.eye(2).repeat(2, 1), torch.ones(1, 2)
    labels = torch.tensor([1, 0, 0, 1])  # all four are equally near
    assert knn_probe(train, labels, query, torch.tensor([1]), k=1)["top1"] == 1.0  # row 0
    assert knn_probe(train, labels, query, torch.tensor([0]), k=2)["top1"] == 1.0  # one vote each: class 0
    low = knn_probe(train, labels, torch.eye(2)[:1], torch.tensor([1]), k=4, temperature=1e-4)
    assert low == {"top1": 0.0, "top5": 1.0}  # rows 0 and 2 tie, class 0 first; nothing overflows


def minimum(train: np.ndarray, labels: np.ndarray, strength: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias by Newton's method on the whole Hessian of the standardised problem."""
    inputs = np.c_[(train - train.mean(0)) / train.std(0), np.ones(len(train))]
    penalty = np.r_[np.full(train.shape[1], strength), 1e-9]
    weights = np.zeros((classes, inputs.shape[1]))
    for _ in range(30):
        scores = inputs @ weights.T
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        gradient = (chances - np.eye(classes)[labels]).T @ inputs / len(inputs) + weights * penalty
        hessian = np.einsum("nk,nl,ni,nj->kilj", -chances, chances, inputs, inputs, optimize=True)
        for number in range(classes):
            hessian[number, :, number] += (chances[:, number, None] * inputs).T @ inputs
        hessian /= len(inputs)
        size = weights.size
        full = hessian.reshape(size, size) + np.diag(np.tile(penalty, classes))
        weights -= np.linalg.solve(full, gradient.ravel()).reshape(weights.shape)
    return weights[:, :-1], weights[:, -1]


def test_the_linear_fit_is_the_minimum() -> None:
    split = draw(classes=4, train=60, width=5)
    train, labels, test, truth = (part.numpy() for part in split)
    weights, bias = minimum(train.astype(np.float64), labels, 0.05, 4)
    options = LinearOptions([0.05], tolerance=1e-7)
    fit = probes.LinearFit(split[0].double(), split[1], 4, 0.05, options)
    assert fit.converged
    np.testing.assert_allclose(fit._weight.detach().numpy(), weights, atol=1e-5)
    np.testing.assert_allclose((fit._bias - fit._bias.mean()).detach().numpy(), bias - bias.mean(), atol=1e-5)
    scores = (test - train.mean(0)) / train.std(0) @ weights.T + bias
    found = linear_probe(*split, options=options)
    assert found["top1"] == float((scores.argmax(1) == truth).mean()) and found["strength"] == 0.05
    assert found["converged"] == 1.0 and "held_out_top1" not in found


@pytest.mark.extras
def test_as_scikit_learn_fits() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    train, labels, test, truth = draw()
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0)
    model = linear_model.LogisticRegression(C=1 / (0.1 * len(train)), tol=1e-10, max_iter=5000)
    model.fit(((train - mean) / deviation).numpy(), labels.numpy())
    expected = float((model.predict(((test - mean) / deviation).numpy()) == truth.numpy()).mean())
    assert linear_probe(train, labels, test, truth, options=LinearOptions([0.1]))["top1"] == expected


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_correlated_features_are_solved_as_scipy_solves_them(strength: float) -> None:
    """As tokens of an encoder: variances over five decades in axes of their own, where plain L-BFGS takes 677 steps."""
    optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    rows, width, classes = 1000, 48, 6
    axes, spread = np.linalg.qr(rng.normal(size=(width, width)))[0], 10.0 ** np.linspace(1, -4, width)
    hidden = rng.normal(size=(rows, width))
    labels = (0.5 * hidden @ rng.normal(size=(width, classes)) + rng.normal(size=(rows, classes))).argmax(1)
    features = (hidden * spread) @ axes.T + 3
    inputs = np.c_[(features - features.mean(0)) / features.std(0), np.ones(rows)]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(classes, width + 1)
        scores = inputs @ weights.T
        logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        penalty = weights * np.r_[np.full(width, strength), 0.0]
        slope = (np.exp(logs) - np.eye(classes)[labels]).T @ inputs / rows + penalty
        return -logs[np.arange(rows), labels].mean() + (penalty * weights).sum() / 2, slope.ravel()

    bounds = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-7, "maxcor": 20}
    best = optimize.minimize(loss, np.zeros(classes * (width + 1)), jac=True, method="L-BFGS-B", options=bounds)
    fit = probes.LinearFit(torch.from_numpy(features), torch.from_numpy(labels), classes, strength, LinearOptions())
    ours = torch.cat([fit._weight, fit._bias[:, None]], dim=1).detach().numpy().ravel()
    value, slope = loss(ours)
    assert fit.converged and fit.iterations < 150
    assert np.abs(slope).max() == pytest.approx(fit.gradient, rel=1e-3) and fit.gradient <= 1e-6
    assert value == pytest.approx(best.fun, abs=1e-8) and value <= best.fun + 1e-10


def test_test_features_choose_nothing() -> None:
    train, labels, test, truth = draw(noise=3.0)
    found = linear_probe(train, labels, test, truth)
    other = linear_probe(train, labels, test.flip(0) * 5, truth)
    same = {"strength", "held_out_top1", "iterations", "train_top1", "converged"}
    assert {name: found[name] for name in same} == {name: other[name] for name in same}
    assert found == linear_probe(train, labels, test, truth), "a second run finds the same"
    assert found["strength"] in probes.STRENGTHS and found["top1"] < found["train_top1"]


def test_constant_and_shifted_features_change_nothing() -> None:
    train, labels, test, truth = draw()
    options = LinearOptions([0.01])
    plain = linear_probe(train, labels, test, truth, options=options)
    wide = [torch.cat([part * 3 + 7, torch.full((len(part), 1), 1e4)], dim=1) for part in (train, test)]
    assert linear_probe(wide[0], labels, wide[1], truth, options=options)["top1"] == plain["top1"]


def test_held_out_rows_are_a_share_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 4 + [2])
    held = held_out_rows(labels, 0.2, 3)
    assert [int(held[labels == number].sum()) for number in range(3)] == [2, 1, 0]
    assert torch.equal(held, held_out_rows(labels, 0.2, 3)) and not torch.equal(held, held_out_rows(labels, 0.2, 4))


def test_an_unfinished_fit_says_so(caplog: pytest.LogCaptureFixture) -> None:
    found = linear_probe(*draw(), options=LinearOptions([1e-4], max_iterations=2))
    assert found["converged"] == 0.0 and found["gradient"] > 1e-6
    assert "NOT converged: after 2 iterations the largest entry of its gradient is" in caplog.text
    caplog.clear()
    found = linear_probe(*draw(), options=LinearOptions([0.1]))
    assert found["converged"] == 1.0 and found["gradient"] <= 1e-6 and not caplog.text


@pytest.mark.parametrize("probe", [knn_probe, linear_probe])
def test_what_cannot_be_probed(probe: Any) -> None:
    train, labels, test, truth = draw()
    with pytest.raises(LabelError, match="all of one class"):
        probe(train, torch.zeros_like(labels), test, torch.zeros_like(truth))
    with pytest.raises(DataError, match="1 of 40 test features are not finite"):
        probe(train, labels, test.index_fill(0, torch.tensor([2]), torch.nan), truth)
    with pytest.raises(DataError, match="training features have shape"):
        probe(train[:0], labels[:0], test, truth)
    with pytest.raises(DataError, match="12 wide, but test features are 11"):
        probe(train, labels, test[:, :11], truth)
    with pytest.raises(LabelError, match="from 0 to 4"):
        probe(train, labels, test, truth, num_classes=5)


def test_options_out_of_range() -> None:
    split = draw()
    with pytest.raises(ConfigError, match=r"k is 91, but there are 90.*--knn_k"):
        knn_probe(*split, k=91)
    with pytest.raises(ConfigError, match="--knn_temperature"):
        knn_probe(*split, temperature=0.0)
    with pytest.raises(ConfigError, match="--linear_strengths"):
        linear_probe(*split, options=LinearOptions([]))
    few = (split[0][:7], split[1][:7], split[2], split[3])
    with pytest.raises(ConfigError, match="every class has only one"):
        linear_probe(*few)
    assert linear_probe(*few, options=LinearOptions([0.1]))["train_top1"] == 1.0
