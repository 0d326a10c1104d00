"""What to compare, checked before anything is read; and where a selection's shards are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataselect.core.errors import RecipeError
from dataselect.core.pieces import Shard
from dataselect.io.reader import ReadSpec
from dataselect.io.store import store_at
from dataselect.planning.preflight import check_columns
from dataselect.planning.recipe import InputSpec, OutputSpec, Recipe, load_recipe
from dataselect.planning.shards import list_shards
from dataselect.publish import live_shards, read_manifest

MAX_SEEDS = 1000
_NO_OUTPUT = OutputSpec.model_validate({"folder": "."})


@dataclass(frozen=True)
class CompareSpec:
    """Options of `dataselect compare`."""

    selections: tuple[str, ...]
    """Each a recipe, an output folder or a glob pattern, optionally as NAME=WHERE."""
    target: tuple[str, ...]
    raw: tuple[str, ...] = ()
    """Glob patterns; by default the input of the first recipe among the selections."""
    text: str = "text"
    id: str | None = None
    source: str | None = None
    """Column of the raw shards; by default a document's source is its shard."""
    language: str | None = None
    seeds: int = 5
    order: int = 3
    max_tokens: int = 4_000_000
    """Upper limit of the common size, which bounds memory and time."""


@dataclass(frozen=True)
class Documents:
    """Shards under a name, and where their text and ids are."""

    name: str
    shards: list[Shard]
    read: ReadSpec


@dataclass(frozen=True)
class Inputs:
    """Everything that is read."""

    selections: list[Documents]
    raw: Documents
    target: Documents


def find_inputs(spec: CompareSpec) -> Inputs:
    """List all shards. RecipeError, in the words of the command line, where something is not there."""
    if not 2 <= spec.seeds <= MAX_SEEDS:
        raise RecipeError(f"--seeds {spec.seeds}: expected 2 to {MAX_SEEDS}; one draw has no spread")
    if not 1 <= spec.order <= 6:
        raise RecipeError(f"--order {spec.order}: expected 1 to 6 tokens")
    if spec.max_tokens < 1:
        raise RecipeError(f"--max-tokens {spec.max_tokens}: expected 1 or more")
    if not spec.selections:
        raise RecipeError("name at least one selection: a recipe, an output folder, or a pattern of shards")
    named = [_named(item) for item in spec.selections]
    names = [name for name, _ in named]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(f"two selections are named '{min(twice)}'; name them: a=first b=second")
    recipes = {where: load_recipe(where) for _, where in named if where.endswith((".yaml", ".yml"))}
    first = next(iter(recipes.values()), None)
    patterns = spec.raw or (tuple(first.input.shards) if first else ())
    if not patterns:
        raise RecipeError(
            "--raw: name the shards that were selected from; no recipe among the selections tells"
        )
    texts: str | tuple[str, ...] = spec.text
    ids = spec.id
    if first is not None and spec.text == "text":
        texts = first.input.text if isinstance(first.input.text, str) else tuple(first.input.text)
    if first is not None and spec.id is None:
        ids = first.input.id
    return Inputs(
        [
            Documents(name, _selection_shards(name, where, recipes.get(where)), _read_spec(texts, ids))
            for name, where in named
        ],
        _documents("raw", "--raw", patterns, texts, ids),
        _documents("target", "--target", spec.target, spec.text, None),
    )


def _named(item: str) -> tuple[str, str]:
    """(name, where): 'dsir=out/current' has a name; else it is the last folder that is no 'current'."""
    name, equals, where = item.partition("=")
    if equals and name and "/" not in name and not os.path.exists(item):
        return name, where
    path = Path(item)
    parts = [part for part in path.with_suffix("").parts if part not in ("current", "shards")]
    parts = [part for part in parts if "*" not in part]
    return (parts[-1] if parts else item), item


def _selection_shards(name: str, where: str, recipe: Recipe | None) -> list[Shard]:
    folder = recipe.output.folder if recipe else where
    if recipe is None and (any(c in where for c in "*?[") or os.path.isfile(where)):
        with _in_words_of(f"selection '{name}'"):
            return list_shards([_absolute(where)])
    if folder.rstrip("/").endswith("/current"):
        folder = os.path.dirname(folder.rstrip("/"))
    if read_manifest(store_at(folder)) is None:
        todo = f"run it first: dataselect run {where}" if recipe else "expected an output folder or shards"
        raise RecipeError(f"selection '{name}': nothing is published in {folder}; {todo}")
    shards = [f"{_absolute(folder).rstrip('/')}/{live}" for live in live_shards(store_at(folder))]
    return list_shards(shards) if shards else []


def _documents(
    name: str, option: str, patterns: Sequence[str], text: str | tuple[str, ...], ids: str | None
) -> Documents:
    with _in_words_of(option):
        shards = list_shards([_absolute(pattern) for pattern in patterns])
        texts = text if isinstance(text, str) else list(text)
        checked = InputSpec.model_validate({"shards": list(patterns), "text": texts, "id": ids})
        check_columns(shards, checked, _NO_OUTPUT)
    return Documents(name, shards, _read_spec(text, ids))


def _read_spec(text: str | tuple[str, ...], ids: str | None) -> ReadSpec:
    return ReadSpec(text, ids, 64 << 20, 1 << 62, 16_384)


def _absolute(pattern: str) -> str:
    return pattern if "://" in pattern else os.path.abspath(pattern)


@contextmanager
def _in_words_of(place: str) -> Iterator[None]:
    try:
        yield
    except RecipeError as error:
        message = str(error)
        for key, option in (("input.shards", place), ("input.text", "--text"), ("input.id", "--id")):
            message = message.replace(key, option)
        raise RecipeError(message) from error
