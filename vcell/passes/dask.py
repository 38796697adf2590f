"""A pass over the cells by dask: the same kernels, the same spans, identical results.

Every worker opens the files itself, once for all its tasks. A task reads a few spans of cells and
returns the results of its reducers, span by span; here they are merged in the order of the cells.
Without the address of a scheduler the tasks run on threads of this machine. docs/scale.md says
where this pays.
"""

from __future__ import annotations

import copy
import importlib.util
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.cores import cores
from vcell.data import CellSource, open_cells
from vcell.data.opening import Join
from vcell.errors import UserError
from vcell.passes.engine import SPAN, CellRules, CellTable, Reader, Reducer, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPANS = 2  # per task: 16,384 cells
_PATIENCE = "20s"  # timeout for a scheduler that does not answer


#: Common arguments of all tasks: files, layer, join of genes, rules and empty reducers.
Shared = tuple["list[Path]", "str | None", Join, CellRules, tuple[Reducer, ...]]


@dataclass(frozen=True)
class DaskReader:
    """Reads one source under one set of rules with dask; called as `vcell.passes.Reader` is.

    Parameters
    ----------
    scheduler
        Address of a dask scheduler; None for threads of this machine.
    """

    source: CellSource
    rules: CellRules
    scheduler: str | None = None

    def __post_init__(self) -> None:
        needed = "dask" if self.scheduler is None else "distributed"
        if importlib.util.find_spec(needed) is None:
            raise UserError(
                f"--engine dask needs {needed}, which is not installed",
                hint="pip install 'vcell[dask]'",
            )
        if not self.source.paths:
            raise UserError("--engine dask needs cells in a file: its workers open it themselves")

    def __call__(
        self, reducers: Sequence[Reducer], *, rows: NDArray[np.int64] | None = None
    ) -> CellTable:
        """Fill the reducers, and return the measurements per cell."""
        if rows is not None:  # few cells: local reading is faster
            return Reader(self.source, self.rules, label=None)(reducers, rows=rows)
        step = _SPANS * SPAN
        pieces = [slice(start, start + step) for start in range(0, self.source.n_cells, step)]
        source = self.source
        paths = [path.resolve() for path in source.paths]
        shared = (paths, source.layer, source.join, self.rules, tuple(reducers))
        tables = []
        with console.progress("reading cells with dask", total=self.source.n_cells) as bar:
            for table, exported in self._results(pieces, shared):
                tables.append(table)
                for reducer, part in zip(reducers, exported, strict=True):
                    reducer.merge(part)
                n = len(table.totals)
                bar.advance(n, read=self.source.bytes_of(n, int(table.n_genes.sum())))
        return _joined(tables, list(self.rules.marks))

    def _results(self, pieces: Sequence[slice], shared: Shared) -> Iterator[Any]:
        """Yield the results in the order of the pieces, with few of them under way at a time."""
        if self.scheduler is None:
            import dask.base
            from dask.delayed import delayed

            window = max(2, cores())
            for first in range(0, len(pieces), window):
                tasks = [delayed(work)(rows, shared) for rows in pieces[first : first + window]]
                yield from dask.base.compute(*tasks, scheduler="threads")  # type: ignore[no-untyped-call]
            _let_go()
            return
        from distributed import Client

        try:
            client: Any = Client(self.scheduler, timeout=_PATIENCE)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise UserError(f"no dask scheduler answers at {self.scheduler}: {error}") from None
        with client:
            workers = sum(client.nthreads().values())
            if not workers:
                raise UserError(f"the dask scheduler at {self.scheduler} has no workers")
            try:
                yield from _in_order(client, pieces, shared, ahead=2 * workers)
            finally:
                client.run(_let_go)


def _in_order(client: Any, pieces: Sequence[slice], shared: Shared, ahead: int) -> Iterator[Any]:
    # Labels of all cells are among it: sent once to a worker, not with every task.
    held = client.scatter([shared], broadcast=True)[0]
    futures: list[Any] = []
    for rows in pieces:
        futures.append(client.submit(work, rows, held, pure=False))
        if len(futures) >= ahead:
            yield futures.pop(0).result()
    for future in futures:
        yield future.result()


_OPENING = threading.Lock()


@lru_cache(maxsize=1)
def _opened(
    paths: tuple[Path, ...], layer: str | None, join: Join, marks: tuple[tuple[int, int], ...]
) -> CellSource:
    """Open the files once for all tasks of a process: row pointers are as long as they have cells.

    `marks` tells files that were replaced. The files are closed when no task uses them any more.
    """
    del marks
    source = open_cells(list(paths), layer=layer, join=join)
    weakref.finalize(source, copy.copy(source).close)
    return source


def _let_go() -> None:
    """Close the files after a pass."""
    _opened.cache_clear()


def work(rows: slice, shared: Shared) -> tuple[CellTable, list[Any]]:
    """Walk some spans of cells: what a worker does."""
    paths, layer, join, rules, reducers = shared
    own = [copy.copy(reducer) for reducer in reducers]  # empty ones: see Reducer
    for reducer in own:
        reducer.spans = []
    marks = tuple((stat.st_mtime_ns, stat.st_size) for stat in (path.stat() for path in paths))
    with _OPENING:
        source = _opened(tuple(paths), layer, join, marks)
    table = run(source, own, rules=rules, rows=rows, threads=1, label=None)
    return table, [reducer.export() for reducer in own]


def _joined(tables: Sequence[CellTable], kinds: Sequence[str]) -> CellTable:
    return CellTable(
        np.concatenate([t.totals for t in tables] or [np.zeros(0)]),
        np.concatenate([t.n_genes for t in tables] or [np.zeros(0, np.int32)]),
        {k: np.concatenate([t.marked[k] for t in tables]) for k in kinds},
        np.concatenate([t.kept for t in tables] or [np.zeros(0, bool)]),
    )
