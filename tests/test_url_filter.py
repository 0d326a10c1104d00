"""The URL filter: lists, reasons, and what a changed list costs."""

from __future__ import annotations

import gzip
import json

import corpora
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filter import phases

import dataselect
from dataselect.core.errors import BadModel, RecipeError
from dataselect.io.hash_index import find, in_set, make_set, sorted_order
from dataselect.stages.url_filter import UrlFilter

URLS = {
    "https://www.bad.com/x": "domain",
    "http://sub.bad.com": "domain",
    "http://notbad.com/": None,
    "http://good.bad.com/": None,
    "http://x.org/page?utm_source=1": "url",
    "http://x.org/other": None,
    "http://y.org/free-casino-4u": "hard word",
    "http://y.org/casinos": None,
    "http://y.org/cheap/pills": "soft words",
    "http://y.org/cheap/cheap": None,
    "http://y.org/via-gra": "substring",
    "http://y.org/welcome-casino": None,
    "mailto:a@bad.com": "no url",
    None: "no url",
}
LISTS = {
    "block_domains": "# domains\nBAD.com  # the worst\n\n*.worse.com\n",
    "allow_domains": "good.bad.com\n",
    "block_urls": "https://x.org/page\n",
    "allow_urls": "y.org/welcome-casino\n",
    "hard_words": "Casino\n",
    "soft_words": "cheap\npills\n",
    "substrings": "viagra\n",
}


def lists(folder, **texts):
    paths = {}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
        paths[name] = str(folder / f"{name}.txt")
    return paths


def reasons(stage, urls):
    columns, _ = stage.look_up({"url": pa.array(urls, pa.large_string())}, stage.prepare())
    return columns[stage.as_].to_pylist()


def test_every_rule_and_allow_lists_win(tmp_path):
    stage = UrlFilter(**lists(tmp_path, **LISTS))
    assert dict(zip(URLS, reasons(stage, list(URLS)), strict=True)) == URLS
    columns, _ = stage.look_up({"url": pa.array(list(URLS), pa.large_string())}, stage.prepare())
    rules = stage.keep(columns)
    assert sum(broken.sum() for broken in rules.values()) == 6
    assert "no url" not in rules
    assert stage.model_copy(update={"no_url": "drop"}).keep(columns)["no url"].sum() == 2


def test_columns_on_request(tmp_path):
    stage = UrlFilter.model_validate({"as_url": "norm", "as_domain": "host"})
    columns, _ = stage.look_up({"url": pa.array(["HTTP://www.A.com:80/x#y", None, "?"])}, stage.prepare())
    assert columns["norm"].to_pylist() == ["a.com/x", None, None]
    assert columns["host"].to_pylist() == ["a.com", None, None]


def test_gzip_lists(tmp_path):
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"bad.com\n"))
    stage = UrlFilter(block_domains=str(tmp_path / "d.txt.gz"))
    assert reasons(stage, ["http://a.bad.com/", "http://bad.co/"]) == ["domain", None]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("block_domains", "# nothing\n\n", "the list is empty"),
        ("block_domains", "a.com\nb.com/path\n", ":2: 'b.com/path' is no domain"),
        ("block_urls", "mailto:x@y.z\n", ":1: 'mailto:x@y.z' is no url"),
        ("hard_words", "two words\n", "'two words' is no word"),
        ("soft_words", "a-b\n", "'a-b' is no word"),
    ],
)
def test_bad_lists(tmp_path, name, text, message):
    stage = UrlFilter(**lists(tmp_path, **{name: text}))
    with pytest.raises(BadModel) as error:
        [stage.check_files(), stage.prepare()]
    assert message in str(error.value)


def test_lists_that_are_no_text(tmp_path):
    for name, data in {
        "a.txt": b"\xff\xfe",
        "b.txt.gz": gzip.compress(b"a.com\n" * 99)[:-9],
        "c.gz": b"x",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadModel, match="not a whole text file"):
            UrlFilter(block_domains=str(tmp_path / name)).check_files()


def test_a_filter_without_any_list_is_a_mistake():
    with pytest.raises(ValueError, match="name a block list"):
        UrlFilter()


def test_its_columns_have_different_names():
    with pytest.raises(ValueError, match="two columns of the stage have the same name"):
        UrlFilter(as_url="x", as_domain="x")


def project(folder):
    (folder / "in").mkdir()
    docs = corpora.docs(60)
    rows = [{"id": d.id, "text": d.text, "url": f"http://s{i % 6}.com/{i}"} for i, d in enumerate(docs)]
    (folder / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "d.txt").write_text("s1.com\ns2.com\n")
    stages = [
        {"use": "url_filter", "block_domains": "d.txt", "as_domain": "host"},
        {"use": "filter", "where": "host != 's3.com' or n_words < 0"},
        {"use": "length_filter", "min_chars": 100},
        {"use": "exact_dedup"},
    ]
    return corpora.write_recipe(folder, stages, input={"shards": "in/*"})


def test_another_list_reads_no_shard(tmp_path):
    recipe = project(tmp_path)
    report = dataselect.run(recipe, workers=1)
    assert report["funnel"][0]["dropped"]["domain"]["docs"] == 20
    assert sum(rule["docs"] for rule in report["funnel"][1]["dropped"].values()) == 10
    (tmp_path / "d.txt").write_text("s1.com\n")
    report = dataselect.run(recipe, workers=1)
    assert report["funnel"][0]["dropped"]["domain"]["docs"] == 10
    assert not any(name.startswith("read") for name in phases(report))
    fresh = dataselect.run(recipe, workers=2, sets=["work=w2", "output.folder=o2", "input.piece_bytes=2KiB"])
    assert fresh["row_digest"] == report["row_digest"]


def test_the_url_field_is_checked(tmp_path):
    recipe = project(tmp_path)
    with pytest.raises(RecipeError, match=r"stages\[0\].*did you mean 'url'"):
        dataselect.plan(recipe, sets=["stages.0.url=urls"])
    with pytest.raises(RecipeError, match="'n_words' is a number, not a string"):
        dataselect.plan(recipe, sets=["stages.0.url=n_words"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abc", max_size=3), max_size=30), st.lists(st.text("abcd", max_size=3), max_size=30))
def test_a_set_of_hashes_is_a_set(members, questions):
    arrays = make_set("x", iter([members[:5], members[5:]]))
    assert in_set(arrays, "x", questions).tolist() == [q in members for q in questions]


def test_entries_that_share_half_a_hash_are_told_apart():
    hashes = np.array([[5, 3], [5, 1], [2, 9], [5, 2]], np.uint64)
    order = sorted_order(hashes[:, 0], hashes[:, 1])
    high, low = hashes[order].T
    wanted = np.array([[5, 2], [5, 4], [5, 1], [2, 9], [2, 8], [9, 9], [5, 3]], np.uint64)
    assert order[find(high, low, wanted)].tolist()[:1] == [3]
    found = find(high, low, wanted)
    assert [None if at < 0 else order[at] for at in found] == [3, None, 1, 2, None, None, 0]
