"""Where and with what it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

from bench.cases import ROOT


def machine() -> dict[str, Any]:
    """CPU model, usable CPUs, memory."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(n_bytes / 1e9, 1),
        "system": platform.platform(),
        "load_average": os.getloadavg(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, the packages that do the work, and this checkout ("+" with uncommitted changes)."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("numpy", "pyarrow", "zstandard", "numba", "dataselect"):
        found[package] = metadata.version(package)
    found["commit"] = commit()
    return found


def commit() -> str | None:
    """None outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()[:12] + "+" * bool(changes.stdout)
