"""Whether `minhash_dedup: shingles` makes the shingles that datatrove, text-dedup and NeMo Curator make.

    pip install 'datatrove[processing]==0.10.1' spacy==3.8.18 text-dedup==0.4.0
    python scripts/compare_shingles.py SHARD [SHARD ...] [--docs 2000] [--field text]

For each tool: how many documents have the same set of shingles, as the tool's own functions give it, and the
first that differ. NeMo's are made on GPUs; theirs are taken to be all substrings of 24 characters.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import pyarrow as pa

from dataselect.io.reader import iter_file_texts
from dataselect.kernels.reference import GOLDEN, bytes_hash, mix64, run_value
from dataselect.kernels.reference_peers import folded
from dataselect.stages.base import Texts
from dataselect.stages.minhash_dedup import MinhashDedup


def runs(tokens: Sequence[str], n: int, hash_of: Callable[[str], int]) -> set[int]:
    """The 64-bit hashes of the shingles, as ours are made from the hashes of their tokens."""
    hashes = [hash_of(token) for token in tokens]
    n = min(n, len(hashes))
    return {mix64(run_value(hashes[i : i + n])) for i in range(len(hashes) - n + 1)} if hashes else set()


def datatrove() -> Callable[[str], set[int]]:
    text = importlib.import_module("datatrove.utils.text")
    words = importlib.import_module("datatrove.utils.word_tokenizers").load_word_tokenizer("en")
    hash_of = cache(lambda token: bytes_hash(token.encode()))

    def shingles(document: str) -> set[int]:
        tokens = words.word_tokenize(text.simplify_text(document))
        return set().union(*(runs(shingle, 5, hash_of) for shingle in text.ngrams(tokens, 5)))

    return shingles


def text_dedup() -> Callable[[str], set[int]]:
    # Importing text_dedup.minhash starts processes; these are its two lines.
    ngrams = importlib.import_module("text_dedup.utils.tokenization").ngrams
    split = importlib.import_module("re").compile(r"\W").split
    hash_of = cache(lambda token: folded(list(token)))

    def shingles(document: str) -> set[int]:
        return set().union(*(runs(shingle, 5, hash_of) for shingle in ngrams(split(document.lower()), 5, 5)))

    return shingles


def nemo() -> Callable[[str], set[int]]:
    hash_of = cache(lambda char: mix64(ord(char) ^ GOLDEN))
    return lambda document: runs(document, 24, hash_of)


def ours(stage: MinhashDedup, documents: Sequence[str]) -> Iterable[set[int]]:
    texts = Texts(pa.array(documents, pa.large_string()))
    first, hashes = stage.shingle_sets(texts)
    for start, stop in itertools.pairwise(first.tolist()):
        yield {*hashes[start:stop].tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--field", default="text")
    arguments = parser.parse_args()
    documents: list[str] = []
    for path in arguments.shards:
        texts = (text for batch in iter_file_texts(path, arguments.field) for text in batch.to_pylist())
        documents += itertools.islice(texts, -(-arguments.docs // len(arguments.shards)))
    for name, theirs in (("datatrove", datatrove), ("text-dedup", text_dedup), ("nemo", nemo)):
        stage = MinhashDedup.model_validate({"shingles": name})
        expected = [*map(theirs(), documents)]
        same = [a == b for a, b in zip(expected, ours(stage, documents), strict=True)]
        print(f"{name}: {sum(same):,} of {len(same):,} documents have the same shingles")
        for i in [i for i, equal in enumerate(same) if not equal][:5]:
            print(f"  document {i}: {len(expected[i]):,} shingles of {documents[i][:60]!r}")


if __name__ == "__main__":
    main()
