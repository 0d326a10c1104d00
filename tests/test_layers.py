"""Imports point one way.

    cli -> report -> runner, prepare, outcome, reporting, walk, dedups, publish, card, training, sketching,
    compare -> planning, engine -> stages -> io -> kernels -> core

A module may import its own package and what lies below it. Siblings on one level (planning and engine)
don't know each other. Two rules more keep the coordinator light: numba is imported at module level only
in kernels, so kernels are imported inside functions by everything but the modules that run in workers
alone; and a stage imports io inside functions, so that its parameters can be checked without readers.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dataselect"
LEVELS = [
    {"core"},
    {"kernels"},
    {"io"},
    {"stages"},
    {"planning", "engine"},
    {
        "runner",
        "prepare",
        "outcome",
        "reporting",
        "walk",
        "dedups",
        "publish",
        "card",
        "training",
        "sketching",
        "compare",
        "mixing",
        "against",
        "indexing",
    },
    {"report"},
    {"cli"},
    {"__main__", "__init__"},
]
# One group of modules, not layers.
FREE_SIBLINGS = LEVELS[5]
WORKERS_ONLY = {"engine/preload.py"}  # imported by the fork server


def part_of(module):
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def level_of(part):
    return next(i for i, level in enumerate(LEVELS) if part in level)


def imports_of(path):
    """(imported module, line, whether at module level) of every import of this package or of anything."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    inside = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{a.name}" if node.module == "dataselect" else str(node.module)
                for a in node.names
            ]
        else:
            continue
        for name in names:
            yield name, node.lineno, node not in inside


FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def test_every_part_of_the_package_has_a_level():
    parts = {name.removesuffix(".py").split("/")[0] for name in FILES}
    assert parts == set().union(*LEVELS)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    part = name.removesuffix(".py").split("/")[0]
    for module, line, _ in imports_of(PACKAGE / name):
        if module.split(".")[0] != "dataselect" or part_of(module) in (part, "__version__"):
            continue
        target = part_of(module)
        allowed = level_of(target) < level_of(part) or {target, part} <= FREE_SIBLINGS
        assert allowed or part == "__init__", f"dataselect/{name}:{line}: {part} must not import {module}"


@pytest.mark.parametrize("name", FILES)
def test_numba_and_kernels_are_imported_late(name):
    part = name.removesuffix(".py").split("/")[0]
    if part == "kernels" or name in WORKERS_ONLY:
        return
    for module, line, at_module_level in imports_of(PACKAGE / name):
        heavy = module.split(".")[0] in ("numba", "datasets", "fasttext", "pandas", "llvmlite")
        heavy |= module.startswith("dataselect.kernels")
        assert not (heavy and at_module_level), (
            f"dataselect/{name}:{line}: import {module} inside the function"
        )


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("stages/")])
def test_a_stage_imports_readers_late(name):
    for module, line, at_module_level in imports_of(PACKAGE / name):
        assert not (module.startswith("dataselect.io") and at_module_level), (
            f"dataselect/{name}:{line}: {module}"
        )


HEAVY = ("numba", "llvmlite", "datasets", "fasttext", "pandas", "torch", "ray")


def loaded_after(code, *args):
    script = f"{code}\nimport sys\nprint(','.join(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1:]


def test_the_coordinator_loads_nothing_heavy(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "some words"}\n' * 3)
    (tmp_path / "target.jsonl").write_text('{"text": "some words"}\n')
    (tmp_path / "r.yaml").write_text(
        "input: {shards: a.jsonl}\n"
        "stages:\n"
        "  - {use: length_filter}\n"
        "  - {use: minhash_dedup}\n"
        "  - {use: ngram_importance, target: target.jsonl}\n"
        "  - {use: select, by: importance, method: resample, keep: {fraction: 0.5}}\n"
        "output: {folder: out}\n"
    )
    code = "import sys, dataselect.runner, dataselect.cli; dataselect.runner.plan(sys.argv[1])"
    assert loaded_after(code, tmp_path / "r.yaml") in ([], [""])
    # A run: the coordinator only sends tasks and reads small answers.
    code = "import sys, dataselect.runner; dataselect.runner.run(sys.argv[1], workers=1)"
    assert loaded_after(code, tmp_path / "r.yaml") in ([], [""])


def test_help_loads_neither_numpy_nor_arrow():
    code = "import sys, dataselect.cli; from dataselect import __version__"
    light = ("numpy", "pyarrow", "pydantic", "yaml", "fsspec")
    script = f"{code}\nprint([m for m in {light} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
