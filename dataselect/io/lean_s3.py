"""Reads and small writes of S3 by obstore, where it is installed: a sixth of botocore's CPU time.

s3fs stays in charge. Endpoint, region and credentials are those that it found, and it repeats, and judges,
whatever fails here: nothing here knows errors, retries or stores that differ from Amazon's.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
_GIVE_UP = 8
"""Failures in a row after which a process asks s3fs alone for a while: a redirect, an own certificate."""
_PAUSE_S = 60.0


class Head(NamedTuple):
    """Of an object: size in bytes, and the ETag as s3fs gives it."""

    size: int
    etag: str


class LeanS3:
    """One bucket. Methods return None where s3fs must be asked; from any thread.

    FileNotFoundError where there is no such object.
    """

    def __init__(self, fs: Any, bucket: str) -> None:
        """`fs`: an s3fs.S3FileSystem."""
        self._fs, self._bucket = fs, bucket
        self._store: Any = None
        self._n_failed = 0
        self._closed_until = 0.0 if _is_plain(fs) else math.inf
        self._proven = False  # whether there was an answer, so that the bucket is where it is looked for
        self._lock = threading.Lock()

    def head(self, key: str) -> Head | None:
        """Size and ETag."""

        def ask(obstore: Any, store: Any) -> Head | None:
            meta = obstore.head(store, key)
            return Head(meta["size"], meta["e_tag"]) if meta["e_tag"] else None

        return self._try(ask)

    def get(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> Any:
        """Bytes [start, stop) as a buffer, perhaps fewer; start < 0 counts from the end.

        etag: of the version that is meant; of another one there are no bytes.
        """
        span: Any = {"suffix": -start} if start < 0 else {"offset": start}
        if stop is not None:
            span = (start, stop)

        def ask(obstore: Any, store: Any) -> Any:
            answer = obstore.get(store, key, options={"range": span} | ({"if_match": etag} if etag else {}))
            first, end = answer.range
            data = memoryview(answer.bytes())
            return data if len(data) == end - first else None

        return self._try(ask)

    def put(self, key: str, data: bytes) -> bool:
        """Write an object by one request; whether it was written."""
        return bool(self._try(lambda obstore, store: obstore.put(store, key, data, use_multipart=False)))

    def _try(self, ask: Callable[[Any, Any], T]) -> T | None:
        if time.monotonic() < self._closed_until:
            return None
        try:
            import obstore
        except ImportError:
            self._closed_until = math.inf
            return None
        try:
            answer = ask(obstore, self._connected())
        except FileNotFoundError:
            if self._proven:  # the package's own text is a page long
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            return None
        except Exception:  # noqa: BLE001 - s3fs is asked next, and says what is wrong
            self._n_failed += 1
            if self._n_failed >= _GIVE_UP:
                self._closed_until = time.monotonic() + _PAUSE_S
            return None
        self._n_failed, self._proven = 0, True
        return answer

    def _connected(self) -> Any:
        with self._lock:
            if self._store is None:
                from obstore.store import S3Store

                self._fs.connect()
                meta = self._fs.s3.meta
                self._store = S3Store(
                    self._bucket,
                    endpoint=meta.endpoint_url,
                    region=meta.region_name or "us-east-1",
                    virtual_hosted_style_request=False,
                    client_options={"allow_http": meta.endpoint_url.startswith("http:"), "timeout": "60s"},
                    retry_config={"max_retries": 0},
                    credential_provider=self._credentials,
                )
            return self._store

    def _credentials(self) -> dict[str, Any]:
        from datetime import datetime, timedelta, timezone

        from fsspec.asyn import sync

        async def frozen() -> Any:
            return await (await self._fs.session.get_credentials()).get_frozen_credentials()

        keys = sync(self._fs.loop, frozen)
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            # botocore renews those that expire, 10 to 15 minutes before: it is asked again soon
            "expires_at": datetime.now(timezone.utc) + timedelta(minutes=6) if keys.token else None,
        }


_clients: dict[tuple[int, str], LeanS3] = {}


def lean_s3(fs: Any, bucket: str) -> LeanS3:
    """The one of this file system and bucket: its connections are kept."""
    return _clients.setdefault((id(fs), bucket), LeanS3(fs, bucket))  # which holds fs, so no other has the id


def _is_plain(fs: Any) -> bool:
    """Whether nothing was configured (fsspec's own configuration) that obstore would not know of."""
    keys = (fs.anon, fs.key, fs.secret, fs.token)
    extras = (fs.s3_additional_kwargs, fs.req_kw, fs.version_aware, fs.client_kwargs, fs.kwargs)
    return not any((*keys, *extras)) and set(fs.config_kwargs) <= {"retries"}
