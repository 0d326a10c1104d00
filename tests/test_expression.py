"""Expressions: three-valued logic, types, and mistakes found before anything is evaluated."""

from __future__ import annotations

import contextlib
import math
import sqlite3

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataselect.core.expression import MAX_CHARS, ExpressionError, infer_types, is_true, parse

COLUMNS = {
    "n": pa.array([1.0, 2.0, None, math.nan, -3.0]),
    "m": pa.array([2, 2, 2, None, 0]),
    "s": pa.array(["en", "de", None, "", "Ünï"]),
    "b": pa.array([True, False, None, True, False]),
    "meta.x": pa.array([1, None, 3, None, 5]),
    "odd-name": pa.array(["a"] * 5),
}
TYPES = {"n": "number", "m": "number", "s": "string", "b": "bool", "meta.x": "number", "odd-name": "string"}


def rows(text):
    node = parse(text)
    assert infer_types(node, TYPES) == {}
    return np.flatnonzero(is_true(node, COLUMNS)).tolist()


@pytest.mark.parametrize(
    "text, kept",
    [
        ("n > 0", [0, 1]),
        ("not (n > 0)", [4]),  # not of null is null
        ("n > 0 or b", [0, 1, 3]),  # null or true is true
        ("n > 0 and b", [0]),
        ("not (n > 0 and s == 'zz')", [0, 1, 3, 4]),  # null and false is false
        ("n is null", [2, 3]),  # NaN is null
        ("n is not null and s is not null", [0, 1, 4]),
        ("n == m", [1]),
        ("n != m", [0, 4]),
        ("s in ('en', 'de')", [0, 1]),
        ("s not in ['en', 'de']", [3, 4]),
        ("0 < n <= 1", [0]),
        ("n / m > 0.6", [1]),  # division by zero is null
        ("log(n) <= 0", [0]),
        ("n * 2 + m == 4", [0]),
        ("-n > 2", [4]),
        ("abs(n) == 3", [4]),
        ("length(s) == 3", [4]),
        ("lower(s) == 'ünï'", [4]),
        ("contains(s, 'e')", [0, 1]),
        ("startswith(s, 'e') or endswith(s, 'e')", [0, 1]),
        (r"matches(s, '^[a-z]{2}$')", [0, 1]),
        ("b", [0, 3]),
        ("b == false", [1, 4]),
        ("meta.x >= 3", [2, 4]),
        ("field('odd-name') == 'a' and field('meta.x') < 2", [0]),
        ("s == 'it\\'s' or s > 'e'", [0, 4]),
        ("  n > 0\n  and b  ", [0]),
        ("s == '#'  or n == 1", [0]),
        ("n > 1 and n < 2 or n == -3", [4]),
    ],
)
def test_meaning(text, kept):
    assert rows(text) == kept


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the expression is empty"),
        ("1 < 2", "names no column"),
        ("n >", "at character 4: invalid syntax"),
        ("n = 1", "invalid syntax"),
        ("n > 1 # and b", "a comment would hide the rest"),
        ("(n > 1", "'(' was never closed"),
        ("n > 'a'", "at character 5: expected a number, but 'a' is a string"),
        ("s > 1", "expected a string, but 1.0 is a number"),
        ("n", "expected a bool, but 'n' is a number"),
        ("n + s > 1", "at character 5: expected a number, but 's' is a string"),
        ("b < true", "true and false have no order"),
        ("n == null", "a comparison with null is never true; write `is null`"),
        ("n + null > 1", "at character 5: null here makes the whole null"),
        ("b and null", "null here makes the whole null"),
        ("contains(null, 'x') or b", "null here makes the whole null"),
        ("s is 'en'", "`is` takes null only"),
        ("s in ()", "the list is empty"),
        ("s in ('a', 1)", "the list mixes"),
        ("s in ('a', null)", "no null"),
        ("s in n", "`in` takes constants"),
        ("n > 5 and n < 3", "no value of 'n' fits all conditions on it"),
        ("s == 'a' and b and s == 'b'", "no value of 's' fits"),
        ("n >= 5 and b and 5 > n", "no value of 'n' fits"),
        ("open('x')", "there is no function 'open'"),
        ("s.upper() == 'EN'", "there is no function"),
        ("__import__('os').system('x')", "there is no function"),
        ("(lambda: n)()", "there is no function"),
        ("[n for n in s]", "cannot be used here"),
        ("s[0] == 'e'", "cannot be used here"),
        ("f'{s}' == 'e'", "cannot be used here"),
        ("b'x' == s", "expected a number, a text in quotes"),
        ("n > 1e999", "the number is too large"),
        (f"n > 1{'0' * 400}", "the number is too large"),
        ("length(n) > 1", "expected a string, but 'n' is a number"),
        ("length(s, s) > 1", "length takes 1 value"),
        ("contains(s, s)", "the second value must be a text in quotes"),
        ("field(s) == 'a'", "expected a name in quotes"),
        ("n > 1 or " * 2000 + "b", f"more than {MAX_CHARS}"),
        ("not " * 80 + "b", "nested more than"),
        ("(" * 300 + "b" + ")" * 300, "nested"),
        ("n > 1\0", "null byte"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ExpressionError) as error:
        infer_types(parse(text), TYPES)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text, types",
    [
        ("a == 'x' and c > 1 and d", {"a": "string", "c": "number", "d": "bool"}),
        ("a == c and c == s", {"a": "string", "c": "string"}),
        ("a + c > 0", {"a": "number", "c": "number"}),
        ("a is null", {"a": "string"}),
        ("not a", {"a": "bool"}),
        ("a in (1, 2)", {"a": "number"}),
        ("lower(a) < 'x'", {"a": "string"}),
    ],
)
def test_types_of_fields_are_those_of_their_use(text, types):
    assert infer_types(parse(text), TYPES) == types


@pytest.mark.parametrize("text", ["a == c", "a < c and n > 1"])
def test_a_type_that_is_not_clear_must_be_declared(text):
    with pytest.raises(ExpressionError, match=r"'a' is not clear.*input\.fields"):
        infer_types(parse(text), TYPES)


def test_a_field_cannot_be_of_two_types():
    with pytest.raises(ExpressionError, match="expected a"):
        infer_types(parse("a == 'x' or a > 1"), TYPES)


def test_a_threshold_copied_from_a_float32_column_keeps_its_row():
    values = np.array([0.1, 0.7, 1 / 3], np.float32)
    columns = {"p": pa.array(values)}
    for value in values:
        assert is_true(parse(f"p >= {value}"), columns)[values == value].all()
        assert is_true(parse(f"p in ({value}, 5)"), columns)[values == value].all()


ATOMS = st.sampled_from(
    ["n > 1", "m == 2", "s = 'en'", "b", "n < m", "s is null", "n is not null", "s in ('de')"]
)
TREES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda e: f"not ({e})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_logic_is_that_of_sql(text):
    database = sqlite3.connect(":memory:")
    database.execute("create table t (n, m, s, b)")
    plain = [COLUMNS[name].to_pylist() for name in "nmsb"]
    plain[0] = [None if x is None or math.isnan(x) else x for x in plain[0]]
    database.executemany("insert into t values (?, ?, ?, ?)", zip(*plain, strict=True))
    wanted = [i - 1 for (i,) in database.execute(f"select rowid from t where {text}")]
    node = parse(text.replace("s = ", "s == ").replace("('de')", "('de',)"))
    with contextlib.suppress(ExpressionError):  # no value fits all conditions
        infer_types(node, TYPES)
    assert np.flatnonzero(is_true(node, COLUMNS)).tolist() == wanted
    database.close()
