"""Importance weights: the formula, its smoothing, and what a score is made of."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from decimal import Context, Decimal

import corpora
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import dataselect
from dataselect.core.errors import BadModel
from dataselect.core.fixed_log import FIXED_BITS, fixed_log
from dataselect.engine.columns import describe_texts
from dataselect.kernels import unicode_tables, wordpunct
from dataselect.kernels.arrow import text_buffers
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


def target_file(tmp_path, lines, name="target.jsonl"):
    path = tmp_path / name
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


def test_logarithms_are_those_of_decimal_to_half_a_unit():
    rng = np.random.default_rng(1)
    x = np.concatenate([np.exp(rng.uniform(np.log(1e-8), 0.1, 2000)), [1.0, 0.5, 1e-8, 1 - 2**-53, 2.0**64]])
    context = Context(prec=40)
    for value, fixed in zip(x.tolist(), fixed_log(x).tolist(), strict=True):
        assert abs(fixed - Decimal(value).ln(context) * 2**FIXED_BITS) < Decimal("0.51")
    assert fixed_log(np.array([1.0, 2.0**-30])).tolist() == [0, round(-30 * np.log(2) * 2**FIXED_BITS)]


# As data-selection 1.0.3 (with nltk 3.9.1) has it, on texts made up for this --------------------------

RAW = [
    "The cat sat on the mat; the cat SAT.",
    "Stock markets fell 3.5% on Monday...",
    "Cells divide: mitosis, then cytokinesis!",
    "",
    "İstanbul'da ΟΔΟΣ ΣΟΦΟΣ. cm² x_1",
    "x" * 70 + " " + "the " * 30,
    "ΑΣ'. Ά\u0301Σ ΣΣ Σ' a\u2019Σ",
    "one two one two one",
]
MED = ["A cell divides by mitosis.", "Cells have walls; the cell wall."]
NEWS = ["Markets fell on Monday.", "The stock fell 3% ..."]
JOINT = [
    *(-192.1135901082567, -77.8755224030688, -170.53697418583005, 0.0, -239.08110723572366),
    *(-556.1900610960627, -267.0968745802786, -127.28734397982758),
]
TRIGRAMS_IN_500 = [
    *(-291.9844907180842, -312.6640408638872, -247.30056215770247, 0.0, -295.74744071170477),
    *(-1017.5681462003806, -339.4573312640828, -165.89433461671558),
]
APART = [
    *((-205.76726774803535, -220.31117824218865), (-238.91602750869754, -68.97922789984813)),
    *((-169.3958848688947, -199.7210538007564), (0.0, 0.0), (-238.91602750869754, -239.34681035479002)),
    *((-559.8681298588328, -551.9972037248077), (-266.526329921811, -281.6889143877419)),
    (-127.28734397982758, -127.28734397982758),
]
N_TOKENS = [11, 10, 8, 0, 10, 31, 11, 5]


@pytest.fixture
def targets(tmp_path):
    return target_file(tmp_path, MED, "med.jsonl"), target_file(tmp_path, NEWS, "news.jsonl")


def test_log_weights_are_those_of_the_package_for_several_files_as_one_target(targets):
    stage = NgramImportance(target=list(targets), hash="sha256")
    columns = stage.columns(texts_of(RAW), fitted(stage, RAW))
    np.testing.assert_allclose(columns["importance"], JOINT, rtol=0, atol=1e-10)
    assert columns["importance_tokens"].tolist() == N_TOKENS


def test_log_weights_are_those_of_the_package_for_another_order_and_number_of_buckets(targets):
    stage = NgramImportance(target=targets[0], hash="sha256", order=3, n_buckets=500)
    columns = stage.columns(texts_of(RAW), fitted(stage, RAW))
    np.testing.assert_allclose(columns["importance"], TRIGRAMS_IN_500, rtol=0, atol=1e-10)
    assert columns["importance_tokens"].tolist() == N_TOKENS


def test_weights_and_masses_are_those_of_the_package_for_targets_apart(targets):
    stage = NgramImportance(target={"med": targets[0], "news": [targets[1]]}, hash="sha256")
    model = fitted(stage, RAW)
    columns = stage.columns(texts_of(RAW), model)
    found = np.stack([columns["importance_med"], columns["importance_news"]], axis=1)
    np.testing.assert_allclose(found, APART, rtol=0, atol=1e-10)
    masses = stage.column_masses(model)
    assert masses["importance_med"] / sum(masses.values()) == pytest.approx(0.5652173913043478, abs=1e-15)


def test_buckets_are_those_of_the_package():
    texts = text_buffers(pa.array(["alice went", "The of the \u00c9 ."], pa.large_string()))
    for order, n_buckets, expected in (
        (2, 10_000, [6720, None, 114, 8288, None, None, 8288, 2932, 588, None, 3960, None]),
        (1, 50_000, [None, None, 28288, None, 28288, None, None]),
    ):
        buckets = wordpunct.sha256_ngram_lists(*texts, order, n_buckets)[1].tolist()
        assert [b if e is not None else None for b, e in zip(buckets, expected, strict=True)] == expected


def test_sha256_of_messages_of_every_length():
    words = ["a" * n for n in range(1, 200)]
    buckets = wordpunct.sha256_ngram_lists(
        *text_buffers(pa.array([" ".join(words)], pa.large_string())), 1, 65_521
    )[1]
    expected = [int(hashlib.sha256(word.encode()).hexdigest(), 16) % 65_521 for word in words]
    assert buckets.tolist() == expected


def test_lower_case_is_pythons_with_its_two_rules_of_context():
    if unicodedata.unidata_version != unicode_tables.UNICODE_VERSION:
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}")
    rng = np.random.default_rng(3)
    marks = [*"Σς'.\u0301\u00ad^a:\u2019 Ab1İ_\u02b0日", "ΟΔΟΣ", "\U000e0001"]
    texts = ["".join(rng.choice(marks, 12)) for _ in range(1500)]
    offsets, data, n_tokens = wordpunct.lower_tokens(*text_buffers(pa.array(texts, pa.large_string())))
    for i, text in enumerate(texts):
        tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
        assert data[offsets[i] : offsets[i + 1]].tobytes().decode() == " ".join(tokens)
        assert n_tokens[i] == len(tokens)


def test_token_counts_follow_the_packages_formula_where_it_holds(tmp_path):
    # L = floor((n_grams + n (n - 1) / 2) / n); below n - 1 tokens the formula counts too many.
    texts = ["a b c d " * n for n in range(1, 5)]
    for order in (1, 2, 3):
        stage = NgramImportance(target=target_file(tmp_path, ["a"]), order=order, n_buckets=64)
        offsets, _ = stage._lists(texts_of(texts))
        n_tokens = stage.columns(texts_of(texts), fitted(stage, texts))["importance_tokens"]
        assert ((np.diff(offsets) + order * (order - 1) // 2) // order).tolist() == n_tokens.tolist()


def test_both_hashes_give_the_same_features_but_for_bucket_numbers(tmp_path):
    target = target_file(tmp_path, ["the cell divides"])
    raw = ["the cell wall", "a stock market", "", "Cell ... cell"]
    by_hash = []
    for hash_ in ("fast", "sha256"):
        stage = NgramImportance(target=target, hash=hash_, n_buckets=65_536)
        columns = stage.columns(texts_of(raw), fitted(stage, raw))
        by_hash.append([columns["importance"], columns["importance_tokens"]])
    np.testing.assert_allclose(by_hash[0][0], by_hash[1][0], atol=1e-9)  # no two n-grams share a bucket
    np.testing.assert_array_equal(by_hash[0][1], by_hash[1][1])


def test_scores_per_ngram_and_per_token_are_the_log_weight_by_their_number(tmp_path):
    raw = ["one two three", "one", ""]
    stage = NgramImportance(target=target_file(tmp_path, ["one"]), order=3, n_buckets=64)
    model = fitted(stage, raw)
    score = {
        per: stage.model_copy(update={"per": per}).columns(texts_of(raw), model)["importance"]
        for per in ("document", "ngram", "token")
    }
    np.testing.assert_array_equal(score["ngram"], score["document"] / [6, 1, 1])
    np.testing.assert_array_equal(score["token"], score["document"] / [3, 1, 1])


def test_short_documents_are_counted_in_the_fit_and_dropped_by_a_rule(tmp_path):
    stage = NgramImportance(target=target_file(tmp_path, ["one"]), min_tokens=3, n_buckets=64)
    raw = ["one two", "one, two", ""]
    model = fitted(stage, raw)
    assert model["raw_counts"].sum() == 3 + 5
    broken = stage.keep(stage.columns(texts_of(raw), model))
    assert {rule: mask.tolist() for rule, mask in broken.items()} == {
        "importance_tokens < 3": [True, False, True]
    }


def test_bounds_hold_for_the_best_of_several_targets():
    stage = NgramImportance(target={"a": "t", "b": "t"}, min=0)
    columns = {"importance_a": np.array([-1.0, -1.0]), "importance_b": np.array([1.0, -2.0])}
    assert stage.keep(columns)["importance < 0.0"].tolist() == [False, True]


def test_a_target_of_one_row_is_enough(tmp_path):
    stage = NgramImportance(target=target_file(tmp_path, ["cell"]), n_buckets=64)
    score = stage.columns(texts_of(["cell", "other"]), fitted(stage, ["cell", "other"]))["importance"]
    assert score[0] > 0 > score[1]


def test_one_empty_target_of_several_is_named(tmp_path, targets):
    empty = target_file(tmp_path, ["", " "], "empty.jsonl")
    with pytest.raises(BadModel, match=r"empty.jsonl: the target has no words"):
        NgramImportance(target={"med": targets[0], "none": empty}).prepare()


def test_a_missing_text_column_of_a_target_is_found_before_any_work(targets):
    stage = NgramImportance(target={"a": targets[0]}, target_text="txt")
    with pytest.raises(BadModel, match=r"no column 'txt' .*; it has text; did you mean 'text'\?"):
        stage.check_files()


def test_a_fit_on_all_or_on_a_size():
    assert NgramImportance(target="t", sample="all").sample_bytes() is None
    assert NgramImportance(target="t", sample="10MB").sample_bytes() == 10_000_000
    assert NgramImportance(target="t").sample_bytes() == 64 << 20
    for wrong in ("lots", 0, "0MB", -1, None):
        with pytest.raises(ValidationError, match="expected a size such as 64MiB, or all"):
            NgramImportance(target="t", sample=wrong)


def test_targets_apart_are_selected_for_and_the_report_says_how_lengths_changed(tmp_path):
    stages = [
        {
            "use": "ngram_importance",
            "target": {"med": "target.jsonl", "own": ["own.jsonl"]},
            "hash": "sha256",
        },
        {"use": "select", "by": ["importance_med", "importance_own"], "keep": {"docs": 30}},
    ]
    stages[1] |= {"shares": [0.5, 0.5], "method": "resample"}
    path = corpora.make_project(tmp_path, stages)
    (tmp_path / "own.jsonl").write_text(json.dumps({"text": corpora.text_of(3)}) + "\n")
    report = dataselect.run(path, workers=1)
    kept = corpora.kept_ids(tmp_path / "out")
    assert len(kept) == 30
    decisions = corpora.decisions(tmp_path / "out")
    lengths = report["funnel"][1]["lengths"]
    for side, rows in (("in", decisions), ("out", [row for row in decisions if row["copies"]])):
        words = [len(text) for text in (corpora.text_of(int(row["id"][-5:])).split() for row in rows)]
        assert lengths[side]["n_words"]["mean"] == pytest.approx(np.mean(words))
        assert lengths[side]["n_words"]["p50"] == pytest.approx(np.median(words), rel=0.04)
    sets = ["input.piece_bytes=5000", "output.folder=out2", "work=work2"]
    dataselect.run(path, workers=2, sets=sets)
    assert corpora.kept_ids(tmp_path / "out2") == kept
