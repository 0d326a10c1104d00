"""A look at the first rows, so that a misspelt column is found before the run and not in its quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dataselect.core.errors import BadShard, RecipeError
from dataselect.core.names import nearest
from dataselect.core.pieces import SUFFIXES, Piece, Shard, suffix_of
from dataselect.io.peek import column_names
from dataselect.planning.recipe import InputSpec, OutputSpec


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
        if output.copies == "column" and "copies" in columns:
            raise RecipeError(
                f"output.copies: {shard.name} has a column 'copies' already; use `copies: repeat`"
            )
        twice = next((name for name in output.add if name in columns), None)
        if twice is not None:
            raise RecipeError(
                f"output.add: {shard.name} has a column '{twice}' already; name the stage's with `as:`"
            )


def check_shuffled(pieces: Sequence[Piece], output: OutputSpec) -> None:
    """RecipeError where the rows of these shards can't stand in one file."""
    suffixes = {piece.suffix for piece in pieces}
    tables = {piece.format != "jsonl" for piece in pieces}
    if (output.format == "same" and len(suffixes) > 1) or (output.format == "parquet" and len(tables) > 1):
        raise RecipeError(
            f"output.shuffle: the shards are {', '.join(sorted(suffixes))}, whose rows can't stand in one "
            "file as they came; set `output.format: jsonl.zst`, which takes any"
        )


def _first_columns(shards: Iterable[Shard], spec: InputSpec) -> tuple[Shard | None, list[str]]:
    """The first shard and its columns; the first readable one where bad shards don't stop the run."""
    for shard in shards:
        try:
            return shard, column_names(shard)
        except BadShard:
            if spec.on_bad_shard == "stop":
                raise
    return None, []


def _message(key: str, name: str, shard: Shard, columns: list[str]) -> str:
    has = ", ".join(columns[:12])
    return f"input.{key}: no column '{name}' in {shard.name}, which has {has}{nearest(name, columns)}"
