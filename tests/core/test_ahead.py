"""What is compiled ahead is what commands use, so that none of them waits for a compiler."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numba
import numpy as np
import pytest

from tests.support import PATIENCE, clean_environment
from vcell.kernels import ahead, object_cache, with_numba
from vcell.kernels.kernel import CompiledKernel, njit, spelt

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
    "argument",
    [
        1, True, np.int8(1), np.zeros(2, np.uint8), np.zeros((2, 3), np.float32),
        np.zeros((4, 3))[::2], np.zeros((2, 3), order="F"), np.broadcast_to(np.float32(0), (2, 3)),
    ],
)  # fmt: skip
def test_types_are_read_as_they_are_spelt(argument):
    assert with_numba.read(spelt(argument)) == numba.typeof(argument)


def test_every_listed_kernel_exists():
    for name, signatures in ahead.listed().items():
        module, _, kernel = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[kernel]), kernel)
        assert all(with_numba.read(word) for line in signatures for word in line.split())


COMPILE = """
import sys
from vcell import compiling
compiling._NOTICED, compiling.listener = -1, lambda: print("told", file=sys.stderr)
from vcell.kernels import by_gene
from vcell.kernels.ahead import listed
(signature, *_) = listed()["vcell.kernels.by_gene.emit"]
by_gene.emit.compile_for(signature)
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
    next(tmp_path.rglob("by_gene.emit-*.kernel")).unlink()  # with it nobody asks for the index
    done = compiled()
    assert done.stdout == "compiled\n", done.stderr


LOAD_ALL = """
import sys
from importlib import import_module
from vcell.kernels import ahead, object_cache
n = 0
for name, signatures in ahead.listed().items():
    module, _, kernel = name.rpartition(".")
    found = getattr(import_module(module), kernel)
    n += sum(object_cache.load(found.py_func, signature) is not None for signature in signatures)
print(n, *{module.partition(".")[0] for module in sys.modules if module == "numba"})
"""


def test_compiled_kernels_run_without_numba():
    """A symbol that only numba defines would end the process here."""
    ahead.compile_modules(["vcell.kernels.ranks", "vcell.kernels.cells"])
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL], env=clean_environment(), capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    number, *imported = done.stdout.split()
    assert int(number) >= 10
    assert not imported


LOAD_BY_NUMBA = """
import sys
from importlib import import_module
from vcell.kernels import ahead
n = 0
modules = {name.rpartition(".")[0] for name in ahead.listed()} | {"vcell.kernels.drawn"}
for module in sorted(modules):
    import_module(module)
    for _, kernel in ahead._kernels(module):
        for key in kernel._cache._cache_file._load_index():
            n += kernel._cache.load_overload(key[0], kernel.targetctx) is not None
from numba.core.runtime.nrt import rtsys
assert not rtsys._init, "numba compiled its counting of references"
print(n)
"""


def test_kernels_in_the_cache_of_numba_need_nothing_of_the_compiler():
    """A symbol that only the compiler defines would end the process here."""
    ahead.compile_modules(["vcell.kernels.cells"])
    done = subprocess.run(
        [sys.executable, "-c", LOAD_BY_NUMBA], env=clean_environment(), capture_output=True,
        text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    if not int(done.stdout):
        pytest.skip("no kernel has been compiled here")


DE = """
import sys
from vcell.cli import run
for words in sys.argv[1:]:
    assert not run(["--no-config", *words.split(), "--quiet"])
print("numba" if "numba" in sys.modules else "kept")
"""


def test_cached_kernels_and_those_of_numba_write_the_same_bytes(tmp_path):
    def commands(words, **settings):
        done = subprocess.run(
            [sys.executable, "-c", DE, *words], cwd=tmp_path, env=clean_environment() | settings,
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return done.stdout.split()[-1]

    de = "de real.h5ad -o {}.parquet --overwrite"
    commands(["simulate real.h5ad --n-cells 300 --genes 200 --umis 3000", de.format("kept")])
    assert commands([de.format("kept")]) == "kept"  # by the command before
    assert commands([de.format("numba")], NUMBA_OPT="3") == "numba"  # its default, but it was set
    assert (tmp_path / "kept.parquet").read_bytes() == (tmp_path / "numba.parquet").read_bytes()


@njit(nogil=True, cache=True)
def total(values, factor):
    """Stands for any kernel."""
    out = 0.0
    for value in values:
        out += value * factor
    if out < 0:
        raise ValueError("below zero")
    return out


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def fresh():
    """Return the kernel as a new process has it."""
    return CompiledKernel(total.py_func, {"nogil": True})


def test_a_kernel_is_saved_when_it_is_compiled(folder):
    assert fresh()(np.arange(4.0), 2) == 12
    assert len(list(folder.rglob("*.kernel"))) == 1
    again = fresh()
    assert again(np.arange(4.0), 2) == 12
    assert "dispatcher" not in vars(again)  # numba has not been asked
    with pytest.raises(ValueError, match="below zero"):
        again(np.arange(4.0), -1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:200]),
        lambda file: file.write_bytes(b"junk"),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\xff"),
        lambda file: file.write_bytes(
            file.read_bytes().replace(b'"made for": "', b'"made for": "of')
        ),
    ],
)
def test_what_cannot_be_used_is_compiled_and_saved_anew(folder, damage):
    fresh()(np.arange(4.0), 2)
    (file,) = folder.rglob("*.kernel")
    damage(file)
    again = fresh()
    assert again(np.arange(4.0), 2) == 12
    assert "dispatcher" in vars(again)
    last = fresh()
    assert last(np.arange(4.0), 2) == 12
    assert "dispatcher" not in vars(last)


def test_every_type_has_code_of_its_own(folder):
    kernel = fresh()
    frozen = np.arange(4, dtype=np.int32)
    frozen.flags.writeable = False
    for values in (np.arange(4.0), np.arange(4, dtype=np.float32), np.arange(8.0)[::2], frozen):
        assert kernel(values, 1) == values.sum()
        assert kernel(values, 1.5) == 1.5 * values.sum()
    assert len(list(folder.rglob("*.kernel"))) == 8
    assert kernel.signatures() == {
        f"{kind} {factor}"
        for kind in ("float64:1C", "float32:1C", "float64:1A", "int32:1C!")
        for factor in ("int64", "float64")
    }


def test_what_only_numba_understands_goes_to_numba(folder):
    assert fresh()((1.0, 2.0), 2) == 6
    assert not list(folder.rglob("*.kernel"))


def test_code_that_asks_for_an_unknown_symbol_is_not_saved(folder, monkeypatch):
    monkeypatch.setattr(object_cache.runtime(), "defines", lambda name: name != "PyErr_Occurred")
    monkeypatch.setattr(object_cache.runtime(), "symbols", {})
    assert fresh()(np.arange(4.0), 2) == 12
    assert not list(folder.rglob("*.kernel"))
