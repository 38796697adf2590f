"""The parts of an h5ad or zarr file: X, raw, layers, obs, var, in anndata's encodings, old and new.

It works on nodes of either format; the function that reads an array is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vcell.data.arrays import Array
from vcell.data.fault import damaged, reading
from vcell.data.frame import Frame, RecordFrame, StoredFrame
from vcell.data.matrix import CsrMatrix, DenseMatrix, Layout, Matrix
from vcell.data.nodes import Node, array_child, attr, child, encoding, is_group, numbers
from vcell.errors import UserError
from vcell.suggest import did_you_mean

#: Makes an `Array` from a node; the text is its location, for messages.
ArrayOf = Callable[[Node, str], Array]
RAW_NAMES = ("raw", "raw/X", "raw.X")


def parts(root: Node) -> dict[str, Any]:
    """List what the file has besides X."""
    named = {
        key: sorted(root[key].keys()) if key in root and is_group(root[key]) else []
        for key in ("layers", "obsm", "uns")
    }
    raw = "raw.X" in root or ("raw" in root and is_group(root["raw"]))  # anndata may write None
    return {**named, "raw": raw}


def embeddings(root: Node) -> dict[str, Node]:
    """Return the arrays of obsm, unread; data frames are left out."""
    found = root.get("obsm")
    if found is None or not is_group(found):
        return {}
    return {name: found[name] for name in sorted(found.keys()) if not is_group(found[name])}


def frame(root: Node, name: str, where: str) -> Frame:
    """Open obs or var (or raw/var)."""
    holder, _, leaf = name.rpartition("/")
    parent = child(root, holder, where) if holder else root
    node = child(parent, leaf, f"{where}/{holder}" if holder else where)
    at = f"{where}/{name}"
    with reading(at):
        if is_group(node):
            return StoredFrame(node, at)
        if node.dtype.names:
            return RecordFrame(node, root.get("uns"), at)
    raise damaged(at, "is neither a dataframe nor an array of records")


def matrix_node(root: Node, layer: str | None, where: str) -> tuple[Node, str, str]:
    """Return node, location and name of the var of X, raw/X or a layer."""
    if layer is None or layer == "X":
        if "X" in root:
            return root["X"], f"{where}/X", "var"
        there = parts(root)
        names = ["raw"] * there["raw"] + there["layers"]
        raise UserError(
            f"{where} has no X",
            hint=f"choose with --layer what it has instead: {', '.join(names)}"
            if names
            else "this is not an AnnData file with cells",
        )
    if layer in RAW_NAMES:
        if "raw" in root and is_group(root["raw"]):
            return child(root["raw"], "X", f"{where}/raw"), f"{where}/raw/X", "raw/var"
        if "raw.X" in root:  # anndata before 0.7
            return root["raw.X"], f"{where}/raw.X", "raw.var"
        raise UserError(f"{where} has no raw", hint="leave out --layer to read X")
    names = parts(root)["layers"]
    name = layer.removeprefix("layers/")
    if name not in names:
        raise UserError(
            f"{where} has no layer {name!r}{did_you_mean(name, names)}",
            hint=f"its layers: {', '.join(names) or 'none'}; leave out --layer to read X",
        )
    return root["layers"][name], f"{where}/layers/{name}", "var"


def matrix(node: Node, where: str, array_of: ArrayOf) -> Matrix:
    """Open a matrix stored by cell, by gene or dense."""
    with reading(where):
        if not is_group(node):
            return _dense(node, where, array_of)
        kind = encoding(node) or _old_kind(node)
        if kind in ("csr_matrix", "csc_matrix"):
            return _sparse(node, kind[:3], where, array_of)
    raise damaged(where, f"is of a kind that vcell does not know ({kind or 'a bare group'})")


def _old_kind(node: Node) -> str:
    """Return the kind as stored by anndata before 0.7 (and h5sparse)."""
    noted = attr(node, "h5sparse_format", "")
    return f"{noted}_matrix" if isinstance(noted, str) and noted else ""


def _dense(node: Node, where: str, array_of: ArrayOf) -> Matrix:
    table = array_of(node, where)
    if len(table.shape) != 2:
        raise damaged(where, f"has {len(table.shape)} dimensions where 2 are expected")
    if table.dtype.kind not in "biuf":
        raise damaged(where, f"is of type {table.dtype}, not numbers")
    return DenseMatrix(table, layout_of("dense", node, None))


def _sparse(node: Node, kind: str, where: str, array_of: ArrayOf) -> Matrix:
    shape = attr(node, "shape", attr(node, "h5sparse_shape", None))
    shape = np.atleast_1d(np.asarray(shape if shape is not None else [], dtype=np.int64))
    if shape.shape != (2,) or (shape < 0).any() or (shape >= 2**31).any():
        raise damaged(where, f"has no usable shape ({shape.tolist()})")
    n_cells, n_genes = int(shape[0]), int(shape[1])
    data = array_of(array_child(node, "data", where), f"{where}/data")
    index_node = array_child(node, "indices", where)
    indices = array_of(index_node, f"{where}/indices")
    indptr = numbers(array_child(node, "indptr", where), f"{where}/indptr")
    layout = layout_of(kind, node["data"], index_node)
    if kind == "csc":
        from vcell.data.by_gene import CscMatrix

        return CscMatrix(data, indices, indptr, (n_cells, n_genes), layout)
    return CsrMatrix(data, indices, indptr, (n_cells, n_genes), layout)


def layout_of(kind: str, node: Node, index_node: Node | None) -> Layout:
    """Describe the storage of a matrix."""
    nodes = [node] if index_node is None else [node, index_node]
    chunks = getattr(node, "chunks", None)
    return Layout(
        kind=kind,
        compression=compression(node),
        chunk=tuple(int(n) for n in chunks) if chunks else None,
        index_dtype=None if index_node is None else str(index_node.dtype),
        bytes=_stored_bytes(nodes),
    )


def compression(node: Node) -> str:
    """Return the name of an array's compression."""
    if hasattr(node, "id"):  # HDF5
        plist = node.id.get_create_plist()
        names = [_filter_name(plist.get_filter(i)) for i in range(plist.get_nfilters())]
    else:
        codecs = getattr(node, "compressors", None) or ()
        names = [_codec_name(codec) for codec in codecs]
        if getattr(node, "shards", None):
            names.append(f"shards of {node.shards[0]:,}")
    return " + ".join(names) or "none"


def _filter_name(found: tuple[int, int, tuple[int, ...], bytes]) -> str:
    known = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf", 32001: "blosc", 32004: "lz4",
             32008: "bitshuffle", 32015: "zstd", 32026: "blosc2"}  # fmt: skip
    code, _, values, name = found
    word = known.get(code, f"filter {code} {name.decode('ascii', 'replace')}".strip())
    return f"gzip {values[0]}" if code == 1 and values else word


def _codec_name(codec: Any) -> str:
    cname = getattr(codec, "cname", "")
    word = getattr(codec, "codec_id", "") or type(codec).__name__.removesuffix("Codec").lower()
    return f"{word} {getattr(cname, 'value', cname)}".strip()


def _stored_bytes(nodes: list[Node]) -> int | None:
    if all(hasattr(node, "id") for node in nodes):
        return sum(int(node.id.get_storage_size()) for node in nodes)
    return None
