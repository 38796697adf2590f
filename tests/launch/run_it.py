"""A command that launches the worker: python run_it.py MODE [launch options as name=value]."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vcell import cli
from vcell.launch import LaunchOptions, join_run, launch, make_plan
from vcell.runs import Run


@click.command()
@click.argument("mode")
@click.argument("words", nargs=-1)
def launch_it(mode: str, words: tuple[str, ...]) -> None:
    given: dict[str, Any] = dict(word.split("=", 1) for word in words)
    for name in ("procs", "nodes"):
        if name in given:
            given[name] = int(given[name])
    plan = make_plan(LaunchOptions(**given))

    def create(name: str | None) -> Run:
        return Run.create("runs", "toy", config={"mode": mode}, name=name)

    run, plan = join_run(Path("runs"), plan, create)
    launch("worker_for_tests:work", run, plan)


cli.cli.add_command(launch_it, "launch-it")
cli.VcellGroup.get_command = lambda self, ctx, name: launch_it
cli.VcellGroup.list_commands = lambda self, ctx: ["launch-it"]
cli.main(["launch-it", *sys.argv[1:]])
