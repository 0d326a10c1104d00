"""What a run wrote: checked against its ledger and `expect:`, and published."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from dataselect.core.errors import DataselectError, ExpectFailed
from dataselect.core.fingerprint import fingerprint
from dataselect.engine.ledger import add_ledgers
from dataselect.engine.reduce import model_meta
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.planning.recipe import Recipe
from dataselect.prepare import Prepared
from dataselect.publish import Publisher
from dataselect.stages.base import FittedStage, SelectStage, stage_labels
from dataselect.walk import PieceState, Walk


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


def write(walk: Walk, keys: list[str], publisher: Publisher | None) -> Outcome:
    """Write all pieces, or see that they are live already; a sample run (no publisher) only counts.

    Raises WaitsFor when only planning.
    """
    if publisher is None:
        return Outcome(walk.write(keys, None, lambda key: None), None)
    live = publisher.up_to_date(walk.bad_shards)
    if live is not None:
        walk.write_nothing(keys)
        return live_outcome(live)
    records = walk.write(keys, publisher.generation, publisher.reusable)
    shuffled = walk.shuffle(keys, publisher.generation, publisher.reusable)
    return Outcome(records, publisher.generation, shuffled=shuffled)


def live_outcome(manifest: dict[str, Any]) -> Outcome:
    return Outcome(
        manifest["pieces"], manifest["generation"], up_to_date=True, shuffled=manifest.get("shuffled", [])
    )


def publish(
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


def check_ledger(outcome: Outcome) -> None:
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


def check_expect(recipe: Recipe, ledger: dict[str, Any]) -> None:
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
