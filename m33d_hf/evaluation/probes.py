"""Probes of frozen features: nearest neighbours, and a linear classifier. Tensors in, numbers out.

Neither changes the encoder, so they measure what it learnt without labels. The nearest neighbours are not trained; the
linear classifier is a convex problem solved to its unique minimum, so a probe of given features has one result.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from m33d_hf.data.randomness import generator_of
from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.evaluation.classification_metrics import TOP, label_ranks

logger = logging.getLogger(__name__)

# Similarities held at a time: 128 MiB of float64.
ENTRIES = 2**24
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class KnnOptions:
    """Options of the nearest-neighbour vote.

    Attributes:
        k: neighbours, >= 1 and at most the number of training features.
        temperature: of the weights exp(cosine / temperature), > 0.
    """

    k: int = 20
    temperature: float = 0.07


@dataclass(frozen=True)
class LinearOptions:
    """Options of the linear classifier.

    Attributes:
        strengths: L2 penalties: factors of half the squared norm of the weights, added to the mean cross-entropy, > 0;
            the one that is best on the held-out part is used; a single one is used without a search.
        held_out: share of each class's training features that chooses the strength, in (0, 1).
        seed: of the draw of that part.
        max_iterations: of L-BFGS, per strength.
        tolerance: largest entry of the gradient at which the fit counts as converged.
    """

    strengths: Sequence[float] = field(default=STRENGTHS)
    held_out: float = 0.2
    seed: int = 0
    max_iterations: int = 2000
    tolerance: float = 1e-6


def knn_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
) -> dict[str, float]:
    """Weighted vote of the k training features nearest by cosine (instance discrimination, DINO).

    Of equally similar neighbours the earlier row is nearer; of classes with equal votes the lower id comes first.

    Args:
        train_features, test_features: (N, D) and (M, D), any floating type; computed in float64, a slice of the test
            features at a time.
        train_labels, test_labels: (N,) and (M,) class ids.
        k, temperature: see `KnnOptions`.
        num_classes: number of classes; None takes one more than the largest id.

    Returns:
        "top1" and "top5", shares in [0, 1]; with up to five classes "top5" is 1.

    Raises:
        ConfigError: k or temperature out of range.
        DataError: features that are empty, not finite, or of different widths.
        LabelError: labels that are no class ids, or training labels of one class only.
    """
    train, test, classes = _checked(train_features, train_labels, test_features, test_labels, num_classes)
    if not 1 <= k <= len(train):
        raise ConfigError(
            f"k is {k}, but there are {len(train)} training features; set --knn_k to a number from 1 to {len(train)}."
        )
    if not temperature > 0:
        raise ConfigError(f"the temperature of the nearest neighbours is {temperature}; set --knn_temperature above 0.")
    bank, labels = torch.nn.functional.normalize(train, dim=1), train_labels.to(train.device).long()
    queries = torch.nn.functional.normalize(test, dim=1)
    votes = []
    for part in queries.split(max(1, ENTRIES // len(bank))):
        # A stable sort, as topk says nothing about which of equal values it takes.
        similar, order = (part @ bank.T).sort(dim=1, descending=True, stable=True)
        # Relative to the nearest: the ranking is the same, and a low temperature does not overflow.
        weights = ((similar[:, :k] - similar[:, :1]) / temperature).exp()
        votes.append(weights.new_zeros(len(part), classes).scatter_add_(1, labels[order[:, :k]], weights))
    return _shares(torch.cat(votes), test_labels)


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int | None = None,
    options: LinearOptions | None = None,
) -> dict[str, float]:
    """A linear classifier on standardised features: multinomial logistic regression with an L2 penalty.

    Minimises mean cross-entropy + strength / 2 * ||W||^2 (the bias is free) from zero by full-batch L-BFGS in float64,
    on the device of the training features. Mean and standard deviation are those of the training features; constant
    ones are only centred. The strength with the highest accuracy on a held-out part of the training features is taken
    (of equals, the one with the lower cross-entropy there), then all training features are fitted. Test features
    choose nothing.

    Args:
        train_features, train_labels, test_features, test_labels, num_classes: see `knn_probe`.
        options: see `LinearOptions`.

    Returns:
        "top1", "top5"; "strength", the chosen one; "converged", 1.0 or 0.0, of the last fit; "iterations" of it;
        "gradient", the largest entry of the gradient where it ended; "train_top1"; "held_out_top1" where a strength was
        chosen. A warning is logged if a fit has not converged.

    Raises:
        ConfigError: options out of range, or classes too small to hold any feature out.
        DataError, LabelError: see `knn_probe`.
    """
    options = options or LinearOptions()
    train, test, classes = _checked(train_features, train_labels, test_features, test_labels, num_classes)
    fit, found = fit_linear(train, train_labels, classes, options)
    return {**_shares(fit.logits(test), test_labels), **found}


def fit_linear(
    features: Tensor, labels: Tensor, classes: int, options: LinearOptions, held: Tensor | None = None
) -> tuple[LinearFit, dict[str, float]]:
    """Choose the strength and fit, as `linear_probe` describes.

    Args:
        features: (N, D) finite.
        labels: (N,) class ids below `classes`.
        classes: their number.
        options: see `LinearOptions`.
        held: (N,) bool, rows that choose the strength; None draws them, see `held_out_rows`.

    Returns:
        The fit of all rows, and what `linear_probe` reports of it.

    Raises:
        ConfigError: options out of range, or nothing held out to choose by.
    """
    if not options.strengths or min(options.strengths) <= 0 or not 0 < options.held_out < 1:
        raise ConfigError(
            f"strengths {list(options.strengths)} and held-out share {options.held_out}; set --linear_strengths above "
            "0 and --linear_held_out between 0 and 1."
        )
    features, labels = features.double(), labels.to(features.device).long()
    chosen, found = options.strengths[0], {}
    if len(options.strengths) > 1:
        held = held_out_rows(labels, options.held_out, options.seed) if held is None else held
        chosen, accuracy = _choose(features, labels, classes, options, held.to(features.device))
        found = {"held_out_top1": accuracy}
    fit = LinearFit(features, labels, classes, chosen, options)
    told = {"strength": float(chosen), "converged": float(fit.converged), "iterations": float(fit.iterations)}
    told["gradient"] = fit.gradient
    return fit, {**told, "train_top1": _shares(fit.logits(features), labels)["top1"], **found}


def held_out_rows(labels: Tensor, share: float, seed: int) -> Tensor:
    """(N,) bool, on the CPU: rows of the held-out part, `share` of each class rounded down, drawn by `seed`.

    A class of more than one row gives at least one, and keeps at least one.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = generator_of(seed, "held-out features")
    for label in labels.unique().tolist():
        rows = (labels.cpu() == label).nonzero()[:, 0]
        count = min(len(rows) - 1, max(1, int(share * len(rows))))
        held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held


def _choose(
    features: Tensor, labels: Tensor, classes: int, options: LinearOptions, held: Tensor
) -> tuple[float, float]:
    """The strength, and its accuracy on the held-out part."""
    if not held.any():
        raise ConfigError(
            f"none of the {len(labels)} training features can be held out, because every class has only one; use a "
            "single strength (--linear_strengths), or more labels."
        )
    scores = []
    for strength in options.strengths:
        fit = LinearFit(features[~held], labels[~held], classes, strength, options)
        logits = fit.logits(features[held])
        loss = torch.nn.functional.cross_entropy(logits, labels[held]).item()
        scores.append((_shares(logits, labels[held])["top1"], -loss, strength))
    best = max(scores)
    return best[2], best[0]


class LinearFit:
    """One logistic regression of float64 features.

    Attributes:
        iterations: of L-BFGS.
        gradient: largest entry of the gradient of weights and bias.
        converged: whether it vanished within the tolerance; if not, a warning was logged.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int, strength: float, options: LinearOptions) -> None:
        self._mean = features.mean(dim=0)
        deviation = features.std(dim=0, correction=0)
        # Of a constant feature the rounding is left, which must not be blown up.
        tiny = 1e-10 * (1 + self._mean.abs())
        self._deviation = torch.where(deviation > tiny, deviation, torch.ones_like(deviation))
        self._solve(self._standard(features), labels, classes, strength, options)

    def _solve(self, inputs: Tensor, labels: Tensor, classes: int, strength: float, options: LinearOptions) -> None:
        basis, scales = _preconditioner(inputs, strength)
        # The same problem in the principal axes of the inputs, each scaled by its curvature: tokens of an encoder are
        # so correlated that L-BFGS takes thousands of iterations without.
        turned = (inputs @ basis) * scales
        weight = inputs.new_zeros(classes, inputs.shape[1]).requires_grad_()
        self._bias = inputs.new_zeros(classes).requires_grad_()
        parameters = [weight, self._bias]
        solver = torch.optim.LBFGS(
            parameters,
            lr=1.0,
            max_iter=options.max_iterations,
            max_eval=4 * options.max_iterations,
            # Stricter than in the original axes, in which convergence is judged below.
            tolerance_grad=options.tolerance * float(scales.min()) / 4,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            with torch.enable_grad():
                solver.zero_grad()
                fit = torch.nn.functional.cross_entropy(turned @ weight.T + self._bias, labels)
                value = fit + 0.5 * strength * (weight * scales).square().sum()
                value.backward()
            return value

        solver.step(loss)
        self._weight = ((weight.detach() * scales) @ basis.T).requires_grad_()
        parameters = [self._weight, self._bias]
        self.iterations = int(solver.state[weight]["n_iter"])
        solver.zero_grad()
        with torch.enable_grad():
            value = torch.nn.functional.cross_entropy(inputs @ self._weight.T + self._bias, labels)
            (value + 0.5 * strength * self._weight.square().sum()).backward()
        self.gradient = max(p.grad.abs().max().item() for p in parameters if p.grad is not None)
        self.converged = self.gradient <= options.tolerance
        if not self.converged:
            logger.warning(
                "The linear probe with strength %g has NOT converged: after %d iterations the largest entry of its "
                "gradient is %.2g, above %.2g. Its results are not those of the best linear classifier.",
                strength, self.iterations, self.gradient, options.tolerance,
            )  # fmt: skip

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self._mean) / self._deviation

    def logits(self, features: Tensor) -> Tensor:
        """(M, L) of features (M, D)."""
        with torch.no_grad():
            return self._standard(features) @ self._weight.T + self._bias


def _preconditioner(inputs: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Principal axes of standardised inputs (N, D) as columns (D, D), and a scale for each, (D,).

    The curvature along an axis is about its variance times p (1 - p) of a class, taken as 1/8, and the strength.
    """
    variances, basis = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
    curvature = variances.clamp_min(0) / 8 + strength
    return basis, curvature.rsqrt()


def _shares(scores: Tensor, labels: Tensor) -> dict[str, float]:
    ranks = label_ranks(scores.cpu().numpy(), labels.cpu().long().numpy())
    return {"top1": float((ranks == 0).mean()), "top5": float((ranks < TOP).mean())}


def _checked(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int | None
) -> tuple[Tensor, Tensor, int]:
    """Both features in float64 on the training features' device, and the number of classes."""
    for features, labels, what in ((train, train_labels, "training"), (test, test_labels, "test")):
        if features.ndim != 2 or not features.numel() or labels.shape != features.shape[:1]:
            raise DataError(
                f"the {what} features have shape {tuple(features.shape)} and their labels {tuple(labels.shape)}; a "
                "probe requires (N, D) and (N,), with N and D above 0"
            )
        bad = int((~features.isfinite().all(dim=1)).sum())
        if bad:
            raise DataError(
                f"{bad} of {len(features)} {what} features are not finite; check the weights of --init_from, and use "
                "--train.precision bf16 or no"
            )
    if train.shape[1] != test.shape[1]:
        raise DataError(f"training features are {train.shape[1]} wide, but test features are {test.shape[1]}")
    highest = int(max(train_labels.max(), test_labels.max()))
    classes = highest + 1 if num_classes is None else num_classes
    if min(int(train_labels.min()), int(test_labels.min())) < 0 or highest >= classes:
        raise LabelError(f"labels must be class ids from 0 to {classes - 1}; leave out samples without a label")
    if len(train_labels.unique()) < 2:
        raise LabelError("the training features are all of one class; a probe requires at least two")
    return train.detach().double(), test.detach().to(train.device).double(), classes
