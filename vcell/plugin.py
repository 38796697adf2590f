"""The definition and discovery of plugins.

A plugin is a frozen `Plugin` object that a distribution announces in the entry-point group
``vcell.plugins``; the built-in ones do the same. Names are read from metadata without importing
anything; `load` imports only one. A plugin that cannot be imported becomes a `Broken` entry: a
marked line in the help and a clear error on use, never a failure of another command.

``VCELL_PLUGINS=a,b`` restricts the plugins to those named; ``VCELL_NO_PLUGINS=1`` loads none.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import click

from vcell.errors import UserError, VcellError

GROUP = "vcell.plugins"
API = 1
CORE_COMMANDS = ("completion", "config", "doctor", "init", "plugins", "runs")
_KINDS = {  # group: noun for its entries, noun for their names
    GROUP: ("plugin", "that command"),
    "vcell.models": ("model", "a model of that name"),
    "vcell.gene_sets": ("gene sets", "gene sets of that name"),
}
_NAME = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One command of vcell.

    Parameters
    ----------
    name
        The command, in kebab-case: ``select-genes``. Its table in vcell.toml has the same name.
    summary
        The line in ``vcell --help``.
    command
        A click command. Heavy imports belong inside its body.
    config
        The frozen dataclass of its settings, made with `vcell.config.option`.
    needs
        Required modules; looked up, not imported, before the command runs.
    api
        The version of this interface that it was written for.
    """

    name: str
    summary: str
    command: click.Command
    config: type | None = None
    needs: tuple[str, ...] = ()
    api: int = API


@dataclass(frozen=True)
class Found:
    """An announced entry point, not imported yet."""

    name: str
    target: str  # module:attribute
    distribution: str
    version: str
    entry_point: metadata.EntryPoint = field(repr=False)

    @property
    def kind(self) -> str:
        """The kind of thing that it announces."""
        return _KINDS.get(self.entry_point.group, ("entry point",))[0]


@dataclass(frozen=True)
class Announced:
    """The entry points of one group by name, and messages about ignored ones."""

    found: dict[str, Found]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and the reason in one line."""

    found: Found
    reason: str
    error: BaseException = field(repr=False)


@dataclass(frozen=True)
class Discovery:
    """All announced plugins: those in use, by name, and messages about the others."""

    plugins: dict[str, Found]
    problems: tuple[str, ...]


@functools.cache
def discover() -> Discovery:
    """Read the announced plugins from installed metadata; nothing is imported."""
    if os.environ.get("VCELL_NO_PLUGINS", "") not in ("", "0"):
        return Discovery({}, ())
    wanted = {
        name.strip() for name in os.environ.get("VCELL_PLUGINS", "").split(",") if name.strip()
    }
    every = announced(GROUP)
    plugins: dict[str, Found] = {}
    problems = list(every.problems)
    for name, found in every.found.items():
        if name in CORE_COMMANDS or not _NAME.match(name):
            problems.append(_ignored(found, _name_fault(name)))
        elif not wanted or name in wanted:
            plugins[name] = found
    problems += [
        f"VCELL_PLUGINS names {name!r}, which is not installed"
        for name in sorted(wanted - every.found.keys())
    ]
    return Discovery(dict(sorted(plugins.items())), tuple(problems))


def announced(group: str) -> Announced:
    """Read the entry points of a group; nothing is imported.

    If two have the same name, the built-in one is used, otherwise that of the first distribution in
    alphabetical order: a later installation cannot silently replace a name. This rule holds for
    commands, models, gene sets and all other groups.

    Parameters
    ----------
    group
        Name of the group of entry points, such as ``vcell.models``.

    Returns
    -------
    Announced
        The entry points by name, and messages about ignored ones.
    """
    found: dict[str, Found] = {}
    problems = []
    for one in sorted(_found(metadata.entry_points(group=group)), key=_first):
        taken = found.setdefault(one.name, one)
        # a distribution that is also installed as editable is on the path twice
        if taken.target != one.target:
            problems.append(
                _ignored(
                    one,
                    f"{taken.distribution} already has {_KINDS.get(group, ('', 'that name'))[1]}",
                )
            )
    return Announced(dict(sorted(found.items())), tuple(problems))


def _found(points: Iterable[metadata.EntryPoint]) -> Iterator[Found]:
    """Yield each with its distribution, whose metadata are parsed only once."""
    known: dict[Any, tuple[str, str]] = {None: ("unknown", "unknown")}
    for point in points:
        if point.dist not in known and point.dist is not None:
            known[point.dist] = point.dist.name, point.dist.version
        yield Found(point.name, point.value, *known[point.dist], point)


def _first(found: Found) -> tuple[bool, str, str]:
    """Sort built-in ones first."""
    return (found.distribution != "vcell", found.distribution, found.name)


def _ignored(found: Found, why: str) -> str:
    return f"{found.kind} {found.name!r} of {found.distribution} is ignored: {why}"


def _name_fault(name: str) -> str:
    return (
        "vcell itself has a command of that name"
        if name in CORE_COMMANDS
        else "names are kebab-case, like select-genes"
    )


@functools.cache
def load(name: str) -> Plugin | Broken:
    """Import and check one plugin.

    Raises
    ------
    KeyError
        If no plugin of that name is announced.
    """
    found = discover().plugins[name]
    try:
        plugin = found.entry_point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - must not break the other commands
        return Broken(found, f"{type(error).__name__}: {_first_line(error)}", error)
    fault = _fault(plugin, found)
    return Broken(found, fault, TypeError(fault)) if fault else plugin


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _fault(plugin: Any, found: Found) -> str | None:
    if not isinstance(plugin, Plugin):
        return f"{found.target} is a {type(plugin).__name__}, not a vcell.plugin.Plugin"
    command: object = plugin.command  # a third party may have put anything there
    if plugin.api != API:
        return f"it was written for plugin API {plugin.api}; this vcell speaks {API}"
    if plugin.name != found.name:
        return f"it calls itself {plugin.name!r} but is announced as {found.name!r}"
    if not isinstance(command, click.Command):
        return f"its command is a {type(command).__name__}, not a click command"
    return None


def missing_needs(plugin: Plugin) -> list[str]:
    """Return the modules a plugin needs that are not installed."""
    return [module for module in plugin.needs if importlib.util.find_spec(module) is None]


def require(plugin: Plugin) -> None:
    """Raise an error if modules of a plugin are missing, with the command that installs them."""
    missing = missing_needs(plugin)
    if missing:
        # the distribution's name, if it differs from the module's
        names = {"pynvml": "nvidia-ml-py", "flash_attn": "flash-attn", "skmisc": "scikit-misc"}
        packages = " ".join(names.get(module, module) for module in missing)
        raise UserError(
            f"{plugin.name} needs {', '.join(missing)}, which is not installed",
            hint=f"pip install {packages}",
        )


def get(name: str) -> Plugin:
    """Return a working plugin by name, or raise an error that says what is wrong with it."""
    loaded = load(name)
    if isinstance(loaded, Broken):
        origin = f"{loaded.found.distribution} {loaded.found.version}"
        raise VcellError(
            f"the plugin {name!r} of {origin} could not be loaded: {loaded.reason}",
            hint=f"vcell plugins check {name} shows the traceback",
        )
    return loaded
