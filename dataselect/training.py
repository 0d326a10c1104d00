"""Train the classifier that `fasttext_quality` scores with: the one place that needs the fasttext package.

Training runs in one thread by default. fastText's threads write to shared weights without locks, so more of
them give another model at every run; one thread gives the same file for the same input, versions and machine.
The package fills its input matrix with random numbers in ten parts, one a thread, so with one thread nine
tenths stay as the allocator left them: in a small model garbage of earlier use, up to "Encountered NaN". So
training runs in a process of its own, where glibc's allocator clears what it hands out. Nine tenths of zeros
are harmless: the vocabulary comes first, its frequent words foremost, and what starts at zero is nearly all
hashed n-grams, which learn from the first step at which the words of their text do.

The package learns line by line and never shuffles, so lines are written in the order of a hash of their text:
classes mix, and the model depends neither on the order of the files nor on that of their rows.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataselect.core.errors import BadShard, DataselectError

_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
# glibc: fill what malloc returns with the complement of this byte.
ZEROED_MEMORY = {"MALLOC_PERTURB_": "255"}
# The shuffle sorts one of this many parts of the training text at a time, in memory.
_N_PARTS = 64
_SEPARATORS_TO_SPACE = bytes.maketrans(b"\t\n\v\f\r\0", b"      ")
_INSTALL_HINT = (
    "training needs the fastText package (scoring does not): install `fasttext-numpy2-wheel` on Python "
    "3.10-3.12, or `fasttext`, which needs a C++ compiler"
)


def train_fasttext(
    positive: list[Path],
    negative: list[Path],
    out: Path,
    *,
    text: str = "text",
    label_column: str | None = None,
    positive_label: str = "hq",
    negative_label: str = "lq",
    dim: int = 100,
    word_ngrams: int = 2,
    bucket: int = 2_000_000,
    epoch: int = 5,
    lr: float = 0.1,
    min_count: int = 1,
    holdout: float = 0.1,
    seed: int = 0,
    threads: int = 1,
) -> dict[str, Any]:
    """Train a softmax classifier on documents of JSONL (also .gz, .zst) and Parquet files; return its model
    card.

    Documents of `positive` files get `positive_label`, those of `negative` files `negative_label`; with
    `label_column` every document's label is read from that column instead, whichever list its file is in. The
    defaults are the package's, with bigrams, as DCLM trained its classifier (arXiv 2406.11794).

    A share `holdout` of the documents, chosen by a hash of seed and text (so copies of a text stay together),
    is kept from training and gives the card's accuracy and AUC (of `positive_label` against the rest). Writes
    the model to `out` and the card to `out` + ".json", each whole or not at all.

    Raises DataselectError where the package is missing, a parameter is out of range or a label has no
    documents, and BadShard where an input can't be read to its end.
    """
    if importlib.util.find_spec("fasttext") is None:
        raise DataselectError(_INSTALL_HINT)
    if not 0 <= holdout < 1 or threads < 1:
        raise DataselectError(f"holdout must be in [0, 1) and threads >= 1, got {holdout} and {threads}")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    params = {
        "dim": dim, "wordNgrams": word_ngrams, "bucket": bucket, "epoch": epoch, "lr": lr, "minCount":
        min_count, "loss": "softmax", "thread": threads, "seed": seed,
    }  # fmt: skip
    labelled = [(Path(path), positive_label) for path in positive]
    labelled += [(Path(path), negative_label) for path in negative]
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        train_file, held_file = Path(folder, "train.txt"), Path(folder, "held-out.txt")
        counts = _write_lines(labelled, train_file, held_file, text, label_column, holdout, seed)
        _check_counts(counts["train"], positive_label, [path for path, _ in labelled])
        model_file = Path(folder, "model.bin")
        _run_trainer({"input": str(train_file), "verbose": 0, **params}, model_file, held_file)
        card = {
            "model": out.name,
            "model_digest": _file_digest(model_file),
            "n_train": dict(sorted(counts["train"].items())),
            "n_held_out": dict(sorted(counts["held_out"].items())),
            **_evaluate(held_file.with_suffix(".json"), positive_label),
            "positive_label": positive_label,
            "parameters": {**params, "holdout": holdout, "text": text, "label_column": label_column},
            "inputs": [
                {"name": path.name, "label": None if label_column else label, "digest": _file_digest(path)}
                for path, label in labelled
            ],
            "versions": _versions(),
        }
        card_file = Path(folder, "card.json")
        card_file.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        # The card last: a card always describes the model beside it, by its digest.
        _commit(model_file, out)
        _commit(card_file, out.with_name(out.name + ".json"))
    return card


def training_line(text: str) -> bytes:
    """The text as one line of fastText tokens.

    Tokens that the package would take as a label (`__label__...`) or as the end of the line (`</s>`) are left
    out: the first would become a class, the second would hide the rest of the document.
    """
    line = text.encode("utf-8", "replace").translate(_SEPARATORS_TO_SPACE)
    if b"__label__" in line or b"</s>" in line:
        tokens = line.split(b" ")
        line = b" ".join(t for t in tokens if t != b"</s>" and not t.startswith(b"__label__"))
    return line


def area_under_curve(scores: np.ndarray, is_positive: np.ndarray) -> float | None:
    """P(score of a positive > score of a negative), ties counted half (Mann-Whitney U by average ranks).

    None where one of the two classes is empty.
    """
    n_positive = int(is_positive.sum())
    n_negative = is_positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, group, group_size = np.unique(scores, return_inverse=True, return_counts=True)
    average_rank = np.cumsum(group_size) - (group_size - 1) / 2
    rank_sum = float(average_rank[group][is_positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def _run_trainer(params: dict[str, Any], model_file: Path, held_file: Path) -> None:
    """Run `train_and_predict` in a process whose allocator returns zeros (see the module's first lines)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **ZEROED_MEMORY}
    code = "import sys; from dataselect.training import train_and_predict; train_and_predict(*sys.argv[1:])"
    command = [sys.executable, "-c", code, json.dumps(params), str(model_file), str(held_file)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else f"its process ended with code {done.returncode} (out of memory?)"
        raise DataselectError(f"fastText training failed: {reason}")


def train_and_predict(params: str, model_file: str, held_file: str) -> None:
    """Train by JSON `params`, save, and write [label, [[probability, label], ...]] of each held-out line as
    JSON.
    """
    import fasttext

    model = fasttext.train_supervised(**json.loads(params))
    model.save_model(model_file)
    with Path(held_file).open("rb") as lines, Path(held_file).with_suffix(".json").open("w") as results:
        for line in lines:
            label, _, document = line.partition(b" ")
            # The binding's own method: the package's Python wrapper fails with numpy 2.
            predicted = model.f.predict(document, -1, 0.0, "replace")
            results.write(json.dumps([label.decode(), predicted]) + "\n")


def _write_lines(
    labelled: list[tuple[Path, str]],
    train_file: Path,
    held_file: Path,
    text: str,
    label_column: str | None,
    holdout: float,
    seed: int,
) -> dict[str, Counter[str]]:
    """Write one `__label__<label> <text>` line a document, shuffled; documents without a token are left
    out.
    """
    counts: dict[str, Counter[str]] = {"train": Counter(), "held_out": Counter()}
    part_files = [train_file.with_suffix(f".{part}") for part in range(_N_PARTS)]
    with ExitStack() as stack:
        held = stack.enter_context(held_file.open("wb"))
        parts = [stack.enter_context(file.open("wb")) for file in part_files]
        for path, file_label in labelled:
            for document, label in _read_documents(path, text, label_column):
                line = training_line(document)
                if not line.strip():
                    continue
                name = file_label if label is None else _checked_label(label, path)
                digest = _digest(line, seed)
                is_held = int.from_bytes(digest[:8], "little") / 2**64 < holdout
                counts["held_out" if is_held else "train"][name] += 1
                target = held if is_held else parts[digest[8] % _N_PARTS]
                target.write(b"__label__%b %b\n" % (name.encode(), line))
    with train_file.open("wb") as train:
        for file in part_files:
            lines = file.read_bytes().splitlines(keepends=True)
            lines.sort(key=lambda line: (_digest(line.partition(b" ")[2][:-1], seed)[8:], line))
            train.writelines(lines)
            file.unlink()
    return counts


def _digest(line: bytes, seed: int) -> bytes:
    """16 bytes: the first 8 decide whether the text is held out, the last 8 its place in the training
    file.
    """
    return hashlib.blake2b(line, digest_size=16, key=f"split:{seed}".encode()).digest()


def _checked_label(label: str, path: Path) -> str:
    if not label or len(label.split()) != 1:
        raise DataselectError(f"{path}: a label must be one word without spaces, got {label!r}")
    return label.removeprefix("__label__")


def _check_counts(n_train: Counter[str], positive_label: str, paths: list[Path]) -> None:
    if positive_label not in n_train or len(n_train) < 2:
        found = ", ".join(f"{name}: {n}" for name, n in sorted(n_train.items())) or "none"
        names = ", ".join(str(path) for path in paths)
        raise DataselectError(
            f"training needs documents of {positive_label!r} and of one other label; found {found} in {names}"
        )


def _read_documents(path: Path, text: str, label_column: str | None) -> Iterator[tuple[str, str | None]]:
    """(text, value of the label column or None) of every row, streaming."""
    columns = [text] if label_column is None else [text, label_column]
    read: Callable[[Path, list[str]], Iterator[list[Any]]]
    read = _read_parquet if path.suffix == ".parquet" else _read_jsonl
    try:
        for row, values in enumerate(read(path, columns)):
            if not isinstance(values[0], str) or (label_column is not None and values[1] is None):
                raise BadShard(f"{path}: row {row} has no {' or no '.join(map(repr, columns))}")
            yield values[0], None if label_column is None else str(values[1])
    except (OSError, pa.ArrowException) as error:
        raise BadShard(f"{path}: can't be read to its end: {error}") from error


def _read_parquet(path: Path, columns: list[str]) -> Iterator[list[Any]]:
    with pq.ParquetFile(path) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise BadShard(f"{path}: there is no column {missing[0]!r}; there are {file.schema_arrow.names}")
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _read_jsonl(path: Path, columns: list[str]) -> Iterator[list[Any]]:
    compression = _COMPRESSION.get(path.suffix)
    with pa.input_stream(str(path), compression=compression) as stream, io.BufferedReader(stream) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadShard(f"{path}: line {number} is not JSON: {error}") from error
            yield [row.get(name) if isinstance(row, dict) else None for name in columns]


def _evaluate(results_file: Path, positive_label: str) -> dict[str, float | None]:
    """Accuracy of the most probable label and AUC of the positive label's probability."""
    scores, is_positive, is_right = [], [], []
    with results_file.open() as results:
        for label, predicted in map(json.loads, results):
            by_label = {name: probability for probability, name in predicted}
            scores.append(by_label.get("__label__" + positive_label, 0.0))
            is_positive.append(label == "__label__" + positive_label)
            is_right.append(bool(predicted) and predicted[0][1] == label)
    return {
        "held_out_auc": area_under_curve(np.array(scores), np.array(is_positive, dtype=np.bool_)),
        "held_out_accuracy": float(np.mean(is_right)) if is_right else None,
    }


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("fasttext-numpy2-wheel", "fasttext", "fasttext-wheel", "dataselect", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit(source: Path, target: Path) -> None:
    with source.open("rb+") as file:
        os.fsync(file.fileno())
    source.replace(target)
