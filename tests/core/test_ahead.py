"""What is compiled ahead is what commands use, so that none of them waits for a compiler."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numba
import numpy as np
import pytest

import vcell
from tests.support import PATIENCE, clean_environment
from vcell.kernels import ahead, object_cache, targets, with_numba
from vcell.kernels.kernel import CompiledKernel, njit, spelt

RUN = """
import json, sys
from vcell.cli import run
for words in json.loads(sys.argv[1]):
    assert not run(["--no-config", *words.split(), "--quiet"])
print("numba" if "numba" in sys.modules else "kept")
"""
COMMANDS = (
    "simulate real.h5ad --n-cells 300 --genes 200 --perturbations 5 --umis 3000 --overwrite",
    "evaluate real.h5ad real.h5ad -o scores --overwrite",
    "de real.h5ad -o de.parquet --overwrite",
    "select-genes real.h5ad -o genes --overwrite",
    "prepare real.h5ad -o real.store.zarr --overwrite",
)


def run(words, folder, **settings):
    """Run commands in one process; return whether it asked numba."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(words)], cwd=folder, capture_output=True,
        env=clean_environment() | settings, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout.split()[-1]


def copy_compiled(folder):
    """Copy the listed kernels that are compiled here."""
    folder.mkdir(parents=True)
    for name in ahead.files():
        for held in object_cache._folders():
            if (held / name).exists():
                shutil.copy2(held / name, folder)
                break


def test_commands_use_only_what_is_compiled_ahead(tmp_path):
    compiled = tmp_path / "kernels" / "vcell"
    copy_compiled(compiled)
    settings = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    if run(COMMANDS, tmp_path, **settings) == "numba":  # a listed one was not compiled yet
        assert run(COMMANDS, tmp_path, **settings) == "kept"
    missing = {file.name for file in compiled.iterdir()} - set(ahead.files())
    assert not missing, f"run python tools/kernel_signatures.py: {missing}"


def kernels_in_use():
    """Return the kernels that are named outside `vcell.kernels`: somebody may call them."""
    root = Path(vcell.__file__).parent
    used = set()
    for file in [*root.rglob("*.py"), *(root.parent / "plugins").rglob("*.py")]:
        if file.parent == root / "kernels":
            continue
        modules = {}
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "vcell.kernels":
                modules |= {one.asname or one.name: one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "vcell.kernels."
            ):
                used |= {f"{node.module}.{one.name}" for one in node.names}
        for node in ast.walk(tree):
            of = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(of, ast.Name) and of.id in modules:
                used.add(f"vcell.kernels.{modules[of.id]}.{node.attr}")
    return {name for name in used if isinstance(named(name), CompiledKernel)}


def named(name):
    module, _, kernel = name.rpartition(".")
    return getattr(import_module(module), kernel, None)


def test_every_kernel_in_use_is_compiled_ahead():
    in_use = kernels_in_use()
    assert len(in_use) > 50
    assert not in_use - set(ahead.listed())


@pytest.mark.slow
def test_the_list_is_what_the_tool_finds(tmp_path, repository):
    """Nothing is listed that no command uses any more."""
    copy = tmp_path / "copy"
    for name in ("vcell", "plugins", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, copy / name, ignore=ignored)
    path = os.pathsep.join([str(copy), str(copy / "plugins")])
    tool = [sys.executable, copy / "tools" / "kernel_signatures.py"]
    subprocess.run(tool, env=clean_environment() | {"PYTHONPATH": path}, check=True)
    found = (copy / "vcell" / "kernels" / "signatures.json").read_text()
    assert json.loads(found) == ahead.listed()


READ_ONLY = np.zeros((3, 4), np.float32)[:, ::2]
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "value",
    [
        1, 0.5, True, np.uint16(3), np.float32(2), np.zeros(3, np.uint8), np.zeros(2, bool),
        np.zeros((2, 3), np.float32), np.zeros((2, 3), order="F"), np.zeros((4, 4))[::2, ::2],
        READ_ONLY, np.zeros(3, [("row", "i4"), ("value", "f8")]),
    ],
)  # fmt: skip
def test_types_are_read_as_they_are_spelt(value):
    assert with_numba.read(spelt(value)) == numba.typeof(value)


@pytest.mark.parametrize(
    "value",
    [
        "text", (1, 2), None, np.zeros(3, "U4"), np.zeros(3, complex), np.zeros(3, ">f4"),
        np.zeros((), np.float32), np.zeros(3, np.dtype([("a", "i1"), ("b", "i4")], align=True)),
        np.zeros(3, [("a", "i4", 2)]),
    ],
)  # fmt: skip
def test_what_cannot_be_spelt_is_left_out(value):
    assert spelt(value) is None


def test_every_listed_kernel_takes_what_is_listed():
    for name, signatures in ahead.listed().items():
        parameters = inspect.signature(named(name).py_func).parameters
        for signature in signatures:
            assert len([with_numba.read(word) for word in signature.split()]) == len(parameters)


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
    for _, kernel in ahead.kernels(module):
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


def test_cached_kernels_and_those_of_numba_write_the_same_bytes(tmp_path):
    de = "de real.h5ad -o {}.parquet --overwrite"
    run([COMMANDS[0], de.format("kept")], tmp_path)
    assert run([de.format("kept")], tmp_path) == "kept"  # by the command before
    # by numba, for this very processor: this is its default, but it was set
    assert run([de.format("numba")], tmp_path, NUMBA_OPT="3") == "numba"
    assert (tmp_path / "kept.parquet").read_bytes() == (tmp_path / "numba.parquet").read_bytes()


FOR_TARGET = """
import json, sys
from vcell.kernels import targets
targets.choose(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.skipif(targets.chosen().name != "x86-64-v4", reason="one level runs here")
def test_every_level_of_processors_writes_the_same_bytes(tmp_path):
    written = {}
    for name in targets.shipped():
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", FOR_TARGET + RUN, json.dumps(COMMANDS), name], cwd=folder,
            env=clean_environment(), check=True, timeout=PATIENCE,
        )  # fmt: skip
        files = [file for file in folder.rglob("*") if file.is_file()]
        written[name] = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in files if file.suffix in {".h5ad", ".parquet", ".csv"} or "c" in file.parts
        }  # fmt: skip
    first, *others = written.values()
    assert len(first) > 10
    assert all(other == first for other in others)


@njit(nogil=True, cache=True)
def total(values, factor):
    """Stands for any kernel."""
    out = 0.0
    for value in values:
        out += value * factor
    if out < 0:
        raise ValueError("below zero")
    return out


def test_a_kernel_that_cannot_be_saved_is_used(small_disk):
    subprocess.run(["mount", "-o", "remount,size=64k", small_disk], check=True)
    (small_disk / "others").write_bytes(b"\0" * 64 * 1024)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False,
        timeout=PATIENCE, env=clean_environment() | {"NUMBA_CACHE_DIR": str(small_disk)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "compiled\n", "told\n")


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
    assert {object_cache.read(file)["signature"] for file in folder.rglob("*.kernel")} == {
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


EXP = """
import numpy as np
from vcell.kernels.likelihood import exp_rows
out = np.empty(2, np.float32)
exp_rows(np.array([-0.3, 0.1], np.float32), out)
print(out[0])
"""


def test_a_change_in_a_function_that_a_kernel_calls_compiles_it_anew(tmp_path):
    shutil.copytree(Path(vcell.__file__).parent / "kernels", tmp_path / "vcell" / "kernels",
                    ignore=shutil.ignore_patterns("compiled", "__pycache__"))  # fmt: skip
    for module in Path(vcell.__file__).parent.glob("*.py"):
        shutil.copy(module, tmp_path / "vcell")
    called = tmp_path / "vcell" / "kernels" / "elementary.py"
    before = called.read_text()
    found = []
    for text in (before, before.replace("E0, E1, E2", "E1, E0, E2", 1)):
        called.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", EXP], cwd=tmp_path, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
            env=clean_environment() | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": "cache"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(float(done.stdout))
    assert found[0] == pytest.approx(np.exp(-0.3), rel=1e-6)
    assert found[1] != found[0]
