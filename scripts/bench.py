"""Measure speed and memory end to end, beside what a plain copy costs.

    python scripts/bench.py [--mb 256] [--rounds 5] [--corpus DIR] [--cases recipe,copy] [--json FILE]
    python scripts/bench.py --quick                  a smoke test: one round of 64 and 128 MB

A rate is marginal: MB of text of the 2x corpus minus the 1x corpus, over the same difference in CPU seconds
(user + system of every process of the run). What a run costs whatever its size is given apart, as start-up:
CPU seconds of 1x minus its share at the marginal rate. MB = 10^6 bytes of UTF-8 text (see bench_corpus.py).

Every round runs every case once, 1x and 2x, so that a busy quarter of an hour hits all cases alike; medians
are over the rounds, and every round is printed. Processes are pinned to one core, but for the comparison of
workers, which is by wall time. Work and output folders are new each time; the page cache is warm and kernels
are compiled. The ratio to the copy is taken within each round. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from dataselect.core.pieces import suffix_of

# Nothing large is imported: a child's peak memory counts from what its parent had when it began.

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
RECIPE = ROOT / "configs" / "quickstart.yaml"
SAMPLE = ROOT / ".sample"
SIZES = ("1x", "2x")
COPY = "copy .jsonl.zst"
WHOLE = "recipe"
KERNEL_MB = 32.0


# ---------------------------------------------------------------- one measured command


@dataclass(frozen=True)
class Usage:
    """What a command and all processes it left took."""

    cpu_s: float
    wall_s: float
    max_rss_bytes: int
    """Of the largest process."""


def become_subreaper() -> None:
    """Have orphans of the commands as our own children: the fork server outlives its run for a moment."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextlib.contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """Children started within run on these CPUs only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(command: list[str], cpus: set[int], stdout: Path, stderr: Path) -> Usage:
    """Run a command to the end of its whole process tree; SystemExit with its messages where it fails."""
    outputs = [
        (os.POSIX_SPAWN_OPEN, fd, str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for fd, path in ((1, stdout), (2, stderr))
    ]
    started = time.perf_counter()
    with pinned(cpus):
        main = os.posix_spawn(command[0], command, os.environ, file_actions=outputs)
    cpu_s, wall_s, max_rss, code = 0.0, 0.0, 0, None
    try:
        while True:
            pid, status, used = os.wait4(-1, 0)
            cpu_s += used.ru_utime + used.ru_stime
            max_rss = max(max_rss, used.ru_maxrss)
            if pid == main:
                wall_s, code = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    except ChildProcessError:  # no child is left
        pass
    finally:
        if code is None:  # stopped from outside
            os.kill(main, signal.SIGTERM)
    if code:
        sys.exit(f"exit code {code}: {' '.join(command)}\n{stderr.read_text(errors='replace')[-2000:]}")
    return Usage(cpu_s, wall_s, max_rss * 1024)


# ---------------------------------------------------------------- cases


@dataclass(frozen=True)
class Corpus:
    """The folder that bench_corpus.py made, and what it says of it."""

    folder: Path
    record: dict[str, Any]

    def shards(self, size: str, suffix: str = ".jsonl.zst") -> list[str]:
        """Paths of a size: 2x holds 1x."""
        halves = ["1x"] if size == "1x" else ["1x", "more"]
        return [str(path) for half in halves for path in sorted((self.folder / half).glob(f"*{suffix}"))]

    def count(self, size: str, what: str) -> int:
        """`n_docs` or `n_bytes` of a size."""
        halves = self.record["halves"]
        return int(halves["1x"][what] + (halves["more"][what] if size == "2x" else 0))


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    command: Callable[[str, Path], list[str]]
    """Of a size and a folder to write to."""
    n_docs: Callable[[str], int]
    """Number of rows in what the command printed: a case that skips rows measures nothing."""
    cpus: set[int]


def run_report(printed: str) -> int:
    return int(json.loads(printed)["rows"]["in"])


def floor_case(name: str, what: str, corpus: Corpus, cpus: set[int]) -> Case:
    suffix = ".parquet" if what == "parquet" else ".jsonl.zst"

    def command(size: str, folder: Path) -> list[str]:
        script = str(SCRIPTS / "bench_floor.py")
        return [sys.executable, script, what, str(folder / "out"), *corpus.shards(size, suffix)]

    return Case(name, command, int, cpus)


def recipe_case(
    name: str, stages: list[dict[str, Any]], corpus: Corpus, cpus: set[int], n_workers: int = 1
) -> Case:
    def command(size: str, folder: Path) -> list[str]:
        recipe = {
            "input": {"shards": corpus.shards(size), "text": "text", "id": "id"},
            "stages": stages,
            "output": {"folder": str(folder / "out"), "format": "same", "dropped": False},
            "work": str(folder / "work"),
        }
        path = folder / "recipe.yaml"
        path.write_text(json.dumps(recipe))  # JSON is YAML
        run = [sys.executable, "-m", "dataselect", "run", str(path)]
        return [*run, "--workers", str(n_workers), "--quiet", "--json"]

    return Case(name, command, run_report, cpus)


def reference_stages(recipe: Path = RECIPE) -> tuple[list[dict[str, Any]], list[str]]:
    """The quick start's stages with absolute paths, and notes on those left out for want of a model."""
    stages, left_out = [], []
    for given in yaml.safe_load(recipe.read_text("utf-8"))["stages"]:
        stage = dict(given)
        for key in ("model", "target"):
            if key in stage:
                stage[key] = str((recipe.parent / stage[key]).resolve())
        if stage.get("optional") and not Path(stage["model"]).exists():
            left_out.append(f"{stage['use']} is left out: no {stage['model']} (`make run` trains it)")
        else:
            stages.append(stage)
    return stages, left_out


def all_cases(corpus: Corpus, stages: list[dict[str, Any]]) -> list[Case]:
    """Floor, whole recipe, every stage alone (`select` with the score it needs), one and two workers."""
    cpus = os.sched_getaffinity(0)
    one = {max(cpus)}  # interrupts prefer the first
    cases = [
        floor_case(COPY, "jsonl", corpus, one),
        floor_case("copy .parquet", "parquet", corpus, one),
        floor_case("reader alone", "read", corpus, one),
        recipe_case(WHOLE, stages, corpus, one),
    ]
    cases += [
        recipe_case(stage["use"], [stage], corpus, one)
        for stage in stages
        if stage["use"] not in ("ngram_importance", "select")
    ]
    scored = [stage for stage in stages if stage["use"] in ("ngram_importance", "select")]
    cases.append(recipe_case("+".join(stage["use"] for stage in scored), scored, corpus, one))
    if len(cpus) > 1:
        for n_workers, s in ((1, ""), (2, "s")):
            name = f"{WHOLE}, {n_workers} worker{s}, wall"
            cases.append(recipe_case(name, stages, corpus, cpus, n_workers))
    return cases


# ---------------------------------------------------------------- rounds


@dataclass
class Runs:
    """All that was measured."""

    usages: dict[str, list[dict[str, Usage]]] = field(default_factory=dict)
    """Case -> one {size: usage} a round."""
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    """Case -> worker seconds by part, as the last run over 2x reported them."""
    kernels: list[dict[str, dict[str, float]]] = field(default_factory=list)
    """Text -> kernel -> MB per CPU second, a round each."""


def run_case(case: Case, size: str, corpus: Corpus, scratch: Path) -> tuple[Usage, dict[str, float]]:
    """Measure a case once, in folders of its own; also the worker seconds it reported, if it did."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        stdout = folder / "stdout"
        usage = measure(case.command(size, folder), case.cpus, stdout, folder / "stderr")
        printed = stdout.read_text()
        if (found := case.n_docs(printed)) != (wanted := corpus.count(size, "n_docs")):
            sys.exit(f"{case.name}, {size}: {found:,} rows were read, the corpus has {wanted:,}")
        report = json.loads(printed)
        return usage, report.get("seconds", {}) if isinstance(report, dict) else {}
    finally:
        shutil.rmtree(folder)


def run_kernels(
    texts: dict[str, tuple[list[str], str]], mb: float, model: str | None, cpus: set[int], scratch: Path
) -> dict[str, dict[str, float]]:
    """Rates of the kernels alone on several texts, each given by (shards, field)."""
    rates = {}
    for name, (shards, text_field) in texts.items():
        command = [sys.executable, str(SCRIPTS / "bench_kernels.py"), *shards, "--field", text_field]
        command += ["--json", "--mb", str(mb), "--runs", "3", *(["--model", model] if model else [])]
        measure(command, cpus, scratch / "kernels.json", scratch / "kernels.err")
        rates[name] = json.loads((scratch / "kernels.json").read_text())
    return rates


def kernel_texts(base: Path, text_field: str, corpus: Corpus) -> dict[str, tuple[list[str], str]]:
    """The bare text beside the suffixed one: how much the suffixes flatter."""
    shards = [str(path) for path in sorted(base.rglob("*")) if path.is_file() and suffix_of(path.name)]
    return {"bare": (shards, text_field), "suffixed": (corpus.shards("1x"), "text")}


def run_rounds(
    cases: Sequence[Case],
    kernels: Callable[[], dict[str, dict[str, float]]] | None,
    corpus: Corpus,
    n_rounds: int,
    scratch: Path,
) -> Iterator[Runs]:
    """Every case once a round, in the same order; yields after each round what there is so far."""
    runs = Runs(usages={case.name: [] for case in cases})
    for number in range(1, n_rounds + 1):
        this_round: dict[str, dict[str, Usage]] = {}
        for case in cases:
            usages = this_round[case.name] = {}
            for size in SIZES:
                usages[size], runs.seconds[case.name] = run_case(case, size, corpus, scratch)
            shown = ", ".join(f"{size} {usages[size].cpu_s:.2f} s CPU" for size in SIZES)
            print(f"round {number}/{n_rounds}  {case.name}: {shown}", file=sys.stderr, flush=True)
        if kernels:
            runs.kernels.append(kernels())
        for name, usages in this_round.items():  # only now: all cases have the same rounds
            runs.usages[name].append(usages)
        yield runs


# ---------------------------------------------------------------- figures


def marginal(usages: dict[str, Usage], what: str, mb: dict[str, float]) -> float | None:
    """MB per second of 2x minus 1x by `cpu_s` or `wall_s`; None where noise is larger than the difference."""
    seconds = getattr(usages["2x"], what) - getattr(usages["1x"], what)
    return (mb["2x"] - mb["1x"]) / seconds if seconds > 0 else None


def median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """A figure with what it is the median of."""
    return {"median": median(values), "rounds": list(values)}


def ratios(above: Sequence[float | None], below: Sequence[float | None]) -> list[float | None]:
    """Round by round."""
    return [a / b if a and b else None for a, b in zip(above, below, strict=True)]


def startup(usages: dict[str, Usage], rate: float | None, mb: dict[str, float]) -> float | None:
    """CPU seconds of 1x that its text doesn't explain."""
    return usages["1x"].cpu_s - mb["1x"] / rate if rate else None


def summarise(runs: Runs, corpus: Corpus) -> dict[str, Any]:
    """{"cases": ..., "kernels": ..., "workers": ...}, every figure with all its rounds."""
    mb = {size: corpus.count(size, "n_bytes") / 1e6 for size in SIZES}
    by_cpu = {name: [marginal(u, "cpu_s", mb) for u in rounds] for name, rounds in runs.usages.items()}
    by_wall = {name: [marginal(u, "wall_s", mb) for u in rounds] for name, rounds in runs.usages.items()}
    cases = {}
    for name, rounds in runs.usages.items():
        cases[name] = {
            "mb_per_cpu_s": spread(by_cpu[name]),
            "mb_per_wall_s": spread(by_wall[name]),
            "startup_cpu_s": spread(
                [startup(u, rate, mb) for u, rate in zip(rounds, by_cpu[name], strict=True)]
            ),
            "max_rss_bytes": max(usage.max_rss_bytes for u in rounds for usage in u.values()),
            "runs": [{size: asdict(usage) for size, usage in u.items()} for u in rounds],
            "seconds": runs.seconds[name],
        }
        if COPY in by_cpu:
            cases[name]["times_copy_cpu"] = spread(ratios(by_cpu[COPY], by_cpu[name]))
    kernels = {
        text: {name: spread([rates[text][name] for rates in runs.kernels]) for name in names}
        for text, names in (runs.kernels[0].items() if runs.kernels else ())
    }
    one, two = (by_wall.get(f"{WHOLE}, {n}, wall") for n in ("1 worker", "2 workers"))
    workers = {"two_over_one_wall": spread(ratios(two, one))} if one and two else None
    return {"cases": cases, "kernels": kernels, "workers": workers}


# ---------------------------------------------------------------- where and what


def machine() -> dict[str, Any]:
    """CPU model, usable CPUs, memory."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(n_bytes / 1e9, 1),
        "system": platform.platform(),
        "load_average": os.getloadavg(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, the packages that do the work, and this checkout ("+" with uncommitted changes)."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("numpy", "pyarrow", "zstandard", "numba", "dataselect"):
        found[package] = metadata.version(package)
    found["commit"] = commit()
    return found


def commit() -> str | None:
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()[:12] + "+" * bool(changes.stdout)


# ---------------------------------------------------------------- table


def show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def case_row(name: str, case: dict[str, Any]) -> list[str]:
    rate = case["mb_per_wall_s" if name.endswith(", wall") else "mb_per_cpu_s"]
    times = case.get("times_copy_cpu", {}).get("median")
    return [
        name,
        show(rate["median"]),
        " ".join(show(value) for value in rate["rounds"]),
        show(times, 2),
        show(case["startup_cpu_s"]["median"], 2),
        show(case["max_rss_bytes"] / 1e6, 0),
    ]


def kernel_row(name: str, kernels: dict[str, Any]) -> list[str]:
    row = [name]
    for rates in kernels.values():
        rounds = " ".join(show(value, 0) for value in rates[name]["rounds"])
        row += [show(rates[name]["median"], 0), rounds]
    return row


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]


def render(result: dict[str, Any]) -> str:
    """The table."""
    where, corpus = result["machine"], result["corpus"]
    sizes = " and ".join(f"{corpus['mb'][size]:,.0f} MB in {corpus['n_docs'][size]:,} docs" for size in SIZES)
    lines = [
        f"{where['cpu']}, {where['cpus']} CPUs, {where['memory_gb']} GB, {where['system']}",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version),
        f"{sizes}; bytes a word: {corpus['bytes_per_word']:.1f}, bare {corpus['base_bytes_per_word']:.1f}",
        *result["notes"],
        "",
    ]
    header = ["MB of text per CPU second", "median", "rounds", "x copy", "start-up s", "peak MB"]
    lines += columns([header, *(case_row(name, case) for name, case in result["cases"].items())])
    if result["workers"]:
        ratio = result["workers"]["two_over_one_wall"]
        rounds = " ".join(show(value, 2) for value in ratio["rounds"])
        lines.append(f"2 workers against 1, wall: {show(ratio['median'], 2)} ({rounds})")
    if kernel_names := result["kernels"].get("bare"):
        header = ["kernels alone", "bare text", "rounds", "suffixed", "rounds"]
        lines += ["", *columns([header, *(kernel_row(name, result["kernels"]) for name in kernel_names)])]
    if seconds := result["cases"].get(WHOLE, {}).get("seconds"):
        total = sum(seconds.values())
        rows = [[part, f"{s:.2f}", f"{s / total:.0%}"] for part, s in sorted(seconds.items(), key=by_seconds)]
        lines += ["", *columns([["recipe, 2x, last round: worker seconds", "s", "share"], *rows])]
    return "\n".join(lines)


def by_seconds(item: tuple[str, float]) -> float:
    return -item[1]


# ---------------------------------------------------------------- command line


def make_sample() -> None:
    """The quick start's corpus, where it is missing."""
    if not (SAMPLE / "README.md").exists():
        subprocess.run([sys.executable, str(SCRIPTS / "make_sample.py"), str(SAMPLE)], check=True, stdout=2)


def make_corpus(base: Path, out: Path, mb: float, text_field: str) -> Corpus:
    """In a process of its own, which may grow."""
    command = [sys.executable, str(SCRIPTS / "bench_corpus.py"), "--corpus", str(base), "--out", str(out)]
    command += ["--mb", str(mb), "--field", text_field]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Corpus(out, json.loads(made.stdout))


def warm_up(cases: Sequence[Case], corpus: Corpus, scratch: Path) -> None:
    """Kernels into numba's cache, shards into the page cache; the figures are thrown away."""
    for path in corpus.shards("2x") + corpus.shards("2x", ".parquet"):
        with open(path, "rb") as file:
            while file.read(1 << 22):
                pass
    for case in [case for case in cases if case.n_docs is run_report][:1]:  # any one loads all kernels
        run_case(case, "1x", corpus, scratch)


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=SAMPLE / "raw", help="folder of shards of real text")
    parser.add_argument("--field", default="text", help="the field that holds the text")
    parser.add_argument("--mb", type=float, default=256, help="10^6 bytes of text in the 1x corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=SAMPLE / "bench", help="folder for corpora and runs")
    parser.add_argument("--cases", help="only those whose name has one of these words, comma-separated")
    parser.add_argument("--kernel-mb", type=float, default=KERNEL_MB, help="text for the kernels; 0: none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--quick", action="store_true", help="64 MB and one round")
    options = parser.parse_args(arguments)
    if options.quick:
        options.mb, options.rounds = 64, 1
    if options.rounds < 1 or options.mb <= 0:
        parser.error("--rounds and --mb must be positive")
    return options


def chosen(cases: Sequence[Case], words: str | None) -> list[Case]:
    if not words:
        return list(cases)
    found = [case for case in cases if any(word.strip() in case.name for word in words.split(","))]
    return found or sys.exit(f"--cases {words}: none of {', '.join(case.name for case in cases)}")


def bench(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Corpora, warm-up, rounds; yields the figures of all rounds so far after each."""
    make_sample()
    options.out.mkdir(parents=True, exist_ok=True)
    corpus = make_corpus(options.corpus, options.out.resolve() / "corpus", options.mb, options.field)
    stages, notes = reference_stages()
    cases = chosen(all_cases(corpus, stages), options.cases)
    model = next((stage["model"] for stage in stages if stage["use"] == "fasttext_quality"), None)
    become_subreaper()
    with tempfile.TemporaryDirectory(prefix="runs-", dir=options.out) as folder:
        scratch = Path(folder).resolve()
        one = {max(os.sched_getaffinity(0))}
        texts = kernel_texts(options.corpus, options.field, corpus)
        kernels = partial(run_kernels, texts, options.kernel_mb, model, one, scratch)
        warm_up(cases, corpus, scratch)
        measured = kernels if options.kernel_mb else None
        for runs in run_rounds(cases, measured, corpus, options.rounds, scratch):
            yield figures(options, corpus, notes, runs)


def figures(options: argparse.Namespace, corpus: Corpus, notes: list[str], runs: Runs) -> dict[str, Any]:
    """What --json writes."""
    return {
        "machine": machine(),
        "versions": versions(),
        "notes": notes,
        "options": {"mb": options.mb, "rounds": options.rounds, "corpus": str(options.corpus)},
        "corpus": {
            "mb": {size: corpus.count(size, "n_bytes") / 1e6 for size in SIZES},
            "n_docs": {size: corpus.count(size, "n_docs") for size in SIZES},
            "n_shards": corpus.record["n_shards"],
            "bytes_per_word": corpus.record["bytes_per_word"],
            "base_bytes_per_word": corpus.record["base"]["bytes_per_word"],
        },
        **summarise(runs, corpus),
    }


def main() -> None:
    options = options_from()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: the running command and scratch go too
    if not sys.platform.startswith("linux"):
        sys.exit("bench.py needs Linux: it pins processes to a core and collects those a run leaves")
    result = None
    try:
        for result in bench(options):
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    finally:  # a run that fails or is stopped still shows its whole rounds
        if result:
            print(render(result))


if __name__ == "__main__":
    main()
