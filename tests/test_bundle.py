"""Artifacts: what goes in comes out, torn files are seen, equal content has one digest."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.errors import TornArtifact
from dataselect.engine.job import Context
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.store import LocalStore, store_at

ARRAYS = {
    "bits": np.arange(13, dtype=np.uint8),
    "flags": np.array([True, False, True]),
    "rows": np.arange(1000, dtype=np.int64),
    "pairs": np.arange(20, dtype=np.uint64).reshape(10, 2),
    "cube": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "empty": np.empty(0, np.int32),
    "empty_pairs": np.empty((0, 2), np.uint64),
    "scalar_like": np.array([np.nan]),
    "strided": np.arange(100, dtype=np.int16)[::7],
}
TABLES = {
    "strings": pa.table(
        {"a": pa.array(["x", None, "", "ünïcode 🙂"]), "b": pa.array([1, None, 3, 4], pa.int32())}
    ),
    "no_rows": pa.table({"a": pa.array([], pa.large_string())}),
    "no_columns": pa.table({}),
    "lists": pa.table({"l": pa.array([[1, 2], None, []], pa.large_list(pa.int32()))}),
    "slice": pa.table({"a": [f"text {i}" for i in range(100)]}).slice(40, 3),
    "chunks": pa.table({"a": pa.chunked_array([["a"], ["b", None], []], pa.string())}),
}


def write(store, name="x", arrays=ARRAYS, tables=TABLES, meta=None):
    with store.commit(name) as file:
        writer = BundleWriter(file)
        for key, array in arrays.items():
            writer.add_array(key, array)
        for key, table in tables.items():
            writer.add_table(key, table)
        writer.finish(meta or {"n_rows": 3, "unit": "µ"})
    return Bundle(store, name)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return store_at(tmp_path if request.param == "local" else f"memory://bundles-{tmp_path.name}")


def test_arrays_tables_and_meta_come_back(store):
    bundle = write(store)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(bundle.array(name), array)
        assert bundle.array(name).dtype == array.dtype
    for name, table in TABLES.items():
        assert bundle.table(name).equals(table), name
    assert bundle.meta == {"n_rows": 3, "unit": "µ"}
    assert "rows" in bundle
    assert "nothing" not in bundle
    assert set(bundle.arrays()) == set(ARRAYS)


def test_arrays_are_read_only_and_aligned(store):
    bundle = write(store)
    assert not bundle.array("rows").flags.writeable
    assert bundle.array("cube").ctypes.data % 4 == 0


@pytest.mark.parametrize("name", ["rows", "pairs", "cube", "empty", "empty_pairs"])
def test_a_slice_of_an_array_is_that_of_the_array(store, name):
    array, bundle = ARRAYS[name], write(store)
    for start in range(min(3, len(array) + 1)):
        for stop in (None, *range(start, min(4, len(array) + 1)), len(array)):
            np.testing.assert_array_equal(bundle.array(name, start, stop), array[start:stop])


def test_a_bundle_of_nothing_is_a_bundle(store):
    bundle = write(store, arrays={}, tables={}, meta={})
    assert bundle.arrays() == {}
    assert bundle.meta in ({}, {"n_rows": 3, "unit": "µ"})


def test_an_index_longer_than_the_first_read_is_found(store):
    arrays = {f"a section with a long name {i}": np.arange(i) for i in range(1000)}
    bundle = write(store, arrays=arrays, tables={})
    np.testing.assert_array_equal(bundle.array("a section with a long name 999"), np.arange(999))


def test_a_missing_bundle_is_named(store):
    with pytest.raises(TornArtifact, match="nothing: a work file is damaged or missing"):
        Bundle(store, "nothing")


def test_a_zeroed_page_is_seen_when_its_section_is_read(tmp_path):
    write(LocalStore(tmp_path), arrays={"a": np.arange(30), "b": np.ones(30)})
    with (tmp_path / "x").open("r+b") as file:
        file.write(bytes(64))
    bundle = Bundle(LocalStore(tmp_path), "x")
    np.testing.assert_array_equal(bundle.array("b"), np.ones(30))
    with pytest.raises(TornArtifact):
        bundle.array("a")


def test_a_file_torn_at_any_length_is_refused(tmp_path):
    write(LocalStore(tmp_path), arrays={"a": np.arange(30)}, tables={"t": TABLES["strings"]})
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(TornArtifact):
            Bundle(LocalStore(tmp_path), "x")


def test_a_changed_byte_of_the_index_is_refused(tmp_path):
    write(LocalStore(tmp_path), arrays={"a": np.arange(3)}, tables={})
    whole = (tmp_path / "x").read_bytes()
    for place in range(64, len(whole)):
        for mask in (0x01, 0x80):
            changed = bytearray(whole)
            changed[place] ^= mask
            (tmp_path / "x").write_bytes(changed)
            with pytest.raises(TornArtifact):
                Bundle(LocalStore(tmp_path), "x")


def test_any_other_file_is_refused(tmp_path):
    for content in (b"", b"dselect1", b"\xff" * 24 + b"dselect1", b"x" * 100_000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(TornArtifact):
            Bundle(LocalStore(tmp_path), "x")


def test_equal_content_has_an_equal_digest_however_it_was_made(tmp_path):
    store = LocalStore(tmp_path)
    values = [f"text {i}" if i % 3 else None for i in range(50)]
    plain = pa.table({"a": pa.array(values, pa.string()), "n": pa.array(range(50))})
    long = pa.concat_tables([plain, plain])
    variants = {
        "plain": plain,
        "slice": long.slice(50, 50),
        "chunks": pa.concat_tables([plain.slice(0, 7), plain.slice(7)]),
        "taken": plain.take(pa.array(range(50))),
        "filtered": long.filter(pa.array([False] * 50 + [True] * 50)),
    }
    array = np.arange(100, dtype=np.int64)
    digests = {
        name: write(store, name, {"x": array[::-1][::-1]}, {"t": table}).digest
        for name, table in variants.items()
    }
    assert len(set(digests.values())) == 1, digests


def test_other_content_shape_or_meta_has_another_digest(tmp_path):
    store = LocalStore(tmp_path)
    digests = {
        write(store, "1", {"x": np.arange(4)}, {}).digest,
        write(store, "2", {"y": np.arange(4)}, {}).digest,
        write(store, "3", {"x": np.arange(5)}, {}).digest,
        write(store, "4", {"x": np.arange(4).reshape(2, 2)}, {}).digest,
        write(store, "5", {"x": np.arange(4).astype(np.uint64)}, {}).digest,
        write(store, "6", {"x": np.arange(4)}, {}, {"other": 1}).digest,
    }
    assert len(digests) == 6


def test_section_digests_tell_which_section_changed(tmp_path):
    store = LocalStore(tmp_path)
    old = write(store, "1", {"x": np.arange(4), "y": np.arange(4)}, {})
    new = write(store, "2", {"x": np.arange(4), "y": np.arange(5)}, {})
    assert old.section_digest("x") == new.section_digest("x")
    assert old.section_digest("y") != new.section_digest("y")


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.tuples(st.sampled_from(["u1", "i4", "u8", "f4", "f8"]), st.integers(0, 70)),
        max_size=6,
    )
)
def test_any_names_and_sizes_round_trip(tmp_path_factory, sections):
    store = LocalStore(tmp_path_factory.mktemp("bundle"))
    arrays = {name: np.arange(size).astype(dtype) for name, (dtype, size) in sections.items()}
    bundle = write(store, arrays=arrays, tables={})
    for name, array in arrays.items():
        np.testing.assert_array_equal(bundle.array(name), array)


def test_an_open_bundle_is_kept_from_task_to_task_while_its_file_is_the_same(tmp_path):
    job = SimpleNamespace(work=str(tmp_path))
    context = Context(job)
    digests = [context.commit("masks/x", lambda writer: {"n": 1})]
    bundle = context.bundle("masks/x")
    context.begin()
    assert context.bundle("masks/x") is bundle
    digests.append(context.commit("masks/x", lambda writer: {"n": 2}))
    context.begin()
    assert [bundle.digest, context.bundle("masks/x").digest] == digests
