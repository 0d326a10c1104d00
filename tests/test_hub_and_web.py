"""Shards and models on the Hugging Face Hub and on web servers, which are read only."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import corpora
import fasttext_files
import fsspec
import hub_server
import pytest

import dataselect
from dataselect.core.errors import BadShard, DataselectError, RecipeError, StoreError
from dataselect.io import local_copies, patience
from dataselect.io.reader import ShardSource
from dataselect.io.store import store_at
from dataselect.planning.shards import list_shards


@pytest.fixture
def hub(monkeypatch):
    """A hub and web server, where hf:// leads, with short waits."""
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setenv("HF_TOKEN", "secret")
    with hub_server.serving() as server:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": server.url})
        yield server


HUB, TAG, WEB = "hf://datasets/org/name", "hf://datasets/org/name@v1.0", "{url}/files"
needs_aiohttp = pytest.mark.skipif(
    find_spec("aiohttp") is None, reason="http:// needs the extra: pip install 'dataselect[http]'"
)
web = pytest.param(WEB, marks=needs_aiohttp)
every_place = pytest.mark.parametrize("place", [HUB, TAG, web])


def at(place, hub):
    return place.format(url=hub.url)


@pytest.fixture
def project(tmp_path, hub, serial):
    """(recipe of a place, digest of the local run)"""
    corpora.make_corpus(tmp_path / "in", 24)
    (tmp_path / "in" / "a.jsonl").rename(tmp_path / "in" / "a 1+2%20#é.jsonl")
    corpora.make_target(tmp_path / "target.jsonl")
    words = [word.encode() for word in corpora.MEDICAL[:40]]
    fasttext_files.MadeModel(words, [b"__label__hq", b"__label__lq"]).write(tmp_path / "quality.bin")
    hub.files = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }

    def recipe(base, folder):
        stages = [
            {"use": "exact_dedup"},
            {"use": "fasttext_quality", "model": f"{base}/quality.bin", "label": "hq"},
            {"use": "ngram_importance", "target": f"{base}/target.jsonl"},
        ]
        shards = [f"{base}/in/**/*{end}" for end in (".jsonl", ".gz", ".zst", ".parquet")]
        return corpora.write_recipe(folder, stages, input={"shards": shards})

    return recipe, dataselect.run(recipe(tmp_path, tmp_path))["digest"]


@pytest.mark.parametrize("place", [TAG, web])
def test_a_run_reads_everything_there_and_only_what_changed_again(project, hub, tmp_path, place):
    recipe, digest = project
    far = recipe(at(place, hub), tmp_path / "far")
    hub.every = 0 if place == TAG else 7  # the Hub's package waits a second and more
    report = dataselect.run(far)
    hub.every = 0
    hub.requests()
    assert report["digest"] == digest or place == WEB  # whose names are as they stand in a URL: %20
    again = dataselect.run(far)
    assert (again["up_to_date"], again["digest"]) == (True, report["digest"])
    if place == TAG:
        n_trees = Counter("/tree/" in path for _, path in hub.requests())[True]
        assert n_trees <= 2 * 4  # for each pattern, whatever the number of shards
    name = "in/sub/e.jsonl"
    hub.files[name] = hub.files[name].replace(b"a", b"b", 1)
    changed = dataselect.run(far)
    assert changed["digest"] != digest
    assert changed["tasks"]["checked_shards"] == 1


@needs_aiohttp
def test_where_a_server_tells_no_version_shards_are_read_again_and_models_refused(project, hub, tmp_path):
    hub.tells_versions = False
    shards = {"input": {"shards": [f"{hub.url}/files/in/sub/*.jsonl"]}}
    far = corpora.write_recipe(tmp_path / "far", [{"use": "exact_dedup"}], **shards)
    first = dataselect.run(far)
    again = dataselect.run(far)
    assert again["digest"] == first["digest"]
    assert again["tasks"] == {"run": 0, "reused": first["tasks"]["run"], "checked_shards": 1}
    hub.files["in/sub/e.jsonl"] = hub.files["in/sub/e.jsonl"].replace(b"a", b"b", 1)
    assert dataselect.run(far)["digest"] != first["digest"]
    with pytest.raises(DataselectError, match=r"tells neither version nor time .* download it, and name"):
        local_copies.local_file(f"{hub.url}/files/quality.bin")


@every_place
def test_a_shard_that_is_replaced_while_it_is_read_is_noticed(hub, place):
    hub.files = {"d/x.jsonl": b"a" * 5_000_000}
    shard = list_shards([f"{at(place, hub)}/d/*.jsonl"])[0]

    def read():
        with ShardSource(shard).open() as file:
            file.read(10)
            hub.files["d/x.jsonl"] = b"b" * 5_000_000
            file.seek(4_900_000)
            file.read(10)

    with pytest.raises(StoreError, match=r"x\.jsonl: it was replaced while it was read"):
        read()
    with pytest.raises(BadShard, match="changed during the run"):
        ShardSource(shard).open()


@every_place
def test_files_are_listed_with_versions_and_read_by_ranges(hub, place):
    hub.files = {
        f"d/{name}": bytes([i]) * 3_000_000 for i, name in enumerate(["x.jsonl", "y 1.jsonl", "z.txt"])
    }
    base = at(place, hub)
    shards = list_shards([f"{base}/d/*.jsonl"])
    assert [shard.name.replace("%20", " ") for shard in shards] == ["x.jsonl", "y 1.jsonl"]
    assert list_shards([f"{base}/d/x.jsonl"])[0] == shards[0]
    store = store_at(f"{base}/d")
    assert (store.read("x.jsonl", -5), store.read("x.jsonl", 7, 9)) == (bytes(5), bytes(2))
    assert (store.exists("x.jsonl"), store.exists("none"), store.stat("none")) == (True, False, None)
    hub.requests()
    with ShardSource(shards[1]).open() as file:
        file.seek(2_999_990)
        assert file.read() == bytes([1]) * 10
    assert len([path for method, path in hub.requests() if method == "GET" and "d/" in path]) <= 3


@every_place
def test_what_fails_for_a_passing_reason_is_asked_again(hub, place):
    hub.files = {"x.jsonl": b"{}\n"}
    store = store_at(at(place, hub))
    hub.every = 2
    assert [store.stat("x.jsonl").size for _ in range(5)] == [3] * 5


@needs_aiohttp
def test_a_web_server_that_sends_whole_files_is_told_from_one_with_ranges(hub):
    hub.files, hub.knows_ranges = {"x.jsonl": b"a" * 5_000_000}, False
    with pytest.raises(StoreError, match=r"x\.jsonl: the server sends whole files where ranges"):
        store_at(f"{hub.url}/files").read("x.jsonl", 5, 10)


@pytest.mark.parametrize(
    "pattern, sentence",
    [
        (
            "hf://datasets/org/other/*.jsonl",
            r"no file matches .*repository not found.*make sure you are authenticated",
        ),
        ("hf://datasets/org/name@v9/*.jsonl", "no file matches .*revision not found"),
        (f"{HUB}/none/*.jsonl", r"no file matches .*none/\*.jsonl$"),
        (f"{HUB}/none.jsonl", "no file matches .*none.jsonl$"),
        pytest.param(f"{WEB}/none.jsonl", "no file matches .*none.jsonl$", marks=needs_aiohttp),
        pytest.param(f"{WEB}/none/*.jsonl", r"no file matches .*none/\*.jsonl$", marks=needs_aiohttp),
        pytest.param("http://127.0.0.1:9/x.jsonl", "can't be reached .*after 5 tries", marks=needs_aiohttp),
        ("simplecache::s3://b/*.jsonl", "chained URLs are not supported"),
        ("zip://*.jsonl::s3://b/x.zip", "chained URLs are not supported"),
    ],
)
def test_what_is_not_there_is_one_sentence(hub, pattern, sentence):
    hub.files = {"x.jsonl": b"{}\n"}
    with pytest.raises(DataselectError, match=sentence) as failure:
        list_shards([at(pattern, hub)])
    assert "\n" not in str(failure.value)


def test_a_private_repository_is_read_with_the_token_of_the_environment(hub, monkeypatch):
    hub.files, hub.token = {"x.jsonl": b"{}\n"}, "secret"
    assert len(list_shards([f"{HUB}/*.jsonl"])) == 1
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(RecipeError, match="repository not found"):
        list_shards([f"{HUB}/*.jsonl"])


@pytest.mark.parametrize("place", [HUB, WEB, "memory://x"])
@pytest.mark.parametrize("key", ["output.folder", "work"])
def test_where_nothing_can_be_written_the_recipe_is_refused(hub, tmp_path, place, key):
    recipe = corpora.make_project(tmp_path, [{"use": "exact_dedup"}])
    with pytest.raises(RecipeError, match=f"^{key}: nothing can be written to .*/out: "):
        dataselect.run(recipe, sets=[f"{key}={at(place, hub)}/out"])
