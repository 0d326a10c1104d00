"""Differences of two losses: fields of the shards, columns of stages, missing values, mistakes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import RecipeError

ROWS = [
    {"text": "first", "a": 3.0, "b": 1.0},
    {"text": "second", "a": 3, "b": 4.5},
    {"text": "third", "a": 2.0},
    {"text": "fourth", "a": "x", "b": 1.0},
    {"text": "fifth", "a": 2.0, "b": 1.5},
]


def run(tmp_path, *stages):
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    recipe = {
        "input": {"shards": str(tmp_path / "raw.jsonl")},
        "stages": list(stages),
        "output": {"folder": str(tmp_path / "out")},
        "work": str(tmp_path / "work"),
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    dataselect.run(tmp_path / "r.yaml", workers=1)
    kept = [
        json.loads(line)["text"]
        for line in (tmp_path / "out/current/shards/raw.jsonl").read_text().splitlines()
    ]
    return kept, pq.read_table(tmp_path / "out/current/decisions").to_pylist()


DIFFERENCE = {"use": "loss_difference", "prior": "a", "conditional": "b"}


def test_the_largest_reductions_are_kept_and_missing_losses_are_worst(tmp_path):
    select = {"use": "select", "by": "loss_reduction", "keep": {"docs": 2}}
    kept, decisions = run(tmp_path, DIFFERENCE, select)
    assert kept == ["first", "fifth"]
    scores = [row["loss_reduction"] for row in decisions]
    assert [scores[i] for i in (0, 1, 4)] == [2.0, -1.5, 0.5]
    assert np.isnan(np.array(scores, float)).tolist() == [False, False, True, True, False]


def test_limits_drop_documents_and_those_without_a_value(tmp_path):
    kept, decisions = run(tmp_path, {**DIFFERENCE, "min": -2.0, "max": 1.0, "as": "gain"})
    assert kept == ["second", "fifth"]
    assert [row["reason"] for row in decisions] == ["gain > 1.0", None, "gain < -2.0", "gain < -2.0", None]


def test_columns_of_earlier_stages_will_do_and_strings_will_not(tmp_path):
    kept, _ = run(tmp_path, DIFFERENCE, {**DIFFERENCE, "prior": "loss_reduction", "as": "second", "min": 0})
    assert kept == ["first"]
    with pytest.raises(RecipeError, match="'shard' is no number"):
        run(tmp_path, {**DIFFERENCE, "prior": "shard"})
