"""Compile all kernels before they are used, in parallel: ``python -m vcell.kernels.ahead``.

A kernel is compiled when it is first called with arrays of some types, and its code is saved
(`vcell.kernels.object_cache`). ``signatures.json`` lists the types that the commands use;
``tools/kernel_signatures.py`` writes it. A wheel carries their code (``tools/vcell_build.py``).
Where it does not fit, and in a checkout, ``vcell doctor --compile`` compiles them. One process
compiles all kernels of a module: if two added to numba's index of one kernel at the same time, an
entry could be lost (and be compiled again later).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from vcell.kernels import object_cache, targets
from vcell.kernels.kernel import CompiledKernel

_LIST = Path(__file__).with_name("signatures.json")
_PACKAGE = "vcell.kernels"


def listed() -> dict[str, list[str]]:
    """Return the signatures to compile ahead."""
    signatures: dict[str, list[str]] = json.loads(_LIST.read_text())
    return signatures


def write(signatures: dict[str, list[str]]) -> None:
    """Replace the list."""
    _LIST.write_text(json.dumps(signatures, indent=1, sort_keys=True) + "\n")


def missing() -> dict[str, list[str]]:
    """Return the listed signatures for which no usable code is saved."""
    left = {
        name: [one for one in kinds if not object_cache.is_saved(name, one)]
        for name, kinds in listed().items()
    }
    return {name: kinds for name, kinds in left.items() if kinds}


def files() -> list[str]:
    """Return the names of the files that hold the listed code."""
    every = listed().items()
    return [object_cache.file_name(name, one) for name, kinds in every for one in kinds]


def kernels(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the kernels of a module that Python may call."""
    for name, kernel in vars(sys.modules[module]).items():
        own = isinstance(kernel, CompiledKernel) and kernel.__module__ == module
        if own and not name.startswith("_"):
            yield name, kernel


def compile_modules(modules: Sequence[str]) -> int:
    """Compile (or load) the listed signatures of some modules; return their number."""
    n = 0
    for name, signatures in listed().items():
        module, _, kernel = name.rpartition(".")
        if module in modules:
            for signature in signatures:
                getattr(import_module(module), kernel).compile_for(signature)
                n += 1
    return n


def compile_all(processes: int) -> int:
    """Compile the listed signatures that are missing in several processes; return their number.

    Raises
    ------
    RuntimeError
        If a process failed.
    """
    signatures = missing()
    work: dict[str, int] = {}
    for name, kinds in signatures.items():
        module = name.rpartition(".")[0]
        work[module] = work.get(module, 0) + len(kinds)
    shares: list[list[str]] = [[] for _ in range(min(processes, len(work)))]
    for module in sorted(work, key=lambda one: -work[one]):  # largest to the least loaded
        min(shares, key=lambda share: sum(work[one] for one in share)).append(module)
    words = [sys.executable, "-m", f"{_PACKAGE}.ahead", "--target", targets.chosen().name]
    running = [
        subprocess.Popen(
            [*words, *share], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for share in shares
    ]
    ends = [(process.communicate()[1], process.returncode) for process in running]
    if failed := [text for text, code in ends if code]:
        raise RuntimeError(f"kernels could not be compiled:\n{failed[0][-2000:]}")
    return sum(map(len, signatures.values()))


def main() -> None:
    """Compile some modules, or all of them; print the names of all files."""
    from vcell.cores import cores

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", help="the level of processors to compile for")
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args()
    if options.target:
        targets.choose(options.target)
    if options.modules:
        compile_modules(options.modules)
    else:
        compile_all(cores())
    print(*files(), sep="\n")


if __name__ == "__main__":
    main()
