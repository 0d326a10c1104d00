"""From scores to probabilities that mean what they say (Platt 1999; Guo et al. 2017, arXiv 1706.04599).

A score z = logit(score) becomes 1 / (1 + exp(-(a z + b))): a is the inverse of a temperature, b moves the
prior. Both are fitted on one half of the held-out documents and judged on the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

N_BINS = 10
MIN_DOCS = 25
"""Of each class in each half; with fewer, the fit says more about chance than about the model."""
_SCORE_OFFSET = 1e-5  # fastText reports p + 1e-5
_LEAST = 1e-6
_NEWTON_STEPS, _TINY = 100, 1e-10


def calibrate(scores: np.ndarray, is_positive: np.ndarray, in_fit: np.ndarray) -> dict[str, Any] | None:
    """(a, b) fitted where `in_fit`, and the reliability of the rest before and after; None with too few.

    scores float32[n_docs], is_positive and in_fit bool[n_docs].
    """
    groups = [in_fit & is_positive, in_fit & ~is_positive, ~in_fit & is_positive, ~in_fit & ~is_positive]
    if min(int(group.sum()) for group in groups) < MIN_DOCS:
        return None
    z = logit(scores)
    a, b = fit_platt(z[in_fit], is_positive[in_fit])
    before, after = scores[~in_fit].astype(np.float64), platt(z[~in_fit], a, b)
    truth = is_positive[~in_fit]
    return {
        "a": a,
        "b": b,
        "formula": "P = 1 / (1 + exp(-(a * z + b))), z = ln(s / (1 - s)), s = score - 1e-5, "
        f"clipped to [{_LEAST:g}, 1 - {_LEAST:g}]",
        "n_fit": int(in_fit.sum()),
        "n_judged": len(truth),
        "ece_before": expected_error(before, truth),
        "ece_after": expected_error(after, truth),
        "reliability_before": reliability(before, truth),
        "reliability_after": reliability(after, truth),
    }


def logit(scores: np.ndarray) -> np.ndarray:
    """float64: ln(p / (1 - p)) of scores as the package reports them."""
    p = np.clip(scores.astype(np.float64) - _SCORE_OFFSET, _LEAST, 1 - _LEAST)
    return np.log(p) - np.log1p(-p)


def platt(z: np.ndarray, a: float, b: float) -> np.ndarray:
    """1 / (1 + exp(-(a z + b))), for any size of the argument."""
    return np.exp(-np.logaddexp(0.0, -(a * z + b)))


def fit_platt(z: np.ndarray, is_positive: np.ndarray) -> tuple[float, float]:
    """(a, b) of least log loss, by damped Newton steps (Lin, Lin and Weng 2007).

    Targets are Platt's (n+ + 1) / (n+ + 2) and 1 / (n- + 2), so the fit is finite for separable scores too.
    """
    n_positive = int(is_positive.sum())
    n_negative = len(z) - n_positive
    target = np.where(is_positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    point = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    basis = np.stack([z, np.ones_like(z)])
    loss = _log_loss(point @ basis, target)
    for _ in range(_NEWTON_STEPS):
        p = platt(point @ basis, 1.0, 0.0)
        gradient = basis @ (p - target)
        hessian = (basis * (p * (1 - p))) @ basis.T + 1e-12 * np.eye(2)
        if np.abs(gradient).max() < _TINY * len(z):
            break
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while scale > _TINY and _log_loss((point - scale * step) @ basis, target) > loss:
            scale /= 2
        point = point - scale * step
        loss = _log_loss(point @ basis, target)
    return float(point[0]), float(point[1])


def _log_loss(margin: np.ndarray, target: np.ndarray) -> float:
    return float((np.logaddexp(0.0, margin) - target * margin).sum())


def reliability(p: np.ndarray, is_positive: np.ndarray) -> list[dict[str, float]]:
    """Of N_BINS equal parts of [0, 1] those with documents: number, mean probability, share of positives."""
    part = np.minimum((p * N_BINS).astype(np.int64), N_BINS - 1)
    return [
        {
            "from": code / N_BINS,
            "n_docs": int((part == code).sum()),
            "mean_probability": float(p[part == code].mean()),
            "share_positive": float(is_positive[part == code].mean()),
        }
        for code in np.unique(part).tolist()
    ]


def expected_error(p: np.ndarray, is_positive: np.ndarray) -> float:
    """Expected calibration error: mean over documents of |share of positives - mean p| of their part."""
    rows = reliability(p, is_positive)
    gaps = [row["n_docs"] * abs(row["share_positive"] - row["mean_probability"]) for row in rows]
    return sum(gaps) / len(p)
