"""What is compiled ahead is what commands use, so that none of them waits for a compiler."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numba
import pytest

from tests.support import PATIENCE, clean_environment
from vcell.kernels import ahead

USED = """
import json, sys
from vcell.cli import run
from vcell.kernels import ahead
for words in json.loads(sys.argv[1]):
    assert not run(["--no-config", *words.split(), "--quiet"])
listed = ahead.listed()
left = {name: sorted(set(used) - set(listed.get(name, []))) for name, used in ahead.used().items()}
print(json.dumps({name: missing for name, missing in left.items() if missing}))
"""
COMMANDS = (
    "simulate real.h5ad --n-cells 300 --genes 200 --perturbations 5 --umis 3000",
    "evaluate real.h5ad real.h5ad -o scores",
    "de real.h5ad -o de.parquet",
    "select-genes real.h5ad -o genes",
    "prepare real.h5ad -o real.store.zarr",
)


def test_commands_use_only_what_is_compiled_ahead(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", USED, json.dumps(COMMANDS)], cwd=tmp_path, env=clean_environment(),
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    missing = json.loads(done.stdout.splitlines()[-1])
    assert not missing, f"run python tools/kernel_signatures.py: {missing}"


@pytest.mark.parametrize(
    "kind",
    [
        numba.int64, numba.boolean, numba.uint8[::1], numba.float32[:, ::1], numba.float64[:, :],
        numba.types.Array(numba.float32, 2, "A", readonly=True),
    ],
)  # fmt: skip
def test_types_are_read_as_they_are_spelt(kind):
    assert ahead.read(ahead.spelt(kind)) == kind


def test_what_cannot_be_spelt_is_left_out():
    assert ahead.spelt(numba.types.unicode_type) is None


def test_every_listed_kernel_exists():
    for name, signatures in ahead.listed().items():
        module, _, kernel = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[kernel]), kernel)
        assert all(ahead.read(word) for line in signatures for word in line.split())


COMPILE = """
import sys
from vcell import compiling
compiling._NOTICED, compiling.listener = -1, lambda: print("told", file=sys.stderr)
from vcell.kernels import by_gene
from vcell.kernels.ahead import listed, read
(signature, *_) = listed()["vcell.kernels.by_gene.emit"]
by_gene.emit.compile(tuple(read(word) for word in signature.split()))
print("compiled" if "numba.np.arraymath" in sys.modules else "loaded")
"""


@pytest.mark.parametrize(
    "rest",
    [
        b"cvcell.kernels.simulate\nRenamedSince\n.",
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b"\x80\x04 junk", marks=pytest.mark.slow),
    ],
)
def test_an_index_of_before_an_upgrade_is_an_empty_one(tmp_path, rest):
    environment = clean_environment() | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def compiled():
        return subprocess.run(
            [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True,
            check=False, timeout=PATIENCE,
        )  # fmt: skip

    first, again = compiled(), compiled()
    assert (first.stdout, first.stderr) == ("compiled\n", "told\n")  # who waits for it is told
    assert (again.stdout, again.stderr) == ("loaded\n", "")
    (index,) = tmp_path.rglob("by_gene.emit-*.nbi")
    with index.open("rb") as file:
        pickle.load(file)  # the version, which numba wrote a moment ago
        version = index.read_bytes()[: file.tell()]
    index.write_bytes(version + rest)
    done = compiled()
    assert done.stdout == "compiled\n", done.stderr


LOAD_ALL = """
import sys
from importlib import import_module
from vcell.kernels import ahead
modules = sorted({name.rpartition(".")[0] for name in ahead.listed()} | {"vcell.kernels.drawn"})
n = 0
for module in modules:
    import_module(module)
    for _, kernel in ahead._kernels(module):
        for key in kernel._cache._cache_file._load_index():
            n += kernel._cache.load_overload(key[0], kernel.targetctx) is not None
from numba.core.runtime.nrt import rtsys
assert not rtsys._init, "numba compiled its counting of references"
print(n)
"""


def test_compiled_kernels_need_nothing_of_the_compiler():
    """A symbol that only the compiler defines would end the process here."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL], env=clean_environment(), capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    if not int(done.stdout):
        pytest.skip("no kernel has been compiled here")
