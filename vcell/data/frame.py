"""obs and var of a file: the list of columns, each read on demand."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vcell.data.column import Column
from vcell.data.fault import damaged, reading
from vcell.data.nodes import (
    Node,
    array_child,
    attr,
    child,
    compact_texts,
    decoded,
    encoding,
    holds_text,
    is_group,
    numbers,
    texts,
)
from vcell.data.texts import Texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What a nullable string is stored as where it is missing, once it is only text.
MISSING_NAME = ""


class Frame(Protocol):
    """A table with one row per cell (obs) or gene (var)."""

    @property
    def n(self) -> int:
        """Number of rows."""
        ...

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the file's order."""
        ...

    def names(self) -> Texts:
        """Return the index: names of cells or genes."""
        ...

    def column(self, name: str) -> Column:
        """Read one column, which must exist."""
        ...


class StoredFrame:
    """A dataframe group of an h5ad or zarr file, in any of anndata's encodings since 0.7."""

    def __init__(self, group: Node, where: str) -> None:
        self.group, self.where = group, where
        index = attr(group, "_index", None)
        self._index = index if isinstance(index, str) else self._guess_index()

    def _guess_index(self) -> str:
        for name in ("_index", "index"):
            if name in self.group:
                return name
        raise damaged(self.where, "does not say which column holds the names")

    @cached_property
    def n(self) -> int:
        """Number of rows, from the index's shape."""
        node = child(self.group, self._index, self.where)
        with reading(f"{self.where}/{self._index}"):
            values = node["values"] if is_group(node) and "values" in node else node
            values = values["codes"] if is_group(values) else values
            return int(values.shape[0])

    @cached_property
    def columns(self) -> list[str]:
        """Columns in the order stored by the writer, then any others."""
        with reading(self.where):
            noted = attr(self.group, "column-order", None)
            order = [] if noted is None else decoded(np.atleast_1d(np.asarray(noted))).tolist()
            hidden = {self._index, "__categories"}
            there = [key for key in self.group.keys() if key not in hidden]  # noqa: SIM118
        known = set(there)
        first = [name for name in order if name in known]
        return first + sorted(known.difference(first))

    def names(self) -> Texts:
        """Read the index."""
        where = f"{self.where}/{self._index}"
        node = child(self.group, self._index, self.where)
        with reading(where):
            if is_group(node) and "values" in node and "mask" in node:  # nullable strings
                mask = numbers(array_child(node, "mask", where), where)
                node = node if mask.any() else node["values"]
            if not is_group(node) and node.attrs.get("categories") is None and holds_text(node):
                return compact_texts(node, where)
        values = self.column(self._index).values
        out = np.empty(len(values), object)
        out[:] = [MISSING_NAME if v is None else str(v) for v in values.tolist()]
        return Texts.of(out)

    def column(self, name: str) -> Column:
        """Read one column."""
        where = f"{self.where}/{name}"
        node = child(self.group, name, self.where)
        with reading(where):
            column = _group_column(node, name, where) if is_group(node) else self._flat(node, name)
        if name != self._index and len(column) != self.n:
            raise damaged(where, f"has {len(column):,} values where {self.n:,} are expected")
        return column

    def _flat(self, node: Node, name: str) -> Column:
        """Read a plain array, or codes with categories in ``__categories`` (anndata 0.7)."""
        where = f"{self.where}/{name}"
        if node.attrs.get("categories") is not None and "__categories" in self.group:
            listed = array_child(self.group["__categories"], name, f"{self.where}/__categories")
            return _coded(name, numbers(node, where), _plain(listed, where), where)
        if holds_text(node) and len(node.shape) == 1:
            return Column(name, texts=compact_texts(node, where))
        return Column(name, values=_plain(node, where))


class RecordFrame:
    """obs or var as one array of records, as written by anndata before 0.7."""

    def __init__(self, node: Node, categories: Node | None, where: str) -> None:
        self.node, self.categories, self.where = node, categories, where
        fields = list(node.dtype.names)
        self._index = next((f for f in ("index", "_index") if f in fields), fields[0])
        self.columns = [name for name in fields if name != self._index]
        self.n = int(node.shape[0])

    def names(self) -> Texts:
        """Read the index."""
        return Texts.of(decoded(self._field(self._index)))

    def _field(self, name: str) -> NDArray[Any]:
        with reading(f"{self.where}/{name}"):
            return np.asarray(self.node[name])

    def column(self, name: str) -> Column:
        """Read one field; its categories, if any, are in uns."""
        where, values = f"{self.where}/{name}", self._field(name)
        listed = f"{name}_categories"
        if self.categories is not None and listed in self.categories and values.dtype.kind in "iu":
            return _coded(name, values, _plain(self.categories[listed], where), where)
        return Column(name, values=decoded(values) if values.dtype.kind in "OSU" else values)


class NamedFrame:
    """Names and columns in memory, for 10x files."""

    def __init__(self, names: NDArray[Any], columns: dict[str, NDArray[Any]]) -> None:
        self._names, self._columns = names, columns
        self.n = len(names)
        self.columns = list(columns)

    def names(self) -> Texts:
        """Return the names."""
        return Texts.of(self._names)

    def column(self, name: str) -> Column:
        """Return one column."""
        return Column(name, values=self._columns[name])


class PandasFrame:
    """obs or var of an AnnData in memory."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        self.n = len(frame)
        self.columns = [str(name) for name in frame.columns]

    def names(self) -> Texts:
        """Return the index as text."""
        return Texts.of(self.frame.index.to_numpy(object))

    def column(self, name: str) -> Column:
        """Return one column."""
        import pandas as pd

        series = self.frame.iloc[:, self.columns.index(name)]
        if isinstance(series.dtype, pd.CategoricalDtype):
            codes, listed = series.cat.codes.to_numpy(), series.cat.categories.to_numpy()
            return Column(name, codes=codes.astype(np.int32), categories=listed)
        missing = series.isna().to_numpy()
        if series.dtype.kind in "biuf" and not (missing.any() and series.dtype.kind in "biu"):
            return Column(
                name,
                values=series.to_numpy(series.dtype.type, na_value=np.nan)
                if missing.any()
                else series.to_numpy(_numpy_type(series.dtype)),
            )
        return Column(name, values=_masked(series.to_numpy(object, na_value=None), missing))


def _numpy_type(dtype: Any) -> Any:
    return getattr(dtype, "numpy_dtype", dtype)


def _group_column(node: Node, name: str, where: str) -> Column:
    """Read a column that is a group: categories, or values with a mask."""
    kind = encoding(node)
    if kind == "categorical" or (not kind and "codes" in node):
        listed = child(node, "categories", where)
        if is_group(listed):
            categories = _group_column(listed, name, f"{where}/categories").values
        else:
            categories = _plain(listed, f"{where}/categories")
        return _coded(name, numbers(array_child(node, "codes", where), where), categories, where)
    if "values" in node and "mask" in node:
        values = _plain(array_child(node, "values", where), where)
        mask = numbers(array_child(node, "mask", where), where).astype(bool)
        if len(mask) != len(values):
            raise damaged(where, f"has {len(values):,} values and a mask of {len(mask):,}")
        return Column(name, values=_masked(values, mask))
    raise damaged(where, f"is of a kind that vcell does not know ({kind or 'a bare group'})")


def _masked(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Set NaN or None where the mask is true."""
    if not mask.any():
        return values
    if values.dtype.kind in "iuf":
        values = values.astype(np.float64)
        values[mask] = np.nan
        return values
    values = values.astype(object)
    numeric = all(
        isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_)
        for v in values[~mask]
    )
    values[mask] = np.nan if numeric and not mask.all() else None
    return values.astype(np.float64) if numeric and not mask.all() else values


def _plain(node: Node, where: str) -> NDArray[Any]:
    return texts(node, where) if holds_text(node) else numbers(node, where)


def _coded(name: str, codes: NDArray[Any], categories: NDArray[Any], where: str) -> Column:
    """Check codes against their categories."""
    if codes.dtype.kind not in "iu":
        raise damaged(where, f"has codes of type {codes.dtype}")
    if len(codes) and (int(codes.max()) >= len(categories) or int(codes.min()) < -1):
        raise damaged(where, f"has codes that none of its {len(categories):,} categories has")
    return Column(name, codes=codes.astype(np.int32), categories=categories)
