"""fsspec's file systems, and where they differ: options, versions of a file, ranges, what can be written to.

Tried are S3, Google Cloud Storage, Azure Blob Storage, the Hugging Face Hub and plain HTTP; what others do is
taken from fsspec's contract.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dataselect.core.errors import RecipeError, StoreError

_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "abfs"),
    **dict.fromkeys(("http", "https"), "http"),
}
_S3, _SUFFIX_RANGES = {"s3", "s3a"}, {"s3", "s3a", "gs", "gcs", "memory"}
_S3_ATTEMPTS = 3  # botocore's own within each try, so that a page of a long listing does not start it again
_AZURE_WAITS = {"initial_backoff": 0.5, "increment_base": 2, "random_jitter_range": 1}  # 15 s, not 80, in all
_AZURE_HINT = (
    "; set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING, or name the account: "
    "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/..."
)

_NO_OUTPUT = {
    "hf": "every file would be a commit of the repository; write elsewhere, and upload the folder then",
    "http": "it can only be read",
    "memory": "it is the memory of one process, and workers have their own",
}

# They log what they raise, with tracebacks, which go to stderr where nobody listens.
for _package in ("gcsfs", "azure"):
    logging.getLogger(_package).addHandler(logging.NullHandler())


def file_system(url: str) -> tuple[Any, str]:
    """(fsspec file system, path in it); RecipeError where the protocol is unknown or its package missing."""
    import fsspec

    protocol = url.split("://", 1)[0]
    if re.search(r"::[a-z0-9+]+://", url):
        raise RecipeError(f"{url}: chained URLs are not supported; name the files on their own store")
    options: dict[str, Any] = {}
    if protocol in _S3:
        config = dict(fsspec.config.conf.get(protocol, {}).get("config_kwargs", {}))
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            config.setdefault("retries", {"total_max_attempts": _S3_ATTEMPTS})
        options = {"use_listings_cache": False, "config_kwargs": config}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        hint = f"pip install 'dataselect[{_EXTRAS[protocol]}]'" if protocol in _EXTRAS else error
        raise RecipeError(f"{url}: the package for {protocol}:// is missing; {hint}") from None
    except ValueError as error:
        hint = _AZURE_HINT if _EXTRAS.get(protocol) == "abfs" else ""
        raise RecipeError(f"{url}: {error}{hint}") from None
    except OSError as error:  # some connect at once: FTP
        raise StoreError(f"{url}: the store can't be reached ({error})") from error
    if protocol in _S3:
        fs.retries = 1  # s3fs would repeat botocore's tries, and we its
    if _EXTRAS.get(protocol) == "abfs":
        policy = getattr(getattr(fs.service_client, "_config", None), "retry_policy", None)
        for name, value in _AZURE_WAITS.items():
            if hasattr(policy, name):
                setattr(policy, name, value)
    return fs, str(path)


def check_output(place: str, url: str) -> None:
    """RecipeError where nothing can be written at this URL."""
    protocol = url.split("://", 1)[0]
    if "://" in url and (why := _NO_OUTPUT.get(protocol.replace("https", "http"))):
        raise RecipeError(f"{place}: nothing can be written to {url}: {why}")


def is_s3(fs: Any) -> bool:
    """Whether its files ask for the version that they were opened at (If-Match)."""
    return bool(_S3 & _protocols(fs))


def knows_suffix_ranges(fs: Any) -> bool:
    """Whether `cat_file(path, -n)` is one request for the last n bytes."""
    return bool(_SUFFIX_RANGES & _protocols(fs))


def reads_at_once(fs: Any, start: int, stop: int | None) -> bool:
    """Whether `cat_file` gives these bytes by one request, so all of them of one version."""
    return knows_suffix_ranges(fs) or (fs.async_impl and (start == 0 or (start > 0 and stop is not None)))


def forget(fs: Any) -> None:
    """Let the next answer be the store's, not that of a cache."""
    if "hf" not in _protocols(fs):  # it would also ask anew, each time, whether the repository exists
        fs.invalidate_cache()


def describe(fs: Any, path: str) -> dict[str, Any]:
    """What `info` of fsspec says of a file as it is now; FileNotFoundError."""
    if "hf" in _protocols(fs):  # else it lists the folder, and leaves the version out
        return dict(fs.info(path, refresh=True, expand_info=True))
    fs.invalidate_cache()
    return dict(fs.info(path))


def range_getter(fs: Any, path: str, size: int) -> Callable[[int, int], bytes]:
    """Gives bytes [start, stop) of a file of this size, by one request."""
    if fs.async_impl:
        return lambda start, stop: fs.cat_file(path, start=start, end=stop)
    # Buffered files have caches of 50 MB, so only their ranges are used; told the size, they ask for no more.
    file = fs.open(path, "rb", cache_type="none", size=size)
    get: Callable[[int, int], bytes] | None = getattr(file, "_fetch_range", None)
    return get or (lambda start, stop: fs.cat_file(path, start=start, end=stop))


def file_size(url: str, info: dict[str, Any]) -> int:
    """Bytes; StoreError where the store does not tell."""
    if info.get("size") is None:
        raise StoreError(f"{url}: the server does not tell the size of this file; download and name the copy")
    return int(info["size"])


def fsspec_version(info: dict[str, Any]) -> str:
    """What changes with the content, from fsspec's description of a file; see `Entry.version`."""
    for field in _VERSIONS:
        value = info.get(field)
        if isinstance(value, datetime):  # some file systems list numbers and stat dates
            value = value.timestamp()
        if value:
            return str(value)
    return f"?{uuid.uuid4().hex}"


# S3, HTTP; GCS, Azure; GCS emulators; Hugging Face repositories and buckets; GitHub; memory, SFTP; FTP.
_VERSIONS = (
    *("ETag", "etag", "version_id", "md5Hash", "blob_id", "xet_hash", "sha"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "modify", "created"),
)


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
