"""The command line as a whole: what it prints where, and with which exit code it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import vcell as package
from tests.support import PATIENCE, clean_environment
from vcell.plugin import CORE_COMMANDS, discover


def test_version(vcell):
    assert vcell("--version").out == f"vcell {package.__version__}\n"


def test_help_lists_every_command_with_its_summary(vcell):
    text = vcell("--help").out
    for name in (*CORE_COMMANDS, *discover().plugins):
        assert f"\n  {name} " in text


@pytest.mark.parametrize("words", [["init"], ["doctor"], ["plugins"], ["config", "show"]])
def test_core_commands_teach_with_an_example(vcell, words):
    """Plugins are held to the same by `vcell plugins check`."""
    assert "Example: vcell " in vcell(*words, "--help").out


def test_an_unknown_command_gets_a_suggestion(vcell):
    ran = vcell("confg")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[0] == "error: vcell has no command 'confg' (did you mean config?)"


def test_an_unknown_option_is_one_line_and_exit_code_2(vcell):
    ran = vcell("doctor", "--jsn")
    assert ran.code == 2
    assert ran.err.startswith("error: No such option '--jsn'")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "words",
    ["inspect CELLS", "de CELLS -o de.csv", "evaluate a.h5ad CELLS --quiet", "runs show CELLS",
     "predict --json CELLS -o x.h5ad", "convert a.h5ad CELLS"],
)  # fmt: skip
def test_an_argument_of_an_unset_variable_is_not_the_current_folder(vcell, words):
    ran = vcell(*("" if word == "CELLS" else word for word in words.split()))
    assert ran.code == 2
    assert f"an argument of vcell {words.split()[0]} is empty" in ran.err + ran.out
    assert "a shell variable that is not set" in ran.err + ran.out


def test_an_output_of_an_unset_variable_is_not_the_current_folder(vcell):
    ran = vcell("de", "a.h5ad", "-o", "")
    assert ran.code == 2
    assert "is empty; is a shell variable not set?" in ran.err


def test_global_options_stand_before_or_after_the_command(vcell):
    assert vcell("--json", "plugins").json == vcell("plugins", "--json").json


def test_config_and_no_config_contradict_each_other(vcell, tmp_path):
    ran = vcell("--config", tmp_path / "a.toml", "--no-config", "config", "show")
    assert ran.code == 2
    assert "contradict" in ran.err


def test_a_reader_that_stops_early_is_no_error(vcell, tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m vcell config schema | head -n 1",
        shell=True,
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(vcell, shell):
    ran = vcell("completion", shell)
    assert ran.code == 0
    assert "_VCELL_COMPLETE" in ran.out


def test_bash_accepts_the_completion_script(vcell, tmp_path):
    script = tmp_path / "vcell.bash"
    script.write_text(vcell("completion", "bash").out)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_an_interrupt_ends_with_130(tmp_path):
    """Ctrl-C in the middle of a command, from a real process group."""
    code = "from vcell import cli, console; import time\n"
    code += "cli._CORE['init'] = ('sleeper', '')\nimport sys, types, click\n"
    code += "m = types.ModuleType('sleeper'); sys.modules['sleeper'] = m\n"
    code += "sleep = lambda: (print('up', flush=True), time.sleep(3600))\n"
    code += "m.init = click.Command('init', callback=sleep)\n"
    code += "cli.main(['init'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted"


def test_a_folder_that_cannot_be_written_is_one_line(vcell, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    ran = vcell("config", "init", tmp_path / "taken" / "vcell.toml")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 1


def test_doctor_reports_this_machine(vcell):
    ran = vcell("doctor", "--json")
    found = {finding["what"]: finding for finding in ran.json["findings"]}
    assert found["torch"]["state"] == "ok"
    assert found["Python"]["found"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert {"cores", "memory", "attention", "NVIDIA GPUs", "plugins"} <= set(found)
    assert ran.code == 0, [f for f in ran.json["findings"] if f["state"] == "MISSING"]


def test_examples_in_help_keep_their_lines(vcell):
    text = vcell("config", "show", "--help").out
    assert "\\b" not in text
    assert "\n  Example: vcell config show train-vcc\n" in text
