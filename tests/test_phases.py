"""Phases of a training: selections that only count, and manifests of rows and copies for each."""

from __future__ import annotations

import json
from collections import Counter

import corpora
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import RecipeError
from dataselect.report.funnel import render

BASE = {"use": "select", "method": "uniform", "keep": {"words": 20_000}, "as": "base", "seed": 1}
FINAL = {
    "use": "select", "method": "copies", "keep": {"words": 45_000}, "by": "n_chars", "weights": "linear",
    "max_copies": 3, "as": "final", "seed": 2,
}  # fmt: skip
STAGES = [
    {"use": "length_filter", "min_chars": 0},
    {"use": "exact_dedup"},
    BASE,
    FINAL,
    {"use": "filter", "where": "base > 0 or final > 0"},
]


def rows_of(output, name):
    """Rows of an output shard."""
    path = corpora.live(output) / name
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in corpora.unpacked(path).splitlines()]


def manifest(output, phase):
    """Id -> copies, looked up by shard and row."""
    table = pq.read_table(corpora.live(output) / "phases" / phase)
    shards = {name: rows_of(output, name) for name in set(table["shard"].to_pylist())}
    found = [(shards[r["shard"]][r["row"]]["id"], r["copies"]) for r in table.to_pylist()]
    assert len(dict(found)) == len(found), "a row stands in a manifest once"
    return dict(found)


@pytest.fixture(scope="module")
def phased(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases")
    path = corpora.make_project(folder, STAGES, output={"phases": ["base", "final"]})
    return folder, path, dataselect.run(path, workers=2)


def test_manifests_name_the_rows_and_copies_that_were_chosen(phased):
    folder, _, report = phased
    decided = corpora.decisions(folder / "out")
    kept = {row["id"] for row in decided if row["stage"] is None}
    for phase in ("base", "final"):
        found = manifest(folder / "out", phase)
        assert found == {row["id"]: row[phase] for row in decided if row[phase]}
        totals = report["phases_of_training"][phase]
        assert (totals["docs"], totals["copies"]) == (len(found), sum(found.values()))
        assert f"phase {phase}: {len(found):,} rows" in render(report)
    assert set(manifest(folder / "out", "base")) | set(manifest(folder / "out", "final")) == kept
    assert report["rows"]["written"] == len(kept), "each row stands in shards/ once"
    assert Counter(manifest(folder / "out", "final").values()).keys() == {1, 2, 3}
    words = {phase: totals["n_words"] for phase, totals in report["phases_of_training"].items()}
    assert words["base"] <= 20_000 < words["base"] + 1000
    assert abs(words["final"] - 45_000) < 1000


def test_a_phase_is_what_its_selection_alone_would_keep(phased, tmp_path, serial):
    folder, path, _ = phased
    alone = json.dumps([*STAGES[:2], {**FINAL, "as": None}])
    sets = [f"stages={alone}", "output.phases=[]", f"output.folder={tmp_path}/out"]
    dataselect.run(path, workers=1, sets=sets)
    copies = {row["id"]: row["copies"] for row in corpora.decisions(tmp_path / "out") if row["copies"]}
    assert copies == manifest(folder / "out", "final")


@pytest.mark.parametrize("form", ["same", "parquet"])
def test_manifests_hold_for_any_cut_format_and_beside_a_holdout(phased, tmp_path, form, serial):
    folder, path, _ = phased
    sets = [f"output.folder={tmp_path}/out", f"work={tmp_path}/work", "input.piece_bytes=16384"]
    cut = [*sets, f"output.format={form}", "output.holdout={fraction: 0.2}"]
    dataselect.run(path, workers=1, sets=cut)
    held = {row["id"] for row in corpora.decisions(tmp_path / "out") if row["heldout"]}
    assert held
    for phase in ("base", "final"):
        whole = manifest(folder / "out", phase)
        assert manifest(tmp_path / "out", phase) == {k: n for k, n in whole.items() if k not in held}


@pytest.mark.parametrize(
    "change, message",
    [
        ("output.phases=[bse]", r"output.phases: no `select` has `as: bse`; did you mean 'base'"),
        ("output.phases=[base, base]", r"output.phases: a phase stands there twice"),
        ("output.phases=[n_chars]", r"output.phases: no `select`"),
        ("output.shuffle={}", r"output.phases: they name shards and rows"),
        ("stages.2.as=copies", r"the column 'copies' is reserved"),
    ],
)
def test_phases_that_make_no_sense_are_refused(phased, tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        dataselect.run(phased[1], sets=[f"output.folder={tmp_path}/out", change])
