"""fastText models of every kind, made up byte by byte, against the package; and files that lie."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from fasttext_files import LOSS_NUMBERS, MadeModel

from dataselect.core.errors import BadModel
from dataselect.io.fasttext_model import read_header
from dataselect.io.fasttext_tables import huffman_paths, label_names, prepare
from dataselect.kernels import fasttext as kernel
from dataselect.kernels import reference_fasttext as reference
from dataselect.stages.base import Texts
from dataselect.stages.fasttext_label import FastTextLabel
from dataselect.stages.fasttext_quality import FastTextQuality
from dataselect.training.fasttext_process import ZEROED_MEMORY

WORDS = (  # noqa: SIM905
    "the a of and data model café naïve日本 語 Füße παράδειγμα слово 🙂 x y z <b> don't 1,234 "
    "</s </S> __label > longer-than-most-words-in-this-little-vocabulary"
).split()
FIXED_TEXTS = [
    b"",
    b" ",
    b"\n",
    b"\t\v\f\r\0",
    b"the </s> of",
    b"</s>",
    b"__label__L0 the __label__zz of __label__",
    b"\0a\0",
    b"\xff\x80the \x80a \xe6\x97",
    "no-break\u00a0space \u3000 next\u0085line \U0001f642\u0301".encode(),
    b"w" * 1100,
    "日本".encode() * 500,
    b"the </s>\nof the",
]


def random_model(rng: random.Random, seed: int) -> MadeModel:
    n_labels = rng.choice([2, 2, 3, 5, 9, 40])
    loss = rng.choice(sorted(LOSS_NUMBERS))
    bucket = rng.choice([1, 2, 50, 64, 1000, 8192, 9999])
    quantised = rng.random() < 0.5
    kept = None
    if quantised and rng.random() < 0.6:
        kept = rng.sample(range(bucket), rng.choice([0, 1, bucket // 2, bucket]))
    counts = [rng.choice([1, 7, 7, 100, rng.randrange(1, 10**6)]) for _ in range(n_labels)]
    minn, maxn = rng.choice([(0, 0), (0, 0), (0, 3), (1, 1), (1, 4), (2, 4), (3, 6), (4, 2)])
    return MadeModel(
        words=[b"</s>"] * (rng.random() < 0.8)
        + [word.encode() for word in rng.sample(WORDS, rng.randrange(len(WORDS)))],
        labels=[
            b"__label__L%d" % i for i in range(1 if loss in ("ova", "ns") and seed % 9 == 0 else n_labels)
        ],
        dim=rng.choice([1, 2, 3, 5, 8, 16, 17, 30]),
        loss=loss,
        bucket=bucket,
        minn=minn,
        maxn=maxn,
        word_ngrams=rng.randrange(1, 6),
        kept=kept,
        quantised=quantised,
        quantised_output=rng.random() < 0.5,
        norms=rng.random() < 0.5,
        dsub=rng.choice([1, 2, 3, 40]),
        scale=rng.choice([0.5, 3.0]),
        seed=seed,
        version=12 if rng.random() < 0.9 else 11,
        label_counts=sorted(counts, reverse=True)[: None if loss not in ("ova", "ns") or seed % 9 else 1],
    )


def random_texts(rng: random.Random, n: int) -> list[bytes]:
    texts = [*FIXED_TEXTS]
    for _ in range(n):
        pieces = []
        for _ in range(rng.randrange(60)):
            noise = bytes(rng.choices(b"abcxyz\xc3\xa9\xe6\x97\xff", k=rng.randrange(1, 9)))
            character = chr(rng.choice([*range(0x21, 0x250), 0x65E5, 0x1F642])).encode()
            pieces += [rng.choice([rng.choice(WORDS).encode(), character, noise])]
            pieces += [rng.choice([b" ", b" ", b"\n", b"\t", b"\0", b"  ", b"\r\n", b""])]
        texts.append(b"".join(pieces))
    return texts


def buffers(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return offsets, np.frombuffer(b"".join(texts) + b"tail", dtype=np.uint8)


def library_scores(path, texts: list[bytes], labels: list[str]) -> np.ndarray:
    fasttext = pytest.importorskip("fasttext", reason="the package is what is compared with")
    model = fasttext.load_model(str(path))
    out = np.full((len(texts), len(labels)), np.nan)
    for row, text in enumerate(texts):
        # A threshold whose logarithm is NaN: at 0 hierarchical softmax leaves out labels below 1e-5.
        predicted = model.f.predict(text.replace(b"\n", b" ") + b"\n", -1, -1.0, "strict")
        found = {name.removeprefix("__label__"): probability for probability, name in predicted}
        out[row] = [found.get(label, np.nan) for label in labels]
    return out


def repeats_rows(made: MadeModel, text: bytes) -> bool:
    """Whether few rows come thousands of times: the package's float32 sum errs one way; it alone is off."""
    return len(text) > 1000 or made.bucket <= 64


def is_near_a_step(model, text: bytes, label: int, margin: float) -> bool:
    """Whether a logit is within `margin` of a step of the library's sigmoid table."""
    starts, raw = model["word_starts"], model["word_bytes"].tobytes()
    entries = {raw[starts[i] : starts[i + 1]]: i for i in range(len(starts) - 1)}
    rows = reference.rows_of(text, entries, model["settings"], model["kept"])
    n_rows = sum(int(model["word_n_rows"][r]) if r < len(model["word_n_rows"]) else 1 for r in rows)
    mean = [total / n_rows for total in reference._sums(rows, model["table"])]
    position = (reference._logits(mean, model)[model["label_nodes"][label]] + 8) * 32
    return abs(position - round(position)) <= margin * 32


def compare(made: MadeModel, path, texts: list[bytes]) -> np.ndarray:
    """Each document's largest difference from the package over all labels, near steps left out."""
    made.write(path)
    model, labels = prepare(path), read_header(path).labels
    assert label_names(model) == labels
    ours = kernel.score_texts(*buffers(texts), model)
    expected = library_scores(path, texts, labels)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(expected))
    difference = np.nan_to_num(np.abs(ours - expected))
    if made.loss in ("ova", "ns"):
        for row, label in zip(*np.nonzero(difference > 1e-6), strict=True):
            margin = 1e-3 if repeats_rows(made, texts[row]) else 1e-4
            if is_near_a_step(model, texts[row], label, margin):
                difference[row, label] = 0
    check_best(model, texts, expected)
    return difference.max(axis=1)


def check_best(model, texts: list[bytes], expected: np.ndarray) -> None:
    best, score = kernel.best_labels(*buffers(texts), model)
    for row, probabilities in enumerate(expected):
        if np.isnan(probabilities).all():
            assert best[row] == -1
            assert np.isnan(score[row])
        else:
            assert probabilities[best[row]] >= probabilities.max() - (
                0.01 if model["settings"][5] in (2, 4) else 2e-6
            )


def kind_of(made: MadeModel) -> tuple[str, str]:
    kind = "dense" if not made.quantised else "quantised" if made.kept is None else "pruned"
    return made.loss, kind + (", qout" if made.quantised and made.quantised_output else "")


def compare_many(folder, seeds: range, n_texts: int) -> dict[tuple[str, str], list[float]]:
    """(loss, kind) -> [documents without repeats, their largest difference]; fails where they differ."""
    table: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for seed in seeds:
        rng = random.Random(seed)
        made, texts = random_model(rng, seed), random_texts(rng, n_texts)
        difference = compare(made, folder / "m.bin", texts)
        repeats = np.array([repeats_rows(made, text) for text in texts])
        assert difference[repeats].max(initial=0) <= 1e-4, (seed, made)
        assert difference[~repeats].max(initial=0) <= 1e-6, (seed, made)
        entry = table[kind_of(made)]
        entry[:] = entry[0] + (~repeats).sum(), max(entry[1], difference[~repeats].max(initial=0))
    return table


def test_made_up_models_score_as_the_package_does(tmp_path):
    assert len(compare_many(tmp_path, range(60), 10)) > 8


@pytest.mark.slow
def test_many_made_up_models_score_as_the_package_does(tmp_path):
    assert len(compare_many(tmp_path, range(1000, 3000), 40)) == 20


@pytest.mark.parametrize("seed", range(400, 416))
def test_kernel_matches_reference_bit_for_bit_on_every_kind(seed, tmp_path):
    rng = random.Random(seed)
    made = random_model(rng, seed)
    made.write(tmp_path / "m.bin")
    model = prepare(tmp_path / "m.bin", rng.sample(read_header(tmp_path / "m.bin").labels, 1) * 2)
    offsets, data = buffers(random_texts(rng, 5))
    for array in (*model.values(), offsets, data):
        array.setflags(write=False)
    slow = reference.score_texts(offsets, data, model)
    np.testing.assert_array_equal(kernel.score_texts(offsets, data, model), slow)
    np.testing.assert_array_equal(kernel.score_texts(offsets[3:9], data, model), slow[3:8])


@pytest.mark.parametrize("dim, dsub", [(1, 1), (5, 2), (6, 2), (7, 40)])
def test_folding_matches_reference_bit_for_bit(dim, dsub):
    rng = np.random.default_rng(dim)
    codes = rng.integers(0, 256, (20, -(-dim // dsub)), dtype=np.uint8)
    centroids = rng.normal(size=dim * 256).astype(np.float32)
    norms = rng.normal(size=20).astype(np.float32)
    both = []
    for module in (kernel, reference):
        rows = np.empty((20, dim), dtype=np.float32)
        module.dequantise(codes, centroids, dsub, norms, rows)
        folded = np.zeros((20, 4), dtype=np.float32)
        module.fold_rows(rows, np.random.default_rng(2).normal(size=(dim, 3)), folded)
        one = np.zeros((20, 1), dtype=np.float32)
        module.fold_rows(rows, np.random.default_rng(2).normal(size=(dim, 1)), one)
        both.append((rows, folded, one))
    for ours, slow in zip(*both, strict=True):
        np.testing.assert_array_equal(ours, slow)


@pytest.mark.parametrize("kept", [None, [5, 63, 64, 0, 99]])
def test_words_with_their_character_ngrams_match_reference_bit_for_bit(kept):
    words = [b"</s>", *(word.encode() for word in WORDS), b"\xff\x80", b"w" * 3000]
    starts, raw = buffers(words)
    settings = np.array([len(words), 100, 1, 5, 1, 3, 0, 1], dtype=np.int64)
    bitmap = np.zeros((0 if kept is None else 2, 2), dtype=np.uint64)
    for bucket in kept or ():
        bitmap[bucket // 64, 0] |= np.uint64(1 << bucket % 64)
    if kept:
        bitmap[1, 1] = 3
    both = []
    for module in (kernel, reference):
        table = np.random.default_rng(1).normal(size=(len(words) + 100, 2)).astype(np.float32)
        n_rows = np.empty(len(words), dtype=np.int32)
        module.add_subwords(starts, raw, settings, bitmap, table, n_rows)
        both.append((table, n_rows))
    np.testing.assert_array_equal(both[0][0], both[1][0])
    np.testing.assert_array_equal(both[0][1], both[1][1])
    assert both[0][1][0] == 1


def test_what_is_prepared_is_the_same_every_time_and_for_every_buffer(tmp_path):
    for seed in range(500, 510):
        made = random_model(random.Random(seed), seed)
        made.write(tmp_path / "m.bin")
        first = prepare(tmp_path / "m.bin")
        for n_bytes in (8 << 20, 1, 1000):
            for name, array in prepare(tmp_path / "m.bin", block_bytes=n_bytes).items():
                assert array.tobytes() == first[name].tobytes(), (seed, name)


def test_tables_are_folded_where_that_is_smaller_and_hold_hidden_vectors_else(tmp_path):
    labels = [b"__label__L%d" % i for i in range(40)]
    for loss, wanted, n_columns, n_output in [
        ("softmax", ["L3"], 32, 30),  # 39 differences, more than 30 dimensions
        ("ova", ["L3"], 1, 0),
        ("ns", ["L3", "L7", "L3"], 2, 0),
        ("hs", ["L0"], 1, 0),
    ]:
        counts = [10**9, *[5] * 39]  # the first label is next to the root
        made = MadeModel([b"</s>"], labels, dim=30, loss=loss, label_counts=counts)
        made.write(tmp_path / "m.bin")
        model = prepare(tmp_path / "m.bin", wanted)
        assert model["table"].shape[1] == n_columns
        assert len(model["output"]) == n_output
        whole = kernel.score_texts(*buffers([b"a", b""]), prepare(tmp_path / "m.bin"))
        asked = [int(name[1:]) for name in wanted]
        np.testing.assert_allclose(
            kernel.score_texts(*buffers([b"a", b""]), model), whole[:, asked], rtol=0, atol=1e-6
        )


def test_paths_of_the_huffman_tree_are_those_of_the_counts():
    # Nodes: 4 = (3, 2), 5 = (4, 1), 6 = (0, 5); a left turn to the one taken first.
    assert huffman_paths(np.array([8, 4, 2, 1])) == [[5], [4, 3], [4, 2, 1], [4, 2, 0]]
    assert huffman_paths(np.array([1])) == [[]]


QUANTISE = """
import json, sys, fasttext
folder, params = sys.argv[1], json.loads(sys.argv[2])
for i, (loss, quantise) in enumerate(params):
    model = fasttext.train_supervised(
        folder + "/t.txt", loss=loss, epoch=2, dim=10, minn=2, maxn=4, bucket=3000, wordNgrams=2, thread=1,
        verbose=0,
    )
    model.quantize(folder + "/t.txt", thread=1, **quantise)
    model.save_model(f"{folder}/{i}.bin")  # the content decides, not the name
"""


def test_models_that_the_package_quantised_score_as_the_package_does(tmp_path):
    pytest.importorskip("fasttext")
    rng = random.Random(4)
    lines = [
        f"__label__L{i % 260} " + " ".join(f"{rng.choice(WORDS)}{rng.randrange(40)}" for _ in range(12))
        for i in range(800)
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines) + "\n", "utf-8")
    texts = [line.split(" ", 1)[1].encode() for line in lines[:50]] + FIXED_TEXTS
    variants = [
        ("softmax", {}),
        ("hs", {"cutoff": 600, "retrain": True, "qnorm": True, "qout": True}),
        ("ova", {"cutoff": 400, "qnorm": True, "dsub": 3}),
        ("hs", {"cutoff": 300}),
    ]
    # In a process of its own: the package trains on uninitialised memory, which is garbage in a used one.
    subprocess.run(
        [sys.executable, "-c", QUANTISE, str(tmp_path), json.dumps(variants)],
        env={**os.environ, **ZEROED_MEMORY},
        check=True,
        timeout=120,
    )
    for i, (loss, quantise) in enumerate(variants):
        header = read_header(tmp_path / f"{i}.bin")
        is_pruned = header.kept_buckets is not None or header.bucket == 0  # 0: only words were kept
        assert is_pruned == ("cutoff" in quantise)
        expected = library_scores(header.path, texts, header.labels)
        scores = kernel.score_texts(*buffers(texts), prepare(header.path))
        near = np.abs(scores - expected) <= (0.01 if loss == "ova" else 1e-6)
        assert (near | (np.isnan(scores) & np.isnan(expected))).all()


SMALL = [
    MadeModel([b"</s>", b"the"], [b"__label__a", b"__label__b"], dim=3, bucket=6, word_ngrams=2),
    MadeModel(
        [b"</s>", b"the"], [b"__label__a", b"__label__b"], dim=3, bucket=70, word_ngrams=2, minn=1, maxn=2,
        kept=[3, 65, 0], quantised=True, quantised_output=True, norms=True, loss="hs",
    ),
]  # fmt: skip


@pytest.mark.parametrize("made", SMALL, ids=["bin", "ftz"])
def test_every_truncation_is_a_clear_error(made, tmp_path):
    made.write(tmp_path / "m.bin")
    whole, cut = (tmp_path / "m.bin").read_bytes(), tmp_path / "cut.bin"
    starts = [*made.sections.values(), len(whole)]
    points = {n for at in starts for n in range(at - 30, at + 30) if n < len(whole)} | {
        *range(len(whole) % 97, len(whole), 97)
    }
    for n_bytes in sorted(n for n in points if n >= 0):
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(BadModel, match=r"^\S*cut\.bin: (the fastText model is truncated|not a fastText)"):
            read_header(cut)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(BadModel, match="1 bytes follow its end"):
        read_header(cut)


LIES = [-(2**31), -1, 0, 1, 2, 3, 7, 255, 256, 2**16, 2**24, 2**31 - 1]


@pytest.mark.parametrize("made", SMALL, ids=["bin", "ftz"])
def test_every_number_may_lie_and_no_memory_is_taken_for_it(made, tmp_path):
    made.write(tmp_path / "m.bin")
    whole = (tmp_path / "m.bin").read_bytes()
    values = [name for name in made.sections if name.endswith(("values", "codes", "centroids", "norms"))]
    skipped = {
        at
        for name, begin in made.sections.items()
        for at in range(begin, min([*(v for v in made.sections.values() if v > begin), len(whole)]))
        if name in values
    }
    lying = tmp_path / "lying.bin"
    tracemalloc.start()
    for at in range(len(whole) - 3):
        if {*range(at, at + 4)} & skipped:
            continue
        for lie in LIES if at % 3 == 0 else LIES[-1:]:
            lying.write_bytes(whole[:at] + struct.pack("<i", lie) + whole[at + 4 :])
            with contextlib.suppress(BadModel):
                prepare(lying)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("model", 2, "holds word vectors"),
        ("model", 1, "holds word vectors"),
        ("model", 9, "model is 9"),
        ("version", 13, "version 13 is not supported; versions 11 and 12 are"),
        ("version", 10, "version 10 is not supported"),
        ("dim", 0, "dim is 0"),
        ("minn", -1, "minn is -1"),
        ("word_ngrams", 10**6, "word_ngrams is 1000000"),
    ],
)
def test_headers_of_other_kinds_are_named(field, value, said, tmp_path):
    made = MadeModel([b"</s>"], [b"__label__a", b"__label__b"], bucket=0)
    if field == "dim":
        made.write(tmp_path / "m.bin")
        raw = (tmp_path / "m.bin").read_bytes()
        (tmp_path / "m.bin").write_bytes(raw[:8] + struct.pack("<i", value) + raw[12:])
    else:
        setattr(made, field, value)
        made.write(tmp_path / "m.bin")
    with pytest.raises(BadModel, match=said):
        read_header(tmp_path / "m.bin")


def test_one_label_is_a_mistake_where_it_always_scores_one(tmp_path):
    for loss in ("softmax", "hs"):
        MadeModel([b"</s>"], [b"__label__a"], loss=loss).write(tmp_path / "m.bin")
        with pytest.raises(BadModel, match="one label only"):
            read_header(tmp_path / "m.bin")
    MadeModel([b"</s>"], [b"__label__a"], loss="ova").write(tmp_path / "m.bin")
    assert 0 < kernel.score_texts(*buffers([b""]), prepare(tmp_path / "m.bin"))[0, 0] < 1.1


def test_weights_that_are_nan_are_refused_wherever_they_are(tmp_path):
    for made in SMALL:
        made.write(tmp_path / "m.bin")
        raw = (tmp_path / "m.bin").read_bytes()
        for name in ("input values", "output values", "input norms centroids", "output centroids"):
            if name in made.sections:
                at = made.sections[name]
                many = 4 * 256 if "norms" in name else 4
                nans = struct.pack("<f", float("nan")) * (many // 4)
                if "output centroids" in name:
                    nans = struct.pack("<f", float("inf")) * 768
                (tmp_path / "n.bin").write_bytes(raw[:at] + nans + raw[at + len(nans) :])
                with pytest.raises(BadModel, match="NaN or infinite"):
                    prepare(tmp_path / "n.bin")


@pytest.fixture
def topics(tmp_path):
    made = MadeModel([b"</s>", b"the", b"of"], [b"__label__news", b"__label__wiki", b"__label__code"], dim=8)
    made.write(tmp_path / "topics.ftz")
    return str(tmp_path / "topics.ftz")


TEXTS = Texts(pa.array(["the", "of the", "", "the </s>", "unseen"], pa.large_string()))


def test_quality_gives_a_sum_and_a_column_for_each_label(topics):
    stage = FastTextQuality(model=topics, label=["news", "__label__code"], labels="all", **{"as": "q"})
    stage.check_files()
    columns = stage.columns(TEXTS, stage.prepare())
    assert list(columns) == list(stage.output_columns()) == ["q", "q_news", "q_wiki", "q_code"]
    np.testing.assert_allclose(columns["q"], columns["q_news"] + columns["q_code"], atol=1e-7)
    np.testing.assert_allclose(sum(columns[f"q_{x}"] for x in ("news", "wiki", "code")), 1 + 3e-5, atol=1e-6)
    alone = FastTextQuality(model=topics, labels=["__label__wiki"])
    np.testing.assert_array_equal(alone.columns(TEXTS, alone.prepare())["quality_wiki"], columns["q_wiki"])
    assert alone.keep({}) == {}


@pytest.mark.parametrize(
    "params, said",
    [
        ({}, "name a label"),
        ({"label": []}, "name a label"),
        ({"labels": ["a"], "min": 0.5}, "`label` must be"),
    ],
)
def test_quality_without_what_it_compares_is_refused(params, said):
    with pytest.raises(ValueError, match=said):
        FastTextQuality(model="m.bin", **params)


def test_label_names_the_best_and_drops_the_others(topics):
    stage = FastTextLabel(model=topics, only=["news", "__label__code"], min=0.4, **{"as": "topic"})
    stage.check_files()
    columns = stage.columns(TEXTS, stage.prepare())
    every = FastTextQuality(model=topics, labels="all")
    scores = np.stack([*every.columns(TEXTS, every.prepare()).values()], axis=1)
    names = np.array(["news", "wiki", "code"])[scores.argmax(axis=1)]
    assert columns["topic"].to_pylist() == names.tolist()
    np.testing.assert_array_equal(columns["topic_score"], scores.max(axis=1))
    rules = stage.keep(columns)
    assert list(rules) == ["topic not in news, code", "topic_score < 0.4"]
    np.testing.assert_array_equal(rules["topic not in news, code"], names == "wiki")
    np.testing.assert_array_equal(rules["topic_score < 0.4"], scores.max(axis=1) < np.float32(0.4))
    with pytest.raises(BadModel, match=r"no label 'wikis'; its labels are 'wiki', 'news', 'code'"):
        FastTextLabel(model=topics, only=["wikis"]).check_files()


def test_equal_probabilities_give_the_later_label_and_no_row_gives_none(tmp_path):
    made = MadeModel([b"the"], [b"__label__a", b"__label__b"], loss="ova", scale=1e-9)
    made.write(tmp_path / "m.bin")
    stage = FastTextLabel(model=str(tmp_path / "m.bin"), only=["a", "b"], min=0.0)
    columns = stage.columns(TEXTS, stage.prepare())
    assert columns["label"].to_pylist() == ["b", "b", None, "b", None]
    for broken in stage.keep(columns).values():
        assert broken.tolist() == [False, False, True, False, True]
