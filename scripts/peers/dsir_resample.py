"""data-selection (the DSIR authors' package): HashedNgramDSIR with its defaults, a fifth resampled.

EXTRA: the target, a .jsonl file. One process; bigrams, 10,000 buckets, wordpunct tokens, fit on all raw text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from data_selection import HashedNgramDSIR


def main(folder: str, out: str, target: str) -> None:
    shards = [str(path) for path in sorted(Path(folder).glob("*.jsonl"))]
    dsir = HashedNgramDSIR(shards, [target], cache_dir=f"{out}/cache", num_proc=1)
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    dsir.compute_importance_weights()
    weights = Path(out, "cache", "log_importance_weights").glob("*.npy")
    n_rows = sum(len(np.load(path)) for path in weights)
    n_kept = n_rows // 5
    dsir.resample(out_dir=f"{out}/kept", num_to_sample=n_kept)
    print(json.dumps({"rows": n_rows, "kept": n_kept}))


if __name__ == "__main__":
    main(*sys.argv[1:])
