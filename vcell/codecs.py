"""blosc, zstd and zarr's coding of text, from numcodecs without its other twenty codecs.

The whole package takes .065 CPU seconds to import, these .015 (`vcell.extensions`).
"""

from __future__ import annotations

from typing import Any

from vcell import extensions

blosc: Any
zstd: Any
vlen: Any
blosc, zstd, vlen = extensions.load(
    "numcodecs",
    {
        "blosc": ("_init", "compress", "decompress", "use_threads"),
        "zstd": ("Zstd", "decompress"),
        "vlen": ("VLenUTF8",),
    },
)
blosc._init()  # as the package does; a second time changes nothing
# We use our own threads; blosc's write a chunk's blocks in the order in which they finish.
blosc.use_threads = False
