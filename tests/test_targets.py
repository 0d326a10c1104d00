"""Stages that compare documents with a target: nearness, round-robin, BETR, compression, contamination."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import dataselect
from dataselect.core.errors import BadModel
from dataselect.engine.columns import describe_texts
from dataselect.kernels import tfidf
from dataselect.stages import targets
from dataselect.stages.base import Texts
from dataselect.stages.betr import Betr, best
from dataselect.stages.compression_alignment import CompressionAlignment
from dataselect.stages.target_overlap import TargetOverlap
from dataselect.stages.target_similarity import TargetSimilarity

MARKETS = "the stock market fell and prices of oil rose as traders sold shares on day {}".format
CELLS = "the cell wall divides and proteins of the cell fold as enzymes bind to site {}".format


def texts_of(values):
    array = pa.array(values, pa.large_string())
    return Texts(array, describe_texts(array, None)["key"])


def target_file(folder, values, name="target.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values))
    return str(path)


def words(rng, n_docs, n_different=60):
    return [
        " ".join(f"w{i}" for i in rng.zipf(1.3, int(rng.integers(3, 60))) % n_different)
        for _ in range(n_docs)
    ]


def fitted(stage, raw, share=1.0):
    return stage.fit_model(stage.prepare(), iter([stage.sample(texts_of(raw), share)]))


# Similarity and the round-robin -------------------------------------------------------------------------


def round_robin(cosines, k):
    """RDS+ (Ivison et al. 2025): targets pop their nearest in turn; one that is taken uses up the turn."""
    order = [[d for d in np.argsort(-column, kind="stable") if column[d] > 0] for column in cosines.T]
    taken = {}
    for turn in range(len(cosines)):
        for queue in order:
            if turn < len(queue) and len(taken) < k:
                taken[queue[turn]] = True
    return set(taken)


@pytest.fixture
def pool(tmp_path):
    """(stage, raw, model, cosines) of 150 documents and 7 targets, one of them repeated."""
    rng = np.random.default_rng(7)
    raw, wanted = words(rng, 150), words(rng, 6)
    stage = TargetSimilarity(target=target_file(tmp_path, [*wanted, wanted[0]]), n_bits=16)
    model = fitted(stage, raw)
    cosines = tfidf.cosine_matrix(*stage.lists(texts_of(raw)), tfidf.Index.of(model, 7))
    return stage, raw, model, cosines


def test_turns_are_those_of_a_round_robin_over_the_target_documents_for_any_budget(pool):
    stage, raw, model, cosines = pool
    columns = stage.columns(texts_of(raw), model)
    turn = columns["target_similarity_turn"]
    np.testing.assert_array_equal(columns["target_similarity"], cosines.max(axis=1))
    np.testing.assert_array_equal(columns["target_similarity_nearest"], cosines.argmax(axis=1))
    assert not cosines[:, 6].any()  # the repeated target
    assert len(np.unique(cosines[cosines > 0])) == (cosines > 0).sum()  # no ties
    by_turn = np.argsort(turn, kind="stable")
    for k in range(1, len(raw) + 1):
        assert set(by_turn[:k]) == round_robin(cosines, k), k
    assert set(cosines[:, :6].argmax(axis=0)) <= set(by_turn[:6])


def test_turns_beyond_the_ranks_that_are_kept_are_unknown_and_the_others_the_same(pool, monkeypatch):
    stage, raw, model, cosines = pool
    turn = stage.columns(texts_of(raw), model)["target_similarity_turn"]
    monkeypatch.setattr(targets, "_VALUES", 7 * 9)
    few = fitted(stage, raw)
    assert few["ranked"].shape == (9, 7)
    np.testing.assert_array_equal(few["ranked"], np.sort(cosines, axis=0)[::-1][:9])
    np.testing.assert_array_equal(
        stage.columns(texts_of(raw), few)["target_similarity_turn"], np.where(turn < 9 * 7, turn, np.nan)
    )


def test_ranks_count_sampled_documents_and_batches_and_order_do_not_matter(pool):
    stage, raw, *_ = pool
    raw = [*raw, "", "zz"]
    whole = fitted(stage, raw)
    parts = [stage.sample(texts_of(part), 1.0) for part in (raw[140:], raw[:3], raw[3:140])]
    # As the store gives them back: filtered and in chunks.
    parts = [pa.concat_tables([part.slice(0, 2), part.slice(2)]) for part in parts]
    for name, array in stage.fit_model(stage.prepare(), iter(parts)).items():
        np.testing.assert_array_equal(array, whole[name])
    together = stage.columns(texts_of(raw), whole)
    alone = [stage.columns(texts_of([text]), whole) for text in raw]
    for name, values in together.items():
        np.testing.assert_array_equal(values, np.concatenate([columns[name] for columns in alone]))
    assert np.isnan(together["target_similarity"][150])
    assert (together["target_similarity"][151], together["target_similarity_nearest"][151]) == (0, -1)
    assert np.isnan(together["target_similarity_turn"][150:]).all()
    # Fitted on nothing, and on a part.
    none = stage.columns(texts_of(raw), stage.fit_model(stage.prepare(), iter([])))
    assert np.nanmax(none["target_similarity_turn"]) < 7
    part = fitted(stage, raw, 0.3)["ranked"]
    assert 20 < len(part) < 80


# BETR ---------------------------------------------------------------------------------------------------


def test_best_takes_a_share_and_treats_equal_turns_alike():
    turn = np.array([5, 1, 3, 3, np.inf, 9])
    assert best(turn, 0.17).tolist() == [False, True, False, False, False, False]
    assert best(turn, 0.34).tolist() == [False, True, True, True, False, False]
    assert best(turn, 0.99).tolist() == [True, True, True, True, False, True]
    assert best(turn[:0], 0.5).tolist() == []


def test_betr_scores_unseen_documents_like_the_ranks_it_was_fitted_on(tmp_path):
    raw = [*map(MARKETS, range(180)), *map(CELLS, range(500, 520))]
    stage = Betr(target=target_file(tmp_path, map(CELLS, range(40))), n_bits=14)
    model = fitted(stage, raw)
    score = stage.columns(texts_of([MARKETS(999), CELLS(998), "", "the"]), model)["betr"]
    assert score[1] > 1 > -2 > score[0]
    assert np.isnan(score[2])
    rules = stage.model_copy(update={"min": 0.0}).keep({"betr": score})
    assert rules["betr < 0.0"][[0, 1, 2]].tolist() == [True, False, True]
    # The order of the sample is that of the texts' hashes: the same weights bit for bit.
    again = stage.fit_model(
        stage.prepare(), iter([stage.sample(texts_of(part), 1.0) for part in (raw[70:], raw[:70])])
    )
    np.testing.assert_array_equal(model["weights"], again["weights"])


# Compression --------------------------------------------------------------------------------------------


def gzip_length(data, level):
    return len(gzip.compress(data, level, mtime=0))


def ncd(length, a, b):
    """Cilibrasi and Vitanyi 2005, as ZIP-FIT has it: the source first."""
    return (length(a + b) - min(length(a), length(b))) / max(length(a), length(b))


@pytest.mark.parametrize("level", [1, 6])
def test_alignment_is_one_minus_the_mean_ncd_by_gzip(tmp_path, level):
    rng = np.random.default_rng(3)
    raw, wanted = [*words(rng, 50), "é" * 900], words(rng, 10)
    stage = CompressionAlignment(
        target=target_file(tmp_path, wanted), compressor="gzip", level=level, window=100
    )
    found = stage.columns(texts_of([*raw, ""]), stage.prepare())["alignment"]
    heads = [[text.encode()[:100] for text in part] for part in (raw, wanted)]
    expected = [
        1 - np.mean([ncd(lambda data: gzip_length(data, level), d, t) for t in heads[1]]) for d in heads[0]
    ]
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-12)
    assert np.isnan(found[-1])


@pytest.mark.parametrize("compressor", ["lz4", "zstd", "gzip"])
def test_alignment_draws_targets_by_their_text_and_prefers_what_is_like_them(tmp_path, compressor):
    wanted = [*map(CELLS, range(30))]
    stages = [
        CompressionAlignment(target=target_file(tmp_path, order, name), n_targets=8, compressor=compressor)
        for name, order in (("a.jsonl", wanted), ("b.jsonl", [*wanted[::-1], *wanted, ""]))
    ]
    texts = texts_of([CELLS(99), MARKETS(99)])
    scores = [stage.columns(texts, stage.prepare())["alignment"] for stage in stages]
    np.testing.assert_allclose(*scores, rtol=1e-12)
    assert scores[0][0] > scores[0][1]
    assert len(stages[0].prepare()["lengths"]) == 8


def test_levels_that_do_not_compress_or_do_not_exist_are_refused(tmp_path):
    for settings in ({"compressor": "gzip", "level": 0}, {"compressor": "gzip", "level": 10}, {"level": 2}):
        with pytest.raises(ValidationError, match="level"):
            CompressionAlignment(target="t.jsonl", **settings)


# Contamination ------------------------------------------------------------------------------------------


def numbers(first, n):
    return [f"Word{i}" for i in range(first, first + n)]


def overlap(tmp_path, wanted, raw, **settings):
    stage = TargetOverlap(target=target_file(tmp_path, wanted), **settings)
    columns = stage.columns(texts_of(raw), stage.prepare())
    broken = np.any([*stage.keep(columns).values(), np.zeros(len(raw), bool)], axis=0)
    return [values.tolist() for values in columns.values()], broken.tolist()


def test_planted_target_documents_are_found_whole_and_in_other_writing(tmp_path):
    rng = np.random.default_rng(5)
    wanted = [" ".join(numbers(1000 * i, 8 + i)) for i in range(12)]
    noise = [" ".join(f"n{i}" for i in rng.integers(0, 999, 20)) for _ in range(24)]
    raw = [f"{a} {text} {b}" for a, text, b in zip(noise[::2], wanted, noise[1::2], strict=True)]
    written = [text.upper().replace(" ", ",\n-- ") for text in raw]
    shuffled = [" ".join(rng.permutation(text.split())) for text in raw]
    for texts in (raw, written):
        (share, n_ngrams, longest), broken = overlap(tmp_path, wanted, texts)
        assert all(broken)
        assert longest == [8 + i for i in range(12)]
        # A passage of w words has w - 12 n-grams; target documents under 13 words are one each.
        assert n_ngrams == [max(1, 8 + i - 12) for i in range(12)]
        np.testing.assert_allclose(share, [(8 + i) / (48 + i) for i in range(12)])
    assert overlap(tmp_path, wanted, shuffled)[0][1] == [0] * 12


def test_the_length_and_the_limits_of_a_passage(tmp_path):
    wanted = [" ".join(numbers(0, 40)), "too short for it"]
    raw = [" ".join(["x", *numbers(3, 12)]), " ".join(["x", *numbers(3, 13)]), "too short for it", ""]
    raw.append(" ".join([*numbers(0, 20), "gap", *numbers(20, 13)]))
    (share, n_ngrams, longest), broken = overlap(tmp_path, wanted, raw)
    assert n_ngrams == [0, 1, 0, 0, 9]
    assert longest == [0, 13, 0, 0, 20]
    assert share[4] == 33 / 34
    assert broken == [False, True, False, False, True]
    assert overlap(tmp_path, wanted, raw, max_words=13)[1] == [False, False, False, False, True]
    assert overlap(tmp_path, wanted, raw, max_words=None)[1] == [False] * 5
    assert overlap(tmp_path, wanted, raw, max_words=None, max_share=0.95)[1][4]
    assert overlap(tmp_path, wanted, raw, min_target_words=4)[0][2] == [0, 13, 4, 0, 20]


# Bad targets, and runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [TargetSimilarity, Betr, TargetOverlap, CompressionAlignment])
def test_a_target_without_words_or_column_is_refused(tmp_path, stage):
    with pytest.raises(BadModel, match=r"the target has no .* so nothing can be like it"):
        stage(target=target_file(tmp_path, [""])).prepare()
    misspelt = stage(target=target_file(tmp_path, ["a"]), target_text="txt")
    with pytest.raises(BadModel, match=r"no column 'txt' .* did you mean 'text'"):
        misspelt.check_files()


RECIPE = """
input: {shards: 'raw/*.jsonl', piece_bytes: 4096}
stages:
  - {use: target_overlap, target: target.jsonl, n: 16}
  - {use: compression_alignment, target: target.jsonl, n_targets: 4}
  - {use: betr, target: target.jsonl, sample: 8KiB, n_bits: 14}
  - {use: target_similarity, target: target.jsonl, sample: 8KiB, n_bits: 14}
  - {use: select, by: target_similarity_turn, direction: min, keep: {docs: 60}}
output: {folder: out}
"""


def test_a_run_keeps_the_documents_like_the_target_but_not_its_copies(tmp_path, serial):
    rng = np.random.default_rng(4)
    raw = [*map(MARKETS, range(300)), *map(CELLS, range(1000, 1060)), CELLS(3), ""]
    (tmp_path / "raw").mkdir()
    for i, part in enumerate(np.array_split(rng.permutation(len(raw)), 3)):
        target_file(tmp_path / "raw", [raw[j] for j in part], f"{i}.jsonl")
    target_file(tmp_path, [*map(CELLS, range(12)), CELLS(5)])
    (tmp_path / "r.yaml").write_text(RECIPE)
    report = dataselect.run(tmp_path / "r.yaml")
    funnel = {stage["stage"]: stage for stage in report["funnel"]}
    assert funnel["target_overlap"]["dropped"]["overlap_words > 0"]["docs"] == 1
    said = " ".join(funnel["target_similarity"]["warnings"])
    assert "1 of 13 target documents repeat others" in said
    assert "the target has 12 documents" in said
    assert "another language" not in said
    table = pq.read_table(tmp_path / "out/current/decisions").to_pylist()
    kept = [row for row in table if row["stage"] is None]
    assert len(kept) == 60
    for column in ("alignment", "betr", "target_similarity"):
        others = [row[column] for row in table if row["stage"] == "select" and row[column] == row[column]]
        assert min(row[column] for row in kept) > max(others, default=0)


STAGES_THAT_WARN = [
    "{use: betr, target: target.jsonl, n_bits: 14}",
    "{use: ngram_importance, target: target.jsonl}",
    "{use: ngram_importance, target: {a: target.jsonl}, hash: sha256}",
    "{use: cross_entropy_difference, target: target.jsonl}",
]


@pytest.mark.parametrize("stage", STAGES_THAT_WARN)
def test_a_target_in_another_language_or_of_few_documents_is_warned_of(stage, tmp_path, serial):
    (tmp_path / "raw").mkdir()
    target_file(tmp_path / "raw", map(MARKETS, range(50)), "a.jsonl")
    target_file(tmp_path, [f"слово{i} и ещё слово{i + 1}" for i in range(30)])
    (tmp_path / "r.yaml").write_text(
        f"input: {{shards: raw/*}}\nstages: [{stage}]\noutput: {{folder: out}}\n"
    )
    warnings = dataselect.run(tmp_path / "r.yaml")["funnel"][0]["warnings"]
    assert any("another language or domain?" in text for text in warnings)
    assert not any("so few" in text for text in warnings)
    target_file(tmp_path, [MARKETS(i) for i in range(100, 103)])
    warnings = dataselect.run(tmp_path / "r.yaml")["funnel"][0]["warnings"]
    assert len(warnings) == 1
    assert "has 3 documents: what is like so few is chance" in warnings[0]
