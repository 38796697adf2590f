"""The .vcc container: an uncompressed tar with ``pred.h5ad.zst``, written and read as a stream.

2025: ``pred.h5ad.zst`` then ``watermark.txt`` (the text ``vcc-prep``). 2026: ``meta.json`` first,
then ``pred.h5ad.zst``. Archives are untrusted: nothing is extracted under its own name, only known
members are read, links and unknown members are refused, and every read is bounded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from vcell import console
from vcell.cores import cores
from vcell.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

PREDICTION, META, WATERMARK = "pred.h5ad.zst", "meta.json", "watermark.txt"
STAMP = b"vcc-prep"
_LEVEL = 3  # zstandard's default, which the official packer uses too
_BLOCK = 512  # bytes of a tar header, and the unit to which members are padded
_STEP = 1 << 20
_SMALL = 64 * 1024  # a valid meta.json or watermark is smaller
_MOST_MEMBERS = 16
_EXTENDED = (b"x", b"g", b"X", b"L", b"K")  # headers with metadata of the next member
# Archives may claim any size. 4.75e9 non-zeros of 12 bytes and the labels stay below this.
MOST_BYTES = 64 << 30


@dataclass(frozen=True)
class Written:
    """The result of writing or reading an archive."""

    size: int
    sha256: str  # of the uncompressed prediction


def write(h5ad: Path, out: Path, *, meta: dict[str, Any] | None, stamp: bool) -> Written:
    """Compress `h5ad` into the archive `out` in one pass, without another temporary file."""
    size = h5ad.stat().st_size
    with out.open("wb") as target, console.progress("packing", size, "bytes") as bar:
        if meta is not None:
            _put(target, META, json.dumps(meta, sort_keys=True).encode())
        sha256 = _compress(h5ad, target, bar)
        if stamp:
            _put(target, WATERMARK, STAMP)
        target.write(b"\0" * (2 * _BLOCK))
        target.flush()
        os.fsync(target.fileno())
    return Written(size, sha256)


def _compress(h5ad: Path, target: BinaryIO, bar: console.Progress) -> str:
    """Stream the prediction through zstandard; its header is written once the size is known."""
    import zstandard

    start, digest = target.tell(), hashlib.sha256()
    target.write(b"\0" * _BLOCK)
    workers = cores(8)
    packer = zstandard.ZstdCompressor(level=_LEVEL, threads=workers, write_checksum=True)
    size = h5ad.stat().st_size
    with (
        h5ad.open("rb") as source,
        packer.stream_writer(target, size=size, closefd=False) as sink,
    ):
        while chunk := source.read(_STEP):
            digest.update(chunk)
            sink.write(chunk)
            bar.advance(len(chunk))
    end = target.tell()
    target.seek(start)
    target.write(_header(PREDICTION, end - start - _BLOCK))
    target.seek(end)
    _pad(target, end - start)
    return digest.hexdigest()


def _put(target: BinaryIO, name: str, content: bytes) -> None:
    target.write(_header(name, len(content)))
    target.write(content)
    _pad(target, len(content))


def _header(name: str, size: int) -> bytes:
    """Make a tar header without owner or time, so that equal predictions give equal archives."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.uname = "vcell"  # by this `vcell.outputs` recognises archives that it may replace
    return info.tobuf(tarfile.GNU_FORMAT)  # one header is enough even above 8 GiB


def _pad(target: BinaryIO, size: int) -> None:
    target.write(b"\0" * (-size % _BLOCK))


@dataclass(frozen=True)
class Contents:
    """The members of an archive that vcell reads."""

    meta: dict[str, Any] | None
    stamped: bool


def read(path: Path, h5ad: Path | None, *, most: int = MOST_BYTES) -> tuple[Contents, Written]:
    """Read an archive and decompress its prediction to `h5ad`, or only compute its hash.

    Raises
    ------
    UserError
        The file is not an archive of the challenge, or is damaged, hostile or too large.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
    try:
        _check_headers(path)
        with tarfile.open(path, "r:") as tar:
            members = _members(tar, path)
            meta = _meta(tar, members, path)
            stamp = WATERMARK in members and _small(tar, members[WATERMARK], path) == STAMP
            written = _decompress(tar, members[PREDICTION], path, h5ad, most)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:  # all raised by tarfile
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(f"{path} is not a readable .vcc archive: {reason}") from None
    return Contents(meta, stamp), written


def _check_headers(path: Path) -> None:
    """Refuse long or repeated extended headers, which tarfile would read into memory."""
    file_size, announced = path.stat().st_size, None
    with path.open("rb") as file:
        for _ in range(2 * _MOST_MEMBERS):
            head = file.read(_BLOCK)
            if len(head) < _BLOCK or not head.strip(b"\0"):
                return
            size, kind = _claimed(head[124:136]), head[156:157]
            if kind not in _EXTENDED and announced:
                size = int(announced[1])  # from 8 GiB on, the header itself may be 0
            if size > file_size:
                raise tarfile.ReadError("unexpected end of data")
            after = file.tell() + size + -size % _BLOCK
            if kind in _EXTENDED:
                if size > _SMALL:
                    raise tarfile.ReadError(f"a header of {size:,} bytes")
                announced = re.search(rb"\d+ size=(\d{1,18})\n", file.read(size)) or announced
            else:
                announced = None
            file.seek(after)
    raise tarfile.ReadError("too many members")


def _claimed(field: bytes) -> int:
    """Return the size in a header: octal digits, or binary after 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise tarfile.ReadError("a size that is not a number") from None


def _members(tar: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    """List the members by name; refuse those that no packer writes."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        if len(found) >= _MOST_MEMBERS:
            raise UserError(f"{path} has more than {_MOST_MEMBERS} members")
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        if member.name not in (PREDICTION, META, WATERMARK) or not plain:
            kind = "" if plain else ", which is not a plain file"
            raise UserError(
                f"{path} has a member {member.name[:80]!r}{kind}",
                hint=f"a .vcc file holds {PREDICTION} and {META} or {WATERMARK}, nothing else",
            )
        if member.name in found:
            raise UserError(f"{path} has two members called {member.name}")
        found[member.name] = member
    if PREDICTION not in found:
        raise UserError(f"{path} has no member {PREDICTION}: it is not a .vcc file")
    if found[PREDICTION].size == 0:
        raise UserError(f"{path}: {PREDICTION} is empty")
    return found


def _small(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    if member.size > _SMALL:
        raise UserError(f"{path}: {member.name} claims {member.size:,} bytes; it should be tiny")
    source = tar.extractfile(member)
    assert source is not None  # `_members` accepts only plain files
    return source.read(_SMALL)


def _meta(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], path: Path
) -> dict[str, Any] | None:
    if META not in members:
        return None
    try:
        meta = json.loads(_small(tar, members[META], path))
    except (ValueError, RecursionError):
        raise UserError(f"{path}: {META} is not JSON") from None
    if not isinstance(meta, dict):
        raise UserError(f"{path}: {META} is not a JSON object")
    return meta


def _decompress(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, h5ad: Path | None, most: int
) -> Written:
    """Decompress in steps, up to `most` bytes, whatever size the frame claims."""
    import zstandard

    source = tar.extractfile(member)
    assert source is not None  # `_members` accepts only plain files
    if h5ad is not None:
        most = min(most, shutil.disk_usage(h5ad.parent).free)
    promised = _content_size(source.read(18))
    source.seek(0)
    digest, size = hashlib.sha256(), 0
    sink = h5ad.open("wb") if h5ad is not None else None
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            source, read_across_frames=True
        )
        with console.progress("reading back", None, "bytes") as bar:
            while chunk := reader.read(_STEP):
                size += len(chunk)
                if size > most:
                    raise UserError(
                        f"{path}: the prediction unpacks to more than {console.bytes_text(most)}",
                        hint="no valid submission is that large (or the disk is too full for it)",
                    )
                digest.update(chunk)
                bar.advance(len(chunk))
                if sink is not None:
                    sink.write(chunk)
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: {PREDICTION} is damaged: {error}") from None
    finally:
        if sink is not None:
            sink.close()
    if size == 0 or (promised is not None and size < promised):
        raise UserError(f"{path}: {PREDICTION} is cut short")
    return Written(size, digest.hexdigest())


def _content_size(head: bytes) -> int | None:
    """Return the size given by a frame, None if it gives none."""
    import zstandard

    try:
        size: int = zstandard.frame_content_size(head)
    except zstandard.ZstdError:
        return None  # not a frame; decompressing will fail with a message
    return size if size >= 0 else None
