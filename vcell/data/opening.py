"""`open_cells`: detect the format of a path and open it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vcell.errors import UserError
from vcell.outputs.inputs import is_zarr

if TYPE_CHECKING:
    from vcell.data.source import CellSource

Join = Literal["strict", "inner", "outer"]
Cells = Any  # str | PathLike | Sequence of them | AnnData, which is not imported for its type


def open_cells(cells: Cells, layer: str | None = None, *, join: Join = "strict") -> CellSource:
    """Open cells for reading in bounded memory.

    Parameters
    ----------
    cells
        An .h5ad file, a zarr folder, a 10x .h5 file or mtx folder, a folder of such files, a list
        of paths, an AnnData in memory, or an open source, which stays open.
    layer
        None or "X" for X, "raw" for raw/X, otherwise the name of a layer.
    join
        How the genes of several files are combined: "strict" (they must be the same, in any order),
        "inner" (those in all files) or "outer" (those in any, zero where absent).

    Returns
    -------
    CellSource
        The open cells; close it, or use it in a ``with``.

    Raises
    ------
    UserError
        If there is nothing to open or it cannot be read; the message says where and why.
    """
    from vcell.data.source import CellSource

    if isinstance(cells, CellSource):
        if layer not in (None, cells.layer):
            raise UserError(f"{cells.name} is open already, with another layer than {layer}")
        return cells.lent()
    source = _opened(cells, layer, join)
    source.given = cells
    return source


def _opened(cells: Cells, layer: str | None, join: Join) -> CellSource:
    if isinstance(cells, str | os.PathLike):
        return _open_path(Path(cells), layer, join)
    if hasattr(cells, "obs") and hasattr(cells, "var") and hasattr(cells, "X"):
        return _open_anndata(cells, layer)
    if isinstance(cells, Sequence):
        return _open_many(list(cells), layer, join, "the list of files")
    raise TypeError(f"cannot open cells from {type(cells).__name__}")


def _open_anndata(adata: Any, layer: str | None) -> CellSource:
    if not getattr(adata, "isbacked", False):
        from vcell.data.in_memory import open_anndata

        return open_anndata(adata, layer)
    if adata.is_view:
        raise UserError(
            "a view of a backed AnnData cannot be read", hint="use adata.to_memory(), or its file"
        )
    return _open_path(Path(adata.filename), layer, "strict")


def _open_path(path: Path, layer: str | None, join: Join) -> CellSource:
    if not path.exists():
        if path.is_symlink():
            raise UserError(f"{path} is a link to {path.readlink()}, which leads to no file")
        if re.match(r"(https?|ftp|s3|gs):/", str(path)):
            raise UserError(f"{path} is an address, not a file", hint="download it first")
        raise UserError(f"{path} does not exist", hint=_nearby(path))
    if path.is_file():
        return _open_file(path, layer)
    if not path.is_dir():
        raise UserError(
            f"{path} is neither a file nor a folder",
            hint="cells are read in any order, which a pipe cannot do: write them to a file first",
        )
    if is_zarr(path):
        from vcell.data.zarr_file import open_zarr

        return open_zarr(path, layer)
    if is_mtx(path):
        from vcell.data.tenx import open_mtx

        return open_mtx(path, layer)
    inside = sorted(p for p in path.iterdir() if _is_cells(p))
    return _open_many(inside, layer, join, str(path))


def _open_many(items: Sequence[Cells], layer: str | None, join: Join, name: str) -> CellSource:
    if not items:
        raise UserError(
            f"{name} holds no cells", hint="looked for .h5ad, .h5, zarr folders and 10x mtx folders"
        )
    if len(items) == 1:
        return open_cells(items[0], layer, join=join)
    from vcell.data.joined import join_sources

    opened: list[CellSource] = []
    try:
        opened.extend(open_cells(item, layer, join=join) for item in items)
        return join_sources(opened, join, name)
    except BaseException:
        for source in opened:
            source.close()
        raise


def _open_file(path: Path, layer: str | None) -> CellSource:
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89HDF"):
        from vcell.data.h5_file import open_h5

        return open_h5(path, layer)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    if path.name.removesuffix(".gz").endswith(".mtx"):
        from vcell.data.tenx import open_mtx

        return open_mtx(path.parent, layer)
    raise UserError(
        f"{path} is not a file with cells: it does not begin like HDF5", hint=_instead(head)
    )


def _instead(head: bytes) -> str:
    """Return the hint for a file that is something else, by its first eight bytes."""
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed by gzip: unpack it with gunzip first"
    if head.startswith(b"PK"):
        return "it is a zip archive: unpack it first"
    if head.startswith(b"version "):
        return "it is a pointer of Git LFS: `git lfs pull` fetches the file itself"
    if head.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "it is a web page: look at it in a browser, and download the file again"
    return "vcell reads .h5ad, 10x .h5, zarr folders and 10x mtx folders"


def is_mtx(path: Path) -> bool:
    """Whether a folder holds a 10x matrix as text."""
    return any((path / name).is_file() for name in ("matrix.mtx", "matrix.mtx.gz"))


def _is_cells(path: Path) -> bool:
    if path.is_file():
        return path.suffix in (".h5ad", ".h5")
    return is_zarr(path) or is_mtx(path)


def _nearby(path: Path) -> str | None:
    from vcell.suggest import closest

    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    near = closest(path.name, [p.name for p in path.parent.iterdir()])
    return None if near is None else f"did you mean {path.parent / near}?"
