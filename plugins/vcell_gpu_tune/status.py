"""The state and the limits of each card, read once or repeatedly. Nothing here writes to a card."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vcell import console, outputs
from vcell.errors import UserError
from vcell.gpu.hold import controls
from vcell.gpu.journal import Journal
from vcell.gpu.reading import open_card
from vcell_gpu_tune.cards import chosen

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.gpu.nvml import Device
    from vcell_gpu_tune import Cards, Follow

_SENTENCES = {
    "power cap": "the power cap slows it down",
    "locked clocks": "its clock is locked",
    "heat (software)": "heat holds it back",
    "heat (hardware)": "heat holds it back",
    "hardware slowdown": "the hardware slows it down",
    "power brake": "the power supply slows it down",
    "sync boost": "it keeps pace with other cards",
}


def run(config: Cards) -> None:
    """Show every card."""
    found = [describe(device) for device in chosen(config.gpu)]
    text = "\n\n".join(_text(card) for card in found)
    console.result({"gpus": found}, text)


def describe(device: Device) -> dict[str, Any]:
    """Return everything known of a card, for JSON."""
    with open_card(device.uuid) as card:
        reading = card.read().as_dict()
    found: dict[str, Any] = {"index": device.index, "uuid": device.uuid, "name": device.name}
    found |= {
        key: list(value) if isinstance(value, tuple) else value for key, value in reading.items()
    }
    found["reading"] = sentence(reading)
    if device.parent:
        return found | {"settable": False, "why": "a MIG instance has no settings of its own"}
    with controls([device.uuid]) as (control,):
        limits, entry = control.limits(), Journal(device.uuid).read()
        found |= {
            "power_limits_watts": limits.power,
            "default_watts": limits.default_power,
            "clocks_mhz": [limits.clocks[-1], limits.clocks[0]] if limits.clocks else None,
            "memory_clocks_mhz": list(limits.memory_clocks) or None,
            "users": control.users(),
            "settable": os.geteuid() == 0,  # a better test would have to write
            "set_by_vcell": None if entry is None else entry.wanted | {"state": entry.state},
        }
    return found


def sentence(reading: dict[str, Any]) -> str:
    """Describe a reading: what limits the card, or that it is idle."""
    reasons = [_SENTENCES[name] for name in reading.get("throttle") or () if name in _SENTENCES]
    watts, cap, busy = (reading.get(k) for k in ("watts", "enforced_cap_watts", "utilisation"))
    if watts is None:
        return "the driver does not report its power draw"
    drawn = f"draws {watts:.0f} W" + (f" of {cap:.0f}" if cap else "")
    if busy is not None:
        drawn += f" at {busy} % busy"
    if reasons:
        return f"{drawn}: {' and '.join(dict.fromkeys(reasons))}"
    if busy and cap and busy > 90 and watts < 0.6 * cap:
        return f"{drawn}: it waits for memory or for data, a lower clock costs little"
    return drawn


def _text(card: dict[str, Any]) -> str:
    unknown = "not reported"
    power, clocks = card.get("power_limits_watts"), card.get("clocks_mhz")
    used, total = card.get("memory_bytes"), card.get("memory_total_bytes")
    users = ", ".join(map(str, card.get("users") or [])) or "nobody"
    energy = (
        f"{card['energy_j'] / 1000:,.0f} kJ since the driver began"
        if "energy_j" in card
        else unknown
    )
    settable = "by you" if card.get("settable") else "by root only"
    memory = (
        unknown
        if used is None
        else f"{console.bytes_text(used)} of {console.bytes_text(total or 0)}"
    )
    rows = [
        ("now", card["reading"]),
        ("power cap", f"{card.get('cap_watts', unknown)} W as set"),
        ("enforced", f"{card.get('enforced_cap_watts', unknown)} W"),
        ("allowed", unknown if not power else f"{power[0]:g} to {power[1]:g} W"),
        ("clock", f"{card.get('mhz', unknown)} MHz" + (f" of {clocks[1]}" if clocks else "")),
        ("temperature", f"{card.get('celsius', unknown)} degrees"),
        ("held back by", ", ".join(card.get("throttle") or []) or "nothing"),
        ("energy", energy),
        ("memory", memory),
        ("used by", users),
        ("can be set", card.get("why") or settable),
        (
            "set by vcell",
            json.dumps(card["set_by_vcell"]) if card.get("set_by_vcell") else "nothing",
        ),
    ]
    return f"GPU {card['index']}  {card['name']}  {card['uuid']}\n{console.table(rows, ('', ''))}"


def follow(config: Follow) -> None:
    """Print readings until interrupted."""
    if config.log_file is not None:
        _may_append(config.log_file)
    cards, done = chosen(config.gpu), 0
    try:
        log = config.log_file.open("a", encoding="utf-8") if config.log_file else None
    except OSError as error:
        raise UserError(f"{config.log_file} cannot be written: {error.strerror}") from None
    with suppress(KeyboardInterrupt):
        while True:
            for device in cards:
                with open_card(device.uuid) as card:
                    reading = card.read().as_dict()
                line = {"t": round(time.time(), 3), "gpu": device.index, **reading}
                if log is not None:
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                shown = (
                    json.dumps(line)
                    if console.settings.json
                    else f"GPU {device.index} {sentence(reading)}"
                )
                click_echo(shown)
            done += 1
            if config.readings and done >= config.readings:
                break
            time.sleep(config.interval)
    if log is not None:
        log.close()


def _may_append(path: Path) -> None:
    """Refuse a file with anything other than such readings."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            valid = file.read(6) == b'{"t": '
        if valid:
            return
        raise UserError(
            f"{path} holds no readings of vcell gpu-tune, so nothing is appended to it",
            hint="give another name, or remove it yourself",
        )
    outputs.check(path, overwrite=True)


def click_echo(text: str) -> None:
    """Print one line of a stream immediately."""
    import click

    click.echo(text)
