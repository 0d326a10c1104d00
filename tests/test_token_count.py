"""Tokens are counted by the tokenizer's own package, without its special tokens and limits."""

from __future__ import annotations

import sys

import corpora
import numpy as np
import pyarrow as pa
import pytest

import dataselect
from dataselect.core.errors import BadModel, RecipeError
from dataselect.stages import token_count
from dataselect.stages.base import Texts
from dataselect.stages.token_count import TokenCount

TEXTS = ["", "a", "Straße 東京 🙂", "word " * 3000, *(f"document {i} of many words" * i for i in range(200))]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A byte-level BPE that adds a special token and truncates."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs pip install 'dataselect[tokenizers]'")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    made.train_from_iterator([" ".join(TEXTS)], trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made.enable_truncation(16)
    made.enable_padding(length=16)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def counts(path, texts):
    stage = TokenCount(tokenizer=str(path))
    return stage.columns(Texts(pa.array(texts, pa.large_string())), stage.prepare())["n_tokens"].tolist()


def test_counts_are_those_of_the_package_for_any_cut(tokenizer, monkeypatch):
    import tokenizers

    package = tokenizers.Tokenizer.from_file(str(tokenizer))
    package.no_truncation()
    package.no_padding()
    truth = [len(package.encode(text, add_special_tokens=False).ids) for text in TEXTS]
    assert counts(tokenizer, TEXTS) == truth
    assert max(truth) > 1000
    monkeypatch.setattr(token_count, "_BYTES_AT_ONCE", 7)
    assert counts(tokenizer, TEXTS) == truth
    assert counts(tokenizer, []) == []


def test_a_budget_of_tokens_is_kept_by_the_column(tokenizer, tmp_path, serial):
    stages = [
        {"use": "token_count", "tokenizer": str(tokenizer)},
        {"use": "select", "method": "uniform", "keep": {"tokens": 3000}, "tokens": {"column": "n_tokens"}},
    ]
    report = dataselect.run(corpora.make_project(tmp_path, stages))
    rows = corpora.decisions(tmp_path / "out")
    size = sum(row["n_tokens"] for row in rows if row["copies"])
    assert report["funnel"][-1]["selection"]["groups"][0]["size"] == size
    most = max(row["n_tokens"] for row in rows if row["n_tokens"])
    assert 3000 - most <= size <= 3000
    assert np.sum([row["n_tokens"] for row in rows if row["n_tokens"]]) > 3000


def test_what_is_no_tokenizer_or_has_no_package_is_said(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    stage = TokenCount(tokenizer=str(path))
    if "tokenizers" in sys.modules:
        with pytest.raises(BadModel, match=r"tokenizer\.json: no tokenizer"):
            stage.check_files()
    token_count._load.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(RecipeError, match=r"pip install 'dataselect\[tokenizers\]'"):
        stage.check_files()
