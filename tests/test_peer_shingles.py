"""Shingles as other tools make them: hand-made examples, and their normalisation beside plain Python."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata

import corpora
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dataselect
from dataselect.kernels import reference, reference_peers
from dataselect.stages.base import Texts
from dataselect.stages.minhash_dedup import MinhashDedup
from dataselect.stages.peer_shingles import simplified

ALPHABET = [
    *"aAeIzZ ,.!'\"-_\\^][#$%09\t\n\r\x00\x0b\x1c\x7f\x85\xa0",
    "é",
    "e\u0301",
    "ﬁ",
    "İ",
    "ß",
    "Å",
    "\u212b",
]
ALPHABET += [
    *"Σσςα·’“”…—、。？％٣٫،५½²Ⅷ日本한ไทย🙂€•\u200d\u200b\u2028\u3000\u037e",
    "1.5",
    "10,000",
    "٣٫١٤",
    "don't",
    "ΟΔΟΣ",
]
PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
CONTROLS = "".join(map(chr, [*range(9), 11, 12, *range(13, 32), *range(127, 160)]))


def in_python(text):
    text = re.sub(r"\d+([.,،٫⎖⎗⎘]\d+)?", "0", text.lower())
    text = " ".join(text.translate(dict.fromkeys(map(ord, PUNCTUATION + CONTROLS), " ")).split())
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ALPHABET), max_size=30).map("".join))
@example("ΑΣ ΟΣ. ΣΑΣ Σ ΑΣ'Α ΑΣ\u0301 ΣΣ Α·Σ")
def test_texts_are_simplified_as_datatrove_does(text):
    (ours,) = simplified(pa.array([text], pa.large_string())).to_pylist()
    assert ours.strip() == in_python(text).strip()


def runs(tokens, n, hash_of):
    hashes = [hash_of(token) for token in tokens]
    n = min(n, len(hashes))
    return {
        reference.mix64(reference.run_value(hashes[i : i + n])) for i in range(len(hashes) - n + 1) if hashes
    }


def words(tokens, n):
    return runs(tokens, n, lambda token: reference.bytes_hash(token.encode()))


def pieces(tokens, n):
    return runs(tokens, n, lambda token: reference_peers.folded(list(token)))


def chars(text, n):
    return runs(text, n, lambda char: reference.mix64(ord(char) ^ reference.GOLDEN))


EXAMPLES = [
    (
        {"shingles": "datatrove", "ngram": 3},
        "Café, 3.14 €5 CAN'T we?",
        words(["cafe", "0", "€", "0", "can", "t", "we"], 3),
    ),
    ({"shingles": "datatrove", "ngram": 2}, "we cannot gonna", words(["we", "can", "not", "gon", "na"], 2)),
    ({"shingles": "datatrove", "ngram": 5}, "only four words here!", set()),
    ({"shingles": "datatrove", "ngram": 1}, " ... ", set()),
    ({"shingles": "text-dedup", "ngram": 2}, "A, b -- İx", pieces(["a", "", "b", "", "", "", "i", "x"], 2)),
    (
        {"shingles": "text-dedup", "ngram": 9},
        "one two ΔΎΟΣ four.",
        pieces(["one", "two", "δύος", "four", ""], 9),
    ),
    ({"shingles": "text-dedup", "ngram": 2}, "one two ΔΎΟ four", set()),
    (
        {"shingles": "nemo"},
        "A text, of more than 24 Characters.",
        chars("A text, of more than 24 Characters.", 24),
    ),
    ({"shingles": "nemo", "char_ngram": 3}, "Aé", chars("Aé", 3)),
    ({"shingles": "nemo"}, "", set()),
]


@pytest.mark.parametrize(
    "params, text, expected", EXAMPLES, ids=[f"{p['shingles']} {t}" for p, t, _ in EXAMPLES]
)
def test_shingles_of_other_tools(params, text, expected):
    stage = MinhashDedup.model_validate(params)
    texts = Texts(pa.array(["x " * 30, text, ""], pa.large_string()))
    first, hashes = stage.shingle_sets(texts)
    sets = [{*hashes[start:stop].tolist()} for start, stop in itertools.pairwise(first.tolist())]
    assert sets[1:] == [expected, set()]
    assert {*stage.dedup_keys(texts).docs.tolist()} == ({0, 1} if expected else {0})


def test_documents_with_the_same_shingles_have_the_same_keys():
    stage = MinhashDedup.model_validate({"shingles": "datatrove"})
    texts = ["The cost: 1,000 euros, in Café Noir!", "the cost 7 euros in cafe  NOIR"]
    keys = stage.dedup_keys(Texts(pa.array(texts, pa.large_string())))
    n_bands = stage.keys_per_doc()
    assert keys.keys[:n_bands].tolist() == keys.keys[n_bands:].tolist()
    assert (keys.signatures[0] == keys.signatures[1]).all()


def test_tokens_and_shingles_exclude_each_other():
    with pytest.raises(ValueError, match="tokens: shingles: nemo says what shingles are made of"):
        MinhashDedup.model_validate({"shingles": "nemo", "tokens": "chars"})
    own, nemo = MinhashDedup(), MinhashDedup.model_validate({"shingles": "nemo"})
    assert [s.compute_params()["char_ngram"] for s in (own, nemo)] == [8, 24]


def test_candidates_are_verified_by_the_same_shingles(tmp_path, serial):
    words = ["word" + chr(97 + i // 10) + chr(97 + i % 10) for i in range(60)]
    texts = {
        "a": " ".join(words),
        "b": ", ".join(words).upper() + "! 1,000",
        "c": " ".join(words[::-1]),
        "short": "four words are here",
        "again": "four words are here",
    }
    rows = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in texts.items())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").write_text(rows)
    kept = {}
    for shingles in ("own", "datatrove", "text-dedup", "nemo"):
        stage = {"use": "minhash_dedup", "shingles": shingles, "verify": "exact", "threshold": 0.9}
        dataselect.run(corpora.write_recipe(tmp_path, [stage], input={"shards": "in/*"}))
        kept[shingles] = corpora.kept_ids(tmp_path / "out")
    # datatrove sees no case, punctuation or number; text-dedup's commas are words; neither it nor datatrove
    # has shingles of fewer than five words.
    assert kept == {
        "own": ["a", "c", "short"],
        "datatrove": ["a", "c", "short", "again"],
        "text-dedup": ["a", "b", "c", "short", "again"],
        "nemo": ["a", "b", "c", "short"],
    }
