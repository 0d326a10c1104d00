"""The sample corpus is real, mixed, held out where it says so, and the same every time."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import copies
import make_sample
import make_stress
import pyarrow.parquet as pq
import pytest
import zstandard

SCRIPTS = Path(__file__).parents[1] / "scripts"


def read_rows(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if path.suffix == ".zst":
        content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    return [json.loads(line) for line in content.decode().splitlines()]


@pytest.fixture(scope="session")
def rows_of_set(sample):
    sets = {name: read_rows(sample / f"{name}.jsonl") for name in ("target", "hq", "lq")}
    sets["raw"] = [row for path in sorted((sample / "raw").iterdir()) for row in read_rows(path)]
    return sets


def test_raw_has_every_format_and_enough_text(sample, rows_of_set):
    assert {path.name for path in (sample / "raw").iterdir()} == {name for name, _, _ in make_sample.SHARDS}
    assert len(rows_of_set["raw"]) > 4_000
    assert sum(len(row["text"]) for row in rows_of_set["raw"]) > 4e6
    assert len({row["kind"] for row in rows_of_set["raw"]}) >= 8
    assert {name for name, rows in rows_of_set.items() if len(rows) < 100} == set()


def test_every_row_has_the_declared_fields_and_a_unique_id(rows_of_set):
    ids = set()
    for rows in rows_of_set.values():
        for row in rows:
            assert list(row) == ["id", "text", "source", "kind", "n_lines"]
            assert row["text"].strip("\n")
            assert row["n_lines"] == row["text"].count("\n") + 1
            ids.add(row["id"])
    assert len(ids) == sum(map(len, rows_of_set.values()))


def test_one_zstd_shard_has_many_frames_and_parquet_has_row_groups(sample):
    frames = (sample / "raw" / "part-05.jsonl.zst").read_bytes().count(zstandard.FRAME_HEADER)
    assert frames > 1
    for name in ("part-06.parquet", "part-07.parquet"):
        assert pq.read_metadata(sample / "raw" / name).num_row_groups > 1


def test_raw_has_natural_exact_duplicates_but_is_mostly_distinct(rows_of_set):
    texts = [row["text"] for row in rows_of_set["raw"]]
    assert 0.8 * len(texts) < len(set(texts)) < len(texts)


def test_no_text_stands_in_two_sets(rows_of_set):
    texts = {name: {row["text"] for row in rows} for name, rows in rows_of_set.items()}
    names = sorted(texts)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not texts[a] & texts[b], (a, b)


def test_target_is_held_out_by_file_and_quality_classes_by_source(rows_of_set):
    def files(name):
        return {row["id"].rsplit("#", 1)[0] for row in rows_of_set[name]}

    def sources(name):
        return {row["source"] for row in rows_of_set[name]}

    assert not files("target") & files("raw")
    assert not (sources("hq") | sources("lq")) & sources("raw")


def test_texts_come_from_this_python_installation_only():
    roots = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    for files in make_sample.installed_files().values():
        for path in files.values():
            assert any(path.resolve().is_relative_to(root) for root in roots), path


@pytest.mark.slow
def test_the_same_installation_gives_the_same_bytes_in_another_process(sample, tmp_path):
    command = [sys.executable, "-R", str(SCRIPTS / "make_sample.py"), str(tmp_path / "again")]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": "17"})
    assert digests(tmp_path / "again") == digests(sample)


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_copies_of_the_stress_inputs_share_no_5_gram():
    text = 'one  two\n\n  "three" four-five, a.b.c.d.e.f (seven) 世界你好 9\n'
    escaped = copies.json_escaped(copies.marked(text))
    suffixed = [json.loads(b'"%b"' % copies.with_suffix(escaped, suffix)) for suffix in (b"x1", b"x2")]
    assert suffixed[0].replace("x1", "") == text
    words = [set(re.findall(r"\w+", copy)) for copy in suffixed]
    assert not words[0] & words[1]
    assert {"twox1", "fivex1", "fx1", "世界你好x1", "9x1"} < words[0]


def test_suffixes_are_distinct_and_of_one_length():
    for n_copies, length in ((1, 1), (36, 1), (37, 2), (1000, 2), (1297, 3)):
        some = list(itertools.islice(copies.suffixes(n_copies), n_copies))
        assert len(set(some)) == n_copies
        assert {len(suffix) for suffix in some} == {length}


@pytest.mark.slow
def test_bad_rows_are_what_expected_json_says(tmp_path):
    make_stress.make_bad(tmp_path)
    expected = json.loads((tmp_path / "expected.json").read_text())
    for name, shard in expected["shards"].items():
        assert shard["n_rows"] == shard["n_good"] + shard["n_bad"]
        if name.endswith(".parquet"):
            assert pq.read_metadata(tmp_path / name).num_rows == shard["n_rows"]
    assert set(make_stress.KINDS) == {kind for kind, entry in expected["kinds"].items() if entry["n"]}
    shard = expected["shards"]["mixed.jsonl"]
    lines = (tmp_path / "mixed.jsonl").read_bytes().split(b"\n")[:-1]
    for kind, line in zip(shard["lines"], lines, strict=True):
        assert is_good(line, expected["max_row_bytes"]) == expected["kinds"][kind]["good"], kind


def is_good(line, max_row_bytes):
    """Oracle: None for a blank line, else whether the line is a row with usable text."""
    if not line.strip():
        return None
    try:
        pairs = json.loads(line.decode("utf-8-sig"), object_pairs_hook=list)
        texts = [value for key, value in pairs if key == "text"]
        (text,) = texts
        text.encode()
    except (ValueError, TypeError, AttributeError):
        return False
    return isinstance(text, str) and len(line) <= max_row_bytes
