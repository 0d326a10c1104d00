"""Every kernel equals its slow twin bit for bit; what the twins mean is checked against other libraries."""

import contextlib
import itertools
import random
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from dataselect.core.lsh import optimal_bands
from dataselect.kernels import (
    groups,
    hashing,
    jaccard,
    json_strings,
    minhash,
    ngrams,
    peer_tokens,
    reference,
    reference_peers,
    rows,
    text,
    tokens,
    unicode_tables,
    wordpunct,
)
from dataselect.kernels.arrow import text_buffers
from dataselect.stages import registry

# One of every kind: classes, case pairs that change length, the two deviations, separators, astral planes.
ALPHABET = [
    *"aBzZ09_-.,!'@[`{ \t\n\x0b\x1c\x1f\x00\x7f\"\\",
    *"\x85\xa0éÉßñÖØжЖΣσςİıŸ\u212a\u2126ȺÅ\u0301日本語ｶ٣²ⅷⒶ\u2028\u3000\u200b€…—\ufeff😀𝔸𐐀\U0010ffff",
    *[
        "word",
        "The",
        " of the ",
        "ÜBER",
        "straße",
        "Москва",
        "x" * 7,
        "y" * 8,
        "Z" * 9,
        "longer_than_one_block" * 4,
    ],
]
INVALID = [
    b"\xff",
    b"\x80",
    b"\xc3",
    b"\xc0\x80",
    b"\xc1\xa1",
    b"\xe0\x81\xa1",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
]


def random_text(rng, n_items, share_ascii=0.5):
    is_ascii = np.array([item.isascii() for item in ALPHABET])
    weights = np.where(is_ascii, share_ascii / is_ascii.sum(), (1 - share_ascii) / (~is_ascii).sum())
    return "".join(rng.choice(ALPHABET, n_items, p=weights))


def random_texts(seed, n_docs=40, share_ascii=0.5):
    rng = np.random.default_rng(seed)
    return [random_text(rng, int(rng.choice([0, 1, 2, 5, 30, 200])), share_ascii) for _ in range(n_docs)]


def invalid_utf8():
    """Documents that end inside a character, which the next document then seems to finish."""
    rng = np.random.default_rng(5)
    parts = [item.encode() for item in ALPHABET] + INVALID * 5
    documents = [b"".join(rng.choice(np.array(parts, object), 40)) for _ in range(30)] + [b"a\xc3", b"\xa9b"]
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    return offsets, np.frombuffer(b"".join(documents), np.uint8)


def nulls_that_hide_bytes():
    offsets = pa.py_buffer(np.array([0, 3, 9, 12], np.int64))
    data = pa.py_buffer("one\xff hidden two".encode("latin-1")[:12])
    return pa.LargeStringArray.from_buffers(3, offsets, data, pa.py_buffer(b"\x05"))


def writable(buffers):
    return tuple(array.copy() for array in buffers)


BATCHES = {
    "random": text_buffers(pa.array(random_texts(1), pa.large_string())),
    "mostly ascii": text_buffers(pa.array(random_texts(2, share_ascii=0.98), pa.large_string())),
    "all ascii": text_buffers(pa.array(random_texts(3, share_ascii=1.0), pa.large_string())),
    "slice": text_buffers(pa.array(random_texts(4), pa.large_string()).slice(7, 20)),
    "small offsets": text_buffers(pa.array(random_texts(5), pa.string()).slice(3)),
    "chunked": text_buffers(
        pa.chunked_array([random_texts(6, 5), [None], [], random_texts(7, 5)], pa.string())
    ),
    "nulls": text_buffers(pa.array([None, "a b", None, "", "c", None], pa.large_string())),
    "hidden bytes": text_buffers(nulls_that_hide_bytes()),
    "no words": text_buffers(pa.array(["", " ", "...", "\u3000\n", "  -- "], pa.large_string())),
    "empty array": text_buffers(pa.array([], pa.large_string())),
    "long": text_buffers(pa.array([" ".join(random_texts(8, 300, 0.9)), "a " * 5000], pa.large_string())),
    "writable": writable(text_buffers(pa.array(random_texts(9), pa.large_string()))),
    "invalid utf-8": invalid_utf8(),
}


def doc_array(offsets, *shape, dtype=np.int64):
    return np.full((len(offsets) - 1, *shape), 77, dtype)


def run_lengths(module, name, offsets, data):
    out = doc_array(offsets)
    getattr(module, name)(offsets, data, out)
    return [out]


def run_hash128(module, offsets, data):
    out = doc_array(offsets, 2, dtype=np.uint64)
    module.hash128(offsets, data, out)
    return [out]


def run_draws(module, offsets, data, seed):
    keys = run_hash128(reference, offsets, data)[0]
    out = doc_array(offsets, dtype=np.uint64)
    module.draw_u64(keys, seed, 2**64 - 3, out)
    return [out]


def run_signatures(module, offsets, data, ngram, num_perm, *tokens):
    a, b = minhash.affine32_params(num_perm)
    out = doc_array(offsets, num_perm, dtype=np.uint32)
    n_words = doc_array(offsets)
    module.minhash_signatures(offsets, data, ngram, a, b, out, n_words, *tokens)
    return [out, n_words]


def run_bands(module, offsets, data):
    signatures = run_signatures(minhash, offsets, data, 2, 20)[0]
    out = doc_array(offsets, 6, dtype=np.uint64)
    module.band_hashes(signatures, 6, 3, out)
    return [out]


def run_counts(module, offsets, data, order):
    out = np.arange(1000)
    module.count_ngrams(offsets, data, order, 1000, out)
    return [out]


def run_scores(module, offsets, data, order):
    table = np.random.default_rng(1).integers(-(2**48), 2**48, 5000)
    table.flags.writeable = False
    out, n_tokens = doc_array(offsets, dtype=np.float64), doc_array(offsets)
    module.score_ngrams(offsets, data, order, table, out, n_tokens)
    return [out, n_tokens]


def run_list_scores(module, offsets, data):
    bucket_offsets, buckets = ngrams.ngram_lists(offsets, data, 2, 5000)
    out = doc_array(offsets, dtype=np.float64)
    module.score_lists(bucket_offsets, buckets, np.random.default_rng(1).integers(-(2**48), 2**48, 5000), out)
    return [out]


def run_gather(module, offsets, data):
    """The documents without their last byte, in turn followed by one of three tails."""
    starts, stops = offsets[:-1], np.maximum(offsets[1:] - 1, offsets[:-1])
    tails, tail_offsets = np.frombuffer(b"\n, tail", np.uint8), np.array([0, 1, 1, 7])
    tail_of_row = np.arange(len(starts), dtype=np.int32) % 3
    out = np.zeros((stops - starts).sum() + np.diff(tail_offsets)[tail_of_row].sum(), np.uint8)
    module.gather_rows(data, starts, stops, tails, tail_offsets, tail_of_row, out)
    return [out]


def peers(module):
    return reference_peers if module is reference else module


def run_token_shingles(module, offsets, data, ngram):
    return module.shingles_of_tokens(*peer_tokens.code_points(offsets, data), ngram)


def run_shingle_signatures(module, offsets, data):
    out = doc_array(offsets, 19, dtype=np.uint32)
    module.signatures_of_shingles(
        *minhash.shingle_hashes(offsets, data, 2), *minhash.affine32_params(19), out
    )
    return [out]


def random_json(draw, depth=0):
    """A value whose keys are few and sometimes escaped."""

    def string(text):
        escaped = (
            "".join(f"\\u{u:04x}" for u in np.frombuffer(c.encode("utf-16-le"), np.uint16)) for c in text
        )
        plain = (c if c not in '"\\' else f"\\{c}" for c in text)
        return '"' + "".join(draw.choice(pair) for pair in zip(plain, escaped, strict=True)) + '"'

    def members():
        for _ in range(draw.randint(0, 5)):
            key = string(draw.choice(["text", "doc", 'é"😀', "te"]))
            yield draw.choice(["", "\t "]).join(["", key, ":", random_json(draw, depth + 1), ""])

    kind = draw.randint(0, 6 if depth < 4 else 3) if depth else 6
    if kind == 0:
        return draw.choice(["null", "true", "1.5e3"])
    if kind < 4:
        return string("".join(draw.choices([*'x{}[]:,"\\', "text", "y" * 70, "é"], k=draw.randint(0, 5))))
    if kind == 4:
        return "[" + ",".join(random_json(draw, depth + 1) for _ in range(draw.randint(0, 3))) + "]"
    return "{" + ",".join(members()) + "}"


@pytest.mark.parametrize("path", [["text"], ['é"😀'], ["doc", "text"], ["doc", "te", "doc"]])
def test_strings_are_found_as_the_twin_finds_them(path):
    draw = random.Random(2)
    lines = [f" {random_json(draw)}\t".encode() for _ in range(1500)]
    ends = np.cumsum([len(line) + 1 for line in lines]) - 1
    starts = ends - [len(line) for line in lines]
    data = np.frombuffer(b"\n".join(lines), np.uint8)
    keys = [key.encode() for key in path]
    key_ends = np.cumsum([len(key) for key in keys])
    found, expected = (np.empty((len(lines), 2), np.int64) for _ in range(2))
    for module, out in ((json_strings, found), (reference, expected)):
        module.find_strings(data, starts, ends, np.frombuffer(b"".join(keys), np.uint8), key_ends, out)
    np.testing.assert_array_equal(found, expected)
    assert 5 < (found[:, 0] >= 0).sum() < len(lines)


KERNELS = {
    "count_chars": (text, lambda m, o, d: run_lengths(m, "count_chars", o, d)),
    "count_words": (text, lambda m, o, d: run_lengths(m, "count_words", o, d)),
    "gather_rows": (rows, run_gather),
    "hash128": (hashing, run_hash128),
    "json_strings, lists": (json_strings, lambda m, o, d: m.json_strings(o, d)),
    "draw_u64, seed 0": (hashing, lambda m, o, d: run_draws(m, o, d, 0)),
    "draw_u64, large seed": (hashing, lambda m, o, d: run_draws(m, o, d, 2**63 + 1)),
    "shingle_hashes, 1": (minhash, lambda m, o, d: m.shingle_hashes(o, d, 1)),
    "shingle_hashes, 5": (minhash, lambda m, o, d: m.shingle_hashes(o, d, 5)),
    "shingle_hashes, 3000": (minhash, lambda m, o, d: m.shingle_hashes(o, d, 3000)),
    "minhash_signatures, 1": (minhash, lambda m, o, d: run_signatures(m, o, d, 1, 4)),
    "minhash_signatures, 5": (minhash, lambda m, o, d: run_signatures(m, o, d, 5, 19)),
    "shingle_hashes, 3 characters": (minhash, lambda m, o, d: m.shingle_hashes(o, d, 5, minhash.CHARS, 3)),
    "shingle_hashes, auto": (minhash, lambda m, o, d: m.shingle_hashes(o, d, 2, minhash.AUTO, 3000)),
    "minhash_signatures, auto": (minhash, lambda m, o, d: run_signatures(m, o, d, 5, 4, minhash.AUTO, 2)),
    "band_hashes": (minhash, run_bands),
    "spacy_tokens, lists": (peer_tokens, lambda m, o, d: peers(m).spacy_tokens(o, d)),
    "split_tokens, lists": (peer_tokens, lambda m, o, d: peers(m).split_tokens(o, d)),
    "code_points, lists": (peer_tokens, lambda m, o, d: peers(m).code_points(o, d)),
    "shingles_of_tokens, 3": (minhash, lambda m, o, d: run_token_shingles(m, o, d, 3)),
    "shingles_of_tokens, 30": (minhash, lambda m, o, d: run_token_shingles(m, o, d, 30)),
    "signatures of what is known": (minhash, run_shingle_signatures),
    "count_ngrams, 1": (ngrams, lambda m, o, d: run_counts(m, o, d, 1)),
    "count_ngrams, 2": (ngrams, lambda m, o, d: run_counts(m, o, d, 2)),
    "ngram_lists, 2": (ngrams, lambda m, o, d: m.ngram_lists(o, d, 2, 10_000)),
    "ngram_lists, 4 of uint32": (ngrams, lambda m, o, d: m.ngram_lists(o, d, 4, 100_000)),
    "score_ngrams, 1": (ngrams, lambda m, o, d: run_scores(m, o, d, 1)),
    "score_ngrams, 3": (ngrams, lambda m, o, d: run_scores(m, o, d, 3)),
    "scores of known buckets": (ngrams, run_list_scores),
    "lower_tokens, lists": (wordpunct, lambda m, o, d: m.lower_tokens(o, d)),
    "sha256_ngram_lists, 1": (wordpunct, lambda m, o, d: m.sha256_ngram_lists(o, d, 1, 10_000)),
    "sha256_ngram_lists, 3": (wordpunct, lambda m, o, d: m.sha256_ngram_lists(o, d, 3, 65_536)),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_equals_its_twin_bit_for_bit(kernel, batch):
    module, run = KERNELS[kernel]
    for result, expected in zip(run(module, *BATCHES[batch]), run(reference, *BATCHES[batch]), strict=True):
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "kernel", [name for name in KERNELS if name not in ("count_ngrams, 1", "count_ngrams, 2", "gather_rows")]
)
def test_result_of_a_document_does_not_depend_on_its_batch(kernel):
    """Neither on its neighbours nor on how near the end of the buffer is, where loads must be narrower."""
    module, run = KERNELS[kernel]
    texts = random_texts(11, 12, 0.9)
    together = run(module, *text_buffers(pa.array(texts, pa.large_string())))
    alone = [run(module, *text_buffers(pa.array([item], pa.large_string()))) for item in texts]
    if "lists" in kernel or "shingle" in kernel:
        np.testing.assert_array_equal(together[1], np.concatenate([result[1] for result in alone]))
    else:
        for column, parts in zip(together, zip(*alone, strict=True), strict=True):
            np.testing.assert_array_equal(column, np.concatenate(parts))


def test_decode_takes_exactly_the_well_formed_characters():
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0]
    for first in range(0x80, 0x100):
        for rest in itertools.product(edges, repeat=3):
            sequence = bytes([first, *rest])
            expected = (-1, 1)
            for n_bytes in (2, 3, 4):
                with contextlib.suppress(UnicodeDecodeError, TypeError):
                    expected = ord(sequence[:n_bytes].decode()), n_bytes
                    break
            assert tokens.decode(np.frombuffer(sequence, np.uint8), 0, 4) == expected


def test_list_ngrams_stops_before_the_document_that_does_not_fit():
    offsets, data = BATCHES["all ascii"]
    expected_offsets, expected = reference.ngram_lists(offsets, data, 2, 1000)
    last_doc = int(np.flatnonzero(np.diff(expected_offsets))[-1])
    for n_missing, stops_at in ((0, len(offsets) - 1), (1, last_doc)):
        bucket_offsets, out = np.zeros_like(offsets), np.zeros(len(expected) - n_missing, np.uint16)
        tables = unicode_tables.PAGE_OF, unicode_tables.PAGES
        assert ngrams._list_ngrams(offsets, data, *tables, 2, 1000, 0, bucket_offsets, out) == stops_at
        np.testing.assert_array_equal(bucket_offsets[: stops_at + 1], expected_offsets[: stops_at + 1])


def test_ngram_lists_grows_where_tokens_are_a_byte_each():
    texts = pa.array(["a." * 20_000, "b!" * 20_000, "c"], pa.large_string())
    offsets, buckets = ngrams.ngram_lists(*text_buffers(texts), 2, 10_000)
    assert offsets.tolist() == [0, 79_999, 159_998, 159_999]
    counts = np.zeros(10_000, np.int64)
    ngrams.count_ngrams(*text_buffers(texts), 2, 10_000, counts)
    np.testing.assert_array_equal(np.bincount(buckets, minlength=10_000), counts)


def test_unicode_tables_are_those_of_this_python_where_versions_agree():
    if unicodedata.unidata_version != unicode_tables.UNICODE_VERSION:
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}")
    for code_point in range(0x110000):
        char = chr(code_point)
        is_word = char.isalnum() or char == "_"
        expected_class = (
            unicode_tables.WORD
            if is_word
            else unicode_tables.SPACE
            if char.isspace()
            else unicode_tables.OTHER
        )
        expected_lower = 0x69 if code_point == 0x130 else ord(char.lower())
        assert unicode_tables.lookup(code_point) == (expected_class, expected_lower)


def test_lower_case_keeps_the_class_so_that_order_of_lowering_and_splitting_is_free():
    code_points = np.arange(0x110000)
    entries = unicode_tables.PAGES[
        unicode_tables.PAGE_OF[code_points >> 8].astype(np.int64) * 256 + code_points % 256
    ]
    lower = code_points + (entries >> 2)
    assert (entries & 3 == entries[lower] & 3).all()
    assert (entries[lower] >> 2 == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_those_of_pythons_re(seed):
    for item in random_texts(seed, 30):
        plain = item.replace("İ", "").replace("Σ", "")  # the two documented deviations
        lower = plain.lower()
        assert list(reference.tokens(plain.encode(), punctuation=False)) == re.findall(r"\w+", lower)
        assert list(reference.tokens(plain.encode(), punctuation=True)) == re.findall(r"\w+|[^\w\s]+", lower)


def test_the_two_deviations_from_str_lower():
    assert list(reference.tokens("İstanbul ΟΔΟΣ".encode(), punctuation=False)) == ["istanbul", "οδοσ"]


def test_wordpunct_example_of_dsir():
    found = list(reference.tokens(b"Alice's e-mail: a_b 3.5% ok...", punctuation=True))
    assert found == ["alice", "'", "s", "e", "-", "mail", ":", "a_b", "3", ".", "5", "%", "ok", "..."]


def test_token_hashes_are_distinct():
    words = {f"{prefix}{i}" for prefix in ("", "a", "word", "eight888", "nine99999") for i in range(20_000)}
    hashes = {reference.token_hash(word) for word in words}
    assert len(hashes) == len(words)
    top_halves = {value >> 32 for value in hashes}
    assert len(top_halves) > len(words) - 10  # 100,000 values in 2^32: 1.2 collisions expected


def test_hash128_columns_are_xxh64_of_two_seeds():
    offsets, data = text_buffers(pa.array(["", "a", "x" * 31, "y" * 32, "z" * 100], pa.large_string()))
    out = run_hash128(hashing, offsets, data)[0]
    assert int(out[0, 0]) == 0xEF46DB3751D8E999  # xxHash's published value for no input and seed 0
    np.testing.assert_array_equal(out, run_hash128(reference, offsets, data)[0])


def kolmogorov_smirnov(sample):
    """Distance between the sample's distribution and U(0, 1)."""
    ordered = np.sort(sample)
    steps = np.arange(len(sample) + 1) / len(sample)
    return max(np.abs(ordered - steps[:-1]).max(), np.abs(ordered - steps[1:]).max())


@pytest.mark.parametrize("keys", ["hashes", "small integers"])
def test_draws_are_uniform_and_purposes_and_seeds_independent(keys):
    n_docs = 100_000
    key_pairs = np.zeros((n_docs, 2), np.uint64)
    if keys == "hashes":
        key_pairs[:] = np.random.default_rng(1).integers(0, 2**64, (n_docs, 2), np.uint64)
    else:
        key_pairs[:, 1] = np.arange(n_docs)
    streams = [
        hashing.uniform(hashing.unit_draws(key_pairs, seed, purpose))
        for seed, purpose in [
            (0, "sample"),
            (0, "select"),
            (1, "sample"),
            (1, "select"),
            (2**64 - 1, "sample"),
        ]
    ]
    for stream in streams:
        assert kolmogorov_smirnov(stream) < 1.95 / np.sqrt(n_docs)  # P = 0.001
        assert abs(np.corrcoef(stream[:-1], stream[1:])[0, 1]) < 4 / np.sqrt(n_docs)
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlations).max() < 4 / np.sqrt(n_docs)


def test_uniform_is_strictly_inside_0_and_1():
    units = hashing.uniform(np.array([0, 2**11 - 1, 2**11, 2**63, 2**64 - 1], np.uint64))
    assert units[0] == units[1] == 0.5 / 2**53
    assert 0.0 < units.min() < units.max() < 1.0
    assert (np.diff(units) >= 0).all()


def test_affine32_golden_vectors_of_datasketch():
    a, b = minhash.affine32_params(4)
    assert a[:2].tolist() == [3582191691, 4270784983]
    assert b[:2].tolist() == [491263, 550290313]
    sketch = MinHash(num_perm=4, seed=1, scheme="affine32")
    sketch.update_batch([b"the quick", b"quick brown", b"brown fox"])
    assert sketch.hashvalues.tolist() == [171415518, 2947859791, 834529472, 463664658]


@pytest.mark.parametrize("num_perm, ngram, seed", [(128, 5, 1), (64, 1, 7), (37, 3, 42)])
def test_signatures_equal_datasketch_bit_for_bit(num_perm, ngram, seed):
    offsets, data = text_buffers(pa.array(random_texts(13, 60, 0.8), pa.large_string()))
    a, b = minhash.affine32_params(num_perm, seed)
    signatures = doc_array(offsets, num_perm, dtype=np.uint32)
    minhash.minhash_signatures(offsets, data, ngram, a, b, signatures, doc_array(offsets))
    first, shingles = minhash.shingle_hashes(offsets, data, ngram)
    for doc, signature in enumerate(signatures):
        sketch = MinHash(num_perm=num_perm, seed=seed, scheme="affine32", hashfunc=int)
        sketch.update_batch((shingles[first[doc] : first[doc + 1]] >> np.uint64(32)).tolist())
        np.testing.assert_array_equal(signature, sketch.hashvalues)


def test_signatures_estimate_the_jaccard_similarity():
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(5000)]
    for overlap in (0, 200, 500, 800, 1000):
        chosen = rng.choice(words, 2000 - overlap, replace=False)
        texts = [" ".join(chosen[:1000]), " ".join(chosen[1000 - overlap :])]
        left, right = run_signatures(minhash, *text_buffers(pa.array(texts, pa.large_string())), 1, 1024)[0]
        jaccard = overlap / (2000 - overlap)
        assert abs((left == right).mean() - jaccard) < 4 * np.sqrt(0.25 / 1024)


def test_a_text_of_fewer_words_than_a_shingle_is_one_shingle_and_a_text_without_words_has_none():
    texts = pa.array(["One two", "one, TWO!", "two one", "one two three", "", " ... "], pa.large_string())
    signatures, n_words = run_signatures(minhash, *text_buffers(texts), 5, 16)
    assert n_words.tolist() == [2, 2, 2, 3, 0, 0]
    np.testing.assert_array_equal(signatures[0], signatures[1])
    assert (signatures[0] != signatures[2]).all()
    assert (signatures[0] != signatures[3]).any()
    assert (signatures[4:] == minhash.EMPTY).all()


def test_band_hashes_of_equal_rows_differ_between_bands():
    signatures = np.full((1, 12), 5, np.uint32)
    out = np.empty((1, 4), np.uint64)
    minhash.band_hashes(signatures, 4, 3, out)
    assert len(set(out[0].tolist())) == 4
    with pytest.raises(ValueError, match="bands"):
        minhash.band_hashes(signatures, 5, 3, np.empty((1, 5), np.uint64))


@pytest.mark.parametrize(
    "threshold, num_perm, expected",
    [
        (0.5, 128, (25, 5)),
        (0.7, 128, (14, 9)),
        (0.75, 128, (11, 11)),
        (0.8, 128, (9, 13)),
        (0.85, 128, (8, 16)),
        (0.9, 128, (5, 25)),
        (0.7, 256, (25, 10)),
        (0.8, 256, (17, 15)),
        (0.7, 64, (8, 8)),
        (0.75, 112, (11, 10)),
        (0.45, 256, (47, 5)),
    ],
)
def test_optimal_bands_are_those_of_datasketch(threshold, num_perm, expected):
    assert optimal_bands(threshold, num_perm) == expected


def test_optimal_bands_equal_datasketch_for_other_parameters():
    lsh = pytest.importorskip("datasketch.lsh")
    for threshold in (0.2, 0.35, 0.6, 0.95):
        for num_perm in (2, 9, 40):
            assert optimal_bands(threshold, num_perm) == lsh._optimal_param(threshold, num_perm, 0.5, 0.5)


@pytest.mark.parametrize("n_edges", [0, 1, 30, 150, 1000])
def test_components_equal_their_twin_and_do_not_depend_on_the_order_of_edges(n_edges):
    rng = np.random.default_rng(n_edges)
    n = 200
    left, right = rng.integers(0, n, (2, n_edges))
    expected = np.arange(n, dtype=np.uint32)
    reference.connect(left, right, expected)
    reference.find_roots(expected)
    for order in (slice(None), slice(None, None, -1), rng.permutation(n_edges)):
        parent = np.arange(n, dtype=np.uint32)
        half = n_edges // 2
        edges = np.ascontiguousarray(left[order]), np.ascontiguousarray(right[order])
        groups.connect(edges[0][:half], edges[1][:half], parent)
        groups.connect(edges[1][half:], edges[0][half:], parent)
        assert (parent <= np.arange(n)).all()
        groups.find_roots(parent)
        np.testing.assert_array_equal(parent, expected)


def test_a_long_chain_has_its_smallest_member_as_root():
    n = 100_000
    for left in (np.arange(n - 1), np.arange(n - 1)[::-1].copy()):
        parent = np.arange(n, dtype=np.uint32)
        groups.connect(left, left + 1, parent)
        groups.find_roots(parent)
        assert not parent.any()


def test_connect_refuses_members_outside_parent_and_changes_nothing():
    parent = np.arange(3, dtype=np.uint32)
    for bad in (3, -1):
        with pytest.raises(IndexError, match="outside"):
            groups.connect(np.array([0, 0]), np.array([1, bad]), parent)
    assert parent.tolist() == [0, 1, 2]


def test_text_buffers_are_read_only_views_of_large_strings():
    array = pa.array(["one", "two", None, "four"], pa.large_string())
    offsets, data = text_buffers(array.slice(1))
    assert offsets.tolist() == [3, 6, 6, 10]
    assert data.ctypes.data == array.buffers()[2].address
    assert not offsets.flags.writeable
    assert not data.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", None, "b"], pa.string()),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.chunked_array([["a"], [None, "b"]], pa.large_string()),
        pa.chunked_array([["a", None, "b"]], pa.string()),
    ],
)
def test_text_buffers_takes_every_kind_of_string_column(array):
    offsets, data = text_buffers(array)
    assert offsets.dtype == np.int64
    assert reference.documents(offsets, data) == [b"a", b"", b"b"]


def test_text_buffers_of_no_text():
    for array in (pa.chunked_array([], pa.string()), pa.array([], pa.string()), pa.nulls(0)):
        offsets, data = text_buffers(array)
        assert offsets.tolist() == [0]
        assert data.size == 0
    assert text_buffers(pa.nulls(2))[0].tolist() == [0, 0, 0]
    with pytest.raises(TypeError, match="int64"):
        text_buffers(pa.array([1, 2]))


def test_bad_parameters_are_refused():
    offsets, data = BATCHES["nulls"]
    with pytest.raises(ValueError, match="ngram"):
        minhash.shingle_hashes(offsets, data, 0)
    with pytest.raises(ValueError, match="order"):
        ngrams.ngram_lists(offsets, data, 0, 10)
    with pytest.raises(ValueError, match="n_buckets"):
        ngrams.ngram_lists(offsets, data, 1, 0)
    with pytest.raises(ValueError, match="out"):
        ngrams.count_ngrams(offsets, data, 1, 10, np.zeros(9, np.int64))


def test_kernels_are_cached_in_a_folder_that_survives_or_else_in_the_temporary_one(tmp_path):
    program = (
        "import os, sys, dataselect.kernels; print(os.environ['NUMBA_CACHE_DIR'], 'numba' in sys.modules)"
    )
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def cache_folder(**variables):
        environment = {"PATH": "", "PYTHONPATH": str(Path(text.__file__).parents[2]), **variables}
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()

    folder, numba_is_loaded = cache_folder(XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert Path(folder).parent == tmp_path / "cache" / "dataselect" / "numba"
    assert numba_is_loaded == "False"
    assert Path(cache_folder(HOME=str(tmp_path))[0]).parent == tmp_path / ".cache" / "dataselect" / "numba"
    assert (
        Path(cache_folder(XDG_CACHE_HOME=str(blocked), TMPDIR=str(temporary))[0]).parent.parent == temporary
    )
    assert cache_folder(NUMBA_CACHE_DIR="/given")[0] == "/given"


@pytest.mark.parametrize("seed", range(20))
def test_bucket_pairs_equal_their_twin(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 2, 3, 16, 17, 40, 300], 6)
    starts = np.append(0, np.cumsum(sizes))
    members = rng.permutation(2000)[: starts[-1]].astype(np.uint32)
    for kept in (np.empty(0, np.uint8), rng.integers(0, 2, 2000).astype(np.uint8)):
        found = []
        for module in (groups, reference):
            out = np.zeros(int(np.maximum(256, sizes).sum()), np.uint64)
            found.append((module.bucket_pairs(members, starts, kept, out), out.tolist()))
        assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(20))
def test_keep_greedy_equals_its_twin(seed):
    rng = np.random.default_rng(seed)
    n_docs = 60
    worse = rng.integers(1, n_docs, 80).astype(np.uint64)
    better = (rng.random(80) * worse).astype(np.uint64)
    pairs = np.unique(worse << np.uint64(32) | better)
    copies = np.unique(rng.integers(n_docs, n_docs + 20, 10)).astype(np.uint64)
    originals = rng.integers(0, n_docs, len(copies)).astype(np.uint64)
    pairs = np.concatenate([pairs, copies << np.uint64(32) | originals])
    is_copy = (np.arange(len(pairs)) >= len(pairs) - len(copies)).astype(np.uint8)
    similarity = rng.random(len(pairs)).astype(np.float32)
    half = len(pairs) // 2
    found = []
    for module in (groups, reference):
        keeper, best = np.arange(n_docs + 20, dtype=np.uint32), np.zeros(n_docs + 20, np.float32)
        for part in (slice(half), slice(half, None)):
            module.keep_greedy(pairs[part], similarity[part], is_copy[part], keeper, best)
        found.append((keeper.tolist(), best.tolist()))
    assert found[0] == found[1]


def test_count_matches_and_count_common_equal_their_twins():
    rng = np.random.default_rng(5)
    left, right = (rng.integers(0, 3, (50, 130)).astype(np.uint8) for _ in range(2))
    sets = [np.unique(rng.integers(0, 60, n).astype(np.uint64)) for n in (0, 1, 5, 30, 90, 200)]
    offsets = np.append(0, np.cumsum([len(s) for s in sets]))
    a, b = (index.ravel() for index in np.indices((6, 6)))
    found = []
    for module in (jaccard, reference):
        matches, common = np.zeros(50, np.uint16), np.zeros(36, np.int64)
        module.count_matches(left, right, matches)
        module.count_common(offsets, np.concatenate(sets), a, b, common)
        found.append((matches.tolist(), common.tolist()))
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="same shape"):
        jaccard.count_matches(left, right[:, :-1].copy(), np.zeros(50, np.uint16))


def test_compact_signatures_estimate_as_whole_ones_do():
    stage = registry()["minhash_dedup"](num_perm=1024)
    texts = [" ".join(f"w{i}" for i in range(k, k + 1000)) for k in (0, 0, 111, 500, 2000)]
    signatures, _ = run_signatures(minhash, *text_buffers(pa.array(texts, pa.large_string())), 1, 1024)
    compact = minhash.compact_signatures(signatures)
    for other in range(1, 5):
        whole = (signatures[0] == signatures[other]).mean()
        matches = np.array([(compact[0] == compact[other]).sum()], np.uint16)
        assert stage.estimates(matches)[0] == pytest.approx(whole, abs=0.015)
