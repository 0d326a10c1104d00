"""The benchmark runs and accounts for what it measured; its timings are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench
import bench_corpus
import pyarrow.parquet as pq
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def write_shards(folder):
    texts = [f"Row {i} says: {' '.join(f'w{i * j % 97}' for j in range(60))}, 你好。" for i in range(400)]
    rows = [json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate([*texts, texts[0]])]
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(rows[:200]))
    (folder / "b.jsonl").write_text("".join(rows[200:]))
    return folder


def usage(cpu_s, wall_s):
    return bench.Usage(cpu_s, wall_s, 1)


def test_rates_are_marginal_and_startup_is_what_is_left():
    mb = {"1x": 100.0, "2x": 200.0}
    usages = {"1x": usage(7.0, 10.0), "2x": usage(12.0, 20.0)}
    assert bench.marginal(usages, "cpu_s", mb) == 20
    assert bench.marginal(usages, "wall_s", mb) == 10
    assert bench.startup(usages, 20.0, mb) == 2
    assert bench.marginal({"1x": usages["2x"], "2x": usages["1x"]}, "cpu_s", mb) is None
    assert bench.spread([3.0, None, 1.0, 2.0]) == {"median": 2.0, "rounds": [3.0, None, 1.0, 2.0]}


def test_both_formats_hold_the_same_rows_and_a_corpus_is_made_once(tmp_path):
    base = write_shards(tmp_path / "base")
    record = bench_corpus.make_if_missing(base, tmp_path / "out", 0.3)
    corpus = bench.Corpus(tmp_path / "out", record)
    for size in bench.SIZES:
        texts = [
            text
            for path in corpus.shards(size)
            for array in bench_corpus.iter_file_texts(path, "text")
            for text in array.to_pylist()
        ]
        tables = [pq.read_table(path) for path in corpus.shards(size, ".parquet")]
        assert [text for table in tables for text in table["text"].to_pylist()] == texts
        ids = [id_ for table in tables for id_ in table["id"].to_pylist()]
        assert len(set(ids)) == len(ids) == corpus.count(size, "n_docs")
        assert sum(len(text.encode()) for text in texts) == corpus.count(size, "n_bytes")
    assert 1.9 < corpus.count("2x", "n_bytes") / corpus.count("1x", "n_bytes") < 2.1
    made = (tmp_path / "out" / "corpus.json").stat().st_mtime_ns
    assert bench_corpus.make_if_missing(base, tmp_path / "out", 0.3) == record
    assert (tmp_path / "out" / "corpus.json").stat().st_mtime_ns == made


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark needs Linux")
def test_a_whole_round_gives_every_case_with_all_its_figures(tmp_path):
    base = write_shards(tmp_path / "base")
    command = [sys.executable, str(SCRIPTS / "bench.py"), "--corpus", str(base), "--mb", "0.3"]
    command += ["--rounds", "1", "--kernel-mb", "0.1", "--out", str(tmp_path / "out")]
    command += ["--cases", "copy,reader,exact_dedup", "--json", str(tmp_path / "figures.json")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {
        *("machine", "versions", "notes", "options", "corpus", "cases", "kernels", "workers")
    }
    names = {"copy .jsonl.zst", "copy .parquet", "reader alone", "exact_dedup"}
    assert names == set(figures["cases"])
    for name, case in figures["cases"].items():
        assert name in shown
        assert len(case["runs"]) == len(case["mb_per_cpu_s"]["rounds"]) == 1
        for run in case["runs"]:
            assert set(run) == set(bench.SIZES)
            assert all(used["cpu_s"] > 0 and used["max_rss_bytes"] > 1e6 for used in run.values())
    assert figures["cases"]["exact_dedup"]["seconds"]["read"] > 0
    for kernels in (figures["kernels"]["bare"], figures["kernels"]["suffixed"]):
        assert all(rate > 0 for kernel in kernels.values() for rate in kernel["rounds"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["corpus"]
