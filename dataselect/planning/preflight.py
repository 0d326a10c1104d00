"""A look at the first rows, so that a misspelt column is found before the run and not in its quarantine."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from dataselect.core.errors import BadShard, RecipeError
from dataselect.core.pieces import SUFFIXES, Format, Shard, suffix_of
from dataselect.io.arrow_stream import schema_of
from dataselect.io.lines import iter_line_blocks
from dataselect.io.parquet import describe
from dataselect.io.reader import ShardSource
from dataselect.planning.recipe import InputSpec, OutputSpec

_ROWS = 100


def check_columns(shards: Sequence[Shard], spec: InputSpec, output: OutputSpec) -> None:
    """RecipeError where a format's first shard lacks the text or id column, or has one to be added."""
    names = [spec.text] if isinstance(spec.text, str) else list(spec.text)
    for form in ("jsonl", "parquet", "arrow"):
        candidates = (s for s in shards if SUFFIXES[suffix_of(s.name) or ""][0] == form and s.size)
        shard, columns = _first_columns(candidates, spec)
        if shard is None or not columns:
            continue
        if not any(name in columns for name in names):
            raise RecipeError(_message("text", names[0], shard, columns))
        if spec.id is not None and spec.id not in columns:
            raise RecipeError(_message("id", spec.id, shard, columns))
        twice = next((name for name in output.add if name in columns), None)
        if twice is not None:
            raise RecipeError(
                f"output.add: {shard.name} has a column '{twice}' already; name the stage's with `as:`"
            )


def _first_columns(shards: Iterable[Shard], spec: InputSpec) -> tuple[Shard | None, list[str]]:
    """The first shard and its columns; the first readable one where bad shards don't stop the run."""
    for shard in shards:
        try:
            return shard, _COLUMNS[SUFFIXES[suffix_of(shard.name) or ""][0]](shard)
        except BadShard:
            if spec.on_bad_shard == "stop":
                raise
    return None, []


def _message(key: str, name: str, shard: Shard, columns: list[str]) -> str:
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"input.{key}: no column '{name}' in {shard.name}, which has {', '.join(columns[:12])}{hint}"


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
    """Keys of the first rows that are JSON objects; empty where there is none (the rows will be counted)."""
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


_COLUMNS: dict[Format, Callable[[Shard], list[str]]] = {
    "jsonl": _jsonl_columns,
    "parquet": lambda shard: _table_columns(describe(ShardSource(shard)).schema),
    "arrow": lambda shard: _table_columns(schema_of(ShardSource(shard))),
}
