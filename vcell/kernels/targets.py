"""Which processors kernels are compiled for: levels that many share, not one model.

Code for a level runs on every processor that has its instructions, so a wheel can carry it, and
nodes of a cluster share one cache. Kernels take as long on a level as compiled for the very model
(docs/decisions.md). Other processors have code of their own: that of their model and features.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

_V3 = (
    "avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sahf",
    "sse4.2", "ssse3", "xsave",
)  # fmt: skip
_LEVELS = {  # best first; LLVM knows them by these names
    "x86-64-v4": (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": _V3,
}


@dataclass(frozen=True)
class Processor:
    """What code is compiled for, as LLVM knows it, and the name of its files."""

    name: str
    processor: str
    features: str  # beside those that come with the processor's name
    wide: bool  # vectors of 64 bytes


#: What `choose` has set; None: the highest level that runs here.
_aim: Processor | None = None


def chosen() -> Processor:
    """Return what this process compiles for and loads."""
    return _aim or _here()


def choose(name: str) -> None:
    """Compile for a level in this process, on whatever processor; call it before any kernel."""
    global _aim  # noqa: PLW0603 - state of the process
    _aim = _level(name) if name in _LEVELS else _here()


def shipped() -> tuple[str, ...]:
    """Return the names of the targets that a wheel built on this machine carries code for."""
    return tuple(_LEVELS) if platform.machine() == "x86_64" else (_here().name,)


@cache
def _here() -> Processor:
    """Return the highest level that runs here, or this very processor."""
    import llvmlite.binding as llvm  # LLVM, 43 MiB: not before a kernel is called

    has = llvm.get_host_cpu_features()
    if platform.machine() == "x86_64":
        for name, needed in _LEVELS.items():
            if all(has.get(feature, False) for feature in needed):
                return _level(name)
    model, features = llvm.get_host_cpu_name(), has.flatten()
    told = blake2b(features.encode(), digest_size=6).hexdigest()
    return Processor(f"{model}-{told}", model, features, has.get("avx512f", False))


def _level(name: str) -> Processor:
    return Processor(name, name, "", wide=name == "x86-64-v4")
