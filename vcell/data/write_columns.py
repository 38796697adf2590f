"""Columns of obs and var in anndata's encodings, collected by block and written at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.column import Column
from vcell.data.elements import note, write_array, write_categories, write_texts
from vcell.data.texts import factorise

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Growing:
    """One obs column: codes of its categories, or plain numbers, block after block.

    Parameters
    ----------
    name
        Name of the column.
    categories
        Categories known in advance: text or codes are accepted. None: text becomes categories,
        sorted at the end; numbers stay numbers.
    """

    def __init__(self, name: str, categories: Sequence[str] | NDArray[Any] | None) -> None:
        self.name = name
        self._fixed = categories is not None
        listed = [] if categories is None else [str(c) for c in categories]
        self._number = {label: i for i, label in enumerate(listed)}
        self._pieces: list[NDArray[Any]] = []
        self._coded = self._fixed

    def extend(self, values: Any, n: int) -> None:
        """Add a value per cell: a `Column`, codes, numbers or text."""
        if isinstance(values, Column):
            values = values.values
        array = np.asarray(values)
        if array.shape != (n,):
            raise ValueError(f"obs column {self.name!r} has shape {array.shape} for {n} cells")
        if array.dtype.kind in "OUST":
            self._coded = True
            self._pieces.append(self._codes(array))
            return
        if self._fixed:
            codes = array.astype(np.int32)
            if len(codes) and (codes.min() < -1 or codes.max() >= len(self._number)):
                raise ValueError(f"obs column {self.name!r} has codes outside its categories")
            array = codes
        self._pieces.append(array.copy())

    def _codes(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        unique, codes = _unique(labels)
        numbers = np.empty(len(unique), np.int32)
        for i, label in enumerate(unique):
            if label not in self._number:
                if self._fixed:
                    raise ValueError(f"obs column {self.name!r} has no category {label!r}")
                self._number[label] = len(self._number)
            numbers[i] = self._number[label]
        return np.where(codes < 0, -1, numbers[codes] if len(unique) else -1).astype(np.int32)

    def write(self, frame: Any) -> None:
        """Write the column."""
        values = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int32)
        if not self._coded:
            write_array(frame, self.name, values)
            return
        categories = np.array(list(self._number), dtype=object)
        if not self._fixed:
            order = np.argsort(categories.astype(str), kind="stable")
            place = np.append(np.argsort(order), -1)  # the last entry is for code -1
            categories, values = categories[order], place[values]
        write_categories(frame, self.name, values, categories)


def _unique(labels: NDArray[Any]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the distinct labels of a block, and each row's number among them; -1 if missing."""
    codes, unique = factorise(labels, ordered=False)
    return [str(label) for label in unique.tolist()], codes


def write_frame(file: Any, name: str, columns: list[str]) -> Any:
    """Make a dataframe group without its columns."""
    import h5py

    frame = file.create_group(name)
    note(frame, "dataframe", "0.2.0")
    frame.attrs["_index"] = "_index"
    order = np.array(columns, dtype=object) if columns else np.zeros(0)
    frame.attrs.create("column-order", order, dtype=h5py.string_dtype() if columns else None)
    return frame


def write_strings(group: Any, name: str, values: NDArray[Any]) -> None:
    """Write an array of strings."""
    texts = np.array([str(value) for value in values.tolist()], dtype=object)
    write_texts(group, name, len(texts), [texts] if len(texts) else [])


def write_column(frame: Any, name: str, values: NDArray[Any]) -> None:
    """Write a column of var: text as strings, other values unchanged."""
    if values.dtype.kind in "OUST":
        write_strings(frame, name, values)
    else:
        write_array(frame, name, values)
