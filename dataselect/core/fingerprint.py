"""Names for artifacts: digests of everything that decides their content, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no white space: equal values give equal bytes on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(*parts: Any) -> str:
    """32 hex digits of BLAKE2b-128 over the canonical JSON of `parts`.

    Never pass absolute paths, times, host names or worker counts: they would make the same work
    look new on another machine.
    """
    return hashlib.blake2b(canonical(parts), digest_size=16).hexdigest()


def fraction_of_name(name: str, purpose: str) -> float:
    """A number in [0, 1) that depends on `name` and `purpose` alone (used for content-defined cuts)."""
    digest = hashlib.blake2b(f"{purpose}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64
