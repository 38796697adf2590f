"""Make click options from a command's settings, and track the source of each value."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vcell import console
from vcell.config.data import SHARED
from vcell.config.fields import Made, Setting, settings_of
from vcell.errors import UserError
from vcell.outputs.inputs import refuse_inputs
from vcell.suggest import did_you_mean

PROJECT = "vcell.project"  # key of the ProjectFile in ctx.meta
ALL_HELP = "vcell.all_help"  # key in ctx.meta: whether to show the further options
_DATA_PREFIX = "VCELL_DATA"
_WIDEST = 76  # columns of an option and its choices, which are indented by 2


class _SettingType(click.ParamType[Any]):
    """Convert a word of the command line or environment; the file's values are already checked."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.base.__name__
        self.choices = setting.choices

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, list) and self.setting.many:  # the option was given several times
            return tuple(item for word in value for item in self.convert(word, param, ctx))
        if not isinstance(value, str) or (
            self.setting.base is str and not self.setting.choices and not self.setting.many
        ):
            return value
        if self.name == "Path" and not value.strip() and not self.setting.many:
            self.fail("is empty; is a shell variable not set?", param, ctx)
        try:
            return self.setting.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        if self.choices:
            return "[" + "|".join(self.choices) + "]" + (",..." if self.setting.many else "")
        word = {"int": "INTEGER", "str": "TEXT", "Ranges": "RANGES"}.get(
            self.name, self.name.upper()
        )
        return word + ",..." if self.setting.many else word

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        if self.name == "Path":
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(choice) for choice in self.choices if choice.startswith(incomplete)]


class OutputPath(click.Path):
    """An argument that names the file or folder that a command makes."""

    made: Made = "whole"


class CellsPath(click.Path):
    """An argument that names a file of cells; from Python it may also be an AnnData in memory."""


class SettingOption(click.Option):
    """A click option for one setting; reads VCELL_<COMMAND>_<KEY>, then VCELL_DATA_<KEY>."""

    def __init__(self, setting: Setting, *, further: bool = False) -> None:
        self.setting, self.further = setting, further
        flags = [setting.short] if setting.short else []
        if setting.base is bool and not setting.many:
            flags.append(f"--{setting.key}/--no-{setting.key}")
            kind: dict[str, Any] = {"is_flag": True}
        else:
            flags += [f"--{key}" for key in (setting.key, *setting.former)]
            kind = {"type": _SettingType(setting), "multiple": setting.many}
        super().__init__(
            [*flags, setting.name],
            default=setting.default,
            help=setting.help,
            show_default=_default_text(setting),
            **kind,
        )

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Allow an option of several values to be repeated, in addition to `a,b`."""
        self.multiple = self.setting.many
        super().add_to_parser(parser, ctx)
        self.multiple = False

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the lines of the help; None for a further option, except in --help-all."""
        if self.further and not ctx.meta.get(ALL_HELP):
            return None
        every, former = self.opts, {f"--{key}" for key in self.setting.former}
        self.opts = [flag for flag in every if flag not in former]  # accepted, not shown
        try:
            record = super().get_help_record(ctx)
        finally:
            self.opts = every
        choices = self.setting.choices
        widest = min(_WIDEST, ctx.make_formatter().width - 2)
        if record is None or len(record[0]) <= widest or not choices:
            return record
        flags, text = record
        help_text, mark, default = text.partition("  [default:")
        text = f"{help_text} One of {', '.join(choices)}.{mark}{default}"
        return flags.replace(f"[{'|'.join(choices)}]", "NAME"), text

    def consume_value(self, ctx: click.Context, opts: Any) -> tuple[Any, ParameterSource]:
        """Join the values of a repeated flag, each of which may name several."""
        value, source = super().consume_value(ctx, opts)
        if self.name:  # known before a wrong value is told
            ctx.set_parameter_source(self.name, source)
        if self.setting.many and source == ParameterSource.COMMANDLINE:
            value = tuple(one for text in value for one in self.type.convert(text, self, ctx))
        elif self.setting.many and isinstance(value, str):
            value = self.type.convert(value, self, ctx)
        return value, source

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a single value; several have been converted one by one."""
        return value if self.setting.many else super().type_cast_value(ctx, value)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """Return the variable unchanged: it is split at commas, not blanks."""
        return self.resolve_envvar_value(ctx)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Look up the environment."""
        name = environment_name(self.setting, ctx.auto_envvar_prefix)
        return os.environ[name] if name else None


def environment_name(setting: Setting, prefix: str | None) -> str | None:
    """Return the variable that currently sets `setting`, or None."""
    own = [f"{prefix}_{setting.variable}"] if prefix else []
    shared = [f"{_DATA_PREFIX}_{setting.variable}"] if setting.owner in SHARED else []
    return next((name for name in own + shared if os.environ.get(name)), None)


def _default_text(setting: Setting) -> str | bool:
    if setting.default is None or setting.default == ():
        return False
    if isinstance(setting.default, tuple):
        return ",".join(str(item) or '""' for item in setting.default)
    return True


def configured(
    config: type, first: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a dataclass to a click command, which receives it as ``config=``.

    Parameters
    ----------
    config
        The frozen dataclass of the command's settings.
    first
        For a command with very many settings: those that ``--help`` shows, in this order.
        ``--help-all`` shows all, under the `heading` of the class that declares them.

    Examples
    --------
    >>> @click.command()
    ... @configured(SelectGenes)
    ... def command(config: SelectGenes) -> None: ...
    """
    settings = settings_of(config)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            values = {setting.name: kwargs.pop(setting.name) for setting in settings}
            try:
                built = config(**values)
            except ValueError as error:
                raise UserError(f"{click.get_current_context().info_name}: {error}") from None
            _warn_of_unknown_variables()
            _refuse_missing(settings, values)
            _refuse_inputs(settings, values, kwargs)
            return function(*args, config=built, **kwargs)

        params = getattr(call, "__click_params__", [])
        by_name = {setting.name: setting for setting in settings}
        ordered = [by_name.pop(name) for name in first]
        options: list[click.Parameter] = [SettingOption(setting) for setting in ordered]
        options += [SettingOption(one, further=bool(first)) for one in by_name.values()]
        if first:
            options.append(_help_all(len(settings)))
        # click stores parameters of decorators in reverse order
        call.__click_params__ = params + options[::-1]  # type: ignore[attr-defined]
        return call

    return decorate


def _warn_of_unknown_variables() -> None:
    """Warn about variables that begin as those of the running command do, and set nothing."""
    ctx = click.get_current_context()
    prefix = f"{ctx.auto_envvar_prefix}_"
    known = {
        prefix + (p.setting.variable if isinstance(p, SettingOption) else str(p.name).upper())
        for p in ctx.command.params
    }
    unknown = [n for n in sorted(os.environ) if n.startswith(prefix) and n not in known]
    if unknown:
        root = ctx.find_root()
        names = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
        every = [f"{root.auto_envvar_prefix}_{n.replace('-', '_').upper()}_" for n in names]
        others = tuple(one for one in every if one.startswith(prefix) and one != prefix)
        for name in unknown:
            if not name.startswith(others):  # VCELL_PREDICT_BULK_OUTPUT is not of `vcell predict`
                console.warn(f"the variable {name} sets nothing{did_you_mean(name, known)}")


def _refuse_missing(settings: tuple[Setting, ...], values: dict[str, Any]) -> None:
    """Raise for missing input files, before anything is done."""
    if values.get("resume"):
        return  # the run has read them when it was started
    for setting in settings:
        value = values[setting.name]
        if not setting.read or value is None:
            continue
        for path in value if setting.many else (value,):
            if not path.exists():
                origin = provenance().get(setting.name, "default")
                where = f"--{setting.key}"
                if origin not in ("command line", "default"):  # a line of a file, or a variable
                    where = f"{origin}: {setting.key}" if ":" in origin else origin
                raise UserError(f"{where}: {path} does not exist", hint="check the name")


def _refuse_inputs(
    settings: tuple[Setting, ...], values: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Raise for outputs that are inputs, under any name or link, before anything is done.

    The declaration of a path says whether it is an input or an output, so that no command can
    forget this check. A folder of runs is both.
    """
    types = {param.name: param.type for param in click.get_current_context().command.params}
    paths = [(values[s.name], s.made) for s in settings if s.base is Path and s.name != "runs"]
    paths += [
        (value, getattr(types[name], "made", ""))
        for name, value in arguments.items()
        if isinstance(types.get(name), click.Path)
    ]
    several = [(v if isinstance(v, tuple | list) else (v,), made) for v, made in paths]
    every = [(Path(v), made) for many, made in several for v in many if _is_path(v)]
    inputs = [path for path, made in every if not made]
    if (cells := project_cells()) is not None and cells.exists():
        inputs.append(cells)  # of any command: never written to
    for target, made in every:
        if made:
            refuse_inputs(target, inputs, into=made == "into")


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)  # not AnnData in memory


def _help_all(count: int) -> click.Option:
    """Return the option that shows all options."""

    def show(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
        if value and not ctx.resilient_parsing:
            ctx.meta[ALL_HELP] = True
            click.echo(grouped_help(ctx), color=ctx.color)
            ctx.exit()

    return click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help=f"Show all {count} options, and exit.",
    )


def grouped_help(ctx: click.Context) -> str:
    """Return the help of all options, under the headings of the classes that declare them."""
    formatter, command = ctx.make_formatter(), ctx.command
    groups: dict[str, list[tuple[str, str]]] = {"Options": []}
    for param in command.get_params(ctx):
        own = param.setting if isinstance(param, SettingOption) and param.further else None
        if record := param.get_help_record(ctx):
            groups.setdefault(own.heading if own and own.heading else "Options", []).append(record)
    command.format_usage(ctx, formatter)
    command.format_help_text(ctx, formatter)
    options, *inherited = groups.items()
    for heading, records in (options, *inherited[::-1]):  # most specific class first
        with formatter.section(heading):
            formatter.write_dl(records)
    return formatter.getvalue().rstrip("\n")


def provenance() -> dict[str, str]:
    """Return the source of every setting of the running command."""
    ctx = click.get_current_context()
    file = ctx.meta.get(PROJECT)
    origins = {}
    for param in ctx.command.params:
        if not isinstance(param, SettingOption) or param.name is None:
            continue
        source = ctx.get_parameter_source(param.name)
        if source is ParameterSource.COMMANDLINE:
            origin = "command line"
        elif source is ParameterSource.ENVIRONMENT:
            origin = environment_name(param.setting, ctx.auto_envvar_prefix) or "environment"
        elif source is ParameterSource.DEFAULT_MAP and file is not None:
            origin = file_origin(file, ctx.info_name or "", param.setting)
        else:
            origin = "default"
        origins[param.name] = origin
    return origins


def of_the_project(name: str) -> bool:
    """Whether a setting of the running command comes from the shared [data] table."""
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return False
    param = next((p for p in ctx.command.params if p.name == name), None)
    if not isinstance(param, SettingOption) or param.setting.owner not in SHARED:
        return False
    source = ctx.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT:
        found = environment_name(param.setting, ctx.auto_envvar_prefix) or ""
        return found.startswith(_DATA_PREFIX)
    file = ctx.meta.get(PROJECT)
    own = file.tables.get(ctx.info_name, {}) if file is not None else {}
    return source is ParameterSource.DEFAULT_MAP and not {name, param.setting.key} & set(own)


def project_folder() -> Path | None:
    """Return the folder of the project file that the running command reads, if there is one."""
    ctx = click.get_current_context(silent=True)
    file = ctx.meta.get(PROJECT) if ctx else None
    if file is None:
        return None
    folder: Path = file.path.parent
    return folder


def project_cells() -> Path | None:
    """Return the cells of the project of the running command, if it names any."""
    folder = project_folder()
    if folder is None:
        return None
    table = click.get_current_context().meta[PROJECT].tables.get("data", {})
    cells = table.get("cells") if isinstance(table, dict) else None
    return folder / Path(cells).expanduser() if isinstance(cells, str) and cells else None


def file_origin(file: Any, command: str, setting: Setting) -> str:
    """Return ``vcell.toml:12`` for a value that the project file sets for `command`."""
    for place in ((command, setting.table), (command,), ("data",)):
        where = [name for name in place if name]
        content = file.tables
        for name in where:
            content = content.get(name, {})
        for key in (setting.key, setting.name):
            if key in content:
                return str(file.at(*where, key))
    return str(file.at(command))
