"""Histograms of lengths add up, and their quantiles are near the exact ones."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.lengths import QUANTILES, histogram, quantiles
from dataselect.engine.ledger import add_ledgers

lengths_strategy = st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 100), max_size=60)


@settings(max_examples=200, deadline=None)
@given(lengths_strategy, lengths_strategy)
def test_the_histogram_of_two_parts_is_their_sum(a, b):
    parts = [histogram(np.array(part, np.int64)) for part in (a, b)]
    assert add_ledgers(*parts) == histogram(np.array(a + b, np.int64))
    assert sum(histogram(np.array(a, np.int32)).values()) == len(a)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 100), min_size=1, max_size=60))
def test_quantiles_are_exact_when_small_and_within_a_32nd_when_large(lengths):
    found = quantiles(histogram(np.array(lengths, np.int64)))
    exact = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    for value, expected in zip(found.values(), exact.tolist(), strict=True):
        assert abs(value - expected) <= (expected / 32 if expected >= 32 else 0)


def test_no_lengths_have_no_quantiles():
    assert quantiles(histogram(np.empty(0, np.int64))) == {}
