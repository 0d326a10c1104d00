"""What others may rely on: names, stages, parameters."""

from __future__ import annotations

import inspect

import pytest

import dataselect
from dataselect.report import stageview
from dataselect.stages import KINDS, registry
from dataselect.stages.base import ColumnStage, DedupStage, FittedStage, MapStage, SelectStage

STAGES = {
    "betr": FittedStage,
    "c4@datatrove": MapStage,
    "compression_alignment": MapStage,
    "cross_entropy_difference": FittedStage,
    "exact_dedup": DedupStage,
    "field_dedup": DedupStage,
    "id_filter": ColumnStage,
    "url_dedup": DedupStage,
    "fasttext_label": MapStage,
    "fasttext_quality": MapStage,
    "filter": ColumnStage,
    "join_scores": ColumnStage,
    "fineweb@datatrove": MapStage,
    "gneissweb": ColumnStage,
    "gopher_quality@datatrove": MapStage,
    "gopher_quality@dclm": MapStage,
    "gopher_quality@dolma": MapStage,
    "gopher_repetition@datatrove": MapStage,
    "gopher_repetition@dclm": MapStage,
    "gopher_repetition@dolma": MapStage,
    "language": MapStage,
    "length_filter": MapStage,
    "loss_difference": ColumnStage,
    "minhash_dedup": DedupStage,
    "ngram_importance": FittedStage,
    "refinedweb_lines": MapStage,
    "select": SelectStage,
    "target_overlap": MapStage,
    "target_similarity": FittedStage,
    "url_filter": ColumnStage,
    "signals": MapStage,
    "token_count": MapStage,
}


def test_all_is_the_public_surface_and_sorted():
    assert dataselect.__all__ == ["__version__", "plan", "run"]
    assert all(getattr(dataselect, name) is not None for name in dataselect.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dataselect.nothing  # noqa: B018


def test_run_and_plan_have_the_documented_parameters():
    assert list(inspect.signature(dataselect.run).parameters) == [
        "recipe", "workers", "sets", "sample", "rehash", "engine", "address", "listener",
    ]  # fmt: skip
    assert list(inspect.signature(dataselect.plan).parameters) == ["recipe", "sets", "rehash"]


def test_the_stages_are_these_sorted_by_name():
    found = registry()
    assert list(found) == sorted(STAGES)
    assert {
        use: next(kind for kind in KINDS if issubclass(cls, kind)) for use, cls in found.items()
    } == STAGES


@pytest.mark.parametrize("use", STAGES)
def test_a_stage_says_what_it_is(use):
    cls = registry()[use]
    assert cls.use == use
    assert inspect.cleandoc(cls.__doc__ or "")
    assert cls.version >= 1
    assert cls.source_digest() is None


@pytest.mark.parametrize("use", STAGES)
def test_every_parameter_has_a_description(use):
    properties = registry()[use].model_json_schema()["properties"]
    assert properties
    for name, schema in properties.items():
        assert schema.get("description"), f"{use}.{name}"
        assert not name.endswith("_"), f"{use}.{name} needs an alias"


@pytest.mark.parametrize("use", STAGES)
def test_what_keep_alone_reads_are_parameters(use):
    cls = registry()[use]
    assert cls.decide_fields <= set(cls.model_fields)


def test_stages_are_described_and_rendered():
    described = stageview.describe()
    assert [stage["use"] for stage in described] == sorted(STAGES)
    assert {"kind", "summary", "reads", "adds", "parameters"} < set(described[0])
    text = stageview.render(described)
    assert all(f"{use}: " in text for use in STAGES)
    by_columns = {stage["use"] for stage in described if stage["reads"] == "columns and input fields"}
    assert {"field_dedup", "id_filter", "url_dedup"} <= by_columns
    assert "exact_dedup" not in by_columns


def test_changing_a_threshold_recomputes_no_column_and_changing_the_text_rule_does():
    length = registry()["length_filter"]
    assert length(min_chars=1).compute_fingerprint({}) == length(min_chars=2).compute_fingerprint({})
    assert length(min_chars=1).decide_fingerprint() != length(min_chars=2).decide_fingerprint()
    minhash = registry()["minhash_dedup"]
    assert minhash(ngram=5).compute_fingerprint({}) != minhash(ngram=6).compute_fingerprint({})
    importance = registry()["ngram_importance"]
    one, other = importance(target="here/t.jsonl"), importance(target="there/t.jsonl")
    assert one.compute_fingerprint({"target": "x"}) == other.compute_fingerprint({"target": "x"})
    assert one.compute_fingerprint({"target": "x"}) != one.compute_fingerprint({"target": "y"})
