"""Turn a command's settings into click options, and say where each value came from."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vcell.config.data import SHARED
from vcell.config.fields import Made, Setting, settings_of
from vcell.errors import UserError
from vcell.outputs.inputs import refuse_inputs

PROJECT = "vcell.project"  # key of ctx.meta under which the command line keeps the ProjectFile
ALL_HELP = "vcell.all_help"  # key of ctx.meta: show the further options as well
_DATA_PREFIX = "VCELL_DATA"


class _SettingType(click.ParamType[Any]):
    """Convert a word of the command line or environment; the file's values are checked already."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.base.__name__
        self.choices = setting.choices

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, list) and self.setting.many:  # given several times
            return tuple(item for word in value for item in self.convert(word, param, ctx))
        if not isinstance(value, str) or (
            self.setting.base is str and not self.setting.choices and not self.setting.many
        ):
            return value
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
    """An argument that names the file or folder which a command makes."""

    made: Made = "whole"


class SettingOption(click.Option):
    """A click option of one setting; reads VCELL_<COMMAND>_<KEY>, then VCELL_DATA_<KEY>."""

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
        """Let an option of several values be given several times, beside `a,b`."""
        self.multiple = self.setting.many
        super().add_to_parser(parser, ctx)
        self.multiple = False

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the lines of the help; nothing for a further option, unless all are asked for."""
        if self.further and not ctx.meta.get(ALL_HELP):
            return None
        every, former = self.opts, {f"--{key}" for key in self.setting.former}
        self.opts = [flag for flag in every if flag not in former]  # understood, not shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every

    def consume_value(self, ctx: click.Context, opts: Any) -> tuple[Any, ParameterSource]:
        """Join what a flag that is given several times names; each may name several itself."""
        value, source = super().consume_value(ctx, opts)
        if self.setting.many and source == ParameterSource.COMMANDLINE:
            value = tuple(one for text in value for one in self.type.convert(text, self, ctx))
        elif self.setting.many and isinstance(value, str):
            value = self.type.convert(value, self, ctx)
        return value, source

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a single value; several were, one by one."""
        return value if self.setting.many else super().type_cast_value(ctx, value)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """Return the variable as it is: commas divide it, not blanks."""
        return self.resolve_envvar_value(ctx)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Look in the environment."""
        name = environment_name(self.setting, ctx.auto_envvar_prefix)
        return os.environ[name] if name else None


def environment_name(setting: Setting, prefix: str | None) -> str | None:
    """Return the variable that sets `setting` now, or None where none does."""
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
    """Give a click command the options that `config` declares; it receives them as ``config=``.

    Of a command with very many, ``--help`` shows those named in `first`, in that order, and
    ``--help-all`` shows them all, under the `heading` that the class that declares them may have.

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
        # click keeps decorator-made parameters in reverse order
        call.__click_params__ = params + options[::-1]  # type: ignore[attr-defined]
        return call

    return decorate


def _refuse_missing(settings: tuple[Setting, ...], values: dict[str, Any]) -> None:
    """Refuse files to be read that are not there, before anything is done."""
    if values.get("resume"):
        return  # what a run was started with has been read
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
    """Refuse outputs that are inputs, under any name or link, before anything is done.

    What a path is for is said where it is declared, so that no command can forget this. A folder
    of runs is both: it is looked into, and runs are put there.
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
        inputs.append(cells)  # whatever the command: they are never written to
    for target, made in every:
        if made:
            refuse_inputs(target, inputs, into=made == "into")


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)  # not AnnData in memory


def _help_all(count: int) -> click.Option:
    """Return the option that shows them all."""

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
    for heading, records in (options, *inherited[::-1]):  # what is nearest to the command first
        with formatter.section(heading):
            formatter.write_dl(records)
    return formatter.getvalue().rstrip("\n")


def provenance(ctx: click.Context | None = None) -> dict[str, str]:
    """Say for each setting of the running command where its value came from."""
    ctx = ctx or click.get_current_context()
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
    """Whether a setting of the running command comes from [data], which is for all commands."""
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
    """Return the cells of the project that the running command is part of, if it names any."""
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
