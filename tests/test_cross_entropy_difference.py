"""Moore-Lewis scores: their formula, whose model scores whom, and a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import BadModel
from dataselect.engine.columns import describe_texts
from dataselect.kernels import language_model as lm
from dataselect.kernels.arrow import text_buffers
from dataselect.stages.base import Texts
from dataselect.stages.cross_entropy_difference import CrossEntropyDifference, _half

MARKETS = "the stock market fell and prices of oil rose as traders sold shares on day {}".format
CELLS = "the cell wall divides and proteins of the cell fold as enzymes bind to site {}".format


def texts_of(values):
    array = pa.array(values, pa.large_string())
    return Texts(array, describe_texts(array, None)["key"])


def write(path, values, **columns):
    rows = [{"text": v, **{k: c[i] for k, c in columns.items()}} for i, v in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def fitted(stage, raw):
    return stage.fit_model(stage.prepare(), iter([stage.sample(texts_of(raw), 1.0)]))


@pytest.fixture
def stage(tmp_path):
    return CrossEntropyDifference(target=write(tmp_path / "t.jsonl", map(CELLS, range(40))))


def test_documents_like_the_target_score_lower_and_below_0(stage):
    raw = [*map(MARKETS, range(60)), *map(CELLS, range(100, 110))]
    scores = stage.columns(texts_of([*raw, "", " "]), fitted(stage, raw))["entropy_difference"]
    assert scores[60:70].max() < 0 < scores[:60].min()
    assert np.isnan(scores[70:]).all()


def test_a_score_is_the_difference_of_bits_per_token_by_the_half_it_is_not_in(stage):
    raw = [*map(MARKETS, range(30)), *map(CELLS, range(200, 210))]
    texts = texts_of(raw)
    lists = {n: lm.token_lists(*text_buffers(pa.array(v))) for n, v in enumerate([raw])}[0]
    target = lm.token_lists(*text_buffers(pa.array([*map(CELLS, range(40))])))
    n_vocabulary = len(np.unique(np.concatenate([lists[1], target[1]]))) + 1
    half = _half(texts)
    assert 5 < half.sum() < 35
    log_p = {}
    for name, of in (
        ("target", target),
        *((n, lm.take_lists(*lists, np.flatnonzero(half == n))) for n in (0, 1)),
    ):
        log_p[name] = np.empty(len(raw), np.int64)
        lm.score_tokens(*lists, lm.train_model(*of, 3, n_vocabulary), log_p[name])
    raw_log_p = np.where(half == 0, log_p[1], log_p[0])
    expected = (raw_log_p - log_p["target"]) / 2**lm.LOG_BITS / math.log(2) / np.diff(lists[0])
    found = stage.columns(texts, fitted(stage, raw))["entropy_difference"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_order_batches_and_neighbours_do_not_matter(stage):
    raw = [*map(MARKETS, range(20)), "", *map(CELLS, range(5))]
    whole = fitted(stage, raw)
    parts = [stage.sample(texts_of(part), 1.0) for part in (raw[14:], raw[:3], raw[3:14])]
    # As the store gives them back: filtered and in chunks.
    parts = [pa.concat_tables([part.slice(0, 2), part.slice(2)]) for part in parts]
    again = stage.fit_model(stage.prepare(), iter(parts))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, again[name])
    together = stage.columns(texts_of(raw), whole)["entropy_difference"]
    alone = [stage.columns(texts_of([text]), whole)["entropy_difference"][0] for text in raw]
    np.testing.assert_array_equal(together, alone)


def test_no_raw_sample_gives_finite_scores(stage):
    model = stage.fit_model(stage.prepare(), iter([]))
    assert np.isfinite(stage.columns(texts_of(["the cell", "zzz"]), model)["entropy_difference"]).all()


def test_limits_drop_what_lies_outside_and_what_has_no_score(stage):
    columns = {"entropy_difference": np.array([-1.0, 0.5, 2.0, np.nan])}
    rules = stage.model_copy(update={"min": 0.0, "max": 1.0}).keep(columns)
    assert [rule.tolist() for rule in rules.values()] == [
        [True, False, False, True],
        [False, False, True, True],
    ]
    assert stage.keep(columns) == {}


def test_a_target_without_words_or_column_is_refused(tmp_path):
    with pytest.raises(BadModel, match="no words"):
        CrossEntropyDifference(target=write(tmp_path / "e.jsonl", ["", " "])).prepare()
    stage = CrossEntropyDifference(target=write(tmp_path / "t.jsonl", ["a"]), target_text="txt")
    with pytest.raises(BadModel, match=r"no column 'txt' .* did you mean 'text'"):
        stage.check_files()


def test_a_run_keeps_the_documents_like_the_target(tmp_path):
    rng = np.random.default_rng(4)
    raw = [*map(MARKETS, range(300)), *map(CELLS, range(1000, 1060)), ""]
    kinds = ["market"] * 300 + ["cell"] * 60 + ["none"]
    order = rng.permutation(len(raw))
    write(tmp_path / "raw.jsonl", [raw[i] for i in order], kind=[kinds[i] for i in order])
    write(tmp_path / "target.jsonl", map(CELLS, range(40)))
    (tmp_path / "r.yaml").write_text(
        "input: {shards: raw.jsonl}\n"
        "stages:\n"
        "  - {use: cross_entropy_difference, target: target.jsonl, sample: 8KiB, as: score}\n"
        "  - {use: select, by: score, direction: min, keep: {docs: 60}}\n"
        "output: {folder: out}\n"
    )
    report = dataselect.run(tmp_path / "r.yaml", workers=1)
    assert report["rows"]["kept"] == 60
    lines = (tmp_path / "out/current/shards/raw.jsonl").read_text().splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"cell"}
    scores = pq.read_table(tmp_path / "out/current/decisions")["score"].to_numpy()
    assert np.isnan(scores).sum() == 1
