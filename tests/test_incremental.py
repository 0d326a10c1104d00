"""The second run does what changed, no more, and what a run in an empty folder would have given."""

from __future__ import annotations

import json
import os
import shutil

import corpora
import pytest

import dataselect
from dataselect.planning.shards import cut_pieces, list_shards


@pytest.fixture
def project(tmp_path):
    """A corpus that was run once."""
    corpora.make_corpus(tmp_path / "in", 24)
    corpora.make_target(tmp_path / "target.jsonl")
    dataselect.run(corpora.write_recipe(tmp_path))
    return tmp_path


def again(project, *sets):
    """Another run; checked against one in empty folders. Report, and the names of the read tasks that ran."""
    recipe = project / "recipe.yaml"
    planned = dataselect.plan(recipe, sets=sets)
    report = dataselect.run(recipe, sets=sets)
    shutil.rmtree(project / "fresh", ignore_errors=True)
    own = [f"work={project}/fresh/work", f"output.folder={project}/fresh/out"]
    fresh = dataselect.run(recipe, sets=[*own, *sets])
    assert report["digest"] == fresh["digest"]
    assert corpora.decisions(project / "out") == corpora.decisions(project / "fresh" / "out")
    if not any(decision["verdict"] == "waits" for decision in planned["decisions"]):
        assert planned["tasks"]["run"] == report["tasks"]["run"]
    return report, [
        d["task"] for d in planned["decisions"] if d["verdict"] == "run" and d["phase"] == "read 1"
    ]


def phases(report):
    return {phase["phase"].split()[0] for phase in report["phases"]}


def test_a_second_run_runs_nothing(project):
    report, _ = again(project)
    assert report["tasks"] == {"run": 0, "reused": report["tasks"]["reused"], "checked_shards": 0}
    assert report["up_to_date"]


def test_touched_shards_are_checked_and_nothing_runs(project):
    for path in (project / "in").rglob("*.*"):
        os.utime(path)
    report, read = again(project)
    assert (report["tasks"]["run"], report["up_to_date"], read) == (0, True, [])
    # The plan checked them, and remembers.
    assert report["tasks"]["checked_shards"] == 0
    for path in (project / "in").rglob("*.*"):
        os.utime(path)
    assert dataselect.run(project / "recipe.yaml")["tasks"]["checked_shards"] == 6


def test_rehash_reads_everything_and_runs_nothing(project):
    report = dataselect.run(project / "recipe.yaml", rehash=True)
    assert report["tasks"]["checked_shards"] == 6
    assert (report["tasks"]["run"], report["up_to_date"]) == (0, True)


def test_rehash_finds_a_change_that_size_and_time_hide(project):
    path = project / "in" / "a.jsonl"
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"river", b"RIVER", 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert dataselect.run(project / "recipe.yaml")["tasks"]["run"] == 0
    report = dataselect.run(project / "recipe.yaml", rehash=True)
    assert [p["run"] for p in report["phases"] if p["phase"] == "read 1"] == [1]
    _, read = again(project)
    assert read == []


@pytest.mark.parametrize("shard", ["a.jsonl", "d.parquet", "sub/f.jsonl.zst"])
def test_one_changed_byte_reads_one_piece(project, shard):
    path = project / "in" / shard
    rows = corpora.docs(24, first=sorted(corpora.SHARDS).index(shard) * 24)
    rows[2] = corpora.Doc(rows[2].id, rows[2].text + "!")
    corpora.write_shard(path, rows)
    report, read = again(project)
    assert read == [f"read 1 {shard}"]
    assert [p["run"] for p in report["phases"] if p["phase"] == "read 1"] == [1]
    assert not report["up_to_date"]


def test_the_plan_says_why(project):
    path = project / "in" / "a.jsonl"
    path.write_bytes(path.read_bytes().replace(b"river", b"RIVER", 1))
    decisions = dataselect.plan(project / "recipe.yaml")["decisions"]
    reads = {d["task"]: (d["verdict"], d["reason"]) for d in decisions if d["phase"] == "read 1"}
    assert reads.pop("read 1 a.jsonl") == ("run", "content changed")
    assert set(reads.values()) == {("reuse", "its artifacts are there")}
    code, out, err = corpora.cli("plan", project / "recipe.yaml", "--json")
    assert (code, err) == (0, "")
    assert [d["task"] for d in json.loads(out)["decisions"] if d["verdict"] == "run"] == ["read 1 a.jsonl"]


def test_a_shard_added_early_is_the_only_one_read(project):
    corpora.write_shard(project / "in" / "0.parquet", corpora.docs(24, first=500))
    _, read = again(project)
    assert read == ["read 1 0.parquet"]


def test_a_removed_shard_reads_nothing_again(project):
    (project / "in" / "c.jsonl.zst").unlink()
    report, read = again(project)
    assert read == []
    assert report["rows"]["in"] == 5 * 24


def test_appended_lines_read_the_last_piece_only(project):
    cut = "input.piece_bytes=4096"
    dataselect.run(project / "recipe.yaml", sets=[cut])
    path = project / "in" / "a.jsonl"
    last = path.stat().st_size // 4096
    path.write_bytes(path.read_bytes() + corpora.jsonl(corpora.docs(1, first=903)))
    pieces = path.stat().st_size // 4096 + 1
    _, read = again(project, cut)
    assert read == [f"read 1 a-{part:05d}.jsonl" for part in range(last, pieces)]


def test_a_file_more_regroups_its_neighbours_only(tmp_path):
    shards = [f"s{i:04d}.jsonl" for i in range(60)]
    corpora.make_corpus(tmp_path / "in", 1, shards)
    recipe = corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}], input={"shards": ["in/*.jsonl"]})
    cut = f"input.piece_bytes={1 << 18}"
    first = dataselect.run(recipe, sets=[cut])
    n_groups = len(cut_pieces(list_shards([str(tmp_path / "in" / "*.jsonl")]), 1 << 18))
    assert 5 < n_groups < 30
    corpora.write_shard(tmp_path / "in" / "s0030x.jsonl", corpora.docs(1, first=999))
    report, read = again(tmp_path, cut)
    assert 1 <= len(read) <= 2
    assert report["rows"]["in"] == first["rows"]["in"] + 1


def test_without_its_work_folder_a_run_reads_again_and_publishes_nothing_new(project):
    before = json.loads((project / "out" / "manifest.json").read_text())
    shutil.rmtree(project / "work")
    report = dataselect.run(project / "recipe.yaml")
    assert (report["digest"], report["up_to_date"]) == (before["digest"], True)
    assert "write" not in phases(report)
    assert report["generation"] == before["generation"]


def test_unchanged_output_shards_are_the_same_files(project):
    (project / "in" / "sub" / "f.jsonl.zst").unlink()
    sets = ["stages.4.keep={fraction: 1}", "stages.3.fit=frozen"]
    dataselect.run(project / "recipe.yaml", sets=sets)
    first = corpora.live(project / "out")
    corpora.write_shard(project / "in" / "sub" / "g.jsonl", [corpora.Doc("only", "ein " * 60)])
    # Scores are frozen: the one new document would change all of them a little.
    report = dataselect.run(project / "recipe.yaml", sets=sets)
    second = corpora.live(project / "out")
    assert [p["run"] for p in report["phases"] if p["phase"] == "write"] == [1]
    name = "shards/a.jsonl"
    assert (first / name).stat().st_ino == (second / name).stat().st_ino


def test_a_frozen_model_stays_the_same_however_often_it_is_published(project):
    def run(*sets):
        return dataselect.run(project / "recipe.yaml", sets=["stages.3.fit=frozen", *sets])

    exact = {row["id"]: row["importance"] for row in corpora.decisions(project / "out")}
    # Scores now come from the first read, so also for rows that a dedup drops.
    assert phases(run()) == {"read", "select", "write"}
    frozen = {row["id"]: row["importance"] for row in corpora.decisions(project / "out")}
    assert all(score == frozen[key] for key, score in exact.items() if score is not None)
    assert run()["up_to_date"]
    assert phases(run("stages.4.keep={docs: 9}")) == {"select", "write"}


def test_another_threshold_recomputes_what_depends_on_it(project):
    report, _ = again(project, "stages.4.keep={docs: 20}")
    assert phases(report) == {"select", "write"}
    report, _ = again(project, "stages.3.min=-300")
    assert phases(report) == {"select", "write"}
    report, _ = again(project, "output.dropped=true")
    assert phases(report) == {"write"}
    report, read = again(project, "stages.0.min_chars=151")
    assert len(read) == 6  # signatures and samples are made of the rows that the filter keeps


def test_another_target_reads_once(project):
    corpora.make_target(project / "target.jsonl", 3)
    report, read = again(project)
    assert read == [f"read 1 {shard}" for shard in sorted(corpora.SHARDS)]
    assert not phases(report) & {"dedup", "mask"}


def test_a_stage_more_keeps_what_is_there(project):
    recipe = project / "recipe.yaml"
    corpora.write_recipe(
        project, [*corpora.ALL_STAGES, {"use": "select", "method": "uniform", "keep": {"docs": 7}}]
    )
    report = dataselect.run(recipe)
    assert phases(report) == {"select", "write"}
    assert report["rows"]["kept"] == 7
