"""Shuffled output: all copies, in one order by hash, the same bytes for any cut and number of workers."""

from __future__ import annotations

import json
from collections import Counter

import corpora
import numpy as np
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import DataselectError, RecipeError
from dataselect.engine import shuffle
from dataselect.engine.shuffle import shuffle_draws

COPIES = {"use": "select", "method": "copies", "keep": {"docs": 900}, "max_copies": 3, "seed": 4}


def shards(output):
    """Name -> bytes of the live shards."""
    folder = corpora.live(output) / "shards"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def ids(output):
    """Ids of all rows, in order."""
    return [row["id"] for row in corpora.written_rows(output)]


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shuffle")
    output = {"folder": "out", "format": "jsonl.zst", "shuffle": {"seed": 1, "shards": 3}}
    path = corpora.make_project(folder, [{"use": "exact_dedup"}, COPIES], output=output)
    return folder, path, dataselect.run(path, workers=2)


def test_every_copy_is_written_once_in_an_order_that_is_far_from_the_inputs(shuffled):
    folder, _, report = shuffled
    rows = corpora.decisions(folder / "out")
    assert Counter(ids(folder / "out")) == Counter({r["id"]: r["copies"] for r in rows if r["copies"]})
    assert list(shards(folder / "out")) == [f"part-0000{k}-of-00003.jsonl.zst" for k in range(3)]
    place = {row["id"]: k for k, row in enumerate(rows)}
    order = np.array([place[name] for name in ids(folder / "out")])
    assert report["rows"]["written"] == len(order)
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 5 / np.sqrt(len(order))
    sizes = [
        len(corpora.unpacked(p).splitlines())
        for p in sorted((corpora.live(folder / "out") / "shards").iterdir())
    ]
    assert all(abs(n - len(order) / 3) < 5 * np.sqrt(len(order) * 2 / 9) for n in sizes)


def test_lines_are_the_bytes_they_came_as(shuffled):
    folder = shuffled[0]
    lines = set(corpora.unpacked(folder / "in" / "a.jsonl").splitlines())
    names = {json.loads(line)["id"] for line in lines}
    for data in shards(folder / "out"):
        for line in corpora.unpacked(corpora.live(folder / "out") / "shards" / data).splitlines():
            assert json.loads(line)["id"] not in names or line in lines


def test_the_bytes_are_the_same_for_any_cut_workers_and_buffers(shuffled, tmp_path, monkeypatch, serial):
    folder, path, report = shuffled
    for name in ("_RUN_BYTES", "_BLOCK_BYTES", "RANGE_BYTES"):
        monkeypatch.setattr(shuffle, name, 5000)
    sets = [f"output.folder={tmp_path}/out", f"work={tmp_path}/work", "input.piece_bytes=16384"]
    cut = dataselect.run(path, workers=1, sets=[*sets, "input.batch_rows=7"])
    assert cut["digest"] == report["digest"]
    assert shards(tmp_path / "out") == shards(folder / "out")


def test_a_change_scatters_one_piece_again_and_nothing_runs_twice(tmp_path, serial):
    output = {"folder": "out", "format": "jsonl", "shuffle": {"seed": 1, "shards": 2}}
    path = corpora.make_project(tmp_path, [{"use": "exact_dedup"}], output=output)
    first = dataselect.run(path)
    assert dataselect.run(path)["up_to_date"]
    plan = dataselect.plan(path)
    assert plan["tasks"] == {"run": 0, "reuse": plan["tasks"]["reuse"], "waits": 0}
    shard = tmp_path / "in" / "a.jsonl"
    shard.write_bytes(shard.read_bytes() + b'{"id": "new", "text": "a text that nobody wrote before"}\n')
    second = dataselect.run(path)
    ran = {phase["phase"]: (phase["run"], phase["tasks"]) for phase in second["phases"]}
    assert ran["write"][0] == 1 < ran["write"][1]
    assert ran["shuffle"] == (2, 2)
    before = [line for data in shards_before(tmp_path, first) for line in data]
    after = [line for data in shards_before(tmp_path, second) for line in data]
    assert [line for line in after if b'"new"' not in line] == before, "the others keep their order"


def shards_before(folder, report):
    paths = sorted((folder / "out" / report["generation"] / "shards").iterdir())
    return [path.read_bytes().splitlines() for path in paths]


def test_parquet_rows_keep_their_columns(tmp_path, serial):
    output = {"folder": "out", "shuffle": {"shards": 2}, "copies": "column", "holdout": {"fraction": 0.2}}
    stages = [{"use": "length_filter", "min_chars": 0}, COPIES]
    source = {"shards": "in/**/*.parquet"}
    path = corpora.make_project(tmp_path, stages, input=source, output=output | {"add": ["n_chars"]})
    report = dataselect.run(path)
    tables = [pq.read_table(p) for p in sorted((corpora.live(tmp_path / "out") / "shards").iterdir())]
    assert len(tables) == 2
    came = {
        row["id"]: row for p in (tmp_path / "in").rglob("*.parquet") for row in pq.read_table(p).to_pylist()
    }
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == report["rows"]["written"] == report["rows"]["kept"] - report["rows"]["heldout"]
    for row in rows:
        copies, n_chars = row.pop("copies"), row.pop("n_chars")
        assert (row, n_chars) == (came[row["id"]], len(row["text"]))
        assert copies >= 1
    assert tables[0].schema.metadata == pq.read_schema(next((tmp_path / "in").rglob("*.parquet"))).metadata


def test_shards_of_several_kinds_need_a_format(shuffled, tmp_path):
    for form in ("same", "parquet"):
        with pytest.raises(RecipeError, match=r"output.shuffle: .*can't stand in one file"):
            dataselect.run(shuffled[1], sets=[f"output.format={form}", f"output.folder={tmp_path}/out"])


def test_an_index_of_the_texts_places_does_not_go_with_it(shuffled, tmp_path):
    with pytest.raises(RecipeError, match=r"stages\[0\].save_index: .*output.shuffle"):
        dataselect.run(shuffled[1], sets=["stages.0.save_index=true", f"output.folder={tmp_path}/out"])


def test_tables_with_other_columns_are_named(tmp_path, serial):
    path = corpora.make_project(
        tmp_path,
        [{"use": "length_filter", "min_chars": 0}],
        input={"shards": "in/**/*.parquet"},
        output={"shuffle": {}},
    )
    table = pq.read_table(next((tmp_path / "in").rglob("*.parquet")))
    pq.write_table(table.append_column("more", table["id"]).slice(0, 5), tmp_path / "in" / "zz.parquet")
    with pytest.raises(DataselectError, match=r"rows of zz.parquet have other columns .*output.format"):
        dataselect.run(path)


def test_a_run_that_stops_while_it_gathers_goes_on_there(tmp_path, serial, monkeypatch):
    output = {"format": "jsonl", "shuffle": {"shards": 3}}
    path = corpora.make_project(tmp_path, [{"use": "exact_dedup"}], output=output)
    gather = shuffle.gather_shard

    def stops(context, call):
        if call.number == 2:
            raise DataselectError("the disk is full")
        return gather(context, call)

    monkeypatch.setattr(shuffle, "gather_shard", stops)
    with pytest.raises(DataselectError, match="the disk is full"):
        dataselect.run(path)
    monkeypatch.setattr(shuffle, "gather_shard", gather)
    phases = {p["phase"]: (p["run"], p["tasks"]) for p in dataselect.run(path)["phases"]}
    assert "write" not in phases
    assert phases["shuffle"] == (1, 3)
    again = dataselect.run(path, sets=[f"output.folder={tmp_path}/other", f"work={tmp_path}/other-work"])
    assert shards(tmp_path / "other") == shards(tmp_path / "out")
    assert again["rows"]["written"] == len(ids(tmp_path / "out"))


def test_nothing_kept_is_no_shard(tmp_path, serial):
    path = corpora.make_project(
        tmp_path,
        [{"use": "length_filter", "min_chars": 10**6}],
        output={"format": "jsonl", "shuffle": {}},
    )
    assert dataselect.run(path)["rows"]["written"] == 0


@pytest.mark.slow
def test_every_order_of_four_rows_is_as_likely():
    """2,400 seeds, 24 orders: chi-square with 23 degrees of freedom, 1 in 10,000."""
    keys = np.random.default_rng(0).integers(0, 2**64, (4, 2), dtype=np.uint64)
    orders = Counter(
        tuple(np.argsort(shuffle_draws(keys, np.ones(4, np.int64), seed))) for seed in range(2400)
    )
    assert len(orders) == 24
    assert sum((n - 100) ** 2 / 100 for n in orders.values()) < 55.5


def test_copies_have_draws_of_their_own_and_the_first_is_that_of_a_single_one():
    keys = np.arange(12, dtype=np.uint64).reshape(6, 2)
    once = shuffle_draws(keys, np.ones(6, np.int64), 7)
    many = shuffle_draws(keys, np.array([3, 0, 1, 2, 0, 1]), 7)
    assert len(set(many.tolist())) == 7
    assert many[[0, 3, 4, 6]].tolist() == once[[0, 2, 3, 5]].tolist()
