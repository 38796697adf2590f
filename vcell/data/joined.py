"""Several sources as one: cells concatenated, genes aligned by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vcell import console
from vcell.data.block import Csr, Genes, select
from vcell.data.column import Column
from vcell.data.frame import NamedFrame
from vcell.data.matrix import Bound, Layout, Matrix, Rows
from vcell.data.source import CellSource
from vcell.data.texts import Texts, join
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def join_sources(
    sources: Sequence[CellSource], join: Literal["strict", "inner", "outer"], name: str
) -> CellSource:
    """Join several sources into one, which closes them."""
    genes, places = _align(sources, join, name)
    layers = set.intersection(*(set(s.parts.get("layers", ())) for s in sources))
    parts = {
        "format": " + ".join(sorted({s.parts.get("format", "?") for s in sources})),
        "layers": sorted(layers),
        "raw": all(s.parts.get("raw") for s in sources),
    }

    def close() -> None:
        for source in sources:
            source.close()

    return CellSource(
        JoinedMatrix([s.matrix for s in sources], places, len(genes)),
        JoinedFrame(sources),
        NamedFrame(genes, {}) if places else sources[0].var_frame,
        paths=[path for source in sources for path in source.paths],
        name=f"{name} ({len(sources)} files)",
        layer=sources[0].layer,
        join=join,
        parts=parts,
        close=close,
    )


def _align(
    sources: Sequence[CellSource], join: str, name: str
) -> tuple[NDArray[Any], list[NDArray[np.int32]]]:
    """Return the joint genes, and the new column of each source's genes (none if all are equal)."""
    first = sources[0].genes
    if all(np.array_equal(source.genes, first) for source in sources):
        return first, []
    for source in sources:
        unique, counts = np.unique(source.genes, return_counts=True)
        if (counts > 1).any():
            raise UserError(
                f"{source.name}: gene {str(unique[counts > 1][0])!r} occurs more than once, so its "
                "genes cannot be aligned with other files'",
                hint="make the names unique first",
            )
    kept = _joint_genes(sources, join, name)
    number = {gene: i for i, gene in enumerate(kept.tolist())}
    places = [
        np.array([number.get(g, -1) for g in source.genes.tolist()], np.int32) for source in sources
    ]
    return kept, places


def _joint_genes(sources: Sequence[CellSource], join: str, name: str) -> NDArray[Any]:
    """Return inner or outer genes in order of first occurrence."""
    first = sources[0].genes
    listed = [set(source.genes.tolist()) for source in sources]
    everywhere = set.intersection(*listed)
    anywhere = set.union(*listed)
    if join == "strict":
        for source, there in zip(sources[1:], listed[1:], strict=True):
            if there != listed[0]:
                odd = sorted(there.symmetric_difference(listed[0]))
                raise UserError(
                    f"{source.name} does not have the genes of {sources[0].name}: {len(odd):,} are "
                    f"in only one of them ({', '.join(odd[:5])}{', ...' if len(odd) > 5 else ''})",
                    hint=f"--join inner keeps the {len(everywhere):,} genes that are in all, "
                    f"--join outer the {len(anywhere):,} that are in any",
                )
        return first
    if join == "inner":
        if not everywhere:
            raise UserError(f"{name}: no gene is in all of the {len(sources)} files")
        console.say(f"{name}: {len(everywhere):,} of {len(anywhere):,} genes are in every file")
        return np.array([gene for gene in first.tolist() if gene in everywhere], np.str_)
    console.say(
        f"{name}: {len(anywhere):,} genes, {len(anywhere) - len(everywhere):,} of them zero where "
        "a file has them not"
    )
    ordered = dict.fromkeys(gene for source in sources for gene in source.genes.tolist())
    return np.array(list(ordered), np.str_)


class JoinedMatrix:
    """Rows of several matrices, concatenated."""

    def __init__(
        self, matrices: Sequence[Matrix], places: list[NDArray[np.int32]], n_genes: int
    ) -> None:
        self.matrices, self._places = matrices, places
        self.first = np.concatenate([[0], np.cumsum([m.shape[0] for m in matrices])])
        self.shape = int(self.first[-1]), n_genes
        self.dtype = np.result_type(*(m.dtype for m in matrices))
        layouts = [m.layout for m in matrices]
        kinds = sorted({layout.kind for layout in layouts})
        sizes = [layout.bytes for layout in layouts]
        self.layout = Layout(
            " + ".join(kinds),
            " + ".join(sorted({layout.compression for layout in layouts})),
            layouts[0].chunk,
            layouts[0].index_dtype,
            sum(size or 0 for size in sizes) if None not in sizes else None,
        )

    @property
    def nnz(self) -> int | None:
        """Stored values of all files, including those of dropped genes."""
        counts = [matrix.nnz for matrix in self.matrices]
        return None if None in counts else sum(n or 0 for n in counts)

    @property
    def needs_pass(self) -> bool:
        """Whether any of the matrices needs a pass."""
        return any(matrix.needs_pass for matrix in self.matrices)

    def cuts(self, rows: Rows, genes: Genes | None, bound: Bound) -> Iterator[Rows]:
        """Cut within each file."""
        for number, matrix in enumerate(self.matrices):
            low, high = int(self.first[number]), int(self.first[number + 1])
            local: Rows
            if isinstance(rows, range):
                local = range(max(rows.start - low, 0), min(rows.stop, high) - low)
            else:
                a, b = np.searchsorted(rows, [low, high])
                local = rows[a:b] - low
            if not len(local):
                continue
            choice = self._choice(number, genes)
            for cut in matrix.cuts(local, choice, bound):
                shifted = (
                    range(cut.start + low, cut.stop + low) if isinstance(cut, range) else cut + low
                )
                yield shifted

    def read(self, rows: Rows, genes: Genes | None, dtype: np.dtype[Any]) -> Csr:
        """Read rows that are all in one file, as returned by `cuts`."""
        begin = rows.start if isinstance(rows, range) else int(rows[0])
        number = int(np.searchsorted(self.first, begin, side="right")) - 1
        low = int(self.first[number])
        local = range(rows.start - low, rows.stop - low) if isinstance(rows, range) else rows - low
        choice = self._choice(number, genes)
        csr = self.matrices[number].read(local, choice, dtype)
        if not self._places:
            return csr
        return select(csr, self._moved(number, genes, choice))

    def _choice(self, number: int, genes: Genes | None) -> Genes | None:
        """Return which columns of one file are needed."""
        if not self._places:
            return genes
        if genes is None:
            return None
        place = self._places[number]
        wanted = np.zeros(self.shape[1] + 1, bool)  # the last entry is for -1
        wanted[genes.chosen] = True
        return Genes.choose(np.flatnonzero(wanted[place]), len(place))

    def _moved(self, number: int, genes: Genes | None, choice: Genes | None) -> Genes:
        """Return the new positions of the columns that were read."""
        place = self._places[number]
        if choice is not None:
            place = place[choice.chosen]
        if genes is not None:
            place = np.append(genes.place, np.int32(-1))[place]
        kept = place[place >= 0]
        n = self.shape[1] if genes is None else len(genes.chosen)
        return Genes(np.arange(n), place, bool((np.diff(kept) > 0).all()))

    def close(self) -> None:
        """Close all matrices."""
        for matrix in self.matrices:
            matrix.close()


class JoinedFrame:
    """obs of several sources, concatenated; values are missing where a file lacks a column."""

    def __init__(self, sources: Sequence[CellSource]) -> None:
        self._sources = sources
        self.n = sum(source.n_cells for source in sources)
        self.columns = list(dict.fromkeys(c for source in sources for c in source.obs_columns))

    def names(self) -> Texts:
        """Read all names."""
        return join(source.cells for source in self._sources)

    def column(self, name: str) -> Column:
        """Read a column of every file, and concatenate."""
        found = [s.obs(name) if name in s.obs_columns else None for s in self._sources]
        kinds = {column.kind for column in found if column is not None}
        if kinds <= {"number"}:
            pieces = [
                np.full(s.n_cells, np.nan) if column is None else column.values
                for s, column in zip(self._sources, found, strict=True)
            ]
            return Column(name, values=np.concatenate(pieces))
        labels: dict[str, int] = {}
        codes = []
        for source, column in zip(self._sources, found, strict=True):
            if column is None:
                codes.append(np.full(source.n_cells, -1, np.int32))
                continue
            numbers = [labels.setdefault(c, len(labels)) for c in column.categories.tolist()]
            codes.append(np.array([*numbers, -1], np.int32)[column.codes])
        return Column(
            name, codes=np.concatenate(codes), categories=np.array(list(labels), dtype=object)
        )
