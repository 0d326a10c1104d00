"""SHA-256 (FIPS 180-4) of many short messages at once: one message a lane of a vector register.

The compression function is written out as LLVM vector code, which LLVM splits where registers are narrower
than LANES x 32 bits: 16 ns a message with AVX-512, against 250 ns for one message after the other. Longer
messages take lane 0, block after block.
"""

# ruff: noqa: ARG001 - numba calls an intrinsic and its codegen by a fixed list of arguments

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from dataselect.kernels.primitives import SHIFT_32, Word, byte_swap, load_u64

LANES = 16
ONE_BLOCK = 55
"""Bytes of the longest message that fits one block of 64, with its end mark and its length."""
N_STATE, N_WORDS = 8 * LANES, 16 * LANES

_FRACTION = 0xFFFFFFFF


def _primes(n: int) -> list[int]:
    found: list[int] = []
    k = 2
    while len(found) < n:
        if all(k % p for p in found):
            found.append(k)
        k += 1
    return found


def _cube_root(x: int) -> int:
    root = round(x ** (1 / 3))
    while root**3 > x:
        root -= 1
    while (root + 1) ** 3 <= x:
        root += 1
    return root


INITIAL = np.array([isqrt(p << 64) & _FRACTION for p in _primes(8)], np.uint32)
"""First 32 bits of the fractions of the square roots of the first 8 primes."""
ROUND_CONSTANTS = np.array([_cube_root(p << 96) & _FRACTION for p in _primes(64)], np.uint32)
"""... of the cube roots of the first 64."""


@intrinsic
def compress(typing_context: Any, state: Any, words: Any, round_constants: Any) -> Any:
    """One block into `state`, for all lanes: a loop of four times 16 rounds.

    state            pointer to uint32[8, LANES], updated
    words            pointer to uint32[16, LANES]: word i of the lane's block
    round_constants  pointer to uint32[64], ROUND_CONSTANTS
    """
    index, word = ir.IntType(64), ir.IntType(32)
    vector = ir.VectorType(word, LANES)

    def splat(value: int) -> Any:
        return ir.Constant(vector, [value] * LANES)

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        def at(pointer: Any, i: int) -> Any:
            return b.bitcast(b.gep(pointer, [ir.Constant(index, i * LANES)]), vector.as_pointer())

        def round_constant(i: Any) -> Any:
            scalar = b.load(b.gep(arguments[2], [i]))
            first = b.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(word, 0))
            return b.shuffle_vector(first, first, splat(0))

        def rotate(x: Any, n: int) -> Any:
            return b.or_(b.lshr(x, splat(n)), b.shl(x, splat(32 - n)))

        def xor3(x: Any, y: Any, z: Any) -> Any:
            return b.xor(b.xor(x, y), z)

        before = b.block
        loaded = [b.load(at(arguments[0], i), align=4) for i in range(8)]
        loaded += [b.load(at(arguments[1], i), align=4) for i in range(16)]
        loop = b.append_basic_block("rounds")
        b.branch(loop)
        b.position_at_end(loop)
        first = b.phi(index)
        first.add_incoming(ir.Constant(index, 0), before)
        carried = [b.phi(vector) for _ in loaded]
        for phi, value in zip(carried, loaded, strict=True):
            phi.add_incoming(value, before)
        a, b_, c, d, e, f, g, h = carried[:8]
        w = carried[8:]
        for i in range(16):
            constant = b.add(round_constant(b.add(first, ir.Constant(index, i))), w[i])
            sum_e = xor3(rotate(e, 6), rotate(e, 11), rotate(e, 25))
            t1 = b.add(b.add(h, sum_e), b.add(b.xor(g, b.and_(e, b.xor(f, g))), constant))
            sum_a = xor3(rotate(a, 2), rotate(a, 13), rotate(a, 22))
            t2 = b.add(sum_a, b.or_(b.and_(a, b_), b.and_(c, b.or_(a, b_))))
            a, b_, c, d, e, f, g, h = b.add(t1, t2), a, b_, c, b.add(d, t1), e, f, g
        for i in range(16):  # the next 16 words; the last time for nothing
            x, y = w[(i + 1) % 16], w[(i + 14) % 16]
            from_x = xor3(rotate(x, 7), rotate(x, 18), b.lshr(x, splat(3)))
            from_y = xor3(rotate(y, 17), rotate(y, 19), b.lshr(y, splat(10)))
            w[i] = b.add(b.add(w[i], from_x), b.add(w[(i + 9) % 16], from_y))
        state_after = [a, b_, c, d, e, f, g, h]
        for phi, value in zip(carried, [*state_after, *w], strict=True):
            phi.add_incoming(value, b.block)
        following = b.add(first, ir.Constant(index, 16))
        first.add_incoming(following, b.block)
        done = b.append_basic_block("done")
        b.cbranch(b.icmp_unsigned("<", following, ir.Constant(index, 64)), loop, done)
        b.position_at_end(done)
        for i, (old, new) in enumerate(zip(loaded[:8], state_after, strict=True)):
            b.store(b.add(old, new), at(arguments[0], i), align=4)
        return context.get_dummy_value()

    return types.void(state, words, round_constants), codegen


@njit
def set_block(data: Any, start: int, n_bytes: int, block: int, words: Any, lane: int) -> None:
    """Block number `block` of the message data[start:start + n_bytes] into a lane of `words`.

    0x80 follows the message's last byte, then zeros; the last block ends in the length in bits. Reads up to 7
    bytes after the message.
    """
    n_left = n_bytes - 64 * block
    for pair in range(8):
        value = np.uint64(0)
        if pair == 7 and n_left <= ONE_BLOCK:
            value = np.uint64(8) * np.uint64(n_bytes)
        elif n_left > 8 * pair:
            value = np.uint64(byte_swap(load_u64(data, start + 64 * block + 8 * pair)))
            if n_left < 8 * pair + 8:
                unused = np.uint64(64 - 8 * (n_left - 8 * pair))
                value = (value >> unused << unused) | (np.uint64(0x80) << (unused - np.uint64(8)))
        elif n_left == 8 * pair:
            value = np.uint64(1) << np.uint64(63)
        words[2 * pair * LANES + lane] = np.uint32(value >> SHIFT_32)
        words[(2 * pair + 1) * LANES + lane] = np.uint32(value & np.uint64(0xFFFFFFFF))


@njit
def hash_lanes(
    data: Any, start: int, n_bytes: int, initial: Any, round_constants: Any, words: Any, state: Any
) -> None:
    """SHA-256 of every lane's one block, which `words` holds, into `state`.

    Where n_bytes > ONE_BLOCK, of data[start:start + n_bytes] into lane 0; other lanes hold nothing then.
    """
    for i in range(8):
        for lane in range(LANES):
            state[i * LANES + lane] = initial[i]
    n_blocks = 1 if n_bytes <= ONE_BLOCK else (n_bytes + 8) // 64 + 1
    for block in range(n_blocks):
        if n_blocks > 1:
            set_block(data, start, n_bytes, block, words, np.int64(0))
        compress(state, words, round_constants)


@njit
def digest_mod(state: Any, lane: int, powers: Any, modulus: Word) -> Word:
    """A lane's digest, read as one big-endian integer, mod `modulus` <= 2^29.

    powers  uint64[8]: 2^(32 * (7 - i)) mod modulus
    """
    total = np.uint64(0)
    for i in range(8):
        total += np.uint64(state[i * LANES + lane]) * powers[i]
    return total % modulus


def digest_powers(modulus: int) -> np.ndarray:
    """uint64[8] for `digest_mod`."""
    return np.array([pow(2, 32 * (7 - i), modulus) for i in range(8)], np.uint64)
