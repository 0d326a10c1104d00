"""Input fields that stages ask for: looked for in the first rows of some shards, before the run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataselect.core.errors import BadShard, RecipeError
from dataselect.core.names import nearest
from dataselect.core.pieces import SUFFIXES, Shard, suffix_of
from dataselect.io.arrow_stream import schema_of
from dataselect.io.fields import fits, table_keys
from dataselect.io.lines import iter_line_blocks
from dataselect.io.parquet import describe
from dataselect.io.reader import ShardSource

_ROWS, _SHARDS, _BLOCK_BYTES = 200, 8, 1 << 18
_KINDS = {"number": "numbers", "string": "texts", "bool": "true or false"}


@dataclass(frozen=True)
class FieldUse:
    """An input field with the type that it is read as, and who asks for it."""

    name: str
    type: str
    place: str
    """'r.yaml:7: stages[0].where'."""
    declared: bool
    """Whether input.fields names it: then the first rows need not have it."""


@dataclass
class _Seen:
    """What the looked-at rows have: path -> an example of a value, and where it is."""

    kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path -> kind of value ('numbers', 'texts', 'true or false', 'objects', 'lists') -> where."""
    tables: list[tuple[Shard, Any]] = field(default_factory=list)

    def paths(self) -> list[str]:
        names = [name for _, schema in self.tables for name in schema.names]
        return list(dict.fromkeys([*self.kinds, *names]))


def check_fields(shards: Sequence[Shard], uses: Sequence[FieldUse], columns: Collection[str]) -> None:
    """RecipeError where no looked-at row has a field, or none has it with a fitting type.

    columns: of all stages, for the hint where one of them is meant.
    """
    if not uses:
        return
    seen = _look(shards)
    mistakes = [message for use in uses if (message := _mistake(use, seen, columns))]
    if mistakes:
        raise RecipeError("\n".join(mistakes))


def _mistake(use: FieldUse, seen: _Seen, columns: Collection[str]) -> str | None:
    kinds = dict(seen.kinds.get(use.name, {}))
    for shard, schema in seen.tables:
        keys = table_keys(schema, use.name)
        if keys is not None:
            kind = schema.field(keys[0]).type
            for key in keys[1:]:
                kind = kind.field(key).type
            kinds.setdefault(
                _KINDS[use.type] if fits(kind, use.type) else f"values of type {kind}", shard.name
            )
    if kinds:
        kinds.pop("nulls", None)
        wanted = {*_KINDS.values()} if use.type == "string" else {_KINDS[use.type]}
        if not kinds or wanted.intersection(kinds):
            return None
        kind, where = next(iter(kinds.items()))
        return f"{use.place}: '{use.name}' is asked for as a {use.type}, but in {where} it holds {kind}"
    if use.declared or not (seen.kinds or seen.tables):
        return None
    known = seen.paths()
    hint = nearest(use.name, [*known, *columns]) or f", which have {', '.join(known[:12])}"
    hint += " (a rare field is declared under input.fields)"
    return f"{use.place}: no earlier stage adds the column '{use.name}', and no first row has it{hint}"


def _look(shards: Sequence[Shard]) -> _Seen:
    """The first rows of some shards of each format, evenly chosen."""
    seen = _Seen()
    for form in ("jsonl", "parquet", "arrow"):
        of_form = [s for s in shards if s.size and SUFFIXES[suffix_of(s.name) or ""][0] == form]
        step = max(1, -(-len(of_form) // _SHARDS))
        for shard in of_form[::step]:
            try:
                if form == "jsonl":
                    _note_rows(shard, seen)
                else:
                    source = ShardSource(shard)
                    schema = describe(source).schema if form == "parquet" else schema_of(source)
                    seen.tables.append((shard, schema))
            except BadShard:
                continue  # the run says so
    return seen


def _note_rows(shard: Shard, seen: _Seen) -> None:
    codec = SUFFIXES[suffix_of(shard.name) or ""][1]
    blocks = iter_line_blocks(ShardSource(shard), codec=codec, block_bytes=_BLOCK_BYTES)
    block = next((b for b in itertools.islice(blocks, 4) if len(b.starts)), None)
    if block is None:
        return
    for i, (start, end) in enumerate(zip(block.starts[:_ROWS].tolist(), block.ends.tolist(), strict=False)):
        try:
            row = json.loads(block.data[start:end].tobytes())
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            for path, kind in _kinds_of(row):
                seen.kinds.setdefault(path, {}).setdefault(kind, f"{shard.name}, row {i},")


def _kinds_of(row: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in row.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield path, "objects"
            yield from _kinds_of(value, f"{path}.")
        elif isinstance(value, list):
            yield path, "lists"
        elif isinstance(value, bool):
            yield path, "true or false"
        elif value is None:
            yield path, "nulls"
        else:
            yield path, "texts" if isinstance(value, str) else "numbers"
