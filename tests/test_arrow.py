"""Arrow shards: read by record batches, cut between them, safe to read where they are corrupt."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dataselect.core.errors import BadShard
from dataselect.io import arrow_stream
from dataselect.io.arrow_stream import batch_offsets, content_digest, iter_arrow, iter_arrow_tables, schema_of
from dataselect.io.batch import INVALID_UTF8, MISSING_TEXT, TOO_LONG, TextSpec
from dataselect.io.table_texts import filtered


class Source:
    """Bytes as a file that can't be mapped; `File` is one that can."""

    def __init__(self, content, name="part.arrow"):
        self.content, self.name, self.size = content, name, len(content)

    def open(self):
        return io.BytesIO(self.content)


class File(Source):
    def __init__(self, path, content):
        super().__init__(content)
        self._path = path
        path.write_bytes(content)

    def open(self):
        return self._path.open("rb")


def stream(table, rows=100, form="stream", **options):
    buffer = io.BytesIO()
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(buffer, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return buffer.getvalue()


def mixed(n_rows=1_000):
    """Every kind of column, some of them with nulls; metadata."""
    texts = [None if i % 17 == 3 else f"text {i} é 🙂" * (i % 5) for i in range(n_rows)]
    columns = {
        "id": pa.array(range(n_rows)),
        "text": pa.array(texts),
        "doc": pa.array([{"body": f"body {i}", "tags": ["x"] * (i % 3)} for i in range(n_rows)]),
        "view": pa.array([f"a view that is not short {i}" for i in range(n_rows)], pa.string_view()),
        "pairs": pa.array([[("k", "v")]] * n_rows, pa.map_(pa.string(), pa.string())),
        "vector": pa.array([[i, i] for i in range(n_rows)], pa.list_(pa.float32(), 2)),
        "nothing": pa.nulls(n_rows),
        "uuid": pa.array([b"x" * 16] * n_rows, pa.uuid()),
    }
    return pa.table(columns).replace_schema_metadata({"made": "here"})


def rows_of(source, text="text", id="id", **options):  # noqa: A002
    """[(text, id) or reason] of all rows, with every promise about batches checked on the way."""
    found = {}
    for batch in iter_arrow(source, text=TextSpec.of(text), id=id, **options):
        assert batch.first_row == len(found)
        batch.texts.validate(full=True)
        ids = [None] * len(batch.texts) if id is None else batch.ids.to_pylist()
        good = zip(batch.texts.to_pylist(), ids, strict=True)
        found |= dict(zip(batch.rows.tolist(), good, strict=True)) | {b.row: b.reason for b in batch.bad}
        assert len(found) == batch.first_row + batch.n_rows
    return [found[i] for i in sorted(found)]


def expected(table, column="text"):
    return [
        MISSING_TEXT if text is None else (text, str(i))
        for i, text in zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)
    ]


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_rows_and_tables_are_those_of_arrow_s_own_reader(tmp_path, form, compression):
    table = mixed()
    content = stream(table, form=form, compression=compression)
    for source in (Source(content), File(tmp_path / "a.arrow", content)):
        assert schema_of(source).equals(table.schema, check_metadata=True)
        assert rows_of(source) == expected(table)
        tables = list(iter_arrow_tables(source, batch_bytes=20_000))
        assert len(tables) > 2
        assert [first for first, _ in tables] == np.cumsum([0, *(len(t) for _, t in tables[:-1])]).tolist()
        whole = pa.concat_tables(t for _, t in tables)
        assert whole.schema.equals(table.schema, check_metadata=True)
        assert whole.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()], ids=str)
def test_bad_rows_are_told_as_in_parquet(kind):
    values = [b"plain", None, b"", "é".encode(), b"caf\xe9", b"x" * 100]
    binary = pa.binary_view() if kind == pa.string_view() else pa.large_binary()
    text = pa.array(values, pa.binary())
    text = (
        text
        if kind == pa.binary()
        else text.view(kind)
        if kind == pa.string()
        else text.cast(binary).view(kind)
    )
    verdicts = rows_of(Source(stream(pa.table({"text": text}))), id=None, max_row_bytes=50)
    assert verdicts == [("plain", None), MISSING_TEXT, ("", None), ("é", None), INVALID_UTF8, TOO_LONG]


@pytest.mark.parametrize("name", ["txt", "doc.bod"])
def test_a_missing_column_is_named_with_the_nearest_first(name):
    with pytest.raises(BadShard, match=rf"part.arrow: has no text column '{name}'; it has (text|doc.body), "):
        rows_of(Source(stream(mixed(10))), text=name)


def test_parts_hold_the_rows_of_their_batches_and_their_own_digests(tmp_path):
    table = mixed()
    content = stream(table)
    source = File(tmp_path / "a.arrow", content)
    offsets = batch_offsets(source)
    assert len(offsets) == 10
    cuts = [0, offsets[3], offsets[4], None]
    spans = list(itertools.pairwise(cuts))
    parts = [rows_of(source, span=span) for span in spans]
    assert [len(part) for part in parts] == [300, 100, 600]
    assert [row for part in parts for row in part] == expected(table)
    ends = [content_digest(source, span) for span in spans]
    assert [end.n_rows for end in ends] == [300, 100, 600]
    assert len({end.digest for end in ends}) == 3
    # The digest is of the rows and the schema, wherever they stand.
    alone = Source(stream(table.slice(300, 100)))
    assert content_digest(alone).digest == ends[1].digest
    assert [t.to_pylist() for _, t in iter_arrow_tables(source, spans[1])] == [
        table.slice(300, 100).to_pylist()
    ]
    renamed = table.slice(300, 100).rename_columns([*"abcdefgh"])
    others = [renamed, table.slice(300, 100).replace_schema_metadata({"made": "there"}), table.slice(300, 99)]
    assert len({content_digest(Source(stream(other))).digest for other in others} | {ends[1].digest}) == 4


def test_dictionaries_are_read_and_their_shards_not_cut():
    words = pa.array(["a", "b", None, "c"] * 50)
    table = pa.table({"text": words.dictionary_encode(), "id": range(200)})
    source = Source(stream(table, rows=10))
    assert batch_offsets(source) == [0]
    assert rows_of(source) == expected(table)
    assert pa.concat_tables(t for _, t in iter_arrow_tables(source)).to_pylist() == table.to_pylist()


def test_a_shard_without_rows_has_none():
    source = Source(stream(mixed(0)))
    assert rows_of(source) == list(iter_arrow_tables(source)) == []
    assert batch_offsets(source) == [0]
    assert content_digest(source).n_rows == 0


def test_batches_are_cut_by_rows_and_bytes_wherever_record_batches_end(tmp_path):
    table = mixed(5_000)
    cuts = set()
    for rows in (7, 100, 5_000):
        source = File(tmp_path / "a.arrow", stream(table, rows))
        read = iter_arrow(source, text=TextSpec.of("text"), id=None, batch_rows=700, batch_bytes=20_000)
        cuts.add(tuple((batch.first_row, batch.n_rows) for batch in read))
    assert len(cuts) == 1


def test_a_long_record_batch_leaves_memory_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_stream, "_RELEASE_BYTES", 1 << 20)
    n_rows = 3_000
    table = pa.table({"text": ["x" * 10_000] * n_rows})  # 30 MB in one record batch
    source = File(tmp_path / "a.arrow", stream(table, n_rows))

    def resident():
        lines = maps.read_text().split("a.arrow\n")[1:]
        return sum(int(part.split("Rss:")[1].split()[0]) for part in lines) * 1024

    maps = Path("/proc/self/smaps")
    if not maps.exists():
        pytest.skip("no /proc here")
    peak = 0
    for batch in iter_arrow(source, text=TextSpec.of("text"), id=None, batch_bytes=1 << 20):
        peak = max(peak, resident())
        assert batch.n_rows <= 105
    assert 0 < peak < 10 << 20


def broken(content):
    """The same with something wrong that is found before any row is read."""
    yield b""
    yield b"ARROW1"
    yield b"not arrow at all" * 10
    yield from (content[:n] for n in range(0, len(content), 211))
    yield content[:-1]
    yield content[:-8]
    yield content + b"garbage!"
    yield content + content


@pytest.mark.parametrize("form", ["stream", "file"])
def test_a_shard_that_is_not_whole_is_named(form):
    content = stream(mixed(300), form=form)
    for bad in broken(content):
        if form == "file" and bad.endswith(content):
            continue  # what follows the index of a file is the index again
        for read in (batch_offsets, content_digest, rows_of, lambda source: list(iter_arrow_tables(source))):
            with pytest.raises(
                BadShard, match=r"part\.arrow: not a whole Arrow .*truncated or corrupt.*make"
            ):
                read(Source(bad))


def test_corrupt_bytes_are_an_error_or_other_rows_but_never_a_crash(tmp_path):
    table = mixed(200).append_column("word", pa.array(["u", "v"] * 100).dictionary_encode())
    content = stream(table, rows=50)
    rng = random.Random(7)
    n_found = 0
    for _ in range(150):
        bad = bytearray(content)
        at = rng.randrange(len(bad))
        bad[at] = rng.choice([0, 255, bad[at] ^ 1 << rng.randrange(8)])
        source = File(tmp_path / "a.arrow", bytes(bad))
        try:
            rows_of(source)
            for _, part in iter_arrow_tables(source):
                filtered(part, np.ones(len(part), bool))
        except BadShard:
            n_found += 1
    assert n_found > 15


def test_a_shard_that_cannot_be_opened_is_named():
    class Missing(Source):
        def open(self):
            raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(BadShard, match=r"part\.arrow: cannot be read: No such file"):
        rows_of(Missing(b""))


def test_rows_with_views_are_filtered_too():
    table = mixed(50)
    mask = np.arange(50) % 3 == 0
    found = filtered(table, mask)
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found.to_pylist() == [row for row, kept in zip(table.to_pylist(), mask, strict=True) if kept]
