"""Scores, labels or vectors that something else made, as a column: joined to the documents from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataselect.core.errors import BadModel, DataselectError
from dataselect.core.sizes import Share
from dataselect.stages.base import ORDINAL, Columns, ColumnStage, Model, ModelPath, Rules

_PLACE = ("shard", "part", "row")


class Clip(BaseModel):
    """Values below the first bound become it, those above the second that one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clip: Annotated[list[float], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _ascends(self) -> Clip:
        if self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip: expected a lower bound below the upper one, got {self.clip}")
        return self


class JoinScores(ColumnStage):
    """Add a column from a Parquet, JSONL or npy file, joined by id, by place, or by order.

    by: id     rows with `id_column`; ids are compared as text (1 is "1") by 128-bit hashes
    by: place  rows with shard, part and row, as decisions/ of a run over the same shards has them
    by: order  row k of the file is row k of the input, quarantined rows counted: the number of rows and
               `rows_digest` must agree, which covers the rows' ids and texts, but not their order
    Changing the file reads no text again. The file is sorted once, 24 bytes a row, mapped by all workers.
    """

    use: ClassVar[str] = "join_scores"

    file: ModelPath = Field(description="the scores: .parquet, .jsonl (.gz, .zst) or .npy")
    column: str = Field("score", min_length=1, description="column of the file with the value; not for npy")
    kind: Literal["score", "label", "vector"] = Field("score", description="a number, a text, or numbers")
    by: Literal["id", "place", "order"] = Field("id", description="what tells which document a row is of")
    id_column: str = Field("id", min_length=1, description="by id: column of the file with the id")
    rows_digest: str | None = Field(
        None, description="by order: `row_digest` of the rows that were scored, as manifest.json has it"
    )
    missing: Literal["error", "drop"] | float | None = Field(
        "error", description="documents without a value: an error, null, dropped, or this number"
    )
    min_matched: Share | None = Field(
        None, ge=0, le=1, description="least share of the documents that the file must have; all by default"
    )
    nan: Literal["error", "missing"] = Field(
        "error", description="what NaN and infinities are, also after `transform`; in JSONL they are nulls"
    )
    transform: list[Literal["log", "logit", "negative"] | Clip] = Field(
        default_factory=list,
        description="in this order: log, logit, negative (where lower is better), {clip: [low, high]}",
    )
    as_: str = Field("score", alias="as", description="name of the column")

    @model_validator(mode="after")
    def _fits_together(self) -> JoinScores:
        if (self.rows_digest is not None) != (self.by == "order"):
            raise ValueError("rows_digest: belongs to `by: order`, and is needed there")
        if self.file.endswith(".npy") and self.by != "order":
            raise ValueError("by: an npy file has no ids; join it by order")
        if self.kind != "score" and (self.transform or isinstance(self.missing, float)):
            raise ValueError("kind: transform, and a number for missing, are for scores only")
        if self.missing != "error" and self.min_matched is None and self.by != "order":
            raise ValueError("min_matched: say what share of the documents the file must have at least")
        return self

    def check_files(self) -> None:
        """Raise BadModel where the file lacks a column, or has one of another type."""
        self._file().check()

    def _file(self) -> Any:
        from dataselect.io.score_file import ScoreFile

        keys = {"id": (self.id_column,), "place": _PLACE, "order": ()}[self.by]
        return ScoreFile(self.file, self.column, self.kind, keys)

    def input_columns(self) -> list[str]:
        return {"id": ["id"], "place": [*_PLACE], "order": [ORDINAL]}[self.by]

    def output_columns(self) -> dict[str, str]:
        types = {"score": "float64", "label": "large_string", "vector": "list<float32>"}
        return {self.as_: types[self.kind]}

    def prepare(self) -> dict[str, np.ndarray]:
        """Sorted key hashes `high`, `low` uint64[n] (not by order); `values`, NaN or code -1 where missing.

        Memory while sorting: about 45 bytes a score.
        """
        from dataselect.io.hash_index import text_hashes

        high: list[np.ndarray] = []
        low: list[np.ndarray] = []
        values: list[np.ndarray] = []
        labels: dict[str, int] = {}
        for part in self._file().parts():
            if part.keys:
                hashes = text_hashes(self._keys(part.keys, part.first_row))
                high.append(hashes[:, 0].copy())
                low.append(hashes[:, 1].copy())
            label = self.kind == "label"
            values.append(self._codes(part.values, labels) if label else self._transformed(part))
        if not values:
            raise BadModel(f"{self.file}: has no rows")
        arrays = {"values": _joined_parts(values)}
        arrays["n_scores"] = np.array([len(arrays["values"])], np.int64)
        if labels:
            arrays["labels"] = np.frombuffer(json.dumps(list(labels)).encode(), np.uint8)
        if self.by == "order":
            return arrays
        return self._sorted(arrays, _joined_parts(high), _joined_parts(low))

    def _sorted(
        self, arrays: dict[str, np.ndarray], high: np.ndarray, low: np.ndarray
    ) -> dict[str, np.ndarray]:
        from dataselect.io.hash_index import sorted_order

        order = sorted_order(high, low)
        high, low = high[order], low[order]
        same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        if same.any():
            at = int(same.argmax())
            first, second = sorted((int(order[at]), int(order[at + 1])))
            raise BadModel(
                f"{self.file}: rows {first} and {second} are of the same document, and so are "
                f"{int(same.sum()) - 1} more pairs"
            )
        return {**arrays, "high": high, "low": low, "values": arrays["values"][order]}

    def _keys(self, keys: list[pa.Array], first_row: int) -> pa.Array:
        for array in keys:
            if array.null_count:
                row = first_row + array.is_null().to_numpy(zero_copy_only=False).argmax()
                raise BadModel(f"{self.file}: row {row} has no {' and '.join(self.input_columns())}")
        return _joined(keys)

    def _codes(self, values: pa.Array, labels: dict[str, int]) -> np.ndarray:
        """int32[n], -1 where null; `labels` grows."""
        encoded = values.dictionary_encode()
        known = [labels.setdefault(label, len(labels)) for label in encoded.dictionary.to_pylist()]
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.array([*known, -1], np.int32)[indices]

    def _transformed(self, part: Any) -> np.ndarray:
        """Values after `transform`, NaN where they are missing."""
        x: np.ndarray = part.values
        with np.errstate(all="ignore"):
            for step in self.transform:
                x = np.clip(x, step.clip[0], step.clip[1]) if isinstance(step, Clip) else _FUNCTIONS[step](x)
        finite = np.isfinite(x) if x.ndim == 1 else np.isfinite(x).all(axis=1)
        if self.nan == "error" and not finite[part.valid].all():
            row = int(np.flatnonzero(part.valid & ~finite)[0])
            raise BadModel(
                f"{self.file}: row {part.first_row + row}: {part.values[row]} gives no finite number; "
                "`nan: missing` takes such rows for missing"
            )
        missing = ~(part.valid & finite)
        if missing.any():
            x = x.copy()
            x[missing] = np.nan
        return x

    def look_up(self, columns: Columns, model: Model) -> tuple[Columns, dict[str, int]]:
        at = self._positions(columns, model)
        found = at >= 0
        valid = np.zeros(len(at), bool)
        valid[found] = self._is_there(model["values"][at[found]])
        counts = {"n_reach": len(at), "n_matched": int(found.sum()), "n_missing": int((~valid).sum())}
        counted = self.by == "order" and not found.all()  # that the file is too short is said by check_counts
        if self.missing == "error" and not valid.all() and not counted:
            row = int((~valid).argmax())
            key = ", ".join(f"{n.strip('_')} {columns[n][row].as_py()!r}" for n in self.input_columns())
            raise DataselectError(
                f"{self.use}: {self.file} has no value for {key}, and for {counts['n_missing'] - 1} more of "
                f"{len(at)} documents of its part; `missing:` says what becomes of them"
            )
        at[~valid] = 0
        return {self.as_: self._column(at, valid, model)}, counts

    def _is_there(self, values: np.ndarray) -> np.ndarray:
        if self.kind == "label":
            return values >= 0
        return ~np.isnan(values if values.ndim == 1 else values[:, 0])

    def _positions(self, columns: Columns, model: Model) -> np.ndarray:
        """int64[n]: row of the prepared arrays for each document, or -1."""
        from dataselect.io.hash_index import find, text_hashes

        if self.by == "order":
            ordinal = columns[ORDINAL].to_numpy()
            return np.where(ordinal < model["n_scores"][0], ordinal, -1)
        keys = _joined([columns[name].cast(pa.large_string()) for name in self.input_columns()])
        at = find(model["high"], model["low"], text_hashes(keys))
        at[keys.is_null().to_numpy(zero_copy_only=False)] = -1
        return at

    def _column(self, at: np.ndarray, valid: np.ndarray, model: Model) -> pa.Array:
        values = model["values"][at]
        if self.kind == "label":
            labels = json.loads(model["labels"].tobytes()) if "labels" in model else []
            return pa.array(labels, pa.large_string()).take(pa.array(values, mask=~valid))
        if self.kind == "score":
            if isinstance(self.missing, float):
                values[~valid] = self.missing
                return pa.array(values)
            return pa.array(values, mask=~valid)
        offsets = np.arange(len(at) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(values.reshape(-1)), mask=pa.array(~valid)
        )

    def check_counts(self, counts: Mapping[str, int], model: Model) -> None:
        n_scores = int(model["n_scores"][0])
        if self.by == "order":
            digest = "".join(f"{counts[name] % 2**64:016x}" for name in ("digest_0", "digest_1"))
            if counts["n_rows"] != n_scores:
                raise DataselectError(
                    f"{self.file}: has {n_scores} rows, but the input has {counts['n_rows']}"
                )
            if digest != self.rows_digest:
                raise DataselectError(
                    f"{self.file}: rows_digest is {self.rows_digest}, but that of the input is {digest}: the "
                    "scores are of other rows"
                )
        share = counts["n_matched"] / max(counts["n_reach"], 1)
        if counts["n_reach"] and not counts["n_matched"]:
            raise DataselectError(f"{self.file}: has none of the documents; is it of another corpus?")
        if counts["n_reach"] and self.min_matched is not None and share < self.min_matched:
            raise DataselectError(
                f"{self.file}: has only {counts['n_matched']} of {counts['n_reach']} documents, {share:.2%}: "
                f"less than min_matched: {self.min_matched:g}"
            )

    def keep(self, columns: Columns) -> Rules:
        if self.missing != "drop":
            return {}
        values = columns[self.as_]
        if isinstance(values, np.ndarray):
            return {f"no {self.as_}": np.isnan(values)}
        return {f"no {self.as_}": values.is_null().to_numpy(zero_copy_only=False)}


def _joined(keys: list[pa.Array]) -> pa.Array:
    """One string for each row's keys; null where one is."""
    if len(keys) == 1:
        return keys[0]
    return pc.binary_join_element_wise(*keys, pa.scalar("\0", pa.large_string()))


def _joined_parts(parts: list[np.ndarray]) -> np.ndarray:
    """Their concatenation; the list is empty afterwards."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _negative(x: np.ndarray) -> np.ndarray:
    return -x


def _log(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.log(x)
    return out


def _logit(p: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.log(p) - np.log1p(-p)
    return out


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": _log,
    "logit": _logit,
    "negative": _negative,
}
