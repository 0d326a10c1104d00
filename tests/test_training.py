"""`dataselect train`: what it reads, holds out, balances, reports, and how it fails."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from dataselect.core.errors import BadShard, DataselectError, Locked, RecipeError
from dataselect.core.listener import Listener
from dataselect.report.trainview import render
from dataselect.training import metrics, split
from dataselect.training.fasttext_process import ZEROED_MEMORY, Job
from dataselect.training.lines import label_name, training_line
from dataselect.training.spec import TrainSpec, check, usual_epoch, usual_lr
from dataselect.training.train import train
from dataselect.training.workspace import workspace

pytest.importorskip("fasttext", reason="training needs the fasttext package")

SHARED = [f"common{i}" for i in range(40)]


def make_text(rng, topic, n_words=20):
    """Words, half of them of the topic's own."""
    return " ".join(rng.choice([rng.choice(SHARED), f"t{topic}w{rng.randrange(30)}"]) for _ in range(n_words))


def rows_of(topic, n_rows, seed=0):
    rng = random.Random(f"{topic} {seed}")
    return [
        {"text": make_text(rng, topic), "y": f"c{topic}", "score": topic * 5 + rng.random() * 5}
        for _ in range(n_rows)
    ]


def write_rows(path, rows):
    """In the format that the ending says."""
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        path.write_bytes(zstandard.compress(data))
    else:
        path.write_bytes(data)
    return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """good-*: topic 0, bad-*: topic 1, two shards of different formats each; read only."""
    folder = tmp_path_factory.mktemp("labelled")
    for name, topic in (("good", 0), ("bad", 1)):
        rows = rows_of(topic, 300)
        if name == "good":
            rows[0]["text"] = "a __label__evil b </s> hidden\nline"
        write_rows(folder / f"{name}-a.jsonl.gz", rows[:100])
        write_rows(folder / f"{name}-b.parquet", rows[100:200])
        write_rows(folder / f"{name}-c.jsonl.zst", rows[200:])
    return folder


def spec_of(out, **options):
    small = {"dim": 8, "bucket": 2000, "lr": 0.5, "epoch": 5}
    return TrainSpec(out=out, **{**small, **options})


def two_sets(shards):
    return {"positive": (f"{shards}/good-*",), "negative": (f"{shards}/bad-*",)}


def checked(tmp_path, **options):
    check(spec_of(tmp_path / "m.bin", **options))


# Model and card ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """(model, card) of one training; read only."""
    out = tmp_path_factory.mktemp("trained") / "made" / "quality.bin"
    return out, train(spec_of(out, **two_sets(shards)))


def scores_of(model, texts, label="hq"):
    from dataselect.stages.base import Texts
    from dataselect.stages.fasttext_quality import FastTextQuality

    stage = FastTextQuality(model=str(model), label=label)
    columns = stage.columns(Texts(pa.array(texts, pa.large_string())), stage.prepare())
    return columns["quality"]


def test_model_scores_and_its_card_tells_how_well(trained):
    out, card = trained
    assert json.loads((out.parent / "quality.bin.json").read_text()) == card
    assert sorted(path.name for path in out.parent.iterdir()) == ["quality.bin", "quality.bin.json"]
    held = card["held_out"]
    assert held["auc"] > 0.95
    assert held["by_label"]["hq"]["auc"] == pytest.approx(held["auc"])
    assert held["accuracy"] > 0.9
    assert card["rows"] == {"read": 600, "bad": {}, "empty": 0, "unlabelled": 0, "used": 600}
    counts = card["labels"].values()
    assert sum(label["train_docs"] + label["held_out_docs"] for label in counts) == 600
    assert [item["label"] for item in card["inputs"]] == ["hq"] * 3 + ["lq"] * 3
    assert card["reproducible"]
    good, bad = scores_of(out, ["t0w1 t0w2 common1", "t1w1 t1w2 common1"])
    assert good > 0.5 > bad


def test_thresholds_of_the_card_keep_what_they_say_when_the_pipeline_scores(trained, shards):
    out, card = trained
    from dataselect.training.documents import list_inputs, read_documents

    spec = spec_of(out, **two_sets(shards))
    documents = read_documents(spec, list_inputs(spec), out.parent.parent / "lines.txt")
    held = np.flatnonzero(split.held_out(documents.keys, spec.holdout))
    lines = documents.lines.read_bytes()
    texts = [lines[documents.offsets[i] : documents.offsets[i + 1]].decode() for i in held]
    scores = scores_of(out, texts)
    assert metrics.area_under_curve(scores, documents.label[held] == 0) == pytest.approx(
        card["held_out"]["auc"], abs=1e-3
    )
    for row in card["held_out"]["kept"]:
        assert (scores >= np.float32(row["threshold"]) - 2e-6).mean() == pytest.approx(row["kept"], abs=0.02)


def test_training_does_not_depend_on_the_order_of_shards_and_rows(trained, shards, tmp_path):
    rows = rows_of(0, 300)
    rows[0]["text"] = "a __label__evil b </s> hidden\nline"
    turned = write_rows(tmp_path / "turned.jsonl", rows[::-1])
    card = train(spec_of(tmp_path / "m.bin", positive=(turned,), negative=(f"{shards}/bad-*",)))
    assert card["model_digest"] == trained[1]["model_digest"]
    assert card["held_out"]["auc"] == trained[1]["held_out"]["auc"]


def test_what_the_package_leaves_uninitialised_is_zero(trained):
    """One thread fills a tenth of the input matrix; a row that no text reached must be that or zero."""
    from dataselect.io.fasttext_model import read_header

    model = read_header(trained[0])
    matrix = np.memmap(model.path, "<f4", "r", model.input.offset, (model.input.n_rows, model.dim))
    filled = model.input.n_rows * model.dim // 10 // model.dim
    assert np.abs(matrix[:filled]).min(axis=1).max() > 0
    untouched = (matrix[filled + 1 :] == 0).all(axis=1)
    assert untouched.any()
    assert np.isfinite(matrix).all()


@pytest.mark.slow
def test_uninitialised_memory_would_matter(shards, tmp_path, monkeypatch):
    """The test above can fail: with garbage in fresh memory the model is another one."""
    monkeypatch.setitem(ZEROED_MEMORY, "MALLOC_PERTURB_", str(255 - 0x3C))
    spec = spec_of(tmp_path / "m.bin", **two_sets(shards))
    first = train(spec)
    monkeypatch.setitem(ZEROED_MEMORY, "MALLOC_PERTURB_", "255")
    assert train(spec_of(tmp_path / "n.bin", **two_sets(shards)))["model_digest"] != first["model_digest"]


# Texts -------------------------------------------------------------------------------------------------

AWKWARD = [
    "two\nlines and\r\nmore\ttabs\va\fb\0c",
    "before </s> after is not seen",
    "glued</s> </s>glued stay",
    "a __label__hq b __label__unknown c x__label__ d",
    "__label__hq </s> nothing left",
    "</s> nothing at all",
    "\u00a0no-break \u3000 ideographic \x85 next line \u2028 separator",
    "  spaces   everywhere  ",
    "\n\n",
    "Füße 日本語 🙂",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_training_line_has_the_tokens_that_scoring_sees(text):
    import fasttext

    line = training_line(text)
    expected = [token.encode() for token in fasttext.tokenize(text.replace("\n", " ")) if token != "</s>"]
    if "</s>" in text.split():
        expected = fasttext.tokenize(text.replace("\n", " "))
        expected = [token.encode() for token in expected[: expected.index("</s>")]]
    expected = [token for token in expected if not token.startswith(b"__label__")]
    assert line.split() == expected
    assert b"\n" not in line
    assert bool(line) == bool(expected)


def test_training_and_scoring_see_the_same_text(shards, tmp_path):
    """What the package says of the training lines is what the pipeline says of the raw texts."""
    rng = random.Random(3)
    rows = [
        {"text": make_text(rng, i % 2) + "\n" + text + " " + make_text(rng, i % 2)}
        for i, text in enumerate(AWKWARD * 20)
    ]
    good, bad = write_rows(tmp_path / "g.jsonl", rows[::2]), write_rows(tmp_path / "b.jsonl", rows[1::2])
    seen = {}

    class Spy(Listener):
        def note(self, text):
            path = tmp_path / ".m.bin.training" / "lines.txt"
            seen["lines"] = path.read_bytes().split(b"\n")[:-1]

    train(spec_of(tmp_path / "m.bin", positive=(good,), negative=(bad,), holdout=0), Spy())
    import fasttext

    model = fasttext.load_model(str(tmp_path / "m.bin"))
    raw = [row["text"] for row in rows[::2] + rows[1::2]]
    assert len(seen["lines"]) == len(raw)
    wanted = [
        next(p for p, name in model.f.predict(line + b"\n", -1, 0.0, "strict") if name == "__label__hq")
        for line in seen["lines"]
    ]
    np.testing.assert_allclose(scores_of(tmp_path / "m.bin", raw), wanted, atol=1e-6)


def test_labels_become_one_word():
    assert label_name(" __label__Haitian Creole\u00a0") == "Haitian_Creole"
    assert label_name("中文") == "中文"
    assert label_name(" \n") == ""


# Split and balance -------------------------------------------------------------------------------------


def test_copies_of_a_text_stay_on_one_side_of_the_split(tmp_path):
    texts = [make_text(random.Random(i), i % 2) for i in range(200)]
    rows = [{"text": text, "y": f"c{i % 2}"} for i, text in enumerate(texts)]
    # A copy with other white space is the same line only if it is the same text for scoring.
    path = write_rows(tmp_path / "a.jsonl", rows + rows)
    card = train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y", holdout=0.3))
    for counts in card["labels"].values():
        assert counts["held_out_docs"] % 2 == 0
        assert counts["train_docs"] % 2 == 0
    assert 0 < sum(counts["held_out_docs"] for counts in card["labels"].values()) < 200


def random_keys(n_docs, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n_docs, 3), np.uint64)


@pytest.mark.parametrize(
    "balance, counts", [("none", [50, 20, 7]), ("downsample", [7, 7, 7]), ("upsample", [50, 50, 50])]
)
def test_balance_makes_labels_equally_frequent(balance, counts):
    label = np.repeat([0, 1, 3], [50, 20, 7])  # label 2 has no documents
    lines = split.training_order(random_keys(77), label, balance)
    assert np.bincount(label[lines], minlength=4).tolist() == [counts[0], counts[1], 0, counts[2]]
    times = np.bincount(lines, minlength=77)
    for code in (0, 1, 3):
        assert np.ptp(times[label == code]) <= 1
    # Mixed: no label has its lines in one half of the file.
    half = len(lines) // 2
    assert all(0 < (label[lines[:half]] == code).sum() < (label[lines] == code).sum() for code in (0, 1, 3))


def test_order_and_choice_do_not_depend_on_where_documents_stand():
    keys, label = random_keys(90), np.arange(90) % 3 // 2
    turned = np.random.default_rng(1).permutation(90)
    for balance in ("none", "downsample", "upsample"):
        lines = split.training_order(keys, label, balance)
        again = split.training_order(keys[turned], label[turned], balance)
        np.testing.assert_array_equal(turned[again], lines)


def test_folds_are_of_equal_size_and_cover_what_is_not_held_out():
    keys = random_keys(20_000)
    kept = keys[~split.held_out(keys, 0.1)]
    assert len(kept) == pytest.approx(18_000, abs=200)
    sizes = np.bincount(split.fold_of(kept, 0.1, 5), minlength=5)
    assert len(sizes) == 5
    assert np.abs(sizes - 3600).max() < 250


def test_balanced_training_reports_lines_and_documents(shards, tmp_path):
    card = train(
        spec_of(
            tmp_path / "m.bin",
            positive=(f"{shards}/good-*",),
            negative=(f"{shards}/bad-b*",),
            balance="downsample",
        )
    )
    lines = [counts["train_lines"] for counts in card["labels"].values()]
    docs = [counts["train_docs"] for counts in card["labels"].values()]
    assert lines[0] == lines[1] == min(docs) < max(docs)


# Metrics -----------------------------------------------------------------------------------------------


def test_auc_counts_ties_half():
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    assert metrics.area_under_curve(scores, positive) == pytest.approx(3.5 / 4)
    assert metrics.area_under_curve(scores, np.ones(4, np.bool_)) is None


def test_auc_equals_the_count_over_all_pairs():
    rng = np.random.default_rng(5)
    scores, positive = rng.integers(0, 12, 300) / 7, rng.random(300) < 0.3
    p, n = scores[positive][:, None], scores[~positive][None, :]
    assert metrics.area_under_curve(scores, positive) == pytest.approx(((p > n) + 0.5 * (p == n)).mean())


def test_average_precision_by_hand():
    # Thresholds 0.9: 1 of 1; 0.5 (a tie of two): 2 of 3; 0.1: 3 of 4.
    scores, positive = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, True])
    assert metrics.average_precision(scores, positive) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert metrics.average_precision(scores, np.zeros(4, np.bool_)) is None


def test_kept_shares_by_hand():
    scores = np.arange(20, dtype=np.float32) / 20
    positive = scores >= 0.85  # the best three
    rows = {row["share"]: row for row in metrics.kept_at_shares(scores, positive)}
    assert rows[0.1] == {"share": 0.1, "threshold": 0.9, "kept": 0.1, "precision": 1, "recall": 2 / 3}
    assert rows[0.3] == {"share": 0.3, "threshold": 0.7, "kept": 0.3, "precision": 0.5, "recall": 1}
    tied = metrics.kept_at_shares(np.full(10, 0.5, np.float32), np.arange(10) < 4)
    assert {(row["kept"], row["precision"], row["recall"]) for row in tied} == {(1, 0.4, 1)}


def test_figures_of_each_label_by_hand():
    probability = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0.3, 0.7, 0]], np.float32)
    figures = metrics.by_label(probability, np.array([0, 0, 1, 1]), ["a", "b", "c"])
    assert (figures["a"]["precision"], figures["a"]["recall"], figures["a"]["f1"]) == (0.5, 0.5, 0.5)
    assert figures["a"]["auc"] == 0.5
    assert figures["c"] == {"n_docs": 0, "auc": None, "precision": None, "recall": None, "f1": None}


def test_texts_under_several_labels_are_counted(tmp_path):
    texts = [*"aabbbcd", "a", "b"]
    labels = [*"xyxyzxx", "x", "x"]  # a: x y x, b: x y z x, c and d: x
    rows = [{"text": text, "y": label} for text, label in zip(texts, labels, strict=True)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    card = train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y", holdout=0, epoch=1))
    assert card["n_texts_of_several_labels"] == 2
    assert "2 texts stand under more than one label" in render(card)


def test_many_labels_are_shown_by_size(tmp_path):
    rows = [{"text": f"w{i} v", "y": f"l{i % 32:02d}"} for i in range(320)] + [{"text": "w", "y": "l31"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    card = train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y", holdout=0, epoch=1))
    shown = render(card)
    assert "and 2 rarer labels, in the card" in shown
    assert shown.index("\nl31 ") < shown.index("\nl00 ")
    assert "nothing was held out" in shown


# Labels in a column ------------------------------------------------------------------------------------


def test_more_than_two_labels_are_a_softmax_of_all(tmp_path):
    names = ["Haitian Creole", "中文", "en", "rare"]
    rows = [{"text": row["text"], "lang": names[t]} for t in range(3) for row in rows_of(t, 120)]
    rows += [{"text": "t0w1 only once", "lang": "rare"}, {"text": "no label", "lang": None}, {"text": "x"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    card = train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="lang", holdout=0.2))
    assert card["positive_label"] is None
    assert "kept" not in card["held_out"]
    assert list(card["labels"]) == ["Haitian_Creole", "en", "rare", "中文"]
    assert card["renamed_labels"] == {"Haitian_Creole": "Haitian Creole"}
    assert card["rows"]["unlabelled"] == 2
    assert "held out: accuracy 1.000, mean AUC 1.000" in render(card)
    figures = card["held_out"]["by_label"]
    assert all(figures[name]["f1"] > 0.9 for name in ("Haitian_Creole", "en", "中文"))
    assert scores_of(tmp_path / "m.bin", ["t1w1 t1w2 t1w3"], "中文")[0] > 0.8


def test_one_of_many_labels_can_be_the_score(tmp_path):
    rows = [row for t in range(3) for row in rows_of(t, 100)]
    path = write_rows(tmp_path / "a.parquet", rows)
    options = {"label_column": "y", "positive_label": "c1", "holdout": 0.3}
    card = train(spec_of(tmp_path / "m.bin", shards=(path,), **options))
    assert card["positive_label"] == "c1"
    assert card["held_out"]["auc"] > 0.95
    assert len(card["labels"]) == 3


def test_labels_that_are_numbers_are_labels(tmp_path):
    rows = [{"text": row["text"], "y": t} for t in range(2) for row in rows_of(t, 50)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    card = train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y", positive_label="1"))
    assert list(card["labels"]) == ["0", "1"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"positive_label": "c7"}, r"documents of 'c7' and of one other label; found c0: \d+, c1: \d+"),
        ({"label_column": "yy"}, r"--label-column: no column 'yy' in .*did you mean 'y'"),
        ({"label_column": "text"}, "'text' is the text"),
        ({"text": ("body",)}, "--text: no column 'body' in"),
    ],
)
def test_what_a_column_may_lack_is_said(tmp_path, options, said):
    rows = rows_of(0, 30) + rows_of(1, 30)
    path = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataselectError, match=said):
        train(spec_of(tmp_path / "m.bin", **{"shards": (path,), "label_column": "y", **options}))
    assert not list(tmp_path.glob("*m.bin*"))


def test_a_missing_label_column_of_a_parquet_shard_is_named_as_such(shards, tmp_path):
    with pytest.raises(BadShard, match=r"no label column 'grade'; it has") as error:
        train(spec_of(tmp_path / "m.bin", shards=(f"{shards}/good-b*",), label_column="grade"))
    assert "id" not in str(error.value).split("it has")[0].split()


def test_two_labels_that_are_the_same_word_are_an_error(tmp_path):
    rows = [{"text": "a", "y": "x y"}, {"text": "b", "y": "x_y"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataselectError, match="'x y' and 'x_y' are both 'x_y' as one word"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y"))


def test_ids_given_as_labels_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("dataselect.training.documents.MAX_LABELS", 5)
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a", "y": f"id-{i}"} for i in range(9)])
    with pytest.raises(
        DataselectError, match=r"more than 5 different values, such as 'id-5'; is it the label"
    ):
        train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y"))
    monkeypatch.undo()
    path = write_rows(tmp_path / "b.jsonl", [{"text": "a", "y": f"id-{i}"} for i in range(30)])
    with pytest.raises(DataselectError, match="'y' has 30 different values in 30 documents; is it the label"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y"))


# Bad input ---------------------------------------------------------------------------------------------


def test_bad_rows_are_counted_and_skipped_up_to_a_limit(shards, tmp_path):
    rows = rows_of(0, 50)
    bad = [b"{not json}", b'{"text": 3}', b'{"other": "x"}', b'{"text": "\xff"}', b'{"text": " \\n"}', b""]
    path = tmp_path / "g.jsonl"
    path.write_bytes(b"\n".join([*(json.dumps(row).encode() for row in rows), *bad]) + b"\n")
    options = {"positive": (str(path),), "negative": (f"{shards}/bad-*",)}
    card = train(spec_of(tmp_path / "m.bin", **options))
    assert card["rows"]["read"] == 355
    assert sum(card["rows"]["bad"].values()) == 4
    assert card["rows"]["empty"] == 1
    with pytest.raises(
        DataselectError, match=r"4 of 355 rows are bad .*allows \(3\); the first: g.jsonl: row 50"
    ):
        train(spec_of(tmp_path / "n.bin", **options, max_bad_rows=3))


def test_a_damaged_shard_stops_the_training_by_name(shards, tmp_path):
    for name in ("good-a.jsonl.gz", "good-b.parquet", "good-c.jsonl.zst"):
        data = (shards / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) - 200])
        with pytest.raises(BadShard, match=name):
            train(spec_of(tmp_path / "m.bin", positive=(str(tmp_path / name),), negative=(f"{shards}/bad*",)))
    assert not list(tmp_path.glob("*m.bin*"))


def test_nothing_to_train_on_is_one_sentence(shards, tmp_path):
    empty = write_rows(tmp_path / "e.jsonl", [{"text": " \n "}] * 3)
    bad = (f"{shards}/bad-a*",)
    with pytest.raises(DataselectError, match=r"documents of 'hq' and of one other label; found lq: \d+"):
        train(spec_of(tmp_path / "m.bin", positive=(empty,), negative=bad))
    with pytest.raises(DataselectError, match=r"none of 6 rows has a word"):
        train(
            spec_of(
                tmp_path / "m.bin",
                positive=(empty,),
                negative=(write_rows(tmp_path / "f.jsonl", [{"text": ""}] * 3),),
            )
        )
    with pytest.raises(RecipeError, match=r"--negative: no file matches .*none\.jsonl"):
        train(spec_of(tmp_path / "m.bin", positive=(empty,), negative=(str(tmp_path / "none.jsonl"),)))
    with pytest.raises(RecipeError, match=r"matched by --positive and by --negative"):
        train(spec_of(tmp_path / "m.bin", positive=(empty,), negative=(str(tmp_path / "*.jsonl"),)))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"positive": ("a",)}, "--negative is missing"),
        ({}, "--positive is missing"),
        ({"positive": ("a",), "negative": ("b",), "shards": ("c",)}, "not both"),
        ({"shards": ("c",)}, "--shards needs --label-column or --score-column"),
        ({"shards": ("c",), "label_column": "x", "score_column": "y"}, "--shards needs"),
        ({"positive": ("a",), "negative": ("b",), "label_column": "x"}, "need --shards"),
        ({"positive": ("a",), "negative": ("b",), "positive_label": "lq"}, "two different words"),
        ({"positive": ("a",), "negative": ("b",), "negative_label": " "}, "two different words"),
        ({"positive": ("a",), "negative": ("b",), "balance": "up"}, "expected one of none, down"),
        ({"positive": ("a",), "negative": ("b",), "holdout": 1.0}, "--holdout"),
        ({"positive": ("a",), "negative": ("b",), "lr": 0.0}, "--lr above 0"),
        ({"positive": ("a",), "negative": ("b",), "minn": 3, "maxn": 2}, "--minn 3 must not be above"),
        ({"positive": ("a",), "negative": ("b",), "cutoff": 9}, "need --quantize"),
        ({"positive": ("a",), "negative": ("b",), "quantize": True}, "must end with .ftz"),
        ({"positive": ("a",), "negative": ("b",), "positive_min": 1.0}, "--positive-min needs"),
    ],
)  # fmt: skip
def test_impossible_options_are_found_before_reading(tmp_path, options, said):
    with pytest.raises(RecipeError, match=said):
        checked(tmp_path, **options)


def test_the_output_path_has_rules(shards, tmp_path):
    (tmp_path / "m.bin").write_bytes(b"old")
    with pytest.raises(RecipeError, match=r"m\.bin exists; --force replaces it"):
        train(spec_of(tmp_path / "m.bin", **two_sets(shards)))
    assert (tmp_path / "m.bin").read_bytes() == b"old"
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(RecipeError, match=r"folder\.bin is a folder"):
        train(spec_of(tmp_path / "folder.bin", **two_sets(shards)))
    with pytest.raises(RecipeError, match=r"m\.model must end with \.bin"):
        train(spec_of(tmp_path / "m.model", **two_sets(shards)))
    train(spec_of(tmp_path / "m.bin", **two_sets(shards), force=True))
    assert (tmp_path / "m.bin").stat().st_size > 1000


def test_training_without_the_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(DataselectError, match=r"scoring does not.*fasttext-numpy2-wheel"):
        train(spec_of(tmp_path / "m.bin", positive=("a",), negative=("b",)))


def test_a_learning_rate_that_diverges_is_said(shards, tmp_path):
    with pytest.raises(RecipeError, match=r"diverged .* learning rate of 100000.0; lower --lr"):
        train(spec_of(tmp_path / "m.bin", **two_sets(shards), lr=1e5))
    assert not list(tmp_path.iterdir())


def test_usual_rate_and_epochs_are_the_packages_for_many_lines():
    assert (usual_epoch(10_000), usual_epoch(10**7)) == (5, 5)
    assert (usual_lr(500_000), usual_lr(10**9)) == (0.1, 0.1)
    assert (usual_epoch(2000), usual_epoch(10), usual_epoch(0)) == (25, 50, 50)
    assert (usual_lr(125_000), usual_lr(10)) == (0.2, 1.0)
    # With many labels each is seen less often; but the time stays bounded.
    assert (usual_epoch(20_000, 100), usual_lr(500_000, 8)) == (25, 0.2)
    assert (usual_epoch(10**6, 1000), usual_lr(10**6, 1000)) == (5, 1.0)


# Crashes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit_bytes", [pytest.param(30_000, marks=pytest.mark.slow), 150_000])
def test_a_full_disk_leaves_no_half_model(shards, tmp_path, limit_bytes):
    """Files of more than limit_bytes fail as on a full disk: while the texts are written, or the model."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}));"
        "from dataselect.cli import main; main()"
    )
    options = ["--positive", f"{shards}/good-*", "--negative", f"{shards}/bad-*", "--out", tmp_path / "m.bin"]
    sizes = ["--dim", "32", "--bucket", "2000", "--epoch", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *map(str, options), *sizes],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "m.bin: cannot write" in done.stderr or "could not be written whole" in done.stderr
    assert not list(tmp_path.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit_bytes


def long_training(shards, out):
    options = ["--positive", f"{shards}/good-*", "--negative", f"{shards}/bad-*", "--out", out]
    return corpora.start(
        "train", *options, "--dim", 8, "--bucket", 2000, "--epoch", 10**6, DATASELECT_MARK=str(out)
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_training_leaves_nothing(shards, tmp_path, number):
    process = long_training(shards, tmp_path / "m.bin")
    corpora.wait_until((tmp_path / ".m.bin.training/train.txt").exists)
    corpora.wait_until(lambda: len(corpora.processes_with(f"DATASELECT_MARK={tmp_path}")) == 2)
    process.send_signal(number)
    _, said = corpora.finish(process)
    assert process.returncode == 128 + number
    assert "nothing was written" in said
    assert not list(tmp_path.iterdir())
    corpora.wait_until(lambda: not corpora.processes_with(f"DATASELECT_MARK={tmp_path}"))


def test_what_a_killed_training_left_is_removed_by_the_next(shards, tmp_path):
    out = tmp_path / "m.bin"
    process = long_training(shards, out)
    corpora.wait_until(lambda: len(corpora.processes_with(f"DATASELECT_MARK={tmp_path}")) == 2)
    with pytest.raises(Locked, match="another process trains this model"):
        train(spec_of(out, **two_sets(shards)))
    os.kill(process.pid, signal.SIGKILL)
    corpora.finish(process)
    # The package's process sees that its parent is gone.
    corpora.wait_until(lambda: not corpora.processes_with(f"DATASELECT_MARK={tmp_path}"))
    assert [path.name for path in tmp_path.iterdir()] == [".m.bin.training"]
    train(spec_of(out, **two_sets(shards)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.bin.json"]


def test_a_failed_training_keeps_the_model_that_was_there(shards, tmp_path):
    (tmp_path / "m.bin").write_bytes(b"old")
    (tmp_path / "m.bin.json").write_bytes(b"old")
    with pytest.raises(RecipeError):
        train(spec_of(tmp_path / "m.bin", **two_sets(shards), lr=1e5, force=True))
    assert (tmp_path / "m.bin").read_bytes() == (tmp_path / "m.bin.json").read_bytes() == b"old"


def test_a_workspace_is_gone_after_an_error(tmp_path):
    with pytest.raises(IsADirectoryError), workspace(tmp_path / "m.bin") as folder:
        folder.write_text("x")
    assert not list(tmp_path.iterdir())


# The command -------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_or_the_card(cli, shards, tmp_path):
    options = ["--positive", f"{shards}/good-a*", "--positive", f"{shards}/good-c*"]
    options += ["--negative", f"{shards}/bad-*", "--dim", "8", "--bucket", "2000", "--lr", "0.5"]
    done = cli("train", *options, "--out", tmp_path / "m.bin")
    assert done.code == 0, done.err
    assert "500 rows in 5 shards: 500 documents" in done.out
    assert "held out: P(hq) has AUC" in done.out
    assert "training the model" in done.err
    again = cli("train", *options, "--out", tmp_path / "m.bin", "--force", "--quiet", "--json")
    assert again.err == ""
    assert (
        json.loads(again.out)["model_digest"]
        == json.loads((tmp_path / "m.bin.json").read_text())["model_digest"]
    )
    wrong = cli("train", *options, "--out", tmp_path / "m.bin")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert cli("train", *options, "--out", tmp_path / "n.bin", "--holdout", "much").code == 2


def test_patterns_are_relative_to_the_working_folder(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(shards)
    options = {"positive": ("good-a.jsonl.gz", "./good-b*"), "negative": ("bad-*",)}
    card = train(spec_of(tmp_path / "m.bin", **options, epoch=1))
    assert [item["name"] for item in card["inputs"][:2]] == ["good-a.jsonl.gz", "good-b.parquet"]


@pytest.mark.parametrize("options", [{}, {"cutoff": 300, "retrain": True}])
def test_quantised_models_are_small_and_judged_as_they_are(shards, tmp_path, options):
    card = train(spec_of(tmp_path / "m.ftz", **two_sets(shards), quantize=True, **options))
    assert card["held_out"]["auc"] > 0.9
    assert card["model_bytes"] < 2000 * 8 * 4
    import fasttext

    assert fasttext.load_model(str(tmp_path / "m.ftz")).is_quantized()


def test_too_few_rows_to_quantise_is_said(shards, tmp_path):
    with pytest.raises(RecipeError, match="at least 256 words and n-grams"):
        train(spec_of(tmp_path / "m.ftz", **two_sets(shards), quantize=True, word_ngrams=1, bucket=1))


def test_jobs_survive_json():
    job = Job("t", {"dim": 1}, ["a"], "p", 3, None, {"cutoff": 1, "retrain": False})
    assert Job(**json.loads(json.dumps(job.__dict__))) == job
