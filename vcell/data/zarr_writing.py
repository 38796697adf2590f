"""Write groups and one-dimensional arrays of zarr, version 3, as zarr-python does by default.

Importing zarr takes .18 CPU seconds (docs/decisions.md), more than all else that `prepare` imports.
The classes have as much of its interface as `vcell.data.elements` uses; types that they cannot
write are left to zarr. Nodes are JSON (``zarr.json``), chunks are compressed by zstd.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.codecs import vlen, zstd

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Elements of a chunk of numbers.
CHUNK = 1 << 16
_METADATA = "zarr.json"


class _Node:
    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        self.path, self._metadata = path, metadata
        path.mkdir(parents=True, exist_ok=True)
        self._save()

    def update_attributes(self, values: dict[str, Any]) -> None:
        """Set some attributes, and write the metadata."""
        self._metadata["attributes"] |= values
        self._save()

    def _save(self) -> None:
        (self.path / _METADATA).write_text(json.dumps(self._metadata, indent=2))


class ZarrGroup(_Node):
    """A new group, in a folder that may exist."""

    def __init__(self, path: Path, attributes: dict[str, Any] | None = None) -> None:
        super().__init__(
            path, {"attributes": attributes or {}, "zarr_format": 3, "node_type": "group"}
        )

    def __contains__(self, name: str) -> bool:
        return (self.path / name / _METADATA).exists()

    def __delitem__(self, name: str) -> None:
        shutil.rmtree(self.path / name)

    def create_group(self, name: str) -> ZarrGroup:
        """Make a group in this one."""
        return ZarrGroup(self.path / name)

    def create_array(
        self,
        name: str,
        *,
        data: NDArray[Any] | None = None,
        shape: tuple[int] | None = None,
        dtype: type | None = None,
        chunks: tuple[int] | None = None,
    ) -> Any:
        """Make an array of some numbers, or an empty one for text."""
        if data is None and shape is not None and dtype is str and chunks is not None:
            return ZarrArray(self.path / name, shape[0], chunks[0], None)
        if data is None or data.ndim != 1 or data.dtype.kind not in "biuf":
            return self._by_zarr(name, data=data, shape=shape, dtype=dtype, chunks=chunks)
        little = data.astype(data.dtype.newbyteorder("<"), copy=False)
        made = ZarrArray(self.path / name, len(data), min(max(len(data), 1), CHUNK), little.dtype)
        made[: len(data)] = little
        return made

    def _by_zarr(self, name: str, **values: Any) -> Any:
        import zarr

        group = zarr.open_group(self.path, mode="a", zarr_format=3, use_consolidated=False)
        given = {key: value for key, value in values.items() if value is not None}
        return group.create_array(name, **given)


class ZarrArray(_Node):
    """A new array of numbers, or of text (no dtype), to be filled from its beginning."""

    def __init__(self, path: Path, size: int, chunk: int, dtype: np.dtype[Any] | None) -> None:
        self._size, self._chunk, self._dtype = size, chunk, dtype
        super().__init__(path, _described(size, chunk, dtype))

    def __setitem__(self, where: slice, values: NDArray[Any]) -> None:
        start, stop, _ = where.indices(self._size)
        if start % self._chunk or (stop % self._chunk and stop != self._size):
            raise ValueError("arrays are written in whole chunks")
        for a in range(start, stop, self._chunk):
            part = values[a - start : a - start + self._chunk]
            if len(part) < self._chunk:  # the last chunk is as long as the others
                full = np.zeros(self._chunk, part.dtype) if self._dtype else _empty(self._chunk)
                full[: len(part)] = part
                part = full
            self._write(a // self._chunk, part)

    def _write(self, number: int, values: NDArray[Any]) -> None:
        """Write a chunk; one of zeros is left out, as zarr leaves it out."""
        if self._dtype and not values.view(np.uint8).any():
            return
        plain = values.tobytes() if self._dtype else vlen.VLenUTF8().encode(values.astype(object))
        folder = self.path / "c"
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(zstd.Zstd(level=0).encode(plain))


def _empty(n: int) -> NDArray[np.object_]:
    texts = np.empty(n, object)
    texts[:] = ""
    return texts


def _described(size: int, chunk: int, dtype: np.dtype[Any] | None) -> dict[str, Any]:
    """Return the metadata of an array."""
    zero: Any = "" if dtype is None else dtype.type(0).item()
    endian = {"configuration": {"endian": "little"}} if dtype and dtype.itemsize > 1 else {}
    codec = {"name": "bytes", **endian} if dtype else {"name": "vlen-utf8", "configuration": {}}
    return {
        "shape": [size],
        "data_type": dtype.name if dtype else "string",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": zero,
        "codecs": [
            codec, {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        ],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }  # fmt: skip


def consolidate(root: Path) -> None:
    """Repeat the metadata of all nodes in that of the root: readers then open one file."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob(_METADATA)):
        if path.parent != root:
            node = json.loads(path.read_text())
            if node["node_type"] == "group":
                node["consolidated_metadata"] = _inline({})
            found[path.parent.relative_to(root).as_posix()] = node
    top = json.loads((root / _METADATA).read_text())
    top["consolidated_metadata"] = _inline(found)
    (root / _METADATA).write_text(json.dumps(top, indent=2))


def _inline(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}
