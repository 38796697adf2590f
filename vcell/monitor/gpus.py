"""GPUs from the samples that a run takes, and sentences that explain them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcell.monitor import words
from vcell.runs.table import energy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcell.runs import EventTable, History

WINDOWS = (600.0, 3600.0, 0.0)  # seconds shown in the charts; 0 is the whole run
_RECENT = 60.0  # seconds over which power and clocks are averaged
_HOT = 83.0  # degrees at which data-centre cards begin to slow down
_SILENT = 30.0  # seconds after which a sample is old
#: What slows a GPU, by a part of the text of `vcell.gpu.reading`; problems in capitals.
_NAMES = {
    "heat": "HEAT", "brake": "POWER BRAKE", "slowdown": "HARDWARE SLOWDOWN",
    "power cap": "power cap", "sync": "sync boost", "locked": "locked clocks",
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One process's GPU now; None is what was not recorded."""

    rank: int
    name: str
    age: float  # seconds since the sample
    watts: float | None
    mean_watts: float | None  # over the last minute
    cap: float | None
    enforced: float | None
    mhz: float | None
    celsius: float | None
    memory: float | None
    memory_total: float | None
    busy: float | None  # 0 to 1
    held_back: str  # by what, or ""
    since: float | None  # when this began
    joules: float | None  # since the first sample

    @property
    def is_slowed(self) -> bool:
        """Whether something other than its power cap slows it down."""
        return self.held_back.isupper() and bool(self.held_back)


def gpus(history: History, meta: Mapping[str, Any], now: float) -> list[Gpu]:
    """Return the GPUs of a run, by rank."""
    names = meta.get("devices")
    names = names if isinstance(names, list) else []
    found = []
    for rank, table in history.devices().items():
        last = table.row()
        recorded = last.get("name") or (names[rank] if rank < len(names) else "GPU")
        found.append(_gpu(rank, _short(str(recorded)), table, now))
    return found


def _gpu(rank: int, name: str, table: EventTable, now: float) -> Gpu:
    last = table.row()

    def value(*keys: str) -> float | None:
        return next((last[k] for k in keys if isinstance(last.get(k), float)), None)

    watts = [v for v in _recent(table, "watts", table.times[-1] - _RECENT) if math.isfinite(v)]
    busy = value("utilisation")  # percent
    held, since = _held_back(table)
    return Gpu(
        rank=rank,
        name=name,
        age=now - table.times[-1],
        watts=value("watts"),
        mean_watts=sum(watts) / len(watts) if watts else None,
        cap=value("cap_watts"),
        enforced=value("enforced_cap_watts"),
        mhz=value("mhz"),
        celsius=value("celsius"),
        memory=value("memory_bytes"),
        memory_total=value("memory_total_bytes"),
        busy=None if busy is None else busy / 100,
        held_back=held,
        since=since,
        joules=energy(table),
    )


def _recent(table: EventTable, name: str, since: float) -> list[float]:
    column = table.columns.get(name)
    if column is None:
        return []
    return [v for t, v in zip(table.times, column, strict=True) if t >= since]


def _held_back(table: EventTable) -> tuple[str, float | None]:
    """Return what slows the GPU now, and since when."""
    column = table.columns.get("throttle")
    if column is None:
        return "", None
    known = table.words.get("throttle", [])

    def reason(value: float) -> str:
        return "" if math.isnan(value) or not known else _by_words(known[int(value)])

    now, since = reason(column[-1]), None
    if now:
        for i in range(len(column) - 1, -1, -1):
            if reason(column[i]) != now:
                break
            since = table.times[i]
    return now, since


def _by_words(text: str) -> str:
    found = [name for word, name in _NAMES.items() if word in text]
    return next((name for name in found if name.isupper()), found[0] if found else "")


def _short(name: str) -> str:
    return words.clean(name.removeprefix("NVIDIA "))


def readings(found: list[Gpu], history: History) -> list[tuple[str, str]]:
    """Return sentences about the GPUs, each with a style; the worst first."""
    lines = [sentence for gpu in found if (sentence := _reads(gpu)) is not None]
    if capped := [gpu for gpu in found if gpu.held_back == "power cap"]:
        lines.append((_capped(capped), ""))
    if any(gpu.is_slowed for gpu in found) and len(found) > 1:
        lines.append(
            ("Every step waits for the slowest GPU: what slows one slows the run.", "warn")
        )
    lines.sort(key=lambda sentence: {"bad": 0, "warn": 1}.get(sentence[1], 2))
    return lines + _cost(found, history)


def _capped(found: list[Gpu]) -> str:
    """Describe the GPUs that are limited only by their power cap."""
    means = [gpu.mean_watts for gpu in found if gpu.mean_watts is not None]
    many = len(found) > 1
    names = ", ".join(str(gpu.rank) for gpu in found)
    draws = f" ({sum(means) / len(means):.0f} W{' on average' if many else ''})" if means else ""
    who = f"GPUs {names} are" if many else f"GPU {names} is"
    return f"{who} held back by the power cap{draws}: computing as fast as that lets them."


def _reads(gpu: Gpu) -> tuple[str, str] | None:
    who = f"GPU {gpu.rank}"
    if gpu.age > _SILENT:
        return f"{who}: the last sample is {words.ago(gpu.age)} old.", "warn"
    since = f" since {words.clock(gpu.since)}" if gpu.since else ""
    heat = f"is at {gpu.celsius:.0f} °C and " if gpu.celsius is not None else "is "
    if gpu.held_back == "HEAT":
        return f"{who} {heat}slowed by heat{since}: look at its cooling.", "bad"
    if gpu.is_slowed:
        return f"{who} is slowed by {gpu.held_back.lower()}{since}: look at its supply.", "bad"
    cap = gpu.enforced or gpu.cap
    if gpu.mean_watts is None or not cap:
        return None
    used = gpu.mean_watts / cap
    draws = f"{who} draws {gpu.mean_watts:.0f} W of {cap:.0f} W"
    if gpu.cap and gpu.enforced and gpu.enforced < 0.98 * gpu.cap:
        capped = f"{who} is capped at {gpu.enforced:.0f} W although {gpu.cap:.0f} W were requested"
        return f"{capped}: something else limits it.", "warn"
    if gpu.held_back == "power cap":
        return None  # reported together
    if gpu.busy is not None and gpu.busy >= 0.9 and used < 0.6:
        waits = f"{draws} at {words.percent(gpu.busy)} busy: it waits for memory or data"
        return f"{waits}; a different power cap would change nothing.", ""
    if gpu.busy is not None and gpu.busy < 0.6:
        return f"{draws} and is busy {words.percent(gpu.busy)} of the time: it is not fed.", "warn"
    if gpu.celsius is not None and gpu.celsius >= _HOT:
        return f"{draws} at {gpu.celsius:.0f} °C: it will slow down soon.", "warn"
    return None


def _cost(found: list[Gpu], history: History) -> list[tuple[str, str]]:
    joules = [gpu.joules for gpu in found if gpu.joules is not None]
    if not joules:
        return [("Energy: not recorded.", "dim")]
    parts = [f"{sum(joules) / 3.6e6:.3g} kWh so far"]
    examples = history.series("examples").last
    if examples:
        parts.append(f"{words.number(sum(joules) / examples, 3)} J per example")
    means = [gpu.mean_watts for gpu in found if gpu.mean_watts is not None]
    if means:
        parts.append(f"mean {sum(means) / len(means):.0f} W a GPU in the last minute")
    return [(", ".join(parts) + ".", "")]
