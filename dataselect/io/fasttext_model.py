"""Read supervised fastText models (`.bin` and `.ftz`) without the fasttext package.

The layout is that of fastText 0.9 (`FastText::loadModel`, `Dictionary::load`, `DenseMatrix::load`,
`QuantMatrix::load`, `ProductQuantizer::load`), little-endian and packed: magic and version, 12 int32
arguments and a float64, the dictionary (NUL-terminated bytes, int64 count, int8 type; words first, then
labels; then pairs of int32 where it is pruned), a quantisation flag, the input matrix (vocabulary rows, then
hashed rows), a second flag, and the output matrix (one row a label). The content says what a file is, not its
name.

No number of the file is trusted before it is compared with the file's length.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataselect.core.errors import BadModel
from dataselect.io.local_copies import local_file

MAGIC = 793712314
SUPPORTED_VERSIONS = (11, 12)
LABEL_PREFIX = "__label__"
LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}

_SUPERVISED = 3
_ARGS = struct.Struct("<12id")
_ARG_NAMES = (
    "dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model", "bucket", "minn", "maxn",
    "lr_update_rate", "t",
)  # fmt: skip
_DICTIONARY = struct.Struct("<3i2q")
_SHAPE = struct.Struct("<2q")
_CODE_SIZE = struct.Struct("<i")
_QUANTISER = struct.Struct("<4i")
_FLAG = struct.Struct("<B")
_N_CENTROIDS = 256
_ENTRY_TAIL_BYTES = 10  # NUL, int64 count, int8 type
_READ_BYTES = 1 << 20
# A "word" is any run of bytes without a separator; far above any real one, so that garbage is not read to its
# end.
_MAX_WORD_BYTES = 16 << 20
# The library sets no limits; above these a number is garbage, and every word would make as many n-grams.
_MAX_WORD_NGRAMS = 255
_MAX_CHAR_NGRAM = 255
# The library's Huffman tree takes larger counts for nodes that are not there.
_MAX_LABEL_COUNT = 10**15
# The bitmap of a pruned dictionary has 16 bytes for 64 buckets; nothing in the file bounds the buckets.
_MIN_ALLOWED_BITMAP_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Matrix:
    """Where a matrix is in the file, dense or product-quantised (Jegou et al. 2011, as fastText stores it).

    offset          first float32 of a dense matrix, first code of a quantised one, in bytes from the start
    centroids       float32[dim * 256] or None where the matrix is dense; see `kernels.fasttext.dequantise`
    dsub            dimensions of a centroid
    norms_offset    first norm code, or None where rows have no norms
    norm_centroids  float32[256] or None
    """

    n_rows: int
    dim: int
    offset: int
    centroids: np.ndarray | None = None
    dsub: int = 1
    norms_offset: int | None = None
    norm_centroids: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class FastTextModel:
    """Header and dictionary of a supervised model; the matrices stay in the file.

    entries        uint8[n]            the dictionary as stored: bytes, NUL, count, type for each entry
    entry_offsets  int64[n_words + n_labels + 1]  entry i is entries[entry_offsets[i]:entry_offsets[i + 1]]
    labels         without the `__label__` prefix, in the order of the output matrix
    label_counts   int64[n_labels]     training lines of each label
    loss           softmax, ova, ns or hs
    bucket         hashed rows that n-grams are counted into; 0 where there are none
    kept_buckets   int32[n] or None    bucket of each hashed row of a pruned model; None: all, in order
    """

    path: Path
    args: dict[str, int | float]
    entries: np.ndarray
    entry_offsets: np.ndarray
    labels: list[str]
    label_counts: np.ndarray
    n_words: int
    dim: int
    loss: str
    bucket: int
    minn: int
    maxn: int
    word_ngrams: int
    kept_buckets: np.ndarray | None
    input: Matrix
    output: Matrix

    def label_index(self, label: str) -> int:
        """Row of `label` (with or without its prefix) in the output matrix; BadModel lists what there is."""
        for wanted in (label, label.removeprefix(LABEL_PREFIX)):
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

    def row_blocks(self, matrix: Matrix, block_bytes: int = 8 << 20) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows float32[n, dim]) of the input or output matrix in order, in one reused buffer.

        BadModel where the file became shorter, or weights are NaN or infinite.
        """
        from dataselect.kernels.fasttext import dequantise

        n_block_rows = max(1, block_bytes // (4 * matrix.dim))
        buffer = np.empty((min(n_block_rows, matrix.n_rows), matrix.dim), dtype="<f4")
        with self.path.open("rb") as file:
            for begin in range(0, matrix.n_rows, n_block_rows):
                block = buffer[: matrix.n_rows - begin]
                if matrix.centroids is None:
                    self._read(file, matrix.offset + 4 * begin * matrix.dim, block)
                else:
                    codes = np.empty((len(block), -(-matrix.dim // matrix.dsub)), dtype=np.uint8)
                    self._read(file, matrix.offset + begin * codes.shape[1], codes)
                    dequantise(
                        codes,
                        matrix.centroids,
                        matrix.dsub,
                        self._norms(file, matrix, begin, len(block)),
                        block,
                    )
                if not np.isfinite(block).all():
                    raise BadModel(
                        f"{self.path}: the fastText model holds NaN or infinite weights; train it again"
                    )
                yield begin, block

    def _norms(self, file: BinaryIO, matrix: Matrix, begin: int, n_rows: int) -> np.ndarray:
        """float32[n_rows]: what each quantised row is multiplied by."""
        if matrix.norms_offset is None or matrix.norm_centroids is None:
            return np.ones(n_rows, dtype=np.float32)
        codes = np.empty(n_rows, dtype=np.uint8)
        self._read(file, matrix.norms_offset + begin, codes)
        return matrix.norm_centroids[codes]

    def _read(self, file: BinaryIO, offset: int, out: np.ndarray) -> None:
        # readinto, not a memory map: mapped pages of a 1 GB matrix would count as the worker's resident
        # memory.
        file.seek(offset)
        if file.readinto(out.reshape(-1).view(np.uint8)) != out.nbytes:  # type: ignore[attr-defined]
            raise BadModel(f"{self.path}: the fastText model became shorter while it was read")


class _File:
    """A model file that knows its name and size, so that every short read is the same clear error."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.n_bytes = os.fstat(file.fileno()).st_size

    def damaged(self, what: str) -> BadModel:
        return BadModel(
            f"{self.path}: the fastText model is truncated or damaged ({what}; the file has {self.n_bytes} "
            "bytes); copy it again"
        )

    def unpack(self, layout: struct.Struct, what: str) -> tuple[int | float, ...]:
        raw = self.file.read(layout.size)
        if len(raw) < layout.size:
            raise self.damaged(f"it ends inside {what}")
        return layout.unpack(raw)

    def unpack_flag(self, what: str) -> bool:
        (value,) = self.unpack(_FLAG, what)
        if value > 1:
            raise self.damaged(f"{what} is {value}, not 0 or 1")
        return bool(value)

    def skip(self, n_bytes: int, what: str) -> int:
        """Step over `n_bytes` that must be there; returns where they begin."""
        begin = self.file.tell()
        if begin + n_bytes > self.n_bytes:
            raise self.damaged(f"{what} should have {n_bytes} bytes, {self.n_bytes - begin} are left")
        self.file.seek(begin + n_bytes)
        return begin

    def array(self, dtype: str, n: int, what: str) -> np.ndarray:
        """`n` values, allocated once they are known to be in the file."""
        begin = self.skip(n * np.dtype(dtype).itemsize, what)
        out = np.empty(n, dtype=dtype)
        self.file.seek(begin)
        self.file.readinto(out.view(np.uint8))  # type: ignore[attr-defined]
        return out


def read_header(path: str | os.PathLike[str]) -> FastTextModel:
    """Read and check everything but the matrices' values of the model at `path`.

    Memory is that of the dictionary (about 20 bytes a word), whatever the size of the matrices. The last
    models are remembered as long as the files' size and time stay.

    Raises BadModel where the file is missing, no fastText model, of another version, holds word vectors
    (cbow, skipgram), is truncated, longer than it says, or contradicts itself. Of a URL this machine's copy
    is read (`io.local_copies`).
    """
    try:
        local = local_file(os.fspath(path))
        stat = local.stat()
        return _read_header_of(local, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadModel(f"{path}: the fastText model can't be read: {error.strerror or error}") from error
    except BadModel as error:  # of a copy the reader knows another name
        raise BadModel(str(error).replace(str(local), os.fspath(path))) from error


@lru_cache(maxsize=4)
def _read_header_of(path: Path, _n_bytes: int, _mtime_ns: int) -> FastTextModel:
    with path.open("rb") as file:
        return _read_header(_File(file, path))


def _read_header(file: _File) -> FastTextModel:
    args = _read_args(file)
    dim, bucket = int(args["dim"]), int(args["bucket"])
    n_entries, n_words, n_labels, _n_tokens, n_pruned = (
        int(value) for value in file.unpack(_DICTIONARY, "the dictionary's sizes")
    )
    if min(n_words, n_labels - 1) < 0 or n_words + n_labels != n_entries or n_pruned < -1:
        raise file.damaged(f"{n_words} words and {n_labels} labels among {n_entries} entries")
    if max(n_entries * _ENTRY_TAIL_BYTES, n_pruned * 8) > file.n_bytes:
        raise file.damaged(f"{n_entries} entries and {n_pruned} kept buckets do not fit into it")
    entries, offsets = _read_entries(file, n_entries)
    if n_labels == 1 and LOSSES[int(args["loss"])] in ("softmax", "hs"):
        raise BadModel(
            f"{file.path}: the model has one label only, so every text would score 1; train it with two"
        )
    types = entries[offsets[1:] - 1]
    if types[:n_words].any() or (types[n_words:] != 1).any():
        raise file.damaged("its words and labels are not in order")
    kept_buckets = None if n_pruned < 0 else _read_kept_buckets(file, n_pruned, bucket)
    quantised_input = file.unpack_flag("the input matrix's flag")
    if kept_buckets is not None and not quantised_input:
        raise file.damaged("its dictionary is pruned but its input matrix is not quantised")
    n_hashed = bucket if kept_buckets is None else n_pruned
    input_matrix = _read_matrix(file, "input", n_words + n_hashed, dim, quantised=quantised_input)
    quantised_output = file.unpack_flag("the output matrix's flag") and quantised_input
    output_matrix = _read_matrix(file, "output", n_labels, dim, quantised=quantised_output)
    if (n_left := file.n_bytes - file.file.tell()) > 0:
        raise file.damaged(f"{n_left} bytes follow its end")
    label_offsets = offsets[n_words:]
    count_bytes = entries[label_offsets[1:, None] + np.arange(-9, -1)]
    # Without hashed rows n-grams have nothing to look up, so none are made.
    has_hashed = n_hashed > 0
    label_counts = np.ascontiguousarray(count_bytes).view("<i8").ravel()
    if label_counts.min() < 0 or label_counts.max() >= _MAX_LABEL_COUNT:
        raise file.damaged(f"a label has {label_counts.max()} training lines")
    return FastTextModel(
        path=file.path,
        args=args,
        entries=entries,
        entry_offsets=offsets,
        labels=_label_names(entries, label_offsets),
        label_counts=label_counts,
        n_words=n_words,
        dim=dim,
        loss=LOSSES[int(args["loss"])],
        bucket=bucket if has_hashed else 0,
        minn=int(args["minn"]) if has_hashed else 0,
        maxn=int(args["maxn"]) if has_hashed else 0,
        word_ngrams=max(int(args["word_ngrams"]), 1) if has_hashed else 1,
        kept_buckets=kept_buckets if has_hashed else None,
        input=input_matrix,
        output=output_matrix,
    )


def _label_names(entries: np.ndarray, offsets: np.ndarray) -> list[str]:
    """Labels without their prefix, but as they are stored where two would then be equal."""
    stored = [
        entries[start : end - _ENTRY_TAIL_BYTES].tobytes().decode("utf-8", "backslashreplace")
        for start, end in pairwise(offsets)
    ]
    bare = [label.removeprefix(LABEL_PREFIX) for label in stored]
    return bare if len(set(bare)) == len(bare) else stored


def _read_args(file: _File) -> dict[str, int | float]:
    head = file.file.read(8)
    if len(head) < 8 or struct.unpack("<i", head[:4])[0] != MAGIC:
        raise BadModel(f"{file.path}: not a fastText model (it should begin with the fastText signature)")
    version = struct.unpack("<i", head[4:])[0]
    if version not in SUPPORTED_VERSIONS:
        raise BadModel(
            f"{file.path}: fastText model version {version} is not supported; versions 11 and 12 are"
        )
    args = dict(zip(_ARG_NAMES, file.unpack(_ARGS, "its arguments"), strict=True))
    if args["model"] in (1, 2):
        raise BadModel(
            f"{file.path}: the fastText model holds word vectors; train one with `supervised` instead"
        )
    if version == 11:
        args["maxn"] = 0  # the library's own rule: version 11 classifiers never used character n-grams
    uses_buckets = args["word_ngrams"] > 1 or args["maxn"] > 0
    wrong = {
        "dim": args["dim"] < 1,
        "loss": args["loss"] not in LOSSES,
        "model": args["model"] != _SUPERVISED,
        "word_ngrams": not 0 <= args["word_ngrams"] <= _MAX_WORD_NGRAMS,
        "minn": not 0 <= args["minn"] <= _MAX_CHAR_NGRAM,
        "maxn": not 0 <= args["maxn"] <= _MAX_CHAR_NGRAM,
        "bucket": args["bucket"] < 0 or (uses_buckets and args["bucket"] == 0),
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise file.damaged(f"{name} is {args[name]}")
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
                raise file.damaged("it ends inside its dictionary")
            raw += block
            nul = raw.find(0, position)
        position = nul + _ENTRY_TAIL_BYTES
        offsets[index + 1] = position
    del raw[position:]
    file.file.seek(begin + position)
    return np.frombuffer(raw, dtype=np.uint8), offsets


def _read_kept_buckets(file: _File, n_pruned: int, bucket: int) -> np.ndarray:
    """int32[n_pruned]: bucket of each hashed row of a pruned model."""
    if bucket // 4 > max(_MIN_ALLOWED_BITMAP_BYTES, file.n_bytes):
        raise file.damaged(f"bucket is {bucket}")
    pairs = file.array("<i4", 2 * n_pruned, "the list of kept buckets").reshape(n_pruned, 2)
    buckets, rows = pairs[:, 0], pairs[:, 1]
    # The quantiser numbers the rows 0, 1, ... and stores the pairs in the order of a hash table.
    by_row = buckets[np.argsort(rows, kind="stable")]
    is_numbering = np.array_equal(np.sort(rows), np.arange(n_pruned))
    if not is_numbering or ((buckets < 0) | (buckets >= bucket)).any() or np.unique(buckets).size < n_pruned:
        raise file.damaged("its list of kept buckets contradicts itself")
    return by_row


def _read_matrix(file: _File, name: str, n_rows: int, dim: int, *, quantised: bool) -> Matrix:
    """Check a matrix against the header and the file's length; steps over its values."""
    name = f"the {name} matrix"
    has_norms = file.unpack_flag(f"the flag of norms of {name}") if quantised else False
    shape = file.unpack(_SHAPE, f"the shape of {name}")
    if shape != (n_rows, dim):
        raise file.damaged(f"{name} is {shape[0]} x {shape[1]}, the header says {n_rows} x {dim}")
    if not quantised:
        return Matrix(n_rows, dim, file.skip(4 * n_rows * dim, name))
    (n_codes,) = file.unpack(_CODE_SIZE, f"the number of codes of {name}")
    offset = file.skip(max(int(n_codes), 0), f"the codes of {name}")
    dsub, centroids = _read_quantiser(file, name, dim)
    if n_codes != n_rows * -(-dim // dsub):
        raise file.damaged(f"{name} has {n_codes} codes for {n_rows} rows")
    if not has_norms:
        return Matrix(n_rows, dim, offset, centroids, dsub)
    norms_offset = file.skip(n_rows, f"the norms of {name}")
    _, norm_centroids = _read_quantiser(file, f"the norms of {name}", 1)
    return Matrix(n_rows, dim, offset, centroids, dsub, norms_offset, norm_centroids)


def _read_quantiser(file: _File, name: str, dim: int) -> tuple[int, np.ndarray]:
    """(dimensions of a centroid, centroids float32[dim * 256]) of a product quantiser."""
    stored_dim, n_sub, dsub, last = (int(v) for v in file.unpack(_QUANTISER, f"the quantiser of {name}"))
    if stored_dim != dim or dsub < 1 or n_sub != -(-dim // dsub) or last != dim - (n_sub - 1) * dsub:
        raise file.damaged(f"the quantiser of {name} has {n_sub} x {dsub} dimensions for {dim}")
    return dsub, file.array("<f4", dim * _N_CENTROIDS, f"the centroids of {name}")
