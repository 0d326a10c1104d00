"""Kernels that compare documents with a target equal their twins, and the formulas by dense algebra."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pyarrow as pa
import pytest
from test_kernels import BATCHES, random_texts

from dataselect.kernels import linear, overlap, tfidf
from dataselect.kernels import reference_targets as reference
from dataselect.kernels.arrow import text_buffers

TARGETS = text_buffers(pa.array([*random_texts(21, 12), "", "word the", *random_texts(1)[:3]]))


def buffers(texts):
    return text_buffers(pa.array(texts, pa.large_string()))


def index_of(batch, n_bits):
    lists = tfidf.feature_lists(*batch, n_bits)
    df = np.bincount(tfidf.buckets_of(lists[1]), minlength=1 << n_bits)
    return tfidf.build_index(*tfidf.feature_lists(*TARGETS, n_bits), tfidf.idf_table(df, len(batch[0]) - 1))


def assert_equal(results, expected, **tolerance):
    for result, twin in zip(results, expected, strict=True):
        assert result.dtype == twin.dtype
        if tolerance and result.dtype == np.float64:
            np.testing.assert_allclose(result, twin, **tolerance)
        else:
            np.testing.assert_array_equal(result, twin)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("n_bits", [6, 14])
def test_cosines_equal_their_twins_bit_for_bit(batch, n_bits):
    offsets, data = BATCHES[batch]
    lists = tfidf.feature_lists(offsets, data, n_bits)
    assert_equal(lists, reference.feature_lists(offsets, data, n_bits))
    index = index_of(BATCHES[batch], n_bits)
    cosines = tfidf.cosine_matrix(*lists, index)
    np.testing.assert_array_equal(cosines, reference.cosine_matrix(*lists, index))
    for n_ranks in (3, len(cosines)):
        ranked = np.ascontiguousarray(np.sort(cosines, axis=0)[::-1][:n_ranks])
        assert_equal(
            tfidf.nearest_targets(*lists, index, ranked),
            reference.nearest_targets(*lists, index, ranked),
        )


@pytest.mark.parametrize("batch", BATCHES)
def test_logistic_regression_equals_its_twin(batch):
    lists = tfidf.feature_lists(*BATCHES[batch], 12)
    n_docs = len(lists[0]) - 1
    idf = tfidf.idf_table(np.arange(1 << 12) % 7, 9)
    labels = np.arange(n_docs) % 3 == 0
    found, expected = (module.train_logistic(*lists, idf, labels, 3, 4.0) for module in (linear, reference))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    scores = [module.log_odds(*lists, idf, found) for module in (linear, reference)]
    np.testing.assert_allclose(*scores, rtol=1e-12)


def test_sigmoid_is_within_its_error():
    z = np.concatenate([np.linspace(-45, 45, 2001), [-np.inf, np.inf]])
    found = np.array([linear.sigmoid(value) for value in z])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-z)), atol=1e-8)
    assert (np.diff(found[:-2]) >= 0).all()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("n, min_words", [(1, 1), (3, 2), (13, 8)])
def test_shared_words_equal_their_twin(batch, n, min_words):
    offsets, data = BATCHES[batch]
    keys, lengths = overlap.target_keys(*TARGETS, n, min_words)
    assert_equal((keys, lengths), reference.target_keys(*TARGETS, n, min_words))
    table = overlap.key_table(keys)
    np.testing.assert_array_equal(np.unique(table[table > 0]), np.unique(keys))
    found = overlap.shared_words(offsets, data, lengths, table)
    assert_equal([found], [reference.shared_words(offsets, data, lengths, table)])


def test_a_long_document_makes_its_table_grow():
    texts = [" ".join(f"w{i % 3000}" for i in range(9000)), "w1 w2", " ".join(["a"] * 5000)]
    for n_bits in (10, 20):
        lists = tfidf.feature_lists(*buffers(texts), n_bits)
        assert_equal(lists, reference.feature_lists(*buffers(texts), n_bits))
    count = int(lists[1][lists[0][2]]) % (1 << tfidf.COUNT_BITS) - tfidf.MOST_COUNT - 1
    assert abs(count) == tfidf.MOST_COUNT


def test_cosines_are_those_of_dense_tfidf_vectors():
    """With so many buckets that few terms meet: sklearn's formula (smooth idf, sublinear tf), by hand."""
    texts = ["the cell wall of the cell", "stock prices of the market", "the cell", "of the market of"]
    targets = ["cell wall", "the market prices"]

    def terms(text):
        words = re.findall(r"\w+", text)
        return [*words, *itertools.pairwise(words)]

    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(t for x in texts + targets for t in terms(x)))}
    counts = np.zeros((len(texts + targets), len(vocabulary)))
    for row, text in zip(counts, texts + targets, strict=True):
        for term in terms(text):
            row[vocabulary[term]] += 1
    idf = np.log((1 + len(texts)) / (1 + (counts[: len(texts)] > 0).sum(axis=0))) + 1
    x = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    lists = tfidf.feature_lists(*buffers(texts), 20)
    df = np.bincount(tfidf.buckets_of(lists[1]), minlength=1 << 20)
    index = tfidf.build_index(*tfidf.feature_lists(*buffers(targets), 20), tfidf.idf_table(df, len(texts)))
    np.testing.assert_allclose(tfidf.cosine_matrix(*lists, index), x[:4] @ x[4:].T, atol=1e-6)


def test_golden_of_the_idf():
    # ln((1 + 9) / (1 + 4)) + 1 and, of a term that no document has, ln(10) + 1
    np.testing.assert_allclose(
        tfidf.idf_table(np.array([4, 0]), 9), [math.log(2) + 1, math.log(10) + 1], rtol=1e-12
    )
