"""``vcell config init|show|check|schema``: work with the project file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcell import console, outputs, plugin
from vcell.config import check as checks
from vcell.config import resolve as resolving
from vcell.config import toml
from vcell.config.write import toml_value
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.config.toml import ProjectFile


@click.group()
def config() -> None:
    """Show, check and write the project file vcell.toml."""


def plugin_configs() -> dict[str, type]:
    """Return the settings dataclass of every plugin that loads."""
    loaded = {name: plugin.load(name) for name in plugin.discover().plugins}
    return {
        name: found.config
        for name, found in loaded.items()
        if isinstance(found, plugin.Plugin) and found.config is not None
    }


def project_file(ctx: click.Context) -> ProjectFile | None:
    """Read the project file that a command would use here."""
    if ctx.meta.get("vcell.no_config"):
        return None
    path = ctx.meta.get("vcell.config_path") or toml.find()
    return toml.read(path) if path else None


@config.command()
@click.argument("command", required=False)
@click.pass_context
def show(ctx: click.Context, command: str | None) -> None:
    r"""Print every value and where it came from.

    \b
    Example: vcell config show train-vcc
    """
    configs = plugin_configs()
    if command is not None:
        if command not in configs:
            from vcell.suggest import did_you_mean

            hint = did_you_mean(command, configs)
            raise UserError(f"no command {command!r} has settings{hint}")
        configs = {command: configs[command]}
    file = project_file(ctx)
    rows, problems = [], []
    for name, dataclass in configs.items():
        resolved, found = resolving.resolve(name, dataclass, file)
        rows += resolved
        problems += found
    for problem in problems:
        console.warn(str(problem))
    data: dict[str, dict[str, object]] = {}
    for row in rows:
        data.setdefault(row.command, {})[row.setting.key] = {"value": row.value, "from": row.origin}
    text = console.table(
        [(f"[{r.command}]", r.setting.key, _shown(r.value), r.origin) for r in rows],
        ["command", "setting", "value", "from"],
    )
    console.say(f"project file: {toml.shown_path(file.path) if file else 'none'}")
    console.result(data, text)


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return toml_value(value)
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else value


@config.command()
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check the project file and the environment, and list every mistake."""
    file = project_file(ctx)
    configs = plugin_configs()
    problems = resolving.unknown_variables(configs)
    if file:
        problems += checks.check_table_names(file, plugin.discover().plugins)
    for name, dataclass in configs.items():
        problems += resolving.resolve(name, dataclass, file)[1]
    unique = list(dict.fromkeys(map(str, problems)))  # [data] is read by several commands
    where = toml.shown_path(file.path) if file else None
    text = "" if unique else (f"{where}: no mistakes found" if where else "no project file here")
    console.result({"file": where, "problems": unique}, text)
    if unique and not console.settings.json:
        raise UserError("\n".join(unique))
    if unique:
        ctx.exit(UserError.exit_code)


@config.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(*, path: Path | None, force: bool) -> None:
    r"""Write a commented vcell.toml with every setting at its default.

    \b
    Example: vcell config init
    """
    from vcell.config.write import template

    target = path or Path(toml.FILE_NAME)
    if target.is_dir():
        target /= toml.FILE_NAME
    outputs.check(target, overwrite=force, flag="--force", suffixes=(".toml",))
    outputs.write_text(target, template(plugin_configs()))
    console.result({"written": str(target)}, f"wrote {target}")


@config.command()
def schema() -> None:
    r"""Print the JSON Schema of vcell.toml, for editors that complete and check TOML.

    \b
    Example: vcell config schema > vcell.schema.json
    """
    import json

    from vcell.config.write import schema as make

    click.echo(json.dumps(make(plugin_configs()), indent=2))
