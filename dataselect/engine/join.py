"""The task of a dedup that decides who survives.

What grows with the corpus in memory is JOIN_BYTES a document.
"""

from __future__ import annotations

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
from dataselect.engine.columns import distinct, pack
from dataselect.engine.docs import DocNames, Docs, Exchange, Places, unpacked
from dataselect.engine.group import NO_PAIRS, most_pairs
from dataselect.engine.job import Context, Figures, figures
from dataselect.engine.old_matches import OldMatches
from dataselect.engine.survivors import Edges, Rule, cluster_sizes, rule_of
from dataselect.engine.verify import CHUNK, Comparer, found_in
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.stages.base import DedupStage, NearDedupStage

JOIN_BYTES = 16
"""Memory of `join_groups` for a document, with the defaults."""
_SPLIT_BYTES, _NAME_BYTES = 20, 12
"""More for components of which large ones are split, and for names of clusters."""
_MORE = 4
"""So many times the documents of undecided pairs are read with them, so that no later read is needed."""


def join_bytes(stage: DedupStage) -> int:
    """Memory of `join_groups` for a document."""
    if not isinstance(stage, NearDedupStage):
        return JOIN_BYTES
    splits = stage.survivors == "component" and stage.larger_clusters == "split"
    return JOIN_BYTES + _SPLIT_BYTES * splits + _NAME_BYTES * (stage.cluster is not None)


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
        self._more: tuple[np.ndarray, np.ndarray | None] = (NO_PAIRS, None)
        self._missing: list[np.ndarray] = [NO_PAIRS]
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
        self._missing = [NO_PAIRS]
        if not isinstance(self._stage, NearDedupStage):
            for name in self._call.groups:
                yield _with_copies(
                    NO_PAIRS, np.empty(0, np.float32), self._context.bundle(name).array("copies")
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
            out = np.empty(most_pairs(np.diff(starts)), np.uint64)
            pairs = distinct(out[: bucket_pairs(members, starts, kept, out)])
            pairs = pairs[~found_in(self._more[0], pairs)[1]]
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
    """Both ascending: slices of at most CHUNK pairs, and of the copies between these."""
    cuts = np.arange(CHUNK, len(pairs), CHUNK)
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
