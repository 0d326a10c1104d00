"""Budgets shared among groups, and what repeats are worth: closed forms, and what must always hold."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataselect.stages.quotas import effective, largest_remainder, redistribute, tempered, water_fill

sizes_strategy = st.lists(st.integers(0, 1000), min_size=1, max_size=12)


def fractions(*shares):
    return [Fraction(str(share)) for share in shares]


def test_largest_remainder():
    assert largest_remainder(fractions(0.4, 0.35, 0.25), 7) == [3, 2, 2]
    assert largest_remainder(fractions(1, 1, 1), 10) == [4, 3, 3]  # equal fractions: the first
    assert largest_remainder(fractions(0, 5), 3) == [0, 3]


@pytest.mark.parametrize(
    "supply, total, quotas", [((2, 5, 100), 30, [2, 5, 23]), ((10, 10, 10), 10, [3, 3, 4]), ((), 5, [])]
)
def test_water_filling(supply, total, quotas):
    assert water_fill(supply, total) == quotas


def test_unimax_is_water_filling_with_an_epoch_cap():
    assert water_fill([4 * size for size in (1, 10, 100)], 60) == [4, 28, 28]


@pytest.mark.parametrize(
    "alpha, shares",
    [(0.7, (0.8049, 0.1606, 0.0345)), (0.3, (0.5680, 0.2847, 0.1473)), (1e-9, (1 / 3, 1 / 3, 1 / 3))],
)
def test_temperature(alpha, shares):
    found = tempered((900, 90, 10), 1 / alpha)
    assert [float(share / sum(found)) for share in found] == pytest.approx(shares, abs=5e-5)


@pytest.mark.parametrize(
    "epochs, ratio",
    [(0.5, 0.5), (1, 1), (2, 1.9682), (3, 2.8755), (4, 3.7257), (8, 6.6241), (16, 10.58), (40, 15.17),
     (1e9, 16.388)],
)  # fmt: skip
def test_repeats_are_worth_what_was_measured(epochs, ratio):
    assert effective(1000, epochs) / 1000 == pytest.approx(ratio, abs=6e-3 if epochs > 10 else 5e-5)


def test_what_one_group_lacks_goes_to_the_others_by_their_shares():
    assert redistribute(fractions(0.5, 0.3, 0.2), [10, 100, 100], 100) == [10, 54, 36]
    assert redistribute(fractions(0.5, 0.3, 0.2), [10, 20, 30], 100) == [10, 20, 30]  # all there is
    assert redistribute(fractions(0.5, 0.5, 0), [10, 20, 1000], 100) == [10, 20, 0]  # no share, nothing


@given(sizes_strategy, st.integers(0, 5000), st.data())
def test_quotas_sum_to_the_budget_or_to_all_there_is(supply, total, data):
    shares = data.draw(st.lists(st.integers(1, 9), min_size=len(supply), max_size=len(supply)))
    shares = [Fraction(share) for share in shares]
    for quotas in (redistribute(shares, supply, total), water_fill(supply, total)):
        assert sum(quotas) == min(total, sum(supply))
        assert all(0 <= quota <= there for quota, there in zip(quotas, supply, strict=True))
    exact = [share * total / sum(shares) for share in shares]
    free = largest_remainder(shares, total)
    assert sum(free) == total
    assert all(abs(quota - share) < 1 for quota, share in zip(free, exact, strict=True))


@given(sizes_strategy, st.integers(0, 5000))
def test_water_filling_only_rises_with_the_budget(supply, total):
    pairs = zip(water_fill(supply, total), water_fill(supply, total + 1), strict=True)
    assert all(less <= more for less, more in pairs)
