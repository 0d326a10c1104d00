"""The names of a file's columns, by a look at its first rows."""

from __future__ import annotations

import itertools
import json

import pyarrow as pa

from dataselect.core.errors import BadModel
from dataselect.core.names import nearest
from dataselect.core.pieces import SUFFIXES, Shard, suffix_of
from dataselect.io.arrow_stream import schema_of
from dataselect.io.lines import iter_line_blocks
from dataselect.io.parquet import describe
from dataselect.io.reader import ShardSource, file_shard

_ROWS = 100


def column_names(shard: Shard) -> list[str]:
    """Columns of a Parquet or Arrow shard, keys of a JSONL one's first rows; 'a.b' for what lies in another.

    BadShard where it can't be read. Empty where no row is a JSON object (the rows will be counted).
    """
    source, form = ShardSource(shard), SUFFIXES[suffix_of(shard.name) or ""][0]
    if form == "jsonl":
        return _jsonl_columns(shard)
    return _table_columns(describe(source).schema if form == "parquet" else schema_of(source))


def _table_columns(schema: pa.Schema) -> list[str]:
    names: list[str] = []
    for field in schema:
        names += _field_paths(field)
    return names


def _field_paths(field: pa.Field, prefix: str = "") -> list[str]:
    names = [prefix + field.name]
    if pa.types.is_struct(field.type):
        for i in range(field.type.num_fields):
            names += _field_paths(field.type.field(i), f"{prefix}{field.name}.")
    return names


def _jsonl_columns(shard: Shard) -> list[str]:
    codec = SUFFIXES[suffix_of(shard.name) or ""][1]
    columns: dict[str, None] = {}
    blocks = iter_line_blocks(ShardSource(shard), codec=codec, block_bytes=1 << 16)
    block = next((b for b in itertools.islice(blocks, 4) if len(b.starts)), None)
    if block is None:
        return []
    for start, end in zip(block.starts[:_ROWS].tolist(), block.ends[:_ROWS].tolist(), strict=True):
        try:
            row = json.loads(block.data[start:end].tobytes())
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            columns |= dict.fromkeys(_paths(row))
    return list(columns)


def _paths(row: dict[str, object], prefix: str = "") -> list[str]:
    names = []
    for key, value in row.items():
        names.append(prefix + key)
        if isinstance(value, dict):
            names += _paths(value, f"{prefix}{key}.")
    return names


def check_text_column(path: str, column: str) -> None:
    """BadModel where a target file has no such column in its first rows."""
    names = column_names(file_shard(path))
    if names and column not in names:
        raise BadModel(
            f"{path}: no column '{column}' (target_text); it has {', '.join(names[:12])}"
            f"{nearest(column, names)}"
        )
