"""Tasks of a dedup: candidate pairs of a key range, from the exchange files.

A task holds one range of keys, of all documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dataselect.core.clock import Clock
from dataselect.engine.columns import distinct, members_ascending
from dataselect.engine.docs import Docs, Exchange, packed
from dataselect.engine.job import Context, Figures, figures
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.dedup_index import INDEX_BITS
from dataselect.io.hash_index import find
from dataselect.stages.base import BAND_BITS, NearDedupStage

CLOSED_MEMBERS = 16
"""A bucket of so many members is compared pair by pair; see kernels.groups.n_leaders."""
RANK_BITS = 10
"""Pairs are indexed by 2^RANK_BITS equal ranges of the worse document's rank."""
NO_PAIRS = np.empty(0, np.uint64)
_SLICE = 1 << 21
"""Members of buckets that are put in order at a time."""


@dataclass(frozen=True)
class GroupCall:
    """Arguments of `group_keys`: partition `number` of `n_partitions` (a power of two) of the key space."""

    exchange: Exchange
    number: int
    n_partitions: int
    artifact: str


def group_keys(context: Context, call: GroupCall) -> Figures:
    """Candidate pairs among documents that reach the stage and share a key.

    Of a DedupStage: every document with the best one of its key, as `copies`. Of a NearDedupStage: copies of
    one text with the best of them, and of the different texts of a bucket the first few, in the order of
    their hashes, with all others (`pairs`); buckets where these are not all pairs are stored as
    `open_members` and `open_starts`, to be looked at again without the documents that were dropped.
    """
    from dataselect.kernels.groups import bucket_pairs

    clock = Clock()
    docs = Docs(context, call.exchange)
    near = isinstance(context.stages[call.exchange.stage], NearDedupStage)
    numbers, bucket, tells, n_groups, largest = _shared_keys(context, call, docs)
    clock.lap("read")
    texts = docs.text_hashes(numbers) if near else np.zeros(len(numbers), np.uint64)
    parts = [
        _different_texts(bucket[part], texts[part], docs.ranks(numbers[part]), tells[part])
        for part in _bucket_slices(bucket)
    ]
    del numbers, tells, texts
    members, bucket, copies = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    copies = distinct(copies)
    starts = np.append(np.flatnonzero(_changes(bucket)), len(bucket)).astype(np.int64)
    members, starts = _of_size(members, starts, 2)
    out = np.empty(most_pairs(np.diff(starts)), np.uint64)
    pairs = distinct(out[: bucket_pairs(members, starts, np.empty(0, np.uint8), out)])
    del out
    open_members, open_starts = _of_size(members, starts, CLOSED_MEMBERS + 1)
    if call.exchange.old is not None:
        with_old = _pairs_with_old(context, call, docs)
        pairs, copies = (
            distinct(np.concatenate([values, with_old])) if of_old else values
            for values, of_old in ((pairs, near), (copies, not near))
        )
    clock.lap("group")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        for name, values in (("pairs", pairs), ("copies", copies)):
            writer.add_array(name, values)
            writer.add_array(f"{name}_index", _rank_index(values, docs.n_docs))
        writer.add_array("open_members", open_members)
        writer.add_array("open_starts", open_starts)
        return {"n_groups": n_groups, "largest_group": largest, "n_pairs": len(pairs)}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def _changes(values: np.ndarray) -> np.ndarray:
    """bool[n]: where a value differs from the one before it."""
    out = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


def _bucket_slices(bucket: np.ndarray) -> Iterator[slice]:
    """Runs of whole buckets, of _SLICE members or little more: ordering them takes 70 bytes a member."""
    starts = np.append(np.flatnonzero(_changes(bucket)), len(bucket))
    cuts = starts[np.searchsorted(starts, np.arange(_SLICE, len(bucket), _SLICE))]
    yield from (slice(a, b) for a, b in pairwise([0, *np.unique(cuts).tolist(), len(bucket)]))


def _different_texts(
    bucket: np.ndarray, texts: np.ndarray, ranks: np.ndarray, tells: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rank uint32[n], bucket uint32[n], pairs uint64[m]) of members with their buckets, ascending.

    Of every text of a bucket the best document, in the order of the texts' hashes; and pairs of the others,
    where the bucket tells of copies, with that one.
    """
    order = members_ascending(bucket, texts, ranks)
    bucket, tells = bucket[order], tells[order]
    texts, ranks = texts[order], ranks[order]
    first = _changes(bucket) | _changes(texts)
    best, copies = np.flatnonzero(first), np.flatnonzero(~first & tells)
    best_of = best[np.searchsorted(best, copies, "right") - 1]
    return ranks[first].astype(np.uint32), bucket[first], packed(ranks[copies], ranks[best_of])


def _shared_keys(
    context: Context, call: GroupCall, docs: Docs
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Documents that share a key, by key: (numbers, number of the key's group, whether the key tells copies).

    Copies of a text share all bands, so that the first one tells of them all; of a DedupStage every key does.
    And how many groups there are, and the size of the largest, those of one document included.
    """
    keys, numbers, check = _partition(context, call, docs)
    order = np.argsort(keys) if check is None else np.lexsort((check, keys))  # equal keys: in any order
    keys = keys[order]
    new = _changes(keys)
    if check is not None:
        new |= _changes(check[order])
        del check
    shared = ~new
    shared[:-1] |= shared[1:]
    numbers = numbers[order[shared]]
    del order
    tells = keys[shared] & np.uint64((1 << BAND_BITS) - 1) == 0
    if not isinstance(context.stages[call.exchange.stage], NearDedupStage):
        tells[:] = True
    starts = np.flatnonzero(new[shared])
    sizes = np.diff(starts, append=len(numbers))
    largest = int(sizes.max(initial=min(len(keys), 1)))
    bucket = np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)
    return numbers, bucket, tells, int(np.count_nonzero(new)), largest


def _pairs_with_old(context: Context, call: GroupCall, docs: Docs) -> np.ndarray:
    """uint64[n]: each new document of a bucket with its old ones; of many, the first by hashes of text.

    A pair may be there twice.
    """
    old = docs.old
    start, stop = key_range(old, call.number, call.n_partitions)
    rows = old.array("rows", start, stop)
    old_keys, *old_check = (old.array(name, start, stop) for name in ("keys", "check") if name in old)
    order = np.lexsort((rows, old.array("text_hash")[rows], *old_check, old_keys))
    rows, old_keys = rows[order].astype(np.int64) + call.exchange.n_new, old_keys[order]
    keys, numbers, check = _partition(context, call, docs)
    low = np.zeros(len(keys), np.uint64) if check is None else check
    old_low = np.zeros(len(rows), np.uint64) if check is None else old_check[0][order]
    first = find(old_keys, old_low, np.stack([keys, low], axis=1))
    ends = np.append(np.flatnonzero(np.diff(old_keys) | np.diff(old_low)) + 1, len(rows))
    last = ends[np.searchsorted(ends, first, side="right")]
    pairs = [NO_PAIRS]
    for k in range(CLOSED_MEMBERS):
        there = np.flatnonzero((first >= 0) & (first + k < last))
        pairs.append(packed(docs.ranks(numbers[there]), docs.ranks(rows[first[there] + k])))
    return np.concatenate(pairs)


def _partition(
    context: Context, call: GroupCall, docs: Docs
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Keys uint64[n], document numbers uint32[n], and checks uint64[n] where the stage has any."""
    keys, numbers, checks = [NO_PAIRS], [np.empty(0, np.uint32)], []

    def read(segment: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
        bundle = context.bundle(call.exchange.keys[segment])
        if segment % call.n_partitions == call.number:
            bundle.check()  # by one task each; else ranges and rows are read unchecked
        start, stop = key_range(bundle, call.number, call.n_partitions)
        if start == stop:
            return None
        rows = bundle.array("rows", start, stop)
        reach = docs.alive(segment)[rows]
        check = bundle.array("check", start, stop)[reach] if "check" in bundle else None
        of_segment = (rows[reach] + docs.first_docs[segment]).astype(np.uint32)
        return bundle.array("keys", start, stop)[reach], of_segment, check

    for part in filter(None, context.ahead(read, range(len(call.exchange.keys)))):
        keys.append(part[0])
        numbers.append(part[1])
        if part[2] is not None:
            checks.append(part[2])
    return concatenated(keys), concatenated(numbers), concatenated(checks) if checks else None


def key_range(bundle: Bundle, number: int, n_partitions: int) -> tuple[int, int]:
    """First and last + 1 place of a partition's keys in an exchange file.

    Its index knows 2^INDEX_BITS ranges; smaller ones are looked for among the keys, which are sorted.
    """
    first, last = number << INDEX_BITS, (number + 1) << INDEX_BITS
    start, stop = bundle.array("index")[[first // n_partitions, -(-last // n_partitions)]].tolist()
    if n_partitions > 1 << INDEX_BITS:
        keys, shift = bundle.array("keys", start, stop), 65 - n_partitions.bit_length()
        stop = start + int(np.searchsorted(keys, np.uint64((number + 1 << shift) - 1), "right"))
        start += int(np.searchsorted(keys, np.uint64(number << shift)))
    return start, stop


def _of_size(members: np.ndarray, starts: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The buckets with at least so many members."""
    sizes = np.diff(starts)
    large = sizes >= least
    return members[np.repeat(large, sizes)], np.concatenate([[0], np.cumsum(sizes[large])]).astype(np.int64)


def most_pairs(sizes: np.ndarray) -> int:
    """Most pairs that `bucket_pairs` makes of buckets of at most these sizes."""
    from dataselect.kernels.groups import ALL_PAIRS

    return int(
        np.where(sizes <= CLOSED_MEMBERS, sizes * (sizes - 1) // 2, np.maximum(sizes, ALL_PAIRS)).sum()
    )


def _rank_index(pairs: np.ndarray, n_docs: int) -> np.ndarray:
    """int64[2^RANK_BITS + 1]: where the pairs of each range of worse ranks begin."""
    return np.searchsorted(pairs, rank_bounds(n_docs).astype(np.uint64) << np.uint64(32)).astype(np.int64)


def rank_bounds(n_docs: int) -> np.ndarray:
    """int64[2^RANK_BITS + 1]: equal ranges of 0 .. n_docs."""
    return np.arange((1 << RANK_BITS) + 1, dtype=np.int64) * n_docs >> RANK_BITS


def concatenated(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenated; `parts` are given up, so that only one list of them is there twice."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole
