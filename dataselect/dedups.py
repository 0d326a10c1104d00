"""The phases of one dedup: which tasks there are, named by what they depend on. Part of the walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dataselect.core.errors import DataselectError
from dataselect.core.fingerprint import fingerprint
from dataselect.core.keys import artifact_name
from dataselect.core.pieces import Piece
from dataselect.engine.against import GatherCall, MatchCall, OldPart, OldShinglesCall, SignCall
from dataselect.engine.docs import MAX_DOCS, Exchange, Places
from dataselect.engine.exact import ExactCall, ShinglesCall
from dataselect.engine.group import RANK_BITS, GroupCall
from dataselect.engine.inputs import SegmentRefs
from dataselect.engine.join import JoinCall, join_bytes
from dataselect.engine.ranks import RankCall
from dataselect.engine.tasks import Task
from dataselect.engine.verify import VerifyCall
from dataselect.io.bundle import Bundle
from dataselect.io.dedup_index import INDEX_BITS
from dataselect.io.fields import FieldSpec
from dataselect.io.store import Store
from dataselect.stages.base import DedupStage, NearDedupStage

_KEY_BYTES = 64  # of memory for a key: 30 to 45 while its partition is sorted
_PAIR_BYTES = 96  # of memory for a pair: 70 where it is judged
_MAX_PARTITIONS = 1 << 14
_EXACT_PAIRS_PER_TASK = 1_000_000
_RANK_BYTES = 32
"""Memory of `rank_rows` for a document."""


@dataclass(frozen=True)
class Step:
    """A task, the artifact that it makes, and what decides whether it runs."""

    task: Task
    artifact: str
    parts: Mapping[str, str]
    weight: int = 0


@dataclass(frozen=True)
class DedupInputs:
    """What the walk knows when it comes to a dedup."""

    index: int
    stage: DedupStage
    label: str
    fingerprint: str
    """Of what its keys depend on."""
    segments: tuple[SegmentRefs, ...]
    keys: tuple[str, ...]
    """Artifact with the keys of each segment."""
    digests: tuple[str, ...]
    """Content of each segment."""
    shard_rows: tuple[tuple[int, ...], ...]
    """Rows of each shard of each segment: a row that moves to the next shard keeps its document number."""
    pieces: tuple[Piece, ...]
    edits: tuple[tuple[str, ...], ...]
    """Artifacts with the edits of each segment's texts."""
    mask: str
    ranked_by: tuple[Any, ...]
    """What decides, for each segment, the columns that `keep` goes by."""
    memory_bytes: int
    """What a task may hold, about: decides how keys and pairs are cut, and no result."""
    against: tuple[OldPart, ...]
    """Old documents; `place` of those in shards is left open."""
    base: str
    """Fingerprint of how rows are read."""
    key_fields: tuple[FieldSpec, ...]
    """Input fields that its keys are made of."""


class DedupPhases:
    """Runs (or only decides) the tasks of one dedup; `run` raises where planning can't go on."""

    def __init__(self, given: DedupInputs, work: Store, run: Callable[[str, Sequence[Step]], None]) -> None:
        self._in, self._work, self._run_steps = given, work, run
        self._phase = f"dedup {given.label}"
        self._n_rows = tuple(refs.n_rows for refs in given.segments)
        self._shingles: list[tuple[int, str, int]] = []
        self._old_parts: tuple[OldPart, ...] = ()
        self.ranks = ""
        """Artifact of `rank_rows`, where `keep` needs one; known after `run`."""
        names = tuple((tuple(shard.name for shard in p.shards), p.part) for p in given.pieces)
        self._places = Places(tuple(refs.piece for refs in given.segments), names)
        self._where = fingerprint(
            names, [[refs.piece, r] for refs, r in zip(given.segments, given.shard_rows, strict=True)]
        )

    def run(self) -> str:
        """The artifact of `join_groups` that says who survives."""
        if sum(self._n_rows) >= MAX_DOCS:
            raise DataselectError(
                f"{self._in.label}: {sum(self._n_rows):,} rows; a dedup takes {MAX_DOCS:,} at most"
            )
        bases = tuple(refs.base for refs in self._in.segments)
        exchange = Exchange(self._in.index, self._in.keys, bases, self._n_rows, self._in.mask, self._in.edits)
        if self._in.stage.keep_ != "first":
            self.ranks = self._ranks(exchange)
            exchange = replace(exchange, ranks=self.ranks)
        if self._in.against:
            exchange = self._with_old(exchange)
        groups = self._groups(exchange)
        verified = self._verify(exchange, groups) if isinstance(self._in.stage, NearDedupStage) else ()
        exact: tuple[str, ...] = ()
        undecided: tuple[str, ...] = ()
        while True:
            joined = self._join(exchange, groups, verified, exact, undecided)
            if not Bundle(self._work, joined).meta["n_undecided"]:
                return joined
            undecided = (*undecided, joined)
            exact += self._compare(exchange, joined)

    def _step(
        self,
        name: str,
        function: str,
        call: Any,
        artifact: str,
        why: str,
        weight: int = 0,
        doc_bytes: int = 1,
    ) -> Step:
        memory_bytes = max(1 << 30, self._in.memory_bytes) + sum(self._n_rows) * doc_bytes
        task = Task(f"{name} {self._in.label}", function, call, memory_bytes)
        return Step(task, artifact, {why: artifact}, weight)

    def _one(self, step: Step) -> str:
        self._run_steps(self._phase, [step])
        return step.artifact

    def _digest(self, *names: str) -> list[str]:
        return [Bundle(self._work, name).digest for name in names]

    def _ranks(self, exchange: Exchange) -> str:
        keep = self._in.stage.model_dump(mode="json", include={"keep_"})
        made = [keep, exchange.bases, self._in.edits, self._n_rows, self._in.ranked_by, self._where]
        key = fingerprint("rank", *made)
        name = artifact_name("ranks", key)
        call = RankCall(exchange, self._in.segments, self._places, name)
        why = "scores, lengths or shards"
        return self._one(self._step("rank", "ranks:rank_rows", call, name, why, doc_bytes=_RANK_BYTES))

    def _n_partitions(self) -> int:
        n_keys = sum(self._n_rows) * self._in.stage.keys_per_doc()
        n_partitions = 1
        while n_partitions * self._in.memory_bytes < n_keys * _KEY_BYTES and n_partitions < _MAX_PARTITIONS:
            n_partitions *= 2
        return n_partitions

    def _with_old(self, exchange: Exchange) -> Exchange:
        """With those old documents that share a key with some new one, as a segment of their own."""
        self._old_parts = self._signed()
        parts = [
            [part.source, part.digest or self._digest(part.place), [text is not None for text in part.texts]]
            for part in self._old_parts
        ]
        made = fingerprint("match", exchange.keys, parts)
        n_partitions = min(self._n_partitions(), 1 << INDEX_BITS)
        steps = []
        for p in range(n_partitions):
            name = artifact_name("matched", fingerprint(made, p, n_partitions))
            call = MatchCall(exchange.keys, self._old_parts, p, n_partitions, name)
            task = f"match {p + 1}/{n_partitions}"
            steps.append(self._step(task, "against:match_keys", call, name, "keys or old documents"))
        self._run_steps(self._phase, steps)
        name = artifact_name("old", fingerprint("gather", made, n_partitions))
        call_gather = GatherCall(self._old_parts, tuple(step.artifact for step in steps), name)
        self._one(self._step("gather", "against:gather_old", call_gather, name, "keys or old documents"))
        n_old = int(Bundle(self._work, name).meta["n_docs"])
        first = self._in.stage.on_match == "keep_old"
        return replace(exchange, old=name, n_old=n_old, old_first=first) if n_old else exchange

    def _signed(self) -> tuple[OldPart, ...]:
        """All parts, the shards among them with the index that is made of each piece."""
        parts, steps = [], []
        for given in self._in.against:
            part = given
            if part.piece is not None:
                fields = self._in.key_fields
                made = [self._in.fingerprint, self._in.base, part.piece.place(()), part.piece.version()]
                name = artifact_name("signed", fingerprint("sign", made, *map(asdict, fields)))
                call = SignCall(self._in.index, part.piece, fields, name)
                task, weight = f"sign {part.piece.name}", part.piece.n_bytes
                steps.append(self._step(task, "against:sign_piece", call, name, "old shards", weight))
                part = replace(part, place=name, texts=tuple(part.piece.singles()))
            parts.append(part)
        self._run_steps(self._phase, steps)
        return tuple(parts)

    def _groups(self, exchange: Exchange) -> tuple[str, ...]:
        """Candidates, one task for each of 2^p partitions of the key space."""
        n_partitions = self._n_partitions()
        ranks = None if exchange.ranks is None else self._digest(exchange.ranks)
        made = [self._in.fingerprint, exchange.keys, self._n_rows, self._digest(exchange.alive), ranks]
        key = fingerprint("group", made, exchange.old, exchange.old_first, n_partitions)
        steps = []
        for p in range(n_partitions):
            name = artifact_name("groups", fingerprint(key, p))
            call = GroupCall(exchange, p, n_partitions, name)
            steps.append(
                self._step(
                    f"group {p + 1}/{n_partitions}",
                    "group:group_keys",
                    call,
                    name,
                    "keys or rows that reach it",
                )
            )
        self._run_steps(self._phase, steps)
        return tuple(step.artifact for step in steps)

    def _verify(self, exchange: Exchange, groups: tuple[str, ...]) -> tuple[str, ...]:
        """Pairs compared by their signatures, in ranges of ranks that have about as many pairs."""
        bundles = [Bundle(self._work, name) for name in groups]
        indexes = [bundle.array(f"{kind}_index") for bundle in bundles for kind in ("pairs", "copies")]
        counts = np.sum(indexes, axis=0).tolist()
        bounds, last = [0], 0
        for k in range(1, 1 << RANK_BITS):
            if (counts[k + 1] - last) * _PAIR_BYTES > self._in.memory_bytes:
                bounds, last = [*bounds, k], counts[k]
        ranges = list(zip(bounds, [*bounds[1:], 1 << RANK_BITS], strict=True))
        stage = self._in.stage.model_dump(mode="json", include={"threshold", "verify"})
        made = [self._in.fingerprint, stage, self._digest(*groups), exchange.keys, self._n_rows, exchange.old]
        key = fingerprint("verify", made)
        steps = []
        for n, (start, stop) in enumerate(ranges):
            name = artifact_name("verified", fingerprint(key, start, stop))
            call = VerifyCall(exchange, groups, start, stop, name)
            steps.append(
                self._step(f"verify {n + 1}/{len(ranges)}", "verify:verify_pairs", call, name, "candidates")
            )
        self._run_steps(self._phase, steps)
        return tuple(step.artifact for step in steps)

    def _join(
        self,
        exchange: Exchange,
        groups: tuple[str, ...],
        verified: tuple[str, ...],
        exact: tuple[str, ...],
        undecided: tuple[str, ...],
    ) -> str:
        made = [
            [self._digest(*names) for names in (groups, verified, exact)],
            exchange.old,
            len(self._in.against),
        ]
        stage = self._in.stage.model_dump(mode="json", exclude={"optional", *self._in.stage.outer_fields})
        name = artifact_name("joined", fingerprint("join", self._in.stage.version, stage, made, self._where))
        call = JoinCall(exchange, groups, verified, exact, undecided, self._places, name)
        attempt = f"join {len(undecided) + 1}" if undecided else "join"
        doc_bytes = join_bytes(self._in.stage)
        return self._one(
            self._step(attempt, "join:join_groups", call, name, "groups or rows", doc_bytes=doc_bytes)
        )

    def _compare(self, exchange: Exchange, undecided: str) -> tuple[str, ...]:
        """Exact similarities of the pairs that `undecided` names; reads the pieces that hold them."""
        bundle = Bundle(self._work, undecided)
        steps = []
        for piece, numbers in enumerate(self._numbers_by_piece()):
            found = [(k, n) for k, n in enumerate(numbers) if f"rows/{n}" in bundle]
            if not found:
                continue
            edits = tuple(self._in.edits[n] for _, n in found)
            rows = [
                [self._in.digests[n], names, bundle.section_digest(f"rows/{n}")]
                for (_, n), names in zip(found, edits, strict=True)
            ]
            name = artifact_name("shingles", fingerprint("shingles", self._in.fingerprint, rows))
            call = ShinglesCall(self._in.index, self._in.pieces[piece], undecided, tuple(found), edits, name)
            task = f"shingles {self._in.pieces[piece].name}"
            weight = self._in.pieces[piece].n_bytes
            steps.append(self._step(task, "exact:list_shingles", call, name, "undecided pairs", weight))
            self._shingles += [(n, name, k) for k, n in found]
        steps += self._old_shingles(exchange, undecided, bundle)
        self._run_steps(self._phase, steps)
        shingles = tuple(self._shingles)
        made = [self._digest(undecided), self._digest(*(name for _, name, _ in shingles))]
        pairs = int(bundle.meta["n_undecided"])
        compares = []
        for start in range(0, pairs, _EXACT_PAIRS_PER_TASK):
            stop = min(start + _EXACT_PAIRS_PER_TASK, pairs)
            name = artifact_name("exact", fingerprint("exact", made, start, stop))
            call_exact = ExactCall(exchange, undecided, shingles, start, stop, name)
            compares.append(
                self._step(
                    f"compare {start:,}", "exact:exact_similarities", call_exact, name, "undecided pairs"
                )
            )
        self._run_steps(self._phase, compares)
        return tuple(step.artifact for step in compares)

    def _old_shingles(self, exchange: Exchange, undecided: str, bundle: Bundle) -> list[Step]:
        """Reads of old shards."""
        segment, steps = len(self._n_rows), []
        if exchange.old is None or f"rows/{segment}" not in bundle:
            return []
        old, rows = Bundle(self._work, exchange.old), bundle.array(f"rows/{segment}")
        files = np.stack([old.array("part")[rows], old.array("text_codes")[rows].astype(np.int32)], axis=1)
        for part, code in np.unique(files, axis=0).tolist():
            texts = self._old_parts[part].texts[code]
            assert texts is not None
            made = [self._in.fingerprint, exchange.old, part, code, bundle.section_digest(f"rows/{segment}")]
            name = artifact_name("shingles", fingerprint("old shingles", made, texts.version()))
            call = OldShinglesCall(self._in.index, exchange.old, part, code, texts, undecided, segment, name)
            task, weight = f"shingles {texts.name}", texts.n_bytes
            steps.append(self._step(task, "against:list_old_shingles", call, name, "undecided pairs", weight))
            self._shingles.append((segment, name, 0))
        return steps

    def _numbers_by_piece(self) -> list[list[int]]:
        numbers: list[list[int]] = [[] for _ in self._in.pieces]
        for number, refs in enumerate(self._in.segments):
            numbers[refs.piece].append(number)
        return numbers
