"""Stages that edit texts: what later stages see, what is written, and what runs again."""

from __future__ import annotations

import json
import random
import re

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import DataselectError, RecipeError
from dataselect.io.batch import TextSpec
from dataselect.io.splice import table_texts, with_texts
from dataselect.stages.edits import Edits

STAGE = """
import re
from dataselect.stages.base import MapStage
from dataselect.stages.edits import Edits

class Cut(MapStage):
    pattern: str
    to: str = ""

    def edits_text(self):
        return True

    def edits(self, texts, model):
        def n_bytes(text, n_chars):
            return len(text[:n_chars].encode()) + EXTRA

        return Edits.of(
            [(n_bytes(t, m.start()), n_bytes(t, m.end()), self.to) for m in re.finditer(self.pattern, t)]
            for t in texts.array.to_pylist()
        )
"""

SHARDS = (*corpora.SHARDS, "g.arrow")
WORDS = r"(river|mountain|language|Straße) ?"


def cut(pattern, to=""):
    return {"use": "s.py:Cut", "pattern": pattern, "to": to}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Folder with the corpus in every format."""
    folder = tmp_path_factory.mktemp("edits")
    corpora.make_corpus(folder / "in", 40, SHARDS)
    return folder / "in"


@pytest.fixture
def project(tmp_path, serial):
    (tmp_path / "s.py").write_text(STAGE.replace("EXTRA", "0"))
    corpora.make_target(tmp_path / "target.jsonl")
    return tmp_path


def run(project, source, stages, name="out", sets=(), **sections):
    """A run over all shards in `source`, in folders of its own."""
    sections["input"] = {"shards": [f"{source}/**/*.*"], **sections.get("input", {})}
    sections["output"] = {"folder": name, **sections.get("output", {})}
    recipe = corpora.write_recipe(project, stages, work=f"work-{name}", **sections)
    return dataselect.run(recipe, workers=2, sets=sets)


def written(folder):
    """Shard name -> its rows, as bytes or as dictionaries of a table."""
    rows = {}
    for path in sorted((corpora.live(folder) / "shards").rglob("*.*")):
        name = path.relative_to(corpora.live(folder) / "shards").as_posix()
        if path.suffix == ".parquet":
            rows[name] = pq.read_table(path).to_pylist()
        elif path.suffix == ".arrow":
            rows[name] = pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
        else:
            rows[name] = corpora.unpacked(path).splitlines(keepends=True)
    return rows


def texts_of(folder):
    """Id -> text of all rows written."""
    rows = [row for rows in written(folder).values() for row in rows]
    objects = [json.loads(row) if isinstance(row, bytes) else row for row in rows]
    return {row["id"]: row["text"] for row in objects}


def edited(text):
    return re.sub("a ", "ä", re.sub(WORDS, "", text))


# What is written


def test_only_the_text_of_edited_rows_changes(corpus, project):
    stages = [cut(WORDS), cut("a ", "ä"), {"use": "length_filter", "min_chars": 150}]
    report = run(project, corpus, stages, output={"dropped": True})
    assert report["rows"]["kept"] < report["rows"]["in"]
    n_bytes = 0
    for i, (name, rows) in enumerate(written(project / "out").items()):
        docs = corpora.docs(40, first=40 * i)
        kept = [doc for doc in docs if len(edited(doc.text)) >= 150]
        n_bytes += sum(len(edited(doc.text).encode()) for doc in kept)
        if name.endswith((".parquet", ".arrow")):
            table = corpora.table_of([corpora.Doc(doc.id, edited(doc.text)) for doc in docs])
            assert rows == [row for row in table.to_pylist() if len(row["text"]) >= 150]
            continue
        # All bytes but the text's stay, also the odd style and the escapes of other values.
        for line, doc in zip(rows, kept, strict=True):
            new = edited(doc.text)
            old = json.dumps(doc.text, ensure_ascii=len(doc.id) % 2 == 0).encode()
            assert line == (doc.line().replace(old, json.dumps(new, ensure_ascii=False).encode())
                            if new != doc.text else doc.line())  # fmt: skip
    schema = pq.read_schema(corpora.live(project / "out") / "shards" / "d.parquet")
    assert schema.equals(pq.read_schema(corpus / "d.parquet"), check_metadata=True)
    # Dropped rows are what came in; the funnel counts what goes on.
    dropped = corpora.unpacked(corpora.live(project / "out") / "dropped" / "a.jsonl").splitlines()
    short = {doc.id: doc.text for doc in corpora.docs(40) if len(edited(doc.text)) < 150}
    assert {row["id"]: row["text"] for row in map(json.loads, dropped)} == short
    assert report["funnel"][-1]["out"]["n_bytes"] == n_bytes
    assert report["funnel"][0]["in"]["n_bytes"] > report["funnel"][0]["out"]["n_bytes"]


def test_a_conversion_has_the_edited_text_and_the_row_as_it_came(project):
    (project / "in").mkdir()
    (project / "in" / "a.jsonl").write_bytes(b"".join(doc.line(body=doc.text) for doc in corpora.docs(40)))
    output = {"format": "parquet", "columns": {"body": "string"}, "add": ["n_chars"]}
    stages = [cut(WORDS), {"use": "length_filter", "min_chars": 0}]
    run(project, "in", stages, input={"text": "body"}, output=output)
    for doc, row in zip(corpora.docs(40), written(project / "out")["a.parquet"], strict=True):
        text = re.sub(WORDS, "", doc.text)
        assert (row["text"], row["body"], row["n_chars"]) == (text, text, len(text))
        assert row["_row"] == doc.line(body=doc.text).decode()[:-1]


def test_nested_and_escaped_keys(project):
    rows = ['{"m": {"body": "no"}, "d\\u006fc": {"x": [{"body": "no"}], "b\\u006fdy" :"a\\nriver b\\u00e9"}}',
            '{"doc":{"body":"kept as \\u0069t is"}, "deep": ' + "[" * 3000 + "]" * 3000 + "}",
            '\t{ "doc": {"body": "river"} } ']  # fmt: skip
    (project / "in").mkdir()
    (project / "in" / "a.jsonl").write_text("\n".join(rows))
    struct = pa.array([{"body": "a river", "n": 1}, {"body": "sea", "n": 2}])
    pq.write_table(pa.table({"doc": struct}), project / "in" / "b.parquet")
    stages = [cut("river"), {"use": "length_filter", "min_chars": 0}]
    run(project, "in", stages, input={"text": "doc.body", "id": None}, output={"add": ["n_chars"]})
    found = written(project / "out")
    assert [line.decode() for line in found["a.jsonl"]] == [
        rows[0].replace('"a\\nriver b\\u00e9"', '"a\\n bé"')[:-1] + ',"n_chars":5}\n',
        rows[1][:-1] + ',"n_chars":13}\n',
        '\t{ "doc": {"body": ""} ,"n_chars":0} \n',
    ]
    assert [row["doc"] for row in found["b.parquet"]] == [{"body": "a ", "n": 1}, {"body": "sea", "n": 2}]


KINDS = [pa.string(), pa.large_binary(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_columns_of_any_kind_get_the_new_text(kind, nested):
    plain = pa.array(["z", "a", "b"])
    column = plain.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else plain.cast(kind)
    if nested:
        column = pa.StructArray.from_arrays([column], fields=[pa.field("body", kind, metadata={"k": "v"})])
    table = pa.table({"doc": column.slice(1)}, metadata={"m": "1"})
    spec = TextSpec.of("doc.body" if nested else "doc")
    changed = with_texts(table, pa.array(["x", "日"], pa.large_string()), spec)
    assert changed.schema.equals(table.schema, check_metadata=True)
    assert (table_texts(table, spec).to_pylist(), table_texts(changed, spec).to_pylist()) == (
        ["a", "b"], ["x", "日"]
    )  # fmt: skip


# What later stages see


LONGEST = {"keep": "longest"}
REST = [
    {"use": "minhash_dedup", "threshold": 0.7, "ngram": 2, "num_perm": 32, "verify": "exact"} | LONGEST,
    {"use": "filter", "where": "n_words >= 15 and n_bytes < 900"},
    {"use": "ngram_importance", "target": "target.jsonl", "n_buckets": 512},
]  # fmt: skip
SELECT = {"use": "select", "by": "importance", "method": "resample", "keep": {"bytes": 30_000}, "seed": 1}
ALL = [cut(WORDS), {"use": "exact_dedup"}, cut("changed ?"), *REST, cut("e", "é"), SELECT]


@pytest.mark.parametrize("with_id", [True, False])
def test_edits_are_what_several_runs_over_written_texts_would_do(corpus, project, with_id):
    """Dedups, a fit, scores, filters by size and budgets all see the text as it reaches them."""
    given = {} if with_id else {"id": None}
    select = SELECT if with_id else {**SELECT, "method": "top_k"}  # draws depend on the text that came
    whole = run(project, corpus, [*ALL[:-1], select], input=given)
    first = run(project, corpus, ALL[:3], "first", input=given)
    run(project, "first/current/shards", REST, "second", input=given, output={"add": ["importance"]})
    last = run(project, "second/current/shards", [ALL[-2], select], "third", input=given)
    assert texts_of(project / "out") == texts_of(project / "third")
    assert whole["row_digest"] == last["row_digest"]
    assert 0 < whole["rows"]["kept"] < whole["rows"]["in"] / 2
    for key in ("in", "out"):
        assert whole["funnel"][-1][key] == last["funnel"][-1][key]
    assert first["funnel"][-1]["out"] == whole["funnel"][3]["in"]


def test_dedup_against_an_earlier_output_compares_what_was_written(project):
    """By its saved index and by its shards: the texts that an edit made equal are duplicates."""
    texts = [" ".join(corpora.words(30, name)) for name in "abc"]
    for folder, extra in (("old", "river "), ("new", "mountain ")):
        rows = [corpora.Doc(f"{folder}-{i}", extra + text) for i, text in enumerate(texts)]
        rows[0] = corpora.Doc(rows[0].id, extra + " ".join(corpora.words(30, folder)))
        corpora.write_shard(project / folder / "a.jsonl", rows)
    dedup = {"use": "minhash_dedup", "verify": "exact"}
    run(project, "old", [cut(WORDS), {**dedup, "save_index": True}])
    for i, old in enumerate(("out", "out/current/shards/*.jsonl")):
        run(project, "new", [cut(WORDS), {**dedup, "against": [old]}], f"new-{i}")
        assert corpora.kept_ids(project / f"new-{i}") == ["new-0"]
        found = {row["similarity"] for row in corpora.decisions(project / f"new-{i}") if not row["copies"]}
        assert found == {1.0}


def test_the_same_bytes_for_any_workers_batches_and_cuts(corpus, project):
    reference = run(project, corpus, ALL)
    for i, sets in enumerate((["input.batch_rows=7"], ["input.piece_bytes=8192", "input.batch_rows=9"])):
        report = run(project, corpus, ALL, f"other-{i}", sets)
        assert report["row_digest"] == reference["row_digest"]
        assert texts_of(project / f"other-{i}") == texts_of(project / "out")
        assert i == 1 or report["digest"] == reference["digest"]
    own = ["--set", "work=work-3", "--set", "output.folder=other-3", "--set", "input.batch_rows=16384"]
    code, out, err = corpora.cli("run", project / "recipe.yaml", "--workers", 2, "--json", *own)
    assert (code, json.loads(out)["digest"]) == (0, reference["digest"]), err


# What runs again


def test_lost_artifacts_are_made_again_with_the_stored_edits(corpus, project):
    """As after a kill: whatever is left in the work folder, the result is the same."""
    reference = run(project, corpus, ALL)
    draw = random.Random(1)
    for share in (0.2, 0.6):
        for folder in ("columns", "masks", "shingles", "exact", "joined", "written", "selected"):
            for path in (project / "work-out" / folder).rglob("*"):
                if path.is_file() and draw.random() < share:
                    path.unlink()
        (project / "out" / "manifest.json").unlink()
        assert run(project, corpus, ALL)["row_digest"] == reference["row_digest"]


def phases(report):
    return {phase["phase"]: phase["run"] for phase in report["phases"]}


def test_another_edit_reruns_what_depends_on_it(corpus, project):
    stages = [{"use": "minhash_dedup", "num_perm": 32}, {"use": "c4@datatrove", "min_sentences": 0}, cut("e")]
    stages += [{"use": "length_filter", "min_chars": 10}]
    run(project, corpus, stages)
    n_pieces = phases(run(project, corpus, stages, sets=["stages.3.min_chars=20"]))["write"]
    # Another threshold of the editing stage: no column is made again, none of its edits neither.
    stage = (project / "work-out" / "columns").rglob("*")
    before = {path: path.stat().st_mtime_ns for path in stage}
    report = run(project, corpus, stages, sets=["stages.1.min_sentences=1"])
    assert "group" not in " ".join(phases(report))
    again = [path for path, time in before.items() if path.exists() and path.stat().st_mtime_ns != time]
    assert not [path for path in again if path.is_file()]
    report = run(project, corpus, stages, sets=["stages.2.to=x"])
    assert phases(report)["write"] == n_pieces
    assert not any(phase.startswith("dedup") for phase in phases(report) if phases(report)[phase])
    fresh = run(project, corpus, stages, "fresh", ["stages.2.to=x"])
    assert report["digest"] == fresh["digest"]


# Mistakes


def test_several_text_columns_are_refused(project):
    (project / "in").mkdir()
    (project / "in" / "a.jsonl").write_text('{"a": "x", "b": "y"}\n')
    several = {"text": ["a", "b"], "id": None}
    message = r"recipe.yaml:\d+: stages\[0\]: c4@datatrove edits the text, but input.text joins 2 columns"
    with pytest.raises(RecipeError, match=message):
        run(project, "in", [{"use": "c4@datatrove"}], input=several)
    assert run(project, "in", [{"use": "c4@datatrove", "edit": False}], input=several)["rows"]["in"] == 1


def test_spans_that_make_no_sense_stop_the_run(corpus, project):
    (project / "s.py").write_text(STAGE.replace("EXTRA", "(n_chars > 0)"))
    with pytest.raises(DataselectError, match=r"Cut: edits\(\) (cut a character in two|gave spans)"):
        run(project, corpus, [cut("ž|$")])


LISTS = [
    (["é"], [[(0, 1, "")]], "cut a character"),
    (["ab"], [[(1, 0, "")]], "overlap"),
    (["ab"], [[(0, 3, "")]], "outside"),
    (["ab"], [[(1, 2, ""), (0, 1, "")]], "out of order"),
    (["ab"], [[], []], "2 documents for 1"),
]


@pytest.mark.parametrize("texts, lists, message", LISTS)
def test_wrong_edits_are_named(texts, lists, message):
    with pytest.raises(DataselectError, match=message):
        Edits.of(lists).check("stage", pa.array(texts, pa.large_string()))


def test_edits_of_any_documents():
    draw = random.Random(3)
    for _ in range(200):
        docs = ["".join(draw.choices("aé日😀\n b", k=draw.randint(0, 12))) for _ in range(draw.randint(0, 6))]
        lists, expected = [], []
        for doc in docs:
            cuts = sorted(draw.randint(0, len(doc)) for _ in range(2 * draw.randint(0, 3)))
            spans, new, at = [], "", 0
            for start, end in zip(cuts[::2], cuts[1::2], strict=True):
                to = draw.choice(["", "x", "日"])
                spans.append((len(doc[:start].encode()), len(doc[:end].encode()), to))
                new, at = new + doc[at:start] + to, end
            lists.append(spans)
            expected.append(new + doc[at:])
        texts = pa.array(["before", *docs], pa.large_string()).slice(1)
        edits = Edits.of(lists)
        edits.check("stage", texts)
        assert edits.applied_to(texts).to_pylist() == expected
        some = np.flatnonzero([draw.random() < 0.5 for _ in docs])
        assert edits.take(some).applied_to(texts.take(pa.array(some))).to_pylist() == [
            expected[i] for i in some
        ]
