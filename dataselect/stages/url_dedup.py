"""Keep one of the documents with the same URL."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from dataselect.core.urls import normalize_url
from dataselect.stages.field_dedup import FieldDedup


class UrlDedup(FieldDedup):
    """Keep one document of every distinct URL, compared in normal form, whatever the texts are.

    The form is that of `core.urls`, which `url_filter: as_url` shows. A document without a URL, or with one
    that has no host, is never a duplicate. The keys come from the stored column: no shard is read.
    """

    use: ClassVar[str] = "url_dedup"

    field: str = Field(
        "url", alias="url", min_length=1, description="input field or column with the document's URL"
    )
    as_: str = Field(
        "n_same_url",
        alias="as",
        description="name of the column with the number of documents of the same URL, itself included",
    )

    def values(self, texts: pa.Array) -> pa.Array:
        normal = [None if url is None else normalize_url(url) for url in texts.to_pylist()]
        return pa.array(normal, pa.large_string())
