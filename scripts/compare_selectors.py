"""Selectors side by side: every one picks as many words for a target, and `dataselect compare` judges them.

    python scripts/compare_selectors.py --raw 'raw/*' --target target.jsonl --words 150000

The target is cut in two by a hash of the text: selectors are fitted on one half and judged by the other. With
--target random the target is a random sample of raw, on which no selector may gain more than chance: the
check of the check. Needs the fasttext package for the classifier; without it that selector is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataselect.core.pieces import SUFFIXES, Piece, suffix_of
from dataselect.io.reader import ReadSpec, iter_piece
from dataselect.planning.shards import list_shards
from dataselect.report.compareview import render

SELECTORS: dict[str, list[dict[str, Any]]] = {
    "random": [{"use": "select", "method": "uniform", "seed": 99}],
    "dsir": [
        {"use": "ngram_importance", "target": "fit.jsonl", "sample": "all"},
        {"use": "select", "by": "importance", "method": "resample", "seed": 1},
    ],
    "dsir_per_token": [
        {"use": "ngram_importance", "target": "fit.jsonl", "sample": "all", "per": "token"},
        {"use": "select", "by": "importance", "method": "resample", "temperature": 0.01, "seed": 1},
    ],
    "dsir_top_k": [
        {"use": "ngram_importance", "target": "fit.jsonl", "sample": "all"},
        {"use": "select", "by": "importance", "method": "top_k"},
    ],
    "moore_lewis": [
        {"use": "cross_entropy_difference", "target": "fit.jsonl"},
        {"use": "select", "by": "entropy_difference", "method": "top_k", "direction": "min"},
    ],
    "classifier": [
        {"use": "fasttext_quality", "model": "target.bin", "label": "hq", "as": "like_target"},
        {"use": "select", "by": "like_target", "method": "top_k"},
    ],
}
SHARE_OF_RANDOM_TARGET = 0.04
READ = ReadSpec("text", None, 64 << 20, 1 << 62, 16_384)


def texts_of(patterns: list[str]) -> Iterable[str]:
    for shard in list_shards([str(Path(pattern).absolute()) for pattern in patterns]):
        form, codec = SUFFIXES[suffix_of(shard.name) or ""]
        for batch in iter_piece(
            Piece((shard,), form, codec), ReadSpec("text", None, 64 << 20, 1 << 62, 16_384)
        ):
            yield from batch.texts.to_pylist()


def draw(text: str, purpose: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def write(path: Path, texts: Iterable[str]) -> int:
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    path.write_text("".join(lines), "utf-8")
    return len(lines)


def prepare(folder: Path, raw: list[str], target: str) -> None:
    """fit.jsonl, heldout.jsonl; raw.jsonl, which lacks the documents of a random target; other.jsonl."""
    whole = dict.fromkeys(texts_of(raw))
    if target == "random":
        wanted = [text for text in whole if draw(text, "target") < SHARE_OF_RANDOM_TARGET]
    else:
        wanted = list(dict.fromkeys(texts_of([target])))
    held_out = set(wanted)
    write(folder / "raw.jsonl", (text for text in whole if text not in held_out))
    n_fit = write(folder / "fit.jsonl", (text for text in wanted if draw(text, "half") < 0.5))
    write(folder / "heldout.jsonl", (text for text in wanted if draw(text, "half") >= 0.5))
    share = 4 * n_fit / len(whole)
    write(folder / "other.jsonl", (t for t in whole if t not in held_out and draw(t, "other") < share))


def dataselect(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "dataselect", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def run_selectors(folder: Path, n_words: int) -> list[str]:
    """Recipes that ran."""
    if importlib.util.find_spec("fasttext"):
        dataselect(
            *("train", "--positive", "fit.jsonl", "--negative", "other.jsonl", "--balance", "upsample"),
            *("--out", "target.bin", "--quiet", "--force"),
            folder=folder,
        )
    recipes = []
    for name, stages in SELECTORS.items():
        if name == "classifier" and not (folder / "target.bin").exists():
            continue
        *scoring, select = stages
        recipe = {
            "input": {"shards": "raw.jsonl"},
            "stages": [*scoring, {**select, "keep": {"words": n_words}}],
            "output": {"folder": f"out/{name}"},
            "work": "work",
        }
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
        dataselect("run", f"{name}.yaml", "--quiet", "--workers", "1", folder=folder)
        recipes.append(f"{name}.yaml")
    return recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", nargs="+", required=True, help="glob patterns of shards")
    parser.add_argument("--target", required=True, help="a file, or: random")
    parser.add_argument("--words", type=int, default=150_000, help="what every selector keeps")
    parser.add_argument("--folder", type=Path, required=True, help="for everything that is written")
    parser.add_argument("--seeds", default="5")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    prepare(arguments.folder, arguments.raw, arguments.target)
    recipes = run_selectors(arguments.folder, arguments.words)
    options = ["--target", "heldout.jsonl", "--seeds", arguments.seeds, "--plot", "compare.svg", "--quiet"]
    report = dataselect("compare", *recipes, *options, "--json", folder=arguments.folder)
    (arguments.folder / "compare.json").write_text(report, "utf-8")
    print(render(json.loads(report)))


if __name__ == "__main__":
    main()
