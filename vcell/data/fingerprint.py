"""A cheap fingerprint of a file's content, to recognise data without reading it all.

Files of equal content have equal fingerprints, independent of name and date. A file up to `WHOLE`
bytes is hashed completely. Of a larger file, the size, the first and last `EDGE` bytes (where HDF5
stores what it writes first and last) and `PIECES` evenly spread pieces are hashed. A change that
keeps the size and touches none of these is not noticed, so a fingerprint helps to find what was
made from a file, and does not protect against tampering. A folder (zarr, 10x) is hashed by names
and contents of its files; with more than `FILES` files, by the names and sizes of all, and the
contents of the metadata and of `FILES` evenly spread ones.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import numpy as np

from vcell.errors import UserError
from vcell.outputs.inputs import ZARR_METADATA

WHOLE = 1 << 22
EDGE = 1 << 20
PIECES, PIECE = 64, 1 << 14
FILES = 256


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return 32 hexadecimal digits that identify the contents of a file or folder."""
    path = Path(path)
    try:
        if path.is_dir():
            return _folder(path)
        return _file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _file(path: Path) -> str:
    size = path.stat().st_size
    digest = blake2b(size.to_bytes(8, "little"), digest_size=16)
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            middle = np.linspace(EDGE, size - EDGE - PIECE, PIECES).astype(np.int64)
            edges = [(0, EDGE), (size - EDGE, EDGE)]
            for offset, length in [*edges, *((int(at), PIECE) for at in middle)]:
                file.seek(offset)
                digest.update(file.read(length))
    return digest.hexdigest()


def _folder(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    digest = blake2b(digest_size=16)
    chosen = set(files[:: max(len(files) // FILES, 1)]) | {
        p for p in files if p.name in ZARR_METADATA
    }
    for path in files:
        content = _file(path) if path in chosen else ""
        line = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0{content}\n"
        digest.update(line.encode())
    return digest.hexdigest()
