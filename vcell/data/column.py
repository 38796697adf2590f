"""One column of obs or var: its values, and codes into categories."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vcell.data.texts import factorise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data.texts import Texts

Kind = Literal["categorical", "string", "number", "bool"]


class Column:
    """A column: its values, and the same as codes.

    Parameters
    ----------
    name
        Name of the column.
    values
        One value per row. Missing: NaN in numbers, None in strings and booleans.
    texts
        For a column of strings, none missing: the values in a compact form.
    codes, categories
        For a column stored as categories: the number of each row's category, -1 where missing.
    """

    def __init__(
        self,
        name: str,
        *,
        values: NDArray[Any] | None = None,
        texts: Texts | None = None,
        codes: NDArray[np.int32] | None = None,
        categories: NDArray[Any] | None = None,
    ) -> None:
        self.name = name
        self.texts = texts
        if texts is not None:
            self.kind: Kind = "string"
        elif values is not None:
            self.values = values
            self.kind = _kind(values)
        else:
            assert codes is not None
            assert categories is not None
            self._coded = codes.astype(np.int32, copy=False), categories
            self.kind = "categorical"

    def __len__(self) -> int:
        if self.texts is not None:
            return len(self.texts)
        return len(self.codes) if self.kind == "categorical" else len(self.values)

    @cached_property
    def values(self) -> NDArray[Any]:
        """One value per row; strings are an object array of str with None where missing."""
        if self.texts is not None:
            return self.texts[:]
        codes, categories = self._coded
        if categories.dtype.kind in "biuf" and not (codes < 0).any():
            return categories[codes]
        padded = np.empty(len(categories) + 1, object)
        padded[:-1] = categories.tolist()
        padded[-1] = None  # code -1
        return padded[codes]

    @cached_property
    def _coded(self) -> tuple[NDArray[np.int32], NDArray[Any]]:
        return numbered(self.values) if self.texts is None else self.texts.factorise()

    @property
    def codes(self) -> NDArray[np.int32]:
        """The number of each row's category; -1 where the value is missing."""
        return self._coded[0]

    @cached_property
    def categories(self) -> NDArray[np.str_]:
        """The distinct values as text: in stored order, else sorted."""
        return np.array([str(value) for value in self._coded[1].tolist()], dtype=np.str_)

    def counts(self) -> NDArray[np.int64]:
        """Return the number of rows of each category."""
        present = self.codes[self.codes >= 0]
        return np.bincount(present, minlength=len(self._coded[1]))


def _kind(values: NDArray[Any]) -> Kind:
    if values.dtype.kind == "b":
        return "bool"
    if values.dtype.kind in "iufc":
        return "number"
    first = next((v for v in values if v is not None), "")
    return "bool" if isinstance(first, bool | np.bool_) else "string"


def numbered(values: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return each value's number among the distinct ones (-1: missing), and those, sorted."""
    if values.dtype.kind in "biuf":
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        codes = np.full(len(values), -1, np.int32)
        categories, codes[~missing] = np.unique(values[~missing], return_inverse=True)
        return codes, categories
    return factorise(values)  # hashing strings is ten times faster than sorting
