"""Dedup against what was there before: shards, outputs of earlier runs, saved indexes."""

from __future__ import annotations

import json

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import BadModel, DataselectError, RecipeError
from dataselect.io.bundle import Bundle
from dataselect.io.dedup_index import DedupIndex
from dataselect.io.store import LocalStore

DEDUP = {"use": "minhash_dedup"}
ALL_OLD = {"shards": ["old/*.jsonl", "new/*.jsonl"], "id": "id"}
NEW = {"shards": ["new/*.jsonl"], "id": "id"}


def write(folder, texts, n_shards=2):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"id": i, "text": text}) + "\n" for i, text in texts.items()]
    for k in range(n_shards):
        part = rows[k * len(rows) // n_shards : (k + 1) * len(rows) // n_shards]
        (folder / f"{k}.jsonl").write_text("".join(part))


@pytest.fixture
def days(tmp_path, serial):
    """Yesterday's and today's documents: 150 pairs of them, some of which are duplicates, and copies."""
    old, new = {}, {}
    for i in range(150):
        first, second = corpora.pair_of_similarity(0.5 + 0.5 * i / 150, "days", i)
        old[f"old{i}"], new[f"new{i}"] = first, second
        if i % 10 == 0:
            new[f"copy{i}"], new[f"again{i}"] = first, second
    write(tmp_path / "old", old)
    write(tmp_path / "new", new)
    return tmp_path, old, new


def run(folder, stage, out="out", spec=NEW, **sections):
    """Run one dedup; its report and the decisions by id."""
    recipe = corpora.write_recipe(
        folder, [stage], input=spec, output={"folder": out, "format": "same"}, **sections
    )
    report = dataselect.run(recipe)
    return report, {row["id"]: row for row in corpora.decisions(folder / out)}


def kept(decisions):
    return {i for i, row in decisions.items() if row["copies"]}


def day_one(folder, **params):
    """Yesterday's run, which saves an index."""
    return run(folder, DEDUP | params | {"save_index": True}, "day1", NEW | {"shards": ["old/*.jsonl"]})


@pytest.mark.parametrize("use", ["minhash_dedup", "exact_dedup"])
def test_old_shards_old_outputs_and_indexes_drop_what_a_dedup_of_all_would(days, use):
    folder, _, new = days
    _, together = run(folder, {"use": use, "keep": {"source": ["old/*"]}}, "together", ALL_OLD)
    day_one(folder, use=use)
    for against in (["old/*.jsonl"], ["old"], ["day1"], ["old/0.jsonl", "old/1.jsonl"]):
        report, decisions = run(folder, {"use": use, "against": against})
        assert kept(decisions) == kept(together) & set(new)
        for i, row in decisions.items():
            assert row["duplicate_of_row"] == together[i]["duplicate_of_row"]
            if row["duplicate_of_source"] is not None:
                assert row["duplicate_of_source"] in against
                assert row["duplicate_of_id"].startswith("old")
                assert row["reason"] == "duplicate of an old document"
        assert report["dedups"][0]["n_matched_old"] == sum(
            row["duplicate_of_source"] is not None for row in decisions.values()
        )


def test_without_the_texts_an_index_decides_by_signatures(days):
    folder, old, new = days
    day_one(folder)
    _, before = run(folder, DEDUP | {"against": ["day1"]})
    assert corpora.cli("index", "merge", folder / "all.index", folder / "day1")[0] == 0
    exact = {i: corpora.jaccard(old[f"old{i}"], new[f"new{i}"]) for i in range(150)}
    assert {f"new{i}" for i in exact if exact[i] < 0.8} == {i for i in kept(before) if i.startswith("new")}
    assert kept(run(folder, DEDUP | {"against": ["all.index"]})[1]) == kept(before)
    (path,) = corpora.live(folder / "day1").glob("shards/*")
    lines = path.read_text().splitlines(keepends=True)
    for change in (lambda: path.write_text("".join(reversed(lines))), path.unlink):  # same size, other rows
        change()
        _, after = run(folder, DEDUP | {"against": ["all.index"]})
        clear = {f"new{i}" for i in exact if abs(exact[i] - 0.8) > 0.15}
        assert kept(after) & clear == kept(before) & clear
        assert after["new149"]["duplicate_of_source"] == "all.index"
        assert after["new149"]["duplicate_of_shard"].startswith("day1/")
    with pytest.raises(
        BadModel, match=r"all.index: `verify: exact` needs the texts, but .*/shards/.* is gone"
    ):
        run(folder, DEDUP | {"against": ["all.index"], "verify": "exact"})


def test_all_is_verified_exactly_where_the_texts_are_there(days):
    folder, *_ = days
    day_one(folder, verify="exact")
    _, signed = run(folder, DEDUP | {"against": ["old"], "verify": "exact"})
    _, saved = run(folder, DEDUP | {"against": ["day1"], "verify": "exact"})
    _, auto = run(folder, DEDUP | {"against": ["old"]})
    assert kept(signed) == kept(saved) == kept(auto)


def test_keep_new_lists_what_is_superseded_and_drops_nothing_for_it(days):
    folder, old, new = days
    _, alone = run(folder, DEDUP, "alone")
    length = {"use": "filter", "where": "not startswith(id, 'new14')"}
    recipe = corpora.write_recipe(
        folder,
        [DEDUP | {"against": ["old"], "on_match": "keep_new"}, length],
        input=NEW,
        output={"folder": "out"},
    )
    report = dataselect.run(recipe)
    decisions = {row["id"]: row for row in corpora.decisions(folder / "out")}
    assert {i for i in kept(alone) if not i.startswith("new14")} == kept(decisions)
    listed = pq.read_table(corpora.live(folder / "out") / "superseded").to_pylist()
    expected = {
        (f"old{i}", name)
        for i in range(150)
        for name in (f"new{i}", f"copy{i}")
        if name in kept(decisions) and corpora.jaccard(old[f"old{i}"], new[name]) >= 0.8
    }
    assert {(row["id"], row["by_id"]) for row in listed} == expected
    assert len(expected) > 30
    assert {row["source"] for row in listed} == {"old"}
    assert report["dedups"][0]["n_matched_old"] > 30


def test_marked_documents_stay_with_the_id_of_what_they_match(days):
    folder, old, new = days
    stage = DEDUP | {"against": ["old"], "on_match": "mark"}
    recipe = corpora.write_recipe(
        folder, [stage], input=NEW, output={"folder": "out", "add": ["matched", "matched_similarity"]}
    )
    dataselect.run(recipe)
    _, alone = run(folder, DEDUP, "alone")
    decisions = {row["id"]: row for row in corpora.decisions(folder / "out")}
    assert kept(decisions) == kept(alone)
    for i in range(150):
        exact = corpora.jaccard(old[f"old{i}"], new[f"new{i}"])
        assert decisions[f"new{i}"]["matched"] == (f"old{i}" if exact >= 0.8 else None)
    assert decisions["copy0"]["matched"] == "old0"
    assert decisions["copy0"]["matched_similarity"] == 1.0
    rows = [
        json.loads(line)
        for path in corpora.live(folder / "out").glob("shards/*")
        for line in path.read_text().splitlines()
    ]
    assert {row["id"]: row["matched"] for row in rows} == {
        i: decisions[i]["matched"] for i in kept(decisions)
    }


@pytest.mark.parametrize("on_match", ["keep_old", "keep_new", "mark"])
def test_workers_pieces_and_partitions_change_nothing(days, on_match):
    folder, *_ = days
    day_one(folder)
    stage = DEDUP | {"against": ["day1", "old"], "on_match": on_match, "keep": "longest"}
    digests = set()
    for k, (piece_bytes, memory) in enumerate([(4096, "1GiB"), (1 << 20, "16KiB")]):
        spec = NEW | {"piece_bytes": piece_bytes}
        report, decisions = run(folder, stage, f"out{k}", spec, work=f"work{k}", memory=memory)
        digests.add((report["row_digest"], *((i, row["duplicate_of_id"]) for i, row in decisions.items())))
    assert len(digests) == 1


def test_an_index_is_of_the_kept_rows_and_survives_merging_and_dropping(days):
    folder, *_ = days
    _, one = day_one(folder)
    run(folder, DEDUP | {"against": ["day1"], "save_index": True}, "day2")
    paths = [folder / "all.index", folder / "day1", folder / "day2", folder / "all.index"]
    assert corpora.cli("index", "merge", *paths[:3])[0] == 0
    assert corpora.cli("index", "merge", *paths)[0] == 0  # merged already: nothing is doubled
    index = DedupIndex.open(str(folder / "all.index"))
    index.check_whole()
    two = {row["id"] for row in corpora.decisions(folder / "day2") if row["copies"]}
    assert set(index.ids(np.arange(index.n_docs)).to_pylist()) == kept(one) | two
    (folder / "gone.txt").write_text("old3\nold140\nnever seen\n")
    code, out, _ = corpora.cli("index", "drop", folder / "all.index", "--ids", folder / "gone.txt")
    assert code == 0
    assert "2 documents taken out (3 were listed)" in out
    pq.write_table(pa.table({"id": ["old3", None]}), folder / "gone.parquet")
    for name, answer in (
        ("gone.parquet", "0 documents taken out (1 were listed)"),
        ("none.txt", "none.txt: No such"),
    ):
        _, out, err = corpora.cli("index", "drop", folder / "all.index", "--ids", folder / name)
        assert answer in out + err
        assert "Traceback" not in err
    left = DedupIndex.open(str(folder / "all.index"))
    left.check_whole()
    assert set(left.ids(np.arange(left.n_docs)).to_pylist()) == (kept(one) | two) - {"old3", "old140"}
    _, before = run(folder, DEDUP | {"against": ["day1"]}, "before")
    _, after = run(folder, DEDUP | {"against": ["all.index"]}, "after")
    assert before["new140"]["duplicate_of_id"] == "old140"
    assert after["new140"]["duplicate_of_id"] is None


def test_superseded_documents_can_be_taken_out_of_an_index(days):
    folder, *_ = days
    day_one(folder)
    assert corpora.cli("index", "merge", folder / "all.index", folder / "day1")[0] == 0
    run(folder, DEDUP | {"against": ["all.index"], "on_match": "keep_new"})
    listed = {row["id"] for row in pq.read_table(corpora.live(folder / "out") / "superseded").to_pylist()}
    code, out, err = corpora.cli("index", "drop", folder / "all.index", "--superseded", folder / "out")
    assert code == 0, err
    index = DedupIndex.open(str(folder / "all.index"))
    assert not listed & set(index.ids(np.arange(index.n_docs)).to_pylist())
    assert f"{len(listed)} documents taken out" in out


def test_of_a_merged_index_every_section_is_as_if_made_at_once(days):
    folder, *_ = days
    day_one(folder)
    run(
        folder,
        DEDUP | {"save_index": True},
        "once",
        NEW | {"shards": ["old/*.jsonl"], "piece_bytes": 1 << 20},
    )
    assert corpora.cli("index", "merge", folder / "parts.index", folder / "day1")[0] == 0
    assert corpora.cli("index", "merge", folder / "once.index", folder / "once")[0] == 0
    one, other = (Bundle(LocalStore(folder), name) for name in ("parts.index", "once.index"))
    for name in ("index", "keys", "rows", "signatures", "text_hash", "id_bytes", "id_offsets"):
        assert (one.array(name) == other.array(name)).all(), name


def test_documents_with_the_same_key_as_many_old_ones(tmp_path, serial):
    base = corpora.words(100, "template")
    versions = {f"o{i}": " ".join([*base, f"tail{i}"]) for i in range(60)}
    write(tmp_path / "old", versions)
    write(tmp_path / "new", {f"n{i}": " ".join([*base, f"other{i}"]) for i in range(40)})
    report, decisions = run(tmp_path, DEDUP | {"against": ["old"]})
    assert not kept(decisions)
    assert report["dedups"][0]["n_matched_old"] == 40


def test_bad_indexes_and_sources_are_named(days):
    folder, *_ = days
    day_one(folder)
    assert corpora.cli("index", "merge", folder / "all.index", folder / "day1")[0] == 0
    whole = (folder / "all.index").read_bytes()
    for params, message in [
        ({"ngram": 7}, r"all.index: was made with ngram: 5, but here it is 7"),
        ({"threshold": 0.7}, r"all.index: was made with bands: \[18, 7\], but here it is"),
    ]:
        with pytest.raises(BadModel, match=message):
            run(folder, DEDUP | {"against": ["all.index"]} | params)
    with pytest.raises(BadModel, match=r"was made with use: minhash_dedup, but here it is exact_dedup"):
        run(folder, {"use": "exact_dedup", "against": ["all.index"]})
    (folder / "cut.index").write_bytes(whole[: len(whole) // 2])
    (folder / "text.index").write_text("not an index")
    for name in ("cut.index", "text.index"):
        with pytest.raises(BadModel, match=rf"{name}: not a whole index of a dedup"):
            run(folder, DEDUP | {"against": [name]})
    for against, message in [
        ("gone.index", r"gone.index: there is no such file"),
        ("nowhere/*.jsonl", r"against: no file matches"),
        ("out", r"out is this recipe's own output"),
    ]:
        with pytest.raises(DataselectError, match=message):
            run(folder, DEDUP | {"against": [against]})
    (folder / "other").mkdir()
    (folder / "other" / "a.jsonl").write_text('{"body": "no text here"}\n')
    with pytest.raises(DataselectError, match=r"a.jsonl of `against`: none of its 1 rows has a text"):
        run(folder, DEDUP | {"against": ["other"]})
    code, _, err = corpora.cli("index", "merge", folder / "new.index", folder / "old")
    assert code != 0
    assert "nothing is published" in err or "no index" in err


def test_a_damaged_index_is_found_when_it_is_checked(days):
    folder, *_ = days
    day_one(folder)
    assert corpora.cli("index", "merge", folder / "all.index", folder / "day1")[0] == 0
    shown = json.loads(corpora.cli("index", "show", folder / "all.index", "--json")[1])
    assert shown["docs"] == 150
    assert shown["texts"] == {"files": 1, "there": 1}
    assert "150 documents; 1 of 1 files" in corpora.cli("index", "show", folder / "all.index")[1]
    data = bytearray((folder / "all.index").read_bytes())
    data[len(data) // 3] ^= 255
    (folder / "all.index").write_bytes(data)
    code, _, err = corpora.cli("index", "show", folder / "all.index")
    assert code == 1
    assert "damaged" in err


def test_an_unknown_way_to_match_is_a_mistake_of_the_recipe(days):
    with pytest.raises(RecipeError, match=r"on_match: expected 'keep_old', 'keep_new' or 'mark', got 'both'"):
        run(days[0], DEDUP | {"against": ["old"], "on_match": "both"})
