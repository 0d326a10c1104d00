"""Formats beside plain lines and Parquet: bz2 and xz, Arrow streams, folders that `datasets` saved."""

from __future__ import annotations

import json

import corpora
import pytest

import dataselect
from dataselect.core.errors import BadShard

MEMBERS = ("a.jsonl.bz2", "b.jsonl.xz", "c.ndjson.bz2", "sub/d.json.xz")


def project(folder, shards, docs_per_shard=60, **sections):
    """A recipe over shards of these names."""
    corpora.make_corpus(folder / "in", docs_per_shard, shards)
    spec = {"shards": ["in/**/*.*"], **sections.pop("input", {})}
    return corpora.write_recipe(folder, [{"use": "exact_dedup"}], input=spec, **sections)


# bz2 and xz --------------------------------------------------------------------------------------------


def test_bz2_and_xz_shards_stay_what_they_are(tmp_path):
    recipe = project(tmp_path, MEMBERS, output={"dropped": True})
    report = dataselect.run(recipe, workers=2)
    kept = set(corpora.kept_ids(tmp_path / "out"))
    assert 0 < len(kept) < report["rows"]["in"] == 240
    for i, name in enumerate(sorted(MEMBERS)):
        rows = corpora.docs(60, first=i * 60)
        expected = b"".join(row.line() for row in rows if row.id in kept)
        assert corpora.unpacked(corpora.live(tmp_path / "out") / "shards" / name) == expected
        dropped = corpora.unpacked(corpora.live(tmp_path / "out") / "dropped" / name).splitlines()
        assert [json.loads(line)["id"] for line in dropped] == [row.id for row in rows if row.id not in kept]


def test_their_output_depends_on_rows_alone(tmp_path):
    digests = set()
    for i, (workers, piece_bytes) in enumerate([(1, 128 << 20), (2, 4096), (2, 20_000)]):
        # 4,096 bytes a piece: every shard has several segments.
        spec = {"piece_bytes": piece_bytes, "batch_rows": 7 + 90 * i}
        recipe = project(tmp_path / str(i), MEMBERS[:2], 200, input=spec)
        report = dataselect.run(recipe, workers=workers)
        digests.add((report["digest"], report["row_digest"]))
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["a.jsonl.bz2", "a.jsonl.xz"])
def test_a_cut_shard_stops_the_run_by_name_and_a_whole_one_goes_on(tmp_path, name):
    recipe = project(tmp_path, [name, "b.jsonl"], 300, input={"piece_bytes": 8192})
    shard = tmp_path / "in" / name
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(BadShard, match=rf"{name}: the \w+ stream is truncated .*fetch or make the file"):
        dataselect.run(recipe, workers=1)
    assert not (tmp_path / "out/manifest.json").exists()
    shard.write_bytes(whole)
    assert dataselect.run(recipe, workers=1)["rows"]["in"] == 600
