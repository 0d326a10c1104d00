"""Small text corpora for tests: every word is chosen by a hash, so they are the same everywhere."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard

from dataselect.engine.job import Context
from dataselect.engine.tasks import execute


def _words(text: str) -> list[str]:
    return text.split()


GENERAL = _words("""
the a of to and in is was for that with as on by from this it are be at which not have has had were their
river mountain village harbour winter summer morning evening bread market street window garden kitchen letter
teacher student history language music painting theatre football station train ticket weather forest island
engine software network keyboard battery signal memory compiler database server protocol version release patch
court justice minister election council budget energy climate export import factory worker wage strike union
""")
MEDICAL = _words("""
patient clinical trial dose therapy symptom diagnosis chronic acute infection antibody vaccine tumour receptor
cardiac renal hepatic plasma glucose insulin placebo cohort mortality incidence randomised hospital surgery
treatment disease tissue protein enzyme gene mutation biopsy screening inflammation dosage adverse outcome
""")
FOREIGN = _words("""
naïve café Straße señor fjörður žluťoučký Ελλάδα μαθητής Привет книга שלום مدرسة 東京 大学 日本語 한국어 ไทย
🙂 e\u0301tude İstanbul
""")


def number(*parts: object) -> int:
    """64 bits that depend on `parts` alone."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def sentence(n_words: int, *seed: object) -> list[str]:
    """Words, some of them medical or foreign, frequent ones first in their lists."""
    kind = number("kind", *seed) % 10
    words = []
    for i in range(n_words):
        draw = number(i, *seed)
        pool = MEDICAL if kind < 3 and draw % 3 == 0 else FOREIGN if kind == 9 and draw % 4 == 0 else GENERAL
        a, b = draw >> 8 & 0xFFFF, draw >> 24 & 0xFFFF
        words.append(pool[min(a % len(pool), b % len(pool))])
    return words


def text_of(i: int, seed: str = "corpus") -> str:
    """Document i: of every eight one is an exact copy, one a near copy, and one is short."""
    role = i % 8
    if role == 3 and i > 8:
        return text_of(i - 2 - 8 * (number("copy", i) % (i // 8)), seed)  # i - 2 - 8k is an original
    if role == 5 and i > 8:
        words = text_of(i - 4 - 8 * (number("near", i) % (i // 8)), seed).split(" ")
        words[number("where", i) % len(words)] = "changed"
        return " ".join(words)
    if role == 7:
        return " ".join(sentence(4 + number("short", i, seed) % 12, i, seed))
    words = sentence(60 + number("length", i, seed) % 60, i, seed)
    return " ".join(words).replace(" the ", ".\nThe ", 3) + "."


@dataclass(frozen=True)
class Doc:
    """A row as it stands in a shard."""

    id: str
    text: str

    def line(self, **extra: Any) -> bytes:
        """JSON with its newline, in a style that no writer would choose."""
        row = {"id": self.id, "meta": {"n": len(self.text), "f": 1.50}, "text": self.text, **extra}
        return json.dumps(row, ensure_ascii=len(self.id) % 2 == 0, separators=(" ,", " : ")).encode() + b"\n"


def docs(n_docs: int, first: int = 0, seed: str = "corpus") -> list[Doc]:
    """Documents first .. first + n_docs - 1."""
    return [Doc(f"{seed}-{i:05d}", text_of(i, seed)) for i in range(first, first + n_docs)]


def jsonl(rows: Iterable[Doc]) -> bytes:
    """Plain lines."""
    return b"".join(row.line() for row in rows)


def zstd(data: bytes, n_frames: int = 8) -> bytes:
    """Frames cut anywhere, also inside lines."""
    step = len(data) // n_frames + 1
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    return b"".join(compressor.compress(data[at : at + step]) for at in range(0, len(data), step))


def table_of(rows: Sequence[Doc]) -> pa.Table:
    """Columns of several types, own metadata."""
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("year", pa.int16(), metadata={"unit": "year"}),
            pa.field("text", pa.string()),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("when", pa.timestamp("ms", tz="UTC")),
        ],
        metadata={"source": "corpora.py"},
    )
    columns = {
        "id": [row.id for row in rows],
        "year": [1900 + number("year", row.id) % 120 for row in rows],
        "text": [row.text for row in rows],
        "tags": [[row.id[-1], "x"] if i % 3 else None for i, row in enumerate(rows)],
        "when": [number("when", row.id) % 10**12 for row in rows],
    }
    return pa.table({k: pa.array(v, schema.field(k).type) for k, v in columns.items()}, schema=schema)


def parquet(path: Path, rows: Sequence[Doc], rows_per_group: int = 40) -> None:
    """Several row groups."""
    pq.write_table(table_of(rows), path, row_group_size=rows_per_group, compression="snappy")


def arrow(path: Path, rows: Sequence[Doc], rows_per_batch: int = 40) -> None:
    """A stream of several record batches."""
    table = table_of(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)


def write_shard(path: Path, rows: Sequence[Doc]) -> None:
    """In the format that the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    if name.endswith(".parquet"):
        parquet(path, rows)
    elif name.endswith(".arrow"):
        arrow(path, rows)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(jsonl(rows), mtime=0))
    elif name.endswith((".bz2", ".xz")):
        half = len(rows) // 2  # two members, as `cat` makes them
        compress = bz2.compress if name.endswith(".bz2") else lzma.compress
        path.write_bytes(compress(jsonl(rows[:half])) + compress(jsonl(rows[half:])))
    elif name.endswith(".zst"):
        path.write_bytes(zstd(jsonl(rows)))
    else:
        path.write_bytes(jsonl(rows))


SHARDS = ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "sub/e.jsonl", "sub/f.jsonl.zst")


def make_corpus(
    folder: Path, docs_per_shard: int = 60, shards: Sequence[str] = SHARDS
) -> dict[str, list[Doc]]:
    """Shards in `folder`; shard name -> its rows, in the order of names."""
    corpus = {}
    for i, name in enumerate(sorted(shards)):
        corpus[name] = docs(docs_per_shard, first=i * docs_per_shard)
        write_shard(folder / name, corpus[name])
    return corpus


def make_target(path: Path, n_docs: int = 40) -> list[str]:
    """Texts of one kind, as a JSONL file."""
    texts = [" ".join(MEDICAL[number(i, j) % len(MEDICAL)] for j in range(50)) for i in range(n_docs)]
    path.write_bytes(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
    return texts


ALL_STAGES: list[dict[str, Any]] = [
    {"use": "length_filter", "min_chars": 150},
    {"use": "exact_dedup"},
    {"use": "minhash_dedup", "threshold": 0.8, "ngram": 3, "num_perm": 64},
    {"use": "ngram_importance", "target": "target.jsonl", "n_buckets": 512},
    {"use": "select", "by": "importance", "method": "resample", "keep": {"fraction": 0.4}, "seed": 1},
]
"""One of every kind but fastText; needs target.jsonl beside the recipe."""


def write_recipe(folder: Path, stages: Sequence[dict[str, Any]] = ALL_STAGES, **sections: Any) -> Path:
    """folder/recipe.yaml over folder/in, into folder/out with folder/work; sections are merged into it."""
    recipe: dict[str, Any] = {
        "input": {"shards": ["in/**/*.jsonl", "in/**/*.gz", "in/**/*.zst", "in/**/*.parquet"], "id": "id"},
        "stages": list(stages),
        "output": {"folder": "out"},
        "work": "work",
    }
    for name, value in sections.items():
        recipe[name] = {**recipe[name], **value} if isinstance(recipe.get(name), dict) else value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), "utf-8")
    return path


def make_project(folder: Path, stages: Sequence[dict[str, Any]] = ALL_STAGES, **sections: Any) -> Path:
    """A corpus, a target and a recipe over them; the recipe's path."""
    make_corpus(folder / "in")
    make_target(folder / "target.jsonl")
    return write_recipe(folder, stages, **sections)


def live(output: Path) -> Path:
    """Folder of the live generation."""
    manifest = json.loads((output / "manifest.json").read_text("utf-8"))
    return output / manifest["generation"]


def written_rows(output: Path, kind: str = "shards") -> list[dict[str, Any]]:
    """All rows of the live shards/ or heldout/, in order."""
    rows: list[dict[str, Any]] = []
    for path in sorted((live(output) / kind).rglob("*.*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += [json.loads(line) for line in unpacked(path).splitlines()]
    return rows


def unpacked(path: Path) -> bytes:
    """A file's bytes, decompressed as its ending says."""
    data = path.read_bytes()
    if path.suffix in (".gz", ".bz2", ".xz"):
        module = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[path.suffix]
        return bytes(module.decompress(data))
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read()
    return data


def decisions(output: Path) -> list[dict[str, Any]]:
    """All rows of decisions/, in the order of (shard, part, row)."""
    rows: list[dict[str, Any]] = []
    for path in sorted((live(output) / "decisions").rglob("*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: (row["shard"], row["part"], row["row"]))


def kept_ids(output: Path) -> list[str]:
    """Ids of the kept rows, in order."""
    return [row["id"] for row in decisions(output) if row["copies"]]


STAGES_PY = '''
"""Stages that misbehave, each in its own way; copied beside a recipe."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from dataselect.core.errors import DataselectError
from dataselect.stages.base import MapStage


class HasWord(MapStage):
    """Keep documents with a word."""

    word: str = "the"

    def output_columns(self):
        return {"n_hits": "int64"}

    def columns(self, texts, model):
        return {"n_hits": np.array([text.as_py().split().count(self.word) for text in texts.array])}

    def keep(self, columns):
        return {f"no {self.word}": columns["n_hits"] < 1}


class Waiting(MapStage):
    """Tell that it began, and wait for leave to go on."""

    flags: str

    def columns(self, texts, model):
        (Path(self.flags) / "began").touch()
        while not (Path(self.flags) / "go").exists():
            time.sleep(0.01)
        return {}


class Deadly(MapStage):
    """Kill its own process, `times` times in all."""

    times: int = 1
    log: str

    def columns(self, texts, model):
        log = Path(self.log)
        deaths = len(log.read_text()) if log.exists() else 0
        if len(texts) and deaths < self.times:
            log.write_text("x" * (deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


class Chatty(MapStage):
    """Print, as one does to find a mistake."""

    def columns(self, texts, model):
        print("chat")
        return {}


class Refusing(MapStage):
    """Fail as a stage of ours would."""

    def columns(self, texts, model):
        raise DataselectError("the moon is in the wrong quarter; wait a week")


class Broken(MapStage):
    """Fail as nobody foresaw."""

    def columns(self, texts, model):
        return {"x": [1][2]}
'''


def own_stage(folder: Path, name: str, **params: Any) -> dict[str, Any]:
    """A stage of STAGES_PY for a recipe in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my_stages.py").write_text(STAGES_PY, "utf-8")
    return {"use": f"my_stages.py:{name}", **params}


def recipe_with(project: Path, name: str, **params: Any) -> Path:
    """A recipe whose first stage is of STAGES_PY; every small shard is a piece."""
    stages = [own_stage(project, name, **params), {"use": "exact_dedup"}]
    return write_recipe(project, stages, input={"piece_bytes": 4096})


def start(*args: object, program: Sequence[str] = ("-m", "dataselect"), **env: str) -> subprocess.Popen[str]:
    """`dataselect ...` as a process of its own."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **env},
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 60) -> tuple[str, str]:
    """stdout and stderr of a process that ends; one that does not is killed: no test waits for ever."""
    try:
        return process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def cli(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `dataselect ...`."""
    with start(*args) as process:
        out, err = finish(process)
    return process.returncode, out, err


def processes_with(marker: str) -> list[int]:
    """Ids of all processes that have `marker` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The condition's first true value; AssertionError where there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


class SerialEngine:
    """The engine's interface without processes: every task runs here, in order."""

    n_workers = 1

    def __init__(self, job: Any, n_workers: int) -> None:
        self._context = Context(job)

    def __enter__(self) -> SerialEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def run(self, tasks: Sequence[Any], progress: Any = None) -> Iterator[tuple[int, Any]]:
        for i, task in enumerate(tasks):
            yield i, execute(self._context, task)


def words(n_words: int, *seed: object) -> list[str]:
    """Words that no other seed has."""
    text = f"w{number(*seed):x}x"
    return [text + str(i) for i in range(n_words)]


def pair_of_similarity(similarity: float, *seed: object, n_shingles: int = 90) -> tuple[str, str]:
    """Two texts of n_shingles different 5-word shingles each, of which s are common: J = s / (2 n - s)."""
    n_common = round(2 * n_shingles * similarity / (1 + similarity))
    a, b = words(n_shingles + 4, *seed, "a"), words(n_shingles + 4, *seed, "b")
    return " ".join(a), " ".join(a[: n_common + 4] + b[n_common + 4 :] if n_common else b)


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    r"""5-word shingles of \w runs, lower-cased; the whole text where it has fewer words."""
    found = re.findall(r"\w+", text.lower())
    length = min(5, len(found)) or 1
    return frozenset(tuple(found[i : i + length]) for i in range(len(found) - length + 1))


def jaccard(a: str, b: str) -> float:
    """Of the two texts' shingles; 0 where neither has any."""
    both, either = shingles(a) & shingles(b), shingles(a) | shingles(b)
    return len(both) / len(either) if either else 0.0
