"""One interface to groups and arrays of h5ad and zarr files.

h5py and zarr have nearly the same interfaces; the differences (attributes as bytes, strings) are
handled here. A *node* is an h5py or zarr group or array.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.fault import damaged, reading
from vcell.data.texts import PIECE, Texts
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Node = Any


def is_group(node: Node) -> bool:
    """Whether a node has children."""
    return hasattr(node, "keys") and not hasattr(node, "shape")


def attr(node: Node, name: str, default: Any = None) -> Any:
    """Return an attribute; text always as str."""
    value = node.attrs.get(name, default)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype == object:
        return value.item()
    return value


def encoding(node: Node) -> str:
    """Return the encoding-type that anndata wrote, or ''."""
    value = attr(node, "encoding-type", "")
    return value if isinstance(value, str) else ""


def child(group: Node, name: str, where: str) -> Node:
    """Return a child of a group; the error for a missing one lists those that exist."""
    with reading(f"{where}/{name}"):
        if not is_group(group):
            raise damaged(where, f"is an array where a group with {name!r} is expected")
        if name not in group:
            there = ", ".join(sorted(group.keys())[:20]) or "nothing"
            raise UserError(f"{where} has no {name!r} (it has {there})")
        return group[name]


def array_child(group: Node, name: str, where: str) -> Node:
    """Return a child that must be an array."""
    node = child(group, name, where)
    if is_group(node):
        raise damaged(f"{where}/{name}", "is a group where an array is expected")
    return node


def load_plugins(node: Node) -> None:
    """Register hdf5plugin's decoders, if a data set needs one and they are installed."""
    if "hdf5plugin" in sys.modules or not hasattr(node, "id"):
        return
    plist = node.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if any(code > 255 for code in codes) and find_spec("hdf5plugin"):  # 256 up: registered filters
        import_module("hdf5plugin")


def numbers(node: Node, where: str) -> NDArray[Any]:
    """Read a whole 1-D array of numbers or booleans."""
    values = _whole(node, where)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def texts(node: Node, where: str) -> NDArray[np.object_]:
    """Read a whole 1-D array of strings as an object array of str."""
    return decoded(_whole(node, where))


def _whole(node: Node, where: str) -> NDArray[Any]:
    load_plugins(node)
    with reading(where):
        values = np.asarray(node[...])
    if values.ndim != 1:
        raise damaged(where, f"has {values.ndim} dimensions where 1 is expected")
    return values


def compact_texts(node: Node, where: str) -> Texts:
    """Read a whole 1-D array of strings piece by piece."""
    load_plugins(node)
    if node.ndim != 1:
        raise damaged(where, f"has {node.ndim} dimensions where 1 is expected")
    chunk = (getattr(node, "chunks", None) or (0,))[0]  # a chunk is decoded as a whole
    step = max(-(-PIECE // chunk) * chunk, PIECE) if chunk else PIECE

    def pieces() -> Iterator[NDArray[Any]]:
        for a in range(0, node.shape[0], step):
            with reading(where):
                piece = np.asarray(node[a : a + step])
            yield piece

    return Texts(pieces())


def decoded(values: NDArray[Any]) -> NDArray[np.object_]:
    """Convert bytes or strings of any width to an object array of str."""
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace").astype(object)
    if values.dtype.kind == "U":
        return values.astype(object)
    out = np.empty(len(values), object)
    out[:] = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    return out


def holds_text(node: Node) -> bool:
    """Whether an array holds strings of any width."""
    return node.dtype.kind in "OSUT"
