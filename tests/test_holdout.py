"""Held-out documents: groups and clusters whole on one side, counted, and the same for any cut."""

from __future__ import annotations

import json
from collections import defaultdict

import corpora
import numpy as np
import pytest

import dataselect
from dataselect.core.errors import RecipeError

N_CHAINS = 120


def ids_in(output, kind):
    """Ids of shards/ or heldout/, in order."""
    return [row["id"] for row in corpora.written_rows(output, kind)]


def chains():
    """Documents a - c - b: c is similar to both, not they to each other; it is dropped."""
    rows = []
    for chain in range(N_CHAINS):
        words = corpora.words(120, "chain", chain)
        for k, part in enumerate((words[:100], words[10:110], words[20:120])):
            rows.append({"id": f"{chain}-{'acb'[k]}", "text": " ".join(part), "host": f"h{chain % 7}"})
    return sorted(rows, key=lambda row: (row["id"][-1], row["id"]))


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("holdout")
    (folder / "in").mkdir()
    rows = chains()
    for k in range(3):
        lines = [json.dumps(row) + "\n" for row in rows[k * N_CHAINS : (k + 1) * N_CHAINS]]
        (folder / "in" / f"{k}.jsonl").write_text("".join(lines))
    stages = [{"use": "minhash_dedup", "threshold": 0.7, "cluster": "cluster", "verify": "exact"}]
    output = {"folder": "out", "holdout": {"fraction": 0.3, "by": "cluster", "seed": 3}}
    source = {"shards": "in/*.jsonl", "id": "id"}
    path = corpora.write_recipe(folder, stages, input=source, output=output)
    return folder, path, dataselect.run(path, workers=2)


def test_no_cluster_is_on_both_sides_and_every_row_is_counted(chained):
    folder, _, report = chained
    train, held = ids_in(folder / "out", "shards"), ids_in(folder / "out", "heldout")
    rows = report["rows"]
    assert (rows["written"], rows["heldout"]) == (len(train), len(held))
    assert rows["kept"] == len(train) + len(held)
    decided = corpora.decisions(folder / "out")
    clusters = defaultdict(set)
    for row in decided:
        clusters[row["cluster"]].add(row["id"].split("-")[0])
        assert (row["heldout"], row["copies"]) == (row["id"] in held, int(row["id"] in train))
    assert all(len(found) == 1 for found in clusters.values()), "a cluster is one chain"
    sides = [{name.split("-")[0] for name in ids} for ids in (train, held)]
    assert not sides[0] & sides[1]
    assert len(clusters) == N_CHAINS
    # 5 sigma of a binomial
    assert abs(len(sides[1]) - 0.3 * N_CHAINS) < 5 * np.sqrt(N_CHAINS * 0.21)
    assert len(train) + len(held) > N_CHAINS * 1.5, "similar neighbours of a dropped document were kept"


def test_a_document_alone_would_leave_its_neighbour_on_the_other_side(chained, tmp_path, serial):
    _, path, _ = chained
    dataselect.run(path, sets=[f"output.folder={tmp_path}/out", "output.holdout={fraction: 0.3}"])
    sides = [
        {name.split("-")[0] for name in ids_in(tmp_path / "out", kind)} for kind in ("shards", "heldout")
    ]
    assert sides[0] & sides[1]


def test_the_split_is_the_same_for_any_cut_and_listed(chained, tmp_path, cli, serial):
    folder, path, report = chained
    sets = [f"output.folder={tmp_path}/out", f"work={tmp_path}/work", "input.piece_bytes=16384"]
    cut = dataselect.run(path, workers=1, sets=[*sets, "input.batch_rows=7"])
    assert (cut["row_digest"], cut["rows"]) == (report["row_digest"], report["rows"])
    assert sorted(ids_in(tmp_path / "out", "heldout")) == sorted(ids_in(folder / "out", "heldout"))
    assert dataselect.run(path)["up_to_date"]
    listed = cli("ls", folder / "out", "--heldout").out.splitlines()
    assert [name.rsplit("/", 2)[1:] for name in listed] == [["heldout", "0+2.jsonl"]]
    card = (corpora.live(folder / "out") / "README.md").read_text()
    assert f"{report['rows']['heldout']} of them held out" in card
    assert "split: heldout" in card


@pytest.mark.parametrize("form", ["same", "parquet"])
def test_an_input_field_holds_out_whole_hosts_once(chained, tmp_path, form, serial):
    _, path, _ = chained
    stages = "stages=[{use: select, method: copies, keep: {docs: 720}, max_copies: 2}]"
    sets = [f"output.folder={tmp_path}/out", f"output.format={form}", "output.holdout.by=host", stages]
    report = dataselect.run(path, sets=sets)
    train, held = ids_in(tmp_path / "out", "shards"), ids_in(tmp_path / "out", "heldout")
    hosts = [{int(name.split("-")[0]) % 7 for name in ids} for ids in (train, held)]
    assert hosts[0] | hosts[1] == set(range(7))
    assert not hosts[0] & hosts[1]
    assert len(set(train)) * 2 == len(train), "copies"
    assert len(set(held)) == len(held), "a held-out row is written once"
    assert report["rows"]["written"] == len(train)


@pytest.mark.parametrize("save_index", [True, False])
def test_a_later_run_against_the_output_finds_held_out_documents_too(chained, tmp_path, save_index, serial):
    folder, path, _ = chained
    sets = [f"output.folder={tmp_path}/day1", f"stages.0.save_index={save_index}".lower()]
    dataselect.run(path, sets=sets)
    again = {"use": "minhash_dedup", "threshold": 0.7, "verify": "exact", "against": [f"{tmp_path}/day1"]}
    sets = [f"output.folder={tmp_path}/day2", "output.holdout=null", f"stages={json.dumps([again])}"]
    assert dataselect.run(path, sets=sets)["rows"]["kept"] == 0
    assert ids_in(tmp_path / "day1", "heldout") == ids_in(folder / "out", "heldout")


@pytest.mark.parametrize(
    "change, message",
    [
        ("output.holdout.fraction=0", "output.holdout.fraction"),
        ("output.holdout.fraction=1", "output.holdout.fraction"),
        ("output.holdout.by=nowhere", "nowhere"),
        ("stages.0.cluster=text", "reserved"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(chained, tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        dataselect.run(chained[1], sets=[f"output.folder={tmp_path}/out", change])
