"""With ``--json`` stdout is one JSON document, whether a command succeeds or not."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.outputs.test_every_command import every_command
from tests.outputs.test_every_end import BY_DEFAULT, WRITES, run_of
from tests.support import in_this_process, shortly
from vcell.outputs import aside

if TYPE_CHECKING:
    from tests.support import Ran

#: Commands that write nothing, or only what they are told to by another option.
SHOWS = {
    "completion": ("completion", "bash"),
    "config check": ("config", "check"),
    "config schema": ("config", "schema"),
    "config show": ("config", "show"),
    "doctor": ("doctor",),
    "evaluate": ("evaluate", "cells.h5ad", "cells.h5ad"),
    "gpu-tune status": ("gpu-tune", "status"),
    "inspect": ("inspect", "cells.h5ad"),
    "isp compare": ("isp", "compare", "{isp}", "{isp}"),
    "monitor": ("monitor", "--once", "--runs", "runs"),
    "monitor of a run": ("monitor", "--once", "{train-vcc}"),
    "pipeline status": ("pipeline", "status"),
    "plugins": ("plugins",),
    "plugins check": ("plugins", "check", "de"),
    "report": ("report", "{train-vcc}"),
    "runs compare": ("runs", "compare", "{train-vcc}", "{train-vcc}"),
    "runs list": ("runs", "list", "--runs", "runs"),
    "runs list of nothing": ("runs", "list", "--runs", "nothing"),
    "runs rm": ("runs", "rm", "gone", "--runs", "runs", "--yes"),
    "runs show": ("runs", "show", "{train-vcc}"),
    "select-genes": ("select-genes", "cells.h5ad", "--n-genes", "50"),
}
#: Commands that make something in a way of their own.
MAKES_TOO = {
    "ablate": ("ablate", "{train-bulk}"),
    "config init": ("config", "init", "vcell.toml"),
    "init": ("init", "mine"),
}
#: What prints a line for each reading, until it is ended.
STREAMS = {"gpu-tune monitor"}


def document(ran: Ran) -> object:
    """Return the only JSON document of stdout."""
    assert "Traceback" not in ran.err
    found = json.loads(ran.out)
    assert ("error" in found and "exit_code" in found["error"]) == bool(ran.code), ran.out
    if ran.code:
        assert found["error"]["exit_code"] == ran.code
        assert found["error"]["message"]
    return found


def test_every_command_is_here():
    found = {" ".join(words) for words in (*SHOWS.values(), *MAKES_TOO.values(), *WRITES.values())}
    missing = {
        name for name, _ in every_command()
        if not any(words == name or words.startswith(f"{name} ") for words in found)
    }  # fmt: skip
    assert missing == STREAMS | {"gpu-tune apply", "gpu-tune find-optimal", "gpu-tune restore"}


@pytest.mark.parametrize(
    "name", shortly([*SHOWS, *MAKES_TOO], *(set(SHOWS) - {"isp compare", "doctor"}), "init")
)
def test_what_a_command_shows(folder, tmp_path, name):
    words = [run_of(word, folder) for word in (SHOWS | MAKES_TOO)[name]]
    for path in folder.glob("*.h5ad"):
        shutil.copy(path, tmp_path)
    document(in_this_process((*words, "--json"), tmp_path))


@pytest.mark.parametrize("name", shortly(WRITES, *BY_DEFAULT))
def test_what_a_command_writes(folder, tmp_path, name):
    words = [run_of(word, folder).replace("{}", str(tmp_path / "x")) for word in WRITES[name]]
    ran = in_this_process((*words, "--json"), folder)
    assert ran.code == 0, ran.err
    document(ran)


def test_every_wrong_word(tmp_path):
    for name, _ in every_command():
        for wrong in (("--no-such-option",), ("a", "b", "c", "d")):
            for words in ((*name.split(), *wrong, "--json"), ("--json", *name.split(), *wrong)):
                ran = in_this_process(words, tmp_path)
                assert ran.code in (0, 2), f"{words}: {ran.err}"
                document(ran)


@pytest.mark.parametrize("name", shortly(WRITES, *BY_DEFAULT))
def test_an_interrupt(folder, tmp_path, monkeypatch, name):
    words = [run_of(word, folder).replace("{}", str(tmp_path / "x")) for word in WRITES[name]]
    monkeypatch.setattr(aside, "_sync", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    ran = in_this_process((*words, "--json"), folder)
    assert ran.code == 130, ran.err
    document(ran)
