"""Importance weights: the formula, its smoothing, and what a score is made of."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.errors import BadModel
from dataselect.engine.columns import describe_texts
from dataselect.stages.base import Texts
from dataselect.stages.ngram_importance import SCALE, NgramImportance, log_ratio_table

counts_strategy = st.lists(st.integers(0, 10**9), min_size=16, max_size=40).map(
    lambda c: np.array(c, np.int64)
)


def texts_of(values):
    array = pa.array(values, pa.large_string())
    return Texts(array, describe_texts(array, None)["key"])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=16, max_size=40),
    st.floats(0, 100),
)
def test_a_ratio_is_the_difference_of_the_logs_of_smoothed_frequencies(pairs, smoothing):
    target, raw = np.array(pairs, np.int64).T.copy()
    if not target.sum() or not raw.sum():
        return
    table = log_ratio_table(target, raw, smoothing)
    p = (target + smoothing) / (target.sum() + smoothing * len(target))
    q = raw / raw.sum()
    np.testing.assert_allclose(table / SCALE, np.log(p + 1e-8) - np.log(q + 1e-8), atol=0.51 / SCALE)
    assert table.dtype == np.int64


@settings(max_examples=50, deadline=None)
@given(counts_strategy, st.floats(0.01, 10))
def test_smoothing_a_distribution_is_smoothing_its_counts(counts, a):
    # p_a = (p_0 N + a) / (N + a B)
    n_grams, n_buckets = int(counts.sum()), len(counts)
    if not n_grams:
        return
    raw = np.ones(n_buckets, np.int64)
    q = np.log(1 / n_buckets + 1e-8)
    p_0 = np.exp(log_ratio_table(counts, raw) / SCALE + q) - 1e-8
    p_a = np.exp(log_ratio_table(counts, raw, a) / SCALE + q) - 1e-8
    np.testing.assert_allclose(p_a, (p_0 * n_grams + a) / (n_grams + a * n_buckets), rtol=1e-6, atol=1e-12)
    assert p_a.sum() == pytest.approx(1, abs=1e-6)


def test_equal_distributions_have_ratio_zero_whatever_their_size():
    counts = np.arange(100, dtype=np.int64)
    np.testing.assert_array_equal(log_ratio_table(counts, 7 * counts), np.zeros(100, np.int64))


def test_an_empty_raw_sample_gives_finite_ratios():
    counts = np.arange(100, dtype=np.int64)
    table = log_ratio_table(counts, np.zeros(100, np.int64))
    np.testing.assert_array_equal(table, log_ratio_table(counts, np.ones(100, np.int64)))


def target_file(tmp_path, lines):
    path = tmp_path / "target.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return str(path)


def fitted(stage, raw):
    return stage.fit_model(stage.prepare(), iter([stage.sample(texts_of(raw), 1.0)]))


def test_documents_like_the_target_score_higher(tmp_path):
    stage = NgramImportance(target=target_file(tmp_path, ["the cell divides", "a cell wall"]))
    raw = ["the cell wall", "the stock market", "market prices of stock", ""]
    score = stage.columns(texts_of(raw), fitted(stage, raw))["importance"]
    assert score[0] > 0 > score[1]
    assert score[3] == 0
    assert score.dtype == np.float64


def test_a_score_is_the_sum_of_its_n_grams_and_per_ngram_their_mean(tmp_path):
    stage = NgramImportance(target=target_file(tmp_path, ["one two", "three"]), n_buckets=16, order=1)
    raw = ["one", "two", "one two one"]
    model = fitted(stage, raw)
    one, two, three_tokens = stage.columns(texts_of(raw), model)["importance"]
    assert three_tokens == 2 * one + two
    mean = stage.model_copy(update={"per": "ngram"}).columns(texts_of(raw), model)["importance"][2]
    assert mean == three_tokens / 3


def test_order_and_batches_of_the_sample_do_not_matter(tmp_path):
    stage = NgramImportance(target=target_file(tmp_path, ["one two three"]), n_buckets=64)
    raw = [f"document number {i} of many" for i in range(50)]
    prepared = stage.prepare()
    whole = stage.fit_model(prepared, iter([stage.sample(texts_of(raw), 1.0)]))
    parts = [stage.sample(texts_of(part), 1.0) for part in (raw[30:], raw[:7], raw[7:30])]
    for name, array in stage.fit_model(prepared, iter(parts)).items():
        np.testing.assert_array_equal(array, whole[name])


def test_a_sample_is_a_part_of_a_larger_one_and_of_about_the_share_asked(tmp_path):
    stage = NgramImportance(target=target_file(tmp_path, ["x"]))
    texts = texts_of([f"text {i}" for i in range(4000)])
    small, large = (set(stage.sample(texts, share)["doc"].to_pylist()) for share in (0.25, 0.5))
    assert small < large
    assert abs(len(large) - 2000) < 4 * np.sqrt(1000)


@pytest.mark.parametrize("content", ["", '{"text": ""}\n', '{"text": "  "}\n'])
def test_a_target_without_words_is_refused(tmp_path, content):
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(BadModel, match="the target has no words in 'text'"):
        NgramImportance(target=str(tmp_path / "t.jsonl")).prepare()


def test_a_target_row_without_text_is_refused_with_its_number(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    with pytest.raises(
        BadModel, match=r"t.jsonl: row 1: text is missing; every row must have a string 'text'"
    ):
        NgramImportance(target=str(tmp_path / "t.jsonl")).prepare()


def test_bounds_drop_by_the_score_and_null_scores_break_the_lower_one():
    stage = NgramImportance(target="t", min=-1, max=1)
    broken = stage.keep({"importance": np.array([-2.0, -1.0, 0.0, 1.0, 2.0, np.nan])})
    assert broken["importance < -1.0"].tolist() == [True, False, False, False, False, True]
    assert broken["importance > 1.0"].tolist() == [False, False, False, False, True, False]
