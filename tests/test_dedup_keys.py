"""What a dedup may go by: URLs and other fields as keys, scores and dates as ranks; and lists of ids."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timezone

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filter import phases

import dataselect
from dataselect.core.errors import BadModel, DataselectError, RecipeError
from dataselect.report import funnel
from dataselect.stages.instants import instants

URLS = {
    "a": "https://www.x.org/p?utm_source=1",
    "b": "http://x.org/p",
    "c": "x.org/p#top",
    "d": "x.org/P",
    "e": None,
    "f": "",
    "g": "mailto:a@x.org",
    "h": "mailto:a@x.org",
    "i": "http://y.org",
    "j": "http://y.org/",
}
DATES = {
    "a": "2023-05-01",
    "b": "2024-05-01T01:00:00+02:00",
    "c": "2024-04-30T23:00:00.5Z",
    "i": "soon",
    "j": 1700000000,
}
SCORES = {"a": 2, "b": 3, "c": 1, "j": 0.5}


@pytest.fixture
def run(tmp_path, serial):
    """Run stages over the documents of URLS; gives the report and the ids that each kept one stands for."""

    def fresh(*stages, **sections):
        (tmp_path / "in").mkdir(exist_ok=True)
        for k, ids in enumerate(("abcd", "efghij")):
            rows = [
                {"id": i, "text": f"text {i}" * (2 if i == "c" else 1), "meta": {"url": URLS[i]}, "n": 7}
                | ({"date": DATES[i]} if i in DATES else {})
                | ({"score": SCORES[i]} if i in SCORES else {})
                for i in ids
            ]
            shard = tmp_path / "in" / f"{k}.jsonl"
            shard.write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = corpora.write_recipe(
            tmp_path, stages, **{"input": {"shards": "in/*", "id": "id"}} | sections
        )
        report = dataselect.run(recipe)
        rows = corpora.decisions(tmp_path / "out")
        ids = {(row["shard"], row["row"]): row["id"] for row in rows}
        clusters = {row["id"]: row["id"] for row in rows if row["copies"]}
        for row in rows:
            stays = ids.get((row.get("duplicate_of_shard"), row.get("duplicate_of_row")))
            if stays:
                clusters[stays] += row["id"]
        return report, set(clusters.values())

    return fresh


def by_url(**params):
    return {"use": "url_dedup", "url": "meta.url", **params}


SINGLE = {"d", "e", "f", "g", "h"}


def test_documents_of_one_url_are_duplicates_and_those_without_are_not(run):
    report, clusters = run(by_url(), output={"folder": "out", "add": ["n_same_url"]})
    assert clusters == {"abc", "ij"} | SINGLE
    assert report["notes"] == ["url_dedup: 4 documents without a value of meta.url, which are no duplicates"]
    assert report["notes"][0] in funnel.render(report)
    assert run(by_url(keep="longest"))[1] == {"cab", "ij"} | SINGLE
    assert run(by_url(keep={"source": ["1*"]}))[1] == {"abc", "ij"} | SINGLE


def test_a_change_of_the_dedup_reads_no_shard(run):
    run(by_url(), {"use": "length_filter", "min_chars": 1})
    for params in ({"keep": "longest"}, {"use": "field_dedup", "field": "meta.url", "url": ...}):
        stage = {k: v for k, v in by_url(**params).items() if v is not ...}
        report, _ = run(stage, {"use": "length_filter", "min_chars": 1})
        assert not [name for name in phases(report) if name.startswith("read")]
    assert phases(report)["look up 0:field_dedup"] > 0


def test_the_best_or_latest_of_an_input_field_stays(run):
    latest = {"latest": "date"}
    report, clusters = run(by_url(keep=latest))
    # b is at 23:00 UTC, c half a second later; a number counts seconds since 1970; "soon" is no date.
    assert clusters == {"cab", "ji"} | SINGLE
    assert (
        report["notes"][1]
        == "url_dedup: 6 documents without a value of date, which stay only where none has one"
    )
    assert run(by_url(keep={"best": "score"}))[1] == {"bac", "ji"} | SINGLE
    assert run(by_url(keep={"best": "n"}))[1] == {"abc", "ij"} | SINGLE
    near = {"use": "minhash_dedup", "ngram": 1, "threshold": 0.5, "verify": "exact", "keep": latest}
    assert "c" in {c[0] for c in run(near)[1]}
    numbers = {"input": {"shards": "in/*", "id": "id", "fields": {"date": "number"}}}
    assert run(by_url(keep=latest), **numbers)[1] == {"abc", "ji"} | SINGLE
    lengths = {"use": "length_filter", "min_chars": 1}
    assert run(lengths, by_url(keep={"latest": "n_chars"}))[1] == {"cab", "ij"} | SINGLE


def test_any_field_is_a_key(run):
    assert run({"use": "field_dedup", "field": "n"})[1] == {"abcdefghij"}
    report, clusters = run(
        {"use": "field_dedup", "field": "id"}, {"use": "field_dedup", "field": "shard", "as": "s"}
    )
    assert clusters == {"abcd", "efghij"}
    assert report["notes"] == []
    normal = {"use": "url_filter", "url": "meta.url", "as_url": "norm", "as_domain": "host"}
    assert run(normal, {"use": "field_dedup", "field": "norm"})[1] == run(by_url())[1]
    assert run(normal, {"use": "field_dedup", "field": "host", "keep": {"latest": "date"}})[1] == {
        *("cabd", "ji", "e", "f", "g", "h")
    }


def test_sampled_filtered_or_cut_otherwise_the_same_rows_stay(run, tmp_path):
    where = {"use": "filter", "where": "id != 'a'"}
    report, _ = run(where, by_url(keep={"latest": "date"}))
    fresh = dataselect.run(
        tmp_path / "recipe.yaml",
        workers=2,
        sets=["work=w2", "output.folder=o2", "input.piece_bytes=1KiB", "input.batch_rows=2"],
    )
    assert fresh["row_digest"] == report["row_digest"]
    assert fresh["notes"] == report["notes"]


def test_against_old_shards_outputs_and_indexes(run, tmp_path):
    def write(name, urls):
        rows = [json.dumps({"id": i, "text": f"old {i}", "meta": {"url": url}}) + "\n" for i, url in urls]
        (tmp_path / name).write_text("".join(rows))

    write("old.jsonl", [("o1", "http://x.org/P?gclid=1"), ("o2", None), ("a", "mailto:a@x.org")])
    write("empty.jsonl", [])
    dataselect.run(
        corpora.write_recipe(
            tmp_path / "day1",
            [by_url(save_index=True)],
            input={"shards": "../old.jsonl"},
            output={"folder": "../before"},
        )
    )
    for against in ("old.jsonl", "before", "before/current/index/**/*.index"):
        report, _ = run(by_url(against=[against, "empty.jsonl"]))
        assert ids_kept(tmp_path / "out") == "aefghi", against
        assert report["dedups"][0]["n_matched_old"] == 1
    run({"use": "field_dedup", "field": "id", "against": ["old.jsonl", "empty.jsonl"]})
    assert ids_kept(tmp_path / "out") == "bcdefghij"
    normal = {"use": "url_filter", "url": "meta.url", "as_url": "norm"}
    with pytest.raises(RecipeError, match="has no saved index, and shards lack 'norm', which a stage adds"):
        run(normal, {"use": "field_dedup", "field": "norm", "against": ["old.jsonl"]})


@pytest.mark.parametrize(
    "stage, message",
    [
        (by_url(keep={"latest": "date", "best": "score"}), "exactly one of best, latest, source, got"),
        (by_url(keep={"latest": "dat"}), "no first row has it; did you mean 'date'"),
        (by_url(keep={"best": "text2"}), "no earlier stage adds the column 'text2'"),
        (by_url(url="url"), "did you mean 'meta.url'"),
        ({"use": "field_dedup"}, "missing; it has no default"),
        (by_url(keep={"best": "id"}), "keep: 'id' is a string, not a number"),
    ],
)
def test_mistakes_are_named(run, stage, message):
    with pytest.raises(RecipeError, match=message.replace("?", "")):
        run(stage)


# Dates


def at(*args):
    return datetime(*args, tzinfo=timezone.utc).timestamp() * 1e6


def test_dates_are_instants_in_utc():
    texts = {
        "2024": at(2024, 1, 1),
        "2024-02": at(2024, 2, 1),
        " 2024-02-29\n": at(2024, 2, 29),
        "2024-05-01T12:00:00Z": at(2024, 5, 1, 12),
        "2024-05-01t12:00:00,25z": at(2024, 5, 1, 12, 0, 0, 250_000),
        "2024-05-01 12:00:00.0000019+0530": at(2024, 5, 1, 6, 30, 0, 1),
        "2024-05-01 12:00 -05": at(2024, 5, 1, 17),
        "2024-06-30T23:59:60 UTC": at(2024, 7, 1),
        "1969-12-31T23:59:59.5": -500_000,
        "0001-01-01": at(1, 1, 1),
        "9999-12-31T23:59:59": at(9999, 12, 31, 23, 59, 59),
        "1714521600.25": 1714521600.25e6,
        "-1": -1e6,
    }
    assert instants(pa.array(texts, pa.large_string())).tolist() == list(texts.values())
    bad = [
        "",
        None,
        "soon",
        "0000-01-01",
        "2023-02-29",
        "2024-13",
        "2024-00-01",
        "2024-05-01T24:00",
        "1e9",
        "+1",
    ]
    bad += [
        "2024-05-01T12:60:00Z",
        "2024-05-01T12:00:61Z",
        "2024-05-01T12:00:00+24:00",
        "2024-5-1",
        "inf",
        "20 24",
    ]
    assert np.isnan(instants(pa.array(bad, pa.string()))).all()
    assert instants(pa.array([2, None])).tolist()[0] == 2e6
    assert len(instants(pa.array([], pa.large_string()))) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(timezones=st.timezones()), max_size=20))
def test_instants_are_those_of_the_standard_library(dates):
    dates = [d for d in dates if d.utcoffset().total_seconds() % 60 == 0]
    exact = [(d - datetime(1970, 1, 1, tzinfo=timezone.utc)) for d in dates]
    wanted = [float((d.days * 86400 + d.seconds) * 1_000_000 + d.microseconds) for d in exact]
    assert instants(pa.array([d.isoformat() for d in dates], pa.large_string())).tolist() == wanted


# Ids


def ids_kept(out):
    return "".join(corpora.kept_ids(out))


def test_lists_of_ids(run, tmp_path):
    (tmp_path / "drop.txt").write_text("a\n c \r\nnot there\n\nx #y\n")
    (tmp_path / "keep.jsonl").write_text("".join(json.dumps({"doc": i}) + "\n" for i in [*"abcd", None]))
    pq.write_table(pa.table({"id": list("efa")}), tmp_path / "drop.parquet")
    report, _ = run({"use": "id_filter", "drop_ids": "drop.txt"})
    assert ids_kept(tmp_path / "out") == "bdefghij"
    assert report["notes"] == ["id_filter: drop_ids: 2 documents have one of the 4 ids of drop.txt"]
    both = {"use": "id_filter", "drop_ids": "drop.parquet", "keep_ids": "keep.jsonl", "id_column": "doc"}
    with pytest.raises(BadModel, match="no column 'doc', only id"):
        run(both)
    pq.write_table(pa.table({"doc": list("efa")}), tmp_path / "drop.parquet")
    report, _ = run(both)
    assert not [name for name in phases(report) if name.startswith("read")]
    assert ids_kept(tmp_path / "out") == "bcd"
    rules = {rule: n["docs"] for rule, n in report["funnel"][0]["dropped"].items()}
    assert rules == {"id in drop list": 3, "id not in keep list": 4}


def test_lists_of_another_corpus(run, tmp_path):
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(b"# 1\nid of another\n"))
    report, _ = run({"use": "id_filter", "drop_ids": "list.txt.gz"})
    assert report["notes"] == ["id_filter: drop_ids: no document has one of the 2 ids of list.txt.gz"]
    with pytest.raises(DataselectError, match=r"list.txt.gz: has the id of none of the 10 documents"):
        run({"use": "id_filter", "keep_ids": "list.txt.gz"})
    assert dataselect.run(tmp_path / "recipe.yaml", sample=0.5)["rows"]["kept"] == 0
    with pytest.raises(
        RecipeError, match=r"id_filter goes by the documents' ids: name their column as input\.id"
    ):
        run({"use": "id_filter", "drop_ids": "list.txt.gz"}, input={"shards": "in/*", "id": None})
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(BadModel, match=r"empty.txt: the list is empty"):
        run({"use": "id_filter", "drop_ids": "empty.txt"})
    with pytest.raises(RecipeError, match="name a list: drop_ids or keep_ids"):
        run({"use": "id_filter"})
