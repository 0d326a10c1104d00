"""Input fields as typed columns, whatever the format, the neighbours and the cut."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import random

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import RecipeError
from dataselect.core.pieces import Piece, Shard
from dataselect.io.batch import TextSpec
from dataselect.io.fields import FieldSpec, json_value
from dataselect.io.json_line import Refusal, load_object, lookup
from dataselect.io.jsonl import parse_blocks
from dataselect.io.lines import iter_line_blocks
from dataselect.io.reader import ReadSpec, ShardSource, iter_piece

DOCS = corpora.docs(120)  # making them takes 0.2 s
VALUES = [
    "text", "1", "", "é\\n", 1, -0, 1.5, 1e3, 10**17, 10**30, True, False, None, [1], {"x": 1}, {"x": "deep"},
    {"x": None}, {"y": 2}, float("nan"), float("inf"),
]  # fmt: skip
SPECS = [
    FieldSpec("a", "string"),
    FieldSpec("b", "number"),
    FieldSpec("c", "bool"),
    FieldSpec("m.x", "number"),
]


def source(path):
    stat = path.stat()
    return Shard(path.name, str(path), stat.st_size, str(stat.st_mtime_ns))


def read(path, specs, **options):
    blocks = iter_line_blocks(ShardSource(source(path)), codec="none", **options)
    columns = {spec.name: [] for spec in specs}
    misfits = dict.fromkeys(columns, 0)
    for batch in parse_blocks(blocks, TextSpec.of("text"), "id", specs):
        for name, column in batch.fields.items():
            assert len(column) == len(batch.texts)
            columns[name] += column.to_pylist()
            misfits[name] += batch.misfits[name]
    return columns, misfits


def slowly(lines, spec):
    pairs = []
    for line in lines:
        try:
            pairs.append(json_value(lookup(load_object(line), spec.path), spec.type))
        except Refusal:
            pairs.append((None, True))
    return [value for value, _ in pairs], sum(misfit for _, misfit in pairs)


@pytest.mark.parametrize("mixed", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("block_bytes", [300, 1 << 16])
def test_a_value_does_not_depend_on_its_neighbours(tmp_path, mixed, block_bytes):
    draw = random.Random(1)
    rows = []
    for i in range(500):
        row = {"text": f"t{i}", "id": i, "a": "s", "b": i / 2, "c": i % 2 == 0, "m": {"x": i}}
        for name in "abcm":
            if draw.random() < mixed:
                row[name] = draw.choice(VALUES)
            elif draw.random() < 0.1:
                del row[name]
        rows.append(json.dumps(row).encode())
    if mixed:
        rows[7] = b'{"text": "t", "a": 1, "a": 2, "b": -0, "c": 1}'  # a repeated key is no value
        rows[9] = b'{"text": "t", "a": -0, "b": 1E3, "m": {"x": 1, "x": 2}}'
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(rows))
    columns, misfits = read(path, SPECS, block_bytes=block_bytes)
    for spec in SPECS:
        wanted, n_misfits = slowly(rows, spec)
        assert columns[spec.name] == wanted
        assert misfits[spec.name] == n_misfits


def test_a_field_makes_no_row_bad_and_bad_rows_have_no_value(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        '{"text": "x", "b": 1}',
        "broken",
        '{"b": 5}',
        '{"text": "y", "b": {"z": "no"}}',
        '{"text": "z"}',
    ]
    path.write_text("\n".join(lines))
    columns, misfits = read(path, SPECS[1:2])
    assert (columns["b"], misfits["b"]) == ([1, None, None], 1)


def test_nesting_that_python_cannot_follow(tmp_path):
    path = tmp_path / "a.jsonl"
    deep = "[" * 3000 + "]" * 3000
    path.write_text(f'{{"text": "x", "a": "s", "b": 1, "z": {deep}}}\n' + '{"text": "y", "a": 1, "b": "s"}\n')
    columns, _ = read(path, SPECS[:2])
    assert columns == {"a": ["s", "1"], "b": [1, None]}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_of_tables_of_every_type(tmp_path, form):
    table = pa.table({
        "text": ["x", "y", None, "z"],
        "i": pa.array([1, None, 3, 4], pa.int16()),
        "f": pa.array([1.5, float("nan"), 3, float("inf")]),
        "d": pa.array([decimal.Decimal("1.50")] * 4),
        "s": pa.array(["a", None, "c", "d"]).dictionary_encode(),
        "raw": pa.array([b"ok", b"\xff", b"x", b"y"]),
        "b": pa.array([True, None, False, False]),
        "t": pa.array([dt.date(2020, 1, 2)] * 4),
        "l": pa.array([[1], None, [2], [3]]),
        "meta": pa.array([{"x": 1}, None, {"x": 3}, {"x": None}]),
        "a.b": pa.array(["dotted"] * 4),
    })  # fmt: skip
    if form == "parquet":
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    kinds = {
        "i": ("number", [1, None, 4], 0),
        "f": ("number", [1.5, None, None], 0),
        "d": ("number", [1.5] * 3, 0),
        "s": ("string", ["a", None, "d"], 0),
        "raw": ("string", ["ok", None, "y"], 1),
        "b": ("bool", [True, None, False], 0),
        "t": ("string", ["2020-01-02"] * 3, 0),
        "l": ("string", [None] * 3, 3),
        "meta.x": ("number", [1, None, None], 0),
        "meta.y": ("number", [None] * 3, 0),
        "a.b": ("string", ["dotted"] * 3, 0),
        "gone": ("bool", [None] * 3, 0),
    }
    specs = [FieldSpec(name, kind) for name, (kind, _, _) in kinds.items()]
    piece = Piece((source(tmp_path / f"a.{form}"),), form, "none")
    spec = ReadSpec("text", None, 1 << 20, 1 << 30, 2)
    batches = [batch for batch in iter_piece(piece, spec, fields=specs) if len(batch.rows)]
    for name, (_, values, misfits) in kinds.items():
        assert [v for batch in batches for v in batch.fields[name].to_pylist()] == values, name
        assert sum(batch.misfits[name] for batch in batches) == misfits, name


def test_reading_a_field_changes_neither_texts_nor_identity(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(corpora.docs(50)))
    piece = Piece((source(tmp_path / "a.jsonl"),), "jsonl", "none")
    spec = ReadSpec("text", "id", 1 << 20, 1 << 30, 16)
    plain = list(iter_piece(piece, spec))
    more = list(iter_piece(piece, spec, fields=[FieldSpec("meta.n", "number")]))
    assert [b.texts for b in plain] == [b.texts for b in more]
    assert [b.ids for b in plain] == [b.ids for b in more]
    assert plain[-1].segment_end == more[-1].segment_end
    values = np.concatenate([b.fields["meta.n"].to_numpy() for b in more if len(b.rows)])
    assert values.tolist() == [len(doc.text) for doc in corpora.docs(50)]


def project(folder, where, rows=None, stages=(), **sections):
    """Shards of three formats with lang and score; a recipe that filters by `where`."""
    rows = rows or [
        {"id": f"d{i}", "text": doc.text, "lang": ["en", "de", None][i % 3], "meta": {"score": i / 10}}
        for i, doc in enumerate(DOCS)
    ]
    (folder / "in").mkdir(parents=True)
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    (folder / "in" / "a.jsonl").write_bytes(b"".join(lines[:50]))
    (folder / "in" / "b.jsonl.zst").write_bytes(corpora.zstd(b"".join(lines[50:90])))
    pq.write_table(pa.Table.from_pylist(rows[90:]), folder / "in" / "c.parquet", row_group_size=7)
    return corpora.write_recipe(
        folder, [{"use": "filter", "where": where}, *stages], **{"input": {"shards": "in/*"}, **sections}
    )


@pytest.mark.parametrize(
    "where, place, message",
    [
        ("langs == 'en'", "stages[0].where", "no first row has it; did you mean 'lang'?"),
        ("meta.scor > 1", "stages[0].where", "did you mean 'meta.score'?"),
        (
            "lang > 5",
            "stages[0].where",
            "'lang' is asked for as a number, but in a.jsonl, row 0, it holds texts",
        ),
        ("meta.score == 'x'", None, None),  # a number as text is a legitimate wish
        (
            "meta == 'x'",
            "stages[0].where",
            "'meta' is asked for as a string, but in a.jsonl, row 0, it holds obj",
        ),
        ("n_chars > 5", "stages[1]", "an earlier stage reads, unless that stage is put after this one"),
        ("text == 'x'", "stages[0].where", "the field 'text' overlaps with the text 'text'"),
        ("a == b", "stages[0].where", "the type of 'a' is not clear"),
        ("lang == 'a' and lang == 'b'", "stages[0].where", "no value of 'lang' fits"),
        ("meta == 'x' or meta.score > 1", "stages[0].where", "overlaps with the field 'meta'"),
    ],
)
def test_mistakes_are_found_before_the_run(tmp_path, where, place, message):
    recipe = project(tmp_path, where, stages=[{"use": "length_filter"}])
    if message is None:
        dataselect.plan(recipe)
        return
    with pytest.raises(RecipeError) as error:
        dataselect.plan(recipe)
    assert place in str(error.value)
    assert "recipe.yaml:" in str(error.value)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_rare_field_is_declared(tmp_path):
    recipe = project(tmp_path, "rare is null")
    with pytest.raises(RecipeError, match=r"a rare field is declared under input\.fields"):
        dataselect.plan(recipe)
    report = dataselect.run(recipe, sets=["input.fields={rare: number}"], workers=1)
    assert report["rows"]["kept"] == 120


def test_a_declared_type_wins_and_must_fit(tmp_path):
    recipe = project(tmp_path, "meta.score == '1.5'")
    with pytest.raises(RecipeError, match=r"expected a number, but '1.5' is a string"):
        dataselect.plan(recipe, sets=["input.fields={meta.score: number}"])
    with pytest.raises(RecipeError, match=r"input.fields.*expected 'number', 'string' or 'bool'"):
        dataselect.plan(recipe, sets=["input.fields={meta.score: float}"])


def test_a_stage_may_not_add_a_column_named_as_a_field_that_is_read(tmp_path):
    recipe = project(tmp_path, "lang == 'en'", stages=[{"use": "length_filter", "as": "lang"}])
    with pytest.raises(RecipeError, match="'lang' is an input field that an earlier stage reads"):
        dataselect.plan(recipe)
