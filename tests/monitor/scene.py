"""Folders of runs as trainers leave them, made in a moment and the same every time."""

from __future__ import annotations

import json
import math
import os
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vcell.runs import process

NOON = 1_795_867_200.0  # the moment at which everything is looked at: 2026-11-28 12:00 UTC


def rows(path: Path, events: list[dict[str, Any]]) -> None:
    """Write events as the trainer does, and give the file the time of its last one."""
    path.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in events))
    if events:
        os.utime(path, (events[-1]["t"], events[-1]["t"]))


def make_run(root: Path, name: str, *, began: float, status: str = "running", **more: Any) -> Path:
    """Make a run directory with its run.json."""
    path = root / name
    for folder in ("ckpt", "control", "logs"):
        (path / folder).mkdir(parents=True)
    config = {"max_steps": 1000, "lr": 1e-3, "batch_size": 16, "dropout": 0.1, "seed": 0}
    meta = {
        "schema": 1,
        "command": "train-vcc",
        "created": datetime.fromtimestamp(began, UTC).isoformat(),
        "config": config | more.pop("config", {}),
        "provenance": {"lr": "command line", "max_steps": "vcell.toml", "dropout": "default"},
        "seed": 0,
        "data": [{"name": "cells.h5ad", "sha256": "9f8e7d6c5b4a"}],
        "versions": {"vcell": "0.1", "torch": "2.10"},
        "git": {"commit": "7e784b4deadbeef", "dirty": False},
        "machine": {"host": "n03"},
        "process": {"pid": 3194, "started": "1", "host": "n03", "boot": "x"},
        "status": status,
        "model": "transformer",
        "monitor": "gain",
        "higher_is_better": True,
        "world_size": 1,
        "device": "cuda",
        "precision": "bf16",
        "parameters": 12_400_000,
        "devices": ["NVIDIA H100 80GB HBM3"],
        **more,
    }
    (path / "run.json").write_text(json.dumps(meta))
    return path


def here() -> dict[str, Any]:
    """The process of a run that lives: this one."""
    return process.identity()


def gone() -> dict[str, Any]:
    """The process of a run that was killed on this machine."""
    return process.identity() | {"pid": 2**22 - 1, "started": "0", "host": socket.gethostname()}


def training(
    path: Path,
    steps: int,
    *,
    ended: float,
    pace: float = 0.36,
    final: float = 1.0,
    gain: float = 0.22,
    wait: float = 0.03,
    ranks: int = 1,
    more: Callable[[int], list[dict[str, Any]]] = lambda step: [],
) -> None:
    """Write the events of a training whose last step ended at a given time."""
    rng = random.Random(steps)
    events: list[dict[str, Any]] = []
    spans: list[dict[str, Any]] = []
    best = -math.inf
    for step in range(1, steps + 1):
        t = round(ended - (steps - step) * pace, 3)
        loss = final + 4 / (1 + step / 60) + rng.gauss(0, 0.08) * (1 + 3 / (1 + step / 50))
        events.append(
            {
                "t": t, "kind": "metric", "step": step, "loss": round(loss, 5),
                "mmd": round(0.1 + 1 / (2 + step / 30), 5),
                "lr": round(1e-3 * 0.5 * (1 + math.cos(math.pi * step / 1000)), 8),
                "grad_norm": round(2 + 6 / (1 + step / 40) + rng.random(), 4),
                "examples_per_s": round(16 / pace, 2), "examples": 16 * step,
                "data_wait": wait + 0.01 * rng.random(),
            }
        )  # fmt: skip
        parts = {"data": wait, "h2d": 0.01, "forward": 0.3, "backward": 0.53, "optimiser": 0.05}
        own = {name: round(share * pace, 6) for name, share in parts.items()}
        spans.append({"t": t, "kind": "span", "step": step, "examples": 16, "seconds": pace, **own})
        if step % 50 == 0 or step == steps:
            value = round(gain * (1 - math.exp(-step / 250)) + rng.gauss(0, 0.004), 5)
            is_best, best = value > best, max(best, value)
            events.append(
                {
                    "t": t, "kind": "eval", "step": step, "best": is_best, "gain": value,
                    "pds": round(0.5 + value * 1.7, 5), "mae": round(0.06 - value / 10, 5),
                    "delta_correlation": round(0.3 + value, 5),
                }
            )  # fmt: skip
            if is_best:
                name = f"step-{step:06d}"
                events.append({"t": t, "kind": "ckpt", "step": step, "path": name, "metric": value})
        events += more(step)
    rows(path / "events.jsonl", events)
    for rank in range(ranks):
        rows(path / f"rank-{rank}.jsonl", spans)


def gpu_samples(path: Path, *, ended: float, minutes: float = 12.0) -> None:
    """Add what four GPUs drew: two at their cap, one that waits, one that is slowed by heat."""
    rng = random.Random(4)
    for rank in range(4):
        file = path / f"rank-{rank}.jsonl"
        events = [json.loads(line) for line in file.read_text().splitlines()]
        energy = 0.0
        for i in range(int(minutes * 12)):
            t = ended - minutes * 60 + 5 * (i + 1)
            hot = rank == 3 and i > minutes * 8
            held = ["idle"] if rank == 2 else ["heat (software)"] if hot else ["power cap"]
            watts = (610, 598, 301, 640)[rank] + rng.gauss(0, 12) * (rank != 2) + 30 * (i % 24 < 4)
            energy += 5 * watts
            events.append(
                {
                    "t": t, "kind": "gpu", "watts": round(watts, 1), "cap_watts": 700.0,
                    "enforced_cap_watts": 700.0,
                    "mhz": float((1830, 1815, 1980, 1755)[rank] - 60 * hot),
                    "celsius": float((61, 63, 48, 78 + 6 * hot)[rank]),
                    "memory_bytes": int(71.2 * 2**30), "memory_total_bytes": 80 * 2**30,
                    "throttle": held,
                    "energy_j": round(energy, 1), "utilisation": (98, 97, 99, 98)[rank],
                }
            )  # fmt: skip
        rows(file, sorted(events, key=lambda event: event["t"]))


def processor_samples(path: Path, *, ended: float) -> None:
    """Add what a process on a CPU used: one and a half cores, and a growing memory."""
    file = path / "rank-0.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for i in range(60):
        use = {"cpu_seconds": 7.5 * i, "rss_bytes": 2 * 2**30 + i * 2**24}
        events.append({"t": ended - 300 + 5 * (i + 1), "kind": "cpu", **use})
    rows(file, sorted(events, key=lambda event: event["t"]))


def folder(root: Path) -> Path:
    """Make a folder of runs in every state there is."""
    names = [
        ("20261128-093112-train-vcc-80f1", "running", 0.0),
        ("20261128-093944-train-vcc-c2aa", "running", 0.0),
        ("20261127-180230-train-vcc-77b0", "running", 0.0),
        ("20261127-101500-train-vcc-51d3", "running", 14 * 60.0),
        ("20261127-080000-train-vcc-09ee", "running", 3 * 3600.0),
        ("20261126-230000-train-vcc-4a12", "failed", 4 * 3600.0),
        ("20261126-110000-train-vcc-1f00", "done", 9 * 3600.0),
        ("20261125-160000-train-vcc-ab31", "interrupted", 30 * 3600.0),
    ]
    for name, status, since in names:
        last = name[-4:]
        more: dict[str, Any] = {}
        if last in ("80f1", "c2aa", "77b0"):
            more["process"] = here()
        if last == "09ee":
            more["process"] = gone()
        if last == "80f1":
            more |= {"world_size": 4, "devices": ["NVIDIA H100 80GB HBM3"] * 4}
        if last == "c2aa":
            more["config"] = {"lr": 2e-3, "dropout": 0.1}
        if last == "77b0":
            more["config"] = {"dropout": 0.3, "seed": 1}
        if last == "4a12":
            more["summary"] = {"error": "ZeroDivisionError: float division by zero"}
        if last == "ab31":
            more["summary"] = {"reason": "stopped", "step": 710}
        if last == "1f00":
            more["model"], more["config"] = "gp", {"max_steps": None}
        ended = NOON - since
        path = make_run(root, name, began=ended - 3600, status=status, **more)
        _train(path, last, ended)
        os.utime(path / "run.json", (ended, ended))
    return root


def _train(path: Path, last: str, ended: float) -> None:
    def warned(step: int) -> list[dict[str, Any]]:
        text = "gradients are not finite in encoder.1.ff; the step was skipped"
        t = round(ended - (620 - step) * 0.36, 3)
        return [{"t": t, "kind": "warn", "step": 250, "text": text}] if step == 250 else []

    steps = {
        "80f1": 620,
        "c2aa": 410,
        "77b0": 800,
        "51d3": 170,
        "09ee": 550,
        "4a12": 20,
        "ab31": 710,
    }
    if last not in steps:
        rows(path / "events.jsonl", [{"t": ended, "kind": "end", "status": "done"}])
        return
    wait = 0.31 if last == "c2aa" else 0.03
    gain = {"80f1": 0.24, "c2aa": 0.21, "77b0": 0.235}.get(last, 0.2)
    if last == "80f1":
        training(path, 620, ended=ended, ranks=4, gain=gain, more=warned)
        gpu_samples(path, ended=ended)
        console = [
            "11:40:02  run directory: runs/20261128-093112-train-vcc-80f1",
            "11:58:19  step 600: gain 0.2214 (best 0.2214), pds 0.8894, mae 0.03917",
            "11:58:40  warning: loader: shard 0193 was read twice",
        ]
        lines = "".join(f"2026-11-28 {line}\n" for line in console)
        (path / "logs" / "console.log").write_text(lines)
        failure = {
            "rank": 1, "time": NOON - 1500, "message": "RuntimeError: CUDA: an illegal access",
            "traceback": "Traceback (most recent call last):\n"
            + "".join(f'  File "losses.py", line {i}, in f\n    step({i})\n' for i in range(20))
            + "RuntimeError: CUDA: an illegal access",
        }  # fmt: skip
        (path / "logs" / "error-1-rank-1.json").write_text(json.dumps(failure))
        return
    training(path, steps[last], ended=ended, gain=gain, wait=wait, final=1.1)
    if last == "c2aa":
        processor_samples(path, ended=ended)
    if last == "77b0":
        with (path / "events.jsonl").open("a") as stream:
            pause = {"t": ended, "kind": "phase", "step": 800, "name": "paused"}
            stream.write(json.dumps(pause) + "\n")
