"""Measure the training step of a run at several settings of a card, and save the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console, outputs
from vcell.errors import UserError
from vcell.gpu import hold, profiles
from vcell.gpu.reading import open_card
from vcell.report import Page, svg
from vcell.runs import Run
from vcell_gpu_tune.cards import chosen
from vcell_gpu_tune.search import SearchResult, Trial, Window, phases, search
from vcell_gpu_tune.stepper import Stepper

if TYPE_CHECKING:
    from vcell.gpu.nvml import Device
    from vcell.gpu.settings import CardSettings
    from vcell_gpu_tune import FindOptimal

_WARM_UP, _FEWEST = 3.0, 10  # seconds after a change; steps in a window
_COLUMNS = ("setting", "s a step", "J a step", "time", "energy", "MHz", "note")


def run(config: FindOptimal) -> None:
    """Run the command."""
    slowdown = _share(config.max_slowdown)
    device = _one(config.gpu)
    trained = Run.open(config.run, config.runs)
    profile = profiles.path_of(config.name)
    page_at = profile.with_name(f"{config.name}.html")
    outputs.check(profile, page_at, overwrite=config.overwrite, parents=True)
    with hold.controls([device.uuid]) as (card,):
        candidates, name, users = phases(card.limits(), config.steps), card.name, card.users()
    if not candidates:
        raise UserError(f"{name} reports no clocks and no power limits to try")
    if users and not config.shared:
        raise UserError(
            f"{name} computes for other processes ({', '.join(map(str, users))})",
            hint="wait for them to end; a measurement alongside them means nothing",
        )
    stocks = (len(candidates) + 1) * config.repeats
    windows = stocks + sum(map(len, candidates)) * config.repeats
    plan = [[", ".join(one.words()) for one in phase] for phase in candidates]
    if not config.yes:
        took = console.duration(windows * (config.window + _WARM_UP))
        lines = [f"{name}: {windows} windows of {config.window:g} s, about {took}"]
        lines += [f"  {line}" for phase in plan for line in phase]
        text = "\n".join(["the plan (not carried out):", *lines, "add --yes to measure"])
        console.result({"plan": plan, "windows": windows, "measured": False}, text)
        return
    progress = console.progress("measuring", windows, "windows")
    with Stepper(trained, device.uuid) as stepper, progress as bar:

        def measure(settings: CardSettings) -> Window:
            found = _window(stepper, device.uuid, settings, config)
            bar.advance(1)
            return found

        found = search(measure, candidates, repeats=config.repeats, seed=config.seed)
    best = found.best(slowdown)
    written = profiles.write(config.name, name, best.settings, _plain(best, found.stock))
    page(name, trained.name, found, best, slowdown).write(page_at)
    _tell(found, best, written)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"--max-slowdown {text} is not a share", hint="write 3%")
    return share


def _one(gpu: str) -> Device:
    found = chosen(gpu)
    if len(found) > 1:
        raise UserError(f"{len(found)} GPUs are there", hint="name one with --gpu 0")
    if found[0].parent:
        raise UserError(f"{found[0].name} is a MIG instance; it has no settings of its own")
    return found[0]


def _window(stepper: Stepper, uuid: str, settings: CardSettings, config: FindOptimal) -> Window:
    """Measure one setting once: energy by the card's counter, time by the run's events."""
    with hold.holding({uuid: settings}, shared=True), open_card(uuid) as card:
        stepper.wait(_WARM_UP, 1)
        first, before = stepper.steps(), card.read()
        if before.energy_j is None:
            raise UserError("the card has no energy counter (Volta and later have one)")
        reasons: set[str] = set()
        clocks: list[float] = []
        steps, pieces = 0, 5
        for _ in range(pieces):
            steps += stepper.wait(config.window / pieces, _FEWEST // pieces)
            reading = card.read()
            reasons |= set(reading.throttle or ())
            clocks.append(float(reading.mhz or 0))
        after = card.read()
        assert after.energy_j is not None
    joules = (after.energy_j - before.energy_j) / steps
    clock = sorted(clocks)[len(clocks) // 2]
    return Window(stepper.seconds_a_step(first), joules, clock, frozenset(reasons))


def _row(point: Trial, stock: Trial) -> tuple[Any, ...]:
    spread = max(w.joules for w in point.windows) - min(w.joules for w in point.windows)
    mhz = sorted(w.mhz for w in point.windows)[len(point.windows) // 2]
    return (
        point.name, point.seconds, f"{point.joules:.4g} ± {spread / 2:.2g}",
        f"{point.seconds / stock.seconds - 1:+.1%}", f"{point.joules / stock.joules - 1:+.1%}",
        int(mhz), "; ".join(point.notes),
    )  # fmt: skip


def _plain(point: Trial, stock: Trial) -> dict[str, Any]:
    return {
        "setting": point.settings.plain(),
        "seconds_a_step": point.seconds,
        "joules_a_step": point.joules,
        "slowdown": point.seconds / stock.seconds - 1,
        "saving": 1 - point.joules / stock.joules,
        "windows": [
            {"seconds": w.seconds, "joules": w.joules, "mhz": w.mhz} for w in point.windows
        ],
        "notes": list(point.notes),
    }


def _sentence(best: Trial, stock: Trial) -> str:
    if best is stock:
        return "no setting saves energy within the bound: leave the card as it is"
    saved, slower = 1 - best.joules / stock.joules, best.seconds / stock.seconds - 1
    return f"{best.name}: {saved:.1%} less energy a step, {slower:+.1%} time"


def _tell(found: SearchResult, best: Trial, written: Path) -> None:
    points = [found.stock, *found.points]
    rows = [_row(point, found.stock) for point in points]
    text = [console.table(rows, _COLUMNS), *found.dropped, _sentence(best, found.stock)]
    text.append(
        f"profile: {written}; set it with vcell gpu-tune apply --profile {written.stem} --yes"
    )
    data = {
        "best": _plain(best, found.stock),
        "points": [_plain(point, found.stock) for point in points],
        "pareto": [point.name for point in found.pareto()],
        "dropped": found.dropped,
        "profile": str(written),
    }
    console.result(data, "\n".join(text))


def page(card: str, run: str, found: SearchResult, best: Trial, slowdown: float) -> Page:
    """Lay out what was measured, and what was chosen."""
    made = Page("vcell gpu-tune find-optimal", f"{card}, the training step of {run}")
    made.headline(_sentence(best, found.stock), f"At most {slowdown:.0%} slower was allowed.")
    points = [found.stock, *found.points]
    series = {
        "as it is": ([found.stock.seconds], [found.stock.joules]),
        "tried": ([p.seconds for p in found.points], [p.joules for p in found.points]),
        "chosen": ([best.seconds], [best.joules]),
    }
    names = {
        "as it is": ["as it is"],
        "tried": [p.name for p in found.points],
        "chosen": [best.name],
    }
    picture = svg.scatter(series, x="seconds a step", y="joules a step", names=names)
    made.figure("Time and energy", picture, "Below and to the left is better.")
    made.table(_COLUMNS, [_row(point, found.stock) for point in points])
    if found.dropped:
        made.warnings(found.dropped)
    return made
