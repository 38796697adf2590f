"""Triton kernels of the negative binomial, plain and zero-inflated; imported only on CUDA.

The arithmetic is that of `vcell.kernels.likelihood` and `vcell.kernels.zero_inflated`, which
explain the formulas: the same polynomials, so that results agree, and so that the interpreter
(which has no libdevice) can run them. A step is five launches, in which each logit is read from
memory three times and overwritten by its gradient once:

    row_sums      each row's maximum and sum of exponentials
    at_counts     the counts' part of a row's loss and gradients, from the logits
    dense_sums    each row as if all counts were 0: loss, sum of gradients; by theta, for some rows
    gradients     over the logits, and over pi
    scatter       the counts' part of them

Losses of large counts and tiny dispersions are computed in float64, as on a CPU. Legend: B cells, G
genes; pointers are to contiguous float32 unless the name says otherwise; logits and pi may be
float32, bfloat16 or float16.
"""

# ruff: noqa: PLR0913, PLR0915, PLR0917  # Triton's ways
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from vcell.kernels import counting, elementary

_c = tl.constexpr
LOG2E, LN2_HIGH, LN2_LOW = (
    _c(float(v)) for v in (elementary.LOG2E, elementary.LN2_HIGH, elementary.LN2_LOW)
)
LN2, ROUND, LOWEST = (_c(float(v)) for v in (elementary.LN2, elementary.ROUND, elementary.LOWEST))
E0, E1, E2, E3, E4 = (_c(float(getattr(elementary, f"E{i}"))) for i in range(5))
L0, L1, L2, L3, L4, L5, L6, L7 = (_c(float(getattr(elementary, f"L{i}"))) for i in range(8))
T0, T1, T2, T3, T4 = (_c(float(getattr(elementary, f"T{i}"))) for i in range(5))
SQRT_HALF = _c(0x3F3504F3)
ONE_BITS = _c(0x3F800000)
LEAST = _c(counting.LEAST_LOOKED_UP)
HALF_LOG_2PI = _c(0.9189385332046727)


@triton.jit
def _expm1_and_scale(x):
    x = tl.maximum(x, LOWEST)
    shifted = x * LOG2E + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = (((E4 * r + E3) * r + E2) * r + E1) * r + E0
    scale = ((shifted.to(tl.int32, bitcast=True) << 23) + ONE_BITS).to(tl.float32, bitcast=True)
    return r + r * r * p, scale


@triton.jit
def _exp(x):
    e, s = _expm1_and_scale(x)
    return s * e + s


@triton.jit
def _log(x):
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - SQRT_HALF) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    p = ((((((L7 * f + L6) * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0
    return exponent.to(tl.float32) * LN2 + (f + f * f * (f * p - 0.5))


@triton.jit
def _log1p(u, inverse):
    s = 1.0 + u
    return _log(s) + (u - (s - 1.0)) * inverse


@triton.jit
def _log1p_less_share(u, inverse, log_1p):
    v = u * inverse
    series = v * v * ((((T4 * v + T3) * v + T2) * v + T1) * v + T0)
    return tl.where(v < 0.125, series, log_1p - v)


@triton.jit
def _zero(a, pi):
    """Return the loss of a zero, the probability that it was counted, and the gradient by pi."""
    z = _exp(-tl.abs(pi))
    near = 1.0 / (1.0 + z)
    far = z * near
    dropped = tl.where(pi > 0, near, far)
    kept = tl.where(pi > 0, far, near)
    e, s = _expm1_and_scale(a)
    em1 = s * e + (s - 1.0)
    counted = kept * (s * e + s)
    v = -kept * em1
    small = v < 0.5
    total = tl.where(small, 1.0 - v, dropped + counted)
    rest = tl.where(small, -v - (total - 1.0), 0.0)
    inverse = 1.0 / total
    return -(_log(total) + rest * inverse), counted * inverse, kept * dropped * em1 * inverse


@triton.jit
def _log1p_double(u):
    s = 1.0 + u
    return tl.log(s) + (u - (s - 1.0)) / s


@triton.jit
def _rising_double(x, t):
    """Return S, A0 and A1 of `vcell.kernels.counting` in float64."""
    s = tl.zeros_like(x)
    a0 = tl.zeros_like(x)
    a1 = tl.zeros_like(x)
    product = s + 1.0
    for i in tl.static_range(8):
        here = (x > i) & (t < 8.0)
        product = tl.where(here, product * (1.0 + i / t), product)
        a0 += tl.where(here, 1.0 / (t + i), 0.0)
        a1 += tl.where(here, i / (t + i), 0.0)
    terms = tl.where(t < 8.0, tl.minimum(x, 8.0), 0.0)
    z = t + terms
    n = x - terms
    y = z + n
    p = 1.0 / (z * z)
    q = 1.0 / (y * y)
    ratio = _log1p_double(n / z)
    series_z = (1 / 12 - p * (1 / 360 - p * (1 / 1260 - p / 1680))) / z
    series_y = (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q / 1680))) / y
    s = tl.log(product) + n * _log1p_double(terms / t)
    s += (y - 0.5) * ratio - n + (series_y - series_z)
    slope_z = p * (1 / 12 - p * (1 / 120 - p * (1 / 252 - p / 240)))
    slope_y = q * (1 / 12 - q * (1 / 120 - q * (1 / 252 - q / 240)))
    difference = ratio + 0.5 * n / (z * y) + (slope_z - slope_y)
    return s, a0 + difference, a1 + (n - t * difference)


@triton.jit
def row_sums(logits, highest, total, n_genes, BLOCK: tl.constexpr):
    """Compute each row's maximum, and its sum of exp(logits - maximum). One program per row."""
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * n_genes
    most = -float("inf")
    found = 0.0
    for at in range(0, n_genes, BLOCK):
        g = at + tl.arange(0, BLOCK)
        x = tl.load(start + g, mask=g < n_genes, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(most, tl.max(x, 0))
        part = tl.where(g < n_genes, _exp(x - higher), 0.0)
        found = found * tl.where(most == higher, 1.0, _exp(most - higher)) + tl.sum(part, 0)
        most = higher
    tl.store(highest + row, most)
    tl.store(total + row, found)


@triton.jit
def at_counts(
    logits, pi, begin_i64, indices_i32, counts, shift, theta, s, a0, a1, factorial, first,
    loss, slope, by_logit, by_theta, by_pi, n_genes,
    TABLE: tl.constexpr, ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the counts' part of a row: loss, sum of gradients, and the gradients at each count.

    `shift` converts a row's logits to log means; `by_logit`, `by_theta` and `by_pi` start at
    position `first` of the counts. One program per row.
    """
    row = tl.program_id(0)
    start = row.to(tl.int64) * n_genes
    add = tl.load(shift + row)
    a = tl.load(begin_i64 + row)
    z = tl.load(begin_i64 + row + 1)
    value = tl.zeros((BLOCK,), tl.float32)
    slopes = tl.zeros((BLOCK,), tl.float32)
    for at in range(a, z, BLOCK):
        k = at + tl.arange(0, BLOCK)
        here = k < z
        g = tl.load(indices_i32 + k, mask=here, other=0)
        x = tl.load(counts + k, mask=here, other=0.0)
        here = here & (x > 0)
        log_mu = tl.load(logits + start + g, mask=here, other=0.0).to(tl.float32) + add
        t = tl.load(theta + g, mask=here, other=1.0)
        mu = _exp(log_mu)
        u = mu / t
        r = 1.0 / (1.0 + u)
        log_1p = _log1p(u, r)
        looked = here & (x < TABLE) & (t >= LEAST)
        place = x.to(tl.int64) * n_genes + g
        fact = tl.load(factorial + x.to(tl.int32), mask=here & (x < TABLE), other=0.0)
        sum_s = tl.load(s + place, mask=looked, other=0.0)
        sum_0 = tl.load(a0 + place, mask=looked, other=0.0)
        sum_1 = tl.load(a1 + place, mask=looked, other=0.0)
        own = x * (log_1p - log_mu) - sum_s + fact
        by_t = r / t * (sum_1 - mu * sum_0)
        rare = here & (looked == 0)
        if tl.max(rare.to(tl.int32), 0) > 0:
            xd = tl.where(rare, x, 1.0).to(tl.float64)
            td = t.to(tl.float64)
            log_mud = log_mu.to(tl.float64)
            mud = tl.exp(log_mud)
            big_s, big_0, big_1 = _rising_double(xd, td)
            w = xd + 1.0
            stirling = (w - 0.5) * tl.log(w) - w + HALF_LOG_2PI + (1 / 12 - 1 / (360 * w * w)) / w
            factd = tl.where(x < TABLE, fact.to(tl.float64), stirling)
            big = xd * (_log1p_double(mud / td) - log_mud) - big_s + factd
            own = tl.where(rare, big.to(tl.float32), own)
            by_t = tl.where(rare, ((big_1 - mud * big_0) / (td + mud)).to(tl.float32), by_t)
        change = -x * r
        if ZERO:
            p = tl.load(pi + start + g, mask=here, other=0.0).to(tl.float32)
            dense = t * log_1p
            at_zero, q, _ = _zero(-dense, p)
            e = _exp(-tl.abs(p))
            near = 1.0 / (1.0 + e)
            own += tl.maximum(p, 0.0) + _log1p(e, near) + dense - at_zero
            change += (1.0 - q) * mu * r
            by_t += (1.0 - q) * _log1p_less_share(u, r, log_1p)
            tl.store(by_pi + k - first, tl.where(p > 0, near, e * near), mask=here)
        value += tl.where(here, own, 0.0)
        slopes += tl.where(here, change, 0.0)
        written = k < z
        tl.store(by_logit + k - first, tl.where(here, change, 0.0), mask=written)
        tl.store(by_theta + k - first, tl.where(here, by_t, 0.0), mask=written)
    tl.store(loss + row, tl.sum(value, 0))
    tl.store(slope + row, tl.sum(slopes, 0))


@triton.jit
def dense_sums(
    logits, pi, highest, scale, weight, theta, loss, slope, by_theta, n_rows, n_genes,
    ZERO: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Process rows as if all counts were 0: losses and slopes (B, blocks), by theta (tiles, G).

    One program per block of genes of ROWS rows.
    """
    tile = tl.program_id(0)
    block = tl.program_id(1)
    n_blocks = tl.num_programs(1)
    g = block * BLOCK + tl.arange(0, BLOCK)
    here = g < n_genes
    t = tl.load(theta + g, mask=here, other=1.0)
    inverse_t = 1.0 / t
    own = tl.zeros((BLOCK,), tl.float32)
    for i in range(ROWS):
        row = tile * ROWS + i
        is_row = row < n_rows
        at = row.to(tl.int64) * n_genes + g
        x = tl.load(logits + at, mask=here & is_row, other=0.0).to(tl.float32)
        e = _exp(x - tl.load(highest + row, mask=is_row, other=0.0))
        mu = tl.where(here, e * tl.load(scale + row, mask=is_row, other=0.0), 0.0)
        u = mu * inverse_t
        r = 1.0 / (1.0 + u)
        log_1p = _log1p(u, r)
        value = t * log_1p
        change = mu * r
        by_t = _log1p_less_share(u, r, log_1p)
        if ZERO:
            p = tl.load(pi + at, mask=here & is_row, other=0.0).to(tl.float32)
            value, q, _ = _zero(-value, p)
            change = q * change
            by_t = q * by_t
        own += tl.load(weight + row, mask=is_row, other=0.0) * by_t
        place = row * n_blocks + block
        tl.store(loss + place, tl.sum(tl.where(here, value, 0.0), 0), mask=is_row)
        tl.store(slope + place, tl.sum(change, 0), mask=is_row)
    tl.store(by_theta + tile.to(tl.int64) * n_genes + g, own, mask=here)


@triton.jit
def gradients(
    logits, pi, highest, scale, factor, weight, theta, n_genes,
    ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Overwrite logits and pi by the gradients of rows without counts."""
    row = tl.program_id(0)
    g = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = g < n_genes
    at = row.to(tl.int64) * n_genes + g
    x = tl.load(logits + at, mask=here, other=0.0).to(tl.float32)
    e = _exp(x - tl.load(highest + row))
    mu = e * tl.load(scale + row)
    w = tl.load(weight + row)
    t = tl.load(theta + g, mask=here, other=1.0)
    u = mu / t
    r = 1.0 / (1.0 + u)
    change = mu * r
    if ZERO:
        p = tl.load(pi + at, mask=here, other=0.0).to(tl.float32)
        _, q, by_pi = _zero(-t * _log1p(u, r), p)
        change = q * change
        tl.store(pi + at, (w * by_pi).to(pi.dtype.element_ty), mask=here)
    out = w * (change - tl.load(factor + row) * e)
    tl.store(logits + at, out.to(logits.dtype.element_ty), mask=here)


@triton.jit
def scatter(
    grad, grad_pi, begin_i64, indices_i32, counts, weight, by_logit, by_pi, first, n_genes,
    ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the counts' part of the gradients; that by pi is replaced. One program per row."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * n_genes
    a = tl.load(begin_i64 + row)
    z = tl.load(begin_i64 + row + 1)
    w = tl.load(weight + row)
    for at in range(a, z, BLOCK):
        k = at + tl.arange(0, BLOCK)
        x = tl.load(counts + k, mask=k < z, other=0.0)
        here = (k < z) & (x > 0)
        g = tl.load(indices_i32 + k, mask=here, other=0)
        out = grad + start + g
        before = tl.load(out, mask=here, other=0.0).to(tl.float32)
        change = tl.load(by_logit + k - first, mask=here, other=0.0)
        tl.store(out, (before + w * change).to(grad.dtype.element_ty), mask=here)
        if ZERO:
            p = tl.load(by_pi + k - first, mask=here, other=0.0)
            tl.store(grad_pi + start + g, (w * p).to(grad_pi.dtype.element_ty), mask=here)
