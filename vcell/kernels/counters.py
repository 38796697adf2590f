"""Vertical counters: rows of bits are added up, hundreds of counters in an instruction.

Bit b of all counters is one row of the planes, and two rows and a carry are added by five logical
instructions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vcell.kernels.intrinsic import Intrinsic, cgutils, types

_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
_BITS, _BYTES = ir.VectorType(ir.IntType(1), 32), ir.VectorType(_BYTE, 32)
_NOTHING = ir.Constant(_BYTES, [ir.Constant(_BYTE, 0)] * 32)


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    from numba.np import arrayobj  # prepares the compiler, which cached kernels do not need

    return arrayobj.make_array(kind)(context, builder, value).data  # type: ignore[no-untyped-call]


def _row(builder: Any, words: Any, row: Any, kind: Any) -> Any:
    """Return the address of a row of an array of words."""
    first = builder.gep(words, [builder.mul(row, ir.Constant(_WORD, kind.count))])
    return builder.bitcast(first, kind.as_pointer())


def _full_adder(builder: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Add three bits at each position; return the sums and the carries."""
    half = builder.xor(a, b)
    carry = builder.or_(builder.and_(a, b), builder.and_(half, c))
    return builder.xor(half, c), carry


def adder(n: int, lanes: int) -> Any:
    """Make an intrinsic that adds `n` rows of bits, a power of two, to the planes from a level on.

    Its arguments: rows of words, the list of rows to add, the start in the list, the planes, their
    first level, and the level at which planes end.
    """
    kind = ir.VectorType(_WORD, lanes)

    def emitter(
        _typing: Any, bits: Any, rows: Any, _at: Any, planes: Any, _level: Any, _top: Any
    ) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words, listed, counters = (
                _data(context, builder, signature.args[i], args[i]) for i in (0, 1, 3)
            )
            depth = n.bit_length() - 1
            places = [
                _row(builder, counters, builder.add(args[4], ir.Constant(_WORD, i)), kind)
                for i in range(depth)
            ]
            held = [builder.load(place, align=8) for place in places]

            def added(first: int, level: int) -> Any:
                """Add ``2**level`` rows to the counters; return what is carried to the level."""
                if not level:
                    place = builder.add(args[2], ir.Constant(_WORD, first))
                    row = builder.zext(builder.load(builder.gep(listed, [place])), _WORD)
                    return builder.load(_row(builder, words, row, kind), align=8)
                below = level - 1
                left, right = added(first, below), added(first + (1 << below), below)
                held[below], carry = _full_adder(builder, left, right, held[below])
                return carry

            carry = added(0, depth)
            for place, counter in zip(places, held, strict=True):
                builder.store(counter, place, align=8)
            level = builder.add(args[4], ir.Constant(_WORD, depth))
            carried = cgutils.alloca_once(builder, kind)
            builder.store(carry, carried)
            with cgutils.for_range(builder, args[5], start=level) as loop:
                where = _row(builder, counters, loop.index, kind)
                counter, carry = builder.load(where, align=8), builder.load(carried)
                builder.store(builder.xor(counter, carry), where, align=8)
                builder.store(builder.and_(counter, carry), carried)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(bits, rows, whole, planes, whole, whole), emit

    return Intrinsic(emitter)


def spreader(lanes: int) -> Any:
    """Make an intrinsic that writes some levels, eight at most, of all counters as bytes.

    Its arguments: the planes, the first level, how many levels, and where the bytes go.
    """

    def emitter(_typing: Any, planes: Any, _level: Any, _levels: Any, out: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            half = ir.IntType(32)
            words = _data(context, builder, signature.args[0], args[0])
            words = builder.bitcast(words, half.as_pointer())
            into = _data(context, builder, signature.args[3], args[3])
            into = builder.bitcast(into, _BYTES.as_pointer())
            n, last = ir.Constant(_WORD, 2 * lanes), builder.add(args[1], args[2])
            last = builder.sub(last, ir.Constant(_WORD, 1))
            total = cgutils.alloca_once(builder, _BYTES)
            with cgutils.for_range(builder, n) as part:
                builder.store(_NOTHING, total)
                with cgutils.for_range(builder, args[2]) as loop:
                    level = builder.sub(last, loop.index)  # the highest first, and then doubled
                    place = builder.add(builder.mul(level, n), part.index)
                    bits = builder.bitcast(builder.load(builder.gep(words, [place])), _BITS)
                    held = builder.load(total)
                    doubled = builder.add(held, held)
                    builder.store(builder.add(doubled, builder.zext(bits, _BYTES)), total)
                builder.store(builder.load(total), builder.gep(into, [part.index]), align=1)
            return context.get_dummy_value()

        return types.void(planes, types.int64, types.int64, out), emit

    return Intrinsic(emitter)
