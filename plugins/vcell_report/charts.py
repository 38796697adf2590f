"""The curves in a report, and the sentence under each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcell.metrics.names import label
from vcell.report import Chart, Curve
from vcell_report.account import short

if TYPE_CHECKING:
    from vcell.runs.history import History
    from vcell_report.account import Account

_NUMBERS = 24_000  # on a page, which keeps it under 400 KB
_FEWEST, _MOST = 30, 400  # buckets per curve
_SPEED = {
    "lr": ("Learning rate", "learning rate"),
    "grad_norm": ("Norm of the gradient", "norm"),
    "examples_per_s": ("Throughput", "examples a second"),
    "data_wait": ("Waiting for data", "share of a step"),
    "loss_scale": ("Loss scale", "scale"),
    "memory": ("Memory of the device", "bytes"),
}
_UNSHOWN = ("loss", "examples", *_SPEED)


def validation(accounts: Sequence[Account]) -> list[Chart]:
    """Return one chart per validation metric, the one that chooses the model first."""
    first = next((a.monitor for a in accounts if a.monitor), None)
    names = _names(accounts, "eval", ("best",))
    names.sort(key=lambda name: name != first)
    return [_chart(accounts, name, "eval", label(name), label(name)) for name in names]


def training(accounts: Sequence[Account]) -> list[Chart]:
    """Return the loss and its parts."""
    charts = [_chart(accounts, "loss", "metric", "Loss", "loss")]
    parts = _names(accounts, "metric", _UNSHOWN)
    if len(accounts) > 1:
        charts += [
            _chart(accounts, name, "metric", f"Part of the loss: {name}", name) for name in parts
        ]
    elif parts:
        history = accounts[0].history
        curves = [
            Curve.of(name, *_points(history, name, "metric"), _buckets(accounts)) for name in parts
        ]
        charts.append(Chart("Parts of the loss", curves, y="value", reading=_largest(curves)))
    return [chart for chart in charts if any(curve.x for curve in chart.curves)]


def speed(accounts: Sequence[Account]) -> list[Chart]:
    """Return learning rate, gradient, throughput, waiting and memory, if recorded."""
    known = _names(accounts, "metric", ())
    return [
        _chart(accounts, name, "metric", title, unit)
        for name, (title, unit) in _SPEED.items()
        if name in known
    ]


def every(accounts: Sequence[Account]) -> list[Chart]:
    """Return all charts."""
    return [*validation(accounts), *training(accounts), *speed(accounts)]


def _names(accounts: Sequence[Account], kind: str, without: Sequence[str]) -> list[str]:
    found = dict.fromkeys(
        name
        for account in accounts
        for name in account.history.names(kind)
        if name not in account.history.table(kind).words
    )
    return [name for name in found if name not in without]


def _chart(accounts: Sequence[Account], name: str, kind: str, title: str, y: str) -> Chart:
    curves = []
    names = short(accounts) if len(accounts) > 1 else [""]
    for account, called in zip(accounts, names, strict=True):
        curves.append(Curve.of(called, *_points(account.history, name, kind), _buckets(accounts)))
    marks = {}
    if len(accounts) == 1 and kind == "eval":
        for event in accounts[0].history.notes("reference"):
            if isinstance(event.get(name), float):
                marks[str(event.get("name"))] = event[name]
    return Chart(title, curves, y=y, marks=marks, reading=_reading(accounts, name, kind, curves))


def _points(history: History, name: str, kind: str) -> tuple[Sequence[float], Sequence[float]]:
    found = history.series(name, kind)
    return found.steps, found.values


def _buckets(accounts: Sequence[Account]) -> int:
    """Divide the numbers on a page among its curves."""
    n = sum(len(a.history.names("metric")) + len(a.history.names("eval")) for a in accounts)
    return max(_FEWEST, min(_MOST, _NUMBERS // (4 * max(n, 1))))


def _reading(accounts: Sequence[Account], name: str, kind: str, curves: Sequence[Curve]) -> str:
    """Describe the curves in one sentence."""
    shown = [(a, c) for a, c in zip(accounts, curves, strict=True) if c.x]
    if not shown:
        return ""
    if len(shown) > 1:
        last = ", ".join(f"{c.name}: {_word(c.mean[-1])}" for _, c in shown)
        return f"At the end: {last}."
    account, curve = shown[0]
    if kind == "eval" and name == account.monitor and account.best is not None:
        step, value = account.best
        return f"Best {value:.4g} at step {step:,}; {_word(curve.mean[-1])} at the end."
    low, high = min(_known(curve.low)), max(_known(curve.high))
    if low == high:
        return f"{_word(low)} throughout."
    ends = f"From {_word(curve.mean[0])} to {_word(curve.mean[-1])}"
    return f"{ends}; between {low:.4g} and {high:.4g} over all."


def _largest(curves: Sequence[Curve]) -> str:
    shown = [curve for curve in curves if curve.x]
    if not shown:
        return ""
    top = max(shown, key=lambda curve: abs(curve.mean[-1] or 0.0))
    return f"The largest at the end is {top.name}, {_word(top.mean[-1])}."


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _word(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
