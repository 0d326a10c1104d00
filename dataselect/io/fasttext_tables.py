"""Turn a fastText model into the arrays that `kernels.fasttext` scores with: folded, or hidden vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataselect.io.fasttext_model import FastTextModel, read_header

_LOSS_NUMBERS = {"hs": 1, "ns": 2, "softmax": 3, "ova": 4}
_INTERNAL_NODE_COUNT = 10**15
"""Count that the library gives to nodes of the Huffman tree that are not there yet."""


def prepare(
    path: str | os.PathLike[str], labels: Sequence[str] | None = None, *, block_bytes: int = 8 << 20
) -> dict[str, np.ndarray]:
    """The arrays that `kernels.fasttext.score_texts` needs for the probabilities of `labels` (None: all).

    settings      int64[8]                    see `kernels.fasttext`
    slots         uint64[2**k, 2]             open-addressing table of the vocabulary
    word_starts   int64[n_words + n_labels + 1], word_bytes uint8[n]   the vocabulary itself
    word_n_rows   int32[n_words]              rows of the input matrix in a word's row of `table`; empty where
                                              that is always one (no character n-grams)
    kept          uint64[bucket / 64, 2]      of a pruned model: 64 bits of which buckets were kept, and how
                                              many were kept before them; else empty
    table         float32[n_rows, n_columns]  rows of words, then of (kept) buckets, padded with zero columns
    output        float64[dim, n_logits]      what the mean of rows is multiplied by; empty where it is folded
    label_starts  int64[n_labels + 1], label_nodes int32[n]   see `kernels.fasttext._probabilities`
    label_names   uint8[n]                    the labels asked for, each ended by NUL; see `label_names`

    The model is linear up to its logits, so the input matrix times the output matrix, made once, replaces
    both where there are fewer logits than dimensions: one float a row for two labels. A softmax depends on
    differences of logits only (n_labels - 1 of them), ova and ns on the logits of `labels`, hs on those of
    the tree's nodes above `labels`.

    The file is streamed through one buffer of `block_bytes`, on which no result depends. Products are float64
    in the order of the dimensions, rounded once.

    Raises BadModel as `read_header`, where a label is unknown, or where weights are NaN or infinite.
    """
    from dataselect.kernels import fasttext as kernel

    model = read_header(path)
    wanted = range(len(model.labels)) if labels is None else [model.label_index(name) for name in labels]
    outputs = _outputs(model, list(wanted))
    weights = _weights(model, outputs, block_bytes)
    is_folded = weights.shape[1] < model.dim
    kept, hashed_order = _kept_bitmap(model)
    table = _table(model, weights if is_folded else None, hashed_order, block_bytes)
    word_starts, word_bytes = model.words()
    slots = np.zeros((kernel.n_slots(word_starts.size - 1), 2), dtype=np.uint64)
    kernel.fill_slots(word_starts, word_bytes, slots)
    end_of_line = _find_end_of_line(word_starts, word_bytes)
    loss = _LOSS_NUMBERS[model.loss]
    sizes = [model.n_words, model.bucket, model.minn, model.maxn, model.word_ngrams]
    settings = np.array([*sizes, loss, end_of_line, weights.shape[1]], dtype=np.int64)
    word_n_rows = np.zeros(model.n_words if model.maxn else 0, dtype=np.int32)
    if model.maxn:
        kernel.add_subwords(word_starts, word_bytes, settings, kept, table, word_n_rows)
    names = "".join(name + "\0" for name in (model.labels if labels is None else labels)).encode()
    return {
        "settings": settings,
        "slots": slots,
        "word_starts": word_starts,
        "word_bytes": word_bytes,
        "word_n_rows": word_n_rows,
        "kept": kept,
        "table": table,
        "output": np.empty((0, 0)) if is_folded else weights,
        "label_starts": outputs.label_starts,
        "label_nodes": outputs.label_nodes,
        "label_names": np.frombuffer(names, dtype=np.uint8),
    }


def label_names(model: Mapping[str, np.ndarray]) -> list[str]:
    """Labels of the columns that `kernels.fasttext.score_texts` gives, as `prepare` was asked for them."""
    return model["label_names"].tobytes().decode().split("\0")[:-1]


@dataclass(frozen=True)
class _Outputs:
    """Which rows of the output matrix the logits are, and what each label is made of."""

    rows: np.ndarray
    """int64[n_logits], ascending."""
    minus: int | None
    """Row that is taken off each of them, or None."""
    label_starts: np.ndarray
    label_nodes: np.ndarray


def _outputs(model: FastTextModel, labels: list[int]) -> _Outputs:
    if model.loss == "softmax":
        rows = np.arange(1, len(model.labels), dtype=np.int64)
        return _Outputs(rows, 0, np.arange(len(labels) + 1), np.array(labels, dtype=np.int32))
    if model.loss == "hs":
        paths = huffman_paths(model.label_counts)
        nodes = [node for label in labels for node in paths[label]]
        starts = np.cumsum([0, *(len(paths[label]) for label in labels)], dtype=np.int64)
    else:
        nodes = [2 * label for label in labels]
        starts = np.arange(len(labels) + 1)
    rows, logit = np.unique(np.array(nodes, dtype=np.int64) >> 1, return_inverse=True)
    if model.loss == "hs":
        logit = 2 * logit + (np.array(nodes, dtype=np.int64) & 1)
    return _Outputs(rows, None, starts, logit.astype(np.int32))


def huffman_paths(counts: np.ndarray) -> list[list[int]]:
    """Path of each label from the root of the library's tree (`HierarchicalSoftmaxLoss::buildTree`).

    A path is a list of 2 * (row of the output matrix) + (1 where it goes right). `counts` int64[n_labels] as
    stored, which is descending; the tree is the library's for any order.
    """
    n = len(counts)
    count = [*map(int, counts), *[_INTERNAL_NODE_COUNT] * (n - 1)]
    parent = [-1] * (2 * n - 1)
    is_right = [False] * (2 * n - 1)
    leaf, node = n - 1, n
    for new in range(n, 2 * n - 1):
        children = []
        for _ in range(2):
            if leaf >= 0 and count[leaf] < count[node]:
                children.append(leaf)
                leaf -= 1
            else:
                children.append(node)
                node += 1
        count[new] = count[children[0]] + count[children[1]]
        for child, right in zip(children, (False, True), strict=True):
            parent[child], is_right[child] = new, right
    paths = []
    for label in range(n):
        path, at = [], label
        while parent[at] >= 0:
            path.append(2 * (parent[at] - n) + is_right[at])
            at = parent[at]
        paths.append(path[::-1])
    return paths


def _weights(model: FastTextModel, outputs: _Outputs, block_bytes: int) -> np.ndarray:
    """float64[dim, n_logits]: columns are the rows of the output matrix that the logits need."""
    weights = np.empty((model.dim, outputs.rows.size), dtype=np.float64)
    minus = np.zeros(model.dim)
    for begin, block in model.row_blocks(model.output, block_bytes):
        first, last = np.searchsorted(outputs.rows, [begin, begin + len(block)])
        weights[:, first:last] = block[outputs.rows[first:last] - begin].T
        if outputs.minus is not None and begin <= outputs.minus < begin + len(block):
            minus = block[outputs.minus - begin].astype(np.float64)
    weights -= minus[:, None]
    return weights


def _kept_bitmap(model: FastTextModel) -> tuple[np.ndarray, np.ndarray | None]:
    """(`kept` of `prepare`, rank of each hashed row's bucket among the kept ones int64[n] or None)."""
    if model.kept_buckets is None:
        return np.empty((0, 2), dtype=np.uint64), None
    order = np.argsort(model.kept_buckets)
    ascending = model.kept_buckets[order].astype(np.uint64)
    blocks = (ascending >> np.uint64(6)).astype(np.int64)
    kept = np.zeros((-(-model.bucket // 64), 2), dtype=np.uint64)
    np.bitwise_or.at(kept[:, 0], blocks, np.uint64(1) << (ascending & np.uint64(63)))
    in_block = np.bincount(blocks, minlength=len(kept))
    kept[:, 1] = np.cumsum(in_block) - in_block
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    return kept, rank


def _table(
    model: FastTextModel, weights: np.ndarray | None, hashed_order: np.ndarray | None, block_bytes: int
) -> np.ndarray:
    """float32[n_rows, n_columns]: the input matrix, times `weights` where given; hashed rows reordered."""
    from dataselect.kernels import fasttext as kernel

    n_columns = model.dim if weights is None else weights.shape[1]
    table = np.zeros((model.input.n_rows, kernel.n_padded_columns(n_columns)), dtype=np.float32)
    for begin, block in model.row_blocks(model.input, block_bytes):
        if weights is None:
            rows = block
        else:
            rows = np.empty((len(block), n_columns), dtype=np.float32)
            kernel.fold_rows(block, weights, rows)
        places: slice | np.ndarray = slice(begin, begin + len(block))
        if hashed_order is not None:
            numbers = np.arange(begin, begin + len(block))
            is_hashed = numbers >= model.n_words
            numbers[is_hashed] = model.n_words + hashed_order[numbers[is_hashed] - model.n_words]
            places = numbers
        table[places, :n_columns] = rows
    return table


def _find_end_of_line(word_starts: np.ndarray, word_bytes: np.ndarray) -> int:
    """Entry of the token `</s>`, or -1; it is a word of every model but those with a high minCount."""
    entries = np.flatnonzero(np.diff(word_starts) == 4)
    found = entries[(word_bytes[word_starts[entries][:, None] + np.arange(4)] == list(b"</s>")).all(axis=1)]
    return int(found[0]) if found.size else -1
