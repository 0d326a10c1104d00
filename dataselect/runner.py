"""`run` and `plan`: from a recipe to a published generation, or to the decisions that lead there."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, cast

import xxhash

from dataselect.against import old_parts
from dataselect.core.errors import DataselectError, ExpectFailed, Locked, RecipeError, TornArtifact
from dataselect.core.fingerprint import fingerprint
from dataselect.core.keys import artifact_name
from dataselect.core.lengths import quantiles
from dataselect.core.listener import Listener
from dataselect.core.pieces import Piece, Shard
from dataselect.engine.cluster import RayEngine
from dataselect.engine.job import HoldoutCall, Job, OutputCall, ShuffleCall, StageCall, max_rss_bytes
from dataselect.engine.ledger import add_ledgers
from dataselect.engine.local import LocalEngine, default_workers
from dataselect.engine.reduce import model_meta
from dataselect.engine.shared import SharedEngine
from dataselect.engine.tasks import Engine
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.fields import FieldSpec
from dataselect.io.file_systems import check_output
from dataselect.io.local_copies import local_file
from dataselect.io.reader import ReadSpec
from dataselect.io.store import LocalStore, Store, is_file, store_at
from dataselect.planning.decisions import Decisions, load_last, save_last
from dataselect.planning.fields import check_fields
from dataselect.planning.preflight import check_columns, check_shuffled
from dataselect.planning.reads import plan_reads, why_read_again
from dataselect.planning.recipe import Recipe, load_recipe
from dataselect.planning.shards import cut_pieces, list_shards, sample_pieces
from dataselect.publish import Publisher, check_folder, locked, read_manifest
from dataselect.stages.base import ORDINAL, DedupStage, FittedStage, SelectStage, Stage, stage_labels
from dataselect.walk import Inputs, PieceState, WaitsFor, Walk

ENGINES = ("local", "ray", "shared")
_MAX_REPAIRS = 1000
_TURN_S, _LONG_S = 1.0, 10.0
"""Between two looks at whether the participant that publishes has done so; when to say that it takes long."""
_SEGMENT_PIECES = 2
"""A long compressed shard commits its columns every this many times `piece_bytes`."""


@dataclass
class Figures(Listener):
    """Seconds and memory of a run, and whatever another listener makes of it."""

    inner: Listener
    phases: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Worker seconds by part: 'read', 'commit', '2:minhash_dedup', ..."""
    workers_max_rss_bytes: int = 0
    started: float = field(default_factory=time.perf_counter)

    def phase(self, name: str, n_tasks: int, n_run: int, n_bytes: int) -> None:
        started = time.perf_counter()
        self.phases.append({"phase": name, "tasks": n_tasks, "run": n_run, "seconds": {}, "started": started})
        self.inner.phase(name, n_tasks, n_run, n_bytes)

    def progress(self, n_docs: int, n_bytes: int) -> None:
        self.inner.progress(n_docs, n_bytes)

    def task_done(self, name: str, n_bytes: int, figures: Mapping[str, Any]) -> None:
        self.workers_max_rss_bytes = max(self.workers_max_rss_bytes, figures.get("max_rss_bytes", 0))
        seconds = figures.get("seconds", {})
        phase = self.phases[-1]
        phase["seconds"] = add_ledgers(phase["seconds"], seconds)
        kind, _, stage = phase["phase"].partition(" ")
        if kind in ("dedup", "fit", "select"):
            seconds = {stage.split()[0]: sum(seconds.values())}
        self.seconds = add_ledgers(self.seconds, seconds)
        self.inner.task_done(name, n_bytes, figures)

    def phase_done(self) -> None:
        phase = self.phases[-1]
        phase["wall_s"] = time.perf_counter() - phase.pop("started")
        self.inner.phase_done()

    def note(self, text: str) -> None:
        self.inner.note(text)


@dataclass
class Prepared:
    """A recipe with everything found out that needs no task."""

    recipe: Recipe
    inputs: Inputs
    work: Store
    output: Store
    decisions: Decisions


def run(
    recipe: str | Path,
    *,
    workers: int | None = None,
    sets: Sequence[str] = (),
    sample: float | None = None,
    rehash: bool = False,
    engine: str = "local",
    address: str | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Run a recipe; returns the report (see README, "The report").

    workers  processes; all CPUs this process may use, or all of the cluster, by default
    sets     'a.b=value' assignments over the recipe
    sample   share of the input to run on, to see funnel and time; nothing is published
    rehash   read every shard again instead of trusting path, size and time
    engine   "local": processes of this machine; "ray": a Ray cluster, at `address` (see RayEngine);
             "shared": with whoever else runs this recipe on this work store, as `dataselect worker` does
    Raises the errors of dataselect.core.errors; nothing is published then.
    """
    listener = listener or Listener()
    if engine not in ENGINES:
        raise RecipeError(f"engine: expected one of {', '.join(ENGINES)}, got {engine}")
    checked = load_recipe(recipe, sets)
    for text in checked.left_out:
        listener.note(text)
    for _ in range(_MAX_REPAIRS):
        try:
            make = functools.partial(_make_engine, engine, workers, address)
            return _run_once(checked, make, sample, rehash, Figures(listener))
        except TornArtifact as torn:
            listener.note(f"{torn}; making it again")
            store_at(checked.work).delete(torn.name)
    raise DataselectError(
        f"{checked.work}: more than {_MAX_REPAIRS} damaged work files; delete the folder and run again"
    )


def _make_engine(name: str, workers: int | None, address: str | None, prepared: Prepared) -> Engine:
    job = prepared.inputs.job
    if name == "ray":
        return RayEngine(job, workers, address, _files_of_nodes(prepared.inputs))
    if name == "shared":
        return SharedEngine(job, workers or default_workers(), _run_key(prepared))
    return LocalEngine(job, workers or default_workers())


def _run_key(prepared: Prepared) -> str:
    """The same for all participants, wherever each has the recipe and files of its stages."""
    inputs, live = prepared.inputs, read_manifest(prepared.output)
    decides = [stage.decide_fingerprint() for stage in inputs.stages]
    job = asdict(replace(inputs.job, stages=()))
    return fingerprint(inputs.stage_fingerprints, decides, job, live and live["generation"])


def _files_of_nodes(inputs: Inputs) -> list[tuple[str, str]]:
    """What tasks read besides the work folder, one shard of each kind: what people call it, path or URL."""
    urls = [("input.shards", piece.shards[0].url) for piece in inputs.pieces[:1]]
    for parts in inputs.against.values():
        urls += [("against", p.place if p.piece is None else p.piece.shards[0].url) for p in parts[:1]]
    for stage in inputs.stages:
        urls += [(f"{stage.use}: {place}", path) for place, path in stage.file_fields().items()]
    return [(f"{what}: {url}", url) for what, url in urls]


def _run_once(
    recipe: Recipe,
    make_engine: Callable[[Prepared], Engine],
    sample: float | None,
    rehash: bool,
    figures: Figures,
) -> dict[str, Any]:
    prepared = _prepare(recipe, sample=sample, rehash=rehash)
    engine = make_engine(prepared)
    shared = isinstance(engine, SharedEngine)
    lock: contextlib.AbstractContextManager[Callable[[], None]]
    lock = contextlib.nullcontext(_nothing) if shared else locked(prepared.output)
    with lock as check, _swept(prepared):
        with engine, _forgetting(engine):
            walk = Walk(prepared.inputs, prepared.work, prepared.decisions, engine, figures)
            walk.run()
            keys = walk.write_keys()
            publisher = Publisher(prepared.output, prepared.work, keys) if sample is None else None
            outcome = _write(walk, keys, publisher)
            if shared and publisher is not None and not outcome.up_to_date:
                publisher.check_written([*outcome.records, *outcome.shuffled])
        _check_ledger(outcome)
        if publisher is not None:
            _check_expect(prepared.recipe, outcome.ledger)
        done = Done(prepared, walk, figures, engine.n_workers, outcome)
        if shared and publisher is not None:
            return _end_together(done, keys)
        return _end(done, publisher, check)


@dataclass(frozen=True)
class Done:
    """A run whose tasks are done."""

    prepared: Prepared
    walk: Walk
    figures: Figures
    n_workers: int
    outcome: Outcome


def _end(done: Done, publisher: Publisher | None, check: Callable[[], None]) -> dict[str, Any]:
    """Publish what is new (with a publisher: a sample run has none); the report."""
    prepared, walk, outcome = done.prepared, done.walk, done.outcome
    report = _report(prepared, walk, done.figures, outcome) | {"workers": done.n_workers}
    if publisher is not None:
        if outcome.up_to_date:
            report["digest"] = publisher.settle()
        else:
            _publish(prepared, walk, publisher, outcome, report, check)
        save_last(prepared.work, prepared.output.url, prepared.decisions)
    return report


def _end_together(done: Done, keys: list[str]) -> dict[str, Any]:
    """Publish, or find that another participant has; who dies while it publishes is followed by another."""
    output, n_turns = done.prepared.output, 0
    while True:
        try:
            with locked(output) as check:
                publisher = Publisher(output, done.prepared.work, keys)
                live = publisher.up_to_date(done.walk.bad_shards)
                if live is None and publisher.generation != done.outcome.generation:
                    raise DataselectError(f"{output.url}: another run published here meanwhile; run it again")
                return _end(replace(done, outcome=_live_outcome(live)) if live else done, publisher, check)
        except Locked as other:
            live = read_manifest(output)
            if live is not None and live["generation"] == done.outcome.generation:
                return _end(replace(done, outcome=_live_outcome(live)), None, _nothing) | {
                    "digest": live["digest"]
                }
            n_turns += 1
            if n_turns == _LONG_S / _TURN_S:
                done.figures.note(f"waiting to publish: {other}")
            time.sleep(_TURN_S)


def _nothing() -> None:
    """For those whom nobody can take the lock from."""


@contextlib.contextmanager
def _forgetting(engine: Engine) -> Iterator[None]:
    """Results that participants of a shared run left are void when an artifact turns out to be damaged."""
    try:
        yield
    except TornArtifact:
        if isinstance(engine, SharedEngine):
            engine.forget()
        raise


@contextlib.contextmanager
def _swept(prepared: Prepared) -> Iterator[None]:
    """Remove temporary files of killed writers: those of earlier runs, and in the end this run's own."""
    stores = [store for store in (prepared.work, prepared.output) if isinstance(store, LocalStore)]
    try:
        for store in stores:
            store.sweep()
        yield
    finally:
        for store in stores:
            store.sweep()


def plan(recipe: str | Path, *, sets: Sequence[str] = (), rehash: bool = False) -> dict[str, Any]:
    """What `run` would do: stages, reads of the text and why, every task's verdict and reason, space."""
    prepared = _prepare(load_recipe(recipe, sets), sample=None, rehash=rehash)
    decisions = prepared.decisions
    walk = Walk(prepared.inputs, prepared.work, decisions, None, Listener())
    try:
        walk.run()
        keys = walk.write_keys()
        publisher = Publisher(prepared.output, prepared.work, keys)
        _write(walk, keys, publisher)
    except WaitsFor as waits:
        decided = {decision.phase for decision in decisions.made}
        for phase, n_tasks in walk.steps():
            if phase not in decided and n_tasks:
                decisions.wait(phase, n_tasks, str(waits))
    return _plan_report(prepared, walk)


def _prepare(recipe: Recipe, *, sample: float | None, rehash: bool) -> Prepared:
    check_output("output.folder", recipe.output.folder)
    check_output("work", recipe.work)
    output = store_at(recipe.output.folder, durable=True)
    work = store_at(recipe.work)
    check_folder(output)
    shards = list_shards(recipe.input.shards)
    _check_apart(shards, recipe)
    for spec in recipe.stages:
        spec.stage.on_disk().check_files()
    check_columns(shards, recipe.input, recipe.output)
    columns = {name for spec in recipe.stages for name in spec.stage.output_columns()}
    check_fields(shards, recipe.fields, columns)
    pieces = cut_pieces(shards, recipe.input.piece_bytes, stop_at_bad=recipe.input.on_bad_shard == "stop")
    _check_names(pieces)
    if recipe.output.shuffle is not None:
        check_shuffled(pieces, recipe.output)
    share = 1.0
    stages = [spec.stage for spec in recipe.stages]
    if sample is not None:
        for spec in recipe.stages:
            if ORDINAL in spec.stage.input_columns():
                raise RecipeError(f"--sample: {spec.use} joins rows by their order, so it needs all of them")
        chosen, share = sample_pieces(pieces, sample)
        pieces = [pieces[i] for i in chosen]
        stages = [stage.scaled(sample) if isinstance(stage, SelectStage) else stage for stage in stages]
    given = _given_models(recipe, stages, output, work)
    files = [
        {name: _file_digest(work, path, rehash=rehash) for name, path in stage.file_fields().items()}
        for stage in stages
    ]
    inputs = Inputs(
        job=_job(recipe, stages, share),
        stages=stages,
        stage_fingerprints=[
            s.compute_fingerprint({name: digest for name, (digest, _) in of.items()})
            for s, of in zip(stages, files, strict=True)
        ],
        reads=plan_reads(stages, frozenset(i for i in given if isinstance(stages[i], FittedStage))),
        given_models=given,
        pieces=pieces,
        on_bad_shard=recipe.input.on_bad_shard,
        bad_rows_allowed=recipe.input.bad_rows_allowed,
        rehash=rehash,
        memory_bytes=recipe.memory,
        file_bytes=[sum(n_bytes for _, n_bytes in of.values()) for of in files],
        fields=tuple(FieldSpec(use.name, use.type) for use in recipe.fields),
        against={
            i: old_parts(recipe, i) for i, s in enumerate(stages) if isinstance(s, DedupStage) and s.against
        },
    )
    return Prepared(recipe, inputs, work, output, Decisions(load_last(work, output.url)))


def _job(recipe: Recipe, stages: Sequence[Stage], share: float) -> Job:
    spec, out = recipe.input, recipe.output
    text = spec.text if isinstance(spec.text, str) else tuple(spec.text)
    calls = tuple(
        StageCall(s.use, stage.model_dump(mode="json", by_alias=True), s.folder, stage.source())
        for s, stage in zip(recipe.stages, stages, strict=True)
    )
    return Job(
        read=ReadSpec(text, spec.id, spec.max_row_bytes, _SEGMENT_PIECES * spec.piece_bytes, spec.batch_rows),
        stages=calls,
        output=OutputCall(
            out.folder,
            out.format,
            tuple(out.add),
            tuple(sorted(out.columns.items())),
            out.dropped,
            out.copies,
            None if out.holdout is None else HoldoutCall(**out.holdout.model_dump()),
            None if out.shuffle is None else ShuffleCall(**out.shuffle.model_dump()),
            tuple(out.phases),
        ),
        work=recipe.work,
        sample_share=share,
        quarantine_bad_shards=spec.on_bad_shard == "quarantine",
    )


def _check_apart(shards: Sequence[Shard], recipe: Recipe) -> None:
    work, output = recipe.work.rstrip("/") + "/", recipe.output.folder.rstrip("/") + "/"
    if work.startswith(output) or output.startswith(work):
        raise RecipeError(
            f"{recipe.path}: work: {recipe.work} and output.folder: {recipe.output.folder} must not lie in "
            "each other, because the work folder may be deleted at any time"
        )
    for what, folder in (("output.folder", recipe.output.folder), ("work", recipe.work)):
        inside = next((shard.url for shard in shards if shard.url.startswith(folder.rstrip("/") + "/")), None)
        if inside:
            raise RecipeError(
                f"{recipe.path}: input.shards matches {inside}, which lies in {what}; keep them apart"
            )
    for pattern in recipe.input.shards:
        above = pattern.partition("**")[0]
        if above != pattern and fnmatch.fnmatchcase(recipe.output.folder + "/", above + "*"):
            raise RecipeError(
                f"{recipe.path}: input.shards: {pattern} would match what is written to "
                f"{recipe.output.folder}; keep them apart"
            )


def _check_names(pieces: Sequence[Piece]) -> None:
    twice = [name for name, n in Counter(piece.name for piece in pieces).items() if n > 1]
    if twice:
        raise RecipeError(f"input.shards: two output shards would be named {twice[0]}; rename an input shard")


def _given_models(recipe: Recipe, stages: Sequence[Stage], output: Store, work: Store) -> dict[int, str]:
    """Stage -> artifact in the work store of a model by path, or frozen from the last published run."""
    manifest = read_manifest(output)
    given = {}
    for i, (stage, label) in enumerate(zip(stages, stage_labels(stages), strict=True)):
        if not isinstance(stage, (FittedStage, SelectStage)) or stage.fit == "exact":
            continue
        if stage.fit == "frozen":
            fitted = (manifest or {}).get("fitted", {}).get(label)
            if manifest is None or fitted is None:
                continue  # the first run fits, and later ones freeze what it published
            source, name = output, f"{manifest['generation']}/{fitted['name']}"
        else:
            path = stage.fit if "://" in stage.fit else str(Path(recipe.stages[i].folder) / stage.fit)
            if not is_file(path):
                raise RecipeError(
                    f"{recipe.path}: stage {stage.use}: fit: expected exact, frozen or a file; no file {path}"
                )
            folder, _, name = path.rpartition("/")
            source = store_at(folder or "/")
        digest = _fitted_bundle(recipe, i, source, name).digest
        given[i] = artifact_name("given", digest)
        if not work.exists(given[i]):
            with source.open(name) as old, work.commit(given[i]) as new:
                shutil.copyfileobj(old, new)
    return given


def _fitted_bundle(recipe: Recipe, i: int, source: Store, name: str) -> Bundle:
    """A published model; RecipeError where it is none, of another stage, or fitted with other parameters."""
    stage, place = recipe.stages[i].stage, f"{recipe.path}: stages: {recipe.stages[i].use}: fit"
    try:
        bundle = Bundle(source, name)
    except DataselectError:
        raise RecipeError(f"{place}: {source.url}/{name} is no fitted model of dataselect") from None
    found, wanted = bundle.meta.get("stage"), stage.use
    if found != wanted:
        raise RecipeError(f"{place}: {source.url}/{name} is a model of {found}, not of {wanted}")
    there, here = bundle.meta["parameters"], stage.compute_params()
    differ = [key for key in here if here[key] != there.get(key)]
    if differ:
        key = differ[0]
        raise RecipeError(
            f"{place}: the model was fitted with {key.rstrip('_')}: {there.get(key)}, not {here[key]}; "
            "run with `fit: exact` once"
        )
    return bundle


def _file_digest(work: Store, path: str, *, rehash: bool) -> tuple[str, int]:
    """xxh3_128 of a file, remembered by path, size and time, and its bytes; `rehash` reads it in any case."""
    source = store_at(path.rpartition("/")[0] or "/")
    entry = source.stat(path.rpartition("/")[2])
    if entry is None:
        raise RecipeError(f"file not found: {path}")
    memo, version = f"files/{fingerprint(path)}.json", [entry.size, entry.version]
    try:
        record = json.loads(work.read(memo))
        if record["version"] == version and not rehash:
            return str(record["digest"]), entry.size
    except (OSError, ValueError):
        pass
    digest = xxhash.xxh3_128()
    with local_file(path).open("rb") as file:  # on an object store: the copy that the stage will read
        while block := file.read(4 << 20):
            digest.update(block)
    with work.commit(memo) as file:
        file.write(json.dumps({"version": version, "digest": digest.hexdigest()}).encode())
    return digest.hexdigest(), entry.size


@dataclass
class Outcome:
    """What the writing tasks left, or what the live generation already holds."""

    records: list[dict[str, Any]]
    generation: str | None
    up_to_date: bool = False
    shuffled: list[dict[str, Any]] = field(default_factory=list)
    """Records of the output shards, where their rows are shuffled."""

    @property
    def ledger(self) -> dict[str, Any]:
        """Sum over all pieces."""
        return reduce(add_ledgers, (record["ledger"] for record in self.records))

    @property
    def row_digest(self) -> str:
        """Digest of the kept rows: the same for any cut into pieces."""
        return "".join(f"{value % 2**64:016x}" for value in self.ledger["row_digest"])


def _write(walk: Walk, keys: list[str], publisher: Publisher | None) -> Outcome:
    """Write all pieces, or see that they are live already; a sample run (no publisher) only counts.

    Raises WaitsFor when only planning.
    """
    if publisher is None:
        return Outcome(walk.write(keys, None, lambda key: None), None)
    live = publisher.up_to_date(walk.bad_shards)
    if live is not None:
        walk.write_nothing(keys)
        return _live_outcome(live)
    records = walk.write(keys, publisher.generation, publisher.reusable)
    shuffled = walk.shuffle(keys, publisher.generation, publisher.reusable)
    return Outcome(records, publisher.generation, shuffled=shuffled)


def _live_outcome(manifest: dict[str, Any]) -> Outcome:
    return Outcome(
        manifest["pieces"], manifest["generation"], up_to_date=True, shuffled=manifest.get("shuffled", [])
    )


def _publish(
    prepared: Prepared,
    walk: Walk,
    publisher: Publisher,
    outcome: Outcome,
    report: dict[str, Any],
    check: Callable[[], None],
) -> None:
    pieces = publisher.assemble(outcome.records)
    shuffled = publisher.assemble(outcome.shuffled)
    for piece, state in zip(pieces, walk.pieces, strict=True):
        piece["input"] = _input_entry(state)
    manifest = {
        "row_digest": outcome.row_digest,
        "recipe": _portable_recipe(prepared.recipe),
        "ledger": {key: value for key, value in outcome.ledger.items() if key != "row_digest"},
        "bad_shards": walk.bad_shards,
        "fitted": _publish_models(prepared, walk, publisher.generation),
        "pieces": pieces,
        **({"shuffled": shuffled} if shuffled else {}),
    }
    report["digest"] = publisher.publish(manifest, report, check)


def _input_entry(state: PieceState) -> dict[str, Any]:
    """What a piece held, for the manifest."""
    return {
        "n_shards": len(state.piece.shards),
        "n_rows": sum(segment.n_rows for segment in state.segments),
        "digest": fingerprint([segment.digest for segment in state.segments]),
    }


def _portable_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it was run, with paths relative to its folder."""
    folder = recipe.path.resolve().parent
    paths = {path for spec in recipe.stages for path in spec.stage.file_fields().values()}
    paths |= {path for spec in recipe.stages for path in spec.stage.source_fields().values()}
    paths |= set(recipe.input.shards)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        is_path = isinstance(value, str) and value in paths and os.path.isabs(value)
        return os.path.relpath(value, folder) if is_path else value

    stages = [{"use": s.use, **s.stage.model_dump(mode="json", by_alias=True)} for s in recipe.stages]
    tuning = {"batch_rows", "piece_bytes"}
    spec = recipe.input.model_dump(mode="json", exclude=tuning)
    output = recipe.output.model_dump(mode="json", exclude={"folder"})
    return dict(plain({"input": spec, "stages": stages, "output": output}))


def _publish_models(prepared: Prepared, walk: Walk, generation: str) -> dict[str, Any]:
    fitted = {}
    stages = prepared.inputs.stages
    for i, label in enumerate(stage_labels(stages)):
        if i in walk.model_artifacts and isinstance(stages[i], (FittedStage, SelectStage)):
            arrays = Bundle(prepared.work, walk.model_artifacts[i]).arrays()
            name = f"fitted/{label}.bundle"
            with prepared.output.commit(f"{generation}/{name}") as file:
                writer = BundleWriter(file)
                for key, array in sorted(arrays.items()):
                    if "/" not in key:  # a model, and not what it said of rows
                        writer.add_array(key, array)
                stage = prepared.recipe.stages[i].stage  # not a sample run's
                writer.finish(model_meta(stage))
            fitted[label] = {"name": name, "digest": Bundle(prepared.output, f"{generation}/{name}").digest}
    return fitted


def _check_ledger(outcome: Outcome) -> None:
    """Every row is accounted for, in what was counted and in what was written."""
    ledger = outcome.ledger
    parts = ("rows_kept", "rows_dropped", "rows_quarantined", "rows_unsampled")
    by_rule = sum(rule["docs"] for stage in ledger["stages"] for rule in stage["dropped"].values())
    rows = {
        kind: sum(
            record["files"].get(kind, {}).get("rows", 0) for record in (*outcome.records, *outcome.shuffled)
        )
        for kind in ("shards", "heldout")
    }
    written = rows["shards"] == ledger["rows_written"] and rows["heldout"] == ledger["rows_heldout"]
    balanced = ledger["rows_in"] == sum(ledger[part] for part in parts) and by_rule == ledger["rows_dropped"]
    balanced &= sum(ledger["quarantined"].values()) == ledger["rows_quarantined"]
    if not balanced or (outcome.generation and not written):
        raise DataselectError(
            f"the ledger does not balance, nothing was published: {ledger}, rows written: {rows}"
        )


def _check_expect(recipe: Recipe, ledger: dict[str, Any]) -> None:
    rows, kept = ledger["rows_kept"], ledger["rows_kept"] / max(ledger["rows_in"], 1)
    expect = recipe.expect
    limits = [
        ("min_rows", expect.min_rows, rows, 1),
        ("max_rows", expect.max_rows, rows, -1),
        ("min_kept", expect.min_kept, kept, 1),
        ("max_kept", expect.max_kept, kept, -1),
    ]
    for name, limit, value, sign in limits:
        if limit is not None and sign * value < sign * limit:
            raise ExpectFailed(
                f"{recipe.path}: expect.{name}: {limit}, but it is {value:g}; nothing was published"
            )


def _report(prepared: Prepared, walk: Walk, figures: Figures, outcome: Outcome) -> dict[str, Any]:
    stages, ledger = prepared.inputs.stages, outcome.ledger
    funnel = []
    for i, flow in enumerate(ledger["stages"]):
        seconds = figures.seconds.get(f"{i}:{stages[i].use}")
        rate = flow["in"]["n_bytes"] / 1e6 / seconds if seconds else None
        lengths = {"lengths": _lengths(flow)} if "lengths" in flow else {}
        selection = _selection(prepared, walk, i)
        said = {"warnings": _warnings(prepared, walk, i), "seconds": seconds, "mb_per_s": rate}
        funnel.append({"stage": stages[i].use, **flow, **lengths, **selection, **said})
    decisions = prepared.decisions
    return {
        "generation": outcome.generation,
        "up_to_date": outcome.up_to_date,
        "row_digest": outcome.row_digest,
        "rows": {
            key.removeprefix("rows_"): value for key, value in ledger.items() if key.startswith("rows_")
        },
        "quarantined": ledger["quarantined"],
        "phases_of_training": ledger["phases"],
        "bad_shards": walk.bad_shards,
        "funnel": funnel,
        "field_misfits": walk.field_misfits(),
        "left_out": prepared.recipe.left_out,
        "reads_of_text": len(_reads(prepared.inputs)),
        "notes": [f"{stages[i].use}: {note}" for i in sorted(walk.notes) for note in walk.notes[i]],
        "dedups": [walk.dedup_figures(i) for i in sorted(walk.dedup_artifacts)],
        "tasks": {
            "run": decisions.count("run"),
            "reused": decisions.count("reuse"),
            "checked_shards": walk.n_checked,
        },
        "phases": figures.phases,
        "seconds": {part: round(seconds, 4) for part, seconds in sorted(figures.seconds.items())},
        "wall_s": time.perf_counter() - figures.started,
        "max_rss_bytes": {"worker": figures.workers_max_rss_bytes, "coordinator": max_rss_bytes()},
    }


def _selection(prepared: Prepared, walk: Walk, i: int) -> dict[str, Any]:
    """What a selection says of itself: quotas, epochs, what is short."""
    if not isinstance(prepared.inputs.stages[i], SelectStage):
        return {}
    return {"selection": Bundle(prepared.work, walk.model_artifacts[i]).meta["selection"]}


def _warnings(prepared: Prepared, walk: Walk, i: int) -> list[str]:
    stage = prepared.inputs.stages[i]
    if not stage.figures:
        return []
    model = Bundle(prepared.work, walk.model_artifacts[i])
    if not all(name in model for name in stage.figures):  # a given model, of an earlier version
        return []
    return stage.warnings({name: model.array(name) for name in stage.figures})


def _lengths(flow: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and quantiles of the bytes and words of what reached a selection ('in') and of what it kept."""
    return {
        side: {
            name: {"mean": flow[side][name] / max(flow[side]["docs"], 1), **quantiles(bins)}
            for name, bins in sizes.items()
        }
        for side, sizes in flow["lengths"].items()
    }


def _plan_report(prepared: Prepared, walk: Walk) -> dict[str, Any]:
    stages = prepared.inputs.stages
    reads = _reads(prepared.inputs)
    counts = {verdict: prepared.decisions.count(verdict) for verdict in ("run", "reuse", "waits")}
    folder = Path(prepared.recipe.work)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free if "://" not in prepared.recipe.work else None
    return {
        "stages": [{"use": stage.use, **stage.model_dump(mode="json", by_alias=True)} for stage in stages],
        "left_out": prepared.recipe.left_out,
        "pieces": len(walk.pieces),
        "shards": sum(len(state.piece.shards) for state in walk.pieces),
        "input_bytes": sum(state.piece.n_bytes for state in walk.pieces),
        "reads": reads,
        "selections": _forecasts(prepared, walk),
        "checked_shards": walk.n_checked,
        "tasks": counts,
        "decisions": prepared.decisions.as_json(),
        "scratch_bytes": _scratch_bytes(prepared, walk),
        "free_bytes": free,
    }


def _forecasts(prepared: Prepared, walk: Walk) -> list[dict[str, Any]]:
    """What every selection keeps: of this very run, or by what the last published one found, or unknown."""
    out = []
    last = _last_funnel(prepared.output)
    n_bytes = sum(state.piece.text_bytes for state in walk.pieces)
    for i, stage in enumerate(prepared.inputs.stages):
        if not isinstance(stage, SelectStage):
            continue
        name = f"{i}:{stage.use}"
        entry: dict[str, Any] = {"stage": name, "known": "after the run"}
        if i in walk.model_artifacts and i not in prepared.inputs.given_models:
            entry |= {"known": "exactly", **_selection(prepared, walk, i)}
        elif i < len(last) and last[i]["stage"] == stage.use and last[i].get("selection", {}).get("groups"):
            try:
                found = stage.forecast(last[i]["selection"])
                entry |= {"known": "by the last run", "selection": found} if found else {}
            except DataselectError as error:
                entry |= {"known": "by the last run", "error": str(error)}
        if len(entry) == 2:
            entry |= {"estimate": stage.estimate(n_bytes)}
        out.append(entry)
    return out


def _last_funnel(output: Store) -> list[dict[str, Any]]:
    """The funnel of the last published run; empty where there is none."""
    live = read_manifest(output)
    if live is None:
        return []
    try:
        return list(json.loads(output.read(f"{live['generation']}/report.json"))["funnel"])
    except (OSError, ValueError, KeyError):
        return []


def _reads(inputs: Inputs) -> list[dict[str, Any]]:
    """All reads of the text that a run makes at most, in order."""
    stages = inputs.stages
    reads: list[dict[str, Any]] = []

    def add(why: str, names: list[str], hoisted: list[str]) -> None:
        reads.append({"read": len(reads) + 1, "why": why, "stages": names, "hoisted": hoisted})

    for read in inputs.reads:
        names = [f"{i}:{stages[i].use} ({role})" for i, role in read.roles]
        add(read.why, names, [f"{i}:{stages[i].use}" for i in read.hoisted])
        for i, role in read.roles:
            if any(part.piece is not None for part in inputs.against.get(i, ())):
                add("signatures of the old shards that `against` names, once", [f"{i}:{stages[i].use}"], [])
            why = why_read_again(stages[i]) if role == "keys" else None
            if why is not None:
                add(why, [f"{i}:{stages[i].use} (exact)"], [])
    add("kept rows are copied to the output", [], [])
    return reads


_ROW_BYTES = 2_000  # of text, about; only for estimates


_EDITS_BYTES = 220  # of C4's line filter for a document of 2 kB: ten edits, and what its text is like then


def _scratch_bytes(prepared: Prepared, walk: Walk) -> int:
    """About what the work folder grows by: base columns, scores, keys, samples of pieces not yet read."""
    new = [state for state in walk.pieces if not state.complete]
    text = sum(state.piece.text_bytes for state in new)
    per_row = 41 + (40 + 16 if prepared.inputs.job.read.id else 0) + 20 * len(prepared.inputs.fields)
    for stage in prepared.inputs.stages:
        per_row += 9 * len(stage.output_columns()) + (_EDITS_BYTES if stage.edits_text() else 0)
        per_row += stage.bytes_per_doc() if isinstance(stage, DedupStage) else 0
    samples = 0.0
    for i in (i for read in prepared.inputs.reads for i, role in read.roles if role == "sample"):
        most = cast("FittedStage", prepared.inputs.stages[i]).sample_bytes()
        samples += text if most is None else min(text, most)
    if prepared.recipe.output.shuffle is not None:
        samples += text / 2  # what is scattered, compressed lightly
    return round(text / _ROW_BYTES * per_row + samples * 0.8)
