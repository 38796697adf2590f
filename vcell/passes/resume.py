"""The results of a pass in files, to continue after an interruption, and for reuse.

A long pass saves the state of its reducers from time to time, and when it is interrupted (Ctrl-C,
SIGTERM). The same command then continues from there, with results identical to those of an
uninterrupted pass. The results of a finished pass are stored too, reducer by reducer, so that a
command with other settings does not read the cells again. Passes of a few seconds store nothing.

Entries are .npz files in the cache folder, written aside and renamed, found by a hash of the files
(content, date, size), the rules and the arguments of the reducers. A damaged entry is computed
again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import __version__, cache, console, outputs
from vcell.errors import VcellError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell.passes.engine import CellRules, CellTable, Reducer

SHORT = 5.0  # seconds: a shorter pass is not stored
EVERY = 30.0  # seconds between two saves
ROOM = 2 << 30  # bytes of entries; the oldest are deleted
Arrays = dict[str, "NDArray[Any]"]


class Shelf:
    """The entries of one source under one set of rules.

    Parameters
    ----------
    folder
        Folder of the files; the cache folder by default.
    """

    def __init__(self, source: CellSource, rules: CellRules, folder: Path | None = None) -> None:
        self.folder = folder or cache.root() / "passes"
        self.name = source.name
        self._useless = False  # could not be written; warned once
        self._key = digest(
            __version__, [_identity(path) for path in source.paths], source.layer or "X",
            (source.n_cells, source.n_genes), source.genes, vars(rules),
        )  # fmt: skip

    def entry(self, *what: Any) -> Path:
        """Return the path of the entry for some arguments."""
        return self.folder / f"{self._key[:16]}-{digest(*what)[:16]}.npz"

    def load(self, path: Path) -> Arrays | None:
        """Read an entry; None if it is missing or damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
            os.utime(path)
        except OSError:
            return None
        except (ValueError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            return None
        return arrays

    def save(self, path: Path, arrays: Arrays) -> bool:
        """Write an entry; if the cache is not writable, warn and continue without it."""
        if self._useless:
            return False
        try:
            outputs.sweep(path)
            with outputs.whole(path, sync=False) as aside, aside.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            self._make_room(path)
        except (OSError, VcellError) as error:
            console.warn(f"what was read is not kept: {error}")
            self._useless = True
            return False
        return True

    def _make_room(self, newest: Path) -> None:
        """Delete the least recently used entries beyond `ROOM`."""
        found = sorted(self.folder.glob("*.npz"), key=lambda p: -p.stat().st_mtime)
        size = 0
        for path in found:
            size += path.stat().st_size
            if size > ROOM and path != newest:
                path.unlink(missing_ok=True)


class PassState:
    """Saves and restores one pass. `position` is the number of cells already processed."""

    def __init__(
        self,
        shelf: Shelf,
        reducers: Sequence[Reducer],
        table: CellTable,
    ) -> None:
        self.shelf, self.reducers, self.table = shelf, reducers, table
        self.path = shelf.entry("under way", *(r.identity for r in reducers))
        self.position = 0
        self.stop = 0  # the signal that requested the end
        self._started = self._saved = time.monotonic()
        self._restore()

    def _restore(self) -> None:
        """Restore the state of an interrupted pass."""
        held = self.shelf.load(self.path)
        if held is None:
            return
        self.position = int(held["position"])
        _fill(self.table, held, self.position)
        for number, reducer in enumerate(self.reducers):
            reducer.merge(_arrays_of(held, f"r{number}."))
        console.say(
            f"{self.shelf.name}: going on from cell {self.position:,}, where an earlier run stopped"
        )

    @property
    def _long(self) -> bool:
        return self.position > 0 or time.monotonic() - self._started > SHORT

    def reached(self, position: int) -> None:
        """Save if due, at the end of a span; raise `KeyboardInterrupt` if a signal came."""
        if not self.stop and time.monotonic() - self._saved < EVERY:
            return
        arrays = {"position": np.array(position), **_table_arrays(self.table, position)}
        for number, reducer in enumerate(self.reducers):
            arrays |= {f"r{number}.{k}": a for k, a in enumerate(reducer.export())}
        saved = self.shelf.save(self.path, arrays)
        self._saved = time.monotonic()
        if self.stop:
            if saved:
                console.say(f"stopped: the same command goes on from cell {position:,}")
            raise KeyboardInterrupt(signal.Signals(self.stop).name)

    def done(self) -> None:
        """Store the results of a long pass for other commands; delete its saved state."""
        if self._long:
            remember(self.shelf, self.reducers, self.table)
        with suppress(OSError):
            self.path.unlink()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Delay a signal to the end of the span; a second signal ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _: Any) -> None:
            if self.stop or not self._long:
                raise KeyboardInterrupt
            self.stop = number
            console.say("stopping after this piece of the file (once more: at once)")

        before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def remember(shelf: Shelf, reducers: Sequence[Reducer], table: CellTable) -> None:
    """Store the results of a finished pass over all cells."""
    shelf.save(shelf.entry("cells"), _table_arrays(table, len(table.kept)))
    for reducer in reducers:
        arrays = {str(k): array for k, array in enumerate(reducer.export())}
        shelf.save(shelf.entry(reducer.identity), arrays)


def recall(shelf: Shelf, reducers: Sequence[Reducer], table: CellTable) -> list[Reducer] | None:
    """Fill the table and known reducers; return the others, or None if nothing is stored."""
    held = shelf.load(shelf.entry("cells"))
    if held is None:
        return None
    _fill(table, held, len(table.kept))
    missing = []
    for reducer in reducers:
        found = shelf.load(shelf.entry(reducer.identity))
        if found is None:
            missing.append(reducer)
        else:
            reducer.merge(_arrays_of(found, ""))
    if not missing:
        console.say(f"{shelf.name}: not read again, all statistics are known ({shelf.folder})")
    return missing


def digest(*parts: Any) -> str:
    """Hash arguments: arrays by their content, everything else by type and contents."""
    state = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).view(np.uint8).data)
        elif isinstance(part, dict):
            state.update(digest(*(x for pair in part.items() for x in pair)).encode())
        elif isinstance(part, list | tuple):
            state.update(digest(*part).encode())
        else:
            state.update(f"{type(part).__name__}:{part!r}".encode())
        state.update(b"\0")
    return state.hexdigest()


def _identity(path: Path) -> tuple[str, int, int]:
    """Name a file by content, date and size."""
    from vcell.data.fingerprint import fingerprint

    about = path.stat()
    return fingerprint(path), about.st_mtime_ns, about.st_size


def _table_arrays(table: CellTable, n: int) -> Arrays:
    arrays: Arrays = {}
    arrays |= {"totals": table.totals[:n], "n_genes": table.n_genes[:n], "kept": table.kept[:n]}
    return arrays | {f"share.{kind}": values[:n] for kind, values in table.marked.items()}


def _fill(table: CellTable, held: Arrays, n: int) -> None:
    for name, values in _table_arrays(table, n).items():
        values[:] = held[name]


def _arrays_of(held: Arrays, prefix: str) -> list[NDArray[Any]]:
    names = [name for name in held if name.startswith(prefix)]
    return [held[name] for name in sorted(names, key=lambda name: int(name.removeprefix(prefix)))]
