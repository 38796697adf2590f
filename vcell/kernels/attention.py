"""Attention of one head of one sequence on a CPU, with its own matrix product.

A tile of the result stays in vector registers while a loop runs over the summed dimension. numba's
own loops cannot express this, so the loop is written in LLVM's vector operations, which LLVM
compiles to AVX-512, AVX2 or NEON. Keys are packed once, in panels as wide as a tile; scores of a
block of queries fit into the second-level cache. Tiles at the end overlap their neighbours instead
of being smaller: the same numbers are written twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir

from vcell.kernels import targets
from vcell.kernels.elementary import FLAGS, ONE, exp, plus
from vcell.kernels.intrinsic import Intrinsic, types
from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]  # [N, D]

#: Floats in a vector, and rows of a tile: as many as the registers hold.
LANES, TILE_ROWS = (16, 12) if targets.chosen().wide else (8, 6)
PANEL = 2 * LANES
#: Bytes of the scores of a block of queries: with the packed keys they fit the L2 cache.
_BLOCK_BYTES = 524_288

_LONG, _FLOAT = ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ZERO = np.float32(0)


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@Intrinsic
def _tile(_context: Any, a: Any, a_row: Any, b: Any, b_row: Any, c: Any, c_row: Any, n: Any) -> Any:
    """``c = a @ b`` of TILE_ROWS x PANEL numbers, summed over n; addresses and bytes of a row."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        a, a_row, b, b_row, c, c_row, n = args
        rows = [a]
        for _ in range(TILE_ROWS - 1):
            rows.append(builder.add(rows[-1], a_row))
        before = builder.block
        loop, after = (builder.function.append_basic_block(name) for name in ("sums", "store"))
        builder.branch(loop)
        builder.position_at_end(loop)
        step, b_at = builder.phi(_LONG), builder.phi(_LONG)
        step.add_incoming(ir.Constant(_LONG, 0), before)
        b_at.add_incoming(b, before)
        zero = ir.Constant(_VECTOR, [ir.Constant(_FLOAT, 0.0)] * LANES)
        sums = [[builder.phi(_VECTOR) for _ in range(2)] for _ in rows]
        vectors = [
            builder.load(
                _at(builder, builder.add(b_at, ir.Constant(_LONG, 4 * LANES * i)), _VECTOR), align=4
            )
            for i in range(2)
        ]
        offset = builder.mul(step, ir.Constant(_LONG, 4))
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        added = []
        for row, pair in zip(rows, sums, strict=True):
            one = builder.load(_at(builder, builder.add(row, offset), _FLOAT), align=4)
            first = builder.insert_element(nothing, one, ir.Constant(ir.IntType(32), 0))
            spread = builder.shuffle_vector(first, nothing, everywhere)
            for total, vector in zip(pair, vectors, strict=True):
                product = builder.fmul(spread, vector, flags=("contract",))
                total.add_incoming(zero, before)
                added.append(builder.fadd(total, product, flags=("contract",)))
                total.add_incoming(added[-1], loop)
        following = builder.add(step, ir.Constant(_LONG, 1))
        step.add_incoming(following, loop)
        b_at.add_incoming(builder.add(b_at, b_row), loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
        builder.position_at_end(after)
        for i, total in enumerate(added):
            shift = builder.mul(c_row, ir.Constant(_LONG, i // 2))
            where = builder.add(builder.add(c, shift), ir.Constant(_LONG, 4 * LANES * (i % 2)))
            builder.store(total, _at(builder, where, _VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7), emit


@Intrinsic
def _largest(_context: Any, row: Any, n: Any) -> Any:
    """Return the largest of the n numbers at an address, n a multiple of LANES and above 0."""

    def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        row, n = args
        before = builder.block
        loop, after = (builder.function.append_basic_block(name) for name in ("larger", "largest"))
        start = builder.load(_at(builder, row, _VECTOR), align=4)
        builder.branch(loop)
        builder.position_at_end(loop)
        step, top = builder.phi(_LONG), builder.phi(_VECTOR)
        step.add_incoming(ir.Constant(_LONG, 0), before)
        top.add_incoming(start, before)
        where = builder.add(row, builder.mul(step, ir.Constant(_LONG, 4)))
        here = builder.load(_at(builder, where, _VECTOR), align=4)
        above = builder.select(builder.fcmp_ordered(">", here, top), here, top)
        following = builder.add(step, ir.Constant(_LONG, LANES))
        step.add_incoming(following, loop)
        top.add_incoming(above, loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
        builder.position_at_end(after)
        best = builder.extract_element(above, ir.Constant(ir.IntType(32), 0))
        for i in range(1, LANES):
            one = builder.extract_element(above, ir.Constant(ir.IntType(32), i))
            best = builder.select(builder.fcmp_ordered(">", one, best), one, best)
        return best

    return types.float32(types.int64, types.int64), emit


def fits(length: int, width: int) -> bool:
    """Whether a sequence length and the width of a head fill tiles."""
    return length >= max(PANEL, TILE_ROWS) and width % PANEL == 0


def block_of(length: int) -> int:
    """Return the number of queries in a block for `length` keys."""
    most = max(_BLOCK_BYTES // (4 * length), 4 * TILE_ROWS)
    even = -(-length // -(-length // most))  # blocks of one size
    return min(-(-even // TILE_ROWS) * TILE_ROWS, length)


def row_of(length: int) -> int:
    """Return the floats of a row of scores: an odd number of cache lines.

    With a power of two, the rows of a tile would evict each other from the L1 cache.
    """
    return (-(-length // 16) | 1) * 16


def room(length: int, width: int) -> tuple[int, int, int]:
    """Return the sizes, in floats, of packed keys, scores and their sums."""
    block = block_of(length)
    return -(-length // PANEL) * PANEL * width, block * row_of(length), block


@njit(nogil=True, cache=True, fastmath=FLAGS)
def attend_head(
    queries: Rows,
    keys: Rows,
    values: Rows,
    packed: Rows,
    scores: Rows,
    inverse: Rows,
    out: Rows,
) -> None:
    """Mix one head: ``out = softmax(queries @ keys.T / sqrt(width)) @ values``.

    Parameters
    ----------
    queries, keys, values, out
        ``[L, width]``, rows of any stride; for sizes see `fits`.
    packed, scores, inverse
        Working memory, of the sizes from `room`; scores ``[B, R]``: a row for each query of a
        block.
    """
    length, width = queries.shape
    block = scores.shape[0]
    scale = ONE / np.sqrt(np.float32(width))
    whole = length // LANES * LANES
    _pack(keys, packed)
    q_at, v_at, o_at = queries.ctypes.data, values.ctypes.data, out.ctypes.data
    k_at, s_at = packed.ctypes.data, scores.ctypes.data
    q_row, v_row, o_row = queries.strides[0], values.strides[0], out.strides[0]
    s_row = scores.strides[0]
    for begun in range(0, length, block):
        start = min(begun, length - block)
        for number in range((length + PANEL - 1) // PANEL):
            column = min(number * PANEL, length - PANEL)
            panel = k_at + 4 * number * PANEL * width
            for tile in range(0, block, TILE_ROWS):
                i = min(tile, block - TILE_ROWS)
                _tile(
                    q_at + (start + i) * q_row, q_row, panel, 4 * PANEL,
                    s_at + i * s_row + 4 * column, s_row, width,
                )  # fmt: skip
        for i in range(block):
            row = scores[i]
            top = _largest(s_at + i * s_row, whole)
            for j in range(whole, length):
                top = max(top, row[j])
            total = _ZERO
            for j in range(length):
                weight = exp(scale * (row[j] - top))
                row[j] = weight
                total = plus(total, weight)
            inverse[i] = ONE / total
        for tile in range(0, block, TILE_ROWS):
            i = min(tile, block - TILE_ROWS)
            for column in range(0, width, PANEL):
                _tile(
                    s_at + i * s_row, s_row, v_at + 4 * column, v_row,
                    o_at + (start + i) * o_row + 4 * column, o_row, length,
                )  # fmt: skip
        for i in range(block):
            for j in range(width):
                out[start + i, j] *= inverse[i]


@njit(nogil=True, cache=True)
def _pack(keys: Rows, packed: Rows) -> None:
    """Copy keys to panels of PANEL keys, one row per dimension."""
    length, width = keys.shape
    for number in range((length + PANEL - 1) // PANEL):
        start = min(number * PANEL, length - PANEL)
        panel = packed[number * PANEL * width : (number + 1) * PANEL * width]
        for c in range(PANEL):
            for k in range(width):
                panel[k * PANEL + c] = keys[start + c, k]
