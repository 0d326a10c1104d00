"""obstore beside s3fs: the same bytes and names; s3fs for what fails, and where it alone knows more."""

from __future__ import annotations

import pytest

from dataselect.core.errors import StoreError
from dataselect.io import lean_s3, patience
from dataselect.io.store import store_at

obstore = pytest.importorskip("obstore", reason="needs the extra: pip install 'dataselect[s3]'")

DATA = bytes(range(256)) * 9000  # more than two windows
NAME = "pat[1]*?/x#%41 ü.y"


@pytest.fixture
def store(s3, monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.001)
    lean_s3._clients.clear()
    store = store_at(f"{s3.url}/root")
    store._fs.pipe_file(store._path(NAME), DATA)
    return store


def refuse(*args, **options):
    raise AssertionError("s3fs was asked")


@pytest.fixture
def alone(store, monkeypatch):
    """s3fs has found the endpoint and is asked for nothing more."""
    assert store.stat(NAME).size == len(DATA)
    for method in ("cat_file", "info", "pipe_file", "open"):
        monkeypatch.setattr(store._fs, method, refuse)
    return store


@pytest.fixture
def broken(store, monkeypatch):
    """Every request of obstore fails; says how many there were."""
    asked = []

    def fail(*args, **options):
        asked.append(args)
        raise OSError("no")

    for name in ("get", "put", "head"):
        monkeypatch.setattr(obstore, name, fail)
    return store, asked


def everything(store):
    """What a store says, as it should for an object with DATA."""
    entry, file = store.opened(NAME)
    with file:
        whole = file.read()
    assert entry == store.stat(NAME)
    assert whole == store.read(NAME) == DATA
    assert store.read(NAME, -5) == DATA[-5:]
    assert store.read(NAME, 7, 70_000) == DATA[7:70_000]
    assert (store.exists(NAME), store.exists("none"), store.stat("none")) == (True, False, None)
    with pytest.raises(FileNotFoundError, match=r"^.{,80}$"):  # obstore's own text is a page
        store.opened("none")
    with store.commit("put ü#%41") as written:
        written.write(DATA[:100])
    assert store.read("put ü#%41") == DATA[:100]
    return entry


def test_requests_are_answered_without_s3fs(alone):
    everything(alone)


def test_what_fails_is_asked_of_s3fs_which_is_soon_asked_alone(broken):
    store, asked = broken
    everything(store)
    everything(store)
    assert len(asked) == lean_s3._GIVE_UP


def test_names_and_versions_are_those_of_a_listing(store):
    entry = everything(store)
    assert entry in list(store.list())
    assert {entry.name for entry in store.list()} == {NAME, "put ü#%41"}


@pytest.mark.parametrize("works", [True, False])
def test_a_shard_that_is_replaced_while_it_is_read_is_an_error(store, monkeypatch, works):
    _, file = store.opened(NAME)
    store._fs.pipe_file(store._path(NAME), DATA[::-1])
    if not works:
        monkeypatch.setattr(obstore, "get", refuse)
    with file, pytest.raises(StoreError, match=r"y: it was replaced while it was read; run the same"):
        file.read()


@pytest.mark.parametrize(
    "field, value", [("s3_additional_kwargs", {"ServerSideEncryption": "AES256"}), ("key", "mine")]
)
def test_where_fsspec_was_configured_s3fs_is_asked_alone(store, monkeypatch, field, value):
    monkeypatch.setattr(store._fs, field, value)
    client = lean_s3.LeanS3(store._fs, store._root.split("/")[0])
    assert client.head(f"root/{NAME}") is None
    assert not client.put("root/x", b"")
