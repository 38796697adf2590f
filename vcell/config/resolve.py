"""Resolve the settings of a command without running it: values and their sources."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcell.config.check import Problem, values_for
from vcell.config.data import DataOptions
from vcell.config.fields import Setting, settings_of
from vcell.config.options import environment_name, file_origin
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from vcell.config.toml import ProjectFile

_GLOBAL_VARIABLES = frozenset(
    {
        "VCELL_CONFIG",
        "VCELL_NO_CONFIG",
        "VCELL_PLUGINS",
        "VCELL_NO_PLUGINS",
        "VCELL_CACHE",
        "VCELL_GPU_STATE",
    }
)


@dataclass(frozen=True)
class Resolved:
    """The current value of one setting of one command."""

    command: str
    setting: Setting
    value: Any
    origin: str


def prefix_of(command: str) -> str:
    """Return the prefix of a command's environment variables: VCELL_TRAIN_VCC."""
    return "VCELL_" + command.replace("-", "_").upper()


def resolve(
    command: str, config: type, file: ProjectFile | None
) -> tuple[list[Resolved], list[Problem]]:
    """Resolve every setting of a command from environment, file and defaults."""
    from_file, problems = values_for(file, command, config) if file else ({}, [])
    resolved = []
    for setting in settings_of(config):
        variable = environment_name(setting, prefix_of(command))
        value, origin = setting.default, "default"
        if variable:
            origin = variable
            try:
                value = setting.parse(os.environ[variable])
            except ValueError as error:
                problems.append(Problem(variable, str(error)))
        elif setting.name in from_file and file is not None:
            value, origin = from_file[setting.name], file_origin(file, command, setting)
        resolved.append(Resolved(command, setting, value, origin))
    return resolved, problems


def unknown_variables(configs: dict[str, type]) -> list[Problem]:
    """Report VCELL_ variables that set nothing, such as misspelt ones."""
    known = set(_GLOBAL_VARIABLES)
    for command, config in configs.items():
        known |= {f"{prefix_of(command)}_{s.variable}" for s in settings_of(config)}
    known |= {f"VCELL_DATA_{s.variable}" for s in settings_of(DataOptions)}
    return [
        Problem(name, "sets nothing" + did_you_mean(name, known))
        for name in sorted(os.environ)
        if name.startswith("VCELL_") and name not in known
    ]
