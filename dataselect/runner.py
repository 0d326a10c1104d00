"""`run` and `plan`: from a recipe to a published generation, or to the decisions that lead there."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dataselect.core.errors import DataselectError, Locked, RecipeError, TornArtifact
from dataselect.core.fingerprint import fingerprint
from dataselect.core.listener import Listener
from dataselect.engine.cluster import RayEngine
from dataselect.engine.local import LocalEngine, default_workers
from dataselect.engine.shared import SharedEngine
from dataselect.engine.tasks import Engine
from dataselect.io.store import LocalStore, is_far, store_at
from dataselect.outcome import Outcome, check_expect, check_ledger, live_outcome, publish, write
from dataselect.planning.decisions import save_last
from dataselect.planning.recipe import Recipe, load_recipe
from dataselect.prepare import Prepared, prepare
from dataselect.publish import Publisher, locked, read_manifest
from dataselect.reporting import Figures, plan_report, run_report
from dataselect.walk import Inputs, WaitsFor, Walk

ENGINES = ("local", "ray", "shared")
_MAX_REPAIRS = 1000
_TURN_S, _LONG_S = 1.0, 10.0
"""Between two looks at whether the participant that publishes has done so; when to say that it takes long."""


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
    prepared = prepare(recipe, sample=sample, rehash=rehash)
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
            outcome = write(walk, keys, publisher)
            if shared and publisher is not None and not outcome.up_to_date:
                publisher.check_written([*outcome.records, *outcome.shuffled])
        check_ledger(outcome)
        if publisher is not None:
            check_expect(prepared.recipe, outcome.ledger)
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
    report = run_report(prepared, walk, done.figures, outcome) | {"workers": done.n_workers}
    if publisher is not None:
        if outcome.up_to_date:
            report["digest"] = publisher.settle()
        else:
            publish(prepared, walk, publisher, outcome, report, check)
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
                return _end(replace(done, outcome=live_outcome(live)) if live else done, publisher, check)
        except Locked as other:
            # A lock on a disk goes with its process. One on an object store would keep all others for two
            # minutes after a death; all that comes after the manifest there is to delete old generations.
            live = read_manifest(output) if is_far(output) else None
            if live is not None and live["generation"] == done.outcome.generation:
                return _end(replace(done, outcome=live_outcome(live)), None, _nothing) | {
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
    prepared = prepare(load_recipe(recipe, sets), sample=None, rehash=rehash)
    decisions = prepared.decisions
    walk = Walk(prepared.inputs, prepared.work, decisions, None, Listener())
    try:
        walk.run()
        keys = walk.write_keys()
        publisher = Publisher(prepared.output, prepared.work, keys)
        write(walk, keys, publisher)
    except WaitsFor as waits:
        decided = {decision.phase for decision in decisions.made}
        for phase, n_tasks in walk.steps():
            if phase not in decided and n_tasks:
                decisions.wait(phase, n_tasks, str(waits))
    return plan_report(prepared, walk)
