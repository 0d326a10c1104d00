"""Names of clusters of duplicates: connected components, whoever of them survives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from dataselect.engine.docs import Docs, unpacked
from dataselect.engine.survivors import Edges


def cluster_names(docs: Docs, n_segments: int, edges: Iterable[Edges]) -> list[pa.Array]:
    """For every segment string[n_rows]: the least text hash of each document's component, in hex.

    A function of the texts alone; old documents (of the segment after these) connect but give no names.
    12 bytes a document of memory.
    """
    from dataselect.kernels.groups import connect, find_roots

    root = np.arange(docs.n_docs, dtype=np.uint32)
    for pairs, _, _ in edges:
        worse, better = unpacked(pairs)
        connect(better, worse, root)
    find_roots(root)
    least = np.full(docs.n_docs, np.iinfo(np.uint64).max, np.uint64)
    numbers = [np.arange(docs.first_docs[k], docs.first_docs[k + 1]) for k in range(n_segments)]
    for of_segment in numbers:
        np.minimum.at(least, root[docs.ranks(of_segment)], docs.text_hashes(of_segment))
    return [_in_hex(least[root[docs.ranks(of_segment)]]) for of_segment in numbers]


def _in_hex(values: np.ndarray) -> pa.Array:
    offsets = pa.py_buffer(np.arange(0, 16 * len(values) + 1, 16, dtype=np.int64))
    data = pa.py_buffer(values.astype(">u8").tobytes().hex().encode())
    return pa.Array.from_buffers(pa.large_string(), len(values), [None, offsets, data])
