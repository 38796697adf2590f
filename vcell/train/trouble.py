"""The cause of an error in a step: out of memory, a compiler, a lost device or process.

Pure functions of the exception, so that errors of a GPU can be simulated in a test.
"""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed

from vcell.errors import RunFailed

_OUT_OF_MEMORY = (
    "out of memory",  # "CUDA error: out of memory" of what does not ask torch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # torch's on a CPU
)
_PEER_GONE = (  # gloo's words for it
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "Connection refused",
    "gloo::",
)
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "triton")
_ACCELERATOR_ERROR = getattr(torch, "AcceleratorError", None)  # since 2.8; a RuntimeError before


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__context__, one.__cause__]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, so that a smaller piece may fit."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)


def is_compilers(error: BaseException) -> bool:
    """Whether torch.compile failed, not the model: Dynamo, Inductor, Triton, ptxas, a C compiler.

    Decided by the class of any error in the chain; for an external program that failed or was not
    found, by whether a compiler called it.
    """
    for one in chain(error):
        if any(_is_of(kind.__module__) for kind in type(one).__mro__):
            return True
        if isinstance(one, subprocess.SubprocessError | OSError | ImportError) and _compiling(one):
            return True
    return False


def is_devices(error: BaseException) -> bool:
    """Whether the device itself failed: lost, a fault of its memory, an assertion in a kernel."""
    if _ACCELERATOR_ERROR is not None and isinstance(error, _ACCELERATOR_ERROR):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "CUDA driver"))


def is_peers(error: BaseException) -> bool:
    """Whether another process of the job is gone or does not answer."""
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_GONE)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def explained(doing: str, hint: str) -> Iterator[None]:
    """Explain errors of memory and devices that the block raises."""
    try:
        yield
    except Exception as error:
        explain(error, doing, hint)
        raise


def explain(error: Exception, doing: str, hint: str) -> None:
    """Raise a `RunFailed` if the machine caused the error; return otherwise.

    Parameters
    ----------
    error
        The exception.
    doing, hint
        What was being done, and advice in case memory ran out.
    """
    if is_out_of_memory(error):
        raise RunFailed(f"out of memory while {doing} ({first_line(error)})", hint=hint) from None
    if is_peers(error):
        raise RunFailed(
            f"another process of the job is gone or no longer answers ({first_line(error)})",
            hint="its own log says why, if it could; go on from the last checkpoint with --resume, "
            "on as many GPUs and machines as there are",
        ) from None
    if is_devices(error):
        raise RunFailed(
            f"the device failed while {doing}: {first_line(error)}",
            hint="go on from the last checkpoint; if it fails again, look at nvidia-smi -q and at "
            "dmesg for Xid errors, and try CUDA_LAUNCH_BLOCKING=1",
        ) from error


def _is_of(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _COMPILERS)


def _compiling(error: BaseException) -> bool:
    """Whether the error was raised inside a compiler."""
    return any(
        _is_of(frame.f_globals.get("__name__", ""))
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
