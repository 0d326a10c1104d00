"""Scores of one's own: joined exactly, or refused with the reason."""

from __future__ import annotations

import json
import math

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_filter import phases

import dataselect
from dataselect.core.errors import BadModel, DataselectError, RecipeError
from dataselect.stages.join_scores import JoinScores

DOCS = corpora.docs(120)
IDS = [doc.id for doc in DOCS]
SCORES = [i / 7 - 3 for i in range(120)]


def project(folder, **params):
    corpora.write_shard(folder / "in" / "a.jsonl", DOCS[:50])
    corpora.write_shard(folder / "in" / "b.jsonl", DOCS[50:60])  # grouped with c: small shards
    corpora.write_shard(folder / "in" / "c.jsonl", DOCS[60:90])
    corpora.write_shard(folder / "in" / "d.parquet", DOCS[90:])
    stages = [{"use": "join_scores", "file": "scores.parquet", **params}]
    return corpora.write_recipe(folder, stages, input={"shards": "in/*"})


def write(folder, name="scores.parquet", **columns):
    table = pa.table(columns)
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name, row_group_size=13)
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def shuffled(*columns):
    order = np.random.default_rng(1).permutation(len(columns[0]))
    return [[column[i] for i in order] for column in columns]


def column(folder, name="score"):
    return [row[name] for row in corpora.decisions(folder / "out")]


@pytest.mark.parametrize("name", ["scores.parquet", "scores.jsonl"])
def test_by_id(tmp_path, name):
    recipe = project(tmp_path, file=name)
    ids, scores = shuffled([*IDS, "another"], [*SCORES, 99.0])
    write(tmp_path, name, id=ids, score=scores)
    dataselect.run(recipe, workers=2)
    assert column(tmp_path) == SCORES


def test_numbers_as_ids_are_their_text(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": "2", "text": "b"}\n')
    recipe = corpora.write_recipe(
        tmp_path, [{"use": "join_scores", "file": "s.parquet"}], input={"shards": "in/*"}
    )
    write(tmp_path, "s.parquet", id=[2, 1], score=[0.2, 0.1])
    dataselect.run(recipe, workers=1)
    assert column(tmp_path) == [0.1, 0.2]


def test_by_place_of_the_decisions_of_another_run(tmp_path):
    recipe = project(tmp_path, by="place", file="places.jsonl")
    plain = corpora.write_recipe(
        tmp_path / "plain", [{"use": "length_filter"}], input={"shards": str(tmp_path / "in/*")}
    )
    dataselect.run(plain, workers=1)
    rows = corpora.decisions(tmp_path / "plain" / "out")
    by_id = dict(zip(IDS, SCORES, strict=True))
    shard, part, row, score = shuffled(
        *([r[name] for r in rows] for name in ("shard", "part", "row")), [by_id[r["id"]] for r in rows]
    )
    write(tmp_path, "places.jsonl", shard=shard, part=part, row=row, score=score)
    dataselect.run(recipe, workers=2)
    assert column(tmp_path) == SCORES
    (tmp_path / "in" / "b.jsonl").rename(tmp_path / "in" / "b2.jsonl")
    with pytest.raises(DataselectError, match=r"no value for shard 'b2.jsonl', part 0, row 0"):
        dataselect.run(recipe, workers=1)


@pytest.fixture(scope="module")
def digest(tmp_path_factory):
    """row_digest of a run that keeps every row, as one finds it in its manifest."""
    folder = tmp_path_factory.mktemp("plain")
    recipe = project(folder)
    stages = "stages=[{use: length_filter, min_chars: 0}]"
    return dataselect.run(recipe, workers=1, sets=[stages])["row_digest"]


def test_by_order_with_the_digest_of_the_rows(tmp_path, digest):
    recipe = project(tmp_path, by="order", file="s.npy", rows_digest=digest)
    np.save(tmp_path / "s.npy", np.array(SCORES))
    dataselect.run(recipe, workers=2)
    assert column(tmp_path) == SCORES
    np.save(tmp_path / "s.npy", np.array(SCORES[:-1]))
    with pytest.raises(DataselectError, match="has 119 rows, but the input has 120"):
        dataselect.run(recipe, workers=1)
    np.save(tmp_path / "s.npy", np.array([*SCORES, 1]))
    with pytest.raises(DataselectError, match="has 121 rows, but the input has 120"):
        dataselect.run(recipe, workers=1)
    np.save(tmp_path / "s.npy", np.array(SCORES))
    with pytest.raises(DataselectError, match=rf"that of the input is {digest}"):
        dataselect.run(recipe, workers=1, sets=[f"stages.0.rows_digest={'0' * 31}a"])


def test_by_order_follows_a_shard_that_comes_before(tmp_path, digest):
    recipe = project(tmp_path, by="order", file="s.npy", rows_digest=digest)
    np.save(tmp_path / "s.npy", np.array(SCORES))
    dataselect.run(recipe, workers=1)
    (tmp_path / "in" / "a.jsonl").rename(tmp_path / "in" / "z.jsonl")  # the same rows in another order
    dataselect.run(recipe, workers=1)
    rows = sorted(corpora.decisions(tmp_path / "out"), key=lambda r: (r["shard"], r["row"]))
    assert [row["score"] for row in rows] == SCORES


def test_labels_and_vectors(tmp_path):
    recipe = project(tmp_path, kind="label", column="topic", **{"as": "topic"})
    topics = [["law", "médecine", None][i % 3] for i in range(120)]
    vectors = [[float(i), 0.5] if i else None for i in range(120)]
    write(tmp_path, id=IDS, topic=topics, v=vectors)
    write(tmp_path, "v.jsonl", id=IDS, v=vectors)
    sets = ["stages.0.missing=null", "stages.0.min_matched=1"]
    dataselect.run(recipe, workers=1, sets=sets)
    assert column(tmp_path, "topic") == topics
    for name in ("scores.parquet", "v.jsonl"):
        of = [f"stages.0.file={name}", "stages.0.kind=vector", "stages.0.column=v"]
        dataselect.run(recipe, workers=1, sets=[*sets, *of, f"output.folder=out-{name}"])
        assert [row["topic"] for row in corpora.decisions(tmp_path / f"out-{name}")] == vectors


def test_missing_documents(tmp_path):
    recipe = project(tmp_path)
    write(tmp_path, id=IDS[:-30], score=[*SCORES[:-31], None])
    with pytest.raises(
        DataselectError,
        match=r"no value for id 'corpus-00089', and for 0 more|no value for id 'corpus-00090'",
    ):
        dataselect.run(recipe, workers=1)
    with pytest.raises(
        DataselectError, match=r"has only 90 of 120 documents, 75.00%: less than min_matched: 0.8"
    ):
        dataselect.run(recipe, workers=1, sets=["stages.0.missing=drop", "stages.0.min_matched=80%"])
    low = ["stages.0.min_matched=70%"]
    assert dataselect.run(recipe, workers=1, sets=[*low, "stages.0.missing=drop"])["rows"]["kept"] == 89
    assert {row["reason"] for row in corpora.decisions(tmp_path / "out")} == {None, "no score"}
    assert dataselect.run(recipe, workers=1, sets=[*low, "stages.0.missing=-5"])["rows"]["kept"] == 120
    assert column(tmp_path)[-31:] == [-5] * 31
    assert dataselect.run(recipe, workers=1, sets=[*low, "stages.0.missing=null"])["rows"]["kept"] == 120
    assert column(tmp_path)[-31:] == [None] * 31


def test_scores_of_what_reaches_the_stage_are_enough_and_selections_use_them(tmp_path):
    recipe = project(tmp_path)
    stages = [
        {"use": "length_filter", "min_chars": 200},
        {"use": "join_scores", "file": "scores.parquet", "transform": ["negative"]},
        {"use": "filter", "where": "score < 2"},
        {"use": "select", "by": "score", "keep": {"docs": 3}},
    ]
    reach = [i for i, doc in enumerate(DOCS) if len(doc.text) >= 200]
    write(tmp_path, id=[IDS[i] for i in reach], score=[SCORES[i] for i in reach])
    dataselect.run(recipe, workers=1, sets=[f"stages={json.dumps(stages)}"])
    wanted = [i for i in reach if -SCORES[i] < 2][:3]
    assert corpora.kept_ids(tmp_path / "out") == [IDS[i] for i in wanted]


def test_another_file_reads_no_shard(tmp_path):
    recipe = project(tmp_path)
    write(tmp_path, id=IDS, score=SCORES)
    dataselect.run(recipe, workers=1)
    write(tmp_path, id=IDS, score=SCORES[::-1])
    report = dataselect.run(recipe, workers=1)
    assert column(tmp_path) == SCORES[::-1]
    assert set(phases(report)) == {"prepare", "look up 0:join_scores", "write"}
    assert dataselect.run(recipe, workers=1)["up_to_date"]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"id": [*IDS, IDS[3]], "score": [*SCORES, 1.0]}, "rows 3 and 120 are of the same document"),
        ({"id": [*IDS[:-1], None], "score": SCORES}, "row 119 has no id"),
        ({"id": [f"x{i}" for i in IDS], "score": SCORES}, "no value for id 'corpus-00000', and for"),
        ({"id": IDS, "scores": SCORES}, "no column 'score', only id, scores; did you mean 'scores'?"),
        ({"ID": IDS, "score": SCORES}, "no column 'id', only ID, score"),
        ({"id": IDS, "score": [str(x) for x in SCORES]}, "'score' is of type string, not a number"),
        (
            {"id": IDS, "score": [*SCORES[:-1], math.nan]},
            "row 119: nan gives no finite number; `nan: missing`",
        ),
        ({"id": IDS[:0], "score": pa.array([], pa.float64())}, "has no rows"),
        ({"id": IDS[:-1], "score": SCORES[:-1]}, "no value for id 'corpus-00119', and for 0 more"),
    ],
)
def test_wrong_files(tmp_path, columns, message):
    recipe = project(tmp_path)
    write(tmp_path, **columns)
    with pytest.raises(DataselectError) as error:
        dataselect.run(recipe, workers=1)
    assert message in str(error.value)
    assert "scores.parquet" in str(error.value)


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("s.jsonl", b'{"id": "a", "score": "x"}\n', "no score there"),
        ("s.jsonl", b'{"id": "a", "score": 1}\n{"id": "b", "score": 1}{"id": "c", "score": 1}\n', "no JSON"),
        ("s.jsonl", b'{"id": "a", "value": 1}\n', "no column 'score', only id, value"),
        ("s.jsonl", b"[1]\n", "no column 'id'"),
        ("s.parquet", b"PAR1 torn", "not a whole Parquet file"),
        ("s.csv", b"id,score\n", "expected .npy, .parquet or JSONL"),
    ],
)
def test_files_that_are_none(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadModel) as error:
        list(JoinScores(file=str(tmp_path / name))._file().parts())
    assert message in str(error.value)


def test_npy_files_that_are_none(tmp_path):
    for array in (
        np.zeros((2, 2)),
        np.array(["a"]),
        np.array([{}], object),
        np.zeros(3)[:0].reshape(0, 1, 1),
    ):
        np.save(tmp_path / "s.npy", array, allow_pickle=True)
        with pytest.raises(BadModel):
            JoinScores(file=str(tmp_path / "s.npy"), by="order", rows_digest="0").check_files()


@pytest.mark.parametrize(
    "params, message",
    [
        ({"by": "order"}, "rows_digest: belongs to `by: order`"),
        ({"rows_digest": "x"}, "rows_digest: belongs to `by: order`"),
        ({"file": "s.npy"}, "an npy file has no ids"),
        ({"missing": "drop"}, "min_matched: say what share"),
        ({"kind": "label", "transform": ["log"]}, "are for scores only"),
        ({"transform": [{"clip": [1, 0]}]}, "expected a lower bound below the upper one"),
        ({"transform": ["rank"]}, "log"),
    ],
)
def test_parameters_that_do_not_fit(params, message):
    with pytest.raises(ValueError) as error:
        JoinScores.model_validate({"file": "s.parquet", **params})
    assert message in str(error.value)


def test_an_id_is_needed_for_a_join_by_id(tmp_path):
    recipe = project(tmp_path)
    write(tmp_path, id=IDS, score=SCORES)
    with pytest.raises(RecipeError, match=r"join_scores goes by the documents' ids"):
        dataselect.plan(recipe, sets=["input.id=null"])


def test_transforms_in_order(tmp_path):
    write(tmp_path, id=["a", "b", "c"], score=[0.0, 0.5, 1.0])
    steps = [{"clip": [0.1, 0.9]}, "logit", "negative"]
    stage = JoinScores(file=str(tmp_path / "scores.parquet"), transform=steps)
    columns, _ = stage.look_up({"id": pa.array(["c", "b", "a"])}, stage.prepare())
    assert np.allclose(columns["score"].to_numpy(), [-math.log(9), 0, math.log(9)])
    with pytest.raises(BadModel, match=r"row 0: 0.0 gives no finite number"):
        JoinScores(file=stage.file, transform=["log"]).prepare()
    lenient = JoinScores(file=stage.file, transform=["log"], nan="missing", missing=None, min_matched=1.0)
    columns, counts = lenient.look_up({"id": pa.array(["a", "c"])}, lenient.prepare())
    assert columns["score"].to_pylist() == [None, 0.0]
    assert counts == {"n_reach": 2, "n_matched": 2, "n_missing": 1}


def test_a_sample_cannot_be_joined_by_order(tmp_path, digest):
    recipe = project(tmp_path, by="order", file="s.npy", rows_digest=digest)
    np.save(tmp_path / "s.npy", np.array(SCORES))
    with pytest.raises(RecipeError, match="by their order, so it needs all"):
        dataselect.run(recipe, workers=1, sample=0.5)
