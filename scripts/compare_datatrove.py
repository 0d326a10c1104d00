"""Agreement of the @datatrove presets with datatrove itself, rule by rule, and the speed of both.

    pip install 'datatrove[processing]==0.10.1' spacy==3.8.18
    python scripts/compare_datatrove.py SHARD [SHARD ...] [--docs 5000] [--field text] [--json]

For each rule: documents that datatrove drops, that we drop, that both drop, and both / either. Every rule
is asked alone on both sides. Rules that drop fewer than 30 of the documents are also asked on made-up
documents, real ones with more of what the rule is about. Then words that differ, with the tokeniser's
answer for the first; and texts as C4's line filter leaves them, compared byte for byte where both keep the
document.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.io.reader import iter_file_texts
from dataselect.stages.base import Texts
from dataselect.stages.c4 import C4Datatrove
from dataselect.stages.fineweb import FineWebDatatrove
from dataselect.stages.gopher_quality import GopherQualityDatatrove
from dataselect.stages.gopher_repetition import GopherRepetitionDatatrove
from dataselect.stages.preset import Preset

FEW = 30
OFF_QUALITY: dict[str, Any] = dict.fromkeys(
    [
        "min_doc_words",
        "max_doc_words",
        "min_avg_word_length",
        "max_avg_word_length",
        "max_symbol_word_ratio",
        "max_bullet_lines_ratio",
        "max_ellipsis_lines_ratio",
        "max_non_alpha_words_ratio",
        "min_stop_words",
    ]
)
OFF_REPETITION: dict[str, Any] = {
    **dict.fromkeys(["dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"]),
    "top_n_grams": (),
    "dup_n_grams": (),
}
NEVER_FINEWEB = {"line_punct_thr": 0, "short_line_thr": 2, "char_duplicates_ratio": 2, "new_line_ratio": 1e9}


@dataclass(frozen=True)
class Pair:
    """One rule, or a whole preset, as datatrove's filter and as a stage."""

    name: str
    theirs: Callable[[Any], Any]
    ours: Preset
    more: str = ""
    """What made-up documents get more of."""


def off(cls: type[Preset], **on: Any) -> Preset:
    """The preset with every rule off but those given."""
    return cls.model_validate(dict.fromkeys(rule.parameter for rule in cls.rules) | on)


def pairs() -> list[Pair]:
    filters = importlib.import_module("datatrove.pipeline.filters")
    quality, repetition = filters.GopherQualityFilter, filters.GopherRepetitionFilter
    c4, fineweb = filters.C4QualityFilter, filters.FineWebQualityFilter

    def q(name: str, theirs: dict[str, Any], more: str, **ours: Any) -> Pair:
        reason = {
            "max_hash_ratio": "gopher_too_many_hashes",
            "max_ellipsis_ratio": "gopher_too_many_ellipsis",
        }
        block = quality(**{**OFF_QUALITY, **theirs})
        return Pair(
            f"gopher_quality: {name}",
            only(block, reason.get(name)),
            off(GopherQualityDatatrove, **ours),
            more,
        )

    def r(name: str, theirs: dict[str, Any], more: str, **ours: Any) -> Pair:
        block = repetition(**{**OFF_REPETITION, **theirs})
        return Pair(f"gopher_repetition: {name}", only(block), off(GopherRepetitionDatatrove, **ours), more)

    def f(name: str, theirs: dict[str, Any], more: str, **ours: Any) -> Pair:
        block = fineweb(**{**NEVER_FINEWEB, **theirs})
        return Pair(f"fineweb: {name}", only(block), off(FineWebDatatrove, min_lines=1, **ours), more)

    return [
        q("min_words", {"min_doc_words": 50}, "cut", min_words=50),
        q("max_words", {"max_doc_words": 100_000}, "times", max_words=100_000),
        q("min_mean_word_length", {"min_avg_word_length": 3}, "short", min_mean_word_length=3),
        q("max_mean_word_length", {"max_avg_word_length": 10}, "long", max_mean_word_length=10),
        q("max_hash_ratio", {"max_symbol_word_ratio": 0.1}, "#", max_hash_ratio=0.1),
        q("max_ellipsis_ratio", {"max_symbol_word_ratio": 0.1}, "...", max_ellipsis_ratio=0.1),
        q("max_bullet_lines", {"max_bullet_lines_ratio": 0.9}, "bullets", max_bullet_lines=0.9),
        q("max_ellipsis_lines", {"max_ellipsis_lines_ratio": 0.3}, "line ends", max_ellipsis_lines=0.3),
        q("min_alpha_words", {"max_non_alpha_words_ratio": 0.8}, "numbers", min_alpha_words=0.8),
        q("min_stop_words", {"min_stop_words": 2}, "", min_stop_words=2),
        Pair("gopher_quality, whole", only(quality()), GopherQualityDatatrove.model_validate({})),
        r("max_dup_paragraphs", {"dup_para_frac": 0.3}, "paragraphs", max_dup_paragraphs=0.3),
        r("max_dup_paragraph_chars", {"dup_para_char_frac": 0.2}, "paragraphs", max_dup_paragraph_chars=0.2),
        r("max_dup_lines", {"dup_line_frac": 0.3}, "lines", max_dup_lines=0.3),
        r("max_dup_line_chars", {"dup_line_char_frac": 0.2}, "lines", max_dup_line_chars=0.2),
        *[
            r(f"max_top_{n}gram", {"top_n_grams": ((n, x),)}, "phrase", **{f"max_top_{n}gram": x})
            for n, x in ((2, 0.2), (3, 0.18), (4, 0.16))
        ],
        *[
            r(f"max_dup_{n}gram", {"dup_n_grams": ((n, x),)}, "phrase", **{f"max_dup_{n}gram": x})
            for n, x in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
        ],
        Pair("gopher_repetition, whole", only(repetition()), GopherRepetitionDatatrove.model_validate({})),
        Pair(
            "c4: lorem_ipsum",
            only(c4(min_num_sentences=-1), "lorem_ipsum"),
            off(C4Datatrove, max_lorem_ipsum_lines=0),
            "lorem",
        ),
        Pair(
            "c4: curly_bracket",
            only(c4(min_num_sentences=-1), "curly_bracket"),
            off(C4Datatrove, max_curly_bracket_lines=0),
            "curly",
        ),
        Pair(
            "c4: min_sentences",
            only(c4(filter_lorem_ipsum=False, filter_curly_bracket=False)),
            C4Datatrove.model_validate({"max_lorem_ipsum_lines": None, "max_curly_bracket_lines": None}),
        ),
        Pair("c4, whole", only(c4()), C4Datatrove.model_validate({})),
        Pair(
            "c4 as in FineWeb, whole",
            only(c4(filter_no_terminal_punct=False)),
            C4Datatrove.model_validate({"terminal_punctuation": False}),
        ),
        f("min_punct_lines", {"line_punct_thr": 0.12}, "", min_punct_lines=0.12),
        f("max_short_lines", {"short_line_thr": 0.67}, "", max_short_lines=0.67),
        f("max_dup_line_chars", {"char_duplicates_ratio": 0.01}, "lines", max_dup_line_chars=0.01),
        f("max_newline_ratio", {"new_line_ratio": 0.3}, "newlines", max_newline_ratio=0.3),
        Pair("fineweb, whole", only(fineweb()), FineWebDatatrove.model_validate({})),
    ]


def only(block: Any, reason: str | None = None) -> Callable[[Any], Any]:
    """Datatrove's verdict on a text: whether it is dropped (for that reason)."""
    document = importlib.import_module("datatrove.data").Document

    def dropped(text: str) -> bool:
        try:
            answer = block.filter(document(text=text, id="0"))
        except ZeroDivisionError:
            return False  # no words: only with the word minimum off
        return answer is not True and (reason is None or answer[1] == reason)

    return dropped


def remember_tokens() -> None:
    """Let datatrove's filters share one tokenisation of a text, or 30 rules would take half an hour."""
    text = importlib.import_module("datatrove.utils.text")
    for name in ("gopher_quality_filter", "gopher_repetition_filter", "fineweb_quality_filter", "c4_filters"):
        module = importlib.import_module(f"datatrove.pipeline.filters.{name}")
        for function in ("split_into_words", "split_into_sentences"):
            if hasattr(module, function):
                setattr(module, function, functools.cache(getattr(text, function)))


def broken(preset: Preset, texts: list[str]) -> np.ndarray:
    """bool[n]: dropped by the stage."""
    batch = Texts(pa.array(texts, pa.large_string()))
    rules = preset.keep(preset.columns(batch, {}))
    return np.logical_or.reduce([*rules.values(), np.zeros(len(texts), bool)])


def made_up(texts: list[str], more: str) -> list[str]:
    """Real documents changed until some of them break the rule and some do not."""
    draw = random.Random(1)
    chosen = texts[: 12 if more == "times" else 200]
    return [changed(text, more, draw.random(), draw) for text in chosen]


def changed(text: str, more: str, share: float, draw: random.Random) -> str:
    """The text with a random share of its words or lines changed."""
    lines, words = text.split("\n"), text.split()

    def some(items: list[str], change: Callable[[str], str], probability: float) -> list[str]:
        return [change(item) if draw.random() < probability else item for item in items]

    if more == "cut":
        return " ".join(words[: draw.randint(20, 70)])
    if more == "times":
        return (text + "\n") * (60_000 * draw.randint(1, 2) // max(len(words), 1) + 1)
    if more in ("short", "long", "#", "...", "numbers"):
        change: dict[str, tuple[Callable[[str], str], float]] = {
            "short": (lambda word: word[:2], 1),
            "long": (lambda word: word * 3, 1),
            "#": (lambda word: f"#{word}", 0.25),
            "...": (lambda word: f"{word}...", 0.25),
            "numbers": (lambda word: "12", 0.5),
        }
        return " ".join(some(words, change[more][0], share * change[more][1]))
    if more == "phrase":
        starts = range(0, len(words), 12)
        pieces = [words[:12] if draw.random() < share / 2 else words[i : i + 12] for i in starts]
        return " ".join(word for piece in pieces for word in piece)
    if more == "newlines":
        return "".join(word + (" " if draw.random() > share else "\n") for word in words)
    if more in ("lorem", "curly"):
        line = {"lorem": "Lorem ipsum dolor sit amet.", "curly": "A line with {braces} in it."}[more]
        return "\n".join([*lines, line] if share < 0.5 else lines)
    if more == "bullets":
        return "\n".join(some(lines, lambda line: f"- {line}", share + 0.5))
    if more == "line ends":
        return "\n".join(some(lines, lambda line: f"{line}…", share))
    between = "\n\n" if more == "paragraphs" else "\n"
    return between.join(some(lines, lambda line: f"{line}{between}{line}", share))


def compare(pair: Pair, texts: list[str]) -> dict[str, Any]:
    """Numbers of documents that each side drops."""
    theirs, ours = np.array([pair.theirs(text) for text in texts]), broken(pair.ours, texts)
    both, either = int((theirs & ours).sum()), int((theirs | ours).sum())
    return {
        "rule": pair.name,
        "docs": len(texts),
        "theirs": int(theirs.sum()),
        "ours": int(ours.sum()),
        "both": both,
        "both_of_either": both / either if either else 1.0,
        "agree": float((theirs == ours).mean()),
        "differ": np.flatnonzero(theirs != ours)[:5].tolist(),
    }


def speed(texts: list[str]) -> dict[str, float]:
    """MB of text per CPU second of the four filters in FineWeb's order, theirs and ours, without reading."""
    filters = importlib.import_module("datatrove.pipeline.filters")
    document = importlib.import_module("datatrove.data").Document
    sample = texts[:400]
    blocks = [
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
    ]
    start = time.process_time()
    for text in sample:
        doc = document(text=text, id="0")
        all(block.filter(doc) is True for block in blocks)
    theirs = sum(len(t.encode()) for t in sample) / 1e6 / (time.process_time() - start)
    array = pa.array(texts, pa.large_string())
    stages = [
        GopherRepetitionDatatrove.model_validate({}),
        GopherQualityDatatrove.model_validate({}),
        C4Datatrove.model_validate({"terminal_punctuation": False}),
        FineWebDatatrove.model_validate({}),
    ]
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        batch = Texts(array, wanted=wanted(stages))
        for stage in stages:
            rules = stage.keep(stage.columns(batch, {}))
            batch = batch.take(~np.logical_or.reduce([*rules.values()]))
        best = min(best, time.process_time() - start)
    return {"datatrove": theirs, "dataselect": sum(len(t.encode()) for t in texts) / 1e6 / best}


def wanted(stages: list[Preset]) -> dict[Any, int]:
    """What the engine gives a read's batches."""
    out: dict[Any, int] = {}
    for name, bits in (stage.wants() for stage in stages):
        out[name] = out.get(name, 0) | bits
    return out


def tokens_that_differ(texts: list[str]) -> dict[str, Any]:
    """Documents whose number of words differs, and the first few chunks that do."""
    tokenizer = importlib.import_module("datatrove.utils.word_tokenizers").load_word_tokenizer("en")
    layout = importlib.import_module("dataselect.kernels.layout")

    def count(items: list[str]) -> np.ndarray:
        batch = Texts(pa.array(items, pa.large_string()))
        counts = np.zeros((len(items), layout.N_COUNTS), np.int64)
        kernel = importlib.import_module("dataselect.kernels.signals").document_counts
        kernel(batch.offsets, batch.data, layout.SPACY_WORDS, counts)
        return counts[:, layout.SPACY_AT + layout.N_WORDS]

    theirs = np.array([len(tokenizer.word_tokenize(text)) for text in texts])
    differ = np.flatnonzero(count(texts) != theirs)
    chunks = list(dict.fromkeys(chunk for i in differ for chunk in texts[i].split()))
    ours = count(chunks)
    split = [(c, tokenizer.word_tokenize(c), int(n)) for c, n in zip(chunks, ours, strict=True)]
    return {
        "documents": len(differ),
        "tokens": int(theirs.sum()),
        "examples": [(c[:40], t[:6], n) for c, t, n in split if len(t) != n][:10],
    }


def edited_texts_that_differ(texts: list[str], **params: bool) -> dict[str, Any]:
    """Documents that both C4 filters keep, how many of these they edit, and the first whose texts differ."""
    filters = importlib.import_module("datatrove.pipeline.filters")
    document = importlib.import_module("datatrove.data").Document
    block = filters.C4QualityFilter(filter_no_terminal_punct=params["terminal_punctuation"])
    docs = [document(text=text, id="0") for text in texts]
    preset = C4Datatrove.model_validate(params)
    theirs = np.array([block.filter(doc) is True for doc in docs])
    kept = np.flatnonzero(theirs & ~broken(preset, texts)).tolist()
    batch = Texts(pa.array(texts, pa.large_string()))
    ours = preset.edits(batch, {}).applied_to(batch.array).to_pylist()
    return {
        "both_keep": len(kept),
        "edited": sum(ours[i] != texts[i] for i in kept),
        "differ": [i for i in kept if ours[i] != docs[i].text][:5],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--field", default="text")
    parser.add_argument("--docs", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    arrays = (a for path in options.shards for a in iter_file_texts(str(path), options.field))
    texts = [text for array in arrays for text in array.to_pylist()][: options.docs]
    speeds = speed(texts)
    tokens = tokens_that_differ(texts)
    remember_tokens()
    edits = [edited_texts_that_differ(texts, terminal_punctuation=on) for on in (True, False)]
    rows = []
    for pair in pairs():
        row = compare(pair, texts)
        rows.append(row)
        if pair.more and max(row["theirs"], row["ours"]) < FEW:
            rows.append(compare(pair, made_up(texts, pair.more)) | {"rule": f"{pair.name} (made-up)"})
    if options.json:
        print(json.dumps({"rules": rows, "speed": speeds, "tokens": tokens, "edits": edits}))
        return
    print(f"{'rule':44} {'theirs':>6} {'ours':>6} {'both':>6}  both/either   agree")
    for row in rows:
        print(
            f"{row['rule']:44} {row['theirs']:6} {row['ours']:6} {row['both']:6} "
            f"{row['both_of_either']:12.2%}  {row['agree']:8.3%}  {row['differ'] or ''}"
        )
    print(
        f"MB per CPU second, four filters: datatrove {speeds['datatrove']:.2f}, "
        f"ours {speeds['dataselect']:.1f}"
    )
    for name, found in zip(("c4", "c4 as in FineWeb"), edits, strict=True):
        print(
            f"{name}: both keep {found['both_keep']}, edit {found['edited']}, texts differ: {found['differ']}"
        )
    print(f"documents with another number of tokens: {tokens['documents']}, {tokens['examples']}")


if __name__ == "__main__":
    main()
