"""Every row is accounted for: kept, dropped or quarantined, with a reason; a bad shard is never cut short."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import corpora
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import dataselect
from dataselect.core.errors import BadShard, DataselectError
from dataselect.io import batch

GOOD = b'{"id": "g", "text": "a good row"}'
LIMIT = 1_000
BAD_LINES = {
    batch.INVALID_JSON: [b'{"id": "x", "text": "cut', b"plain words", b'"text": "second half"}'],
    batch.INVALID_UTF8: [b'{"text": "caf\xe9"}', b'{"text": "ok", "other": "\xff"}'],
    batch.NOT_AN_OBJECT: [b"[1, 2]", b"null", b'"text"'],
    batch.TWO_VALUES: [GOOD + b" " + GOOD, GOOD + GOOD],
    batch.LONE_SURROGATE: [b'{"text": "half \\ud83d"}'],
    batch.MISSING_TEXT: [b'{"id": "x"}', b'{"text": null}'],
    batch.TEXT_NOT_STRING: [b'{"text": 1}', b'{"text": ["a"]}', b'{"text": {"a": "b"}}'],
    batch.TOO_LONG: [b'{"text": "' + b"long " * 300 + b'"}'],
}
ODD_BUT_GOOD = [
    b'{"text": ""}',
    b'{"text": "caf\\u00e9 \\u0000"}',
    b' {"text": "spaces"} ',
    b'{"text":"x","n":NaN}',
]


def mixed_lines():
    """Bad lines between good ones, and blank lines, which are no rows."""
    lines = [GOOD, *ODD_BUT_GOOD]
    for bad in BAD_LINES.values():
        for line in bad:
            lines += [line, GOOD, b""]
    return lines


def write_bad_parquet(path):
    """Three of eight rows are bad."""
    texts = [b"one", None, b"two", b"caf\xe9", b"three", b"long " * 300, b"four", b"five"]
    table = pa.table({"text": pa.array(texts, pa.binary()).view(pa.string()), "n": list(range(8))})
    pq.write_table(table, path, row_group_size=3)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "in").mkdir()
    data = b"\n".join(mixed_lines())
    (folder / "in" / "a.jsonl").write_bytes(data)
    (folder / "in" / "b.jsonl.gz").write_bytes(gzip.compress(data))
    (folder / "in" / "c.jsonl.zst").write_bytes(corpora.zstd(data, n_frames=3))
    write_bad_parquet(folder / "in" / "d.parquet")
    given = {"shards": ["in/*"], "id": None, "max_row_bytes": LIMIT, "max_bad_rows": 1000}
    corpora.write_recipe(
        folder, [{"use": "length_filter", "min_chars": 5}, {"use": "exact_dedup"}], input=given
    )
    return folder


@pytest.fixture(scope="module")
def report(project):
    return dataselect.run(project / "recipe.yaml")


def test_bad_rows_are_counted_by_reason(report):
    expected = Counter({reason: 3 * len(lines) for reason, lines in BAD_LINES.items()})
    expected += {batch.MISSING_TEXT: 1, batch.INVALID_UTF8: 1, batch.TOO_LONG: 1}
    assert report["quarantined"] == expected
    n_lines = sum(line != b"" for line in mixed_lines())
    assert report["rows"]["in"] == 3 * n_lines + 8
    assert report["rows"]["quarantined"] == expected.total()


def test_rows_in_are_rows_kept_dropped_and_quarantined(report):
    rows = report["rows"]
    assert rows["in"] == rows["kept"] + rows["dropped"] + rows["quarantined"] + rows["unsampled"]
    dropped = sum(rule["docs"] for stage in report["funnel"] for rule in stage["dropped"].values())
    assert dropped == rows["dropped"]
    assert [stage["in"]["docs"] - stage["out"]["docs"] for stage in report["funnel"]] == [
        sum(rule["docs"] for rule in stage["dropped"].values()) for stage in report["funnel"]
    ]
    assert report["funnel"][0]["in"]["docs"] == rows["in"] - rows["quarantined"]
    assert report["funnel"][-1]["out"]["docs"] == rows["kept"]


def test_quarantine_holds_the_raw_lines(project, report):
    folder = corpora.live(project / "out") / "quarantine"
    raw = [line for lines in BAD_LINES.values() for line in lines if len(line) <= LIMIT]
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        assert corpora.unpacked(folder / name).split(b"\n") == [*raw, b""]
    assert pq.read_table(folder / "d.parquet", columns=["n"])["n"].to_pylist() == [1, 3, 5]


def test_decisions_have_every_row_with_its_reason(project, report):
    lines = [line for line in mixed_lines() if line]
    reason_of = {line: reason for reason, bad in BAD_LINES.items() for line in bad}
    rows = [row for row in corpora.decisions(project / "out") if row["shard"] == "b.jsonl.gz"]
    assert [row["row"] for row in rows] == list(range(len(lines)))
    for row, line in zip(rows, lines, strict=True):
        if line in reason_of:
            assert (row["stage"], row["copies"]) == ("quarantine", 0)
            assert row["reason"].startswith(reason_of[line])
        else:
            assert row["stage"] != "quarantine"


def test_kept_lines_are_good_lines(project, report):
    kept = b"".join(corpora.unpacked(path) for path in (corpora.live(project / "out") / "shards").glob("a.*"))
    assert kept.splitlines() == [GOOD, *ODD_BUT_GOOD[1:3]]


def test_too_many_bad_rows_fail_the_run_with_the_first_of_them(project, report):
    n_bad = report["rows"]["quarantined"]
    assert dataselect.run(project / "recipe.yaml", sets=[f"input.max_bad_rows={n_bad}"])["up_to_date"]
    code, out, err = corpora.cli("run", project / "recipe.yaml", "--set", f"input.max_bad_rows={n_bad - 1}")
    assert (code, out) == (1, "")
    assert (
        f"{n_bad} of {report['rows']['in']} rows are bad, more than input.max_bad_rows allows ({n_bad - 1})"
        in err
    )
    assert "a.jsonl: row 5: invalid JSON" in err
    assert "Traceback" not in err


def truncated(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.fixture
def small(tmp_path):
    """A corpus with two neighbours of each compressed kind, which are grouped."""
    shards = ["a.jsonl", "b.jsonl.gz", "b2.jsonl.gz", "c.jsonl.zst", "c2.jsonl.zst", "d.parquet"]
    corpora.make_corpus(tmp_path / "in", 10, shards)
    # Large enough a piece for the groups, however their names are hashed.
    return corpora.write_recipe(
        tmp_path, [{"use": "exact_dedup"}], input={"shards": ["in/*"], "piece_bytes": 1 << 40}
    )


@pytest.mark.parametrize(
    "shard, damage",
    [
        ("b.jsonl.gz", truncated),
        ("b.jsonl.gz", flipped),
        ("c2.jsonl.zst", truncated),
        ("c2.jsonl.zst", flipped),
        ("d.parquet", truncated),  # a flipped byte shows only in files with page checksums
    ],
)
def test_a_bad_shard_stops_the_run_or_is_left_out_alone(small, shard, damage):
    damage(small.parent / "in" / shard)
    with pytest.raises(BadShard, match=f"^{shard}: "):
        dataselect.run(small)
    assert not (small.parent / "out" / "manifest.json").exists()
    report = dataselect.run(small, sets=["input.on_bad_shard=quarantine"])
    assert list(report["bad_shards"]) == [shard]
    assert report["bad_shards"][shard].startswith(f"{shard}: ")
    assert report["rows"]["in"] == 50
    manifest = json.loads((small.parent / "out" / "manifest.json").read_text())
    assert list(manifest["bad_shards"]) == [shard]
    again = dataselect.run(small, sets=["input.on_bad_shard=quarantine"])
    assert (again["up_to_date"], again["digest"]) == (True, report["digest"])


def test_a_shard_that_went_bad_later_is_left_out_alone(small):
    dataselect.run(small, sets=["input.on_bad_shard=quarantine"])
    truncated(small.parent / "in" / "b.jsonl.gz")
    report = dataselect.run(small, sets=["input.on_bad_shard=quarantine"])
    assert (list(report["bad_shards"]), report["rows"]["in"]) == (["b.jsonl.gz"], 50)


def test_only_bad_shards_fail_the_run_whatever_the_recipe_says(small):
    truncated(small.parent / "in" / "d.parquet")
    with pytest.raises(BadShard, match=r"every shard is bad; the first: d.parquet"):
        dataselect.run(small, sets=["input.on_bad_shard=quarantine", "input.shards=[in/d.parquet]"])


def test_a_shard_that_changes_between_two_reads_stops_the_run(tmp_path):
    corpora.make_corpus(tmp_path / "in", 10, ["a.jsonl"])
    corpora.make_target(tmp_path / "target.jsonl")
    waiting = corpora.own_stage(tmp_path, "Waiting", flags=str(tmp_path))
    recipe = corpora.write_recipe(tmp_path, [waiting, *corpora.ALL_STAGES], input={"shards": ["in/*"]})
    with corpora.start("run", recipe, "--quiet") as process:
        corpora.wait_until((tmp_path / "began").exists)
        (tmp_path / "in" / "a.jsonl").write_bytes(corpora.jsonl(corpora.docs(11)))
        (tmp_path / "go").touch()
        _, err = corpora.finish(process, 60)
    assert process.returncode == 1
    assert "a.jsonl: the shard changed during the run; run the same command again" in err
    assert dataselect.run(recipe)["rows"]["in"] == 11


def test_an_empty_corpus_gives_an_empty_output(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").touch()
    (tmp_path / "in" / "b.jsonl.zst").write_bytes(zstandard.compress(b""))
    corpora.make_target(tmp_path / "target.jsonl")
    report = dataselect.run(corpora.write_recipe(tmp_path, input={"shards": ["in/*"]}))
    assert set(report["rows"].values()) == {0}


def test_an_error_says_nothing_was_published(small):
    with pytest.raises(DataselectError):
        dataselect.run(small, sets=["expect.min_rows=61"])
    assert not (small.parent / "out" / "manifest.json").exists()
