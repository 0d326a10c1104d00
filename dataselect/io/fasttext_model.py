"""Read supervised fastText models (`.bin`) and fold them for scoring, without the fasttext package.

The layout is that of fastText 0.9 (`FastText::loadModel`, `Dictionary::load`, `DenseMatrix::load`),
little-endian and packed: magic and version, 12 int32 arguments and a float64, the dictionary (NUL-terminated
bytes, int64 count, int8 type; words first, then labels), a quantisation flag, the input matrix (vocabulary
rows, then `bucket` hashed rows), a second flag, and the output matrix (one row a label).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataselect.core.errors import BadModel

MAGIC = 793712314
SUPPORTED_VERSIONS = (11, 12)
LABEL_PREFIX = "__label__"

_LOSSES = {1: "hs (hierarchical softmax)", 2: "ns (negative sampling)", 3: "softmax", 4: "ova (one-vs-all)"}
_SOFTMAX = 3
_SUPERVISED = 3
_ARGS = struct.Struct("<12id")
_ARG_NAMES = (
    "dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model", "bucket", "minn", "maxn",
    "lr_update_rate", "t",
)  # fmt: skip
_DICTIONARY = struct.Struct("<3i2q")
_SHAPE = struct.Struct("<2q")
_ENTRY_TAIL_BYTES = 10  # NUL, int64 count, int8 type
_READ_BYTES = 1 << 20
# A "word" is any run of bytes without a separator; far above any real one, so that garbage is not read to its
# end.
_MAX_WORD_BYTES = 16 << 20
# The library sets no limit; above this the number is garbage, and every word would make as many n-grams.
_MAX_WORD_NGRAMS = 255


@dataclass(frozen=True, eq=False)
class FastTextModel:
    """Header and dictionary of a supervised softmax model; the matrices stay in the file.

    entries        uint8[n]            the dictionary as stored: bytes, NUL, count, type for each entry
    entry_offsets  int64[n_words + n_labels + 1]  entry i is entries[entry_offsets[i]:entry_offsets[i + 1]]
    labels         without the `__label__` prefix, in the order of the output matrix
    label_counts   int64[n_labels]     training lines of each label
    input_offset, output_offset        where the first float32 of each matrix is, in bytes from the file's
    start
    """

    path: Path
    args: dict[str, int | float]
    entries: np.ndarray
    entry_offsets: np.ndarray
    labels: list[str]
    label_counts: np.ndarray
    n_words: int
    n_rows: int
    dim: int
    loss: str
    bucket: int
    minn: int
    maxn: int
    word_ngrams: int
    input_offset: int
    output_offset: int

    def label_index(self, label: str) -> int:
        """Row of `label` (with or without its prefix) in the output matrix; BadModel lists what there is."""
        wanted = label.removeprefix(LABEL_PREFIX)
        if wanted in self.labels:
            return self.labels.index(wanted)
        nearest = sorted(self.labels, key=lambda name: (-SequenceMatcher(None, wanted, name).ratio(), name))
        listed = ", ".join(repr(name) for name in nearest[:10])
        rest = f" and {len(nearest) - 10} more" if len(nearest) > 10 else ""
        raise BadModel(f"{self.path}: the model has no label {wanted!r}; its labels are {listed}{rest}")

    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of all entries back to back: (starts int64[n_entries + 1], bytes uint8[n])."""
        is_word_byte = np.ones(self.entries.size, dtype=np.bool_)
        for distance in range(1, _ENTRY_TAIL_BYTES + 1):
            is_word_byte[self.entry_offsets[1:] - distance] = False
        starts = self.entry_offsets - _ENTRY_TAIL_BYTES * np.arange(self.entry_offsets.size)
        return starts, self.entries[is_word_byte]


class _File:
    """A model file that knows its name and size, so that every short read is the same clear error."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.n_bytes = os.fstat(file.fileno()).st_size

    def truncated(self) -> BadModel:
        return BadModel(
            f"{self.path}: the fastText model is truncated or damaged ({self.n_bytes} bytes); copy it again"
        )

    def unpack(self, layout: struct.Struct) -> tuple[int | float, ...]:
        raw = self.file.read(layout.size)
        if len(raw) < layout.size:
            raise self.truncated()
        return layout.unpack(raw)


def read_header(path: str | os.PathLike[str]) -> FastTextModel:
    """Read and check everything but the matrices of the model at `path`.

    Memory is that of the dictionary (about 20 bytes a word), whatever the size of the matrices.

    Raises BadModel where the file is missing, no fastText model, of another version, unsupervised, of another
    loss than softmax, quantised (`.ftz`), or truncated.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read_header(_File(file, path))
    except OSError as error:
        raise BadModel(f"{path}: the fastText model can't be read: {error.strerror or error}") from error


def _read_header(file: _File) -> FastTextModel:
    args = _read_args(file)
    dim, bucket = int(args["dim"]), int(args["bucket"])
    n_entries, n_words, n_labels, _n_tokens, n_pruned = (int(value) for value in file.unpack(_DICTIONARY))
    longest = file.n_bytes // _ENTRY_TAIL_BYTES
    if min(n_words, n_labels - 1) < 0 or not n_words + n_labels == n_entries <= longest or n_pruned < -1:
        raise file.truncated()
    entries, offsets = _read_entries(file, n_entries)
    types = entries[offsets[1:] - 1]
    if types[:n_words].any() or (types[n_words:] != 1).any():
        raise file.truncated()
    # A pruned dictionary is only written by the quantiser.
    if file.unpack(struct.Struct("<?"))[0] or n_pruned >= 0:
        raise BadModel(f"{file.path}: quantised fastText models (.ftz) are not supported yet; use their .bin")
    if n_labels == 1:
        raise BadModel(
            f"{file.path}: the model has one label only, so every text would score 1; train it with two"
        )
    input_offset = _skip_matrix(file, n_words + bucket, dim)
    if file.unpack(struct.Struct("<?"))[0]:
        raise file.truncated()
    output_offset = _skip_matrix(file, n_labels, dim)
    label_offsets = offsets[n_words:]
    labels = [
        entries[start : end - _ENTRY_TAIL_BYTES].tobytes().decode("utf-8", "surrogateescape")
        for start, end in pairwise(label_offsets)
    ]
    count_bytes = entries[label_offsets[1:, None] + np.arange(-9, -1)]
    return FastTextModel(
        path=file.path,
        args=args,
        entries=entries,
        entry_offsets=offsets,
        labels=[label.removeprefix(LABEL_PREFIX) for label in labels],
        label_counts=np.ascontiguousarray(count_bytes).view("<i8").ravel(),
        n_words=n_words,
        n_rows=n_words + bucket,
        dim=dim,
        loss="softmax",
        bucket=bucket,
        minn=int(args["minn"]),
        maxn=int(args["maxn"]),
        word_ngrams=int(args["word_ngrams"]),
        input_offset=input_offset,
        output_offset=output_offset,
    )


def _read_args(file: _File) -> dict[str, int | float]:
    head = file.file.read(8)
    if len(head) < 8 or struct.unpack("<i", head[:4])[0] != MAGIC:
        raise BadModel(f"{file.path}: not a fastText model (it should begin with the fastText signature)")
    version = struct.unpack("<i", head[4:])[0]
    if version not in SUPPORTED_VERSIONS:
        raise BadModel(
            f"{file.path}: fastText model version {version} is not supported; versions 11 and 12 are"
        )
    args = dict(zip(_ARG_NAMES, file.unpack(_ARGS), strict=True))
    if args["model"] != _SUPERVISED:
        raise BadModel(
            f"{file.path}: the fastText model holds word vectors; train one with `supervised` instead"
        )
    if args["loss"] != _SOFTMAX:
        loss = _LOSSES.get(int(args["loss"]), f"number {args['loss']}")
        raise BadModel(f"{file.path}: loss {loss} is not supported; train the model with loss softmax")
    if version == 11:
        args["maxn"] = 0  # the library's own rule: version 11 classifiers never used character n-grams
    uses_buckets = args["word_ngrams"] > 1 or args["maxn"] > 0
    if (
        args["dim"] < 1
        or not 0 <= args["word_ngrams"] <= _MAX_WORD_NGRAMS
        or args["bucket"] < 0
        or (uses_buckets and args["bucket"] == 0)
    ):
        raise file.truncated()
    return args


def _read_entries(file: _File, n_entries: int) -> tuple[np.ndarray, np.ndarray]:
    """The dictionary's bytes and the offsets of its entries; leaves the file just behind it."""
    begin = file.file.tell()
    offsets = np.zeros(n_entries + 1, dtype=np.int64)
    raw = bytearray()
    position = 0
    for index in range(n_entries):
        nul = raw.find(0, position)
        while nul < 0 or nul + _ENTRY_TAIL_BYTES > len(raw):
            block = file.file.read(_READ_BYTES)
            if not block or len(raw) - position > _MAX_WORD_BYTES:
                raise file.truncated()
            raw += block
            nul = raw.find(0, position)
        position = nul + _ENTRY_TAIL_BYTES
        offsets[index + 1] = position
    del raw[position:]
    file.file.seek(begin + position)
    return np.frombuffer(raw, dtype=np.uint8), offsets


def _skip_matrix(file: _File, n_rows: int, n_columns: int) -> int:
    """Check a dense float32 matrix's shape against the header; return where its values begin."""
    stored = file.unpack(_SHAPE)
    begin = file.file.tell()
    end = begin + 4 * n_rows * n_columns
    if stored != (n_rows, n_columns) or end > file.n_bytes:
        raise file.truncated()
    file.file.seek(end)
    return begin


def prepare(path: str | os.PathLike[str], label: str) -> dict[str, np.ndarray]:
    """Fold the model at `path` into the arrays that `kernels.fasttext.score_texts` needs for `label`.

    settings     int64[7]                     see `kernels.fasttext`
    slots        uint64[2**k, 2]              open-addressing table of the vocabulary
    word_starts  int64[n_words + n_labels + 1], word_bytes uint8[n]   the vocabulary itself
    table        float32[n_rows, n_labels - 1]   see `fold`

    Raises BadModel as `read_header`, and where the label is unknown or the matrices hold NaN or infinity.
    """
    from dataselect.kernels import fasttext as kernel

    model = read_header(path)
    label_row = model.label_index(label)
    word_starts, word_bytes = model.words()
    slots = np.zeros((kernel.n_slots(word_starts.size - 1), 2), dtype=np.uint64)
    kernel.fill_slots(word_starts, word_bytes, slots)
    return {
        "settings": np.array(
            [
                model.n_words,
                model.bucket,
                model.minn,
                model.maxn,
                model.word_ngrams,
                len(model.labels),
                _find_end_of_line(word_starts, word_bytes),
            ],
            dtype=np.int64,
        ),
        "slots": slots,
        "word_starts": word_starts,
        "word_bytes": word_bytes,
        "table": fold(model, label_row),
    }


def _find_end_of_line(word_starts: np.ndarray, word_bytes: np.ndarray) -> int:
    """Entry of the token `</s>`, or -1; it is a word of every model but those with a high minCount."""
    entries = np.flatnonzero(np.diff(word_starts) == 4)
    found = entries[(word_bytes[word_starts[entries][:, None] + np.arange(4)] == list(b"</s>")).all(axis=1)]
    return int(found[0]) if found.size else -1


def fold(model: FastTextModel, label_row: int, *, block_bytes: int = 8 << 20) -> np.ndarray:
    """Reduce every input row to its share of the logits: float32[n_rows, n_labels - 1].

    The model is linear up to the softmax, and a softmax depends on differences of logits only. So column j of
    row r is input[r] . (output[other_j] - output[label]), where other_j runs over the labels without `label`,
    in order: one float a row for two labels. Dot products are float64 in the order of the dimensions, rounded
    once, so the result does not depend on `block_bytes`, the size of the one buffer the matrix is read
    through.
    """
    from dataselect.kernels import fasttext as kernel

    with model.path.open("rb") as file:
        output = np.empty((len(model.labels), model.dim), dtype="<f4")
        _read_matrix(file, model, model.output_offset, output)
        weights = np.delete(
            output.astype(np.float64) - output[label_row].astype(np.float64), label_row, axis=0
        )
        table = np.empty((model.n_rows, len(weights)), dtype=np.float32)
        n_block_rows = max(1, block_bytes // (4 * model.dim))
        buffer = np.empty((min(n_block_rows, model.n_rows), model.dim), dtype="<f4")
        for begin in range(0, model.n_rows, n_block_rows):
            block = buffer[: model.n_rows - begin]
            _read_matrix(file, model, model.input_offset + 4 * begin * model.dim, block)
            folded = table[begin : begin + n_block_rows]
            kernel.fold_rows(block, weights, folded)
            if not np.isfinite(folded).all():
                raise BadModel(
                    f"{model.path}: the fastText model holds NaN or infinite weights; train it again"
                )
    return table


def _read_matrix(file: BinaryIO, model: FastTextModel, offset: int, out: np.ndarray) -> None:
    # readinto, not a memory map: mapped pages of a 1 GB matrix would count as the worker's resident memory.
    file.seek(offset)
    if file.readinto(out.reshape(-1).view(np.uint8)) != out.nbytes:  # type: ignore[attr-defined]
        raise BadModel(f"{model.path}: the fastText model became shorter while it was read")
