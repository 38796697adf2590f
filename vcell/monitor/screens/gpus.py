"""The GPUs of a run: power, clocks, heat, memory, what holds them back, and what that means."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from vcell.monitor import words
from vcell.monitor.chart import Frame, Point, Trace, chart
from vcell.monitor.gpus import Gpu, gpus, readings
from vcell.monitor.lines import Line, bar, beside, rule, wrap
from vcell.monitor.screens.compare import letter
from vcell.monitor.summary import buckets

if TYPE_CHECKING:
    from vcell.monitor.view import View
    from vcell.monitor.watch import Watched
    from vcell.runs import EventTable

HINTS = (("g", "GPU"), ("x", "time window"), ("u", "power or busy"), ("Esc", "back"))
_ASCII = "*o+x#%@"


def body(view: View, width: int, height: int) -> list[Line]:
    """Draw the table, two charts over time, and sentences that read them."""
    one = view.one
    if one is None:
        return [[(" no run is selected", "dim")]]
    found = gpus(one.history, one.meta, view.clock())
    if not found:
        return _processes(view, one, width, height)
    wide = width >= 100
    block = [*_head(one, found, width), *_table(view, found, width, wide=wide)]
    told = readings(found, one.history)
    rest: list[Line] = [rule([("reading", "title")], width, "-" if view.plain else "─")]
    rest += [[(f" {line}", style)] for text, style in told for line in wrap(text, width - 2)]
    rows = max(6, min(18, height - len(block) - len(rest)))
    tables = one.history.devices()
    power = "utilisation" if view.busy_chart else "watts"
    title = "busy (%)" if view.busy_chart else "power (W)"
    if wide:
        half = (width - 2) // 2
        left = _chart(view, tables, power, title, (half, rows))
        right = _chart(view, tables, "mhz", "SM clock (MHz)", (width - 2 - half, rows))
        block += beside(left, right, half)
    else:
        block += _chart(view, tables, power, title, (width, rows))
    return [*block, *rest]


def _head(one: Watched, found: list[Gpu], width: int) -> list[Line]:
    host = one.meta.get("process", {}).get("host") or one.meta.get("machine", {}).get("host", "")
    age = words.ago(max(0.0, min(gpu.age for gpu in found)))
    old = f"{age} old" if age != "now" else "of now"
    text = f" {host}, from the run's own samples, {old}"
    return [[(words.cut(words.clean(text), width), "dim")]]


def _table(view: View, found: list[Gpu], width: int, *, wide: bool) -> list[Line]:
    mark = "-" if view.plain else "─"
    name, columns, memory = (20, 11, 13) if wide else (0, 3, 10)
    power = "power / enforced cap" if wide else "power / cap"
    head = f" {'':2}{'#':>2}  {'name' if wide else '':<{name}}{power:<{15 + columns}}"
    head += f"{'MHz':>5}{'°C':>5}{'memory GB' if wide else 'GB':>{memory}}{'busy':>6}  held back by"
    block: list[Line] = [[(head, "dim")], rule([], width, mark)]
    for i, gpu in enumerate(found):
        colour = f"c{i % 7}"
        cap = gpu.enforced or gpu.cap
        power = f"{_whole(gpu.watts)} / {_whole(cap)} W"
        line: Line = [(f" {letter(i)} ", colour), (f"{gpu.rank:>2}  ", "")]
        if wide:
            line.append((f"{words.cut(gpu.name, name - 1):<{name}}", ""))
        line.append((f"{power:<13}", "bold"))
        share = (gpu.watts or 0.0) / cap if cap else 0.0
        line.append((f"{bar(share, columns, plain=view.plain)}  ", colour))
        line.append((f"{_whole(gpu.mhz):>5}", ""))
        hot = gpu.celsius is not None and gpu.celsius >= 83
        line.append((f"{_whole(gpu.celsius):>5}", "bad" if hot else ""))
        used = "–" if gpu.memory is None else words.size(gpu.memory)
        total = "" if gpu.memory_total is None else f"/{gpu.memory_total / 1e9:.0f}"
        line.append((f"{used + total:>{memory}}", ""))
        line.append((f"{words.percent(gpu.busy):>6}  ", ""))
        line.append((gpu.held_back, "bad" if gpu.is_slowed else "dim"))
        block.append(line)
    return block


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _chart(
    view: View, tables: dict[int, EventTable], name: str, title: str, size: tuple[int, int]
) -> list[Line]:
    """Draw one value of all GPUs, or of the chosen one, over the last minutes."""
    from vcell.monitor.view import WINDOWS

    width, rows = size
    window = WINDOWS[view.window]
    now = view.clock()
    chosen = view.gpu % (len(tables) + 1) if view.gpu >= 0 else len(tables)
    traces, caps = [], set()
    for i, (rank, table) in enumerate(tables.items()):
        if chosen not in (i, len(tables)):
            continue
        first = bisect_left(table.times, now - window) if window else 0
        if name not in table.columns or first >= len(table):
            first = max(0, len(table) - 2) if name in table.columns else len(table)
        found = buckets(table.columns.get(name, ()), first, len(table), 400)
        middles = [(table.times[(b.first + b.last) // 2], b) for b in found]
        points = [Point(t - now, b.mean, b.low, b.high) for t, b in middles]
        traces.append(Trace(points, i % 7, _ASCII[i % 7] if view.plain else letter(i), band=False))
        if name == "watts":
            for cap in ("enforced_cap_watts", "cap_watts"):
                value = table.row().get(cap)
                if isinstance(value, float) and math.isfinite(value):
                    caps.add(value)
                    break
        del rank
    span = {600.0: "last 10 min", 3600.0: "last hour", 0.0: "the whole run"}[window]
    note = f"  {span}{', dashed: cap' if caps else ''}"
    begins = min((t.points[0].x for t in traces if t.points), default=-window)
    frame = Frame(
        width,
        rows - 1,
        y_low=0.0 if name in ("watts", "utilisation") else None,
        guides=sorted(caps),
        plain=view.plain,
        names=len(traces) > 1,
        ends=(f"{words.duration(-begins)} ago", "now"),
        empty="not recorded",
    )
    line = rule([(title, "title"), (note, "dim")], width, "-" if view.plain else "─")
    return [line, *chart(traces, frame)]


def _processes(view: View, one: Watched, width: int, height: int) -> list[Line]:
    """Draw a run without GPUs: processor and memory of its processes, where they were sampled."""
    tables = one.history.processes()
    device = one.meta.get("device") or "device unknown"
    block: list[Line] = [[(f" {one.overview.short} runs without a GPU ({device})", "bold")]]
    devices = one.meta.get("devices")
    if isinstance(devices, list) and devices:
        block.append([(f" {words.cut(words.clean(str(devices[0])), width - 2)}", "dim")])
    if not tables:
        return [*block, [(" its processes took no samples of themselves", "dim")]]
    mark = "-" if view.plain else "─"
    block += [
        [(f"    {'rank':<6}{'cores busy':>12}{'memory GB':>12}", "dim")],
        rule([], width, mark),
    ]
    for i, (rank, table) in enumerate(tables.items()):
        cores, memory = _cores(table), table.row().get("memory_bytes")
        used = "–" if not isinstance(memory, float) else words.size(memory)
        line = [(f" {letter(i)} ", f"c{i % 7}"), (f" {rank:<6}", "")]
        block.append([*line, (f"{words.number(cores, 3):>12}{used:>12}", "")])
    name = "memory_bytes"
    rows = max(7, min(14, height - len(block) - 2))
    return [*block, [], *_chart(view, tables, name, "memory (bytes)", (width, rows))]


def _cores(table: EventTable) -> float | None:
    """Return how many cores a process kept busy between its last samples."""
    name = next(
        (n for n in ("process_seconds", "cpu_seconds", "seconds") if n in table.columns), ""
    )
    if not name or len(table) < 2:
        return None
    column, rows = table.columns[name], min(12, len(table))
    elapsed = table.times[-1] - table.times[-rows]
    return (column[-1] - column[-rows]) / elapsed if elapsed > 0 else None
