"""Tasks of a dedup: ranks, candidate pairs of equal keys, their verification, and who survives.

Pairs are exchanged by key range (`group_keys`) and then by rank range (`verify_pairs`), through files; a task
holds one range. What grows with the corpus in memory is JOIN_BYTES a document, in `join_groups`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.core.clock import Clock
from dataselect.core.errors import DataselectError
from dataselect.engine.clusters import cluster_names
from dataselect.engine.columns import distinct, members_ascending, pack
from dataselect.engine.docs import DocNames, Docs, Exchange, Places, packed, unpacked
from dataselect.engine.inputs import SegmentRefs, input_columns, text_column
from dataselect.engine.job import Context, figures
from dataselect.engine.old_matches import OldMatches
from dataselect.engine.survivors import Edges, Rule, cluster_sizes, rule_of
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.dedup_index import INDEX_BITS
from dataselect.io.hash_index import find
from dataselect.stages.base import BAND_BITS, DedupStage, KeepBy, NearDedupStage
from dataselect.stages.instants import instants

Figures = dict[str, Any]

JOIN_BYTES = 16
"""Memory of `join_groups` for a document; 36 with survivors: component and larger_clusters: split."""
RANK_BITS = 10
"""Pairs are indexed by 2^RANK_BITS equal ranges of the worse document's rank."""

_CLOSED_MEMBERS = 16
"""A bucket of so many members is compared pair by pair; see kernels.groups.n_leaders."""
_CHUNK = 1 << 19
"""Pairs that are judged at a time, with their signatures: 2 x 64 MB. Each chunk opens all segments."""
_SLICE = 1 << 21
"""Members of buckets that are put in order at a time."""
_MORE = 4
"""So many times the documents of undecided pairs are read with them, so that no later read is needed."""
_NO_PAIRS = np.empty(0, np.uint64)


@dataclass(frozen=True)
class RankCall:
    """Arguments of `rank_rows`."""

    exchange: Exchange
    segments: tuple[SegmentRefs, ...]
    places: Places
    artifact: str


def rank_rows(context: Context, call: RankCall) -> Figures:
    """Order all documents by the stage's `keep`, best first, ties by DocId: rank_of and doc_of, uint32[n].

    meta n_unranked: documents that reach the stage without a value of the column that `keep` names.
    """
    clock = Clock()
    docs = Docs(context, call.exchange)
    names = DocNames(context, call.exchange, call.places, docs)
    keep = cast("DedupStage", context.stages[call.exchange.stage]).keep_
    values = []
    n_unranked = 0
    for segment, refs in enumerate(call.segments):
        if isinstance(keep, KeepBy) and keep.column is not None:
            values.append(-_column_values(context, refs, keep, call.exchange.stage))
            n_unranked += int((np.isnan(values[-1]) & docs.alive(segment)).sum())
        elif isinstance(keep, KeepBy) and keep.source is not None:
            values.append(_source_order(keep.source, *names.shards_of(segment), refs.n_rows))
        else:
            n_bytes = text_column(context, refs, "n_bytes", call.exchange.stage)
            values.append(-n_bytes.astype(np.float64))
    # NaN and null sort last: a document without a score is the worst.
    doc_of = np.argsort(np.concatenate(values), kind="stable").astype(np.uint32)
    rank_of = np.empty(len(doc_of), np.uint32)
    rank_of[doc_of] = np.arange(len(doc_of), dtype=np.uint32)

    def fill(writer: BundleWriter) -> dict[str, Any]:
        writer.add_array("rank_of", rank_of)
        writer.add_array("doc_of", doc_of)
        return {"n_unranked": n_unranked}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def _column_values(context: Context, refs: SegmentRefs, keep: KeepBy, stage: int) -> np.ndarray:
    """float64[n_rows] of the column that `keep` names, larger is better, NaN where there is no value."""
    name, every = keep.column or "", np.ones(refs.n_rows, bool)
    column = input_columns(context, refs, [name], every, stage)[name]
    if keep.latest is not None:
        return instants(column)
    values: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _source_order(
    patterns: tuple[str, ...], shards: tuple[str, ...], first_rows: np.ndarray, n_rows: int
) -> np.ndarray:
    """float64[n_rows]: number of the first pattern that each row's shard matches."""
    order = [
        next((i for i, p in enumerate(patterns) if fnmatch.fnmatchcase(shard, p)), len(patterns))
        for shard in shards
    ]
    return np.repeat(np.array(order, np.float64), np.diff(np.append(first_rows, n_rows)))


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
    out = np.empty(_most_pairs(np.diff(starts)), np.uint64)
    pairs = distinct(out[: bucket_pairs(members, starts, np.empty(0, np.uint8), out)])
    del out
    open_members, open_starts = _of_size(members, starts, _CLOSED_MEMBERS + 1)
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
    pairs = [_NO_PAIRS]
    for k in range(_CLOSED_MEMBERS):
        there = np.flatnonzero((first >= 0) & (first + k < last))
        pairs.append(packed(docs.ranks(numbers[there]), docs.ranks(rows[first[there] + k])))
    return np.concatenate(pairs)


def _partition(
    context: Context, call: GroupCall, docs: Docs
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Keys uint64[n], document numbers uint32[n], and checks uint64[n] where the stage has any."""
    keys, numbers, checks = [_NO_PAIRS], [np.empty(0, np.uint32)], []
    for segment, name in enumerate(call.exchange.keys):
        bundle = context.bundle(name)
        if segment % call.n_partitions == call.number:
            bundle.check()  # by one task each; else ranges and rows are read unchecked
        start, stop = key_range(bundle, call.number, call.n_partitions)
        if start == stop:
            continue
        rows = bundle.array("rows", start, stop)
        reach = docs.alive(segment)[rows]
        keys.append(bundle.array("keys", start, stop)[reach])
        numbers.append((rows[reach] + docs.first_docs[segment]).astype(np.uint32))
        if "check" in bundle:
            checks.append(bundle.array("check", start, stop)[reach])
    return _joined(keys), _joined(numbers), _joined(checks) if checks else None


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


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenated; `parts` are given up, so that only one list of them is there twice."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _of_size(members: np.ndarray, starts: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The buckets with at least so many members."""
    sizes = np.diff(starts)
    large = sizes >= least
    return members[np.repeat(large, sizes)], np.concatenate([[0], np.cumsum(sizes[large])]).astype(np.int64)


def _most_pairs(sizes: np.ndarray) -> int:
    """Most pairs that `bucket_pairs` makes of buckets of at most these sizes."""
    from dataselect.kernels.groups import ALL_PAIRS

    return int(
        np.where(sizes <= _CLOSED_MEMBERS, sizes * (sizes - 1) // 2, np.maximum(sizes, ALL_PAIRS)).sum()
    )


def _rank_index(pairs: np.ndarray, n_docs: int) -> np.ndarray:
    """int64[2^RANK_BITS + 1]: where the pairs of each range of worse ranks begin."""
    return np.searchsorted(pairs, rank_bounds(n_docs).astype(np.uint64) << np.uint64(32)).astype(np.int64)


def rank_bounds(n_docs: int) -> np.ndarray:
    """int64[2^RANK_BITS + 1]: equal ranges of 0 .. n_docs."""
    return np.arange((1 << RANK_BITS) + 1, dtype=np.int64) * n_docs >> RANK_BITS


@dataclass(frozen=True)
class VerifyCall:
    """Arguments of `verify_pairs`: ranges start .. stop - 1 of the rank index."""

    exchange: Exchange
    groups: tuple[str, ...]
    start: int
    stop: int
    artifact: str


def verify_pairs(context: Context, call: VerifyCall) -> Figures:
    """Compare the signatures of all pairs whose worse document is in a range of ranks.

    Sections pairs (uint64, ascending) and matches (uint16; absent where signatures are not used) without
    those that are surely no duplicates, copies, and end (uint64[1]: what all pairs are below).
    """
    clock = Clock()
    found: dict[str, np.ndarray] = {}
    for name in ("pairs", "copies"):
        found[name] = _NO_PAIRS
        parts: list[np.ndarray] = []
        for i, group in enumerate(call.groups):
            bundle = context.bundle(group)
            index = bundle.array(f"{name}_index")
            parts.append(bundle.array(name, int(index[call.start]), int(index[call.stop])))
            # A pair is in as many partitions as it has bands in common, so few of all are different.
            if i == len(call.groups) - 1 or sum(map(len, parts)) > max(_CHUNK, len(found[name])):
                found[name] = distinct(_joined([found[name], *parts]))
                parts = []
    n_candidates = len(found["pairs"])
    clock.lap("read")
    comparer = Comparer(context, call.exchange)
    found["pairs"], matches = comparer.likely(found["pairs"])
    clock.lap("verify")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        for name, values in found.items():
            writer.add_array(name, values)
        if matches is not None:
            writer.add_array("matches", matches)
        writer.add_array(
            "end", rank_bounds(comparer.docs.n_docs)[[call.stop]].astype(np.uint64) << np.uint64(32)
        )
        return {"n_candidates": n_candidates}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


class Comparer:
    """Compares pairs by signatures, and knows the exact similarities that were computed so far."""

    def __init__(self, context: Context, exchange: Exchange, exact: tuple[str, ...] = ()) -> None:
        self._stage = cast("NearDedupStage", context.stages[exchange.stage])
        self.docs = Docs(context, exchange)
        bundles = [context.bundle(name) for name in exact]
        pairs = np.concatenate([_NO_PAIRS, *(bundle.array("pairs") for bundle in bundles)])
        values = np.concatenate([np.empty(0), *(bundle.array("similarity") for bundle in bundles)])
        order = np.argsort(pairs, kind="stable")
        self._exact_pairs, self._exact = pairs[order], values[order]

    def likely(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The pairs that may be duplicates, and how many signature bytes match (None: not compared)."""
        if not self._stage.uses_signatures:
            return pairs, None
        kept, matches = [_NO_PAIRS], [np.empty(0, np.uint16)]
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs[start : start + _CHUNK]
            equal = self._matches(chunk)
            may = self._stage.verdicts(self._stage.estimates(equal)) != 0
            kept.append(chunk[may])
            matches.append(equal[may])
        return np.concatenate(kept), np.concatenate(matches)

    def _matches(self, pairs: np.ndarray) -> np.ndarray:
        from dataselect.kernels.jaccard import count_matches

        n_hashes = self._stage.n_hashes()
        left, right = (self.docs.signatures(self.docs.numbers(r), n_hashes) for r in unpacked(pairs))
        out = np.empty(len(pairs), np.uint16)
        count_matches(left, right, out)
        return out

    def _have_texts(self, pairs: np.ndarray) -> np.ndarray:
        """bool[n]: whether the exact similarity can be found; of an index there are signatures alone."""
        worse, better = unpacked(pairs)
        return self.docs.has_text(worse) & self.docs.has_text(better)

    def judge(
        self, pairs: np.ndarray, matches: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(is a duplicate bool, similarity float32, not known yet bool) of each pair.

        A pair whose exact similarity is not known yet is taken for what its signatures say.
        """
        unknown = np.full(len(pairs), np.nan)
        estimates = unknown if matches is None else self._stage.estimates(matches)
        verdicts = self._stage.verdicts(estimates)
        if matches is not None and (verdicts < 0).any():
            without = np.flatnonzero(verdicts < 0)
            without = without[~self._have_texts(pairs[without])]
            verdicts[without] = estimates[without] >= self._stage.threshold
        similarity, duplicate = estimates.copy(), verdicts == 1
        open_pairs = np.flatnonzero(verdicts < 0)
        at, known = _found(self._exact_pairs, pairs[open_pairs])
        exact = self._exact[at[known]]
        gone = np.isnan(exact)  # old documents whose texts have changed
        similarity[open_pairs[known]] = np.where(gone, estimates[open_pairs[known]], exact)
        duplicate[open_pairs] = similarity[open_pairs] >= self._stage.threshold
        missing = np.zeros(len(pairs), bool)
        missing[open_pairs[~known]] = True
        return duplicate, similarity.astype(np.float32), missing


@dataclass(frozen=True)
class JoinCall:
    """Arguments of `join_groups`."""

    exchange: Exchange
    groups: tuple[str, ...]
    verified: tuple[str, ...]
    """Artifacts of `verify_pairs` in the order of ranks; none for a DedupStage."""
    exact: tuple[str, ...]
    """Artifacts of `exact_similarities` made so far."""
    undecided: tuple[str, ...]
    """Earlier artifacts of this task, whose rows were read for them."""
    places: Places
    artifact: str


def join_groups(context: Context, call: JoinCall) -> Figures:
    """Who survives; or, where that depends on pairs whose exact similarity is not known, which these are.

    Sections keep/<number> (bits), dups/<number> (table: row, and shard, part, row of the kept copy,
    similarity) and columns/<number> (table: size, and on request name, of each row's cluster);
    or, with meta n_undecided > 0,
    pairs (uint64) and rows/<number> (int32: the rows of these pairs that were not read yet).
    """
    clock = Clock()
    rounds = _Rounds(context, call)
    rule = rounds.settle()
    clock.lap("join")
    undecided = rounds.undecided()
    if len(undecided):
        read = [context.bundle(name) for name in call.undecided]
        more = rounds.soon() if not read else undecided[:0]
        digest = context.commit(
            call.artifact, lambda w: _write_undecided(w, undecided, more, rounds.docs, read)
        )
    else:
        answer = _Answer(context, call, rounds, rule)
        digest = context.commit(call.artifact, answer.write)
    return {"digest": digest} | figures(clock)


def _write_undecided(
    writer: BundleWriter, pairs: np.ndarray, more: np.ndarray, docs: Docs, read: list[Bundle]
) -> dict[str, Any]:
    """`more`: ranks of other documents to read at the same time, unless they are many more."""
    writer.add_array("pairs", pairs)
    n_docs = 0
    ranks = distinct(np.concatenate(unpacked(pairs)))
    if len(more) <= _MORE * len(ranks):
        ranks = distinct(np.concatenate([ranks, more]))
    numbers = np.sort(docs.numbers(ranks))
    bounds = np.searchsorted(numbers, docs.first_docs)
    for segment in np.flatnonzero(np.diff(bounds)).tolist():
        name, rows = f"rows/{segment}", numbers[bounds[segment] : bounds[segment + 1]]
        rows = (rows - docs.first_docs[segment]).astype(np.int32)
        for bundle in read:
            rows = np.setdiff1d(rows, bundle.array(name)) if name in bundle else rows
        if len(rows):
            writer.add_array(name, rows)
            n_docs += len(rows)
    return {"n_undecided": len(pairs), "n_docs": n_docs}


class _Rounds:
    """Survivors, buckets formed again of the survivors, survivors again, until no pair is new.

    So the result is a fixed point: the same stage over its own output finds nothing to drop.
    """

    def __init__(self, context: Context, call: JoinCall) -> None:
        self._context, self._call = context, call
        self._stage = cast("DedupStage", context.stages[call.exchange.stage])
        self.docs = Docs(context, call.exchange)
        self._more: tuple[np.ndarray, np.ndarray | None] = (_NO_PAIRS, None)
        self._missing: list[np.ndarray] = [_NO_PAIRS]
        self._touched = np.zeros(self.docs.n_docs, bool)
        self.n_rounds = 0

    @cached_property
    def _comparer(self) -> Comparer:
        return Comparer(self._context, self._call.exchange, self._call.exact)

    def undecided(self) -> np.ndarray:
        """uint64[n]: pairs whose exact similarity is not known, of the last round and so of all."""
        return distinct(np.concatenate(self._missing))

    def soon(self) -> np.ndarray:
        """int64[n]: ranks, ascending, of documents in buckets that changed.

        While similarities are missing, rounds go on with what signatures say. The true course differs a
        little, and the pairs that it meets besides are of these documents.
        """
        return np.flatnonzero(self._touched)

    def settle(self) -> Rule:
        """Run all rounds; the rule in its final state."""
        before = np.ones(self.docs.n_docs, np.uint8)
        while True:
            rule = rule_of(self._stage, self.docs.n_docs)
            for part in self.edges():
                rule.add(*part)
            self.n_rounds += 1
            kept = rule.kept()
            if not isinstance(self._stage, NearDedupStage) or not self._find_more(before, kept):
                return rule
            before = kept
            del rule  # 8 bytes a document, before the next one has as many

    def edges(self) -> Iterator[Edges]:
        """All duplicates by ascending ranges of ranks: what the rule decides by."""
        for part in self.all_edges():
            old = self._call.exchange.is_old(unpacked(part[0])[0])
            yield part if not old.any() else cast("Edges", tuple(values[~old] for values in part))

    def all_edges(self) -> Iterator[Edges]:
        """Those of `edges`, and those of worse old documents with new ones."""
        self._missing = [_NO_PAIRS]
        if not isinstance(self._stage, NearDedupStage):
            for name in self._call.groups:
                yield _with_copies(
                    _NO_PAIRS, np.empty(0, np.float32), self._context.bundle(name).array("copies")
                )
            return
        done = 0
        more, more_matches = self._more
        for i, name in enumerate(self._call.verified):
            bundle = self._context.bundle(name)
            pairs = bundle.array("pairs")
            matches = bundle.array("matches") if "matches" in bundle else None
            copies = bundle.array("copies")
            last = i == len(self._call.verified) - 1
            stop = len(more) if last else int(np.searchsorted(more, bundle.array("end")[0]))
            if stop > done:
                pairs = np.concatenate([pairs, more[done:stop]])
                order = np.argsort(pairs)  # of equal ones all is equal
                pairs = pairs[order]
                if matches is not None and more_matches is not None:
                    matches = np.concatenate([matches, more_matches[done:stop]])[order]
            done = stop
            for part, of_copies in _chunks(pairs, copies):
                duplicate, similarity, missing = self._comparer.judge(
                    pairs[part], None if matches is None else matches[part]
                )
                self._missing.append(pairs[part][missing])
                yield _with_copies(pairs[part][duplicate], similarity[duplicate], copies[of_copies])

    def _find_more(self, before: np.ndarray, kept: np.ndarray) -> bool:
        """Candidates of open buckets that lost members; whether there is a pair not seen before."""
        from dataselect.kernels.groups import bucket_pairs

        more, more_matches = [self._more[0]], [self._more[1]]
        for name in self._call.groups:
            bundle = self._context.bundle(name)
            members, starts = bundle.array("open_members"), bundle.array("open_starts")
            members, starts = _changed(members, starts, before, kept)
            if not len(members):
                continue
            self._touched[members] = True
            out = np.empty(_most_pairs(np.diff(starts)), np.uint64)
            pairs = distinct(out[: bucket_pairs(members, starts, kept, out)])
            pairs = pairs[~_found(self._more[0], pairs)[1]]
            pairs, matches = self._comparer.likely(pairs)
            duplicate, _, missing = self._comparer.judge(pairs, matches)
            new = duplicate | missing
            more.append(pairs[new])
            more_matches.append(None if matches is None else matches[new])
        pairs, first = np.unique(np.concatenate(more), return_index=True)
        n_new = len(pairs) - len(self._more[0])
        found = [matches for matches in more_matches if matches is not None]
        self._more = pairs, np.concatenate(found)[first] if found else None
        return n_new > 0


def _found(ascending: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place int64[n], is there bool[n]) of values among ascending ones."""
    at = np.searchsorted(ascending, values)
    there = at < len(ascending)
    there[there] = ascending[at[there]] == values[there]
    return at, there


def _changed(
    members: np.ndarray, starts: np.ndarray, before: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The buckets of which a member was kept and is not, or the other way round."""
    sizes = np.diff(starts)
    if not len(sizes):
        return members, starts
    changed = np.add.reduceat(before[members] != kept[members], starts[:-1]) > 0
    return members[np.repeat(changed, sizes)], np.concatenate([[0], np.cumsum(sizes[changed])]).astype(
        np.int64
    )


def _chunks(pairs: np.ndarray, copies: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Both ascending: slices of at most _CHUNK pairs, and of the copies between these."""
    cuts = np.arange(_CHUNK, len(pairs), _CHUNK)
    of_pairs = pairwise([0, *cuts.tolist(), len(pairs)])
    of_copies = pairwise([0, *np.searchsorted(copies, pairs[cuts]).tolist(), len(copies)])
    yield from ((slice(*a), slice(*b)) for a, b in zip(of_pairs, of_copies, strict=True))


def _with_copies(pairs: np.ndarray, similarity: np.ndarray, copies: np.ndarray) -> Edges:
    joined = np.concatenate([pairs, copies])
    order = np.argsort(joined, kind="stable")
    values = np.concatenate([similarity, np.ones(len(copies), np.float32)])
    is_copy = np.concatenate([np.zeros(len(pairs), np.uint8), np.ones(len(copies), np.uint8)])
    return joined[order], values[order], is_copy[order]


class _Answer:
    """The sections that say who survives."""

    _LARGEST = 10

    def __init__(self, context: Context, call: JoinCall, rounds: _Rounds, rule: Rule) -> None:
        self._call, self._rule, self._docs = call, rule, rounds.docs
        self._stage = cast("DedupStage", context.stages[call.exchange.stage])
        self._names = DocNames(context, call.exchange, call.places, rounds.docs)
        rule.finish(rounds.edges())
        self._edges = rounds.all_edges
        self._n_rounds = rounds.n_rounds
        self._roots = rule.roots()
        self._sizes = cluster_sizes(self._roots)
        self._check_sizes()
        self._cluster_column = self._stage.cluster if isinstance(self._stage, NearDedupStage) else None
        self._cluster_names: list[pa.Array] = []
        if self._cluster_column is not None:
            n_segments = len(call.exchange.n_rows)
            self._cluster_names = cluster_names(rounds.docs, n_segments, rounds.all_edges())
        self._meta = {"n_candidates": sum(context.bundle(n).meta["n_candidates"] for n in call.verified)}
        self._meta["n_exact"] = sum(len(context.bundle(n).array("pairs")) for n in call.exact)

    def _check_sizes(self) -> None:
        stage, largest = self._stage, int(self._sizes.max(initial=0))
        limit = stage.max_cluster if isinstance(stage, NearDedupStage) else None
        if not isinstance(stage, NearDedupStage) or limit is None or largest <= limit:
            return
        if stage.survivors == "component" and stage.larger_clusters == "split":
            return
        cluster = self._cluster(int(self._sizes.argmax()))
        places = [f"{row['shard']} row {row['row']}" for row in (cluster["kept"], *cluster["dropped"])]
        raise DataselectError(
            f"{self._stage.use}: a cluster has {largest:,} documents, more than max_cluster: {limit:,}; "
            f"some of them: {', '.join(places)}"
        )

    def write(self, writer: BundleWriter) -> dict[str, Any]:
        first_docs, stage = self._docs.first_docs, self._stage
        n_matched = 0
        for number in range(len(self._call.exchange.n_rows)):
            ranks = self._docs.ranks(np.arange(first_docs[number], first_docs[number + 1]))
            keeper = self._rule.keeper[ranks]
            dropped = np.flatnonzero(keeper != ranks)
            writer.add_array(f"keep/{number}", pack(keeper == ranks))
            writer.add_table(f"dups/{number}", self._duplicates(dropped, ranks[dropped]))
            alive = self._docs.alive(number)
            columns = {stage.as_: pa.array(self._sizes[self._roots[ranks]], mask=~alive)}
            if self._cluster_column is not None:
                columns[self._cluster_column] = pc.if_else(pa.array(alive), self._cluster_names[number], None)
            if stage.against:
                old = self._call.exchange.is_old(keeper.astype(np.int64))
                writer.add_array(f"old/{number}", pack(old))
                n_matched += int(old.sum())
            if stage.against and stage.on_match != "keep_old":
                matched, table = self._matches.of(ranks)
                n_matched += matched
                if stage.on_match == "mark":
                    columns |= table
                else:
                    writer.add_table(f"supersedes/{number}", pa.table(table))
            writer.add_table(f"columns/{number}", pa.table(columns))
        found = {"n_matched_old": n_matched} if stage.against else {}
        clusters = {"n_rounds": self._n_rounds, "clusters": self._clusters()}
        return {"n_undecided": 0, **clusters, **self._meta, **found}

    @cached_property
    def _matches(self) -> OldMatches:
        best = self._stage.on_match == "mark"
        return OldMatches(self._call.exchange, self._docs, self._names, self._edges, self._rule, best)

    def _duplicates(self, rows: np.ndarray, ranks: np.ndarray) -> pa.Table:
        """The kept copies of dropped rows of a segment, and how similar they are (null: not compared)."""
        table = self._names.table(self._docs.numbers(self._rule.keeper[ranks].astype(np.int64)))
        table = table if self._stage.against else table.drop_columns(["source", "id"])
        similarity = np.round(self._rule.best[ranks].astype(np.float64), 6)
        table = table.add_column(0, "row", pa.array(rows.astype(np.int64)))
        return table.append_column("similarity", pa.array(similarity, mask=np.isnan(similarity)))

    def _clusters(self) -> dict[str, Any]:
        """How many clusters there are of 2, 3-4, 5-8, ... documents, and the largest, with some members."""
        roots = np.flatnonzero(self._sizes > 1)
        sizes = self._sizes[roots]
        classes, counts = np.unique(np.ceil(np.log2(sizes)).astype(int), return_counts=True)
        largest = roots[np.argsort(-sizes, kind="stable")[: self._LARGEST]]
        return {
            "n": len(roots),
            "sizes": {f"<= {2 ** int(k)}": int(n) for k, n in zip(classes, counts, strict=True)},
            "largest": [self._cluster(root) for root in largest.tolist()],
        }

    def _cluster(self, root: int) -> dict[str, Any]:
        members = np.flatnonzero(self._roots == root)
        dropped = members[members != root]
        numbers = self._docs.numbers(np.concatenate([[root], dropped[:3]]))
        rows = self._names.table(numbers).to_pylist()
        places = [
            {"shard": row["shard"], "part": row["part"], "row": row["shard_row"], "id": id_}
            for row, id_ in zip(rows, self._names.ids(numbers), strict=True)
        ]
        with np.errstate(all="ignore"):
            least = self._rule.best[dropped]
        least = least[~np.isnan(least)]
        return {
            "size": len(members),
            "kept": places[0],
            "dropped": places[1:],
            "least_similarity": round(float(least.min()), 6) if len(least) else None,
        }
