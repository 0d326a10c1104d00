"""Keep documents by a score, a draw or both, within a budget, for all of them or for every group.

All methods are one of two kinds. *Ranked* ones (top_k, quantile, uniform, resample, tiers) put documents into
an order and find where a budget ends. *Weighted* ones (poisson, systematic, copies) give each document
lambda = min(R, c w) expected copies and draw whole copies. threshold and lomax decide each document alone.

Sampling without replacement with probability proportional to w at every draw (Plackett-Luce) is the top k
of ln w + G with G = -ln(-ln u) standard Gumbel (Efraimidis and Spirakis 2006; DSIR resamples like this).
Every document's u depends on (seed, purpose, document key) only, so nothing depends on order or workers.

Several columns are served one after the other, each with its share of the budget; what one took the next
ones don't see, and each has draws of its own (DSIR's `separate_targets`, `data-selection` 1.0.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from dataselect.stages import budget, expected, radix
from dataselect.stages.base import NUMBER, STRING, Model, Pool, PoolBatch, SelectStage, Tally
from dataselect.stages.budget import Keep, Mixture, Overshoot, Shares, Short, Tier, Tokens, share_of
from dataselect.stages.draws import uniform_draws
from dataselect.stages.groups import Groups, Survey
from dataselect.stages.quotas import effective
from dataselect.stages.radix import ALL, Ranked, ordered, running_sums
from dataselect.stages.tally import SelectTally

Method = Literal[
    "top_k", "threshold", "quantile", "uniform", "resample",
    "poisson", "systematic", "copies", "tiers", "lomax",
]  # fmt: skip
WEIGHTED = frozenset({"poisson", "systematic", "copies"})
DRAWN = frozenset({"uniform", "resample", "poisson", "systematic", "copies", "tiers", "lomax"})
WITHOUT_BUDGET = frozenset({"threshold", "tiers", "lomax"})
_NEEDS_NO_BUDGET: JsonDict = {
    "properties": {"method": {"enum": [*sorted(WITHOUT_BUDGET)]}},
    "required": ["method"],
}
_PREFIXES = frozenset({"top_k", "uniform", "resample", "quantile"})
_FIXED = 2.0**24
_USUAL_BYTES = {"docs": 2000, "bytes": 1, "chars": 1, "words": 6, "tokens": 6}
"""Of text, about, for one document, byte, code point or word; for estimates."""
_ONLY_FOR: dict[str, frozenset[str]] = {
    "threshold": frozenset({"threshold"}),
    "alpha": frozenset({"lomax"}),
    "tiers": frozenset({"tiers"}),
    "max_copies": frozenset({"copies", "tiers"}),
    "rounding": frozenset({"copies", "tiers"}),
    "overshoot": frozenset({"top_k", "uniform", "resample"}),
    "weights": WEIGHTED | {"resample"},
    "temperature": WEIGHTED | {"resample"},
    "shares": frozenset({"top_k", "resample"}),
    "short": _PREFIXES | WEIGHTED,
    "mixture": _PREFIXES | WEIGHTED,
    "per": _PREFIXES | WEIGHTED | {"tiers"},
}
"""Parameters that mean nothing to other methods."""


class Select(SelectStage):
    """Keep documents within a budget: by rank, by draw, or in whole copies; all together or group by group.

    Ranked documents are taken in order while they fit; ties by document id. A document whose score, weight
    or size is missing, not a number, infinite as a weight or negative as one is never kept, and is counted.
    """

    use: ClassVar[str] = "select"
    version: ClassVar[int] = 2
    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["keep"]}, _NEEDS_NO_BUDGET]},
    )

    keep_: Keep | None = Field(
        None,
        alias="keep",
        description="how much to keep: docs, fraction, bytes, words, tokens or chars; not for threshold, "
        "tiers and lomax",
    )
    method: Method = Field(
        "top_k",
        description="top_k: the largest values of `by`; threshold: all from a value on; quantile: as top_k "
        "with a fraction, equal values alike; resample: drawn without replacement by weight `by` (Gumbel "
        "top-k); uniform: drawn evenly; poisson, systematic: drawn with probability in exact proportion to "
        "the weight; copies: the same with whole copies; tiers: copies by rank; lomax: GPT-3's noisy rule",
    )
    by: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="score column of an earlier stage; several are served in turn, each with its share of "
        "the budget; none for uniform; without one, poisson, systematic and copies weigh all alike",
    )
    shares: list[float] | None = Field(
        None,
        description="share of the budget of each column of `by`, together 1; by default in proportion to the "
        "n-grams of their targets, or equal where columns have none",
    )
    weights: Literal["log", "linear"] = Field(
        "log", description="whether `by` is a log weight (as ngram_importance gives) or a weight"
    )
    temperature: float = Field(1.0, gt=0, description="divides the log weight; large is near uniform")
    direction: Literal["max", "min"] = Field(
        "max", description="whether large or small values of `by` are good"
    )
    overshoot: Overshoot = Field(
        "stop_before",
        description="the document at which the budget ends: stop_before leaves it out, cross takes it, "
        "nearest does what comes closer",
    )
    tokens: Tokens = Field(
        Tokens.model_validate({}), description="keep.tokens: words x per_word, or a column"
    )
    chars: str = Field("n_chars", description="keep.chars: column with lengths, as length_filter adds it")
    per: str | None = Field(
        None, description="column whose values are groups (source, language), each with its own quota"
    )
    mixture: Mixture = Field(
        "proportional",
        description="quotas of the groups: proportional to their size; each: the whole budget for every one; "
        "equal: the same, small ones all they have; unimax: equal with up to max_copies epochs; "
        "{temperature: T}: by size^(1/T); {weights: {name: weight}}",
    )
    short: Short = Field(
        "take_all",
        description="where there is less than the budget or quota: error; take_all there is; redistribute "
        "among the other groups by their shares",
    )
    max_copies: int = Field(4, ge=1, le=100, description="copies, tiers: most copies of a document")
    rounding: Literal["systematic", "independent"] = Field(
        "systematic",
        description="copies, tiers: sums are exact along the order of documents, or each by its own draw",
    )
    threshold: float | None = Field(None, description="threshold: the worst value of `by` that is kept")
    tiers: list[Tier] | None = Field(
        None, description="tiers: from the best down, [{share: 5%, copies: 4}, ...]; the rest is dropped"
    )
    alpha: float = Field(9.0, gt=0, description="lomax: kept with probability (2 - score)^-alpha")
    nested: bool = Field(
        False, description="insist that a larger budget keeps all that a smaller one does, or refuse"
    )
    seed: int = Field(0, ge=0, description="another seed is another draw")
    as_: str | None = Field(
        None,
        alias="as",
        description="drop nothing, and add a column of this name with the copies of each document: for "
        "output.phases",
    )

    # Parameters -------------------------------------------------------------------------------------------

    @model_validator(mode="after")
    def _by_matches_method(self) -> Select:
        if self.by is not None and self.method == "uniform":
            raise ValueError("by: uniform needs none; resample draws by weight")
        if self.by is None and self.method != "uniform" and self.method not in WEIGHTED:
            raise ValueError(f"by: name a score column for {self.method}")
        if isinstance(self.by, list):
            if len(set(self.by)) < len(self.by):
                raise ValueError(f"by: a column stands there twice, got {self.by}")
            if len(self.by) > 1 and self.method not in ("top_k", "resample"):
                raise ValueError(f"by: {self.method} takes one column, got {self.by}")
        return self

    @model_validator(mode="after")
    def _shares_match_columns(self) -> Select:
        shares, n_columns = self.shares, len(self.score_columns)
        if shares is not None and len(shares) != n_columns:
            raise ValueError(f"shares: expected one for each of the {n_columns} columns of by, got {shares}")
        if shares is not None and (min(shares) < 0 or abs(sum(shares) - 1) > 1e-6):
            raise ValueError(f"shares: expected numbers from 0 up that sum to 1, got {shares}")
        return self

    @model_validator(mode="after")
    def _parameters_fit_the_method(self) -> Select:
        if (self.keep_ is None) != (self.method in WITHOUT_BUDGET):
            what = "takes no budget" if self.keep_ is not None else "needs a budget, such as {fraction: 0.2}"
            raise ValueError(f"keep: {self.method} {what}")
        for name, methods in _ONLY_FOR.items():
            if self.method not in methods and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: only for {', '.join(sorted(methods))}, not for {self.method}")
        for name in ("threshold", "tiers"):
            if self.method == name and not getattr(self, name) and getattr(self, name) != 0:
                raise ValueError(f"{name}: missing; the method {name} needs it")
        if self.method == "quantile" and self.keep_ is not None and self.keep_.fraction is None:
            raise ValueError("keep: quantile takes a fraction")
        if self.direction == "min" and (
            self.method == "lomax" or (self.weights == "linear" and self.method in WEIGHTED | {"resample"})
        ):
            raise ValueError("direction: min does not go with weights; give log weights, or turn the score")
        return self

    @model_validator(mode="after")
    def _tiers_add_up(self) -> Select:
        tiers = self.tiers or []
        if sum(tier.share for tier in tiers) > 1 + 1e-9:
            raise ValueError("tiers: the shares sum to more than 1")
        most = max((tier.copies for tier in tiers), default=0.0)
        if most > self.max_copies:
            raise ValueError(f"tiers: {most:g} copies are more than max_copies ({self.max_copies})")
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Select:
        if self.per is None and self.mixture != "proportional":
            raise ValueError("mixture: name the column of the groups with `per:`")
        if self.mixture == "unimax" and self.method != "copies":
            raise ValueError("mixture: unimax repeats documents: it needs method copies; else use equal")
        if self.mixture == "equal" and self.method == "copies":
            raise ValueError("mixture: with copies this is called unimax")
        if self.short == "redistribute" and (self.per is None or self.mixture == "each"):
            raise ValueError("short: there is nothing to redistribute without groups that share a budget")
        return self

    @model_validator(mode="after")
    def _nested_where_it_can_be(self) -> Select:
        reason = None
        if self.method == "systematic" or (
            self.method in ("copies", "tiers") and self.rounding == "systematic"
        ):
            reason = "systematic rounding moves other documents over the edge"
        elif len(self.score_columns) > 1:
            reason = "a larger budget of one column takes documents from the next"
        elif self.per is not None and self.mixture not in ("each", "equal", "unimax"):
            reason = "rounded shares of a larger budget can be smaller; use mixture each or equal"
        elif self.short == "redistribute":
            reason = "what is redistributed is rounded again"
        if self.nested and reason:
            raise ValueError(f"nested: {reason}")
        return self

    @property
    def score_columns(self) -> list[str]:
        """Those of `by`, in turn."""
        return [self.by] if isinstance(self.by, str) else list(self.by or ())

    def input_columns(self) -> list[str]:
        unit = self.keep_.unit if self.keep_ else None
        sizes = self.chars if unit == "chars" else self.tokens.column if unit == "tokens" else None
        return list(dict.fromkeys([*self.score_columns, *(name for name in (self.per, sizes) if name)]))

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        groups = {self.per: known.get(self.per, STRING)} if self.per else {}
        numbers = [name for name in self.input_columns() if name != self.per]
        texts = [name for name in numbers if known.get(name, NUMBER) != NUMBER]
        if texts:
            raise ValueError(f"'{texts[0]}' is a {known[texts[0]]}, not a number")
        return groups | dict.fromkeys(numbers, NUMBER)

    def scaled(self, share: float) -> Select:
        return self.model_copy(update={"keep_": self.keep_.scaled(share)}) if self.keep_ else self

    def repeats(self) -> bool:
        return self.as_ is None and self.method in ("copies", "tiers") and self.cap > 1

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "int32"} if self.as_ else {}

    @property
    def cap(self) -> int:
        """Most copies of a document."""
        return self.max_copies if self.method in ("copies", "tiers") else 1

    # Values of rows ---------------------------------------------------------------------------------------

    def _values(self, batch: PoolBatch, turn: int) -> np.ndarray | None:
        """float64[n]: score, or log weight over temperature; NaN where it can't be used."""
        if not self.score_columns:
            return None
        values = batch.numbers(self.score_columns[turn])
        if self.method not in WEIGHTED and self.method != "resample":
            return values if self.direction == "max" else -values
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(values) if self.weights == "linear" else values
            logs = (logs if self.direction == "max" else -logs) / self.temperature
        return np.where(logs == np.inf, np.nan, logs)

    def rank_keys(self, batch: PoolBatch, turn: int = 0) -> np.ndarray:
        """uint64[n], larger is better, by column number `turn` of `by`.

        Integers, so that no rounding of a sum decides who is kept.
        """
        if self.method == "uniform":
            return ordered(self._draws(batch.keys, turn))
        values = self._values(batch, turn)
        assert values is not None
        if self.method != "resample":
            return ordered(values)
        gumbel = -np.log(-np.log(self._draws(batch.keys, turn)))
        return ordered(np.rint(values * _FIXED) + np.rint(gumbel * _FIXED))

    def _draws(self, keys: np.ndarray, turn: int = 0) -> np.ndarray:
        purpose = f"select:{self.method}" + (f":{self.score_columns[turn]}" if turn else "")
        return uniform_draws(keys, self.seed, purpose)

    def draws(self, keys: np.ndarray) -> np.ndarray | None:
        """Those for the first column; none where sums along the order of documents decide."""
        systematic = self.method == "systematic" or (
            self.method in ("copies", "tiers") and self.rounding == "systematic"
        )
        return self._draws(keys) if self.method in DRAWN and not systematic else None

    def usable_rows(self, groups: Groups, batch: PoolBatch, turn: int = 0) -> UsableRows:
        """The rows that can be chosen, with group and size."""
        size, usable = self.sizes(batch)
        values = self._values(batch, turn)
        if values is not None:
            usable = usable & ~np.isnan(values)
        group = groups.codes(batch)
        usable = usable & (group >= 0)
        if usable.all():
            return UsableRows(np.arange(len(batch)), batch, group, size)
        at = np.flatnonzero(usable)
        return UsableRows(at, batch.take(at), group[at], size[at])

    def sizes(self, batch: PoolBatch) -> tuple[np.ndarray, np.ndarray]:
        """What each document uses up of the budget, int64[n], and bool[n]: whether that is known."""
        unit = self.keep_.unit if self.keep_ else "docs"
        return budget.sizes(unit, batch, self.tokens, self.chars)

    # The model --------------------------------------------------------------------------------------------

    def find_threshold(self, pool: Pool) -> dict[str, np.ndarray]:
        """Groups, and of each what is to be kept (quota, supply), and how.

        threshold uint64[n_turns, n_groups], tie_budget int64[n_turns, n_groups] in units of the budget of
        ranked methods; scale, largest float64[n_groups] of weighted ones.
        """
        survey = Survey(self.per)
        for batch in pool.batches():
            size, usable = self.sizes(batch)
            values = self._values(batch, 0)
            usable = usable if values is None else usable & ~np.isnan(values)
            tops = np.zeros(len(batch)) if values is None else values
            survey.add(batch, [size, size * usable], np.where(usable, tops, -np.inf))
        named = (self.mixture.weights if isinstance(self.mixture, Shares) else None) or {}
        groups, (reaching, supply), largest = survey.finish([*named] if self.per else [""], 2)
        model = {"groups": groups.pack()}
        if self.method in WEIGHTED:
            return model | self._find_scales(pool, groups, reaching, largest)
        if self.method == "tiers":
            return model | self._find_tiers(pool, groups, supply)
        if self.method in WITHOUT_BUDGET:
            return model | {"supply": supply}
        return model | self._find_boundaries(pool, groups, reaching, supply)

    def _quotas(self, groups: Groups, reaching: np.ndarray, supply: np.ndarray) -> dict[str, np.ndarray]:
        """int64[n_groups]: quota asked for, and within what there is; the whole budget; supply."""
        keep, names = self.keep_, groups.names
        assert keep is not None
        there = supply.tolist()
        asked = budget.share_out(keep, names, reaching.tolist(), there, self.cap, self.mixture)
        total = sum(asked) if self.mixture == "each" else keep.budget(int(reaching.sum()))
        most = [self.cap * n for n in there]
        quotas = budget.within_supply(keep, names, asked, most, total, self.short, self.mixture)
        as_arrays = {"asked": asked, "quota": quotas, "budget": [total], "supply": there}
        return {name: np.array(values, np.int64) for name, values in as_arrays.items()}

    def forecast(self, last: Mapping[str, Any]) -> dict[str, Any] | None:
        """Quotas from what every group had in an earlier run, copies spread evenly.

        DataselectError where that is short and `short: error`.
        """
        unit = self.keep_.unit if self.keep_ else "docs"
        if self.keep_ is None or (last["per"], last["unit"]) != (self.per, unit):
            return None
        there = {g["name"]: g for g in last["groups"] if g["name"] is not None and g["supply"] is not None}
        named = (self.mixture.weights if isinstance(self.mixture, Shares) else None) or {}
        groups = Groups(self.per, sorted({*there, *named}))
        supply = np.array([there[n]["supply"] if n in there else 0 for n in groups.names], np.int64)
        n_docs = np.array([there[n]["docs"] if n in there else 0 for n in groups.names], np.int64)
        found = self._quotas(groups, n_docs, supply)
        rows = zip(groups.names, n_docs, supply, found["asked"], found["quota"], strict=True)
        return {
            "as": self.as_,
            "method": self.method,
            "per": self.per,
            "unit": unit,
            "budget": int(found["budget"][0]),
            "lacking": int(found["budget"][0] - found["quota"].sum()),
            "groups": [_expected_of(name, *(int(n) for n in numbers)) for name, *numbers in rows],
        }

    def estimate(self, n_bytes: int) -> dict[str, Any] | None:
        if self.keep_ is None or self.keep_.fraction is not None:
            return None
        unit = self.keep_.unit
        about = n_bytes / _USUAL_BYTES[unit] * (self.tokens.per_word if unit == "tokens" else 1)
        return {"unit": unit, "budget": self.keep_.budget(0), "about": round(about)}

    def _find_boundaries(
        self, pool: Pool, groups: Groups, reaching: np.ndarray, supply: np.ndarray
    ) -> dict[str, np.ndarray]:
        quotas = self._quotas(groups, reaching, supply)
        shape = (0, len(groups.names))
        found = {"threshold": np.empty(shape, np.uint64), "tie_budget": np.empty(shape, np.int64)}
        for turn, budgets in enumerate(self._turns(pool, quotas["quota"])):
            left = _Remaining(self, pool, found | {"groups": groups.pack()}) if turn else pool
            if self.method == "quantile":
                key, _ = radix.boundaries(partial(self._ranked, left, groups, turn), budgets - 1)
                tie_budget = np.where(budgets > 0, ALL, 0)
            else:
                key, tie_budget = radix.boundaries(partial(self._ranked, left, groups, turn), budgets)
            found = {
                "threshold": np.concatenate([found["threshold"], key[None]]),
                "tie_budget": np.concatenate([found["tie_budget"], tie_budget[None]]),
            }
        return found | quotas

    def _ranked(self, pool: Pool, groups: Groups, turn: int) -> Iterator[Ranked]:
        for batch in pool.batches():
            rows = self.usable_rows(groups, batch, turn)
            yield Ranked(rows.group, self.rank_keys(rows.batch, turn), rows.size)

    def _turns(self, pool: Pool, quotas: np.ndarray) -> list[np.ndarray]:
        """Of every column int(quota x share), the rest to the last, as data-selection 1.0.3 has it."""
        columns = self.score_columns or [""]
        if self.shares is not None:
            masses = np.array(self.shares)
        else:
            known = all(name in pool.masses for name in columns)
            masses = np.array([pool.masses[name] if known else 1.0 for name in columns])
        turns = [(quotas * share).astype(np.int64) for share in (masses / masses.sum()).tolist()[:-1]]
        return [*turns, quotas - sum(turns, np.zeros_like(quotas))]

    def _find_tiers(self, pool: Pool, groups: Groups, supply: np.ndarray) -> dict[str, np.ndarray]:
        keys, ties, share = [], [], 0.0
        for tier in self.tiers or []:
            share = min(1.0, round(share + tier.share, 12))
            ends = np.array([share_of(share, n) for n in supply.tolist()], np.int64)
            key, tie_budget = radix.boundaries(partial(self._ranked, pool, groups, 0), ends)
            keys.append(key)
            ties.append(tie_budget)
        return {"threshold": np.stack(keys), "tie_budget": np.stack(ties), "supply": supply}

    def _find_scales(
        self, pool: Pool, groups: Groups, reaching: np.ndarray, largest: np.ndarray
    ) -> dict[str, np.ndarray]:
        def passes() -> Iterator[Ranked]:
            for batch in pool.batches():
                rows = self.usable_rows(groups, batch)
                keys, counts = expected.weight_keys(self._relative(rows, largest))
                yield Ranked(rows.group[counts], keys[counts], rows.size[counts])

        solver = expected.CappedSolver(passes, len(groups.names), self.cap)
        quotas = self._quotas(groups, reaching, solver.supply)
        return quotas | {"scale": solver.solve(quotas["quota"]), "largest": largest}

    def _relative(self, rows: UsableRows, largest: np.ndarray) -> np.ndarray:
        """float64[n] in [0, 1]: weights, the largest of each group being 1."""
        if not self.score_columns:
            return np.ones(len(rows.group))
        top = largest[rows.group]
        values = self._values(rows.batch, 0)
        assert values is not None
        with np.errstate(invalid="ignore", over="ignore"):
            relative = np.exp(values - np.where(np.isfinite(top), top, 0.0))
        return np.where(np.isfinite(values), np.minimum(relative, 1.0), 0.0)

    # Choosing ---------------------------------------------------------------------------------------------

    def chosen(self, batch: PoolBatch, model: Model, state: dict[Any, Any]) -> np.ndarray:
        groups = Groups.unpack(self.per, model["groups"])
        copies = np.zeros(len(batch), np.int64)
        if self.method in ("threshold", "lomax"):
            copies[self._alone(batch)] = 1
        elif self.method in WEIGHTED or self.method == "tiers":
            rows = self.usable_rows(groups, batch)
            units = expected.in_units(self._expected(rows, model, state))
            copies[rows.at] = self._round(rows, units, groups, state)
        else:
            for turn in range(len(model["threshold"])):
                left = np.flatnonzero(copies == 0)
                rows = self.usable_rows(groups, batch.take(left), turn)
                copies[left[rows.at]] = self._taken(rows, model, turn, state)
        return copies

    def _alone(self, batch: PoolBatch) -> np.ndarray:
        """bool[n] of methods that look at no other document."""
        values = self._values(batch, 0)
        assert values is not None
        if self.method == "threshold":
            limit = self.threshold if self.direction == "max" else -(self.threshold or 0.0)
            kept: np.ndarray = values >= limit
            return kept
        # X > 1 - s for X of Lomax(alpha), that is u^(-1/alpha) - 1 > 1 - s.
        probability = (1 + np.maximum(1 - values, 0.0)) ** -self.alpha
        return (self._draws(batch.keys) < probability) & ~np.isnan(values)

    def _taken(self, rows: UsableRows, model: Model, turn: int, state: dict[Any, Any]) -> np.ndarray:
        """bool[n]: what ranks above its group's boundary, and of what ranks with it as much as fits."""
        keys = self.rank_keys(rows.batch, 0 if self.method == "tiers" else turn)
        threshold, left = model["threshold"][turn][rows.group], model["tie_budget"][turn]
        taken = keys > threshold
        tied = np.flatnonzero(keys == threshold)
        carried = state.setdefault(turn, np.zeros(len(left), np.int64))
        size, room = rows.size[tied], left[rows.group[tied]]
        used = running_sums(rows.group[tied], size, carried)
        fits = used <= room
        if self.overshoot == "cross":
            fits |= used - size < room
        elif self.overshoot == "nearest":
            fits |= used - room < room - (used - size)
        taken[tied] = fits
        return taken

    def _expected(self, rows: UsableRows, model: Model, state: dict[Any, Any]) -> np.ndarray:
        """float64[n]: expected copies."""
        if self.method in WEIGHTED:
            keys, counts = expected.weight_keys(self._relative(rows, model["largest"]))
            scaled = expected.key_weights(keys) * model["scale"][rows.group]
            return np.where(counts, np.minimum(scaled, float(self.cap)), 0.0)
        out = np.zeros(len(rows.group))
        for turn, tier in reversed(list(enumerate(self.tiers or []))):
            out[self._taken(rows, model, turn, state)] = tier.copies
        return out

    def _round(
        self, rows: UsableRows, units: np.ndarray, groups: Groups, state: dict[Any, Any]
    ) -> np.ndarray:
        if self.draws(rows.batch.keys[:0]) is not None:
            return expected.independent(units, self._draws(rows.batch.keys))
        names = [hashlib.blake2b(name.encode(), digest_size=16).digest() for name in groups.names]
        keys = np.frombuffer(b"".join(names), np.uint64).reshape(-1, 2)
        carried = state.setdefault("units", np.zeros(len(names), np.int64))
        return expected.systematic(units, rows.group, self._draws(keys), carried)

    def expected_copies(self, batch: PoolBatch, model: Model) -> np.ndarray | None:
        if self.method not in WEIGHTED:
            return None
        rows = self.usable_rows(Groups.unpack(self.per, model["groups"]), batch)
        out = np.zeros(len(batch))
        out[rows.at] = self._expected(rows, model, {})
        return out

    def tally(self, model: Model) -> Tally:
        return SelectTally(self, model)


class UsableRows(NamedTuple):
    """Rows of a batch that can be chosen."""

    at: np.ndarray
    """int64[n]: their numbers in the batch."""
    batch: PoolBatch
    group: np.ndarray
    size: np.ndarray


class _Remaining(Pool):
    """What the columns served so far leave of a pool."""

    def __init__(self, stage: Select, pool: Pool, model: Model) -> None:
        self._stage, self._pool, self._model = stage, pool, model

    def batches(self) -> Iterator[PoolBatch]:
        state: dict[Any, Any] = {}
        for batch in self._pool.batches():
            yield batch.take(self._stage.chosen(batch, self._model, state) == 0)


def _expected_of(name: str, docs: int, supply: int, asked: int, quota: int) -> dict[str, Any]:
    """A group of a forecast, as `SelectTally` reports it; who is kept is not known yet."""
    epochs = quota / supply if supply else 0.0
    sizes = {"supply": supply, "asked": asked, "quota": quota, "size": quota, "unique": min(quota, supply)}
    worth = {"epochs": epochs, "effective": round(effective(supply, epochs))}
    return {"name": name, "docs": docs, "unusable": 0, "kept": None, "copies": None, **sizes, **worth}
