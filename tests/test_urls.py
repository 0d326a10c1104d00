"""One form for the URLs of one page."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.urls import host_and_parents, normalize_host, normalize_url, split_url, url_words


@pytest.mark.parametrize(
    "url, normal",
    [
        ("https://example.com/a/b.html", "example.com/a/b.html"),
        ("HTTP://WWW.Example.COM:80/A", "example.com/A"),
        ("https://example.com:443", "example.com/"),
        ("https://example.com:8443/", "example.com:8443/"),
        ("http://example.com:0080/", "example.com/"),
        ("http://user:secret@example.com/x", "example.com/x"),
        ("http://example.com./", "example.com/"),
        ("http://www.com/", "www.com/"),
        ("http://www.www.com/", "www.com/"),
        ("http://a.com/x#part", "a.com/x"),
        ("http://a.com?x=1", "a.com/?x=1"),
        ("http://a.com/?", "a.com/"),
        ("http://a.com/?utm_source=x&b=2&GCLID=3&a=1&&fbclid", "a.com/?b=2&a=1"),
        ("http://a.com/%7euser/%e4%2f", "a.com/~user/%E4%2F"),
        ("http://a.com/straße ü?q=ä b", "a.com/stra%C3%9Fe%20%C3%BC?q=%C3%A4%20b"),
        ("http://a.com/100%", "a.com/100%25"),
        ("http://a.com/a/./b/../c/..", "a.com/a/"),
        ("http://a.com/../..//x", "a.com//x"),
        ("http://a.com/a//b/", "a.com/a//b/"),
        ("http://Bücher.example/", "xn--bcher-kva.example/"),
        ("http://b%C3%BCcher.example/", "xn--bcher-kva.example/"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example/"),
        ("http://[2001:DB8::1]:8080/x", "[2001:db8::1]:8080/x"),
        ("  http://a.com/\n", "a.com/"),
        ("//a.com/x", "a.com/x"),
        ("a.com", "a.com/"),
        ("a.com:8080/x", "a.com:8080/x"),
        ("ftp://a.com:21/x", "a.com/x"),
        ("http://a.com\\b", "a.com/b"),
    ],
)
def test_normal_form(url, normal):
    assert normalize_url(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "", " ", "x", "/path", "mailto:a@b.de", "javascript:alert(1)", "data:text/plain,x", "urn:isbn:1",
        "http://", "http:///x", "http://a b/", "http://a..com/", "http://.com/", "http://a.com:99999/",
        "http://a.com:x/", f"http://{'a' * 64}.com/", "http://[::1/", "http://\u2028/", "gopher://a.com/",
    ],
)  # fmt: skip
def test_what_has_no_host_has_no_form(url):
    assert normalize_url(url) is None


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("abA./:?#%&=@[]é ~-_2e5c\\www"), max_size=30))
def test_the_form_of_the_form_is_itself(rest):
    normal = normalize_url("http://a.com" + rest)
    if normal is not None:
        assert normalize_url("http://" + normal) == normal
        assert normalize_url("https://" + normal) == normal


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab./:?-_~19AwW"), max_size=20))
def test_the_fast_path_gives_what_the_slow_one_gives(rest):
    url = "http://" + rest
    assert split_url(url) == split_url(" " + url)  # a space before it takes the slow path


def test_parents_and_words():
    assert host_and_parents("a.b.co.uk") == ["a.b.co.uk", "b.co.uk", "co.uk", "uk"]
    assert host_and_parents("192.168.0.1") == ["192.168.0.1"]
    assert host_and_parents("[::1]") == ["[::1]"]
    assert normalize_host("WWW.Example.com.") == "example.com"
    assert url_words("a.com/Free-Stuff/stra%C3%9Fe_2?q=X") == [
        "a", "com", "free", "stuff", "straße", "2", "q", "x",
    ]  # fmt: skip
