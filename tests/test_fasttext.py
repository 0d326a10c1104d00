"""fastText scoring against the package itself, its published hashes, and the plain-Python twin."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from dataselect.core.errors import BadModel
from dataselect.io.fasttext_model import read_header
from dataselect.io.fasttext_tables import prepare
from dataselect.kernels import fasttext as kernel
from dataselect.kernels import reference_fasttext as reference
from dataselect.training.fasttext_process import ZEROED_MEMORY

fasttext = pytest.importorskip("fasttext", reason="the fastText package trains the models compared with")

VARIANTS = {
    "unigrams": {"wordNgrams": 1},
    "bigrams": {"wordNgrams": 2, "bucket": 1000},
    "bigrams-large-bucket": {"wordNgrams": 2, "bucket": 20_011},
    "trigrams": {"wordNgrams": 3, "bucket": 500},
    "fivegrams": {"wordNgrams": 5, "bucket": 500},
    "chars": {"wordNgrams": 1, "bucket": 300, "minn": 2, "maxn": 4},
    "chars-from-one": {"wordNgrams": 2, "bucket": 300, "minn": 1, "maxn": 3},
    "rare-words-unknown": {"wordNgrams": 2, "bucket": 1000, "minCount": 5},
    "no-end-of-line": {"wordNgrams": 1, "minCount": 500},
}

WORDS = (  # noqa: SIM905
    "the a of and data model café naïve日本 語 Füße παράδειγμα слово 🙂 x y z <b> don't 1,234 "
    "</s </S> __label __labels__ longer-than-most-words-in-this-little-vocabulary"
).split()


def make_text(rng, n_words, topic):
    """Made-up words; every topic prefers its own part of the vocabulary, so that a model has something to
    learn."""
    common = rng.choices(WORDS, k=n_words)
    own = [f"t{topic}w{rng.randrange(30)}" for _ in range(n_words)]
    return " ".join(rng.choice(pair) for pair in zip(common, own, strict=True))


def train(path, n_labels=2, n_lines=300, **params):
    rng = random.Random(5)
    lines = path.with_suffix(".txt")
    with lines.open("w", encoding="utf-8") as file:
        for i in range(n_lines):
            label = i * i % n_labels if i % 3 else 0
            file.write(f"__label__L{label} {make_text(rng, rng.randrange(1, 30), label)}\n")
    defaults = {"dim": 12, "lr": 0.5, "epoch": 5, "thread": 1, "verbose": 0, "seed": 3}
    run_fasttext("train_supervised", path, input=str(lines), **{**defaults, **params})
    return fasttext.load_model(str(path))


def run_fasttext(method, path, **params):
    """In a process of its own: the package trains on uninitialised memory, which is garbage in a used one."""
    code = f"import sys, json, fasttext; fasttext.{method}(**json.loads(sys.argv[1])).save_model(sys.argv[2])"
    command = [sys.executable, "-c", code, json.dumps(params), str(path)]
    subprocess.run(command, env={**os.environ, **ZEROED_MEMORY}, check=True)


@pytest.fixture(
    scope="module", params=[(name, n) for name in VARIANTS for n in (2, 4)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def trained(request, tmp_path_factory):
    name, n_labels = request.param
    path = tmp_path_factory.mktemp("model") / "model.bin"
    return train(path, n_labels, **VARIANTS[name]), path


@pytest.fixture(scope="module")
def bigram_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.bin"
    train(path, **VARIANTS["bigrams"])
    return path


def sample_texts():
    rng = random.Random(11)
    texts = [
        "",
        " ",
        "\n",
        "the",
        "the\nmodel",
        "the\n\n a \t\v\f\r of\0and",
        "no-break\u00a0space ideographic\u3000space next\u0085line",
        "__label__L0 __label__L1 the",
        "the __label__unknown model __label__ of",
        "the model </s> of and",
        "</s>",
        "</s> the",
        "the </s>\nof",
        "a</s> </s>b",
        "entirely unseen tokens qwertz",
        "é 日本 \U0001f642\U0001f642 \u0301combining",
        "\0\0",
        "<the> > <",
        "w" * 3000,
        "日" * 700,
        make_text(rng, 5000, 0),
        " ".join(f"unseen{i}" for i in range(1100)),
    ]
    alphabet = [*WORDS, *"t0w1 t0w2 t1w1 t1w5 t2w3 __label__L0 \u00a0 \x1c \u2028 \x80 é".split(" ")]  # noqa: SIM905
    separators = [" ", " ", " ", "\n", "\t", "\0", "  ", "\r\n", "\v", "\f", ""]
    for _ in range(300):
        n_words = rng.randrange(40)
        texts.append("".join(rng.choice(alphabet) + rng.choice(separators) for _ in range(n_words)))
    characters = [chr(code) for code in [*range(0x20, 0x250), 0x65E5, 0x1F642]]
    return texts + ["".join(rng.choices(characters, k=60)) for _ in range(100)]


def buffers(texts):
    raw = [text if isinstance(text, bytes) else text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    data = np.frombuffer(b"".join(raw) + b"tail", dtype=np.uint8)
    return offsets, data


def library_score(model, text, label):
    line = text.replace(b"\n", b" ") if isinstance(text, bytes) else text.replace("\n", " ").encode()
    predicted = model.f.predict(line + b"\n", -1, 0.0, "strict")
    return {name: probability for probability, name in predicted}.get("__label__" + label, np.nan)


def scores_of(path, label, texts):
    return kernel.score_texts(*buffers(texts), prepare(path, [label]))[:, 0]


def test_scores_equal_the_package(trained):
    model, path = trained
    texts = sample_texts()
    if read_header(path).maxn > 0:
        # 5,000 words have 60,000 character n-grams, and the package's float32 sum of them is off by some
        # 1e-6.
        texts = [text for text in texts if len(text) < 2000]
    labels = read_header(path).labels
    expected = [[library_score(model, text, label) for label in labels] for text in texts]
    np.testing.assert_allclose(
        kernel.score_texts(*buffers(texts), prepare(path)), expected, rtol=0, atol=1e-6
    )
    for i, label in enumerate(labels):
        np.testing.assert_allclose(scores_of(path, label, texts), np.array(expected)[:, i], rtol=0, atol=1e-6)


def test_scores_are_exact_where_the_package_loses_digits(trained):
    # The package adds up to 60,000 float32 rows one by one; where they repeat, its rounding errors all go one
    # way.
    model, path = trained
    labels = read_header(path).labels
    matrix, output = (m.astype(np.float64) for m in (model.get_input_matrix(), model.get_output_matrix()))
    for text in ["the " * 4999, "w" * 3000, make_text(random.Random(1), 5000, 0)]:
        if np.isnan(library_score(model, text, "L0")):
            continue
        words, _ = model.get_line(text)
        known = [row for word in words for row in rows_of_word(model, word)]
        rows = [*known, *word_ngram_rows(words, model)]
        logits = output @ matrix[rows].mean(axis=0)
        shares = np.exp(logits - logits.max())
        exact = shares[labels.index("L0")] / shares.sum() + 1e-5
        assert scores_of(path, "L0", [text])[0] == pytest.approx(exact, abs=2e-7)
        assert library_score(model, text, "L0") == pytest.approx(exact, abs=2e-5)


def rows_of_word(model, word):
    """What the package itself says; it gives a word without a row the subwords of its characters."""
    entry = model.get_word_id(word)
    if read_header_of(model)["maxn"] == 0 or word == "</s>":
        return [entry] if entry >= 0 else []
    return model.get_subwords(word)[1].tolist()


def word_ngram_rows(words, model):
    settings = read_header_of(model)
    n_words = len(model.get_words())
    hashes = [reference.hash_token(word.encode()) for word in words]
    for last in range(len(hashes)):
        for ngram in reference.word_ngram_hashes(hashes, last, settings["word_ngrams"]):
            yield n_words + ngram % settings["bucket"]


def read_header_of(model):
    arguments = model.f.getArgs()
    return {"maxn": arguments.maxn, "word_ngrams": arguments.wordNgrams, "bucket": arguments.bucket}


def test_scores_of_invalid_utf8_equal_the_package(trained):
    model, path = trained
    rng = random.Random(2)
    pieces = [
        b"the",
        b"\xff",
        b"\x80\x80",
        b"\xe6\x97",
        b" ",
        b" ",
        b"\xc3",
        b"caf\xc3\xa9",
        b"t0w1",
        b"\xf0\x9f",
    ]
    texts = [b"".join(rng.choices(pieces, k=12)) for _ in range(200)]
    expected = [library_score(model, text, "L0") for text in texts]
    np.testing.assert_allclose(scores_of(path, "L0", texts), expected, rtol=0, atol=1e-6)


def test_kernel_matches_reference_bit_for_bit(trained):
    texts = [*sample_texts(), b"\xff the \x80\xe6 of", b"\xe6\x97"]
    offsets, data = buffers(texts)
    model = prepare(trained[1])
    np.testing.assert_array_equal(
        kernel.score_texts(offsets, data, model), reference.score_texts(offsets, data, model)
    )


def test_scores_do_not_depend_on_the_batch(bigram_path):
    model = prepare(bigram_path, ["L0"])
    for array in model.values():
        array.setflags(write=False)
    offsets, data = buffers(sample_texts())
    data = data.copy()
    whole = kernel.score_texts(offsets, data, model)
    for begin, end in [(0, 1), (1, 100), (100, offsets.size - 1), (7, 7)]:
        part = kernel.score_texts(offsets[begin : end + 1], data, model)
        np.testing.assert_array_equal(part, whole[begin:end])
    assert whole.dtype == np.float32


def test_newline_is_a_space_and_an_empty_text_has_a_score(bigram_path):
    scores = scores_of(bigram_path, "L0", ["the model", "the\nmodel", "\nthe \n model\n", "", "\n"])
    assert scores[0] == scores[1] == scores[2]
    assert scores[3] == scores[4]
    assert np.isfinite(scores).all()


def test_a_text_without_any_row_scores_nan_and_is_dropped(tmp_path):
    train(tmp_path / "m.bin", **VARIANTS["no-end-of-line"])
    scores = scores_of(tmp_path / "m.bin", "L0", ["", "unseen"])
    assert np.isnan(scores).all()
    stage = stage_class()(model="m.bin", label="L0", min=0.0)
    assert stage.keep({"quality": scores})["quality < 0.0"].all()


@pytest.mark.parametrize(
    "token, expected",
    [
        ("", 2166136261),
        ("a", 3826002220),
        ("the", 3020861980),
        ("</s>", 3617362777),
        ("hello", 1335831723),
        ("world", 933488787),
        ("\u00e9", 1023043777),
        ("日本", 4164387409),
    ],
)
def test_token_hash_is_that_of_the_package(token, expected):
    assert reference.hash_token(token.encode()) == expected
    slots = np.zeros((kernel.n_slots(1), 2), dtype=np.uint64)
    starts, word = buffers([token])
    kernel.fill_slots(starts, word, slots)
    assert [int(slot) >> 32 for slot in slots[:, 0] if slot] == [expected]


@pytest.mark.parametrize("word_ngrams, expected", [(2, {1485020, 1298458}), (3, {1485020, 1159053, 1298458})])
def test_word_ngram_buckets_are_those_of_the_package(word_ngrams, expected):
    settings = np.array([0, 2_000_000, 0, 0, word_ngrams, 3, -1, 1], dtype=np.int64)
    none_pruned = np.empty((0, 2), dtype=np.uint64)
    assert set(reference.rows_of(b"hello world", {}, settings, none_pruned)) == expected
    # A table that is zero but for one row tells whether the kernel reads that row.
    for row in expected:
        table = np.zeros((2_000_000, 1), dtype=np.float32)
        table[row] = 1
        model = {
            "settings": settings,
            "slots": np.zeros((2, 2), dtype=np.uint64),
            "word_starts": np.zeros(1, dtype=np.int64),
            "word_bytes": np.zeros(0, dtype=np.uint8),
            "word_n_rows": np.zeros(0, dtype=np.int32),
            "kept": none_pruned,
            "table": table,
            "output": np.empty((0, 0)),
            "label_starts": np.arange(2),
            "label_nodes": np.array([0], dtype=np.int32),
        }
        assert kernel.score_texts(*buffers(["hello world"]), model)[0, 0] < 0.45


def test_modulo_by_multiplication_equals_modulo():
    rng = np.random.default_rng(1)
    for bucket in (1 << 13, 8193, 20_011, 2_000_000, 10_000_019, 2**31 - 1):
        near = [k * bucket + d for k in (0, 1, 2**64 // bucket - 1) for d in (0, 1, bucket - 1)]
        values = [
            *near,
            2**64 - 1,
            2**63,
            2**53 + 1,
            *map(int, rng.integers(0, 2**64, 2000, dtype=np.uint64)),
        ]
        assert [int(kernel._modulo(np.uint64(v), np.uint64(bucket), 1 / bucket)) for v in values] == [
            v % bucket for v in values
        ]
    for bucket in (1, 2, 3, 7, 1 << 13, 8193, 2_000_000, 2**31 - 1):
        near = [k * bucket + d for k in (0, 1, 2**32 // bucket - 1) for d in (0, 1, bucket - 1)]
        values = [v for v in (*near, 2**32 - 1, 2**31, *map(int, rng.integers(0, 2**32, 500))) if v < 2**32]
        magic = (2**64 - 1) // bucket + 1
        assert [
            int(kernel._modulo32(np.uint64(v), np.uint64(bucket), np.uint64(magic % 2**64))) for v in values
        ] == [v % bucket for v in values]


def test_header_gives_labels_and_counts(tmp_path):
    model = train(tmp_path / "m.bin", n_labels=4, **VARIANTS["bigrams"])
    header = read_header(tmp_path / "m.bin")
    labels, counts = model.get_labels(include_freq=True)
    assert ["__label__" + label for label in header.labels] == labels
    assert header.label_counts.tolist() == counts.tolist()
    starts, raw = header.words()
    words = [raw[a:b].tobytes().decode() for a, b in pairwise(starts)]
    assert words == [*model.get_words(), *labels]
    assert (header.dim, header.bucket, header.word_ngrams, header.loss) == (12, 1000, 2, "softmax")


def test_folding_does_not_depend_on_the_block_size(bigram_path):
    first, *others = (prepare(bigram_path, ["L0"], block_bytes=n) for n in (8 << 20, 1, 1000, 4096))
    assert first["table"].shape == (read_header(bigram_path).input.n_rows, 1)
    for model in others:
        for name, array in first.items():
            np.testing.assert_array_equal(model[name], array)


def test_unknown_label_lists_the_nearest_first(bigram_path):
    with pytest.raises(BadModel, match=r"no label 'l1'; its labels are 'L1', 'L0'"):
        read_header(bigram_path).label_index("l1")
    assert read_header(bigram_path).label_index("__label__L1") == read_header(bigram_path).label_index("L1")


def test_every_truncation_is_a_clear_error(bigram_path, tmp_path):
    whole = bigram_path.read_bytes()
    cut = tmp_path / "cut.bin"
    points = {*range(300), *range(300, len(whole), len(whole) // 200), len(whole) - 1}
    for n_bytes in sorted(points):
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(
            BadModel, match=r"cut\.bin: (the fastText model is truncated|not a fastText model)"
        ):
            read_header(cut)


def test_damaged_headers_never_raise_anything_but_bad_model(bigram_path, tmp_path):
    whole = bytearray(bigram_path.read_bytes())
    rng = random.Random(3)
    damaged = tmp_path / "damaged.bin"
    for _ in range(400):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(8, 1500)] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        damaged.write_bytes(raw)
        with contextlib.suppress(BadModel):
            read_header(damaged)


def test_what_is_no_model_is_said_so(tmp_path):
    path = tmp_path / "model.bin"
    with pytest.raises(BadModel, match="can't be read: No such file"):
        read_header(path)
    path.write_bytes(random.Random(1).randbytes(5000))
    with pytest.raises(BadModel, match="not a fastText model"):
        read_header(path)
    path.write_bytes(struct.pack("<ii", 793712314, 13) + bytes(200))
    with pytest.raises(BadModel, match="version 13 is not supported"):
        read_header(path)


def test_word_vectors_are_refused(tmp_path):
    train(tmp_path / "m.bin", n_lines=30)
    params = {"dim": 4, "bucket": 100, "minCount": 1, "thread": 1, "verbose": 0, "epoch": 1}
    run_fasttext("train_unsupervised", tmp_path / "v.bin", input=str(tmp_path / "m.txt"), **params)
    with pytest.raises(BadModel, match="holds word vectors"):
        read_header(tmp_path / "v.bin")


def test_weights_that_are_nan_are_refused(bigram_path, tmp_path):
    raw = bytearray(bigram_path.read_bytes())
    offset = read_header(bigram_path).input.offset
    raw[offset : offset + 4] = struct.pack("<f", float("nan"))
    (tmp_path / "nan.bin").write_bytes(raw)
    with pytest.raises(BadModel, match="NaN or infinite"):
        prepare(tmp_path / "nan.bin", ["L0"])


def stage_class():
    base = pytest.importorskip("dataselect.stages.fasttext_quality")
    return base.FastTextQuality


def test_stage_scores_and_names_its_rules(bigram_path):
    from dataselect.stages.base import Texts

    stage = stage_class()(model=str(bigram_path), label="L0", min=0.3, max=0.9, **{"as": "q"})
    stage.check_files()
    assert stage.output_columns() == {"q": "float32"}
    texts = pa.array(["t0w1 t0w2 t0w3", "t1w1 t1w2 t1w3", ""], pa.large_string())
    columns = stage.columns(Texts(texts), stage.prepare())
    rules = stage.keep(columns)
    assert list(rules) == ["q < 0.3", "q > 0.9"]
    np.testing.assert_array_equal(rules["q < 0.3"], columns["q"] < np.float32(0.3))
    np.testing.assert_array_equal(rules["q > 0.9"], columns["q"] > np.float32(0.9))
    with pytest.raises(BadModel, match="no label 'nope'"):
        stage_class()(model=str(bigram_path), label="nope").check_files()
