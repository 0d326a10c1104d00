"""Sizes and shares as people write them: 64MiB, 10GB, 1%."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_UNITS = {"": 1, "b": 1}
_UNITS |= {unit + end: 1000**i for i, unit in enumerate("kmgt", 1) for end in ("", "b")}
_UNITS |= {unit + "ib": 1024**i for i, unit in enumerate("kmgt", 1)}


def parse_bytes(value: object) -> object:
    """'64MiB' -> 67108864; numbers pass through. ValueError where it is neither."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
    if not match or match[2].lower() not in _UNITS:
        raise ValueError("expected a number of bytes such as 500000, 64MiB or 10GB")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def parse_share(value: object) -> object:
    """'0.1%' -> 0.001; numbers pass through. ValueError where it is neither."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE]-?\d+)?)\s*(%?)\s*", value)
    if not match:
        raise ValueError("expected a share such as 0.001 or 0.1%")
    return float(match[1]) / (100 if match[2] else 1)


def parse_limit(value: object) -> object:
    """A share as `parse_share`, or from 1 up a number; '100%', which would be either, is a ValueError."""
    limit = parse_share(value)
    if isinstance(value, str) and "%" in value and isinstance(limit, float) and limit >= 1:
        raise ValueError(f"expected a share below 100%, or a number of rows, got '{value}'")
    return limit


_TEXT_OR_NUMBER = {"anyOf": [{"type": "number"}, {"type": "string"}]}
ByteSize = Annotated[int, BeforeValidator(parse_bytes), WithJsonSchema(_TEXT_OR_NUMBER)]
"""An int field that also takes '64MiB'."""
Share = Annotated[float, BeforeValidator(parse_share), WithJsonSchema(_TEXT_OR_NUMBER)]
"""A float field that also takes '0.1%'."""
Limit = Annotated[float, BeforeValidator(parse_limit), WithJsonSchema(_TEXT_OR_NUMBER)]
"""A share below 1, also as '0.1%', or from 1 up a number."""
