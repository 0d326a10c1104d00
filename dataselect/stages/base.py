"""What a stage is: frozen parameters plus pure functions of a batch. The file to read before writing one.

Five kinds, by what they need to know of the corpus:

* MapStage     nothing: columns from the text of one batch, rules that drop rows by these columns, and edits
               of the text, which stages after it see and the writer writes
* ColumnStage  nothing, not even the text: columns and rules from columns that are there already
* DedupStage   which documents share a key, of their text or of columns: of those with equal keys one stays;
               a NearDedupStage compares documents that share a key, and drops those that are similar enough
               to one that stays
* FittedStage  a small model fitted on the documents that reach the stage; then a MapStage with that model
* SelectStage  all values of one column: a threshold, and rows on its right side are kept

A stage never opens a shard, never shortens a batch, never draws from a global random state and never
changes itself. Numba is imported inside the functions: the coordinator, which only checks parameters,
does without it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataselect.core.errors import DataselectError
from dataselect.core.fingerprint import fingerprint
from dataselect.stages.edits import Edits

Columns = Mapping[str, Any]
"""Column name -> numpy array or Arrow array, all of one length."""
Model = Mapping[str, np.ndarray]
"""What `prepare` or `fit` made; memory-mapped and read-only in workers."""
Rules = dict[str, np.ndarray]
"""Rule in words -> bool[n_docs], True where a document breaks it. The first broken rule is the reason."""

SOURCE = "source"
"""Format of a parameter with a path, or a pattern of paths, that is no file of the stage's own."""
ModelPath = Annotated[str, Field(json_schema_extra={"format": "path"})]
"""A file the stage reads: relative to the recipe; its content is part of the fingerprint."""


NUMBER, STRING, BOOL = "number", "string", "bool"
"""Types of input fields; see io.fields."""

BASE_COLUMNS: Mapping[str, str] = {
    "n_bytes": NUMBER,
    "n_words": NUMBER,
    "id": STRING,
    "shard": STRING,
    "part": NUMBER,
    "row": NUMBER,
}
"""Columns of every row that any stage may ask for, with their types: size of the text as it reaches the stage
in UTF-8 bytes and in words (runs between white space), the id where the recipe names one, and the place as in
`decisions/`."""
TEXT_SIZES = frozenset({"n_bytes", "n_words"})
ORDINAL = "_ordinal"
"""Number of the row in the whole input; a ColumnStage that asks for it gets a digest of the rows checked."""
PLACE_COLUMNS = frozenset({"shard", "part", "row", ORDINAL})
"""Known once whole pieces are read, so not while a read runs."""


class Texts:
    """The documents of a batch: valid UTF-8, no nulls."""

    def __init__(
        self,
        array: pa.Array,
        keys: np.ndarray | None = None,
        wanted: Mapping[Hashable, int] = MappingProxyType({}),
    ) -> None:
        """`keys` uint64[n, 2]: the documents' draw keys (hash of the id if there is one, else the text).

        wanted: what the stages of this read ask of `shared`; see `Stage.wants`.
        """
        self.array = array
        self._keys = keys
        self._wanted = wanted
        self._shared: dict[Hashable, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def _buffers(self) -> tuple[np.ndarray, np.ndarray]:
        from dataselect.kernels.arrow import text_buffers

        return text_buffers(self.array)

    @property
    def offsets(self) -> np.ndarray:
        """int64[n + 1]: document i is data[offsets[i]:offsets[i + 1]]."""
        return self._buffers[0]

    @property
    def data(self) -> np.ndarray:
        """uint8: UTF-8 of all documents, back to back."""
        return self._buffers[1]

    @property
    def keys(self) -> np.ndarray:
        """uint64[n, 2]: what random draws for these documents depend on."""
        assert self._keys is not None
        return self._keys

    def take(self, mask: np.ndarray) -> Texts:
        """The documents where `mask` is True."""
        if mask.all():
            return self
        keys = None if self._keys is None else self._keys[mask]
        taken = Texts(self.array.filter(pa.array(mask)), keys, self._wanted)
        taken._shared = {name: (bits, rows[mask]) for name, (bits, rows) in self._shared.items()}
        return taken

    def edited(self, array: pa.Array, wanted: Mapping[Hashable, int]) -> Texts:
        """The same documents with other texts, for stages that ask for `wanted`."""
        return Texts(array, self._keys, wanted)

    def shared(self, name: Hashable, bits: int, compute: Callable[[int], np.ndarray]) -> np.ndarray:
        """Rows that several stages use, computed once for all of them: one for each document.

        bits: the parts of it that are needed. `compute` is called with these and those that other stages of
        the read want, and returns an array of len(self) rows; where all are there already it is not called.
        """
        there, rows = self._shared.get(name, (0, None))
        if rows is None or bits & ~there:
            there = bits | self._wanted.get(name, 0)
            rows = compute(there)
            self._shared[name] = there, rows
        return rows


class Stage(BaseModel):
    """Parameters of one stage, checked by pydantic; `use` names it in recipes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=(), allow_inf_nan=False
    )

    use: ClassVar[str]
    version: ClassVar[int] = 1
    """Bump when the output for the same input changes."""
    decide_fields: ClassVar[frozenset[str]] = frozenset()
    """Parameters that `keep` alone reads: changing one recomputes no column."""
    outer_fields: ClassVar[frozenset[str]] = frozenset()
    """Parameters that say what else a run reads or writes: neither `columns` nor `keep` depends on them."""

    kernels: ClassVar[tuple[str, ...]] = ()
    """Kernel modules that only such stages need: the fork server compiles or loads them where a recipe has
    one."""

    figures: ClassVar[tuple[str, ...]] = ()
    """Small arrays of the model that `warnings` gets."""

    optional: bool = Field(
        False, description="leave the stage out, and say so, where a file it needs is missing"
    )

    @model_validator(mode="after")
    def _limits_agree(self) -> Stage:
        """Of parameters called min and max, or min_x and max_x."""
        for name in type(self).model_fields:
            other = "max" + name.removeprefix("min")
            if name.startswith("min") and other in type(self).model_fields:
                low, high = getattr(self, name), getattr(self, other)
                if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
                    raise ValueError(
                        f"{name}: {low:g} is more than {other}, {high:g}: no document would stay"
                    )
        return self

    def file_fields(self) -> dict[str, str]:
        """Place -> path of everything declared as a ModelPath: 'model', or 'target[0]', 'target.news'."""
        return self._places(self._file_names())

    def source_fields(self) -> dict[str, str]:
        """Place -> path, URL or pattern of everything else that the stage reads: 'against[0]'."""
        return self._places(self._fields_of(SOURCE))

    def _places(self, names: list[str]) -> dict[str, str]:
        places: dict[str, str] = {}
        for name in names:
            places |= dict(_leaves(name, getattr(self, name)))
        return places

    def on_disk(self) -> Stage:
        """The stage with this machine's copies of those of its files that are URLs; see io.local_copies."""
        from dataselect.io.local_copies import local_file

        copies = {place: str(local_file(path)) for place, path in self.file_fields().items() if "://" in path}
        if not copies:
            return self
        return self.model_copy(
            update={name: with_leaves(name, getattr(self, name), copies) for name in self._file_names()}
        )

    @classmethod
    def _file_names(cls) -> list[str]:
        return cls._fields_of("path")

    @classmethod
    def _fields_of(cls, form: str) -> list[str]:
        schema = cls.model_json_schema(by_alias=False)["properties"]
        return [name for name in cls.model_fields if form in json_formats(schema[name])]

    def check_files(self) -> None:
        """Raise BadModel where a file is not what the stage needs; runs before any work."""

    def output_columns(self) -> dict[str, str]:
        """Column name -> Arrow type of what the stage adds."""
        return {}

    def input_columns(self) -> list[str]:
        """Columns of earlier stages, base columns, and input fields that it reads."""
        return []

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        """Types of those input columns that may be input fields: read with the text, null where missing.

        known: types of the columns that are there already. ValueError where they don't fit the parameters.
        A name that is neither known nor given here is a mistake in the recipe.
        """
        return {}

    def edits_text(self) -> bool:
        """Whether the text changes here; only that of a MapStage can. See `MapStage.edits`."""
        return False

    def wants(self) -> tuple[Hashable, int]:
        """(name, bits) of what `columns` will ask of `Texts.shared`; bits 0 for nothing."""
        return None, 0

    def prepare(self) -> dict[str, np.ndarray] | None:
        """Arrays made once from the stage's files (a folded model, target counts), or None."""
        return None

    def columns(self, texts: Texts, model: Model) -> Columns:
        """Columns of these documents: those of `output_columns`, each of length len(texts)."""
        return {}

    def notes(self, counts: Mapping[str, int], model: Model) -> list[str]:
        """Sentences for the report, of the sums of what the stage's look-ups counted; for most none.

        Of a DedupStage: n_without_key (documents that lack what it goes by) and n_unranked (those without a
        value of the column that `keep` names). model: its arrays of at most 1 KiB.
        """
        return []

    def column_masses(self, model: Model) -> dict[str, float]:
        """Column -> how much data stands behind it; a selection by several columns shares by it."""
        return {}

    def keep(self, columns: Columns) -> Rules:
        """Rules that drop rows; computed again from stored columns, so it must be cheap."""
        return {}

    def warnings(self, figures: Model) -> list[str]:
        """What people should know of the stage's files, from the arrays of its model named in `figures`."""
        return []

    def compute_params(self) -> dict[str, Any]:
        """Parameters that `columns` or a fit depends on, files left out."""
        skip = {"optional", "fit", *self.decide_fields, *self.outer_fields, *self._file_names()}
        return self.model_dump(mode="json", exclude=skip)

    def compute_fingerprint(self, file_digests: Mapping[str, str]) -> str:
        """Identity of what `columns` computes: parameters that only `keep` reads are left out."""
        params = self.compute_params()
        return fingerprint(self.use, self.version, params, dict(file_digests), self.source_digest())

    def decide_fingerprint(self) -> str:
        """Identity of what `keep` decides, given the columns."""
        return fingerprint(
            self.use, self.version, self.model_dump(mode="json", include=set(self.decide_fields))
        )

    @classmethod
    def source_digest(cls) -> str | None:
        """Digest of the stage's source for stages of the user's own; None for ours, which have versions."""
        source = cls.source()
        return None if source is None else hashlib.blake2b(source, digest_size=16).hexdigest()

    @classmethod
    def source(cls) -> bytes | None:
        """The file of a stage of the user's own."""
        return getattr(cls, "_source", None)


class MapStage(Stage):
    """Columns from the text, rules on the columns, and perhaps edits of the text."""

    def edits(self, texts: Texts, model: Model) -> Edits:
        """What it takes out of these documents, where `edits_text` says that it does; pure as `columns` is.

        Also of documents that its rules drop, since other thresholds may keep them.
        """
        raise NotImplementedError


class KeepBy(BaseModel):
    """Which of several duplicates stays, by what only the recipe can know: exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: str | None = Field(
        None, min_length=1, description="the one with the largest value of this score column or input field"
    )
    latest: str | None = Field(
        None,
        min_length=1,
        description="the one with the latest value of this column or input field: ISO 8601 dates or times "
        "(UTC where they name no zone), or numbers (seconds since 1970, years)",
    )
    source: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="the one whose shard matches the earliest of these patterns (* matches any characters)",
    )

    @model_validator(mode="after")
    def _one(self) -> KeepBy:
        if [self.best, self.latest, self.source].count(None) != 2:
            raise ValueError("expected exactly one of best, latest, source")
        return self

    @property
    def column(self) -> str | None:
        """The column or input field that it goes by."""
        return self.best or self.latest

    def field_type(self, known: Mapping[str, str]) -> str:
        """Type of `column`, as in Stage.field_types."""
        name = self.column or ""
        kind = known.get(name, NUMBER if self.best else STRING)
        if kind not in ((NUMBER, BOOL) if self.best else (NUMBER, STRING)):
            raise ValueError(f"keep: '{name}' is a {kind}, not a number{'' if self.best else ' or a string'}")
        return kind


class DedupKeys(NamedTuple):
    """Keys of a batch's documents, flat: document docs[j] has keys[j]."""

    docs: np.ndarray
    """int64[m]: index in the batch."""
    keys: np.ndarray
    """uint64[m]"""
    check: np.ndarray | None = None
    """uint64[m]: where given, it must be equal too (the second half of a 128-bit hash)."""
    signatures: np.ndarray | None = None
    """uint8[n_docs, n_hashes]: compact MinHash signatures of all documents of the batch."""


class ColumnStage(Stage):
    """Columns and rules from columns alone: needs no text, so that a change of its files reads no shard.

    `keep` gets its own columns and its input columns (Arrow arrays; null where there is no value). With
    output columns it runs after the read that its inputs come from; without, while that read runs, too.
    """

    def look_up(self, columns: Columns, model: Model) -> tuple[Columns, dict[str, int]]:
        """Its columns for the rows that reach it, and counts that `check_counts` gets the sums of."""
        return {}, {}

    def check_counts(self, counts: Mapping[str, int], model: Model) -> None:
        """Raise DataselectError where the sums over all rows say that something is wrong.

        Besides those of `look_up`: n_rows of the whole input, with ORDINAL digest_0 and digest_1, and
        is_sample, 1 in a run of a sample.
        model: its arrays of at most 1 KiB.
        """


class DedupStage(Stage):
    """Documents that share a key are duplicates of each other; one of them stays.

    Keys are made of the text while it is read, or where the stage names `key_columns`, of these columns
    alone, so that such a stage reads no shard.
    """

    decide_fields: ClassVar[frozenset[str]] = frozenset({"keep_", "as_", "on_match"})
    outer_fields: ClassVar[frozenset[str]] = frozenset({"against", "save_index"})

    keep_: Literal["first", "longest"] | KeepBy = Field(
        "first",
        alias="keep",
        description="which of several duplicates stays: first (in shard order), longest (bytes of text), "
        "{best: COLUMN} (largest score), {latest: COLUMN} (date) or {source: [PATTERN, ...]} (shards, the "
        "most trusted first); ties go to the first",
    )
    as_: str = Field(
        "cluster_size",
        alias="as",
        description="name of the column with the number of documents that a kept one stands for, with itself",
    )
    against: tuple[Annotated[str, Field(json_schema_extra={"format": SOURCE})], ...] = Field(
        (),
        description="old documents: saved indexes (*.index), output folders of earlier runs, glob patterns "
        "of shards",
    )
    on_match: Literal["keep_old", "keep_new", "mark"] = Field(
        "keep_old",
        description="what becomes of a document that duplicates one of `against`. keep_old: it is dropped; "
        "keep_new: it stays, and the old one is listed in superseded/; mark: it stays, with the columns "
        "matched (the old one's id) and matched_similarity",
    )
    save_index: bool = Field(
        False, description="publish an index of the kept documents, for `against` of later runs"
    )

    def output_columns(self) -> dict[str, str]:
        columns = {self.as_: "int32"}
        if self.against and self.on_match == "mark":
            columns |= {"matched": "large_string", "matched_similarity": "float64"}
        return columns

    def index_scheme(self) -> dict[str, Any]:
        """What must be the same for two documents' keys to be comparable."""
        params = self.compute_params() | {"use": self.use, "version": self.version}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in sorted(params.items())
            if name != "signatures"
        }

    def key_columns(self) -> list[str]:
        """Columns that the keys are made of; none: they are made of the text."""
        return []

    def rank_columns(self) -> list[str]:
        """Columns that say which of several duplicates stays: one or none."""
        column = self.keep_.column if isinstance(self.keep_, KeepBy) else None
        return [] if column is None else [column]

    def input_columns(self) -> list[str]:
        return list(dict.fromkeys([*self.key_columns(), *self.rank_columns()]))

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        if not isinstance(self.keep_, KeepBy):
            return {}
        return {name: self.keep_.field_type(known) for name in self.rank_columns()}

    def notes(self, counts: Mapping[str, int], model: Model) -> list[str]:
        n_unranked = counts.get("n_unranked", 0)
        what = " and ".join(self.rank_columns())
        note = f"{n_unranked:,} documents without a value of {what}, which stay only where none has one"
        return [note] if n_unranked else []

    def keys_per_doc(self) -> int:
        """About how many keys a document has; sizes the partitions of the exchange."""
        return 1

    def bytes_per_doc(self) -> int:
        """About how many bytes of the work folder a document needs; for estimates."""
        return 13 * self.keys_per_doc()

    def dedup_keys(self, texts: Texts) -> DedupKeys:
        """Keys of these documents; a document without one is never a duplicate."""
        raise NotImplementedError

    def keys_of(self, columns: Columns) -> DedupKeys:
        """The same of `key_columns`: Arrow arrays, null where there is no value."""
        raise NotImplementedError


BAND_BITS = 10
"""Lowest bits of a NearDedupStage's keys: the number of the band."""


class NearDedupStage(DedupStage):
    """Documents that share a key are candidates; those that are similar enough are duplicates.

    Every document with keys has exactly one whose lowest BAND_BITS bits are 0, and documents with the same
    text have the same keys.
    """

    decide_fields: ClassVar[frozenset[str]] = frozenset(
        {"keep_", "as_", "on_match", "survivors", "max_cluster", "larger_clusters", "cluster"}
    )

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which documents are duplicates"
    )
    verify: Literal["auto", "exact", "estimate", "none"] = Field(
        "auto",
        description="how candidates are checked. auto: by their signatures, and where these are within 4 "
        "standard errors of the threshold by the exact Jaccard similarity of their shingle sets (reads those "
        "documents again); exact: all by the exact one; estimate: all by signatures; none: not at all",
    )
    survivors: Literal["greedy", "index", "component"] = Field(
        "greedy",
        description="greedy: drop a document if a kept one is its duplicate; index: if any better one is, "
        "kept or not; component: keep one of every connected component",
    )
    max_cluster: int | None = Field(
        None, ge=2, description="most documents in a cluster; no limit by default"
    )
    larger_clusters: Literal["stop", "split"] = Field(
        "stop",
        description="what a cluster over max_cluster does. stop: the run fails and names it; split: of a "
        "component, decide its documents greedily instead",
    )
    cluster: str | None = Field(
        None,
        description="name of a column with every document's cluster: its connected component of duplicates, "
        "dropped ones included; for output.holdout",
    )

    def output_columns(self) -> dict[str, str]:
        return super().output_columns() | ({self.cluster: "string"} if self.cluster else {})

    @property
    def uses_signatures(self) -> bool:
        """Whether `dedup_keys` must give signatures."""
        return self.verify in ("auto", "estimate")

    def n_hashes(self) -> int:
        """Values in a signature."""
        raise NotImplementedError

    def shingle_sets(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(offsets int64[n + 1], hashes uint64): document i has the set hashes[offsets[i]:offsets[i + 1]].

        Ascending, each hash once: what the exact Jaccard similarity is of.
        """
        raise NotImplementedError

    def estimates(self, matches: np.ndarray) -> np.ndarray:
        """float64[n]: Jaccard similarities, from how many bytes of two compact signatures are equal."""
        by_chance = 1 / 256
        return np.clip((matches / self.n_hashes() - by_chance) / (1 - by_chance), 0.0, 1.0)

    def verdicts(self, estimates: np.ndarray) -> np.ndarray:
        """int8[n]: 1 duplicate, 0 none, -1 only the exact similarity can tell."""
        if self.verify == "none":
            return np.ones(len(estimates), np.int8)
        if self.verify == "exact":
            return np.full(len(estimates), -1, np.int8)
        if self.verify == "estimate":
            return (estimates >= self.threshold).astype(np.int8)
        # Of a pair exactly at the threshold: what is further away would be an error of 4 sigma.
        margin = 4 * np.sqrt(self.threshold * (1 - self.threshold) / self.n_hashes())
        sure = np.abs(estimates - self.threshold) > margin
        return np.where(sure, estimates > self.threshold, -1).astype(np.int8)


class FittedStage(Stage):
    """A MapStage whose model is fitted on a hash sample of the documents that reach it."""

    fit: str = Field(
        "exact",
        description="exact: re-fitted on what reaches the stage; frozen: taken from the last published run; "
        "or the path of a fitted model of an earlier output",
    )

    def sample_bytes(self) -> int | None:
        """About how much text the sample may hold; None: all documents."""
        return 64 << 20

    def sample(self, texts: Texts, share: float) -> pa.Table:
        """What the fit must know of the sampled documents: one row each, with `doc` (index in the batch)."""
        raise NotImplementedError

    def fit_model(self, prepared: Model, samples: Iterator[pa.Table]) -> dict[str, np.ndarray]:
        """The model, from the samples of those documents that reached the stage; order must not matter."""
        raise NotImplementedError


class Pool:
    """The rows that reach a SelectStage, re-readable in DocId order."""

    masses: Mapping[str, float] = MappingProxyType({})
    """Column -> how much data stands behind it, of the stages that say so; see Stage.column_masses."""

    def batches(self) -> Iterator[PoolBatch]:
        """One batch a segment, in DocId order; each pass gives the same."""
        raise NotImplementedError


class PoolBatch:
    """Rows of one segment that reach the stage."""

    def __init__(
        self,
        columns: Mapping[str, Any],
        keys: np.ndarray,
        n_bytes: np.ndarray,
        n_words: np.ndarray,
    ) -> None:
        """Columns, those of `input_columns`: float64[n] (NaN: no value), texts as Arrow arrays.

        keys uint64[n, 2] for draws; sizes int64[n].
        """
        self.columns, self.keys, self.n_bytes, self.n_words = columns, keys, n_bytes, n_words

    def numbers(self, name: str) -> np.ndarray:
        """A column float64[n]; DataselectError where it holds texts."""
        values = self.columns[name]
        if isinstance(values, pa.Array):
            raise DataselectError(f"the column '{name}' holds texts; a column of numbers is needed")
        return values

    def take(self, mask: np.ndarray) -> PoolBatch:
        """The rows where `mask` is True, or of these numbers."""
        columns = {name: _taken(values, mask) for name, values in self.columns.items()}
        return PoolBatch(columns, self.keys[mask], self.n_bytes[mask], self.n_words[mask])

    def __len__(self) -> int:
        return len(self.n_bytes)


class Tally:
    """What a selection did, for the report: fed with every batch of the last pass."""

    def add(self, batch: PoolBatch, copies: np.ndarray) -> None:
        """Rows that reached the stage, and what `chosen` said of them."""
        raise NotImplementedError

    def report(self) -> dict[str, Any]:
        """JSON."""
        raise NotImplementedError


class SelectStage(Stage):
    """Keeps rows, some of them more than once, by a model found over the whole pool.

    One with an output column keeps all of them, and that column says how often each was chosen.
    """

    fit: str = Field(
        "exact", description="exact, frozen (the threshold of the last published run), or a path"
    )

    def find_threshold(self, pool: Pool) -> dict[str, np.ndarray]:
        """The model, from which `chosen` decides each row alone; exact, in memory independent of the pool."""
        raise NotImplementedError

    def chosen(self, batch: PoolBatch, model: Model, state: dict[Any, Any]) -> np.ndarray:
        """int64[len(batch)] copies of each row, 0 to drop it; or bool.

        `state` is carried over the batches of one pass in DocId order (for ties).
        """
        raise NotImplementedError

    def repeats(self) -> bool:
        """Whether a row may be chosen more than once."""
        return False

    def expected_copies(self, batch: PoolBatch, model: Model) -> np.ndarray | None:
        """float64[n] expected copies where they are exact (of one: its probability), for `decisions/`."""
        return None

    def tally(self, model: Model) -> Tally | None:
        """Counts for the report; None where there is nothing to say."""
        return None

    def draws(self, keys: np.ndarray) -> np.ndarray | None:
        """float64[n]: the random draws of these draw keys, for `decisions/`; None where there are none."""
        return None

    def forecast(self, last: Mapping[str, Any]) -> dict[str, Any] | None:
        """What its report will say, by an earlier run's over about the same pool; None where it can't."""
        return None

    def estimate(self, n_bytes: int) -> dict[str, Any] | None:
        """unit, budget, and about how much of it n_bytes of text hold; None where there is no budget."""
        return None

    def scaled(self, share: float) -> SelectStage:
        """The same stage for a sample of `share` of the corpus: absolute budgets shrink with it."""
        return self


def _taken(values: Any, mask: np.ndarray) -> Any:
    if not isinstance(values, pa.Array):
        return values[mask]
    return values.filter(pa.array(mask)) if mask.dtype == bool else values.take(pa.array(mask))


def _leaves(place: str, value: Any) -> Iterator[tuple[str, str]]:
    """(place, text) of every text in nested lists and mappings."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{place}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(f"{place}[{i}]", item)
    elif value is not None:
        yield place, str(value)


def with_leaves(place: str, value: Any, leaves: Mapping[str, str]) -> Any:
    """`value` with other texts at some places, named as in `Stage.file_fields`."""
    if isinstance(value, dict):
        return {key: with_leaves(f"{place}.{key}", item, leaves) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_leaves(f"{place}[{i}]", item, leaves) for i, item in enumerate(value)]
    return leaves.get(place, value)


def json_formats(schema: Mapping[str, Any]) -> set[str]:
    """All `format` values in a property's JSON schema, through anyOf, lists and mappings."""
    own = {str(schema["format"])} if "format" in schema else set()
    inner = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return own.union(*(json_formats(option) for option in [*schema.get("anyOf", []), *inner]))


def stage_labels(stages: Sequence[Stage]) -> list[str]:
    """'ngram_importance.1' for the first stage of that kind, and so on: names of what a stage publishes."""
    counts: Counter[str] = Counter()
    labels = []
    for stage in stages:
        counts[stage.use] += 1
        labels.append(f"{stage.use}.{counts[stage.use]}")
    return labels
