r"""Search settings: `--sweep N` trains N runs and says which settings chose best.

    vcell train-vcc cells.h5ad --sweep 20 --sweep-over "lr=1e-4..1e-2 log" \
        --sweep-over "preset=tiny|small"

or `sweep-over = [...]` in vcell.toml. Trials are judged by the perturbations that choose the model,
never by those held out. The study is a journal of JSON lines beside the runs: the same command goes
on where an interrupted one ended, with the trials that are there already.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console, models
from vcell.config import Setting, settings_of
from vcell.errors import UserError
from vcell.models import Screen
from vcell.suggest import did_you_mean
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.scores import gain, scores
from vcell_train_vcc.split import VALIDATION

if TYPE_CHECKING:
    from vcell.runs import Run

STUDY = "sweep.jsonl"  # in the folder of the runs
_FIXED = ("sweep", "sweep_over", "runs", "resume", "seed", "estimate", "cells", "folds")
_FORMS = 'write "lr=1e-4..1e-2 log", "dropout=0..0.3" or "preset=tiny|small"'


@dataclass(frozen=True)
class Range:
    """What a setting may be: one of `choices`, or a number from `low` to `high`."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False

    def drawn(self, trial: Any) -> Any:
        """Let a trial of optuna choose."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def parse(text: str) -> Range:
    """Read ``lr=1e-4..1e-2 log`` or ``preset=tiny|small``."""
    able = {s.name: s for s in settings_of(TrainVcc) if s.name not in _FIXED and not s.many}
    key, equals, values = (part.strip() for part in text.partition("="))
    name = key.replace("-", "_")
    if not equals or not values:
        raise UserError(f"--sweep-over {text!r} names no values", hint=_FORMS)
    if name not in able:
        hint = did_you_mean(key, [setting.key for setting in able.values()])
        raise UserError(f"--sweep-over {text!r}: {key} cannot be searched{hint}")
    span = re.fullmatch(r"(\S+?)\.\.(\S+)(\s+log)?", values)
    try:
        if span is None:
            choices = tuple(able[name].parse(word.strip()) for word in values.split("|"))
            return Range(name, choices=choices)
        return _span(able[name], span[1], span[2], log=bool(span[3]))
    except ValueError as error:
        raise UserError(f"--sweep-over {text!r}: {key} {error}", hint=_FORMS) from None


def _span(setting: Setting, low: str, high: str, *, log: bool) -> Range:
    if setting.base not in (int, float):
        raise ValueError("is no number: list its values with |")
    first, last = setting.parse(low), setting.parse(high)
    if not first < last:
        raise ValueError(f"goes from {low} to {high}, which is no range")
    if log and first <= 0:
        raise ValueError("must be above 0 to be searched by its logarithm")
    return Range(setting.name, low=first, high=last, log=log, whole=setting.base is int)


def sweep(config: TrainVcc, trials: int, train: Callable[[TrainVcc], Run]) -> dict[str, Any]:
    """Train until there are so many trials, and return the best and all of them.

    Parameters
    ----------
    config
        The settings that are not searched.
    trials
        How many there are to be in the end.
    train
        Trains with given settings, and returns the finished run.
    """
    ranges = [parse(text) for text in config.sweep_over]
    if not ranges:
        raise UserError("--sweep has nothing to search", hint=f"--sweep-over: {_FORMS}")
    study = _study(config, ranges)
    done = len(_finished(study))
    if done:
        console.say(f"{config.runs / STUDY}: {done} trials are there already")
    for number in range(done, trials):
        trial = study.ask()
        chosen = {one.name: one.drawn(trial) for one in ranges}
        console.say(f"trial {number + 1} of {trials}: {_told(chosen)}")
        run = train(dataclasses.replace(config, **chosen, sweep=None, sweep_over=()))
        value = _judged(run)
        trial.set_user_attr("run", run.name)
        study.tell(trial, value)
        console.say(f"trial {number + 1}: {value:.4f}; best {study.best_value:.4f}")
    return _result(study)


def _study(config: TrainVcc, ranges: list[Range]) -> Any:
    """Open the journal beside the runs, or begin it; what was cut short is given up."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ModuleNotFoundError:
        raise UserError("--sweep needs optuna", hint="pip install 'vcell[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = config.runs / STUDY
    config.runs.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    study = optuna.create_study(
        study_name="train-vcc", storage=storage, direction="maximize", load_if_exists=True
    )
    asked = {
        "model": config.model,
        "cells": str(Path(config.cells).absolute()) if config.cells else None,
        "ranges": [dataclasses.asdict(one) | {"choices": list(one.choices)} for one in ranges],
        "seed": config.seed,
    }
    before = study.user_attrs.get("asked")
    if before is not None and before != asked:
        differs = ", ".join(key for key in asked if asked[key] != before.get(key))
        raise UserError(
            f"{path} is a sweep of another {differs}", hint="name another folder with --runs"
        )
    study.set_user_attr("asked", asked)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    return study


def _finished(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    found: list[Any] = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return found


def _judged(run: Run) -> float:
    """Return the scaled score over the mean, on the perturbations that choose the model."""
    screen = Screen.load(run.path / models.SCREEN)
    rows = screen.rows(VALIDATION)
    if not len(rows):
        raise UserError(
            "no perturbations are left to choose settings by", hint="raise --validation-share"
        )
    names, contexts = screen.names(rows)
    found = [
        scores(
            models.get(name).load(run, screen).predict(names, contexts),
            screen.delta[rows],
            screen.targets(names),
        )
        for name in (run.meta["model"], "mean")
    ]
    return gain(*found)


def _result(study: Any) -> dict[str, Any]:
    trials = [
        {"run": one.user_attrs["run"], "value": one.value, "settings": one.params}
        for one in _finished(study)
    ]
    ordered = sorted(trials, key=lambda one: -one["value"])
    return {"best": ordered[0] if ordered else None, "trials": ordered}


def tell(found: Mapping[str, Any], folder: Path) -> None:
    """Print the best trials and what to write into vcell.toml."""
    best, trials = found["best"], found["trials"]
    names = list(best["settings"])
    rows = [(one["run"], one["value"], *one["settings"].values()) for one in trials[:10]]
    table = console.table(rows, ("run", "score", *(name.replace("_", "-") for name in names)))
    console.result(
        {**found, "study": str(folder / STUDY)},
        f"best of {len(trials)} trials, by the perturbations that choose the model:\n\n{table}\n\n"
        f"[train-vcc]\n{_told(best['settings'], chr(10))}",
    )


def _told(settings: Mapping[str, Any], between: str = ", ") -> str:
    from vcell.config.write import toml_value

    return between.join(
        f"{name.replace('_', '-')} = {toml_value(value)}" for name, value in settings.items()
    )
