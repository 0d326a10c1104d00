"""What the bytes of an output may depend on besides the recipe and its input."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("numba", "numpy", "pyarrow", "zstandard")


def versions() -> dict[str, str]:
    """Of Python, the platform and the packages that compute and write; imports none of them."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in PACKAGES},
    }
