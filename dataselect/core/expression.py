"""Expressions over columns, `n_words >= 50 and lang == 'en'`: parsed, type-checked, evaluated by Arrow.

The syntax is Python's, read by Python's own parser; of its tree only what is listed here is taken: no
attribute access but dotted names, no call but FUNCTIONS, so an expression can reach nothing but columns.

Null means what it means in SQL (three-valued logic): arithmetic, comparison and functions of a null are
null; `false and null` is false, `true or null` is true, every other and/or/not of a null is null. A number
that is NaN or infinite, also as the result of a division by zero or a logarithm, is null. Numbers are
float64; a float32 column is compared with a constant as float32, so that a threshold copied from the
column keeps the row it was copied from. Strings are ordered by code points.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CHARS = 10_000
MAX_DEPTH = 60

ValueType = str
"""'number', 'string' or 'bool'."""


@dataclass(frozen=True)
class Function:
    """What may be called."""

    takes: tuple[ValueType, ...]
    gives: ValueType
    constant_last: bool = False
    """Whether the last argument must be a text in quotes."""


FUNCTIONS: dict[str, Function] = {
    "abs": Function(("number",), "number"),
    "log": Function(("number",), "number"),
    "length": Function(("string",), "number"),
    "lower": Function(("string",), "string"),
    "contains": Function(("string", "string"), "bool", constant_last=True),
    "startswith": Function(("string", "string"), "bool", constant_last=True),
    "endswith": Function(("string", "string"), "bool", constant_last=True),
    "matches": Function(("string", "string"), "bool", constant_last=True),
}
"""Natural log; length in code points; `matches` finds an RE2 regular expression anywhere in the string."""

_COMPARISONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_WORDS = {"null": None, "none": None, "true": True, "false": False}
_SYNTAX = "the syntax is Python's: and, or, not, ==, !=, <, in ('a', 'b'), is null"


class ExpressionError(ValueError):
    """What is wrong with an expression, and where."""

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message if at is None else f"at character {at + 1}: {message}")


@dataclass(frozen=True)
class Node:
    """A part of an expression."""

    op: str
    """'column', 'constant', 'and', 'or', 'not', a comparison, 'in', 'is null', arithmetic, or a function."""
    args: tuple[Node, ...] = ()
    value: Any = None
    """Name of a column, a constant, or the constants right of `in`."""
    at: int = 0
    """Its first character in the text."""


def parse(text: str) -> Node:
    """The tree of an expression; ExpressionError where it is none, says nothing or nests too deeply."""
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"the expression has {len(text)} characters, more than {MAX_CHARS}")
    flat = text.replace("\n", " ").replace("\r", " ").replace("\t", " ")
    indent = len(flat) - len(flat.lstrip())
    flat = flat.strip()
    if not flat:
        raise ExpressionError("the expression is empty")
    try:
        _refuse_comments(flat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of '\d' in regular expressions
            body = ast.parse(flat, mode="eval").body
    except SyntaxError as error:
        at = (error.offset or len(flat) + 1) - 1 + indent  # 0 at the end of the text
        raise ExpressionError(f"{error.msg}; {_SYNTAX}", at) from None
    except (RecursionError, MemoryError):
        raise ExpressionError("the expression is nested too deeply") from None
    except ValueError as error:
        raise ExpressionError(str(error)) from None
    node = _Builder(flat, indent).build(body, 0)
    if not list(columns_of(node)):
        raise ExpressionError("names no column, so it is the same for every row")
    return node


def _refuse_comments(text: str) -> None:
    if "#" not in text:
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            raise SyntaxError("a comment would hide the rest", ("", 1, token.start[1] + 1, text))


def columns_of(node: Node) -> Iterator[str]:
    """Names of the columns in it, with repetitions."""
    if node.op == "column":
        yield node.value
    for arg in node.args:
        yield from columns_of(arg)


class _Builder:
    """From Python's tree to ours."""

    def __init__(self, text: str, indent: int) -> None:
        self._bytes, self._indent = text.encode(), indent

    def build(self, node: ast.AST, depth: int) -> Node:
        at = self._at(node)
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested more than {MAX_DEPTH} deep", at)
        if isinstance(node, ast.BoolOp):
            op = "and" if isinstance(node.op, ast.And) else "or"
            return Node(op, tuple(self.build(value, depth + 1) for value in node.values), at=at)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            return self._unary(node, depth, at)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            pair = (self.build(node.left, depth + 1), self.build(node.right, depth + 1))
            return Node(_ARITHMETIC[type(node.op)], pair, at=at)
        if isinstance(node, ast.Compare):
            return self._comparisons(node, depth, at)
        if isinstance(node, ast.Constant):
            return self._constant(node.value, at)
        if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
            return Node("constant", value=_WORDS[node.id.lower()], at=at)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return Node("column", value=self._dotted(node), at=at)
        if isinstance(node, ast.Call):
            return self._call(node, depth, at)
        raise ExpressionError(f"cannot be used here; {_SYNTAX}", at)

    def _at(self, node: ast.AST) -> int:
        return len(self._bytes[: getattr(node, "col_offset", 0)].decode()) + self._indent

    def _unary(self, node: ast.UnaryOp, depth: int, at: int) -> Node:
        inner = self.build(node.operand, depth + 1)
        if isinstance(node.op, ast.Not):
            return Node("not", (inner,), at=at)
        if inner.op == "constant" and type(inner.value) is float:
            return Node("constant", value=-inner.value, at=at)
        return Node("negative", (inner,), at=at)

    def _constant(self, value: object, at: int) -> Node:
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise ExpressionError("the number is too large", at) from None
        if not (value is None or isinstance(value, (bool, float, str))):
            raise ExpressionError("expected a number, a text in quotes, true, false or null", at)
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise ExpressionError("the number is too large", at)
        return Node("constant", value=value, at=at)

    def _dotted(self, node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Name):
            return node.id
        raise ExpressionError("expected a name such as meta.lang", self._at(node))

    def _call(self, node: ast.Call, depth: int, at: int) -> Node:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        known = ", ".join([*FUNCTIONS, "field"])
        if name == "field":
            value = node.args[0] if len(node.args) == 1 and not node.keywords else None
            if not (isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value):
                raise ExpressionError("expected a name in quotes: field('my-column')", at)
            return Node("column", value=value.value, at=at)
        if name not in FUNCTIONS:
            raise ExpressionError(f"there is no function '{name}'; there are {known}", at)
        n_args = len(FUNCTIONS[name].takes)
        if len(node.args) != n_args or node.keywords:
            raise ExpressionError(f"{name} takes {n_args} value{'s' * (n_args > 1)}", at)
        args = tuple(self.build(arg, depth + 1) for arg in node.args)
        if FUNCTIONS[name].constant_last and not (args[-1].op == "constant" and type(args[-1].value) is str):
            raise ExpressionError(f"{name}: the second value must be a text in quotes", at)
        return Node(name, args, at=at)

    def _comparisons(self, node: ast.Compare, depth: int, at: int) -> Node:
        """`a < b < c` is `a < b and b < c`."""
        parts, left = [], node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            parts.append(self._comparison(op, left, right, depth, at))
            left = right
        return parts[0] if len(parts) == 1 else Node("and", tuple(parts), at=at)

    def _comparison(self, op: ast.cmpop, left: ast.AST, right: ast.AST, depth: int, at: int) -> Node:
        first = self.build(left, depth + 1)
        if isinstance(op, (ast.In, ast.NotIn)):
            found = Node("in", (first,), self._members(right), at)
            return found if isinstance(op, ast.In) else Node("not", (found,), at=at)
        second = self.build(right, depth + 1)
        if isinstance(op, (ast.Is, ast.IsNot)):
            if second.op != "constant" or second.value is not None:
                raise ExpressionError("`is` takes null only; compare with ==", second.at)
            found = Node("is null", (first,), at=at)
            return found if isinstance(op, ast.Is) else Node("not", (found,), at=at)
        for side in (first, second):
            if side.op == "constant" and side.value is None:
                raise ExpressionError("a comparison with null is never true; write `is null`", side.at)
        return Node(_COMPARISONS[type(op)], (first, second), at=at)

    def _members(self, node: ast.AST) -> tuple[Any, ...]:
        at = self._at(node)
        if not isinstance(node, (ast.Tuple, ast.List)):
            raise ExpressionError("`in` takes constants in brackets: in ('a', 'b')", at)
        members = tuple(self.build(item, 0) for item in node.elts)
        if not members:
            raise ExpressionError("the list is empty, so nothing is in it", at)
        for member in members:
            if member.op != "constant" or member.value is None:
                raise ExpressionError("`in` takes constants, and no null", member.at)
        if len({type(member.value) for member in members}) > 1:
            raise ExpressionError("the list mixes numbers, texts or booleans", at)
        return tuple(member.value for member in members)


# Types ------------------------------------------------------------------------------------------------


def infer_types(node: Node, known: Mapping[str, ValueType]) -> dict[str, ValueType]:
    """Types of the columns that are not in `known`, from how they are used; a name used only with
    `is null` is a string. ExpressionError where types don't fit or one is not clear.
    """
    found: dict[str, ValueType] = {}
    while True:
        n_found = len(found)
        _Types(known, found).expect(node, "bool")
        if len(found) == n_found:
            break
    for name in columns_of(node):
        if name not in known and name not in found:
            if _only_null_tests(node, name):
                found[name] = "string"
            else:
                raise ExpressionError(
                    f"the type of '{name}' is not clear from the expression; declare it under input.fields"
                )
    _refuse_contradictions(node)
    return found


def _only_null_tests(node: Node, name: str) -> bool:
    if node.op == "is null" and node.args[0].op == "column":
        return True
    return not (node.op == "column" and node.value == name) and all(
        _only_null_tests(arg, name) for arg in node.args
    )


class _Types:
    """One pass over a tree; binds columns of unknown type where a type is expected of them."""

    def __init__(self, known: Mapping[str, ValueType], found: dict[str, ValueType]) -> None:
        self._known, self._found = known, found

    def expect(self, node: Node, wanted: ValueType) -> None:
        if node.op == "constant" and node.value is None:
            raise ExpressionError("null here makes the whole null, or says nothing; write `is null`", node.at)
        kind = self.of(node)
        if kind is None and node.op == "column":
            self._found[node.value] = wanted
        elif kind not in (None, wanted):
            raise ExpressionError(f"expected a {wanted}, but {_shown(node)} is a {kind}", node.at)

    def of(self, node: Node) -> ValueType | None:
        """The type, or None where it is not known yet."""
        if node.op == "column":
            return self._known.get(node.value) or self._found.get(node.value)
        if node.op == "constant":
            return None if node.value is None else _type_of(node.value)
        if node.op in ("and", "or", "not"):
            for arg in node.args:
                self.expect(arg, "bool")
            return "bool"
        if node.op == "is null":
            self.of(node.args[0])
            return "bool"
        if node.op == "in":
            self.expect(node.args[0], _type_of(node.value[0]))
            return "bool"
        if node.op in FUNCTIONS:
            for arg, wanted in zip(node.args, FUNCTIONS[node.op].takes, strict=True):
                self.expect(arg, wanted)
            return FUNCTIONS[node.op].gives
        if node.op in _COMPARISONS.values():
            return self._compare(node)
        for arg in node.args:
            self.expect(arg, "number")
        return "number"

    def _compare(self, node: Node) -> ValueType:
        left, right = (self.of(arg) for arg in node.args)
        if left is not None:
            self.expect(node.args[1], left)
        elif right is not None:
            self.expect(node.args[0], right)
        if "bool" in (left, right) and node.op not in ("==", "!="):
            raise ExpressionError("true and false have no order", node.at)
        return "bool"


def _type_of(value: object) -> ValueType:
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, float) else "string"


def _shown(node: Node) -> str:
    if node.op == "column":
        return f"'{node.value}'"
    return repr(node.value) if node.op == "constant" else f"what `{node.op}` gives"


def _refuse_contradictions(node: Node) -> None:
    """ExpressionError where bounds on one column, joined by `and`, leave no value."""
    bounds: dict[str, list[Node]] = {}
    for term in node.args if node.op == "and" else ():
        for part in term.args if term.op == "and" else (term,):
            if part.op in _COMPARISONS.values() and part.op != "!=" and _column_and_constant(part):
                bounds.setdefault(_column_and_constant(part)[0], []).append(part)  # type: ignore[index]
    for name, parts in bounds.items():
        tests = [_column_and_constant(part) for part in parts]
        points = [test[2] for test in tests if test is not None]
        # A set of intervals is empty where neither a bound nor a point between two bounds is in all.
        if len({type(point) for point in points}) > 1 or len(points) < 2:
            continue
        if not any(
            all(_holds(point, side, test[1], test[2]) for test in tests if test)
            for point in points
            for side in (-1, 0, 1)
        ):
            raise ExpressionError(f"no value of '{name}' fits all conditions on it", parts[0].at)


_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}


def _column_and_constant(node: Node) -> tuple[str, str, Any] | None:
    left, right = node.args
    if left.op == "column" and right.op == "constant":
        return left.value, node.op, right.value
    if right.op == "column" and left.op == "constant":
        return right.value, _MIRRORED[node.op], left.value
    return None


def _holds(point: Any, side: int, op: str, limit: Any) -> bool:
    """Whether a value at `point`, or just below (-1) or above (1) it, fits `op limit`."""
    order = (point > limit) - (point < limit) or side
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "==": order == 0}[op]


# Evaluation -------------------------------------------------------------------------------------------


def is_true(node: Node, columns: Mapping[str, Any]) -> Any:
    """bool[n_rows] as a numpy array: where the expression is true, neither false nor null.

    columns: Arrow arrays of equal length, of the types that `infer_types` agreed to.
    """
    import pyarrow.compute as pc

    return pc.fill_null(_Evaluation(columns).of(node), False).to_numpy(zero_copy_only=False)


def check_patterns(node: Node) -> None:
    """ExpressionError where a regular expression is none; needs Arrow."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if node.op == "matches":
        try:
            pc.match_substring_regex(pa.array([""]), node.args[1].value)
        except pa.ArrowInvalid as error:
            raise ExpressionError(str(error).splitlines()[0], node.args[1].at) from None
    for arg in node.args:
        check_patterns(arg)


class _Evaluation:
    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns

    def of(self, node: Node) -> Any:
        """An Arrow array, or a scalar for a constant."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if node.op == "column":
            return _plain(self._columns[node.value])
        if node.op == "constant":
            kind = {"number": pa.float64(), "string": pa.large_string(), "bool": pa.bool_()}
            return pa.scalar(node.value, pa.null() if node.value is None else kind[_type_of(node.value)])
        if node.op in _COMPARISONS.values():
            return self._compare(node)
        if node.op == "in":
            return self._member(node)
        args = [self.of(arg) for arg in node.args]
        if node.op in ("and", "or"):
            combine = pc.and_kleene if node.op == "and" else pc.or_kleene
            return _folded(combine, [_as_bool(arg) for arg in args])
        if node.op in FUNCTIONS and FUNCTIONS[node.op].constant_last:
            return _searches()[node.op](args[0], node.args[1].value)
        return _finite(_operations()[node.op](*args))

    def _compare(self, node: Node) -> Any:
        import numpy as np
        import pyarrow as pa

        left, right = node.args
        values = [self.of(arg) for arg in node.args]
        for i, (column, constant) in enumerate([(left, right), (right, left)]):
            single = column.op == "column" and self._columns[column.value].type == pa.float32()
            if single and constant.op == "constant":
                values[1 - i] = pa.scalar(float(np.float32(constant.value)))
        return _operations()[node.op](*values)

    def _member(self, node: Node) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        values, members = self.of(node.args[0]), node.value
        column = node.args[0]
        if column.op == "column" and self._columns[column.value].type == pa.float32():
            members = pa.array(members, pa.float32()).cast(pa.float64())
        else:
            members = pa.array(members, values.type)
        found = pc.is_in(values, value_set=members)
        return pc.if_else(pc.is_valid(values), found, pa.scalar(None, pa.bool_()))


def _plain(array: Any) -> Any:
    """A column as float64 without NaN, large_string or bool."""
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pt.is_integer(array.type) or pt.is_floating(array.type):
        return _finite(array.cast(pa.float64(), safe=False))
    return array if pt.is_boolean(array.type) else array.cast(pa.large_string())


def _finite(values: Any) -> Any:
    """NaN and infinities as null."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    if not pt.is_floating(values.type):
        return values
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))


def _as_bool(values: Any) -> Any:
    import pyarrow as pa

    return values.cast(pa.bool_()) if pa.types.is_null(values.type) else values


def _folded(combine: Callable[[Any, Any], Any], values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = combine(total, value)
    return total


def _searches() -> dict[str, Any]:
    import pyarrow.compute as pc

    return {
        "contains": pc.match_substring,
        "startswith": pc.starts_with,
        "endswith": pc.ends_with,
        "matches": pc.match_substring_regex,
    }


def _operations() -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    return {
        "==": pc.equal,
        "!=": pc.not_equal,
        "<": pc.less,
        "<=": pc.less_equal,
        ">": pc.greater,
        ">=": pc.greater_equal,
        "+": pc.add,
        "-": pc.subtract,
        "*": pc.multiply,
        "/": pc.divide,
        "negative": pc.negate,
        "abs": pc.abs,
        "log": pc.ln,
        "length": lambda s: pc.utf8_length(s).cast(pa.float64()),
        "lower": pc.utf8_lower,
        "not": lambda x: pc.invert(_as_bool(x)),
        "is null": pc.is_null,
    }
