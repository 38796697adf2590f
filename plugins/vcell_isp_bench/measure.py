"""Time a method phase by phase, and observe one forward pass to see what ran."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vcell.gpu import memory
from vcell.nn import cpu_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vcell.geneformer.tokens import TokenCells
    from vcell_isp_bench.methods import Method

_PRODUCTS = ("addmm", "mm", "linear", "bmm", "quantized")


@dataclass
class Timing:
    """Repeats of one method over all cells, in seconds.

    Attributes
    ----------
    copy, model, harness
        ``[R]`` seconds to copy tokens to the device, in the model, and in everything else.
    cpu
        ``[R]`` CPU seconds of the process.
    """

    copy: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    harness: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def summary(self, processes: int) -> dict[str, Any]:
        """Return medians and quartiles over the repeats."""
        copy, model, harness, cpu = (
            np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
            for seconds in (self.copy, self.model, self.harness, self.cpu)
        )
        total = np.sum([self.copy, self.model, self.harness], axis=0)
        low, middle, high = np.quantile(total, [0.25, 0.5, 0.75]).tolist()
        return {
            "seconds": middle, "seconds_iqr": [low, high], "copy": copy[1], "model": model[1],
            "harness": harness[1], "cpu": cpu[1], "model_iqr": [model[0], model[2]],
            "repeats": len(self.model), "processes": processes,
            "cpu_load": cpu[1] / max(middle, 1e-9),  # mean number of busy cores
        }  # fmt: skip


class KernelWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the types of matrix products and the attention kernels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: dict[str, int] = {}
        self.kernels: dict[str, int] = {}

    def by_numpy(self, products: str, attention: str) -> None:
        """Record what numpy ran instead of torch."""
        self.types[products] = self.types.get(products, 0) + 1
        self.kernels[attention] = self.kernels.get(attention, 0) + 1

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Record one operator and run it."""
        name = str(func).split(".")[1] if "." in str(func) else str(func)
        if "attention" in name or "varlen" in name:
            self.kernels[name.strip("_")] = self.kernels.get(name.strip("_"), 0) + 1
        elif any(word in str(func) for word in _PRODUCTS):
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            kind = "int8" if "quantized" in str(func) else str(tensors[-1].dtype)
            kind = kind.removeprefix("torch.")
            self.types[kind] = self.types.get(kind, 0) + 1
        return func(*args, **(kwargs or {}))


def watched(method: Method, cells: TokenCells, device: torch.device) -> dict[str, Any]:
    """Return what the method is, and what one batch ran: products, kernels, cells per pass."""
    batch = next(iter(method.batches([int(n) for n in cells.lengths])))
    given = [torch.from_numpy(cells[i].astype(np.int64)).to(device) for i in batch]
    # inference_mode would hide linear layers from the dispatch mode
    with torch.no_grad(), KernelWatch() as watch:
        cpu_layers.observers.append(watch.by_numpy)
        try:
            method.encode(given)
        finally:
            cpu_layers.observers.remove(watch.by_numpy)
    return {
        "method": method.name,
        "what": method.description,
        "products": ", ".join(sorted(watch.types)) or "not seen",
        "attention": ", ".join(sorted(watch.kernels)) or "not seen",
        "cells_a_forward": len(batch),
        "layers": method.layers,
        "head": method.head,
        **method.facts,
    }


def timed(
    method: Method, cells: TokenCells, device: torch.device, repeats: int, *, cls: bool,
    before: Callable[[], object] = int,
) -> tuple[Timing, dict[str, Any], NDArray[np.float32]]:  # fmt: skip
    """Embed all cells once to warm up, then `repeats` times.

    Return times, load and memory of the GPU, and embeddings.

    `before` is called before each pass: there processes wait for each other.
    """
    timing = Timing()
    out = np.zeros((0, 0), np.float32)
    memory.reset_peak(device)
    with GpuLoad(device) as load:
        for number in range(repeats + 1):
            before()
            phases, out = _once(method, cells, device, cls=cls)
            if number:
                for name, seconds in phases.items():
                    getattr(timing, name).append(seconds)
    return timing, {"gpu_load": load.percent, "memory": memory.peak_memory(device)}, out


@torch.inference_mode()
def _once(
    method: Method, cells: TokenCells, device: torch.device, *, cls: bool
) -> tuple[dict[str, float], NDArray[np.float32]]:
    started, cpu = time.perf_counter(), time.process_time()
    copying = computing = 0.0
    out: list[torch.Tensor] = []
    waiting = 0
    for batch in method.batches([int(n) for n in cells.lengths]):
        before = time.perf_counter()
        given = [torch.from_numpy(cells[i].astype(np.int64)).to(device) for i in batch]
        _synchronise(device)
        between = time.perf_counter()
        states = method.encode(given)
        out.extend(h[0].float() if cls else h.float().mean(0) for h in states)
        _synchronise(device)
        after = time.perf_counter()
        copying += between - before
        computing += after - between
        waiting += len(batch)
        if method.harness is not None:
            method.harness()
    embedded: NDArray[np.float32] = torch.stack(out).cpu().numpy()
    elapsed = time.perf_counter() - started
    return {
        "copy": copying, "model": computing, "harness": max(elapsed - copying - computing, 0.0),
        "cpu": time.process_time() - cpu,
    }, embedded  # fmt: skip


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class GpuLoad:
    """Samples the GPU's utilisation ten times a second on a separate thread.

    Attributes
    ----------
    percent
        Mean over the block; None on a CPU, or if the driver does not report it.
    """

    def __init__(self, device: torch.device) -> None:
        self.percent: float | None = None
        self._device, self._end = device, threading.Event()
        self._seen: list[int] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> GpuLoad:
        if self._device.type == "cuda":
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._seen:
            self.percent = float(np.mean(self._seen))

    def _look(self) -> None:
        from vcell.gpu.reading import open_card

        uuid = str(torch.cuda.get_device_properties(self._device).uuid)
        with suppress(LookupError), open_card(uuid) as card:
            while not self._end.wait(0.1):
                load = card.read().utilisation
                if load is not None:
                    self._seen.append(load)


@torch.inference_mode()
def peak_rate(device: torch.device) -> float:
    """Measure the operations per second of a large matrix product, the roofline here."""
    n = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        _synchronise(device)
        started = time.perf_counter()
        a @ b
        _synchronise(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best
