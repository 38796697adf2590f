"""A command that launches the worker: python run_it.py MODE [launch options as name=value]."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from vcell import cli
from vcell.launch import LaunchOptions, join_run, launch, make_plan, resume_run
from vcell.runs import Run, process

if "HOST_OF_TESTS" in os.environ:  # another machine, which shares this one's files
    platform.node = lambda: os.environ["HOST_OF_TESTS"]
    process.socket = SimpleNamespace(gethostname=platform.node)  # torch asks for the real one


@click.command()
@click.argument("mode")
@click.argument("words", nargs=-1)
def launch_it(mode: str, words: tuple[str, ...]) -> None:
    given: dict[str, Any] = dict(word.split("=", 1) for word in words)
    for name in ("procs", "nodes"):
        if name in given:
            given[name] = int(given[name])
    resumed = given.pop("resume", None)
    plan = make_plan(LaunchOptions(**given))

    def create(name: str | None) -> Run:
        return Run.create("runs", "toy", config={"mode": mode}, name=name)

    if resumed:
        run = Run.open(resumed)
        plan = resume_run(run, plan)
    else:
        run, plan = join_run(Path("runs"), plan, create)
    launch("worker_for_tests:work", run, plan)


cli.cli.add_command(launch_it, "launch-it")
cli.VcellGroup.get_command = lambda self, ctx, name: launch_it
cli.VcellGroup.list_commands = lambda self, ctx: ["launch-it"]
cli.main(["launch-it", *sys.argv[1:]])
