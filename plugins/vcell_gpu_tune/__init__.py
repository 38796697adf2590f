"""`vcell gpu-tune`: measure, set and restore the power limits and clocks of GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Cards:
    """The cards to use."""

    gpu: str = option("all", help="The card: its number, the beginning of its uuid, or all.")


@dataclass(frozen=True, kw_only=True)
class GpuTune(Cards):
    """Settings of `vcell gpu-tune apply`, the [gpu-tune] table."""

    power_limit: str | None = option(
        None, help="Watts (400) or a share of the card's maximum (60%)."
    )
    clock: int | None = option(None, help="Lock the clock at this many MHz.", minimum=1)
    memory_clock: int | None = option(
        None, help="Lock the memory clock at this many MHz.", minimum=1
    )
    temp_limit: int | None = option(
        None, help="Slow down at this temperature in degrees Celsius.", minimum=40, maximum=110
    )
    profile: str | None = option(
        None, help="Apply the profile that find-optimal wrote under this name."
    )
    core_offset: int = option(0, help="Not supported, must be 0: see docs/gpu-tune.md.")
    memory_offset: int = option(0, help="Not supported, must be 0: see docs/gpu-tune.md.")
    fan_curve_aggressive: bool = option(
        default=False, help="Not supported: vcell never controls fans."
    )
    auto_optimize: bool = option(
        default=False, help="Not supported: find-optimal measures, and apply sets what you chose."
    )
    safety_checks: bool = option(default=True, help="Cannot be switched off.")
    confirm: int = option(0, help="Restore after this many seconds unless confirmed.", minimum=0)
    shared: bool = option(default=False, help="Include cards that other processes are using.")
    yes: bool = option(default=False, help="Apply the plan; without it, the plan is only printed.")


@dataclass(frozen=True, kw_only=True)
class FindOptimal(Cards):
    """Settings of `vcell gpu-tune find-optimal`."""

    run: str = option("latest", help="The run whose training step is measured.")
    runs: Path = option(Path("runs"), help="The folder that holds the runs.")
    max_slowdown: str = option("3%", help="How much longer a step may take than now.")
    window: float = option(10.0, help="Seconds per measurement, at least 10.", minimum=10.0)
    repeats: int = option(3, help="Measurements of each setting, in random order.", minimum=3)
    steps: int = option(
        6, help="Number of clocks, and then of power limits, to try.", minimum=2, maximum=20
    )
    name: str = option("best", help="The profile to write: gpu-profiles/NAME.json.")
    seed: int = option(0, help="The seed of the order.", minimum=0)
    overwrite: bool = option(default=False, help="Replace an earlier profile of this name.")
    shared: bool = option(default=False, help="Measure even if other processes are using the card.")
    yes: bool = option(default=False, help="Measure; without it, the plan is only printed.")


@dataclass(frozen=True, kw_only=True)
class Follow(Cards):
    """Settings of `vcell gpu-tune monitor`."""

    interval: float = option(1.0, help="Seconds between two readings.", minimum=0.1)
    log_file: Path | None = option(
        None, made="whole", help="Append every reading to this file, as JSON lines."
    )
    readings: int = option(0, help="Stop after this many readings; 0: never.", minimum=0)


@click.group("gpu-tune")
@click.pass_context
def command(ctx: click.Context) -> None:
    r"""Show the power draw of GPUs; find, set and restore energy-saving settings.

    status and monitor only read and need no special rights. Commands that change settings need
    root, print their plan, and write only with --yes. Earlier settings are journalled first and
    restored after errors, signals and kill -9.

    \b
    Example:
      vcell gpu-tune status
      vcell gpu-tune find-optimal --run latest --max-slowdown 3%
      vcell gpu-tune apply --power-limit 60% --clock 1500 --confirm 60 --yes
      vcell gpu-tune restore
    """
    table: Any = ctx.default_map or {}  # [gpu-tune] has no subtables; `apply` reads it
    ctx.default_map = dict.fromkeys(command.commands, table)


@command.command("status")
@configured(Cards)
def status_command(config: Cards) -> None:
    r"""Show limits, clocks, locks, temperature, energy and users of each card. Needs no root.

    \b
    Example: vcell gpu-tune status --json
    """
    from vcell_gpu_tune.status import run

    run(config)


@command.command("apply")
@configured(GpuTune)
def apply_command(config: GpuTune) -> None:
    r"""Set power limit and clocks until `restore`, a reboot, or the time of --confirm is up.

    \b
    Example: vcell gpu-tune apply --power-limit 60% --confirm 60 --yes
    """
    from vcell_gpu_tune.apply import run

    run(config)


@command.command("restore")
@click.option("--all", "every", is_flag=True, help="Restore every card that vcell has changed.")
@configured(Cards)
def restore_command(*, every: bool, config: Cards) -> None:
    r"""Restore the settings that cards had before vcell changed them.

    \b
    Example: vcell gpu-tune restore --all
    """
    from vcell_gpu_tune.apply import restore_cards

    restore_cards(config, every=every)


@command.command("monitor")
@configured(Follow)
def monitor_command(config: Follow) -> None:
    r"""Print the state of the cards once a second, until Ctrl-C.

    \b
    Example: vcell gpu-tune monitor --log-file gpu.jsonl
    """
    from vcell_gpu_tune.status import follow

    follow(config)


@command.command("find-optimal")
@configured(FindOptimal)
def find_command(config: FindOptimal) -> None:
    r"""Measure the training step of a run at several clocks and power limits, and choose one.

    Every setting is measured several times in random order, between two measurements of the card as
    it is. The choice is the setting with the least energy per step within --max-slowdown.

    \b
    Example: vcell gpu-tune find-optimal --run latest --max-slowdown 3% --yes
    """
    from vcell_gpu_tune.find import run

    run(config)


plugin = Plugin(
    name="gpu-tune",
    summary="Show, tune and restore power limits and clocks of GPUs.",
    command=command,
    config=GpuTune,
    needs=("pynvml",),
)
