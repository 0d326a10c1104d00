"""text-dedup: MinHash with word 5-grams, 128 permutations, 0.8 (it takes 9 x 13), one process, else defaults.

With its default check_false_positive = false, version 0.4.1 keeps no member of most clusters.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CONFIG = """
[input]
input_type = "local_files"
file_type = "json"
[input.read_arguments]
path = "json"
split = "train"
data_files = {files}
[algorithm]
algorithm_name = "minhash"
text_column = "text"
num_perm = 128
ngram_size = 5
threshold = 0.8
num_proc = 1
[output]
output_dir = "{out}/arrow"
[debug]
"""


def main(folder: str, out: str) -> None:
    Path(out).mkdir(parents=True)
    os.environ["HF_HOME"] = f"{out}/hf"  # before the import: a run must not find another's results
    from datasets import load_from_disk  # noqa: PLC0415
    from text_dedup import minhash  # noqa: PLC0415
    from text_dedup.config.base import load_config_from_toml  # noqa: PLC0415

    files = json.dumps([str(path) for path in sorted(Path(folder).glob("*.jsonl"))])
    config = Path(out, "config.toml")
    config.write_text(CONFIG.format(files=files, out=out))
    load, counts = minhash.load_and_preprocess, {}

    def counted(config: Any) -> Any:
        loaded = load(config)
        counts["rows"] = loaded[1]
        return loaded

    minhash.load_and_preprocess = counted
    minhash.main(load_config_from_toml(config))
    kept = load_from_disk(f"{out}/arrow")
    kept.to_json(f"{out}/kept.jsonl", force_ascii=False)
    print()
    print(json.dumps({**counts, "kept": len(kept)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
