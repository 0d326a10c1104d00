"""Every method of `select`: closed forms, distributions over 2,000 independent trials, groups, bad values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataselect.core.errors import DataselectError
from dataselect.stages import expected
from dataselect.stages.base import Pool, PoolBatch
from dataselect.stages.radix import running_sums
from dataselect.stages.select import Select

N_TRIALS = 2000
W = np.array([1.0, 2.0, 3.0, 4.0])
CHI2_3_DF_1_IN_10000 = 21.11


class TablePool(Pool):
    """Rows with any columns, cut into batches."""

    def __init__(self, columns, n_words=None, keys=None, cuts=()):
        n_docs = len(next(iter(columns.values()))) if columns else len(n_words)
        sizes = np.ones(n_docs, np.int64) if n_words is None else np.asarray(n_words, np.int64)
        keys = random_keys(n_docs) if keys is None else keys
        texts = {
            k: pa.array(v, pa.string()) for k, v in columns.items() if {str, type(None)} & set(map(type, v))
        }
        numbers = {k: np.asarray(v, np.float64) for k, v in columns.items() if k not in texts}
        whole = PoolBatch(texts | numbers, keys, sizes * 6, sizes)
        edges = [0, *sorted(min(cut, n_docs) for cut in cuts), n_docs]
        self._batches = [whole.take(np.arange(a, b)) for a, b in pairwise(edges)]

    def batches(self):
        return iter(self._batches)


def random_keys(n_docs, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n_docs, 2), dtype=np.uint64)


def chosen(stage, pool, model=None):
    """int64[n_docs] copies, as the engine finds them."""
    model, state = model or stage.find_threshold(pool), {}
    return np.concatenate([stage.chosen(batch, model, state) for batch in pool.batches()])


def told(stage, pool):
    """The tally's report, groups by name."""
    model, state = stage.find_threshold(pool), {}
    tally = stage.tally(model)
    for batch in pool.batches():
        tally.add(batch, stage.chosen(batch, model, state))
    report = tally.report()
    return report | {"groups": {group["name"]: group for group in report["groups"]}}


def in_trials(values, **params):
    """int64[N_TRIALS, n] copies; each trial is a group of documents with keys of their own."""
    n_docs = len(values)
    trial = np.repeat(np.arange(N_TRIALS, dtype=np.float64), n_docs)
    pool = TablePool({"x": np.tile(values, N_TRIALS), "trial": trial})
    if "keep" in params:
        params = {"per": "trial", "mixture": "each"} | params
    return chosen(Select(by="x", **params), pool).reshape(N_TRIALS, n_docs)


def expected_of(stage, pool):
    model = stage.find_threshold(pool)
    return np.concatenate([stage.expected_copies(batch, model) for batch in pool.batches()])


# Inclusion probabilities ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["poisson", "systematic"])
def test_inclusion_probabilities_are_in_proportion_to_the_weight(method):
    stage = Select(by="x", weights="linear", method=method, keep={"docs": 2})
    np.testing.assert_allclose(expected_of(stage, TablePool({"x": W})), (0.2, 0.4, 0.6, 0.8), atol=1e-9)


def test_heavy_documents_are_certain_and_the_rest_share_what_is_left():
    # c = 3/10 gives 1.2 for the last; fixed at 1, the others share 2 as 1 : 2 : 3, and 3 is certain too.
    stage = Select(by="x", weights="linear", method="poisson", keep={"docs": 3})
    np.testing.assert_allclose(expected_of(stage, TablePool({"x": W})), (1 / 3, 2 / 3, 1, 1), atol=1e-9)


@pytest.mark.parametrize(
    "alpha, n, pi",
    [(0.5, 2, (0.7197, 0.4318, 0.1432, 0.7052)), (1.0, 3, (1, 0.9009, 0.0991, 1))],
)
def test_uncertainty_sampling_has_its_closed_form(alpha, n, pi):
    # Kolossov, Montanari and Tandon 2023: pi = min(1, c (p (1 - p))^alpha); a temperature is 1 / alpha.
    p = np.array([0.5, 0.9, 0.99, 0.6])
    stage = Select(by="x", weights="linear", temperature=1 / alpha, method="poisson", keep={"docs": n})
    np.testing.assert_allclose(expected_of(stage, TablePool({"x": p * (1 - p)})), pi, atol=5e-5)


@pytest.mark.parametrize("method", ["poisson", "systematic"])
def test_documents_are_drawn_with_these_probabilities(method):
    drawn = in_trials(W, weights="linear", method=method, keep={"docs": 2})
    pi = np.array([0.2, 0.4, 0.6, 0.8])
    z = (drawn.sum(axis=0) - N_TRIALS * pi) / np.sqrt(N_TRIALS * pi * (1 - pi))
    assert np.abs(z).max() < 4
    n_kept = drawn.sum(axis=1)
    if method == "systematic":
        assert (n_kept == 2).all()
    else:
        assert n_kept.var() == pytest.approx((pi * (1 - pi)).sum(), rel=0.15)
        # Horvitz and Thompson: the sum of 1/pi over what was drawn estimates the number of documents.
        assert (drawn / pi).sum(axis=1).mean() == pytest.approx(4, abs=4 * 2.5 / np.sqrt(N_TRIALS))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40),
    st.floats(0, 1),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(1, 5),
    st.data(),
)
def test_expected_copies_sum_to_the_budget_for_any_weights_sizes_and_cuts(weights, part, cuts, cap, data):
    n_words = data.draw(st.lists(st.integers(1, 999), min_size=len(weights), max_size=len(weights)))
    total = int(part * cap * sum(n_words))
    params = {"by": "x", "weights": "linear", "method": "copies", "max_copies": cap, "keep": {"words": total}}
    stage = Select(**params)
    pool = TablePool({"x": weights}, n_words)
    found = expected_of(stage, pool)
    assert (found * n_words).sum() == pytest.approx(total, rel=1e-8, abs=1e-6)
    assert (found <= cap).all()
    free = (found < cap) & (found > 0)
    ratio = found[free] / np.array(weights)[free]
    np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio)), rtol=1e-8)
    if free.any():
        assert (ratio[0] * np.array(weights)[found == cap] >= cap * (1 - 1e-8)).all()
    cut = TablePool({"x": weights}, n_words, cuts=cuts)
    np.testing.assert_array_equal(expected_of(stage, cut), found)
    np.testing.assert_array_equal(chosen(stage, cut), chosen(stage, pool))


def test_log_weights_far_below_the_range_of_doubles_have_proportions_too():
    stage = Select(by="x", method="poisson", keep={"docs": 2})
    found = expected_of(stage, TablePool({"x": np.log(W) - 9000}))
    np.testing.assert_allclose(found, (0.2, 0.4, 0.6, 0.8), atol=1e-9)


# Copies -----------------------------------------------------------------------------------------------


def test_systematic_rounding_has_its_closed_form():
    units = expected.in_units(np.array([0.4, 1.7, 0.2, 2.5, 0.2]))
    group, start = np.zeros(5, np.int64), np.array([0.35])
    whole = expected.systematic(units, group, start, np.zeros(1, np.int64))
    assert whole.tolist() == [0, 2, 0, 3, 0]
    carried = np.zeros(1, np.int64)
    parts = [expected.systematic(units[a:b], group[a:b], start, carried) for a, b in ((0, 2), (2, 2), (2, 5))]
    assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("rounding", ["systematic", "independent"])
def test_copies_are_whole_and_on_average_as_expected(rounding):
    drawn = in_trials(W, weights="linear", method="copies", keep={"docs": 6}, rounding=rounding, max_copies=2)
    rates = np.array([2 / 3, 4 / 3, 2, 2])  # 3 and 4 are at the cap; 2 are left for 1 : 2
    assert set(np.unique(drawn[:, 0])) == {0, 1}
    assert set(np.unique(drawn[:, 1])) == {1, 2}
    np.testing.assert_array_equal(drawn[:, 2:], 2)
    np.testing.assert_allclose(drawn.mean(axis=0), rates, atol=4 * 0.5 / np.sqrt(N_TRIALS))
    if rounding == "systematic":
        assert (drawn.sum(axis=1) == 6).all()


def test_running_sums_are_by_group_and_go_on_in_the_next_batch():
    carried = np.array([0, 100, 5])
    group, values = np.array([1, 0, 1, 1, 0]), np.array([1, 2, 3, 4, 5])
    assert running_sums(group, values, carried).tolist() == [101, 2, 104, 108, 7]
    assert carried.tolist() == [7, 108, 5]


def test_more_copies_than_the_cap_allows_are_short():
    pool = TablePool({"x": [0.0, 1.0, 1.0]})
    stage = Select(by="x", weights="linear", method="copies", max_copies=4, keep={"docs": 100})
    assert chosen(stage, pool).tolist() == [0, 4, 4]
    assert told(stage, pool)["lacking"] == 92
    with pytest.raises(DataselectError, match="there are 8 of 100"):
        chosen(stage.model_copy(update={"short": "error"}), pool)


def test_tiers_give_copies_by_rank():
    values = np.random.default_rng(3).permutation(1000).astype(float)
    tiers = [{"share": "5%", "copies": 4}, {"share": 0.15, "copies": 2}, {"share": 0.4, "copies": 1}]
    copies = chosen(Select(by="x", method="tiers", tiers=tiers), TablePool({"x": values}, cuts=[10, 500]))
    np.testing.assert_array_equal(
        copies, np.select([values >= 950, values >= 800, values >= 400], [4, 2, 1], 0)
    )


def test_tiers_break_ties_by_place_and_draw_fractions():
    tiers = [{"share": 0.5, "copies": 2.5}]
    for rounding in ("systematic", "independent"):
        stage = Select(by="x", method="tiers", tiers=tiers, rounding=rounding)
        copies = chosen(stage, TablePool({"x": np.zeros(4000)}, cuts=[1000]))
        assert not copies[2000:].any()
        assert set(np.unique(copies[:2000])) == {2, 3}
        assert copies.sum() == pytest.approx(5000, abs=0 if rounding == "systematic" else 100)


# Methods without a budget -----------------------------------------------------------------------------


def test_a_threshold_keeps_what_is_as_good_or_better():
    values = np.array([0.1, 0.5, 0.5001, np.nan, np.inf, -np.inf])
    kept = chosen(Select(by="x", method="threshold", threshold=0.5), TablePool({"x": values}))
    assert kept.tolist() == [0, 1, 1, 0, 1, 0]
    low = Select(by="x", method="threshold", threshold=0.5, direction="min")
    assert chosen(low, TablePool({"x": values})).tolist() == [1, 1, 0, 0, 0, 1]
    zero = Select(by="x", method="threshold", threshold=0)
    assert chosen(zero, TablePool({"x": [-1.0, 0.0, 1.0]})).tolist() == [0, 1, 1]


def test_a_quantile_treats_equal_values_alike():
    values = np.array([5.0, 1, 3, 3, 3, 2, 4, 1, 1, 1])
    for fraction, least in ((0.2, 4), (0.3, 3), (0.5, 3), (0.0, np.inf), (1.0, 1)):
        stage = Select(by="x", method="quantile", keep={"fraction": fraction})
        kept = chosen(stage, TablePool({"x": values}, cuts=[3]))
        np.testing.assert_array_equal(kept > 0, values >= least)


def test_the_lomax_rule_keeps_with_its_closed_form():
    scores = np.array([1.0, 0.95, 0.9, 0.5, 0.0, 1.5, np.nan])
    drawn = in_trials(scores, method="lomax")
    exact = np.array([1, 0.645, 0.424, 0.0260, 0.00195, 1, 0])
    np.testing.assert_allclose((2 - scores[:5]) ** -9, exact[:5], atol=5e-4)
    sd = np.sqrt(np.maximum(exact * (1 - exact), 1e-6) / N_TRIALS)
    assert (np.abs(drawn.mean(axis=0) - exact) < 4 * sd + 5e-4).all()
    np.testing.assert_array_equal(drawn[:, [0, 5]], 1)
    np.testing.assert_array_equal(drawn[:, 6], 0)


# Budgets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overshoot, budget, kept",
    [("stop_before", 14, [10]), ("cross", 14, [10, 7]), ("nearest", 14, [10, 7]), ("nearest", 13, [10]),
     ("nearest", 13.5, None), ("cross", 10, [10]), ("cross", 0, []), ("nearest", 4, []), ("nearest", 6, [10]),
     ("nearest", 5, [])],
)  # fmt: skip
def test_what_happens_where_the_budget_ends_has_a_name(overshoot, budget, kept):
    n_words = [2, 7, 10, 1]
    pool = TablePool({"x": [1.0, 3.0, 4.0, 0.0]}, n_words, cuts=[2])
    params = {"by": "x", "overshoot": overshoot}
    if kept is None:
        with pytest.raises(ValidationError):
            Select(keep={"words": budget}, **params)
        return
    copies = chosen(Select(keep={"words": budget}, **params), pool)
    assert sorted(np.array(n_words)[copies > 0], reverse=True) == kept


def test_equal_ranks_end_where_the_budget_does_too():
    pool = TablePool({"x": np.zeros(5)}, [4, 4, 4, 4, 4], cuts=[3])
    for overshoot, budget, n in (
        ("stop_before", 10, 2),
        ("cross", 9, 3),
        ("nearest", 9, 2),
        ("nearest", 11, 3),
    ):
        kept = chosen(Select(by="x", keep={"words": budget}, overshoot=overshoot), pool)
        assert kept.tolist() == [1] * n + [0] * (5 - n)


def test_tokens_are_words_times_a_factor_or_a_column():
    pool = TablePool({"x": [3.0, 2.0, 1.0], "n_tokens": [50, np.nan, 7]}, [10, 10, 10])
    assert chosen(Select(by="x", keep={"tokens": 26}), pool).tolist() == [1, 1, 0]
    assert chosen(Select(by="x", keep={"tokens": 25}), pool).tolist() == [1, 0, 0]
    assert chosen(Select(by="x", keep={"tokens": 25}, tokens={"per_word": 0.8}), pool).tolist() == [1, 1, 1]
    by_column = Select(by="x", keep={"tokens": 57}, tokens={"column": "n_tokens"})
    assert by_column.input_columns() == ["x", "n_tokens"]
    assert chosen(by_column, pool).tolist() == [1, 0, 1]  # a missing size is never kept, and is counted
    assert told(by_column, pool)["groups"][""]["unusable"] == 1
    chars = Select(by="x", keep={"chars": "1k"}, chars="n_tokens")
    assert chars.input_columns() == ["x", "n_tokens"]


# Groups -----------------------------------------------------------------------------------------------

LANGUAGE = ["en"] * 70 + ["de"] * 20 + [None] * 10


def by_language(stage, cuts=(), seed=5):
    order = np.random.default_rng(seed).permutation(100)
    names = [LANGUAGE[i] for i in order]
    values = np.random.default_rng(seed + 1).normal(size=100)
    pool = TablePool({"x": values, "lang": names}, np.arange(1, 101), cuts=cuts)
    copies = chosen(stage, pool)
    return {name: int(copies[[n == name for n in names]].sum()) for name in ("en", "de", None)}, copies


@pytest.mark.parametrize("method", ["top_k", "uniform", "resample", "poisson", "systematic", "copies"])
@pytest.mark.parametrize(
    "mixture, quotas",
    [
        ("proportional", (21, 6, 3)),
        ("each", (30, 20, 10)),
        ("equal", (10, 10, 10)),
        ({"temperature": 1e12}, (10, 10, 10)),
        ({"weights": {"en": 1, "de": 2}}, (10, 20, 0)),
        ({"weights": {"en": 0.5, "de": 0.2, "fr": 0.3}}, (15, 6, 0)),
    ],
)
def test_every_group_gets_its_quota(method, mixture, quotas):
    if method == "copies" and mixture == "equal":
        mixture = "unimax"
    if method == "copies" and mixture == "each":
        quotas = (30, 30, 30)
    by = None if method == "uniform" else "x"
    stage = Select(by=by, method=method, keep={"docs": 30}, per="lang", mixture=mixture)
    counts, copies = by_language(stage)
    if method == "poisson":
        assert sum(abs(counts[k] - q) > 5 * np.sqrt(q + 1) for k, q in zip(counts, quotas, strict=True)) == 0
    else:
        assert tuple(counts.values()) == quotas
    for cuts in ((1,), (0, 13, 50, 99)):
        np.testing.assert_array_equal(by_language(stage, cuts)[1], copies)


def test_a_group_alone_keeps_what_it_keeps_among_others():
    rng = np.random.default_rng(0)
    values, names, keys = rng.normal(size=600), rng.choice(["a", "b", "c"], 600), random_keys(600)
    mixed = TablePool({"x": values, "g": names.tolist()}, keys=keys)
    for params in ({"method": "resample"}, {"method": "copies", "rounding": "independent"}):
        stage = Select(by="x", keep={"docs": 50}, per="g", mixture="each", **params)
        copies = chosen(stage, mixed)
        for name in "abc":
            own = names == name
            alone = TablePool({"x": values[own]}, keys=keys[own])
            np.testing.assert_array_equal(
                chosen(stage.model_copy(update={"per": None, "mixture": "proportional"}), alone), copies[own]
            )


def test_groups_may_be_numbers_and_a_thousand():
    cluster = np.random.default_rng(1).integers(0, 1000, 20_000)
    values = np.random.default_rng(2).normal(size=20_000)
    stage = Select(by="x", keep={"docs": 3}, per="cluster", mixture="each")
    kept = chosen(stage, TablePool({"x": values, "cluster": cluster}, cuts=[7000])) > 0
    for name in (0, 17, 999):
        own = np.flatnonzero(cluster == name)
        best = own[np.argsort(-values[own])[:3]]
        assert sorted(best) == np.flatnonzero(kept & (cluster == name)).tolist()
    with pytest.raises(DataselectError, match="fractions"):
        chosen(stage, TablePool({"x": [1.0], "cluster": [0.5]}))
    with pytest.raises(DataselectError, match=r"more than 10,000"):
        chosen(stage, TablePool({"x": np.ones(10_001), "cluster": np.arange(10_001)}))


@pytest.mark.parametrize(
    "short, quotas",
    [("take_all", (40, 20, 10)), ("redistribute", (69, 20, 10)), ("error", None)],
)
def test_short_supply_follows_its_policy(short, quotas):
    mixture = {"weights": {"en": 0.4, "de": 0.4, "": 0.2}}
    stage = Select(method="uniform", keep={"docs": 100}, per="lang", mixture=mixture, short=short)
    if quotas is None:
        with pytest.raises(
            DataselectError, match="there are 10 of 20 from the group without a name, 20 of 40 from 'de'"
        ):
            by_language(stage)
        return
    quotas = (70, 20, 10) if short == "redistribute" else quotas
    assert tuple(by_language(stage)[0].values()) == quotas


def test_a_named_group_without_documents_is_short():
    pool = TablePool({"g": ["a"] * 10})
    mixture = {"weights": {"a": 0.5, "books": 0.5}}
    stage = Select(method="uniform", keep={"docs": 8}, per="g", mixture=mixture)
    assert chosen(stage, pool).sum() == 4
    report = told(stage, pool)
    assert report["groups"]["books"] | {"name": "books"} == {
        "name": "books", "docs": 0, "unusable": 0, "kept": 0, "copies": 0, "supply": 0, "asked": 4,
        "quota": 0, "size": 0, "unique": 0, "epochs": 0.0, "effective": 0,
    }  # fmt: skip
    assert report["lacking"] == 4
    with pytest.raises(DataselectError, match="0 of 4 from 'books'"):
        chosen(stage.model_copy(update={"short": "error"}), pool)
    assert chosen(stage.model_copy(update={"short": "redistribute"}), pool).sum() == 8


def test_the_report_says_epochs_and_what_repeats_are_worth():
    pool = TablePool({"g": ["big"] * 100 + ["small"] * 10}, [10] * 110)
    stage = Select(
        method="copies",
        keep={"words": 400},
        per="g",
        mixture={"weights": {"big": 1, "small": 1}},
        max_copies=2,
    )
    report = told(stage, pool)
    big, small = report["groups"]["big"], report["groups"]["small"]
    assert (big["asked"], big["size"], big["unique"], big["epochs"], big["effective"]) == (
        200,
        200,
        200,
        0.2,
        200,
    )
    assert (small["asked"], small["size"], small["unique"], small["epochs"]) == (200, 200, 100, 2.0)
    assert small["effective"] == 197  # 1.9682 x 100


# Nested -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"method": "top_k", "by": "x"},
        {"method": "uniform", "overshoot": "nearest"},
        {"method": "resample", "by": "x", "per": "g", "mixture": "equal"},
        {"method": "poisson", "by": "x"},
        {"method": "copies", "by": "x", "rounding": "independent", "per": "g", "mixture": "unimax"},
    ],
)
def test_a_larger_budget_keeps_all_that_a_smaller_one_does(params):
    rng = np.random.default_rng(4)
    names = rng.choice(["a", "b", "c"], 500, p=[0.8, 0.15, 0.05]).tolist()
    pool = TablePool({"x": rng.normal(size=500), "g": names}, rng.integers(0, 50, 500))
    before = np.zeros(500, np.int64)
    for words in (0, 10, 300, 305, 5000, 12_000, 40_000):
        copies = chosen(Select(keep={"words": words}, nested=True, **params), pool)
        assert (copies >= before).all()
        before = copies


@pytest.mark.parametrize(
    "params, message",
    [
        ({"method": "systematic", "nested": True}, "nested: systematic"),
        ({"method": "copies", "nested": True}, "nested: systematic"),
        ({"by": ["a", "b"], "nested": True}, "nested: a larger budget"),
        ({"by": "x", "per": "g", "nested": True}, "nested: rounded shares"),
        ({"by": None}, "by: name a score column for top_k"),
        ({"method": "uniform", "by": "x"}, "by: uniform needs none"),
        ({"method": "poisson", "by": ["a", "b"]}, "takes one column"),
        ({"method": "threshold", "by": "x", "threshold": 1}, "keep: threshold takes no budget"),
        ({"method": "threshold", "by": "x", "keep": None}, "threshold: missing"),
        ({"method": "tiers", "by": "x", "keep": None}, "tiers: missing"),
        (
            {"method": "tiers", "by": "x", "keep": None, "tiers": [{"share": 0.7, "copies": 1}] * 2},
            "more than 1",
        ),
        ({"method": "tiers", "by": "x", "keep": None, "tiers": [{"share": 0.7, "copies": 9}]}, "max_copies"),
        ({"by": "x", "keep": None}, "keep: top_k needs a budget"),
        ({"by": "x", "threshold": 0.5}, "threshold: only for threshold"),
        ({"by": "x", "max_copies": 2}, "max_copies: only for copies, tiers"),
        ({"by": "x", "mixture": "equal"}, "per:"),
        ({"by": "x", "per": "g", "mixture": "unimax"}, "needs method copies"),
        ({"by": "x", "per": "g", "mixture": {"weights": {"a": 0}}}, "at least one above 0"),
        ({"by": "x", "per": "g", "mixture": {"weights": {"a": -1}}}, "greater than or equal to 0"),
        ({"by": "x", "per": "g", "mixture": {"weights": {"a": np.inf}}}, "finite number"),
        ({"by": "x", "per": "g", "mixture": {"weights": {"a": np.nan}}}, "finite number"),
        ({"by": "x", "method": "resample", "temperature": np.nan}, "greater than 0|finite number"),
        ({"by": "x", "keep": {"docs": -1}}, "greater than or equal to 0"),
        ({"by": "x", "keep": {"fraction": np.nan}}, "finite number|less than or equal"),
        ({"by": "x", "keep": {"fraction": 1.5}}, "less than or equal to 1"),
        ({"by": "x", "per": "g", "mixture": {"temperature": 0}}, "greater than 0"),
        ({"by": "x", "short": "redistribute"}, "nothing to redistribute"),
        ({"by": "x", "method": "quantile"}, "quantile takes a fraction"),
        ({"by": "x", "method": "resample", "weights": "linear", "direction": "min"}, "direction"),
        ({"by": "x", "keep": {"tokens": 1, "docs": 1}}, "exactly one"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        Select(**({"keep": {"docs": 5}} | params))


# Bad values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["resample", "poisson", "systematic", "copies"])
def test_what_is_no_weight_is_never_kept_and_is_counted(method):
    values = [np.nan, np.inf, -1.0, 0.0, 1.0, 1.0]
    for weights in ("linear", "log"):
        stage = Select(by="x", method=method, weights=weights, keep={"docs": 3 if weights == "log" else 2})
        given = values if weights == "linear" else [np.nan, np.inf, np.inf, -np.inf, 0.0, 0.0]
        copies = chosen(stage, TablePool({"x": given}))
        assert not copies[:3].any()
        assert told(stage, TablePool({"x": given}))["groups"][""]["unusable"] == 3
        if method != "resample":
            assert not copies[3]


@pytest.mark.parametrize("method", ["poisson", "systematic", "copies"])
@pytest.mark.parametrize("short", ["take_all", "error"])
def test_weights_of_zero_alone_are_short_of_everything(method, short):
    pool = TablePool({"x": np.zeros(5)})
    stage = Select(by="x", weights="linear", method=method, keep={"docs": 2}, short=short)
    if short == "error":
        with pytest.raises(DataselectError, match="there are 0 of 2"):
            chosen(stage, pool)
    else:
        assert not chosen(stage, pool).any()
        assert told(stage, pool)["lacking"] == 2


@pytest.mark.parametrize("method", ["top_k", "uniform", "resample", "poisson", "systematic", "copies"])
@pytest.mark.parametrize("keep", [{"docs": 0}, {"fraction": 0.0}, {"words": 0}])
def test_a_budget_of_nothing_keeps_nothing(method, keep):
    by = None if method == "uniform" else "x"
    pool = TablePool({"x": np.arange(5.0)}, [3] * 5)
    assert not chosen(Select(by=by, method=method, keep=keep), pool).any()


@pytest.mark.parametrize("method", ["top_k", "quantile", "poisson", "copies", "systematic", "uniform"])
def test_an_empty_pool_has_nothing_to_keep(method):
    by = None if method == "uniform" else "x"
    for per in (None, "g"):
        pool = TablePool({"x": [], "g": []}, cuts=[0])
        assert len(chosen(Select(by=by, method=method, keep={"fraction": 0.5}, per=per), pool)) == 0


def test_a_column_of_texts_is_no_score():
    with pytest.raises(DataselectError, match="'x' holds texts"):
        chosen(Select(by="x", keep={"docs": 1}), TablePool({"x": ["a"]}))


def test_documents_of_one_key_share_a_draw_and_all_are_decided():
    keys = np.repeat(random_keys(50), 4, axis=0)
    pool = TablePool({"x": np.zeros(200)}, keys=keys)
    kept = chosen(Select(method="uniform", keep={"docs": 30}), pool).reshape(50, 4)
    assert kept.sum() == 30
    assert sorted(kept.sum(axis=1).tolist())[-8:] == [2, 4, 4, 4, 4, 4, 4, 4]


def test_a_frozen_selection_does_not_keep_groups_it_has_not_seen():
    stage = Select(by="x", keep={"fraction": 0.5}, per="g")
    model = stage.find_threshold(TablePool({"x": [1.0, 2, 3, 4], "g": ["a", "a", "b", "b"]}))
    later = TablePool({"x": [5.0, 9, 5], "g": ["a", "new", "b"]})
    assert chosen(stage, later, model).tolist() == [1, 0, 1]
    tally = stage.tally(model)
    for batch in later.batches():
        tally.add(batch, stage.chosen(batch, model, {}))
    assert [group["name"] for group in tally.report()["groups"]] == ["a", "b", None]
