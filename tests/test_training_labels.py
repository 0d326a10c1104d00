"""Labels from scores, wrong labels, calibration, the learning curve."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from test_training import make_text, rows_of, spec_of, write_rows

from dataselect.core.errors import BadShard, DataselectError, RecipeError
from dataselect.report.trainview import render
from dataselect.training import calibration, cleaning, metrics
from dataselect.training.spec import check
from dataselect.training.train import train

pytest.importorskip("fasttext", reason="training needs the fasttext package")


# Scores in a column ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Topic 1 scores 5 to 10, topic 0 0 to 5; some rows have no number; read only."""
    rows = rows_of(0, 200) + rows_of(1, 200)
    rows += [{"text": "x", "score": None}, {"text": "x", "score": "n/a"}, {"text": "x"}]
    rows += [{"text": "x", "score": [1]}, {"text": "x", "score": "NaN"}, {"text": "x", "score": float("inf")}]
    return write_rows(tmp_path_factory.mktemp("scored") / "a.jsonl", rows)


def test_scores_become_labels_by_limits(scored, tmp_path):
    options = {"score_column": "score", "positive_min": 7.5, "negative_max": 2.5}
    card = train(spec_of(tmp_path / "m.bin", shards=(scored,), **options, holdout=0.2))
    rule = card["score_rule"]
    assert (rule["positive_min"], rule["negative_max"], rule["n_scored"]) == (7.5, 2.5, 400)
    assert rule["n_positive"] + rule["n_negative"] + rule["n_between"] == 400
    assert card["rows"]["unlabelled"] == 6
    used = sum(counts["train_docs"] + counts["held_out_docs"] for counts in card["labels"].values())
    assert used == rule["n_positive"] + rule["n_negative"]
    assert card["held_out"]["auc"] > 0.95


def test_scores_become_labels_by_shares(scored, tmp_path):
    options = {"score_column": "score", "positive_top": 0.25, "negative_bottom": 0.5, "positive_label": "edu"}
    card = train(spec_of(tmp_path / "m.bin", shards=(scored,), **options))
    rule = card["score_rule"]
    assert (rule["n_positive"], rule["n_negative"], rule["n_between"]) == (100, 200, 100)
    assert rule["asked"] == {"positive_top": 0.25, "negative_bottom": 0.5}
    assert card["positive_label"] == "edu"
    assert rule["negative_max"] < 5 < rule["positive_min"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "jsonl.zst"])
def test_equal_scores_get_equal_labels(tmp_path, ending):
    """Grades 0 to 5, 60 rows of each: the best 10 % end inside grade 5, the worst 20 % inside grade 1."""
    rows = [{"text": f"{row['text']} {i}", "score": i % 6} for i, row in enumerate(rows_of(0, 360))]
    path = write_rows(tmp_path / f"a.{ending}", rows)
    options = {"score_column": "score", "positive_top": 0.1, "negative_bottom": 0.2}
    rule = train(spec_of(tmp_path / "m.bin", shards=(path,), **options, epoch=1))["score_rule"]
    assert (rule["positive_min"], rule["n_positive"]) == (5, 60)
    assert (rule["negative_max"], rule["n_negative"]) == (1, 120)
    assert rule["quartiles"] == [0, 1, 2, 4, 5]


def test_limits_that_meet_are_an_error(tmp_path):
    rows = [{"text": make_text(random.Random(i), 0), "score": 1} for i in range(20)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    options = {"score_column": "score", "positive_top": 0.1, "negative_bottom": 0.5}
    with pytest.raises(DataselectError, match="negatives would reach up to 1 and positives down to 1"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), **options))


def test_a_score_column_without_numbers_is_an_error(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "x", "score": "high"}] * 5)
    options = {"score_column": "score", "positive_min": 1.0, "negative_max": 0.0}
    with pytest.raises(DataselectError, match="no row has a number in column 'score'"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), **options))
    with pytest.raises(RecipeError, match=r"--score-column: no column 'scor' in .* did you mean 'score'"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), **{**options, "score_column": "scor"}))
    path = write_rows(tmp_path / "a.parquet", [{"text": "x", "score": [1.0]}] * 5)
    with pytest.raises(BadShard, match="the score column 'score' is of type list"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), **options))


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "needs one of --positive-min and --positive-top"),
        ({"positive_min": 1.0}, "needs one of --negative-max and --negative-bottom"),
        ({"positive_min": 1.0, "positive_top": 0.1, "negative_max": 0.0}, "needs one of --positive-min"),
        ({"positive_min": 1.0, "negative_max": 1.0}, "--negative-max 1.0 must be below"),
        ({"positive_top": 10.0, "negative_max": 1.0}, "--positive-top: expected a share between 0 and 1"),
    ],
)
def test_impossible_limits_are_found_before_reading(tmp_path, options, said):
    with pytest.raises(RecipeError, match=said):
        check(spec_of(tmp_path / "m.bin", shards=("a",), score_column="s", **options))


# Wrong labels ------------------------------------------------------------------------------------------


def test_confident_joint_by_hand():
    p = np.array(
        [
            [0.9, 0.1, 0.0],  # 0: confident of 0
            [0.6, 0.3, 0.1],  # 0: 0.6 < t0 = 0.65 and 0.3 < t1 = 0.5: confident of nothing
            [0.45, 0.55, 0.0],  # 0: confident of 1 (0.55 >= 0.5): an error
            [0.2, 0.8, 0.0],  # 1: confident of 1
            [0.7, 0.2, 0.1],  # 1: confident of 0 (0.7 >= 0.65): an error
            [0.1, 0.5, 0.4],  # 1: 0.5 >= 0.5 and 0.4 >= t2 = 0.3: the larger one is 1
            [0.1, 0.6, 0.3],  # 2: 0.6 >= 0.5 and 0.3 >= 0.3: the larger one is 1, an error
        ]
    )
    label = np.array([0, 0, 0, 1, 1, 1, 2])
    verdict = cleaning.judge(p, label)
    np.testing.assert_allclose(verdict.threshold, [0.65, 0.5, 0.3])
    assert verdict.joint.tolist() == [[1, 1, 0], [1, 2, 0], [0, 1, 0]]
    assert verdict.suggested.tolist() == [0, -1, 1, 1, 0, 1, 1]
    assert np.flatnonzero(verdict.is_wrong).tolist() == [2, 4, 6]
    np.testing.assert_allclose(verdict.margin, [0.8, 0.3, -0.1, 0.6, -0.5, 0.1, -0.3])
    joint = cleaning.calibrated_joint(verdict.joint, np.array([3, 3, 1]))
    np.testing.assert_allclose(joint, [[1.5, 1.5, 0], [1, 2, 0], [0, 1, 0]])


def test_a_label_without_documents_is_nobodys_suggestion():
    verdict = cleaning.judge(np.array([[0.4, 0.1, 0.5], [0.2, 0.7, 0.1]]), np.array([0, 1]))
    assert np.isnan(verdict.threshold[2])
    assert verdict.suggested.tolist() == [0, 1]


def test_flipped_labels_are_found_and_listed(tmp_path, monkeypatch):
    """10 % of the labels of separable texts are flipped: the ranking finds them."""
    rows = [row for topic in (0, 1) for row in rows_of(topic, 300, seed=9)]
    flipped = np.zeros(len(rows), bool)
    flipped[np.random.default_rng(2).choice(len(rows), 60, replace=False)] = True
    for row, flip in zip(rows, flipped, strict=True):
        row["y"] = {"c0": "c1", "c1": "c0"}[row["y"]] if flip else row["y"]
    path = write_rows(tmp_path / "a.jsonl", rows)
    seen = {}

    def judge(probability, label, real=cleaning.judge):
        seen["verdict"] = real(probability, label)
        return seen["verdict"]

    monkeypatch.setattr(cleaning, "judge", judge)
    options = {"shards": (path,), "label_column": "y", "clean_labels": True, "holdout": 0, "epoch": 3}
    card = train(spec_of(tmp_path / "m.bin", **options))
    assert metrics.area_under_curve(-seen["verdict"].margin, flipped) > 0.95
    listed = [json.loads(line) for line in (tmp_path / "m.bin.cleaned.jsonl").read_text().splitlines()]
    found = np.array([row["row"] for row in listed])
    assert flipped[found].sum() > 0.7 * 60
    assert flipped[found].mean() > 0.8
    for row in listed:
        assert (row["shard"], row["label"]) == ("a.jsonl", rows[row["row"]]["y"])
        assert row["suggested"] != row["label"]
        assert rows[row["row"]]["text"].startswith(row["text"])
    assert [row["margin"] for row in listed] == sorted(row["margin"] for row in listed)
    assert sum(card["cleaning"]["n_left_out"].values()) == len(listed)
    lines = sum(counts["train_lines"] for counts in card["labels"].values())
    assert lines == len(rows) - len(listed)


def test_too_few_documents_for_folds_is_said(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", rows_of(0, 2) + rows_of(1, 1))
    with pytest.raises(DataselectError, match="too few documents for 5 folds"):
        train(spec_of(tmp_path / "m.bin", shards=(path,), label_column="y", clean_labels=True, holdout=0))
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


# Calibration -------------------------------------------------------------------------------------------


def drawn(n_docs, a, b, seed=0):
    """Scores and truths for which P = 1 / (1 + exp(-(a z + b)))."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, n_docs)
    truth = rng.random(n_docs) < calibration.platt(z, a, b)
    return (1 / (1 + np.exp(-z)) + 1e-5).astype(np.float32), truth


def test_platt_finds_the_parameters_that_made_the_data():
    scores, truth = drawn(100_000, 0.5, -0.7)
    a, b = calibration.fit_platt(calibration.logit(scores), truth)
    assert (a, b) == (pytest.approx(0.5, abs=0.02), pytest.approx(-0.7, abs=0.04))


def test_platt_is_the_minimum_of_its_loss_and_finite_for_separable_scores():
    z = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    a, b = calibration.fit_platt(z, z > 0)
    assert np.isfinite([a, b]).all()
    target = np.where(z > 0, 4 / 5, 1 / 5)

    def loss(a, b):
        p = calibration.platt(z, a, b)
        return -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum()

    for da, db in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert loss(a, b) < loss(a + da, b + db)


def test_calibration_lowers_the_error_of_scores_that_are_too_sure():
    scores, truth = drawn(20_000, 0.4, 0.5)
    fit = calibration.calibrate(scores, truth, np.arange(20_000) % 2 == 0)
    assert fit["n_fit"] == fit["n_judged"] == 10_000
    assert fit["ece_before"] > 0.08
    assert fit["ece_after"] < 0.02
    assert sum(row["n_docs"] for row in fit["reliability_after"]) == 10_000


def test_expected_error_by_hand():
    # From 0.2: two, mean 0.25, share 0.5. From 0.9, with what is above 1: two, mean 0.975, share 1.
    p, truth = np.array([0.22, 0.28, 0.94999, 1.00001]), np.array([True, False, True, True])
    assert calibration.expected_error(p, truth) == pytest.approx((2 * 0.25 + 2 * 0.025) / 4)
    assert [row["from"] for row in calibration.reliability(p, truth)] == [0.2, 0.9]


def test_too_few_documents_are_not_calibrated():
    scores, truth = drawn(60, 1, 0)
    assert calibration.calibrate(scores, truth, np.arange(60) % 2 == 0) is None


# Learning curve ----------------------------------------------------------------------------------------


def test_learning_curve_grows_with_the_lines(tmp_path):
    rows = [row for topic in (0, 1) for row in rows_of(topic, 200, seed=6)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    options = {"shards": (path,), "label_column": "y", "positive_label": "c1", "learning_curve": True}
    card = train(spec_of(tmp_path / "m.bin", **options, holdout=0.3))
    curve = card["learning_curve"]
    assert [row["share"] for row in curve] == [0.125, 0.25, 0.5, 1]
    n_lines = sum(counts["train_lines"] for counts in card["labels"].values())
    assert [row["n_lines"] for row in curve] == [round(n_lines * row["share"]) for row in curve]
    assert curve[-1]["auc"] == card["held_out"]["auc"] > curve[0]["auc"]
    assert "learning curve\nlines" in render(card)


def test_without_held_out_documents_figures_are_empty(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", rows_of(0, 30) + rows_of(1, 30))
    options = {"shards": (path,), "label_column": "y", "holdout": 0.0, "epoch": 1}
    card = train(spec_of(tmp_path / "m.bin", **options))
    assert card["held_out"] == {"n_docs": 0, "positive_label": None}
    assert "nothing was held out" in render(card)


def test_every_part_of_the_card_is_rendered(cli, scored, tmp_path):
    options = [
        "--shards",
        scored,
        "--score-column",
        "score",
        "--positive-top",
        "40%",
        "--negative-bottom",
        "40%",
    ]
    options += ["--clean-labels", "--holdout", "40%", "--bucket", "2000", "--dim", "8"]
    done = cli("train", *options, "--lr", "0.5", "--epoch", "3", "--out", tmp_path / "m.bin")
    assert done.code == 0, done.err
    for part in (
        "406 rows in 1 shards: 400 documents; left out: 6 without a number",
        "score: positive from",
        "labels that look wrong, left out of training:",
        "held out: P(hq) has AUC",
        "calibration: expected error",
    ):
        assert part in done.out
