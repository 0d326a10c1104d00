"""Selectors side by side: every one picks as many words for a target, and `dataselect compare` judges them.

    python scripts/compare_selectors.py --raw 'raw/*' --target medical.jsonl docs.jsonl random --folder proof

A target is cut in two by a hash of the text: selectors are fitted on one half and judged by the other. That
is done for every seed, with other halves, other draws of the selectors and other controls, so that every
figure has a spread. With `--target random` the target is a random sample of raw, on which no selector may
gain more than chance: the check of the check. Needs the fasttext package for the classifier; without it that
selector is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dataselect.core.pieces import SUFFIXES, Piece, suffix_of
from dataselect.io.reader import ReadSpec, iter_piece
from dataselect.planning.shards import list_shards
from dataselect.report.cells import table

DSIR = {"use": "ngram_importance", "target": "fit.jsonl", "sample": "all"}
MOORE_LEWIS = {"use": "cross_entropy_difference", "target": "fit.jsonl"}
CLASSIFIER = {"use": "fasttext_quality", "model": "target.bin", "label": "hq", "as": "like_target"}
SIMILARITY = {"use": "target_similarity", "target": "fit.jsonl"}
RESAMPLE = {"use": "select", "by": "importance", "method": "resample"}
SELECTORS: dict[str, list[dict[str, Any]]] = {
    "random": [{"use": "select", "method": "uniform"}],
    "classifier top-k": [CLASSIFIER, {"use": "select", "by": "like_target"}],
    "classifier Lomax": [
        CLASSIFIER,
        {"use": "select", "by": "like_target", "method": "lomax"},
        {"use": "select", "method": "uniform"},
    ],
    "DSIR": [DSIR, RESAMPLE],
    "DSIR per token": [{**DSIR, "per": "token"}, {**RESAMPLE, "temperature": 0.01}],
    "DSIR top-k": [DSIR, {"use": "select", "by": "importance"}],
    "Moore-Lewis": [MOORE_LEWIS, {"use": "select", "by": "entropy_difference", "direction": "min"}],
    "ZIP-FIT": [
        {"use": "compression_alignment", "target": "fit.jsonl"},
        {"use": "select", "by": "alignment"},
    ],
    "BETR": [{"use": "betr", "target": "fit.jsonl"}, {"use": "select", "by": "betr"}],
    "RDS+": [SIMILARITY, {"use": "select", "by": "target_similarity_turn", "direction": "min"}],
    "nearest": [SIMILARITY, {"use": "select", "by": "target_similarity"}],
}
MEASURES = {
    "kl_reduction": "KL reduction",
    "kl_reduction_2": "KL red. (3-grams)",
    "bits_per_byte": "bits/byte",
}
SHARE_OF_RANDOM_TARGET = 0.04
READ = ReadSpec("text", None, 64 << 20, 1 << 62, 16_384)


def texts_of(patterns: list[str]) -> Iterator[str]:
    for shard in list_shards([str(Path(pattern).absolute()) for pattern in patterns]):
        form, codec = SUFFIXES[suffix_of(shard.name) or ""]
        for batch in iter_piece(Piece((shard,), form, codec), READ):
            yield from batch.texts.to_pylist()


def draw(text: str, purpose: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def write(path: Path, texts: Iterable[str]) -> int:
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    path.write_text("".join(lines), "utf-8")
    return len(lines)


def prepare(folder: Path, whole: Iterable[str], target: str, seed: int) -> None:
    """fit.jsonl, heldout.jsonl; raw.jsonl, which lacks the documents of a random target; other.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = dict.fromkeys(whole)
    if target == "random":
        wanted = [text for text in whole if draw(text, f"target {seed}") < SHARE_OF_RANDOM_TARGET]
    else:
        wanted = list(dict.fromkeys(texts_of([target])))
    held_out = set(wanted)
    write(folder / "raw.jsonl", (text for text in whole if text not in held_out))
    n_fit = write(folder / "fit.jsonl", (text for text in wanted if draw(text, f"half {seed}") < 0.5))
    write(folder / "heldout.jsonl", (text for text in wanted if draw(text, f"half {seed}") >= 0.5))
    share = 4 * n_fit / len(whole)
    write(folder / "other.jsonl", (t for t in whole if t not in held_out and draw(t, "other") < share))


def dataselect(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "dataselect", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def run_selectors(folder: Path, n_words: int, seed: int) -> list[str]:
    """NAME=recipe of those that ran."""
    if importlib.util.find_spec("fasttext"):
        dataselect(
            *("train", "--positive", "fit.jsonl", "--negative", "other.jsonl", "--balance", "upsample"),
            *("--out", "target.bin", "--quiet", "--force"),
            folder=folder,
        )
    recipes = []
    for name, (*stages, last) in SELECTORS.items():
        if CLASSIFIER in stages and not (folder / "target.bin").exists():
            continue
        seeded = [stage | ({"seed": seed} if stage["use"] == "select" else {}) for stage in [*stages, last]]
        seeded[-1]["keep"] = {"words": n_words}
        recipe = {
            "input": {"shards": "raw.jsonl"},
            "stages": seeded,
            "output": {"folder": f"out/{name}"},
            "work": "work",
        }
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
        dataselect("run", f"{name}.yaml", "--quiet", "--workers", "1", folder=folder)
        recipes.append(f"{name}={name}.yaml")
    return recipes


def compare(folder: Path, recipes: list[str], n_controls: int) -> dict[str, Any]:
    options = ["--target", "heldout.jsonl", "--seeds", str(n_controls), "--quiet", "--json"]
    report = dataselect("compare", *recipes, *options, folder=folder)
    (folder / "compare.json").write_text(report, "utf-8")
    return json.loads(report)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} +- {statistics.pstdev(values):.4f}"


def rows_of(reports: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Means and standard deviations over the seeds; the fewest bits per byte first.

    The last column: in how many seeds it has fewer bits per byte than every random draw, and than every one
    of the same lengths.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for selection in report["selections"]:
            found.setdefault(selection["name"], []).append(selection)

    def bits(name: str) -> float:
        return statistics.mean(selection["measures"]["bits_per_byte"] for selection in found[name])

    for name in sorted(found, key=bits):
        chosen = found[name]
        own = [spread([selection["measures"][m] for selection in chosen]) for m in MEASURES]
        docs = statistics.mean(selection["measures"]["docs"] for selection in chosen)
        beats, controls = [], []
        for kind in ("random", "same lengths"):
            of_kind = [selection["controls"][kind]["bits_per_byte"] for selection in chosen]
            controls.append(f"{statistics.mean(control['mean'] for control in of_kind):.4f}")
            beats.append(
                sum(
                    selection["measures"]["bits_per_byte"] < min(control["values"])
                    for selection, control in zip(chosen, of_kind, strict=True)
                )
            )
        yield [name, f"{docs:,.0f}", *own, controls[1], "/".join(map(str, beats))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", nargs="+", required=True, help="glob patterns of shards")
    parser.add_argument("--target", nargs="+", required=True, help="files, or: random")
    parser.add_argument("--words", type=int, default=150_000, help="what every selector keeps")
    parser.add_argument("--folder", type=Path, required=True, help="for everything that is written")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--controls", type=int, default=2, help="random draws of each kind for every seed")
    arguments = parser.parse_args()
    whole = list(dict.fromkeys(texts_of(arguments.raw)))
    for target in arguments.target:
        reports = []
        for seed in range(arguments.seeds):
            folder = arguments.folder / Path(target).stem / str(seed)
            prepare(folder, whole, target, seed)
            recipes = run_selectors(folder, arguments.words, seed)
            reports.append(compare(folder, recipes, arguments.controls))
        tokens = statistics.mean(report["tokens"] for report in reports)
        print(f"\n{target}: {tokens:,.0f} tokens each, {arguments.seeds} seeds")
        head = ["", "docs", *MEASURES.values(), "same lengths", "beats"]
        print("\n".join(table([head, *rows_of(reports)])), flush=True)


if __name__ == "__main__":
    main()
