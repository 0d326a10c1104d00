"""Run the tasks of a dedup over many made-up documents, and measure them.

    python scripts/dedup_scale.py --docs 20M --shape planted --folder /data/tmp

There is no text: signatures are made by hashing (documents of a cluster have most values in common), and
written as the artifacts that reading leaves; then the phases run as in `dataselect run`. Shapes:

    planted  a tenth of the documents in clusters of 2 to 20, a tenth copies, all others alone
    copies   all documents have one text
    cluster  all documents are near-duplicates of each other
    bucket   all documents share one band and nothing else
    exact    exact_dedup, a tenth of the documents copies

Prints seconds, CPU seconds, peak anonymous memory of one worker (RssAnon: mapped files don't count) and bytes
of the artifacts, by kind of task. Linux only. The folder's artifacts are deleted at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numba import njit

from dataselect.core.pieces import Piece, Shard
from dataselect.core.sizes import parse_bytes
from dataselect.dedups import DedupInputs, DedupPhases, Step
from dataselect.engine.columns import KeySink, pack
from dataselect.engine.inputs import SegmentRefs
from dataselect.engine.job import Job, OutputCall, StageCall
from dataselect.engine.local import LocalEngine
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.reader import ReadSpec
from dataselect.io.store import LocalStore, Store
from dataselect.stages.base import DedupKeys, DedupStage
from dataselect.stages.minhash_dedup import MinhashDedup

SHAPES = ("planted", "copies", "cluster", "bucket", "exact")
SEGMENT_DOCS = 100_000
OWN_SHARE = 0.04
"""Share of its signature's values that a document of a cluster has for itself."""
_SAMPLE_S = 0.02


@njit(inline="always")
def _hash(a: int, b: int) -> np.uint64:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014) of a and b."""
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True)
def fill_signatures(family: np.ndarray, text: np.ndarray, own: int, n_common: int, out: np.ndarray) -> None:
    """Signatures uint32[n, num_perm]: documents of one family share all but own / 2^16 of their values.

    family, text int64[n]: equal texts have equal signatures. The first n_common values are all documents'.
    """
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            value = _hash(family[i], k)
            draw = _hash(text[i], k + 1000)
            if (draw & np.uint64(0xFFFF)) < own:
                value = draw >> np.uint64(16)
            out[i, k] = np.uint32(_hash(0, k) if k < n_common else value)


def families(shape: str, first: int, n_docs: int, n_all: int) -> tuple[np.ndarray, np.ndarray]:
    """(family, text) int64[n] of documents first .. first + n - 1 of n_all."""
    doc = np.arange(first, first + n_docs, dtype=np.int64)
    if shape == "copies":
        return np.zeros_like(doc), np.zeros_like(doc)
    if shape == "cluster":
        return np.zeros_like(doc), doc
    if shape == "bucket":
        return doc, doc
    role, pick = _draws(doc)
    family = np.where(role == 0, n_all + pick % max(1, n_all // 100), doc)  # of 10 members, on average
    original = pick % n_all
    copied = (role == 1) & (_draws(original)[0] > 1)
    return np.where(copied, original, family), np.where(copied, original, doc)


def _draws(doc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(role 0 .. 9, pick) int64 of documents: what kind each is, and which family or original it has."""
    mixed = doc.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = ((mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(20)).astype(
        np.int64
    )
    return mixed % 10, mixed // 10


class Corpus:
    """The artifacts of reading made-up documents."""

    def __init__(self, store: Store, shape: str, n_docs: int, stage: DedupStage) -> None:
        self._store, self._shape, self._n_docs, self._stage = store, shape, n_docs, stage
        firsts = range(0, n_docs, SEGMENT_DOCS)
        self.n_rows = [min(SEGMENT_DOCS, n_docs - first) for first in firsts]
        for number, (first, n_rows) in enumerate(zip(firsts, self.n_rows, strict=True)):
            self._write_segment(number, first, n_rows)
        with self._writer("mask") as writer:
            for number, n_rows in enumerate(self.n_rows):
                writer.add_array(f"alive/{number}", pack(np.ones(n_rows, bool)))

    @contextlib.contextmanager
    def _writer(self, name: str, **meta: object) -> Iterator[BundleWriter]:
        with self._store.commit(name) as file:
            writer = BundleWriter(file)
            yield writer
            writer.finish(meta)

    def _write_segment(self, number: int, first: int, n_rows: int) -> None:
        family, text = families(self._shape, first, n_rows, self._n_docs)
        mixed = text.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        text_hash = np.stack([mixed, mixed + np.uint64(1)], axis=1)
        with self._writer(f"base{number}", shard_rows=[n_rows]) as writer:
            writer.add_array("text_hash", text_hash)
        sink, docs = KeySink(), np.arange(n_rows, dtype=np.int64)
        if isinstance(self._stage, MinhashDedup):
            signatures = np.empty((n_rows, self._stage.num_perm), np.uint32)
            own = int(OWN_SHARE * (1 << 16))
            n_common = self._stage.bands_rows()[1] if self._shape == "bucket" else 0
            fill_signatures(family, text, own, n_common, signatures)
            sink.add(docs, self._stage.band_keys(signatures, docs))
        else:
            sink.add(docs, DedupKeys(docs, text_hash[:, 0].copy(), text_hash[:, 1].copy()))
        with self._writer(f"keys{number}") as writer:
            sink.write(writer, n_rows)

    def inputs(self, memory_bytes: int) -> DedupInputs:
        """What the walk would know."""
        shards = [Shard(f"{number:06}.jsonl", "", 0, "") for number in range(len(self.n_rows))]
        return DedupInputs(
            index=0,
            stage=self._stage,
            label=f"0:{self._stage.use}",
            fingerprint="made up",
            segments=tuple(SegmentRefs(k, 0, n, f"base{k}") for k, n in enumerate(self.n_rows)),
            keys=tuple(f"keys{k}" for k in range(len(self.n_rows))),
            digests=tuple(f"{k}" for k in range(len(self.n_rows))),
            shard_rows=tuple((n,) for n in self.n_rows),
            pieces=tuple(Piece((shard,), "jsonl", "none") for shard in shards),
            edits=tuple(() for _ in self.n_rows),
            mask="mask",
            ranked_by=(),
            memory_bytes=memory_bytes,
            against=(),
            base="",
            key_fields=(),
        )


class Meter:
    """Peak anonymous memory and CPU seconds of the worker processes, sampled; use as a context manager."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._cpu_s: dict[int, tuple[float, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Meter:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    @property
    def cpu_s(self) -> float:
        return sum(last - first for first, last in self._cpu_s.values())

    def _repeat(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        for process in multiprocessing.active_children():
            if process.pid is not None:
                self.peak_bytes = max(self.peak_bytes, _anonymous_bytes(process.pid))
                used = _cpu_seconds(process.pid)
                self._cpu_s[process.pid] = self._cpu_s.get(process.pid, (used, used))[0], used


def _anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Runner:
    """Runs the steps of a dedup, and prints a line for each kind of task."""

    def __init__(self, store: LocalStore, engine: LocalEngine) -> None:
        self._store, self._engine = store, engine

    def run(self, phase: str, steps: Sequence[Step]) -> None:
        if not steps:
            return
        start = time.perf_counter()
        seconds: dict[str, float] = {}
        with Meter() as meter:
            for _, figures in self._engine.run([step.task for step in steps]):
                for part, taken in figures["seconds"].items():
                    seconds[part] = seconds.get(part, 0) + taken
        n_bytes = sum((self._store.root / step.artifact).stat().st_size for step in steps)
        name = steps[0].task.function.split(":")[1]
        parts = ", ".join(f"{part} {taken:.1f}" for part, taken in seconds.items())
        report(f"{name} x {len(steps)}", time.perf_counter() - start, n_bytes, meter, parts)


def report(name: str, seconds: float, n_bytes: int, meter: Meter | None = None, parts: str = "") -> None:
    """One line of the table."""
    used = "" if meter is None else f"CPU {meter.cpu_s:7.1f} s  peak {meter.peak_bytes / 1e6:7,.0f} MB"
    print(f"{name:24} {seconds:7.1f} s  {used:33} {n_bytes / 1e6:9,.0f} MB written  {parts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--docs", default="1M", help="documents")
    parser.add_argument("--shape", choices=SHAPES, default="planted")
    parser.add_argument("--memory", default="1GiB", help="as in a recipe")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", help="where the artifacts go")
    parser.add_argument("--survivors", choices=["greedy", "index", "component"], default="greedy")
    args = parser.parse_args()
    n_docs = int(str(parse_bytes(args.docs)))
    params = {} if args.shape == "exact" else {"verify": "estimate", "survivors": args.survivors}
    use = "exact_dedup" if args.shape == "exact" else "minhash_dedup"
    call = StageCall(use, params, "/", None)
    stage = call.make()
    assert isinstance(stage, DedupStage)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        start = time.perf_counter()
        store = LocalStore(folder)
        corpus = Corpus(store, args.shape, n_docs, stage)
        scratch = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{n_docs:,} documents, {args.shape}, {len(corpus.n_rows)} segments")
        report("made up", time.perf_counter() - start, scratch)
        output = OutputCall("", "same", (), (), dropped=False, copies="repeat")
        job = Job(ReadSpec("text", None, 1 << 26, 1 << 28, 16384), (call,), output, str(folder))
        start = time.perf_counter()
        with LocalEngine(job, args.workers) as engine:
            joined = DedupPhases(
                corpus.inputs(int(str(parse_bytes(args.memory)))), store, Runner(store, engine).run
            ).run()
        meta = Bundle(store, joined).meta
        scratch = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        report("all", time.perf_counter() - start, scratch)
        largest = max((cluster["size"] for cluster in meta["clusters"]["largest"]), default=1)
        print(
            f"{meta['clusters']['n']:,} clusters, the largest of {largest:,}; "
            f"{meta['n_candidates']:,} pairs compared"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
