"""A row's verdict, text and id are those of the row alone, and the same as the slow twin's."""

from __future__ import annotations

import io
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.errors import BadShard, RecipeError
from dataselect.io import batch as reasons
from dataselect.io.batch import TextSpec
from dataselect.io.json_line import Refusal, parse_line
from dataselect.io.jsonl import iter_jsonl

TEXT = TextSpec.of("text")


class Source:
    """Bytes as a file."""

    def __init__(self, content, name="part.jsonl"):
        self.content, self.name, self.size = content, name, len(content)

    def open(self):
        return io.BytesIO(self.content)


def read(content, text=TEXT, id="id", codec="none", **options):  # noqa: A002
    """{row: (text, id) or reason}, with every promise about batches checked on the way."""
    rows = {}
    ended = False
    for batch in iter_jsonl(Source(content), text=text, id=id, codec=codec, **options):
        assert not ended
        assert batch.rows.dtype == np.int64
        assert batch.texts.type == pa.large_string()
        assert batch.texts.null_count == 0
        batch.texts.validate(full=True)
        assert len(batch.rows) == len(batch.texts)
        ids = [None] * len(batch.texts)
        if id is None:
            assert batch.ids is None
        else:
            assert batch.ids.type == pa.large_string()
            ids = batch.ids.to_pylist()
        found = dict(zip(batch.rows.tolist(), zip(batch.texts.to_pylist(), ids, strict=True), strict=True))
        assert list(found) == sorted(found)
        assert [bad.row for bad in batch.bad] == sorted(bad.row for bad in batch.bad)
        for bad in batch.bad:
            assert bad.reason in reasons.REASONS
            assert len(bad.detail) <= reasons.DETAIL_CHARS
            found[bad.row] = bad.reason
        assert sorted(found) == list(range(batch.first_row, batch.first_row + batch.n_rows))
        assert batch.first_row == len(rows)
        rows.update(found)
        if batch.segment_end is not None:
            ended = True
            assert batch.segment_end.n_rows == len(rows)
    assert ended
    return dict(sorted(rows.items()))


def verdicts(content, **options):
    return list(read(content, **options).values())


def twin(line, text=TEXT, id="id"):  # noqa: A002
    verdict = parse_line(line, text, id)
    return verdict.reason if isinstance(verdict, Refusal) else verdict


GOOD = {
    b'{"text": "plain", "id": "x1"}': ("plain", "x1"),
    b'{"id":5,"text":"number as id"}': ("number as id", "5"),
    b'{"id":-0,"text":"a"}': ("a", "0"),
    b'{"id":1.0,"text":"a"}': ("a", "1.0"),
    b'{"id":1e2,"text":"a"}': ("a", "1e2"),
    b'{"id":9223372036854775808,"text":"a"}': ("a", "9223372036854775808"),
    b'{"id":-9223372036854775808,"text":"a"}': ("a", "-9223372036854775808"),
    b'{"id":' + b"9" * 5_000 + b',"text":"a"}': ("a", "9" * 5_000),
    b'{"id":true,"text":"a"}': ("a", None),
    b'{"id":NaN,"text":"a"}': ("a", None),
    b'{"id":null,"text":"a"}': ("a", None),
    b'{"id":{"a":1},"text":"a"}': ("a", None),
    b'{"id":["a"],"text":"a"}': ("a", None),
    b'{"text":"no id"}': ("no id", None),
    b'{"text":""}': ("", None),
    b' \t{"text" : "spaces" } \t\r': ("spaces", None),
    b'{"text":"\\ud83d\\ude00 \\u00e9 \\/ \\u0000"}': ("\U0001f600 \u00e9 / \0", None),
    '{"text":"h\u00e9 \u4e16 \U0001f600 \ufeff","id":"\u00fc"}'.encode(): (
        "h\u00e9 \u4e16 \U0001f600 \ufeff",
        "\u00fc",
    ),
    b'{"te\\u0078t":"escaped key"}': ("escaped key", None),
    b'{"text":"2020-01-01T00:00:00Z"}': ("2020-01-01T00:00:00Z", None),
    b'{"text":"}{"}': ("}{", None),
    b'{"text":"a","z":{"text":"b","text":"c","id":1}}': ("a", None),
    b'{"text":"a","z":1,"z":2}': ("a", None),
    b'{"text":"a","z":NaN,"y":-Infinity}': ("a", None),
    b'{"text":"a","z":1e308,"y":1e-999,"x":1.5e309}': ("a", None),
    b'{"text":"a","z":' + b"9" * 400 + b"}": ("a", None),
    b'{"":1,"text":"a"}': ("a", None),
    b'{"text":"a","z":' + b"[" * 500 + b"]" * 500 + b"}": ("a", None),
}
BAD = {
    b"{}": reasons.MISSING_TEXT,
    b'{"text":null,"id":"x"}': reasons.MISSING_TEXT,
    b'{"Text":"a"}': reasons.MISSING_TEXT,
    b'{"id":1.5}': reasons.MISSING_TEXT,
    b'{"text":5}': reasons.TEXT_NOT_STRING,
    b'{"text":["a"]}': reasons.TEXT_NOT_STRING,
    b'{"text":{"a":"b"}}': reasons.TEXT_NOT_STRING,
    b'{"text":true}': reasons.TEXT_NOT_STRING,
    b'{"text":NaN}': reasons.TEXT_NOT_STRING,
    b'{"text":"a","text":"a"}': reasons.DUPLICATE_KEY,
    b'{"text":null,"text":"a"}': reasons.DUPLICATE_KEY,
    b'{"text":"a","id":"x","id":"x"}': reasons.DUPLICATE_KEY,
    b'{"text":"a","id":1,"id":"x"}': reasons.DUPLICATE_KEY,
    b'{"text":"a","id":1.5,"id":2}': reasons.DUPLICATE_KEY,
    b'{"text":"a"} {"text":"b"}': reasons.TWO_VALUES,
    b'{"text":"a"}{"text":"b"}': reasons.TWO_VALUES,
    b'{"text":"a"} 5': reasons.TWO_VALUES,
    b'{"text":"a"},': reasons.INVALID_JSON,
    b'{"text":"a"} garbage': reasons.INVALID_JSON,
    b'{"text":"a"}}': reasons.INVALID_JSON,
    b'{"text":"a"}\0': reasons.INVALID_JSON,
    b'{"text":"a"}\0{"text":"b"}': reasons.INVALID_JSON,
    b'{"text":"a\0b"}': reasons.INVALID_JSON,
    b'\x0c{"text":"a"}': reasons.INVALID_JSON,
    b'\xef\xbb\xbf{"text":"a"}': reasons.INVALID_JSON,
    b"[1, 2]": reasons.NOT_AN_OBJECT,
    b'"text"': reasons.NOT_AN_OBJECT,
    b"null": reasons.NOT_AN_OBJECT,
    b"NaN": reasons.NOT_AN_OBJECT,
    b"text": reasons.INVALID_JSON,
    b"{": reasons.INVALID_JSON,
    b"}": reasons.INVALID_JSON,
    b'{"text":': reasons.INVALID_JSON,
    b'"continued"}': reasons.INVALID_JSON,
    b'{"text":"a",}': reasons.INVALID_JSON,
    b"{'text':'a'}": reasons.INVALID_JSON,
    b'{text:"a"}': reasons.INVALID_JSON,
    b'{"text":"a","z":01}': reasons.INVALID_JSON,
    b'{"text":"a","z":1.}': reasons.INVALID_JSON,
    b'{"text":"a","z":+1}': reasons.INVALID_JSON,
    b'{"text":"a"/*c*/}': reasons.INVALID_JSON,
    b'{"text":"a\tb"}': reasons.INVALID_JSON,
    b'{"text":"\\x"}': reasons.INVALID_JSON,
    b'{"text":"\\u12"}': reasons.INVALID_JSON,
    b'{"text":"a","z":"\x01"}': reasons.INVALID_JSON,
    b'{"text":"a","z":{}': reasons.INVALID_JSON,
    b'{"text":"a","z":1e999}': reasons.NUMBER_RANGE,
    b'{"text":"a","z":[0e400]}': reasons.NUMBER_RANGE,
    b'{"text":"a","id":1e309}': reasons.NUMBER_RANGE,
    b'{"text":"\\ud800x"}': reasons.LONE_SURROGATE,
    b'{"text":"\\ude00\\ud83d"}': reasons.LONE_SURROGATE,
    b'{"text":"a","z":"\\udc00"}': reasons.LONE_SURROGATE,
    b'{"text":"\xff"}': reasons.INVALID_UTF8,
    b'{"text":"\xed\xa0\x80"}': reasons.INVALID_UTF8,
    b'{"text":"\xc0\x80"}': reasons.INVALID_UTF8,
    b'{"text":"a","z":"\xff"}': reasons.INVALID_UTF8,
    b'{"text":"a","id":"\xff"}': reasons.INVALID_UTF8,
    b'{"text":"a"}' * 2 + b"\xff}": reasons.INVALID_UTF8,
}
NASTY = {**GOOD, **BAD}


@pytest.mark.parametrize("line", NASTY, ids=lambda line: repr(line[:40]))
def test_verdict_on_a_single_line_is_as_documented_and_the_twins(line):
    assert verdicts(b"\n" + line) == [NASTY[line]]  # so that a byte-order mark is not at the top
    assert verdicts(b"\n" + line + b"\r\n") == [NASTY[line]]
    assert twin(line) == NASTY[line]
    without_id = read(b"\n" + line, id=None)[0]
    assert without_id == twin(line, id=None)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(NASTY)), max_size=40), st.integers(16, 600))
def test_verdict_on_a_row_never_depends_on_its_neighbours(lines, block_bytes):
    content = b"\n" + b"\n".join(lines)
    expected = [NASTY[line] for line in lines]
    assert verdicts(content, block_bytes=block_bytes) == expected


def test_shuffled_good_and_bad_lines_keep_their_verdicts():
    rng = random.Random(7)
    lines = sorted(NASTY) * 8 + [b'{"text":"t%d","id":%d}' % (i, i) for i in range(2_000)]
    known = {**NASTY, **{line: twin(line) for line in lines[-2_000:]}}
    for block_bytes in (1 << 12, 1 << 16, 1 << 22):
        rng.shuffle(lines)
        assert verdicts(b"\n" + b"\n".join(lines), block_bytes=block_bytes) == [known[line] for line in lines]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"{", b"}", b'"text"', b":", b",", b'"a"', b"[", b"]", b"\n", b" ", b"1", b"\\", b'"id"', b"\0"]
        ),
        max_size=30,
    ).map(b"".join)
)
def test_token_soup_gets_the_twins_verdicts(content):
    expected = [twin(line) for line in content.split(b"\n") if line.strip(b" \t\r")]
    assert verdicts(content) == expected


def test_an_object_over_two_lines_beside_two_on_one_is_not_trusted_though_the_counts_agree():
    content = b'{"text":"a"}{"text":"b"}\n{"text":\n"c"}\n{"text":"d"}\n'
    assert verdicts(content) == [reasons.TWO_VALUES, reasons.INVALID_JSON, reasons.INVALID_JSON, ("d", None)]
    content = b'{"text":"a"}{"text":"b"}\n{"text":"c","z":{}\n,"y":{}}\n{"text":"d"}\n'
    assert verdicts(content) == [reasons.TWO_VALUES, reasons.INVALID_JSON, reasons.INVALID_JSON, ("d", None)]


def test_blank_lines_get_no_row_and_a_last_line_needs_no_newline():
    content = b'\xef\xbb\xbf\n{"text":"a"}\r\n \t\r\n\n{"text":"b"}'
    assert verdicts(content) == [("a", None), ("b", None)]
    assert read(b"") == {}
    assert read(b"\n\r\n") == {}


def test_rows_too_long_are_bad_and_the_rest_is_read():
    lines = [b'{"text":"%s"}' % (b"x" * n) for n in (5, 300, 5, 3_000, 300)]
    expected = [("x" * 5, None), reasons.TOO_LONG, ("x" * 5, None), reasons.TOO_LONG, reasons.TOO_LONG]
    for block_bytes in (16, 100, 1 << 20):
        assert verdicts(b"\n".join(lines), max_row_bytes=100, block_bytes=block_bytes) == expected
    hidden = b'{"text":"a","z":[{}\n' + b"," + b" " * 300 + b',\n{}]}\n{"text":"a"}{"text":"b"}'
    found = verdicts(hidden, max_row_bytes=100)
    assert found == [reasons.INVALID_JSON, reasons.TOO_LONG, reasons.INVALID_JSON, reasons.TWO_VALUES]


def test_deep_nesting_neither_crashes_nor_depends_on_neighbours():
    deep = b'{"text":"a","id":"x","z":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    broken = b'{"text":"a","z":' + b"[" * 200_000 + b"}"
    lines = [deep, b'{"text":"b","id":1.5}', broken, b'{"text":"c","id":1}', deep]
    good = ("a", "x")
    assert verdicts(b"\n".join(lines)) == [good, ("b", "1.5"), reasons.INVALID_JSON, ("c", "1"), good]


@pytest.mark.parametrize("kinds", [["s"], ["i"], ["f"], ["s", "i"], ["i", "f", "s", "n"]])
def test_ids_of_any_mixture_of_types_are_their_json_text(kinds):
    ids = {"s": '"%d"', "i": "%d", "f": "%d.50", "n": "null"}
    texts = {"s": "%d", "i": "%d", "f": "%d.50"}
    lines, expected = [], []
    for i in range(3_000):
        kind = kinds[i * 7919 % len(kinds)]
        lines.append(b'{"text":"t","id":' + (ids[kind] % i if kind != "n" else "null").encode() + b"}")
        expected.append(("t", texts[kind] % i if kind != "n" else None))
    assert verdicts(b"\n".join(lines), block_bytes=1 << 14) == expected


def test_nested_and_joined_texts_follow_the_twin():
    values = [
        "absent",
        None,
        "x",
        "",
        5,
        {"body": "b"},
        {"body": None},
        {},
        {"body": 1},
        {"body": {"c": 1}},
        [1],
    ]
    lines = []
    for doc in values:
        for title in values:
            row = {"doc": doc, "title": title, "meta": {"id": 7}}
            lines.append(json.dumps({k: v for k, v in row.items() if v != "absent"}).encode())
    lines += [
        b'{"doc":{"body":"a"},"doc":{"body":"b"}}',
        b'{"doc":{"body":"a","body":"b"}}',
        b'{"doc":{"x":1,"x":2}}',
    ]
    lines += [
        b'{"title":"t","meta":5}',
        b'{"title":"t","meta":{"id":1},"meta":5}',
        b'{"title":"t","meta":{"id":[1]}}',
    ]
    for spec in (
        "doc.body",
        "title",
        ["title", "doc.body"],
        ["doc.body", "title"],
        "doc",
        ["doc.a", "doc.body"],
    ):
        text = TextSpec.of(spec)
        for name in (None, "meta.id", "meta"):
            expected = [twin(line, text, name) for line in lines]
            assert verdicts(b"\n".join(lines), text=text, id=name) == expected
    joined = TextSpec.of(["title", "doc.body"])
    assert verdicts(b'{"title":"a","doc":{"body":"b"}}', text=joined) == [("a\nb", None)]
    assert verdicts(b'{"title":null,"doc":{"body":"b"}}', text=joined) == [("b", None)]


def test_the_id_may_be_the_text():
    assert verdicts(b'{"text":"a"}\n{"text":1}', id="text") == [("a", "a"), reasons.TEXT_NOT_STRING]


@pytest.mark.parametrize("value", ["", "a.", ".a", "a..b", [], ["a", "a"], ["a", "a.b"]])
def test_text_specs_that_make_no_sense_are_recipe_errors(value):
    with pytest.raises(RecipeError):
        TextSpec.of(value)
    with pytest.raises(RecipeError):
        read(b"", text=TextSpec.of("doc.body"), id="doc")


@pytest.mark.parametrize("codec", ["none", "zstd", "gzip"])
def test_batches_follow_blocks_and_segments(codec):
    import gzip

    import zstandard

    content = b"".join(b'{"text":"%d","id":%d}\n' % (i, i) for i in range(10_000))
    whole = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[codec](content)
    options = {"text": TEXT, "id": "id", "codec": codec, "segment_bytes": 50_000, "block_bytes": 2_000}
    batches = list(iter_jsonl(Source(whole), **options))
    assert max(batch.n_bytes_read for batch in batches) <= 2_000
    assert sum(batch.n_bytes_read for batch in batches) == len(content)
    assert [batch.segment for batch in batches if batch.segment_end] == list(
        range(-(-len(content) // 50_000))
    )


def test_truncated_shards_are_bad_shards():
    import zstandard

    content = zstandard.compress(b'{"text":"a"}\n' * 1_000)
    with pytest.raises(BadShard, match=r"part\.jsonl.*truncated"):
        read(content[:-1], codec="zstd")
