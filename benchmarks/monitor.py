"""The cost of the monitor, in CPU seconds of whole processes and of single frames.

    python benchmarks/monitor.py                  # everything, five minutes
    python benchmarks/monitor.py --only once paint

Each figure is printed with its limit; the exit code is 1 if one is above it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

BIG = 200_000  # steps
_results: list[tuple[str, float, float, str]] = []


def main() -> None:
    """Run the checks and compare them with their limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in chosen.only:
            CHECKS[name](root, chosen.repeats)
    print(f"\n{'what':<58}{'found':>10}{'limit':>10}")
    for what, found, limit, unit in _results:
        above = "" if found <= limit else "  ABOVE"
        print(f"{what:<58}{found:>7.3g} {unit:<3}{limit:>6g} {unit}{above}")
    raise SystemExit(any(found > limit for _, found, limit, _ in _results))


def report(what: str, found: float, limit: float, unit: str = "s") -> None:
    """Record a figure."""
    _results.append((what, found, limit, unit))
    print(f"{what}: {found:.3g} {unit} (limit {limit:g})", flush=True)


# -- runs to look at ---------------------------------------------------------------------------


def make(path: Path, steps: int, *, status: str = "done", spans: bool = False) -> Path:
    """Write a run with a number of steps; its events have the size of those of train-vcc."""
    if path.exists():
        return path
    for folder in ("ckpt", "control", "logs"):
        (path / folder).mkdir(parents=True)
    began = time.time() - steps * 0.36
    rng = random.Random(0)
    meta = {
        "schema": 1, "command": "train-vcc", "created": "2026-11-28T09:31:12+00:00",
        "config": {"max_steps": steps, "lr": 1e-3, "batch_size": 16}, "status": status,
        "monitor": "gain", "higher_is_better": True, "model": "transformer",
        "process": {"pid": os.getpid(), "host": "elsewhere"},
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(meta, indent=1))
    with (path / "events.jsonl").open("w") as stream:
        for step in range(1, steps + 1):
            event = {
                "t": round(began + 0.36 * step, 3), "kind": "metric", "step": step,
                "loss": 1 + 4 / (1 + step / 3000) + rng.gauss(0, 0.1),
                "mmd": round(rng.random(), 6), "lr": 1e-3, "grad_norm": rng.random(),
                "examples_per_s": 44.1, "examples": 16 * step, "data_wait": 0.03,
            }  # fmt: skip
            stream.write(json.dumps(event, separators=(",", ":")) + "\n")
            if step % 500 == 0:
                event = {
                    "t": event["t"],
                    "kind": "eval",
                    "step": step,
                    "best": True,
                    "gain": rng.random(),
                }
                stream.write(json.dumps(event, separators=(",", ":")) + "\n")
    if spans:
        with (path / "rank-0.jsonl").open("w") as stream:
            for step in range(1, steps + 1):
                stream.write(
                    f'{{"t":{began + 0.36 * step:.3f},"kind":"span","step":{step},"examples":16,'
                )
                stream.write(
                    '"seconds":0.36,"data":0.03,"h2d":0.004,"forward":0.11,"backward":0.19}\n'
                )
    return path


# -- processes ---------------------------------------------------------------------------------

_VCELL = [sys.executable, "-m", "vcell", "monitor"]


def cpu_of(words: list[str]) -> float:
    """Return the CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class MonitorTerminal:
    """The monitor in a pseudo-terminal of 120x40."""

    def __init__(self, path: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
            os.environ.pop("NO_COLOR", None)
            os.execv(sys.executable, [*_VCELL, str(path)])
        import fcntl

        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.seen = b""

    def read(self, seconds: float) -> bytes:
        """Return the output within some time."""
        found, until = b"", time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    found += os.read(self.fd, 1 << 16)
                except OSError:
                    break
        self.seen += found
        return found

    def wait_for(self, word: bytes, seconds: float = 60) -> float:
        """Wait for a word in the output; return the seconds."""
        begun = time.monotonic()
        seen = b""
        while word not in seen:
            seen += self.read(0.005)
            if time.monotonic() - begun > seconds:
                raise SystemExit(f"{word!r} did not come")
        return time.monotonic() - begun

    def processes(self) -> list[int]:
        """Return the ids of the waiting process and of the application."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def cpu(self) -> float:
        """Return the CPU seconds so far, of the application and of the waiting process."""
        ticks = os.sysconf("SC_CLK_TCK")
        total = 0.0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / ticks
        return total

    def running(self) -> float:
        """Return the CPU seconds of the application's first thread, to the microsecond."""
        pid = self.processes()[-1]
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9

    def memory(self) -> float:
        """Return the peak memory of the application in MB."""
        status = Path(f"/proc/{self.processes()[-1]}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def close(self) -> None:
        """Quit the monitor."""
        os.write(self.fd, b"q")
        self.read(0.3)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


# -- the checks --------------------------------------------------------------------------------


def once(root: Path, repeats: int) -> None:
    """Print the state of one long run."""
    make(root / "one" / "long", BIG)
    size = (root / "one" / "long" / "events.jsonl").stat().st_size / 1e6
    words = [*_VCELL, str(root / "one"), "--once", "--json"]
    least = min(cpu_of(words) for _ in range(repeats))
    report(f"--once --json on {size:.0f} MB of events", least, 1.0)


def paint(root: Path, repeats: int) -> None:
    """Start, and show the first screen of a folder."""
    make(root / "one" / "long", BIG)
    least = 1e9
    for _ in range(repeats):
        screen = MonitorTerminal(root / "one")
        screen.wait_for("└".encode())
        least = min(least, screen.cpu())
        screen.close()
    report("first paint", least, 0.9)


def history(root: Path, repeats: int) -> None:
    """Read a whole long run with its spans, and respond to keys meanwhile."""
    path = make(root / "spans" / "long", BIG, spans=True)
    size = sum((path / name).stat().st_size for name in ("events.jsonl", "rank-0.jsonl")) / 1e6
    seconds, memory, slowest = 1e9, 1e9, 1e9
    for _ in range(repeats):
        screen = MonitorTerminal(path)
        screen.wait_for("└".encode())
        answers = []
        for key, word in ((b"5", b"[5 "), (b"2", b"[2 "), (b"4", b"[4 "), (b"2", b"[2 ")):
            screen.read(0.05)
            begun = screen.running()
            os.write(screen.fd, key)
            screen.wait_for(word)
            answers.append(screen.running() - begun)
        used = screen.cpu()
        while True:  # until it is idle
            screen.read(1.5)
            now = screen.cpu()
            if now - used < 0.15:
                break
            used = now
        seconds, memory = min(seconds, screen.cpu()), min(memory, screen.memory())
        slowest = min(slowest, max(answers))
        screen.close()
    report(f"all of {BIG:,} steps, {size:.0f} MB with spans, read and drawn", seconds, 4.0)
    report("memory for that", memory, 120, "MB")
    report("CPU until a key is answered meanwhile, the slowest of four", slowest * 1e3, 100, "ms")


def frame(root: Path, repeats: int) -> None:
    """Draw the run screen with four charts repeatedly."""
    path = make(root / "spans" / "long", BIG, spans=True)
    code = """
import sys, time
from pathlib import Path
from vcell.monitor.view import Viewer
from vcell.monitor.watch import Watch
view = Viewer(Watch(Path(sys.argv[1])))
while view.is_busy():
    view.tick()
view.page(120, 40)
best = 1e9
for _ in range(20):
    begun = time.process_time()
    for _ in range(5):
        view.page(120, 40)
    best = min(best, (time.process_time() - begun) / 5)
print(best)
"""
    words = [sys.executable, "-c", code, str(path)]
    least = min(float(subprocess.check_output(words)) for _ in range(repeats))
    report("frame of four charts at 120x40", least * 1e3, 10, "ms")


def steady(root: Path, repeats: int) -> None:
    """Watch a run that writes once a second, and one that writes nothing."""
    del repeats
    path = make(root / "steady" / "run", 20_000, status="done")
    screen = MonitorTerminal(path)
    screen.wait_for("└".encode())
    screen.read(4)
    before = screen.cpu()
    screen.read(40)
    report("steady, nothing changes", (screen.cpu() - before) / 40 * 100, 0.5, "%")
    screen.close()
    meta = json.loads((path / "run.json").read_text()) | {"status": "running"}
    (path / "run.json").write_text(json.dumps(meta))
    screen = MonitorTerminal(path)
    screen.wait_for("└".encode())
    screen.read(4)
    before = screen.cpu()
    step = 20_000
    with (path / "events.jsonl").open("a") as stream:
        for _ in range(40):
            step += 1
            event = {
                "t": time.time(), "kind": "metric", "step": step, "loss": 1.0 + 0.1 * (step % 7),
                "lr": 1e-3, "grad_norm": 1.0, "examples_per_s": 44.0, "data_wait": 0.03,
            }  # fmt: skip
            stream.write(json.dumps(event) + "\n")
            stream.flush()
            screen.read(1)
    report("steady, an event a second", (screen.cpu() - before) / 40 * 100, 2.5, "%")
    screen.close()


def many(root: Path, repeats: int) -> None:
    """List a thousand runs."""
    for i in range(1000):
        make(root / "many" / f"run-{i:04d}", 20)
    code = """
import sys, time
from pathlib import Path
from vcell.monitor.view import Viewer
from vcell.monitor.watch import Watch
begun = time.process_time()
view = Viewer(Watch(Path(sys.argv[1])))
while view.is_busy():
    view.tick()
page = view.page(120, 40)
print(time.process_time() - begun)
"""
    words = [sys.executable, "-c", code, str(root / "many")]
    least = min(float(subprocess.check_output(words)) for _ in range(repeats))
    report("1,000 runs listed", least, 1.0)


CHECKS: dict[str, Callable[[Path, int], None]] = {
    "once": once,
    "paint": paint,
    "history": history,
    "frame": frame,
    "steady": steady,
    "many": many,
}

if __name__ == "__main__":
    main()
