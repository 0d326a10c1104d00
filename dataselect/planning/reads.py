"""Which stage runs in which read of the text. Reads are the budget: this is where they are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dataselect.stages.base import (
    PLACE_COLUMNS,
    ColumnStage,
    DedupStage,
    FittedStage,
    NearDedupStage,
    SelectStage,
    Stage,
)


@dataclass
class ReadPlan:
    """One read of the text."""

    why: str
    opened_by: int | None
    """Index of the FittedStage whose model made the read necessary; None for the first."""
    roles: list[tuple[int, str]] = field(default_factory=list)
    """(stage index, 'columns' | 'rules' | 'keys' | 'sample') in recipe order."""
    hoisted: list[int] = field(default_factory=list)
    """Map stages that run in this read on rows that a dedup before them, in the recipe, will drop."""


def plan_reads(stages: Sequence[Stage], given: frozenset[int]) -> list[ReadPlan]:
    """Assign stages to reads: each to the latest read that is needed anyway.

    Only a fitted stage opens a new read, because its model needs the documents that reach it; dedups and
    selections work on columns, and so do column stages. One that adds none, a filter, also spares later
    stages of the read the rows that it drops, where its inputs are at hand while the read runs. given:
    fitted stages whose model is there already (frozen, or by path), which need no fit and so no read.
    """
    reads = [ReadPlan("hashes, signatures, columns and samples of every document", None)]
    after_dedup = False
    made_in: dict[str, ReadPlan | None] = {}
    for i, stage in enumerate(stages):
        read = reads[-1]
        if isinstance(stage, DedupStage):
            if not stage.key_columns():
                read.roles.append((i, "keys"))
            after_dedup = True
        elif isinstance(stage, FittedStage) and i not in given:
            read.roles.append((i, "sample"))
            reads.append(
                ReadPlan(f"{stage.use} scores documents with the model fitted on what reaches it", i)
            )
            reads[-1].roles.append((i, "columns"))
            after_dedup = False
        elif isinstance(stage, ColumnStage):
            at_hand = not PLACE_COLUMNS.intersection(stage.input_columns())
            if stage.output_columns():
                after_dedup = True
            elif at_hand and all(made_in.get(name, read) is read for name in stage.input_columns()):
                read.roles.append((i, "rules"))
        elif isinstance(stage, SelectStage):
            after_dedup = True
        else:
            read.roles.append((i, "columns"))
            if after_dedup:
                read.hoisted.append(i)
        late = isinstance(stage, (ColumnStage, SelectStage))
        made_in |= dict.fromkeys(stage.output_columns(), None if late else reads[-1])
    return reads


def why_read_again(stage: Stage) -> str | None:
    """Why a dedup reads some documents once more, between two reads of all; None where it does not.

    Its own read, because the masks of the next one depend on its answer.
    """
    if not isinstance(stage, NearDedupStage) or stage.verify not in ("auto", "exact"):
        return None
    which = "near the threshold by their signatures" if stage.verify == "auto" else "with a band in common"
    return f"exact similarity of pairs {which}; opens no shard that holds none"
