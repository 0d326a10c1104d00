"""Natural logarithms in fixed point, the same on every platform.

C libraries and numpy's vector code differ in the last bit of a logarithm, which is enough to move a number
that is rounded to 2^-44. Here only +, -, * and / of IEEE doubles are used, one numpy operation at a time.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import cache

import numpy as np

FIXED_BITS = 44
"""Results are integers in units of 2^-FIXED_BITS."""
_INNER_BITS = 56
_STEPS = 256  # of the table of logarithms, over [0.5, 1)


@cache
def _table() -> tuple[int, np.ndarray]:
    """Logarithms of 2 and of the middle of every step, int64[_STEPS], in units of 2^-_INNER_BITS."""
    context = Context(prec=40)

    def fixed(x: Decimal) -> int:
        return int((x.ln(context) * (1 << _INNER_BITS)).to_integral_value())

    middles = [Decimal(2 * (_STEPS + i) + 1) / (4 * _STEPS) for i in range(_STEPS)]
    return fixed(Decimal(2)), np.array([fixed(middle) for middle in middles], np.int64)


def fixed_log(x: np.ndarray) -> np.ndarray:
    """Logarithms as int64 in units of 2^-FIXED_BITS, within 0.51 of one, for x from 2^-64 to 2^64."""
    ln_2, ln_middle = _table()
    fraction, exponent = np.frexp(x)
    step = np.floor(fraction * (2 * _STEPS)).astype(np.int64) - _STEPS
    middle = (2.0 * (_STEPS + step) + 1.0) / (4.0 * _STEPS)
    r = (fraction - middle) / middle  # at most 2^-9 in size, so r^7 / 7 < 2^-65
    series = r * (1.0 + r * (-1 / 2 + r * (1 / 3 + r * (-1 / 4 + r * (1 / 5 + r * (-1 / 6))))))
    inner = exponent.astype(np.int64) * ln_2 + ln_middle[step]
    inner += np.rint(series * 2.0**_INNER_BITS).astype(np.int64)
    shift = _INNER_BITS - FIXED_BITS
    return (inner + (1 << (shift - 1))) >> shift
