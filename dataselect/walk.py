"""One walk over the plan, for `run` and for `plan`: phases of tasks, each decided before it is run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from dataselect.core.errors import BadShard, DataselectError
from dataselect.core.fingerprint import fingerprint
from dataselect.core.keys import artifact_name, column_name, identity_name
from dataselect.core.listener import Listener
from dataselect.core.pieces import Piece, Segment, usual_text_bytes
from dataselect.dedups import DedupInputs, DedupPhases, Step
from dataselect.engine.against import OldPart
from dataselect.engine.inputs import SegmentRefs
from dataselect.engine.job import Context, Job
from dataselect.engine.lookup import LookUpCall
from dataselect.engine.read import (
    BASE,
    FIELD,
    Call,
    IdentifyCall,
    ReadCall,
    SegmentCall,
    artifact_names,
    identify_piece,
)
from dataselect.engine.reduce import FitCall, MaskCall, PrepareCall, SelectCall
from dataselect.engine.shuffle import RANGE_BYTES, GatherCall, scattered_name, shuffle_sizes
from dataselect.engine.tasks import Engine, Task
from dataselect.engine.write import WriteCall, record_name
from dataselect.io.bundle import Bundle
from dataselect.io.fields import FieldSpec
from dataselect.io.store import Store, each, is_far
from dataselect.planning.decisions import Decisions
from dataselect.planning.reads import ReadPlan
from dataselect.stages.base import (
    ORDINAL,
    PLACE_COLUMNS,
    TEXT_SIZES,
    ColumnStage,
    DedupStage,
    FittedStage,
    SelectStage,
    Stage,
)

BASE_VERSION = 1
WRITE_VERSION = 4
FIELD_VERSION = 1
_INDEX_BYTES = 1_800  # of memory for a segment in the indexes of a barrier's artifacts
_FIT_BYTES = (512 << 20, 4)  # of memory for a fit, and for each byte of its sample
_FILE_BYTES = 2  # of memory for a byte of a stage's file while it is prepared
_SMALL_BYTES = 1 << 10  # of a model's arrays that the coordinator reads


class WaitsFor(Exception):
    """Planning can't go on: later names depend on tasks that have not run."""


@dataclass(eq=False)
class PieceState:
    """What is known of a piece."""

    piece: Piece
    segments: list[Segment] = field(default_factory=list)
    complete: bool = False
    status: str = "new"
    """'known', 'partial' (an interrupted read), 'changed' (listing differs from what was read) or 'new'."""


@dataclass(frozen=True)
class Planned:
    """A task with what decides whether it runs."""

    task: Task
    artifact: str
    parts: Mapping[str, str]
    done: bool
    weight: int = 0
    """Bytes on the store that it reads; for progress."""


@dataclass
class Inputs:
    """What a walk starts from; made by prepare."""

    job: Job
    stages: list[Stage]
    stage_fingerprints: list[str]
    reads: list[ReadPlan]
    given_models: dict[int, str]
    """Fitted or selecting stage -> artifact of a model that was given or frozen."""
    pieces: list[Piece]
    on_bad_shard: str
    bad_rows_allowed: Callable[[int], int]
    rehash: bool
    memory_bytes: int
    """What a task of a dedup may hold, about."""
    file_bytes: Sequence[int] = ()
    """For every stage the size of its files."""
    fields: tuple[FieldSpec, ...] = ()
    """Input fields that some stage asks for."""
    against: Mapping[int, tuple[OldPart, ...]] = field(default_factory=dict)
    """Dedup -> old documents that it compares with."""


def _in_shard(piece: Piece, shard_rows: Sequence[int], row: int) -> tuple[str, int]:
    """Shard and row within it of a row of a segment (of which only groups have several shards)."""
    for shard, n_rows in zip(piece.shards, shard_rows, strict=False):
        if row < n_rows or len(piece.shards) == 1:
            return shard.name, row
        row -= n_rows
    return piece.name, row


class Walk:
    """Runs (engine given) or only decides (None) every task, in phases."""

    def __init__(
        self,
        inputs: Inputs,
        work: Store,
        decisions: Decisions,
        engine: Engine | None,
        listener: Listener,
    ) -> None:
        self._in, self._work = inputs, work
        self._decisions, self._engine, self._listener = decisions, engine, listener
        names = {entry.name for entry in work.list()}
        self._identities = {name for name in names if name.startswith("identity/")}
        self._existing = names - self._identities
        self.pieces: list[PieceState] = []
        self.bad_shards: dict[str, str] = {}
        self.model_artifacts: dict[int, str] = {}
        self.dedup_artifacts: dict[int, str] = {}
        self.notes: dict[int, list[str]] = {}
        """What stages say of their run; see Stage.notes."""
        self._model_digests: dict[int, str] = {}
        self._refs: list[SegmentRefs] = []
        self._shard_rows: list[list[int]] = []
        self._barrier_digests: list[dict[int, str]] = []
        self._decide = [stage.decide_fingerprint() for stage in inputs.stages]
        self._edit_chains: dict[int, str] = {}
        self._masks: set[str] = set()
        self._first_number: dict[int, int] = {}
        self._sample_names: dict[int, list[str]] = {}
        self._stems: Counter[str] = Counter()
        self.n_checked = 0
        self._open: tuple[str, Bundle] | None = None

    # Phases ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Everything up to, but without, writing. Raises WaitsFor when only planning."""
        self._identify()
        self._prepare()
        bounds = self._read_bounds()
        for number, read in enumerate(self._in.reads):
            if read.opened_by is not None:
                self._fit(read.opened_by)
            self._read(number, read)
            for i in range(bounds[number], bounds[number + 1]):
                if isinstance(self._in.stages[i], DedupStage):
                    self._dedup(i)
                elif isinstance(self._in.stages[i], SelectStage):
                    self._select(i)
                elif self._looks_up(i):
                    self._look_up_columns(i)

    def _read_bounds(self) -> list[int]:
        """Read k holds the stages from item k to before item k + 1."""
        return [*(read.opened_by or 0 for read in self._in.reads), len(self._in.stages)]

    def steps(self) -> list[tuple[str, int]]:
        """All phases in order, with about how many tasks each has."""
        prepares = sum(type(stage).prepare is not Stage.prepare for stage in self._in.stages)
        steps = [("prepare", prepares)] if prepares else []
        bounds = self._read_bounds()
        for number, read in enumerate(self._in.reads):
            if read.opened_by is not None:
                steps.append((f"fit {self._label(read.opened_by)}", 1))
            steps.append((f"read {number + 1}", len(self._in.pieces)))
            for i in range(bounds[number], bounds[number + 1]):
                if self._looks_up(i):
                    steps.append((f"look up {self._label(i)}", len(self._in.pieces)))
                if isinstance(self._in.stages[i], DedupStage):
                    steps.append((f"dedup {self._label(i)}", 3))
                elif isinstance(self._in.stages[i], SelectStage):
                    steps.append((f"select {self._label(i)}", 2))
        shuffle = [("shuffle", 1)] if self._in.job.output.shuffle is not None else []
        return [*steps, ("write", len(self._in.pieces)), *shuffle]

    def _phase(self, name: str, planned: Sequence[Planned], *, blocks: bool = True) -> list[Any]:
        """Decide and run the tasks of a phase; results of those that ran, None for the others.

        blocks: whether later names depend on the results, so that planning must stop at a task to run.
        """
        to_run = [
            i
            for i, p in enumerate(planned)
            if self._decisions.add(p.task.name, name, done=p.done, parts=p.parts)
        ]
        results: list[Any] = [None] * len(planned)
        if not to_run or (self._engine is None and not blocks):
            return results
        if self._engine is None:
            raise WaitsFor(name)
        self._listener.phase(name, len(planned), len(to_run), sum(planned[i].weight for i in to_run))
        for k, result in self._engine.run([planned[i].task for i in to_run], self._listener.progress):
            results[to_run[k]] = result
            chosen = planned[to_run[k]]
            self._listener.task_done(chosen.task.name, chosen.weight, result)
            self._existing.add(chosen.artifact)
        self._listener.phase_done()
        return results

    # Pieces -----------------------------------------------------------------------------------------------

    def _identify(self) -> None:
        """Look up what is known of each piece; read again only those whose listing changed."""
        self.pieces = each(self._look_up, self._in.pieces, far=is_far(self._work))
        changed = [state for state in self.pieces if state.status == "changed"]
        for state, result in zip(changed, self._check([state.piece for state in changed]), strict=True):
            if result.get("bad"):
                self._bad_shard(state, result["bad"])
            else:
                state.segments = [
                    Segment(k, s["digest"], s["n_rows"]) for k, s in enumerate(result["segments"])
                ]
                state.complete = True
        self.n_checked = len(changed)

    def _check(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Digests of pieces whose listing changed; `plan` reads them itself, to tell touched from changed."""
        tasks = [Task(f"check {piece.name}", "read:identify_piece", IdentifyCall(piece)) for piece in pieces]
        if not tasks or self._engine is None:
            return [identify_piece(Context(self._in.job), task.call) for task in tasks]
        self._listener.phase("check", len(tasks), len(tasks), sum(piece.n_bytes for piece in pieces))
        results: list[dict[str, Any]] = [{}] * len(tasks)
        for k, result in self._engine.run(tasks, self._listener.progress):
            results[k] = result
            self._listener.task_done(tasks[k].name, pieces[k].n_bytes, result)
        self._listener.phase_done()
        return results

    def _look_up(self, piece: Piece) -> PieceState:
        name = identity_name(piece.place(self._in.job.read.cut(piece)))
        if name not in self._identities:
            return PieceState(piece)
        try:
            record = json.loads(self._work.read(name))
        except (OSError, ValueError):
            return PieceState(piece)
        if record["version"] != piece.version() or self._in.rehash:
            # An interrupted first read of an older version says nothing of this one.
            return PieceState(piece, status="changed") if record["complete"] else PieceState(piece)
        segments = [Segment(k, s["digest"], s["n_rows"]) for k, s in enumerate(record["segments"])]
        return PieceState(piece, segments, record["complete"], "known" if record["complete"] else "partial")

    def _bad_shard(self, state: PieceState, message: str) -> None:
        """Stop, or go on without the shard, all parts of it; a group is taken apart and loses no other."""
        if self._in.on_bad_shard == "stop" or self._refs:
            raise BadShard(message)
        if state not in self.pieces:  # another part of its shard was bad too
            return
        at, shards = self.pieces.index(state), state.piece.shards
        if len(shards) > 1:
            self.pieces[at : at + 1] = [self._look_up(piece) for piece in state.piece.singles()]
        else:
            self.pieces = [other for other in self.pieces if other.piece.shards != shards]
            self.bad_shards[shards[0].name] = message

    # Models ------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Arrays made from files: folded classifiers, target counts."""
        todo = [i for i, stage in enumerate(self._in.stages) if type(stage).prepare is not Stage.prepare]
        planned = []
        for i in todo:
            name = artifact_name("prepared", fingerprint("prepare", self._in.stage_fingerprints[i]))
            task = Task(f"prepare {self._label(i)}", "reduce:prepare_stage", PrepareCall(i, name))
            task = replace(task, memory_bytes=task.memory_bytes + _FILE_BYTES * self._in.file_bytes[i])
            parts = {"parameters or files": self._in.stage_fingerprints[i]}
            planned.append(Planned(task, name, parts, name in self._existing))
        self._phase("prepare", planned, blocks=False)
        for i, p in zip(todo, planned, strict=True):
            # What is prepared is a function of this alone, so that planning can go on without it.
            self.model_artifacts[i], self._model_digests[i] = p.artifact, self._in.stage_fingerprints[i]
        for i, name in self._in.given_models.items():
            self._set_model(i, name)

    def _set_model(self, stage: int, artifact: str) -> None:
        self.model_artifacts[stage] = artifact
        self._model_digests[stage] = Bundle(self._work, artifact).digest

    def _label(self, stage: int) -> str:
        return f"{stage}:{self._in.stages[stage].use}"

    def _fit(self, i: int) -> None:
        phase = f"fit {self._label(i)}"
        mask = self._mask(i, phase)
        samples = [self._sample_names[i][k] for k in range(len(self._refs))]
        prepared = self.model_artifacts.get(i)
        key = fingerprint(
            "fit", self._in.stage_fingerprints[i], self._model_digests.get(i), samples, self._digest(mask)
        )
        name = artifact_name("fitted", key)
        n_rows = tuple(refs.n_rows for refs in self._refs)
        call = FitCall(i, prepared, tuple(samples), n_rows, mask, name)
        parts = {"parameters or files": self._in.stage_fingerprints[i], "documents that reach it": key}
        sampled = cast("FittedStage", self._in.stages[i]).sample_bytes() or 0  # all documents are streamed
        memory_bytes = _FIT_BYTES[0] + _FIT_BYTES[1] * sampled
        self._one(phase, phase, "reduce:fit_stage", call, name, parts, memory_bytes)
        self._set_model(i, name)

    def _one(
        self,
        task: str,
        phase: str,
        function: str,
        call: Any,
        name: str,
        parts: Mapping[str, str],
        memory_bytes: int = 0,
    ) -> None:
        made = Task(task, function, call, max(memory_bytes, self._memory_bytes()))
        self._phase(phase, [Planned(made, name, parts, name in self._existing)])

    def _memory_bytes(self) -> int:
        """What a task that reads artifacts of barriers needs at most, about."""
        kinds = (DedupStage, FittedStage, SelectStage)
        n_barriers = sum(isinstance(stage, kinds) for stage in self._in.stages)
        return (1 << 30) + n_barriers * _INDEX_BYTES * len(self._refs)

    def _digest(self, artifact: str) -> str:
        return Bundle(self._work, artifact).digest

    def _metas(self, artifacts: Sequence[str]) -> list[dict[str, Any]]:
        """What artifacts say of themselves; on an object store many are asked at a time."""
        return each(lambda name: Bundle(self._work, name).meta, artifacts, far=is_far(self._work))

    # Reads --------------------------------------------------------------------------------------------------

    def _calls(self, read: ReadPlan, number: int) -> tuple[Call, ...]:
        """The stages of a read, each with the chain that its artifacts' names depend on."""
        base = self._base_fingerprint(self._in.job.sample_share)
        chains = {
            spec.name: fingerprint(base, "field", FIELD_VERSION, asdict(spec)) for spec in self._in.fields
        }
        calls = []
        if number == 0:
            fields = [Call(FIELD, "field", chains[spec.name], field=spec) for spec in self._in.fields]
            calls = [Call(BASE, "base", base), *fields]
        # Of edits by earlier reads; which rows they cover is in `alive`.
        filters = [self._edit_chains[i] for i in self._editors(read.opened_by or 0)]
        calls += [Call(i, "edits", "") for i in self._editors(read.opened_by or 0)]
        for i, role in read.roles:
            if role == "rules":
                read_fields = [chains.get(name) for name in self._in.stages[i].input_columns()]
                calls.append(Call(i, role, ""))
                filters.append(fingerprint(self._in.stage_fingerprints[i], self._decide[i], read_fields))
                continue
            model = None if role == "sample" else self.model_artifacts.get(i)
            digest = self._model_digests.get(i) if model else None
            share = self._sample_share(i) if role == "sample" else 1.0
            stage = fingerprint(self._in.stage_fingerprints[i], role, digest, share)
            calls.append(Call(i, role, fingerprint(base, stage, filters), model, share))
            if role == "columns":
                filters.append(fingerprint(stage, self._decide[i]))
                self._edit_chains[i] = stage
        return tuple(calls)

    def _base_fingerprint(self, *more: Any) -> str:
        """Of what decides which rows are documents, and their texts and ids."""
        read = self._in.job.read
        return fingerprint("base", BASE_VERSION, read.text, read.id, read.max_row_bytes, *more)

    def _editors(self, upto: int) -> list[int]:
        """Those of the stages 0 .. upto - 1 that edit texts."""
        return [i for i, stage in enumerate(self._in.stages[:upto]) if stage.edits_text()]

    def _edits(self, number: int, upto: int) -> list[str]:
        """Artifacts that decide, with its content, the texts of a segment's rows as they reach a stage."""
        return [self._refs[number].columns[i] for i in self._editors(upto)]

    def _sample_share(self, i: int) -> float:
        """Share of documents that a fit samples: a power of two, so that growth rarely changes it."""
        most = cast("FittedStage", self._in.stages[i]).sample_bytes()
        # By whole shards, so that another cut into pieces gives the same share.
        shards = [(s, p) for p in self._in.pieces if p.part == 0 for s in p.shards]
        share, text_bytes = 1.0, sum(usual_text_bytes(s.size, p.format, p.codec) for s, p in shards)
        while most is not None and share * text_bytes > most:
            share /= 2
        return share

    def _read(self, number: int, read: ReadPlan) -> None:
        calls = self._calls(read, number)
        if not calls:
            return
        phase = f"read {number + 1}"
        mask = self._mask(read.opened_by, phase) if read.opened_by is not None else None
        states = self.pieces
        while states:
            before = set(self.pieces)
            self._read_pieces(phase, calls, mask, states)
            states = [
                state for state in self.pieces if state not in before
            ]  # of groups that were taken apart
        if number == 0:
            self._merge(calls)
        self._name_columns(calls, mask)

    def _read_pieces(
        self, phase: str, calls: tuple[Call, ...], mask: str | None, states: Sequence[PieceState]
    ) -> None:
        planned = []
        for state in states:
            segments = self._segment_calls(state, mask)
            names = [name for s in segments for name in artifact_names(calls, s) if name]
            done = state.complete and all(name in self._existing for name in names)
            call = ReadCall(state.piece, calls, segments, state.complete)
            parts = {
                "content": fingerprint([s.digest for s in state.segments]),
                "stages of this read": fingerprint([c.chain for c in calls]),
                "rows that reach it": fingerprint([s.alive[2] for s in segments if s.alive]),
            }
            task = Task(f"{phase} {state.piece.name}", "read:read_piece", call, self._memory_bytes())
            planned.append(Planned(task, "", parts, done, state.piece.n_bytes))
        results = self._phase(phase, planned)
        for state, result, p in zip(list(states), results, planned, strict=True):
            if result is not None:
                self._take_segments(state, result, p)

    def _segment_calls(self, state: PieceState, mask: str | None) -> tuple[SegmentCall, ...]:
        if mask is None:
            return tuple(SegmentCall(segment.digest) for segment in state.segments)
        bundle, first = self._bundle(mask), self._first_number[id(state)]
        return tuple(
            SegmentCall(
                s.digest,
                (mask, f"alive/{first + k}", bundle.section_digest(f"alive/{first + k}")),
                self._reaching(first + k),
            )
            for k, s in enumerate(state.segments)
        )

    def _take_segments(self, state: PieceState, result: dict[str, Any], planned: Planned) -> None:
        if result.get("bad"):
            self._bad_shard(state, result["bad"])
            return
        if not state.complete:
            state.segments = [Segment(k, s["digest"], s["n_rows"]) for k, s in enumerate(result["segments"])]
            state.complete = True
        digests = fingerprint([s.digest for s in state.segments])
        self._decisions.parts[planned.task.name] = dict(planned.parts) | {"content": digests}

    def _bundle(self, name: str) -> Bundle:
        """The artifact of a barrier, opened once: its index is as long as the list of segments."""
        if self._open is None or self._open[0] != name:
            self._open = name, Bundle(self._work, name)
        return self._open[1]

    def _merge(self, calls: tuple[Call, ...]) -> None:
        """Number all segments in DocId order, now that they are known, and check the bad rows."""
        if self.bad_shards and not self.pieces:
            raise BadShard(f"every shard is bad; the first: {next(iter(self.bad_shards.values()))}")
        n_rows = n_bad = 0
        first_bad = ""
        bases = [column_name(calls[0].chain, s.digest) for state in self.pieces for s in state.segments]
        metas = iter(self._metas(bases))
        for ordinal, state in enumerate(self.pieces):
            self._first_number[id(state)] = len(self._refs)
            shards = tuple(shard.name for shard in state.piece.shards)
            first_ordinal = n_rows
            for segment in state.segments:
                base = column_name(calls[0].chain, segment.digest)
                meta = next(metas)
                n_rows, n_bad = n_rows + meta["n_rows"], n_bad + meta["n_bad"]
                if meta["n_bad"] and not first_bad:
                    bad = Bundle(self._work, base).table("bad").slice(0, 1).to_pylist()[0]
                    shard, row = _in_shard(state.piece, meta["shard_rows"], bad["row"])
                    first_bad = f"{shard}: row {row}: {bad['reason']}: {bad['detail']}"
                place = (shards, state.piece.part, n_rows - segment.n_rows - first_ordinal)
                refs = SegmentRefs(ordinal, segment.index, segment.n_rows, base, {}, {}, {}, *place)
                self._refs.append(replace(refs, first_ordinal=n_rows - segment.n_rows))
                self._shard_rows.append(meta["shard_rows"])
                self._barrier_digests.append({})
        allowed = self._in.bad_rows_allowed(n_rows)
        if n_bad > allowed:
            raise DataselectError(
                f"{n_bad} of {n_rows} rows are bad, more than input.max_bad_rows allows ({allowed}); "
                f"the first: {first_bad}"
            )

    def _name_columns(self, calls: tuple[Call, ...], mask: str | None) -> None:
        number = 0
        for state in self.pieces:
            for segment in self._segment_calls(state, mask):
                for c, name in zip(calls, artifact_names(calls, segment), strict=True):
                    if c.role == "sample":
                        self._sample_names.setdefault(c.stage, []).append(name)
                    elif c.role in ("columns", "keys"):
                        self._refs[number].columns[c.stage] = name
                    elif c.field is not None:
                        self._refs[number].fields[c.field.name] = name
                number += 1

    # Barriers ----------------------------------------------------------------------------------------------

    def _segment_state(self, number: int, upto: int) -> list[Any]:
        """What decides which rows of a segment reach stage `upto`."""
        refs = self._refs[number]
        stages = [
            [refs.columns.get(i), self._decide[i], self._barrier_digests[number].get(i)] for i in range(upto)
        ]
        names = {name for stage in self._in.stages[:upto] for name in stage.input_columns()}
        return [refs.base, stages, self._fields_and_place(refs, names)]

    @staticmethod
    def _fields_and_place(refs: SegmentRefs, names: Collection[str]) -> list[Any]:
        """What stages that read these columns depend on, besides base columns and those of stages."""
        fields = [refs.fields[name] for name in sorted(names) if name in refs.fields]
        place = [refs.shards, refs.part, refs.first_row] if PLACE_COLUMNS.intersection(names) else None
        return [fields, place, refs.first_ordinal if ORDINAL in names else None]

    def _reaching(self, number: int) -> SegmentRefs:
        """Refs without the keys of dedups, which are no columns."""
        refs = self._refs[number]
        columns = {i: n for i, n in refs.columns.items() if not isinstance(self._in.stages[i], DedupStage)}
        return replace(refs, columns=columns, barriers=dict(refs.barriers))

    def _all_reaching(self) -> tuple[SegmentRefs, ...]:
        return tuple(self._reaching(number) for number in range(len(self._refs)))

    def _mask(self, i: int, phase: str) -> str:
        """Artifact with the rows that reach stage i."""
        states = [self._segment_state(number, i) for number in range(len(self._refs))]
        name = artifact_name("masks", fingerprint("mask", states))
        call = MaskCall(i, self._all_reaching(), name)
        if name not in self._masks:
            self._one(
                f"mask {self._label(i)}",
                phase,
                "reduce:mask_rows",
                call,
                name,
                {"rows or stages before": name},
            )
            self._masks.add(name)
        return name

    def _dedup(self, i: int) -> None:
        stage = self._in.stages[i]
        assert isinstance(stage, DedupStage)
        phase = f"dedup {self._label(i)}"
        mask = self._mask(i, phase)
        key_columns, rank_columns = stage.key_columns(), stage.rank_columns()
        counts = self._look_up_pieces(i, mask, key_columns) if key_columns else Counter[str]()
        segments = self._all_reaching()
        given = DedupInputs(
            index=i,
            stage=stage,
            label=self._label(i),
            fingerprint=self._in.stage_fingerprints[i],
            segments=segments,
            keys=tuple(refs.columns[i] for refs in self._refs),
            digests=tuple(segment.digest for state in self.pieces for segment in state.segments),
            shard_rows=tuple(tuple(rows) for rows in self._shard_rows),
            pieces=tuple(state.piece for state in self.pieces),
            edits=tuple(tuple(self._edits(number, i)) for number in range(len(segments))),
            mask=mask,
            ranked_by=tuple(self._input_artifacts(n, rank_columns) for n in range(len(segments))),
            memory_bytes=self._in.memory_bytes,
            against=self._in.against.get(i, ()),
            base=self._base_fingerprint(),
            key_fields=tuple(spec for spec in self._in.fields if spec.name in key_columns),
        )
        phases = DedupPhases(given, self._work, self._run_steps)
        name = phases.run()
        if rank_columns:
            counts["n_unranked"] = Bundle(self._work, phases.ranks).meta["n_unranked"]
        self.notes[i] = stage.notes(counts, {})
        self.dedup_artifacts[i] = name
        listed = ("supersedes",) if stage.against and stage.on_match == "keep_new" else ()
        self._set_barrier(i, name, ("keep", "dups", "columns", *listed))

    def dedup_figures(self, i: int) -> dict[str, Any]:
        """Pairs compared, and sizes and largest of the clusters, of a dedup that ran."""
        meta = Bundle(self._work, self.dedup_artifacts[i]).meta
        figures = ("n_candidates", "n_exact", "n_rounds", "clusters", "n_matched_old")
        return {"stage": self._label(i), **{name: meta[name] for name in figures if name in meta}}

    def _run_steps(self, phase: str, steps: Sequence[Step]) -> None:
        self._phase(
            phase,
            [Planned(s.task, s.artifact, s.parts, s.artifact in self._existing, s.weight) for s in steps],
        )

    def _column_digest(self, number: int, stage: int) -> str:
        """What decides the values of a stage's columns over a segment."""
        columns = self._refs[number].columns
        return columns[stage] if stage in columns else self._barrier_digests[number][stage]

    def _select(self, i: int) -> None:
        stage = self._in.stages[i]
        assert isinstance(stage, SelectStage)
        phase = f"select {self._label(i)}"
        mask = self._mask(i, phase)
        stages = self.column_stages()
        scored = sorted({stages[name] for name in stage.input_columns() if name in stages})
        fitted = [s for s in scored if isinstance(self._in.stages[s], FittedStage)]
        models = tuple((s, self.model_artifacts[s]) for s in fitted if s in self.model_artifacts)
        segments = self._all_reaching()
        scores = [self._input_artifacts(number, stage.input_columns()) for number in range(len(segments))]
        frozen = self._in.given_models.get(i)
        key = fingerprint(
            "select",
            self._in.stage_fingerprints[i],
            scores,
            [[refs.base, *self._edits(number, i)] for number, refs in enumerate(segments)],
            self._digest(mask),
            self._digest(frozen) if frozen else None,
        )
        name = artifact_name("selected", key)
        call = SelectCall(i, models, segments, mask, frozen, name)
        parts = {"parameters": self._in.stage_fingerprints[i], "scores or rows that reach it": key}
        self._one(phase, phase, "reduce:select_rows", call, name, parts)
        self.model_artifacts[i] = name
        sections = ["keep"] + ["copies"] * stage.repeats() + ["columns"] * bool(stage.output_columns())
        self._set_barrier(i, name, tuple(sections))

    def _input_artifacts(self, number: int, names: list[str]) -> list[Any]:
        """What decides these columns of a segment; base columns are in its `base`."""
        stages = self.column_stages()
        decided = [self._column_digest(number, stages[name]) for name in names if name in stages]
        return [names, decided, self._fields_and_place(self._refs[number], names)]

    def field_misfits(self) -> dict[str, int]:
        """For every input field that was read: how many values are of another type."""
        counts = dict.fromkeys((spec.name for spec in self._in.fields), 0)
        found = [item for refs in self._refs for item in refs.fields.items()]
        for (name, _), meta in zip(found, self._metas([artifact for _, artifact in found]), strict=True):
            counts[name] += meta["n_misfits"]
        return counts

    def _looks_up(self, i: int) -> bool:
        stage = self._in.stages[i]
        if isinstance(stage, DedupStage):
            return bool(stage.key_columns())
        return isinstance(stage, ColumnStage) and bool(stage.output_columns())

    def _look_up_columns(self, i: int) -> None:
        stage = self._in.stages[i]
        assert isinstance(stage, ColumnStage)
        mask = self._mask(i, f"look up {self._label(i)}")
        counts, model = self._look_up_pieces(i, mask, stage.input_columns()), self.model_artifacts.get(i)
        counts["is_sample"] = self._in.job.sample_share < 1
        small = {} if model is None else Bundle(self._work, model).arrays(_SMALL_BYTES)
        stage.check_counts(counts, small)
        self.notes[i] = stage.notes(counts, small)

    def _look_up_pieces(self, i: int, mask: str, names_in: list[str]) -> Counter[str]:
        """Columns or keys from columns: one task a piece, which opens no shard; sums of what they counted."""
        phase, masks = f"look up {self._label(i)}", Bundle(self._work, mask)
        model, planned = self.model_artifacts.get(i), []
        for state in self.pieces:
            first = self._first_number[id(state)]
            segments = tuple(self._reaching(first + k) for k in range(len(state.segments)))
            names = []
            for k, refs in enumerate(segments):
                alive = masks.section_digest(f"alive/{first + k}")
                sized = TEXT_SIZES.intersection(names_in)
                base = [refs.base, *(self._edits(first + k, i) if sized else [])]
                inputs = [base, self._input_artifacts(first + k, names_in), alive]
                names.append(
                    artifact_name("columns", fingerprint("look up", self._in.stage_fingerprints[i], inputs))
                )
                self._refs[first + k].columns[i] = names[-1]
            call = LookUpCall(i, segments, first, mask, model, tuple(names))
            parts = {
                "parameters or files": self._in.stage_fingerprints[i],
                "columns or rows": fingerprint(names),
            }
            task = Task(f"{phase} {state.piece.name}", "lookup:look_up_piece", call, self._memory_bytes())
            done = all(name in self._existing for name in names)
            planned.append(Planned(task, "", parts, done))
        self._phase(phase, planned)
        counts: Counter[str] = Counter()
        for meta in self._metas([refs.columns[i] for refs in self._refs]):
            counts.update(meta["counts"])
        return counts

    def column_stages(self) -> dict[str, int]:
        """Column name -> index of the stage that adds it."""
        return {name: i for i, stage in enumerate(self._in.stages) for name in stage.output_columns()}

    def _set_barrier(self, i: int, artifact: str, sections: tuple[str, ...]) -> None:
        bundle = Bundle(self._work, artifact)
        for number, refs in enumerate(self._refs):
            refs.barriers[i] = (artifact, number)
            digests = [bundle.section_digest(f"{section}/{number}") for section in sections]
            self._barrier_digests[number][i] = fingerprint(digests)

    # Writing -----------------------------------------------------------------------------------------------

    def write_keys(self) -> list[str]:
        """For every piece the key of what it writes: changes when its output or its decisions may."""
        output = self._in.job.output
        spec = [
            WRITE_VERSION, output.format, output.add, output.columns, output.dropped, output.copies,
            output.holdout and asdict(output.holdout), output.shuffle and asdict(output.shuffle),
            output.phases,
        ]  # fmt: skip
        saving = [isinstance(stage, DedupStage) and stage.save_index for stage in self._in.stages]
        stages = list(zip(self._in.stage_fingerprints, self._decide, saving, strict=True))
        names = [output.holdout.by] if output.holdout and output.holdout.by else []
        numbers = iter(range(len(self._refs)))
        keys = []
        for state in self.pieces:
            segments = [[s.digest, self._written_state(next(numbers), names)] for s in state.segments]
            shards = [shard.name for shard in state.piece.shards]
            keys.append(
                fingerprint(
                    "write", spec, stages, shards, state.piece.part, self._stem(state.piece), segments
                )
            )
        return keys

    def _index_keys(self, first: int, n: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Dedups that save an index, each with the keys of n segments."""
        saving = [i for i, s in enumerate(self._in.stages) if isinstance(s, DedupStage) and s.save_index]
        return tuple((i, tuple(refs.columns[i] for refs in self._refs[first : first + n])) for i in saving)

    def _written_state(self, number: int, names: Collection[str]) -> list[Any]:
        """What decides which rows of a segment are written where; names: columns that the writer reads."""
        state = self._segment_state(number, len(self._in.stages))
        return [*state, self._fields_and_place(self._refs[number], names)] if names else state

    def _stem(self, piece: Piece) -> str:
        """Output name without its ending; the whole input name where that is another input's name too."""
        if not self._stems:
            self._stems = Counter(state.piece.stem for state in self.pieces)
            self._stems.update(state.piece.name for state in self.pieces)
        converted = self._in.job.output.format != "same"
        return piece.name if converted and self._stems[piece.stem] > 1 else piece.stem

    def write(
        self,
        keys: Sequence[str],
        generation: str | None,
        reusable: Callable[[str], dict[str, Any] | None],
    ) -> list[dict[str, Any]]:
        """Write every piece; records in piece order. `reusable` gives the record of what is there already."""
        columns = tuple(self.column_stages().items())
        refs = self._all_reaching()
        planned, records = [], []
        number = 0
        for i, state in enumerate(self.pieces):
            segments = refs[number : number + len(state.segments)]
            number += len(state.segments)
            # A shuffle gathers the rows of all pieces, whichever of them changed.
            needed = scattered_name(keys[i]) in self._existing or not self._shuffles(generation)
            record = reusable(keys[i]) if needed else None
            records.append(record)
            keys_of = self._index_keys(number - len(state.segments), len(segments))
            call = WriteCall(
                state.piece, segments, columns, generation, keys[i], self._stem(state.piece), keys_of
            )
            task = Task(f"write {state.piece.name}", "write:write_piece", call, self._memory_bytes())
            parts, done = _written_parts(keys[i]), record is not None
            planned.append(Planned(task, record_name(keys[i]), parts, done, state.piece.n_bytes))
        results = self._phase("write", planned)
        return [r["record"] if r is not None else rec for r, rec in zip(results, records, strict=True)]  # type: ignore[misc]

    def write_nothing(self, keys: Sequence[str]) -> None:
        """Decide that all is written."""
        for state, key in zip(self.pieces, keys, strict=True):
            self._decisions.add(f"write {state.piece.name}", "write", done=True, parts=_written_parts(key))

    def _shuffles(self, generation: str | None) -> bool:
        return generation is not None and self._in.job.output.shuffle is not None

    def shuffle(
        self, keys: Sequence[str], generation: str, reusable: Callable[[str], dict[str, Any] | None]
    ) -> list[dict[str, Any]]:
        """Gather the output shards from what every piece scattered; their records in order."""
        spec = self._in.job.output.shuffle
        if spec is None:
            return []
        scattered = tuple(scattered_name(key) for key in keys)
        sizes = [meta["n_bytes"] for meta in self._metas(scattered)]
        n_shards, n_ranges = shuffle_sizes(sizes, spec.shards)
        suffix = self.pieces[0].piece.suffix if self._in.job.output.format == "same" else None
        suffix = suffix or "." + self._in.job.output.format
        planned, records = [], []
        for number in range(n_shards):
            key = fingerprint("shuffle", list(keys), number, n_shards)
            records.append(reusable(key))
            call = GatherCall(
                scattered, number, n_shards, n_ranges, suffix, generation, key, record_name(key)
            )
            task = Task(f"shuffle {number + 1}/{n_shards}", "shuffle:gather_shard", call, 8 * RANGE_BYTES)
            planned.append(
                Planned(task, record_name(key), {"rows of any shard": key}, records[-1] is not None)
            )
        results = self._phase("shuffle", planned)
        return [r["record"] if r is not None else rec for r, rec in zip(results, records, strict=True)]  # type: ignore[misc]


def _written_parts(key: str) -> dict[str, str]:
    return {"rows kept or decisions": key}
