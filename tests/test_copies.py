"""Rows that are kept more than once: what is written, counted and said, in every format and for any cut."""

from __future__ import annotations

import json
from collections import Counter

import corpora
import pytest

import dataselect
from dataselect.core.errors import DataselectError, RecipeError
from dataselect.report import planview
from dataselect.report.funnel import render

SCORE = {"use": "length_filter", "min_chars": 0, "as": "n_chars"}
COPIES = {"use": "select", "method": "tiers", "by": "n_chars",
          "tiers": [{"share": "20%", "copies": 2.5}, {"share": "30%", "copies": 1}]}  # fmt: skip
LABEL = '''
import pyarrow as pa
from dataselect.stages.base import MapStage

class Kind(MapStage):
    """The domain of a document."""

    def output_columns(self):
        return {"kind": "string"}

    def columns(self, texts, model):
        names = ["medical" if " patient " in t else "short" if len(t) < 150 else None
                 for t in texts.array.to_pylist()]
        return {"kind": pa.array(names, pa.string())}
'''
KIND = {"use": "kinds.py:Kind"}


def project(folder, stages, **sections):
    corpora.make_corpus(folder / "in")
    (folder / "kinds.py").write_text(LABEL)
    return corpora.write_recipe(folder, stages, **sections)


def written(output):
    """(id, copies field) of all rows of shards/, in order."""
    return [(row["id"], row.get("copies")) for row in corpora.written_rows(output)]


def copies_decided(output):
    return Counter({row["id"]: row["copies"] for row in corpora.decisions(output) if row["copies"]})


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    path = project(folder, [SCORE, {"use": "exact_dedup"}, COPIES])
    return folder, path, dataselect.run(path, workers=2)


def test_a_row_is_written_as_often_as_it_was_chosen(repeated):
    folder, _, report = repeated
    ids = [name for name, _ in written(folder / "out")]
    assert Counter(ids) == copies_decided(folder / "out")
    assert set(Counter(ids).values()) == {1, 2, 3}
    runs = [name for i, name in enumerate(ids) if i == 0 or ids[i - 1] != name]
    assert len(runs) == len(set(ids)), "copies of a row stand together"
    rows = report["rows"]
    assert rows["in"] == rows["kept"] + rows["dropped"] + rows["quarantined"] + rows["unsampled"]
    assert (rows["kept"], rows["written"]) == (len(set(ids)), len(ids))
    selection = report["funnel"][-1]
    assert selection["out"]["docs"] == rows["kept"]
    assert selection["copies"]["docs"] == rows["written"]
    assert selection["copies"]["n_words"] > selection["out"]["n_words"]


def test_copied_lines_are_the_bytes_they_came_as(repeated):
    folder = repeated[0]
    lines = corpora.unpacked(folder / "in" / "a.jsonl").splitlines()
    kept = corpora.unpacked(corpora.live(folder / "out") / "shards" / "a.jsonl").splitlines()
    assert set(kept) <= set(lines)


def test_the_row_digest_counts_copies_and_no_cut_matters(repeated, tmp_path):
    _, path, report = repeated
    sets = [f"output.folder={tmp_path}/out", f"work={tmp_path}/work"]
    cut = dataselect.run(path, workers=1, sets=[*sets, "input.piece_bytes=4096", "input.batch_rows=7"])
    assert (cut["row_digest"], cut["rows"]) == (report["row_digest"], report["rows"])
    assert written(tmp_path / "out") == written(repeated[0] / "out")
    once = dataselect.run(path, workers=1, sets=[*sets, "stages.2.tiers.0.copies=1"])
    assert once["rows"]["kept"] == report["rows"]["kept"]
    assert once["row_digest"] != report["row_digest"]
    assert dataselect.run(path)["up_to_date"]


@pytest.mark.parametrize("form", ["same", "parquet"])
@pytest.mark.parametrize("copies", ["repeat", "column"])
def test_copies_are_rows_or_a_column_in_every_format(repeated, tmp_path, form, copies):
    _, path, report = repeated
    sets = [f"output.folder={tmp_path}/out", f"output.format={form}", f"output.copies={copies}"]
    other = dataselect.run(path, workers=1, sets=[*sets, "output.add=[n_chars]"])
    rows, decided = written(tmp_path / "out"), copies_decided(tmp_path / "out")
    assert other["row_digest"] == report["row_digest"]
    assert other["rows"]["written"] == len(rows)
    if copies == "repeat":
        assert Counter(name for name, _ in rows) == decided
        assert {n for _, n in rows} == {None}
    else:
        assert dict(rows) == dict(decided)
        assert len(rows) == report["rows"]["kept"]


def test_repeated_selections_multiply(tmp_path):
    double = {"use": "select", "method": "copies", "keep": {"docs": 720}}
    path = project(tmp_path, [SCORE, double, {**COPIES, "tiers": [{"share": 1, "copies": 3}]}])
    report = dataselect.run(path, workers=1)
    assert report["rows"]["written"] == 3 * 720
    assert set(copies_decided(tmp_path / "out").values()) == {6}


def test_a_mixture_by_a_column_of_texts(tmp_path):
    mixture = {"weights": {"medical": 0.5, "short": 0.25, "": 0.25}}
    stage = {"use": "select", "method": "copies", "per": "kind", "mixture": mixture, "keep": {"words": 12000}}
    path = project(tmp_path, [KIND, stage])
    report = dataselect.run(path, workers=1)
    selection = report["funnel"][-1]["selection"]
    groups = {group["name"]: group for group in selection["groups"]}
    assert [groups[name]["asked"] for name in ("medical", "short", "")] == [6000, 3000, 3000]
    for group in groups.values():
        assert group["supply"] == pytest.approx(group["unique"] / min(1, group["epochs"]), rel=0.25)
        assert group["size"] == pytest.approx(group["quota"], rel=0.15)
        assert group["epochs"] <= 4
    assert any(group["epochs"] > 1 and group["unique"] < group["effective"] < group["size"]
               for group in groups.values())  # fmt: skip
    assert sum(group["copies"] for group in groups.values()) == report["rows"]["written"]
    again = dataselect.run(path, workers=1)
    assert again["funnel"][-1]["selection"] == selection, "what is reused says the same"
    out = render(again)
    assert "medical" in out
    assert "epochs" in out
    decided = corpora.decisions(tmp_path / "out")
    assert all(
        row["expected"] == pytest.approx(groups[row["kind"] or ""]["epochs"], rel=0.15) for row in decided
    )


def test_a_plan_says_epochs_exactly_by_the_last_run_or_about(tmp_path, serial):
    mixture = {"weights": {"medical": 3, "short": 1, "none": 1}}
    stage = {"use": "select", "method": "copies", "per": "kind", "mixture": mixture, "keep": {"words": 15000}}
    path = project(tmp_path, [KIND, stage])
    first = dataselect.plan(path)
    estimate = first["selections"][0]["estimate"]
    report = dataselect.run(path)
    truth = sum(group["supply"] for group in report["funnel"][-1]["selection"]["groups"])
    assert estimate["budget"] == 15000
    assert truth / 3 < estimate["about"] < truth * 6
    assert "known after the run" in planview.render(first)

    exact = dataselect.plan(path)["selections"][0]
    assert (exact["known"], exact["selection"]) == ("exactly", report["funnel"][-1]["selection"])

    more = [f"stages.1.keep.words={n}" for n in (30000,)]
    told = dataselect.plan(path, sets=more)
    forecast, truth = told["selections"][0], dataselect.run(path, sets=more)["funnel"][-1]["selection"]
    assert forecast["known"] == "by the last run"
    for key in ("budget", "lacking", "per", "unit"):
        assert forecast["selection"][key] == truth[key]
    for group, true in zip(forecast["selection"]["groups"], truth["groups"], strict=True):
        for key in ("name", "docs", "supply", "asked", "quota"):
            assert group[key] == true[key]
        assert group["epochs"] == pytest.approx(true["epochs"], rel=0.05, abs=0.05)
        assert group["effective"] == pytest.approx(true["effective"], rel=0.05, abs=100)
    assert f"words short of {truth['budget']:,}" in planview.render(told)
    short = dataselect.plan(path, sets=["stages.1.keep.words=90000", "stages.1.short=error"])
    assert "too little to keep" in planview.render(short)


def test_what_is_short_is_said_or_stops_the_run(tmp_path):
    stage = {"use": "select", "method": "uniform", "keep": {"docs": 1000}}
    path = project(tmp_path, [stage])
    assert "640 docs short of 1,000" in render(dataselect.run(path, workers=1))
    with pytest.raises(DataselectError, match=r"there are 360 of 1,000; lower it, or set `short: take_all`"):
        dataselect.run(path, sets=["stages.0.short=error"])


def test_repeated_keys_share_a_draw_and_are_counted(tmp_path):
    stage = {"use": "select", "method": "uniform", "keep": {"fraction": 0.5}}
    path = project(tmp_path, [stage], input={"id": None})
    report = dataselect.run(path, workers=1)
    texts = [doc.text for doc in corpora.docs(360)]
    assert report["funnel"][0]["selection"]["repeated_keys"] == len(texts) - len(set(texts)) > 0
    assert f"{len(texts) - len(set(texts))} documents have the key of another" in render(report)


def test_a_column_of_copies_must_not_be_there_already(tmp_path):
    path = project(tmp_path, [SCORE, COPIES], output={"copies": "column"})
    line = (tmp_path / "in" / "a.jsonl").read_bytes().replace(b'"meta"', b'"copies"', 1)
    (tmp_path / "in" / "a.jsonl").write_bytes(line)
    with pytest.raises(RecipeError, match="has a column 'copies' already"):
        dataselect.run(path)


def test_groups_scores_and_sizes_may_be_input_fields(tmp_path):
    stage = {"use": "select", "by": "meta.n", "per": "source", "mixture": "each", "keep": {"tokens": 60},
             "tokens": {"column": "n_tokens"}}  # fmt: skip
    (tmp_path / "in").mkdir()
    rows = [{"id": str(i), "text": f"t{i}", "meta": {"n": i % 7}, "source": "ab"[i % 2], "n_tokens": 20}
            for i in range(28)]  # fmt: skip
    (tmp_path / "in" / "a.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    path = corpora.write_recipe(tmp_path, [stage], input={"shards": ["in/*"]})
    dataselect.run(path, workers=1)
    best = {
        kind: sorted((r for r in rows if r["source"] == kind), key=lambda r: -r["meta"]["n"])[:3]
        for kind in "ab"
    }
    assert sorted(corpora.kept_ids(tmp_path / "out")) == sorted(r["id"] for kind in "ab" for r in best[kind])


@pytest.mark.parametrize(
    "sets, message",
    [
        (
            ["stages.1.by=n_char"],
            r"stages\[1\].by: no earlier stage adds the column 'n_char', .*did you mean 'n_chars'",
        ),
        (
            ["stages.1.by=quality"],
            r"stages\[1\].by: no earlier stage adds the column 'quality', and no first row",
        ),
        (["stages.1.per=sourc"], r"stages\[1\].per: no earlier stage adds the column 'sourc'"),
        (["stages.1.by=id"], r"stages\[1\]: 'id' is a string, not a number"),
    ],
)
def test_a_column_that_is_nowhere_is_a_mistake(tmp_path, sets, message):
    path = project(tmp_path, [SCORE, {"use": "select", "by": "n_chars", "keep": {"docs": 3}}])
    with pytest.raises(RecipeError, match=message):
        dataselect.plan(path, sets=sets)
