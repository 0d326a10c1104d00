"""The benchmark runs and accounts for what it measured; its timings are not looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bench import cases as own
from bench import figures, peers, table
from bench.cases import Case, Outcome, of_script
from bench.corpus import iter_file_texts
from bench.endpoint import Endpoint
from bench.measure import Usage
from bench.rounds import Pair, Runs
from bench.texts import SIZES, Text, TextSpec, make_texts, whole_spec

SCRIPTS = Path(__file__).parents[1] / "scripts"
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])}
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark needs Linux")


def write_shards(folder):
    texts = [f"Row {i} says: {' '.join(f'w{i * j % 97}' for j in range(60))}, 你好。" for i in range(400)]
    rows = [json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate([*texts, texts[0]])]
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(rows[:200]))
    (folder / "b.jsonl").write_text("".join(rows[200:]))
    return folder


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the texts, or finds them made."""
    folder = tmp_path_factory.mktemp("texts")
    specs = [whole_spec("suffixed", 0.3), TextSpec("bare", 0.1, ("jsonl.zst", "jsonl"), 1)]
    base = write_shards(folder / "base")

    def texts():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", ENV["PYTHONPATH"])
            return list(make_texts(base, "text", folder / "out", specs).by_spec.values())

    return texts


@pytest.fixture(scope="module")
def texts(make):
    return make()


def texts_of(text, size, suffix=".jsonl.zst"):
    arrays = [array for path in text.shards(size, suffix) for array in iter_file_texts(path, "text")]
    return [value for array in arrays for value in array.to_pylist()]


def test_all_formats_hold_the_same_rows(texts):
    for text, other in zip(texts, (".parquet", ".jsonl"), strict=True):
        for size in SIZES:
            rows = texts_of(text, size)
            assert texts_of(text, size, other) == rows
            assert len(rows) == text.sizes[size]["n_docs"]
            assert sum(len(row.encode()) for row in rows) == text.sizes[size]["n_bytes"]
        assert texts_of(text, "2x")[: text.sizes["1x"]["n_docs"]] == texts_of(text, "1x")
        assert 1.9 < text.mb("2x") / text.mb("1x") < 2.1


def test_a_text_is_made_once(texts, make):
    made = [(text.folder / "text.json").stat().st_mtime_ns for text in texts]
    assert make() == texts
    assert [(text.folder / "text.json").stat().st_mtime_ns for text in texts] == made


def test_copies_share_no_shingle_and_keep_their_duplicates(texts):
    suffixed, bare = texts
    ids = [i for path in suffixed.shards("2x", ".parquet") for i in pq.read_table(path)["id"].to_pylist()]
    assert len(set(ids)) == len(ids)
    rows, n_base = texts_of(suffixed, "2x"), 401
    words = [{word for row in rows[i : i + n_base] for word in re.findall(r"\w+", row)} for i in (0, n_base)]
    assert not words[0] & words[1]
    assert rows[0] == rows[n_base - 1]  # the base's duplicate
    assert rows[n_base] == rows[2 * n_base - 1] != rows[0]
    assert texts_of(bare, "1x")[0].startswith("Row 0 says: w0 ")


def usage(cpu_s, wall_s=1.0):
    return Usage(cpu_s, wall_s, 10_000_000)


def pair(one_s, two_s, alone_cpu_s=None):
    outcome = Outcome(10, 9, alone_cpu_s)
    usages = {"1x": usage(one_s, one_s), "2x": usage(two_s, two_s)}
    return Pair(usages, dict.fromkeys(SIZES, outcome))


TEXT = Text(
    "bare",
    Path(),
    {"1x": {"n_docs": 5, "n_bytes": 100_000_000}, "2x": {"n_docs": 10, "n_bytes": 200_000_000}},
)


def case(name, **more):
    return Case(name, TEXT, lambda size, folder: [], of_script, {0}, **more)


def test_rates_are_marginal_and_startup_is_what_is_left():
    assert figures.marginal(pair(7, 12), "cpu_s", TEXT) == 20
    assert figures.startup(pair(7, 12), 20.0, TEXT) == 2
    assert figures.marginal(pair(12, 7), "cpu_s", TEXT) is None
    assert figures.spread([3.0, None, 1.0, 2.0]) == {"median": 2.0, "rounds": [3.0, None, 1.0, 2.0]}


def test_ratios_are_of_the_same_round_and_a_failed_peer_hides_nothing():
    cases = [
        case("floor"),
        case("ours", floor="floor"),
        case("peer", against=("ours", "absent"), is_peer=True),
        case("broken", against=("ours",), is_peer=True),
    ]
    pairs = {"floor": [pair(1, 2), pair(2, 4)], "ours": [pair(1, 3), pair(1, 3)], "peer": [None, pair(5, 15)]}
    runs = Runs({**pairs, "broken": [None]}, failures={"broken": ["Traceback\nboom"]})
    result = figures.summarise(cases, runs)
    found = {(ratio["of"], ratio["to"]): ratio["rounds"] for ratio in result["ratios"]}
    assert found == {("ours", "floor"): [0.5, 1.0], ("ours", "peer"): [None, 5.0], ("ours", "broken"): [None]}
    common = {"machine": {"cpu": "x", "cpus": 1, "memory_gb": 1, "system": "y", "load_average": (0, 0, 0)}}
    common |= {"versions": {"python": "3"}, "peers": {}, "notes": ["gone: not installed"], "suffix_bytes": 1}
    common |= {"base": {"n_bytes": 1, "n_docs": 1, "bytes_per_word": 5.0}}
    shown = table.render(common | result)
    assert "broken failed 1 times: boom" in shown
    assert "gone: not installed" in shown
    assert re.search(r"ours / peer +5\.00 +- 5\.00", shown)
    assert re.search(r"ours +100/200 +50\.0 +50\.0 50\.0 +-1\.00 +10 +90\.0%", shown)


def test_cases_elsewhere_are_the_recipe_with_another_engine_or_other_places(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "missing", lambda case: [])
    made = own.elsewhere_cases(TEXT, [{"use": "exact_dedup"}], Endpoint({"A": "1"}))
    found = {one.name: one for one in made}
    assert list(found) == [own.ON_STORE, own.ON_RAY]
    recipes = []
    for one, engine in zip(found.values(), ("local", "ray"), strict=True):
        assert engine in one.command("1x", tmp_path)
        recipes.append(json.loads((tmp_path / "recipe.yaml").read_text()))
    store, ray = recipes
    assert store["input"]["shards"] == ["s3://bench/texts//1x/*"]
    assert store["output"]["folder"] == f"s3://bench/{tmp_path.name}/out"
    assert ray["work"] == f"{tmp_path}/work"
    pairs = {own.RECIPE_CASE: [pair(1, 2)], own.ON_STORE: [pair(1, 3)], own.ON_RAY: [pair(1, 2)]}
    ratios = figures.summarise([case(own.RECIPE_CASE), *found.values()], Runs(pairs))["ratios"]
    assert {(r["of"], r.get("bar"), *r["rounds"]) for r in ratios} == {
        (own.ON_STORE, 0.7, 0.5),
        (f"{own.ON_STORE}, wall", None, 0.5),
        (f"{own.ON_RAY}, wall", 0.8, 1.0),
    }
    monkeypatch.setattr(own, "missing", lambda case: ["ray"])
    assert own.elsewhere_cases(TEXT, [], None) == []


def test_every_peer_has_its_script_and_says_what_is_missing(tmp_path):
    for peer in peers.PEERS:
        assert (peers.SCRIPTS / f"{peer.script}.py").exists()
        assert all("==" in requirement for requirement in peer.requirements)
    notes = {}
    odd = peers.Peer("odd", "odd", "odd", (), "bare", 1, (), pythons=("2.99",))
    assert peers.install_all([odd], tmp_path, notes.__setitem__) == {}
    assert notes == {"odd": "not installed: needs Python 2.99, and none is here"}


DRIVER = r"""
import json, sys, tempfile
from pathlib import Path
from bench.cases import Case, of_script
from bench.measure import CommandFailed, become_subreaper
from bench.rounds import run_rounds
from bench.texts import Text

SIZES = {"1x": {"n_docs": 1, "n_bytes": 10}, "2x": {"n_docs": 2, "n_bytes": 20}}
ORPHANS = '''
import os, time
if os.fork() == 0:
    os.fork()
    end = time.process_time() + 0.1
    while time.process_time() < end: pass
    os._exit(0)
'''

def case(name, code, n_rows=None, **more):
    def command(size, folder):
        counts = json.dumps({"rows": n_rows or SIZES[size]["n_docs"], "kept": 1})
        return [sys.executable, "-S", "-c", f"{code}\nprint('talk')\nprint({counts!r})"]
    return Case(name, Text("bare", Path(), SIZES), command, of_script, {0}, env={}, **more)

become_subreaper()
peers = [
    case("good", ORPHANS, is_peer=True),
    case("exits", "raise SystemExit('boom')", is_peer=True),
    case("skips rows", "", 7, is_peer=True),
    case("hangs", "import os, time; os.fork(); time.sleep(60)", is_peer=True, timeout_s=0.4),
]
scratch = Path(tempfile.mkdtemp(dir=sys.argv[1]))
n_yields = 0
for runs in run_rounds(peers, None, 3, scratch):
    n_yields += 1
try:
    list(run_rounds([case("ours", "", 7)], None, 1, scratch))
except CommandFailed as failed:
    ours = str(failed)
print(json.dumps({
    "cpu_s": [p.usages["1x"].cpu_s for p in runs.pairs["good"]],
    "tries": {name: len(pairs) for name, pairs in runs.pairs.items()},
    "failures": {name: messages[0] for name, messages in runs.failures.items() if messages},
    "n_yields": n_yields, "ours": ours, "left": [p.name for p in scratch.iterdir()],
}))
"""


@linux_only
def test_a_round_counts_the_whole_process_tree_and_outlives_failing_peers(tmp_path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=ENV, timeout=60).stdout
    result = json.loads(shown)
    assert all(seconds > 0.2 for seconds in result["cpu_s"])  # of two orphans
    assert result["tries"] == {"good": 3, "exits": 2, "skips rows": 2, "hangs": 2}
    assert result["n_yields"] == 9
    assert result["failures"]["exits"] == "exit code 1\nboom\n"
    assert result["failures"]["skips rows"] == "it read 7 rows; the text has 1"
    assert result["failures"]["hangs"] == "not done after 0 s"
    assert result["ours"].startswith("ours: it read 7 rows")
    assert result["left"] == []


@pytest.mark.slow
@linux_only
def test_a_whole_round_gives_every_case_with_all_its_figures(tmp_path):
    base = write_shards(tmp_path / "base")
    command = [sys.executable, "-m", "bench", "--corpus", str(base), "--mb", "0.3", "--rounds", "1"]
    command += ["--kernel-mb", "0.1", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    command += ["--quick", "--only", "^reader|^exact|kernels", "--json", str(tmp_path / "figures.json")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=ENV).stdout
    result = json.loads((tmp_path / "figures.json").read_text())
    assert set(result["cases"]) == {"copy .jsonl.zst", "reader alone", "exact_dedup"}
    for name, figures_of_case in result["cases"].items():
        assert name in shown
        assert len(figures_of_case["runs"]) == len(figures_of_case["mb_per_cpu_s"]["rounds"]) == 1
        for run in figures_of_case["runs"]:
            assert set(run) == set(SIZES)
            assert all(used["cpu_s"] > 0 and used["max_rss_bytes"] > 1e6 for used in run.values())
    assert result["cases"]["exact_dedup"]["seconds"]["read"] > 0
    assert result["cases"]["exact_dedup"]["n_kept"] < result["cases"]["exact_dedup"]["n_read"]
    for kernels in (result["kernels"]["bare"], result["kernels"]["suffixed"]):
        assert all(rate > 0 for kernel in kernels.values() for rate in kernel["rounds"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["texts"]
