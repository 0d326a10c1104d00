"""The comparison: selections cut to one number of tokens, and random controls drawn from raw beside each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dataselect.compare.corpus import Corpus, Grouping, Lists, check_column, read_corpus, read_tokens
from dataselect.compare.draws import Draw, cut, length_groups, lists_of, matched, quotas
from dataselect.compare.measures import SPACES, Target, divergence
from dataselect.compare.spec import CompareSpec, Documents, Inputs, find_inputs
from dataselect.core.errors import DataselectError
from dataselect.core.lengths import histogram, quantiles
from dataselect.core.listener import Listener

FEW_DOCS, FEW_TOKENS = 100, 20_000
"""A smaller target gets a warning: its own n-grams are mostly chance."""
MANY_UNSEEN = 0.1
"""Share of the target's words that raw never has from which it is said to be another language or domain."""
_N_SHARES = 20


def compare(spec: CompareSpec, listener: Listener | None = None) -> dict[str, Any]:
    """Compare selections (see README, "Does it work?"); the report, ready for JSON.

    Raises RecipeError for options, DataselectError where a selection or the target has no words, BadShard.
    """
    inputs = find_inputs(spec)
    return _Comparison(spec, inputs, listener or Listener()).report()


class _Words:
    """Different tokens of all that is read."""

    def __init__(self) -> None:
        self.words = np.empty(0, np.uint64)
        self._pending: list[np.ndarray] = []

    def add(self, tokens: np.ndarray) -> None:
        self._pending.append(np.unique(tokens))
        if sum(map(len, self._pending)) > max(len(self.words), 1 << 20):
            self.merge()

    def merge(self) -> np.ndarray:
        self.words = np.unique(np.concatenate([self.words, *self._pending]))
        self._pending = []
        return self.words


class _Comparison:
    def __init__(self, spec: CompareSpec, inputs: Inputs, listener: Listener) -> None:
        self._spec, self._listener = spec, listener
        self._words = _Words()
        self._raw_counts = {name: np.zeros(space.n_buckets, np.int64) for name, space in SPACES.items()}
        columns = {"--source-column": spec.source, "--language-column": spec.language}
        asked = {option: column for option, column in columns.items() if column is not None}
        for option, column in asked.items():
            check_column(inputs.raw, column, option)
        self._raw = self._read(inputs.raw, self._count_raw, set(asked.values()))
        raw_words = self._words.merge()
        if not self._raw.n_tokens.sum():
            raise DataselectError("--raw: the shards have no words")
        self._selections = [self._read(documents) for documents in inputs.selections]
        self._target_docs = self._read(inputs.target)
        self._warnings: list[str] = []
        self._n_tokens = self._common_size()
        self._groupings = self._group_raw()
        self._in_raw = [_find(corpus, self._raw) for corpus in self._selections]
        self._target, self._unseen = self._make_target(raw_words)

    def _read(self, documents: Documents, seen: Any = None, columns: Collection[str] = ()) -> Corpus:
        def add(offsets: np.ndarray, tokens: np.ndarray) -> None:
            self._words.add(tokens)
            if seen is not None:
                seen((offsets, tokens))

        return read_corpus(documents, self._listener, add, columns)

    def _count_raw(self, lists: Lists) -> None:
        for name, space in SPACES.items():
            self._raw_counts[name] += space.counts(lists)

    def _common_size(self) -> int:
        for corpus in self._selections:
            if not corpus.n_tokens.sum():
                raise DataselectError(f"selection '{corpus.name}' has no words: there is nothing to compare")
        sizes = [int(corpus.n_tokens.sum()) for corpus in [*self._selections, self._raw]]
        return min(*sizes, self._spec.max_tokens)

    def _group_raw(self) -> dict[str, Grouping]:
        """Raw by source (its column, or the shard) and, where asked for, by language."""
        raw, spec = self._raw, self._spec
        by_shard = Grouping(raw.shard.astype(np.int64), [shard.name for shard in raw.documents.shards])
        found = {"sources": raw.groups[spec.source] if spec.source is not None else by_shard}
        return found | ({"languages": raw.groups[spec.language]} if spec.language is not None else {})

    def _make_target(self, raw_words: np.ndarray) -> tuple[Target, dict[str, float]]:
        corpus = self._target_docs
        everything = np.ones(len(corpus), bool)
        _, lists = read_tokens(corpus, everything, self._listener)
        if not len(lists[1]):
            bad = f" ({corpus.n_bad_rows:,} rows could not be read)" if corpus.n_bad_rows else ""
            raise DataselectError(f"--target: the documents have no words{bad}: nothing can be like them")
        counts = {name: space.counts(lists) for name, space in SPACES.items()}
        target = Target(
            lists,
            int(corpus.n_bytes.sum()),
            counts,
            {name: divergence(counts[name], self._raw_counts[name]) for name in SPACES},
            self._spec.order,
            len(self._words.merge()),
        )
        at = np.minimum(np.searchsorted(raw_words, lists[1]), len(raw_words) - 1)
        unseen = {"words": float(np.mean(raw_words[at] != lists[1]))}
        for name, own in counts.items():
            unseen[f"buckets_{name}"] = float(own[self._raw_counts[name] == 0].sum() / max(own.sum(), 1))
        return target, unseen

    def report(self) -> dict[str, Any]:
        cuts = [cut(corpus, self._n_tokens) for corpus in self._selections]
        controls = self._draw_controls(cuts)
        wanted = np.zeros(len(self._raw), bool)
        for draw in itertools.chain.from_iterable(controls.values()):
            wanted[draw.docs] = True
        place, lists = read_tokens(self._raw, wanted, self._listener)
        n_draws = len(cuts) + sum(map(len, controls.values()))
        self._listener.phase("measure", n_draws, n_draws, n_draws)
        measured = {
            name: [self._measure(self._raw, draw, place, lists) for draw in draws]
            for name, draws in controls.items()
        }
        selections = [
            self._describe(number, corpus, draw, measured)
            for number, (corpus, draw) in enumerate(zip(self._selections, cuts, strict=True))
        ]
        self._listener.phase_done()
        self._warn()
        return self._header() | {"selections": selections, "overlap": self._overlap()}

    def _draw_controls(self, cuts: list[Draw]) -> dict[tuple[str, int | None], list[Draw]]:
        """(kind, selection it is matched to or None) -> one draw a seed."""
        raw, n_tokens, seeds = self._raw, self._n_tokens, range(self._spec.seeds)
        controls: dict[tuple[str, int | None], list[Draw]] = {
            ("random", None): [matched(raw, n_tokens, seed, "compare: random") for seed in seeds]
        }
        raw_lengths = length_groups(raw.n_tokens)
        for i, (corpus, draw) in enumerate(zip(self._selections, cuts, strict=True)):
            sizes = corpus.n_tokens[draw.docs]
            kinds = {"same lengths": (raw_lengths, length_groups(sizes))}
            if self._spec.source is not None:
                in_raw, of_raw = self._in_raw[i][draw.docs], self._groupings["sources"].of_doc
                kinds["same sources"] = (of_raw, np.where(in_raw >= 0, of_raw[in_raw], -1))
            for kind, (of_raw, own) in kinds.items():
                quota = quotas(own, sizes, 1 + max(int(of_raw.max()), int(own.max())))
                if quota[np.unique(of_raw)].any():
                    controls[kind, i] = [
                        matched(raw, n_tokens, seed, f"compare: {kind}", of_raw, quota) for seed in seeds
                    ]
        return controls

    def _measure(self, corpus: Corpus, draw: Draw, place: np.ndarray, lists: Lists) -> dict[str, float]:
        measured = self._target.measure(lists_of(draw, place, lists))
        self._listener.task_done(corpus.name, 1, {})
        return {"docs": len(draw.docs)} | measured

    def _describe(
        self,
        number: int,
        corpus: Corpus,
        draw: Draw,
        controls: Mapping[tuple[str, int | None], list[dict[str, float]]],
    ) -> dict[str, Any]:
        wanted = np.zeros(len(corpus), bool)
        wanted[draw.docs] = True
        measured = self._measure(corpus, draw, *read_tokens(corpus, wanted, self._listener))
        in_raw = self._in_raw[number]
        own = {kind: found for (kind, of), found in controls.items() if of in (None, number)}
        described = {
            "name": corpus.name,
            "docs": len(corpus),
            "tokens": int(corpus.n_tokens.sum()),
            "bad_rows": corpus.n_bad_rows,
            "not_in_raw": int(np.count_nonzero(in_raw < 0)),
            "target_docs_in_it": int(np.isin(self._target_docs.text_ids, corpus.text_ids).sum()),
            "lengths": quantiles(histogram(corpus.n_tokens)),
            "measures": measured,
            "controls": {kind: _spread(found, measured) for kind, found in own.items()},
        }
        for what, grouping in self._groupings.items():
            of_doc = np.where(in_raw >= 0, grouping.of_doc[in_raw], -1)
            quota = quotas(of_doc, corpus.n_tokens, len(grouping.names))
            described[what] = _shares(quota, grouping.names)
        return described

    def _header(self) -> dict[str, Any]:
        raw, target = self._raw, self._target_docs
        smallest = min(self._selections, key=lambda corpus: int(corpus.n_tokens.sum()))
        limited = int(smallest.n_tokens.sum()) > self._n_tokens
        header: dict[str, Any] = {
            "tokens": self._n_tokens,
            "tokens_set_by": "max_tokens" if limited else smallest.name,
            "seeds": self._spec.seeds,
            "order": self._spec.order,
            "vocabulary": self._target.n_vocabulary,
            "target": {
                "docs": len(target),
                "tokens": int(target.n_tokens.sum()),
                "bytes": int(target.n_bytes.sum()),
                "unseen_in_raw": self._unseen,
            },
            "raw": {
                "docs": len(raw),
                "tokens": int(raw.n_tokens.sum()),
                "bytes": int(raw.n_bytes.sum()),
                "divergence": self._target.divergence_of_raw,
                "lengths": quantiles(histogram(raw.n_tokens)),
            },
            "warnings": self._warnings,
        }
        for what, grouping in self._groupings.items():
            quota = quotas(grouping.of_doc, raw.n_tokens, len(grouping.names))
            header["raw"][what] = _shares(quota, grouping.names)
        return header

    def _warn(self) -> None:
        target, warnings = self._target_docs, self._warnings
        n_tokens = int(target.n_tokens.sum())
        if len(target) < FEW_DOCS or n_tokens < FEW_TOKENS:
            warnings.append(
                f"the target has {len(target):,} documents and {n_tokens:,} tokens: what is measured against "
                "so few is mostly chance"
            )
        if self._n_tokens < FEW_TOKENS:
            warnings.append(
                f"only {self._n_tokens:,} tokens of each are compared: differences are mostly chance"
            )
        for corpus in (self._raw, target, *self._selections):
            if corpus.n_bad_rows:
                warnings.append(
                    f"{corpus.name}: {corpus.n_bad_rows:,} rows could not be read, and are left out"
                )
        if self._unseen["words"] > MANY_UNSEEN:
            warnings.append(
                f"{self._unseen['words']:.0%} of the target's words are nowhere in raw (of its n-grams "
                f"{self._unseen['buckets_kl_reduction']:.0%}, by bucket): another language or domain?"
            )
        for corpus, in_raw in zip(self._selections, self._in_raw, strict=True):
            n_copies = int(np.isin(target.text_ids, corpus.text_ids).sum())
            n_away = int(np.count_nonzero(in_raw < 0))
            if n_copies:
                warnings.append(
                    f"{n_copies:,} target documents are in '{corpus.name}': it was not held out from them"
                )
            if n_away:
                warnings.append(
                    f"{n_away:,} of {len(corpus):,} documents of '{corpus.name}' are not in raw, by "
                    f"{'id' if corpus.documents.read.id else 'text'}: its controls come from other text"
                )
        for a, b in itertools.combinations(self._selections, 2):
            if np.array_equal(np.unique(a.key_ids()), np.unique(b.key_ids())):
                warnings.append(f"'{a.name}' and '{b.name}' hold the same documents")

    def _overlap(self) -> dict[str, dict[str, float]]:
        """Jaccard similarity of the sets of ids (or texts) of whole selections."""
        keys = [np.unique(corpus.key_ids()) for corpus in self._selections]
        names = [corpus.name for corpus in self._selections]
        return {
            name: {
                other: (both := len(np.intersect1d(mine, its))) / max(len(mine) + len(its) - both, 1)
                for other, its in zip(names, keys, strict=True)
            }
            for name, mine in zip(names, keys, strict=True)
        }


def _find(corpus: Corpus, raw: Corpus) -> np.ndarray:
    """int64[n]: where each document is in raw (the first of equal ones), or -1."""
    ids, first = np.unique(raw.key_ids(), return_index=True)
    own = corpus.key_ids()
    at = np.minimum(np.searchsorted(ids, own), len(ids) - 1)
    return np.where(ids[at] == own, first[at], -1)


def _shares(quota: np.ndarray, names: list[str]) -> dict[str, float]:
    """Share of the tokens by group, the largest first."""
    total = max(float(quota.sum()), 1.0)
    order = sorted(range(len(names)), key=lambda i: (-quota[i], names[i]))[:_N_SHARES]
    return {names[i]: float(quota[i]) / total for i in order if quota[i]}


def _spread(found: list[dict[str, float]], measured: Mapping[str, float]) -> dict[str, Any]:
    """Measure -> mean, standard deviation, values, and how many deviations the selection is from the mean."""
    out = {}
    for name, own in measured.items():
        values = [one[name] for one in found]
        mean = math.fsum(values) / len(values)
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
        out[name] = {
            "mean": mean,
            "sd": sd,
            "values": values,
            "gain": own - mean,
            "z": (own - mean) / sd if sd else None,
        }
    return out
