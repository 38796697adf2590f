"""Loads and stores at memory addresses, for kernels that move bytes.

Nothing is checked: callers know that the memory is theirs. A wide move or fill touches `WIDE`
bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vcell.kernels.intrinsic import Intrinsic, cgutils, types

WIDE = 32
#: Bytes of a line of the cache.
LINE = 64
_BIT, _BYTE, _LONG = ir.IntType(1), ir.IntType(8), ir.IntType(64)
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_BYTE, WIDE)


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _spread(builder: Any, byte: Any) -> Any:
    """Return a vector that repeats one byte."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, byte, ir.Constant(_INT, 0))
    everywhere = ir.Constant(ir.VectorType(_INT, WIDE), [0] * WIDE)
    return builder.shuffle_vector(first, nothing, everywhere)


def _load(bits: int) -> Intrinsic:
    """Return an instruction that loads an unsigned number as int64."""
    kind = ir.IntType(bits)

    def emitter(_context: Any, address: Any) -> Any:
        def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
            value = builder.load(_at(builder, args[0], kind), align=1)
            return value if bits == _LONG.width else builder.zext(value, _LONG)

        return types.int64(types.int64), emit

    return Intrinsic(emitter)


def _store(bits: int) -> Intrinsic:
    """Return an instruction that stores the lowest bits of an int64."""
    kind = ir.IntType(bits)

    def emitter(_context: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            value = args[1] if bits == _LONG.width else builder.trunc(args[1], kind)
            builder.store(value, _at(builder, args[0], kind), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return Intrinsic(emitter)


load8, load16, load32, load64 = _load(8), _load(16), _load(32), _load(64)
store8, store32, store64 = _store(8), _store(32), _store(64)


@Intrinsic
def move(_context: Any, to: Any, source: Any) -> Any:
    """Copy `WIDE` bytes."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        value = builder.load(_at(builder, args[1], _VECTOR), align=1)
        builder.store(value, _at(builder, args[0], _VECTOR), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@Intrinsic
def fill(_context: Any, to: Any, byte: Any) -> Any:
    """Store one byte `WIDE` times."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        value = _spread(builder, builder.trunc(args[1], _BYTE))
        builder.store(value, _at(builder, args[0], _VECTOR), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def _changed(builder: Any, value: Any, wanted: Any) -> Any:
    """Convert whole numbers without a sign, or vectors of them, to another type."""
    own, to = (getattr(kind, "element", kind) for kind in (value.type, wanted))
    if own == to:
        return value
    if not isinstance(to, ir.IntType):
        return builder.uitofp(value, wanted)
    return (builder.zext if to.width > own.width else builder.trunc)(value, wanted)


def _write_past(builder: Any, value: Any, to: Any) -> None:
    """Store a line of the cache past it."""
    written = builder.store(value, to, align=LINE)
    written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))


def _streamer(*, drains: bool) -> Intrinsic:
    """Return an instruction that copies a line of the cache past it; `drains` clears the source."""

    def emitter(_context: Any, a: Any, i: Any, b: Any, j: Any) -> Any:
        n = LINE * 8 // b.dtype.bitwidth

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def at(k: int) -> tuple[Any, Any]:
                array = context.make_array(sig.args[k])(context, builder, args[k])
                kind = context.get_data_type(sig.args[k].dtype)
                address = builder.gep(array.data, [args[k + 1]])
                vector = ir.VectorType(kind, n)
                return builder.bitcast(address, vector.as_pointer()), vector

            source, kind = at(0)
            aligned = sig.args[0].dtype.bitwidth // 8
            value = builder.load(source, align=aligned)
            if drains:
                builder.store(ir.Constant(kind, None), source, align=aligned)
            to, wanted = at(2)
            _write_past(builder, _changed(builder, value, wanted), to)
            return context.get_dummy_value()

        return types.void(a, types.int64, b, types.int64), emit

    return Intrinsic(emitter)


#: Copy numbers from ``a[i:]`` to a line of the cache, ``b[j:]``, past the cache; the second sets
#: the numbers of `a` to zero. Whole numbers without a sign, of up to two bytes, or numbers of b's
#: type; no bounds are checked. Memory is not read before it is overwritten. Other threads see the
#: line after a `fence`.
stream_line, drain_line = _streamer(drains=False), _streamer(drains=True)


@Intrinsic
def fetch_line(_context: Any, at: Any) -> Any:
    """Have a line of the cache fetched that will be stored to; nothing waits for it."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        pointer = _BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        how = [ir.Constant(_INT, n) for n in (1, 3, 1)]  # to write, to every cache, data
        builder.call(call, [builder.inttoptr(args[0], pointer), *how])
        return context.get_dummy_value()

    return types.void(types.int64), emit


@Intrinsic
def bytes_of(_context: Any, like: Any) -> Any:
    """Return the size of a number's type."""

    def emit(_ctx: Any, _builder: Any, _sig: Any, _args: Any) -> Any:
        return ir.Constant(_LONG, like.bitwidth // 8)

    return types.int64(like), emit


@Intrinsic
def store_as(_context: Any, value: Any, to: Any, like: Any) -> Any:
    """Store a whole number without a sign in the type of the number `like`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = context.get_data_type(sig.args[2])
        builder.store(_changed(builder, args[0], kind), _at(builder, args[1], kind))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, like), emit


def _unpacker(*, halves: int) -> Intrinsic:
    """Return an instruction that streams numbers whose low and high bytes are apart."""

    def emitter(_context: Any, low: Any, high: Any, to: Any, like: Any) -> Any:
        lanes = LINE * 8 // like.bitwidth

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            half, word = (ir.VectorType(kind, lanes) for kind in (_BYTE, ir.IntType(16)))
            value = builder.load(_at(builder, args[0], half), align=1)
            if halves > 1:
                above = builder.zext(builder.load(_at(builder, args[1], half), align=1), word)
                above = builder.shl(above, ir.Constant(word, [8] * lanes))
                value = builder.or_(builder.zext(value, word), above)
            wanted = ir.VectorType(context.get_data_type(sig.args[3]), lanes)
            value = _changed(builder, value, wanted)
            _write_past(builder, value, _at(builder, args[2], wanted))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, like), emit

    return Intrinsic(emitter)


#: Store a line of numbers of the type of `like` past the cache: bytes at an address, or numbers of
#: 16 bits whose low and high bytes are at two.
stream_bytes, stream_words = _unpacker(halves=1), _unpacker(halves=2)


@Intrinsic
def fence(_context: Any) -> Any:
    """Let other threads see what was streamed before they see what is stored later."""

    def emit(context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@Intrinsic
def planes(_context: Any, source: Any, to: Any, apart: Any) -> Any:
    """Store bit k of each of `WIDE` bytes as 32 bits at ``to + k * apart``, for k from 0 to 7."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        source, to, apart = args
        value = builder.load(_at(builder, source, _VECTOR), align=1)
        none = ir.Constant(_VECTOR, [0] * WIDE)
        for k in range(8):
            shifted = builder.shl(value, ir.Constant(_VECTOR, [7 - k] * WIDE))
            bits = builder.bitcast(builder.icmp_signed("<", shifted, none), _INT)
            where = builder.add(to, builder.mul(apart, ir.Constant(_LONG, k)))
            builder.store(bits, _at(builder, where, _INT), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _interleaved(builder: Any, a: Any, b: Any, unit: int) -> list[Any]:
    """Return pieces of `unit` bytes of two vectors in turns, in each half of 16 bytes by itself.

    The first vector has those of the lower 8 bytes of each half.
    """
    found = []
    for begin in (0, 8):
        places: list[int] = []
        for i in (lane + begin + piece for lane in (0, 16) for piece in range(0, 8, unit)):
            places += [*range(i, i + unit), *range(WIDE + i, WIDE + i + unit)]
        found.append(builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, WIDE), places)))
    return found


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose the 8 x 8 matrices of bits that the bytes at one place of eight vectors are."""
    quads = ir.VectorType(_LONG, WIDE // 8)
    rows = [builder.bitcast(row, quads) for row in rows]
    for step, kept in ((4, 0x0F), (2, 0x33), (1, 0x55)):
        shift = ir.Constant(quads, [step] * quads.count)
        mask = ir.Constant(quads, [kept * 0x0101010101010101] * quads.count)
        for k in (k for k in range(8) if not k & step):
            shifted = builder.lshr(rows[k], shift)
            swap = builder.and_(builder.xor(shifted, rows[k + step]), mask)
            rows[k + step] = builder.xor(rows[k + step], swap)
            rows[k] = builder.xor(rows[k], builder.shl(swap, shift))
    return [builder.bitcast(row, _VECTOR) for row in rows]


@Intrinsic
def bytes_from_planes(_context: Any, source: Any, apart: Any, to: Any) -> Any:
    """Store 8 `WIDE` bytes whose bits k are at ``source + k * apart``: the inverse of `planes`."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        source, apart, to = args
        starts = [builder.mul(apart, ir.Constant(_LONG, k)) for k in range(8)]
        planes = [_at(builder, builder.add(source, start), _VECTOR) for start in starts]
        rows = _transposed(builder, [builder.load(plane, align=1) for plane in planes])
        # Byte b of row j is number 8 b + j. Three rounds put them in turns, if the rows come in
        # the order of their bits read backwards.
        rows = [rows[k] for k in (0, 4, 2, 6, 1, 5, 3, 7)]
        for unit in (1, 2, 4):
            pairs = [_interleaved(builder, rows[k], rows[k + 4], unit) for k in range(4)]
            rows = [part for pair in pairs for part in pair]
        half = ir.VectorType(_INT, 16)
        for n in range(16):
            lane, k = divmod(n, 8)
            places = ir.Constant(half, [*range(16 * lane, 16 * lane + 16)])
            part = builder.shuffle_vector(rows[k], rows[k], places)
            after = _at(builder, builder.add(to, ir.Constant(_LONG, 16 * n)), part.type)
            builder.store(part, after, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@Intrinsic
def join(_context: Any, low: Any, high: Any, to: Any) -> Any:
    """Store `WIDE` numbers of 16 bits whose low and high bytes are at two addresses."""

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        low, high = (builder.load(_at(builder, args[k], _VECTOR), align=1) for k in (0, 1))
        turns = [i + half for i in range(WIDE) for half in (0, WIDE)]
        words = ir.VectorType(_BYTE, 2 * WIDE)
        value = builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_INT, 2 * WIDE), turns))
        builder.store(value, _at(builder, args[2], words), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _zeros(name: str) -> Intrinsic:
    def emitter(_context: Any, value: Any) -> Any:
        def emit(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
            return getattr(builder, name)(args[0], ir.Constant(_BIT, 0))

        return types.int64(types.int64), emit

    return Intrinsic(emitter)


#: Zero bits below the lowest one, and above the highest one, of an int64.
zeros_below, zeros_above = _zeros("cttz"), _zeros("ctlz")
