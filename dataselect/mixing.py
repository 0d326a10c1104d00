"""Data mixing laws (Ye et al. 2024, arXiv 2403.16952): from a table of proxy runs to the best mixture.

Each run trained a small model on domains in shares r (summing to 1) and measured losses. A law for one loss
is L(r) = c + k exp(sum_j t_j r_j). As the shares sum to 1, k moves every t_j alike: it is part of t here. A
sum of such laws is convex in r, so that its minimum under supply caps is found by projected gradients.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataselect.core.errors import RecipeError
from dataselect.core.names import nearest

HUBER = 0.02
"""Residuals of a loss above this count linearly, as in the paper's code (0.01 to 0.05)."""
_FLOORS = np.concatenate([[0.0], 1 - np.geomspace(1, 1e-3, 24)[1:]])
"""First guesses of c, as parts of the smallest loss."""
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Law:
    """L(r) = floor + exp(slopes . r)."""

    floor: float
    slopes: np.ndarray
    error: float
    """Root mean square of the residuals."""

    def __call__(self, shares: np.ndarray) -> np.ndarray:
        """Losses float64[n] of shares float64[n, n_domains]."""
        losses: np.ndarray = self.floor + np.exp(shares @ self.slopes)
        return losses


def fit_law(shares: np.ndarray, losses: np.ndarray) -> Law:
    """The law with the least Huber loss, by Levenberg-Marquardt from two dozen first guesses of the floor.

    shares float64[n_runs, n_domains], rows summing to 1; losses float64[n_runs], all above 0.
    """
    best = (math.inf, np.zeros(0))
    for part in _FLOORS:
        rest = losses - part * losses.min()
        # Errors of log(rest) are those of the loss over rest: hence the weights.
        slopes = np.linalg.lstsq(shares * rest[:, None], np.log(rest) * rest, rcond=None)[0]
        start = np.append(np.log(max(part * losses.min(), 1e-6)), slopes)
        best = min(best, _descend(start, shares, losses), key=lambda found: found[0])
    floor, slopes = float(np.exp(best[1][0])), best[1][1:]
    law = Law(floor, slopes, 0.0)
    return Law(floor, slopes, float(np.sqrt(np.mean((law(shares) - losses) ** 2))))


def _descend(start: np.ndarray, shares: np.ndarray, losses: np.ndarray) -> tuple[float, np.ndarray]:
    """(Huber loss, parameters: log floor, slopes) after damped Gauss-Newton steps with Huber's weights."""

    def residuals(at: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            found: np.ndarray = np.exp(at[0]) + np.exp(shares @ at[1:]) - losses
        return found

    def huber(values: np.ndarray) -> float:
        size = np.abs(values)
        return float(np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2)).sum())

    at, damping = start, 1e-3
    now = residuals(at)
    for _ in range(300):
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(now), 1e-300))
        slope = np.column_stack(
            [np.full(len(shares), np.exp(at[0])), shares * np.exp(shares @ at[1:])[:, None]]
        )
        matrix = slope.T @ (slope * weight[:, None])
        step = np.linalg.lstsq(
            matrix + damping * (np.diag(np.diag(matrix)) + 1e-12 * np.eye(len(at))),
            -slope.T @ (now * weight),
            rcond=None,
        )[0]
        then = residuals(at + step)
        if np.isfinite(then).all() and huber(then) < huber(now):
            settled = huber(now) - huber(then) < 1e-14 * max(huber(now), 1e-12)
            at, now, damping = at + step, then, max(damping / 5, 1e-12)
            if settled:
                break
        elif damping > 1e10:
            break
        else:
            damping *= 4
    return huber(now), at


def best_shares(laws: Sequence[Law], weights: Sequence[float], most: np.ndarray) -> np.ndarray:
    """Shares float64[n_domains] in [0, most] that sum to 1 and minimise the weighted sum of the laws.

    most float64[n_domains] must sum to 1 or more.
    """

    def value(at: np.ndarray) -> float:
        return sum(w * float(np.exp(law.slopes @ at)) for w, law in zip(weights, laws, strict=True))

    at, size = project(np.full(len(most), 1 / len(most)), most), 1.0
    for _ in range(20_000):
        steepest = sum(
            (w * np.exp(law.slopes @ at) * law.slopes for w, law in zip(weights, laws, strict=True)),
            np.zeros(len(most)),
        )
        while True:
            then = project(at - size * steepest, most)
            moved = then - at
            if value(then) <= value(at) + steepest @ moved + moved @ moved / (2 * size) or size < 1e-18:
                break
            size /= 2
        at = then
        if np.abs(moved).max() < 1e-12 * max(1.0, size):
            break
        size *= 1.5
    return at


def project(point: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The nearest point with coordinates in [0, most] that sum to 1: point shifted by one level, then cut."""
    low, high = float((point - most).min()) - 1, float(point.max()) + 1
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.clip(point - level, 0, most).sum() > 1 else (low, level)
    return np.clip(point - (low + high) / 2, 0, most)


def read_runs(path: Path, losses: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Domains, their shares float64[n_runs, n_domains] and losses float64[n_runs, n_losses] of a CSV file.

    All columns but the losses and `run` are domains. RecipeError where it is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"{path}: cannot read the table of runs: {error}") from None
    columns = list(rows[0]) if rows else []
    missing = next((name for name in losses if name not in columns), None)
    if missing is not None:
        raise RecipeError(f"{path}: no column '{missing}'{nearest(missing, columns)}")
    domains = [name for name in columns if name not in losses and name != "run"]
    if len(domains) < 2:
        raise RecipeError(f"{path}: expected a column for each of at least two domains, got {domains}")
    if len(rows) < len(domains) + 1:
        raise RecipeError(
            f"{path}: {len(rows)} runs are too few for {len(domains)} domains; there must be at least "
            f"{len(domains) + 1}"
        )
    shares = np.array([[_number(path, i, row, name) for name in domains] for i, row in enumerate(rows)])
    measured = np.array([[_number(path, i, row, name) for name in losses] for i, row in enumerate(rows)])
    for i, sum_of_row in enumerate(shares.sum(axis=1).tolist()):
        if abs(sum_of_row - 1) > _SUM_TOLERANCE or (shares[i] < 0).any():
            raise RecipeError(
                f"{path}: row {i + 1}: shares must be from 0 up and sum to 1, not {sum_of_row:g}"
            )
    if np.linalg.matrix_rank(shares, tol=1e-6) < len(domains):
        raise RecipeError(f"{path}: the runs do not tell the domains apart: vary each share by itself")
    if not (measured > 0).all():
        raise RecipeError(f"{path}: expected losses above 0")
    return domains, shares / shares.sum(axis=1, keepdims=True), measured


def _number(path: Path, i: int, row: Mapping[str, Any], name: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise RecipeError(f"{path}: row {i + 1}: {name}: expected a number, got {row[name]!r}")
    return value


def fit_mixture(
    path: Path, losses: Mapping[str, float], supply: Mapping[str, float], tokens: float | None, epochs: float
) -> dict[str, Any]:
    """Laws of all losses, and the shares that minimise their weighted sum.

    losses: column -> weight; supply: domain -> tokens there are, of which at most `epochs` passes are made in
    a training of `tokens` tokens. RecipeError where that is less than `tokens`.
    """
    domains, shares, measured = read_runs(path, list(losses))
    most = _most(domains, supply, tokens, epochs)
    laws = [fit_law(shares, measured[:, k]) for k in range(len(losses))]
    best = best_shares(laws, list(losses.values()), most)
    return {
        "runs": len(shares),
        "laws": {
            name: {
                "floor": law.floor,
                "slopes": dict(zip(domains, law.slopes.tolist(), strict=True)),
                "error": law.error,
                "predicted": float(law(best)),
                "best_run": float(measured[:, k].min()),
            }
            for k, (name, law) in enumerate(zip(losses, laws, strict=True))
        },
        "shares": {name: round(float(share), 6) for name, share in zip(domains, best, strict=True)},
        "most": {name: float(cap) for name, cap in zip(domains, most, strict=True)},
    }


def _most(
    domains: Sequence[str], supply: Mapping[str, float], tokens: float | None, epochs: float
) -> np.ndarray:
    """Largest share of every domain."""
    for name in supply:
        if name not in domains:
            raise RecipeError(f"--supply {name}: no such domain{nearest(name, domains)}")
    if supply and not tokens:
        raise RecipeError("--supply needs --tokens: how many tokens the training will see")
    caps = {name: min(1.0, epochs * there / (tokens or 1.0)) for name, there in supply.items()}
    most = np.array([caps.get(name, 1.0) for name in domains])
    if most.sum() < 1:
        raise RecipeError(
            f"--supply: {epochs:g} epochs of all domains are {most.sum():.1%} of --tokens; lower it, or "
            "raise --epochs"
        )
    return most
