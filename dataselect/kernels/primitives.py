"""What the kernels share: read-only array types, unaligned loads, 64-byte class masks, mixing functions."""

# ruff: noqa: ARG001 - numba calls an intrinsic and its codegen by a fixed list of arguments

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Numba converts a writable array to a read-only argument, not the other way round; so one compiled
# version takes both.
U8 = types.Array(types.uint8, 1, "C", readonly=True)
U16 = types.Array(types.uint16, 1, "C", readonly=True)
U32 = types.Array(types.uint32, 1, "C", readonly=True)
U64 = types.Array(types.uint64, 1, "C", readonly=True)
I32 = types.Array(types.int32, 1, "C", readonly=True)
I64 = types.Array(types.int64, 1, "C", readonly=True)
U32_2D = types.Array(types.uint32, 2, "C", readonly=True)
U64_2D = types.Array(types.uint64, 2, "C", readonly=True)

helper = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorates functions that only kernels call: without the entries from Python they compile a sixth faster."""

Word = Any
"""A 32- or 64-bit unsigned number that wraps around."""

BLOCK = 64
"""Bytes that one mask describes: bit i of a mask is byte i of the block."""

MULTIPLIER_1 = np.uint64(0xFF51AFD7ED558CCD)
MULTIPLIER_2 = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT_32 = np.uint64(32)
SHIFT_33 = np.uint64(33)


def _address(builder: Any, pointer: Any, index: Any, llvm_type: Any) -> Any:
    as_bytes = builder.bitcast(pointer, cgutils.voidptr_t)
    return builder.bitcast(builder.gep(as_bytes, [index]), llvm_type.as_pointer())


@intrinsic
def pointer_to(typing_context: Any, array: Any) -> Any:
    """A bare pointer to the elements of an array ARGUMENT of a kernel, which the caller keeps alive.

    Helpers take pointers: indexing one has no wrap-around test and no reference counting. Counting cost
    100 cycles a character in the tokeniser, since it survives numba's pruning where a helper has branches.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def advance(typing_context: Any, pointer: Any, n: Any) -> Any:
    """The pointer to the element `n` places further on; not below the array's first."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def load_u64(typing_context: Any, data: Any, index: Any) -> Any:
    """The 8 bytes from byte `index` of a byte pointer, at any alignment, in the machine's byte order."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(builder, arguments[0], arguments[1], ir.IntType(64)), align=1)

    return types.uint64(data, types.intp), codegen


@intrinsic
def load_u32(typing_context: Any, data: Any, index: Any) -> Any:
    """The 4 bytes from byte `index` of a byte pointer, at any alignment, in the machine's byte order."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(builder, arguments[0], arguments[1], ir.IntType(32)), align=1)

    return types.uint32(data, types.intp), codegen


@intrinsic
def copy_bytes(typing_context: Any, target: Any, to: Any, source: Any, start: Any, n_bytes: Any) -> Any:
    """Copy n_bytes from byte `start` of a byte pointer to byte `to` of another; they must not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, to_index, out_of, from_index, count = arguments
        byte = ir.IntType(8)
        new, old = _address(builder, into, to_index, byte), _address(builder, out_of, from_index, byte)
        cgutils.raw_memcpy(builder, new, old, count, 1)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), codegen


@intrinsic
def range_mask(typing_context: Any, data: Any, index: Any, set_bits: Any, first: Any, width: Any) -> Any:
    """Bit i: whether byte c = data[index + i], i < 64, has ((c | set_bits) - first) mod 256 <= width.

    `data` is a byte pointer. One compare of a vector register, which LLVM splits where those are narrower.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, position, *scalars = arguments
        vector = ir.VectorType(ir.IntType(8), BLOCK)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)

        def splat(scalar: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            first_lane = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first_lane, undefined, lanes)

        set_bits_lanes, first_lanes, width_lanes = map(splat, scalars)
        block = builder.load(_address(builder, pointer, position, vector), align=1)
        distance = builder.sub(builder.or_(block, set_bits_lanes), first_lanes)
        return builder.bitcast(builder.icmp_unsigned("<=", distance, width_lanes), ir.IntType(64))

    return types.uint64(data, types.intp, types.uint8, types.uint8, types.uint8), codegen


def row_adder(width: int) -> Any:
    """An intrinsic (table, stride, first, rows, n_rows, sums), all arrays by pointers:

    sums[first + c] += table[rows[i] * stride + first + c] for c < width and i < n_rows in order. The table is
    float32, sums are float64 and stay in vector registers over the loop.
    """

    @intrinsic
    def add(
        typing_context: Any, table: Any, stride: Any, first: Any, rows: Any, n_rows: Any, sums: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table_at, stride_of, first_of, rows_at, n, sums_at = arguments
            narrow, wide = (ir.VectorType(kind, width) for kind in (ir.FloatType(), ir.DoubleType()))
            sums_at = builder.bitcast(builder.gep(sums_at, [first_of]), wide.as_pointer())
            total = cgutils.alloca_once(builder, wide)
            builder.store(builder.load(sums_at, align=8), total)
            with cgutils.for_range(builder, n) as loop:
                row = builder.load(builder.gep(rows_at, [loop.index]))
                place = builder.add(builder.mul(row, stride_of), first_of)
                at = builder.bitcast(builder.gep(table_at, [place]), narrow.as_pointer())
                values = builder.fpext(builder.load(at, align=4), wide)
                builder.store(builder.fadd(builder.load(total), values), total)
            builder.store(builder.load(total), sums_at, align=8)
            return context.get_dummy_value()

        return types.void(table, types.intp, types.intp, rows, types.intp, sums), codegen

    return add


def _unary_u64(emit: Any) -> Any:
    @intrinsic
    def function(typing_context: Any, word: Word) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return emit(builder, arguments[0])

        return types.int64(types.uint64), codegen

    return function


byte_swap = _unary_u64(lambda builder, word: builder.bswap(word))
popcount = _unary_u64(lambda builder, word: builder.ctpop(word))
trailing_zeros = _unary_u64(lambda builder, word: builder.cttz(word, ir.Constant(ir.IntType(1), 0)))
leading_zeros = _unary_u64(lambda builder, word: builder.ctlz(word, ir.Constant(ir.IntType(1), 0)))


@njit(inline="always")
def low_bits(n_bits: int) -> Word:
    """A mask of the lowest n_bits (0 to 64) bits; a shift by 64 is undefined in machine code."""
    if n_bits >= 64:
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    return (np.uint64(1) << np.uint64(n_bits)) - np.uint64(1)


@njit(inline="always")
def mix64(word: Word) -> Word:
    """MurmurHash3's 64-bit finaliser (Appleby): a bijection; every input bit reaches every output bit."""
    word = (word ^ (word >> SHIFT_33)) * MULTIPLIER_1
    word = (word ^ (word >> SHIFT_33)) * MULTIPLIER_2
    return word ^ (word >> SHIFT_33)


@njit(inline="always")
def fmix32(word: Word) -> Word:
    """MurmurHash3's 32-bit finaliser (Appleby). Numba widens uint32 * uint32 to uint64, hence the casts."""
    word = np.uint32(word ^ (word >> np.uint32(16)))
    word = np.uint32(word * np.uint32(0x85EBCA6B))
    word = np.uint32(word ^ (word >> np.uint32(13)))
    word = np.uint32(word * np.uint32(0xC2B2AE35))
    return np.uint32(word ^ (word >> np.uint32(16)))
