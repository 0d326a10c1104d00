"""Parquet shards: texts of any string type, streamed row groups, clear sentences for what is broken."""

from __future__ import annotations

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataselect.core.errors import BadShard
from dataselect.io.batch import INVALID_UTF8, MISSING_TEXT, TOO_LONG, TextSpec
from dataselect.io.parquet import content_digest, describe, iter_parquet, iter_parquet_tables

TEXT = TextSpec.of("text")
STRING_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.binary()),
]


class Source:
    """Bytes as a file."""

    def __init__(self, content, name="part.parquet"):
        self.content, self.name, self.size = content, name, len(content)

    def open(self):
        return io.BytesIO(self.content)


def parquet(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return Source(buffer.getvalue())


def as_type(values, kind):
    plain = pa.array(values, pa.binary())
    if pa.types.is_dictionary(kind):
        coded = plain.dictionary_encode()
        values_of_kind = coded.dictionary.view(kind.value_type)
        return pa.DictionaryArray.from_arrays(coded.indices.cast(kind.index_type), values_of_kind)
    if kind in (pa.string(), pa.binary()):
        return plain.view(kind)
    target = (
        pa.binary_view()
        if kind == pa.string_view()
        else pa.large_binary()
        if kind == pa.large_string()
        else kind
    )
    return plain.cast(target).view(kind)


def read(source, text=TEXT, id=None, **options):  # noqa: A002
    """{row: (text, id) or reason}, with every promise about batches checked on the way."""
    rows, ended = {}, False
    for batch in iter_parquet(source, text=text, id=id, **options):
        assert not ended
        assert (batch.segment, batch.first_row) == (0, len(rows))
        assert batch.rows.dtype == np.int64
        assert batch.texts.type == pa.large_string()
        assert batch.texts.null_count == 0
        batch.texts.validate(full=True)
        ids = [None] * len(batch.texts)
        if id is None:
            assert batch.ids is None
        else:
            assert batch.ids.type == pa.large_string()
            ids = batch.ids.to_pylist()
        found = dict(zip(batch.rows.tolist(), zip(batch.texts.to_pylist(), ids, strict=True), strict=True))
        found.update({bad.row: bad.reason for bad in batch.bad})
        assert sorted(found) == list(range(batch.first_row, batch.first_row + batch.n_rows))
        rows.update(found)
        if batch.segment_end is not None:
            ended = True
            assert batch.segment_end.n_rows == len(rows)
    assert ended
    return dict(sorted(rows.items()))


def verdicts(source, **options):
    return list(read(source, **options).values())


@pytest.mark.parametrize("kind", STRING_TYPES, ids=str)
def test_texts_of_every_string_type_are_read_and_bad_rows_told(kind):
    values = [
        b"plain",
        None,
        b"",
        "h\u00e9 \U0001f600".encode(),
        b"\xff",
        b"\xed\xa0\x80",
        b"x" * 50,
        b"plain",
    ] * 5
    expected = [
        ("plain", None),
        MISSING_TEXT,
        ("", None),
        ("h\u00e9 \U0001f600", None),
        INVALID_UTF8,
        INVALID_UTF8,
        TOO_LONG,
        ("plain", None),
    ] * 5
    source = parquet(pa.table({"text": as_type(values, kind)}), row_group_size=7)
    for batch_rows in (1, 3, 100):
        assert verdicts(source, batch_rows=batch_rows, max_row_bytes=49) == expected


def test_ids_of_every_type_are_their_json_text():
    dictionary = pa.array([5, None, -1]).dictionary_encode()
    columns = {
        "string": (pa.array(["a", None, "b"]), ["a", None, "b"]),
        "binary": (pa.array([b"a", None, b"b"]), ["a", None, "b"]),
        "int64": (pa.array([1, None, -(2**63)]), ["1", None, str(-(2**63))]),
        "uint64": (pa.array([1, None, 2**64 - 1], pa.uint64()), ["1", None, str(2**64 - 1)]),
        "float": (pa.array([1.0, float("nan"), 0.25]), ["1.0", None, "0.25"]),
        "decimal": (pa.array([1, None, 2], pa.int64()).cast(pa.decimal128(21, 2)), ["1.00", None, "2.00"]),
        "dictionary": (dictionary, ["5", None, "-1"]),
        "null": (pa.nulls(3), [None, None, None]),
    }
    table = pa.table({"text": ["x", "y", "z"], **{name: array for name, (array, _) in columns.items()}})
    for name, (_, expected) in columns.items():
        assert [found for _, found in verdicts(parquet(table), id=name)] == expected
    broken = pa.table({"text": ["x", "y"], "id": pa.array([b"\xff", b"b"])})
    assert verdicts(parquet(broken), id="id") == [INVALID_UTF8, ("y", "b")]


def test_nested_and_joined_texts():
    docs = [{"body": "a", "n": 1}, None, {"body": None, "n": 2}, {"body": "d", "n": 3}, None]
    table = pa.table({"doc": docs, "title": ["t", "u", None, None, None]})
    source = parquet(table)
    assert verdicts(source, text=TextSpec.of("doc.body"), id="doc.n") == [
        ("a", "1"),
        MISSING_TEXT,
        MISSING_TEXT,
        ("d", "3"),
        MISSING_TEXT,
    ]
    assert verdicts(source, text=TextSpec.of(["title", "doc.body"])) == [
        ("t\na", None),
        ("u", None),
        MISSING_TEXT,
        ("d", None),
        MISSING_TEXT,
    ]
    flat = parquet(table.append_column("doc.body", [["1", "2", "3", "4", "5"]]))
    assert [text for text, _ in verdicts(flat, text=TextSpec.of("doc.body"))] == ["1", "2", "3", "4", "5"]


def test_a_column_without_any_text_is_all_missing():
    assert verdicts(parquet(pa.table({"text": pa.nulls(3)}))) == [MISSING_TEXT] * 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("txt", r"has no text column 'txt'; it has text, "),
        ("meta.titel", r"has no text column 'meta.titel'; it has meta.title, meta.n"),
        ("text.body", r"has no text column 'text.body'; it has text"),
        ("meta", r"column 'meta' is of type struct<.*not string"),
        ("meta.n", r"column 'meta.n' is of type int64, not string"),
        ("tags", r"column 'tags' is of type list<.*not string"),
    ],
)
def test_a_missing_or_wrong_column_is_named_with_the_nearest_first(name, message):
    table = pa.table({"id": [1], "tags": [["a"]], "meta": [{"n": 1, "title": "a"}], "text": ["a"]})
    for read_it in (describe, lambda source, text: read(source, text=text)):
        with pytest.raises(BadShard, match=r"part\.parquet: .*" + message):
            read_it(parquet(table), TextSpec.of(name))


def test_a_wrong_id_column_is_named():
    table = pa.table({"id": [[1]], "flag": [True], "text": ["a"]})
    with pytest.raises(BadShard, match=r"id column 'id' is of type list<.*not string or number"):
        read(parquet(table), id="id")
    with pytest.raises(BadShard, match=r"id column 'flag' is of type bool"):
        read(parquet(table), id="flag")
    with pytest.raises(BadShard, match=r"has no id column 'uid'; it has id, "):
        read(parquet(table), id="uid")


def test_two_columns_of_one_name_are_refused():
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    with pytest.raises(BadShard, match="several columns named 'text'"):
        read(parquet(table))


@pytest.mark.parametrize(
    "table", [pa.table({"text": pa.array([], pa.string())}), pa.schema([("text", pa.string())]).empty_table()]
)
def test_shards_without_rows_are_one_empty_segment(table):
    source = parquet(table)
    assert read(source) == {}
    assert list(iter_parquet_tables(source)) == []
    empty = io.BytesIO()
    pq.ParquetWriter(empty, table.schema).close()
    assert read(Source(empty.getvalue())) == {}
    assert describe(Source(empty.getvalue())).row_groups == ()


def mixed_table(n_rows=3_000):
    rng = random.Random(3)
    texts = ["x" * rng.choice([0, 5, 50, 2_000]) + str(i) for i in range(n_rows)]
    return pa.table({"text": texts, "id": range(n_rows), "score": [rng.random() for _ in range(n_rows)]})


def test_batches_are_cut_by_rows_and_bytes_alone_wherever_row_groups_end():
    table = mixed_table()
    cuts = []
    for row_group_size in (1, 333, 5_000):
        source = parquet(table, row_group_size=row_group_size)
        batches = list(iter_parquet(source, text=TEXT, id="id", batch_rows=100, batch_bytes=20_000))
        cuts.append([batch.n_rows for batch in batches])
        assert max(cuts[-1]) <= 100
        assert max(batch.n_bytes_read - 9 * batch.n_rows for batch in batches) < 20_000 + 2_100
        assert pa.concat_arrays([batch.texts for batch in batches]).to_pylist() == table["text"].to_pylist()
        assert pa.concat_arrays([batch.ids for batch in batches]).to_pylist() == [
            str(i) for i in range(3_000)
        ]
    assert cuts[0] == cuts[1] == cuts[2]


def test_ranges_of_row_groups_are_pieces_with_their_own_rows_and_digests():
    source = parquet(mixed_table(), row_group_size=700)
    whole = verdicts(source, id="id")
    parts = [read(source, id="id", row_groups=groups) for groups in ((0, 2), (2, 3), (3, None), (1, 1))]
    assert [list(part) for part in parts] == [list(range(n)) for n in (1_400, 700, 900, 0)]
    assert [verdict for part in parts for verdict in part.values()] == whole
    with pytest.raises(BadShard, match="has 5 row groups where 3 to 6 were planned"):
        read(source, row_groups=(3, 6))


def test_digest_depends_on_content_schema_and_metadata_and_not_on_the_place_in_the_file():
    table = mixed_table()
    groups = [table.slice(0, 1_000), table.slice(1_000, 1_000), table.slice(2_000)]

    def digest(tables, row_groups=None):
        source = parquet(pa.concat_tables(tables).combine_chunks(), row_group_size=1_000)
        end = content_digest(source, row_groups)
        batches = list(iter_parquet(source, text=TEXT, id=None, row_groups=row_groups))
        assert batches[-1].segment_end == end
        *_, last = iter_parquet(source, text=TEXT, id=None, row_groups=row_groups, digest=False)
        assert (last.segment_end.digest, last.segment_end.n_rows) == ("", end.n_rows)
        return end.digest

    assert digest(groups) == digest(groups)
    assert digest(groups, (1, 2)) == digest(groups[1:], (0, 1)) != digest(groups, (0, 1))
    changed = groups[1].set_column(2, "score", pa.array(np.zeros(1_000)))
    described = [group.replace_schema_metadata({"k": "v"}) for group in groups]
    renamed = [group.rename_columns(["text", "id", "score2"]) for group in groups]
    others = [digest(tables) for tables in ([groups[0], changed, groups[2]], described, renamed, groups[:2])]
    assert len({digest(groups), *others}) == 5


def test_description_tells_rows_and_bytes_of_each_row_group():
    table = mixed_table().append_column("doc", pa.array([{"body": "x" * 50 + str(i)} for i in range(3_000)]))
    source = parquet(table, row_group_size=2_000)
    info = describe(source, TEXT)
    assert info.schema == table.schema
    assert [group.n_rows for group in info.row_groups] == [2_000, 1_000]
    for group, nested, whole in zip(
        info.row_groups,
        describe(source, TextSpec.of("doc.body")).row_groups,
        describe(source).row_groups,
        strict=True,
    ):
        assert 0 < nested.n_text_bytes < group.n_text_bytes < group.n_bytes == whole.n_text_bytes


def test_tables_keep_every_type_and_all_metadata():
    n_rows = 1_000
    schema = pa.schema(
        [
            pa.field("text", pa.large_string(), metadata={"about": "the text"}),
            pa.field("day", pa.date32()),
            pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("label", pa.dictionary(pa.int8(), pa.string())),
            pa.field("doc", pa.struct([("tags", pa.list_(pa.string())), ("n", pa.int16())])),
            pa.field("vector", pa.list_(pa.float32(), 3)),
            pa.field("map", pa.map_(pa.string(), pa.int32())),
            pa.field("view", pa.string_view()),
            pa.field("price", pa.decimal128(9, 2)),
        ],
        metadata={"origin": "test", "pandas": '{"columns": []}'},
    )
    table = pa.Table.from_arrays(
        [
            pa.array([f"text {i}" for i in range(n_rows)], pa.large_string()),
            pa.array(range(n_rows), pa.int32()).cast(pa.date32()),
            pa.array(range(n_rows)).cast(pa.timestamp("us", tz="UTC")),
            pa.array(["a", "b", None, "c"] * (n_rows // 4))
            .dictionary_encode()
            .cast(schema.field("label").type),
            pa.array([{"tags": ["x"] * (i % 3), "n": i} for i in range(n_rows)], schema.field("doc").type),
            pa.array([[i, i, i] for i in range(n_rows)], schema.field("vector").type),
            pa.array([[("k", i)] for i in range(n_rows)], schema.field("map").type),
            pa.array([f"view {i}" for i in range(n_rows)]).cast(pa.string_view()),
            pa.array(range(n_rows)).cast(pa.decimal128(21, 2)).cast(pa.decimal128(9, 2)),
        ],
        schema=schema,
    )
    source = parquet(table, row_group_size=300)
    stored = pq.ParquetFile(source.open()).schema_arrow
    assert stored.equals(schema)
    tables = list(iter_parquet_tables(source, batch_bytes=20_000))
    assert len(tables) > 2
    n_before = 0
    for first_row, part in tables:
        assert part.schema.equals(stored, check_metadata=True)
        assert first_row == n_before
        assert part.to_pylist() == table.slice(first_row, len(part)).to_pylist()
        n_before += len(part)
    assert n_before == n_rows
    assert [(row, len(part)) for row, part in iter_parquet_tables(source, (1, 3))] == [(0, 600)]


def test_a_file_that_is_no_whole_parquet_file_is_named():
    content = parquet(mixed_table(), row_group_size=700).content
    for broken in (b"", b"PAR1", b"not parquet at all" * 10, content[:-1], content[: len(content) // 2]):
        for read_it in (read, describe, content_digest, lambda source: list(iter_parquet_tables(source))):
            with pytest.raises(BadShard, match=r"part\.parquet: .*truncated or corrupt"):
                read_it(Source(broken))
    with pytest.raises(BadShard, match=r"part\.parquet: .*truncated or corrupt"):
        read(Source(content[4:]))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_corrupt_pages_are_found_by_their_checksums_or_change_nothing(compression):
    options = {"compression": compression, "write_page_checksum": True, "use_dictionary": False}
    source = parquet(mixed_table(), row_group_size=700, **options)
    column = pq.ParquetFile(source.open()).metadata.row_group(2).column(0)
    whole, n_found = verdicts(source), 0
    rng = random.Random(5)
    for _ in range(40):
        at = column.data_page_offset + rng.randrange(column.total_compressed_size)
        broken = bytearray(source.content)
        broken[at] ^= 1 << rng.randrange(8)
        try:
            found = verdicts(Source(bytes(broken)))
        except BadShard:
            n_found += 1
        else:
            assert found == whole  # a page's statistics, which nobody reads
    assert n_found >= 20


def test_a_shard_that_cannot_be_opened_is_named():
    class Missing(Source):
        def open(self):
            raise FileNotFoundError(2, "No such file or directory")

    for read_it in (read, describe, content_digest, lambda source: list(iter_parquet_tables(source))):
        with pytest.raises(BadShard, match=r"part\.parquet: cannot be read: No such file"):
            read_it(Missing(b""))
