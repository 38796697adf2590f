"""A package of which parts were loaded is whole when somebody imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import PATIENCE, clean_environment

CODECS = """
import sys
from vcell import codecs
assert "numcodecs" not in sys.modules
import numpy as np
kept = codecs.blosc.compress(np.arange(100), b"lz4", 3, 1)
import numcodecs.abc
assert issubclass(numcodecs.Blosc, numcodecs.abc.Codec)
assert numcodecs.compat.ensure_bytes(b"x") == b"x"
assert numcodecs.blosc is codecs.blosc
assert numcodecs.get_codec({"id": "zstd"}).decode(codecs.zstd.Zstd(level=0).encode(b"y")) == b"y"
assert numcodecs.Blosc().decode(kept) == np.arange(100).tobytes()
import zarr
group = zarr.group()
array = group.create_array("a", data=np.arange(9), compressors=zarr.codecs.BloscCodec())
assert array[:].tolist() == list(range(9))
"""
SPECIAL = """
import sys
from vcell import special, student
assert "scipy.special" not in sys.modules
import scipy.special
import scipy.stats
assert scipy.special.ndtr is special.ndtr
assert scipy.special._ufuncs.gammaln is special.gammaln
assert scipy.special._special_ufuncs.ndtr is special.ndtr
assert scipy.special.stdtr is student.stdtr
assert scipy.stats.norm.cdf(0) == special.ndtr(0) == 0.5
"""
CHANGED = """
import sys
from vcell import extensions
(zstd,) = extensions.load("numcodecs", {"zstd": ("Zstd", "a_name_that_it_lacks")})
import numcodecs
assert numcodecs.zstd is zstd
(again,) = extensions.load("numcodecs", {"zstd": ("Zstd",)})
assert again is zstd
"""


@pytest.mark.parametrize("code", [CODECS, SPECIAL, CHANGED])
def test_a_later_import_gets_all_of_it(code):
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert not done.returncode, done.stderr
