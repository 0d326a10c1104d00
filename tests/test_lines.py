"""Rows of a JSONL shard: numbered the same whatever the blocks, the cuts and the compression."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import tracemalloc
import zlib

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.errors import BadShard
from dataselect.io.lines import iter_line_blocks
from dataselect.io.zstd_frames import frame_offsets

BOM = b"\xef\xbb\xbf"
contents = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b" ", b"\t", b"x", b'{"a":1}', b"\xc3\xa9", b"0123456789" * 4, BOM, b"\0"]
    ),
    max_size=40,
).map(b"".join)


class Source:
    """Bytes as a file."""

    def __init__(self, content, name="part.jsonl", size=None):
        self.content, self.name = content, name
        self.size = len(content) if size is None else size

    def open(self):
        return io.BytesIO(self.content)


def zstd(content, **options):
    compressor = zstandard.ZstdCompressor(3, write_checksum=True, **options).compressobj()
    return compressor.compress(content) + compressor.flush()


COMPRESS = {"gzip": gzip.compress, "zstd": zstd, "bz2": bz2.compress, "xz": lzma.compress}


def in_pieces(content, cuts, compress):
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [compress(content[a:b]) for a, b in itertools.pairwise(edges)]


def compressed(content, codec, cuts=()):
    if codec == "none":
        return content
    return b"".join(in_pieces(content, cuts, COMPRESS[codec]))


def lines_of(content):
    """All lines with their endings, the slow way."""
    lines = content.removeprefix(BOM).split(b"\n")
    ended = [line + b"\n" for line in lines[:-1]]
    return ended + ([lines[-1]] if lines[-1] else [])


def expected(lines, segment_bytes=None, max_row_bytes=1 << 30):
    """Per segment: [(row, its bytes or its length)], number of blank lines, and digest."""
    segments = [([], 0, b"")]
    offset = 0
    for line in lines:
        while segment_bytes and len(segments) <= offset // segment_bytes:
            segments.append(([], 0, b""))
        rows, n_blank, content = segments[-1]
        body = line.removesuffix(b"\n")
        if body.strip(b" \t\r"):
            rows.append((len(rows), body if len(body) <= max_row_bytes else len(body)))
        else:
            n_blank += 1
        segments[-1] = (rows, n_blank, content + line)
        offset += len(line)
    return [(rows, n_blank, xxhash.xxh3_128_hexdigest(content)) for rows, n_blank, content in segments]


def read(source, codec="none", **options):
    """The same from iter_line_blocks, with every promise about blocks checked on the way."""
    segments, rows, n_blank, n_bytes = [], [], 0, 0
    for block in iter_line_blocks(source, codec=codec, **options):
        assert block.segment == len(segments)
        assert block.first_row == len(rows)
        assert block.starts.dtype == block.ends.dtype == np.int64
        n_blank += block.n_blank
        n_bytes += block.n_bytes
        if block.too_long_bytes is not None:
            assert (block.n_rows, len(block.data), len(block.starts)) == (1, 0, 0)
            rows.append((block.first_row, block.too_long_bytes))
        else:
            assert block.n_rows == len(block.starts) == len(block.ends)
        between = 0
        for i, (start, end) in enumerate(zip(block.starts.tolist(), block.ends.tolist(), strict=True)):
            assert not block.data[between:start].tobytes().strip(b" \t\r\n")
            assert end == len(block.data) or block.data[end] == 10
            rows.append((block.first_row + i, block.data[start:end].tobytes()))
            between = end
        if block.segment_end is not None:
            assert block.segment_end.n_rows == len(rows)
            assert block.segment_end.n_bytes == n_bytes
            segments.append((rows, n_blank, block.segment_end.digest))
            rows, n_blank, n_bytes = [], 0, 0
    assert not rows
    return segments


def rows_only(segments):
    return [body for rows, _, _ in segments for _, body in rows]


@settings(max_examples=300, deadline=None)
@given(
    contents,
    st.sampled_from(["none", *COMPRESS]),
    st.lists(st.integers(0, 400), max_size=4),
    st.integers(16, 90),
    st.one_of(st.none(), st.integers(1, 120)),
    st.sampled_from([1, 7, 30, 1 << 20]),
)
def test_rows_segments_and_digests_are_those_of_the_plain_split(
    content, codec, cuts, block_bytes, segment_bytes, max_row_bytes
):
    source = Source(compressed(content, codec, cuts))
    options = {"segment_bytes": segment_bytes, "max_row_bytes": max_row_bytes}
    found = read(source, codec, block_bytes=block_bytes, **options)
    assert found == expected(lines_of(content), **options)


@settings(max_examples=300, deadline=None)
@given(contents, st.lists(st.integers(1, 400), max_size=6), st.integers(16, 90))
def test_every_line_has_one_owner_whatever_the_byte_ranges(content, cuts, block_bytes):
    edges = [0, *sorted({cut for cut in cuts if cut < len(content)}), None]
    found = []
    for start, stop in itertools.pairwise(edges):
        found += rows_only(read(Source(content), start=start, stop=stop, block_bytes=block_bytes))
    assert found == rows_only(expected(lines_of(content)))


@settings(max_examples=200, deadline=None)
@given(contents, st.lists(st.integers(0, 400), max_size=6), st.data())
def test_every_line_has_one_owner_whatever_the_frames(content, cuts, data):
    frames = in_pieces(content, cuts, zstd)
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    frames = [data.draw(st.sampled_from([b"", skippable])) + frame for frame in frames]
    source = Source(b"".join(frames) + skippable)
    offsets = frame_offsets(source)
    assert len(offsets) == len(frames)
    chosen = sorted(data.draw(st.sets(st.sampled_from(offsets))) | {0})
    found = []
    for start, stop in zip(chosen, [*chosen[1:], None], strict=True):
        found += rows_only(read(source, "zstd", start=start, stop=stop))
    assert found == rows_only(expected(lines_of(content)))


def test_frame_offsets_are_found_for_every_kind_of_frame():
    random = np.random.default_rng(0).integers(0, 256, 400_000, np.uint8).tobytes()
    frames = [
        zstandard.ZstdCompressor(write_content_size=size, write_checksum=checksum).compress(content)
        for content in (b"", b"x", b"\0" * 500_000, random, b"abc" * 100, b"y" * 70_000)
        for size in (True, False)
        for checksum in (True, False)
    ]
    offsets = np.cumsum([0, *map(len, frames[:-1])]).tolist()
    assert frame_offsets(Source(b"".join(frames))) == offsets
    assert frame_offsets(Source(b"".join(frames)), limit=3) is None
    assert frame_offsets(Source(zstd(random))) == [0]


@pytest.mark.parametrize(
    "content",
    [b"", b"plain text", zstd(b"abc")[:-1], zstd(b"abc") + b"more", gzip.compress(b"x")],
    ids=[
        "empty",
        "plain",
        "cut",
        "more",
        "gzip",
    ],  # a gzip holds the time, and an id must be the same everywhere
)
def test_a_file_whose_frames_cannot_be_walked_is_not_cut(content):
    assert frame_offsets(Source(content)) is None


@pytest.mark.parametrize("content", [b"", BOM, b"\n\n \r\n", b"\n" * 100_000])
def test_a_shard_without_rows_is_one_empty_segment(content):
    ((rows, n_blank, digest),) = read(Source(content))
    assert (rows, n_blank) == ([], content.count(b"\n"))
    assert digest == xxhash.xxh3_128_hexdigest(content.removeprefix(BOM))


def test_byte_order_mark_is_dropped_at_the_top_only():
    content = BOM + b"a\n" + BOM + b"b\n"
    assert rows_only(read(Source(content))) == [b"a", BOM + b"b"]
    for cut in (1, 2, 3, 4):
        parts = [read(Source(content), stop=cut), read(Source(content), start=cut)]
        assert list(itertools.chain(*map(rows_only, parts))) == [b"a", BOM + b"b"]


def test_very_short_and_indented_lines_in_a_large_shard():
    content = b"1\n" * 300_000 + b"  {\r\n" * 3_000 + b"\r\n" * 1_000
    ((rows, n_blank, _),) = read(Source(content))
    assert (len(rows), n_blank) == (303_000, 1_000)


@pytest.mark.parametrize("codec", COMPRESS)
def test_truncation_is_found_wherever_the_stream_is_cut(codec):
    lines = b"".join(b'{"text": "%d"}\n' % (i * i) for i in range(300))
    whole = compressed(lines, codec, [1_000])
    member = len(compressed(lines[:1_000], codec))
    for cut in range(len(whole)):
        if cut != member:  # there, a whole shorter file is left
            with pytest.raises(BadShard, match=r"part\.jsonl.*truncated"):
                read(Source(whole[:cut]), codec)


@pytest.mark.parametrize("codec", COMPRESS)
def test_corruption_and_garbage_are_found(codec):
    lines = bytes(np.random.default_rng(1).integers(97, 123, 5_000, np.uint8))
    whole = compressed(lines, codec)
    for at in range(20, len(whole), 97):
        broken = bytearray(whole)
        broken[at] ^= 0x10
        with pytest.raises(BadShard, match="corrupt"):
            read(Source(bytes(broken)), codec)
    for garbage in (b"garbage after the end", b"x", b"\0\0\0\0\0\0\0\0garbage"):
        with pytest.raises(BadShard, match="corrupt"):
            read(Source(whole + garbage), codec)
    with pytest.raises(BadShard, match="corrupt"):
        read(Source(b'{"text": "not compressed at all"}\n'), codec)


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz"])
def test_a_file_may_be_padded_with_zeros_and_have_many_members(codec):
    members = [COMPRESS[codec](b'{"text": "%d"}\n' % i) for i in range(50)]
    padded = b"".join(members) + b"\0" * 100_000
    assert len(rows_only(read(Source(padded), codec))) == 50
    assert len(rows_only(read(Source((b"\0" * 512).join(members)), codec))) == 50


@pytest.mark.parametrize("codec", COMPRESS)
def test_an_empty_file_is_no_empty_member(codec):
    with pytest.raises(BadShard, match=rf"part\.jsonl: is empty, truncated before its {codec} header"):
        read(Source(b""), codec)
    ((rows, _, _),) = read(Source(COMPRESS[codec](b"")), codec)
    assert rows == []


def test_xz_dictionary_of_128_mib_is_read_and_a_larger_one_refused():
    for log, fits in ((27, True), (28, False)):
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << log}]
        source = Source(lzma.compress(b"a\n", filters=filters))
        if fits:
            assert rows_only(read(source, "xz")) == [b"a"]
        else:
            with pytest.raises(BadShard, match=r"dictionary of more than 128 MiB.*xz -9"):
                read(source, "xz")


def test_zstd_window_of_128_mib_is_read_and_a_larger_one_refused():
    for log, fits in ((27, True), (28, False)):
        parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=log)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        source = Source(compressor.compress(b"a\n") + compressor.flush())
        if fits:
            assert rows_only(read(source, "zstd")) == [b"a"]
        else:
            with pytest.raises(BadShard, match=r"window of more than 128 MiB.*--long=27"):
                read(source, "zstd")


@pytest.mark.parametrize("codec", ["none", *COMPRESS])
def test_a_shard_that_shrank_is_bad_and_one_that_grew_is_read_as_listed(codec):
    content = compressed(b"a\nb\n" * 1_000, codec)
    with pytest.raises(BadShard, match="truncated since it was listed"):
        read(Source(content, size=len(content) + 5), codec)
    grown = content + compressed(b"c\n", codec)
    assert len(rows_only(read(Source(grown, size=len(content)), codec))) == 2_000


def test_a_shard_that_cannot_be_opened_is_named():
    class Missing(Source):
        def open(self):
            raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(BadShard, match=r"part\.jsonl: cannot be opened: No such file"):
        read(Missing(b"", size=1))


class Endless(io.RawIOBase):
    """A head, then so many equal bytes, then a tail; made while it is read."""

    def __init__(self, head, n_bytes, tail):
        self._head, self._n_bytes, self._tail = head, n_bytes, tail

    def readable(self):
        return True

    def seek(self, offset, whence=0):
        assert (offset, whence) == (0, 0)
        return 0

    def readinto(self, view):
        if self._head:
            data, self._head = self._head[: len(view)], self._head[len(view) :]
        elif self._n_bytes:
            data = b"x" * min(self._n_bytes, len(view))
            self._n_bytes -= len(data)
        else:
            data, self._tail = self._tail[: len(view)], self._tail[len(view) :]
        view[: len(data)] = data
        return len(data)


def test_a_huge_line_takes_a_row_number_and_no_memory():
    n_bytes = 200 << 20

    class Huge(Source):
        def open(self):
            return Endless(b'{"a":1}\n', n_bytes, b'\n{"b":2}\n')

    tracemalloc.start()
    ((rows, _, _),) = read(Huge(b"", size=n_bytes + 17), max_row_bytes=1 << 20, block_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == [(0, b'{"a":1}'), (1, n_bytes), (2, b'{"b":2}')]
    assert peak < 8 << 20


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_decompression_bomb_is_streamed(codec):
    n_bytes = 128 << 20
    if codec == "gzip":
        deflate = zlib.compressobj(9, wbits=31)
        bomb = b"".join(deflate.compress(b" " * (1 << 20)) for _ in range(n_bytes >> 20)) + deflate.flush()
    elif codec in ("bz2", "xz"):
        bomb = COMPRESS[codec](b" " * (8 << 20)) * (n_bytes >> 23)
    else:
        compressor = zstandard.ZstdCompressor(1).compressobj()
        bomb = (
            b"".join(compressor.compress(b" " * (1 << 20)) for _ in range(n_bytes >> 20)) + compressor.flush()
        )
    tracemalloc.start()
    ((rows, n_blank, _),) = read(Source(bomb), codec, max_row_bytes=1 << 20, block_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (rows, n_blank) == ([], 1)
    assert peak < 16 << 20
