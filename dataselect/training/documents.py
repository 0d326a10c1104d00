"""Labelled documents of shards as lines in one file and a few numbers for each in memory (70 bytes)."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import ValidationError

from dataselect.core.errors import BadShard, DataselectError, RecipeError
from dataselect.core.listener import Listener
from dataselect.core.pieces import SUFFIXES, Piece, Shard, suffix_of
from dataselect.io.batch import TextBatch
from dataselect.io.reader import ReadSpec, ShardSource, iter_piece
from dataselect.planning.preflight import check_columns
from dataselect.planning.recipe import InputSpec, OutputSpec
from dataselect.planning.shards import list_shards
from dataselect.training.lines import label_name, training_line
from dataselect.training.spec import TrainSpec

MAX_LABELS = 10_000
"""More different values are ids or texts, not labels."""
_FEW_LABELS = 20
SPLIT, CHOICE, ORDER = 0, 1, 2
"""Columns of Documents.keys: what is held out and in which fold; what balancing takes; the order."""
_KEY_BYTES = 24
_NO_OUTPUT = OutputSpec.model_validate({"folder": "."})


@dataclass
class InputShard:
    """A shard, what its documents are, and what became of its rows."""

    shard: Shard
    label: str | None
    """None where a column tells."""
    n_rows: int = 0
    n_docs: int = 0
    n_empty: int = 0
    """Rows whose text has no token."""
    n_unlabelled: int = 0
    """Rows without a label, or without a number as score."""
    bad: Counter[str] = field(default_factory=Counter)
    """Rows refused by the reader, by reason."""


@dataclass(frozen=True)
class Documents:
    """The documents that have a token and a label (or a score), in the order of shards and rows.

    lines    file of the n_docs normalised texts, each with a newline
    offsets  int64[n_docs + 1]   line i is bytes offsets[i]:offsets[i + 1]
    keys     uint64[n_docs, 3]   hashes of seed and normalised text: equal texts have equal keys
    label    int32[n_docs]       index into `labels`
    score    float64[n_docs]     empty where there is no score column
    shard    int32[n_docs], row int64[n_docs]  where it was read: index into `inputs`, physical row
    labels   sorted; renamed: given label by name, where it had to be changed to be one token
    """

    lines: Path
    offsets: np.ndarray
    keys: np.ndarray
    label: np.ndarray
    score: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    labels: list[str]
    renamed: dict[str, str]
    inputs: list[InputShard]

    def __len__(self) -> int:
        return len(self.label)

    @contextmanager
    def open_lines(self) -> Iterator[mmap.mmap | bytes]:
        """The bytes of all lines."""
        if not self.offsets[-1]:
            yield b""
            return
        with self.lines.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def list_inputs(spec: TrainSpec) -> list[InputShard]:
    """All shards, with the label that --positive or --negative gives them. RecipeError, BadShard."""
    given = [
        ("--positive", spec.positive, spec.positive_label or "hq"),
        ("--negative", spec.negative, spec.negative_label),
        ("--shards", spec.shards, None),
    ]
    inputs: list[InputShard] = []
    option_of: dict[str, str] = {}
    for option, patterns, label in given:
        if not patterns:
            continue
        with _in_words_of(spec, option):
            # Stores know no working folder.
            shards = list_shards([p if "://" in p else os.path.abspath(p) for p in patterns])
            check_columns(shards, _input_spec(spec, patterns, column=None), _NO_OUTPUT)
        for shard in shards:
            if option_of.setdefault(shard.url, option) != option:
                raise RecipeError(f"{shard.url} is matched by --positive and by --negative")
            inputs.append(InputShard(shard, None if label is None else label_name(label)))
    return inputs


def read_documents(
    spec: TrainSpec, inputs: list[InputShard], lines: Path, listener: Listener | None = None
) -> Documents:
    """Read all shards, write `lines`; fills in the counts of `inputs`.

    Raises BadShard where a shard can't be read to its end, DataselectError where more rows are bad than
    max_bad_rows allows, or where no row has a label.
    """
    column = spec.label_column or spec.score_column
    read_spec = ReadSpec(spec.text, column, 64 << 20, 1 << 62, 16_384)
    hear = listener or Listener()
    hear.phase("read", len(inputs), len(inputs), sum(item.shard.size for item in inputs))
    with lines.open("wb") as file:
        collector = _Collector(file, spec)
        for number, item in enumerate(inputs):
            form, codec = SUFFIXES[suffix_of(item.shard.name) or ""]
            with _in_words_of(spec, "--shards"):
                for batch in iter_piece(Piece((item.shard,), form, codec), read_spec):
                    collector.add(batch, number, item)
                    hear.progress(batch.n_rows, batch.n_bytes_read)
            hear.task_done(item.shard.name, item.shard.size, {})
    hear.phase_done()
    documents = collector.documents(lines, inputs)
    _check_bad_rows(spec, inputs, collector.first_bad)
    _check_labelled(spec, inputs, documents)
    return documents


class _Collector:
    """Takes batches, writes lines, keeps the numbers."""

    def __init__(self, file: BinaryIO, spec: TrainSpec) -> None:
        self._file, self._spec = file, spec
        self._key = f"train:{spec.seed}".encode()
        self._n_bytes = array("q", [0])
        self._keys = bytearray()
        self._label, self._score = array("i"), array("d")
        self._shard, self._row = array("i"), array("q")
        self._code: dict[str, int] = {}
        self._given: dict[str, str] = {}
        self.first_bad = ""

    def add(self, batch: TextBatch, number: int, item: InputShard) -> None:
        item.n_rows += batch.n_rows
        item.bad.update(row.reason for row in batch.bad)
        if batch.bad and not self.first_bad:
            bad = batch.bad[0]
            self.first_bad = f"{item.shard.name}: row {bad.row}: {bad.reason} {bad.detail}".rstrip()
        values = [item.label] * len(batch.rows) if batch.ids is None else batch.ids.to_pylist()
        for text, value, row in zip(batch.texts.to_pylist(), values, batch.rows.tolist(), strict=True):
            line = training_line(text)
            if not line:
                item.n_empty += 1
            elif not self._take_label(value):
                item.n_unlabelled += 1
            else:
                item.n_docs += 1
                self._shard.append(number)
                self._row.append(row)
                self._n_bytes.append(self._n_bytes[-1] + len(line) + 1)
                self._keys += hashlib.blake2b(line, digest_size=_KEY_BYTES, key=self._key).digest()
                self._file.write(line + b"\n")

    def _take_label(self, value: str | None) -> bool:
        """Note the label or score; False where there is none."""
        if self._spec.score_column is not None:
            score = _number(value)
            if math.isfinite(score):
                self._score.append(score)
                self._label.append(-1)
            return math.isfinite(score)
        name = label_name(value or "")
        if not name or value is None:
            return False
        if name not in self._code:
            self._add_label(name, value)
        elif self._spec.label_column and self._given[name] != value.strip().removeprefix("__label__"):
            raise DataselectError(
                f"the labels {self._given[name]!r} and {value!r} are both {name!r} as one word; rename one"
            )
        self._label.append(self._code[name])
        return True

    def _add_label(self, name: str, value: str) -> None:
        self._code[name] = len(self._code)
        self._given[name] = value.strip().removeprefix("__label__")
        if len(self._code) > MAX_LABELS:
            raise DataselectError(
                f"column '{self._spec.label_column}' has more than {MAX_LABELS:,} different values, "
                f"such as {value[:40]!r}; is it the label?"
            )

    def documents(self, lines: Path, inputs: list[InputShard]) -> Documents:
        labels = sorted(self._code)
        # Codes by name, not by first appearance: the order of shards must not matter.
        place = np.array([labels.index(name) for name in self._code] + [-1], np.int32)
        return Documents(
            lines=lines,
            offsets=np.array(self._n_bytes, np.int64),
            keys=np.frombuffer(bytes(self._keys), "<u8").reshape(-1, 3),
            label=place[np.array(self._label, np.int32)],
            score=np.array(self._score, np.float64),
            shard=np.array(self._shard, np.int32),
            row=np.array(self._row, np.int64),
            labels=labels,
            renamed={name: given for name, given in self._given.items() if name != given},
            inputs=inputs,
        )


def _number(value: str | None) -> float:
    """NaN where there is no number."""
    try:
        return float(value) if value is not None else math.nan
    except ValueError:
        return math.nan


def _input_spec(spec: TrainSpec, patterns: Sequence[str], column: str | None) -> InputSpec:
    texts = list(spec.text) if len(spec.text) > 1 else spec.text[0]
    try:
        return InputSpec.model_validate(
            {"shards": list(patterns), "text": texts, "id": column, "max_bad_rows": spec.max_bad_rows}
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise RecipeError(f"input.{place}: {message}" if place else f"input.{message}") from None


@contextmanager
def _in_words_of(spec: TrainSpec, shards_option: str) -> Iterator[None]:
    """Errors that speak of a recipe's keys and of ids, in the words of the command line."""
    role = "label" if spec.label_column else "score"
    words = {
        "input.shards": shards_option,
        "input.text": "--text",
        "input.id": f"--{role}-column",
        "input.max_bad_rows": "--max-bad-rows",
        "no id column": f"no {role} column",
        "the id column": f"the {role} column",
    }
    try:
        yield
    except (RecipeError, BadShard) as error:
        message = str(error)
        for old, new in words.items():
            message = message.replace(old, new)
        raise type(error)(message) from error


def _check_bad_rows(spec: TrainSpec, inputs: list[InputShard], first_bad: str) -> None:
    n_rows = sum(item.n_rows for item in inputs)
    reasons = sum((item.bad for item in inputs), Counter[str]())
    with _in_words_of(spec, "--shards"):
        allowed = _input_spec(spec, ["*"], column=None).bad_rows_allowed(n_rows)
    if reasons.total() > allowed:
        listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
        raise DataselectError(
            f"{reasons.total():,} of {n_rows:,} rows are bad ({listed}), more than --max-bad-rows allows "
            f"({allowed:,}); the first: {first_bad}"
        )


def _check_labelled(spec: TrainSpec, inputs: list[InputShard], documents: Documents) -> None:
    column = spec.label_column or spec.score_column
    n_docs, n_labels = len(documents), len(documents.labels)
    if n_labels > max(n_docs / 2, _FEW_LABELS):
        raise DataselectError(
            f"column '{column}' has {n_labels:,} different values in {n_docs:,} documents; is it the label?"
        )
    if n_docs:
        return
    if column is None or not any(item.n_unlabelled for item in inputs):
        raise DataselectError(
            f"no document to train on: none of {sum(item.n_rows for item in inputs):,} rows has a word"
        )
    shards = [item.shard for item in inputs]
    with _in_words_of(spec, "--shards"):
        check_columns(shards, _input_spec(spec, spec.shards, column), _NO_OUTPUT)
    kind = "a label (a string or a number)" if spec.label_column else "a number"
    raise DataselectError(f"no row has {kind} in column '{column}'")


def digest_of(item: InputShard) -> str:
    """SHA-256 of the shard's bytes."""
    digest = hashlib.sha256()
    with ShardSource(item.shard).open() as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return "sha256:" + digest.hexdigest()
