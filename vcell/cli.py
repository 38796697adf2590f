"""The `vcell` command: global options, commands loaded on demand, errors as exit codes.

Exit codes: 0 done, 1 the run failed, 2 something the user can fix, 130 interrupted. Run it as
``vcell`` or ``python -m vcell``.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vcell import __version__, compiling, console, help_text, plugin
from vcell.config.options import PROJECT, SettingOption, environment_name
from vcell.errors import UserError, VcellError
from vcell.plugin import Broken
from vcell.signals import ended_by_signals, forget_interrupt, raise_if_interrupted

INTERRUPTED = 130

_CORE = {
    "completion": (
        "vcell.commands.completion",
        "Print the script that completes vcell commands in your shell.",
    ),
    "config": ("vcell.commands.config", "Show, check and write the project file vcell.toml."),
    "doctor": (
        "vcell.commands.doctor",
        "Show what this machine has, and how to get what is missing.",
    ),
    "init": ("vcell.commands.init", "Create a project folder with a commented vcell.toml."),
    "plugins": ("vcell.commands.plugins", "List the commands that plugins bring, and check one."),
    "runs": ("vcell.commands.runs", "List, show, compare and remove runs."),
}


class VcellGroup(click.Group):
    """Commands of the core and of plugins, each imported on demand."""

    context_class = help_text.FittedContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List all commands without importing them."""
        return sorted({*_CORE, *plugin.discover().plugins})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name in _CORE:
            module, _ = _CORE[cmd_name]
            command: click.Command = getattr(import_module(module), cmd_name)
        elif cmd_name in plugin.discover().plugins:
            loaded = plugin.load(cmd_name)
            command = _broken_command(loaded) if isinstance(loaded, Broken) else loaded.command
        else:
            return None
        return _with_common_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raise for an unknown command, with a suggestion."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            from vcell.suggest import did_you_mean

            hint = did_you_mean(name, self.list_commands(ctx))
            raise UserError(
                f"vcell has no command {name!r}{hint}", hint="vcell --help lists the commands"
            )
        found = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing and not {"--help", "-h"}.intersection(args):
            _refuse_empty(found[1], args)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Read the project file for the command about to run, then run it."""
        _read_global_options(ctx)
        words = [*ctx._protected_args, *ctx.args]
        if words and not any(word in ("--help", "-h") for word in words):
            _prepare(ctx, words[0])
        return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List plugins' commands first, the core's second, and broken ones last."""
        from vcell.summaries import summaries

        for problem in plugin.discover().problems:
            console.warn(problem)
        plugins = summaries()
        working = [(name, text) for name, text in plugins.items() if isinstance(text, str)]
        broken = [
            (f"{name} {console.spelt('†')}", f"could not be loaded: {b.reason}")
            for name, b in plugins.items()
            if isinstance(b, Broken)
        ]
        for title, rows in (
            ("Commands", working),
            ("Housekeeping", [(name, summary) for name, (_, summary) in _CORE.items()]),
            ("Broken plugins (vcell plugins check NAME shows more)", broken),
        ):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _broken_command(broken: Broken) -> click.Command:
    """Return a command in place of a plugin that cannot be imported: it says why."""
    name = broken.found.name

    @click.command(
        name,
        help=f"This command could not be loaded: {broken.reason}",
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("anything", nargs=-1)
    def command(anything: tuple[str, ...]) -> None:
        plugin.get(name)

    return command


def _set_common(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if param.name == "as_json" and value:
        console.settings.json = True
    elif param.name == "quiet" and value:
        console.settings.verbosity = console.QUIET
    elif param.name == "verbose" and value:
        console.settings.verbosity = console.VERBOSE


def _common_options() -> list[click.Option]:
    """Return the options that are allowed before and after the command."""
    shared: dict[str, Any] = {
        "is_flag": True,
        "expose_value": False,
        "callback": _set_common,
        "allow_from_autoenv": False,
    }
    return [
        click.Option(["--json", "as_json"], help="Print the result as JSON.", **shared),
        click.Option(["-q", "--quiet"], help="Print only results and problems.", **shared),
        click.Option(["-v", "--verbose"], help="Print more.", **shared),
    ]


def _with_common_options(command: click.Command) -> click.Command:
    command.help = help_text.prepared(command.help or "")
    command.context_class = help_text.FittedContext
    names = {param.name for param in command.params}
    command.params.extend(option for option in _common_options() if option.name not in names)
    if isinstance(command, click.Group):
        for sub in command.commands.values():
            _with_common_options(sub)
    return command


def _refuse_empty(command: click.Command | None, words: list[str]) -> None:
    """Raise for an empty argument, which as a path would be the current folder."""
    options = [p for p in command.params if isinstance(p, click.Option)] if command else []
    taking = {flag for option in options if not option.is_flag for flag in option.opts}
    for before, word in pairwise(words):
        if not word.strip() and before not in taking:
            raise UserError(
                f"an argument of vcell {words[0]} is empty",
                hint="a shell variable that is not set becomes an empty argument",
            )


def _prepare(ctx: click.Context, name: str) -> None:
    """Check the plugin and its table in the project file, and pass the table's values to click."""
    for problem in plugin.discover().problems:
        console.warn(problem)
    if name in _CORE or name not in plugin.discover().plugins:
        return
    from vcell.config import check, toml

    loaded = plugin.get(name)
    plugin.require(loaded)
    path = ctx.meta.get("vcell.config_path") or (
        None if ctx.meta.get("vcell.no_config") else toml.find()
    )
    if path is None or loaded.config is None:
        return
    file = toml.read(path)
    problems = check.check_table_names(file, plugin.discover().plugins)
    values, own = check.values_for(file, name, loaded.config)
    check.raise_if_any(problems + own)
    ctx.meta[PROJECT] = file
    ctx.default_map = {name: values}
    console.detail(f"settings from {toml.shown_path(path)}")


@click.group(
    cls=VcellGroup,
    context_settings={
        "auto_envvar_prefix": "VCELL",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Start with: vcell demo. Settings live in vcell.toml; vcell config init writes one.",
)
@click.option(
    "--config",
    "config_path",
    metavar="PATH",
    envvar="VCELL_CONFIG",
    type=click.Path(),
    help="Use this project file instead of the nearest vcell.toml.",
)
@click.option("--no-config", is_flag=True, help="Use no project file.")
@click.version_option(__version__, message="vcell %(version)s")
@click.pass_context
def cli(ctx: click.Context, *, config_path: str | None, no_config: bool) -> None:
    """From raw single-cell counts to a scored virtual-cell result."""


cli.params.extend(_common_options())


def _read_global_options(ctx: click.Context) -> None:
    config_path, no_config = ctx.params.get("config_path"), ctx.params.get("no_config")
    sources = [ctx.get_parameter_source(name) for name in ("config_path", "no_config")]
    if config_path and no_config and sources[0] is not sources[1]:  # the command line wins
        no_config = sources[1] is ParameterSource.COMMANDLINE
        config_path = None if no_config else config_path
    if config_path and no_config:
        raise UserError("--config and --no-config contradict each other", hint="give one of them")
    ctx.meta["vcell.config_path"] = Path(config_path) if config_path else None
    ctx.meta["vcell.no_config"] = bool(no_config)


def main(args: list[str] | None = None) -> None:
    """Run vcell and exit with its code."""
    # Most early allocations are modules, which live to the end: the usual garbage collection takes
    # a tenth of the start-up time.
    gc.set_threshold(50_000, 20, 50)
    # numpy requests pages of 2 MiB, which virtual machines return to their host: getting them again
    # costs 5 to 8 ms per MiB there, pages of 4 KiB .6 ms (docs/decisions.md).
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    # Idle threads of OpenBLAS look for work in a loop, each .03 s after it was loaded and after
    # every operation. 2^20 cycles are .0004 s.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    compiling.listener = _say_compiling
    code = run(args)
    if code == INTERRUPTED:  # silence errors of half-open files that are closed only now
        sys.unraisablehook = lambda _: None
        forget_interrupt()
    # Python's last garbage collection takes .15 s; the system frees all memory anyway
    gc.freeze()
    sys.exit(code)


def _say_compiling() -> None:
    console.say(
        "compiling kernels for this machine, once: a few seconds "
        "(vcell doctor --compile does it for all commands)"
    )


def run(args: list[str] | None = None) -> int:
    """Run vcell and return its exit code; the user's mistakes never show a traceback."""
    console.prepare()
    try:
        with ended_by_signals():
            return _run(args)
    except KeyboardInterrupt as signal:  # Ctrl-C, or SIGTERM by `ended_by_signals`
        by = f" by {signal.args[0]}" if signal.args and signal.args[0] else ""
        console.error(f"interrupted{by}", code=INTERRUPTED)
        _let_go(signal)
        return INTERRUPTED


def _let_go(interrupt: KeyboardInterrupt) -> None:
    """Drop the interrupted work; silence errors of half-open files."""
    import traceback

    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        # Errors that were being handled when the signal came hold frames of their own.
        error: BaseException | None = interrupt
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
    finally:
        sys.unraisablehook = hook


def _run(args: list[str] | None) -> int:
    try:
        code = cli.main(args, prog_name="vcell", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except VcellError as error:
        _interrupted_before(error)
        console.error(error.message, error.hint, code=error.exit_code)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:  # `vcell`, `vcell runs`
        click.echo(error.ctx.get_help() if error.ctx else "")
        return 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "vcell"
        text, hint = _usage(error), f"{command} --help shows how it is used"
        # an incomplete parse may not have set it yet
        console.settings.json |= "--json" in (sys.argv if args is None else args)
        console.error(text, hint, code=UserError.exit_code)
        return UserError.exit_code
    except click.ClickException as error:
        console.error(error.format_message(), code=UserError.exit_code)
        return UserError.exit_code
    except click.Abort as abort:  # click's form of an interrupt; its cause names the signal
        raise abort.__cause__ or KeyboardInterrupt from None
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        console.discard()
        return 0
    except OSError as error:
        _interrupted_before(error)
        return _os_error(error)
    except Exception as error:  # noqa: BLE001 - unexpected errors, shown with a traceback
        _interrupted_before(error)
        return _bug()


def _interrupted_before(error: BaseException) -> None:
    """Raise an interrupt that another error, such as of closing a file, has hidden."""
    raise_if_interrupted()
    cause = error.__context__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        cause = cause.__context__


def _usage(error: click.UsageError) -> str:
    """Name the variable, not the flag, if a wrong value came from the environment."""
    text = " ".join(error.format_message().split())  # click lists choices on lines of their own
    ctx, param = error.ctx, getattr(error, "param", None)
    if ctx is None or not isinstance(param, SettingOption):
        return text
    if ctx.get_parameter_source(param.name or "") is not ParameterSource.ENVIRONMENT:
        return text
    name = environment_name(param.setting, ctx.auto_envvar_prefix)
    return f"Invalid value of the variable {name}: {error.message}"


def _bug() -> int:
    """Show the traceback of an unexpected error."""
    import traceback

    traceback.print_exc()
    console.error(f"this is a bug in vcell {__version__}", "report it with the lines above", code=1)
    return 1


def _os_error(error: OSError) -> int:
    """Explain the failures of files and disks that no command explained better."""
    user_can_mend = {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }
    from vcell.outputs.aside import FULL, room

    if error.errno not in user_can_mend.union(FULL):
        return _bug()
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in user_can_mend:
        console.error(f"{where}{error.strerror}", code=UserError.exit_code)
        return UserError.exit_code
    console.error(f"{where}{room(error)}", code=1)
    return 1
