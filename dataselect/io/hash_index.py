"""A set or a map of strings as sorted 128-bit hashes: 16 bytes an entry, mapped by all workers.

The hash is `kernels.hashing.hash128`, two XXH64. Among n entries and m questions a wrong answer has a
probability of about n * m / 2^128: nothing, unless someone makes collisions on purpose.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from dataselect.core.errors import BadModel
from dataselect.core.pieces import suffix_of

_LINES = 500_000


def text_hashes(texts: pa.Array) -> np.ndarray:
    """uint64[n, 2] of strings; a null is an empty string."""
    from dataselect.kernels.arrow import text_buffers
    from dataselect.kernels.hashing import hash128

    out = np.empty((len(texts), 2), np.uint64)
    hash128(*text_buffers(texts), out)
    return out


def sorted_order(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """int64[n]: the order by the first, then the second half of the hashes; equal ones keep their order."""
    order = np.argsort(high, kind="stable")
    ascending = high[order]
    if (ascending[1:] == ascending[:-1]).any():
        order = np.lexsort((low, high))
    return order


def find(high: np.ndarray, low: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64[m]: position of each wanted hash (uint64[m, 2]) in a sorted index uint64[n] twice, or -1."""
    order = np.argsort(wanted[:, 0])  # in ascending order the questions share the index's pages
    at = np.searchsorted(high, wanted[order, 0])
    found = np.full(len(wanted), -1, np.int64)
    open_ = np.arange(len(wanted))
    while len(open_):
        open_ = open_[at[open_] < len(high)]
        same = high[at[open_]] == wanted[order[open_], 0]
        open_ = open_[same]
        hit = low[at[open_]] == wanted[order[open_], 1]
        found[order[open_[hit]]] = at[open_[hit]]
        open_ = open_[~hit]
        at[open_] += 1  # two entries that share 64 bits
    return found


def make_set(name: str, values: Iterator[Sequence[str]]) -> dict[str, np.ndarray]:
    """Arrays `name`.high and `name`.low of the distinct strings."""
    parts = [text_hashes(pa.array(part, pa.large_string())) for part in values]
    hashes = np.concatenate([np.empty((0, 2), np.uint64), *parts])
    hashes = hashes[sorted_order(hashes[:, 0], hashes[:, 1])]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
    return {f"{name}.high": hashes[new, 0], f"{name}.low": hashes[new, 1]}


def in_set(arrays: Mapping[str, np.ndarray], name: str, values: Sequence[str]) -> np.ndarray:
    """bool[n]: which strings are in a set of `make_set`; none where there is no such set."""
    return has_hashes(arrays, name, text_hashes(pa.array(values, pa.large_string())))


def has_hashes(arrays: Mapping[str, np.ndarray], name: str, hashes: np.ndarray) -> np.ndarray:
    """The same of the strings' hashes, uint64[n, 2]."""
    if f"{name}.high" not in arrays:
        return np.zeros(len(hashes), bool)
    return find(arrays[f"{name}.high"], arrays[f"{name}.low"], hashes) >= 0


def list_lines(path: str, *, comments: bool = True) -> Iterator[list[tuple[int, str]]]:
    """(line number from 1, entry) of a plain or gzip text file, some at a time.

    Blank lines are left out, and with `comments` what follows a # (at the start or after white space).
    BadModel where it is no UTF-8 text or has no entry.
    """
    part: list[tuple[int, str]] = []
    n_entries = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.endswith(".gz")
            else open(path, encoding="utf-8-sig") as file
        ):
            for number, line in enumerate(file, 1):
                entry = _uncommented(line) if comments and "#" in line else line.strip()
                if entry:
                    part.append((number, entry))
                    n_entries += 1
                if len(part) >= _LINES:
                    yield part
                    part = []
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise BadModel(f"{path}: not a whole text file in UTF-8: {error}") from None
    except OSError as error:
        raise BadModel(f"{path}: {error.strerror}") from None
    if not n_entries:
        raise BadModel(f"{path}: the list is empty")
    yield part


def listed_ids(path: str, id_column: str = "id") -> Iterator[list[str]]:
    """Ids of a list, some at a time: lines of a text file (or `.gz`), or a column of Parquet or JSONL.

    Lines lose the white space at their ends; a # is part of an id. BadModel where there is no such list or
    column, or a text file has no entry.
    """
    from dataselect.io.score_file import ScoreFile

    if not path.endswith(".parquet") and suffix_of(path) is None:
        for lines in list_lines(path, comments=False):
            yield [entry for _, entry in lines]
        return
    for part in ScoreFile(path, id_column, "label", ()).parts():
        yield part.values.drop_null().to_pylist()


def _uncommented(line: str) -> str:
    words = line.split()
    comment = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
    return " ".join(words[:comment])
