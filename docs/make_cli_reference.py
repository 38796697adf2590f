"""Write docs/cli.md from the commands themselves: ``python docs/make_cli_reference.py [--check]``.

A test runs it with --check, so the reference cannot fall behind the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from vcell import cli
from vcell.config.options import ALL_HELP, grouped_help

TARGET = Path(__file__).with_name("cli.md")
_HEAD = """\
# Command reference

Made from the commands' own `--help` by `python docs/make_cli_reference.py`; do not edit by hand.
`--json`, `--quiet`, `--verbose` and `--help` work on every command and are left out below.
"""
_EVERYWHERE = {"as_json", "quiet", "verbose"}


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield every command's path and its help text, depth first."""
    shown = [p for p in command.params if p.name not in _EVERYWHERE]
    command.params, kept = shown, command.params
    several = any("--help-all" in p.opts for p in shown)
    text = grouped_help(context) if several else command.get_help(context)
    yield context.command_path, text
    command.params = kept
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            options = {"auto_envvar_prefix": None, "max_content_width": 100, "terminal_width": 100}
            yield from walk(sub, click.Context(sub, parent=context, info_name=name, **options))


def reference() -> str:
    """Return the whole page."""
    # every option, also of commands whose --help shows the first ones
    root = click.Context(
        cli.cli, info_name="vcell", help_option_names=[], max_content_width=100, terminal_width=100
    )
    root.meta[ALL_HELP] = True
    parts = [f"## {path}\n\n```text\n{text.rstrip()}\n```\n" for path, text in walk(cli.cli, root)]
    return "\n".join([_HEAD, *parts])


def main() -> None:
    """Write the page, or with --check say whether it is current."""
    text = reference()
    if "--check" in sys.argv[1:]:
        current = TARGET.is_file() and TARGET.read_text() == text
        sys.exit(
            0 if current else "docs/cli.md is out of date: run python docs/make_cli_reference.py"
        )
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
