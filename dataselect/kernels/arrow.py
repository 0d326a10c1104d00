"""Arrow string columns as the (offsets, bytes) pair that every text kernel takes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def text_buffers(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The text of `array` as (offsets int64[n_docs + 1], data uint8[:]), both read-only.

    Document i is `data[offsets[i]:offsets[i + 1]]`, UTF-8; offsets[0] may be > 0 (slices). A null is an
    empty document. Nothing is copied of large_string, only the offsets of string; more than one chunk,
    dictionaries, string views and nulls that hide bytes are rewritten.
    Raises TypeError where the column holds no text.
    """
    large = _large_string(array)
    offsets, data = _views(large)
    if large.null_count:
        lengths = np.diff(offsets)
        is_null = np.asarray(large.is_null())
        if lengths[is_null].any():  # Arrow allows any bytes under a null
            offsets, data = _views(pc.fill_null(large, ""))
    return offsets, data


def _large_string(array: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    if isinstance(array, pa.ChunkedArray):
        # The wider offsets come first: chunks of `string` can pass 2 GiB together.
        chunks = [_large_string(chunk) for chunk in array.chunks]
        if len(chunks) == 1:
            return chunks[0]
        return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type):
        return array
    if pa.types.is_string(array.type) or pa.types.is_string_view(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.large_string())
    raise TypeError(f"expected a string column, got {array.type}")


def _views(array: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    _, offsets_buffer, data_buffer = array.buffers()
    if len(array) == 0 or offsets_buffer is None:
        return _frozen(np.zeros(len(array) + 1, np.int64)), _frozen(np.zeros(0, np.uint8))
    offsets = np.frombuffer(offsets_buffer, np.int64, len(array) + 1, array.offset * 8)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return _frozen(offsets if offsets.flags.aligned else offsets.copy()), _frozen(data)


def _frozen(view: np.ndarray) -> np.ndarray:
    view.flags.writeable = False
    return view
