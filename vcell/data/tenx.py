"""10x Genomics output: the .h5 of Cell Ranger 2 and 3, and folders with matrix.mtx.

10x files hold genes by cells in CSC, which equals cells by genes in CSR.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from vcell import console
from vcell.data.block import Csr, Genes, canonical, select
from vcell.data.chunked import array_of
from vcell.data.descriptor import Descriptor
from vcell.data.fault import damaged, reading
from vcell.data.frame import NamedFrame
from vcell.data.matrix import Bound, CsrMatrix, Layout, Rows, cut_by_size
from vcell.data.nodes import Node, array_child, is_group, numbers, texts
from vcell.data.source import CellSource
from vcell.data.spill import RowSpill
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Lines of matrix.mtx parsed at a time.
TEXT_PIECE = 1 << 20
#: Entries kept in memory; more go through a temporary file.
IN_MEMORY = 1 << 23


def open_tenx_h5(file: Any, path: Path, layer: str | None) -> CellSource:
    """Open a 10x .h5 file."""
    _no_layers(path, layer)
    groups = [key for key in file if is_group(file[key]) and "barcodes" in file[key]]
    if len(groups) != 1:
        raise UserError(
            f"{path} holds {len(groups)} genomes ({', '.join(groups)})", hint="split it by genome"
        )
    group, where = file[groups[0]], f"{path}/{groups[0]}"
    shape = numbers(array_child(group, "shape", where), f"{where}/shape")
    if shape.shape != (2,) or (shape < 0).any() or (shape >= 2**31).any():
        raise damaged(where, f"has no usable shape ({shape.tolist()})")
    n_genes, n_cells = (int(n) for n in shape)
    raw = Descriptor(path)

    def close() -> None:
        raw.close()
        file.close()

    try:
        data, indices = (array_child(group, name, where) for name in ("data", "indices"))
        from vcell.data.anndata_file import layout_of

        matrix = CsrMatrix(
            array_of(data, f"{where}/data", raw),
            array_of(indices, f"{where}/indices", raw),
            numbers(array_child(group, "indptr", where), f"{where}/indptr"),
            (n_cells, n_genes),
            layout_of("csr", data, indices),
        )
        cells = texts(array_child(group, "barcodes", where), f"{where}/barcodes")
        return CellSource(
            matrix, NamedFrame(cells, {}), _h5_genes(group, where), paths=[path], name=str(path),
            parts={"format": "10x h5"}, close=close,
        )  # fmt: skip
    except BaseException:
        raw.close()
        raise


def _h5_genes(group: Node, where: str) -> NamedFrame:
    """Read the genes of version 3 (features) or 2 (genes, gene_names)."""
    if "features" in group:
        at, features = f"{where}/features", group["features"]
        kept = [k for k in ("id", "feature_type", "genome") if k in features]
        columns = {k: texts(features[k], f"{at}/{k}") for k in kept}
        names = texts(array_child(features, "name", at), f"{at}/name")
    else:
        names = texts(array_child(group, "gene_names", where), f"{where}/gene_names")
        columns = {"id": texts(array_child(group, "genes", where), f"{where}/genes")}
    if "id" in columns:
        columns = {"gene_ids": columns.pop("id"), **columns}
    return NamedFrame(names, columns)


def open_mtx(folder: Path, layer: str | None) -> CellSource:
    """Open a folder with matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv)."""
    _no_layers(folder, layer)
    path = _one_of(folder, "matrix.mtx")
    cells = _table(_one_of(folder, "barcodes.tsv"))
    features = _table(_one_of(folder, "features.tsv", "genes.tsv"))
    if features.shape[1] < 2:
        features = np.repeat(features, 2, axis=1)
    columns = {"gene_ids": features[:, 0]}
    if features.shape[1] > 2:
        columns["feature_type"] = features[:, 2]
    matrix = MtxMatrix(path, len(cells), len(features))
    return CellSource(
        matrix, NamedFrame(cells[:, 0], {}), NamedFrame(features[:, 1], columns),
        paths=[folder], name=str(folder), parts={"format": "10x mtx"},
    )  # fmt: skip


def _no_layers(path: Path, layer: str | None) -> None:
    if layer not in (None, "X"):
        raise UserError(
            f"{path} is a 10x file: it has no layer {layer!r}", hint="leave out --layer"
        )


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise UserError(f"{folder} has no {' or '.join(names)}, which a 10x folder needs")


def _opened(path: Path) -> IO[bytes]:
    """Open a file that may be gzipped."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _table(path: Path) -> NDArray[np.object_]:
    """Read tab-separated names."""
    with reading(str(path)), _opened(path) as file:
        lines = file.read().decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    rows = [line.split("\t") for line in lines] if lines != [""] else []
    blank = next((i for i, row in enumerate(rows) if not any(map(str.strip, row))), None)
    if blank is not None:
        raise UserError(f"{path}, line {blank + 1}: is blank")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        odd = next(i for i, row in enumerate(rows) if len(row) != len(rows[0]))
        has = console.count(len(rows[odd]), "column")
        raise UserError(f"{path}, line {odd + 1}: has {has}, not {len(rows[0])}")
    out = np.empty((len(rows), widths.pop() if widths else 1), object)
    if rows:
        out[:] = rows
    return out


_KINDS = ([b"integer"], [b"real"], [b"double"], [b"pattern"])  # of entries


class MtxMatrix:
    """matrix.mtx: text, parsed once, when rows are first read."""

    def __init__(self, path: Path, n_cells: int, n_genes: int) -> None:
        self.path, self.shape = path, (n_cells, n_genes)
        with reading(str(path)), _opened(path) as file:
            head = file.readline().split()
            line, self._head_lines = file.readline(), 2
            while line.startswith(b"%"):
                line, self._head_lines = file.readline(), self._head_lines + 1
            sizes = [int(word) for word in line.split()]
        if head[:3] != [b"%%MatrixMarket", b"matrix", b"coordinate"] or len(sizes) != 3:
            raise UserError(f"{path} is not a MatrixMarket coordinate file")
        if head[3:4] not in _KINDS or head[4:5] not in ([b"general"], []):
            said = b" ".join(head[3:]).decode("ascii", "replace")
            raise UserError(
                f"{path}: its head says {said!r}", hint="vcell reads integer, real and pattern"
            )
        if sizes[:2] != [n_genes, n_cells]:
            raise UserError(
                f"{path} is of {console.count(sizes[0], 'gene')} and "
                f"{console.count(sizes[1], 'cell')}, but its folder names "
                f"{console.count(n_genes, 'gene')} and {console.count(n_cells, 'barcode')}"
            )
        self.nnz = sizes[2]
        self._pattern = head[3:4] == [b"pattern"]
        self.dtype = np.dtype(np.int32 if head[3:4] == [b"integer"] else np.float32)
        packed = "gzip" if path.suffix == ".gz" else "none"
        self.layout = Layout("text", packed, None, None, path.stat().st_size)
        self._rows: RowSpill | None = None

    @property
    def needs_pass(self) -> bool:
        """Whether it is long and not yet parsed."""
        return self._rows is None and self.nnz > IN_MEMORY

    def cuts(self, rows: Rows, genes: Genes | None, bound: Bound) -> Iterator[Rows]:
        """Split by the rows' non-zeros."""
        del genes
        yield from cut_by_size(rows, self._parsed().indptr, bound)

    def read(self, rows: Rows, genes: Genes | None, dtype: np.dtype[Any]) -> Csr:
        """Read parsed rows."""
        csr = self._parsed().read(rows)
        csr = Csr(csr.indptr, csr.indices, csr.data.astype(dtype, copy=False))
        csr = canonical(csr, self.shape[1])
        return csr if genes is None else select(csr, genes)

    def close(self) -> None:
        """Delete the temporary file."""
        if self._rows is not None:
            self._rows.close()

    def _parsed(self) -> RowSpill:
        if self._rows is None:
            rows = RowSpill(self.shape[0], self.dtype, self.nnz, in_memory=self.nnz <= IN_MEMORY)
            if rows.file is not None:
                console.say(
                    f"{self.path} is text: it is parsed once into a temporary file of "
                    f"{console.bytes_text(self.nnz * rows.record.itemsize)} in {rows.file.folder} "
                    "(TMPDIR chooses where)"
                )
            with reading(str(self.path)):
                self._parse(rows)
            rows.finish()
            self._rows = rows
        return self._rows

    def _parse(self, rows: RowSpill) -> None:
        import pandas as pd  # its C parser is several times faster than splitting lines

        kinds = dict(enumerate([np.int64, np.int64, np.float64][: 2 if self._pattern else 3]))
        seen = 0
        with _opened(self.path) as file, console.progress("parsing", self.nnz, "entries") as bar:
            pieces = pd.read_csv(
                file, sep=" ", header=None, skiprows=self._head_lines, dtype=kinds,
                names=list(kinds), index_col=False, chunksize=TEXT_PIECE,
            ) if self.nnz else ()  # fmt: skip
            for piece in pieces:
                gene, cell = (piece[i].to_numpy() - 1 for i in (0, 1))
                for number, n, what in (
                    (gene, self.shape[1], "gene"),
                    (cell, self.shape[0], "cell"),
                ):
                    if len(number) and (number.min() < 0 or number.max() >= n):
                        raise damaged(str(self.path), f"has a {what} number outside 1 to {n:,}")
                values = np.ones(len(gene)) if self._pattern else piece[2].to_numpy()
                with np.errstate(invalid="ignore"):
                    stored = values.astype(self.dtype)
                if self.dtype == np.int32 and not np.array_equal(stored, values):
                    raise damaged(str(self.path), "has entries that are no whole numbers")
                rows.add(cell.astype(np.int32), gene.astype(np.int32), stored)
                seen += len(piece)
                bar.advance(len(piece))
        if seen != self.nnz:
            raise damaged(str(self.path), f"has {seen:,} entries where its head says {self.nnz:,}")
