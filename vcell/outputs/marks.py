"""Marks that show that vcell made a file or folder, and may replace it on request.

Every kind of output contains the words ``made-by`` and ``vcell``: an HDF5 file and a zarr folder as
an attribute of the root, Parquet in its metadata, JSON as a key, a page as its generator, Markdown
and pictures as a comment, an archive of arrays as an array, a tar archive as the owner of its
members, a folder of results as a list of its files; in a zarr folder, all that zarr does not write
is a user's. CSV tables have no room for it: their first
line is compared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vcell import __version__
from vcell.outputs.inputs import ZARR_METADATA

MADE_BY = "made-by"
LIST = "made-by-vcell.json"  # in a folder of results: the files that vcell made
PROJECT = "# The project file of vcell."  # first line of a commented vcell.toml
#: Names of zarr's chunks (of no dimension: c), and the other files of `vcell prepare`.
_CHUNK = re.compile(r"c|\d+(\.\d+)*")
_STORE = {"vcell.json", "preprocessing.json", "preprocessing.npz"}
_HEAD = 4096  # bytes: enough for the head of a page, the first line of a table

#: First lines of the tables that `vcell de` writes as CSV.
_PDEX = (
    "target,feature,target_mean,ref_mean,target_membership,ref_membership,log2_fold_change,"
    "percent_change,p_value,statistic,fdr"
)
_SCANPY = "group,names,scores,logfoldchanges,pvals,pvals_adj"
_PREDICTED = (
    "perturbation,context,n_cells,by_the_mean,effect"  # of `vcell predict`; more may follow
)
_ABLATED = "without,AUC,95 % interval,lost,"  # of `vcell ablate`
_OUTCOMES = "sample,outcome,P("  # of `vcell predict-bulk`; the outcomes' names follow
#: Beginnings of the first lines from `vcell isp stats`: vcell's format and upstream's.
_SCREENED = (
    "gene,ensembl_id,operation,status,why,",
    ",Gene,Gene_name,Ensembl_ID,",
    ",Cosine_sim,Gene",
    ",Shift_to_goal_end",
)
_TABLES = (_PDEX, f"stratum,{_PDEX}", _SCANPY, f"stratum,{_SCANPY}")


def made_by() -> str:
    """Return the value of the mark: ``vcell 0.1.0``."""
    return f"vcell {__version__}"


def made_here(path: Path) -> bool:
    """Whether vcell made the file or folder at `path`, or it is empty."""
    if path.is_dir():
        return _is_ours_folder(path)
    if not path.is_file():
        return False
    if path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for magic, look in (
        (b"\x89HDF\r\n\x1a\n", _hdf5),
        (b"PAR1", _parquet),
        (b"PK\x03\x04", _arrays),
    ):
        if head.startswith(magic):
            return look(path)
    if head[257:262] == b"ustar":
        return _tar(path)
    return _text(path, head)


def write_list(folder: Path, name: str = LIST) -> None:
    """List vcell's files of a folder of results in its JSON file `name`."""
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} | {name}
    path = folder / name
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps(held | {MADE_BY: made_by(), "files": sorted(files)}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def strangers(folder: Path) -> list[str]:
    """List the files in a folder of results or of zarr that vcell did not make."""
    listed = _listed(folder)
    known = _STORE if listed is None else set(listed)
    found = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    odd = (p for p in found if listed is not None or not _is_of_zarr(p))
    return sorted(name for p in odd if (name := str(p.relative_to(folder))) not in known)


def _is_of_zarr(path: Path) -> bool:
    """Whether zarr writes files of this name: metadata or a chunk."""
    chunk = _CHUNK.fullmatch(path.name) is not None and not path.is_symlink()
    return chunk or path.name in ZARR_METADATA


def _listed(folder: Path) -> list[str] | None:
    """Return the list of vcell's files in a folder of results; None if there is none."""
    for path in folder.glob("*.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if _is_mark(found.get(MADE_BY)):
                return list(found["files"])
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue
    return None


def _is_mark(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("vcell ")


def _is_ours_folder(path: Path) -> bool:
    if not any(path.iterdir()):
        return True
    if _listed(path) is not None:
        return not strangers(path)
    for name, inside in (("zarr.json", "attributes"), (".zattrs", None), ("vcell.json", None)):
        try:
            found = json.loads((path / name).read_text(encoding="utf-8"))
            if _is_mark((found[inside] if inside else found)[MADE_BY]):
                return not strangers(path)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _hdf5(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, locking=False) as file:
            return _is_mark(file.attrs.get(MADE_BY))
    except OSError:
        return False


def _parquet(path: Path) -> bool:
    """Find the mark in the footer: Thrift, with the metadata as plain text."""
    import struct

    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        if len(tail) < 8 or tail[4:] != b"PAR1":
            return False
        length = struct.unpack("<I", tail[:4])[0]
        file.seek(max(size - 8 - length, 0))
        return MADE_BY.encode() in file.read(length)


def _arrays(path: Path) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as file:
            return f"{MADE_BY}.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _tar(path: Path) -> bool:
    import tarfile

    try:
        with tarfile.open(path) as file:
            first = file.next()
            return first is not None and first.uname == "vcell"
    except (OSError, tarfile.TarError):
        return False


def _text(path: Path, head: bytes) -> bool:
    if head.startswith(PROJECT.encode()):
        return True
    start = head.lstrip()[:15].lower()
    if start.startswith(b"<!doctype html"):
        return b'name="generator" content="vcell' in head
    if start.startswith(b"{"):
        try:
            return _is_mark(json.loads(path.read_bytes()).get(MADE_BY))
        except (ValueError, RecursionError, AttributeError):
            return False
    if head.startswith((b"# ", b"---", b"<svg", b"\x89PNG")):  # a comment, or PNG's own field
        return f"{MADE_BY}: vcell".encode() in head
    if head.startswith(
        tuple(line.encode() for line in (_PREDICTED, _ABLATED, _OUTCOMES, *_SCREENED))
    ):
        return True
    return head.partition(b"\n")[0].decode(errors="replace").rstrip("\r") in _TABLES
