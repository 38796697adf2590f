"""Write samples as a stream into an .h5ad, or an .npz of arrays, which appears when complete."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vcell.bulk.pools import Pools
from vcell.data.write import CellWriter
from vcell.errors import UserError
from vcell.outputs import MADE_BY, made_by, whole

if TYPE_CHECKING:
    from vcell.bulk.sums import Samples

FRACTIONS = "fractions"


@dataclass(frozen=True, eq=False)
class PseudobulkLayout:
    """The content of a file of samples.

    Attributes
    ----------
    size
        Number of samples.
    methods
        Names of the estimates of fractions.
    columns
        Names of the columns "by" and "split" in the file; None for a column that does not exist.
    about
        The settings, saved in the file.
    """

    genes: NDArray[np.str_]
    pools: Pools
    size: int
    methods: Sequence[str]
    columns: Mapping[str, str | None]
    about: Mapping[str, Any]


class PseudobulkFiles(ABC):
    """A file of samples, written part by part; a context manager."""

    def __init__(self, path: Path, layout: PseudobulkLayout) -> None:
        self._path, self._layout, self._pools = path, layout, layout.pools
        self._columns = _columns(layout.pools, layout.columns)

    @staticmethod
    def of(path: Path, layout: PseudobulkLayout) -> PseudobulkFiles:
        """Return the writer for the file's suffix."""
        kind = _Archive if path.suffix == ".npz" else _Cells
        return kind(path, layout)

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Open the file; the stack closes it."""

    @abstractmethod
    def append(self, part: Samples, estimates: Mapping[str, NDArray[np.float64]]) -> None:
        """Write some samples."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is known only at the end."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._begin(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            with self._stack:
                self._finish()
        else:
            self._stack.__exit__(kind, error, traceback)


class _Cells(PseudobulkFiles):
    """The .h5ad: X int32, obs the group, obsm the fractions."""

    def _begin(self, stack: ExitStack) -> None:
        layout, types = self._layout, self._pools.types
        obs: dict[str, Any] = dict.fromkeys(self._columns)
        noted = {key: value for key, value in layout.about.items() if value not in (None, ())}
        self._writer = stack.enter_context(
            CellWriter(
                self._path, layout.genes, obs=obs,
                obsm=dict.fromkeys((FRACTIONS, *layout.methods), len(types)),
                uns={"pseudobulk": noted | {"types": types}}, dtype=np.int32, dense=True,
                n_cells=layout.size,
            )
        )  # fmt: skip

    def append(self, part: Samples, estimates: Mapping[str, NDArray[np.float64]]) -> None:
        drawn = part.drawn
        obs = {name: values[drawn.group] for name, values in self._columns.items()}
        self._writer.append(
            part.counts, obs, _names(self._pools, drawn.group, drawn.number),
            {FRACTIONS: drawn.fractions, **estimates},
        )  # fmt: skip

    def _finish(self) -> None:
        """Do nothing: the writer closes itself."""


class _Archive(PseudobulkFiles):
    """The .npz: counts are written as a stream, everything else at the end."""

    def _begin(self, stack: ExitStack) -> None:
        layout = self._layout
        self._rest: dict[str, list[NDArray[Any]]] = {
            name: [] for name in (FRACTIONS, "group", "rows", "sample", *layout.methods)
        }
        aside = stack.enter_context(whole(self._path))
        self._zip = stack.enter_context(zipfile.ZipFile(aside, "w"))
        self._member = stack.enter_context(self._zip.open("counts.npy", "w", force_zip64=True))
        shape = (layout.size, len(layout.genes))
        head = {"descr": "<i4", "fortran_order": False, "shape": shape}
        npy.write_array_header_2_0(self._member, head)

    def append(self, part: Samples, estimates: Mapping[str, NDArray[np.float64]]) -> None:
        self._member.write(np.ascontiguousarray(part.counts, "<i4").data)
        drawn = part.drawn
        self._rest["group"].append(drawn.group)
        self._rest["rows"].append(drawn.cells)
        self._rest["sample"].append(_names(self._pools, drawn.group, drawn.number))
        for name, values in {FRACTIONS: drawn.fractions, **estimates}.items():
            self._rest[name].append(values)

    def _finish(self) -> None:
        self._member.close()
        arrays = {
            "genes": self._layout.genes, "types": np.array(self._pools.types, dtype=np.str_),
            MADE_BY: np.array(made_by()),
        } | {name: np.concatenate(parts) for name, parts in self._rest.items()}  # fmt: skip
        arrays["rows"] = arrays["rows"].astype(np.int64)
        arrays |= {name: values[arrays["group"]] for name, values in self._columns.items()}
        for name, values in arrays.items():
            with self._zip.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(values), allow_pickle=False)


def _columns(pools: Pools, columns: Mapping[str, str | None]) -> dict[str, NDArray[np.str_]]:
    """Return the value of every group for each column of the file."""
    given = {attribute: name for attribute, name in columns.items() if name}
    if len(set(given.values())) < len(given):
        raise UserError("--by and --split-by name the same column", hint="--split-by does both")
    return {
        name: np.array([getattr(group, attribute) for group in pools.groups], dtype=np.str_)
        for attribute, name in given.items()
    }


def _names(pools: Pools, group: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.str_]:
    """Name samples by their group and their number within it."""
    heads = [g.name for g in pools.groups]
    pairs = zip(group.tolist(), number.tolist(), strict=True)
    return np.array([f"{heads[g]}/sample-{i}" if heads[g] else f"sample-{i}" for g, i in pairs])
