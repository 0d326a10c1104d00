"""What is wrong with a recipe or its like, in our words: where, what was expected, what was there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from dataselect.core.names import nearest


def join_place(place: str, step: str | int) -> str:
    """'stages[3]', 'threshold' -> 'stages[3].threshold'."""
    if isinstance(step, int):
        return f"{place}[{step}]"
    return f"{place}.{step}" if place else step


def place_of(place: str, error: Any, values: Any) -> str:
    """Where the file has the mistake; pydantic's location also names union members, which it has not."""
    loc = error["loc"]
    for i, step in enumerate(loc):
        missing = error["type"] == "missing" and i == len(loc) - 1
        if isinstance(step, int) and isinstance(values, (list, tuple)):
            place = join_place(place, step)
            values = values[step] if step < len(values) else None
        elif isinstance(values, dict) and (step in values or missing):
            place = join_place(place, step)
            values = values.get(step)
    return place


def joined(messages: Sequence[str]) -> str:
    """Alternatives of a union: 'expected a or b, got 5'."""
    expected: dict[str, None] = {}
    got = ""
    for message in messages:
        match = re.fullmatch(r"expected (.*?)(, got .*)", message, re.DOTALL)
        if not match:
            return message
        expected[match[1]], got = None, match[2]
    return f"expected {' or '.join(expected)}{got}"


def explain(error: Any, cls: type[BaseModel]) -> str:
    """A pydantic error in our words: what was expected, what was there."""
    kind, got = error["type"], error.get("input")
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        names = field_names(cls, error["loc"][:-1])
        return f"unknown key '{name}'{nearest(name, names) or ' (known: ' + ', '.join(names) + ')'}"
    if kind == "missing":
        return "missing; it has no default"
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        return (
            message
            if ", got " in message or not message.startswith("expected")
            else f"{message}, got {got!r}"
        )
    if kind == "invalid_key":
        return f"expected a text as key, got {got!r}"
    bounds = _bounds(cls, error["loc"])
    limit = next((sign for sign in _LIMITS if sign in error.get("ctx", {})), None)
    if limit and bounds in (None, "a number"):  # a size or a share, whose schema allows texts too
        bounds = f"a number {_LIMITS[limit]} {error['ctx'][limit]:g}"
    if bounds:
        return f"expected {bounds}, got {got!r}"
    if kind in ("too_short", "too_long"):
        least = error["ctx"].get("min_length")
        limit = f"at least {least}" if least is not None else f"at most {error['ctx']['max_length']}"
        return f"expected {limit} item{'s' * (limit[-2:] != ' 1')}, got {error['ctx']['actual_length']}"
    if kind in ("model_type", "dict_type"):
        names = field_names(cls, error["loc"])
        return f"expected keys and values{' (' + ', '.join(names) + ')' if names else ''}, got {got!r}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    message = message.removesuffix(", unable to parse string as an integer")
    return f"expected {_WORDS.get(message, message)}, got {got!r}"


_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_WORDS = {
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "list": "a list",
    "array": "a list",
    "tuple": "a list",
    "boolean, unable to interpret input": "true or false",
    "boolean": "true or false",
}


def _bounds(cls: type[BaseModel], loc: Sequence[Any]) -> str | None:
    """'a number in (0, 1]' from the field's JSON schema."""
    schema = _schema_at(cls, loc)
    if schema is None:
        return None
    options = [s for s in [schema, *schema.get("anyOf", [])] if s.get("type") in ("number", "integer")]
    if not options:
        return None
    s = options[0]
    what = "an integer" if s["type"] == "integer" else "a number"
    low = (
        f"({s['exclusiveMinimum']:g}"
        if "exclusiveMinimum" in s
        else f"[{s['minimum']:g}"
        if "minimum" in s
        else ""
    )
    high = (
        f"{s['exclusiveMaximum']:g})"
        if "exclusiveMaximum" in s
        else f"{s['maximum']:g}]"
        if "maximum" in s
        else ""
    )
    if low and high:
        return f"{what} in {low}, {high}"
    if low:
        return f"{what} {'>' if low[0] == '(' else '>='} {low[1:]}"
    return f"{what} {'<' if high[-1] == ')' else '<='} {high[:-1]}" if high else what


def _schema_at(cls: type[BaseModel], loc: Sequence[Any]) -> dict[str, Any] | None:
    whole = cls.model_json_schema()
    schema: dict[str, Any] = whole
    for step in loc:
        schema = _dereference(_member(schema, step), whole)
        if isinstance(step, str) and step in schema.get("properties", {}):
            schema = schema["properties"][step]
    return _dereference(_member(schema, None), whole)


def _member(schema: dict[str, Any], step: Any) -> dict[str, Any]:
    """Of a union the model that pydantic's location names, or the only one."""
    models = [option for option in schema.get("anyOf", []) if "$ref" in option]
    named = [option for option in models if option["$ref"].endswith(f"/{step}")]
    return (named or models or [schema])[0] if len(named or models) == 1 else schema


def _dereference(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref") or (schema.get("allOf") or [{}])[0].get("$ref")
    return whole["$defs"][reference.rsplit("/", 1)[1]] if reference else schema


def field_names(cls: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    whole = cls.model_json_schema()
    schema = _schema_at(cls, loc) or {}
    members = [_dereference(member, whole) for member in schema.get("anyOf", [])]  # of a union
    return [name for part in (schema, *members) for name in part.get("properties", {})]
