"""Shards are listed and cut by the data alone."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.errors import BadShard, RecipeError
from dataselect.core.pieces import SUFFIXES, Shard, suffix_of
from dataselect.planning import shards as shards_module
from dataselect.planning.shards import cut_pieces, list_shards, sample_pieces

MB = 1 << 20


def shard(name, size, version="1"):
    return Shard(name, f"/data/{name}", size, version)


def small_files(n, seed=0, size=40_000):
    rng = random.Random(seed)
    return sorted(
        (shard(f"{rng.getrandbits(64):016x}.jsonl", rng.randrange(size)) for _ in range(n)),
        key=lambda s: s.name,
    )


def write(path, content=b"{}\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# Listing -----------------------------------------------------------------------------------------------


def test_shards_are_sorted_by_name_whatever_the_order_of_patterns(tmp_path):
    for name in ("b/2.jsonl", "a/1.parquet", "a/sub/3.jsonl.zst", "with space/ü.jsonl.gz"):
        write(tmp_path / name)
    patterns = [f"{tmp_path}/{part}" for part in ("b/*", "a/**/*.*", "with space/*", "a/1.parquet")]
    listed = list_shards(patterns)
    assert [s.name for s in listed] == [
        "a/1.parquet",
        "a/sub/3.jsonl.zst",
        "b/2.jsonl",
        "with space/ü.jsonl.gz",
    ]
    assert listed == list_shards(patterns[::-1])
    assert all(s.size == 3 and s.version for s in listed)


def test_names_do_not_depend_on_where_the_tree_is(tmp_path):
    for root in ("here", "else/where"):
        write(tmp_path / root / "x/1.jsonl")
        write(tmp_path / root / "y/2.jsonl")
    first, second = (list_shards([f"{tmp_path}/{root}/*/*.jsonl"]) for root in ("here", "else/where"))
    assert [s.name for s in first] == [s.name for s in second] == ["x/1.jsonl", "y/2.jsonl"]


@pytest.mark.parametrize("pattern", ["nothing/*.jsonl", "*.jsonl", "a.jsonl"])
def test_a_pattern_without_a_match_is_named(tmp_path, pattern):
    with pytest.raises(RecipeError, match=r"input.shards: no file matches .*jsonl"):
        list_shards([f"{tmp_path}/{pattern}"])


def test_folders_are_no_shards_and_broken_links_are_an_error(tmp_path):
    write(tmp_path / "a.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert [s.name for s in list_shards([f"{tmp_path}/*"])] == ["a.jsonl"]
    (tmp_path / "link.jsonl").symlink_to("nowhere")
    with pytest.raises(RecipeError, match=r"link.jsonl: vanished or a broken link"):
        list_shards([f"{tmp_path}/*"])


def test_an_unknown_ending_is_an_error_that_lists_the_known_ones(tmp_path):
    write(tmp_path / "readme.txt")
    with pytest.raises(RecipeError, match=r"readme.txt: unknown ending; known are .jsonl, .*\.parquet"):
        list_shards([f"{tmp_path}/*"])


def test_a_name_that_is_not_utf8_is_an_error(tmp_path):
    try:
        open(f"{tmp_path}/".encode() + b"\xff.jsonl", "w").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(RecipeError, match="its name is not UTF-8"):
        list_shards([f"{tmp_path}/*"])


def test_memory_files_are_listed_like_local_ones(tmp_path):
    from dataselect.io.reader import ShardSource
    from dataselect.io.store import store_at

    root = f"memory://{tmp_path.name}"
    for name in ("b.jsonl", "sub/a b.jsonl"):
        with store_at(root).commit(name) as file:
            file.write(b"{}\n")
    listed = list_shards([f"{root}/**/*.jsonl", f"{root}/*.jsonl"])
    assert [s.name for s in listed] == ["b.jsonl", "sub/a b.jsonl"]
    with ShardSource(listed[1]).open() as file:
        assert file.read() == b"{}\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_longest_ending_counts(suffix):
    assert suffix_of(f"a.b{suffix}") == suffix
    assert suffix_of(f"a{suffix}.bak") is None


# Pieces ------------------------------------------------------------------------------------------------

sizes_strategy = st.lists(
    st.tuples(st.integers(0, 5 * MB), st.sampled_from([".jsonl", ".jsonl.gz", ".ndjson"])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(sizes_strategy, st.sampled_from([1024, 100_000, MB, 3 * MB]))
def test_every_byte_of_every_shard_is_in_exactly_one_piece(sizes, piece_bytes):
    shards = sorted(
        (shard(f"s{i:03d}{suffix}", size) for i, (size, suffix) in enumerate(sizes)), key=lambda s: s.name
    )
    pieces = cut_pieces(shards, piece_bytes)
    spans: dict[str, list[tuple[int, int]]] = {}
    for piece in pieces:
        for part in piece.shards:
            spans.setdefault(part.name, []).append(
                (piece.start, part.size if piece.stop is None else piece.stop)
            )
        assert (piece.format, piece.codec) == SUFFIXES[suffix_of(piece.shards[0].name)]
    for s in shards:
        ends = spans[s.name]
        assert [start for start, _ in ends] == [0, *(stop for _, stop in ends[:-1])]
        assert ends[-1][1] == s.size
    assert [p.shards[0].name for p in pieces] == sorted(p.shards[0].name for p in pieces)
    assert len({p.name for p in pieces}) == len(pieces)


@settings(max_examples=100, deadline=None)
@given(sizes_strategy)
def test_only_plain_files_are_cut_and_groups_hold_one_format(sizes):
    shards = sorted(
        (shard(f"s{i:03d}{suffix}", size) for i, (size, suffix) in enumerate(sizes)), key=lambda s: s.name
    )
    for piece in cut_pieces(shards, MB):
        assert len({suffix_of(s.name) for s in piece.shards}) == 1
        if piece.n_parts > 1:
            assert len(piece.shards) == 1
            assert piece.codec == "none"
        if len(piece.shards) > 1:
            assert all(s.size < MB for s in piece.shards)


def groups_of(shards, piece_bytes=MB):
    return {tuple(s.name for s in piece.shards) for piece in cut_pieces(shards, piece_bytes)}


@pytest.mark.parametrize("seed", range(20))
def test_an_added_small_file_changes_only_its_neighbours_group(seed):
    shards = small_files(300)
    added = small_files(1, seed=seed + 1000)
    before, after = groups_of(shards), groups_of(sorted(shards + added, key=lambda s: s.name))
    assert len(before) > 10
    assert len(before - after) <= 1  # the group it falls into goes ...
    assert len(after - before) <= 2  # ... and comes back with it, or in two
    assert {name for group in after - before for name in group} >= {added[0].name}


def test_growing_a_small_file_rarely_moves_a_cut():
    shards = small_files(300)
    grown = [shard(s.name, s.size + 500) for s in shards]
    assert len(groups_of(shards) ^ groups_of(grown)) < 20


def test_groups_are_of_about_the_size_asked():
    pieces = cut_pieces(small_files(3000), 4 * MB)
    mean = sum(p.n_bytes for p in pieces) / len(pieces)
    assert MB < mean < 4 * MB


def test_appending_to_a_plain_file_changes_only_its_last_piece():
    for grown in (1, MB // 2, MB, 5 * MB):
        old = cut_pieces([shard("a.jsonl", 10 * MB + 17)], MB)
        new = cut_pieces([shard("a.jsonl", 10 * MB + 17 + grown, "2")], MB)
        assert [(p.start, p.stop) for p in new[: len(old) - 1]] == [(p.start, p.stop) for p in old[:-1]]
        assert new[len(old) - 1].start == old[-1].start


def test_cuts_and_names_never_depend_on_url_version_or_other_shards():
    shards = [shard("0.jsonl", 3 * MB), *small_files(40), shard("z.jsonl.gz", 9 * MB)]
    shards.sort(key=lambda s: s.name)
    moved = [Shard(s.name, "s3://bucket/" + s.name, s.size, "etag") for s in shards]
    shape = [(p.name, p.start, p.stop, len(p.shards)) for p in cut_pieces(shards, MB)]
    assert shape == [(p.name, p.start, p.stop, len(p.shards)) for p in cut_pieces(moved, MB)]
    without = [
        (p.name, p.start, p.stop, len(p.shards))
        for p in cut_pieces([s for s in shards if s.name != "0.jsonl"], MB)
    ]
    assert [x for x in shape if not x[0].startswith("0-")] == without


def test_pieces_are_named_by_their_shard_part_and_number_of_files():
    names = [p.name for p in cut_pieces([shard("d/a.jsonl", 2 * MB + 1), shard("d/b.jsonl.gz", 2 * MB)], MB)]
    assert names == ["d/a-00000.jsonl", "d/a-00001.jsonl", "d/a-00002.jsonl", "d/b.jsonl.gz"]
    group = cut_pieces([shard("c1.jsonl", 1), shard("c2.jsonl", 1)], 1 << 40)
    assert [p.name for p in group] == ["c1+1.jsonl"]


def write_parquet(path, n_rows=1000, row_group_size=100):
    table = pa.table({"text": [f"{i} " + "x" * 100 for i in range(n_rows)]})
    pq.write_table(table, path, row_group_size=row_group_size, compression="none")


def test_parquet_is_cut_at_row_groups_each_of_them_once(tmp_path):
    write_parquet(tmp_path / "a.parquet")
    pieces = cut_pieces(list_shards([f"{tmp_path}/*"]), 30_000)
    assert len(pieces) > 2
    groups = [g for p in pieces for g in range(p.start, 10 if p.stop is None else p.stop)]
    assert groups == list(range(10))
    whole = cut_pieces(list_shards([f"{tmp_path}/*"]), 1 << 30)
    assert [p.row_groups for p in whole] == [None]


def test_row_groups_appended_to_a_parquet_file_change_only_its_last_pieces(tmp_path):
    write_parquet(tmp_path / "a.parquet", 1000)
    write_parquet(tmp_path / "b.parquet", 1500)
    old, new = (
        [(p.start, p.stop) for p in cut_pieces(list_shards([f"{tmp_path}/{n}.parquet"]), 30_000)]
        for n in "ab"
    )
    assert new[: len(old) - 1] == old[:-1]


def test_parquet_without_a_footer_stops_or_is_one_piece(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    shards = list_shards([f"{tmp_path}/*"])
    with pytest.raises(BadShard, match=r"a\.parquet: not a whole Parquet file"):
        cut_pieces(shards, MB)
    assert [p.row_groups for p in cut_pieces(shards, MB, stop_at_bad=False)] == [None]


def test_zstd_is_cut_at_frames_each_byte_once(tmp_path):
    rng = random.Random(0)
    frames = [
        zstandard.compress(b"".join(b"%x\n" % rng.getrandbits(400) for _ in range(500))) for _ in range(100)
    ]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    pieces = cut_pieces(list_shards([f"{tmp_path}/*"]), 2 * MB)
    ends, end = {0}, 0
    for frame in frames:
        end += len(frame)
        ends.add(end)
    assert len(pieces) > 1
    assert all(p.start in ends for p in pieces)
    assert [p.start for p in pieces[1:]] == [p.stop for p in pieces[:-1]]


# Samples -----------------------------------------------------------------------------------------------


def test_a_sample_reads_few_pieces_and_makes_up_its_share():
    pieces = [SimpleNamespace(name=f"p{i}", n_bytes=1000) for i in range(1000)]
    chosen, share = sample_pieces(pieces, 0.01)
    assert len(chosen) == 10
    assert share == 1.0
    chosen, share = sample_pieces(pieces, 0.001)
    assert len(chosen) == 4
    assert share == pytest.approx(0.25)
    assert sample_pieces(pieces[:2], 0.5) == ([0, 1], 0.5)
    assert sample_pieces(pieces, 1.0)[0] == list(range(1000))


def test_a_larger_sample_holds_the_smaller_one():
    pieces = [SimpleNamespace(name=f"p{i}", n_bytes=1000) for i in range(1000)]
    assert set(sample_pieces(pieces, 0.01)[0]) < set(sample_pieces(pieces, 0.1)[0])


def test_small_means_below_a_mebibyte():
    assert shards_module.SMALL_SHARD_BYTES == MB
