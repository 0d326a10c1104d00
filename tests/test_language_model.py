"""The n-gram language model: by hand, against exact fractions, against its twin, and as a distribution."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from test_kernels import BATCHES, random_texts

from dataselect.kernels import language_model as lm
from dataselect.kernels import reference_language_model as reference
from dataselect.kernels.arrow import text_buffers
from dataselect.kernels.ngrams import score_ngrams

UNIT = 2.0**-lm.LOG_BITS


def lists(texts):
    return lm.token_lists(*text_buffers(pa.array(texts, pa.large_string())))


def train(texts, order, n_vocabulary):
    return lm.train_model(*lists(texts), order, n_vocabulary)


def log_p(model, texts):
    token_offsets, tokens = lists(texts)
    out = np.empty(len(token_offsets) - 1, np.int64)
    lm.score_tokens(token_offsets, tokens, model, out)
    return out * UNIT


def words(rng, n_words=12, n_docs=60):
    """Documents of a few words with uneven frequencies, so that every count from 1 up occurs."""
    names = [f"w{i}" for i in range(n_words)]
    share = 1 / np.arange(1, n_words + 1)
    return [" ".join(rng.choice(names, rng.integers(0, 12), p=share / share.sum())) for _ in range(n_docs)]


def test_by_hand():
    """a b a c, of 5 words; after the start or a word: D = 0.5 of every pair, which is seen once."""
    model = train(["a b a c"], 2, 5)
    # Words before: of a two (start, b), of b and c one. p(a) = (2 - 1)/4 + (0.5 + 0.5 + 1)/4 * 1/5
    by_word = {"a": Fraction(7, 20), "b": Fraction(9, 40), "c": Fraction(9, 40), "x": Fraction(1, 10)}
    after_a = {word: p / 2 + (Fraction(1, 4) if word in "bc" else 0) for word, p in by_word.items()}
    assert after_a["b"] == Fraction(29, 80)
    after_start = {word: p / 2 + (Fraction(1, 2) if word == "a" else 0) for word, p in by_word.items()}
    documents = {
        "b": after_start["b"],
        "a b a c": after_start["a"] ** 2 * after_a["b"] ** 2,  # only a is seen after b: as after the start
        "a x": after_start["a"] * after_a["x"],
        "x c x": after_start["x"] * by_word["c"] * by_word["x"],  # nothing was seen after x and c
        "": Fraction(1),
    }
    expected = [math.log(p) for p in documents.values()]
    np.testing.assert_allclose(log_p(model, list(documents)), expected, atol=4 * UNIT)
    assert model["n_ngrams"].tolist() == [3, 4]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_definition_in_exact_fractions(order):
    rng = np.random.default_rng(order)
    texts, others = words(rng), words(rng, n_words=20)
    token_offsets, tokens = lists(texts)
    p = reference.probability(token_offsets, tokens, order, 40)
    expected = [sum(math.log(p(run)) for run in doc) for doc in reference.runs(*lists(texts + others), order)]
    found = log_p(train(texts, order, 40), texts + others)
    np.testing.assert_allclose(found, expected, atol=40 * UNIT)
    assert len({round(x, 6) for x in found}) > 60


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_of_the_closed_vocabulary_sum_to_1_in_every_context(order):
    rng = np.random.default_rng(8)
    model = train(words(rng, n_words=9), order, 30)
    vocabulary = [f"w{i}" for i in range(9)] + [f"new{i}" for i in range(21)]
    for context in ("", "w0", "w1 w0", "w0 w0 w0", "w8 w8", "new1", "w1 new1", "new1 w1"):
        before = log_p(model, [context])[0]
        after = log_p(model, [f"{context} {word}" for word in vocabulary])
        assert math.fsum(np.exp(after - before)) == pytest.approx(1, abs=1e-5), context


def test_discounts_are_those_of_chen_and_goodman():
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 12, 5])
    y = 100 / 180
    assert lm.discounts(counts) == pytest.approx((1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.6))
    assert lm.discounts(np.array([1, 1, 2])) == (0.5, 1.0, 1.5)  # too few counts to tell
    assert lm.discounts(np.repeat([1, 2, 3, 4], [9, 1, 9, 9])) == (0.5, 1.0, 1.5)  # D2 would be negative


@pytest.mark.parametrize("batch", BATCHES)
def test_kernels_equal_their_twins_bit_for_bit(batch):
    found, expected = lm.token_lists(*BATCHES[batch]), reference.token_lists(*BATCHES[batch])
    for result, twin in zip(found, expected, strict=True):
        assert result.dtype == twin.dtype
        np.testing.assert_array_equal(result, twin)
    model = lm.train_model(*lists(random_texts(1) + random_texts(9)), 3, 10_000)
    out, of_twin = np.full((2, len(found[0]) - 1), 7)
    lm.score_tokens(*found, model, out)
    reference.score_tokens(*found, model, of_twin)
    np.testing.assert_array_equal(out, of_twin)


def test_the_table_holds_every_ngram_once_and_can_be_searched():
    token_offsets, tokens = lists(random_texts(3, 60))
    model = lm.train_model(token_offsets, tokens, 3, 1000)
    keys = model["table"][:, 0]
    keys = keys[keys > 0]
    assert (keys[1:] > keys[:-1]).all()
    runs = [run for doc in reference.runs(token_offsets, tokens, 3) for run in doc]
    ngrams = {run[3 - n :] for run in runs for n in (1, 2, 3)} | {(lm.START,), (lm.START, lm.START)}
    assert {reference.key(tuple(map(int, run))) for run in ngrams} == set(keys.tolist())
    # A key beyond the last one ends at the empty slot, wherever it begins.
    assert model["table"][-1, 0] == 0


def test_order_and_batches_of_documents_do_not_matter():
    texts = random_texts(2, 80)
    model, turned = train(texts, 3, 5000), train(texts[::-1], 3, 5000)
    for name, array in model.items():
        np.testing.assert_array_equal(array, turned[name])
    together = log_p(model, texts)
    np.testing.assert_array_equal(together, np.concatenate([log_p(model, [text]) for text in texts]))


def test_no_text_gives_the_uniform_model():
    for texts in ([], [""], [" ", ""]):
        model = train(texts, 3, 1024)
        np.testing.assert_allclose(log_p(model, ["a b", ""]), [-20 * math.log(2), 0], atol=4 * UNIT)


def test_more_text_of_the_kind_is_cheaper_and_longer_contexts_help():
    rng = np.random.default_rng(1)
    phrase = "the quick brown fox jumps over the lazy dog and runs away"
    texts = [" ".join(np.roll(phrase.split(), rng.integers(12))) for _ in range(200)]
    bits = {order: -log_p(train(texts[:100], order, 100), texts[100:]).sum() for order in (1, 2, 3)}
    assert bits[3] < bits[2] < bits[1]
    assert -log_p(train(texts[:5], 3, 100), texts[100:]).sum() > bits[3]


def test_tokens_are_those_of_the_importance_kernel():
    buffers = BATCHES["random"]
    n_tokens, out = np.empty(len(buffers[0]) - 1, np.int64), np.empty(len(buffers[0]) - 1)
    score_ngrams(*buffers, 1, np.zeros(16, np.int64), out, n_tokens)
    np.testing.assert_array_equal(np.diff(lm.token_lists(*buffers)[0]), n_tokens)


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="order"):
        train(["a"], 0, 10)
    with pytest.raises(ValueError, match="order"):
        train(["a"], 7, 10)
    with pytest.raises(ValueError, match="n_vocabulary"):
        train(["a"], 2, 0)
    with pytest.raises(ValueError, match="out"):
        lm.score_tokens(*lists(["a", "b"]), train(["a"], 2, 10), np.empty(1, np.int64))
