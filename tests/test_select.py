"""Selection: thresholds are exact, draws have the distribution they should have, budgets are nested."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataselect.stages.base import Pool, PoolBatch
from dataselect.stages.select import WEIGHTED, Keep, Select


class ListPool(Pool):
    """Rows of a whole corpus, cut into batches."""

    def __init__(self, values, n_bytes, n_words, keys, cuts=()):
        n_docs = len(n_bytes)
        edges = [0, *sorted(min(cut, n_docs) for cut in cuts), n_docs]
        self._batches = [
            PoolBatch({} if values is None else {"x": values[a:b]}, keys[a:b], n_bytes[a:b], n_words[a:b])
            for a, b in pairwise(edges)
        ]

    def batches(self):
        return iter(self._batches)


def selected(stage, pool):
    """bool[n_docs], the way the engine does it: one pass for the threshold, one to choose."""
    model, state = stage.find_threshold(pool), {}
    return np.concatenate([stage.chosen(batch, model, state) for batch in pool.batches()]) > 0


def random_keys(n_docs, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n_docs, 2), dtype=np.uint64)


def oracle(ranks, weights, budget):
    """All in memory: the longest run of documents, best first and ties by place, that fits the budget."""
    order = np.lexsort((np.arange(len(ranks)), ranks))
    kept = np.zeros(len(ranks), bool)
    kept[order[np.cumsum(weights[order]) <= budget]] = True
    return kept


NASTY = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, -5e-324, 1e308, 1.0 + 2**-52, 0.5]
values_strategy = st.lists(st.one_of(st.sampled_from(NASTY), st.floats(width=16)), max_size=60)
cuts_strategy = st.lists(st.integers(0, 60), max_size=5)


@settings(max_examples=150, deadline=None)
@given(values_strategy, cuts_strategy, st.data())
def test_top_k_equals_a_sort_in_memory_for_any_values_and_cuts(values, cuts, data):
    values = np.array(values, np.float64)
    n_docs = len(values)
    n_bytes = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n_docs, max_size=n_docs)), np.int64)
    n_words = n_bytes // 2
    pool = ListPool(values, n_bytes, n_words, random_keys(n_docs), cuts)
    direction = data.draw(st.sampled_from(["max", "min"]))
    signed = -values if direction == "min" else values
    numbers = ~np.isnan(signed)  # NaN is never kept, whatever the direction
    budget = data.draw(st.integers(0, 70))
    for name, weights in (("docs", np.ones(n_docs, np.int64)), ("bytes", n_bytes), ("words", n_words)):
        stage = Select(by="x", method="top_k", keep={name: budget}, direction=direction)
        expected = np.zeros(n_docs, bool)
        expected[numbers] = oracle(-signed[numbers], weights[numbers], budget)
        np.testing.assert_array_equal(selected(stage, pool), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), cuts_strategy, st.floats(0, 1), st.integers(0, 3))
def test_a_fraction_is_rounded_half_up_and_never_depends_on_the_cuts(n_docs, cuts, fraction, n_values):
    values = np.random.default_rng(n_docs).integers(0, n_values + 1, n_docs).astype(np.float64)
    ones = np.ones(n_docs, np.int64)
    stage = Select(by="x", keep={"fraction": fraction})
    kept = selected(stage, ListPool(values, ones, ones, random_keys(n_docs), cuts))
    assert abs(kept.sum() - fraction * n_docs) <= 0.5 + 1e-9
    np.testing.assert_array_equal(kept, selected(stage, ListPool(values, ones, ones, random_keys(n_docs))))
    np.testing.assert_array_equal(kept, oracle(-values, ones, kept.sum()))


def test_half_a_document_is_a_document():
    for fraction, n_docs, n_kept in (
        (0.5, 5, 3),
        (0.1, 5, 1),
        (0.29, 50, 15),
        (0.3, 1, 0),
        (1.0, 7, 7),
        (0.0, 7, 0),
    ):
        values, ones = np.arange(n_docs, dtype=np.float64), np.ones(n_docs, np.int64)
        kept = selected(
            Select(by="x", keep={"fraction": fraction}), ListPool(values, ones, ones, random_keys(n_docs))
        )
        assert kept.sum() == n_kept


def test_many_ties_go_to_the_first_documents():
    values = np.zeros(100_000)
    ones = np.ones(len(values), np.int64)
    kept = selected(
        Select(by="x", keep={"docs": 1234}), ListPool(values, ones, ones, random_keys(len(values)), [7, 999])
    )
    np.testing.assert_array_equal(np.flatnonzero(kept), np.arange(1234))


def test_an_empty_pool_and_empty_batches_are_fine():
    none = np.empty(0, np.int64)
    pool = ListPool(np.empty(0), none, none, random_keys(0), [0, 0])
    for keep in ({"docs": 5}, {"fraction": 0.5}, {"bytes": 0}):
        assert len(selected(Select(by="x", keep=keep), pool)) == 0


@pytest.mark.parametrize("name", ["docs", "bytes", "words"])
@pytest.mark.parametrize("method", ["top_k", "resample", "uniform"])
def test_a_larger_budget_keeps_a_superset_and_never_overshoots(name, method):
    rng = np.random.default_rng(5)
    n_bytes = rng.integers(0, 1000, 2000)
    pool = ListPool(rng.normal(size=2000), n_bytes, n_bytes // 5, random_keys(2000), [3, 700, 1500])
    weights = {"docs": np.ones(2000, np.int64), "bytes": n_bytes, "words": n_bytes // 5}[name]
    before = np.zeros(2000, bool)
    for budget in (0, 1, 10, 1_000, 1_001, 50_000, 10**7):
        by = None if method == "uniform" else "x"
        kept = selected(Select(by=by, method=method, keep={name: budget}), pool)
        used = weights[kept].sum()
        assert used <= budget
        assert (kept >= before).all()
        if not kept.all():
            assert used + weights.max() > budget  # the next one would not have fitted
        before = kept
    assert before.all()


@pytest.mark.parametrize("unit", ["bytes", "words", "chars", "tokens"])
def test_a_fraction_may_be_of_words_or_characters(unit):
    """top_k: what fits of the best; quantile: from the score on at which the running sum reaches it."""
    rng = np.random.default_rng(6)
    n_bytes = rng.integers(1, 1000, 500)
    values, n_words = rng.integers(0, 200, 500).astype(np.float64), n_bytes // 5
    sizes = {"bytes": n_bytes, "words": n_words, "chars": n_bytes - 1, "tokens": np.rint(n_words * 1.3)}[unit]
    columns = {"x": values, "n_chars": n_bytes - 1}
    cuts = pairwise([0, 100, 101, 500])
    batches = [
        PoolBatch({k: v[a:b] for k, v in columns.items()}, random_keys(500)[a:b], n_bytes[a:b], n_words[a:b])
        for a, b in cuts
    ]
    pool = Pool()
    pool.batches = lambda: iter(batches)
    budget = round(sizes.sum() * 0.1)
    keep = {"fraction": 0.1, "of": unit}
    kept = selected(Select(by="x", keep=keep), pool)
    np.testing.assert_array_equal(kept, oracle(-values, sizes, budget))
    kept = selected(Select(by="x", method="quantile", keep=keep), pool)
    order = np.argsort(-values, kind="stable")
    cut = values[order][np.searchsorted(np.cumsum(sizes[order]), budget)]
    np.testing.assert_array_equal(kept, values >= cut)
    assert Select(by="x", keep=keep).scaled(0.5).keep_ == Keep.model_validate(keep)


# Weighted draws ---------------------------------------------------------------------------------------

WEIGHTS = np.array([1.0, 2.0, 3.0, 4.0])
N_TRIALS = 2000
CHI2_3_DF_1_IN_10000 = 21.11


def small_pool(values, keys):
    ones = np.ones(len(keys), np.int64)
    return ListPool(values, ones, ones, keys)


def trials(n_trials, values, keys=None, cuts=()):
    """A pool of n_trials groups, in each of which documents of other keys have the same values."""
    n_docs = len(values)
    ones = np.ones(n_trials * n_docs, np.int64)
    pool = ListPool(None, ones, ones, random_keys(len(ones)) if keys is None else keys)
    group = np.repeat(np.arange(n_trials, dtype=np.float64), n_docs)
    whole = next(pool.batches())
    columns = {"x": np.tile(values, n_trials), "trial": group}
    edges = [0, *cuts, len(ones)]
    pool._batches = [
        PoolBatch({k: v[a:b] for k, v in columns.items()}, whole.keys[a:b], ones[a:b], ones[a:b])
        for a, b in pairwise(edges)
    ]
    return pool


def drawn(n_docs_kept, values=WEIGHTS, n_trials=N_TRIALS, **params):
    """int64[n_trials, n]: copies of each document in every trial: a group with draws of its own."""
    if params["method"] in WEIGHTED | {"resample"}:
        params = {"weights": "linear", "by": "x"} | params
    stage = Select(keep={"docs": n_docs_kept}, per="trial", mixture="each", **params)
    pool = trials(n_trials, values)
    model, state = stage.find_threshold(pool), {}
    copies = np.concatenate([stage.chosen(batch, model, state) for batch in pool.batches()])
    return copies.reshape(n_trials, len(values))


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.fixture(scope="module")
def first_picks():
    return drawn(1, method="resample")


def test_the_first_pick_has_probability_proportional_to_the_weight(first_picks):
    assert (first_picks.sum(axis=1) == 1).all()
    assert chi_square(first_picks.sum(axis=0), N_TRIALS * WEIGHTS / WEIGHTS.sum()) < CHI2_3_DF_1_IN_10000


def test_two_of_four_have_the_inclusion_probabilities_of_plackett_and_luce():
    # Efraimidis and Spirakis 2006; enumerated: pi_i = p_i + sum_j p_j p_i / (1 - p_j), not k w_i / W.
    p = WEIGHTS / WEIGHTS.sum()
    exact = np.array([p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)])
    np.testing.assert_allclose(exact, (0.234524, 0.441270, 0.608333, 0.715873), atol=1e-6)
    found = drawn(2, method="resample").mean(axis=0)
    np.testing.assert_allclose(found, exact, atol=4 * np.sqrt(0.25 / N_TRIALS))


def test_2400_seeds_draw_a_first_document_in_proportion_to_its_weight():
    batch = next(iter(small_pool(np.log(WEIGHTS), random_keys(4)).batches()))
    stages = (Select(by="x", method="resample", keep={"docs": 1}, seed=seed) for seed in range(2400))
    picks = np.bincount([int(stage.rank_keys(batch).argmax()) for stage in stages], minlength=4)
    assert chi_square(picks, 2400 * WEIGHTS / WEIGHTS.sum()) < CHI2_3_DF_1_IN_10000


def test_three_ways_to_sample_without_replacement_are_one():
    # Efraimidis and Spirakis: the k largest u^(1/w), the k smallest -ln(u)/w, and Gumbel top-k.
    weights, keys = np.random.default_rng(5).gamma(0.5, size=300) + 1e-3, random_keys(300)
    stage = Select(by="x", method="resample", weights="linear", keep={"docs": 60}, seed=9)
    u = stage.draws(keys)
    kept = np.flatnonzero(selected(stage, small_pool(weights, keys)))
    assert set(kept) == set(np.argsort(-(u ** (1 / weights)), kind="stable")[:60])
    assert set(kept) == set(np.argsort(-np.log(u) / weights, kind="stable")[:60])


def test_log_weights_draw_the_same_as_their_weights(first_picks):
    logs = drawn(1, method="resample", values=np.log(WEIGHTS), weights="log")
    np.testing.assert_array_equal(logs, first_picks)


def test_a_shift_of_all_log_weights_changes_nothing(first_picks):
    # The shift is a whole number, so that both sums are rounded alike; far below exp's range.
    shifted = drawn(1, method="resample", values=np.log(WEIGHTS) - 5000, weights="log")
    assert (shifted == first_picks).all(axis=1).mean() > 0.999


def test_a_low_temperature_is_top_k_and_a_high_one_is_uniform():
    cold = drawn(2, method="resample", temperature=1e-6, n_trials=200)
    np.testing.assert_array_equal(cold, np.tile([0, 0, 1, 1], (200, 1)))
    hot = drawn(1, method="resample", temperature=1e6)
    assert chi_square(hot.sum(axis=0), np.full(4, N_TRIALS / 4)) < CHI2_3_DF_1_IN_10000


def test_uniform_draws_are_uniform():
    picks = drawn(1, method="uniform")
    assert chi_square(picks.sum(axis=0), np.full(4, N_TRIALS / 4)) < CHI2_3_DF_1_IN_10000


def test_small_weights_are_preferred_where_the_direction_is_min():
    picks = drawn(1, method="resample", values=-np.log(WEIGHTS), weights="log", direction="min")
    assert chi_square(picks.sum(axis=0), N_TRIALS * WEIGHTS / WEIGHTS.sum()) < CHI2_3_DF_1_IN_10000


def test_a_zero_weight_is_drawn_last_and_what_is_no_weight_never():
    values = np.array([0.0, -1.0, np.nan, np.inf, 1e-300])
    for seed in range(50):
        stage = Select(by="x", method="resample", weights="linear", keep={"docs": 1}, seed=seed)
        assert np.flatnonzero(selected(stage, small_pool(values, random_keys(5)))).tolist() == [4]
        all_of_them = stage.model_copy(update={"keep_": Keep(docs=5)})
        assert np.flatnonzero(selected(all_of_them, small_pool(values, random_keys(5)))).tolist() == [0, 4]


def test_the_draw_follows_the_document_not_its_place():
    keys, values = random_keys(500), np.random.default_rng(1).normal(size=500)
    order = np.random.default_rng(2).permutation(500)
    stage = Select(by="x", method="resample", keep={"docs": 100}, seed=3)
    kept = selected(stage, small_pool(values, keys))
    np.testing.assert_array_equal(selected(stage, small_pool(values[order], keys[order])), kept[order])


def test_another_seed_or_method_is_an_independent_draw():
    keys = random_keys(20_000)
    first = Select(method="uniform", keep={"docs": 1}, seed=0).draws(keys)
    for stage in (
        Select(method="uniform", keep={"docs": 1}, seed=1),
        Select(by="x", method="resample", keep={"docs": 1}),
    ):
        assert abs(np.corrcoef(first, stage.draws(keys))[0, 1]) < 4 / np.sqrt(len(keys))
    assert Select(by="x", method="top_k", keep={"docs": 1}).draws(keys) is None


def test_draws_are_uniform_and_strictly_inside_0_and_1():
    u = np.sort(Select(method="uniform", keep={"docs": 1}).draws(random_keys(50_000)))
    assert u[0] > 0
    assert u[-1] < 1
    steps = np.arange(1, len(u) + 1) / len(u)
    assert np.abs(u - steps).max() < 1.95 / np.sqrt(len(u))  # Kolmogorov-Smirnov, 0.1 %


# Several columns ---------------------------------------------------------------------------------------


class ColumnsPool(ListPool):
    """A pool with columns a, b and c."""

    def __init__(self, columns, keys, cuts=(), masses=None):
        edges = [0, *sorted(cuts), len(keys)]
        ones = np.ones(len(keys), np.int64)
        self._batches = [
            PoolBatch({name: v[a:b] for name, v in columns.items()}, keys[a:b], ones[a:b], ones[a:b])
            for a, b in pairwise(edges)
        ]
        if masses:
            self.masses = masses


def three_columns(n_docs, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 50, n_docs).astype(np.float64) for name in "abc"}  # many ties


@pytest.mark.parametrize("method", ["top_k", "resample"])
@pytest.mark.parametrize("cuts", [(), (0, 7, 300, 300)])
def test_several_columns_are_served_in_turn_from_what_is_left(method, cuts):
    columns, keys = three_columns(500), random_keys(500)
    stage = Select(by=["a", "b", "c"], shares=[0.5, 0.3, 0.2], keep={"docs": 101}, method=method, seed=4)
    kept = selected(stage, ColumnsPool(columns, keys, cuts))
    whole = next(ColumnsPool(columns, keys).batches())
    expected = np.zeros(500, bool)
    for turn, quota in enumerate((50, 30, 21)):  # int(k * share), the rest to the last
        ranks = stage.rank_keys(whole, turn)
        order = np.lexsort((np.arange(500), ~ranks))
        expected[order[~expected[order]][:quota]] = True
    assert expected.sum() == 101
    np.testing.assert_array_equal(kept, expected)


def test_the_toy_data_is_shared_as_the_package_shares_it():
    # Weights and kept documents of data-selection 1.0.3 (see test_dsir.py: APART), top_k.
    med = np.array([-205.8, -238.9, -169.4, 0, -238.9, -559.9, -266.5, -127.3])
    news = np.array([-220.3, -69.0, -199.7, 0, -239.3, -552.0, -281.7, -127.3])
    masses = {"a": 26.0, "b": 20.0}
    pool = ColumnsPool({"a": med, "b": news}, random_keys(8), masses=masses)
    for k, kept in ((3, [1, 3, 7]), (4, [1, 2, 3, 7]), (5, [0, 1, 2, 3, 7])):
        stage = Select(by=["a", "b"], keep={"docs": k})
        assert np.flatnonzero(selected(stage, pool)).tolist() == kept


def test_columns_without_a_mass_share_equally():
    columns, keys = three_columns(100), random_keys(100)
    stage = Select(by=["a", "b"], keep={"docs": 10})
    for masses, n_first in ((None, 5), ({"a": 3.0, "b": 1.0}, 7)):
        kept = selected(stage, ColumnsPool(columns, keys, masses=masses))
        first = selected(Select(by="a", keep={"docs": n_first}), ColumnsPool(columns, keys))
        assert (kept & first).sum() == first.sum() == n_first
        assert kept.sum() == 10


def test_the_second_column_draws_by_its_own_weights_among_the_rest():
    # Column a takes document 3 for certain; then b draws one of the other three by weights 1, 2, 3.
    weights = {"a": np.array([-1e6, -1e6, -1e6, 0.0]), "b": np.log([1.0, 2.0, 3.0, 100.0])}
    pool = ColumnsPool(weights, random_keys(4))
    stage = Select(by=["a", "b"], shares=[0.5, 0.5], keep={"docs": 2}, method="resample")
    picks = np.stack([selected(stage.model_copy(update={"seed": seed}), pool) for seed in range(1000)])
    assert picks[:, 3].all()
    assert chi_square(picks[:, :3].sum(axis=0), 1000 * np.array([1, 2, 3]) / 6) < CHI2_3_DF_1_IN_10000


@pytest.mark.parametrize(
    "params, message",
    [
        ({"by": ["x", "y"], "shares": [1.0]}, "expected one for each of the 2 columns"),
        ({"by": ["x", "y"], "shares": [0.5, 0.4]}, "sum to 1"),
        ({"by": ["x", "y"], "shares": [1.5, -0.5]}, "from 0 up"),
        ({"by": ["x", "x"]}, "stands there twice"),
        ({"by": []}, "at least 1"),
        ({"by": "x", "temperature": 0}, "greater than 0"),
        ({"by": "x", "temperature": -1}, "greater than 0"),
    ],
)
def test_columns_shares_and_temperatures_that_make_no_sense_are_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        Select(keep={"docs": 1}, method="resample", **params)


def test_a_sample_run_scales_absolute_budgets_only():
    assert Select(by="x", keep={"docs": 1000}).scaled(0.1).keep_.docs == 100
    assert Select(by="x", keep={"bytes": "10KB"}).scaled(0.01).keep_.bytes == 100
    assert Select(by="x", keep={"fraction": 0.5}).scaled(0.1).keep_.fraction == 0.5


@pytest.mark.parametrize(
    "keep",
    [
        {},
        {"of": "words"},
        {"docs": 1, "fraction": 0.1},
        {"docs": 1, "of": "words"},
        {"docs": -1},
        {"fraction": 1.1},
        {"fraction": 0.1, "of": "pages"},
        {"bytes": -1},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(keep):
    with pytest.raises(ValidationError):
        Select(by="x", keep=keep)
