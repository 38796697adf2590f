"""The commands as functions: ``vcell.select_genes(adata)``, ``vcell.train(adata)``, in Python.

Every command can be called by its name, with settings as keywords; it returns what ``--json``
prints. A plugin whose result is better returned as a frame, an AnnData or a `Run` announces a
function next to its command, in one line, and it is called as ``vcell.NAME``::

    [project.entry-points."vcell.library"]
    select_genes = "vcell_select_genes.library:select_genes"

Nothing is printed unless ``verbose=True``. Warnings are Python warnings, and users' mistakes raise
`vcell.errors.UserError` with the message of the command line. Only the given settings apply: no
project file and no environment variable is read.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import click
from click.core import ParameterSource

from vcell import console, plugin
from vcell.config.options import CellsPath, SettingOption
from vcell.errors import UserError, VcellError, VcellWarning
from vcell.suggest import did_you_mean

GROUP = "vcell.library"
Function = Callable[..., Any]


def names() -> list[str]:
    """List the functions ``vcell.NAME``; nothing is imported."""
    commands = (name.replace("-", "_") for name in plugin.discover().plugins)
    return sorted({*plugin.announced(GROUP).found, *commands})


@functools.cache
def function(name: str) -> Function:
    """Return a function by name: the announced one, or else the command.

    Parameters
    ----------
    name
        As in ``vcell.NAME``, with underscores.

    Raises
    ------
    KeyError
        If there is neither.
    """
    if found := plugin.announced(GROUP).found.get(name):
        return _quiet(found.entry_point.load())
    word = name.replace("_", "-")
    if word not in plugin.discover().plugins:
        raise KeyError(name)
    return _quiet(_of_command(name, word))


def command(name: str, /, *arguments: Any, **settings: Any) -> Any:
    """Run a command as the command line does, and return what it prints with ``--json``.

    Parameters
    ----------
    name
        The command, such as ``"select-genes"``.
    *arguments
        Its arguments: paths, or AnnData where cells are read.
    **settings
        Its settings by their Python names, such as ``n_genes=2000`` for ``--n-genes 2000``.

    Returns
    -------
        dict or list
            What the command prints with ``--json``.
    """
    loaded = plugin.get(name)
    plugin.require(loaded)
    context = click.Context(loaded.command, info_name=name)
    values = _settings(context, settings)
    callback = loaded.command.callback
    assert callback is not None
    results: list[Any] = []
    with TemporaryDirectory(prefix="vcell-") as folder, _told_to(results.append), context:
        # a run needs its cells when it is resumed
        where = Path(values["runs"]) if values.get("runs") else Path(folder)
        callback(**values, **_arguments(context, arguments, where))
    return results[-1] if results else None


def callable_module(name: str, function_name: str) -> None:
    """Let a module of vcell be called as the function of the same name: ``vcell.train(...)``."""

    class Callable_(ModuleType):
        def __call__(self, *arguments: Any, **settings: Any) -> Any:
            return function(function_name)(*arguments, **settings)

    sys.modules[name].__class__ = Callable_


def as_list(value: Any) -> list[Any]:
    """Return a list unchanged, and a single item, such as an AnnData or a path, as a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def on_disk(cells: Any, folder: Path) -> Path:
    """Return the path of the cells; AnnData in memory is written to a folder, once."""
    if isinstance(cells, str | os.PathLike):
        return Path(cells)
    path = getattr(cells, "filename", None) or getattr(cells, "path", None)
    if path is not None:
        return Path(path)
    if not hasattr(cells, "write_h5ad"):
        raise UserError("this takes one AnnData, path or open source of a file")
    return saved(folder, "cells", ".h5ad", cells.write_h5ad)


def saved(folder: Path, name: str, ending: str, write: Any) -> Path:
    """Write a file named after its content, unless it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{name}-{os.getpid()}{ending}"
    try:
        write(aside)
        with aside.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
        path = folder / f"{name}-{content}{ending}"
        if not path.exists():
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _of_command(name: str, word: str) -> Function:
    def call(*arguments: Any, **settings: Any) -> Any:
        return command(word, *arguments, **settings)

    loaded = plugin.get(word)
    call.__name__ = call.__qualname__ = name
    text = inspect.cleandoc(loaded.command.help or loaded.summary).replace("\b\n", "")
    call.__doc__ = f"{text}\n\nReturns what ``vcell {word} --json`` prints."
    return call


def _quiet(function: Function) -> Function:
    """Wrap a function so that it prints only with ``verbose=True``."""

    @functools.wraps(function)
    def call(*arguments: Any, verbose: bool = False, **settings: Any) -> Any:
        with _talking(verbose=verbose):
            try:
                return function(*arguments, **settings)
            except VcellError as error:
                if error.hint:
                    error.add_note(f"hint: {error.hint}")
                raise

    own = inspect.signature(function)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in own.parameters.values() if p.kind is p.VAR_KEYWORD]
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False)
    call.__signature__ = own.replace(parameters=[*parameters, verbose, *rest])  # type: ignore[attr-defined]
    return call


@contextmanager
def _talking(*, verbose: bool) -> Iterator[None]:
    """Send messages to stderr if `verbose`, and warnings to Python's `warnings`."""
    before = console.settings
    console.settings = console.Settings(
        verbosity=console.NORMAL if verbose else console.QUIET, warned=_warn, results=before.results
    )
    try:
        yield
    finally:
        console.settings = before


@contextmanager
def _told_to(take: Callable[[Any], None]) -> Iterator[None]:
    """Pass results to `take` instead of printing them."""
    before = console.settings.results
    console.settings.results = take
    try:
        yield
    finally:
        console.settings.results = before


def _warn(text: str) -> None:
    warnings.warn(text, VcellWarning, stacklevel=3)


def _settings(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the given settings, and fill in the defaults."""
    known = {p.setting.name: p for p in context.command.params if isinstance(p, SettingOption)}
    for name in given:
        if name not in known:
            raise UserError(
                f"{context.info_name} has no setting {name!r}{did_you_mean(name, known)}"
            )
    values = {}
    for name, param in known.items():
        values[name] = param.setting.default
        if given.get(name) is not None:
            values[name] = _checked(context, param, given[name])
            context.set_parameter_source(str(param.name), ParameterSource.COMMANDLINE)
    return values


def _checked(context: click.Context, param: SettingOption, value: Any) -> Any:
    setting = param.setting
    if setting.many and isinstance(value, str | os.PathLike):
        value = [value]
    if setting.many:
        plain: Any = [_plain(item) for item in value]
    else:
        plain = _plain(value)
    try:
        return setting.check(plain)
    except ValueError as error:
        raise UserError(f"{context.info_name}: {setting.name} {error}") from None


def _plain(value: Any) -> Any:
    """Return a value as in a project file."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _arguments(context: click.Context, given: tuple[Any, ...], folder: Path) -> dict[str, Any]:
    """Assign values to the command's arguments; the rest goes to the variadic one.

    Where the command takes only files, AnnData in memory is written to the folder, and an open
    source is replaced by its file.
    """
    values: dict[str, Any] = {}
    rest = [Path(v) if isinstance(v, str | os.PathLike) and _is_path(context) else v for v in given]
    for param in context.command.params:
        if not isinstance(param, click.Argument):
            continue
        if param.nargs == -1:
            values[str(param.name)], rest = tuple(_taken(param, v, folder) for v in rest), []
        elif rest:
            values[str(param.name)] = _taken(param, rest.pop(0), folder)
        elif param.required:
            raise TypeError(f"{context.info_name}() needs {param.name}")
        else:
            values[str(param.name)] = None
    if rest:
        raise TypeError(f"{context.info_name}() takes fewer arguments")
    return values


def _taken(param: click.Argument, value: Any, folder: Path) -> Any:
    """Return what an argument takes in place of a value."""
    only_files = isinstance(param.type, click.Path) and not isinstance(param.type, CellsPath)
    return on_disk(value, folder) if only_files else value


def _is_path(context: click.Context) -> bool:
    found = [p for p in context.command.params if isinstance(p, click.Argument)]
    return all(isinstance(param.type, click.Path) for param in found)
