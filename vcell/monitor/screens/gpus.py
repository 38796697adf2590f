"""The GPUs of a run: power, clocks, temperature, memory, what slows them, and explanations."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from vcell.monitor import words
from vcell.monitor.chart import ChartFrame, Point, Trace, chart
from vcell.monitor.gpus import WINDOWS, Gpu, gpus, readings
from vcell.monitor.lines import Line, bar, rule, side_by_side, wrap
from vcell.monitor.screens.compare import letter
from vcell.monitor.summary import buckets

if TYPE_CHECKING:
    from vcell.monitor.view import Viewer
    from vcell.monitor.watch import Watched
    from vcell.runs import EventTable

HINTS = (("g", "GPU"), ("x", "time window"), ("u", "power or busy"), ("Esc", "back"))
_ASCII = "*o+x#%@"
_ENDED = 60.0  # after so many seconds without a sample the run counts as ended here


def body(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw the table, two charts over time, and explanations."""
    one = view.one
    if one is None:
        return [[(" no run is selected", "dim")]]
    found = gpus(one.history, one.meta, view.clock())
    if not found:
        return _processes(view, one, width, height)
    wide = width >= 100
    block = [*_head(one, found, width), *_table(view, found, width, wide=wide)]
    sentences = readings(found, one.history)
    rest: list[Line] = [rule([("reading", "title")], width, "-" if view.plain else "─")]
    rest += [[(f" {line}", style)] for text, style in sentences for line in wrap(text, width - 2)]
    rows = max(6, min(18, height - len(block) - len(rest)))
    tables = one.history.devices()
    power = ("utilisation", "busy (%)", 1.0) if view.busy_chart else ("watts", "power (W)", 1.0)
    if wide:
        half = (width - 2) // 2
        left = _chart(view, tables, power, (half, rows))
        right = _chart(view, tables, ("mhz", "SM clock (MHz)", 1.0), (width - 2 - half, rows))
        block += side_by_side(left, right, half)
    else:
        block += _chart(view, tables, power, (width, rows))
    return [*block, *rest]


def _head(one: Watched, found: list[Gpu], width: int) -> list[Line]:
    host = one.meta.get("process", {}).get("host") or one.meta.get("machine", {}).get("host", "")
    age = words.ago(max(0.0, min(gpu.age for gpu in found)))
    old = f"{age} old" if age != "now" else "of now"
    text = f" {host}, from the run's own samples, {old}"
    return [[(words.cut(words.clean(text), width), "dim")]]


def _table(view: Viewer, found: list[Gpu], width: int, *, wide: bool) -> list[Line]:
    mark = "-" if view.plain else "─"
    name, columns, memory = (20, 11, 13) if wide else (0, 3, 10)
    power = "power / enforced cap" if wide else "power / cap"
    head = f" {'':2}{'#':>2}  {'name' if wide else '':<{name}}{power:<{15 + columns}}"
    head += (
        f"{'MHz':>5}{'°C':>5}{'memory GiB' if wide else 'GiB':>{memory}}{'busy':>6}  held back by"
    )
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
        total = "" if gpu.memory_total is None else f"/{gpu.memory_total / (1 << 30):.0f}"
        line.append((f"{used + total:>{memory}}", ""))
        line.append((f"{words.percent(gpu.busy):>6}  ", ""))
        line.append((gpu.held_back, "bad" if gpu.is_slowed else "dim"))
        block.append(line)
    return block


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _chart(
    view: Viewer,
    tables: dict[int, EventTable],
    value: tuple[str, str, float],
    size: tuple[int, int],
) -> list[Line]:
    """Draw one value of all processes, or of the selected one, over the last minutes.

    `value` is the name of its column, a title and the size of its unit.
    """
    (name, title, unit), (width, rows) = value, size
    window = WINDOWS[view.window]
    latest = max(table.times[-1] for table in tables.values())
    now = view.clock()
    end = now if now - latest < _ENDED else latest
    chosen = view.gpu % (len(tables) + 1) if view.gpu >= 0 else len(tables)
    traces = [
        Trace(
            _points(table, name, unit, (end - window if window else 0.0, end)),
            i % 7,
            _ASCII[i % 7] if view.plain else letter(i),
            band=False,
        )
        for i, table in enumerate(tables.values())
        if chosen in (i, len(tables))
    ]
    caps = _caps(tables) if name == "watts" else []
    span = {600.0: "last 10 min", 3600.0: "last hour", 0.0: "the whole run"}[window]
    note = f"  {span}{', dashed: cap' if caps else ''}"
    begins = min((trace.points[0].x for trace in traces if trace.points), default=-window)
    since = now - end
    frame = ChartFrame(
        width,
        rows - 1,
        y_low=None if name == "mhz" else 0.0,
        guides=caps,
        plain=view.plain,
        names=len(traces) > 1,
        ends=(
            f"{words.duration(since - begins)} ago",
            f"{words.duration(since)} ago" if since else "now",
        ),
        empty="not recorded",
    )
    line = rule([(title, "title"), (note, "dim")], width, "-" if view.plain else "─")
    return [line, *chart(traces, frame)]


def _points(table: EventTable, name: str, unit: float, window: tuple[float, float]) -> list[Point]:
    """Return the values of a column in a time window, by seconds before its end."""
    if name not in table.columns:
        return []
    first = bisect_left(table.times, window[0])
    found = buckets(table.columns[name], first, len(table), 400)
    times = [table.times[(one.first + one.last) // 2] - window[1] for one in found]
    return [
        Point(t, one.mean / unit, one.low / unit, one.high / unit)
        for t, one in zip(times, found, strict=True)
    ]


def _caps(tables: dict[int, EventTable]) -> list[float]:
    """Return the distinct current power caps."""
    last = [table.row() for table in tables.values()]
    found = {one.get("enforced_cap_watts", one.get("cap_watts")) for one in last}
    return sorted(cap for cap in found if isinstance(cap, float))


def _processes(view: Viewer, one: Watched, width: int, height: int) -> list[Line]:
    """Draw a run without GPUs: processor and memory of its processes, if they were sampled."""
    tables = one.history.processes()
    device = f" ({one.meta['device']})" if one.meta.get("device") else ""
    block: list[Line] = [[(f" {one.overview.short} runs without a GPU{device}", "bold")]]
    devices = one.meta.get("devices")
    if isinstance(devices, list) and devices:
        block.append([(f" {words.cut(words.clean(str(devices[0])), width - 2)}", "dim")])
    if not tables:
        return [*block, [(" its processes recorded no samples", "dim")]]
    mark = "-" if view.plain else "─"
    block += [
        [(f"    {'rank':<6}{'cores busy':>12}{'memory GiB':>12}", "dim")],
        rule([], width, mark),
    ]
    for i, (rank, table) in enumerate(tables.items()):
        cores, memory = _cores(table), table.row().get("rss_bytes")
        used = "–" if not isinstance(memory, float) else words.size(memory)
        line = [(f" {letter(i)} ", f"c{i % 7}"), (f" {rank:<6}", "")]
        block.append([*line, (f"{words.number(cores, 3):>12}{used:>12}", "")])
    resident = ("rss_bytes", "memory (GiB)", float(1 << 30))
    rows = max(7, min(14, height - len(block) - 2))
    return [*block, [], *_chart(view, tables, resident, (width, rows))]


def _cores(table: EventTable) -> float | None:
    """Return the number of cores that a process used between its last samples."""
    column, rows = table.columns.get("cpu_seconds"), min(12, len(table))
    if column is None or rows < 2:
        return None
    elapsed = table.times[-1] - table.times[-rows]
    used = column[-1] - column[-rows]
    return used / elapsed if elapsed > 0 and used >= 0 else None  # negative after a restart
