"""Numba functions over the buffers of Arrow string columns; each has a slow, obvious twin in `reference.py`.

Importing this package imports no numba: it only says where compiled code is cached. The cache folder's name
holds a digest of this folder's sources, because numba notices a change of a kernel's own file but not of the
helpers the kernel calls from other files; a stale kernel would give wrong results silently.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def _sources_digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _cache_folder() -> Path:
    """A folder for compiled kernels that is writable and survives the process, if there is one."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    user = os.getuid() if hasattr(os, "getuid") else "user"
    name = _sources_digest()
    for base in (
        home / "dataselect" / "numba",
        Path(tempfile.gettempdir()) / f"dataselect-numba-{user}",
    ):
        folder = base / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="dataselect-numba-"))


if not os.environ.get("NUMBA_CACHE_DIR"):
    os.environ["NUMBA_CACHE_DIR"] = str(_cache_folder())
