"""Write arrays, text, categories and nullable booleans to h5ad or zarr, as anndata encodes them.

The same as `anndata.io.write_elem`, but text is written in pieces and anndata, which takes 90 MB of
memory, is not imported. A *group* is an h5py or zarr group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.texts import PIECE

if TYPE_CHECKING:
    from numpy.typing import NDArray

Group = Any


def note(node: Any, kind: str, version: str, **more: Any) -> None:
    """Set the attributes of anndata's encoding on a group or array, and others."""
    attributes = {"encoding-type": kind, "encoding-version": version, **more}
    if is_hdf5(node):
        node.attrs.update(attributes)
    else:  # at once: zarr writes its file for every attribute that is set
        node.update_attributes(attributes)


def write_array(group: Group, name: str, values: NDArray[Any]) -> None:
    """Write numbers or booleans."""
    make = group.create_dataset if is_hdf5(group) else group.create_array
    note(make(name, data=np.ascontiguousarray(values)), "array", "0.2.0")


def write_texts(group: Group, name: str, n: int, pieces: Iterable[NDArray[Any]]) -> None:
    """Write `n` strings, piece by piece."""
    if is_hdf5(group):
        import h5py

        node = group.create_dataset(name, (n,), h5py.string_dtype())
    else:
        node = group.create_array(name, shape=(n,), dtype=str, chunks=(min(max(n, 1), PIECE),))
    at = 0
    for piece in pieces:
        node[at : at + len(piece)] = piece
        at += len(piece)
    note(node, "string-array", "0.2.0")


def write_categories(
    group: Group, name: str, codes: NDArray[np.integer[Any]], categories: NDArray[Any]
) -> None:
    """Write codes, -1 where missing, in the smallest type, and their categories."""
    column = group.create_group(name)
    note(column, "categorical", "0.2.0", ordered=False)
    small = next(t for t in (np.int8, np.int16, np.int32) if len(categories) <= np.iinfo(t).max)
    write_array(column, "codes", codes.astype(small))
    if categories.dtype.kind in "OUST":
        write_texts(column, "categories", len(categories), [categories.astype(object)])
    else:
        write_array(column, "categories", categories)


def write_tree(group: Group, name: str, values: Mapping[str, Any]) -> None:
    """Write a dictionary of text, numbers, booleans, arrays, lists of text and dictionaries.

    Other values are written by anndata.
    """
    if not _plain(values):
        from anndata.io import write_elem

        write_elem(group, name, dict(values))
        return
    folder = group.require_group(name)
    note(folder, "dict", "0.1.0")
    for key, value in values.items():
        if isinstance(value, Mapping):
            write_tree(folder, key, value)
        elif isinstance(value, str):
            folder.create_dataset(key, data=value)
            note(folder[key], "string", "0.2.0")
        elif isinstance(value, list | tuple):
            write_texts(folder, key, len(value), [np.array(value, dtype=object)])
        elif isinstance(value, np.ndarray):
            write_array(folder, key, value)
        else:
            folder.create_dataset(key, data=value)
            note(folder[key], "numeric-scalar", "0.2.0")


def _plain(value: Any) -> bool:
    """Whether `write_tree` can write a value into HDF5 itself."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and "/" not in k and _plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, str) for item in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return isinstance(value, str | bool | int | float | np.number | np.bool_)


def write_booleans(group: Group, name: str, values: NDArray[np.object_]) -> None:
    """Write booleans, with None where missing."""
    column = group.create_group(name)
    note(column, "nullable-boolean", "0.1.0")
    missing = np.array([value is None for value in values.tolist()], bool)
    write_array(column, "values", np.array([bool(value) for value in values.tolist()], bool))
    write_array(column, "mask", missing)


def is_hdf5(group: Group) -> bool:
    """Whether a group belongs to an HDF5 file; otherwise to a zarr store."""
    return hasattr(group, "id")
