"""From glob patterns to shards, and from shards to pieces, by the data alone."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence

from dataselect.core.errors import BadShard, RecipeError
from dataselect.core.fingerprint import fraction_of_name
from dataselect.core.pieces import SUFFIXES, TEXT_PER_BYTE, Piece, Shard, suffix_of
from dataselect.io.arrow_stream import batch_offsets
from dataselect.io.parquet import describe
from dataselect.io.reader import ShardSource
from dataselect.io.store import each, without_scheme
from dataselect.io.zstd_frames import frame_offsets
from dataselect.planning.saved import hint, is_beside, saved_shards

SMALL_SHARD_BYTES = 1 << 20
"""Shards below this are grouped: a task for each would cost more than its work."""
_FILE_COST_BYTES = 16 << 10  # opening and closing a file costs about what reading this much does


def list_shards(patterns: Sequence[str]) -> list[Shard]:
    """All files that match, sorted by name; RecipeError for a pattern without a match or an unknown ending.

    A matching folder stands for the files that it names where `datasets` saved it, else for nothing.

    Names are relative to the common folder of all patterns, so they (and thus the order of rows) are the
    same on every machine that holds the same tree.
    """
    patterns = [without_scheme(pattern) for pattern in patterns]
    root = _common_root(patterns)
    found: dict[str, Shard] = {}
    for pattern in patterns:
        shards = list(_remote(pattern, root) if "://" in pattern else _local(pattern, root))
        if not shards:
            folder = _fixed_folder(pattern)
            closed = os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK)
            why = f": permission denied for {folder}" if closed else hint(pattern) * os.path.isdir(pattern)
            raise RecipeError(f"input.shards: no file matches {pattern}{why}")
        found |= {shard.name: shard for shard in shards}
    for name in found:
        if any("\ud800" <= char <= "\udfff" for char in name):  # how Python shows bytes that are not UTF-8
            raise RecipeError(f"input.shards: {name!r}: rename it; its name is not UTF-8")
        if suffix_of(name) is None:
            raise RecipeError(f"input.shards: {name}: unknown ending; known are {', '.join(SUFFIXES)}")
    return [found[name] for name in sorted(found)]


def _local(pattern: str, root: str) -> Iterator[Shard]:
    for path in glob.iglob(pattern, recursive=True):
        try:
            stat = os.stat(path)
        except FileNotFoundError as error:
            raise RecipeError(f"input.shards: {path}: vanished or a broken link") from error
        if os.path.isdir(path):
            yield from saved_shards(path.rstrip("/"), root, recursive="**" in pattern)
        elif os.path.isfile(path) and not is_beside(path):
            name = os.path.relpath(path, root).replace(os.sep, "/")
            yield Shard(name, path, stat.st_size, str(stat.st_mtime_ns))


def _remote(pattern: str, root: str) -> Iterator[Shard]:
    from dataselect.io.file_systems import describe, file_size, file_system, fsspec_version
    from dataselect.io.patience import patiently

    fs, path = file_system(pattern)
    fs.invalidate_cache()  # of an earlier run of this process
    folder = _fixed_folder(pattern)
    base = file_system(folder)[1].rstrip("/")
    # fsspec's web servers have no file where they are down; asked for one, they say so.
    many = glob.has_magic(path)
    try:
        found = patiently(pattern, lambda: fs.glob(path, detail=True) if many else {path: describe(fs, path)})
    except FileNotFoundError as error:
        if "hf" in fs.protocol and error.__cause__ is not None:  # no such repository, or not for this token
            raise RecipeError(f"input.shards: no file matches {pattern}: {error}") from None
        return
    # A web server's list of links tells no sizes.
    unsized = [name for name, info in found.items() if info["type"] == "file" and info.get("size") is None]
    asked = each(lambda name: patiently(name, lambda: describe(fs, name)), unsized, far=True)
    for name, info in (found | dict(zip(unsized, asked, strict=True))).items():
        # What stands before the path (an account, a host) is not in fsspec's names.
        url = folder.rstrip("/") + name.rstrip("/").removeprefix(base)
        if info["type"] == "directory":
            yield from saved_shards(url, root, recursive="**" in pattern)
        elif info["type"] == "file" and not is_beside(url):
            yield Shard(os.path.relpath(url, root), url, file_size(url, info), fsspec_version(info))


def _fixed_folder(pattern: str) -> str:
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def _common_root(patterns: Sequence[str]) -> str:
    try:
        return os.path.commonpath([_fixed_folder(pattern) for pattern in patterns])
    except ValueError as error:
        raise RecipeError("input.shards: patterns on different stores can't be mixed") from error


def cut_pieces(shards: Iterable[Shard], piece_bytes: int, *, stop_at_bad: bool = True) -> list[Piece]:
    """Pieces in row order. Only names, sizes, row groups, record batches and frames decide where a cut is.

    Appending to a plain JSONL file leaves all its pieces but the last as they were, and an added small
    file changes only the group it falls into. BadShard for a Parquet file without a footer or an Arrow
    stream without an end; with stop_at_bad=False it is one piece, and the task that reads it finds out again.
    """
    pieces: list[Piece] = []
    group: list[Shard] = []

    def close_group() -> None:
        if group:
            pieces.append(_whole(tuple(group)))
            group.clear()

    shards = list(shards)
    apart = [
        shard for shard in shards if _is_table(shard) or shard.size >= min(SMALL_SHARD_BYTES, piece_bytes)
    ]
    # Footers and frames are looked up: on an object store, many at a time.
    far = any("://" in shard.url for shard in apart)
    cuts = each(lambda shard: _cut(shard, piece_bytes, stop_at_bad), apart, far=far)
    cut = dict(zip(apart, cuts, strict=True))
    for shard in shards:
        if shard in cut:
            close_group()
            pieces.extend(cut[shard])
            continue
        if group and suffix_of(group[0].name) != suffix_of(shard.name):
            close_group()
        group.append(shard)
        # Cut after a file with probability (its cost / piece size), decided by its name: content-defined.
        cost = shard.size + _FILE_COST_BYTES
        if fraction_of_name(shard.name, "group") < cost / (piece_bytes / 2):
            close_group()
    close_group()
    return pieces


def _is_table(shard: Shard) -> bool:
    return SUFFIXES[suffix_of(shard.name) or ""][0] != "jsonl"  # never grouped: their schemas may differ


def _whole(shards: tuple[Shard, ...]) -> Piece:
    form, codec = SUFFIXES[suffix_of(shards[0].name) or ""]
    return Piece(shards, form, codec, n_bytes=sum(shard.size for shard in shards))


def _cut(shard: Shard, piece_bytes: int, stop_at_bad: bool) -> list[Piece]:
    form, codec = SUFFIXES[suffix_of(shard.name) or ""]
    if form != "jsonl":
        try:
            bounds = (_row_group_bounds if form == "parquet" else _record_batch_bounds)(shard, piece_bytes)
        except BadShard:
            if stop_at_bad:
                raise
            bounds = [0]
    elif codec == "zstd" and TEXT_PER_BYTE[codec] * shard.size > piece_bytes:
        frames = frame_offsets(ShardSource(shard)) or [0]
        bounds = _first_at_grid(frames, piece_bytes // TEXT_PER_BYTE[codec], shard.size)
    elif codec == "none":
        bounds = [*range(0, max(shard.size, 1), piece_bytes)]
    else:
        bounds = [0]
    if len(bounds) == 1:
        return [_whole((shard,))]
    stops: list[int | None] = [*bounds[1:], None]
    return [
        Piece((shard,), form, codec, start, stop, part, len(bounds), n_bytes=shard.size // len(bounds))
        for part, (start, stop) in enumerate(zip(bounds, stops, strict=True))
    ]


def _row_group_bounds(shard: Shard, piece_bytes: int) -> list[int]:
    bounds, used = [0], 0
    for i, group in enumerate(describe(ShardSource(shard)).row_groups):
        if used and used + group.n_bytes > piece_bytes:
            bounds.append(i)
            used = 0
        used += group.n_bytes
    return bounds


def _record_batch_bounds(shard: Shard, piece_bytes: int) -> list[int]:
    if shard.size <= piece_bytes:
        return [0]
    return _first_at_grid(batch_offsets(ShardSource(shard)), piece_bytes, shard.size)


def _first_at_grid(offsets: Sequence[int], step: int, size: int) -> list[int]:
    """The first of `offsets` at or after each multiple of `step`."""
    bounds: list[int] = []
    for offset in offsets:
        if offset < size and (not bounds or offset // step > bounds[-1] // step):
            bounds.append(offset)
    return bounds


def sample_pieces(pieces: Sequence[Piece], share: float) -> tuple[list[int], float]:
    """Ordinals of the pieces that a sample run reads, and the share of their documents it uses.

    At least four pieces (or all), by hash of their names, so that a sample of a large corpus reads a
    small part of it; documents are then sampled by hash to make up `share` of the bytes.
    """
    order = sorted(range(len(pieces)), key=lambda i: fraction_of_name(pieces[i].name, "sample"))
    chosen = sorted(order[: max(4, round(share * len(pieces)))])
    total = sum(piece.n_bytes for piece in pieces)
    inside = sum(pieces[i].n_bytes for i in chosen)
    return chosen, min(1.0, share * total / max(inside, 1))
