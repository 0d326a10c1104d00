"""The model card: what the model was made of and how well it does, as JSON beside it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from typing import Any

import numpy as np

from dataselect.training import calibration, metrics
from dataselect.training.documents import Documents, digest_of

USE_OF_THRESHOLDS = (
    "A threshold is a `min` for fasttext_quality. It keeps this share of the held-out documents; a corpus of "
    "another mixture is kept by another share (`dataselect run --sample` shows it)."
)


def held_out_figures(
    probability: np.ndarray, documents: Documents, index: np.ndarray, positive: str | None, in_fit: np.ndarray
) -> dict[str, Any]:
    """How well the model does on held-out documents.

    probability float32[n, n_labels] of the documents index int64[n]; in_fit bool[n]: the half that
    calibration is fitted on; positive: the label that is scored, if one is.
    """
    label = documents.label[index]
    figures: dict[str, Any] = {"n_docs": len(index), "positive_label": positive}
    if not len(index):
        return figures
    figures["accuracy"] = float((probability.argmax(axis=1) == label).mean())
    figures["mean_auc"] = metrics.mean_auc(probability, label)
    figures["by_label"] = metrics.by_label(probability, label, documents.labels)
    if positive is not None:
        code = documents.labels.index(positive)
        scores, is_positive = probability[:, code], label == code
        figures["auc"] = metrics.area_under_curve(scores, is_positive)
        figures["average_precision"] = metrics.average_precision(scores, is_positive)
        figures["share_positive"] = float(is_positive.mean())
        figures["kept"] = metrics.kept_at_shares(scores, is_positive)
        figures["note"] = USE_OF_THRESHOLDS
        figures["calibration"] = calibration.calibrate(scores, is_positive, in_fit)
    return figures


def input_figures(documents: Documents) -> dict[str, Any]:
    """Rows read and what became of them, in all and for each shard."""
    inputs = documents.inputs
    return {
        "rows": {
            "read": sum(item.n_rows for item in inputs),
            "bad": dict(sum((item.bad for item in inputs), Counter[str]())),
            "empty": sum(item.n_empty for item in inputs),
            "unlabelled": sum(item.n_unlabelled for item in inputs),
            "used": len(documents),
        },
        "inputs": [
            {
                "name": item.shard.name,
                "label": item.label,
                "digest": digest_of(item),
                "rows": item.n_rows,
                "docs": item.n_docs,
            }
            for item in inputs
        ],
    }


def label_counts(
    documents: Documents, train: np.ndarray, lines: np.ndarray, held: np.ndarray
) -> dict[str, Any]:
    """Of each label: documents to train on, lines trained on after cleaning and balancing, held out.

    train, held: bool[n_docs]; lines int64[n_lines].
    """
    n_labels = len(documents.labels)

    def counted(label: np.ndarray) -> np.ndarray:
        return np.bincount(label[label >= 0], minlength=n_labels)

    columns = {
        "train_docs": counted(documents.label[train]),
        "train_lines": counted(documents.label[lines]),
        "held_out_docs": counted(documents.label[held]),
    }
    return {
        name: {key: int(column[code]) for key, column in columns.items()}
        for code, name in enumerate(documents.labels)
    }


def n_texts_of_several_labels(documents: Documents, used: np.ndarray) -> int:
    """Distinct texts among the used documents that have more than one label."""
    label, keys = documents.label[used], documents.keys[used]
    order = np.lexsort((label, keys[:, 1], keys[:, 0]))
    label, keys = label[order], keys[order]
    is_copy = (keys[1:, :2] == keys[:-1, :2]).all(axis=1)
    text = np.cumsum(~is_copy)
    return len(np.unique(text[is_copy & (label[1:] != label[:-1])]))


def is_reproducible(threads: int) -> bool:
    """Whether the same training gives the same bytes: one thread, an allocator that clears when told to."""
    return threads == 1 and platform.libc_ver()[0] == "glibc"


def versions() -> dict[str, str]:
    """Of everything that may change the model."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("fasttext-numpy2-wheel", "fasttext", "fasttext-wheel", "dataselect", "numpy", "pyarrow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
