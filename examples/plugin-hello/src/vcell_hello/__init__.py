"""The entry point of the hello plugin: settings, command, Plugin object. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass

import click

from vcell.config import DataOptions, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Hello(DataOptions):
    """Settings: the [hello] table of vcell.toml; each field is also an option and a variable."""

    greeting: str = option("Hello", help="The word to greet with.")
    most: int = option(5, help="How many perturbations to name.", minimum=1)


@click.command("hello")
@configured(Hello)
def command(config: Hello) -> None:
    r"""Greet the perturbations of a file, those with most cells first.

    \b
    Example: vcell hello --cells screen.h5ad --most 3
    """
    from vcell_hello.work import greet  # the heavy imports are in there

    greet(config)


plugin = Plugin(
    name="hello",
    summary="Greet the perturbations of a file.",
    command=command,
    config=Hello,
    needs=("numpy", "h5py"),
)
