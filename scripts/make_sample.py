"""Make the quick start's corpus out of the text that every installation already has.

    python scripts/make_sample.py .sample

Docstrings, module documentation, comments, code, type stubs, licences and package descriptions of the running
Python's standard library and installed packages, read as files (parsed with `ast`, never imported), become a
corpus of mixed shards with natural near-duplicates and noise, and three held-out sets: `target`, `hq`, `lq`.
Nothing is downloaded, nothing is made up, nothing comes from outside `sys.prefix` and `sys.base_prefix`.
The same installed versions and seed give the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import ast
import email.parser
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

# Bytes of text taken from one source (package) for each kind, so that no large package drowns the others.
BYTES_PER_SOURCE = {
    "docstring": 450_000,
    "module": 60_000,
    "manual": 500_000,
    "description": 200_000,
    "text": 80_000,
    "licence": 150_000,
    "comment": 6_000,
    "code": 12_000,
    "stub": 50_000,
    "metadata": 20_000,
}
MAX_FILES_PER_SOURCE = 120  # parsed; bounds the time
MAX_CHARS = 150_000
# Half of all docstrings are one line. One in eight of the short texts stays, chosen by the text, so that the
# copies of a text stay or go together.
SHORT_CHARS = 200
SHORT_KEPT_OF = 8

# The target domain: statistics and array computing. Half of these files (by hash of the path) is held out.
TARGET_FILES = re.compile(r"^(scipy/stats/|numpy/(lib|ma|linalg|random)/|stdlib/(statistics|random)\.py)")

# Sources held out for the two classes of the quality model. Both classes come from the same sources, so that
# the model learns prose against noise and not one package against another. No package is here that another
# one carries a copy of (pip: rich, idna; setuptools: distutils).
CLASSIFIER_SOURCES = frozenset(
    """
    aiohttp anyio click filelock fsspec httpcore2 httpx2 huggingface-hub hypothesis llvmlite markdown-it-py
    mypy numba pluggy pydantic-core tqdm xxhash
    stdlib._pydecimal stdlib.asyncio stdlib.configparser stdlib.doctest stdlib.email stdlib.encodings
    stdlib.logging stdlib.multiprocessing stdlib.optparse stdlib.pydoc_data stdlib.tarfile stdlib.tkinter
    stdlib.unittest
    """.split()  # noqa: SIM905 - a list of 30 literals reads worse
)
STOPWORDS = frozenset(
    """
    a an and are as at be by can for from has have if in is it its may not of on or that the then this to was
    when which will with you
    """.split()  # noqa: SIM905
)

SKIPPED_PARTS = frozenset({"__pycache__", "test", "tests", "idle_test", "site-packages", "dist-packages"})
LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)
ROWS_PER_ROW_GROUP = 300
ROWS_PER_FRAME = 150


@dataclass(frozen=True)
class Document:
    """One document; `file` is relative to the folder that holds the packages, and names what is held out."""

    file: str
    source: str
    kind: str
    line: int
    text: str

    @property
    def id(self) -> str:
        return f"{self.file}#{self.kind}-{self.line}"

    def row(self) -> dict[str, str | int]:
        return {
            "id": self.id,
            "text": self.text,
            "source": self.source,
            "kind": self.kind,
            "n_lines": self.text.count("\n") + 1,
        }


def digest(*parts: object) -> int:
    """64-bit hash of the parts; orders and samples everything here."""
    key = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


# ---------------------------------------------------------------- which files


def installed_files() -> dict[str, dict[str, Path]]:
    """{source: {name: path}} of every readable file of the standard library and the installed packages."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    stdlib = Path(sysconfig.get_path("stdlib"))
    for top in stdlib.iterdir():
        if top.name not in SKIPPED_PARTS and not top.name.startswith("_sysconfigdata"):  # the build's own
            for path in (top, *top.rglob("*")):
                found[f"stdlib.{top.stem}"][f"stdlib/{path.relative_to(stdlib).as_posix()}"] = path
    for dist in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", dist.metadata["Name"] or "").lower()
        if name and name != "dataselect" and name not in found:  # the first on sys.path is the one in use
            found[name] = {str(file): Path(str(file.locate())) for file in dist.files or ()}
    return {
        source: {name: path for name, path in files.items() if is_wanted(name, path)}
        for source, files in sorted(found.items())
    }


def is_wanted(name: str, path: Path) -> bool:
    parts = Path(name).parts
    if SKIPPED_PARTS.intersection(parts) or ".." in parts:
        return False
    if path.suffix not in {".py", ".pyi", ".md", ".rst", ".txt"} and ".dist-info" not in name:
        return False
    real = path.resolve()
    return real.is_file() and any(
        real.is_relative_to(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)
    )


# ---------------------------------------------------------------- files to texts: (kind, line, text)

Texts = Iterator[tuple[str, int, str]]


def texts_of(name: str, content: str) -> Texts:
    base = name.rsplit("/", 1)[-1]
    if ".dist-info/" in name or ".egg-info/" in name:
        if base == "METADATA":
            yield from description(content)
        elif LICENCE_NAME.search(name.rsplit(".dist-info/", 1)[-1]):
            yield "licence", 1, content
    elif base.endswith(".py"):
        yield from python_module(name, content)
    elif base.endswith(".pyi"):
        yield from statements(content, "stub", min_lines=3)
    elif LICENCE_NAME.search(base):
        yield "licence", 1, content
    else:
        yield "text", 1, content


def description(content: str) -> Texts:
    """The halves of a METADATA file: header fields (machine-written) and the project's description."""
    message = email.parser.Parser().parsestr(content)
    header, _, _ = content.partition("\n\n")
    yield "metadata", 1, header
    yield "description", header.count("\n") + 2, str(message.get_payload())


def python_module(name: str, content: str) -> Texts:
    tree = ast.parse(content)
    if name.endswith("pydoc_data/topics.py"):
        yield from manual_pages(tree)
        return
    if doc := ast.get_docstring(tree):
        yield "module", 1, doc
    yield from comments(content)
    yield from docstrings(tree)
    yield from statements(content, "code", min_lines=8, tree=tree)


def docstrings(parent: ast.Module | ast.ClassDef) -> Texts:
    """Docstrings of functions, classes and methods; local functions have too few to walk every node for."""
    for node in parent.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if doc := ast.get_docstring(node):
                yield "docstring", node.lineno, doc
            if isinstance(node, ast.ClassDef):
                yield from docstrings(node)


def manual_pages(tree: ast.Module) -> Texts:
    """The language reference behind `help("for")`: one long dict of title to text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for value in node.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield "manual", value.lineno, value.value


def comments(content: str) -> Texts:
    """The comments a file begins with (most often a copyright notice) and other blocks of >= 6 lines."""
    block: list[str] = []
    for number, line in enumerate([*content.split("\n"), ""], start=1):
        if line.lstrip().startswith("#"):
            block.append(line.strip().lstrip("#").removeprefix(" "))
            continue
        if len(block) >= (3 if number <= len(block) + 3 else 6):
            yield "comment", number - len(block), "\n".join(block)
        block = []


def statements(content: str, kind: str, min_lines: int, tree: ast.Module | None = None) -> Texts:
    """Source of the top-level statements: long ones alone, runs of short ones together."""
    lines = content.split("\n")
    block: list[str] = []
    start = 1
    for node in (tree or ast.parse(content)).body:
        block += lines[start + len(block) - 1 : node.end_lineno]
        if len(block) >= 20:  # about 1 kB
            yield kind, start, "\n".join(block)
            start, block = start + len(block), []
    if len(block) >= min_lines:
        yield kind, start, "\n".join(block)


# ---------------------------------------------------------------- documents


def collect(seed: int = 1) -> list[Document]:
    """Every document of the sample, held-out ones included, sorted by id."""
    documents: dict[str, Document] = {}
    for source, files in installed_files().items():
        bytes_left = dict(BYTES_PER_SOURCE)
        for name in chosen_files(files, seed):
            # The held-out half of the target's files is wanted whole and leaves the budget alone.
            is_target = in_target(name, seed)
            for kind, line, text in read_texts(name, files[name]):
                document = Document(name, source, kind, line, text.strip("\n"))
                if (bytes_left[kind] > 0 or is_target) and is_usable(document, seed):
                    bytes_left[kind] -= 0 if is_target else utf8_length(document.text)
                    documents.setdefault(document.id, document)
    return [documents[id_] for id_ in sorted(documents)]


def chosen_files(files: dict[str, Path], seed: int) -> list[str]:
    """Names in an order drawn by hash: all files of the package's metadata and of the target, some others."""
    names = sorted(files, key=lambda name: (digest(seed, "file", name), name))
    always = [name for name in names if ".dist-info/" in name or in_target(name, seed)]
    others = [name for name in names if ".dist-info/" not in name and not in_target(name, seed)]
    return always + others[:MAX_FILES_PER_SOURCE]


def is_usable(document: Document, seed: int) -> bool:
    text = document.text
    if not utf8_length(text) or len(text) > MAX_CHARS:
        return False
    return len(text) >= SHORT_CHARS or digest(seed, "short", text) % SHORT_KEPT_OF == 0


def read_texts(name: str, path: Path) -> Iterable[tuple[str, int, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in others' files
            return list(texts_of(name, path.read_text("utf-8")))
    except (OSError, SyntaxError, ValueError):  # templates and deliberate errors; undecodable or NUL bytes
        return []


def utf8_length(text: str) -> int:
    """Length in bytes; 0 for text with lone surrogates (from escapes in docstrings), which is not UTF-8."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def in_target(name: str, seed: int) -> bool:
    return bool(TARGET_FILES.match(name)) and digest(seed, "target", name) % 2 == 0


# ---------------------------------------------------------------- sets


def split(documents: list[Document], seed: int = 1) -> dict[str, list[Document]]:
    """{raw, target, hq, lq}: held out by file or by source, and no text stands in two sets.

    Within `raw`, exact and near duplicates stay as they come.
    """
    sets: dict[str, list[Document]] = {"raw": [], "target": [], "hq": [], "lq": []}
    for document in documents:
        if in_target(document.file, seed):
            if document.kind in {"module", "docstring"} and len(document.text) >= 300:
                sets["target"].append(document)
        elif document.source not in CLASSIFIER_SOURCES:
            sets["raw"].append(document)
        elif is_prose(document):
            sets["hq"].append(document)
        elif is_noise(document):
            sets["lq"].append(document)
    seen = {document.text for document in sets["raw"]}
    for name in ("target", "hq", "lq"):
        unique = {document.text: document for document in reversed(sets[name]) if document.text not in seen}
        sets[name] = [document for document in sets[name] if unique.get(document.text) is document]
        seen.update(unique)
        sets[name] = shuffled(sets[name], seed)
    return sets


def shuffled(documents: list[Document], seed: int) -> list[Document]:
    return sorted(documents, key=lambda document: (digest(seed, "order", document.id), document.id))


def is_prose(document: Document) -> bool:
    """Long documentation in sentences; the thresholds were set by reading what they let through."""
    return (
        document.kind in {"module", "docstring", "description", "text", "manual"}
        and len(document.text) >= 350
        and stopword_share(document.text) >= 0.26
        and sum(map(str.isalpha, document.text)) >= 0.62 * len(document.text)
    )


def is_noise(document: Document) -> bool:
    """Licences, headers, stubs, code and tables, and docstrings that are hardly sentences."""
    is_copyright = document.kind == "comment" and document.line == 1
    return len(document.text) >= 40 and (
        is_copyright
        or document.kind in {"licence", "metadata", "stub", "code"}
        or stopword_share(document.text) < 0.08
    )


def stopword_share(text: str) -> float:
    words = re.findall(r"[a-z']+", text.lower())
    return sum(word in STOPWORDS for word in words) / len(words) if words else 0.0


# ---------------------------------------------------------------- shards


def jsonl(documents: Iterable[Document], *, ascii_only: bool = False) -> bytes:
    lines = (json.dumps(document.row(), ensure_ascii=ascii_only) + "\n" for document in documents)
    return "".join(lines).encode()


def plain_shard(path: Path, documents: list[Document]) -> None:
    path.write_bytes(jsonl(documents))


def escaped_shard(path: Path, documents: list[Document]) -> None:
    r"""Non-ASCII characters as \uXXXX, what `json.dumps` writes by default."""
    path.write_bytes(jsonl(documents, ascii_only=True))


def gzip_shard(path: Path, documents: list[Document]) -> None:
    path.write_bytes(gzip.compress(jsonl(documents), compresslevel=6, mtime=0))


def zstd_shard(path: Path, documents: list[Document]) -> None:
    path.write_bytes(zstandard.ZstdCompressor(level=3).compress(jsonl(documents)))


def zstd_frames_shard(path: Path, documents: list[Document]) -> None:
    blocks = [documents[i : i + ROWS_PER_FRAME] for i in range(0, len(documents), ROWS_PER_FRAME)]
    path.write_bytes(b"".join(zstandard.ZstdCompressor(level=3).compress(jsonl(block)) for block in blocks))


def parquet_shard(path: Path, documents: list[Document], compression: str = "zstd") -> None:
    types: dict[str, pa.DataType] = dict.fromkeys(("id", "text", "source", "kind"), pa.string())
    schema = pa.schema({**types, "n_lines": pa.int32()})
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([document.row() for document in documents], schema=schema)
    pq.write_table(table, buffer, compression=compression, row_group_size=ROWS_PER_ROW_GROUP)
    path.write_bytes(buffer.getvalue())


def snappy_shard(path: Path, documents: list[Document]) -> None:
    parquet_shard(path, documents, compression="snappy")


SHARDS: list[tuple[str, Callable[[Path, list[Document]], None], str]] = [
    ("part-00.jsonl", plain_shard, "UTF-8"),
    ("part-01.jsonl", escaped_shard, "non-ASCII characters escaped"),
    ("part-02.jsonl.gz", gzip_shard, "gzip"),
    ("part-03.jsonl.gz", gzip_shard, "gzip"),
    ("part-04.jsonl.zst", zstd_shard, "zstd, one frame"),
    ("part-05.jsonl.zst", zstd_frames_shard, f"zstd, a frame every {ROWS_PER_FRAME} rows"),
    ("part-06.parquet", parquet_shard, f"zstd, row groups of {ROWS_PER_ROW_GROUP} rows"),
    ("part-07.parquet", snappy_shard, f"snappy, row groups of {ROWS_PER_ROW_GROUP} rows"),
]


def write_sample(out: Path, seed: int = 1) -> dict[str, list[Document]]:
    """Write the sample into `out` and return its sets; README.md comes last and so marks a whole sample."""
    sets = split(collect(seed), seed)
    (out / "README.md").unlink(missing_ok=True)
    shutil.rmtree(out / "raw", ignore_errors=True)
    (out / "raw").mkdir(parents=True)
    in_shard: list[list[Document]] = [[] for _ in SHARDS]
    for document in shuffled(sets["raw"], seed):
        in_shard[digest(seed, "shard", document.id) % len(SHARDS)].append(document)
    for (name, write, _), documents in zip(SHARDS, in_shard, strict=True):
        write(out / "raw" / name, documents)
    for name in ("target", "hq", "lq"):
        (out / f"{name}.jsonl").write_bytes(jsonl(sets[name]))
    (out / "README.md").write_text(readme(sets, in_shard), "utf-8")
    return sets


def readme(sets: dict[str, list[Document]], in_shard: list[list[Document]]) -> str:
    raw = sets["raw"]
    texts = Counter(document.text for document in raw)
    lines = [
        "# The sample",
        "",
        "Real text from this machine's Python installation (standard library and installed packages), made",
        "by `scripts/make_sample.py`. Other versions give another sample. It belongs to the authors of those",
        "packages, under their licences.",
        "",
        "Fields of a row: `id`, `text`, `source` (package), `kind`, `n_lines`.",
        "",
        "| file | rows | MB of text | what it is |",
        "|---|---:|---:|---|",
    ]
    for (name, _, what), documents in zip(SHARDS, in_shard, strict=True):
        lines.append(f"| raw/{name} | {len(documents):,} | {megabytes(documents)} | the corpus: {what} |")
    what_is = {
        "target": "the domain to weigh towards: statistics and array computing, from files not in `raw`",
        "hq": "positive class of the quality model: long prose, from packages not in `raw`",
        "lq": "negative class: licences, stubs, code, near-wordless docstrings, from the same packages",
    }
    for name, what in what_is.items():
        lines.append(f"| {name}.jsonl | {len(sets[name]):,} | {megabytes(sets[name])} | {what} |")
    lines += ["", "| kind in raw | rows | MB of text |", "|---|---:|---:|"]
    for kind in sorted({document.kind for document in raw}):
        of_kind = [document for document in raw if document.kind == kind]
        lines.append(f"| {kind} | {len(of_kind):,} | {megabytes(of_kind)} |")
    lines += [
        "",
        (
            f"`raw` holds {len(raw):,} documents from {len({d.source for d in raw}):,} sources; "
            f"{len(raw) - len(texts):,} are exact copies of an earlier one."
        ),
        "",
    ]
    return "\n".join(lines)


def megabytes(documents: list[Document]) -> str:
    return f"{sum(utf8_length(document.text) for document in documents) / 1e6:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the quick start's corpus from installed packages.")
    parser.add_argument("out", type=Path, help="folder to write, e.g. .sample")
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed takes other files and shuffles anew"
    )
    args = parser.parse_args()
    sets = write_sample(args.out, args.seed)
    counts = ", ".join(f"{len(documents):,} {name}" for name, documents in sets.items())
    print(f"{args.out}: {counts} documents, {megabytes(sets['raw'])} MB of text in raw")


if __name__ == "__main__":
    main()
