"""Where artifacts are in the work store, and how their names are made. Shared by planning and tasks."""

from __future__ import annotations

from dataselect.core.fingerprint import fingerprint

ALL_ROWS = "all"
"""Stands for the digest of a mask where no barrier came before."""


def artifact_name(kind: str, key: str) -> str:
    """Path in the work store; 256 folders a kind, so that no folder grows without bound."""
    return f"{kind}/{key[:2]}/{key}"


def column_name(chain: str, segment_digest: str, alive_digest: str = ALL_ROWS) -> str:
    """Artifact of one stage over one segment.

    chain: fingerprint of the stage, of its model and of the filters before it in the same read;
    alive_digest: digest of the mask of rows that entered the read.
    """
    return artifact_name("columns", fingerprint(chain, segment_digest, alive_digest))


def identity_name(place: str) -> str:
    """Record of what a piece held when it was last read: version and segments."""
    return f"identity/{place[:2]}/{place}.json"
