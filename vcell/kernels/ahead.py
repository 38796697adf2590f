"""Compile all kernels before they are used, in parallel: ``python -m vcell.kernels.ahead``.

numba compiles a kernel when it is first called with arrays of some types. The code is saved next to
the source (in the user's cache folder where that cannot be written), under the processor's name:
later calls and other processes reuse it. Each kind of processor has its own code.
``signatures.json`` lists the types that the commands use; ``tools/kernel_signatures.py`` writes it.
One process compiles all kernels of a module: if two added to the index of one kernel at the same
time, an entry could be lost (and be compiled again later).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from vcell.kernels.kernel import CompiledKernel

_LIST = Path(__file__).with_name("signatures.json")
_PACKAGE = "vcell.kernels"


def used() -> dict[str, list[str]]:
    """Return the signatures that this process has compiled or loaded, kernel by kernel."""
    found: dict[str, list[str]] = {}
    for module in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
        for name, kernel in _kernels(module):
            if signatures := kernel.signatures():
                found[f"{module}.{name}"] = sorted(signatures)
    return dict(sorted(found.items()))


def listed() -> dict[str, list[str]]:
    """Return the signatures to compile ahead."""
    signatures: dict[str, list[str]] = json.loads(_LIST.read_text())
    return signatures


def write(signatures: dict[str, list[str]]) -> None:
    """Replace the list."""
    _LIST.write_text(json.dumps(signatures, indent=1, sort_keys=True) + "\n")


def _kernels(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the kernels of a module that Python calls; helpers are compiled with their callers."""
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
    """Compile all listed signatures in several processes; return their number.

    Raises
    ------
    RuntimeError
        If a process failed.
    """
    signatures = listed()
    work: dict[str, int] = {}
    for name, kinds in signatures.items():
        module = name.rpartition(".")[0]
        work[module] = work.get(module, 0) + len(kinds)
    shares: list[list[str]] = [[] for _ in range(min(processes, len(work)))]
    for module in sorted(work, key=lambda one: -work[one]):  # largest to the least loaded
        min(shares, key=lambda share: sum(work[one] for one in share)).append(module)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE}.ahead", *share],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for share in shares
    ]  # fmt: skip
    ends = [(process.communicate()[1], process.returncode) for process in running]
    if failed := [text for text, code in ends if code]:
        raise RuntimeError(f"kernels could not be compiled:\n{failed[0][-2000:]}")
    return sum(map(len, signatures.values()))


if __name__ == "__main__":
    from vcell.cores import cores

    print(compile_modules(sys.argv[1:]) if sys.argv[1:] else compile_all(cores()))
