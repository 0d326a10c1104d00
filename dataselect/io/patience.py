"""Requests that fail: which are repeated, how long, and what is said of those that fail for good.

Errors are told by names of classes and by HTTP status: the stores' packages are not imported here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from dataselect.core.errors import StoreError

T = TypeVar("T")
TRIES = 5
"""Of a request that fails for a passing reason."""
_FIRST_WAIT_S = 0.5  # then twice as long each time, and half as long to half as long again: 7.5 s in all
_LONG_S = 20.0  # a store's package that has repeated it for so long is believed
_PASSING = {
    "ConnectionError",  # botocore: no connection
    "HTTPClientError",  # botocore: one that broke
    "ResponseParserError",
    "IncompleteReadError",
    "ClientError",  # aiohttp; botocore's has a status
    "TransportError",  # httpx, google.auth
    "RequestException",  # requests
    "ServiceRequestError",  # azure
    "ServiceResponseError",
    "ChecksumError",  # gcsfs
}
_LACKS_RIGHTS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "DefaultCredentialsError",  # google.auth
    "RefreshError",
    "ClientAuthenticationError",  # azure
    "LocalTokenNotFoundError",  # huggingface_hub
}
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
REPLACED = "it was replaced while it was read; run the same command again"


def patiently(url: str, request: Callable[[], T], at_least: int = 1) -> T:
    """The request's result; it is repeated, after longer and longer waits, while a failure may pass.

    Passing: throttled (429, 503 SlowDown), any other 5xx, no connection, one that broke, a body cut short.
    Raises StoreError where it fails for good; answers like FileNotFoundError and errors of this machine's
    own (a full disk) are left as they are. at_least: tries of what may take long by itself.
    """
    tries, started = 1, time.monotonic()
    while True:
        try:
            return request()
        except Exception as error:
            why = None if _is_answer(error) else _reason(error)
            if why is None:
                raise
            if not _passes(error):
                raise StoreError(f"{url}: {why}") from error
            if tries == TRIES or (tries >= at_least and time.monotonic() - started > _LONG_S):
                after = f", after {tries} tries" if tries > 1 else ""
                raise StoreError(
                    f"{url}: {why}{after}; run the same command again, it goes on from there"
                ) from error
        time.sleep(_FIRST_WAIT_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
        tries += 1


def _is_answer(error: Exception) -> bool:
    """Whether it says how things are. To fsspec's HTTP all that fails is "not found", with the true cause."""
    if not isinstance(error, _ANSWERS):
        return False
    known = status_of(error) in (None, 401, 404, 409, 412)
    return error.__cause__ is None or (known and not _passes(error))


class _CutShort(EOFError):
    """A body with fewer bytes than were asked for."""


def whole(data: bytes, n_bytes: int) -> bytes:
    if len(data) < n_bytes:
        raise _CutShort(f"the answer was cut short ({len(data)} of {n_bytes} bytes)")
    if len(data) > n_bytes:
        raise ValueError("the server sends whole files where ranges are asked for; download it")
    return data


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """HTTP status behind an error of any store's package."""
    for cause in _chain(error):
        if type(cause).__name__ == "ClientPayloadError":  # aiohttp: a body cut short; it calls that a 400
            return None
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0) or None
        if type(cause) is OSError and str(cause).startswith("Forbidden"):  # gcsfs
            return 403
        for holder, field in (
            (response, "status_code"),
            (cause, "status"),
            (cause, "status_code"),
            (cause, "code"),
        ):
            value = getattr(holder, field, None)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _kinds(error: BaseException) -> set[str]:
    return {cls.__name__ for cause in _chain(error) for cls in type(cause).__mro__}


def _passes(error: BaseException) -> bool:
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or (status >= 500 and status not in (501, 505))
    passing = (TimeoutError, asyncio.TimeoutError, ConnectionError, EOFError)
    return any(isinstance(cause, passing) for cause in _chain(error)) or bool(_kinds(error) & _PASSING)


def _reason(error: BaseException) -> str | None:
    """What went wrong, for a person; None where it is no answer (or silence) of the store."""
    status, kinds = status_of(error), _kinds(error)
    told = (error.__cause__ or error) if isinstance(error, _ANSWERS) else error
    text = " ".join(str(told).split()).split(" RequestId:")[0][:300]  # Azure's goes on for lines
    if "FileExpired" in kinds or status == 412:
        return REPLACED
    if (
        status in (401, 403)
        or kinds & _LACKS_RIGHTS
        or (isinstance(error, PermissionError) and not error.filename)
    ):
        return f"access denied; check the credentials in the environment and what they allow ({text})"
    if status is not None:
        return f"the store answered {status} ({text})"
    if _passes(error):
        return f"the store can't be reached or broke off ({text or type(error).__name__})"
    if isinstance(error, (ValueError, NotImplementedError)):  # what its package makes of an odd request
        return text or "the store does not know how to do this"
    return None
