"""Asking for help must not cost the import of numpy or torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import clean_environment
from vcell.commands.plugins import HEAVY
from vcell.plugin import CORE_COMMANDS, Plugin, discover, load

_PROBE = """
import sys
from vcell.cli import run
code = run(sys.argv[1:])
heavy = [name for name in {heavy!r} if name in sys.modules]
sys.exit(f"code {{code}}, imported {{heavy}}" if code or heavy else 0)
"""
COMMANDS = [*CORE_COMMANDS, *discover().plugins]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["completion", "bash"],
        ["completion", "zsh"],
        ["completion", "fish"],
        ["plugins"],
        ["config", "show"],
        ["config", "schema"],
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_it_imports_nothing_heavy(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(heavy=HEAVY), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


_DOORS = """
import sys
from importlib import metadata
from vcell.cli import run
code = run(["--help"])
doors = {point.module for point in metadata.entry_points(group="vcell.plugins")}
imported = doors & set(sys.modules)
sys.exit(f"code {code}, imported {imported}" if code or imported else 0)
"""


def test_help_imports_no_plugin(vcell, tmp_path):
    env = {"VCELL_CACHE": str(tmp_path / "cache")}
    first = vcell("--help", env=env).out
    again = subprocess.run(
        [sys.executable, "-c", _DOORS], capture_output=True, text=True, cwd=tmp_path,
        env=clean_environment() | env, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stdout.replace("python -c", "vcell") == first


def test_shell_completion_imports_nothing_heavy(tmp_path):
    asking = {"_VCELL_COMPLETE": "bash_complete", "COMP_WORDS": "vcell config s", "COMP_CWORD": "2"}
    probe = f"""
import sys, atexit
atexit.register(lambda: print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr))
from vcell.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment() | asking,
        check=False,
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout.split() == ["plain,schema", "plain,show"]


@pytest.mark.parametrize("name", discover().plugins)
def test_every_built_in_plugin_loads_and_conforms(name, vcell):
    assert isinstance(load(name), Plugin)
    checked = vcell("plugins", "check", name, "--json")
    broken = [rule for rule in checked.json["rules"] if not rule["ok"]]
    assert (checked.code, broken) == (0, [])


_AT_WORK = """
import sys
from vcell.cli import run
for words in (
    "simulate cells.h5ad --n-cells 300 --genes 100 --perturbations 5",
    "inspect cells.h5ad --full",
    "select-genes cells.h5ad -o genes --n-genes 50",
    "select-genes cells.h5ad -o variable --n-genes 50 --groups none --hvg-flavor cell_ranger",
    "convert cells.h5ad again.h5ad",
    "de cells.h5ad -o de.parquet",
    "evaluate cells.h5ad cells.h5ad -o scores",
    "prepare cells.h5ad -o store.zarr",
):
    code = run([*words.split(), "--quiet"])
    unwanted = {
        "anndata", "asyncio", "dask", "numcodecs", "pandas", "scipy.linalg", "scipy.sparse",
        "scipy.stats", "tomllib", "torch", "zarr",
    }
    assert code == 0, f"{words}: {code}"
    imported = unwanted & set(sys.modules)
    assert not imported or "numba" in sys.modules, f"{words} imports {imported}"
print("numba" in sys.modules)
"""


def test_cells_in_h5ad_are_worked_on_without_large_packages(tmp_path):
    """Some take a third of a second to import, which every command would wait for."""

    def work(folder: str) -> str:
        (tmp_path / folder).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _AT_WORK], capture_output=True, text=True, check=False,
            cwd=tmp_path / folder, env=clean_environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    # numba, where it has to compile kernels first, imports some of these packages
    assert work("first") == "False" or work("again") == "False"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        # .03 CPU seconds each, a tenth of the start of `vcell de`
        (
            "de c.h5ad -o de.parquet",
            {"scipy.special._ufuncs", "pyarrow.compute", "pandas", "numba"},
        ),
        ("convert c.h5ad d.h5ad", {"llvmlite.binding"}),  # 43 MiB, for kernels that are called
    ],
)
def test_a_command_leaves_out_what_it_does_not_use(vcell, tmp_path, words, absent):
    vcell("simulate", "c.h5ad", "--n-cells", "60", "--genes", "40", "--perturbations", "3")
    probe = f"""
import sys
from vcell.cli import run
code = run({words.split()} + ["--quiet"])
loaded = {absent} & set(sys.modules)
sys.exit(f"code {{code}}, imported {{loaded}}" if code or loaded else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path,
        env=clean_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
