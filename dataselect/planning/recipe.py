"""The recipe: one YAML file, checked strictly before any work."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from dataselect import stages as stage_registry
from dataselect.core.errors import RecipeError
from dataselect.core.names import nearest
from dataselect.core.sizes import ByteSize, Limit, Share
from dataselect.io.batch import TextSpec, id_path
from dataselect.io.fields import check_apart
from dataselect.io.store import is_file, without_scheme
from dataselect.planning.fields import FieldUse
from dataselect.planning.mistakes import explain, field_names, join_place, joined, place_of
from dataselect.stages.base import BASE_COLUMNS, ORDINAL, DedupStage, SelectStage, Stage, with_leaves

RESERVED_COLUMNS = frozenset(
    {"shard", "part", "row", "id", "stage", "reason", "copies", "expected", "draw", "n_bytes", "n_words"}
    | {f"duplicate_of_{what}" for what in ("shard", "part", "row", "source", "id")}
    | {"similarity", "heldout"}
    | {"text", "_row", "_dropped_by", "_reason"}
)
"""Names that `decisions/` and the output shards use themselves."""

FieldType = Literal["number", "string", "bool"]
ColumnType = Literal["string", "int64", "float64", "bool"]
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


_TEXT_OR_TEXTS = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)


class InputSpec(BaseModel):
    """What is read."""

    model_config = _STRICT
    shards: Annotated[list[str], Field(min_length=1), BeforeValidator(_as_list), _TEXT_OR_TEXTS] = Field(
        description="glob patterns (** for any depth) of shards, or of folders that `datasets` saved"
    )
    text: str | list[str] = Field(
        "text", description="a column, a dotted path, or columns joined by a newline"
    )
    id: str | None = Field(None, description="column with the document's id; random draws then depend on it")
    fields: dict[str, FieldType] = Field(
        default_factory=dict,
        description="types of input fields (number, string, bool) where their use in a stage leaves them "
        "open, or where they are too rare for the first rows to show them",
    )
    max_bad_rows: Limit = Field(
        0.001,
        ge=0,
        description="a share such as 0.1% (never less than 10 rows), or from 1 up a number of rows",
    )
    max_row_bytes: ByteSize = Field(64 << 20, ge=1, le=1 << 30, description="longer rows are quarantined")
    on_bad_shard: Literal["stop", "quarantine"] = Field(
        "stop", description="what a truncated or corrupt shard does"
    )
    piece_bytes: ByteSize = Field(
        128 << 20, ge=1024, description="about how much text a task reads; changes no selected row"
    )
    batch_rows: int = Field(
        16_384, ge=1, description="most rows in a batch; changes nothing but speed and memory"
    )

    @model_validator(mode="after")
    def _paths_are_apart(self) -> InputSpec:
        field = "text"
        try:
            text = TextSpec.of(self.text)
            field = "id"
            id_path(self.id, text)
            field = "fields"
            check_apart(list(self.fields), text, self.id)
        except RecipeError as error:
            raise ValueError(f"{field}: " + str(error).removeprefix(f"input.{field}: ")) from None
        return self

    def bad_rows_allowed(self, n_rows: int) -> int:
        """Number of quarantined rows from which the run fails, for n_rows rows read."""
        return int(self.max_bad_rows) if self.max_bad_rows >= 1 else max(10, int(self.max_bad_rows * n_rows))


class HoldoutSpec(BaseModel):
    """Kept rows that go to heldout/ instead of shards/."""

    model_config = _STRICT
    fraction: Share = Field(gt=0, lt=1, description="about which share of the documents, such as 1%")
    by: str | None = Field(
        None,
        description="column or input field: documents with the same value (cluster, source, host) are held "
        "out together; by default each alone",
    )
    seed: int = Field(0, ge=0, description="another seed holds out others")


class ShuffleSpec(BaseModel):
    """All kept rows in an order by hash, over shards of about equal size."""

    model_config = _STRICT
    seed: int = Field(0, ge=0, description="another seed is another order")
    shards: int | None = Field(
        None, ge=1, le=99_999, description="number of output shards; by default one for 256 MiB of rows"
    )


class OutputSpec(BaseModel):
    """What is written."""

    model_config = _STRICT
    folder: str = Field(description="output folder; holds generations, `current` and manifest.json")
    format: Literal["same", "jsonl", "jsonl.gz", "jsonl.zst", "jsonl.bz2", "jsonl.xz", "parquet"] = Field(
        "same", description="of the shards"
    )
    add: list[str] = Field(default_factory=list, description="score columns added to each kept row")
    columns: dict[str, ColumnType] = Field(
        default_factory=dict,
        description="input fields that a conversion from JSONL to Parquet turns into columns",
    )
    dropped: bool = Field(False, description="also write dropped rows, with stage and reason")
    copies: Literal["repeat", "column"] = Field(
        "repeat",
        description="a row that is chosen several times is written as often, or once with a field `copies`",
    )
    shuffle: ShuffleSpec | None = Field(
        None, description="write the rows of all shards (and copies) in one random order"
    )
    phases: list[str] = Field(
        default_factory=list,
        description="columns of selections (`select: {as: ...}`), each a phase of the training: phases/ says "
        "which rows of shards/ it uses, and how often",
    )
    holdout: HoldoutSpec | None = Field(None, description="keep a part of the documents apart, in heldout/")


class Expect(BaseModel):
    """Guards: where the result is outside, nothing is published and the exit code is 3."""

    model_config = _STRICT
    min_rows: int | None = Field(None, ge=0, description="fewest rows written")
    max_rows: int | None = Field(None, ge=0, description="most rows written")
    min_kept: Share | None = Field(None, ge=0, le=1, description="least share of rows kept")
    max_kept: Share | None = Field(None, ge=0, le=1, description="largest share of rows kept")


class Document(BaseModel):
    """The whole file, stages still unchecked."""

    model_config = _STRICT
    input: InputSpec
    stages: list[dict[str, Any]] = Field(min_length=1)
    output: OutputSpec
    work: str = Field(
        ".dataselect", description="the store of intermediate results; may be deleted at any time"
    )
    memory: ByteSize = Field(
        1 << 30,
        ge=1024,
        description="about what a task of a dedup holds at most, besides some bytes a document in its last "
        "task; changes no result",
    )
    expect: Expect = Expect.model_validate({})


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
    fields: list[FieldUse]
    """Input fields that stages read as columns, by name."""
    left_out: list[str]
    """Optional stages that are not run, each with the reason."""
    output: OutputSpec
    work: str
    memory: int
    expect: Expect


def load_recipe(path: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """Read, fill (`$VAR`, `--set a.b=value`) and check a recipe; RecipeError in one line per mistake."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        places = list(_lines(yaml.compose(text)))
        raw = yaml.safe_load(text)
    except OSError as error:
        local = "; a recipe is a local file, only the paths in it may be URLs" if ":/" in str(path) else ""
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}{local}") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(f"{path}{line}: not a YAML file: {problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise RecipeError(f"{path}: not a recipe: it is nested without end") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected the sections input, stages and output")
    for assignment in sets:
        _assign(raw, assignment)
    return _Checker(path, places).check(raw)


class _Checker:
    """Collects mistakes with their place in the file."""

    def __init__(self, path: Path, places: Sequence[tuple[str, int]]) -> None:
        self._path, self._lines = path, dict(reversed(places))
        self._mistakes: list[str] = []
        self._left_out: list[str] = []
        for place, n in Counter(place for place, _ in places).items():
            if n > 1:
                self._mistake(place, "this key is there twice")

    def check(self, raw: dict[str, Any]) -> Recipe:
        raw = self._expand(raw, "")
        document = self._model(Document, raw, "")
        folder = self._path.resolve().parent
        listed = raw.get("stages")
        items = enumerate(listed if isinstance(listed, list) else [])
        stages = [(i, self._stage(item, i, folder)) for i, item in items if isinstance(item, dict)]
        specs = [spec for _, spec in stages if spec is not None]
        fields = self._check_columns([(i, spec) for i, spec in stages if spec is not None], document)
        if self._mistakes or document is None:
            raise RecipeError("\n".join(self._mistakes))
        output = document.output.model_copy(update={"folder": _absolute(document.output.folder, folder)})
        patterns = [_absolute(pattern, folder) for pattern in document.input.shards]
        return Recipe(
            path=self._path,
            input=document.input.model_copy(update={"shards": patterns}),
            stages=specs,
            fields=fields,
            left_out=self._left_out,
            output=output,
            work=_absolute(document.work, folder),
            memory=document.memory,
            expect=document.expect,
        )

    def _mistake(self, place: str, message: str) -> None:
        self._mistakes.append(f"{self._located(place)}: {message}")

    def _located(self, place: str) -> str:
        line = next((self._lines[p] for p in _prefixes(place) if p in self._lines), None)
        where = self._path if line is None else f"{self._path}:{line}"
        return f"{where}: {place}" if place else str(where)

    def _expand(self, value: Any, place: str) -> Any:
        """Fill $VAR and ${VAR} in every string."""
        if isinstance(value, dict):
            return {key: self._expand(item, join_place(place, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, f"{place}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value

        def fill(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in os.environ:
                self._mistake(place, f"the environment variable {name} is not set")
            return os.environ.get(name, match[0])

        return re.sub(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", fill, value)

    def _model(self, cls: type[Any], values: dict[str, Any], place: str) -> Any:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found: dict[str, list[str]] = {}
            for item in error.errors():
                where, message = place_of(place, item, values), explain(item, cls)
                field, separator, rest = message.partition(": ")
                if separator and field in field_names(
                    cls, item["loc"]
                ):  # a check of several fields names one
                    where, message = join_place(where, field), rest
                found.setdefault(where, []).append(message)
            for where, messages in found.items():
                # Of a union's members the one that was understood deepest says most.
                if not any(other.startswith((where + ".", where + "[")) for other in found):
                    self._mistake(where, joined(messages))
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
        missing = next((p for p in paths.values() if not is_file(p)), None)
        if missing and stage.optional:
            self._left_out.append(
                f"{use}: left out, because {missing} does not exist (the stage is `optional`)"
            )
            return None
        if missing:
            name = next(name for name, p in paths.items() if p == missing)
            self._mistake(f"{place}.{name}", f"file not found: {missing}")
            return None
        paths |= {name: _absolute(path, folder) for name, path in stage.source_fields().items()}
        params = {key: with_leaves(key, value, paths) for key, value in params.items()}
        return StageSpec(use=use, params=params, folder=str(folder), stage=cls.model_validate(params))

    def _check_columns(self, specs: list[tuple[int, StageSpec]], document: Document | None) -> list[FieldUse]:
        """Names and types of columns, stage by stage; returns the input fields that stages ask for."""
        known: dict[str, str] = {}
        fields = _Fields(document.input if document else None)
        types = fields.base | fields.declared
        for i, spec in specs:
            place = f"stages[{i}]"
            if spec.stage.edits_text() and fields.n_texts > 1:
                self._mistake(place, _EDITS_OF_SEVERAL.format(spec.use, fields.n_texts))
            try:
                asked = spec.stage.field_types(types)
            except ValueError as error:
                self._mistake(join_place(place, "where") if "where" in spec.params else place, str(error))
                asked = dict.fromkeys(spec.stage.input_columns(), "")
            for name in spec.stage.input_columns():
                where = self._where(place, name, spec.params)
                if name in known or name in fields.base:
                    continue
                message: str | None
                if name not in asked and name not in fields.declared:
                    message = f"no earlier stage adds the column '{name}'{nearest(name, known)}"
                    if name == "id":
                        message = f"{spec.use} goes by the documents' ids: name their column as input.id"
                elif asked.get(name) == "":
                    continue
                else:
                    message = fields.use(name, asked.get(name), self._located(where))
                if message:
                    self._mistake(where, message)
            for name, alias in spec.stage.output_columns().items():
                taken = f"already the column of {known[name]}" if name in known else None
                taken = "reserved" if name in RESERVED_COLUMNS or not name else taken
                if name in fields.uses:
                    taken = (
                        "an input field that an earlier stage reads, unless that stage is put after this one"
                    )
                if taken:
                    where = self._where(place, name, spec.params)
                    self._mistake(where, f"the column '{name}' is {taken}; name another with `as:`")
                known.setdefault(name, spec.use)
                types[name] = _value_type(alias)
        for name in document.output.add if document else ():
            if name not in known:
                self._mistake("output.add", f"no stage adds the column '{name}'{nearest(name, known)}")
            elif name in (cast("Document", document)).output.columns:
                self._mistake(f"output.columns.{name}", "already a column that output.add adds")
        self._check_holdout(document, known, fields)
        self._check_phases(document, specs)
        if document and document.output.shuffle:
            for i, spec in specs:
                if isinstance(spec.stage, DedupStage) and spec.stage.save_index:
                    self._mistake(
                        f"stages[{i}].save_index",
                        "an index names the shards and rows of its texts, which output.shuffle moves; "
                        "leave one of them out",
                    )
        return list(fields.uses.values())

    def _check_phases(self, document: Document | None, specs: list[tuple[int, StageSpec]]) -> None:
        selections = [spec.stage for _, spec in specs if isinstance(spec.stage, SelectStage)]
        counted = [name for stage in selections for name in stage.output_columns()]
        phases = document.output.phases if document else []
        for name in phases:
            if name not in counted:
                self._mistake("output.phases", f"no `select` has `as: {name}`{nearest(name, counted)}")
        if len(set(phases)) < len(phases):
            self._mistake("output.phases", f"a phase stands there twice, got {phases}")
        if phases and document and document.output.shuffle:
            self._mistake(
                "output.phases", "they name shards and rows, which output.shuffle moves; leave one out"
            )

    def _check_holdout(self, document: Document | None, known: Mapping[str, str], fields: _Fields) -> None:
        """The column that says what is held out together: one that is there, or an input field."""
        by = document.output.holdout.by if document and document.output.holdout else None
        if by is None or by in known or by in fields.base or by in fields.uses:
            return
        place = "output.holdout.by"
        message = fields.use(by, fields.declared.get(by, "string"), self._located(place))
        if message:
            self._mistake(place, message)

    @staticmethod
    def _where(place: str, value: str, params: Mapping[str, Any]) -> str:
        """The parameter that holds the column's name, or the stage where it is a default."""
        exact = [k for k, v in params.items() if v == value or (isinstance(v, list) and value in v)]
        within = [key for key, item in params.items() if isinstance(item, str) and value in item]
        return f"{place}.{[*exact, *within][0]}" if exact or within else place


_EDITS_OF_SEVERAL = (
    "{} edits the text, but input.text joins {} columns, and an edit of all can't be written back; "
    "name one column there, or set `edit: false` where the stage has it"
)


class _Fields:
    """Input fields: which are declared, and which are used as what."""

    def __init__(self, spec: InputSpec | None) -> None:
        self.base = {n: t for n, t in BASE_COLUMNS.items() if n != "id" or (spec is not None and spec.id)}
        self.base[ORDINAL] = "number"
        self.declared: dict[str, str] = dict(spec.fields) if spec is not None else {}
        self.uses: dict[str, FieldUse] = {}
        self._spec = spec
        self.n_texts = 1 if spec is None else len(TextSpec.of(spec.text).paths)

    def use(self, name: str, asked: str | None, place: str) -> str | None:
        """Note that a field is read; what is wrong with it, or None."""
        kind = self.declared.get(name, asked) or ""
        if asked not in (None, kind):
            return f"'{name}' is read as a {asked} here, but input.fields declares it a {kind}"
        if name in self.uses:
            before = self.uses[name]
            same = before.type == kind
            return None if same else f"'{name}' is read as a {kind} here and as a {before.type} before"
        if self._spec is not None:
            try:
                check_apart([*self.uses, name], TextSpec.of(self._spec.text), self._spec.id)
            except RecipeError as error:
                return str(error)
        self.uses[name] = FieldUse(name, kind, place, name in self.declared)
        return None


def _value_type(alias: str) -> str:
    """Type of an expression's value, of an Arrow type's name."""
    if alias.startswith(("int", "uint", "float", "double", "half")):
        return "number"
    return (
        "string" if "string" in alias or alias == "str" else "bool" if alias.startswith("bool") else "vector"
    )


def _prefixes(place: str) -> Iterator[str]:
    while place:
        yield place
        place = re.sub(r"(\.[^.\[\]]+|\[\d+\])$", "", place) if re.search(r"[.\[]", place) else ""


def _lines(node: Any, place: str = "") -> Iterator[tuple[str, int]]:
    """(place, line from 1) of every key and item of a composed YAML file."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = join_place(place, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{place}[{i}]", value.start_mark.line + 1
            yield from _lines(value, f"{place}[{i}]")


def _absolute(path: str, folder: Path) -> str:
    path = without_scheme(path)
    if "://" in path:
        return path
    return os.path.normpath(folder / os.path.expanduser(path))


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
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {assignment}: the value is not YAML") from error
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {assignment}: the recipe has no such place") from error
