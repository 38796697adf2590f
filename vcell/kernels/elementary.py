"""exp, log1p and their relatives in float32, written so that LLVM vectorises loops over them.

numba has no vector library: a call of the C library's ``expf`` prevents vectorisation of the whole
loop, which is then four times slower. The polynomials are weighted least-squares fits (reweighted
until the error is level), with relative errors below 2e-8 before rounding: see
`tests/kernels/test_elementary.py`.

Multiplications and additions may be contracted to one rounding (``FLAGS``), nothing else: full
fastmath rewrites ``u - ((1 + u) - 1)``, on which the accuracy of `log1p` depends, to zero. Sums
over a loop must be reordered to be vectorised; `plus` allows it for one addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from vcell.kernels.intrinsic import Intrinsic, types
from vcell.kernels.kernel import njit

#: numba's fastmath flags for every kernel that uses these.
FLAGS = {"contract"}

_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_MAGIC = 12582912.0  # 1.5 * 2**23: adding it rounds to the nearest integer
_SQRT_HALF = 0x3F3504F3  # bits of sqrt(1/2), the smallest mantissa

F = np.float32
LOG2E, LN2_HIGH, LN2_LOW = F(1.4426950408889634), F(0.693359375), F(-2.12194440e-4)
LN2 = F(0.6931471805599453)
ROUND = F(_MAGIC)
LOWEST = F(-87.0)  # exp(LOWEST) is the smallest number returned: 1.6e-38, not denormal
ONE, HALF = F(1.0), F(0.5)
# expm1(r) = r + r^2 P(r) for |r| <= log(2) / 2
E0, E1, E2, E3, E4 = (
    F(5.000000062e-01), F(1.666654243e-01), F(4.166628027e-02), F(8.366659308e-03),
    F(1.394658105e-03),
)  # fmt: skip
# log(1 + f) = f - f^2/2 + f^3 P(f) for sqrt(1/2) <= 1 + f <= sqrt(2)
L0, L1, L2, L3, L4, L5, L6, L7 = (
    F(3.333331663e-01), F(-2.500081202e-01), F(2.000229503e-01), F(-1.662449871e-01),
    F(1.418095662e-01), F(-1.312910128e-01), F(1.288349537e-01), F(-7.860939356e-02),
)  # fmt: skip
# -log(1 - v) - v = v^2 P(v) for 0 <= v <= 1/8
T0, T1, T2, T3, T4 = (
    F(5.000000121e-01), F(3.333286141e-01), F(2.502941831e-01), F(1.936470057e-01),
    F(2.210370501e-01),
)  # fmt: skip
EIGHTH = F(0.125)


@Intrinsic
def plus(_context: Any, a: Any, b: Any) -> Any:
    """Return ``a + b``; LLVM may reorder the sum."""

    def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1], flags=("reassoc", "contract"))

    return types.float32(types.float32, types.float32), emit


@Intrinsic
def larger(_context: Any, a: Any, b: Any) -> Any:
    """Return ``max(a, b)``; LLVM may reorder it, and NaN is undefined."""

    def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        flags = ("nnan", "nsz")
        above = builder.fcmp_ordered(">", args[0], args[1], flags=flags)
        return builder.select(above, args[0], args[1])

    return types.float32(types.float32, types.float32), emit


@Intrinsic
def _power_of_two(_context: Any, shifted: Any) -> Any:
    """Return 2**n, given the float ``n + 1.5 * 2**23``."""

    def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        bits = builder.shl(builder.bitcast(args[0], _INT), ir.Constant(_INT, 23))
        return builder.bitcast(builder.add(bits, ir.Constant(_INT, 0x3F800000)), _FLOAT)

    return types.float32(types.float32), emit


def _exponent_bits(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, _INT)
    return builder.ashr(builder.sub(bits, ir.Constant(_INT, _SQRT_HALF)), ir.Constant(_INT, 23))


@Intrinsic
def _exponent(_context: Any, value: Any) -> Any:
    """Return e of ``value = m * 2**e`` with sqrt(1/2) <= m < sqrt(2), as a float."""

    def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.sitofp(_exponent_bits(builder, args[0]), _FLOAT)

    return types.float32(types.float32), emit


@Intrinsic
def _mantissa(_context: Any, value: Any) -> Any:
    """Return m of the same."""

    def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        exponent = builder.shl(_exponent_bits(builder, args[0]), ir.Constant(_INT, 23))
        return builder.bitcast(builder.sub(builder.bitcast(args[0], _INT), exponent), _FLOAT)

    return types.float32(types.float32), emit


@njit(inline="always", fastmath=FLAGS)
def expm1_and_scale(x: Any) -> tuple[Any, Any]:
    """``e, s`` with ``exp(x) = s * e + s`` and ``expm1(x) = s * e + (s - 1)``, both accurate."""
    x = LOWEST if x < LOWEST else x  # NaN stays
    shifted = x * LOG2E + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = (((E4 * r + E3) * r + E2) * r + E1) * r + E0
    return r + r * r * p, _power_of_two(shifted)


@njit(inline="always", fastmath=FLAGS)
def exp(x: Any) -> Any:
    """``exp(x)`` for x up to 88; 1.6e-38 for anything below -87."""
    e, s = expm1_and_scale(x)
    return s * e + s


@njit(inline="always", fastmath=FLAGS)
def log(x: Any) -> Any:
    """``log(x)`` of a positive, normal number."""
    f = _mantissa(x) - ONE
    p = ((((((L7 * f + L6) * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0
    return _exponent(x) * LN2 + (f + f * f * (f * p - HALF))


@njit(inline="always", fastmath=FLAGS)
def log1p(u: Any, inverse: Any) -> Any:
    """``log(1 + u)`` for u > -1, given ``1 / (1 + u)``; corrects the rounding of 1 + u."""
    s = ONE + u
    return log(s) + (u - (s - ONE)) * inverse


@njit(inline="always", fastmath=FLAGS)
def log1p_less_share(u: Any, inverse: Any, log_1p: Any) -> Any:
    """``log(1 + u) - u / (1 + u)`` for u >= 0 without cancellation; u**2 / 2 where u is small."""
    v = u * inverse
    series = v * v * ((((T4 * v + T3) * v + T2) * v + T1) * v + T0)
    return series if v < EIGHTH else log_1p - v
