"""Documents in a hash order until a number of tokens is full: cut selections, and controls drawn from raw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataselect.compare.corpus import Corpus, Lists
from dataselect.stages.draws import uniform_draws


@dataclass(frozen=True)
class Draw:
    """Documents whose tokens are exactly a number together: the last one may be cut short."""

    docs: np.ndarray
    """int64: indices into a corpus, in the order drawn."""
    n_tokens: int
    """Tokens of all together."""


def cut(corpus: Corpus, n_tokens: int) -> Draw:
    """A selection's documents in an order that depends on their keys alone."""
    return matched(corpus, n_tokens, 0, "compare: cut")


def matched(
    corpus: Corpus,
    n_tokens: int,
    seed: int,
    purpose: str,
    group: np.ndarray | None = None,
    quota: np.ndarray | None = None,
) -> Draw:
    """Drawn evenly; with `group` (int64[n]) each group gets tokens in proportion to its `quota` (float64).

    Of every group the documents are taken in the order of their draws, and the groups side by side, each as
    far as its quota is filled; where a group is used up the others go on in proportion.
    """
    order = np.lexsort((corpus.key_ids(), uniform_draws(corpus.keys, seed, purpose)))
    sizes = corpus.n_tokens[order]
    if group is None or quota is None:
        group, quota = np.zeros(len(corpus), np.int64), np.ones(1)
    in_group = group[order]
    by_group = np.argsort(in_group, kind="stable")
    before = np.cumsum(sizes[by_group]) - sizes[by_group]
    first = np.searchsorted(in_group[by_group], np.arange(len(quota)))
    base = np.append(before, sizes.sum())[first]
    filled = np.empty(len(order))  # tokens of its group up to the middle of each document
    filled[by_group] = before - base[in_group[by_group]] + sizes[by_group] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(quota[in_group] > 0, filled / quota[in_group], np.inf)
    order = order[np.argsort(share, kind="stable")]
    order = order[corpus.n_tokens[order] > 0]
    total = np.cumsum(corpus.n_tokens[order])
    docs = order[: int(np.searchsorted(total, n_tokens)) + 1]
    return Draw(docs, min(n_tokens, int(total[-1]) if len(total) else 0))


def quotas(group: np.ndarray, n_tokens: np.ndarray, n_groups: int) -> np.ndarray:
    """float64[n_groups]: tokens of the documents of each group; group -1 counts nowhere."""
    known = group >= 0
    return np.bincount(group[known], n_tokens[known], n_groups).astype(np.float64)


def length_groups(n_tokens: np.ndarray) -> np.ndarray:
    """int64[n]: four groups of lengths for each doubling."""
    return np.floor(4 * np.log2(np.maximum(n_tokens, 1))).astype(np.int64)


def lists_of(draw: Draw, place: np.ndarray, lists: Lists) -> Lists:
    """The tokens of a draw, of lists as `read_tokens` gives them."""
    from dataselect.kernels.language_model import take_lists

    offsets, tokens = take_lists(*lists, place[draw.docs])
    return np.minimum(offsets, draw.n_tokens), tokens[: draw.n_tokens]
