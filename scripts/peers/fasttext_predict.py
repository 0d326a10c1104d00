"""The fastText package: probability of every label, one document after another; rows above 0.02 stay.

EXTRA: a model .bin with the label `hq`. The bound `f.predict` is called, which is faster than `predict`.
"""

from __future__ import annotations

import sys
import time

import fasttext
from peer_io import read_rows, report, write_lines


def main(folder: str, out: str, model_path: str) -> None:
    model = fasttext.load_model(model_path)
    rows = list(read_rows(folder))
    texts = [text.replace("\n", " ") + "\n" for _, text in rows]
    start = time.process_time()
    scores = [model.f.predict(text, 2, 0.0, "strict") for text in texts]
    alone_cpu_s = time.process_time() - start
    kept = [
        line
        for (line, _), score in zip(rows, scores, strict=True)
        if any(label == "__label__hq" and p >= 0.02 for p, label in score)
    ]
    write_lines(out, kept)
    report(len(rows), len(kept), alone_cpu_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
