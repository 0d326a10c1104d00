"""The recipe: one YAML file, checked strictly before any work."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dataselect import stages as stage_registry
from dataselect.core.errors import RecipeError
from dataselect.core.sizes import ByteSize, Share, parse_share
from dataselect.stages.base import Stage

RESERVED_COLUMNS = frozenset({"shard", "part", "row", "id", "stage", "reason", "copies", "n_bytes", "n_words"})
"""Names that `decisions/` uses itself."""

ColumnType = Literal["string", "int64", "float64", "bool"]
_STRICT = ConfigDict(frozen=True, extra="forbid")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class InputSpec(BaseModel):
    """What is read."""

    model_config = _STRICT
    shards: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        min_length=1, description="glob patterns of JSONL and Parquet shards, relative to the recipe; ** for any depth"
    )
    text: str | list[str] = Field("text", description="a column, a dotted path, or columns joined by a newline")
    id: str | None = Field(None, description="column with the document's id; random draws then depend on it")
    max_bad_rows: Annotated[float, BeforeValidator(parse_share)] = Field(
        0.001, ge=0, description="a share such as 0.1% (never less than 10 rows), or from 1 up a number of rows"
    )
    max_row_bytes: ByteSize = Field(64 << 20, ge=1, description="longer rows are quarantined")
    on_bad_shard: Literal["stop", "quarantine"] = Field("stop", description="what a truncated or corrupt shard does")
    piece_bytes: ByteSize = Field(
        128 << 20, ge=1024, description="about how much text a task reads; changes no selected row"
    )
    batch_rows: int = Field(16_384, ge=1, description="most rows in a batch; changes nothing but speed and memory")

    def bad_rows_allowed(self, n_rows: int) -> int:
        """Number of quarantined rows from which the run fails, for n_rows rows read."""
        return int(self.max_bad_rows) if self.max_bad_rows >= 1 else max(10, int(self.max_bad_rows * n_rows))


class OutputSpec(BaseModel):
    """What is written."""

    model_config = _STRICT
    folder: str = Field(description="output folder; holds generations, `current` and manifest.json")
    format: Literal["same", "jsonl", "jsonl.gz", "jsonl.zst", "parquet"] = Field("same", description="of the shards")
    add: list[str] = Field(default_factory=list, description="score columns added to each kept row")
    columns: dict[str, ColumnType] = Field(
        default_factory=dict, description="input fields that a conversion from JSONL to Parquet turns into columns"
    )
    dropped: bool = Field(False, description="also write dropped rows, with stage and reason")


class Expect(BaseModel):
    """Guards: where the result is outside, nothing is published and the exit code is 3."""

    model_config = _STRICT
    min_rows: int | None = Field(None, ge=0, description="fewest rows written")
    max_rows: int | None = Field(None, ge=0, description="most rows written")
    min_kept: Share | None = Field(None, ge=0, le=1, description="least share of rows kept")
    max_kept: Share | None = Field(None, ge=0, le=1, description="largest share of rows kept")


class _Document(BaseModel):
    """The whole file, stages still unchecked."""

    model_config = _STRICT
    input: InputSpec
    stages: list[dict[str, Any]] = Field(min_length=1)
    output: OutputSpec
    work: str = Field(".dataselect", description="the store of intermediate results; may be deleted at any time")
    expect: Expect = Field(default_factory=Expect)


class StageSpec(BaseModel):
    """One checked stage and how to make it again in another process."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    use: str
    params: dict[str, Any]
    folder: str
    stage: Stage


class Recipe(BaseModel):
    """A checked recipe; all paths absolute."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    path: Path
    input: InputSpec
    stages: list[StageSpec]
    left_out: list[str]
    """Optional stages that are not run, each with the reason."""
    output: OutputSpec
    work: str
    expect: Expect


def load_recipe(path: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """Read, fill (`$VAR`, `--set a.b=value`) and check a recipe; RecipeError in one line per mistake."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        lines = dict(_lines(yaml.compose(text)))
        raw = yaml.safe_load(text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected the sections input, stages and output")
    for assignment in sets:
        _assign(raw, assignment)
    return _Checker(path, lines).check(_expand(raw, path))


class _Checker:
    """Collects mistakes with their place in the file."""

    def __init__(self, path: Path, lines: Mapping[str, int]) -> None:
        self._path, self._lines = path, lines
        self._mistakes: list[str] = []
        self._left_out: list[str] = []

    def check(self, raw: dict[str, Any]) -> Recipe:
        document = self._model(_Document, raw, "")
        folder = self._path.resolve().parent
        stages = [self._stage(item, i, folder) for i, item in enumerate(_stage_list(raw))]
        specs = [spec for spec in stages if spec is not None]
        self._check_columns(specs, document)
        if self._mistakes or document is None:
            raise RecipeError("\n".join(self._mistakes))
        output = document.output.model_copy(update={"folder": _absolute(document.output.folder, folder)})
        patterns = [_absolute(pattern, folder) for pattern in document.input.shards]
        return Recipe(
            path=self._path,
            input=document.input.model_copy(update={"shards": patterns}),
            stages=specs,
            left_out=self._left_out,
            output=output,
            work=_absolute(document.work, folder),
            expect=document.expect,
        )

    def _mistake(self, place: str, message: str) -> None:
        line = next((self._lines[p] for p in _prefixes(place) if p in self._lines), None)
        where = self._path if line is None else f"{self._path}:{line}"
        self._mistakes.append(f"{where}: {place}: {message}" if place else f"{where}: {message}")

    def _model(self, cls: type[Any], values: dict[str, Any], place: str) -> Any:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            for item in error.errors():
                self._mistake(join_place(place, item["loc"]), explain(item, cls))
            return None

    def _stage(self, item: dict[str, Any], index: int, folder: Path) -> StageSpec | None:
        place = f"stages[{index}]"
        use = item.get("use")
        if not isinstance(use, str):
            self._mistake(place, "expected `use: <stage name>`; `dataselect stages` lists them")
            return None
        try:
            cls = stage_registry.load(use, folder)
        except RecipeError as error:
            self._mistake(f"{place}.use", str(error))
            return None
        params = {key: value for key, value in item.items() if key != "use"}
        stage = self._model(cls, params, place)
        if stage is None:
            return None
        paths = {name: _absolute(path, folder) for name, path in stage.file_fields().items()}
        missing = next((p for p in paths.values() if "://" not in p and not Path(p).is_file()), None)
        if missing and stage.optional:
            self._left_out.append(f"{use}: left out, because {missing} does not exist (the stage is `optional`)")
            return None
        if missing:
            name = next(name for name, p in paths.items() if p == missing)
            self._mistake(f"{place}.{name}", f"file not found: {missing}")
            return None
        params |= paths
        return StageSpec(use=use, params=params, folder=str(folder), stage=cls.model_validate(params))

    def _check_columns(self, specs: list[StageSpec], document: _Document | None) -> None:
        known: dict[str, str] = {}
        for spec in specs:
            place = f"stage {spec.use}"
            for name in spec.stage.input_columns():
                if name not in known:
                    self._mistake(place, f"no earlier stage adds the column '{name}'{_near(name, known)}")
            for name in spec.stage.output_columns():
                if name in known or name in RESERVED_COLUMNS:
                    taken = f"already the column of {known[name]}" if name in known else "reserved"
                    self._mistake(place, f"as: '{name}' is {taken}; name another with `as:`")
                known[name] = spec.use
        for name in document.output.add if document else ():
            if name not in known:
                self._mistake("output.add", f"no stage adds the column '{name}'{_near(name, known)}")


def explain(error: Any, cls: type[BaseModel]) -> str:
    """A pydantic error in our words: what was expected, what was there."""
    kind, got = error["type"], error.get("input")
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        names = _field_names(cls, error["loc"][:-1])
        return f"unknown key '{name}'{_near(name, names) or ' (known: ' + ', '.join(names) + ')'}"
    if kind == "missing":
        return "missing; it has no default"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    bounds = _bounds(cls, error["loc"])
    if bounds:
        return f"expected {bounds}, got {got!r}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"expected {message}, got {got!r}"


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
    low = f"({s['exclusiveMinimum']:g}" if "exclusiveMinimum" in s else f"[{s['minimum']:g}" if "minimum" in s else ""
    high = f"{s['exclusiveMaximum']:g})" if "exclusiveMaximum" in s else f"{s['maximum']:g}]" if "maximum" in s else ""
    if low and high:
        return f"{what} in {low}, {high}"
    if low:
        return f"{what} {'>' if low[0] == '(' else '>='} {low[1:]}"
    return f"{what} {'<' if high[-1] == ')' else '<='} {high[:-1]}" if high else what


def _schema_at(cls: type[BaseModel], loc: Sequence[Any]) -> dict[str, Any] | None:
    whole = cls.model_json_schema()
    schema: dict[str, Any] = whole
    for step in loc:
        schema = _dereference(schema, whole)
        if isinstance(step, str) and step in schema.get("properties", {}):
            schema = schema["properties"][step]
    return _dereference(schema, whole)


def _dereference(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref") or (schema.get("allOf") or [{}])[0].get("$ref")
    return whole["$defs"][reference.rsplit("/", 1)[1]] if reference else schema


def _field_names(cls: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    schema = _schema_at(cls, loc)
    return list((schema or {}).get("properties", {}))


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f". Did you mean '{near[0]}'?" if near else ""


def join_place(place: str, loc: Sequence[Any]) -> str:
    """('stages', 3, 'threshold') -> 'stages[3].threshold'."""
    for step in loc:
        if isinstance(step, int):
            place += f"[{step}]"
        elif re.fullmatch(r"[\w.-]+", str(step)):  # pydantic adds names of union members: not in the file
            place += f".{step}" if place else str(step)
    return place


def _prefixes(place: str) -> Iterator[str]:
    while place:
        yield place
        place = re.sub(r"(\.[^.\[\]]+|\[\d+\])$", "", place) if re.search(r"[.\[]", place) else ""


def _lines(node: Any, place: str = "") -> Iterator[tuple[str, int]]:
    """(place, line from 1) of every key and item of a composed YAML file."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = join_place(place, [str(key.value)])
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{place}[{i}]", value.start_mark.line + 1
            yield from _lines(value, f"{place}[{i}]")


def _stage_list(raw: dict[str, Any]) -> list[dict[str, Any]]:
    stages = raw.get("stages")
    return [s for s in stages if isinstance(s, dict)] if isinstance(stages, list) else []


def _absolute(path: str, folder: Path) -> str:
    if "://" in path:
        return path
    return os.path.normpath(folder / Path(path).expanduser())


def _expand(value: Any, path: Path) -> Any:
    """Fill $VAR and ${VAR} in every string; RecipeError for one that is not set."""
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise RecipeError(f"{path}: the environment variable {name} is not set")
        return os.environ[name]

    return re.sub(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", fill, value)


def _assign(raw: dict[str, Any], assignment: str) -> None:
    """Apply one `a.b=value`; list items by number: stages.3.threshold=0.7 or stages[3].threshold=0.7."""
    name, separator, text = assignment.partition("=")
    if not separator or not name:
        raise RecipeError(f"--set {assignment}: expected a.b=value")
    *parents, last = re.sub(r"\[(\d+)\]", r".\1", name).split(".")
    target: Any = raw
    try:
        for step in parents:
            target = target[int(step)] if isinstance(target, list) else target.setdefault(step, {})
        target[int(last) if isinstance(target, list) else last] = yaml.safe_load(text)
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {assignment}: the recipe has no such place") from error


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, with the parameters of every stage."""
    schema = _Document.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    options = []
    for use, cls in stage_registry.registry().items():
        stage = cls.model_json_schema()
        definitions |= stage.pop("$defs", {})
        stage["properties"] = {"use": {"const": use}, **stage["properties"]}
        stage["required"] = ["use", *stage.get("required", [])]
        definitions[cls.__name__] = stage
        options.append({"$ref": f"#/$defs/{cls.__name__}"})
    own = {"type": "object", "properties": {"use": {"type": "string", "pattern": r"\.py:"}}, "required": ["use"]}
    schema["properties"]["stages"]["items"] = {"anyOf": [*options, own]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "dataselect recipe"
    return schema
