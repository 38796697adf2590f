"""Apply settings to cards after printing a plan, and restore them."""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError
from vcell.gpu import hold, profiles
from vcell.gpu.settings import CardSettings, Control
from vcell_gpu_tune.cards import chosen

if TYPE_CHECKING:
    from vcell_gpu_tune import Cards, GpuTune

_FEWEST_SHARE = 0.5  # of the maximum; lower limits slow a card down more than they save


def run(config: GpuTune) -> None:
    """Print the plan; with --yes, apply it."""
    _refuse(config)
    devices = chosen(config.gpu)
    for device in devices:
        if device.parent:
            raise UserError(
                f"{device.name} is a MIG instance; it has no settings of its own",
                hint="ask whoever shares the card, or switch MIG off",
            )
    with hold.controls([device.uuid for device in devices]) as cards:
        settings = {card.uuid: settings_for(config, card) for card in cards}
        plan = [
            {"gpu": d.index, "uuid": c.uuid, "name": c.name, "before": c.current().plain(),
             "set": settings[c.uuid].plain()}
            for d, c in zip(devices, cards, strict=True)
        ]  # fmt: skip
        lines = [
            f"GPU {d.index} {c.name}: {', '.join(settings[c.uuid].words())}"
            for d, c in zip(devices, cards, strict=True)
        ]
        for card in cards:
            card.check(settings[card.uuid])
    if not config.yes:
        text = "\n".join(["the plan (not carried out):", *lines, "add --yes to set it"])
        console.result({"plan": plan, "applied": False}, text)
        return
    with hold.holding(settings, shared=config.shared) as held:
        if config.confirm and not _confirmed(config.confirm):
            console.result(
                {"plan": plan, "applied": False}, "not confirmed in time; everything is restored"
            )
            return
        held.settle()
    locked = any(one.clocks or one.memory_clocks for one in settings.values())
    note = ["a lock of clocks cannot be read back: vcell gpu-tune monitor shows it under load"]
    text = "\n".join(
        ["set:", *lines, *(note if locked else []), "vcell gpu-tune restore undoes it"]
    )
    console.result({"plan": plan, "applied": True}, text)


def _refuse(config: GpuTune) -> None:
    """Refuse what NVML cannot do, and suggest the nearest alternative."""
    nearest = "a lower --power-limit with a locked --clock does what an undervolt is wanted for"
    if config.core_offset or config.memory_offset:
        raise UserError(
            "clock offsets are not supported: data-centre cards have none, and on others they can "
            "crash the machine or corrupt results unnoticed",
            hint=nearest,
        )
    if config.fan_curve_aggressive:
        raise UserError(
            "vcell never touches fans: a wrong curve can damage a card",
            hint="--temp-limit or a lower --power-limit keeps it cooler",
        )
    if config.auto_optimize:
        raise UserError(
            "auto-optimize is refused: a setting is measured before it is chosen",
            hint="vcell gpu-tune find-optimal --run latest, then apply --profile best",
        )
    if not config.safety_checks:
        raise UserError("safety checks cannot be switched off", hint="remove safety-checks = false")


def settings_for(config: GpuTune, card: Control) -> CardSettings:
    """Return the settings of one card."""
    settings = profiles.read(config.profile, card) if config.profile else CardSettings()
    values = settings.plain()
    if config.power_limit is not None:
        values["power_limit"] = _watts(config.power_limit, card)
    if config.clock is not None:
        values["clocks"] = (config.clock, config.clock)
    if config.memory_clock is not None:
        values["memory_clocks"] = (config.memory_clock, config.memory_clock)
    if config.temp_limit is not None:
        values["temp_limit"] = config.temp_limit
    if not values:
        raise UserError(
            "no setting was named",
            hint="vcell gpu-tune apply --power-limit 60%, or a [gpu-tune] table in vcell.toml",
        )
    return CardSettings.of(values)


def _watts(text: str, card: Control) -> float:
    """Parse watts, or a share of the card's maximum."""
    share = text.endswith("%")
    try:
        number = float(text.removesuffix("%").removesuffix("W"))
    except ValueError:
        raise UserError(f"{text!r} is not a power limit", hint="write 400 (watts) or 60%") from None
    power = card.limits().power
    if share and power is None:
        raise UserError(f"{card.name} does not report its maximum", hint="write watts")
    watts = float(round(number / 100 * power[1])) if share and power else number
    if power and watts < _FEWEST_SHARE * power[1]:
        console.warn(
            f"{watts:g} W is less than half of what {card.name} may draw; steps will be slow"
        )
    return watts


def _confirmed(seconds: int) -> bool:
    """Wait for the answer "yes"."""
    console.say(f"type yes within {seconds} s to keep it; anything else restores")
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and sys.stdin.readline().strip().lower() in ("y", "yes")


def restore_cards(config: Cards, *, every: bool) -> None:
    """Restore the earlier settings of cards."""
    uuids = None if every or config.gpu == "all" else [d.uuid for d in chosen(config.gpu)]
    if uuids is None:
        chosen("all")  # raises an error if there is no driver
    entries = hold.restore(uuids)
    lines = [
        f"{entry.name} ({entry.uuid}): {', '.join(CardSettings.of(entry.before).words())}"
        for entry in entries
    ]
    data = [{"uuid": entry.uuid, "restored": entry.before} for entry in entries]
    nothing = "every card has the settings it had before vcell"
    console.result({"restored": data}, "\n".join(["restored:", *lines]) if lines else nothing)
