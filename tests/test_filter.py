"""The filter stage in whole runs."""

from __future__ import annotations

import json

import corpora
import pyarrow.parquet as pq
import pytest
from test_fields import DOCS, project

import dataselect
from dataselect.core.errors import RecipeError


def kept(folder):
    return {row["id"] for row in corpora.decisions(folder / "out") if row["copies"]}


def phases(report):
    return {phase["phase"]: phase["run"] for phase in report["phases"]}


def test_rows_are_kept_only_where_the_expression_is_true(tmp_path):
    recipe = project(tmp_path, "lang == 'en' and meta.score >= 1 or n_words < 20")
    report = dataselect.run(recipe, workers=2)
    docs = DOCS
    wanted = {
        f"d{i}" for i in range(120) if (i % 3 == 0 and i >= 10) or len(docs[i].text.split()) < 20
    }  # fmt: skip
    assert kept(tmp_path) == wanted
    rule = "not (lang == 'en' and meta.score >= 1 or n_words < 20)"
    assert report["funnel"][0]["dropped"][rule]["docs"] == 120 - len(wanted)
    reasons = {row["reason"] for row in corpora.decisions(tmp_path / "out") if row["stage"]}
    assert reasons == {rule}


def test_null_drops_and_its_negation_too(tmp_path):
    recipe = project(tmp_path, "lang == 'en'")
    dataselect.run(recipe, workers=1)
    yes = kept(tmp_path)
    dataselect.run(recipe, workers=1, sets=["stages.0.where=not (lang == 'en')", "stages.0.name=not English"])
    no = kept(tmp_path)
    assert (len(yes), len(no)) == (40, 40)
    assert not yes & no
    assert {row["reason"] for row in corpora.decisions(tmp_path / "out")} == {None, "not English"}


def test_place_and_id_and_columns_of_earlier_stages(tmp_path):
    where = "n_chars > 100 and (shard == 'a.jsonl' and row < 10 or startswith(id, 'd11')) and part == 0"
    recipe = project(tmp_path, "n_bytes >= 0", stages=[{"use": "length_filter", "min_chars": 0}])
    text = recipe.read_text()
    recipe.write_text(text.replace("output:", f'- {{use: filter, where: "{where}"}}\noutput:', 1))
    dataselect.run(recipe, workers=1)
    docs = DOCS
    wanted = {f"d{i}" for i in [*range(10), 11, *range(110, 120)] if len(docs[i].text) > 100}
    assert kept(tmp_path) == wanted


def test_the_same_rows_for_any_cut_and_any_workers(tmp_path):
    stages = [{"use": "length_filter"}, {"use": "filter", "where": "n_chars < 600 or lang is null"}]
    recipe = project(tmp_path, "n_words > 30 and meta.score < 9", stages=[*stages, {"use": "exact_dedup"}])
    digests = set()
    for i, sets in enumerate([[], ["input.piece_bytes=4KiB"], ["input.batch_rows=3"]]):
        out = [f"output.folder=out{i}", f"work=work{i}"]
        digests.add(dataselect.run(recipe, workers=1 + i % 2, sets=[*sets, *out])["row_digest"])
    assert len(digests) == 1


def test_another_expression_over_the_same_fields_reads_nothing(tmp_path):
    stages = [{"use": "length_filter"}, {"use": "filter", "where": "lang == 'en' and n_chars > 300"}]
    recipe = project(tmp_path, "meta.score >= 0", stages=stages)
    dataselect.run(recipe, workers=1)
    report = dataselect.run(
        recipe, workers=1, sets=["stages.2.where=lang != 'de' or n_chars > 400 and length(lang) == 2"]
    )
    assert phases(report) == {"write": 3}
    where = "lang != 'de' or n_chars > 400 and length(lang) == 2"
    sets = [f"stages.2.where={where}", "work=work2", "output.folder=out2"]
    dataselect.run(recipe, workers=1, sets=sets)
    assert report["row_digest"] == json.loads((tmp_path / "out2" / "manifest.json").read_text())["row_digest"]
    # Another field is one read more, of which only that field is stored.
    report = dataselect.run(recipe, workers=1, sets=["stages.2.where=lang == 'en' and id > 'd3'"])
    assert phases(report) == {"write": 3}
    sets = ["stages.2.where=other is null", "input.fields={other: string}"]
    report = dataselect.run(recipe, workers=1, sets=sets)
    assert phases(report)["read 1"] == 3


def test_a_filter_spares_later_stages_its_rows_and_is_part_of_their_names(tmp_path):
    stages = [corpora.own_stage(tmp_path, "HasWord", word="the")]
    recipe = project(tmp_path, "lang == 'en'", stages=stages)
    dataselect.run(recipe, workers=1)
    hits = [row["n_hits"] for row in corpora.decisions(tmp_path / "out")]
    assert sum(hit is None for hit in hits) == 80
    for i in range(2):  # the second time from stored columns
        where = ["stages.0.where=lang == 'de'", f"stages.1.word={['the', 'a'][i]}"]
        dataselect.run(recipe, workers=1, sets=where)
        of = {row["id"]: row["n_hits"] for row in corpora.decisions(tmp_path / "out")}
        assert {name for name, hit in of.items() if hit is not None} == {f"d{n}" for n in range(1, 120, 3)}


def test_a_filter_by_a_score_of_a_fitted_stage_and_a_selection_by_it(tmp_path):
    corpora.make_target(tmp_path / "target.jsonl")
    stages = [
        {"use": "ngram_importance", "target": "target.jsonl", "n_buckets": 64},
        {"use": "filter", "where": "importance > -1000 and lang == 'en' and n_words > 20"},
        {"use": "length_filter"},
        {"use": "select", "by": "importance", "keep": {"docs": 7}},
    ]
    recipe = project(tmp_path, "meta.score >= 0", stages=stages)
    report = dataselect.run(recipe, workers=2)
    assert report["rows"]["kept"] == 7
    assert {int(name[1:]) % 3 for name in kept(tmp_path)} == {0}
    again = dataselect.run(
        recipe, workers=1, sets=["output.folder=out2", "work=work2", "input.piece_bytes=4KiB"]
    )
    assert again["row_digest"] == report["row_digest"]


def test_fields_of_shards_that_lack_them_are_null(tmp_path):
    recipe = project(tmp_path, "lang is null")
    table = pq.read_table(tmp_path / "in" / "c.parquet").drop_columns("lang")
    pq.write_table(table, tmp_path / "in" / "c.parquet")
    dataselect.run(recipe, workers=1)
    assert len(kept(tmp_path) & {f"d{i}" for i in range(90, 120)}) == 30


def test_mistakes_in_the_expression_are_named_with_their_line(tmp_path, cli):
    recipe = project(tmp_path, "n_words >")
    done = cli("plan", recipe)
    assert done.code == 2
    assert "recipe.yaml:6: stages[0].where: at character 10: invalid syntax" in done.err
    with pytest.raises(RecipeError, match="missing \\)"):
        dataselect.plan(recipe, sets=["stages.0.where=matches(lang, '(')"])


def test_values_of_another_type_are_null_and_counted(tmp_path, cli):
    rows = [{"id": str(i), "text": f"text {i}", "score": [1.0, "high"][i % 2]} for i in range(20)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = [{"use": "filter", "where": "score > 0 or score <= 0"}]
    recipe = corpora.write_recipe(tmp_path, stages, input={"shards": "in/*"})
    done = cli("run", recipe, "--workers", "1")
    assert "field score: 10 values of another type, read as null" in done.out
    assert len(kept(tmp_path)) == 10


def test_bounds_of_a_length_that_leave_nothing_are_a_mistake(tmp_path):
    recipe = project(
        tmp_path, "lang == 'en'", stages=[{"use": "length_filter", "min_chars": 10, "max_chars": 9}]
    )
    with pytest.raises(RecipeError, match=r"stages\[1\].min_chars: 10 is more than max_chars, 9"):
        dataselect.plan(recipe)


def test_a_sample_run_filters_as_well(tmp_path):
    recipe = project(tmp_path, "lang == 'en' and shard != 'b.jsonl.zst'")
    report = dataselect.run(recipe, workers=1, sample=0.5)
    assert (
        report["rows"]["kept"] + report["rows"]["dropped"] + report["rows"]["unsampled"]
        == report["rows"]["in"]
    )
    assert 0 < report["rows"]["kept"] < 40
