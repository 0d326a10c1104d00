"""The fasttext package in processes of its own.

The package fills its input matrix with random numbers in ten parts, one a thread, so with one thread nine
tenths stay as the allocator left them: in a used process garbage, up to "Encountered NaN". So each training
has a process of its own, where glibc's allocator clears what it hands out. Nine tenths of zeros are harmless:
the vocabulary comes first, its frequent words foremost, and what starts at zero is nearly all hashed n-grams,
which learn from the first step at which the words of their text do.

More threads than one write to shared weights without locks and give another model at every run.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataselect.core.errors import BadModel, DataselectError, RecipeError
from dataselect.io.fasttext_model import read_header

# glibc: fill what malloc returns with the complement of this byte.
ZEROED_MEMORY = {"MALLOC_PERTURB_": "255"}
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Job:
    """Train on a file of lines `__label__<label> <text>`, save, and predict a file of lines `<text>`."""

    train_file: str
    params: dict[str, int | float | str]
    labels: list[str]
    predict_file: str
    n_predict: int
    model_file: str | None = None
    quantize: dict[str, int | bool] | None = None
    """Arguments of the package's quantize, beside its input."""

    @property
    def predictions(self) -> Path:
        return Path(self.predict_file + ".npy")


def run(job: Job) -> np.ndarray:
    """float32[n_predict, n_labels]: the package's probabilities (0 for a label that was not trained).

    Raises DataselectError where training diverges or fails, or the model can't be written whole.
    """
    code = "import sys; from dataselect.training.fasttext_process import main; main(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **ZEROED_MEMORY}
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(asdict(job))],
        env=environment,
        stdin=subprocess.PIPE,  # its end tells the process that this one is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process:
        try:
            said = process.stderr.read().strip().splitlines()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise _explained(job, said[-1] if said else "", process.returncode)
    if job.model_file is not None:
        _check_whole(Path(job.model_file))
    return np.load(job.predictions)


def _explained(job: Job, said: str, code: int) -> DataselectError:
    if "NaN" in said:
        return RecipeError(
            f"fastText training diverged (its weights became NaN) at a learning rate of {job.params['lr']}; "
            "lower --lr, for example to 0.5"
        )
    if "at least 256 rows" in said:
        return RecipeError(
            "--quantize needs a model of at least 256 words and n-grams; use a .bin for so few"
        )
    if code == -9 or "MemoryError" in said or "bad_alloc" in said:
        return DataselectError(
            "fastText training ran out of memory: it needs (words + --bucket) x --dim x 4 bytes "
            f"(--bucket {job.params['bucket']}, --dim {job.params['dim']})"
        )
    return DataselectError(f"fastText training failed: {said or f'its process ended with code {code}'}")


def _check_whole(model_file: Path) -> None:
    """The package writes without looking whether it could: a full disk leaves a short file."""
    with model_file.open("rb+") as file:
        n_bytes = file.seek(0, os.SEEK_END)
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        file.truncate(n_bytes)
        os.fsync(file.fileno())
    if model_file.suffix == ".bin":
        try:
            read_header(model_file)
        except BadModel as error:
            raise DataselectError("the model could not be written whole; is the disk full?") from error


def main(job_json: str) -> None:
    """The process: train, save, predict."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import fasttext

    job = Job(**json.loads(job_json))
    model = fasttext.train_supervised(input=job.train_file, verbose=0, **job.params)
    if job.quantize is not None:
        retrained = job.train_file if job.quantize["retrain"] else None
        model.quantize(input=retrained, verbose=0, **job.quantize)
    if job.model_file is not None:
        model.save_model(job.model_file)
    np.save(job.predictions, _predict(model, job))


def _predict(model: Any, job: Job) -> np.ndarray:
    column = {f"__label__{name}": code for code, name in enumerate(job.labels)}
    probability = np.zeros((job.n_predict, len(job.labels)), np.float32)
    with Path(job.predict_file).open("rb") as lines:
        for i, line in enumerate(lines):
            # The binding's own method: the package's Python wrapper fails with numpy 2.
            for p, name in model.f.predict(line, -1, 0.0, "replace"):
                probability[i, column[name]] = p
    return probability


def _end_with_parent() -> None:
    """The package lets other threads run while it trains."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    os._exit(1)
