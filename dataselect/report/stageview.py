"""The stages there are: parameters, what they read, what they add."""

from __future__ import annotations

import inspect
from typing import Any

from dataselect.stages import KINDS, registry
from dataselect.stages.base import ColumnStage, DedupStage, SelectStage, Stage

_SHARED = {"optional"}


def describe() -> list[dict[str, Any]]:
    """One entry a stage, from its class alone."""
    return [_describe(use, cls) for use, cls in registry().items()]


def _describe(use: str, cls: type[Stage]) -> dict[str, Any]:
    schema = cls.model_json_schema()
    required = set(schema.get("required", []))
    parameters = [
        {
            "name": name,
            "description": value.get("description", ""),
            **({"required": True} if name in required else {"default": value.get("default")}),
        }
        for name, value in schema["properties"].items()
        if name not in _SHARED
    ]
    kind = next(kind for kind in KINDS if issubclass(cls, kind))
    adds = [p["default"] for p in parameters if p["name"] == "as" and p.get("default")]
    names = [p["name"] for p in parameters]
    by_columns = issubclass(cls, ColumnStage) or (
        issubclass(cls, DedupStage) and cls.keys_of is not DedupStage.keys_of
    )
    reads = "columns and input fields" if by_columns else "text"
    if issubclass(cls, SelectStage):
        reads = "the column named by `by`" if "by" in names else "columns"
    return {
        "use": use,
        "kind": kind.__name__,
        "summary": inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " "),
        "reads": reads,
        "adds": adds,
        "parameters": parameters,
    }


def render(stages: list[dict[str, Any]]) -> str:
    """Lines for people."""
    lines = []
    for stage in stages:
        adds = f", adds {', '.join(stage['adds'])}" if stage["adds"] else ""
        lines += [f"{stage['use']}: {stage['summary']}", f"  reads {stage['reads']}{adds}"]
        for p in stage["parameters"]:
            default = "required" if p.get("required") else f"default {p['default']}"
            lines.append(f"  {p['name']} ({default}): {p['description']}")
        lines.append("")
    return "\n".join(lines).rstrip()
