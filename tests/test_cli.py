"""The command line: verbs, exit codes, JSON, and one clear sentence for everything that can be wrong."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect import prepare, runner

ROOT = Path(dataselect.__file__).parents[1]
VERBS = ["run", "plan", "train", "ls", "stages", "schema"]
RECIPE = """\
input: {shards: 'in/*', text: text, id: id}
stages:
  - {use: length_filter, min_chars: 5}
  - {use: exact_dedup}
output: {folder: out}
work: work
"""
DEDUP = "  - {use: exact_dedup}"


def rows(n, text="text", words=3):
    return "".join(json.dumps({"id": f"i{i}", text: f"row {i} " + "word " * words}) + "\n" for i in range(n))


@pytest.fixture
def here(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text(rows(20))
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A folder after one run; read only."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "in").mkdir()
    for name in "abc":  # the last is a copy of the first: all duplicates, no shard
        (folder / f"in/{name}.jsonl").write_text(rows(20, words=4 if name == "b" else 3))
    (folder / "r.yaml").write_text(RECIPE.replace("id: id}", "id: id, piece_bytes: 1024}"))
    runner.run(folder / "r.yaml", workers=1)
    return folder


def recipe(folder, *changes):
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "r.yaml").write_text(text)
    return folder / "r.yaml"


def fails(result, code, *words):
    """The run failed with one sentence that holds all of `words`."""
    assert result.code == code, result
    assert result.out == ""
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("dataselect: ")
    for word in words:
        assert word in lines[0]
    return True


def nothing_published(folder):
    out = folder / "out"
    return not (out / "manifest.json").exists() and not os.path.lexists(out / "current")


def live_text(folder):
    return b"".join(
        path.read_bytes() for path in sorted((folder / "out/current/shards").rglob("*.jsonl"))
    ).decode()


# Help and lists ----------------------------------------------------------------------------------------


def test_help_names_every_verb_and_the_exit_codes(cli):
    result = cli("--help")
    assert result.code == 0
    assert all(f" {verb} " in result.out for verb in VERBS)
    assert "Exit codes: 0 done, 1 failed, 2 bad recipe or usage, 3" in result.out.replace("\n", " ")
    assert cli().code in (0, 2)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_takes_json(cli, verb):
    result = cli(verb, "--help")
    assert result.code == 0
    assert "--json" in result.out


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").out == f"dataselect {dataselect.__version__}\n"


@pytest.mark.parametrize(
    "args", [["rum"], ["run"], ["plan", "--nothing", "x"], ["run", "r.yaml", "--workers", "0"], ["ls"]]
)
def test_wrong_usage_is_exit_code_2(cli, args):
    result = cli(*args)
    assert result.code == 2
    assert result.out == ""
    assert "Error" in result.err


def test_help_is_quick_and_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "dataselect", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {
        "numpy",
        "pyarrow",
        "numba",
        "pydantic",
        "yaml",
        "fsspec",
        "datasets",
        "pandas",
        "fasttext",
    }


def test_stages_are_listed_for_people_and_machines(cli):
    assert "minhash_dedup: " in cli("stages").out
    assert {stage["use"] for stage in json.loads(cli("stages", "--json").out)} >= {"select", "exact_dedup"}


def test_the_s_curve_is_drawn_for_people_and_machines(cli):
    curve = json.loads(cli("dedup-curve", "--bands", "14x8", "--docs", 10**9, "--json").out)
    found = {point["jaccard"]: round(point["candidate"], 3) for point in curve["curve"]}
    assert [found[j] for j in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85)] == [0.053, 0.211, 0.565, 0.772, 0.924, 0.988]
    assert round(curve["half_found_at"], 3) == 0.685
    assert curve["disk_bytes"] == 10**9 * (14 * 13 + 132)
    shown = cli("dedup-curve", "--threshold", 0.8).out
    assert "18 bands of 7 rows" in shown
    assert "0.80     98.554%" in shown
    for mistake, expected in [
        (["--bands", "20x8"], "bands: [bands, rows] must multiply to at most num_perm = 128"),
        (["--bands", "many"], "bands: expected"),
        (["--threshold", 2], "threshold: expected a number in (0, 1], got 2.0"),
        (["--num-perm", 2], "num_perm: 2 is too few"),
    ]:
        result = cli("dedup-curve", *mistake)
        assert (result.code, result.out) == (2, "")
        assert expected in result.err


def test_the_schema_is_json_with_and_without_the_flag(cli):
    schema = json.loads(cli("schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(cli("schema", "--json").out) == schema


# Run, plan, ls -----------------------------------------------------------------------------------------


def test_ls_lists_the_live_shards_in_order(cli, published):
    lines = cli("ls", f"{published}/out/").out.splitlines()
    assert lines == json.loads(cli("ls", published / "out", "--json").out)
    assert lines == sorted(lines)
    assert "".join(Path(line).read_text() for line in lines) == rows(20) + rows(20, words=4)


def test_ls_of_nothing_is_one_sentence(cli, tmp_path):
    fails(cli("ls", tmp_path), 1, f"{tmp_path}: nothing is published here")
    fails(cli("ls", tmp_path / "none"), 1, "nothing is published here")
    (tmp_path / "file").touch()
    fails(cli("ls", tmp_path / "file"), 1, "nothing is published here")
    (tmp_path / "manifest.json").write_text("[]")
    fails(cli("ls", tmp_path), 2, "manifest.json: not a manifest of dataselect")


def test_ls_reads_object_stores(cli, published):
    from dataselect.io.store import store_at

    with store_at("memory://ls-test/out").commit("manifest.json") as file:
        file.write((published / "out/manifest.json").read_bytes())
    lines = cli("ls", "memory://ls-test/out").out.splitlines()
    assert lines[0].startswith("memory://ls-test/out/000001-")


def test_a_run_prints_the_funnel_and_its_json_has_the_same_figures(cli, here):
    result = cli("run", here / "r.yaml", "--workers", "1", "--quiet")
    assert result.code == 0
    assert "rows in 20 = 20 kept + 0 dropped + 0 quarantined" in result.out
    assert "published generation 000001-" in result.out
    again = cli("run", here / "r.yaml", "--workers", "1", "--json")
    report = json.loads(again.out)
    assert report["up_to_date"]
    counts = {
        "in": 20,
        "kept": 20,
        "written": 20,
        "dropped": 0,
        "quarantined": 0,
        "unsampled": 0,
        "heldout": 0,
    }
    assert report["rows"] == counts
    assert live_text(here) == rows(20)


def test_a_profile_accounts_for_every_second_of_the_workers(cli, here):
    result = cli("run", here / "r.yaml", "--workers", "1", "--quiet", "--profile", "--json")
    report = json.loads(result.out)
    seconds = {phase["phase"]: phase["seconds"] for phase in report["phases"] if phase["seconds"]}
    assert {"read", "parse", "0:length_filter", "commit"} <= set(seconds["read 1"])
    assert {"read", "resolve", "decisions", "write", "commit"} == set(seconds["write"])
    busy_s = sum(sum(phase["seconds"].values()) for phase in report["phases"])
    assert sum(report["seconds"].values()) == pytest.approx(busy_s, abs=0.01)
    assert re.search(r"^workers: [\d.]+ s of 1 x ", result.err, re.MULTILINE)
    assert re.search(r"^read 1 +0:length_filter +[\d.]+ +[\d.]+%$", result.err, re.MULTILINE)


def test_a_coordinator_stays_small(here):
    code = "import sys, dataselect; print(dataselect.run(*sys.argv[1:])['max_rss_bytes']['coordinator'])"
    command = [sys.executable, "-c", code, str(here / "r.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


def test_a_plan_and_a_dry_run_are_the_same_and_write_nothing(cli, here):
    plan = cli("plan", here / "r.yaml")
    assert plan.code == 0
    assert "reads of the text: 2" in plan.out
    # Free space is whatever else runs on the machine leaves.
    space = re.compile(r"[\d,]+ MB free")
    assert space.sub("", cli("run", here / "r.yaml", "--dry-run").out) == space.sub("", plan.out)
    dry = json.loads(cli("run", here / "r.yaml", "--dry-run", "--json").out)
    planned = json.loads(cli("plan", here / "r.yaml", "--json").out)
    assert dry | {"free_bytes": 0} == planned | {"free_bytes": 0}
    assert not (here / "out").exists()
    assert not (here / "work").exists()


def test_a_sample_run_publishes_nothing(cli, here):
    (here / "in/a.jsonl").write_text(rows(2000))
    result = cli("run", here / "r.yaml", "--sample", "10%", "--json", "--quiet")
    report = json.loads(result.out)
    assert result.code == 0
    assert report["generation"] is None
    assert report["rows"]["in"] == 2000
    assert 100 < report["rows"]["kept"] < 320
    assert report["rows"]["kept"] + report["rows"]["unsampled"] == 2000
    assert nothing_published(here)
    assert not list((here / "out").rglob("*.jsonl"))
    assert (
        "sample run: nothing was published" in cli("run", here / "r.yaml", "--sample", "0.1", "--quiet").out
    )


@pytest.mark.parametrize("share", ["abc", "0", "200%", "-1", ""])
def test_a_share_that_makes_no_sense_is_one_sentence(cli, here, share):
    fails(cli("run", here / "r.yaml", "--sample", share), 2, f"--sample {share}: expected a share")


def test_a_recipe_runs_from_any_folder(cli, here, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    monkeypatch.chdir(other)
    result = cli("run", os.path.relpath(here / "r.yaml"), "--workers", "1", "--quiet")
    assert result.code == 0
    assert live_text(here) == rows(20)
    assert not list(other.iterdir())


def test_a_guard_that_fails_is_exit_code_3_and_publishes_nothing(cli, here):
    (here / "r.yaml").write_text(RECIPE + "expect: {min_rows: 21}\n")
    fails(cli("run", here / "r.yaml", "--workers", "1", "--quiet"), 3, "expect.min_rows: 21, but it is 20")
    assert nothing_published(here)


def test_a_second_run_at_the_same_time_is_exit_code_4(cli, here):
    from dataselect.io.store import LocalStore
    from dataselect.publish import locked

    with locked(LocalStore(here / "out")):
        fails(cli("run", here / "r.yaml", "--quiet"), 4, "another run is writing to this output folder")


def test_train_makes_a_model_that_a_recipe_can_use(cli, here):
    pytest.importorskip("fasttext")
    (here / "hq.jsonl").write_text(rows(60, words=3))
    (here / "lq.jsonl").write_text(rows(60).replace("word", "spam"))
    args = [
        "--positive",
        here / "hq.jsonl",
        "--negative",
        here / "lq.jsonl",
        "--out",
        here / "m.bin",
        "--dim",
        "4",
    ]
    result = cli("train", *args, "--bucket", "1000", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["positive_label"] == "hq"
    changed = recipe(here, (DEDUP, "  - {use: fasttext_quality, model: m.bin, label: good}"))
    fails(cli("run", changed, "--quiet"), 1, "m.bin: the model has no label 'good'; its labels are")
    assert nothing_published(here)
    assert cli("run", changed, "--quiet", "--workers", "1", "--set", "stages.1.label=hq").code == 0


def test_training_on_nothing_is_one_sentence(cli, tmp_path):
    pytest.importorskip("fasttext")
    (tmp_path / "a.jsonl").write_text(rows(3))
    args = ["--positive", tmp_path / "a.jsonl", "--out", tmp_path / "m.bin"]
    fails(cli("train", *args), 2, "--negative is missing")
    fails(cli("train", *args, "--negative", tmp_path / "none.jsonl"), 2, "none.jsonl")
    assert not (tmp_path / "m.bin").exists()


# What can be wrong with the input ----------------------------------------------------------------------


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


def no_shards(here):
    shutil.rmtree(here / "in")
    return recipe(here), 2, ["input.shards: no file matches", "/in/*"]


def only_a_folder(here):
    (here / "in/a.jsonl").unlink()
    (here / "in/x.jsonl").mkdir()
    return recipe(here), 2, ["input.shards: no file matches"]


def broken_link(here):
    (here / "in/z.jsonl").symlink_to("nowhere")
    return recipe(here), 2, ["in/z.jsonl: vanished or a broken link"]


def unknown_ending(here):
    (here / "in/readme.txt").touch()
    return recipe(here), 2, ["readme.txt: unknown ending; known are .jsonl"]


def foreign_output(here):
    (here / "out").mkdir()
    (here / "out/thesis.tex").touch()
    return (
        recipe(here),
        2,
        ["out holds files that dataselect did not write (thesis.tex); name a new or an empty folder"],
    )


def output_is_a_file(here):
    (here / "out").touch()
    return recipe(here), 2, ["out is a file, not a folder"]


def work_is_a_file(here):
    (here / "work").touch()
    return recipe(here), 1, ["work/", "cannot write: "]


def output_in_the_glob(here):
    return (
        recipe(here, ("in/*", "**/*.jsonl")),
        2,
        ["**/*.jsonl would match what is written to", "keep them apart"],
    )


def shards_in_the_output(here):
    shutil.copytree(here / "in", here / "out/000001-0123456789ab")
    return recipe(here, ("in/*", "out/*/*.jsonl")), 2, ["which lies in output.folder; keep them apart"]


def missing_id(here):
    return (
        recipe(here, ("id: id", "id: idd")),
        2,
        ["input.id: no column 'idd' in a.jsonl, which has id, text; did you mean 'id'?"],
    )


def missing_text(here):
    return (
        recipe(here, ("text: text", "text: content")),
        2,
        ["input.text: no column 'content' in a.jsonl, which has id, text"],
    )


def parquet_without_text(here):
    parquet(here / "in/b.parquet", id=["1"], body=["x"])
    return recipe(here), 2, ["input.text: no column 'text' in b.parquet, which has id, body"]


def second_parquet_without_text(here):
    parquet(here / "in/b.parquet", id=["1"], text=["x"])
    parquet(here / "in/c.parquet", id=["1"], body=["x"])
    return recipe(here), 1, ["c.parquet: has no text column 'text'; it has id, body"]


def second_parquet_without_id(here):
    parquet(here / "in/b.parquet", id=["1"], text=["x"])
    parquet(here / "in/c.parquet", text=["x"])
    return recipe(here), 1, ["c.parquet: has no id column 'id'; it has text"]


def text_of_numbers(here):
    parquet(here / "in/b.parquet", id=[1], text=[5])
    return recipe(here), 1, ["b.parquet: the text column 'text' is of type int64, not string"]


def no_parquet(here):
    (here / "in/b.parquet").write_text("hello")
    return recipe(here), 1, ["b.parquet: not a whole Parquet file"]


def cut_gzip(here):
    (here / "in/b.jsonl.gz").write_bytes(gzip.compress(rows(500).encode())[:-20])
    return (
        recipe(here),
        1,
        ["b.jsonl.gz: the gzip stream is truncated or corrupt", "fetch or make the file again"],
    )


def only_bad_shards(here):
    (here / "in/a.jsonl").unlink()
    (here / "in/b.jsonl.zst").write_text("hello")
    return (
        recipe(here, ("id: id", "id: id, on_bad_shard: quarantine")),
        1,
        ["every shard is bad; the first: b.jsonl.zst: "],
    )


def bad_rows(here):
    (here / "in/b.jsonl").write_text(rows(1) + "not json\n" * 50)
    return (
        recipe(here),
        1,
        ["50 of 71 rows are bad, more than input.max_bad_rows allows (10)", "b.jsonl: row 1: invalid JSON"],
    )


def column_is_there_already(here):
    (here / "in/a.jsonl").write_text('{"id": "1", "text": "some text", "n_chars": 3}\n')
    return (
        recipe(here, ("folder: out", "folder: out, add: [n_chars]")),
        2,
        ["a.jsonl has a column 'n_chars' already"],
    )


def importance(here, content, name="t.jsonl", extra=""):
    (here / name).write_text(content)
    return recipe(here, (DEDUP, f"  - {{use: ngram_importance, target: {name}{extra}}}"))


def empty_target(here):
    return importance(here, ""), 1, ["t.jsonl: the target has no words in 'text'"]


def target_without_text(here):
    return (
        importance(here, rows(3, "body")),
        1,
        ["t.jsonl: no column 'text' (target_text); it has id, body"],
    )


def target_of_unknown_kind(here):
    return importance(here, "x", "t.txt"), 1, ["t.txt: unknown ending; known are .jsonl"]


def target_that_is_no_parquet(here):
    return importance(here, "x", "t.parquet"), 1, ["t.parquet: not a whole Parquet file"]


def fit_that_is_no_model(here):
    return importance(here, rows(3), extra=", fit: t.jsonl"), 2, ["t.jsonl is no fitted model of dataselect"]


def fit_that_is_missing(here):
    return (
        importance(here, rows(3), extra=", fit: none"),
        2,
        ["fit: expected exact, frozen or a file; no file", "/none"],
    )


def fasttext(here, content):
    (here / "m.bin").write_bytes(content)
    return recipe(here, (DEDUP, "  - {use: fasttext_quality, model: m.bin, label: hq}"))


def no_model(here):
    return fasttext(here, b"hello"), 1, ["m.bin: not a fastText model"]


def empty_model(here):
    return fasttext(here, b""), 1, ["m.bin: not a fastText model"]


WRONG = [
    no_shards, only_a_folder, broken_link, unknown_ending, foreign_output, output_is_a_file, work_is_a_file,
    output_in_the_glob, shards_in_the_output, missing_id, missing_text, parquet_without_text,
    second_parquet_without_text, second_parquet_without_id, text_of_numbers, no_parquet, cut_gzip,
    only_bad_shards, bad_rows, column_is_there_already, empty_target, target_without_text,
    target_of_unknown_kind,
    target_that_is_no_parquet, fit_that_is_no_model, fit_that_is_missing, no_model, empty_model,
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_one_sentence_and_nothing_is_published(cli, here, wrong):
    path, code, words = wrong(here)
    fails(cli("run", path, "--quiet", "--workers", "1"), code, *words)
    assert nothing_published(here)


def test_a_folder_named_like_a_shard_is_passed_over(cli, here):
    (here / "in/x.jsonl").mkdir()
    assert cli("run", here / "r.yaml", "--quiet", "--workers", "1").code == 0


@pytest.mark.parametrize(
    "bad", ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2", "a.jsonl.xz", "a.parquet", "a.arrow", "z.jsonl.gz"]
)
def test_bad_shards_are_left_out_where_the_recipe_says_so(cli, here, bad):
    (here / "in/a.jsonl").rename(here / "in/b.jsonl")
    (here / f"in/{bad}").write_text("hello")
    changed = recipe(here, ("id: id", "id: id, on_bad_shard: quarantine"))
    result = cli("run", changed, "--quiet", "--workers", "1", "--json")
    assert result.code == 0, result.err
    assert list(json.loads(result.out)["bad_shards"]) == [bad]
    assert live_text(here) == rows(20)


def test_a_model_fitted_with_other_parameters_is_refused(cli, here):
    importance(here, rows(3))
    assert cli("run", here / "r.yaml", "--quiet", "--workers", "1").code == 0
    model = next((here / "out/current/fitted").resolve().iterdir())
    shutil.copy(model, here / "m.fit")
    path = importance(here, rows(3), extra=", fit: m.fit, order: 3")
    fails(cli("plan", path), 2, "fit: the model was fitted with order: 2, not 3")
    path = importance(here, rows(3), extra=", fit: frozen, n_buckets: 500")
    fails(cli("plan", path), 2, "fit: the model was fitted with n_buckets: 10000, not 500")
    (here / "r.yaml").write_text(path.read_text().replace(", n_buckets: 500", "").replace(
        "output:", "  - {use: select, by: importance, keep: {docs: 3}, fit: m.fit}\noutput:"
    ))  # fmt: skip
    fails(cli("plan", here / "r.yaml"), 2, "m.fit is a model of ngram_importance, not of select")
    path = importance(here, rows(3), extra=", fit: m.fit, min: -1000")  # a bound is no part of the model
    assert cli("run", path, "--quiet", "--workers", "1").code == 0


@pytest.mark.parametrize("change", ["vanish", "grow"])
def test_a_shard_that_changes_during_the_run_stops_it(cli, here, monkeypatch, change):
    def cut(*args, **kwargs):
        pieces = cut_pieces(*args, **kwargs)
        shard = here / "in/a.jsonl"
        shard.unlink() if change == "vanish" else shard.write_text(rows(30))
        return pieces

    cut_pieces = prepare.cut_pieces
    monkeypatch.setattr(prepare, "cut_pieces", cut)
    words = (
        "a.jsonl: the shard vanished during the run"
        if change == "vanish"
        else "a.jsonl: the shard changed during the run"
    )
    fails(cli("run", here / "r.yaml", "--quiet", "--workers", "1"), 1, words)
    assert nothing_published(here)
    monkeypatch.undo()
    (here / "in/a.jsonl").write_text(rows(30))


# Disks -------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(here):
    """Mounts a small disk on a folder of `here`."""
    mounted = []

    def mount(name, size="1m"):
        (here / name).mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(here / name)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting needs root")
        mounted.append(here / name)
        return here / name

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def incompressible(n):
    import random

    rng = random.Random(0)
    return "".join(json.dumps({"id": f"i{i}", "text": f"{rng.getrandbits(800):x}"}) + "\n" for i in range(n))


@pytest.mark.parametrize("name", ["out", "work"])
def test_a_full_disk_is_one_sentence_and_a_larger_one_goes_on(cli, here, disk, name):
    (here / "in/a.jsonl").write_text(incompressible(20_000))
    folder = disk(name)
    fails(
        cli("run", here / "r.yaml", "--quiet", "--workers", "1"),
        1,
        f"/{name}/",
        "cannot write: the disk is full",
    )
    assert nothing_published(here)
    assert not list(folder.rglob(".tmp-*"))
    subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
    assert cli("run", here / "r.yaml", "--quiet", "--workers", "1").code == 0
    assert live_text(here) == (here / "in/a.jsonl").read_text()


def test_a_full_output_disk_is_one_sentence_for_parquet_too(here, disk):
    texts = [json.loads(line) for line in incompressible(20_000).splitlines()]
    (here / "in/a.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(texts), here / "in/a.parquet", row_group_size=1000)
    disk("out")
    command = [sys.executable, "-m", "dataselect", "run", str(here / "r.yaml"), "--quiet", "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot write: the disk is full" in done.stderr
    assert nothing_published(here)


@pytest.mark.parametrize("name", ["out", "work"])
def test_a_read_only_disk_is_one_sentence(cli, here, disk, name):
    folder = disk(name)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    fails(
        cli("run", here / "r.yaml", "--quiet", "--workers", "1"),
        1,
        f"/{name}",
        "cannot write: the file system is read-only",
    )
    assert nothing_published(here)


def test_a_closed_pipe_is_no_traceback(published):
    program = f"{sys.executable} -m dataselect"
    command = f"{program} schema | true; {program} ls {published}/out | true"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
