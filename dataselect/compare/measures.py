"""How near the text of a selection comes to the target's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dataselect.compare.corpus import Lists

_EPSILON = 1e-8  # of DSIR
_BASE = np.uint64(0xD6E8FEB86659FD93)
_MIX = np.uint64(0xC4CEB9FE1A85EC53)


@dataclass(frozen=True)
class Space:
    """Hashed n-grams of 1 to `order` tokens; another `scramble` (odd) is another hash."""

    order: int
    n_buckets: int = 10_000
    scramble: int = 1

    def counts(self, lists: Lists) -> np.ndarray:
        """int64[n_buckets] of all documents together; scramble 1: as kernels.ngrams.count_ngrams has it."""
        offsets, tokens = lists
        place = np.arange(len(tokens)) - np.repeat(offsets[:-1], np.diff(offsets))
        value, power = np.zeros(len(tokens), np.uint64), np.uint64(1)
        out = np.zeros(self.n_buckets, np.int64)
        with np.errstate(over="ignore"):  # arithmetic modulo 2^64
            for k in range(self.order):
                value[k:] += tokens[: len(tokens) - k] * power
                power *= _BASE
                word = value[place >= k] * np.uint64(self.scramble)
                hash32 = (word ^ (word >> np.uint64(33))) * _MIX >> np.uint64(32)
                buckets = hash32 * np.uint64(self.n_buckets) >> np.uint64(32)
                out += np.bincount(buckets.astype(np.int64), minlength=self.n_buckets)
        return out


SPACES = {"kl_reduction": Space(2), "kl_reduction_2": Space(3, scramble=0x9E3779B97F4A7C15)}
"""Measure -> its features: those that DSIR selects by, and some that it does not see."""


def divergence(p_counts: np.ndarray, q_counts: np.ndarray) -> float:
    """KL(p || q) in nats of two bucket counts, with DSIR's 1e-8 in both logarithms."""
    p = p_counts / max(int(p_counts.sum()), 1)
    q = q_counts / max(int(q_counts.sum()), 1)
    return math.fsum((p * (np.log(p + _EPSILON) - np.log(q + _EPSILON))).tolist())


@dataclass(frozen=True)
class Target:
    """What selections are measured against."""

    lists: Lists
    n_bytes: int
    counts: dict[str, np.ndarray]
    """Measure -> the target's buckets."""
    divergence_of_raw: dict[str, float]
    """Measure -> KL(target || raw), of all raw documents."""
    order: int
    n_vocabulary: int
    """Different tokens of raw, selections and target together."""

    def measure(self, lists: Lists) -> dict[str, float]:
        """The measures of a selection's text.

        kl_reduction    KL(target || raw) - KL(target || selection) in nats (DSIR, section 5)
        bits_per_byte   bits of the target's lower-cased words and punctuation by an n-gram model trained on
                        the selection, divided by the bytes of the target's text
        distinct_<n>    different n-grams
        """
        from dataselect.kernels.language_model import LOG_BITS, score_tokens, train_model

        found = {
            name: self.divergence_of_raw[name] - divergence(self.counts[name], space.counts(lists))
            for name, space in SPACES.items()
        }
        model = train_model(*lists, self.order, self.n_vocabulary)
        log_p = np.empty(len(self.lists[0]) - 1, np.int64)
        score_tokens(*self.lists, model, log_p)
        found["bits_per_byte"] = -int(log_p.sum()) / 2**LOG_BITS / math.log(2) / self.n_bytes
        distinct = model["n_ngrams"].tolist()
        return found | {f"distinct_{n}": count for n, count in enumerate(distinct, 1)}
