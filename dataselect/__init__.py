"""dataselect: from shards of text to the part worth training a language model on.

import dataselect
report = dataselect.run("recipe.yaml", workers=2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "plan", "run"]

if TYPE_CHECKING:
    from dataselect.runner import plan, run


def __getattr__(name: str) -> Any:
    """Import the runner only when it is used, so that `dataselect --help` stays quick."""
    if name in ("plan", "run"):
        from dataselect import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'dataselect' has no attribute '{name}'")
