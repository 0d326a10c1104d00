"""From labelled shards to a model with its card."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataselect.core.errors import DataselectError
from dataselect.core.listener import Listener
from dataselect.io.store import explained
from dataselect.training import card as figures
from dataselect.training import cleaning, metrics, split
from dataselect.training.documents import Documents, list_inputs, read_documents
from dataselect.training.fasttext_process import Job, run
from dataselect.training.labels import by_score
from dataselect.training.lines import label_name
from dataselect.training.spec import TrainSpec, check
from dataselect.training.workspace import commit, workspace

CURVE_SHARES = (0.125, 0.25, 0.5)
_SNIPPET_CHARS = 300


def train(spec: TrainSpec, listener: Listener | None = None) -> dict[str, Any]:
    """Train a softmax classifier on labelled shards (JSONL, JSONL.gz, JSONL.zst, Parquet); its model card.

    A share of the documents, chosen by a hash of seed and text (so copies of a text stay together), is kept
    from training and judges the model. Writes the model to spec.out and the card to spec.out + ".json" (with
    clean_labels also the rows left out, to spec.out + ".cleaned.jsonl"), each whole or not at all.

    Raises RecipeError for impossible parameters, BadShard where an input can't be read to its end, and
    DataselectError where there are too many bad rows, less than two labels, or the model can't be made.
    """
    check(spec)
    started = time.monotonic()
    inputs = list_inputs(spec)
    with explained(str(spec.out)), workspace(spec.out) as folder:
        listener = listener or Listener()
        documents = read_documents(spec, inputs, folder / "lines.txt", listener)
        training = _Training(spec, folder, documents, listener)
        training.prepare()
        training.clean()
        training.fit()
        training.draw_curve()
        return training.publish(started)


@dataclass
class _Training:
    """The steps of one training, in the order of `train`; each adds its part to the card."""

    spec: TrainSpec
    folder: Path
    documents: Documents
    listener: Listener

    def prepare(self) -> None:
        """Labels, the positive one, who is held out."""
        self._card: dict[str, Any] = {}
        if self.spec.score_column is not None:
            self.documents, self._card["score_rule"] = by_score(self.documents, self.spec)
        self._positive = _positive_label(self.spec, self.documents)
        labelled = self.documents.label >= 0
        held = split.held_out(self.documents.keys, self.spec.holdout)
        self._train, self._held = labelled & ~held, labelled & held
        self._n_conflicting = figures.n_texts_of_several_labels(self.documents, labelled)
        self._check_classes(self._train)
        self.listener.note(
            f"{int(self._train.sum()):,} documents to train on, {int(self._held.sum()):,} held out, "
            f"{len(self.documents.labels)} labels"
        )

    def clean(self) -> None:
        """Leave out of training what confident learning takes for wrongly labelled."""
        self._clean = self._train
        if not self.spec.clean_labels:
            return
        docs = np.flatnonzero(self._train)
        verdict = cleaning.judge(self._out_of_fold(docs), self.documents.label[docs])
        counts = np.bincount(self.documents.label[docs], minlength=len(self.documents.labels))
        names = self.documents.labels
        wrong = np.bincount(self.documents.label[docs[verdict.is_wrong]], minlength=len(names))
        self._card["cleaning"] = {
            "n_folds": cleaning.N_FOLDS,
            "labels": names,
            "thresholds": [None if np.isnan(t) else float(t) for t in verdict.threshold],
            "confident_joint": verdict.joint.tolist(),
            "estimated_joint": cleaning.calibrated_joint(verdict.joint, counts).round(2).tolist(),
            "n_left_out": {name: int(n) for name, n in zip(names, wrong, strict=True)},
            "file": self._beside(".cleaned.jsonl").name,
            "note": "Held-out documents are not cleaned.",
        }
        self._write_cleaned(docs, verdict)
        self._clean = self._train.copy()
        self._clean[docs[verdict.is_wrong]] = False
        self._check_classes(self._clean)

    def fit(self) -> None:
        """The model itself, and how it does on what was held out."""
        self._lines = self._ordered(np.flatnonzero(self._clean))
        held = np.flatnonzero(self._held)
        quantize = {"cutoff": self.spec.cutoff, "retrain": self.spec.retrain, "qnorm": True}
        probability = self._run(
            self._lines, held, "the model", self._model_file, quantize if self.spec.quantize else None
        )
        in_fit = split.held_out(self.documents.keys[held], self.spec.holdout / 2)
        self._card["held_out"] = figures.held_out_figures(
            probability, self.documents, held, self._positive, in_fit
        )

    def draw_curve(self) -> None:
        """Would more documents help? The same held-out documents judge models of a part of the lines."""
        if not self.spec.learning_curve:
            return
        held = np.flatnonzero(self._held)
        rows = []
        for share in CURVE_SHARES:
            lines = self._lines[: max(round(share * len(self._lines)), 1)]
            if len(np.unique(self.documents.label[lines])) > 1:
                probability = self._run(lines, held, f"learning curve, {share:.1%} of the lines")
                rows.append(self._curve_row(share, len(lines), probability, held))
        whole = self._card["held_out"]
        auc = whole.get("auc", whole.get("mean_auc"))
        rows.append(
            {"share": 1.0, "n_lines": len(self._lines), "auc": auc, "accuracy": whole.get("accuracy")}
        )
        self._card["learning_curve"] = rows

    def publish(self, started: float) -> dict[str, Any]:
        """Complete the card and let the files appear."""
        documents, spec = self.documents, self.spec
        options = {key: value for key, value in asdict(spec).items() if key not in ("out", "force")}
        for key in ("positive", "negative", "shards"):
            options.pop(key)  # the inputs' names and digests say it, without this machine's paths
        options["text"] = list(spec.text)
        card = {
            "model": spec.out.name,
            "model_digest": _file_digest(self._model_file),
            "model_bytes": self._model_file.stat().st_size,
            "positive_label": self._positive,
            "labels": figures.label_counts(documents, self._train, self._lines, self._held),
            "renamed_labels": documents.renamed,
            "n_texts_of_several_labels": self._n_conflicting,
            **self._card,
            "fasttext": self._params(self._lines),
            "options": options,
            "reproducible": figures.is_reproducible(spec.threads),
            **figures.input_figures(documents),
            "versions": figures.versions(),
            "seconds": round(time.monotonic() - started, 2),
        }
        card_file = self.folder / "card.json"
        card_file.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        files = {self._model_file: spec.out, card_file: self._beside(".json")}
        if spec.clean_labels:
            files[self.folder / "cleaned.jsonl"] = self._beside(".cleaned.jsonl")
        commit(files, self._beside(".json"))
        return card

    # Parts ------------------------------------------------------------------------------------------------

    @property
    def _model_file(self) -> Path:
        return self.folder / f"model{self.spec.out.suffix}"

    def _params(self, lines: np.ndarray) -> dict[str, int | float | str]:
        return self.spec.fasttext_params(len(lines), len(np.unique(self.documents.label[lines])))

    def _beside(self, ending: str) -> Path:
        return self.spec.out.with_name(self.spec.out.name + ending)

    def _ordered(self, docs: np.ndarray) -> np.ndarray:
        label, keys = self.documents.label[docs], self.documents.keys[docs]
        return docs[split.training_order(keys, label, self.spec.balance)]

    def _run(
        self,
        lines: np.ndarray,
        predict: np.ndarray,
        what: str,
        model_file: Path | None = None,
        quantize: dict[str, int | bool] | None = None,
    ) -> np.ndarray:
        """Train on documents `lines`, in that order; probabilities of the documents `predict`."""
        params = self._params(lines)
        self.listener.note(
            f"training {what}: {len(lines):,} lines, {params['epoch']} epochs, lr {params['lr']}"
        )
        train_file, predict_file = self.folder / "train.txt", self.folder / "predict.txt"
        self._write(train_file, lines, with_label=True)
        self._write(predict_file, predict, with_label=False)
        job = Job(
            str(train_file),
            params,
            self.documents.labels,
            str(predict_file),
            len(predict),
            None if model_file is None else str(model_file),
            quantize,
        )
        return run(job)

    def _write(self, path: Path, docs: np.ndarray, *, with_label: bool) -> None:
        names = [f"__label__{name} ".encode() for name in self.documents.labels]
        offsets, label = self.documents.offsets, self.documents.label
        with self.documents.open_lines() as data, path.open("wb") as file:
            for doc in docs.tolist():
                if with_label:
                    file.write(names[label[doc]])
                file.write(data[offsets[doc] : offsets[doc + 1]])

    def _out_of_fold(self, docs: np.ndarray) -> np.ndarray:
        """float32[n_docs, n_labels]: of each document by a model that was not trained on its text."""
        fold = split.fold_of(self.documents.keys[docs], self.spec.holdout, cleaning.N_FOLDS)
        probability = np.zeros((len(docs), len(self.documents.labels)), np.float32)
        for number in range(cleaning.N_FOLDS):
            lines = self._ordered(docs[fold != number])
            what = f"fold {number + 1} of {cleaning.N_FOLDS}"
            if not (fold == number).any() or len(np.unique(self.documents.label[lines])) < 2:
                raise DataselectError(f"--clean-labels: too few documents for {cleaning.N_FOLDS} folds")
            probability[fold == number] = self._run(lines, docs[fold == number], what)
        return probability

    def _write_cleaned(self, docs: np.ndarray, verdict: cleaning.Verdict) -> None:
        """A JSON line for every document left out, the most suspicious first."""
        documents = self.documents
        suspects = np.flatnonzero(verdict.is_wrong)
        order = np.lexsort((docs[suspects], verdict.margin[suspects]))
        with documents.open_lines() as data, (self.folder / "cleaned.jsonl").open("wb") as file:
            for i in suspects[order].tolist():
                doc = docs[i]
                start, stop = documents.offsets[doc : doc + 2].tolist()
                row = {
                    "shard": documents.inputs[documents.shard[doc]].shard.name,
                    "row": int(documents.row[doc]),
                    "label": documents.labels[documents.label[doc]],
                    "suggested": documents.labels[verdict.suggested[i]],
                    "margin": round(float(verdict.margin[i]), 4),
                    "text": data[start : min(stop - 1, start + 4 * _SNIPPET_CHARS)].decode(errors="ignore")[
                        :_SNIPPET_CHARS
                    ],
                }
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def _curve_row(
        self, share: float, n_lines: int, probability: np.ndarray, held: np.ndarray
    ) -> dict[str, Any]:
        label = self.documents.label[held]
        if self._positive is not None:
            code = self.documents.labels.index(self._positive)
            auc = metrics.area_under_curve(probability[:, code], label == code)
        else:
            auc = metrics.mean_auc(probability, label)
        accuracy = float((probability.argmax(axis=1) == label).mean()) if len(held) else None
        return {"share": share, "n_lines": n_lines, "auc": auc, "accuracy": accuracy}

    def _check_classes(self, chosen: np.ndarray) -> None:
        labels = self.documents.labels
        counts = np.bincount(self.documents.label[chosen], minlength=len(labels))
        found = {name: int(n) for name, n in zip(labels, counts, strict=True) if n}
        if len(found) < 2 or (self._positive is not None and self._positive not in found):
            wanted = "two labels" if self._positive is None else f"{self._positive!r} and of one other label"
            listed = ", ".join(f"{name}: {n}" for name, n in list(found.items())[:20]) or "none"
            raise DataselectError(f"training needs documents of {wanted}; found {listed}")


def _positive_label(spec: TrainSpec, documents: Documents) -> str | None:
    """The label that is scored, if one is."""
    if spec.positive_label is not None:
        return label_name(spec.positive_label)
    return "hq" if spec.label_column is None or "hq" in documents.labels else None


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return "sha256:" + digest.hexdigest()
