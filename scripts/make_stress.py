"""Make the inputs of the memory and robustness tests, from the same real text as the sample.

    python scripts/make_stress.py zst OUT.jsonl.zst --gb 2                  a single frame
    python scripts/make_stress.py rowgroup OUT.parquet --gb 1               a single row group
    python scripts/make_stress.py tiny OUT --files 200000 --bytes 5000      many files in nested folders
    python scripts/make_stress.py bad OUT                                   every kind of bad row

The large ones repeat the sample's documents; in every copy each word gets the copy's number as a suffix, so
that copies share no n-gram and are no duplicates. All are deterministic for the same installed versions, and
written as a stream.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import itertools
import json
import lzma
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import make_sample
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from copies import json_escaped, json_line, marked, with_suffix

ROWS_PER_BATCH = 2_000


def base_documents(max_chars: int = 20_000) -> list[make_sample.Document]:
    """The sample's documents of 200 to `max_chars` characters, one of each text, in the sample's order."""
    by_text = {document.text: document for document in make_sample.shuffled(make_sample.collect(), seed=1)}
    return [document for text, document in by_text.items() if 200 <= len(text) <= max_chars]


def endless_rows(max_chars: int = 20_000) -> Iterator[tuple[str, bytes]]:
    """(id, JSON-escaped text without its quotes), copy after copy of the base; copy 0 is the text itself."""
    base = [(document.id, json_escaped(marked(document.text))) for document in base_documents(max_chars)]
    for copy in itertools.count():
        suffix = f"x{copy}".encode() if copy else b""
        for id_, text in base:
            yield f"{id_}@{copy}", with_suffix(text, suffix)


def make_zst(out: Path, n_bytes: int) -> str:
    """One .jsonl.zst of `n_bytes` decompressed, in a single frame."""
    n_rows = n_written = 0
    with out.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as writer:
        for id_, text in endless_rows():
            if n_written >= n_bytes:
                break
            line = json_line(id_, text)
            writer.write(line)
            n_written += len(line)
            n_rows += 1
    return f"{n_rows:,} rows, {n_written / 1e9:.2f} GB decompressed"


def make_rowgroup(out: Path, n_bytes: int) -> str:
    """One Parquet file whose single row group holds `n_bytes` of text.

    pyarrow begins a row group with every write, so the rows go through a memory-mapped Arrow file next to
    `out` (the kernel may drop its pages) and are written at once.
    """
    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    rows = endless_rows()
    n_rows = n_written = 0
    arrow_file = out.with_suffix(".arrow.tmp")
    try:
        with pa.OSFile(str(arrow_file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            while n_written < n_bytes:
                ids, escaped = zip(*itertools.islice(rows, ROWS_PER_BATCH), strict=True)
                texts = [json.loads(b'"%b"' % text) for text in escaped]
                batch = pa.record_batch([pa.array(ids), pa.array(texts)], schema=schema)
                writer.write_batch(batch)
                n_written += sum(len(text.encode()) for text in texts)
                n_rows += len(ids)
        with pa.memory_map(str(arrow_file)) as source:
            table = pa.ipc.open_file(source).read_all()
            pq.write_table(table, out, compression="zstd", use_dictionary=False, row_group_size=n_rows)
    finally:
        arrow_file.unlink(missing_ok=True)
    n_row_groups = pq.read_metadata(out).num_row_groups
    if n_row_groups != 1:
        sys.exit(f"{out}: pyarrow wrote {n_row_groups} row groups, one is wanted")
    return f"{n_rows:,} rows, {n_written / 1e9:.2f} GB of text in one row group"


def make_tiny(out: Path, n_files: int, n_bytes: int) -> str:
    """`n_files` JSONL files of about `n_bytes` each in folders of up to 1,000, three levels deep."""
    rows = endless_rows(max_chars=n_bytes // 2)
    n_rows = n_written = 0
    for number in range(n_files):
        folder = out / f"{number // 100_000:02d}" / f"{number // 1_000 % 100:02d}"
        if number % 1_000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        lines: list[bytes] = []
        while sum(map(len, lines)) < n_bytes * 9 // 10:  # the last row goes over the brim by half its length
            lines.append(json_line(*next(rows)))
        (folder / f"{number:07d}.jsonl").write_bytes(b"".join(lines))
        n_rows += len(lines)
        n_written += sum(map(len, lines))
    return f"{n_files:,} files, {n_rows:,} rows, {n_written / 1e9:.3f} GB"


# ---------------------------------------------------------------- bad rows

MAX_ROW_BYTES = 1_000_000  # the limit that the "too_long" rows are over; to be set as input.max_row_bytes

# {kind: (is the row good?, what it is)}; a blank line is no row at all.
KINDS: dict[str, tuple[bool | None, str]] = {
    "good": (True, "an ordinary row"),
    "bom": (True, "the file's first row, after a UTF-8 byte order mark"),
    "crlf": (True, "the line ends with CR LF"),
    "no_final_newline": (True, "the file's last row has no newline"),
    "escaped_nul": (True, "the text holds an escaped NUL character"),
    "empty_text": (True, "the text is the empty string"),
    "blank_line": (None, "a line of nothing or of white space"),
    "invalid_json": (False, "cut off in the middle"),
    "two_objects": (False, "two JSON objects on one line"),
    "object_over_two_lines": (False, "one JSON object broken over two lines: two bad rows"),
    "not_an_object": (False, "a JSON value that is no object"),
    "duplicate_key": (False, "the key `text` stands twice: parsers disagree on which one counts"),
    "missing_text": (False, "no key `text`"),
    "null_text": (False, "the text is null"),
    "non_string_text": (False, "the text is a number, a list or an object"),
    "invalid_utf8": (False, "bytes in the text that are not UTF-8"),
    "lone_surrogate": (False, "an escaped half of a surrogate pair: valid JSON, not valid Unicode"),
    "too_long": (False, f"longer than {MAX_ROW_BYTES:,} bytes"),
}

Line = tuple[str, bytes]
"""(kind, bytes of the line with its end)"""


def bad_lines(documents: Iterator[make_sample.Document]) -> list[Line]:
    """Good rows with one or more of each kind between them that can stand anywhere in a file."""

    def good(*, ascii_only: bool = False) -> bytes:
        document = next(documents)
        return json.dumps({"id": document.id, "text": document.text}, ensure_ascii=ascii_only).encode()

    def with_text(value: bytes) -> bytes:
        return b'{"id": %b, "text": %b}' % (json.dumps(next(documents).id).encode(), value)

    def body() -> bytes:
        return good().split(b'"text": ', 1)[1][:-1]

    broken = good()
    bad: list[Line] = [
        ("crlf", good() + b"\r\n"),
        ("duplicate_key", b'{"id": "twice", "text": "one of two", "text": %b}\n' % body()),
        ("escaped_nul", with_text(b'"before\\u0000after' + body()[1:]) + b"\n"),
        ("empty_text", with_text(b'""') + b"\n"),
        ("blank_line", b"\n"),
        ("blank_line", b" \t\n"),
        ("invalid_json", good(ascii_only=True)[:-20] + b"\n"),
        ("invalid_json", b"plain words\n"),
        ("two_objects", good() + good() + b"\n"),
        ("two_objects", good() + b" " + good() + b"\n"),
        ("object_over_two_lines", broken.replace(b', "text"', b",\n", 1).split(b"\n")[0] + b"\n"),
        ("object_over_two_lines", b'"text"' + broken.split(b', "text"', 1)[1] + b"\n"),
        ("not_an_object", body() + b"\n"),
        ("not_an_object", b"[1, 2, 3]\n"),
        ("not_an_object", b"null\n"),
        ("missing_text", b'{"id": "textless", "body": %b}\n' % body()),
        ("null_text", with_text(b"null") + b"\n"),
        ("non_string_text", with_text(b"12.5") + b"\n"),
        ("non_string_text", with_text(b'["a", "b"]') + b"\n"),
        ("non_string_text", with_text(b'{"en": "text"}') + b"\n"),
        ("invalid_utf8", with_text(b'"caf\xe9 ' + body()[1:]) + b"\n"),  # Latin-1
        ("invalid_utf8", with_text(b'"cut \xe2\x82 ' + body()[1:]) + b"\n"),
        ("lone_surrogate", with_text(b'"half \\ud83d ' + body()[1:]) + b"\n"),
        ("too_long", with_text(b'"' + b"very long " * (MAX_ROW_BYTES // 10 + 1) + b'"') + b"\n"),
    ]
    lines: list[Line] = []
    for line in bad:
        lines += [line] if line[0] == "object_over_two_lines" else [("good", good() + b"\n"), line]
    return [*lines, ("good", good() + b"\n")]


def make_bad(out: Path) -> str:
    """Small shards with every kind of bad row, and `expected.json` with the number of each kind."""
    documents = iter(base_documents())
    out.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, list[str]] = {}

    def write(name: str, lines: list[Line]) -> bytes:
        kinds[name] = [kind for kind, _ in lines]
        return b"".join(line for _, line in lines)

    def good_line(kind: str, prefix: bytes = b"", end: bytes = b"\n") -> Line:
        document = next(documents)
        return kind, prefix + json.dumps({"id": document.id, "text": document.text}).encode() + end

    (out / "mixed.jsonl").write_bytes(write("mixed.jsonl", bad_lines(documents)))
    (out / "mixed.jsonl.gz").write_bytes(
        gzip.compress(write("mixed.jsonl.gz", bad_lines(documents)), mtime=0)
    )
    (out / "mixed.jsonl.zst").write_bytes(
        zstandard.compress(write("mixed.jsonl.zst", bad_lines(documents)), level=3)
    )
    for ending, compress in ((".bz2", bz2.compress), (".xz", lzma.compress)):
        name = "mixed.jsonl" + ending
        (out / name).write_bytes(compress(write(name, bad_lines(documents))))
    edges = [
        good_line("bom", prefix=b"\xef\xbb\xbf"),
        good_line("good"),
        good_line("no_final_newline", end=b""),
    ]
    (out / "edges.jsonl").write_bytes(write("edges.jsonl", edges))
    crlf = [good_line("crlf", end=b"\r\n") for _ in range(5)]
    (out / "crlf.jsonl").write_bytes(write("crlf.jsonl", [*crlf, ("blank_line", b"\r\n")]))
    (out / "empty.jsonl").write_bytes(write("empty.jsonl", []))
    (out / "blank.jsonl").write_bytes(write("blank.jsonl", [("blank_line", b"\n")] * 3))
    write_bad_table(out / "nulls.parquet", documents, kinds)
    write_bad_table(out / "nulls.arrow", documents, kinds)
    (out / "expected.json").write_text(json.dumps(expected(kinds), indent=1) + "\n", "utf-8")
    n_rows = sum(kind != "blank_line" for names in kinds.values() for kind in names)
    return f"{len(kinds)} shards, {n_rows} rows, {len(KINDS)} kinds"


def write_bad_table(
    path: Path, documents: Iterator[make_sample.Document], kinds: dict[str, list[str]]
) -> None:
    """Twelve rows in four groups; every fourth text is null, one is invalid UTF-8, one too long."""
    names = ["null_text" if i % 4 == 1 else "good" for i in range(12)]
    names[2], names[7] = "invalid_utf8", "too_long"
    rows = list(itertools.islice(documents, len(names)))
    texts = {
        "null_text": None,
        "invalid_utf8": b"caf\xe9 au lait",
        "too_long": b"very long " * (MAX_ROW_BYTES // 10 + 1),
    }
    values = [texts.get(kind, row.text.encode()) for kind, row in zip(names, rows, strict=True)]
    # A binary array viewed as string: Arrow itself would refuse the invalid text.
    text = pa.array(values, pa.binary()).view(pa.string())
    table = pa.table({"id": pa.array([row.id for row in rows]), "text": text})
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="snappy", row_group_size=3)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    kinds[path.name] = names


def expected(kinds: dict[str, list[str]]) -> dict[str, object]:
    """The content of expected.json; `lines` of a shard is the kind of every line, in order."""
    totals = Counter(kind for names in kinds.values() for kind in names)
    return {
        "max_row_bytes": MAX_ROW_BYTES,
        "kinds": {
            kind: {"n": totals[kind], "good": is_good, "what": what}
            for kind, (is_good, what) in KINDS.items()
        },
        "shards": {
            name: {
                "n_rows": sum(kind != "blank_line" for kind in names),
                "n_good": sum(KINDS[kind][0] is True for kind in names),
                "n_bad": sum(KINDS[kind][0] is False for kind in names),
                "n_of_kind": dict(sorted(Counter(names).items())),
                "lines": names,
            }
            for name, names in sorted(kinds.items())
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, default_gb in (("zst", 2.0), ("rowgroup", 1.0)):
        sub = verbs.add_parser(verb)
        sub.add_argument("out", type=Path)
        sub.add_argument("--gb", type=float, default=default_gb, help="10^9 bytes, uncompressed")
    tiny = verbs.add_parser("tiny")
    tiny.add_argument("out", type=Path)
    tiny.add_argument("--files", type=int, default=200_000)
    tiny.add_argument("--bytes", type=int, default=5_000)
    verbs.add_parser("bad").add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.verb == "zst":
        summary = make_zst(args.out, int(args.gb * 1e9))
    elif args.verb == "rowgroup":
        summary = make_rowgroup(args.out, int(args.gb * 1e9))
    elif args.verb == "tiny":
        summary = make_tiny(args.out, args.files, args.bytes)
    else:
        summary = make_bad(args.out)
    print(f"{args.out}: {summary}")


if __name__ == "__main__":
    main()
