"""Dates and times of a column as numbers that sort like them, the same on every machine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ISO = (
    r"^\s*(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"(?: ?(?:[Zz]|UTC|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?))?)?)?)?\s*$"
)
_NUMBER = r"^\s*-?\d{1,300}(?:\.\d+)?\s*$"
_DAY = np.datetime64("1970-01-01", "D")


def instants(values: pa.Array) -> np.ndarray:
    """Microseconds since 1970 in UTC, float64[n]: NaN where it is neither date nor number.

    values: numbers, taken for seconds; or strings. These are ISO 8601 dates in the extended format, from a
    year (2024, its first moment) to a time with a fraction (cut after microseconds) and an offset, of any
    year from 0001 to 9999; without an offset they are UTC, and a space may stand for the T. Other strings are
    numbers of seconds where they look like one. float64 holds microseconds exactly from 1685 to 2255, and
    rounds others by IEEE 754, so that no order depends on the machine.
    """
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        seconds: np.ndarray = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return seconds * 1e6
    out = _numbers(values)
    parts = pc.extract_regex(values, _ISO)
    is_date = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    out[is_date] = _iso_instants(parts.filter(pa.array(is_date)))
    return out


def _numbers(values: pa.Array) -> np.ndarray:
    looks = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
    numbers = pc.utf8_trim_whitespace(pc.if_else(looks, values, pa.scalar(None, values.type)))
    seconds: np.ndarray = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
    out: np.ndarray = seconds * 1e6
    return out


def _iso_instants(parts: pa.StructArray) -> np.ndarray:
    """float64[n]; NaN where a month, day, hour, minute, second or offset does not exist."""

    def number(name: str, default: int) -> np.ndarray:
        digits = pc.struct_field(parts, name)
        given = pc.if_else(pc.equal(digits, ""), pa.scalar(str(default), digits.type), digits)
        out: np.ndarray = given.cast(pa.int64()).to_numpy()
        return out

    year, month, day = number("year", 0), number("month", 1), number("day", 1)
    hour, minute, second = number("hour", 0), number("minute", 0), number("second", 0)
    zone_hour, zone_minute = number("zone_hour", 0), number("zone_minute", 0)
    fraction = pc.utf8_slice_codeunits(
        pc.utf8_rpad(pc.struct_field(parts, "fraction"), 6, padding="0"), 0, 6
    ).cast(pa.int64())
    exists = (year > 0) & (month >= 1) & (month <= 12)
    months = ((year - 1970) * 12 + np.where(exists, month, 1) - 1).astype("datetime64[M]")
    first = (months.astype("datetime64[D]") - _DAY).astype(np.int64)
    n_days = ((months + 1).astype("datetime64[D]") - _DAY).astype(np.int64) - first
    exists &= (day >= 1) & (day <= n_days) & (hour < 24) & (minute < 60) & (second <= 60)
    exists &= (zone_hour < 24) & (zone_minute < 60)
    behind = pc.equal(pc.struct_field(parts, "sign"), "-").to_numpy(zero_copy_only=False)
    offset = np.where(behind, -1, 1) * (zone_hour * 60 + zone_minute)
    seconds = (first + day - 1) * 86_400 + (hour * 60 + minute - offset) * 60 + second
    return np.where(exists, (seconds * 1_000_000 + fraction.to_numpy()).astype(np.float64), np.nan)
