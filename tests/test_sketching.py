"""Signatures that datasketch reads as its own."""

from __future__ import annotations

import json
import re

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import LeanMinHash, MinHash

from dataselect.io import lean_minhash
from dataselect.kernels import reference
from dataselect.kernels.arrow import text_buffers

TOKENS = [b"the quick", b"quick brown", b"brown fox"]
GOLDEN = {
    "legacy": (
        [418309714, 646447938, 568966711, 575538264],
        "01000000000000000400000052e6ee184203882637bee92158044e22",
    ),
    "affine32": (
        [171415518, 2947859791, 834529472, 463664658],
        "0100000000000000fcffffff01de97370a4fc5b4afc0e8bd3112f6a21b",
    ),
}


def sha1_hash32(data):
    import hashlib

    return int.from_bytes(hashlib.sha1(data).digest()[:4], "little")


@pytest.mark.parametrize("scheme", GOLDEN)
def test_golden_vectors_of_datasketch(scheme):
    values, lean = GOLDEN[scheme]
    hashes = np.array([sha1_hash32(token) for token in TOKENS], np.uint32)
    signature = getattr(lean_minhash, f"{scheme}_signature")(hashes, 4)
    assert signature.tolist() == values
    assert lean_minhash.lean_bytes(signature, scheme).hex() == lean
    if scheme == "legacy":
        a, b = lean_minhash.legacy_params(2)
        assert (a.tolist(), b.tolist()) == (
            [775169054918279404, 2109959069025162],
            [1758426461858698312, 965365488286768773],
        )


@pytest.mark.parametrize("scheme, shingle_hash", [(s, h) for s in GOLDEN for h in ("own", "sha1")])
def test_exported_signatures_are_those_of_datasketch(cli, tmp_path, scheme, shingle_hash):
    docs = [corpora.Doc("none", ""), corpora.Doc("short", "Two words"), *corpora.docs(12)]
    corpora.write_shard(tmp_path / "a.jsonl.zst", docs)
    corpora.write_shard(tmp_path / "b.parquet", docs)
    options = [
        "--scheme",
        scheme,
        "--hash",
        shingle_hash,
        *["--seed", "7", "--num-perm", "32", "--ngram", "3", "--id", "id"],
    ]
    result = cli("sketch", tmp_path / "*", "--out", tmp_path / "sketches", *options, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["docs"] == 2 * len(docs)
    rows = pq.read_table(tmp_path / "sketches").to_pylist()
    assert [row["id"] for row in rows] == [doc.id for doc in docs] * 2
    assert {row["shard"] for row in rows} == {"a.jsonl.zst", "b.parquet"}
    for row, doc in zip(rows, [*docs, *docs], strict=True):
        words = re.findall(r"\w+", doc.text.lower())
        length = min(3, len(words))
        shingles = [" ".join(words[i : i + length]).encode() for i in range(len(words) - length + 1)]
        theirs = LeanMinHash.deserialize(row["lean_minhash"], byteorder="<")
        assert (theirs.seed, len(theirs)) == (7, 32)
        if shingle_hash == "sha1":
            ours = MinHash(num_perm=32, seed=7, scheme=scheme)
            ours.update_batch(shingles if words else [])
        else:
            ours = MinHash(num_perm=32, seed=7, scheme=scheme, hashfunc=int)
            text = text_buffers(pa.array([doc.text], pa.large_string()))
            ours.update_batch((reference.shingle_hashes(*text, 3)[1] >> np.uint64(32)).tolist())
        np.testing.assert_array_equal(theirs.hashvalues, ours.hashvalues)


def test_mistakes_are_one_line(cli, tmp_path):
    corpora.write_shard(tmp_path / "a.jsonl", corpora.docs(2))
    for options, expected in [
        (["--scheme", "sha256"], "--scheme is affine32 or legacy"),
        (["--hash", "md5"], "--hash is own or sha1"),
    ]:
        result = cli("sketch", tmp_path / "a.jsonl", "--out", tmp_path / "out", *options)
        assert result.code == 2
        assert expected in result.err
    result = cli("sketch", tmp_path / "nothing*", "--out", tmp_path / "out")
    assert (result.code, "no file matches" in result.err) == (2, True)
    result = cli("sketch", tmp_path / "a.jsonl", "--out", tmp_path / "a.jsonl")
    assert (result.code, "is one of the shards" in result.err) == (2, True)
