"""What `run` and `plan` report, as data: the funnel, figures, reads of the text, forecasts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from dataselect.core.errors import DataselectError
from dataselect.core.lengths import quantiles
from dataselect.core.listener import Listener
from dataselect.engine.job import max_rss_bytes
from dataselect.engine.ledger import add_ledgers
from dataselect.io.bundle import Bundle
from dataselect.io.store import Store
from dataselect.outcome import Outcome
from dataselect.planning.reads import why_read_again
from dataselect.prepare import Prepared
from dataselect.publish import read_manifest
from dataselect.stages.base import DedupStage, FittedStage, SelectStage
from dataselect.walk import Inputs, Walk


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


def run_report(prepared: Prepared, walk: Walk, figures: Figures, outcome: Outcome) -> dict[str, Any]:
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


def plan_report(prepared: Prepared, walk: Walk) -> dict[str, Any]:
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
