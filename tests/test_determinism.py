"""The same corpus gives the same bytes, whoever reads it, in whatever order, cut however."""

from __future__ import annotations

import glob
import os
import shutil

import corpora
import pytest

import dataselect

FORMATS = ["*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.parquet"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Folder whose shards are all cut at piece_bytes=8192, some of them into groups else."""
    folder = tmp_path_factory.mktemp("determinism")
    corpora.make_project(folder)
    return folder


@pytest.fixture(scope="module")
def reference(project):
    """Report of a plain run."""
    return dataselect.run(project / "recipe.yaml", workers=2)


@pytest.fixture
def run(project, tmp_path):
    """Run the recipe with other settings, in folders of its own."""

    def fresh(*sets, workers=2):
        own = [f"work={tmp_path}/work", f"output.folder={tmp_path}/out"]
        return dataselect.run(project / "recipe.yaml", workers=workers, sets=[*own, *sets])

    return fresh


@pytest.mark.parametrize("workers", [1, 7])
def test_any_number_of_workers_gives_the_same_digest(run, reference, workers):
    report = run(workers=workers)
    assert (report["digest"], report["row_digest"]) == (reference["digest"], reference["row_digest"])


def test_any_batch_size_gives_the_same_digest(run, reference):
    assert run("input.batch_rows=7")["digest"] == reference["digest"]


def test_any_order_of_listing_gives_the_same_digest(run, reference, monkeypatch):
    listed = glob.iglob
    monkeypatch.setattr(glob, "iglob", lambda *args, **kw: iter(sorted(listed(*args, **kw), reverse=True)))
    assert run()["digest"] == reference["digest"]


def test_any_order_of_patterns_gives_the_same_digest(run, reference):
    patterns = ", ".join(f"'in/**/{form}'" for form in reversed(FORMATS))
    assert run(f"input.shards=[{patterns}]")["digest"] == reference["digest"]


@pytest.mark.parametrize("batch_rows", [7, 16384])
def test_any_cut_selects_the_same_rows(run, reference, project, tmp_path, batch_rows):
    report = run("input.piece_bytes=8192", f"input.batch_rows={batch_rows}", workers=3)
    assert report["row_digest"] == reference["row_digest"]
    assert corpora.kept_ids(tmp_path / "out") == corpora.kept_ids(project / "out")
    entries = {path.name for path in (corpora.live(tmp_path / "out") / "decisions").rglob("*.parquet")}
    for shard in ("a-", "c-", "d-", "e-", "f-"):
        assert sum(name.startswith(shard) for name in entries) > 1
    # The same duplicates of the same rows, and the same scores, whatever the pieces are called.
    columns = ("id", "stage", "reason", "duplicate_of_shard", "importance", "n_chars", "draw")
    ours, theirs = corpora.decisions(tmp_path / "out"), corpora.decisions(project / "out")
    assert [[row[c] for c in columns] for row in ours] == [[row[c] for c in columns] for row in theirs]


def test_other_cuts_in_the_same_work_folder_do_not_mix(run, reference):
    reports = [run(f"input.piece_bytes={n_bytes}") for n_bytes in (4096, 8192, 4096, 1 << 27)]
    assert {report["row_digest"] for report in reports} == {reference["row_digest"]}
    assert reports[2]["digest"] == reports[0]["digest"]
    assert reports[3]["digest"] == reference["digest"]


def test_a_copy_in_another_place_gives_the_same_digest(reference, project, tmp_path):
    shutil.copytree(project / "in", tmp_path / "elsewhere" / "in")
    shutil.copy(project / "target.jsonl", tmp_path / "elsewhere")
    for i, path in enumerate(sorted((tmp_path / "elsewhere").rglob("*"))):
        os.utime(path, (10**9 + i, 10**9 + i))
    recipe = corpora.write_recipe(tmp_path / "elsewhere", corpora.ALL_STAGES, work=str(tmp_path / "w"))
    report = dataselect.run(recipe)
    assert report["digest"] == reference["digest"]


def test_draws_depend_on_the_id_alone(project, reference, tmp_path):
    (tmp_path / "in").mkdir()
    moved = corpora.docs(50, first=100)
    corpora.write_shard(tmp_path / "in" / "z.jsonl", moved[::-1])
    stage = {"use": "select", "method": "uniform", "keep": {"docs": 10}, "seed": 1}
    dataselect.run(corpora.write_recipe(tmp_path, [stage], input={"shards": ["in/*"]}))
    dataselect.run(
        corpora.write_recipe(project, [stage]), sets=[f"output.folder={tmp_path}/all", f"work={tmp_path}/w"]
    )
    corpora.write_recipe(project)
    of_all = {row["id"]: row["draw"] for row in corpora.decisions(tmp_path / "all")}
    draws = {row["id"]: row["draw"] for row in corpora.decisions(tmp_path / "out")}
    assert draws == {doc.id: of_all[doc.id] for doc in moved}


def test_decisions_and_side_files_are_the_same_too(run, reference, project, tmp_path):
    run("input.batch_rows=11", workers=1)

    def files(out):
        folder = corpora.live(out)
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.parquet") if p.is_file()}

    assert files(tmp_path / "out") == files(project / "out")
