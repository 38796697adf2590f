"""The command in a real terminal: driven by keys, ended by signals, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitor import scene
from vcell.runs import Run

pytestmark = [
    pytest.mark.tui,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


class Terminal:
    """A terminal of a given size with a shell in it."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.name, self.folder = f"vcell-test-{os.getpid()}-{time.monotonic_ns()}", folder
        width, height = map(str, size)
        environment = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR")}
        environment |= {"LC_ALL": "C.UTF-8", "TERM": "screen-256color", "PS1": "$ ", "ENV": ""}
        # of another terminal, as some shells and job systems pass on; the true size counts
        environment |= {"COLUMNS": "80", "LINES": "24"}
        command = ["tmux", "-L", self.name, "-u", "-f", "/dev/null", "new-session", "-d"]
        subprocess.run(
            [*command, "-x", width, "-y", height, "/bin/sh"],
            check=True, cwd=folder, env=environment,
        )  # fmt: skip

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.name, *words], capture_output=True, text=True, check=True
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        for key in keys:
            self.tmux("send-keys", key)
            time.sleep(0.05)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def wait_for(self, *words: str, gone: str = "") -> str:
        """Wait until all words are on the screen, and `gone` is not."""
        for _ in range(600):
            page = self.screen()
            if all(word in page for word in words) and not (gone and gone in page):
                return page
            time.sleep(0.1)
        raise AssertionError(f"{words} did not come:\n{self.screen()}")

    def start(self, *words: str) -> None:
        program = f"{sys.executable} -m vcell monitor {' '.join(words)}"
        self.tmux("send-keys", program + "; echo ended 'with' $?", "Enter")

    def monitor(self) -> list[int]:
        """Return the processes of the monitor, the one that waits first."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        found, at = [], int(shell)
        while children := _children(at):
            at = children[0]
            found.append(at)
        return found

    @property
    def is_restored(self) -> bool:
        """Whether the shell's own screen, cursor and lack of mouse reports are back."""
        state = self.tmux(
            "display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"
        )
        return state.split() == ["0", "1", "0"]

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.name, "kill-server"], check=False, capture_output=True)


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path, (120, 40))
    yield found
    found.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """A run that another process writes, a step each 50 ms, until it is asked to stop."""
    code = """
import sys, time
from vcell.runs import Run
run = Run.create(sys.argv[1], "toy", config={"max_steps": 10_000}, monitor="gain")
print(run.path, flush=True)
for step in range(1, 10_000):
    run.log("metric", step=step, loss=1 / step, lr=1e-3)
    if step % 10 == 0:
        run.log("eval", step=step, gain=step / 100, best=True)
    if "stop" in run.requests():
        run.finish("interrupted", reason="stopped")
        break
    time.sleep(0.05)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "runs")], stdout=subprocess.PIPE, text=True
    ) as writer:
        yield Path(writer.stdout.readline().strip())
        writer.kill()


def test_a_run_is_watched_and_stopped_while_it_is_written(terminal, live):
    terminal.start("runs")
    page = terminal.wait_for("running", "loss", "gain")
    before = Run.open(live).last_step()
    terminal.type("Enter")
    page = terminal.wait_for("[2 run]", "step ", "of 10,000")
    terminal.type("5")
    terminal.wait_for("[5 logs]")
    terminal.type("2", "S")
    terminal.wait_for("S again: yes")
    assert Run.open(live).status() == "running"
    terminal.type("S")
    terminal.wait_for("stopped", gone="running")
    assert Run.open(live).last_step() > before
    terminal.type("q")
    page = terminal.wait_for("ended with 0")
    assert "[2 run]" not in page
    assert terminal.is_restored


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_terminal_is_restored_when_the_monitor_is_ended_or_killed(
    terminal, tmp_path, number, who
):
    scene.folder(tmp_path / "runs")
    terminal.start("runs")
    terminal.wait_for("[1 runs]", "80f1")
    processes = terminal.monitor()
    os.kill(processes[who], number)
    for _ in range(300):
        if terminal.is_restored and not any(Path(f"/proc/{pid}").exists() for pid in processes):
            break
        time.sleep(0.1)
    assert terminal.is_restored
    if number == signal.SIGKILL and who == 1:
        assert "error: the monitor was killed by SIGKILL; the runs go on" in terminal.screen()
    terminal.type("e", "c", "h", "o", " ", "s", "e", "e", "n", "Enter")  # what is typed is echoed
    terminal.wait_for("echo seen")


def test_a_run_is_replayed(terminal, tmp_path):
    path = scene.make_run(tmp_path / "runs", "old", began=scene.NOON - 400, status="done")
    scene.training(path, 1000, ended=scene.NOON)
    terminal.start("--replay", "old", "--speed", "60")
    terminal.wait_for("×60", "step ", "running")
    terminal.type("p")
    terminal.wait_for("the replay holds")
    # the replay's clock stands; what was due before may still be drawn
    held = terminal.wait_for("held ×60").split("×60")[1].split()[0]
    time.sleep(2.0)
    assert f"×60  {held}" in terminal.screen()
    terminal.type("p", ">", ">", ">", ">")
    terminal.wait_for("step 1,000 of 1,000", "done")
    terminal.type("c")
    terminal.wait_for("a replay takes no requests")
    terminal.type("q")
    terminal.wait_for("ended with 0")


@pytest.mark.parametrize(
    ("prepare", "words", "said"),
    [
        (None, "nowhere", "error: nowhere: there is no such folder"),
        ("empty", "runs", "error: runs holds no runs"),
        ("newer", "runs", "was written by a newer vcell (schema 99; this one reads 1)"),
        ("empty", "runs --filter 'lr>='", "error: --filter: lr>= lacks a value"),
        ("empty", "runs/nothing", "error: runs/nothing: there is no such folder"),
    ],
)
def test_what_cannot_be_watched_is_one_line_and_leaves_the_terminal_alone(
    terminal, tmp_path, prepare, words, said
):
    if prepare:
        (tmp_path / "runs").mkdir()
    if prepare == "newer":
        path = scene.make_run(tmp_path / "runs", "new", began=scene.NOON)
        meta = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(meta | {"schema": 99}))
    terminal.start(words)
    page = terminal.wait_for("ended with 2")
    assert said in page.replace("\n", "")
    assert "Traceback" not in page
    assert terminal.is_restored


@pytest.mark.slow
def test_a_real_training_is_paused_continued_and_stopped_from_the_monitor(
    terminal, tmp_path, vcell
):
    vcell("simulate", "cells.h5ad", "--cells", "1500", "--genes", "300", "--perturbations", "30")
    words = [sys.executable, "-m", "vcell", "train-vcc", "cells.h5ad", "--max-steps", "5000"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as trainer:
        while not list(tmp_path.glob("runs/*/events.jsonl")):
            assert trainer.poll() is None
            time.sleep(0.2)
        terminal.start("latest")
        terminal.wait_for("running", "of 5,000", "where a step goes", "forward")
        terminal.type("p")
        terminal.wait_for("paused")
        terminal.type("p")
        terminal.wait_for("running", gone="paused")
        terminal.type("S", "S")
        terminal.wait_for("stopped")
        terminal.type("5")
        terminal.wait_for("[5 logs]", "console", "training ended at step")
        terminal.type("q")
        terminal.wait_for("ended with 0")
        assert trainer.wait(60) == 130
    assert Run.open("latest", tmp_path / "runs").status() == "interrupted"
