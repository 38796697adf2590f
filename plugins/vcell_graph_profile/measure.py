"""Time a strategy phase by phase, track its memory, and find the largest batch that fits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell.gpu.memory import memory_in_use, peak_memory, reset_peak
from vcell_graph_profile.nets import GraphNet, alike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_graph_profile.batches import ProfileBatch, Strategy

DATA, MODEL = ("sample", "collate", "copy"), ("forward", "backward")
MOST = 1 << 16  # largest batch that is tried, in samples


@dataclass
class Phases:
    """Milliseconds of each batch by phase, and properties of the batches."""

    times: dict[str, list[float]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    payload: list[int] = field(default_factory=list)
    batch: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    alike: float | None = None
    peak: int | None = None

    @property
    def middle(self) -> dict[str, float]:
        """The median of each phase."""
        return {name: float(np.median(values)) for name, values in self.times.items()}


class StrategyTimer:
    """Times one strategy with its model.

    Parameters
    ----------
    sets, values
        (T, S) perturbed genes and (T,) measured values.
    mode
        ``data``, ``model`` or ``full``.
    """

    def __init__(
        self,
        strategy: Strategy,
        net: GraphNet | None,
        sets: NDArray[np.int64],
        values: NDArray[np.float32],
        mode: str,
        device: torch.device,
    ) -> None:
        self.strategy, self.net, self.mode, self.device = strategy, net, mode, device
        self.sets, self.values = sets, values
        if net is not None:
            net.to(device)
        self._kept: tuple[ProfileBatch, torch.Tensor] | None = None

    def run(self, steps: int, size: int, seed: int) -> Phases:
        """Time `steps` batches, after one to warm up."""
        found = Phases()
        rng = np.random.default_rng(seed)
        for number in range(steps + 1):
            one = Phases()
            self.step(rng.integers(0, len(self.sets), size), one, seed)
            if number:
                for name, values in one.times.items():
                    found.times.setdefault(name, []).extend(values)
                for name in ("cpu", "payload", "batch", "nodes", "edges"):
                    getattr(found, name).extend(getattr(one, name))
                found.alike = one.alike
        found.peak = self._peak_of(size, seed)  # separately: freeing memory first takes time
        return found

    def step(self, chosen: NDArray[np.int64], into: Phases, seed: int) -> None:
        """Run one batch."""
        clock = _Clock(into, self.device)
        cpu = time.process_time()
        if self._kept is None or self.mode != "model":
            samples = [self.strategy.sample(self.sets[i]) for i in chosen]
            clock.lap("sample")
            batch = self.strategy.collate(samples)
            clock.lap("collate")
            moved = batch.moved(self.device)
            clock.lap("copy")
            into.payload.append(sum(s.nbytes for s in samples))
            into.nodes.append(sum(s.n_nodes for s in samples))
            into.edges.append(sum(s.n_edges for s in samples))
            into.batch.append(batch.nbytes)
            target = torch.from_numpy(self.values[chosen]).to(self.device)
            if self.mode == "model":
                self._kept = (moved, target)
        else:
            moved, target = self._kept
        if self.net is not None:
            clock = _Clock(into, self.device)
            found, latents = self.net(moved)
            loss = (found - target).square().mean()
            clock.lap("forward")
            self.net.zero_grad(set_to_none=True)
            loss.backward()
            clock.lap("backward")
            with torch.no_grad():
                into.alike = alike(latents, seed)
        into.cpu.append(1000 * (time.process_time() - cpu))

    def largest(self, budget: int, seconds: float, seed: int) -> tuple[int, bool]:
        """Run batches to find the largest with a peak memory of at most `budget` bytes.

        Returns
        -------
        size, found
            `found` is False if time or `MOST` ended the search: larger batches may fit.
        """
        ends = time.monotonic() + seconds
        size, best = 1, 0
        too_many: int | None = None
        while time.monotonic() < ends and size <= MOST:
            peak = self._peak_of(size, seed)
            if peak is None or peak > budget:
                too_many = size
            else:
                best = size
            if too_many is not None:
                if too_many <= best + max(best // 16, 1):
                    return best, True
                size = (best + too_many) // 2
            else:  # extrapolate before doubling, so that no batch exceeds the budget by far
                grown = 2 * size if 2 * (peak or 0) <= budget else size * budget // (peak or 1)
                size = min(max(grown, size + 1), 2 * size)
        return best, False

    def _peak_of(self, size: int, seed: int) -> int | None:
        """Return the peak memory of a batch in bytes; None if it did not fit."""
        self._kept = None
        rng = np.random.default_rng(seed)
        reset_peak(self.device)
        before = memory_in_use(self.device) or 0
        try:
            self.step(rng.integers(0, len(self.sets), size), Phases(), seed)
        except (torch.OutOfMemoryError, MemoryError):
            return None
        finally:
            self._kept = None
        return peak_memory(self.device) - before


class _Clock:
    """Adds the time of laps to phases, in milliseconds."""

    def __init__(self, into: Phases, device: torch.device) -> None:
        self._into, self._device = into, device
        self._at = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to a phase."""
        now = self._now()
        self._into.times.setdefault(name, []).append(1000 * (now - self._at))
        self._at = now


def facts(found: Phases, strategy: Strategy, size: int) -> dict[str, Any]:
    """Return a strategy's row: times of a batch, rates, bytes, memory."""
    middle = found.middle
    total = sum(middle.values())
    copy = middle.get("copy")
    return {
        "strategy": strategy.name, "what": strategy.description,
        "reference_for": strategy.reference, "own_graph": strategy.own_graph,
        "milliseconds": middle, "batch_milliseconds": total,
        "cpu_milliseconds": float(np.median(found.cpu)),
        "iterations_a_second": 1000 / total, "samples_a_second": 1000 * size / total,
        "original_iterations_a_second": 1000 / copy if copy else None,
        "bytes_a_sample": _mean(found.payload, size),
        "bytes_a_batch": _mean(found.batch, 1),
        "bytes_shared": strategy.shared_bytes, "peak_bytes": found.peak,
        "nodes_a_sample": _mean(found.nodes, size), "edges_a_sample": _mean(found.edges, size),
        "alike": found.alike,
    }  # fmt: skip


def _mean(values: list[int], size: int) -> float | None:
    return float(np.mean(values)) / size if values else None
