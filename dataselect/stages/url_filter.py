"""Drop documents by their URL: lists of domains, of URLs and of words, as RefinedWeb and datatrove do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dataselect.core.errors import BadModel
from dataselect.core.urls import host_and_parents, normalize_host, normalize_url, split_url, url_words
from dataselect.stages.base import STRING, Columns, ColumnStage, Model, ModelPath, Rules

_SETS = ("allow_domains", "allow_urls", "block_domains", "block_urls")
_WORDS = ("hard_words", "soft_words", "substrings")
NO_URL, DOMAIN, URL, HARD, SOFT, SUBSTRING = (
    "no url",
    "domain",
    "url",
    "hard word",
    "soft words",
    "substring",
)


class UrlFilter(ColumnStage):
    """Drop documents whose URL is on a block list and on no allow list; lists are text files.

    One entry a line, # for comments, `.gz` as it is. A domain stands for its sub-domains, too. URLs are
    compared in the form of `core.urls`. Words are whole words of the URL, whatever their case: one of
    `hard_words`, or `soft_threshold` different ones of `soft_words`; `substrings` are looked for in all
    its letters and digits. The first that applies is the reason, in the order: domain, url, hard word,
    soft words, substring (as datatrove 0.10; there words are split from the URL as it is written).
    """

    use: ClassVar[str] = "url_filter"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"no_url"})

    url: str = Field("url", min_length=1, description="input field or column with the document's URL")
    block_domains: ModelPath | None = Field(None, description="list of domains, with all their sub-domains")
    block_urls: ModelPath | None = Field(None, description="list of URLs")
    allow_domains: ModelPath | None = Field(
        None, description="list of domains that no block list applies to, with all their sub-domains"
    )
    allow_urls: ModelPath | None = Field(None, description="list of URLs that no block list applies to")
    hard_words: ModelPath | None = Field(None, description="list of words of which one in the URL is enough")
    soft_words: ModelPath | None = Field(None, description="list of words of which one alone is not enough")
    soft_threshold: int = Field(2, ge=1, description="how many different soft words are enough")
    substrings: ModelPath | None = Field(
        None, description="list of strings of letters and digits, looked for in the URL's letters and digits"
    )
    no_url: Literal["keep", "drop"] = Field(
        "keep", description="what becomes of documents without a URL, or with one that has no host"
    )
    as_: str = Field("url_blocked", alias="as", description="name of the column with the reason, or null")
    as_url: str | None = Field(None, description="name of a column for the normalised URL; none by default")
    as_domain: str | None = Field(None, description="name of a column for the host; none by default")

    @model_validator(mode="after")
    def _does_something(self) -> UrlFilter:
        blocks = self.block_domains, self.block_urls, self.hard_words, self.soft_words, self.substrings
        if not (any(blocks) or self.as_url or self.as_domain or self.no_url == "drop"):
            raise ValueError("name a block list, or a column to add (as_url, as_domain)")
        names = [name for name in (self.as_, self.as_url, self.as_domain) if name is not None]
        if len(set(names)) < len(names):
            raise ValueError("as: two columns of the stage have the same name")
        return self

    def check_files(self) -> None:
        """Raise BadModel where a list has no entry; reads no more than its first part."""
        from dataselect.io.hash_index import list_lines

        for path in self.file_fields().values():
            next(list_lines(path))

    def input_columns(self) -> list[str]:
        return [self.url]

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        if known.get(self.url, STRING) != STRING:
            raise ValueError(f"url: '{self.url}' is a {known[self.url]}, not a string")
        return {self.url: STRING}

    def output_columns(self) -> dict[str, str]:
        names = [self.as_, self.as_url, self.as_domain]
        return {name: "large_string" for name in names if name is not None}

    def prepare(self) -> dict[str, np.ndarray]:
        """Sorted hashes of the domains and URLs, 16 bytes each; the words as UTF-8 lines."""
        from dataselect.io.hash_index import list_lines, make_set

        arrays: dict[str, np.ndarray] = {}
        paths = self.file_fields()
        for name in _SETS:
            if name in paths:
                form = _domain if name.endswith("domains") else _url
                arrays |= make_set(name, _entries(paths[name], form, list_lines))
        for name in _WORDS:
            if name in paths:
                words = [word for part in _entries(paths[name], _word, list_lines) for word in part]
                arrays[name] = np.frombuffer("\n".join(sorted(set(words))).encode(), np.uint8)
        return arrays

    def look_up(self, columns: Columns, model: Model) -> tuple[Columns, dict[str, int]]:
        urls: list[str | None] = columns[self.url].to_pylist()
        parts = [None if url is None else split_url(url) for url in urls]
        hosts = [None if part is None else part[0] for part in parts]
        normal = [None if part is None else part[0] + part[1] for part in parts]
        reasons = self._reasons(hosts, normal, model)
        out: dict[str, Any] = {self.as_: pa.array(reasons, pa.large_string())}
        if self.as_url is not None:
            out[self.as_url] = pa.array(normal, pa.large_string())
        if self.as_domain is not None:
            out[self.as_domain] = pa.array(hosts, pa.large_string())
        return out, {}

    def _reasons(self, hosts: list[str | None], urls: list[str | None], model: Model) -> list[str | None]:
        from dataselect.io.hash_index import in_set

        plain = [url or "" for url in urls]
        allowed = _by_domain(hosts, model, "allow_domains") | in_set(model, "allow_urls", plain)
        domain = _by_domain(hosts, model, "block_domains")
        listed = in_set(model, "block_urls", plain)
        hard, soft, parts = ([*_words(model, name)] for name in _WORDS)
        hard_set, soft_set = frozenset(hard), frozenset(soft)
        reasons: list[str | None] = []
        for i, url in enumerate(urls):
            if url is None:
                reasons.append(NO_URL)
            elif allowed[i]:
                reasons.append(None)
            elif domain[i] or listed[i]:
                reasons.append(DOMAIN if domain[i] else URL)
            elif hard or soft or parts:
                reasons.append(self._by_words(url_words(url), hard_set, soft_set, parts))
            else:
                reasons.append(None)
        return reasons

    def _by_words(
        self, words: list[str], hard: frozenset[str], soft: frozenset[str], parts: list[str]
    ) -> str | None:
        if not hard.isdisjoint(words):
            return HARD
        if soft and len(soft.intersection(words)) >= self.soft_threshold:
            return SOFT
        together = "".join(words) if parts else ""
        return SUBSTRING if any(part in together for part in parts) else None

    def keep(self, columns: Columns) -> Rules:
        reason = columns[self.as_]
        names = [DOMAIN, URL, HARD, SOFT, SUBSTRING, *([NO_URL] if self.no_url == "drop" else [])]
        return {name: equals(reason, name) for name in names}


def equals(values: pa.Array, name: str) -> np.ndarray:
    """bool[n]: where a text is `name`; a null is not."""
    import pyarrow.compute as pc

    found: np.ndarray = pc.fill_null(pc.equal(values, name), False).to_numpy(zero_copy_only=False)
    return found


def _by_domain(hosts: list[str | None], model: Model, name: str) -> np.ndarray:
    """bool[n]: whether the host or one of its parents is in the list."""
    from dataselect.io.hash_index import in_set

    found = np.zeros(len(hosts), bool)
    if f"{name}.high" not in model:
        return found
    distinct = list(dict.fromkeys(host for host in hosts if host is not None))
    parents = [host_and_parents(host) for host in distinct]
    hits = in_set(model, name, [parent for chain in parents for parent in chain])
    ends = np.cumsum([len(chain) for chain in parents])
    listed = {
        host
        for host, end, chain in zip(distinct, ends.tolist(), parents, strict=True)
        if hits[end - len(chain) : end].any()
    }
    found[:] = [host in listed for host in hosts]
    return found


def _words(model: Model, name: str) -> Iterator[str]:
    if name in model and len(model[name]):
        yield from model[name].tobytes().decode().split("\n")


def _entries(path: str, form: Callable[[str], str | None], read: Any) -> Iterator[list[str]]:
    """Entries of a list in their normal form; BadModel where one has none."""
    for part in read(path):
        entries = []
        for number, entry in part:
            value = form(entry)
            if value is None:
                raise BadModel(f"{path}:{number}: '{entry[:200]}' is no {form.__name__.strip('_')}")
            entries.append(value)
        yield entries


def _domain(entry: str) -> str | None:
    return normalize_host(entry.removeprefix("*.").removeprefix("."))


def _url(entry: str) -> str | None:
    return normalize_url(entry)


def _word(entry: str) -> str | None:
    words = url_words(entry)
    return words[0] if len(words) == 1 and words[0] == entry.lower() else None
