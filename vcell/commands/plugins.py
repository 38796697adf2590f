"""``vcell plugins`` and ``vcell plugins check NAME``: list plugins, and check one."""

from __future__ import annotations

import json
import subprocess
import sys

import click

from vcell import console, plugin
from vcell.errors import UserError
from vcell.plugin import Broken, Plugin
from vcell.suggest import did_you_mean


@click.group(invoke_without_command=True)
@click.pass_context
def plugins(ctx: click.Context) -> None:
    r"""List the commands that plugins bring, and check one.

    \b
    Example: vcell plugins check select-genes
    """
    if ctx.invoked_subcommand is not None:
        return
    discovery = plugin.discover()
    rows = [_describe(name) for name in discovery.plugins]
    columns = ["name", "state", "distribution", "version", "api", "summary"]
    text = console.table([[row[c] for c in columns] for row in rows], columns)
    console.result({"plugins": rows, "problems": list(discovery.problems)}, text)
    for problem in discovery.problems:
        console.warn(problem)


def _describe(name: str) -> dict[str, object]:
    found, loaded = plugin.discover().plugins[name], plugin.load(name)
    row: dict[str, object] = {
        "name": name,
        "distribution": found.distribution,
        "version": found.version,
    }
    if isinstance(loaded, Broken):
        return row | {"state": "broken", "api": None, "summary": loaded.reason}
    missing = plugin.missing_needs(loaded)
    state = f"needs {', '.join(missing)}" if missing else "ok"
    return row | {"state": state, "api": loaded.api, "summary": loaded.summary}


@plugins.command()
@click.argument("name")
@click.pass_context
def check(ctx: click.Context, name: str) -> None:
    """Check that a plugin follows the rules: loads fast, explains itself, round-trips its settings.

    Plugin authors can run this in their own tests; the exit code is 1 when a rule is broken.
    """
    known = plugin.discover().plugins
    if name not in known:
        raise UserError(
            f"no plugin is called {name!r}{did_you_mean(name, known)}",
            hint="vcell plugins lists them",
        )
    loaded = plugin.load(name)
    if isinstance(loaded, Broken):
        import traceback

        trace = "".join(traceback.format_exception(loaded.error))
        rules = [{"rule": "can be imported", "ok": False, "detail": loaded.reason}]
        console.result({"plugin": name, "rules": rules, "traceback": trace}, trace)
        console.error(f"{name}: {loaded.reason}")
        ctx.exit(1)
    rules = _rules(loaded)
    rows = [("ok" if r["ok"] else "BROKEN", r["rule"], r["detail"]) for r in rules]
    console.result({"plugin": name, "rules": rules}, console.table(rows, ["", "rule", "detail"]))
    if not all(r["ok"] for r in rules):
        ctx.exit(1)


def _rules(loaded: Plugin) -> list[dict[str, object]]:
    load = _measure_import(loaded.name)
    heavy = ", ".join(load["heavy"])
    missing = plugin.missing_needs(loaded)
    help_text = loaded.command.help or ""
    return [
        _rule("can be imported", ok=True, detail=plugin.discover().plugins[loaded.name].target),
        _rule("imports nothing heavy", ok=not heavy, detail=heavy or f"{load['ms']:.0f} ms"),
        _rule("the modules it needs are installed", ok=not missing, detail=", ".join(missing)),
        _rule("has a one-line summary", ok=_is_line(loaded.summary), detail=loaded.summary),
        _rule("explains itself", ok=bool(help_text.strip()), detail="--help with a docstring"),
        _rule("shows an example", ok="xample" in help_text, detail="a line with 'Example:'"),
        _settings_rule(loaded),
    ]


def _rule(rule: str, *, ok: bool, detail: str) -> dict[str, object]:
    return {"rule": rule, "ok": ok, "detail": detail}


def _is_line(text: str) -> bool:
    return 0 < len(text.strip()) <= 100 and "\n" not in text


def _settings_rule(loaded: Plugin) -> dict[str, object]:
    """Write the defaults as TOML, read them back, and compare; every setting needs a flag."""
    import tomllib

    from vcell.config import settings_of
    from vcell.config.options import SettingOption
    from vcell.config.write import toml_value

    rule = "settings round-trip through vcell.toml and have flags"
    if loaded.config is None:
        return _rule(rule, ok=True, detail="no settings")
    commands = [loaded.command]
    if isinstance(loaded.command, click.Group):  # its subcommands read the table
        commands += loaded.command.commands.values()
    params = [param for one in commands for param in one.params]
    flags = {param.setting.name for param in params if isinstance(param, SettingOption)}
    try:
        settings = settings_of(loaded.config)
        for setting in settings:
            if setting.default is not None:
                text = f"{setting.key} = {toml_value(setting.default)}"
                if setting.check(tomllib.loads(text)[setting.key]) != setting.default:
                    return _rule(rule, ok=False, detail=f"{setting.key} changes on the way")
            if setting.name not in flags:
                return _rule(rule, ok=False, detail=f"--{setting.key} is missing: use @configured")
        loaded.config()
    except (TypeError, ValueError) as error:
        return _rule(rule, ok=False, detail=str(error))
    return _rule(rule, ok=True, detail=f"{len(settings)} settings")


_PROBE = """
import json, sys, time
from vcell import plugin
start = time.process_time()
plugin.load({name!r})
spent = time.process_time() - start
heavy = {heavy!r}
print(json.dumps({{"ms": 1000 * spent, "heavy": [m for m in heavy if m in sys.modules]}}))
"""
# Modules that no plugin's `__init__` may import: each costs 0.1 to 3 seconds.
HEAVY = (
    *("numpy", "torch", "anndata", "h5py", "zarr", "numba", "pandas", "scipy"),
    *("rich", "textual", "pydantic", "matplotlib"),
)


def _measure_import(name: str) -> dict[str, list[str]]:
    """Import the plugin in a new process, and list the heavy modules that it imports."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(name=name, heavy=HEAVY)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found
