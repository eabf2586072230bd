"""Measured cost against stated cost: straight lines, residuals, and sentences about what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

OUTSIDE = 0.10  # a residual beyond this share is said in text


def fit_line(flops: Sequence[float], seconds: Sequence[float]) -> dict[str, Any]:
    """Least squares of seconds = a + b * flops on relative errors; a is not below zero.

    Returns:
        a (seconds), b (seconds per operation), rate (operations per second), residuals (measured / line - 1).
    """
    x, y = np.asarray(flops, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    a, b = np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0]
    if a < 0.0 or b <= 0.0:
        a, b = 0.0, float((x / y).sum() / ((x / y) ** 2).sum())
    line = a + b * x
    residuals = (y / line - 1.0).tolist()
    return {"a": float(a), "b": float(b), "rate": float(1.0 / b), "residuals": residuals}


def growth(rows: Sequence[dict[str, Any]]) -> float:
    """Exponent of time over operations between the ends of a line: 1 where time grows as the formula says."""
    first, last = rows[0], rows[-1]
    return float(np.log(last["seconds"] / first["seconds"]) / np.log(last["flops"] / first["flops"]))


def lines_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by line, ascending in x."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["x"]):
        found.setdefault(f"{row['curve']}/{row['decoder']}", []).append(row)
    return found


def explained(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How far the rate of a step and that of its matrix products and attention alone vary: largest over smallest."""
    whole = [row["flops"] / row["seconds"] for row in rows]
    products = [
        row["flops"] / (row["seconds"] * (row["shares"]["matmul"] + row["shares"]["attention"])) for row in rows
    ]
    return {"step": max(whole) / min(whole), "products": max(products) / min(products)}


def describe(name: str, rows: Sequence[dict[str, Any]], fit: dict[str, Any]) -> list[str]:
    """Sentences about one line: the fit, what lies off it, and where the time of those points goes."""
    rates = [row["flops"] / row["seconds"] / 1e9 for row in rows]
    spread = explained(rows)
    texts = [
        f"{name}: time = {1e3 * fit['a']:.0f} ms + FLOPs / {fit['rate'] / 1e9:.0f} GFLOP/s, residuals"
        f" {100 * min(fit['residuals']):+.0f} to {100 * max(fit['residuals']):+.0f} %; achieved {rates[0]:.0f} to"
        f" {rates[-1]:.0f} GFLOP/s along x, time ~ FLOPs^{growth(rows):.2f}; rates vary by {spread['step']:.2f}x, those"
        f" of matrix products and attention alone by {spread['products']:.2f}x."
    ]
    for row, residual in zip(rows, fit["residuals"], strict=True):
        if abs(residual) > OUTSIDE:
            kinds = sorted(row["shares"].items(), key=lambda item: -item[1])[:4]
            told = ", ".join(f"{label} {100 * share:.0f} %" for label, share in kinds)
            texts.append(
                f"  x = {row['x']:g} lies {100 * residual:+.0f} % off the line; its time: {told}; system time"
                f" {100 * row['system'] / max(row['seconds'], 1e-9):.0f} %, {row['faults']:.0f} page faults."
            )
    return texts


def describe_memory(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences about memory: what autograd keeps against the formula, and the peak against the stated one."""
    kept = [row["saved"] / row["saved_formula"] - 1.0 for row in rows]
    peak = [row["peak"] / row["peak_formula"] - 1.0 for row in rows]
    texts = [
        f"activations kept for the backward pass against the formula: {100 * min(kept):+.1f} to"
        f" {100 * max(kept):+.1f} % (median {100 * float(np.median(kept)):+.1f} %)",
        f"peak of a step against the formula: {100 * min(peak):+.0f} to {100 * max(peak):+.0f} %"
        f" (median {100 * float(np.median(peak)):+.0f} %)",
    ]
    for name, line in lines_of(rows).items():
        excess = [row["peak"] - row["peak_formula"] for row in line]
        told = ", ".join(f"{value / 2**20:+.0f}" for value in excess)
        texts.append(f"  {name}: peak minus formula along x, MiB: {told}")
    return texts
