"""The stages, one file each, found by looking into this folder; `load` also takes a user's own file."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
import types
from functools import cache
from pathlib import Path

from dataselect.core.errors import RecipeError
from dataselect.core.names import nearest
from dataselect.stages.base import ColumnStage, DedupStage, FittedStage, MapStage, SelectStage, Stage

KINDS: tuple[type[Stage], ...] = (MapStage, ColumnStage, DedupStage, FittedStage, SelectStage)


@cache
def registry() -> dict[str, type[Stage]]:
    """Stage name -> class, sorted by name."""
    found: dict[str, type[Stage]] = {}
    for module in pkgutil.iter_modules(__path__):
        namespace = vars(importlib.import_module(f"{__name__}.{module.name}"))
        found |= {cls.use: cls for cls in namespace.values() if _is_stage(cls)}
    return dict(sorted(found.items()))


def _is_stage(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Stage) and "use" in vars(value)


def load(use: str, folder: Path, source: bytes | None = None) -> type[Stage]:
    """The class named in a recipe: 'length_filter', or 'my_stages.py:MyFilter' beside the recipe.

    source   what the file holds, where it was read before
    RecipeError where there is none, with the nearest name.
    """
    if ".py:" in use:
        path, name = use.rsplit(":", 1)
        file = (folder / path).resolve()
        try:
            return _load_file(str(file), file.read_bytes() if source is None else source, name)
        except OSError as error:
            raise RecipeError(f"{file}: cannot read the stage's file: {error.strerror}") from error
    stages = registry()
    if use not in stages:
        hint = nearest(use, stages) or f"; there are {', '.join(stages)}"
        raise RecipeError(f"unknown stage '{use}'{hint}")
    return stages[use]


@cache
def _load_file(path: str, source: bytes, name: str) -> type[Stage]:
    """`source` is the file's content: a file edited between two runs of one process is loaded again."""
    # Not by the import system, whose byte code cache takes a file edited within a second for the old one.
    module = types.ModuleType(f"dataselect_user_{hashlib.blake2b(path.encode(), digest_size=8).hexdigest()}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where pydantic looks up the names in annotations
    try:
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 - the user's own code
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{path}: importing it failed: {type(error).__name__}: {error}") from error
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, KINDS)):
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise RecipeError(f"{path}: '{name}' is not a stage; it must be a class derived from one of {kinds}")
    if "use" not in vars(cls):
        cls.use = name
    cls._source = source  # type: ignore[attr-defined]
    return cls
