"""Where the frames of a .zst file start, found without decompressing it (RFC 8878, section 3)."""

from __future__ import annotations

from typing import BinaryIO

from dataselect.core.errors import BadShard
from dataselect.io.batch import Source

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"  # after a byte 0x50..0x5f
_RLE, _RESERVED = 1, 3


def frame_offsets(source: Source, limit: int | None = None) -> list[int] | None:
    """Compressed offsets at which the data frames of `source` start, ascending; the first is always 0.

    Skippable frames belong to the data frame before them (leading ones to the first). None where the
    file is no plain run of whole frames, or has more than `limit` blocks: then it is read as one piece,
    and what is wrong with it is said by the reader. Costs one small read per block (at most 128 KiB of
    text each). Raises BadShard where the file can't be opened or read.
    """
    try:
        with source.open() as file:
            return _walk(file, source.size, limit)
    except OSError as error:
        raise BadShard(f"{source.name}: cannot be read: {error}") from error


def _walk(file: BinaryIO, size: int, limit: int | None) -> list[int] | None:
    offsets: list[int] = []
    position, n_blocks = 0, 0
    while position < size:
        file.seek(position)
        header = file.read(8)
        if header[:4] == _MAGIC and len(header) > 4:
            offsets.append(position)
            has_checksum, n_header = _frame_header(header[4])
            position += n_header
            last = False
            while not last:
                n_blocks += 1
                file.seek(position)
                block = int.from_bytes(file.read(3).ljust(3, b"\xff"), "little")
                last, kind, n_bytes = bool(block & 1), block >> 1 & 3, block >> 3
                if kind == _RESERVED or position > size or (limit is not None and n_blocks > limit):
                    return None
                position += 3 + (1 if kind == _RLE else n_bytes)
            position += 4 * has_checksum
        elif header[1:4] == _SKIPPABLE_MAGIC and header[0] >> 4 == 5 and len(header) == 8:
            position += 8 + int.from_bytes(header[4:], "little")
        else:
            return None
    if position != size or not offsets:
        return None
    return [0, *offsets[1:]]


def _frame_header(descriptor: int) -> tuple[bool, int]:
    """(has a checksum, bytes of magic and frame header) from the Frame_Header_Descriptor."""
    single_segment = descriptor >> 5 & 1
    n_content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    n_dictionary = (0, 1, 2, 4)[descriptor & 3]
    return bool(descriptor >> 2 & 1), 5 + (1 - single_segment) + n_dictionary + n_content_size
