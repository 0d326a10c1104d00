"""What `against:` of a dedup names: saved indexes, outputs of earlier runs, shards."""

from __future__ import annotations

import glob
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataselect.core.errors import BadModel, DataselectError, RecipeError
from dataselect.core.pieces import SUFFIXES, Piece, Shard, suffix_of
from dataselect.engine.against import OldPart
from dataselect.engine.old_files import INDEX, SUPERSEDED
from dataselect.io.dedup_index import SUFFIX, DedupIndex
from dataselect.io.store import each, store_at, store_of
from dataselect.planning.recipe import Recipe
from dataselect.planning.shards import cut_pieces, list_shards
from dataselect.publish import read_manifest
from dataselect.stages.base import DedupStage, NearDedupStage


def old_parts(recipe: Recipe, number: int) -> tuple[OldPart, ...]:
    """The old documents of a dedup, by stage number, in the order named; those in shards still unsigned.

    Raises RecipeError, BadModel for an index that is none or of another scheme, BadShard.
    """
    spec = recipe.stages[number]
    assert isinstance(spec.stage, DedupStage)
    parts: list[OldPart] = []
    for entry in spec.stage.against:
        place = f"{recipe.path}: stages: {spec.use}: against"
        source = entry if "://" in entry else os.path.relpath(entry, recipe.path.resolve().parent)
        if entry.rstrip("/") == recipe.output.folder.rstrip("/"):
            raise RecipeError(f"{place}: {source} is this recipe's own output; name one of an earlier run")
        if entry.endswith(SUFFIX):
            parts += _indexes(spec.stage, source, _index_paths(entry, place))
            continue
        manifest = None if glob.has_magic(entry) else read_manifest(store_at(entry))
        saved = [] if manifest is None else _saved(spec.stage, entry, manifest)
        if saved:
            parts += _indexes(spec.stage, source, saved)
            continue
        made = {*spec.stage.key_columns()} - {"id", *(field.name for field in recipe.fields)}
        if made:
            raise RecipeError(
                f"{place}: {source} has no saved index, and shards lack '{min(made)}', which a stage adds; "
                "name an index, or an output with `save_index: true`"
            )
        patterns = [entry]
        if manifest is not None:
            kinds = ("shards", "heldout") if manifest["ledger"].get("rows_heldout") else ("shards",)
            patterns = [f"{glob.escape(entry)}/{manifest['generation']}/{kind}/**/*" for kind in kinds]
        for pattern in patterns:
            parts += _shards(pattern, source, recipe.input.piece_bytes, place)
    return tuple(parts)


def _index_paths(entry: str, place: str) -> list[str]:
    if "://" in entry or not glob.has_magic(entry):
        return [entry]
    found = sorted(glob.glob(entry, recursive=True))
    if not found:
        raise RecipeError(f"{place}: no file matches {entry}")
    return found


def _indexes(stage: DedupStage, source: str, paths: list[str]) -> list[OldPart]:
    """Parts of index files; BadModel where one can't be compared."""
    parts = []
    for path in paths:
        index = DedupIndex.open(path)
        index.check_scheme(stage.index_scheme(), signatures=_needs_signatures(stage))
        texts = _texts(index)
        if isinstance(stage, NearDedupStage) and stage.verify == "exact" and None in texts:
            gone = index.text_files()[texts.index(None)][0]
            raise BadModel(f"{path}: `verify: exact` needs the texts, but {gone} is gone; use `verify: auto`")
        parts.append(OldPart(source, path, index.bundle.digest, texts=texts))
    return parts


def _texts(index: DedupIndex) -> tuple[Piece | None, ...]:
    """The files with its documents' texts that are still there, of the same size."""

    def look(file: tuple[str, int]) -> Piece | None:
        path, n_bytes = file
        suffix = suffix_of(path)
        try:
            store, name = store_of(path)
            entry = store.stat(name)
        except DataselectError:  # nobody must reach what an old index points to
            return None
        if entry is None or entry.size != n_bytes or suffix is None:
            return None
        return Piece((Shard(name, path, n_bytes, entry.version),), *SUFFIXES[suffix], n_bytes=n_bytes)

    return tuple(each(look, index.text_files(), far="://" in index.place))


def _needs_signatures(stage: DedupStage) -> bool:
    return isinstance(stage, NearDedupStage) and stage.uses_signatures


def _saved(stage: DedupStage, folder: str, manifest: dict[str, Any]) -> list[str]:
    """Index files of an output that this stage can use; none where it has none, or of another scheme."""
    found = index_files(folder, manifest)
    for label in sorted(found):
        try:
            DedupIndex.open(found[label][0]).check_scheme(
                stage.index_scheme(), signatures=_needs_signatures(stage)
            )
        except BadModel:
            continue
        return found[label]
    return []


def index_files(folder: str, manifest: dict[str, Any]) -> dict[str, list[str]]:
    """Stage label -> its index files in a published output, in the order of pieces."""
    found: dict[str, list[str]] = {}
    for piece in manifest["pieces"]:
        for kind, file in piece["files"].items():
            if kind.startswith(f"{INDEX}/"):
                path = f"{folder.rstrip('/')}/{manifest['generation']}/{file['name']}"
                found.setdefault(kind.removeprefix(f"{INDEX}/").partition("/")[0], []).append(path)
    return found


def superseded_tables(folder: str) -> pa.Table:
    """What the live generation of an output lists as superseded; RecipeError where nothing is listed."""
    output = store_at(folder)
    manifest = read_manifest(output)
    pieces = [] if manifest is None else manifest["pieces"]
    names = [piece["files"][SUPERSEDED]["name"] for piece in pieces if SUPERSEDED in piece["files"]]
    if manifest is None or not names:
        raise RecipeError(f"{folder}: lists no superseded documents (`on_match: keep_new` does)")
    tables = []
    for name in names:
        with output.open(f"{manifest['generation']}/{name}") as file:
            tables.append(pq.read_table(file))
    return pa.concat_tables(tables)


def _shards(pattern: str, source: str, piece_bytes: int, place: str) -> list[OldPart]:
    patterns = [pattern]
    if os.path.isdir(pattern):
        below = [f"{glob.escape(pattern)}/**/*{suffix}" for suffix in SUFFIXES]
        patterns = [p for p in below if any(map(os.path.isfile, glob.iglob(p, recursive=True)))] or patterns
    try:
        shards = list_shards(patterns)
    except RecipeError as error:
        raise RecipeError(f"{place}: {str(error).removeprefix('input.shards: ')}") from None
    return [OldPart(source, piece=piece) for piece in cut_pieces(shards, piece_bytes)]
