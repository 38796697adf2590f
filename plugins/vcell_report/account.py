"""The facts of one run for a report; whatever it did not record is None."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vcell import console
from vcell.runs import Run
from vcell.runs.history import History

JOULES_PER_KWH = 3.6e6
_INPUT_BOUND = 0.2  # share of a step spent waiting, above which reading is the bottleneck
_PARTS = {
    "data": "waiting for data", "h2d": "copying to the device", "forward": "forward",
    "backward": "backward", "optimiser": "optimiser", "reduce": "between processes",
    "other": "everything else",
}  # fmt: skip
_TONES = {"beats": "good", "worse": "bad"}


@dataclass(frozen=True)
class Account:
    """One run and its measurements."""

    run: Run
    history: History

    @classmethod
    def of(cls, run: Run) -> Account:
        """Read a run's events."""
        return cls(run, run.history(recent_spans=True))

    @property
    def meta(self) -> dict[str, Any]:
        """The contents of run.json."""
        return self.run.meta

    @cached_property
    def status(self) -> str:
        """The status of the run."""
        return self.run.status()

    @property
    def monitor(self) -> str | None:
        """The metric that chooses the best step."""
        found = self.meta.get("monitor")
        return found if isinstance(found, str) else None

    @cached_property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best validation."""
        found = self.history.best(self.monitor) if self.monitor else None
        return (found.step, found.value) if found else None

    @property
    def summary(self) -> dict[str, Any]:
        """The summary recorded by the command."""
        found = self.meta.get("summary")
        return found if isinstance(found, dict) else {}

    # -- the verdict ---------------------------------------------------------------------------

    def verdict(self) -> tuple[str, str]:
        """Return the verdict of the run, and whether it is good, bad or neither."""
        given = self.summary.get("verdict")
        if isinstance(given, dict) and isinstance(given.get("text"), str):
            return given["text"], _TONES.get(str(given.get("claim")), "plain")
        if isinstance(given, str):
            return given, "plain"
        if self.status in ("failed", "crashed"):
            return f"the run {self.status} at step {self.history.step or 0:,}", "bad"
        if self.best is not None:
            at = f"best {self.monitor} {self.best[1]:.4g} at step {self.best[0]:,}"
            return f"{at}; no comparison with a baseline was recorded", "plain"
        return f"{self.status}; nothing was scored", "plain"

    def differences(self) -> list[tuple[Any, ...]]:
        """Return the paired differences to each baseline behind the verdict."""
        given = self.summary.get("verdict")
        over = given.get("over") if isinstance(given, dict) else None
        if not isinstance(over, dict):
            return []
        return [
            (name, one.get("mean", one.get("value")), *(one.get(k) for k in ("low", "high", "n")))
            for name, one in over.items()  # "value" is of scores that are no mean, such as the AUC
        ]

    # -- speed and cost ------------------------------------------------------------------------

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of training, without pauses and interruptions."""
        latest = self.history.latest
        return self.history.seconds([latest])[0] if latest else None

    @cached_property
    def spans(self) -> dict[str, float]:
        """Mean seconds of the parts of a step by description, largest first."""
        found = dict(self.history.spans())
        found.pop("total", None)
        parts = {_PARTS.get(name, name): value for name, value in found.items()}
        return dict(sorted(parts.items(), key=lambda part: -part[1]))

    def bottleneck(self) -> str | None:
        """Describe the bottleneck of a step in one sentence."""
        total = sum(self.spans.values())
        if not total:
            return None
        shares = {name: value / total for name, value in self.spans.items()}
        shown = [f"{share:.0%} {name}" for name, share in shares.items() if share >= 0.01]
        waiting = shares.get(_PARTS["data"], 0.0)
        bound = "input-bound" if waiting > _INPUT_BOUND else "not input-bound"
        return f"{', '.join(shown[:4])}: {bound}."

    def speed(self) -> dict[str, Any]:
        """Return the time of a step and of the whole training."""
        rate = self.history.rate()
        examples = _median(self.history.series("examples_per_s").values)
        return {
            "steps": self.history.step,
            "training time": None if self.seconds is None else console.duration(self.seconds),
            "seconds a step": rate,
            "examples a second": examples,
            "waiting for data": _percent(_median(self.history.series("data_wait").values)),
        }

    def cost(self) -> dict[str, Any]:
        """Return energy, processor time and memory, or that they were not recorded."""
        joules = self.energy
        examples = _total(self.history.series("examples").values)
        per_example = joules / examples if joules and examples else None
        processors = self.history.processes()
        cpu = [
            table.columns["cpu_seconds"]
            for table in processors.values()
            if "cpu_seconds" in table.columns
        ]
        rss = [
            max(table.columns["rss_bytes"])
            for table in processors.values()
            if "rss_bytes" in table.columns and len(table)
        ]
        cpu_seconds = sum(max(column) for column in cpu if len(column)) if cpu else None
        return {
            "energy of the GPUs": None if joules is None else f"{joules / JOULES_PER_KWH:.3g} kWh",
            "energy an example": None if per_example is None else f"{per_example:.3g} J",
            "processor time": None if cpu_seconds is None else console.duration(cpu_seconds),
            "memory of the processes": console.bytes_text(round(sum(rss))) if rss else None,
        }

    @cached_property
    def energy(self) -> float | None:
        """Energy used by the GPUs in joules, without interruptions."""
        return self.history.energy()

    # -- settings, data, surroundings ----------------------------------------------------------

    def settings(self) -> list[tuple[str, str, str]]:
        """Return the name, value and origin of every setting; those set by the user first."""
        origins: Mapping[str, str] = self.meta.get("provenance", {})
        rows = [
            (key, brief(value), origins.get(key, ""))
            for key, value in (self.meta.get("config") or {}).items()
        ]
        return sorted(rows, key=lambda row: row[2] in ("default", ""))

    def data(self) -> list[tuple[Any, ...]]:
        """Return the files read: path, cells, genes, bytes."""
        files = [one for one in self.meta.get("data") or [] if isinstance(one, dict)]
        return [
            tuple(one.get(key) for key in ("path", "n_cells", "n_genes", "bytes")) for one in files
        ]

    def surroundings(self) -> dict[str, Any]:
        """Return the machine, the devices and the versions of the software."""
        machine = self.meta.get("machine") or {}
        git = self.meta.get("git") or {}
        return {
            "command": " ".join(map(str, self.meta.get("argv") or [])) or None,
            "created": self.meta.get("created"),
            "machine": machine.get("host"),
            "devices": ", ".join(self.meta.get("devices") or []) or self.meta.get("device"),
            "processes": self.meta.get("world_size"),
            "parameters": self.meta.get("parameters"),
            "precision": self.meta.get("precision"),
            "seed": self.meta.get("seed"),
            "git": git.get("commit") if isinstance(git, dict) else git,
            **(self.meta.get("versions") or {}),
        }

    def warnings(self) -> list[str]:
        """Return the warnings, each once, with the step of its first occurrence."""
        found: dict[str, int | None] = {}
        for event in self.history.notes("warn"):
            found.setdefault(str(event.get("text")), event.get("step"))
        return [text if step is None else f"step {step:,}: {text}" for text, step in found.items()]

    def plain(self) -> dict[str, Any]:
        """Return everything for JSON."""
        verdict, tone = self.verdict()
        return {
            "run": self.run.name,
            "path": str(self.run.path),
            "command": self.meta.get("command"),
            "status": self.status,
            "verdict": verdict,
            "tone": tone,
            "monitor": self.monitor,
            "best": None if self.best is None else {"step": self.best[0], "value": self.best[1]},
            "metrics": self.history.last() | self.history.last("eval"),
            "speed": self.speed(),
            "spans": self.spans,
            "cost": self.cost(),
            "energy_joules": self.energy,
            "settings": self.meta.get("config") or {},
            "data": self.meta.get("data") or [],
            "surroundings": self.surroundings(),
            "warnings": self.warnings(),
            "summary": self.summary,
            "parts": [part.name for part in self.run.parts()],
        }


def short(accounts: Sequence[Account]) -> list[str]:
    """Return the shortest prefix of each run's name, cut at a hyphen, that is unique."""
    names = [account.run.name for account in accounts]
    return [_beginning(name, [*names[:i], *names[i + 1 :]]) for i, name in enumerate(names)]


def _beginning(name: str, others: Sequence[str]) -> str:
    ends = [match.start() for match in re.finditer("-", name)]
    for end in ends:
        prefix = name[:end]  # a date alone may be unique, but does not identify a run to people
        if not prefix.isdigit() and not any(other.startswith(prefix) for other in others):
            return prefix
    return name


def brief(value: Any, most: int = 80) -> str:
    """Write a setting in one line."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"  # as in vcell.toml
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _median(values: Any) -> float | None:
    known = sorted(value for value in values if not math.isnan(value))
    return known[len(known) // 2] if known else None


def _total(values: Any) -> float | None:
    """Return the total of a cumulative counter."""
    return max((value for value in values if not math.isnan(value)), default=None)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
