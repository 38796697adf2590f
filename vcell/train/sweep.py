r"""Search settings: `--sweep N` trains N runs and reports the best settings.

    [train-vcc.sweep-over]                       # in vcell.toml
    lr = {low = 1e-4, high = 1e-2, log = true}
    preset = ["tiny", "small"]

    vcell train-vcc cells.h5ad --sweep 20
    vcell train-vcc --resume latest --sweep 30   # continues, to 30 trials

Trials are judged by the data that choose the model, never by held-out data. Their runs are in
``trials/``. The events of the run hold the settings and the score of each, which is all that
resuming needs; ``sweep.csv`` is the table.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.config import Range, settings_of
from vcell.errors import RunFailed, UserError, VcellError
from vcell.train.training import half_done

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vcell.runs import Run
    from vcell.train.training import Settings, Training

    Chosen = dict[str, Any]  # settings by Python name
    Trial = dict[str, Any]  # the event: step, run, value, settings; error instead of value

_EXAMPLE = "lr = {low = 1e-4, high = 1e-2, log = true}"


def check(training: Training[Settings], config: Settings) -> None:
    """Raise an error if nothing is to be searched, or optuna is missing."""
    if training.judge is None:
        raise UserError(f"{training.name} cannot judge its runs, and so cannot search settings")
    if not config.sweep_over:
        raise UserError(
            "--sweep has nothing to search",
            hint=f"name ranges in vcell.toml: [{training.name}.sweep-over] and {_EXAMPLE}",
        )
    _optuna()


def trained(
    training: Training[Settings],
    this: Run,
    config: Settings,
    train: Callable[[Settings], Run],
) -> None:
    """Train until there are `--sweep` trials.

    Parameters
    ----------
    training
        The description of the command.
    this
        The run that holds the trials.
    config
        The settings that are not searched, and the ranges of those that are.
    train
        Trains with given settings, and returns the finished run.
    """
    ranges = _ranges(config)
    trials: list[Trial] = this.events({"trial"})
    console.say(f"searching {_assignments({one.name: one.plain for one in ranges})}")
    if trials:
        console.say(f"trials done already: {len(trials)} of {config.sweep}")
    for number in range(len(trials) + 1, (config.sweep or 0) + 1):
        begun = _begun(this, trials)
        settings = _chosen(ranges, trials, config.seed, begun)
        console.say(f"trial {number} of {config.sweep}: {_assignments(settings)}")
        found = _same(trials, settings) or _trial(training, this, config, settings, begun, train)
        this.log("trial", number, **found, settings=settings)
        trials = this.events({"trial"})
        if not (done := _ordered(trials)):
            continue
        this.update(stands_for=[done[0]["run"]])
        if "value" in found:
            console.say(f"trial {number}: {found['value']:.4f}; best {done[0]['value']:.4f}")
    _end(this, trials)


def _end(this: Run, trials: list[Trial]) -> None:
    done = _ordered(trials)
    this.save_file("sweep.csv", lambda path: _write(path, trials))
    if not done:
        raise RunFailed(f"every trial failed, the last by this: {trials[-1]['error']}")
    best = done[0]
    this.finish("done", best=best["run"], score=best["value"], settings=best["settings"])


def _ranges(config: Any) -> list[Range]:
    """Return the ranges to search, in the order of the table."""
    options: type = type(config)
    of = {setting.name: setting for setting in settings_of(options)}
    return [Range.read(of[name], value) for name, value in (config.sweep_over or {}).items()]


def _begun(this: Run, trials: list[Trial]) -> Run | None:
    """Return the run of a trial that was cut short."""
    recorded = {one.get("run") for one in trials}
    return next((run for run in this.parts() if run.name not in recorded), None)


def _chosen(ranges: list[Range], trials: list[Trial], seed: int, begun: Run | None) -> Chosen:
    """Let optuna choose from the trials so far; the same choice after an interruption."""
    optuna = _optuna()
    spaces = {one.name: _distribution(optuna, one) for one in ranges}
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed + len(trials))
    )
    for one in trials:
        state = optuna.trial.TrialState.COMPLETE if "value" in one else optuna.trial.TrialState.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                params=one["settings"], distributions=spaces, value=one.get("value"), state=state
            )
        )
    if begun is not None:
        study.enqueue_trial({name: begun.meta["config"][name] for name in spaces})
    chosen: Chosen = study.ask(spaces).params
    return chosen


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("--sweep needs optuna", hint="pip install 'vcell[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _distribution(optuna: Any, one: Range) -> Any:
    if one.choices:
        return optuna.distributions.CategoricalDistribution(one.choices)
    if one.whole:
        return optuna.distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)


def _same(trials: list[Trial], settings: Chosen) -> Trial | None:
    """Return an earlier trial of the same settings."""
    for one in trials:
        if one["settings"] == settings:
            console.say(f"the same as trial {one['step']}, which is not trained again")
            return {key: one[key] for key in ("run", "value", "error") if key in one}
    return None


def _trial(
    training: Training[Settings],
    this: Run,
    config: Settings,
    settings: Chosen,
    begun: Run | None,
    train: Callable[[Settings], Run],
) -> Trial:
    """Train with the chosen settings and judge the run; report a failure and continue."""
    if begun is not None and begun.status() == "done":
        return {"run": begun.name, "value": _judged(training, begun)}
    before = {run.name for run in this.parts()} - {begun.name if begun else None}
    alone: Chosen = {"sweep": None, "sweep_over": None, "runs": this.path / "trials"}
    alone["resume"] = half_done(training, begun)
    try:
        run = train(_with(config, settings | alone))
        return {"run": run.name, "value": _judged(training, run)}
    except VcellError as error:
        parts = [run.name for run in this.parts() if run.name not in before]
        if not this.parts():
            raise  # failed before any training: an error in the data or the common settings
        console.warn(f"this trial failed: {error.message}")
        return {"run": parts[0] if parts else None, "error": error.message}


def _with(config: Settings, settings: Chosen) -> Settings:
    try:
        found: Settings = dataclasses.replace(config, **settings)
    except ValueError as error:
        raise UserError(str(error)) from None
    return found


def _judged(training: Training[Any], run: Run) -> float:
    assert training.judge is not None  # `check` has refused it
    value = training.judge(run)
    if not math.isfinite(value):
        raise RunFailed(f"the score of {run.name} is not a number")
    return value


def _ordered(trials: list[Trial]) -> list[Trial]:
    """Return the trials that were judged, best first."""
    return sorted((one for one in trials if "value" in one), key=lambda one: -one["value"])


def _write(path: Path, trials: list[Trial]) -> None:
    names = list(trials[0]["settings"]) if trials else []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "score", *(name.replace("_", "-") for name in names), "run"])
        for one in trials:
            score = f"{one['value']:.6g}" if "value" in one else ""
            writer.writerow([one["step"], score, *one["settings"].values(), one["run"]])


def tell(training: Training[Any], this: Run) -> None:
    """Print the best trials and what to write into vcell.toml."""
    trials = this.events({"trial"})
    ordered = _ordered(trials)
    best, failed = ordered[0], len(trials) - len(ordered)
    names = [name.replace("_", "-") for name in best["settings"]]
    shown = list({one["run"]: one for one in ordered}.values())[:10]  # each run once
    rows = [(one["run"], one["value"], *one["settings"].values()) for one in shown]
    without = f", {failed} of which failed" if failed else ""
    console.result(
        {
            "run": str(this.path),
            "best": _shown(best),
            "trials": [_shown(one) for one in ordered],
            "failed": [{"run": o["run"], "error": o["error"]} for o in trials if "error" in o],
        },
        f"best of {console.count(len(trials), 'trial')}{without}, by the validation score:\n\n"
        f"{console.table(rows, ('run', 'score', *names))}\n\n"
        f"[{training.name}]\n{_assignments(best['settings'], chr(10))}\n\n"
        f"run directory: {this.path}",
    )


def _shown(one: Trial) -> Trial:
    return {key: one[key] for key in ("run", "value", "settings")}


def _assignments(settings: Chosen, between: str = ", ") -> str:
    from vcell.config.write import toml_value

    return between.join(
        f"{name.replace('_', '-')} = {toml_value(value)}" for name, value in settings.items()
    )
