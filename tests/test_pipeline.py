"""What comes out of a recipe, against obvious Python that holds everything in memory."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import RecipeError
from dataselect.core.lsh import optimal_bands

DOCS_PER_SHARD = 40


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Folder with the corpus and the target; its shards are grouped where they are neighbours of a kind."""
    folder = tmp_path_factory.mktemp("pipeline")
    corpora.make_corpus(folder / "in", DOCS_PER_SHARD)
    corpora.make_target(folder / "target.jsonl")
    return folder


@pytest.fixture(scope="module")
def docs():
    """(shard, row, document) of all rows, in order."""
    shards = sorted(corpora.SHARDS)
    rows = [corpora.docs(DOCS_PER_SHARD, first=i * DOCS_PER_SHARD) for i in range(len(shards))]
    return [(shard, row, doc) for shard, of in zip(shards, rows, strict=True) for row, doc in enumerate(of)]


@pytest.fixture
def run(project, tmp_path):
    """Run stages over the corpus with an output folder of the test's own; its report and the folder."""

    def run_stages(stages, **sections):
        sections["output"] = {"folder": str(tmp_path / "out"), **sections.get("output", {})}
        report = dataselect.run(corpora.write_recipe(project, stages, **sections), workers=2)
        return report, tmp_path / "out"

    return run_stages


def buffers(texts):
    from dataselect.kernels.arrow import text_buffers

    return text_buffers(pa.array(texts, pa.large_string()))


# Stages


def test_length_filter_counts_code_points(run, docs):
    _, out = run([{"use": "length_filter", "min_chars": 150, "max_chars": 600}])
    assert corpora.kept_ids(out) == [doc.id for _, _, doc in docs if 150 <= len(doc.text) <= 600]


def test_exact_dedup_keeps_the_first_in_shard_and_row_order(run, docs):
    _, out = run([{"use": "exact_dedup"}])
    first = {}
    for shard, row, doc in docs:
        first.setdefault(doc.text, (shard, row))
    for decision, (shard, row, doc) in zip(corpora.decisions(out), docs, strict=True):
        assert (decision["shard"], decision["row"], decision["id"]) == (shard, row, doc.id)
        original = first[doc.text]
        if original == (shard, row):
            assert (decision["copies"], decision["stage"], decision["duplicate_of_row"]) == (1, None, None)
        else:
            assert (decision["copies"], decision["stage"]) == (0, "exact_dedup")
            assert (decision["duplicate_of_shard"], decision["duplicate_of_row"]) == original


def test_shards_of_the_same_content_do_not_mix(tmp_path):
    """They share artifacts, whatever their compression."""
    rows = corpora.docs(30)
    for name in ("a.jsonl", "b.jsonl", "b.jsonl.gz", "c.parquet", "d.parquet"):
        corpora.write_shard(tmp_path / "in" / name, rows)
    stages = [{"use": "exact_dedup"}, {"use": "select", "method": "uniform", "keep": {"docs": 5}}]
    given = {"shards": ["in/*"], "piece_bytes": 8192}
    report = dataselect.run(corpora.write_recipe(tmp_path, stages, input=given))
    assert report["rows"]["in"] == 150
    n_distinct = len({row.text for row in rows})
    assert report["funnel"][0]["out"]["docs"] == n_distinct
    decisions = corpora.decisions(tmp_path / "out")
    assert {row["shard"] for row in decisions if row["stage"] != "exact_dedup"} == {"a.jsonl"}
    assert {row["duplicate_of_shard"] for row in decisions} == {None, "a.jsonl"}


def test_minhash_dedup_is_brute_force_over_the_band_hashes(run, docs):
    from dataselect.kernels import reference
    from dataselect.kernels.minhash import affine32_params

    unverified = {"bands": "datasketch", "verify": "none", "survivors": "component"}
    _, out = run([{"use": "minhash_dedup", "threshold": 0.7, "ngram": 3, "num_perm": 32, **unverified}])
    bands, rows = optimal_bands(0.7, 32)
    offsets, data = buffers([doc.text for _, _, doc in docs])
    signatures = np.empty((len(docs), 32), np.uint32)
    n_words = np.empty(len(docs), np.int64)
    reference.minhash_signatures(offsets, data, 3, *affine32_params(32), signatures, n_words)
    hashes = np.empty((len(docs), bands), np.uint64)
    reference.band_hashes(signatures, bands, rows, hashes)
    neighbours = defaultdict(set)
    for band in range(bands):
        members = defaultdict(list)
        for i in np.flatnonzero(n_words).tolist():
            members[int(hashes[i, band])].append(i)
        for group in members.values():
            for i in group:
                neighbours[i] |= set(group)
    kept, seen = [], set()
    for i in range(len(docs)):
        if i not in seen:
            kept.append(docs[i][2].id)
            reached = [i]
            while reached:
                member = reached.pop()
                reached += neighbours[member] - seen
                seen |= neighbours[member] | {member}
    assert len(kept) < len(docs) * 0.85
    assert corpora.kept_ids(out) == kept


def slow_importance(texts, target, n_buckets=512, order=2):
    """Log weight of each text by the formula, one n-gram after the other."""
    from dataselect.kernels import reference

    def buckets_of(some):
        first, buckets = reference.ngram_lists(*buffers(some), order, n_buckets)
        return [buckets[a:b].tolist() for a, b in itertools.pairwise(first.tolist())]

    raw, wanted = buckets_of(texts), buckets_of(target)
    q, p = [0] * n_buckets, [0] * n_buckets
    for counts, lists in ((q, raw), (p, wanted)):
        for bucket in itertools.chain(*lists):
            counts[bucket] += 1
    ratio = [math.log(p[j] / sum(p) + 1e-8) - math.log(q[j] / sum(q) + 1e-8) for j in range(n_buckets)]
    return [sum(ratio[j] for j in buckets) for buckets in raw]


IMPORTANCE = {"use": "ngram_importance", "target": "target.jsonl", "n_buckets": 512}


def test_ngram_importance_is_fitted_on_what_reaches_it(run, docs):
    _, out = run([{"use": "length_filter", "min_chars": 150}, {"use": "exact_dedup"}, IMPORTANCE])
    texts = dict.fromkeys(doc.text for _, _, doc in docs if len(doc.text) >= 150)
    target = corpora.make_target(out.parent / "copy.jsonl")
    expected = dict(zip(texts, slow_importance(list(texts), target), strict=True))
    for decision, (_, _, doc) in zip(corpora.decisions(out), docs, strict=True):
        if decision["copies"]:
            assert decision["importance"] == pytest.approx(expected[doc.text], abs=1e-4)
        else:
            assert decision["importance"] is None


def in_order(decisions, budget, weights):
    """Ids taken in this order until one would exceed the budget; in document order."""
    taken, used = set(), 0
    for decision in decisions:
        used += weights[decision["id"]]
        if used > budget:
            break
        taken.add(decision["id"])
    return taken


@pytest.mark.parametrize(
    "method, unit, budget",
    [
        ("top_k", "docs", 50),
        ("top_k", "words", 3_000),
        ("resample", "fraction", 0.31),
        ("resample", "bytes", 20_000),
        ("uniform", "docs", 50),
        ("uniform", "words", 3_000),
    ],
)
def test_select_equals_a_sort_with_ties_by_document_id(run, docs, method, unit, budget):
    by = {"uniform": {}, "top_k": {"by": "n_chars"}, "resample": {"by": "importance", "temperature": 20.0}}[
        method
    ]
    select = {"use": "select", "method": method, "keep": {unit: budget}, "seed": 7, **by}
    _, out = run([{"use": "length_filter", "min_chars": 40}, IMPORTANCE, select])
    rows = [row for row in corpora.decisions(out) if row["stage"] in (None, "select")]

    def rank(row):
        if method == "top_k":
            return -row["n_chars"]
        if method == "uniform":
            return -row["draw"]
        gumbel = -math.log(-math.log(row["draw"]))
        return -(round(row["importance"] / 20.0 * 2**24) + round(gumbel * 2**24))

    texts = {doc.id: doc.text for _, _, doc in docs}
    measure = {"bytes": lambda t: len(t.encode()), "words": lambda t: len(t.encode().split())}
    weights = {key: measure.get(unit, lambda t: 1)(text) for key, text in texts.items()}
    limit = math.floor(budget * len(rows) + 0.5) if unit == "fraction" else budget
    expected = in_order(sorted(rows, key=rank), limit, weights)  # sorted is stable: ties stay in order
    assert 0 < len(expected) < len(rows)
    assert set(corpora.kept_ids(out)) == expected


def test_another_seed_is_another_draw(run):
    kept = []
    for seed in (1, 2):
        _, out = run([{"use": "select", "method": "uniform", "keep": {"docs": 60}, "seed": seed}])
        kept.append(set(corpora.kept_ids(out)))
    assert 5 < len(kept[0] & kept[1]) < 40


def test_a_larger_budget_keeps_a_superset(run):
    kept = []
    for budget in (10_000, 30_000):
        _, out = run([{"use": "select", "method": "uniform", "keep": {"bytes": budget}}])
        kept.append(set(corpora.kept_ids(out)))
    assert kept[0] < kept[1]


def test_two_stages_of_a_kind_name_their_columns(run, project, docs):
    (project / "other.jsonl").write_text('{"text": "river mountain village harbour winter summer"}\n')
    stages = [IMPORTANCE, {**IMPORTANCE, "target": "other.jsonl", "as": "nature"}]
    select = {"use": "select", "by": "nature", "keep": {"docs": 30}}
    _, out = run([*stages, select])
    rows = corpora.decisions(out)
    best = sorted(rows, key=lambda row: -row["nature"])[:30]
    assert set(corpora.kept_ids(out)) == {row["id"] for row in best}
    assert all(row["importance"] != row["nature"] for row in rows)
    with pytest.raises(RecipeError, match="'importance' is already"):
        run([IMPORTANCE, IMPORTANCE])


def test_dedup_after_scoring_and_select_before_dedup(run, docs):
    select = {"use": "select", "by": "importance", "keep": {"docs": 100}}
    _, out = run([IMPORTANCE, select, {"use": "exact_dedup"}])
    scores = slow_importance([doc.text for *_, doc in docs], corpora.make_target(out.parent / "copy.jsonl"))
    rows = corpora.decisions(out)
    np.testing.assert_allclose([row["importance"] for row in rows], scores, atol=1e-4)
    best = sorted(range(len(docs)), key=lambda i: (-rows[i]["importance"], i))[:100]
    kept = {}
    for i in sorted(best):
        kept.setdefault(docs[i][2].text, docs[i][2].id)
    assert corpora.kept_ids(out) == list(kept.values())
    assert sum(row["stage"] == "select" for row in rows) == len(docs) - 100


def test_a_filter_after_a_dedup_does_not_bring_a_duplicate_back(run, docs):
    """The filter runs in the same read, on rows that the dedup will drop."""
    _, out = run([{"use": "exact_dedup"}, {"use": "length_filter", "min_chars": 100}])
    first = {}
    for _, _, doc in docs:
        first.setdefault(doc.text, doc.id)
    assert corpora.kept_ids(out) == [key for text, key in first.items() if len(text) >= 100]


def test_a_stage_of_the_users_own(run, project, docs):
    _, out = run([corpora.own_stage(project, "HasWord", word="patient"), {"use": "exact_dedup"}])
    rows = corpora.decisions(out)
    for row, (_, _, doc) in zip(rows, docs, strict=True):
        hits = doc.text.split().count("patient")
        assert row["n_hits"] == hits
        assert (row["reason"] == "no patient") == (hits == 0)


def test_editing_an_own_stage_runs_it_again(run, project, docs):
    stage = corpora.own_stage(project, "HasWord", word="dose")
    _, out = run([stage])
    before = corpora.kept_ids(out)
    source = (project / "my_stages.py").read_text()
    (project / "my_stages.py").write_text(source.replace('["n_hits"] < 1', '["n_hits"] < 2'))
    _, out = run([stage])
    assert (
        corpora.kept_ids(out) == [doc.id for *_, doc in docs if doc.text.split().count("dose") >= 2] != before
    )


def test_an_optional_stage_without_its_file_is_left_out(run):
    quality = {"use": "fasttext_quality", "model": "none.bin", "label": "hq", "optional": True}
    report, _ = run([quality, {"use": "exact_dedup"}])
    assert [stage["stage"] for stage in report["funnel"]] == ["exact_dedup"]
    assert "none.bin does not exist" in report["left_out"][0]
    with pytest.raises(RecipeError, match="file not found"):
        run([{**quality, "optional": False}])


def test_the_model_of_an_earlier_run_scores_like_it(run, project, tmp_path):
    select = {"use": "select", "by": "importance", "keep": {"fraction": 0.3}}
    _, out = run([IMPORTANCE, select])
    first = corpora.decisions(out)
    bundle = str(corpora.live(out) / "fitted" / "ngram_importance.1.bundle")
    narrow = {"input": {"shards": ["in/a.jsonl", "in/d.parquet"]}}
    _, part = run([{**IMPORTANCE, "fit": bundle}], **narrow, output={"folder": str(tmp_path / "part")})
    of_id = {row["id"]: row["importance"] for row in first}
    assert all(row["importance"] == of_id[row["id"]] for row in corpora.decisions(part))
    frozen = [{**IMPORTANCE, "fit": "frozen"}, {**select, "fit": "frozen"}]
    _, out = run(frozen, **narrow)
    threshold = min(row["importance"] for row in first if row["copies"])
    rows = corpora.decisions(out)
    assert all(row["importance"] == of_id[row["id"]] for row in rows)
    assert all(row["copies"] == (row["importance"] >= threshold) for row in rows)


# Rows


def lines_of(out, suffix=".jsonl", kind="shards"):
    files = sorted((corpora.live(out) / kind).rglob(f"*{suffix}"))
    return b"".join(corpora.unpacked(path) for path in files).splitlines(keepends=True)


def test_kept_lines_are_the_bytes_they_were(run, docs):
    _, out = run([{"use": "exact_dedup"}])
    kept = set(corpora.kept_ids(out))
    for suffix in (".jsonl", ".gz", ".zst"):
        expected = [doc.line() for shard, _, doc in docs if shard.endswith(suffix) and doc.id in kept]
        assert lines_of(out, suffix) == expected


def test_line_ends_and_blank_lines(tmp_path):
    rows = corpora.docs(24)
    lines = [row.line()[:-1] for row in rows]
    data = b"\xef\xbb\xbf" + b"\r\n".join(lines[:8]) + b"\r\n\r\n  \n" + b"\n\n".join(lines[8:])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(data)
    recipe = corpora.write_recipe(
        tmp_path, [{"use": "length_filter", "min_chars": 0}], input={"shards": ["in/*"]}
    )
    report = dataselect.run(recipe)
    assert report["rows"]["in"] == report["rows"]["kept"] == 24
    written = b"".join(lines_of(tmp_path / "out"))
    assert written == b"".join([line + b"\r\n" for line in lines[:8]] + [line + b"\n" for line in lines[8:]])
    dataselect.run(recipe, sets=["stages.0.min_chars=100"])
    kept = set(corpora.kept_ids(tmp_path / "out"))
    assert [json.loads(line)["id"] for line in lines_of(tmp_path / "out")] == [
        d.id for d in rows if d.id in kept
    ]


def test_parquet_keeps_its_schema_its_metadata_and_its_values(run, project):
    _, out = run([{"use": "exact_dedup"}])
    table = pq.read_table(corpora.live(out) / "shards" / "d.parquet")
    before = pq.read_table(project / "in" / "d.parquet")
    assert table.schema.equals(before.schema, check_metadata=True)
    kept = pa.array(corpora.kept_ids(out))
    assert table.equals(before.filter(pa.compute.is_in(before["id"], value_set=kept)))
    assert (
        pq.read_metadata(corpora.live(out) / "shards" / "d.parquet").row_group(0).column(0).compression
        == "SNAPPY"
    )


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "jsonl.bz2", "jsonl.xz"])
def test_conversion_to_lines(run, docs, form):
    _, out = run([{"use": "length_filter", "min_chars": 100}], output={"format": form})
    files = [path.name for path in (corpora.live(out) / "shards").rglob("*") if path.is_file()]
    assert all(name.endswith("." + form) for name in files)
    rows = {row["id"]: row for row in map(json.loads, lines_of(out, "." + form.split(".")[-1]))}
    expected = {doc.id: doc for _, _, doc in docs if len(doc.text) >= 100}
    assert rows.keys() == expected.keys()
    assert all(rows[key]["text"] == doc.text for key, doc in expected.items())
    assert {"year", "tags", "when"} < rows[
        next(d.id for s, _, d in docs if s == "d.parquet" and d.id in rows)
    ].keys()


def test_conversion_to_parquet(run, docs):
    output = {"format": "parquet", "columns": {"lang": "string"}, "add": ["n_chars"]}
    _, out = run([{"use": "length_filter", "min_chars": 100}], output=output)
    by_id = {doc.id: (shard, doc) for shard, _, doc in docs}
    n_rows = 0
    for path in (corpora.live(out) / "shards").rglob("*"):
        if path.is_dir():
            continue
        table = pq.read_table(path)
        if path.name != "d.parquet":
            assert table.schema.field("lang").type == pa.large_string()
            assert table["_row"].to_pylist() == [
                by_id[i][1].line()[:-1].decode() for i in table["id"].to_pylist()
            ]
        assert table["text"].to_pylist() == [by_id[i][1].text for i in table["id"].to_pylist()]
        assert table["n_chars"].to_pylist() == [len(text) for text in table["text"].to_pylist()]
        n_rows += len(table)
    assert n_rows == len(corpora.kept_ids(out))


def test_declared_columns_have_their_types_whatever_the_rows_hold(tmp_path):
    values = [1, 2.5, "three", None, True, [4]]
    lines = [json.dumps({"text": f"row {i}", "value": value}) for i, value in enumerate(values)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join([*lines, '{"text": "no value"}']) + "\n")
    for kind, expected in {
        "int64": [1, None, None, None, None, None, None],
        "float64": [1.0, 2.5, None, None, None, None, None],
        "string": [None, None, "three", None, None, None, None],
        "bool": [None, None, None, None, True, None, None],
    }.items():
        recipe = corpora.write_recipe(
            tmp_path,
            [{"use": "exact_dedup"}],
            input={"shards": ["in/*"], "id": None},
            output={"format": "parquet", "columns": {"value": kind}},
        )
        dataselect.run(recipe)
        assert (
            pq.read_table(corpora.live(tmp_path / "out") / "shards" / "a.parquet")["value"].to_pylist()
            == expected
        )


def test_scores_are_added_to_kept_rows(run):
    _, out = run([IMPORTANCE], output={"add": ["importance"]})
    scores = {row["id"]: row["importance"] for row in corpora.decisions(out)}
    lines = lines_of(out) + lines_of(out, ".gz") + lines_of(out, ".zst")
    table = pq.read_table(corpora.live(out) / "shards" / "d.parquet")
    added = {row["id"]: row["importance"] for row in map(json.loads, lines)}
    added |= dict(zip(table["id"].to_pylist(), table["importance"].to_pylist(), strict=True))
    assert added == scores
    assert all(line.count(b'"meta" : {"n" :') == 1 for line in lines)  # the rest of the line is as it was


def test_dropped_rows_say_why(run, docs):
    _, out = run(
        [{"use": "length_filter", "min_chars": 100}, {"use": "exact_dedup"}], output={"dropped": True}
    )
    reasons = {
        row["id"]: (row["stage"], row["reason"]) for row in corpora.decisions(out) if not row["copies"]
    }
    lines = [line for suffix in (".jsonl", ".gz", ".zst") for line in lines_of(out, suffix, "dropped")]
    rows = [*map(json.loads, lines), *pq.read_table(corpora.live(out) / "dropped" / "d.parquet").to_pylist()]
    found = {row["id"]: (row["_dropped_by"], row["_reason"]) for row in rows}
    assert found == reasons
    assert {stage for stage, _ in found.values()} == {"length_filter", "exact_dedup"}


def test_a_sample_run_publishes_nothing(run, project, tmp_path):
    recipe = corpora.write_recipe(
        project, corpora.ALL_STAGES, output={"folder": str(tmp_path / "out")}, expect={"min_rows": 100}
    )
    report = dataselect.run(recipe, sample=0.3)
    assert report["generation"] is None
    assert report["rows"]["unsampled"] > 0
    assert report["rows"]["in"] == sum(
        report["rows"][k] for k in ("kept", "dropped", "quarantined", "unsampled")
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".dataselect.lock"]


def test_text_and_id_in_other_places(tmp_path):
    (tmp_path / "in").mkdir()
    rows = [{"doc": {"title": "T", "body": f"body {i % 3}"}, "key": i % 4} for i in range(8)]
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"shards": ["in/*"], "text": ["doc.title", "doc.body"], "id": "key"}
    recipe = corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}], input=given)
    dataselect.run(recipe)
    decisions = corpora.decisions(tmp_path / "out")
    assert [row["copies"] for row in decisions] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert [row["id"] for row in decisions] == [str(i % 4) for i in range(8)]


# Publishing


def test_only_the_last_two_generations_stay(tmp_path):
    corpora.make_corpus(tmp_path / "in", 8)
    recipe = corpora.write_recipe(tmp_path, [{"use": "length_filter", "min_chars": 10}])
    runs = [dataselect.run(recipe, sets=[f"stages.0.min_chars={chars}"]) for chars in (10, 100, 200)]
    generations = [report["generation"] for report in runs]
    out = tmp_path / "out"
    assert [g[:6] for g in generations] == ["000001", "000002", "000003"]
    assert sorted(p.name for p in out.iterdir() if p.is_dir() and not p.is_symlink()) == generations[1:]
    assert (out / "current").readlink().name == generations[2]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["generation"], manifest["previous"]) == (generations[2], generations[1])
    code, listed, _ = corpora.cli("ls", out)
    shards = sorted(p for p in (out / generations[2] / "shards").rglob("*") if p.is_file())
    assert code == 0
    assert sorted(listed.split()) == [str(path) for path in shards]
    assert dataselect.run(recipe, sets=["stages.0.min_chars=200"])["up_to_date"]


def test_a_folder_with_other_files_is_refused(tmp_path):
    corpora.make_corpus(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    code, _, err = corpora.cli("run", corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}]))
    assert code == 2
    assert "thesis.tex" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("work, output", [("out", "out"), ("out/work", "out"), ("work", "work/out")])
def test_work_and_output_are_kept_apart(tmp_path, work, output):
    corpora.make_corpus(tmp_path / "in", 2)
    recipe = corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}], work=work, output={"folder": output})
    with pytest.raises(RecipeError, match="must not lie in each other"):
        dataselect.run(recipe)


def test_an_expectation_that_fails_publishes_nothing(tmp_path):
    corpora.make_corpus(tmp_path / "in", 8)
    recipe = corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}])
    first = dataselect.run(recipe)
    code, out, err = corpora.cli(
        "run", recipe, "--set", "expect.min_rows=1000", "--set", "output.format=jsonl"
    )
    assert (code, out) == (3, "")
    assert "expect.min_rows: 1000, but it is" in err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["generation"] == first["generation"]


def test_a_publication_killed_after_its_switch_is_finished_by_the_next_run(tmp_path):
    corpora.make_corpus(tmp_path / "in", 8)
    recipe = corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}])
    report = dataselect.run(recipe)
    (tmp_path / "out" / "current").unlink()
    (tmp_path / "out" / "000000-00000000000a" / "shards").mkdir(parents=True)
    again = dataselect.run(recipe)
    assert (again["up_to_date"], again["digest"]) == (True, report["digest"])
    assert (tmp_path / "out" / "current").resolve().name == report["generation"]
    assert not (tmp_path / "out" / "000000-00000000000a").exists()
