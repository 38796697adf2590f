"""The encoder against a plain nn.TransformerEncoder: time, memory, attention, estimate, MFU.

    python benchmarks/transformer.py                     # everything, minutes on two cores
    python benchmarks/transformer.py naive attention     # some
    python benchmarks/transformer.py estimate --cpu-clock   # busy machine: CPU time, one thread

Every figure is one training step (forward, backward, clipping, AdamW; the fastest of a few) in a
separate process. Memory is the growth of its peak (VmHWM, or CUDA's) in two steps over the
interpreter's memory before the model, with the C library set to return every block over 64 KiB:
the bytes in use, as CUDA counts them. By default its heap keeps more, see "heap".
``--json FILE`` writes all figures.

naive      preset base at 5,000 genes against nn.TransformerEncoder of the same sizes in float32
           over all 18,080 genes: fitted with a + b T + c T^2 at lengths that fit, residuals shown
attention  one layer's attention, forward and backward, by back end and number of tokens
estimate   `vcell.nn.estimate` against measured steps
mfu        model FLOP utilisation of base at 5,000 genes in bf16, on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

ALL_GENES, GENES = 18_080, 5_000
PHASES = (500, 1200, 2500, 5000)  # genes of the progressive strategy's phases
LENGTHS = (512, 768, 1024, 1280, 1536)  # at which the naive model fits LIMIT
LIMIT = 5 << 30  # bytes a child may add
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # dense bf16 FLOP/s, from data sheets

Spec = dict[str, Any]


# --- in the child -----------------------------------------------------------------------------


def peak_bytes(*, reset: bool = False) -> int:
    """Return the peak of this process's memory in bytes; `reset` starts anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def measured(run: Callable[[], None], repeats: int) -> dict[str, float]:
    """Return the fastest of some runs after one to warm up, in wall and CPU seconds."""
    times = []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    warm = times[1:] or times
    return {"seconds": min(t[0] for t in warm), "cpu_seconds": min(t[1] for t in warm)}


def naive_model(spec: Spec) -> Any:
    """Build the plain model."""
    from torch import nn

    from vcell.nn.presets import PRESETS

    p = PRESETS[spec["preset"]]
    layer = nn.TransformerEncoderLayer(
        p.d_model, p.n_heads, p.d_ff, spec["dropout"], batch_first=True
    )
    return nn.TransformerEncoder(layer, p.n_layers)


def step(spec: Spec) -> dict[str, Any]:
    """Measure training steps of a model."""
    import torch

    from vcell.nn.encoder import Encoder
    from vcell.nn.estimate import estimate
    from vcell.nn.presets import PRESETS
    from vcell.train.prepare import _recompute_activations

    before = peak_bytes(reset=True)
    width = PRESETS[spec["preset"]].d_model
    model = naive_model(spec) if spec.get("naive") else Encoder(spec["preset"], spec["attention"])
    if spec["checkpointing"]:
        _recompute_activations(model, print)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x = torch.randn(spec["batch"], spec["tokens"], width)
    dtype = getattr(torch, spec["dtype"])

    def run() -> None:
        optimizer.zero_grad()
        half = dtype != torch.float32
        with torch.autocast("cpu", dtype=dtype) if half else nullcontext():
            loss = model(x).float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    found: dict[str, Any] = measured(run, spec["repeats"])
    found["bytes"] = peak_bytes() - before
    if spec.get("predict"):
        asked = time.perf_counter()
        told = estimate(
            spec["preset"], spec["tokens"], spec["batch"], dtype=dtype,
            checkpointing=spec["checkpointing"], attention=spec["attention"],
        )  # fmt: skip
        found["asked_seconds"] = time.perf_counter() - asked
        found["predicted_seconds"] = told.step_seconds
        found["predicted_bytes"] = told.memory_bytes
    return found


def attention(spec: Spec) -> dict[str, Any]:
    """Measure one layer's attention, 16 heads of 32."""
    import torch

    from vcell.nn.attention import attend
    from vcell.nn.patterns import pattern_for

    n_tokens, name = spec["tokens"], spec["name"].split()[0]
    pattern = None
    if name == "local":
        pattern = pattern_for(n_tokens, 2, graph=None, window=128)
    if name == "sparse":
        pattern = pattern_for(n_tokens, 2, graph=graph_of(spec["name"], n_tokens - 2), window=0)
    dtype = getattr(torch, spec["dtype"])
    q, k, v = (torch.randn(1, 16, n_tokens, 32, dtype=dtype, requires_grad=True) for _ in range(3))
    before = peak_bytes(reset=True)

    def run() -> None:
        attend(q, k, v, name=name, pattern=pattern).sum().backward()
        q.grad = k.grad = v.grad = None

    found: dict[str, Any] = measured(run, spec["repeats"])
    found["bytes"] = peak_bytes() - before
    found["scores"] = 1.0 if pattern is None else pattern.scores / n_tokens**2
    found["pairs"] = 1.0 if pattern is None else pattern.pairs / n_tokens**2
    return found


def graph_of(name: str, n_genes: int) -> Any:
    """Make 32 neighbours per gene: from expression in modules of 100 genes, or at random."""
    from vcell.nn.patterns import Graph

    rng = np.random.default_rng(0)
    if name == "sparse random":
        return Graph.from_edges(n_genes, rng.integers(0, n_genes, (16 * n_genes, 2)))
    modules = rng.integers(0, max(1, n_genes // 100), n_genes)
    drivers = rng.normal(size=(200, modules.max() + 1))
    noise = rng.normal(size=(200, n_genes))
    return Graph.coexpressed((drivers[:, modules] + 0.5 * noise).astype(np.float32), 32)


def child(order: str) -> None:
    """Run a measurement and print it as JSON."""
    import torch

    spec = json.loads(order)
    torch.set_num_threads(spec["threads"])
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT + (2 << 30),) * 2)
    if spec["cpu_clock"]:
        from vcell.nn import rates

        rates.clock = time.process_time
    torch.manual_seed(0)
    warm = torch.nn.Linear(64, 64)  # loads libraries and their buffers
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            warm(torch.randn(64, 64)).sum().backward()
    torch.optim.AdamW(warm.parameters()).step()
    print(json.dumps({"step": step, "attention": attention}[spec["what"]](spec)))


# --- in the parent ----------------------------------------------------------------------------


class Bench:
    """Starts children and collects their results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.found: dict[str, Any] = {}
        self.time = "cpu_seconds" if options.cpu_clock else "seconds"

    def ask(self, **spec: Any) -> dict[str, Any]:
        """Measure time in one process, and memory in another."""
        found = self._child(spec, os.environ)
        exact = self._child(spec | {"repeats": 1, "predict": False}, os.environ | GIVE_BACK)
        return found | {"heap_bytes": found["bytes"], "bytes": exact["bytes"]}

    def _child(self, spec: Spec, environment: Mapping[str, str]) -> dict[str, Any]:
        defaults = {
            "preset": "base", "attention": "sdpa", "batch": 1, "dtype": "float32",
            "checkpointing": False, "repeats": 2, "dropout": 0.1,
            "threads": 1 if self.options.cpu_clock else self.options.threads,
            "cpu_clock": self.options.cpu_clock,
        }  # fmt: skip
        words = [sys.executable, __file__, "--child", json.dumps(defaults | spec)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{spec} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def naive(self) -> None:
        """Fit the plain encoder, measure vcell's, print the ratios."""
        ours = self._ours()
        for dropout in (0.1, 0.0):
            runs = [
                self.ask(what="step", naive=True, tokens=t, dropout=dropout, repeats=1)
                for t in LENGTHS
            ]
            lines = [f"plain nn.TransformerEncoder, float32, dropout {dropout}, batch 1"]
            whole = {}
            for key, unit in ((self.time, 1.0), ("bytes", 2.0**30)):
                values = np.array([run[key] for run in runs]) / unit
                fit = np.polyfit(LENGTHS, values, 2, w=1 / values)  # least squares of shares
                off = np.abs(np.polyval(fit, LENGTHS) / values - 1)
                whole[key] = float(np.polyval(fit, ALL_GENES))
                terms = ", ".join(f"{c:.3g}" for c in fit[::-1])
                points = (f"{t}: {v:.3g}" for t, v in zip(LENGTHS, values, strict=True))
                lines.append(f"  {key}: {', '.join(points)}")
                lines.append(
                    f"  fit a, b T, c T^2 = {terms}; off by {off.max():.1%} at most; at "
                    f"{ALL_GENES:,} tokens {whole[key]:,.4g} {'GiB' if unit > 1 else 's'}"
                )
            for name, run in ours.items():
                run[f"memory_ratio_{dropout}"] = whole["bytes"] / (run["bytes"] / 2**30)
                run[f"time_ratio_{dropout}"] = whole[self.time] / run[self.time]
                lines.append(
                    f"  {name}: {run['bytes'] / 2**30:.3g} GiB, {run[self.time]:.3g} s: "
                    f"{run[f'memory_ratio_{dropout}']:.0f} times less memory, "
                    f"{run[f'time_ratio_{dropout}']:.0f} times less time"
                )
            print("\n".join(lines), flush=True)
            self.found[f"naive dropout {dropout}"] = {"runs": runs, "extrapolated": whole}
        self.found["ours"] = ours

    def _ours(self) -> dict[str, dict[str, Any]]:
        ours = {}
        for dtype, checkpointing in (
            ("float32", False), ("bfloat16", False), ("bfloat16", True)
        ):  # fmt: skip
            name = f"base, {GENES:,} genes, {dtype}" + ", recomputing" * checkpointing
            ours[name] = self.ask(
                what="step", tokens=GENES + 2, dtype=dtype, checkpointing=checkpointing, repeats=1
            )
        phases = [
            self.ask(what="step", tokens=t + 2, dtype="bfloat16", checkpointing=True, repeats=1)
            for t in PHASES
        ]
        ours["base, progressive, bfloat16, recomputing (mean of four equal phases)"] = {
            "bytes": max(run["bytes"] for run in phases),
            **{k: sum(run[k] for run in phases) / 4 for k in ("seconds", "cpu_seconds")},
        }
        return ours

    def attention(self) -> None:
        """Print the time and memory of the back ends."""
        print("attention of one layer, batch 1, 16 heads of 32, forward and backward")
        names = ("sdpa", "chunked", "sparse modules", "sparse random", "local", "linear")
        print(f"{'tokens':>7} {'back end':<16}{'scores':>8}{'fp32 s':>9}{'MiB':>7}{'bf16 s':>9}")
        for n_tokens in (1202, 5002):
            for name in names:
                full, half = (
                    self.ask(what="attention", tokens=n_tokens, name=name, dtype=dtype, repeats=1)
                    for dtype in ("float32", "bfloat16")
                )
                self.found[f"attention {name} {n_tokens}"] = {"float32": full, "bfloat16": half}
                print(
                    f"{n_tokens:>7} {name:<16}{full['scores']:>8.1%}{full[self.time]:>9.3f}"
                    f"{full['bytes'] / 2**20:>7.0f}{half[self.time]:>9.3f}",
                    flush=True,
                )

    def estimate(self) -> None:
        """Print predictions next to measurements."""
        heads = ("told s", "took s", "ratio", "told MiB", "took MiB", "ratio", "heap")
        widths = (8, 8, 7, 10, 10, 7, 7)
        print(f"{'preset':<7}{'tokens':>7}{'batch':>6} {'precision':<12}", end="")
        print("".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
        cases = [
            (preset, tokens, batch, dtype, recompute)
            for preset, tokens, batch in (
                ("tiny", 502, 8), ("tiny", 502, 64), ("tiny", 5002, 1),
                ("small", 202, 4), ("small", 502, 8), ("small", 2502, 1),
            )
            for dtype, recompute in (("float32", False), ("bfloat16", False), ("float32", True))
        ]  # fmt: skip
        for preset, tokens, batch, dtype, recompute in cases:
            run = self.ask(
                what="step", preset=preset, tokens=tokens, batch=batch, dtype=dtype,
                checkpointing=recompute, predict=True, repeats=3,
            )  # fmt: skip
            label = "bf16" if dtype == "bfloat16" else "fp32" + " recomp." * recompute
            times = run["predicted_seconds"], run[self.time]
            sizes = run["predicted_bytes"] / 2**20, run["bytes"] / 2**20
            self.found[f"estimate {preset} {tokens} {batch} {label}"] = run
            print(
                f"{preset:<7}{tokens:>7}{batch:>6} {label:<12}"
                f"{times[0]:>8.3f}{times[1]:>8.3f}{times[0] / times[1]:>7.2f}"
                f"{sizes[0]:>10.0f}{sizes[1]:>10.0f}{sizes[0] / sizes[1]:>7.2f}"
                f"{run['heap_bytes'] / 2**20:>7.0f}",
                flush=True,
            )

    def mfu(self) -> None:
        """Print the share of the GPU's peak that base reaches, compiled and not."""
        import torch

        if not torch.cuda.is_available():
            print("mfu: there is no GPU here, nothing measured")
            return
        card = torch.cuda.get_device_name()
        peak = next((rate for name, rate in PEAK.items() if name in card), None)
        for compiled in (False, True):
            for batch in (1, 4, 16):
                run = gpu_step(batch, compiled=compiled)
                rate = run["flops"] / run["seconds"]
                share = f"{rate / peak:.1%} of peak" if peak else "peak of this card not known"
                print(
                    f"{card}, base, {GENES:,} genes, bf16, batch {batch}, {run['attention']}"
                    f"{', compiled' if compiled else ''}: {run['seconds']:.3f} s, "
                    f"{rate / 1e12:.0f} TFLOP/s, {share}, {run['bytes'] / 2**30:.1f} GiB "
                    f"(told {run['told_bytes'] / 2**30:.1f} GiB, {run['told_seconds']:.3f} s)",
                    flush=True,
                )
                self.found[f"mfu batch {batch} compiled {compiled}"] = run


def gpu_step(batch: int, *, compiled: bool) -> dict[str, Any]:
    """Time ten steps of base on the GPU."""
    import torch

    from vcell.nn.attention import choose
    from vcell.nn.encoder import Encoder
    from vcell.nn.estimate import estimate
    from vcell.nn.presets import PRESETS

    p, half = PRESETS["base"], torch.bfloat16
    choice = choose("auto", "cuda", half, n_tokens=GENES + 2, head_dim=p.head_dim)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = Encoder(p, choice).cuda()
    if compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(batch, GENES + 2, p.d_model, device="cuda")
    for i in range(13):
        if i == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=half):
            loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / 10
    size = torch.cuda.max_memory_allocated() - before
    del model, optimizer, loss
    told = estimate(p, GENES + 2, batch, device="cuda", dtype=half, attention=choice.name)
    return {
        "attention": choice.name, "seconds": seconds, "bytes": size, "flops": told.flops,
        "told_bytes": told.memory_bytes, "told_seconds": told.step_seconds,
    }  # fmt: skip


def main() -> None:
    """Run the selected measurements."""
    parts = ("naive", "attention", "estimate", "mfu")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-clock", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    bench = Bench(options)
    for part in options.parts or parts:
        if part not in parts:
            parser.error(f"there is no part {part}")
        getattr(bench, part)()
        print()
    if options.json:
        options.json.write_text(json.dumps(bench.found, indent=2) + "\n")


if __name__ == "__main__":
    main()
