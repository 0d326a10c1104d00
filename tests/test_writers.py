"""Output bytes depend on the rows alone: not on batches, not on the time."""

from __future__ import annotations

import bz2
import datetime as dt
import decimal
import gzip
import io
import json
import lzma
import zlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.io import writers
from dataselect.io.lines import LineBlock
from dataselect.io.writers import (
    HashingFile,
    LineWriter,
    TableWriter,
    copied_lines,
    extended_lines,
    json_line,
    json_lines,
    line_ending,
)

CODECS = ["none", "gzip", "zstd", "bz2", "xz"]
DECOMPRESS = {"gzip": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress}


def written(chunks, codec):
    file = io.BytesIO()
    out = HashingFile(file)
    writer = LineWriter(out, codec)
    for chunk in chunks:
        writer.write(np.frombuffer(chunk, np.uint8))
    writer.close()
    assert out.n_bytes == len(file.getvalue())
    return file.getvalue()


def decoded(data, codec):
    if codec in DECOMPRESS:
        return DECOMPRESS[codec](data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if codec == "zstd" else data


def lines(n, seed=0):
    rng = np.random.default_rng(seed)
    return b"".join(b'{"n": %d}\n' % n for n in rng.integers(0, 10**12, n))


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_do_not_depend_on_the_sizes_of_writes(codec, monkeypatch):
    monkeypatch.setattr(writers, "_BUFFER_BYTES", 1 << 14)
    content = lines(10_000)
    whole = written([content], codec)
    assert decoded(whole, codec) == content
    for step in (97, 1 << 13, 1 << 14, (1 << 14) + 1, 1 << 17):
        assert written([content[i : i + step] for i in range(0, len(content), step)], codec) == whole


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.sampled_from(CODECS))
def test_any_bytes_in_any_writes_round_trip(content, cuts, codec):
    edges = [0, *sorted(min(c, len(content)) for c in cuts), len(content)]
    chunks = [content[a:b] for a, b in pairwise(edges)]
    assert decoded(written(chunks, codec), codec) == content
    assert written(chunks, codec) == written([content], codec)


def test_a_large_stream_in_real_buffers():
    content = lines(300_000)
    for codec in CODECS:
        assert decoded(written([content[:7], content[7:]], codec), codec) == content


def test_gzip_has_no_time_and_no_name():
    data = written([b"x"], "gzip")
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert data[-8:] == zlib.crc32(b"x").to_bytes(4, "little") + (1).to_bytes(4, "little")


def test_zstd_has_a_checksum():
    assert zstandard.get_frame_parameters(written([b"x" * 100], "zstd")).has_checksum


def table_of(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "id": np.arange(n_rows),
            "text": [
                None if i % 17 == 0 else "word " * int(k) for i, k in enumerate(rng.integers(0, 40, n_rows))
            ],
        },
        metadata={"made": "by a test"},
    )


def parquet(table, sizes, steps):
    file = io.BytesIO()
    out = HashingFile(file)
    with TableWriter(out, table.schema) as writer:
        start = 0
        for step in steps:
            writer.write(table.slice(start, step), None if sizes is None else sizes[start : start + step])
            start += step
    assert start >= len(table)
    return file.getvalue()


@pytest.mark.parametrize("with_sizes", [True, False])
def test_parquet_bytes_do_not_depend_on_batches(monkeypatch, with_sizes):
    monkeypatch.setattr(writers, "_ROW_GROUP_BYTES", 20_000)
    monkeypatch.setattr(writers, "_ROW_GROUP_ROWS", 300)
    table = table_of(3000)
    sizes = np.random.default_rng(1).integers(0, 200, 3000) if with_sizes else None
    whole = parquet(table, sizes, [3000])
    for step in (1, 7, 299, 300, 301, 1000):
        assert parquet(table, sizes, [step] * (3000 // step + 1)) == whole
    back = pq.read_table(io.BytesIO(whole))
    assert back.equals(table)
    assert back.schema.metadata == {b"made": b"by a test"}
    meta = pq.ParquetFile(io.BytesIO(whole)).metadata
    groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    assert max(groups) <= 300
    if with_sizes:
        starts = np.concatenate([[0], np.cumsum(groups)])
        for a, b in pairwise(starts):
            assert sizes[a : b - 1].sum() < 20_000  # only the last row may reach the limit


def test_a_row_larger_than_a_row_group_is_written(monkeypatch):
    monkeypatch.setattr(writers, "_ROW_GROUP_BYTES", 100)
    table = table_of(5)
    assert pq.read_table(io.BytesIO(parquet(table, np.array([500, 0, 0, 500, 1]), [5]))).equals(table)


def test_no_rows_are_a_file_with_a_schema():
    table = table_of(0)
    assert pq.read_table(io.BytesIO(parquet(table, None, [0]))).schema.equals(table.schema)


# JSON lines --------------------------------------------------------------------------------------------

NASTY_LINES = [
    b"{}",
    b"{ }",
    b'{"a": 1}',
    b'{"a": 1 }',
    b'{"a": 1}\r',
    b' {"a": {"b": {}}}  \t',
    b'{"a": "ends with a brace }"}',
    b'{"a": "}"  }',
    b'{"a": "\\"}"}',
    b'{"a": []}',
    b'{"a": "\\u007d"}',
    '{"ü": "文 🙂"}'.encode(),
    b'{"big": 123456789012345678901234567890, "f": 1.000e5}',
]
FIELDS = {"score": 0.1, "n": 3, "none": None, 'say "hi"': "ü\n", "flag": True}


def block_of(lines, end=b"\n"):
    data = b"\n".join(lines) + end
    stops = np.cumsum([len(line) + 1 for line in lines]) - 1
    starts = stops - [len(line) for line in lines]
    n = len(lines)
    return LineBlock(0, 0, np.frombuffer(data, np.uint8), starts, stops, n, 0, len(data))


def extended(line, fields):
    data, n_rows = extended_lines(block_of([line]), np.ones(1, bool), [line_ending(fields)], np.zeros(1, int))
    assert n_rows == 1
    return data.tobytes()


@pytest.mark.parametrize("line", [line for line in NASTY_LINES if json.loads(line)])
def test_added_fields_leave_every_other_byte(line):
    new = extended(line, FIELDS)
    assert json.loads(new) == json.loads(line) | FIELDS
    body, white_space = line.rstrip(), line[len(line.rstrip()) :]
    assert new.startswith(body[:-1])
    assert new.endswith(b"}" + white_space + b"\n")
    assert list(json.loads(new))[-len(FIELDS) :] == list(FIELDS)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_chosen_lines_are_copied_with_newlines_or_with_their_own_ending(end):
    lines = [b'{"a":1}', b'{"a":2}\r', b'{"a":3} ', b'{"a":4}']
    block, mask = block_of(lines, end), np.array([True, True, False, True])
    data, n_rows = copied_lines(block, mask)
    assert (data.tobytes(), n_rows) == (b'{"a":1}\n{"a":2}\r\n{"a":4}\n', 3)
    endings = [line_ending({"x": k}) for k in range(2)]
    data, n_rows = extended_lines(block, mask, endings, np.array([1, 1, 0]))
    assert (data.tobytes(), n_rows) == (b'{"a":1,"x":1}\n{"a":2,"x":1}\r\n{"a":4,"x":0}\n', 3)
    assert copied_lines(block, np.zeros(4, bool))[0].tobytes() == b""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_become_null(value):
    assert json.loads(extended(b'{"a":1}', {"x": value})) == {"a": 1, "x": None}
    assert json.loads(json_line({"x": [value]})) == {"x": [None]}


def test_a_float_is_written_so_that_it_reads_back_the_same():
    for value in (0.1, 1e-300, 2.0**53 + 2, np.pi, float(np.float32(0.1))):
        assert json.loads(extended(b'{"a":1}', {"x": value}))["x"] == value


def test_strings_that_are_not_utf8_become_hex_wherever_they_stand():
    two = pa.array(["abcde", "de"])
    bad = pa.Array.from_buffers(pa.string(), 2, [None, two.buffers()[1], pa.py_buffer(b"a\xff\xffdede")])
    columns = {
        "plain": bad,
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1]), bad),
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2]), bad),
        "pair": pa.FixedSizeListArray.from_arrays(bad, 1),
        "struct": pa.StructArray.from_arrays([bad], ["x"]),
        "map": pa.MapArray.from_arrays(pa.array([0, 1, 2]), bad, two),
    }
    first, second = map(json.loads, json_lines(pa.table(columns)).splitlines())
    for row, value, other in ((first, "61ffff6465", "abcde"), (second, "de", "de")):
        assert row == {
            "plain": value,
            "dictionary": value,
            "list": [value],
            "pair": [value],
            "struct": {"x": value},
            "map": [[value, other]],
        }


@pytest.mark.parametrize(
    "values", [pa.array([10**18], pa.timestamp("s")), pa.array([2**62], pa.duration("s"))]
)
def test_values_that_python_has_no_type_for_are_a_value_error(values):
    with pytest.raises(ValueError, match="too large"):
        json_lines(pa.table({"x": values}))


def test_a_row_of_a_table_becomes_one_line_of_json():
    row = {
        "t": "line\nbreak ü",
        "d": dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc),
        "day": dt.date(2024, 1, 2),
        "dec": decimal.Decimal("1.50"),
        "b": b"text",
        "bad": b"\xff\xfe",
        "l": [1, None, {"x": 2.5}],
        "m": [("k", 1)],
        "none": None,
        "flag": False,
    }
    line = json_line(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "t": "line\nbreak ü",
        "d": "2024-01-02T03:04:05+00:00",
        "day": "2024-01-02",
        "dec": "1.50",
        "b": "text",
        "bad": "fffe",
        "l": [1, None, {"x": 2.5}],
        "m": [["k", 1]],
        "none": None,
        "flag": False,
    }
    assert "ü".encode() in line
    assert list(json.loads(line)) == list(row)
