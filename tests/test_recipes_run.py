"""Every recipe that follows a published data set runs, and each of its stages has something to do."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import corpora
import pytest
import yaml
from fasttext_files import KeywordModel

import dataselect

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = [
    "dclm-baseline",
    "fineweb",
    "fineweb-edu",
    "gneissweb",
    "preselect",
    "redpajama-v2",
    "refinedweb-dolma",
]
SMALL = ["--dim", "4", "--bucket", "1000"]
"""Added to the recipes' own commands: the usual size is 800 MB."""


WORDS = [word for word in corpora.GENERAL if len(word) > 4]


def prose(*seed, also="", n_sentences=10):
    """Sentences that every rule of the presets lets pass, two a line, four a paragraph."""
    text = ""
    for i in range(n_sentences):
        draws = [corpora.number(i, k, *seed) for k in range(10)]
        words = [WORDS[draw % len(WORDS)] for draw in draws]
        words[2 + draws[0] % 3] = "the"
        words[5 + draws[1] % 2] = "with"
        words[7] = also or "of"
        text += " ".join(words).capitalize() + "." + ("\n\n" if i % 4 == 3 else "\n" if i % 2 else " ")
    return text.strip()


def near_copy(text):
    return text.replace("with", "without", 1)


def unpunctuated(text):
    return "\n".join(line.strip() + " and" for line in text.replace(".", "\n").split("\n") if line.strip())


GOOD = [prose("good", i) for i in range(12)]
TEXTS = [
    *GOOD,
    prose("short", n_sentences=2),
    prose("symbols", also="# #"),
    "\n".join(["The cat and the dog have been with us for all of the day."] * 12),
    prose("code").replace(" with", " { with", 1),
    unpunctuated(prose("list")),
    prose("menu") + "".join(f"\n{n} likes" for n in range(10)),
    prose("foreign").replace(" the ", " het ").replace(" of ", " van "),
    prose("low", also="casino"),
    prose("toxic", also="idiot"),
    prose("adult", also="nude"),
    prose("best", also="theorem"),
    GOOD[0],
    near_copy(GOOD[1]),
]
ANNOTATES = {"signals", "fasttext_quality", "language"}
"""Stages that drop nothing where no limit is set."""
LIMITS = {"min", "max", "only", "keep"}


def rows():
    for i, text in enumerate(TEXTS):
        yield {"id": f"d{i}", "url": f"https://site{i}.example/page", "text": text}
    yield {"id": "blocked", "url": "http://www.spam.example/", "text": prose("blocked")}


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(corpora.zstd(data) if path.suffix == ".zst" else data)


def write_models(folder):
    """Models under the names that the recipes use; each hears "the" in all texts, and one word louder."""
    folder.mkdir()

    def write(name, labels, **votes):
        KeywordModel.of(labels, votes).write(folder / name)

    languages = ["en", "de", "fr", "es", "it", "nl"]
    write("lid.176.bin", languages, the=("en", 9.0), het=("nl", 9.0), van=("nl", 9.0))
    names = ["openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin", "gneissweb-quality.bin"]
    for name in names:
        write(name, ["hq", "cc"], the=("hq", 4.0), casino=("cc", 99.0))
    for label in ("toxic", "nsfw"):
        kind = {"toxic": "hatespeech", "nsfw": "nsfw"}[label]
        word = {"toxic": "idiot", "nsfw": "nude"}[label]
        name = f"jigsaw_fasttext_bigrams_{kind}_final.bin"
        write(name, [label, f"non-{label}"], the=(f"non-{label}", 4.0), **{word: (label, 99.0)})
    for label in ("medical", "education", "technology_computing", "science"):
        name = f"gneissweb-{label.split('_', maxsplit=1)[0]}.bin"
        write(name, [label, "cc"], the=("cc", 4.0), theorem=(label, 99.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """RAW, LISTS, MODELS, OUT and samples with grades, as the recipes want them; the recipes beside them."""
    folder = tmp_path_factory.mktemp("recipes")
    names = {name: folder / name.lower() for name in ("RAW", "LISTS", "MODELS", "OUT", "GRADED", "SCORED")}
    write_jsonl(names["RAW"] / "a/one.jsonl.zst", rows())
    write_models(names["MODELS"])
    names["LISTS"].mkdir()
    for name, line in {"domains": "spam.example", "hard-words": "badword", "soft-words": "soso"}.items():
        (names["LISTS"] / f"{name}.txt").write_text(line + "\n")
    for name, column, best in (("GRADED", "grade", 5), ("SCORED", "strength", 15)):
        graded = (
            {"text": prose("graded", i, also="theorem" if i % 2 else "casino"), column: best * (i % 2)}
            for i in range(40)
        )
        write_jsonl(names[name] / "sample.jsonl", graded)
    return names


def recipe_commands(path):
    """The `dataselect train` commands of a recipe's comment."""
    comment = re.match(r"(#.*\n)*", path.read_text("utf-8"))[0]
    lines = re.sub(r"\\\n#", "", comment).splitlines()
    found = [line.removeprefix("#").strip() for line in lines]
    return [shlex.split(line)[1:] for line in found if line.startswith("dataselect train ")]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_each_of_its_stages_has_something_to_do(name, world, cli, serial, monkeypatch):
    for variable, path in world.items():
        monkeypatch.setenv(variable, str(path))
    path = CONFIGS / f"{name}.yaml"
    for command in recipe_commands(path):
        pytest.importorskip("fasttext", reason="training needs the fasttext package")
        done = cli(*map(os.path.expandvars, command), *SMALL)
        assert done.code == 0, done.err
    report = dataselect.run(path)
    assert report["rows"]["quarantined"] == 0
    stages = yaml.safe_load(path.read_text("utf-8"))["stages"]
    for stage, flow in zip(stages, report["funnel"], strict=True):
        before, after = flow["in"]["docs"], flow["out"]["docs"]
        annotates = stage["use"] in ANNOTATES and not LIMITS & set(stage)
        assert after == before if annotates else 0 < after < before, f"{stage['use']}: {before} -> {after}"
