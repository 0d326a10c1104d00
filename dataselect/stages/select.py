"""Keep a number, a share or a budget of documents: the best by a column, a weighted draw, or a uniform one.

Sampling without replacement with probability proportional to w at every draw (Plackett-Luce) is the top k
of ln w + G with G = -ln(-ln u) standard Gumbel (Efraimidis and Spirakis 2006; DSIR resamples like this).
Every document's u depends on (seed, purpose, document key) only, so nothing depends on order or workers.

Several columns are served one after the other, each with its share of the budget; what one took the next
ones don't see, and each has draws of its own (DSIR's `separate_targets`, `data-selection` 1.0.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataselect.core.sizes import ByteSize
from dataselect.stages.base import Model, Pool, PoolBatch, SelectStage
from dataselect.stages.draws import uniform_draws

_SIGN = np.uint64(1) << np.uint64(63)
_FIXED = 2.0**24
_ALL = np.iinfo(np.int64).max
_DIGIT_BITS = 16  # four passes over 64-bit keys, 65,536 bins each


class Keep(BaseModel):
    """How much to keep: exactly one of the four."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    docs: int | None = Field(None, ge=0, description="number of documents")
    fraction: float | None = Field(
        None, ge=0, le=1, description="share of the documents that reach the stage"
    )
    bytes: ByteSize | None = Field(None, ge=0, description="budget of text bytes (UTF-8), such as 10GB")
    words: int | None = Field(None, ge=0, description="budget of words (runs between white space)")

    @model_validator(mode="after")
    def _one(self) -> Keep:
        if sum(value is not None for value in (self.docs, self.fraction, self.bytes, self.words)) != 1:
            raise ValueError("expected exactly one of docs, fraction, bytes, words")
        return self

    def weights(self, batch: PoolBatch) -> np.ndarray:
        """int64[n]: what each document uses up of the budget."""
        if self.bytes is not None:
            return batch.n_bytes
        return batch.n_words if self.words is not None else np.ones(len(batch), np.int64)

    def budget(self, n_docs: int) -> int:
        """The budget in units of `weights`; a fraction is rounded half up."""
        if self.fraction is not None:
            exact = Decimal(str(self.fraction)) * n_docs
            return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
        return next(int(v) for v in (self.docs, self.bytes, self.words) if v is not None)


class Select(SelectStage):
    """Keep documents in order of a rank key while they fit the budget; ties by document id.

    A budget of bytes or words stops before the first document that would exceed it, so that a larger
    budget always keeps a superset.
    """

    use: ClassVar[str] = "select"

    keep_: Keep = Field(alias="keep", description="how much to keep: docs, fraction, bytes or words")
    method: Literal["top_k", "resample", "uniform"] = Field(
        "top_k",
        description="top_k: the largest values of `by`; resample: drawn without replacement by weight `by` "
        "(Gumbel top-k); uniform: drawn evenly",
    )
    by: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="score column of an earlier stage; several are served in turn, each with its share of "
        "the budget; none for uniform",
    )
    shares: list[float] | None = Field(
        None,
        description="share of the budget of each column of `by`, together 1; by default in proportion to the "
        "n-grams of their targets, or equal where columns have none",
    )
    weights: Literal["log", "linear"] = Field(
        "log", description="resample: whether `by` is a log weight (as ngram_importance gives) or a weight"
    )
    temperature: float = Field(
        1.0, gt=0, description="resample: divides the log weight; large is near uniform"
    )
    direction: Literal["max", "min"] = Field(
        "max", description="whether large or small values of `by` are good"
    )
    seed: int = Field(0, ge=0, description="another seed is another draw")

    @model_validator(mode="after")
    def _by_matches_method(self) -> Select:
        if (self.by is None) != (self.method == "uniform"):
            raise ValueError("by: name a score column for top_k and resample, and none for uniform")
        columns = self.input_columns()
        if len(set(columns)) < len(columns):
            raise ValueError(f"by: a column stands there twice, got {columns}")
        return self

    @model_validator(mode="after")
    def _shares_match_columns(self) -> Select:
        shares, n_columns = self.shares, len(self.input_columns())
        if shares is not None and len(shares) != n_columns:
            raise ValueError(f"shares: expected one for each of the {n_columns} columns of by, got {shares}")
        if shares is not None and (min(shares) < 0 or abs(sum(shares) - 1) > 1e-6):
            raise ValueError(f"shares: expected numbers from 0 up that sum to 1, got {shares}")
        return self

    def input_columns(self) -> list[str]:
        return [self.by] if isinstance(self.by, str) else list(self.by or ())

    def scaled(self, share: float) -> Select:
        keep = self.keep_
        budgets = {"docs": keep.docs, "bytes": keep.bytes, "words": keep.words}
        scaled = {name: round(value * share) for name, value in budgets.items() if value is not None}
        return self.model_copy(update={"keep_": Keep(**scaled)}) if scaled else self

    def rank_keys(self, batch: PoolBatch, turn: int = 0) -> np.ndarray:
        """uint64[n], larger is better, by column number `turn` of `by`.

        Integers, so that no rounding of a sum decides who is kept.
        """
        if self.method == "uniform":
            return _ordered(self._draws(batch.keys, turn))
        values = batch.columns[self.input_columns()[turn]]
        values = values if self.direction == "max" else -values
        if self.method == "top_k":
            return _ordered(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_weight = values if self.weights == "log" else np.log(values)
        gumbel = -np.log(-np.log(self._draws(batch.keys, turn)))
        return _ordered(np.rint(log_weight / self.temperature * _FIXED) + np.rint(gumbel * _FIXED))

    def _draws(self, keys: np.ndarray, turn: int) -> np.ndarray:
        purpose = f"select:{self.method}" + (f":{self.input_columns()[turn]}" if turn else "")
        return uniform_draws(keys, self.seed, purpose)

    def draws(self, keys: np.ndarray) -> np.ndarray | None:
        """Those for the first column."""
        return None if self.method == "top_k" else self._draws(keys, 0)

    def find_threshold(self, pool: Pool) -> dict[str, np.ndarray]:
        """Threshold uint64[n_columns] and tie_budget int64[n_columns] in units of the budget."""
        model = {"threshold": np.empty(0, np.uint64), "tie_budget": np.empty(0, np.int64)}
        for turn, budget in enumerate(self._budgets(pool)):
            left = _Remaining(self, pool, model) if turn else pool
            key, tie_budget = self._boundary(left, turn, budget)
            model = {
                "threshold": np.append(model["threshold"], np.uint64(key)),
                "tie_budget": np.append(model["tie_budget"], np.int64(tie_budget)),
            }
        return model

    def _budgets(self, pool: Pool) -> list[int]:
        """Of every column int(budget * share), the rest to the last, as data-selection 1.0.3 has it."""
        budget = self.keep_.budget(sum(len(batch) for batch in pool.batches()))
        columns = self.input_columns() or [""]
        if self.shares is not None:
            masses = np.array(self.shares)
        else:
            known = all(name in pool.masses for name in columns)
            masses = np.array([pool.masses[name] if known else 1.0 for name in columns])
        budgets = [int(budget * share) for share in (masses / masses.sum()).tolist()]
        budgets[-1] += budget - sum(budgets)
        return budgets

    def _boundary(self, pool: Pool, turn: int, budget: int) -> tuple[int, int]:
        """(key, budget left for documents of that key): what is above the key fits.

        Radix selection: one pass over the pool for every 16 bits of the key.
        """
        prefix = 0
        for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
            used = self._digit_weights(pool, turn, prefix, shift)
            above = np.cumsum(used[::-1])  # weight of the best bins, best first
            full_bins = int(np.searchsorted(above, budget, side="right"))
            if full_bins == len(used):  # everything under this prefix fits: only at the first digit
                return 0, _ALL
            budget -= int(above[full_bins - 1]) if full_bins else 0
            prefix = prefix << _DIGIT_BITS | (len(used) - 1 - full_bins)
        return prefix, budget

    def _digit_weights(self, pool: Pool, turn: int, prefix: int, shift: int) -> np.ndarray:
        """int64[2^16]: weight by the digit at `shift` of the keys that start with `prefix`."""
        used = np.zeros(1 << _DIGIT_BITS, np.int64)
        for batch in pool.batches():
            keys, weights = self.rank_keys(batch, turn), self.keep_.weights(batch)
            if shift + _DIGIT_BITS < 64:
                inside = keys >> np.uint64(shift + _DIGIT_BITS) == prefix
                keys, weights = keys[inside], weights[inside]
            digits = (keys >> np.uint64(shift) & np.uint64((1 << _DIGIT_BITS) - 1)).astype(np.int64)
            np.add.at(used, digits, weights)
        return used

    def chosen(self, batch: PoolBatch, model: Model, state: dict[Any, Any]) -> np.ndarray:
        mask = np.zeros(len(batch), bool)
        for turn, threshold in enumerate(model["threshold"]):
            left = np.flatnonzero(~mask)
            rest = batch.take(left)
            keys, weights = self.rank_keys(rest, turn), self.keep_.weights(rest)
            mask[left[keys > threshold]] = True
            tied = np.flatnonzero(keys == threshold)
            used = state.get(turn, 0) + np.cumsum(weights[tied])
            mask[left[tied[used <= model["tie_budget"][turn]]]] = True
            state[turn] = int(used[-1]) if len(used) else state.get(turn, 0)
        return mask


class _Remaining(Pool):
    """What the columns served so far leave of a pool."""

    def __init__(self, stage: Select, pool: Pool, model: Model) -> None:
        self._stage, self._pool, self._model = stage, pool, model

    def batches(self) -> Iterator[PoolBatch]:
        state: dict[Any, Any] = {}
        for batch in self._pool.batches():
            yield batch.take(~self._stage.chosen(batch, self._model, state))


def _ordered(values: np.ndarray) -> np.ndarray:
    """uint64 keys in the order of the floats; -0.0 as 0.0, and null or NaN below everything."""
    values = np.where(np.isnan(values), -np.inf, values) + 0.0
    bits = values.astype(np.float64).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)
