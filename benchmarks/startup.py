"""The cost of --help: CPU time of whole `vcell` processes, and of Python alone.

    python benchmarks/startup.py [--repeats 15]

The minimum over repeats counts: on a shared machine everything above it is other work. Ten plugins
are installed: the built-in ones, and copies of the example.

Then commands that do real work, on 300 cells of 400 genes, with kernels compiled: nearly all of it
is imports and loading kernels. ``--work`` measures only these. The exit code is 1 if something
costs more than peers.py allows.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import peers

PLUGIN = Path(__file__).parents[1] / "examples/plugin-hello/src/vcell_hello/__init__.py"
PLUGINS = 10
COMMANDS = (["--version"], ["--help"], ["select-genes", "--help"], ["plugins"])
WORK = (
    "simulate {0}/again.h5ad --n-cells 300 --genes 400 --overwrite",
    "inspect {0}/cells.h5ad",
    "select-genes {0}/cells.h5ad -o {0}/variable --groups none --n-genes 100 --overwrite",
    "select-genes {0}/cells.h5ad -o {0}/genes --n-genes 100 --overwrite",
    "convert {0}/cells.h5ad {0}/copy.h5ad --overwrite",
    "prepare {0}/cells.h5ad -o {0}/store.zarr --overwrite",
    "de {0}/cells.h5ad -o {0}/de.parquet --overwrite",
    "evaluate {0}/cells.h5ad {0}/cells.h5ad -o {0}/scores --overwrite",
)


def cpu_ms(words: list[str], env: dict[str, str], repeats: int) -> float:
    """Return the least CPU time of `repeats` runs, children included, in milliseconds."""
    best = float("inf")
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], env=env, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, 1000 * spent)
    return best


def add_plugins(site: Path, count: int) -> None:
    """Install `count` copies of the example plugin under other names."""
    for i in range(count):
        (site / f"extra{i}.py").write_text(PLUGIN.read_text().replace('"hello"', f'"extra{i}"'))
        info = site / f"extra{i}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: extra{i}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vcell.plugins]\nextra{i} = extra{i}:plugin\n")


def at_work(folder: str, env: dict[str, str], repeats: int) -> dict[str, float]:
    """Return the seconds of commands on a few cells; `prepare` builds its store anew each time."""
    found = {}
    made = WORK[0].replace("again", "cells").format(folder).split()
    env = env | {"VCELL_CACHE": f"{folder}/cache"}
    cpu_ms(["-m", "vcell", *made, "--quiet"], env, 1)
    for line in WORK:
        words = [*line.format(folder).split(), "--quiet"]
        cpu_ms(["-m", "vcell", *words], env, 1)  # compiles missing kernels
        best = float("inf")
        for _ in range(repeats):
            shutil.rmtree(f"{folder}/store.zarr", ignore_errors=True)
            best = min(best, cpu_ms(["-m", "vcell", *words], env, 1))
        name = "vcell " + line.split(" {", 1)[0] + (" --groups none" if "none" in line else "")
        print(f"{name:<36}{best:7.0f} ms", flush=True)
        found[name] = best / 1000
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--work", action="store_true")
    options = parser.parse_args()
    repeats = options.repeats
    from vcell.plugin import discover

    built_in = len(discover().plugins)
    with tempfile.TemporaryDirectory() as folder:
        add_plugins(Path(folder), max(0, PLUGINS - built_in))
        env = os.environ | {"PYTHONPATH": folder}
        print(f"{max(PLUGINS, built_in)} plugins, least CPU of {repeats} runs")
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, vcell is compiled from source each time
        helps = {} if options.work else start(env, repeats)
        commands = at_work(folder, env, repeats)
    peers.tell(*peers.excesses({"help": helps, "command": commands}))


def start(env: dict[str, str], repeats: int) -> dict[str, float]:
    """Print what starting costs; return it for help, in times the CPU of importing click."""
    bare = cpu_ms(["-c", "pass"], env, repeats)
    click = cpu_ms(["-c", "import click, importlib.metadata"], env, repeats)
    print(f"{'python -c pass':<28}{bare:7.0f} ms")
    print(f"{'import click, metadata':<28}{click:7.0f} ms")
    found = {}
    for words in COMMANDS:
        name = f"vcell {' '.join(words)}"
        spent = cpu_ms(["-m", "vcell", *words], env, repeats)
        print(f"{name:<28}{spent:7.0f} ms   {spent / click:.2f} x click")
        if words[-1] == "--help":
            found[name] = spent / click
    return found


if __name__ == "__main__":
    main()
