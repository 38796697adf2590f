"""Detect the kind of values in a matrix: counts, log-normalised, something else.

Nothing is assumed or done silently: `scale` decides from a sample of cells spread over the file,
and prints what it found. `require_counts` accepts only counts.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vcell import console
from vcell.data.opening import open_cells
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data.block import Block
    from vcell.data.buffers import Buffers
    from vcell.data.source import CellSource

Kind = Literal["counts", "log1p", "normalised", "other", "empty"]
#: Number of sampled cells, and of runs of them, spread evenly over the file.
SAMPLE_CELLS, SAMPLE_RUNS = 1024, 16
#: Limit on sampled non-zeros, for files with very many per cell.
SAMPLE_NNZ = 1 << 23
_FEW_NNZ = 1 << 19  # read at a time while all values are counts
#: Natural logarithm of the most counts one gene of one cell can plausibly have (about 9 million).
LARGEST_LOG = 16.0
#: The largest count that is read, and the largest sum of counts that is written.
LARGEST_COUNT = np.iinfo(np.int32).max
#: Relative spread of library sizes below which they were made equal (float32 rounding, summed).
EQUAL = 2e-3


_REPLACE = "`vcell inspect --full` counts them; replace them, or leave their cells out"


@dataclass(frozen=True)
class Scale:
    """The kind of values in a matrix.

    Attributes
    ----------
    kind
        "counts"; "log1p" (natural log of 1 + x, normalised or not); "normalised" (linear, not
        whole); "other" (negative, or no known kind); "empty" (no values).
    target_sum
        Total of each cell's values before the logarithm, if the sample shows it.
    evidence
        The reason, as a phrase.
    """

    kind: Kind
    target_sum: float | None
    evidence: str
    not_finite: int = 0  # sampled values that are NaN or infinite

    @property
    def text(self) -> str:
        """The kind, as text for messages."""
        names = {
            "counts": "raw counts",
            "log1p": "log1p values",
            "normalised": "normalised values (not logged)",
            "other": "neither counts nor log1p",
            "empty": "no values",
        }
        to = f", normalised to {self.target_sum:,.6g} a cell" if self.target_sum else ""
        return f"{names[self.kind]}{to} ({self.evidence})"


def scale(source: CellSource, *, quiet: bool = False) -> Scale:
    """Detect the kind of values from a sample of the cells, and report it."""
    found = _glance(source) if source.matrix.needs_pass else None
    found = found or _counts(source) or judge(list(sample(source)))
    if not quiet:
        console.say(f"{source.name}: {found.text}")
    return found


def require_counts(source: CellSource, *, quiet: bool = False) -> Scale:
    """Return the scale if the values are raw counts; raise an error otherwise."""
    refuse_nothing(source)
    found = scale(source, quiet=quiet)
    if found.kind in ("counts", "empty"):
        return found
    raise UserError(
        f"{source.name}: raw counts are needed, these are {found.text}",
        hint=elsewhere(source, found),
    )


def require_counts_or_logs(source: CellSource) -> Scale:
    """Return the scale if the values are raw counts or log1p; raise an error otherwise."""
    refuse_nothing(source)
    found = scale(source)
    if found.kind in ("counts", "log1p"):
        return found
    hint = elsewhere(source, found, ("counts", "log1p"))
    if found.kind == "empty":
        raise UserError(f"{source.name} holds no values: {found.evidence}", hint=hint)
    raise UserError(
        f"{source.name}: raw counts or log1p values are needed, these are {found.text}", hint=hint
    )


def refuse_nothing(source: CellSource) -> None:
    """Raise an error for a file without cells or genes."""
    for n, what in ((source.n_cells, "cells"), (source.n_genes, "genes")):
        if not n:
            raise UserError(
                f"{source.name} holds no {what}",
                hint="were all of them filtered out when the file was written?",
            )


def elsewhere(
    source: CellSource, found: Scale | None = None, kinds: Collection[str] = ("counts",)
) -> str:
    """Return the hint for an error about the wrong kind of values; `kinds` are the right ones."""
    if found is not None and found.not_finite:
        return _REPLACE
    if hint := matrix_of(source, kinds):
        return hint
    if found is not None and found.kind == "empty":
        return "look at it with vcell inspect: were its values lost when the file was written?"
    return "use the file as it was before normalisation"


def matrix_of(source: CellSource, kinds: Collection[str]) -> str | None:
    """Return the hint to use another matrix of the same file, if one holds the right kind."""
    names = ["X", "raw"] if source.parts.get("raw") else ["X"]
    for name in [*names, *source.parts.get("layers", ())]:
        if source.given is None or name == (source.layer or "X"):
            continue
        with suppress(UserError), open_cells(source.given, name, join=source.join) as other:
            there = scale(other, quiet=True)
            if there.kind in kinds:
                which = name if name in ("X", "raw") else f"layer {name}"
                return f"{which} holds {there.text}: try --layer {shlex.quote(name)}"
    return None


def _glance(source: CellSource) -> Scale | None:
    """Check some genes of a large matrix stored by gene; enough if all are counts."""
    columns = getattr(source.matrix, "columns", None)
    if columns is None:
        return None
    chosen = np.unique(np.linspace(0, source.n_genes - 1, 64).astype(np.int64))
    values = np.concatenate([csc.data for _, csc in columns(chosen)])
    if not len(values) or not (values == np.rint(values)).all() or values.min() < 0:
        return None
    seen = f"{console.count(len(values), 'value')} of {console.count(len(chosen), 'gene')}"
    return Scale("counts", None, f"whole numbers up to {_whole(float(values.max()))} in {seen}")


def sample_rows(n_cells: int, nnz: int | None, n_genes: int) -> NDArray[np.int64]:
    """Choose evenly spread runs of cells, few enough to read quickly."""
    a_cell = n_genes if nnz is None else max(nnz // max(n_cells, 1), 1)
    wanted = min(SAMPLE_CELLS, max(SAMPLE_NNZ // max(a_cell, 1), 1))
    if n_cells <= wanted:
        return np.arange(n_cells)
    runs = min(SAMPLE_RUNS, wanted)
    length = wanted // runs
    starts = np.linspace(0, n_cells - length, runs).astype(np.int64)
    return (starts[:, None] + np.arange(length)).ravel()  # ascends: runs are too short to overlap


def sample(source: CellSource, max_nnz: int = MAX_NNZ) -> Iterator[Block]:
    """Read the sampled cells."""
    rows = sample_rows(source.n_cells, source.nnz, source.n_genes)
    return source.chunks(rows, dtype="stored", prefetch=False, max_nnz=max_nnz)


def _counts(source: CellSource) -> Scale | None:
    """Return the scale if the sampled cells hold counts, reading a few at a time; else None."""
    n = n_cells = 0
    high = 0.0
    for block in sample(source, _FEW_NNZ):
        if (most := _largest_count([block])) is None:
            return None
        n, n_cells, high = n + block.nnz, n_cells + len(block), max(high, most)
    return _are_counts(high, n, n_cells) if n else None


def _are_counts(most: float, n: int, n_cells: int) -> Scale:
    seen = _seen(n, n_cells)
    return Scale("counts", None, f"whole numbers up to {_whole(most)} in {seen}")


def _seen(n: int, n_cells: int) -> str:
    return f"{console.count(n, 'value')} of {console.count(n_cells, 'cell')}"


def _whole(number: float) -> str:
    return f"{number:,.0f}" if number < 1e15 else f"{number:.4g}"


def judge(blocks: list[Block]) -> Scale:
    """Decide the kind of values from some cells."""
    n_cells, n = sum(len(b) for b in blocks), sum(b.nnz for b in blocks)
    if not n:
        return Scale("empty", None, f"all of {n_cells:,} sampled cells are empty")
    if (most := _largest_count(blocks)) is not None:
        return _are_counts(most, n, n_cells)
    values = np.concatenate([b.data for b in blocks]).astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return Scale(
            "other", None, f"{bad:,} of {len(values):,} sampled values are NaN or infinite", bad
        )
    low, high = float(values.min()), float(values.max())
    seen = _seen(len(values), n_cells)
    if low < 0:
        return Scale("other", None, f"negative values down to {low:.4g} in {seen}")
    sums = np.concatenate([_row_sums(b, np.asarray(b.data, np.float64)) for b in blocks])
    if (target := _equal(sums)) is not None:
        return Scale("normalised", target, f"cells add up alike, largest value {high:,.4g}, {seen}")
    if high > LARGEST_LOG:
        return Scale("normalised", None, f"not whole, up to {high:,.4g}, {seen}")
    return _judge_log(blocks, values, high, seen)


def _largest_count(blocks: list[Block]) -> float | None:
    """Return the largest value if all are whole and non-negative, checking few at a time."""
    high, step = 0.0, 1 << 16
    for block in blocks:
        for start in range(0, block.nnz, step):
            values = block.data[start : start + step]
            most = float(values.max())
            if not (values.min() >= 0 and np.isfinite(most) and (values == np.rint(values)).all()):
                return None
            high = max(high, most)
    return high


def whole_counts(
    source: CellSource, block: Block, buffers: Buffers | None = None
) -> NDArray[np.int32]:
    """Return the values of some cells as whole numbers; refuse what is not a count.

    Memory for floats made whole is taken from `buffers`, if there are any.
    """
    data: NDArray[Any] = block.data
    if len(data) and not (float(data.min()) >= 0 and float(data.max()) <= LARGEST_COUNT):
        _refuse_value(source, block, ~((data >= 0) & (data <= LARGEST_COUNT)))
    if data.dtype.kind != "f" or buffers is None:
        counts: NDArray[np.int32] = data.astype(np.int32, copy=False)
    else:
        counts = buffers.take(len(data), np.int32)
        counts[:] = data
    # compared as floats of the same size, which have every count that came from one
    if data.dtype.kind == "f" and not (counts.astype(data.dtype) == data).all():
        _refuse_value(source, block, counts != data)
    return counts


def _refuse_value(source: CellSource, block: Block, wrong: NDArray[np.bool_]) -> None:
    at = int(np.argmax(wrong))
    cell = block.rows[int(np.searchsorted(block.indptr - block.indptr[0], at, side="right")) - 1]
    raise UserError(
        f"{source.name}: cell {cell:,} holds {block.data[at]:.6g}, which is not a count",
        hint=elsewhere(source) if np.isfinite(block.data[at]) else _REPLACE,
    )


def _judge_log(blocks: list[Block], values: NDArray[np.float64], high: float, seen: str) -> Scale:
    """Undo the logarithm, and judge the result."""
    back = np.expm1(values)
    if back.max() > 0.5 and np.allclose(back, np.rint(back), rtol=1e-5, atol=1e-4):
        return Scale("log1p", None, f"exp(x) - 1 gives whole numbers, {seen}")
    sums = np.concatenate([_row_sums(b, np.expm1(b.data.astype(np.float64))) for b in blocks])
    if (target := _equal(sums)) is not None:
        return Scale("log1p", target, f"exp(x) - 1 adds up alike in every cell, {seen}")
    if _few_levels(blocks):
        return Scale(
            "log1p", None,
            f"exp(x) - 1 is each cell's whole numbers times one factor, {seen}; cells do not add "
            "up alike, as when genes were dropped after normalising",
        )  # fmt: skip
    return Scale("other", None, f"not whole, up to {high:.4g}, {seen}; no log1p of counts")


def _row_sums(block: Block, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum each row that has any value."""
    starts = block.indptr[:-1][np.diff(block.indptr) > 0]
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)


def _equal(sums: NDArray[np.float64]) -> float | None:
    """Return the common value of all sums, or None; a single cell is not enough."""
    if len(sums) < 2:
        return None
    middle = float(np.median(sums))
    spread = float(np.abs(sums - middle).max())
    if spread > EQUAL * middle:
        return None
    return float(np.round(middle)) if abs(middle - round(middle)) < EQUAL * middle else middle


def _few_levels(blocks: list[Block]) -> bool:
    """Whether most cells' values are whole multiples of the cell's own smallest one."""
    fits = tried = 0
    for block in blocks:
        for row in range(len(block)):
            cell = np.expm1(block.data[block.indptr[row] : block.indptr[row + 1]].astype(float))
            if len(cell) < 5:
                continue
            multiples = cell / cell.min()
            off = np.abs(multiples - np.rint(multiples)) / np.maximum(multiples, 1)
            tried += 1
            fits += bool((off < 1e-3).mean() > 0.98)
    return tried > 0 and fits > 0.8 * tried


def describe(found: Scale) -> dict[str, Any]:
    """Return the scale for --json."""
    return {"kind": found.kind, "target_sum": found.target_sum, "evidence": found.evidence}


def refuse_repeated(source: CellSource) -> None:
    """Raise an error if genes share a name, which would make results ambiguous."""
    if repeated := _repeated(source):
        raise UserError(
            repeated,
            hint="anndata's var_names_make_unique() repairs this; use it on every file that is "
            "compared",
        )


def refuse_confounded(source: CellSource, label: str, batch: str) -> None:
    """Refuse a column of batches that is the column of labels under another name."""
    labels, batches = source.obs(label).codes, source.obs(batch).codes
    known = (labels >= 0) & (batches >= 0)
    pairs = np.unique(np.stack([labels[known], batches[known]]), axis=1)
    n_labels, n_batches = len(np.unique(pairs[0])), len(np.unique(pairs[1]))
    if n_batches > 1 and len(pairs[0]) == n_labels == n_batches:
        raise UserError(
            f"{source.name}: batch {batch!r} is the label {label!r} under another name: removing "
            "one removes the other",
            hint="leave out --batch-column, or name another",
        )


def warn_of_repeated(source: CellSource) -> None:
    """Warn about genes that share a name: they are kept, but most commands do not accept them."""
    if repeated := _repeated(source):
        console.warn(f"{repeated}; train-vcc, de and evaluate refuse such cells")


def _repeated(source: CellSource) -> str:
    names = source.genes.tolist()
    if len(set(names)) == len(names):
        return ""
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    more = f" and {len(twice) - 10:,} more" if len(twice) > 10 else ""
    many = console.count(len(twice), "gene")
    return f"{source.name} names {many} more than once: {', '.join(twice[:10])}{more}"
