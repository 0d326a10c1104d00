"""One contract for every store: list, stat, open, commit whole or not at all, replace, delete, copy."""

from __future__ import annotations

import errno
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from dataselect.core.errors import DataselectError
from dataselect.io.object_store import FsspecStore
from dataselect.io.store import LocalStore, ahead, store_at

NAMES = [
    "a",
    "folder/b.jsonl",
    "deep/er/still/c.bin",
    "with space/d e.txt",
    "ünïcode/文件-🙂.jsonl",
    "pat[1]*?/x#%41.y",
]


@pytest.fixture(params=["local", "durable", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return store_at(f"{request.getfixturevalue('s3').url}/root")
    if request.param == "memory":
        return store_at(f"memory://{uuid.uuid4().hex}/root")
    return store_at(tmp_path / "root", durable=request.param == "durable")


def put(store, name, content):
    with store.commit(name) as file:
        file.write(content)


def get(store, name):
    with store.open(name) as file:
        return file.read()


def names(store, prefix=""):
    return sorted(entry.name for entry in store.list(prefix))


def test_a_path_or_a_file_url_is_local_and_any_other_url_is_not(tmp_path):
    assert isinstance(store_at(tmp_path), LocalStore)
    assert store_at(f"file://{tmp_path}").root == tmp_path
    assert isinstance(store_at("memory://x"), FsspecStore)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_read_back_under_any_name(store, name):
    put(store, name, b"content of " + name.encode())
    assert get(store, name) == b"content of " + name.encode()
    assert names(store) == [name]


def test_one_alone_can_make_a_new_file(store):
    assert store.put_new("folder/one", b"first")
    assert not store.put_new("folder/one", b"second")
    assert get(store, "folder/one") == b"first"
    store.delete("folder/one")
    assert store.put_new("folder/one", b"third")


def test_an_empty_file_is_a_file(store):
    put(store, "empty", b"")
    assert store.stat("empty").size == 0
    assert get(store, "empty") == b""


def test_list_gives_all_files_below_a_folder_with_sizes(store):
    for i, name in enumerate(NAMES):
        put(store, name, bytes(i))
    assert {(e.name, e.size) for e in store.list()} == {(name, i) for i, name in enumerate(NAMES)}
    assert names(store, "folder") == ["folder/b.jsonl"]
    assert names(store, "deep/er") == ["deep/er/still/c.bin"]
    assert names(store, "fold") == []


def test_list_of_nothing_is_empty(store):
    assert names(store) == []
    assert names(store, "no/such") == []


def test_stat_agrees_with_list_and_knows_only_files(store):
    put(store, "folder/b", b"123")
    assert store.stat("folder/b") == next(store.list())
    assert store.stat("folder") is None
    assert store.stat("folder/b/c") is None
    assert store.stat("nothing") is None


def test_the_version_changes_with_the_content(store):
    put(store, "a", b"1")
    first = store.stat("a")
    put(store, "a", b"2")
    assert store.stat("a").version != first.version
    assert first.version


def test_readers_seek_and_a_missing_file_is_file_not_found(store):
    put(store, "a", b"0123456789")
    with store.open("a") as file:
        assert file.seek(-3, 2) == 7
        assert file.read(2) == b"78"
    with pytest.raises(FileNotFoundError):
        store.open("nothing")


def test_a_commit_replaces_the_whole_file(store):
    put(store, "a", b"a long first content")
    put(store, "a", b"second")
    assert get(store, "a") == b"second"
    assert names(store) == ["a"]


class Boom(BaseException):
    """Not an Exception: like KeyboardInterrupt."""


@pytest.mark.parametrize("error", [ValueError, Boom])
def test_an_exception_inside_the_block_leaves_nothing(store, error):
    with pytest.raises(error), store.commit("new/a") as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert names(store) == []
    assert store.stat("new/a") is None


def test_an_exception_inside_the_block_leaves_the_old_content(store):
    put(store, "a", b"old")
    with pytest.raises(ValueError), store.commit("a") as file:  # noqa: PT012
        file.write(b"new")
        raise ValueError
    assert get(store, "a") == b"old"


def test_nothing_is_seen_before_the_end_of_the_block(store):
    put(store, "a", b"old")
    with store.commit("a") as file, store.commit("b") as other:
        file.write(b"new")
        other.write(b"new")
        assert get(store, "a") == b"old"
        assert names(store) == ["a"]
    assert names(store) == ["a", "b"]


def test_two_writers_of_one_name_leave_one_whole_file(store):
    with store.commit("a") as first, store.commit("a") as second:
        first.write(b"1" * 10)
        second.write(b"2" * 10)
    assert get(store, "a") in (b"1" * 10, b"2" * 10)
    assert names(store) == ["a"]


def test_a_large_commit_is_whole(store, monkeypatch):
    monkeypatch.setattr("dataselect.io.object_store._SPOOL_BYTES", 1000)
    put(store, "a", b"x" * 3_000_000)
    assert store.stat("a").size == 3_000_000


def test_delete_removes_one_file_and_is_silent_where_there_is_none(store):
    put(store, "a", b"1")
    put(store, "b", b"2")
    store.delete("a")
    store.delete("a")
    assert names(store) == ["b"]


@pytest.mark.parametrize("name", NAMES)
def test_copy_makes_the_same_file_and_replaces_the_old_one(store, name):
    put(store, name, b"content")
    put(store, "copy/of it", b"old content that is longer")
    store.copy(name, "copy/of it")
    assert get(store, "copy/of it") == b"content"
    store.delete(name)
    assert get(store, "copy/of it") == b"content"


def test_replacing_a_copy_leaves_the_original(store):
    put(store, "a", b"1")
    store.copy("a", "b")
    put(store, "b", b"2")
    assert get(store, "a") == b"1"


def test_copying_nothing_is_one_sentence(store):
    with pytest.raises(DataselectError, match="cannot write"):
        store.copy("nothing", "b")


def test_local_paths_are_for_local_stores_only(store):
    put(store, "a b", b"1")
    path = store.local_path("a b")
    assert path is None if isinstance(store, FsspecStore) else path.read_bytes() == b"1"


@pytest.mark.parametrize("far", [False, True])
def test_what_works_ahead_gives_results_in_order_and_stays_a_few_ahead(far):
    done = []

    def call(item):
        if item == 40:
            raise ValueError("item 40")
        done.append(item)
        return -item

    results = ahead(call, range(100), far=far)
    for item in range(40):
        assert next(results) == -item
        assert len(done) <= item + 1 + 8 * far
    with pytest.raises(ValueError, match="item 40"):
        next(results)
    assert len(done) < 50
    assert list(ahead(call, [], far=far)) == []


# Disks that are full, read-only, or gone --------------------------------------------------------------


class FullFile:
    """What a full disk's file does."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize(
    "code, words",
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failed_write_is_one_sentence_and_leaves_nothing(store, code, words):
    put(store, "a", b"old")
    with pytest.raises(DataselectError) as failure, store.commit("a") as file:  # noqa: PT012
        file.write(b"half")
        raise OSError(code, os.strerror(code))
    message = str(failure.value)
    assert message.startswith(f"{store.url}/a: cannot write: {words}")
    assert "\n" not in message
    assert get(store, "a") == b"old"
    assert names(store) == ["a"]


def mounted(folder, *options):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    mounted(folder, "size=64k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_no_temporary_file(small_disk):
    store = LocalStore(small_disk, durable=True)
    put(store, "a", b"kept")
    with pytest.raises(DataselectError, match="big: cannot write: the disk is full; free space") as failure:
        put(store, "big", bytes(1 << 20))
    assert "\n" not in str(failure.value)
    assert [path.name for path in small_disk.iterdir()] == ["a"]


def test_a_read_only_disk_is_one_sentence(small_disk):
    store = LocalStore(small_disk)
    put(store, "a", b"1")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for change in (lambda: put(store, "b", b""), lambda: store.delete("a"), lambda: store.copy("a", "c")):
        with pytest.raises(DataselectError, match="cannot write: the file system is read-only"):
            change()
    assert get(store, "a") == b"1"


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DataselectError, match="root/a: cannot write: "):
        put(LocalStore(tmp_path / "root"), "a", b"1")
    assert names(LocalStore(tmp_path / "root")) == []


def test_listing_passes_over_broken_links_and_temporary_files(tmp_path):
    put(LocalStore(tmp_path), "a", b"1")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / ".tmp-1-abc").write_text("half")
    assert names(LocalStore(tmp_path)) == ["a"]


def test_sweep_removes_what_dead_writers_left_and_only_that(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid(), 2**40):
        Path(tmp_path, f".tmp-{pid}-abc").write_text("half")
    put(LocalStore(tmp_path), "a", b"1")
    LocalStore(tmp_path).sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".tmp-{os.getpid()}-abc", "a"]


def test_copying_works_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    store = LocalStore(tmp_path)
    put(store, "a", b"1")
    monkeypatch.setattr(os, "link", refuse)
    store.copy("a", "b/c")
    assert get(store, "b/c") == b"1"
