"""Repeated n-grams of a document's words, orders 2 to 10, in time linear in the number of words.

An n-gram can be repeated only where both (n-1)-grams inside it are. So words get numbers, and each order only
looks at the positions that the order before left: a pair of numbers is an exact key, and the lists shrink
quickly in ordinary text. From the positions of the repeated n-grams of an order follow all definitions
of the field: datatrove's greedy scan, Dolma's sum over occurrences, DCLM's and RedPajama-V2's covered words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataselect.kernels.layout import (
    DUP,
    ENTROPY,
    ENTROPY_SCALE,
    N_REPETITION_COUNTS,
    N_UNIQUE,
    TOP,
)
from dataselect.kernels.primitives import helper
from dataselect.kernels.tokens import ONE


@helper
def clear_table(keys: Any, n_entries: int) -> int:
    """Empty the first slots, a power of two at least twice n_entries; returns their number - 1."""
    size = 16
    while size < 2 * n_entries:
        size *= 2
    for i in range(size):
        keys[i] = 0
    return size - 1


@helper
def find_slot(keys: Any, mask: int, key: Any) -> int:
    """The slot of the key, or the empty one where it belongs; a key 0 is read as 1."""
    key = max(key, ONE)
    slot = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while min(keys[slot], keys[slot] ^ key) != 0:  # one branch: whether a key is new is a coin toss
        slot = (slot + 1) & mask
    return slot


@helper
def number_keys(found: Any, n_found: int, table: Any, lists: Any) -> int:
    """Number the distinct keys found[:n_found], in order; fills numbers, counts, firsts (of an index).

    Returns how many there are. Whether a key is new is a coin toss, so nothing branches on it.
    """
    keys, values = table
    numbers, _, counts, firsts = lists
    mask = clear_table(keys, n_found)
    for i in range(n_found):
        counts[i] = 0
    n_distinct = np.int32(0)
    for i in range(n_found):
        key = max(found[i], ONE)
        slot = find_slot(keys, mask, key)
        is_new = keys[slot] == 0
        known = values[slot]
        number = n_distinct if is_new else known
        first = firsts[number]
        keys[slot] = key
        values[slot] = number
        numbers[i] = number
        counts[number] += 1
        firsts[number] = np.int32(i) if is_new else first
        n_distinct = np.int32(n_distinct + is_new)
    return np.int64(n_distinct)


@helper
def pair_up(n_listed: int, pairs: Any, lists: Any) -> int:
    """Of neighbours in the list that are neighbours in the text, their numbers as one key; how many."""
    numbers, positions = lists[0], lists[1]
    n = 0
    for i in range(n_listed - 1):
        first = positions[i]
        pairs[n] = np.uint64(numbers[i] + 1) << np.uint64(32) | np.uint64(numbers[i + 1] + 1)
        n_next = n + (positions[i + 1] == first + 1)
        positions[n] = first
        n = n_next
    return n


@helper
def keep_repeated(n_listed: int, lists: Any) -> int:
    """Leave those in the list that occur twice or more."""
    numbers, positions, counts, _ = lists
    n = 0
    for i in range(n_listed):
        number = numbers[i]
        positions[n] = positions[i]
        numbers[n] = number
        n += counts[number] > 1
    return n


@helper
def measure_top(order: int, n_distinct: int, ends: Any, lists: Any, out: Any, at: int) -> None:
    _, positions, counts, firsts = lists
    most, chars, longest = np.int32(1), ends[order] - ends[0], np.int64(0)
    for g in range(n_distinct):
        most = max(most, counts[g])
    for g in range(n_distinct if most > 1 else 0):
        if counts[g] == most:
            first = positions[firsts[g]]
            length = ends[first + order] - ends[first]
            chars = length if longest == 0 else chars
            longest = max(longest, length)
    out[at] = most
    out[at + 1] = chars
    out[at + 2] = max(longest, chars)


@helper
def measure_repeated(order: int, n_listed: int, ends: Any, lists: Any, out: Any, at: int) -> None:
    """From the list of positions of repeated n-grams; their counts are used up as marks of the greedy
    scan.
    """
    numbers, positions, counts, _ = lists
    greedy = total = covered = np.int64(0)
    next_free = covered_to = np.int64(0)
    for i in range(n_listed):
        first = np.int64(positions[i])
        last = first + order
        length = ends[last] - ends[first]
        total += length
        covered += ends[last] - ends[max(first, covered_to)]
        covered_to = last
        if first >= next_free:
            if counts[numbers[i]] < 0:
                greedy += length
                next_free = last
            else:
                counts[numbers[i]] = -counts[numbers[i]]
    out[at] = greedy
    out[at + 1] = total
    out[at + 2] = covered


@helper
def all_ngrams(order: int, n_words: int, ends: Any) -> int:
    """Code points of all n-grams together: the sum of ends[i + order] - ends[i], most of which cancels."""
    total = np.int64(0)
    for k in range(order):
        total += ends[n_words - k] - ends[k]
    return total


@helper
def count_repetition(words: Any, entropy_too: bool, table: Any, lists: Any, out: Any) -> None:
    """Fill out[0:N_REPETITION_COUNTS] from words = (hashes, ends, lengths, counts, n_kept).

    The hashes are used up. table: keys uint64, values int32, of a power of two of at least twice the words'
    number; lists: numbers, positions, counts, firsts int32. Only the first n_kept words are looked at.
    """
    hashes, ends, n_words = words[0], words[1], min(words[3][0], words[4])
    for i in range(N_REPETITION_COUNTS):
        out[i] = 0
    positions, counts = lists[1], lists[2]
    n_distinct = number_keys(hashes, n_words, table, lists)
    out[N_UNIQUE] = n_distinct
    if entropy_too and n_words:
        entropy = 0.0
        for g in range(n_distinct):
            share = counts[g] / n_words
            entropy -= share * np.log(share)
        out[ENTROPY] = np.int64(np.rint(entropy * ENTROPY_SCALE))
    for i in range(n_words):
        positions[i] = i
    n_listed = keep_repeated(n_words, lists)
    for order in range(2, 11):
        if order > n_words:
            break
        n_listed = pair_up(n_listed, hashes, lists)
        n_distinct = number_keys(hashes, n_listed, table, lists)
        if order < 5:
            measure_top(order, n_distinct, ends, lists, out, TOP + 3 * (order - 2))
        n_listed = keep_repeated(n_listed, lists)
        if order >= 5:
            measure_repeated(order, n_listed, ends, lists, out, DUP + 4 * (order - 5))
            out[DUP + 4 * (order - 5) + 3] = all_ngrams(order, n_words, ends)
