"""What a selection may keep: a budget, how documents use it up, and how groups share it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Annotated, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataselect.core.errors import DataselectError
from dataselect.core.sizes import ByteSize, Share
from dataselect.stages.base import PoolBatch
from dataselect.stages.quotas import largest_remainder, redistribute, tempered, water_fill

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_LARGEST_SIZE = 2**31 - 1
"""Of one document, in any unit: sums of sizes then stay exact."""

Size = Literal["docs", "bytes", "words", "tokens", "chars"]
_UNITS = ("docs", "fraction", "bytes", "words", "tokens", "chars")


class Keep(BaseModel):
    """How much to keep: exactly one of the six; a fraction may be `of` another unit than documents."""

    model_config = _STRICT

    docs: int | None = Field(None, ge=0, description="number of documents")
    fraction: float | None = Field(
        None, ge=0, le=1, description="share of what reaches the stage, counted in `of`"
    )
    of: Size = Field("docs", description="fraction: share of the documents, or of their bytes, words, ...")
    bytes: ByteSize | None = Field(None, ge=0, description="budget of text bytes (UTF-8), such as 10GB")
    words: int | None = Field(None, ge=0, description="budget of words (runs between white space)")
    tokens: ByteSize | None = Field(None, ge=0, description="budget of tokens, such as 2G; see `tokens:`")
    chars: ByteSize | None = Field(None, ge=0, description="budget of code points; see `chars:`")

    @model_validator(mode="after")
    def _one(self) -> Keep:
        if sum(getattr(self, name) is not None for name in _UNITS) != 1:
            raise ValueError(f"expected exactly one of {', '.join(_UNITS)}")
        if self.of != "docs" and self.fraction is None:
            raise ValueError("of: only a fraction is of something")
        return self

    @property
    def key(self) -> str:
        """Which of the six it is."""
        return next(name for name in _UNITS if getattr(self, name) is not None)

    @property
    def unit(self) -> Size:
        """What sizes and budget are counted in."""
        return self.of if self.fraction is not None else cast("Size", self.key)

    def budget(self, total: int) -> int:
        """The budget in its unit; a fraction of `total`, in the same unit, is rounded half up."""
        if self.fraction is not None:
            return share_of(self.fraction, total)
        return int(getattr(self, self.unit))

    def scaled(self, share: float) -> Keep:
        """For a sample of `share` of the corpus: absolute budgets shrink with it."""
        if self.fraction is not None:
            return self
        return Keep.model_validate({self.key: round(getattr(self, self.unit) * share)})


class Tokens(BaseModel):
    """How tokens are counted: words x factor, or a column."""

    model_config = _STRICT

    per_word: float = Field(1.3, gt=0, le=100, description="tokens of a word, on average")
    column: str | None = Field(None, description="column with the number of tokens, instead")


Domains = dict[str, Annotated[float, Field(ge=0)]]


class Shares(BaseModel):
    """Shares of groups: exactly one of the two."""

    model_config = _STRICT

    temperature: float | None = Field(
        None,
        gt=0,
        description="in proportion to size^(1/temperature): 1 as they are, 3.3 as XLM-R, large even",
    )
    weights: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="group -> weight; they need not sum to 1; groups that are not named get nothing"
    )

    @model_validator(mode="after")
    def _one(self) -> Shares:
        if (self.temperature is None) == (self.weights is None):
            raise ValueError("expected exactly one of temperature, weights")
        if self.weights is not None and not sum(self.weights.values()) > 0:
            raise ValueError("weights: expected at least one above 0")
        return self


Mixture = Literal["proportional", "each", "equal", "unimax"] | Shares
Short = Literal["error", "take_all", "redistribute"]
Overshoot = Literal["stop_before", "cross", "nearest"]


def share_of(share: float, n_docs: int) -> int:
    """The share of n_docs, rounded half up (0.29 is 29/100, not the nearest double)."""
    exact = Decimal(str(share)) * n_docs
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def sizes(unit: Size, batch: PoolBatch, tokens: Tokens, chars: str) -> tuple[np.ndarray, np.ndarray]:
    """What each document uses up, int64[n], and whether that is known: bool[n].

    A column's size must be a number from 0 to 2^31 - 1; fractions are rounded.
    """
    column = chars if unit == "chars" else tokens.column if unit == "tokens" else None
    if column is not None:
        values = batch.numbers(column)
        known = (values >= 0) & (values <= _LARGEST_SIZE)
        return np.rint(np.where(known, values, 0)).astype(np.int64), known
    if unit == "tokens":
        size = np.minimum(np.rint(batch.n_words * tokens.per_word), _LARGEST_SIZE).astype(np.int64)
    else:
        size = {"bytes": batch.n_bytes, "words": batch.n_words}.get(unit, np.ones(len(batch), np.int64))
    return size, np.ones(len(batch), bool)


def share_out(
    keep: Keep,
    names: Sequence[str],
    reaching: Sequence[int],
    supply: Sequence[int],
    cap: int,
    mixture: Mixture,
) -> list[int]:
    """Quota of every group in units of `keep`, before supply is looked at (but by those that fill it up).

    reaching: what reaches the stage; supply: what can be chosen, once; cap: most copies of a document.
    """
    total = keep.budget(sum(reaching))
    if mixture == "each":
        return [keep.budget(n) for n in reaching]
    if mixture in ("equal", "unimax"):
        return water_fill([cap * n for n in supply], total)
    weights = mixture.weights if isinstance(mixture, Shares) else None
    if weights is not None:
        shares = [Fraction(weights.get(name, 0.0)) for name in names]
    else:
        temperature = mixture.temperature if isinstance(mixture, Shares) else None
        shares = tempered(supply, temperature or 1.0)
    if not sum(shares):
        return [0] * len(names)
    return largest_remainder(shares, total)


def within_supply(
    keep: Keep,
    names: Sequence[str],
    quotas: Sequence[int],
    most: Sequence[int],
    total: int,
    short: Short,
    mixture: Mixture,
) -> list[int]:
    """Quotas that do not exceed `most` of every group, by the policy; DataselectError where it is `error`."""
    lacking = [i for i, quota in enumerate(quotas) if quota > most[i]]
    missing = total - sum(quotas) if mixture in ("equal", "unimax") or not any(quotas) else 0
    if short == "error" and (lacking or missing > 0):
        named = [
            f"{most[i]:,} of {quotas[i]:,}" + (f" from {shown(names[i])}" if len(names) > 1 else "")
            for i in lacking[:5]
        ] or [f"{sum(most):,} of {total:,}"]
        raise DataselectError(
            f"select: too little to keep what `keep.{keep.key}` asks for: there are {', '.join(named)}"
            f"{' and more groups' if len(lacking) > 5 else ''}; lower it, or set `short: take_all`"
            + (" or `redistribute`" if len(names) > 1 else "")
        )
    if short == "redistribute" and lacking:
        return redistribute([Fraction(quota) for quota in quotas], most, sum(quotas))
    return [min(quota, n) for quota, n in zip(quotas, most, strict=True)]


def shown(name: str) -> str:
    """A group's name for people."""
    return f"'{name}'" if name else "the group without a name"


class Tier(BaseModel):
    """The next best `share` of the documents, with so many copies of each on average."""

    model_config = _STRICT

    share: Share = Field(gt=0, le=1, description="share of the documents, such as 5%")
    copies: float = Field(ge=0, description="copies of each; 2.5 is 2 or 3 by draw")
