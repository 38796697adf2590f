"""Vertical counters: rows of bits are added up, hundreds of counters in an instruction.

Bit b of all counters is one row of the planes. Two rows and a carry are added by two instructions
of AVX-512, or by five logical ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir

from vcell.kernels import targets
from vcell.kernels.intrinsic import Intrinsic, cgutils, types

_WORD, _HALF, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)
_BITS, _BYTES = ir.VectorType(ir.IntType(1), 64), ir.VectorType(_BYTE, 64)
#: Bytes that are written together, and rows of them that are turned together.
RUN, TURNED = 16, 32
_RUN, _PAIR = ir.VectorType(_BYTE, RUN), ir.VectorType(_BYTE, 2 * RUN)
_NOTHING = ir.Constant(_BYTES, [ir.Constant(_BYTE, 0)] * 64)
#: Logarithms of the number of rows added by one step, and by one for what is left.
_DEPTH, _FEW = 4, 2
#: Bytes of a cache line; blocks of rows for which the next ones are fetched.
_LINE, _AHEAD = 64, 4


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    from numba.np import arrayobj  # prepares the compiler, which cached kernels do not need

    return arrayobj.make_array(kind)(context, builder, value).data  # type: ignore[no-untyped-call]


def _row(builder: Any, words: Any, row: Any, kind: Any) -> Any:
    """Return the address of a row of an array of words."""
    first = builder.gep(words, [builder.mul(row, ir.Constant(_WORD, kind.count))])
    return builder.bitcast(first, kind.as_pointer())


def _full_adder(builder: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Add three bits at each position; return the sums and the carries."""
    if targets.chosen().wide:  # one instruction for any function of three bits
        n = a.type.count
        kind = ir.FunctionType(a.type, [a.type, a.type, a.type, _HALF])
        name = f"llvm.x86.avx512.pternlog.q.{64 * n}"
        logic = cgutils.get_or_insert_function(builder.module, kind, name)
        total, carry = (builder.call(logic, [a, b, c, _HALF(table)]) for table in (0x96, 0xE8))
        return total, carry
    half = builder.xor(a, b)
    carry = builder.or_(builder.and_(a, b), builder.and_(half, c))
    return builder.xor(half, c), carry


def adder(lanes: int) -> Any:
    """Make an intrinsic that adds listed rows of bits to the planes of counters.

    Its arguments: rows of words, the number of the first and of a row of zeros, the list of rows to
    add, counted from the first, its begin and end, the planes, the number of the first plane, the
    level that rows are added to, and the level at which planes end, four above it or more.
    """
    kind = ir.VectorType(_WORD, lanes)

    def emitter(
        _typing: Any, bits: Any, _base: Any, _zeros: Any, rows: Any, _begin: Any, _end: Any,
        planes: Any, _first: Any, _level: Any, _top: Any,
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words, listed, counters = (
                _data(context, builder, signature.args[i], args[i]) for i in (0, 3, 6)
            )
            base, zeros, _, begin, end, _, first, level, top = args[1:]
            low = builder.add(first, level)
            places = [_row(builder, counters, _plus(builder, low, i), kind) for i in range(_DEPTH)]
            held = [cgutils.alloca_once_value(builder, builder.load(p, align=8)) for p in places]

            def bits_of(place: Any) -> Any:
                row = builder.zext(builder.load(builder.gep(listed, [place])), _WORD)
                return builder.load(_row(builder, words, builder.add(row, base), kind), align=8)

            def bits_or_zeros(place: Any) -> Any:
                there = builder.icmp_signed("<", place, end)
                place = builder.select(there, place, begin)
                row = builder.zext(builder.load(builder.gep(listed, [place])), _WORD)
                row = builder.select(there, builder.add(row, base), zeros)
                return builder.load(_row(builder, words, row, kind), align=8)

            def added(place: Any, depth: int, load: Any) -> Any:
                """Add ``2**depth`` rows to the counters; return what is carried to that level."""
                if not depth:
                    return load(place)
                left = added(place, depth - 1, load)
                right = added(_plus(builder, place, 1 << depth - 1), depth - 1, load)
                counter = builder.load(held[depth - 1])
                counter, carry = _full_adder(builder, left, right, counter)
                builder.store(counter, held[depth - 1])
                return carry

            carried = cgutils.alloca_once(builder, kind)

            def carry_on(where: Any) -> None:
                counter, carry = builder.load(where, align=8), builder.load(carried)
                builder.store(builder.xor(counter, carry), where, align=8)
                builder.store(builder.and_(counter, carry), carried)

            def add(place: Any, depth: int, load: Any) -> None:
                builder.store(added(place, depth, load), carried)
                for one in held[depth:]:
                    carry_on(one)
                above = _plus(builder, level, _DEPTH)
                with cgutils.for_range(builder, top, start=above) as loop:
                    plane = builder.add(first, loop.index)
                    carry_on(_row(builder, counters, plane, kind))

            many = builder.ashr(builder.sub(end, begin), ir.Constant(_WORD, _DEPTH))
            with cgutils.for_range(builder, many) as loop:
                done = builder.shl(loop.index, ir.Constant(_WORD, _DEPTH))
                add(builder.add(begin, done), _DEPTH, bits_of)
            begun = builder.add(begin, builder.shl(many, ir.Constant(_WORD, _DEPTH)))
            rest = _plus(builder, builder.sub(end, begun), (1 << _FEW) - 1)
            few = builder.ashr(rest, ir.Constant(_WORD, _FEW))
            with cgutils.for_range(builder, few) as loop:
                done = builder.shl(loop.index, ir.Constant(_WORD, _FEW))
                add(builder.add(begun, done), _FEW, bits_or_zeros)
            for place, one in zip(places, held, strict=True):
                builder.store(builder.load(one), place, align=8)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(
            bits, whole, whole, rows, whole, whole, planes, whole, whole, whole
        ), emit  # fmt: skip

    return Intrinsic(emitter)


def spreader(lanes: int) -> Any:
    """Make an intrinsic that writes some levels, eight at most, of all counters as bytes.

    Its arguments: the planes, the number of the first, the first level and how many (zeros are
    written if none), where the bytes go, the first byte, and the distance of each `RUN` bytes from
    those before.
    """

    def emitter(
        _typing: Any, planes: Any, _plane: Any, _level: Any, _levels: Any, out: Any, _first: Any,
        _apart: Any,
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words = _data(context, builder, signature.args[0], args[0])
            into = _data(context, builder, signature.args[4], args[4])
            _, plane, level, levels, _, at, apart = args
            totals = [cgutils.alloca_once_value(builder, _NOTHING) for _ in range(lanes)]
            last = _plus(builder, builder.add(builder.add(plane, level), levels), -1)
            with cgutils.for_range(builder, levels) as loop:
                place = builder.sub(last, loop.index)  # the highest first, and then doubled
                place = builder.mul(place, ir.Constant(_WORD, lanes))
                for lane, total in enumerate(totals):
                    word = builder.load(builder.gep(words, [_plus(builder, place, lane)]))
                    held = builder.load(total)
                    doubled = builder.add(held, held)
                    one = builder.zext(builder.bitcast(word, _BITS), _BYTES)
                    builder.store(builder.add(doubled, one), total)
            for total in totals:
                bytes_ = builder.load(total)
                for first in range(0, 64, RUN):
                    run = _picked(builder, bytes_, bytes_, range(first, first + RUN))
                    where = builder.bitcast(builder.gep(into, [at]), _RUN.as_pointer())
                    builder.store(run, where, align=1)
                    at = builder.add(at, apart)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(planes, whole, whole, whole, out, whole, whole), emit

    return Intrinsic(emitter)


def _plus(builder: Any, word: Any, number: int) -> Any:
    return builder.add(word, ir.Constant(_WORD, number))


def _picked(builder: Any, a: Any, b: Any, which: Iterable[int]) -> Any:
    """Return some elements of two vectors of one length, numbered as if b followed a."""
    numbers = [ir.Constant(_HALF, i) for i in which]
    mask = ir.Constant(ir.VectorType(_HALF, len(numbers)), numbers)
    return builder.shuffle_vector(a, b, mask)


def _fetch(builder: Any, address: Any) -> None:
    """Have a cache line read; nothing happens where there is no memory."""
    kind = ir.FunctionType(ir.VoidType(), [address.type, _HALF, _HALF, _HALF])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(fetch, [address, _HALF(0), _HALF(3), _HALF(1)])  # to read, into all caches


def _turned(_typing: Any, rows: Any, _first: Any, out: Any, _n: Any, _apart: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
        into = _data(context, builder, signature.args[2], args[2])

        def row(first: Any, number: int) -> Any:
            where = builder.add(first, ir.Constant(_WORD, RUN * number))
            where = builder.gep(start, [where])
            return builder.load(builder.bitcast(where, _RUN.as_pointer()), align=1)

        # two squares of 16 x 16, one in each half of a vector: four times, alternate the elements
        # of rows i and i + 8 within each half
        halves = [[half + i + other for half in (0, RUN) for i in range(first, first + RUN // 2)
                   for other in (0, 2 * RUN)] for first in (0, RUN // 2)]  # fmt: skip
        blocks = builder.udiv(args[3], ir.Constant(_WORD, TURNED))
        with cgutils.for_range(builder, blocks) as block:
            at = builder.mul(block.index, ir.Constant(_WORD, TURNED))
            far = builder.mul(block.index, args[4])
            soon = builder.add(far, builder.mul(args[4], ir.Constant(_WORD, _AHEAD)))
            for line in range(0, TURNED * RUN, _LINE):
                _fetch(builder, builder.gep(start, [_plus(builder, soon, line)]))
            pairs = [(row(far, i), row(far, RUN + i)) for i in range(RUN)]
            held = [_picked(builder, a, b, range(2 * RUN)) for a, b in pairs]
            for _ in range(4):
                pairs = list(zip(held[: RUN // 2], held[RUN // 2 :], strict=True))
                held = [_picked(builder, a, b, which) for a, b in pairs for which in halves]
            for i, vector in enumerate(held):
                where = builder.add(at, builder.mul(args[3], ir.Constant(_WORD, i)))
                where = builder.bitcast(builder.gep(into, [where]), _PAIR.as_pointer())
                builder.store(vector, where, align=1)
        return context.get_dummy_value()

    return types.void(rows, types.int64, out, types.int64, types.int64), emit


#: An intrinsic that turns rows of `RUN` bytes into `RUN` rows. Its arguments: the bytes, the first
#: one's position, where the result goes, how many rows are turned, a multiple of `TURNED`, and the
#: distance of the first bytes of each `TURNED` rows from those before.
turn = Intrinsic(_turned)
