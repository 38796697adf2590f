"""A false ``libnvidia-ml.so.1`` for tests: real pynvml, real processes, no driver.

    nvml = FakeNvml(tmp_path, cards=2)
    subprocess.run([...], env=os.environ | nvml.environment)
    nvml[0].power_limit          # what a driver would still know, after the process has died

The state lies in a mapped file, which both sides write. `Card` and `Machine` say what there is; the
C structures are written from them. A card draws 120 W and up to 580 W more with the cube of its
clock, times its `load`; energy is integrated over the real clock, or over `machine.now` if set.

Hooks, in `hooks` or in the variable FAKE_NVML_HOOKS, separated by blanks (``*``: every name):

``FAIL=name:code``      the function returns the code (15 lost, 3 not supported, 4 no permission)
``FAIL=name:code@1``    only for card 1; of `nvmlInit` and the like there is no card
``LIE=name``            the setter returns success and does nothing
``DIE=name:n``          SIGKILL after the nth setter of that name; counted over processes
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from ctypes import c_char, c_double, c_int32, c_uint32, c_uint64
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

SOURCE = Path(__file__).with_name("fake.c")
CARDS, PIDS, CALLS = 16, 8, 256
LOST, NOT_SUPPORTED, NO_PERMISSION, MISMATCH, NO_DRIVER = 15, 3, 4, 18, 9


class Call(ctypes.Structure):
    """A setter that was called, in order: `FakeNvml.calls`."""

    _fields_ = [
        ("name", c_char * 64),
        ("card", c_int32),
        ("a", c_uint32),
        ("b", c_uint32),
        ("pid", c_int32),
    ]


class Card(ctypes.Structure):
    """What the driver knows of a card. Milliwatts, megahertz, degrees, bytes."""

    _fields_ = [
        ("memory", c_uint64),
        ("memory_used", c_uint64),
        ("more_reasons", c_uint64),  # throttle reasons beside those that follow from the rest
        ("energy_mj", c_double),
        ("energy_at", c_double),
        ("load", c_double),  # 0 idle .. 1 busy
        ("name", c_char * 64),
        ("uuid", c_char * 64),
        ("error", c_int32),  # every question about the card is answered with it
        ("migs", c_int32),  # -1 has no MIG, 0 off, else so many instances
        ("bus", c_uint32),
        ("capability", c_uint32),  # 90
        ("persistence", c_uint32),
        ("max_watts", c_uint32),  # drawn at full clock and load
        ("power_limit", c_uint32),
        ("default_limit", c_uint32),
        ("least_limit", c_uint32),
        ("most_limit", c_uint32),
        ("other_limit", c_uint32),  # of the chassis: what is enforced is the smaller one; 0 none
        ("max_mhz", c_uint32),
        ("idle_mhz", c_uint32),
        ("lock_min", c_uint32),
        ("lock_max", c_uint32),
        ("memory_mhz", c_uint32),
        ("memory_lock_min", c_uint32),
        ("memory_lock_max", c_uint32),
        ("hot", c_uint32),  # degrees, in the place of those that follow from the watts; 0 none
        ("slowdown", c_uint32),
        ("gpu_max", c_uint32),
        ("pids", c_int32 * PIDS),  # who uses it, up to the first 0
    ]


class Machine(ctypes.Structure):
    """The driver and its cards."""

    _fields_ = [
        ("now", c_double),  # seconds; 0: the real clock
        ("n_cards", c_int32),
        ("permission", c_int32),  # whether setters are allowed
        ("cuda", c_int32),  # 13000
        ("n_calls", c_int32),
        ("n_set", c_int32),
        ("n_deadly", c_int32),  # setters of the name that DIE counts
        ("driver", c_char * 64),
        ("hooks", c_char * 1024),
        ("cards", Card * CARDS),
        ("calls", Call * CALLS),
    ]


class FakeNvml:
    """A driver with some cards, all H100s at rest until a test says otherwise."""

    def __init__(self, folder: Path, cards: int = 1) -> None:
        self.path = folder / "fake-nvml"
        self.path.write_bytes(bytes(ctypes.sizeof(Machine)))
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.machine = Machine.from_buffer(self._map)
        self.machine.driver, self.machine.cuda, self.machine.permission = b"580.65.06", 13000, 1
        self.machine.n_cards = cards
        for i in range(cards):
            _h100(self[i], i)

    def __getitem__(self, index: int) -> Any:
        return self.machine.cards[index]

    @property
    def hooks(self) -> str:
        return self.machine.hooks.decode()

    @hooks.setter
    def hooks(self, text: str) -> None:
        self.machine.hooks, self.machine.n_deadly = text.encode(), 0

    @property
    def calls(self) -> list[tuple[str, int, int, int]]:
        """The setters called so far: name without ``nvmlDevice``, card, arguments."""
        found = self.machine.calls[: min(self.machine.n_calls, CALLS)]
        return [(c.name.decode().removeprefix("nvmlDevice"), c.card, c.a, c.b) for c in found]

    @property
    def environment(self) -> dict[str, str]:
        """What a process must find in its environment to see these cards."""
        return {"LD_LIBRARY_PATH": str(library().parent), "FAKE_NVML_STATE": str(self.path)}


def _h100(card: Card, index: int) -> None:
    values = {
        "memory": 80 << 30, "memory_used": 1 << 30, "name": b"NVIDIA H100 80GB HBM3",
        "uuid": f"GPU-{index}ab1c2d3-0000-4000-8000-00000000000{index % 10}".encode(),
        "migs": 0, "bus": 0x10 + index, "capability": 90, "max_watts": 700,
        "power_limit": 700_000, "default_limit": 700_000, "least_limit": 200_000,
        "most_limit": 700_000, "max_mhz": 1980, "idle_mhz": 345, "memory_mhz": 2619,
        "slowdown": 90, "gpu_max": 87,
    }  # fmt: skip
    for name, value in values.items():
        setattr(card, name, value)


@lru_cache(maxsize=1)
def library() -> Path:
    """Compile the library, once for a process, into a folder of its own."""
    folder = Path(mkdtemp(prefix="fake-nvml-"))
    (folder / "layout.h").write_text(layout())
    target = folder / "libnvidia-ml.so.1"
    words = ["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-Wl,-soname,libnvidia-ml.so.1"]
    words += [f"-I{folder}", "-o", str(target), str(SOURCE), "-lm"]
    subprocess.run(words, check=True)
    return target


def layout() -> str:
    """Write the structures as C."""
    words = {c_double: "double", c_int32: "int", c_uint32: "unsigned", c_char: "char"}
    words |= {c_uint64: "unsigned long long", Card: "Card", Call: "Call"}
    lines = [f"#define {name} {globals()[name]}" for name in ("PIDS", "CALLS")]
    for structure in (Call, Card, Machine):
        fields = []
        for name, kind in structure._fields_:
            length = getattr(kind, "_length_", None)
            word = words[kind._type_ if length else kind]
            fields.append(f"  {word} {name}{f'[{length}]' if length else ''};")
        lines += ["typedef struct {", *fields, f"}} {structure.__name__};"]
        size = ctypes.sizeof(structure)
        lines.append(f'_Static_assert(sizeof({structure.__name__}) == {size}, "layout");')
    return "\n".join(lines) + "\n"
