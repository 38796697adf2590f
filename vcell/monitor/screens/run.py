"""One run: its curves, the time of a step, latest and best validation, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcell.monitor import words
from vcell.monitor.lines import Line, bar, rule, side_by_side, spread, stretch
from vcell.monitor.screens.parts import run_chart, state
from vcell.monitor.settings import brief

if TYPE_CHECKING:
    from vcell.monitor.view import Viewer
    from vcell.monitor.watch import Watched

HINTS = (
    ("Tab", "chart"), ("m", "metric"), ("s", "smooth"), ("y", "log"), ("x", "axis"),
    ("←→", "cursor"), ("+-0", "zoom"), ("z", "large"), ("d", "settings"), ("c", "checkpoint"),
    ("p", "pause"), ("S", "stop"),
)  # fmt: skip
_PARTS = ("data", "h2d", "forward", "backward", "optimiser")
_NAMES = {"h2d": "copy to GPU", "data": "wait for data"}


def body(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw everything about the selected run."""
    one = view.one
    if one is None:
        return [[(" no run is selected", "dim")]]
    wide = width >= 100 and height >= 30
    head = _head(view, one, width, wide=wide)
    foot = _events(view, one, width, 3 if wide else 1)
    if view.looks.large:
        rows = height - len(head) - len(foot)
        focus = view.looks.focus
        chart = run_chart(view, one, view.curve(focus, one), (width, rows), focused=True)
        return [*head, *chart, *foot]
    tables = _tables(view, one, width, wide=wide)
    rows = max(6, height - len(head) - len(foot) - len(tables))
    charts = _charts(view, one, width, rows, 2 if wide else 1)
    return [*head, *stretch(charts, rows), *tables, *foot]


def _charts(view: Viewer, one: Watched, width: int, rows: int, lines: int) -> list[Line]:
    half = (width - 2) // 2
    focus = view.looks.focus
    first = 0 if lines == 2 or focus < 2 else 2  # on a small screen, the pair with the focus
    block: list[Line] = []
    for i in range(lines):
        height = rows // lines + (1 if i < rows % lines else 0)
        pair = [
            run_chart(
                view,
                one,
                view.curve(at, one),
                (half if at % 2 == 0 else width - 2 - half, height),
                focused=at == focus,
            )
            for at in (first + 2 * i, first + 2 * i + 1)
        ]
        block += side_by_side(pair[0], pair[1], half)
    return block


def _head(view: Viewer, one: Watched, width: int, *, wide: bool) -> list[Line]:
    run, meta = one.overview, one.meta
    owner = meta.get("process", {})
    where = f" on {owner.get('host')}" if run.is_live and owner.get("host") else ""
    pid = f", process {owner.get('pid')}" if wide and run.is_live and owner.get("pid") else ""
    text, style = state(run.status)
    name = one.name if wide else run.short
    about = _about(meta, run.model, wide=wide)
    first: Line = [(f" {name}  ", "title"), (text, style), (f"{where}{pid}", "dim")]
    lines: list[Line] = [first, [(f" {about}", "dim")]]
    if not wide:
        lines = [spread(first, [(about + " ", "dim")], width)]
    lines.append(_progress(view, one, width, wide=wide))
    if run.reason:
        lines.append([(f" {words.clean(run.reason)}", style or "warn")])
    return lines


def _about(meta: dict[str, Any], model: str, *, wide: bool) -> str:
    devices = meta.get("devices") or []
    parts = [words.clean(model)]
    if isinstance(devices, list) and devices and wide:
        names = [str(device).split(",")[0] for device in devices]
        parts.append(words.cut(brief(names).removeprefix("NVIDIA "), 34))
    elif meta.get("world_size"):
        parts.append(f"{meta['world_size']} × {meta.get('device', '')}")
    if meta.get("precision"):
        parts.append(str(meta["precision"]))
    if wide and isinstance(meta.get("parameters"), int):
        parts.append(f"{words.count(meta['parameters'])} parameters")
    if wide:
        parts.append(f"seed {meta.get('seed')}")
    return ", ".join(parts)


def _progress(view: Viewer, one: Watched, width: int, *, wide: bool) -> Line:
    run = one.overview
    line: Line = [(" ", "")]
    if run.step is not None:
        of = f" of {run.max_steps:,}" if run.max_steps else ""
        line.append((f"step {run.step:,}{of}  " if wide else f"{run.step:,}{of} ", "bold"))
    if run.parts is not None:
        done, most = run.parts
        line.append((f"{done}{f' of {most}' if most else ''} runs done  ", "bold"))
    if run.share is not None:
        columns = 20 if wide else 10
        line.append((bar(run.share, columns, plain=view.plain), "c1"))
        line.append((f" {words.percent(run.share)}  ", ""))
    if run.seconds_a_step:
        line.append((f"{words.each_step(run.seconds_a_step)}  ", ""))
    if wide and run.examples_per_s:
        line.append((f"{words.number(run.examples_per_s, 3)} ex/s  ", ""))
    if run.eta_s is not None:
        ends = f" ({words.clock(view.clock() + run.eta_s)[:5]})" if wide else ""
        line.append((f"{words.duration(run.eta_s)} left{ends}  ", "bold"))
    elif run.took_s and not run.is_live:
        line.append((f"took {words.duration(run.took_s)}  ", ""))
    if run.best is not None:
        at = f" at {run.best_step:,}" if run.best_step is not None else ""
        line.append((f"{run.monitor or 'best'} {words.number(run.best)}{at}", "c2"))
    if one.loading is not None and width >= 100:
        line.append((f"  reading {words.percent(one.loading)}", "dim"))
    return line


# -- tables ------------------------------------------------------------------------------------


def _tables(view: Viewer, one: Watched, width: int, *, wide: bool) -> list[Line]:
    half = (width - 2) // 2
    if wide:
        left, right = _spans(view, one, half), _validation(view, one, width - 2 - half, 8)
        return side_by_side(left, right, half)
    return [_spans_in_a_line(one), *_validation(view, one, width, 3)]


def _spans(view: Viewer, one: Watched, width: int) -> list[Line]:
    found = one.history.spans()
    mark = "-" if view.plain else "─"
    title: Line = [("where a step goes", "title"), (" mean of the last 200", "dim")]
    if not found:
        return [rule(title, width, mark), [(" not recorded", "dim")]]
    total = found.pop("total") or 1.0
    block = [rule(title, width, mark)]
    for name in [*(n for n in _PARTS if n in found), *(n for n in found if n not in _PARTS)]:
        seconds = found[name]
        share = seconds / total
        waits = name == "data" and share > 0.2
        label = words.cut(words.clean(_NAMES.get(name, name)), 14)
        columns = max(4, width - 38)
        filled = bar(share, columns, plain=view.plain).rstrip("░.")
        block.append(
            [
                (f" {label:<14}", ""),
                (f"{_seconds(seconds):>9}", ""),
                (f"{words.percent(share):>6}  ", "warn" if waits else ""),
                (filled, "c3" if waits else "c1"),
            ]
        )
    wait = found.get("data", 0.0) / total
    if wait > 0.2:
        block.append([(f" {words.percent(wait)} of a step waits for data", "warn")])
    return block


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def _spans_in_a_line(one: Watched) -> Line:
    found = one.history.spans()
    if not found:
        return [(" where a step goes: not recorded", "dim")]
    total = found.pop("total") or 1.0
    line: Line = [(" step: ", "title")]
    for name in [*(n for n in _PARTS if n in found), "other"]:
        share = found.get(name, 0.0) / total
        if share >= 0.01:
            style = "warn" if name == "data" and share > 0.2 else ""
            line.append((f"{name} {words.percent(share)}  ", style))
    return line


def _validation(view: Viewer, one: Watched, width: int, rows: int) -> list[Line]:
    """Return the last validation beside the one at the best step, what decides first."""
    history, monitor = one.history, one.overview.monitor
    now, best = history.table("eval").row(), history.at_best()
    mark = "-" if view.plain else "─"
    names = [n for n in now if n != "best" and isinstance(now[n], float)]
    names.sort(key=lambda name: name != monitor)
    if rows <= 3:
        values = "   ".join(f"{words.clean(n)} {words.number(now[n])}" for n in names)
        return [[(" " + words.cut(values or "no validation yet", width - 2), "")]]
    title: Line = [("validation", "title"), ("  now / at the best", "dim")]
    block = [rule(title, width, mark)]
    if not names:
        return [*block, [(" none yet", "dim")]]
    for name in names[: rows - 1]:
        style = "c2" if name == monitor else ""
        block.append(
            [
                (f" {words.cut(words.clean(name), 26):<26}", style),
                (f"{words.number(now[name]):>10}", "bold" if name == monitor else ""),
                (f"{words.number(best.get(name)):>10}", style),
            ]
        )
    return block


# -- events ------------------------------------------------------------------------------------


def _events(view: Viewer, one: Watched, width: int, rows: int) -> list[Line]:
    """Return the last warnings, checkpoints and resumptions, at the bottom of the screen."""
    history = one.history
    warnings = history.notes("warn")
    checkpoints = history.notes("ckpt")
    resumed = len(history.notes("resume"))
    facts = []
    if checkpoints:
        steps = [event.get("step") for event in checkpoints if isinstance(event.get("step"), int)]
        last = f"{steps[-1]:,}" if steps else "?"
        facts.append(f"checkpoint at {last}")
    if resumed:
        facts.append("resumed once" if resumed == 1 else f"resumed {resumed} times")
    if one.run.requests():
        facts.append(f"asked to {', '.join(sorted(one.run.requests()))}")
    line: Line = [(f" {', '.join(facts)}" if facts else "", "dim")]
    notes: list[Line] = []
    for event in warnings[-max(1, rows - 1) :]:
        rank = f"rank {event['rank']}, " if event.get("rank") else ""
        step = f"step {event['step']:,}: " if isinstance(event.get("step"), int) else ""
        text = words.clean(f"{rank}{step}{event.get('text', '')}")
        notes.append([(f" {'!' if view.plain else '⚠'} {words.cut(text, width - 5)}", "warn")])
    if rows == 1:
        return notes[-1:] or [line]
    return [*(notes or [[]]), line]
