"""Reading of users' text files, with clear errors. Standard library only.

Tables of a few columns and lists of names. Text is UTF-8, with or without a byte order mark, and
with any line ends. What may be large or gzipped (edge lists, gene sets, tables of features) is
opened by `text_of`.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import select
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vcell import console
from vcell.errors import UserError

UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HINT = "save it as UTF-8 text"
_WRITER = 2.0  # seconds in which a writer must come to a pipe

_OTHER_MARKS = {";": "semicolons", "\t": "tabs"}
#: Columns that the tables of commands have; see `_require_commas`.
_HEADS = {"gene", "gene_name", "symbol", "gene_symbol", "target_gene", "perturbation", "n_cells"}

Rows = list[tuple[int, list[str]]]


def read_text(path: Path) -> str:
    """Return the text of a file, or what comes through a pipe.

    Raises
    ------
    UserError
        If there is no such file, it is a folder or not readable, or it is not UTF-8 text.
    """
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise unreadable(path, error) from None
    return decoded(path, raw)


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Return what is in a file, or comes through a pipe; at most so many bytes of it.

    Raises
    ------
    OSError
        It is not there, or may not be read.
    UserError
        It is a device, which may have no end, or a pipe that nobody writes to.
    """
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            _await_writer(path, file.fileno())
            os.set_blocking(file.fileno(), True)
            return file.read(most)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path} is neither a file nor a folder")
    with path.open("rb") as file:
        return file.read(most)


def _await_writer(path: Path, descriptor: int) -> None:
    """Refuse a pipe that has no writer: reading from it would wait for ever."""
    ready, _, _ = select.select([descriptor], [], [], _WRITER)
    if ready:
        return
    try:
        os.read(descriptor, 1)  # nothing has come yet, so nothing is taken away
    except BlockingIOError:
        return  # there is a writer, which takes its time
    raise UserError(f"{path} is a pipe that nobody writes to")


def decoded(path: Path | str, raw: bytes) -> str:
    """Return the text of bytes that were read from a file."""
    if raw.startswith(UTF16):
        raise UserError(f"{path} is UTF-16 text", hint=_HINT)
    if raw.startswith(b"\x1f\x8b"):
        raise UserError(f"{path} is packed by gzip", hint="unpack it first, with gunzip")
    if b"\0" in raw:
        raise UserError(f"{path} is not a text file", hint=_HINT)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text", hint=_HINT) from None


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist")
    if path.is_dir():
        return UserError(f"{path} is a folder, not a file")
    return UserError(f"{path} cannot be read: {error.strerror or error}")


def require_file(path: Path, hint: str | None = None) -> None:
    """Refuse what is not a file on a disk, where it is read more than once or not from its start.

    Raises
    ------
    UserError
        There is no such file, or it is a folder, a pipe or a device.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file", hint=hint)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a file", hint=hint)
    if not path.is_file():
        raise UserError(f"{path} is not a file on disk", hint="save it first: it is read twice")


def suffix_of(path: Path) -> str:
    """Return the suffix of a file's name without .gz: that of `sets.gmt.gz` is .gmt."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


@contextmanager
def text_of(path: Path) -> Iterator[IO[str]]:
    """Open a text file, gzipped or not; explain in one line why it cannot be read."""
    try:
        if not path.is_file() and not path.is_dir() and path.exists():
            raise UserError(f"{path} is not a file on disk", hint="it is read twice: save it first")
        with path.open("rb") as probe:
            head = probe.read(2)
        if head == b"\x1f\x8b" or path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            decoded(path, head if head in UTF16 else b"")
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is not UTF-8 text, nor gzipped text") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except csv.Error as error:
        raise UserError(f"{path} is not a table: {error}") from None


def read_rows(path: Path, mark: str | None = None) -> Rows:
    """Return the non-blank rows of a table, each with its line number; cells are stripped.

    Columns end at `mark`, by default at tabs in a .tsv and at commas elsewhere.

    Raises
    ------
    UserError
        As in `read_text`, or if a quotation mark is not closed, or the file is empty.
    """
    mark = mark or ("\t" if path.suffix.lower() == ".tsv" else ",")
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = csv.reader(io.StringIO(text), delimiter=mark, strict=True)
    rows: Rows = []
    try:
        for row in lines:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((lines.line_num, cells))
    except csv.Error as error:
        other = next((one for one in _OTHER_MARKS if f'"{one}"' in text), None)
        if mark == "," and other is not None:
            raise _separated(path, other) from None
        raise UserError(f"{path}:{lines.line_num}: is not a row of a table: {error}") from None
    if not rows:
        raise UserError(f"{path} is empty")
    if mark == ",":
        _require_commas(path, rows)
    return rows


def _require_commas(path: Path, rows: Rows) -> None:
    """Refuse a table that a spreadsheet has saved with semicolons or tabs instead of commas.

    A list of names that hold such a mark, as those of pairs may, has neither numbers nor a header.
    """
    for mark in _OTHER_MARKS:
        if not all(len(row) == 1 and mark in row[0] for _, row in rows):
            continue
        cells = [cell.strip().strip('"') for _, row in rows for cell in row[0].split(mark)]
        heads = {cell.casefold() for cell in cells[: rows[0][1][0].count(mark) + 1]}
        if heads & _HEADS or any(cell.replace(".", "", 1).isdecimal() for cell in cells):
            raise _separated(path, mark)


def _separated(path: Path, mark: str) -> UserError:
    """Return the error for a table with other separators than commas."""
    return UserError(
        f"{path}: its columns are separated by {_OTHER_MARKS[mark]}, not commas",
        hint="save it as comma-separated values" + ", or name it .tsv" * (mark == "\t"),
    )


@dataclass(frozen=True)
class NamedColumns:
    """A table whose first row names its columns.

    Attributes
    ----------
    head
        The names.
    rows
        The other rows with their line numbers; each is as wide as the first.
    """

    path: Path
    head: list[str]
    rows: Rows

    def column(self, *names: str) -> int | None:
        """Return the index of the first of these names among the columns, ignoring case."""
        found = [name.casefold() for name in self.head]
        name = next((name for name in names if name in found), None)
        if name is None:
            return None
        if found.count(name) > 1:
            raise UserError(
                f"{self.path}:1: {console.count(found.count(name), 'column')} named {name!r}",
                hint="every column needs a name of its own",
            )
        return found.index(name)

    def lacks(self, what: str, hint: str | None = None) -> UserError:
        """Return the error for a table without a required column."""
        shown = ", ".join(name[:40] for name in self.head[:10])
        more = ", ..." if len(self.head) > 10 else ""
        return UserError(f"{self.path}:1: no column {what}; it has {shown}{more}", hint=hint)


def read_table(path: Path, mark: str | None = None) -> NamedColumns:
    """Return a table with its header; every row must be as wide, except for empty cells at its end.

    Raises
    ------
    UserError
        As in `read_rows`, or if a row has fewer or more columns than the header.
    """
    return named_columns(path, read_rows(path, mark))


def named_columns(path: Path, rows: Rows) -> NamedColumns:
    """Return rows as a table; the first row is the header."""
    (_, head), *rest = rows
    for line, row in rest:
        if len(row) < len(head) or any(row[len(head) :]):
            has = console.count(len(row), "column")
            raise UserError(f"{path}:{line}: {has}, the header has {len(head)}")
    return NamedColumns(path, head, rest)


def names_of(path: Path, rows: Rows, columns: Sequence[str]) -> tuple[NamedColumns, int]:
    """Return a list of names as a table, and the index of the names' column.

    A table has one of `columns`; otherwise there is one name per line, and the header is empty.
    """
    head = rows[0][1]
    if len(head) > 1 or head[0].casefold() in columns:
        table = named_columns(path, rows)
        found = table.column(*columns)
        if found is None:
            raise table.lacks(" or ".join(columns))
        return table, found
    wide = next((line for line, row in rows if any(row[1:])), None)
    if wide is not None:
        raise UserError(f"{path}:{wide}: more than one name", hint="write one name a line")
    return NamedColumns(path, [""], rows), 0
